"""What a bundle claims and by which runs: the numbers of verification as frozen values with a JSON form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, FrozenDict, setting
from subsettune.errors import ConfigError
from subsettune.policy import FULL, Policy

if TYPE_CHECKING:
    from subsettune.study.results.records import RunRecord
    from subsettune.study.results.view import Candidate, StudyView

REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """One training.

    Args:
        seed: of the run; runs of different policies with one seed are paired.
        metric: of the final weights on the test split; null if the run gave none.
        validation: of the final weights on the validation split; null likewise.
    """

    seed: int
    metric: float | None
    validation: float | None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEvidence:
    """A policy that was verified, or the reference, or a control.

    Args:
        name: `reference`, `candidate-1`, `shorter` (the best of the full arm), `equal` (all data
            for the compute of the winner), `random` (the random control), ...
        policy: what was trained.
        passes: compute of one training, in passes.
        flops: the same in FLOPs.
        seconds: mean of the runs, selection included; null without runs.
        saving: 1 - flops / FLOPs of the reference.
        metric: mean over the runs on the test split; null without runs.
        passed: whether it matches the reference; null if it was not tested.
        verdict: of the test, as `subsettune.study.verification.verification.Verdict` has it; empty for the reference.
        runs: in order of their seeds.
    """

    name: str
    policy: Policy
    passes: float = setting(rule=POSITIVE)
    flops: int = setting(rule=NOT_NEGATIVE)
    seconds: float | None = None
    saving: float
    metric: float | None = None
    passed: bool | None = None
    verdict: FrozenDict = setting(FrozenDict())
    runs: tuple[RunEvidence, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All numbers behind a bundle.

    Args:
        run_id: of the study.
        headline: what the study found, in one sentence.
        metric: its name.
        higher_is_better: its direction.
        margin: how far short of the reference still counts as matched, in the metric's units.
        alpha: error rate of the verification.
        target: the worst validation metric that the search counted as matched.
        winner: name of the candidate that the bundle holds.
        statement: what the test says and what it does not.
        reference: the conventional recipe.
        candidates: in the order in which they were tested, controls last.
        saving_recipe: compute saved against the recipe, a share of it.
        saving_shorter: compute saved against the best shorter schedule that passed, a share of it; null without one.
        tuning_flops: everything that the study spent.
        break_even: future trainings that repay the tuning; null if none do.
        versions: of the packages.
        hardware: that the study ran on.
        command: that ran it.
    """

    run_id: str
    headline: str
    metric: str
    higher_is_better: bool
    margin: float = setting(rule=POSITIVE)
    alpha: float = setting(rule=POSITIVE)
    target: float
    winner: str
    statement: str
    reference: PolicyEvidence
    candidates: tuple[PolicyEvidence, ...] = setting(rule=config.NOT_EMPTY)
    saving_recipe: float
    saving_shorter: float | None
    tuning_flops: int
    break_even: int | None
    versions: FrozenDict
    hardware: FrozenDict
    command: str

    def __post_init__(self) -> None:
        config.check(self)
        if self.winner not in [candidate.name for candidate in self.candidates]:
            names = ", ".join(candidate.name for candidate in self.candidates)
            raise ConfigError(config.must("winner", f"one of {names}", self.winner))

    @property
    def best(self) -> PolicyEvidence:
        """The candidate that the bundle holds."""
        return next(candidate for candidate in self.candidates if candidate.name == self.winner)


def of_study(view: StudyView, winner: str) -> Evidence:
    """Gather the evidence of a study whose verification is over."""
    assert view.facts is not None, "a verified study knows its facts"
    assert view.target is not None, "a verified study knows its target"
    task, tuning = view.study.task, view.summary["tuning"]
    best, shorter = view.candidates[winner], _cheapest_shorter(view)
    return Evidence(
        run_id=view.run_id,
        headline=view.summary["headline"],
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        margin=task.tolerance,
        alpha=view.study.study.alpha,
        target=view.target,
        winner=winner,
        statement=_statement(view, winner),
        reference=_reference(view),
        candidates=tuple(_candidate(view, candidate) for candidate in view.candidates.values()),
        saving_recipe=1 - best.cost_flops / view.facts.reference_flops,
        saving_shorter=None if shorter is None else 1 - best.cost_flops / shorter.cost_flops,
        tuning_flops=tuning["flops"],
        break_even=tuning["break_even"],
        versions=view.manifest.versions,
        hardware=view.manifest.hardware,
        command=view.manifest.command or "",
    )


def _statement(view: StudyView, winner: str) -> str:
    from subsettune.study.verification.noninferiority import Rules  # scipy, which following a bundle does without
    from subsettune.study.verification.verification import Verdict, statement

    study = view.study.study
    rules = Rules(
        margin=view.study.task.tolerance,
        alpha=study.alpha,
        seeds=study.seeds,
        max_seeds=study.seed_cap,
        higher_is_better=view.study.task.higher_is_better,
    )
    return statement(Verdict(**view.verdicts[winner]), rules)


def _cheapest_shorter(view: StudyView) -> Candidate | None:
    passed = [
        candidate
        for name, candidate in view.candidates.items()
        if candidate.policy.arm == FULL and view.verdicts.get(name, {}).get("passed")
    ]
    return min(passed, key=lambda candidate: candidate.cost_flops, default=None)


def _reference(view: StudyView) -> PolicyEvidence:
    assert view.facts is not None
    tested = [record for record in view.verification if record.candidate == REFERENCE]
    return PolicyEvidence(
        name=REFERENCE,
        policy=view.reference[0].policy,
        passes=view.facts.reference_passes,
        flops=view.facts.reference_flops,
        seconds=_mean(record.seconds for record in view.reference),
        saving=0.0,
        metric=_mean(record.test_metric for record in tested),
        runs=_runs(tested),
    )


def _candidate(view: StudyView, candidate: Candidate) -> PolicyEvidence:
    assert view.facts is not None
    records = [record for record in view.verification if record.candidate == candidate.name]
    verdict = view.verdicts.get(candidate.name, {})
    return PolicyEvidence(
        name=candidate.name,
        policy=candidate.policy,
        passes=candidate.policy.passes,
        flops=candidate.cost_flops,
        seconds=_mean(record.seconds for record in records if record.cause == "finished"),
        saving=1 - candidate.cost_flops / view.facts.reference_flops,
        metric=_mean(record.test_metric for record in records),
        passed=verdict.get("passed"),
        verdict=FrozenDict({key: _finite(value) for key, value in verdict.items()}),
        runs=_runs(records),
    )


def _runs(records: Iterable[RunRecord]) -> tuple[RunEvidence, ...]:
    rows = sorted(records, key=lambda record: record.seed)
    return tuple(RunEvidence(seed=r.seed, metric=r.test_metric, validation=r.metric) for r in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
