"""Whether components paid for themselves: what the paired differences to their baselines show.

A pair of runs with the same seed gives one difference; positive means that the component is better. Each row is tested
by Student's t, two-sided, and all rows of a table together by the step-down of Holm (1979): the row with the smallest
p-value of k must have one below (1 - `ABLATION_LEVEL`) / k, the next one of k - 1, and so on to the first that has not.
So for components that equal their baselines, few or many, a table says `paid` or `not_paid` of any of them at most one
time in ten, whatever it says of the others, and also where rows have runs in common.

The interval of a row is that of the step at which it was judged, so that it lies on one side of 0 exactly where the
words say so. A row that fails its step and all behind it have that step's. The spread has a floor, so that a few equal
differences are not taken for certainty.

| symbol | shape | meaning |
|---|---|---|
| d | (n,) | differences of a row, one a seed, oriented: higher is better |
| s | float | standard deviation of d, with the floor in quadrature |
| T | float | mean(d) / (s / sqrt(n)), of n - 1 degrees of freedom |
| k | int | rows that are left at a step |

What it cannot do. Runs of a component that changes nothing have the noise of its baseline's, so that their differences
are symmetric: the level then holds with ties, skew and rare failures, too. It does not where half of the runs end in
one way and half in another, many steps away: there 0.09 of tables err with three seeds, 0.15 with 8, 0.32 with two.
And no test of a mean sees in few seeds that one of the two is skewed and the other not: an exponential law beside a
narrow one of equal mean is told apart in 0.22 of tables with 8 seeds. A test counts these, too.

Source: Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from subsettune.facts import TaskFacts
from subsettune.study.results.ablation import ABLATION_LEVEL, AblationResult
from subsettune.study.results.records import RunRecord
from subsettune.study.verification.superiority import pair_floor

Array = np.ndarray[Any, np.dtype[np.float64]]
Runs = Mapping[tuple[str, int], RunRecord]
WAITING = "the runs of others are not done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How rows are judged.

    Args:
        facts: of the task.
        seeds: that every policy is trained with; at least 2.
        higher_is_better: direction of the metric.
        resolution: smallest step of the metric on the validation split; 0 where it has none.
    """

    facts: TaskFacts
    seeds: tuple[int, ...]
    higher_is_better: bool
    resolution: float


def has_result(record: RunRecord) -> bool:
    """Whether a run came to its end with a metric."""
    return record.cause == "finished" and record.metric is not None and math.isfinite(record.metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What the differences of a row show.

    Args:
        level: of the interval, taken alone.
        lower: its end, in the metric's units.
        upper: its other end.
    """

    level: float
    lower: float
    upper: float

    @property
    def verdict(self) -> Literal["paid", "not_paid", "no_difference"]:
        """On which side of 0 it lies."""
        return "paid" if self.lower > 0 else "not_paid" if self.upper < 0 else "no_difference"


@dataclass(frozen=True, slots=True)
class _Pairs:
    """A row with its runs, one pair a seed, all of them with a metric."""

    row: AblationResult
    mine: tuple[RunRecord, ...]
    baselines: tuple[RunRecord, ...]


def judge(rows: Iterable[AblationResult], runs: Runs, rules: Rules) -> tuple[AblationResult, ...]:
    """The rows of a study with what their runs show; see the module for how.

    No row is judged before the runs of all are done. One with a run that gave no metric is none of those that are
    judged together. A row that version 0.1 judged with these seeds stays as it was.

    Args:
        rows: of the components.
        runs: among them their own and their baselines', by key of the policy and seed.
        rules: how they are judged.
    """
    found = [_gathered(row, runs, rules) for row in rows]
    if any(isinstance(one, AblationResult) and one.verdict == "open" for one in found):
        return tuple(_unmeasured(one.row, "open", WAITING) if isinstance(one, _Pairs) else one for one in found)
    family = [one for one in found if isinstance(one, _Pairs)]
    intervals = iter(step_down([_sample(one, rules) for one in family]))
    judged = (_measured(one, next(intervals), len(family), rules) if isinstance(one, _Pairs) else one for one in found)
    return tuple(judged)


def _gathered(row: AblationResult, runs: Runs, rules: Rules) -> AblationResult | _Pairs:
    """All pairs of a row, or the row if it is not to be judged or lacks runs."""
    if row.policy is None or row.baseline is None or _was_judged_alone(row, rules):
        return row
    mine, baselines = (
        {seed: runs[key, seed] for seed in rules.seeds if (key, seed) in runs}
        for key in (row.policy.key, row.baseline.key)
    )
    lost = [*_lost(row.name, mine), *_lost(row.component.baseline, baselines)]
    if lost:
        return _unmeasured(row, "no_result", "; ".join(lost))
    done, needed = len(mine) + len(baselines), 2 * len(rules.seeds)
    if done < needed:
        return _unmeasured(row, "open", f"{done} of {needed} runs are done")
    return _Pairs(row, *(tuple(each[seed] for seed in rules.seeds) for each in (mine, baselines)))


def _was_judged_alone(row: AblationResult, rules: Rules) -> bool:
    return row.lower is not None and row.family_size is None and len(row.differences) == len(rules.seeds)


def _unmeasured(row: AblationResult, verdict: Literal["open", "no_result"], reason: str) -> AblationResult:
    """The row as it was chosen, without what fewer runs had shown."""
    return AblationResult(
        kind=row.kind,
        name=row.name,
        verdict=verdict,
        reason=reason,
        policy=row.policy,
        baseline=row.baseline,
        trials=row.trials,
        cost_flops=row.cost_flops,
        baseline_cost_flops=row.baseline_cost_flops,
        selection_flops=row.selection_flops,
    )


def _lost(who: str, runs: Mapping[int, RunRecord]) -> list[str]:
    """The first run without a result, in words."""
    lost = sorted(seed for seed, record in runs.items() if not has_result(record))
    return [f"{who} {_ended(runs[lost[0]])} with seed {lost[0]}"] if lost else []


def _ended(record: RunRecord) -> str:
    return record.cause if record.cause in ("diverged", "failed") else "gave no metric"


def _differences(pairs: _Pairs, rules: Rules) -> Array:
    sign = 1.0 if rules.higher_is_better else -1.0
    return sign * (_metrics(pairs.mine) - _metrics(pairs.baselines))


def _metrics(runs: Iterable[RunRecord]) -> Array:
    return np.array([run.metric for run in runs], dtype=np.float64)


def _sample(pairs: _Pairs, rules: Rules) -> tuple[Array, float]:
    """Differences of a row, and the floor of their spread."""
    scale = float(np.abs(_metrics((*pairs.mine, *pairs.baselines))).max())
    return _differences(pairs, rules), pair_floor(rules.resolution, scale)


def _measured(pairs: _Pairs, interval: Interval, family_size: int, rules: Rules) -> AblationResult:
    differences = _differences(pairs, rules)
    return replace(
        pairs.row,
        verdict=interval.verdict,
        reason="",
        differences=tuple(map(float, differences)),
        metric=float(_metrics(pairs.mine).mean()),
        baseline_metric=float(_metrics(pairs.baselines).mean()),
        difference=float(differences.mean()),
        lower=interval.lower,
        upper=interval.upper,
        level=interval.level,
        family_size=family_size,
        select_s=_mean(run.select_s for run in pairs.mine),
        seconds=_mean(run.seconds for run in pairs.mine),
        baseline_seconds=_mean(run.seconds for run in pairs.baselines),
    )


def step_down(samples: Sequence[tuple[Array, float]]) -> tuple[Interval, ...]:
    """Intervals of rows that are judged together, in their order.

    Args:
        samples: differences of each row, (n,) with the same n >= 2, and the floor of their spread.
    """
    found, left = dict[int, Interval](), len(samples)
    for index in sorted(range(len(samples)), key=lambda index: p_value(*samples[index])):
        found[index] = interval(*samples[index], 1 - (1 - ABLATION_LEVEL) / left)
        if found[index].verdict != "no_difference":  # where one says so, all that follow do: their p-value is no less
            left -= 1
    return tuple(found[index] for index in range(len(samples)))


def p_value(differences: Array, floor: float) -> float:
    """Two-sided, of Student's test that the mean of differences is 0; see `interval` for its arguments."""
    mean, error = float(differences.mean()), _error(differences, floor)
    if error == 0:  # all differences are the same number, and the metric has no steps
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))


def interval(differences: Array, floor: float, level: float = ABLATION_LEVEL) -> Interval:
    """Student's interval for the mean of differences, two-sided.

    Args:
        differences: (n,) in the metric's units, n >= 2.
        floor: added to their standard deviation in quadrature.
        level: in (0, 1).
    """
    mean = float(differences.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(differences) - 1)) * _error(differences, floor)
    return Interval(level=level, lower=mean - half, upper=mean + half)


def _error(differences: Array, floor: float) -> float:
    """Standard error of their mean."""
    return math.hypot(float(differences.std(ddof=1)), floor) / math.sqrt(len(differences))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
