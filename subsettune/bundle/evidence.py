"""What a bundle claims and by which runs: the numbers of verification as frozen values with a JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, FrozenDict, setting
from subsettune.errors import ConfigError
from subsettune.policy import Policy
from subsettune.study.results.candidate import OWN, RANDOM, role_of
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.verdict import Verdict

REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """One training.

    Args:
        seed: of the run; runs of two policies with one seed have initial weights and order of examples in common.
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
        name: `reference`, `candidate-1`, `recipe` (the recipe at the largest budget), `equal` (all data for the
            compute of the winner), `own` (the same by the winner's own settings), `random` (the random control), ...;
            version 0.1 had `shorter` (the best of the full arm), too.
        policy: what was trained.
        passes: compute of one training, in passes.
        flops: the same in FLOPs.
        seconds: mean of the runs, selection included; null without runs.
        saving: 1 - flops / FLOPs of the reference.
        metric: mean on the test split over the runs that were compared; null without runs.
        reference_metric: mean of the reference over those that they were held against; null likewise.
        error_increase: error over the reference's, minus 1; the error of an accuracy is what it is short of 1.
        passed: whether it matches the reference; null if it was not tested, as `own` and the random control never are.
        verdict: of the test, as `Verdict.to_mapping` gives it; empty for the reference, and where there is none.
        runs: in order of their seeds.
    """

    name: str
    policy: Policy
    passes: float = setting(rule=POSITIVE)
    flops: int = setting(rule=NOT_NEGATIVE)
    seconds: float | None = None
    saving: float
    metric: float | None = None
    reference_metric: float | None = None
    error_increase: float | None = None
    passed: bool | None = None
    verdict: FrozenDict = setting(FrozenDict())
    runs: tuple[RunEvidence, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def may_claim(self) -> bool:
        """Whether the error rate covers what is said of it: not of `own` and the random control."""
        return role_of(self.name) not in (OWN, RANDOM)

    @property
    def judgement(self) -> Verdict | None:
        """The verdict as a value; None for the reference, and for what was not tested."""
        return Verdict.from_mapping(self.verdict) if self.verdict else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationEvidence:
    """The policy verified once more, with seeds that nobody had looked at.

    Args:
        said: what it showed, in a sentence or two.
        passed: whether the policy matched the reference again.
        verdict: of the test, as `Verdict.to_mapping` gives it.
        runs: of the policy, in order of their seeds.
        reference: runs of the reference, likewise.
    """

    said: str
    passed: bool
    verdict: FrozenDict
    runs: tuple[RunEvidence, ...]
    reference: tuple[RunEvidence, ...]

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
        candidates: in the order of the line-up, controls last.
        contrasts: the winner against its controls, as `Contrast.to_mapping` gives them.
        saving_recipe: compute saved against the recipe, a share of it.
        saving_shorter: compute saved against the cheapest schedule on all data that passed, a share; null without.
        tuning_flops: everything that the study spent.
        break_even: future trainings whose saved compute repays the tuning; null if none do.
        tuning_seconds: of training, selection and evaluation, of everything that the study ran; null where not noted.
        break_even_seconds: future trainings whose saved seconds repay those; null if none do.
        needs: by arm, between which shares of the reference's compute the least that matches lies, as the search saw
            it; empty where it did not say.
        versions: of the packages.
        hardware: that the study ran on.
        command: that ran it.
        num_threads: CPU threads of each run, on which the bits of a result depend; null where that was not noted.
        test_from: where the test part comes from: `file`, an official test file, or `split`, drawn from the training
            file; empty where that was not noted.
        validation_from: `file` where the validation part is an official file; else empty.
        sampled: the winner's difference to the reference where other test examples are drawn, too; null where it is not
            known which examples its runs got right.
        place: the how many-th study it was that was verified on its test split, as far as its machine knew; null where
            that was not noted.
        confirmation: with fresh seeds; null where nobody has asked for it.
        known_before: what earlier studies had shown, and had cost beyond `tuning_flops`, in words.
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
    contrasts: tuple[FrozenDict, ...] = ()
    saving_recipe: float
    saving_shorter: float | None
    tuning_flops: int
    break_even: int | None
    tuning_seconds: float | None = None
    break_even_seconds: int | None = None
    needs: FrozenDict = setting(FrozenDict())
    versions: FrozenDict
    hardware: FrozenDict
    command: str
    num_threads: int | None = setting(None, rule=config.AT_LEAST_ONE)
    test_from: Literal["", "file", "split"] = ""
    validation_from: Literal["", "file"] = ""
    sampled: SampledDifference | None = None
    place: int | None = setting(None, rule=config.AT_LEAST_ONE)
    confirmation: ConfirmationEvidence | None = None
    known_before: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)
        if self.winner not in [candidate.name for candidate in self.candidates]:
            names = ", ".join(candidate.name for candidate in self.candidates)
            raise ConfigError(config.must("winner", f"one of {names}", self.winner))

    @property
    def best(self) -> PolicyEvidence:
        """The candidate that the bundle holds."""
        return next(candidate for candidate in self.candidates if candidate.name == self.winner)

    @property
    def against_controls(self) -> tuple[Contrast, ...]:
        """The contrasts as values."""
        return tuple(Contrast.from_mapping(plain) for plain in self.contrasts)
