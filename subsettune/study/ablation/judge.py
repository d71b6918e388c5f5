"""Whether a component paid for itself: what the paired differences to its baseline show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from subsettune.facts import TaskFacts
from subsettune.study.results.ablation import ABLATION_LEVEL, AblationResult
from subsettune.study.results.records import RunRecord
from subsettune.study.verification.noninferiority import spread_floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a pair is judged.

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


def judge(row: AblationResult, runs: Mapping[tuple[str, int], RunRecord], rules: Rules) -> AblationResult:
    """The row with what its runs show.

    A pair of runs with the same seed gives one difference; positive means that the component is better. The interval is
    Student's, two-sided at `ABLATION_LEVEL`, so each of the words `paid` and `not_paid` is wrong for at most one in
    twenty policies that equal their baseline. The spread has the floor that verification uses, so that a few equal
    differences are not taken for certainty.

    Args:
        row: of one component.
        runs: among them its own and its baseline's, by key of the policy and seed.
        rules: how it is judged.
    """
    if row.policy is None or row.baseline is None:
        return row
    mine, baselines = (
        {seed: runs[key, seed] for seed in rules.seeds if (key, seed) in runs}
        for key in (row.policy.key, row.baseline.key)
    )
    lost = [*_lost(row.name, mine), *_lost(row.component.baseline, baselines)]
    if lost:
        return replace(row, verdict="no_result", reason="; ".join(lost))
    done, needed = len(mine) + len(baselines), 2 * len(rules.seeds)
    if done < needed:
        return replace(row, verdict="open", reason=f"{done} of {needed} runs are done")
    return _measured(row, [mine[seed] for seed in rules.seeds], [baselines[seed] for seed in rules.seeds], rules)


def _lost(who: str, runs: Mapping[int, RunRecord]) -> list[str]:
    """The first run without a result, in words."""
    lost = sorted(seed for seed, record in runs.items() if not has_result(record))
    return [f"{who} {_ended(runs[lost[0]])} with seed {lost[0]}"] if lost else []


def _ended(record: RunRecord) -> str:
    return record.cause if record.cause in ("diverged", "failed") else "gave no metric"


def _measured(
    row: AblationResult, mine: Sequence[RunRecord], baselines: Sequence[RunRecord], rules: Rules
) -> AblationResult:
    sign = 1.0 if rules.higher_is_better else -1.0
    metrics = np.array([(a.metric, b.metric) for a, b in zip(mine, baselines, strict=True)], dtype=np.float64)
    differences = sign * (metrics[:, 0] - metrics[:, 1])
    floor = spread_floor(rules.resolution, float(np.abs(metrics).max()))
    lower, upper = interval(differences, floor)
    return replace(
        row,
        verdict="paid" if lower > 0 else "not_paid" if upper < 0 else "no_difference",
        reason="",
        differences=tuple(map(float, differences)),
        metric=float(metrics[:, 0].mean()),
        baseline_metric=float(metrics[:, 1].mean()),
        difference=float(differences.mean()),
        lower=lower,
        upper=upper,
        select_s=_mean(run.select_s for run in mine),
        seconds=_mean(run.seconds for run in mine),
        baseline_seconds=_mean(run.seconds for run in baselines),
    )


def interval(differences: np.ndarray[Any, np.dtype[np.float64]], floor: float) -> tuple[float, float]:
    """Student's interval for the mean of differences, two-sided at `ABLATION_LEVEL`.

    Args:
        differences: (n,) in the metric's units, n >= 2.
        floor: added to their standard deviation in quadrature.
    """
    n = len(differences)
    spread = math.hypot(float(differences.std(ddof=1)), floor)
    half = float(stats.t.ppf((1 + ABLATION_LEVEL) / 2, n - 1)) * spread / math.sqrt(n)
    return float(differences.mean()) - half, float(differences.mean()) + half


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
