"""What a study found: the view that tables, the report and the bundle are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from subsettune.facts import TaskFacts
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.candidate import Candidate, told_name
from subsettune.study.results.manifest import Manifest
from subsettune.study.results.records import RunRecord
from subsettune.study.results.summary import PolicyRow, Summary
from subsettune.study.results.verdict import Verdict
from subsettune.study.spec.components import Component
from subsettune.study.spec.definition import Study

REFERENCE = "reference"  # the name under which verification repeats the recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Runs that are held against each other.

    Args:
        own: test metrics of a candidate, by seed.
        reference: likewise of the reference.
    """

    own: Mapping[int, float]
    reference: Mapping[int, float]

    @property
    def metric(self) -> float | None:
        """Mean of the candidate; None without runs."""
        return _mean(self.own)

    @property
    def reference_metric(self) -> float | None:
        """Likewise of the reference."""
        return _mean(self.reference)


def _mean(by_seed: Mapping[int, float]) -> float | None:
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecords:
    """A study as it stands on disk, finished or not.

    Args:
        run_id: name of the study.
        folder: where it lies.
        study: the resolved input.
        manifest: versions, hardware, data fingerprint, seeds, status, command, counts of the search.
        facts: of the task, once they are known.
        target: the worst validation metric that still counts as matched, once the reference is known.
        reference: runs of the conventional recipe.
        trials: runs of the search, in order of their numbers.
        verification: runs of candidates and controls.
        candidates: by name, in the order in which they are tested, the random control last.
        verdicts: by name of the candidate.
        ablation_runs: runs that compare components with their neutral kin.
        ablation: by component, in the order of the space; empty before the ablation and where there is none.
        confirmation_runs: of exported policies and of the reference, with fresh seeds.
    """

    run_id: str
    folder: str
    study: Study
    manifest: Manifest
    facts: TaskFacts | None
    target: float | None
    reference: tuple[RunRecord, ...]
    trials: tuple[RunRecord, ...]
    verification: tuple[RunRecord, ...]
    candidates: Mapping[str, Candidate]
    verdicts: Mapping[str, Verdict]
    ablation_runs: tuple[RunRecord, ...] = ()
    ablation: Mapping[Component, AblationResult] = field(default_factory=dict)
    confirmation_runs: tuple[RunRecord, ...] = ()

    def reaches(self, metric: float | None) -> bool:
        """Whether a validation metric is at the target or better; NaN is not."""
        if metric is None or self.target is None:
            return False
        return metric >= self.target if self.study.task.higher_is_better else metric <= self.target

    def passed(self, candidate: Candidate) -> bool:
        """Whether verification says that a candidate matches the reference; it says so of no random control."""
        verdict = self.verdicts.get(candidate.name)
        return candidate.may_match and verdict is not None and verdict.passed is True

    def reason_of(self, verdict: Verdict) -> str:
        """Why a verdict is what it is; in a finished study nothing waits for runs any more."""
        is_waiting = verdict.passed is None and not verdict.is_tested and verdict.level > 0
        if not is_waiting or self.manifest.status != "finished":
            return verdict.reason
        cost = self.candidates[verdict.name].cost_flops
        passed = [one.cost_flops for one in self.candidates.values() if self.passed(one)]
        if not passed or min(passed) > cost:
            return verdict.reason
        return f"not needed: a {'cheaper policy' if min(passed) < cost else 'policy of the same cost'} passed"

    def test_metrics(self, name: str | None) -> dict[int, float]:
        """Test metric of a candidate, or of `reference`, by seed; of the runs that have one, whichever asked for them.

        A policy that has two names, in two rounds or as a control, is trained once.
        """
        return {run.seed: run.test_metric for run in self._runs_of(name) if run.test_metric is not None}

    def first_metrics(self, name: str | None, number: int) -> dict[int, float]:
        """The same of the first runs: verification takes seeds one after another.

        A run that diverged is one of them and has none; what was made ahead of it is not taken in its place.
        """
        first = sorted({run.seed for run in self._runs_of(name)})[:number]
        metrics = self.test_metrics(name)
        return {seed: metrics[seed] for seed in first if seed in metrics}

    def _runs_of(self, name: str | None) -> list[RunRecord]:
        candidate = self.candidates.get(name or "")
        policy = None if candidate is None else candidate.policy
        return [run for run in self.verification if run.candidate == name or run.policy == policy]

    def compared(self, name: str) -> Compared:
        """What a verdict on a candidate rests on, or of a control without one its difference to the winner."""
        verdict, contrast = self.verdicts.get(name), self.manifest.contrasts.get(name)
        if verdict is None and contrast is not None:
            against = self.verdicts.get(contrast.policy)
            sizes = contrast.num_seeds, 0 if against is None else against.num_references
        else:
            sizes = (0, 0) if verdict is None else (verdict.num_seeds, verdict.num_references)
            sizes = (min(sizes), min(sizes)) if verdict is not None and verdict.is_paired else sizes
        return Compared(own=self.first_metrics(name, sizes[0]), reference=self.first_metrics(REFERENCE, sizes[1]))

    @property
    def tested(self) -> tuple[Verdict, ...]:
        """Verdicts on candidates, controls left out, that rest on runs."""
        known = ((self.candidates[name], verdict) for name, verdict in self.verdicts.items())
        return tuple(verdict for candidate, verdict in known if verdict.is_tested and not candidate.is_control)

    @property
    def nearest(self) -> Verdict | None:
        """Of the candidates that missed, in whichever round, the one whose bound did by least; None where none did."""
        missed = [one for one in self.tested if one.passed is False and math.isfinite(one.shortfall)]
        return min(missed, key=lambda one: one.shortfall, default=None)

    def named(self, name: str) -> str:
        """A candidate's name as it is told: `candidate-1 (round 1)` where there were several, `short recipe`."""
        number, shown = self.manifest.round_of(name), told_name(name)
        return shown if number is None else f"{shown} (round {number})"

    def candidate_of(self, row: PolicyRow) -> Candidate | None:
        """The candidate whose policy a row of the summary holds; before verification there is none."""
        if row.name is not None:
            return self.candidates.get(row.name)
        return next((one for one in self.candidates.values() if one.policy.key == row.policy.key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView(StudyRecords):
    """The records of a study, and what they come to.

    Args:
        summary: the object that `show --json` prints.
    """

    summary: Summary

    @property
    def unit(self) -> str:
        """What compute is counted in: `FLOP`, or `example` where nobody knows what one costs."""
        return "FLOP" if self.facts is None else self.facts.unit
