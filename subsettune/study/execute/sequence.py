"""Sources of runs, and the sequence of them that a study is.

A `RunSource` says what to run next and is told how it went. The stages of a study are sources; `StageSequence` strings
them together, so that one Ray Tune experiment with re-used workers carries a whole study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from subsettune.study.execute.held_failures import EndedRun, HeldFailures
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.worker import T
from subsettune.study.observer import Observer
from subsettune.study.results.records import RunRecord
from subsettune.train.result import CurvePoint


class RunSource(Protocol):
    """Says what to run next, and is told how it went. All calls come from one thread."""

    def next(self) -> RunRequest | Pause:
        """The next run, or why there is none."""

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """A point of a run's learning curve; True stops the run."""

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """A run has ended, for whatever cause; called once a request."""


@runtime_checkable
class LimitedSource(Protocol):
    """A source that has so many runs under way at most, and so must know which of them wait to be told."""

    def set_aside(self, request: RunRequest) -> None:
        """A run has ended, and the source is told how at some later time, or never: another may start meanwhile."""


class StageSequence:
    """Stages one after the other; a stage begins when all runs of the one before have ended.

    Runs that fail before one has trained are held back, see `held_failures`; where nothing else can be run, they count.

    Errors of a stage end the chain: `error` holds the first, `next` says DONE, and the executor raises it at its end.

    Args:
        stages: sources, made when their turn comes, so that a stage may build on the results of those before.
    """

    def __init__(self, stages: Iterator[RunSource]) -> None:
        self._stages = stages
        self._current: RunSource | None = None
        self._under_way = 0  # with those that are held back
        self._held = HeldFailures()
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

    def finished(self, request: RunRequest, record: RunRecord, reason: str = "") -> None:
        """See `RunSource.finished`.

        Args:
            request: of a run.
            record: of it.
            reason: why it failed, in the words that it shares with others that failed for the same; else its message.
        """
        run = EndedRun(request=request, record=record, reason=reason or record.message)
        self._guard(lambda: self._finished(run), None)

    def _finished(self, run: EndedRun) -> None:
        counted = list(self._held.pass_on(run))
        self._tell(counted)
        stage: object = self._current
        if not counted and isinstance(stage, LimitedSource):
            stage.set_aside(run.request)

    def _tell(self, runs: list[EndedRun]) -> None:
        assert self._current is not None
        for run in runs:
            self._under_way -= 1
            self._current.finished(run.request, run.record)

    def _next(self) -> RunRequest | Pause:
        while not self._over:
            if self._current is None and not self._begin():
                break
            assert self._current is not None
            request = self._current.next()
            if isinstance(request, RunRequest):
                self._under_way += 1
                return request
            if 0 < self._under_way == len(self._held):  # nothing else is there to show whose fault it is
                self._tell(self._held.release())
                continue
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

    def set_aside(self, request: RunRequest) -> None:
        """Tell the source, where it asks for that."""
        source: object = self._source
        if isinstance(source, LimitedSource):
            source.set_aside(request)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Pass a record on to the source, which tells the observer once it is on disk."""
        self._source.finished(request, record)
