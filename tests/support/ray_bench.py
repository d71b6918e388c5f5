"""Runs through Ray Tune on a small cluster of real processes: a task with an unruly network, and its executor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fakes
import ray
from places import SUPPORT

from subsettune.config import FrozenDict
from subsettune.data import load
from subsettune.facts import TaskFacts
from subsettune.policy import Policy, conventional
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.ray import RayExecutor
from subsettune.study.execute.ray_cluster import Resources
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import FixedRuns, StageSequence, stopwatch
from subsettune.study.execute.worker import Worker
from subsettune.study.results.records import RunRecord
from subsettune.task import Task
from subsettune.train.loop import facts as facts_of

CLIENT_PORT = 20000 + os.getpid() % 10000


class Bench:
    """A task with an unruly network, and an executor for it."""

    def __init__(self, folder: Path, data: dict[str, str], address: str | None) -> None:
        self.folder, self.address, self.notes, self.soup_processes = folder, address, list[str](), 0
        self.checkpoint_every_s: float | None = None
        shutil.copy(SUPPORT / "unruly.py", folder)
        self.task: Task = fakes.image_task(data, {"name": "unruly:Unruly", "folder": str(folder)})
        self.facts: TaskFacts = facts_of(self.task)
        self.records: list[RunRecord] = []

    def order(self, words: str) -> None:
        (self.folder / "order").write_text(words)

    def worker(self, name: str = "ray") -> Worker:
        options = fakes.options(
            checkpoints=str(self.folder / name / "checkpoints"),
            checkpoint_every_s=self.checkpoint_every_s,
            fingerprint=load(self.task).fingerprint,
            soup_processes=self.soup_processes if name == "ray" else 0,
        )
        return Worker(task=self.task, options=options, logs=str(self.folder / name / "logs"))

    def execute(
        self,
        requests: list[RunRequest],
        code: Mapping[str, str] = FrozenDict(),
        source: Callable[[FixedRuns], Any] = lambda runs: runs,
        **resources: Any,
    ) -> list[RunRecord]:
        """Train on the cluster, by the source that one of fixed runs is made into."""
        executor = RayExecutor(
            self.worker(),
            self.facts,
            len(load(self.task).validation),
            stopwatch(),
            resources=Resources(address=self.address, **resources),
            storage=str(self.folder / "ray"),
            note=self.notes.append,
            code=code,
        )
        executor.execute(StageSequence(iter([source(FixedRuns(requests, self.records.append))])))
        return self.records

    def inline(self, requests: list[RunRequest]) -> list[RunRecord]:
        records: list[RunRecord] = []
        executor = InlineExecutor(self.worker("inline"), self.facts, len(load(self.task).validation), stopwatch())
        executor.execute(StageSequence(iter([FixedRuns(requests, records.append)])))
        return records

    def most_at_once(self, window_s: float) -> int:
        """Processes that trained within any stretch of time."""
        lines = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        seen = sorted((float(at), pid) for pid, at in lines)
        return max(len({pid for at, pid in seen if start <= at < start + window_s}) for start, _ in seen)


def nodes_of(address: str) -> list[dict[str, Any]]:
    ray.init(address=address, log_to_driver=False)
    try:
        return list(ray.nodes())  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def requests(bench: Bench, count: int, policy: Policy | None = None) -> list[RunRequest]:
    policy = policy or conventional(bench.facts)
    return [RunRequest(name=f"run-{i}", role="reference", policy=policy, seed=i) for i in range(count)]


class StopAt:
    """A source that stops its runs at a share."""

    def __init__(self, inner: FixedRuns, share: float) -> None:
        self.next, self.finished, self.share = inner.next, inner.finished, share

    def progress(self, request: RunRequest, point: Any) -> bool:
        return bool(point.share >= self.share)
