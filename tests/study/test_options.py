"""Run ids: a fresh one for each study, whoever starts at the same moment."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed, write

from subsettune import DataPaths, TuneOptions, tune
from subsettune.errors import DataError, StorageError
from subsettune.storage import Folder
from subsettune.study.options import check_storage, fresh_run_id

ROUNDS = 200
PROCESSES = 2


def claim(storage: str, barrier: Barrier, answer: Connection) -> None:
    """In each round, claim a run id at the same moment as the others; tell all of them."""
    found = []
    for number in range(ROUNDS):
        barrier.wait(timeout=60)
        with fresh_run_id(f"{storage}/{number}", "study") as run_id:
            found.append(run_id)
    answer.send(found)


def test_two_processes_that_start_at_once_get_one_each(tmp_path: Path) -> None:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["subsettune.study.options"])
    barrier = forks.Barrier(PROCESSES)
    receivers, children = [], []
    for _ in range(PROCESSES):
        receiver, sender = forks.Pipe(duplex=False)
        child = forks.Process(target=claim, args=(str(tmp_path), barrier, sender))
        child.start()
        receivers.append(receiver)
        children.append(child)
    found = [receiver.recv() for receiver in receivers]
    for child in children:
        child.join(30)
    assert [set(ids) for ids in zip(*found, strict=True)] == [{"study-1", "study-2"}] * ROUNDS


def test_numbers_go_on_after_those_that_are_there(tmp_path: Path) -> None:
    storage = str(tmp_path / "runs")
    with fresh_run_id(storage, "a") as first, fresh_run_id(storage, "a") as second, fresh_run_id(storage, "b") as other:
        assert (first, second, other) == ("a-1", "a-2", "b-1")
    (tmp_path / "runs/a-1").rmdir()
    with fresh_run_id(storage, "a") as again:
        assert again == "a-1"


def test_an_error_gives_the_id_back_unless_the_study_had_begun(tmp_path: Path) -> None:
    def fails(begins: bool) -> None:
        with fresh_run_id(str(tmp_path), "a") as run_id:
            if begins:
                (tmp_path / run_id / "manifest.json").write_text("{}")
            raise KeyError

    for begins, left in ((False, []), (True, [tmp_path / "a-1"])):
        with pytest.raises(KeyError):
            fails(begins)
        assert list(tmp_path.iterdir()) == left


def test_a_study_that_cannot_be_run_leaves_no_folder(tmp_path: Path) -> None:
    options = TuneOptions(storage=str(tmp_path / "runs"), places=DataPaths(cache=str(tmp_path)), executor="inline")
    with pytest.raises(DataError, match="are not there"):
        tune(changed({"task.data": {"source": str(tmp_path / "none.npz")}}), options=options)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_storage_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    study = write(tmp_path / "s.yaml")
    with pytest.raises(StorageError, match=r"Give a --storage folder"):
        tune(study, options=TuneOptions(storage=str(tmp_path / "file"), executor="inline"))


def test_an_object_store_gives_something_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        is_local = False

        def names(self) -> list[str]:
            return ["a-1", "a-2-0123ab"]

    monkeypatch.setattr(Folder, "at", lambda _: Store())
    found: set[Any] = set()
    for _ in range(20):
        with fresh_run_id("s3://bucket/runs", "a") as run_id:
            found.add(run_id)
    assert len(found) == 20
    assert {run_id[:4] for run_id in found} == {"a-3-"}


@pytest.mark.parametrize("storage", ["runs", "./runs", "/tmp/ray/session/runtime_resources/working_dir_files/a/runs"])
def test_a_job_of_a_cluster_keeps_nothing_in_its_copy_of_the_working_folder(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError) as caught:
        tune(changed({}), run_id="a", options=TuneOptions(storage=storage, executor="inline"))
    assert str(caught.value) == (
        f"--storage must be a place that stays, in a job of a cluster, got {storage!r}. A job runs in a copy of the "
        "working folder on the head node, which goes with it. Give a bucket, as s3://BUCKET/runs, or the full path "
        "of a folder that all nodes mount."
    )
    assert list(tmp_path.iterdir()) == []
    for sound in (str(tmp_path), "s3://bucket/runs", "~/runs"):
        check_storage(TuneOptions(storage=sound))
