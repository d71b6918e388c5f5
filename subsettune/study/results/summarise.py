"""How the summary of a study is computed, from its records alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from subsettune.config import FrozenDict
from subsettune.policy import FULL, SUBSET
from subsettune.study.results import costs
from subsettune.study.results.candidate import EQUAL, OWN, RANDOM, Candidate, CandidateRole, role_of
from subsettune.study.results.claim import claim_on
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.early_stop import early_stops
from subsettune.study.results.headline import headline
from subsettune.study.results.records import RunRecord, count
from subsettune.study.results.summary import (
    CandidateRow,
    ComponentRow,
    FalseStops,
    PolicyRow,
    ReferenceRow,
    Summary,
    TrialCounts,
    Tuning,
    Win,
)
from subsettune.study.results.view import REFERENCE, StudyRecords, StudyView
from subsettune.study.spec.components import Component, name_in
from subsettune.study.spec.space_check import read_space


def summarised(records: StudyRecords) -> StudyView:
    """The records with their summary."""
    own = {name: getattr(records, name) for name in StudyRecords.__dataclass_fields__}
    return StudyView(**own, summary=summarise(records))


def summarise(records: StudyRecords) -> Summary:
    """What the records come to."""
    winner = records.manifest.winner
    best = _best(records, winner)
    phase_costs = costs.phase_costs(_runs(records))
    pace = costs.pace_of_cached(records.reference, phase_costs)
    reference = _reference(records, best, pace)
    summary = Summary(
        run_id=records.run_id,
        status="interrupted" if records.manifest.interrupted else records.manifest.status,
        metric_name=records.study.task.metric,
        target=records.target,
        reference=reference,
        best=best,
        shorter=_shorter(records, winner),
        equal=_candidate_row(records, _equal(records, winner)),
        own=_candidate_row(records, _own(records, winner)),
        random=_candidate_row(records, _latest(records, RANDOM)),
        trials=_counts(records),
        false_stops=_false_stops(records),
        candidates=tuple(_candidate_summary(records, candidate) for candidate in records.candidates.values()),
        components=_components(records),
        win=_win(records),
        at_margins=costs.at_margins(records),
        needs=_needs(records),
        phase_costs=phase_costs,
        early_stops=early_stops(records),
        verified=winner is not None,
        bundle=_bundle(records),
        tuning=_tuning(records, best, reference, pace),
        known_before=records.manifest.known_before,
    )
    return dataclasses.replace(summary, headline=headline(records, summary))


def _needs(records: StudyRecords) -> FrozenDict:
    """Of each arm, between which costs of the space the search saw the least that matches.

    Left out where no trial reached the target or verification says otherwise, and below all that could be tried.
    """
    axis = read_space(records.study.space)["budget"] if records.manifest.needs else None
    least = 0.0 if axis is None else float(min(axis.values or (axis.lo,)))
    return FrozenDict(
        {
            arm: [max(least, min(ends)), max(ends)]
            for arm, ends in records.manifest.needs.items()
            if max(ends) > least and _is_reached(records, arm) and not _is_denied(records, arm, ends)
        }
    )


def _is_reached(records: StudyRecords, arm: str) -> bool:
    """Whether any trial of an arm reached the target: else nothing was seen of what it takes."""
    return any(
        run.cause == "finished" and records.reaches(run.metric) for run in records.trials if run.policy.arm == arm
    )


def _is_denied(records: StudyRecords, arm: str, ends: Sequence[float]) -> bool:
    """Whether a policy of an arm that costs as much as that, or more, was tested and did not pass."""
    assert records.facts is not None, "the search that notes them has them"
    most = max(ends) * records.facts.reference_flops
    return any(
        candidate.policy.arm == arm and candidate.cost_flops >= most and not records.passed(candidate)
        for candidate in (records.candidates[name] for name, verdict in records.verdicts.items() if verdict.is_tested)
    )


def _bundle(records: StudyRecords) -> str | None:
    """Where the bundle lies now: a local study may have been moved since the manifest was written."""
    written = records.manifest.bundle
    return written if written is None or "://" in written else f"{records.folder}/bundle"


def _reference(records: StudyRecords, best: PolicyRow | None, pace: float) -> ReferenceRow | None:
    runs = [record for record in records.reference if record.metric is not None]
    if not runs or records.facts is None:
        return None
    tested = records.test_metrics(REFERENCE)
    compared = best.references if best is not None and best.references else _most_references(records)
    shown = [tested[seed] for seed in sorted(tested)[: compared or None]]
    return ReferenceRow(
        metric=_mean(r.metric for r in runs),
        test_metric=_mean(shown),
        passes=records.facts.reference_passes,
        flops=records.facts.reference_flops,
        seconds=_mean(r.seconds * (pace if r.cached else 1.0) for r in runs),
        seeds=len(runs),
        test_seeds=len(shown),
    )


def _most_references(records: StudyRecords) -> int:
    return max((verdict.num_references for verdict in records.verdicts.values()), default=0)


def _best(records: StudyRecords, winner: str | None) -> PolicyRow | None:
    if winner is not None:
        return _candidate_row(records, records.candidates[winner])
    if records.manifest.rounds:
        return None  # verification has judged, or is judging: nothing may call itself best
    return cheapest_trial(records, records.trials)


def _shorter(records: StudyRecords, winner: str | None) -> PolicyRow | None:
    """The best of the full arm: winner, cheapest passed, the one that missed by least, or cheapest feasible trial."""
    if winner is not None and records.candidates[winner].policy.arm == FULL:
        return _candidate_row(records, records.candidates[winner])
    full = [c for c in records.candidates.values() if c.policy.arm == FULL and c.may_match]
    if not full:
        return cheapest_trial(records, [t for t in records.trials if t.policy.arm == FULL])
    passed = [c for c in full if records.passed(c)]
    if passed:
        return _candidate_row(records, min(passed, key=lambda c: c.cost_flops))
    ran = [c for c in full if (verdict := records.verdicts.get(c.name)) is not None and verdict.is_tested]
    named = [c for c in ran or full if c.role in ("shorter", "candidate")]
    return _candidate_row(records, _nearest_of(records, named or ran or full))


def _nearest_of(records: StudyRecords, candidates: Sequence[Candidate]) -> Candidate:
    """Of some that did not pass, the one that missed by least, in whichever round; the last one where none missed."""
    short = {name: one.shortfall for name, one in records.verdicts.items() if one.is_tested and one.passed is False}
    missed = [one for one in reversed(candidates) if math.isfinite(short.get(one.name, math.inf))]
    return min(missed, key=lambda one: short[one.name], default=candidates[-1])


def _equal(records: StudyRecords, winner: str | None) -> Candidate | None:
    """All data for the winner's compute; an earlier round may have tested that of another winner."""
    found, best = _latest(records, EQUAL), records.candidates.get(winner or "")
    if found is None or best is None or best.policy.arm == FULL:
        return None
    return found if found.policy.passes == best.policy.passes else None


def _own(records: StudyRecords, winner: str | None) -> Candidate | None:
    """Plain training by the winner's own settings; of another policy where the winner has none, the latest."""
    ran = [one for one in records.manifest.contrasts.values() if role_of(one.control) == OWN and one.num_seeds]
    found = next((one for one in ran if one.policy == winner), ran[-1] if ran else None)
    return None if found is None else records.candidates[found.control]


def _latest(records: StudyRecords, role: CandidateRole) -> Candidate | None:
    """The candidate of a role in the latest round that has one."""
    found = [candidate for candidate in records.candidates.values() if candidate.role == role]
    return found[-1] if found else None


def _candidate_row(records: StudyRecords, candidate: Candidate | None) -> PolicyRow | None:
    if candidate is None or records.facts is None:
        return None
    runs = [r for r in records.verification if r.policy == candidate.policy and r.cause == "finished"]
    verdict, compared = records.verdicts.get(candidate.name), records.compared(candidate.name)
    trials = [t for t in records.trials if t.number in candidate.trials and t.metric is not None]
    metric = compared.metric if compared.own else _mean(t.metric for t in trials)
    is_judged = verdict is not None or not candidate.may_match  # of which nothing is claimed
    is_void = metric is None or (is_judged and not records.passed(candidate))  # it matches nothing, or did not run
    better = records.study.task.higher_is_better
    return PolicyRow(
        policy=candidate.policy,
        passes=candidate.policy.passes,
        flops=candidate.cost_flops,
        saving=None if is_void else costs.saving(candidate.cost_flops, records.facts.reference_flops),
        name=candidate.name,
        metric=metric,
        interval=_finite(verdict.lower_bound) if verdict is not None and compared.own else None,
        seconds=_mean(r.seconds for r in (runs or trials)),
        seeds=len(compared.own),
        references=len(compared.reference) or None,
        reference_metric=compared.reference_metric,
        error_increase=costs.error_increase(compared.metric, compared.reference_metric, higher_is_better=better)
        if records.study.task.has_error
        else None,
        passed=None if verdict is None else verdict.passed,
    )


def cheapest_trial(records: StudyRecords, trials: Iterable[RunRecord]) -> PolicyRow | None:
    """The cheapest of some trials that finished at the target, by one seed and the validation split; None without."""
    if records.target is None or records.facts is None:
        return None
    feasible = [t for t in trials if t.cause == "finished" and records.reaches(t.metric)]
    if not feasible:
        return None
    trial = min(feasible, key=lambda t: (t.cost_flops, t.number))
    return PolicyRow(
        policy=trial.policy,
        passes=trial.policy.passes,
        flops=trial.cost_flops,
        saving=costs.saving(trial.cost_flops, records.facts.reference_flops),
        metric=trial.metric,
        seconds=trial.seconds,
        seeds=1,
    )


def _counts(records: StudyRecords) -> TrialCounts:
    causes = count(records.trials)
    return TrialCounts(
        finished=causes["finished"],
        stopped=causes["stopped"],
        skipped=int(records.manifest.search.get("skipped", 0)),
        failed=causes["failed"] + causes["diverged"],
    )


def _false_stops(records: StudyRecords) -> FalseStops:
    """Trials that the search would have stopped and let run on, and how many of them reached the target after all."""
    if records.target is None:
        return FalseStops(checked=0, false=0)
    checked = [t for t in records.trials if t.is_stop_audit and t.cause == "finished" and t.metric is not None]
    return FalseStops(checked=len(checked), false=sum(records.reaches(trial.metric) for trial in checked))


def _candidate_summary(records: StudyRecords, candidate: Candidate) -> CandidateRow:
    verdict = records.verdicts.get(candidate.name)
    return CandidateRow(
        name=candidate.name,
        policy=candidate.policy,
        flops=candidate.cost_flops,
        passed=None if verdict is None else verdict.passed,
        shortfall=None if verdict is None else _finite(verdict.shortfall),
        reason=_reason(records, candidate) if verdict is None else records.reason_of(verdict),
        seeds=0 if verdict is None else verdict.num_seeds,
        references=0 if verdict is None else verdict.num_references,
        level=0.0 if verdict is None or not candidate.may_match else verdict.level,
    )


def _reason(records: StudyRecords, candidate: Candidate) -> str:
    """Why there is no verdict: verification has none of a control that only the winner is held against."""
    contrast = records.manifest.contrasts.get(candidate.name)
    return "not tested yet" if contrast is None else f"a control of {contrast.policy}: nothing is claimed of it"


def _win(records: StudyRecords) -> Win | None:
    """The claim on the policy that is exported, or on the one that it is exported instead of; else the latest."""
    winner = records.manifest.winner
    contrasts = records.manifest.contrasts
    twins = [one for one in contrasts.values() if one.is_claim and role_of(one.control) == EQUAL]
    if not twins:
        return None
    twin = next((one for one in twins if winner in (one.policy, one.control)), twins[-1])
    claim = claim_on(twin.policy, contrasts, records.candidates)
    return _to_win(twin) if claim is None else _to_win(dataclasses.replace(claim.contrast, shown=claim.shown))


def _to_win(contrast: Contrast) -> Win:
    return Win(
        policy=contrast.policy,
        against=contrast.control,
        shown=contrast.shown,
        difference=_finite(contrast.mean_difference),
        lower_bound=_finite(contrast.lower_bound),
        seeds=contrast.num_seeds,
        level=contrast.level,
    )


def _components(records: StudyRecords) -> tuple[ComponentRow, ...]:
    """Every component of the space: its trials, and its ablation; no kind of which there is only the neutral one."""
    kinds = {component.kind for component in records.study.contenders}
    return tuple(_component_row(records, one) for one in records.study.components if one.kind in kinds)


def _component_row(records: StudyRecords, component: Component) -> ComponentRow:
    in_arm = (trial for trial in records.trials if trial.policy.arm == SUBSET)
    trials = [trial for trial in in_arm if name_in(trial.policy, component.kind) == component.name]
    feasible = [trial for trial in trials if trial.cause == "finished" and records.reaches(trial.metric)]
    return ComponentRow(
        kind=component.kind,
        name=component.name,
        against=None if component.is_neutral else component.against,
        trials=len(trials),
        feasible=len(feasible),
        cheapest_flops=min((trial.cost_flops for trial in feasible), default=None),
        ablation=records.ablation.get(component),
    )


def _runs(records: StudyRecords) -> tuple[RunRecord, ...]:
    tested = (*records.verification, *records.confirmation_runs)
    return (*records.reference, *records.trials, *tested, *records.ablation_runs)


def _tuning(records: StudyRecords, best: PolicyRow | None, reference: ReferenceRow | None, pace: float) -> Tuning:
    stages, facts = costs.stage_costs(records, pace), records.facts
    flops = sum(one.flops for one in stages)
    tuning = Tuning(
        passes=flops / facts.pass_flops if facts is not None else None,
        flops=flops,
        seconds=math.fsum(one.seconds for one in stages),
        shared_flops=sum(r.shared_flops for r in records.trials),
        break_even=None,
        stages=stages,
    )
    if best is None or not best.passed or reference is None:
        return tuning
    return dataclasses.replace(
        tuning,
        break_even=costs.break_even(flops, reference.flops, best.flops),
        break_even_seconds=costs.break_even_seconds(tuning.seconds, reference.seconds, best.seconds),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
