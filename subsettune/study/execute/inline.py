"""Runs in this process, one after the other, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from subsettune.facts import TaskFacts
from subsettune.study.execute.outcomes import PartialRun, Times, in_order, record
from subsettune.study.execute.requests import Failure, Pause, RunRequest
from subsettune.study.execute.sequence import StageSequence
from subsettune.study.execute.worker import ATTEMPTS
from subsettune.train.result import CurvePoint, RunResult


class Trainer(Protocol):
    """Carries out single runs: a `Worker`, or what stands for one."""

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult | Failure:
        """See `Worker.train`."""

    def seen(self, request: RunRequest, points: Sequence[CurvePoint]) -> PartialRun:
        """See `Worker.seen`."""


class InlineExecutor:
    """Carries out runs one after the other in this process: the same code without a cluster.

    Args:
        worker: of the study; or what looks runs up instead, as `benchmarks/studies.py` does.
        facts: of the task.
        num_validation: examples of the validation split.
        clock: seconds since the study began.
        note: told what a user should know, e.g. of a run that begins anew.
    """

    def __init__(
        self,
        worker: Trainer,
        facts: TaskFacts,
        num_validation: int,
        clock: Callable[[], float],
        *,
        note: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._worker, self._facts, self._num_validation, self._clock = worker, facts, num_validation, clock
        self._note = note

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
        if isinstance(outcome, Failure) and outcome.begins_anew:
            self._note(outcome.message)
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
        row = record(request, self._facts, outcome, self._num_validation, times, seen)
        chain.finished(request, row, outcome.reason if isinstance(outcome, Failure) else "")
