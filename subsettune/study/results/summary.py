"""The summary of a study: the object that `show --json` prints, computed from its records alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from subsettune import config
from subsettune.policy import FULL, SUBSET, Policy
from subsettune.study.results.records import RunRecord, count
from subsettune.study.results.view import AblationResult, Candidate, StudyView, break_even, role_of, saving
from subsettune.study.spec.components import Component, name_in

Row = dict[str, Any]


def summarise(view: StudyView) -> StudyView:
    """Fill in `view.summary`.

    `best`, `shorter`, `equal` and `random` are rows of verification where it has run, and of the search before: then
    the metric is the validation one and `interval` and `passed` are null. `equal` is all data for the compute of the
    best policy; it is there where that has a subset and was verified, and no candidate was the same.
    """
    from subsettune.study.results.headline import headline

    winner = view.manifest.winner
    summary: Row = {
        "run_id": view.run_id,
        "status": "interrupted" if view.manifest.interrupted else view.manifest.status,
        "metric_name": view.study.task.metric,
        "target": view.target,
        "reference": _reference(view),
        "best": _best(view, winner),
        "shorter": _shorter(view),
        "equal": _candidate_row(view, _equal(view, winner)),
        "random": _candidate_row(view, _named(view, "random")),
        "trials": _counts(view),
        "false_stops": _false_stops(view.trials, view.target, view.study.task.higher_is_better),
        "candidates": [_candidate_summary(view, candidate) for candidate in view.candidates.values()],
        "components": _components(view),
        "verified": winner is not None,
        "bundle": _bundle(view),
    }
    summary["tuning"] = _tuning(view, summary["best"])
    bare = dataclasses.replace(view, summary=summary)
    return dataclasses.replace(view, summary={**summary, "headline": headline(bare)})


def _bundle(view: StudyView) -> str | None:
    """Where the bundle lies now: a local study may have been moved since the manifest was written."""
    written = view.manifest.bundle
    return written if written is None or "://" in written else f"{view.folder}/bundle"


def _reference(view: StudyView) -> Row | None:
    runs = [record for record in view.reference if record.metric is not None]
    if not runs or view.facts is None:
        return None
    tested = [r for r in view.verification if r.candidate == "reference" and r.test_metric is not None]
    return {
        "metric": _mean(r.metric for r in runs),
        "test_metric": _mean(r.test_metric for r in tested) if tested else None,
        "passes": view.facts.reference_passes,
        "flops": view.facts.reference_flops,
        "seconds": _mean(r.seconds for r in runs),
        "seeds": len(runs),
    }


def _best(view: StudyView, winner: str | None) -> Row | None:
    if winner is not None:
        return _candidate_row(view, view.candidates[winner])
    if view.manifest.rounds:
        return None  # verification has judged, or is judging: nothing may call itself best
    return _cheapest_trial(view, view.trials)


def _shorter(view: StudyView) -> Row | None:
    """The best of the full arm: cheapest passed, else the last one tested, else the cheapest feasible trial."""
    full = [c for c in view.candidates.values() if c.policy.arm == FULL and role_of(c.name) != "random"]
    if not full:
        return _cheapest_trial(view, [t for t in view.trials if t.policy.arm == FULL])
    passed = [c for c in full if view.verdicts.get(c.name, {}).get("passed")]
    named = [c for c in full if role_of(c.name) == "shorter"]
    return _candidate_row(view, min(passed, key=lambda c: c.cost_flops) if passed else (named or full)[-1])


def _equal(view: StudyView, winner: str | None) -> Candidate | None:
    """All data for the winner's compute; an earlier round may have tested that of another winner."""
    found, best = _named(view, "equal"), view.candidates.get(winner or "")
    return found if found is not None and best is not None and found.policy.passes == best.policy.passes else None


def _named(view: StudyView, name: str) -> Candidate | None:
    """The latest candidate of that name; later rounds of verification mark theirs as `name@2`."""
    found = [c for c in view.candidates.values() if role_of(c.name) == name]
    return found[-1] if found else None


def _candidate_row(view: StudyView, candidate: Candidate | None) -> Row | None:
    if candidate is None or view.facts is None:
        return None
    runs = [r for r in view.verification if r.candidate == candidate.name and r.cause == "finished"]
    verdict = view.verdicts.get(candidate.name, {})
    tested = bool(runs) and verdict.get("num_seeds", 0) > 0
    trials = [t for t in view.trials if t.number in candidate.trials and t.metric is not None]
    metrics = [r.test_metric for r in runs] if tested else [t.metric for t in trials]
    return {
        **_row(view, candidate.policy, candidate.cost_flops),
        "name": candidate.name,
        "metric": _mean(metrics),
        "interval": _finite(verdict.get("lower_bound")) if tested else None,
        "seconds": _mean(r.seconds for r in (runs or trials)),
        "seeds": len(runs),
        "passed": verdict.get("passed"),
    }


def _cheapest_trial(view: StudyView, trials: Iterable[RunRecord]) -> Row | None:
    """The cheapest finished trial at the target; before verification only."""
    if view.target is None or view.facts is None:
        return None
    feasible = [t for t in trials if t.cause == "finished" and reaches(t.metric, view)]
    if not feasible:
        return None
    trial = min(feasible, key=lambda t: (t.cost_flops, t.number))
    row = _row(view, trial.policy, trial.cost_flops)
    return {**row, "metric": trial.metric, "interval": None, "seconds": trial.seconds, "seeds": 1, "passed": None}


def reaches(metric: float | None, view: StudyView) -> bool:
    """Whether a validation metric is at the target or better."""
    if metric is None or view.target is None:
        return False
    return metric >= view.target if view.study.task.higher_is_better else metric <= view.target


def _row(view: StudyView, policy: Policy, cost_flops: int) -> Row:
    assert view.facts is not None
    return {
        "policy": policy.to_mapping(),
        "passes": policy.passes,
        "flops": cost_flops,
        "saving": saving(cost_flops, view.facts.reference_flops),
    }


def _counts(view: StudyView) -> dict[str, int]:
    causes = count(view.trials)
    skipped = int(view.manifest.search.get("skipped", 0))
    failed = causes["failed"] + causes["diverged"]
    return {"finished": causes["finished"], "stopped": causes["stopped"], "skipped": skipped, "failed": failed}


def _false_stops(trials: Iterable[RunRecord], target: float | None, higher: bool) -> dict[str, int]:
    """Trials that the search would have stopped and let run on, and how many of them reached the target after all."""
    checked = [t for t in trials if t.is_stop_audit and t.cause == "finished" and t.metric is not None]
    if target is None:
        return {"checked": 0, "false": 0}
    wrong = [t for t in checked if t.metric is not None and (t.metric >= target if higher else t.metric <= target)]
    return {"checked": len(checked), "false": len(wrong)}


def _candidate_summary(view: StudyView, candidate: Candidate) -> Row:
    verdict: Mapping[str, Any] = view.verdicts.get(candidate.name, {})
    return {
        "name": candidate.name,
        "policy": candidate.policy.to_mapping(),
        "flops": candidate.cost_flops,
        "passed": verdict.get("passed"),
        "shortfall": _finite(verdict.get("shortfall")),
        "reason": verdict.get("reason", "not tested yet"),
    }


def _components(view: StudyView) -> list[Row]:
    """Every component of the space: its trials, and how it compares; no kind of which there is only the neutral one."""
    kinds = {component.kind for component in view.study.contenders}
    return [_component_row(view, component) for component in view.study.components if component.kind in kinds]


def _component_row(view: StudyView, component: Component) -> Row:
    in_arm = (trial for trial in view.trials if trial.policy.arm == SUBSET)
    trials = [trial for trial in in_arm if name_in(trial.policy, component.kind) == component.name]
    feasible = [trial for trial in trials if trial.cause == "finished" and reaches(trial.metric, view)]
    compared = view.compared.get(component)
    return {
        "kind": component.kind,
        "name": component.name,
        "against": None if component.is_neutral else component.against,
        "trials": len(trials),
        "feasible": len(feasible),
        "cheapest_flops": min((trial.cost_flops for trial in feasible), default=None),
        "comparison": _compared_row(compared) if compared is not None else None,
    }


def _compared_row(row: AblationResult) -> Row:
    from subsettune.study.results.headline import comparison_words

    plain: Row = config.to_plain(row)
    interval = [row.lower, row.upper] if row.lower is not None else None
    kept = {key: value for key, value in plain.items() if key not in ("kind", "name", "lower", "upper")}
    more = {"interval": interval, "seeds": len(row.differences), "selection_share": row.selection_share}
    return {**kept, **more, "words": comparison_words(row)}


def _tuning(view: StudyView, best: Row | None) -> Row:
    """What tuning cost: every run, evaluations and repeated work included, a cached reference in full."""
    runs = (*view.reference, *view.trials, *view.verification, *view.comparison)
    flops = sum(r.ledger.total + r.repeated_flops for r in runs)
    seconds = sum(r.train_s + r.select_s + r.evaluate_s for r in runs)
    passes = flops / view.facts.pass_flops if view.facts is not None else None
    row: Row = {"passes": passes, "flops": flops, "seconds": seconds, "break_even": None}
    if (
        best is not None
        and best.get("passed")
        and view.facts is not None
        and best["flops"] < view.facts.reference_flops
    ):
        row["break_even"] = break_even(flops, view.facts.reference_flops, best["flops"])
    return row


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
