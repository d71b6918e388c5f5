"""How the summary of a study is computed, from its records alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from subsettune.policy import FULL, SUBSET
from subsettune.study.results.candidate import Candidate, CandidateRole
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
)
from subsettune.study.results.view import StudyRecords, StudyView
from subsettune.study.spec.components import Component, name_in


def summarised(records: StudyRecords) -> StudyView:
    """The records with their summary."""
    own = {name: getattr(records, name) for name in StudyRecords.__dataclass_fields__}
    return StudyView(**own, summary=summarise(records))


def summarise(records: StudyRecords) -> Summary:
    """What the records come to."""
    winner = records.manifest.winner
    best = _best(records, winner)
    summary = Summary(
        run_id=records.run_id,
        status="interrupted" if records.manifest.interrupted else records.manifest.status,
        metric_name=records.study.task.metric,
        target=records.target,
        reference=_reference(records),
        best=best,
        shorter=_shorter(records, winner),
        equal=_candidate_row(records, _equal(records, winner)),
        random=_candidate_row(records, _latest(records, "random")),
        trials=_counts(records),
        false_stops=_false_stops(records),
        candidates=tuple(_candidate_summary(records, candidate) for candidate in records.candidates.values()),
        components=_components(records),
        verified=winner is not None,
        bundle=_bundle(records),
        tuning=_tuning(records, best),
    )
    return dataclasses.replace(summary, headline=headline(records, summary))


def _bundle(records: StudyRecords) -> str | None:
    """Where the bundle lies now: a local study may have been moved since the manifest was written."""
    written = records.manifest.bundle
    return written if written is None or "://" in written else f"{records.folder}/bundle"


def _reference(records: StudyRecords) -> ReferenceRow | None:
    runs = [record for record in records.reference if record.metric is not None]
    if not runs or records.facts is None:
        return None
    tested = [r for r in records.verification if r.candidate == "reference" and r.test_metric is not None]
    return ReferenceRow(
        metric=_mean(r.metric for r in runs),
        test_metric=_mean(r.test_metric for r in tested) if tested else None,
        passes=records.facts.reference_passes,
        flops=records.facts.reference_flops,
        seconds=_mean(r.seconds for r in runs),
        seeds=len(runs),
    )


def _best(records: StudyRecords, winner: str | None) -> PolicyRow | None:
    if winner is not None:
        return _candidate_row(records, records.candidates[winner])
    if records.manifest.rounds:
        return None  # verification has judged, or is judging: nothing may call itself best
    return _cheapest_trial(records, records.trials)


def _shorter(records: StudyRecords, winner: str | None) -> PolicyRow | None:
    """The best of the full arm: winner, cheapest passed, last one tested, or cheapest feasible trial."""
    if winner is not None and records.candidates[winner].policy.arm == FULL:
        return _candidate_row(records, records.candidates[winner])
    full = [c for c in records.candidates.values() if c.policy.arm == FULL and c.role != "random"]
    if not full:
        return _cheapest_trial(records, [t for t in records.trials if t.policy.arm == FULL])
    passed = [c for c in full if records.passed(c)]
    named = [c for c in full if c.role == "shorter"]
    return _candidate_row(records, min(passed, key=lambda c: c.cost_flops) if passed else (named or full)[-1])


def _equal(records: StudyRecords, winner: str | None) -> Candidate | None:
    """All data for the winner's compute; an earlier round may have tested that of another winner."""
    found, best = _latest(records, "equal"), records.candidates.get(winner or "")
    if found is None or best is None or best.policy.arm == FULL:
        return None
    return found if found.policy.passes == best.policy.passes else None


def _latest(records: StudyRecords, role: CandidateRole) -> Candidate | None:
    """The candidate of a role in the latest round that has one."""
    found = [candidate for candidate in records.candidates.values() if candidate.role == role]
    return found[-1] if found else None


def _candidate_row(records: StudyRecords, candidate: Candidate | None) -> PolicyRow | None:
    if candidate is None or records.facts is None:
        return None
    runs = [r for r in records.verification if r.candidate == candidate.name and r.cause == "finished"]
    verdict = records.verdicts.get(candidate.name)
    tested = bool(runs) and verdict is not None and verdict.is_tested
    trials = [t for t in records.trials if t.number in candidate.trials and t.metric is not None]
    metric = _mean([r.test_metric for r in runs] if tested else [t.metric for t in trials])
    is_void = metric is None or (verdict is not None and not verdict.passed)  # it matches nothing, or did not run
    return PolicyRow(
        policy=candidate.policy,
        passes=candidate.policy.passes,
        flops=candidate.cost_flops,
        saving=None if is_void else saving(candidate.cost_flops, records.facts.reference_flops),
        name=candidate.name,
        metric=metric,
        interval=_finite(verdict.lower_bound) if tested and verdict is not None else None,
        seconds=_mean(r.seconds for r in (runs or trials)),
        seeds=len(runs),
        passed=None if verdict is None else verdict.passed,
    )


def _cheapest_trial(records: StudyRecords, trials: Iterable[RunRecord]) -> PolicyRow | None:
    """The cheapest finished trial at the target; before verification only."""
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
        saving=saving(trial.cost_flops, records.facts.reference_flops),
        metric=trial.metric,
        seconds=trial.seconds,
        seeds=1,
    )


def saving(policy_flops: int, reference_flops: int) -> float:
    """Share of the reference's compute that the policy does not need; negative if it needs more."""
    return 1 - policy_flops / reference_flops


def break_even(tuning_flops: int, reference_flops: int, policy_flops: int) -> int | None:
    """How many future trainings repay the tuning; None if the policy saves nothing."""
    saved_flops = reference_flops - policy_flops
    return -(-tuning_flops // saved_flops) if saved_flops > 0 else None


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
        reason="not tested yet" if verdict is None else verdict.reason,
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


def _tuning(records: StudyRecords, best: PolicyRow | None) -> Tuning:
    tested = (*records.verification, *records.confirmation_runs)
    runs = (*records.reference, *records.trials, *tested, *records.ablation_runs)
    flops = sum(r.ledger.total + r.repeated_flops for r in runs)
    facts = records.facts
    repaid = best is not None and best.passed and facts is not None
    return Tuning(
        passes=flops / facts.pass_flops if facts is not None else None,
        flops=flops,
        seconds=sum(r.train_s + r.select_s + r.evaluate_s for r in runs),
        break_even=break_even(flops, facts.reference_flops, best.flops) if repaid and best and facts else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
