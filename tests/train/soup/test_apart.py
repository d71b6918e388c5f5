"""Workers of a soup in processes of their own: the bits of one process, from checkpoints of either; one that dies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from fakes import image_task, options, same_bits
from ray.cluster_utils import Cluster
from ray_marks import RAY_MARKS

from subsettune import train
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.policy import Phase, Policy, Soup
from subsettune.task import Task
from subsettune.train import RunResult
from subsettune.train.soup import apart

pytestmark = RAY_MARKS
Data = dict[str, str]
SOUP = Soup(workers=3, density=0.3, masks="data", rand_augment=9)
POLICY = Policy(phases=(Phase(share=0.5, passes=1.5, soup=SOUP), Phase(passes=1.0)))


@pytest.fixture(scope="module")
def processes() -> Iterator[None]:
    """Ray: that other processes do the same is the point."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def task(tiny_data: Data) -> Task:
    return image_task(tiny_data, {"name": "cnn", "channels": [4]}, augment={"flip": True, "crop_padding": 1})


def run(task: Task, report: Any = None, **changes: Any) -> RunResult:
    asked = options(keep_model=True, splits=("test",), soup_workers="in_turn", **changes)
    return train.run(task, POLICY, 3, report=report, options=asked)


def same(found: RunResult, expected: RunResult) -> None:
    assert same_bits(found.model, expected.model)
    assert (found.metrics, found.ledger, found.updates) == (expected.metrics, expected.ledger, expected.updates)
    assert [(p.share, p.metric, p.loss) for p in found.curve] == [(p.share, p.metric, p.loss) for p in expected.curve]
    ours, theirs = found.soups[0], expected.soups[0]
    assert (ours.coverage, ours.flops, ours.longest_flops) == (theirs.coverage, theirs.flops, theirs.longest_flops)


def test_the_bits_are_those_of_one_process(task: Task, processes: None) -> None:
    found = run(task, soup_processes=2)  # of three workers one process has two
    same(found, run(task))
    assert found.soups[0].longest_s is not None
    assert found.soups[0].longest_s > 0


def test_either_goes_on_from_what_the_other_has_kept(task: Task, processes: None, tmp_path: Path) -> None:
    kept = {"checkpoints": str(tmp_path)}
    for share, count in ((0.15, 2), (0.35, 0)):
        assert (
            run(task, lambda point, share=share: point.share > share, soup_processes=count, **kept).cause == "stopped"
        )
    same(run(task, soup_processes=2, **kept), run(task))


def test_a_process_that_dies_fails_the_run_with_its_cause(
    task: Task, processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crews: list[apart.Apart] = []
    monkeypatch.setattr(apart, "_draws", lambda _: False)
    plain = apart.Apart.step

    def step(self: apart.Apart, *given: Any) -> Any:
        crews.append(self)
        if len(crews) == 3:
            ray.kill(self._actors[0])
        return plain(self, *given)

    monkeypatch.setattr(apart.Apart, "step", step)
    with pytest.raises(SubsettuneError, match="a process that trained workers of the soup died: "):
        run(task, soup_processes=2, checkpoints=str(tmp_path))
    assert crews[0]._actors == [], "the others are let go of"
    monkeypatch.setattr(apart.Apart, "step", plain)
    same(run(task, soup_processes=2, checkpoints=str(tmp_path)), run(task))


def test_networks_that_draw_random_numbers_are_refused(tiny_data: Data, processes: None) -> None:
    words = "model must be one that draws no random numbers in training, with soup_processes, got 'fakes:Noisy'."
    with pytest.raises(ConfigError, match=re.escape(words)):
        run(image_task(tiny_data, {"name": "fakes:Noisy"}), soup_processes=2)


def test_workers_that_train_at_once_are_in_one_process(task: Task, processes: None) -> None:
    asked = options(soup_workers="together", soup_processes=2)
    with pytest.raises(ConfigError, match="soup_workers must be in_turn with soup_processes, got 'together'"):
        train.run(task, POLICY, 3, options=asked)
