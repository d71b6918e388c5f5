"""Storage that not all nodes share: told before the first run, or by the first run on a node that came later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fakes
import pytest
import ray
from namespaces import skip_without_namespaces
from ray_heads import head, wait_until, worker
from ray_marks import starts_ray

from subsettune.errors import StudyError
from subsettune.policy import conventional
from subsettune.storage import Folder
from subsettune.study.execute.ray_reach import check_nodes
from subsettune.study.execute.requests import Failure, RunRequest
from subsettune.study.execute.worker import Worker
from subsettune.train.loop import facts


@starts_ray
@pytest.mark.slow
def test_a_node_that_does_not_share_the_folder_is_named_before_the_first_run(
    tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: a real raylet that has another folder mounted in place of the storage."""
    skip_without_namespaces()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    storage = tmp_path / "runs"
    storage.mkdir()
    hands = Worker(task=fakes.image_task(tiny_data), options=fakes.options(), logs=str(tmp_path / "logs"))
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {storage} && exec "$@"', "-"]
    with head(tmp_path) as address, worker(address, tmp_path, before=hidden):
        ray.init(address, log_to_driver=False, logging_level="CRITICAL")
        try:
            wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)
            with pytest.raises(StudyError) as caught:
                check_nodes(hands, {}, str(storage), print, len)
        finally:
            ray.shutdown()
    assert f"cannot train: it does not see {storage}. Give a --storage that all nodes share" in str(caught.value)
    assert Folder.at(storage).names() == []


def test_a_node_that_came_later_and_does_not_share_it_ends_the_study(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    task = fakes.image_task(tiny_data)
    request = RunRequest(name="run-1", role="reference", policy=conventional(facts(task)), seed=0)
    shared = tmp_path / "runs" / "a" / "study.yaml"
    hands = Worker(task=task, options=fakes.options(), logs=str(tmp_path / "logs"), shared=str(shared))
    told = hands.train(request, lambda point: False)
    assert isinstance(told, Failure)
    assert told.ends_study == "StorageError"
    assert f" does not see {tmp_path / 'runs'}. Give a --storage that all nodes share" in told.message
    shared.parent.mkdir(parents=True)
    shared.touch()
    assert not isinstance(hands.train(request, lambda point: False), Failure)
    elsewhere = dataclasses.replace(hands, shared="s3://bucket/runs/a/study.yaml")  # shared by what it is
    assert not isinstance(elsewhere.train(request, lambda point: False), Failure)
