"""A study whose storage is an object store: a real server that speaks S3, or Google's storage, on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import gs_server
import pytest
import s3_server
from proxy import Proxy
from pyarrow import fs
from ray_marks import starts_ray

from subsettune import Callback, cli, config, patience
from subsettune.api import tune
from subsettune.bundle import Bundle
from subsettune.errors import StorageError, StudyError
from subsettune.report.progress import SilentProgress
from subsettune.storage import Folder, inside
from subsettune.study.options import TuneOptions, fresh_run_id
from subsettune.study.results import lease
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.lease import Lease, LeaseTimes

pytestmark = s3_server.MARKS  # and Google's

PROXIES: list[Proxy] = []  # the one before the server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of a folder in a fresh bucket."""
    with s3_server.bucket() as (uri, proxy):
        PROXIES.append(proxy)
        yield uri
        PROXIES.remove(proxy)


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """URI of a folder in a fresh bucket of either kind."""
    if request.param == "s3":
        yield request.getfixturevalue("bucket")
        return
    with gs_server.bucket() as uri:
        yield uri


def mapping(data: dict[str, str], **settings: Any) -> dict[str, Any]:
    space = {"budget": {"log": [0.3, 0.9]}, "arm": {"choice": ["full", "subset"]}, "switch": 0.3, "subset_share": 0.5}
    return {
        "task": {**config.to_plain(fakes.image_task(data)), "tolerance": 0.5},
        "space": {**space, "selector": {"choice": ["random", "stratified"]}},
        "study": {"trials": 3, "seeds": 3, "max_seeds": 3, "candidates": 1, "sampler": "random", **settings},
    }


def test_a_name_goes_before_the_query() -> None:
    assert inside("s3://b/runs?region=x&scheme=http", "a/b") == "s3://b/runs/a/b?region=x&scheme=http"
    assert inside("s3://b/runs/", "a") == "s3://b/runs/a"
    assert inside("/here", "a") == "/here/a"
    assert inside("here", "a") == str(Path.cwd() / "here" / "a")


@pytest.mark.slow
def test_a_study_lives_on_an_object_store(
    store: str, tiny_data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TuneOptions(storage=store, executor="inline", command="subsettune tune x.yaml")
    view = tune(mapping(tiny_data), run_id="one", options=options).view
    names = (Folder.at(store) / "one").names()
    assert {"manifest.json", "study.yaml", "report.html", "bundle", "optuna.journal", "trials.parquet"} <= set(names)
    segments = (Folder.at(store) / "one" / "optuna.journal").names()
    assert segments[0] == "00000000.jsonl"
    assert segments == sorted(segments)
    assert view.summary.verified

    assert cli.main(["show", "one", "--storage", store, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bundle"] == inside(store, "one/bundle")
    assert cli.main(["export", "one", str(tmp_path / "bundle"), "--storage", store]) == 0
    assert Bundle.load(str(tmp_path / "bundle")).policy == Bundle.load(shown["bundle"]).policy

    assert cli.main(["list", "--storage", store]) == 0
    assert ["one", "finished"] in [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    (Folder.at(store) / "one").remove("report.html")
    assert cli.main(["report", "one", "--storage", store]) == 0
    assert (Folder.at(store) / "one").read("report.html").startswith(b"<!doctype html>")

    more = tune(mapping(tiny_data, trials=5), run_id="one", options=options).view
    assert [t.name for t in more.trials] == [f"trial-{i:04d}" for i in range(5)]
    assert more.trials[:3] == view.trials
    assert more.reference == view.reference
    with fresh_run_id(store, "x") as first:
        (Folder.at(store) / first).write("study.yaml", b"")
    with fresh_run_id(store, "x") as second:
        assert (first.rpartition("-")[0], second.rpartition("-")[0]) == ("x-1", "x-2")
    assert cli.main(["clean", "--runs", "one", "--keep-caches", "--yes", "--storage", store]) == 0
    assert not (Folder.at(store) / "one").exists()


def test_an_interrupted_run_goes_on_from_its_checkpoint_there(store: str, tiny_data: dict[str, str]) -> None:
    from subsettune.train import run

    task = fakes.image_task(tiny_data)
    policy = fakes.two_phases(1.0, 2.0)
    options = fakes.options(checkpoints=inside(store, "two/tune/checkpoints"))

    def interrupt(point: Any) -> bool:
        if point.share > 0.5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(task, policy, 0, report=interrupt, options=options)
    names = Folder.at(inside(store, "two/tune/checkpoints")).names()
    assert sorted(Path(name).suffix for name in names) == [".checkpoint", ".mark"]
    resumed, whole = run(task, policy, 0, options=options), run(task, policy, 0, options=fakes.options())
    assert (resumed.metrics, resumed.ledger) == (whole.metrics, whole.ledger)
    assert resumed.repeated_flops > 0


@pytest.mark.slow
def test_a_missing_segment_of_the_journal_is_told_and_nothing_is_lost(store: str, tiny_data: dict[str, str]) -> None:
    options = TuneOptions(storage=store, executor="inline")
    tune(mapping(tiny_data), run_id="three", options=options)
    folder = Folder.at(store) / "three"
    content = folder.read("optuna.journal/00000001.jsonl")
    folder.remove("optuna.journal/00000001.jsonl")
    with pytest.raises(StudyError, match=r"the journal (s3|gs)://bucket/runs/three/optuna.journal lacks a segment"):
        tune(mapping(tiny_data, trials=4), run_id="three", options=options)
    folder.write("optuna.journal/00000001.jsonl", content)
    assert len(tune(mapping(tiny_data, trials=4), run_id="three", options=options).view.trials) == 4
    assert len(StudyFolder(store, "three").open().records("trial")) == 4


@pytest.mark.slow
@starts_ray
def test_runs_of_a_cluster_write_there_too(store: str, tiny_data: dict[str, str]) -> None:
    """Ray: Tune and the workers open the store themselves."""
    study = mapping(tiny_data, trials=2, seeds=2, max_seeds=2)
    there = tune(study, run_id="four", options=TuneOptions(storage=store)).view
    here = tune(study, run_id="five", options=TuneOptions(storage=store, executor="inline")).view
    assert [(t.metric, t.cause) for t in there.trials] == [(t.metric, t.cause) for t in here.trials]
    assert (Folder.at(store) / "four" / "tune").names() == []


def test_a_second_driver_is_refused_there_and_changes_nothing(store: str, tiny_data: dict[str, str]) -> None:
    folder = Folder.at(store) / "six"
    first = Lease(folder, "six", LeaseTimes())
    with pytest.raises(StudyError, match=r"study 'six' is being driven already, by process \d+ on .*Wait for it or"):
        tune(mapping(tiny_data), run_id="six", options=TuneOptions(storage=store, executor="inline"), quiet=True)
    assert folder.names() == [lease.PLACE]
    first.check()
    first.release()
    assert (folder / lease.PLACE).names() == []


class Away(Callback):
    """Takes a store away when a run has ended, and gives it back after a while."""

    def __init__(self, proxy: Proxy, name: str, seconds: float) -> None:
        self.proxy, self.name, self.seconds = proxy, name, seconds

    def on_trial(self, run: Any) -> None:
        if run.name == self.name:
            self.proxy.close()
            threading.Timer(self.seconds, self.proxy.open).start()


class Notes(SilentProgress):
    """What a study says of its storage."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, message: str) -> None:
        if message.startswith("s3://"):
            self.told.append(message)


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while_is_waited_for(bucket: str, tiny_data: dict[str, str]) -> None:
    study, notes = mapping(tiny_data), Notes()
    options = TuneOptions(storage=bucket, executor="inline")
    away = Away(PROXIES[0], "trial-0001", 8.0)
    view = tune(study, run_id="seven", options=options, observer=notes, callbacks=[away]).view
    assert [t.name for t in view.trials] == ["trial-0000", "trial-0001", "trial-0002"]
    assert view.summary.verified
    first, last = notes.told
    assert first.startswith("s3://bucket does not answer; it is tried again for 120 s. When ")
    assert last.startswith("s3://bucket answers again, after ")
    here = tune(study, run_id="eight", options=options, quiet=True).view
    assert [(t.metric, t.seed, t.policy) for t in view.trials] == [(t.metric, t.seed, t.policy) for t in here.trials]


@pytest.mark.slow
def test_a_store_that_is_gone_for_good_stops_a_study_in_a_sentence(
    bucket: str, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 3.0)
    options = TuneOptions(storage=bucket, executor="inline")
    away = Away(PROXIES[0], "trial-0001", 9.0)
    with pytest.raises(StorageError) as caught:
        tune(mapping(tiny_data), run_id="nine", options=options, quiet=True, callbacks=[away])
    assert "cannot be" in str(caught.value)
    assert ": no answer in " in str(caught.value)
    assert str(caught.value).endswith("start the same command again when the storage is back.")
    while True:
        try:
            patience.patiently(lambda: Folder.at(bucket).names(), "x", is_remote=True)
            break
        except StorageError:
            time.sleep(0.5)
    assert len(tune(mapping(tiny_data), run_id="nine", options=options, quiet=True).view.trials) == 3


def test_a_bucket_that_is_not_there_is_told_at_once(bucket: str) -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot be written: .*NO_SUCH_BUCKET.*Give a --storage folder that can be"):
        (Folder.at(bucket.replace("//bucket", "//nowhere")) / "a").write("b", b"1")
    assert time.monotonic() - started < patience.TOLD_AFTER_S


def test_a_bucket_of_google_s_that_is_not_there_is_told_in_words() -> None:
    with (
        gs_server.bucket() as uri,
        pytest.raises(StorageError, match=r"^gs://nowhere/.*there is no such bucket\. Give"),
    ):
        (Folder.at(uri.replace("@bucket", "@nowhere")) / "a").write("b", b"1")


def test_keys_in_the_address_are_in_no_file_and_on_no_terminal(
    bucket: str, tiny_data: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")
    uri = bucket.replace("s3://", "s3://MYKEYID:MYSECRET@")
    (tmp_path / "study.json").write_text(json.dumps(mapping(tiny_data)))
    study = ["tune", str(tmp_path / "study.json"), "--inline", "--run-id", "keys", "--storage", uri]
    assert cli.main(study) in (0, 3)
    assert cli.main(["show", "keys", "--storage", uri]) == 0
    assert cli.main(["report", "keys", "--storage", uri]) == 0
    told = "".join(capfd.readouterr())
    assert "--storage 's3://***@bucket/runs?" in told
    folder = Folder.at(bucket) / "keys"
    found = folder.filesystem.get_file_info(fs.FileSelector(folder.path, recursive=True))
    files = [info.path.removeprefix(f"{folder.path}/") for info in found if info.is_file]
    assert len(files) > 5
    kept = b"".join(folder.read(name) for name in files)
    for secret in ("MYSECRET", "MYKEYID"):
        assert secret not in told
        assert secret.encode() not in kept
