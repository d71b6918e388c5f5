"""How a bundle is made: from a policy with its evidence, or from a study whose verification is over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, cast

import numpy as np
import pyarrow as pa

from subsettune.bundle import files
from subsettune.bundle.bundle import Bundle, PhaseSubset, Place
from subsettune.bundle.evidence import REFERENCE, ConfirmationEvidence, Evidence, PolicyEvidence, RunEvidence
from subsettune.bundle.known import KnownData
from subsettune.bundle.paths import placed
from subsettune.bundle.readme import page
from subsettune.bundle.rows import TrainingRows
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, Part
from subsettune.facts import TaskFacts
from subsettune.policy import FULL, Policy
from subsettune.select import Subset
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.costs import error_increase
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.study.verification.rules import rules_of
from subsettune.study.verification.verification import statement
from subsettune.task import Task
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project


# More than six parameters: they are what a bundle holds, and whoever has no study has each by itself.
def export_policy(
    target: Place,
    made: Policy,
    evidence: Evidence,
    *,
    task: Task,
    facts: TaskFacts,
    fingerprint: str,
    seed: int = 0,
    subsets: Sequence[PhaseSubset] = (),
    known: KnownData | None = None,
    rows: TrainingRows | None = None,
) -> Bundle:
    """Make a bundle and write it to a folder; see `Bundle` and `Bundle.write`.

    Args:
        target: a local folder or a URI.
        made: the policy.
        evidence: that it matches.
        task: it was made for.
        facts: of the task.
        fingerprint: of the data.
        seed: of the run that chooses the subsets.
        subsets: for each phase that has one, from `chosen`.
        known: names of the data.
        rows: of the training part; None of data that were distorted on purpose.
    """
    bundle = Bundle(
        policy=made,
        facts=facts,
        task=task,
        fingerprint=fingerprint,
        seed=seed,
        visits=_visits(made, task, facts),
        table=_to_table(subsets, is_classification=task.kind == "classification"),
        evidence=evidence,
        known=known,
        rows=rows,
    )
    bundle = replace(bundle, readme=page(bundle, str(target)))
    bundle.write(target)
    return bundle


# More than six parameters: three are what to export, five where it comes from and goes to.
def export_study(
    view: StudyView,
    winner: str,
    subsets: Sequence[PhaseSubset],
    *,
    seed: int,
    target: Place,
    places: DataPaths | None = None,
    known: KnownData | None = None,
    rows: TrainingRows | None = None,
) -> Bundle:
    """Make the bundle of a study whose verification is over, and write it to a folder.

    Args:
        view: the study.
        winner: name of the candidate to export.
        subsets: what its phases choose with `seed`, from `chosen`.
        seed: of the run that chose them.
        target: a local folder or a URI.
        places: where the study found its data: paths are then written so that they hold from any folder.
        known: names of the data.
        rows: of the training part.
    """
    assert view.facts is not None, "a verified study knows its facts"
    assert view.manifest.data is not None, "a verified study knows its data"
    return export_policy(
        target,
        view.candidates[winner].policy,
        evidence_of(view, winner),
        task=view.study.task if places is None else placed(view.study.task, places),
        facts=view.facts,
        fingerprint=view.manifest.data.fingerprint,
        seed=seed,
        subsets=subsets,
        known=known,
        rows=rows,
    )


def confirm_bundle(view: StudyView, target: Place) -> Bundle:
    """Write into the bundle of a study what the confirmation of its policy showed; what it holds else stays.

    Args:
        view: the study, confirmed.
        target: where the bundle lies.

    Raises:
        BundleError: it is no bundle, or damaged.
    """
    bundle = Bundle.load(target)
    bundle = replace(bundle, evidence=replace(bundle.evidence, confirmation=_confirmation(view)))
    bundle = replace(bundle, readme=page(bundle, str(target)))
    bundle.write(target)
    return bundle


def chosen(phase: int, subset: Subset, part: Part) -> PhaseSubset:
    """Rows of the source for a subset's positions in the training part.

    Args:
        phase: index of the phase that chose it.
        subset: k positions and weights.
        part: the training part, with the row of the source of each example.
    """
    positions = subset.positions.cpu().numpy()
    labels = part.targets.cpu().numpy()[positions]
    return PhaseSubset(
        phase=phase,
        index=part.rows.cpu().numpy()[positions].astype(np.int64),
        weight=subset.loss_weights.cpu().numpy(),
        label=labels.astype(np.int64 if labels.dtype.kind in "iu" else np.float64),
    )


def _visits(made: Policy, task: Task, facts: TaskFacts) -> tuple[int, ...]:
    """Examples in the batches of each phase."""
    return tuple(phase.examples for phase in project(resolve(made, task.recipe.override(made.recipe), facts)))


def _to_table(subsets: Sequence[PhaseSubset], *, is_classification: bool) -> pa.Table:
    whole, value, values = files.LABELS
    several = any(subset.label.ndim == 2 for subset in subsets)
    schema = files.columns(whole if is_classification else values if several else value)
    tables = [
        pa.table([np.full(len(s), s.phase), np.arange(len(s)), s.index, s.weight, list(s.label)], names=schema.names)
        for s in subsets
    ]
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)]).combine_chunks()


def evidence_of(view: StudyView, winner: str) -> Evidence:
    """Gather the evidence of a study whose verification is over."""
    assert view.facts is not None, "a verified study knows its facts"
    assert view.target is not None, "a verified study knows its target"
    task, tuning = view.study.task, view.summary.tuning
    best, shorter = view.candidates[winner], _cheapest_shorter(view)
    return Evidence(
        run_id=view.run_id,
        headline=view.summary.headline,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        margin=task.tolerance,
        alpha=view.study.study.alpha,
        target=view.target,
        winner=winner,
        statement=statement(view.verdicts[winner], rules_of(view.study)),
        reference=_reference(view, winner),
        candidates=tuple(_candidate(view, candidate) for candidate in view.candidates.values()),
        contrasts=tuple(FrozenDict(one.to_mapping()) for one in view.manifest.contrasts.values()),
        saving_recipe=1 - best.cost_flops / view.facts.reference_flops,
        saving_shorter=None if shorter is None else 1 - best.cost_flops / shorter.cost_flops,
        tuning_flops=tuning.flops,
        break_even=tuning.break_even,
        tuning_seconds=tuning.seconds,
        break_even_seconds=tuning.break_even_seconds,
        needs=view.summary.needs,
        versions=view.manifest.versions,
        hardware=view.manifest.hardware,
        command=view.manifest.command or "",
        num_threads=view.study.study.cpus_per_trial,
        test_from=cast(Literal["", "file", "split"], view.manifest.data.test_from if view.manifest.data else ""),
        validation_from=cast(Literal["", "file"], view.manifest.data.validation_from if view.manifest.data else ""),
        sampled=view.manifest.sampled.get(winner),
        place=view.manifest.place,
        confirmation=_confirmation(view),
        known_before=tuple(one.sentence for one in view.summary.known_before),
    )


def _confirmation(view: StudyView) -> ConfirmationEvidence | None:
    found = view.manifest.confirmation
    if found is None or found.verdict.passed is None:
        return None
    seeds = range(found.first_seed, found.first_seed + found.num_seeds)
    runs = [record for record in view.confirmation_runs if record.seed in seeds]
    return ConfirmationEvidence(
        said=found.sentence(view.study.task.tolerance),
        passed=found.verdict.passed,
        verdict=FrozenDict(found.verdict.to_mapping()),
        runs=_runs(record for record in runs if record.candidate == found.candidate),
        reference=_runs(record for record in runs if record.candidate == REFERENCE),
    )


def _cheapest_shorter(view: StudyView) -> Candidate | None:
    passed = [one for one in view.candidates.values() if one.policy.arm == FULL and view.passed(one)]
    return min(passed, key=lambda candidate: candidate.cost_flops, default=None)


def _reference(view: StudyView, winner: str) -> PolicyEvidence:
    assert view.facts is not None
    tested = [record for record in view.verification if record.candidate == REFERENCE]
    return PolicyEvidence(
        name=REFERENCE,
        policy=view.reference[0].policy,
        passes=view.facts.reference_passes,
        flops=view.facts.reference_flops,
        seconds=None if view.summary.reference is None else view.summary.reference.seconds,
        saving=0.0,
        metric=view.compared(winner).reference_metric,
        runs=_runs(tested),
    )


def _candidate(view: StudyView, candidate: Candidate) -> PolicyEvidence:
    assert view.facts is not None
    asked = [record for record in view.verification if record.candidate == candidate.name]
    records = asked or [record for record in view.verification if record.policy == candidate.policy]
    verdict, compared = view.verdicts.get(candidate.name), view.compared(candidate.name)
    better = view.study.task.higher_is_better
    return PolicyEvidence(
        name=candidate.name,
        policy=candidate.policy,
        passes=candidate.policy.passes,
        flops=candidate.cost_flops,
        seconds=_mean(record.seconds for record in records if record.cause == "finished"),
        saving=1 - candidate.cost_flops / view.facts.reference_flops,
        metric=compared.metric,
        reference_metric=compared.reference_metric,
        error_increase=error_increase(compared.metric, compared.reference_metric, higher_is_better=better)
        if view.study.task.has_error
        else None,
        passed=None if verdict is None else verdict.passed,
        verdict=FrozenDict({} if verdict is None else verdict.to_mapping()),
        runs=_runs(records),
    )


def _runs(records: Iterable[RunRecord]) -> tuple[RunEvidence, ...]:
    rows = sorted(records, key=lambda record: record.seed)
    return tuple(RunEvidence(seed=r.seed, metric=r.test_metric, validation=r.metric) for r in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None
