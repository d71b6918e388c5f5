"""Lists of runs and who carries them out: in this process (here) or on a Ray cluster (`tune.py`).

A `RunSource` says what to run next and is told how it went. The stages of a study are sources; `Chain` strings them
together, so that one Ray Tune experiment with re-used workers carries a whole study.
"""

from __future__ import annotations

import enum
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from subsettune import config, select
from subsettune.config import FrozenDict, setting
from subsettune.ledger import Ledger
from subsettune.policy import Policy, TaskFacts
from subsettune.storage import Folder
from subsettune.study.records import Role, RunRecord
from subsettune.task import Task
from subsettune.train.loop import RunOptions, run
from subsettune.train.result import CurvePoint, RunResult

T = TypeVar("T")
ATTEMPTS = 2  # a failed run is retried once, then recorded


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
        candidate: of a verification run.
        coordinates: of a trial.
        confirms: the trial that this one repeats.
        attempt: 1, or 2 after a failure.
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
    attempt: int = 1

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run that ended in an error: the sentence, and where its trace is written."""

    message: str
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What every run of a study needs besides its request; goes to the workers as JSON, never with the data.

    Args:
        task: what is trained.
        options: of the runs; each request sets its own splits.
        logs: folder or URI for the traces of failed runs.
    """

    task: Task
    options: RunOptions
    logs: str

    def __post_init__(self) -> None:
        config.check(self)

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult | Failure:
        """Carry out a request; an error of the run becomes a `Failure` whose trace is in the logs."""
        plain = {name: getattr(self.options, name) for name in RunOptions.__dataclass_fields__}
        options = RunOptions(**{**plain, "splits": request.splits})
        try:
            return run(self.task, request.policy, request.seed, report=report, options=options)
        except Exception as error:  # whatever a user's model raises: it ends this run, not the study
            if isinstance(error, MemoryError) and options.device == "cpu":
                raise
            return self._fail(request, error)

    def _fail(self, request: RunRequest, error: Exception) -> Failure:
        folder = Folder.at(self.logs)
        name = f"{request.name}.txt"
        folder.write(name, "".join(traceback.format_exception(error)).encode())
        policy = f"{request.name}.policy.json"
        folder.write(policy, config.canonical_json(request.policy).encode())
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        alone = f"Run it alone: subsettune train STUDY.yaml --policy {folder}/{policy} --seed {request.seed}"
        return Failure(message=f"{request.name} failed: {reason} Log: {folder}/{name}. {alone}", log=f"{folder}/{name}")


class RunSource(Protocol):
    """Says what to run next, and is told how it went. All calls come from one thread."""

    def next(self) -> RunRequest | Pause:
        """The next run, or why there is none."""

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """A point of a run's learning curve; True stops the run."""

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """A run has ended, for whatever cause; called once a request."""


class Chain:
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
    outcome: RunResult | Failure | tuple[CurvePoint, ...],
    num_validation: int,
    times: Times,
) -> RunRecord:
    """The row of a run.

    Args:
        request: what was asked for.
        facts: of the task.
        outcome: the result; a failure; or, for a run that was stopped from outside, the points of its curve so far.
        num_validation: examples of the validation split, which a stopped run's evaluations are charged by.
        times: of the run.
    """
    base: dict[str, Any] = {
        **{name: getattr(request, name) for name in ("name", "role", "number", "candidate", "policy", "coordinates")},
        **{"seed": request.seed, "confirms": request.confirms, "cost_flops": request.policy.cost(facts)},
        **{"started_s": times.started_s, "finished_s": times.finished_s},
    }
    if isinstance(outcome, Failure):
        return RunRecord(**base, cause="failed", message=outcome.message, log=outcome.log, share_used=0.0)
    if isinstance(outcome, RunResult):
        return RunRecord(**base, **_of_result(outcome, facts, times))
    return RunRecord(**base, **_of_points(request.policy, outcome, facts, num_validation))


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


def _of_points(policy: Policy, points: tuple[CurvePoint, ...], facts: TaskFacts, num_validation: int) -> dict[str, Any]:
    if not points:
        return {"cause": "stopped", "share_used": 0.0}
    last = points[-1]
    selected = min(last.flops, sum(select.selection_flops(p, facts) for p in policy.phases[: last.phase + 1]))
    examples = (last.flops - selected) // facts.example_flops
    ledger = Ledger(
        select=selected,
        forward=examples * facts.forward_flops,
        backward=examples * facts.backward_flops,
        evaluate=len(points) * num_validation * facts.forward_flops,
    )
    return {
        "cause": "stopped",
        "share_used": last.flops / policy.cost(facts),
        "ledger": ledger,
        "train_s": last.seconds,
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

    def execute(self, chain: Chain) -> None:
        """Run everything that the chain asks for.

        Raises:
            the first error of a stage.
        """
        while isinstance(request := chain.next(), RunRequest):
            self._carry_out(chain, request)
        if chain.error is not None:
            raise chain.error
        assert request is Pause.DONE, "a source waits although nothing is under way"

    def _carry_out(self, chain: Chain, request: RunRequest) -> None:
        started = self._clock()
        outcome: RunResult | Failure = Failure(message="never tried")
        for _ in range(ATTEMPTS):
            outcome = self._worker.train(request, lambda point: chain.progress(request, point))
            if isinstance(outcome, RunResult):
                break
        times = Times(started_s=started, finished_s=self._clock())
        chain.finished(request, record(request, self._facts, outcome, self._num_validation, times))


def stopwatch(offset_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Seconds since now, plus what earlier starts of the study took."""
    start = clock()
    return lambda: offset_s + clock() - start


class Fixed:
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
