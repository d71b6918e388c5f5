"""The summary of a study as a value: the object that `show --json` prints, row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from subsettune import config
from subsettune.policy import Policy
from subsettune.study.results.ablation import AblationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRow:
    """The conventional recipe.

    Args:
        metric: mean on the validation split.
        test_metric: mean on the test split, once verification has run it.
        passes: compute of one training.
        flops: likewise.
        seconds: mean, selection included.
        seeds: runs behind `metric`.
    """

    metric: float | None
    test_metric: float | None
    passes: float
    flops: int
    seconds: float | None
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """A policy that stands beside the recipe.

    Args:
        policy: what is trained.
        passes: compute of one training.
        flops: likewise.
        saving: share of the reference's compute that it does not need; negative if it needs more; None where it has no
            metric, or verification has judged and it did not pass: what does not match saves nothing.
        name: of the candidate; None for a trial, before verification.
        metric: mean on the test split, or before verification on the validation split.
        interval: one-sided lower bound on metric minus reference, oriented; None before verification.
        seconds: mean, selection included.
        seeds: finished runs.
        passed: the verdict; None while there is none.
    """

    policy: Policy
    passes: float
    flops: int
    saving: float | None
    name: str | None = None
    metric: float | None
    interval: float | None = None
    seconds: float | None
    seeds: int
    passed: bool | None = None

    def to_mapping(self) -> dict[str, Any]:
        """As `show --json` prints it; a trial has no name."""
        plain = {name: getattr(self, name) for name in PolicyRow.__dataclass_fields__}
        if self.name is None:
            del plain["name"]
        return {**plain, "policy": self.policy.to_mapping()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials there were, and what became of them; `failed` has the diverged ones."""

    finished: int
    stopped: int
    skipped: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseStops:
    """Trials that the search would have stopped and let run on, and how many reached the target after all."""

    checked: int
    false: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """A candidate or control, and what verification says of it.

    Args:
        name: of the candidate.
        policy: what was trained.
        flops: of one training.
        passed: None while undecided or not tested.
        shortfall: by how much its bound missed the margin; None without a number.
        reason: in words.
    """

    name: str
    policy: Policy
    flops: int
    passed: bool | None
    shortfall: float | None
    reason: str

    def to_mapping(self) -> dict[str, Any]:
        """As `show --json` prints it."""
        plain = {name: getattr(self, name) for name in CandidateRow.__dataclass_fields__}
        return {**plain, "policy": self.policy.to_mapping()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """A component of the space: how its trials did, and whether it paid for itself.

    Args:
        kind: of the component.
        name: of the component.
        against: name of the neutral one of its kind; None for that itself.
        trials: that had it.
        feasible: of them, finished at the target.
        cheapest_flops: of those; None without any.
        ablation: against the same policy without it; None where there was none.
    """

    kind: str
    name: str
    against: str | None
    trials: int
    feasible: int
    cheapest_flops: int | None
    ablation: AblationResult | None

    def to_mapping(self) -> dict[str, Any]:
        """As `show --json` prints it."""
        plain = {name: getattr(self, name) for name in ComponentRow.__dataclass_fields__ if name != "ablation"}
        return {**plain, "ablation": None if self.ablation is None else _ablation(self.ablation)}


def _ablation(row: AblationResult) -> dict[str, Any]:
    kept = {key: value for key, value in config.to_plain(row).items() if key not in ("kind", "name", "lower", "upper")}
    interval = [row.lower, row.upper] if row.lower is not None else None
    more = {"interval": interval, "seeds": len(row.differences), "selection_share": row.selection_share}
    return {**kept, **more, "words": row.words}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What tuning cost: every run, evaluations and repeated work included, a cached reference in full.

    Args:
        passes: None before the facts are known.
        flops: in all.
        seconds: of training, selection and evaluation.
        break_even: future trainings that repay it; None without a verified saving.
    """

    passes: float | None
    flops: int
    seconds: float
    break_even: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a study found.

    `best`, `shorter`, `equal` and `random` are rows of verification where it has run, and of the search before: then
    the metric is the validation one and `interval` and `passed` are None.

    Args:
        run_id: name of the study.
        status: a stage, `finished` or `interrupted`.
        metric_name: of the task.
        target: validation metric that counts as matched, once it is known.
        reference: the conventional recipe, once it has run.
        best: the cheapest policy that passed, or before verification the cheapest trial at the target.
        shorter: the best shorter schedule on all data.
        equal: all data for the compute of the best policy; there where that has a subset and was verified, and no
            candidate was the same.
        random: the random control.
        trials: counts by what became of them.
        false_stops: of the trials that ran on to measure them.
        candidates: in the order in which they are tested.
        components: of the space; no kind of which there is only the neutral one.
        verified: whether a policy passed.
        bundle: where it lies, or None.
        tuning: what the study cost.
        headline: what it found, in one sentence.
    """

    run_id: str
    status: str
    metric_name: str
    target: float | None
    reference: ReferenceRow | None
    best: PolicyRow | None
    shorter: PolicyRow | None
    equal: PolicyRow | None
    random: PolicyRow | None
    trials: TrialCounts
    false_stops: FalseStops
    candidates: tuple[CandidateRow, ...]
    components: tuple[ComponentRow, ...]
    verified: bool
    bundle: str | None
    tuning: Tuning
    headline: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """The object that `show --json` prints."""
        return {name: _plain(getattr(self, name)) for name in Summary.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, PolicyRow | CandidateRow | ComponentRow):
        return value.to_mapping()
    if isinstance(value, ReferenceRow | TrialCounts | FalseStops | Tuning):
        return asdict(value)
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
