"""What the recipe would have saved by stopping early, from the learning curves that its reference runs have anyway.

The control that people compare with first: train by the recipe, look at the validation split now and then, stop when it
has not improved for `patience` looks in a row, and keep the best weights. A look costs a forward pass over the
validation part, without which nothing can be stopped, so it is charged here, though not elsewhere.

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
    """One for each patience; empty before the reference has run."""
    runs = [run for run in records.reference if run.metric is not None and len(run.curve) > 1]
    if not runs or records.facts is None:
        return ()
    looks = min(len(run.curve) for run in runs)
    return tuple(_over(records, runs, looks, patience) for patience in PATIENCES if patience <= looks - 2)


def _over(records: StudyRecords, runs: Sequence[RunRecord], looks: int, patience: int) -> EarlyStop:
    assert records.facts is not None, "early_stops looked"
    task, whole = records.study.task, records.facts.reference_flops
    found = [stop(run, patience, higher_is_better=task.higher_is_better) for run in runs]
    metric, end = fmean(one[0] for one in found), fmean(run.metric for run in runs if run.metric is not None)
    flops = fmean(one[1] for one in found)
    sign = 1 if task.higher_is_better else -1
    is_within = sign * (metric - end) >= -task.tolerance
    return EarlyStop(
        patience=patience,
        looks=looks,
        seeds=len(runs),
        stopped=sum(one[2] for one in found),
        metric=metric,
        reference_metric=end,
        flops=flops,
        saving=1 - flops / whole if is_within else None,
        is_within=is_within,
    )


def stop(run: RunRecord, patience: int, *, higher_is_better: bool) -> tuple[float, float, bool]:
    """Where a run would have stopped.

    Args:
        run: with a learning curve; points without a finite metric are no improvement.
        patience: looks without an improvement after which it stops.
        higher_is_better: direction of the metric.

    Returns:
        The best metric up to there, its FLOPs with the looks, and whether that is before the end.
    """
    look_flops = run.ledger.evaluate / len(run.curve)
    values = list(_oriented(run, higher_is_better=higher_is_better))
    best, last = 0, len(values) - 1
    for i, value in enumerate(values):
        if value > values[best]:
            best = i
        if i - best >= patience:
            last = i
            break
    sign = 1 if higher_is_better else -1
    flops = run.curve[last].flops + (last + 1) * look_flops
    return sign * values[best], flops, last < len(values) - 1


def _oriented(run: RunRecord, *, higher_is_better: bool) -> Iterator[float]:
    sign = 1 if higher_is_better else -1
    yield from (-math.inf if point.metric is None else sign * point.metric for point in run.curve)
