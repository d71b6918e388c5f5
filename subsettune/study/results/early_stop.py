"""What the recipe would have saved by stopping early, from the learning curves that its reference runs have anyway.

Two controls that people compare with first. With a patience: train by the recipe, look at the validation split now and
then, stop when it has not improved for `patience` looks in a row, and keep the best weights. Truncated: end every run
at the same look, found in hindsight: the earliest from which on the mean is within the tolerance, which a policy is
given, too. A look costs a forward pass over the validation part, without which nothing can be stopped, so it is charged
here, though not elsewhere.

What it is: a number of the validation split. The best of several looks at a split flatters, and no seed of it was
tested on the test split. The schedule is the recipe's own, whose rate is still high where an early stop cuts it off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from subsettune.study.results.records import RunRecord
from subsettune.study.results.summary import EarlyStop
from subsettune.study.results.view import StudyRecords

PATIENCES = (1, 3, 5, 10)  # looks; those that leave a curve something to save


def early_stops(records: StudyRecords) -> tuple[EarlyStop, ...]:
    """One for each patience, then the truncated one; empty before the reference has run."""
    runs = [run for run in records.reference if run.metric is not None and len(run.curve) > 1]
    if not runs or records.facts is None:
        return ()
    looks, higher = min(len(run.curve) for run in runs), records.study.task.higher_is_better
    patiences = [patience for patience in PATIENCES if patience <= looks - 2]
    stops = [
        _over(records, runs, [stop(run, patience, higher_is_better=higher) for run in runs], patience=patience)
        for patience in patiences
    ]
    look = first_within(runs, records.study.task.tolerance, higher_is_better=higher)
    if look < looks:
        stops.append(_over(records, runs, [_truncated(run, look) for run in runs], look=look))
    return tuple(stops)


def _over(
    records: StudyRecords,
    runs: Sequence[RunRecord],
    found: Sequence[tuple[float, float, bool]],
    *,
    patience: int | None = None,
    look: int | None = None,
) -> EarlyStop:
    assert records.facts is not None, "early_stops looked"
    task, whole = records.study.task, records.facts.reference_flops
    metric, end = fmean(one[0] for one in found), _mean_end(runs)
    flops = fmean(one[1] for one in found)
    is_within = _is_within(metric, end, task.tolerance, higher_is_better=task.higher_is_better)
    return EarlyStop(
        patience=patience,
        look=look,
        looks=min(len(run.curve) for run in runs),
        seeds=len(runs),
        stopped=sum(one[2] for one in found),
        metric=metric,
        reference_metric=end,
        flops=flops,
        saving=1 - flops / whole if is_within else None,
        is_within=is_within,
    )


def _mean_end(runs: Sequence[RunRecord]) -> float:
    return fmean(run.metric for run in runs if run.metric is not None)


def _is_within(metric: float, end: float, tolerance: float, *, higher_is_better: bool) -> bool:
    return (metric - end if higher_is_better else end - metric) >= -tolerance


def first_within(runs: Sequence[RunRecord], tolerance: float, *, higher_is_better: bool) -> int:
    """The earliest look, counted from 1, from which on the mean is within the tolerance of that at the end.

    Args:
        runs: with learning curves; where a point of any has no finite metric, its look is not within.
        tolerance: in units of the metric.
        higher_is_better: direction of the metric.

    Returns:
        The number of looks where no earlier one will do.
    """
    end, looks = _mean_end(runs), min(len(run.curve) for run in runs)
    for look in range(looks - 1, 0, -1):
        values = [run.curve[look - 1].metric for run in runs]
        known = [value for value in values if value is not None]
        is_whole = len(known) == len(values)
        if not is_whole or not _is_within(fmean(known), end, tolerance, higher_is_better=higher_is_better):
            return look + 1
    return 1


def _truncated(run: RunRecord, look: int) -> tuple[float, float, bool]:
    """The metric of a run at a look, its FLOPs up to there with the looks, and that this is before the end."""
    point = run.curve[look - 1]
    assert point.metric is not None, "first_within looked"
    return point.metric, _flops_at(run, look), look < len(run.curve)


def _flops_at(run: RunRecord, look: int) -> float:
    return run.curve[look - 1].flops + look * run.ledger.evaluate / len(run.curve)


def stop(run: RunRecord, patience: int, *, higher_is_better: bool) -> tuple[float, float, bool]:
    """Where a run would have stopped.

    Args:
        run: with a learning curve; points without a finite metric are no improvement.
        patience: looks without an improvement after which it stops.
        higher_is_better: direction of the metric.

    Returns:
        The best metric up to there, its FLOPs with the looks, and whether that is before the end.
    """
    values = list(_oriented(run, higher_is_better=higher_is_better))
    best, last = 0, len(values) - 1
    for i, value in enumerate(values):
        if value > values[best]:
            best = i
        if i - best >= patience:
            last = i
            break
    sign = 1 if higher_is_better else -1
    return sign * values[best], _flops_at(run, last + 1), last < len(values) - 1


def _oriented(run: RunRecord, *, higher_is_better: bool) -> Iterator[float]:
    sign = 1 if higher_is_better else -1
    yield from (-math.inf if point.metric is None else sign * point.metric for point in run.curve)
