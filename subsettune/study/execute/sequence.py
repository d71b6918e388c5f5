"""Lists of runs and who carries them out: in this process (here) or on a Ray cluster (`tune.py`).

A `RunSource` says what to run next and is told how it went. The stages of a study are sources; `StageSequence` strings
them together, so that one Ray Tune experiment with re-used workers carries a whole study.
"""

from __future__ import annotations

import dataclasses
import enum
import shlex
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from subsettune import config
from subsettune.config import FrozenDict, setting
from subsettune.errors import CheckpointError, DataError, StorageError, StudyError, SubsettuneError
from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.storage import Folder, inside
from subsettune.study.observer import Observer
from subsettune.study.results.records import Role, RunRecord
from subsettune.task import Task
from subsettune.train.checkpoint import Checkpoints, ProgressMarker
from subsettune.train.loop import RunOptions, run, run_key
from subsettune.train.result import CurvePoint, RunResult

T = TypeVar("T")
ATTEMPTS = 2  # a failed run is retried once, then recorded
# What is wrong with the surroundings, not with the run: a person mends it, and the run is then worth trying again.
INFRASTRUCTURE_ERRORS: dict[str, type[SubsettuneError]] = {
    cls.__name__: cls for cls in (CheckpointError, DataError, StorageError, StudyError)
}


class Pause(enum.Enum):
    """Instead of a request: nothing to run now (WAIT for a run to end), or never again (DONE)."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One training to be carried out.

    Args:
        name: unique in the study.
        role: why it is trained.
        policy: what to follow.
        seed: of the run.
        splits: on which the final weights are measured.
        number: of a trial, else -1.
        candidate: of a verification run; of a comparison run: the component.
        coordinates: of a trial.
        confirms: the trial that this one repeats.
    """

    name: str
    role: Role
    policy: Policy
    seed: int
    splits: tuple[str, ...] = ("validation",)
    number: int = -1
    candidate: str = ""
    coordinates: FrozenDict = setting(FrozenDict())
    confirms: int | None = None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run that ended in an error.

    Args:
        message: the sentence.
        log: where its trace is written.
        ends_study: a key of `INFRASTRUCTURE_ERRORS` when the error is not the run's own: the study stops, and nothing
            is recorded, so that the run is carried out once that is mended.
    """

    message: str
    log: str = ""
    ends_study: str = ""

    @property
    def error(self) -> SubsettuneError:
        """What the study ends with."""
        return INFRASTRUCTURE_ERRORS[self.ends_study](self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRun:
    """What is known of a run that brought no result, because it was stopped from outside or failed.

    Args:
        points: of its curve, as far as it came.
        mark: how far it said it was, and what interruptions had cost it.
    """

    points: tuple[CurvePoint, ...] = ()
    mark: ProgressMarker = ProgressMarker()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What every run of a study needs besides its request; goes to the workers as JSON, never with the data.

    Args:
        task: what is trained.
        options: of the runs; each request sets its own splits.
        logs: folder or URI for the traces of failed runs.
        alone: words of the command that trains the task by itself; policy and seed are added to them.
    """

    task: Task
    options: RunOptions
    logs: str
    alone: tuple[str, ...] = ("subsettune", "train", "STUDY.yaml")

    def __post_init__(self) -> None:
        config.check(self)

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult | Failure:
        """Carry out a request; an error of the run becomes a `Failure` whose trace is in the logs."""
        options = dataclasses.replace(self.options, splits=request.splits)
        try:
            return run(self.task, request.policy, request.seed, report=report, options=options)
        except tuple(INFRASTRUCTURE_ERRORS.values()) as error:
            kind = next(name for name, cls in INFRASTRUCTURE_ERRORS.items() if isinstance(error, cls))
            return Failure(message=f"{request.name} cannot go on: {error}", ends_study=kind)
        except Exception as error:  # whatever a user's model raises: it ends this run, not the study
            words = str(error).strip().splitlines()
            return self.failure(
                request, words[0] if words else type(error).__name__, "".join(traceback.format_exception(error))
            )

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
        return Failure(message=f"{request.name} failed: {reason}{end} Log: {where}. Run it alone: {again}", log=where)

    def seen(self, request: RunRequest, points: Sequence[CurvePoint]) -> PartialRun:
        """What is known of a run besides the points that it told.

        A run that went on from a checkpoint tells only what is new, so the curve before it is read from there.

        Args:
            request: of the run, which has stopped.
            points: as told, in order.
        """
        options = self.options
        if options.checkpoints is None or options.fingerprint is None:
            return PartialRun(points=tuple(points))
        key = run_key(self.task, options.fingerprint, request.policy, request.seed)
        kept = Checkpoints(Folder.at(options.checkpoints), key)
        mark = kept.marked()
        is_whole = bool(points) and points[0].share <= 1 / options.evaluations
        state = None if is_whole or mark == ProgressMarker() else kept.load()
        earlier = [config.build(CurvePoint, point) for point in state["curve"]] if state is not None else []
        before = tuple(point for point in earlier if not points or point.share < points[0].share)
        return PartialRun(points=(*before, *points), mark=mark)


class RunSource(Protocol):
    """Says what to run next, and is told how it went. All calls come from one thread."""

    def next(self) -> RunRequest | Pause:
        """The next run, or why there is none."""

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """A point of a run's learning curve; True stops the run."""

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """A run has ended, for whatever cause; called once a request."""


class StageSequence:
    """Stages one after the other; a stage begins when all runs of the one before have ended.

    Errors of a stage end the chain: `error` holds the first, `next` says DONE, and the executor raises it at its end.

    Args:
        stages: sources, made when their turn comes, so that a stage may build on the results of those before.
    """

    def __init__(self, stages: Iterator[RunSource]) -> None:
        self._stages = stages
        self._current: RunSource | None = None
        self._under_way = 0
        self._over = False
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether every stage has ended, and none with an error."""
        return self._over and self.error is None

    def fail(self, error: BaseException) -> None:
        """End the chain with an error, unless it has one."""
        self.error = self.error or error

    def next(self) -> RunRequest | Pause:
        """See `RunSource.next`."""
        otherwise: RunRequest | Pause = Pause.DONE
        return self._guard(self._next, otherwise)

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """See `RunSource.progress`."""
        stage = self._current
        return self._guard(lambda: stage is not None and stage.progress(request, point), False)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """See `RunSource.finished`."""
        self._under_way -= 1
        stage = self._current
        assert stage is not None
        self._guard(lambda: stage.finished(request, record), None)

    def _next(self) -> RunRequest | Pause:
        while not self._over:
            if self._current is None and not self._begin():
                break
            assert self._current is not None
            request = self._current.next()
            if isinstance(request, RunRequest):
                self._under_way += 1
                return request
            if request is Pause.WAIT or self._under_way:
                return Pause.WAIT
            self._current = None
        return Pause.DONE

    def _begin(self) -> bool:
        self._current = next(self._stages, None)
        self._over = self._current is None
        return not self._over

    def _guard(self, act: Callable[[], T], otherwise: T) -> T:
        if self.error is not None:
            return otherwise
        try:
            return act()
        except BaseException as error:  # raised again by the executor, outside Ray's loop
            self.error = error
            return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a run started and ended, in seconds since the study began."""

    started_s: float
    finished_s: float


def record(
    request: RunRequest,
    facts: TaskFacts,
    outcome: RunResult | Failure | None,
    num_validation: int,
    times: Times,
    seen: PartialRun | None = None,
) -> RunRecord:
    """The row of a run.

    Args:
        request: what was asked for.
        facts: of the task.
        outcome: the result; a failure; None for a run that was stopped from outside.
        num_validation: examples of the validation split, which evaluations are charged by where there is no result.
        times: of the run.
        seen: what is known of a run without a result.
    """
    base: dict[str, Any] = {
        **{name: getattr(request, name) for name in ("name", "role", "number", "candidate", "policy", "coordinates")},
        **{"seed": request.seed, "confirms": request.confirms, "cost_flops": request.policy.cost(facts)},
        **{"started_s": times.started_s, "finished_s": times.finished_s},
    }
    if isinstance(outcome, RunResult):
        return RunRecord(**base, **_of_result(outcome, facts, times))
    known = _of_seen(request.policy, seen or PartialRun(), facts, num_validation)
    if outcome is None:
        return RunRecord(**base, cause="stopped", **known)
    return RunRecord(**base, cause="failed", message=outcome.message, log=outcome.log, **known)


def _of_result(result: RunResult, facts: TaskFacts, times: Times) -> dict[str, Any]:
    busy = result.train_s + result.select_s + result.evaluate_s
    return {
        "cause": result.cause,
        "message": result.message,
        "metric": result.metrics.get("validation"),
        "test_metric": result.metrics.get("test"),
        "share_used": 1.0 if result.cause == "finished" else result.ledger.spent / result.policy.cost(facts),
        "ledger": result.ledger,
        "repeated_flops": result.repeated_flops,
        "train_s": result.train_s,
        "select_s": result.select_s,
        "evaluate_s": result.evaluate_s,
        "overhead_s": max(0.0, times.finished_s - times.started_s - busy),
        "curve": result.curve,
    }


def _of_seen(policy: Policy, seen: PartialRun, facts: TaskFacts, num_validation: int) -> dict[str, Any]:
    """The account up to the last point; what was spent after it, or lost before, is charged as repeated."""
    ledger, points = Ledger(), seen.points
    if points:
        last = points[-1]
        ledger = Ledger(
            select=last.select,
            forward=last.forward,
            backward=last.flops - last.select - last.forward,
            evaluate=len(points) * num_validation * facts.forward_flops,
        )
    return {
        "share_used": ledger.spent / policy.cost(facts),
        "ledger": ledger,
        "repeated_flops": seen.mark.repeated + max(0, seen.mark.flops - ledger.total),
        "train_s": points[-1].seconds if points else 0.0,
        "curve": points,
    }


class InlineExecutor:
    """Carries out runs one after the other in this process: the same code without a cluster.

    Args:
        worker: of the study.
        facts: of the task.
        num_validation: examples of the validation split.
        clock: seconds since the study began.
    """

    def __init__(self, worker: Worker, facts: TaskFacts, num_validation: int, clock: Callable[[], float]) -> None:
        self._worker, self._facts, self._num_validation, self._clock = worker, facts, num_validation, clock

    def execute(self, chain: StageSequence) -> None:
        """Run everything that the chain asks for.

        Raises:
            the first error of a stage.
        """
        while isinstance(request := chain.next(), RunRequest):
            self._carry_out(chain, request)
        if chain.error is not None:
            raise chain.error
        assert request is Pause.DONE, "a source waits although nothing is under way"

    def _carry_out(self, chain: StageSequence, request: RunRequest) -> None:
        started, points = self._clock(), list[CurvePoint]()

        def report(point: CurvePoint) -> bool:
            points.append(point)
            return chain.progress(request, point)

        outcome = self._worker.train(request, report)
        for _ in range(ATTEMPTS - 1):
            if isinstance(outcome, RunResult) or chain.error is not None:
                break
            outcome = self._worker.train(request, report)
        if isinstance(outcome, Failure) and outcome.ends_study:
            chain.fail(outcome.error)
            return
        seen = self._worker.seen(request, in_order(points)) if isinstance(outcome, Failure) else None
        times = Times(started_s=started, finished_s=self._clock())
        chain.finished(request, record(request, self._facts, outcome, self._num_validation, times, seen))


def in_order(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """A curve told in several attempts, of which each goes on from a checkpoint: the later word on a share counts."""
    kept: list[CurvePoint] = []
    for point in points:
        kept = [before for before in kept if before.share < point.share]
        kept.append(point)
    return kept


def stopwatch(offset_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Seconds since now, plus what earlier starts of the study took."""
    start = clock()
    return lambda: offset_s + clock() - start


class FixedRuns:
    """A source of runs that are known beforehand, such as the reference's.

    Args:
        requests: in the order in which they start.
        done: told each record as it comes.
    """

    def __init__(self, requests: list[RunRequest], done: Callable[[RunRecord], None]) -> None:
        self._waiting, self._done = list(requests), done

    def next(self) -> RunRequest | Pause:
        """See `RunSource.next`."""
        return self._waiting.pop(0) if self._waiting else Pause.DONE

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing here is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """See `RunSource.finished`."""
        self._done(record)


class ObservedSource:
    """A source whose observer is told when runs start and how they go."""

    def __init__(self, source: RunSource, observer: Observer) -> None:
        self._source, self._observer = source, observer

    def next(self) -> RunRequest | Pause:
        """The source's next run; the observer learns that it starts."""
        request = self._source.next()
        if isinstance(request, RunRequest):
            self._observer.run_started(request.name)
        return request

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Pass a point on to both; the source decides."""
        self._observer.run_progress(request.name, point.share, point.metric)
        return self._source.progress(request, point)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Pass a record on to the source, which tells the observer once it is on disk."""
        self._source.finished(request, record)
