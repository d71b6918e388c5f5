"""What goes with every run is small, and is refused with the name of what is not."""

from __future__ import annotations

import json
import re

import fakes
import pytest
from facts import made_up_facts

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.policy import Phase, Policy
from subsettune.study.execute.payload import MOST_BYTES, sent
from subsettune.study.execute.ray import RayExecutor
from subsettune.study.execute.ray_cluster import Resources
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import StageSequence, stopwatch
from subsettune.study.execute.worker import Worker
from subsettune.task import Task


def worker(**options: object) -> Worker:
    task = {"train": "own_functions:plain", "train_options": options, "examples": 120, "tolerance": 0.01}
    recipe = {"lr": 0.1, "batch_size": 16, "epochs": 2}
    return Worker(task=config.build(Task, {**task, "recipe": recipe}), options=fakes.options(), logs="logs")


def test_what_is_sent_is_read_again() -> None:
    small = worker(width=64)
    assert config.build(Worker, json.loads(sent("worker", small))) == small


def test_what_is_too_large_is_named_with_its_size_and_a_remedy() -> None:
    ids = tuple(range(200_000))
    with pytest.raises(StudyError) as caught:
        sent("worker", worker(width=64, table={"ids": ids, "name": "x"}))
    assert str(caught.value) == (
        "worker.task.train_options.table.ids must be small: all that goes with a run has at most 1,000,000 bytes, got "
        f"'{len(config.canonical_json(ids)):,} bytes'. Put it into a file that every node can read, and give its path "
        "instead."
    )


def test_the_limit_is_on_all_of_it() -> None:
    half = "x" * (MOST_BYTES // 2)
    with pytest.raises(StudyError, match=re.escape("worker.task.train_options must be small")):
        sent("worker", worker(**dict.fromkeys("abc", half)))


def test_a_policy_may_be_too_large_as_well() -> None:
    policy = Policy(phases=(Phase(passes=1.0),), recipe=FrozenDict({"own": FrozenDict({"table": "x" * MOST_BYTES})}))
    with pytest.raises(StudyError, match=re.escape("run.policy.recipe.own.table must be small")):
        sent("run", RunRequest(name="run", role="trial", policy=policy, seed=0))


def test_a_study_is_refused_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subsettune.study.execute.ray.cluster", lambda *_: pytest.fail("Ray was started"))
    executor = RayExecutor(
        worker(table="x" * MOST_BYTES),
        made_up_facts(),
        0,
        stopwatch(),
        resources=Resources(),
        storage="storage",
        note=print,
    )
    with pytest.raises(StudyError, match=r"train_options\.table must be small"):
        executor.execute(StageSequence(iter([])))
