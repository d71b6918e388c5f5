"""Nodes that are asked before the first run: what they lack ends a study, and that they cannot be asked does not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import fakes
import pytest
import ray
from ray.cluster_utils import Cluster

from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.execute import ray_reach
from subsettune.study.execute.node_check import versions_here
from subsettune.study.execute.ray_cluster import Resources
from subsettune.study.execute.ray_reach import check_nodes
from subsettune.study.execute.worker import Worker

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PROGRAMS = {
    "ended": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "slow": "import time; time.sleep(60)",
}


@pytest.fixture(scope="module", autouse=True)
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, beside another cluster on this machine; only the second takes runs. Ray: its workers are asked."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("code")
    for name, program in PROGRAMS.items():
        (folder / f"{name}.py").write_text(program)
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    other = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    both = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    both.add_node(num_cpus=2)
    ray.init(both.address, log_to_driver=False, logging_level="CRITICAL")
    yield both
    ray.shutdown()
    both.shutdown()
    other.shutdown()
    patch.undo()


@pytest.fixture
def worker(tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.chdir(tmp_path)
    return Worker(task=fakes.image_task(tiny_data), options=fakes.options(), logs=str(tmp_path / "logs"))


def test_nodes_that_have_everything_say_nothing(worker: Worker, tmp_path: Path) -> None:
    notes: list[str] = []
    check_nodes(worker, {}, str(tmp_path / "runs"), notes.append)
    check_nodes(worker, {}, str(tmp_path / "runs"), notes.append, Resources(cpus=2).fit_in)
    assert notes == []
    assert Folder.at(tmp_path / "runs").names() == []


def test_a_node_with_other_versions_is_named(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_reach, "versions_here", lambda: {**versions_here(), "torch": "1.0.0"})
    words = (
        r"^the workers? on nodes? [\d.]+ cannot train: it has torch \S+ where the driver has 1.0.0. Install the same"
    )
    with pytest.raises(StudyError, match=words):
        check_nodes(worker, {}, str(tmp_path / "runs"), print)
    assert Folder.at(tmp_path / "runs").names() == []


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("ended", r"^Node [\d.]+ could not be asked what runs need: WorkerCrashedError, The worker died unexpectedly"),
        ("slow", r"^Node [\d.]+ could not be asked what runs need: no answer in 4 s. Runs are tried there nonetheless"),
    ],
)
def test_a_node_that_cannot_be_asked_is_told_and_its_runs_are_tried(
    module: str, words: str, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_reach, "RETRIES", 0)
    monkeypatch.setattr(ray_reach, "ANSWER_S", {"ended": 60.0, "slow": 4.0}[module])
    notes: list[str] = []
    fits = Resources(cpus=2).fit_in
    check_nodes(worker, {f"{module}:net": "task.model.name"}, str(tmp_path / "runs"), notes.append, fits)
    (note,) = notes
    assert re.match(words, note), note
