"""What a policy costs, told so that it can be weighed: in error, at a smaller tolerance, in trainings, in seconds."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from subsettune.policy import PRUNE, Policy
from subsettune.study.results.records import RunRecord
from subsettune.study.results.summary import AtMargin, PhaseCost, StageCost
from subsettune.study.results.unneeded import unneeded
from subsettune.study.results.view import StudyRecords
from subsettune.train.result import PhaseSpent

ALL_DATA, SOME_DATA, SOUP, PRUNED, SELECTION = "full", "subset", "soup", "pruned", "selection"
ROUGH = "A rough guess of its model, which no test stands behind."


def error_increase(metric: float | None, reference: float | None, *, higher_is_better: bool) -> float | None:
    """Error of a policy over that of the reference, minus 1; the error of an accuracy is what it is short of 1.

    Accuracy 0.972 against 0.975 is an error of 0.028 against 0.025: +0.12.

    Args:
        metric: mean of the policy.
        reference: mean of the reference.
        higher_is_better: whether the metric is a share of what is right; else it is itself an error.

    Returns:
        None where one is missing, or the reference makes no error.
    """
    if metric is None or reference is None:
        return None
    ours, theirs = (1 - metric, 1 - reference) if higher_is_better else (metric, reference)
    return ours / theirs - 1 if theirs > 0 else None


def saving(policy_flops: int, reference_flops: int) -> float:
    """Share of the reference's compute that the policy does not need; negative if it needs more."""
    return 1 - policy_flops / reference_flops


def seconds_saved(policy_s: float | None, reference_s: float | None) -> float | None:
    """Likewise of its seconds, which depend on machine and load; None where they were not measured."""
    return None if not reference_s or policy_s is None else 1 - policy_s / reference_s


def break_even(tuning_flops: int, reference_flops: int, policy_flops: int) -> int | None:
    """How many future trainings repay the tuning; None if the policy saves nothing."""
    saved_flops = reference_flops - policy_flops
    return -(-tuning_flops // saved_flops) if saved_flops > 0 else None


def break_even_seconds(tuning_s: float, reference_s: float | None, policy_s: float | None) -> int | None:
    """How many future trainings repay the seconds of the tuning; None if the policy saves none, or nobody knows."""
    if reference_s is None or policy_s is None or policy_s >= reference_s:
        return None
    return math.ceil(tuning_s / (reference_s - policy_s))


def at_margins(records: StudyRecords) -> tuple[AtMargin, ...]:
    """What was verified that would have passed with half the tolerance, and with none; empty before any passed."""
    if not any(records.passed(one) for one in records.candidates.values()):
        return ()
    return tuple(_at_margin(records, margin) for margin in (0.5 * records.study.task.tolerance, 0.0))


def _at_margin(records: StudyRecords, margin: float) -> AtMargin:
    passed = [one for one in records.candidates.values() if one.may_match and records.passed(one)]
    good = [one for one in passed if records.verdicts[one.name].lower_bound > -margin]
    if not good or records.facts is None:
        return AtMargin(margin=margin, name=None, flops=None, saving=None)
    best = min(good, key=lambda one: (one.cost_flops, one.name))
    spared = saving(best.cost_flops, records.facts.reference_flops)
    return AtMargin(margin=margin, name=best.name, flops=best.cost_flops, saving=spared)


def phase_costs(runs: Iterable[RunRecord]) -> tuple[PhaseCost, ...]:
    """Seconds and FLOPs of each kind of phase, and of selection; runs of another study are left out."""
    flops, seen = Counter[str](), Counter[str]()
    seconds: dict[str, float] = defaultdict(float)
    for run in runs:
        spent = [] if run.cached else list(_kinds(run))
        for kind, one in spent:
            flops[kind] += one.flops
            seconds[kind] += one.seconds
        seen.update({kind for kind, _ in spent})
    usual = seconds[ALL_DATA] / flops[ALL_DATA] if flops[ALL_DATA] else None
    return tuple(
        PhaseCost(
            kind=kind,
            runs=seen[kind],
            flops=flops[kind],
            seconds=seconds[kind],
            relative=None if usual is None else seconds[kind] / flops[kind] / usual,
        )
        for kind in sorted(flops, key=lambda kind: (kind != ALL_DATA, kind == SELECTION, kind))
    )


def stage_costs(records: StudyRecords, pace: float) -> tuple[StageCost, ...]:
    """What each stage cost, in the order in which they run; the sum is what tuning cost.

    Args:
        records: of the study.
        pace: `pace_of_cached`.
    """
    over = [done for done in records.manifest.rounds if done.is_over]
    spare = {run.name for run in unneeded(over, records.verification)}
    stages = {
        "reference": records.reference,
        "search": records.trials,
        "verification": [run for run in records.verification if run.name not in spare],
        "not needed": [run for run in records.verification if run.name in spare],
        "ablation": records.ablation_runs,
        "confirmation": records.confirmation_runs,
    }
    return tuple(
        StageCost(
            stage=stage,
            runs=len(runs),
            flops=sum(run.study_flops for run in runs),
            seconds=math.fsum(run.study_s * (pace if run.cached else 1.0) for run in runs),
        )
        for stage, runs in stages.items()
        if runs
    )


def pace_of_cached(runs: Iterable[RunRecord], own: Iterable[PhaseCost]) -> float:
    """What seconds of runs from the cache are to be multiplied by, to stand beside those of this study.

    They say how busy the machine was at another time. All are of the recipe, so that this study's own pace on all data
    tells what they would take now; 1 where it has none yet.

    Args:
        runs: of the study; those from the cache are looked at.
        own: `phase_costs` of these.
    """
    then = [run for run in runs if run.cached]
    trained, seconds = sum(run.ledger.forward + run.ledger.backward for run in then), sum(run.train_s for run in then)
    usual = next((one.seconds / one.flops for one in own if one.kind == ALL_DATA), None)
    return 1.0 if usual is None or not seconds else usual * trained / seconds


def _kinds(run: RunRecord) -> Iterator[tuple[str, PhaseSpent]]:
    """Kind of each phase that made an update, and of selection, with what it took."""
    for index, one in enumerate(run.phases):
        if one.flops:
            yield phase_kind(run.policy, index), one
    if run.ledger.select:
        yield SELECTION, PhaseSpent(flops=run.ledger.select, seconds=run.select_s)


def phase_kind(policy: Policy, index: int) -> str:
    """What decides how fast a phase computes: a soup, a pruned network, its order, or how much data it has."""
    phase = policy.phases[index]
    if phase.active_soup is not None:
        return SOUP
    if any(before.transition == PRUNE for before in policy.phases[: index + 1]):
        return PRUNED
    return phase.order if phase.order != "uniform" else ALL_DATA if phase.is_full else SOME_DATA
