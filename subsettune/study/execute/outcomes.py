"""What became of a run, as a row of the study's tables: finished, given up, or known by its points alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.study.execute.requests import Failure, RunRequest
from subsettune.study.results.records import RunRecord
from subsettune.train.checkpoint import ProgressMarker
from subsettune.train.result import CurvePoint, RunResult


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
    busy = result.train_s + result.select_s + result.evaluate_s - result.shared_s
    return {
        "cause": result.cause,
        "message": result.message,
        "metric": result.metrics.get("validation"),
        "test_metric": result.metrics.get("test"),
        **{name: getattr(result, name) for name in ("num_test", "test_correct", "test_errors")},
        "share_used": 1.0 if result.cause == "finished" else result.ledger.spent / result.policy.cost(facts),
        "ledger": result.ledger,
        **{name: getattr(result, name) for name in ("repeated_flops", "shared_flops", "shared_s")},
        "train_s": result.train_s,
        "select_s": result.select_s,
        "evaluate_s": result.evaluate_s,
        "overhead_s": max(0.0, times.finished_s - times.started_s - busy),
        "phases": result.phases,
        "curve": result.curve,
    }


def _of_seen(policy: Policy, seen: PartialRun, facts: TaskFacts, num_validation: int) -> dict[str, Any]:
    """The account up to the last point; what was spent after it, or lost before, is charged as repeated.

    What it took over from another run's stem lies before its first point, if it has one.
    """
    ledger, points = Ledger(), seen.points
    if points:
        last = points[-1]
        ledger = Ledger(
            select=last.select,
            forward=last.forward,
            backward=last.flops - last.select - last.forward,
            evaluate=len(points) * num_validation * facts.forward_flops,
        )
    shared = min(seen.mark.shared, ledger.total)
    return {
        "share_used": ledger.spent / policy.cost(facts),
        "ledger": ledger,
        "repeated_flops": seen.mark.repeated + max(0, seen.mark.own - (ledger.total - shared)),
        "shared_flops": shared,
        "train_s": points[-1].seconds if points else 0.0,
        "curve": points,
    }


def in_order(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """A curve told in several attempts, of which each goes on from a checkpoint: the later word on a share counts."""
    kept: list[CurvePoint] = []
    for point in points:
        kept = [before for before in kept if before.share < point.share]
        kept.append(point)
    return kept
