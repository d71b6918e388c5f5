"""Carries out one run after the other, wherever it is: trains, tries again, and says what went wrong."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from subsettune import config
from subsettune.config import FrozenDict, setting
from subsettune.errors import CheckpointError, ConfigError, StorageError, StudyError
from subsettune.registry import OPTIMIZERS, ORDERS, SELECTORS, TRANSITIONS
from subsettune.storage import Folder, inside, not_shared
from subsettune.study.execute.gpus import why_without_gpu
from subsettune.study.execute.looks import Looks
from subsettune.study.execute.node_check import other_versions, versions_here
from subsettune.study.execute.outcomes import PartialRun
from subsettune.study.execute.requests import INFRASTRUCTURE_ERRORS, Failure, RunRequest
from subsettune.task import Task
from subsettune.train.checkpoint import Checkpoints, ProgressMarker
from subsettune.train.loop import RunOptions, run, run_key, study_code
from subsettune.train.result import CurvePoint, RunResult

T = TypeVar("T")
ATTEMPTS = 2  # a failed run is retried once, then recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What every run of a study needs besides its request; goes to the workers as JSON, never with the data.

    Args:
        task: what is trained.
        options: of the runs; each request sets its own splits.
        logs: folder or URI for the traces of failed runs.
        alone: words of the command that trains the task by itself; policy and seed are added to them.
        code: content hashes of the user's own code as the study's driver has it, by name; a process that has other code
            does not train with it.
        versions: of what computes, as the driver has them, by name; a process that has others does not train.
        looks: say how often a run is evaluated; null for what `options` say.
        gpus: that a run is given; with any, it does not train without one, unless its device is `cpu`.
        shared: path or URI of a file of the study that every process sees if storage is shared; null to ask no more.
    """

    task: Task
    options: RunOptions
    logs: str
    alone: tuple[str, ...] = ("subsettune", "train", "STUDY.yaml")
    code: FrozenDict = setting(FrozenDict())
    versions: FrozenDict = setting(FrozenDict())
    looks: Looks | None = None
    gpus: float = 0.0
    shared: str | None = None

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def needs_gpu(self) -> bool:
        """Whether runs must find a GPU; what a function of the user's trains on is its own affair."""
        return bool(self.gpus) and self.options.device != "cpu" and not self.task.is_own

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult | Failure:
        """Carry out a request; an error of the run becomes a `Failure` whose trace is in the logs.

        A checkpoint that cannot be gone on from, such as a damaged one or one from another device, is removed: the run
        begins anew if it is asked for again, and what was lost is charged to it as repeated.
        """
        stems = self.options.stems if request.role == "trial" else None
        points = self._num_points(request)
        options = dataclasses.replace(self.options, splits=request.splits, evaluations=points, stems=stems)
        try:
            self._check_versions()
            self._check_gpu()
            self._check_storage()
            self._check_code(request)
            return run(self.task, request.policy, request.seed, report=report, options=options)
        except CheckpointError as error:
            return self._cleared(request, error)
        except tuple(INFRASTRUCTURE_ERRORS.values()) as error:
            kind = next(name for name, cls in INFRASTRUCTURE_ERRORS.items() if isinstance(error, cls))
            return Failure(message=f"{request.name} cannot go on: {error}", ends_study=kind)
        except Exception as error:  # whatever a user's model raises: it ends this run, not the study
            words = str(error).strip().splitlines()
            return self.failure(
                request, words[0] if words else type(error).__name__, "".join(traceback.format_exception(error))
            )

    def _cleared(self, request: RunRequest, error: CheckpointError) -> Failure:
        """What becomes of a run whose checkpoint is of no use."""
        kept = self._kept(request)
        if kept is None:
            return Failure(message=f"{request.name} cannot go on: {error}", ends_study="CheckpointError")
        fact = str(error).partition(" Delete it: ")[0]  # which is done here
        return Failure(message=f"{request.name}: {fact} {kept.clear()}", begins_anew=True)

    def _kept(self, request: RunRequest) -> Checkpoints | None:
        """Where a run has its checkpoint."""
        options = self.options
        if options.checkpoints is None or options.fingerprint is None:
            return None
        key = run_key(self.task, options.fingerprint, request.policy, request.seed)
        return Checkpoints(Folder.at(options.checkpoints), key)

    def sign(self, request: RunRequest) -> ProgressMarker | None:
        """How far a run was when it was last seen: it changes every few seconds as long as one trains."""
        kept = self._kept(request)
        try:
            return None if kept is None else kept.marked()
        except (CheckpointError, StorageError):  # of which the run itself tells
            return None

    def _num_points(self, request: RunRequest) -> int:
        return self.options.evaluations if self.looks is None else self.looks.num_points(request)

    def _check_versions(self) -> None:
        """A node that came after the start was not asked for them, and another torch gives other numbers."""
        why = other_versions(self.versions, versions_here())
        if why is not None:
            raise StudyError(f"node {platform.node()} {why.removeprefix('it ')}")

    def _check_gpu(self) -> None:
        why = why_without_gpu(self.gpus) if self.needs_gpu else None
        if why is not None:
            raise StudyError(why)

    def _check_storage(self) -> None:
        """A node that came after the start may not share the storage: its checkpoints would die with it."""
        if self.shared is None or "://" in self.shared or Path(self.shared).exists():
            return
        raise StorageError(not_shared(str(Path(self.shared).parent.parent), f"node {platform.node()}"))

    def _check_code(self, request: RunRequest) -> None:
        """A process that starts while the user edits a file would train another network than those before it."""
        phases, optimizer = request.policy.phases, request.policy.recipe.get("optimizer")
        named = [(OPTIMIZERS, str(optimizer))] if optimizer is not None else []
        named += [(SELECTORS, phase.selector) for phase in phases] + [(ORDERS, phase.order) for phase in phases]
        try:
            here = study_code(self.task, [*named, *((TRANSITIONS, phase.transition) for phase in phases)])
        except ConfigError as error:  # the driver has imported it
            raise StudyError(f"node {platform.node()} lacks code of the study: {error}") from error
        changed = [name for name in sorted(here) if self._is_other(name, here[name])]
        if changed:
            raise StudyError(
                f"the code of {changed[0]!r} here is not that of the study: a file of it was changed meanwhile, or the "
                "machines have different ones. Put the old one back and start the same command again, or choose "
                "another --run-id."
            )

    def _is_other(self, name: str, digest: str) -> bool:
        return bool(self.code.get(name, digest) != digest)

    def failure(self, request: RunRequest, reason: str, trace: str) -> Failure:
        """Write down why a run failed and how to repeat it.

        Args:
            request: of the run.
            reason: a few words.
            trace: for the log.
        """
        log, policy = f"{request.name}.txt", f"{request.name}.policy.json"
        folder = Folder.at(self.logs)
        try:
            folder.write(log, trace.encode())
            folder.write(policy, config.canonical_json(request.policy).encode())
        except StorageError as error:
            return Failure(message=f"{request.name} failed: {reason} {error}", ends_study="StorageError")
        again = shlex.join([*self.alone, "--policy", inside(self.logs, policy), "--seed", str(request.seed)])
        where = f"{folder}/{log}"
        end = "" if reason.endswith((".", "!", "?")) else "."
        message = f"{request.name} failed: {reason}{end} Log: {where}. Run it alone: {again}"
        return Failure(message=message, log=where, reason=reason)

    def seen(self, request: RunRequest, points: Sequence[CurvePoint]) -> PartialRun:
        """What is known of a run besides the points that it told.

        A run that went on from a checkpoint tells only what is new, so the curve before it is read from there.

        Args:
            request: of the run, which has stopped.
            points: as told, in order.
        """
        kept = self._kept(request)
        if kept is None:
            return PartialRun(points=tuple(points))
        is_whole = bool(points) and points[0].share <= 1 / self._num_points(request)
        try:
            mark = kept.marked()
            state = None if is_whole or mark == ProgressMarker() else kept.load()
        except CheckpointError:  # damaged, so nothing is known but what the run told
            mark, state = ProgressMarker(), None
        earlier = [config.build(CurvePoint, point) for point in state["curve"]] if state is not None else []
        before = tuple(point for point in earlier if not points or point.share < points[0].share)
        return PartialRun(points=(*before, *points), mark=mark)
