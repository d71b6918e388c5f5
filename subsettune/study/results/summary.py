"""The summary of a study as a value: the object that `show --json` prints, row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.policy import Policy
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.candidate import OWN, role_of
from subsettune.study.results.known_before import KnownBefore


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRow:
    """The conventional recipe.

    Args:
        metric: mean on the validation split.
        test_metric: mean on the test split, once verification has run it, over `test_seeds` runs.
        passes: compute of one training.
        flops: likewise.
        seconds: mean, selection included; runs from the cache at the pace of this study.
        seeds: runs behind `metric`.
        test_seeds: runs that the best policy was compared with; where there is none, the most that any was.
    """

    metric: float | None
    test_metric: float | None
    passes: float
    flops: int
    seconds: float | None
    seeds: int
    test_seeds: int = 0


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
        metric: mean on the test split over the runs that were compared, or before verification on the validation split.
        interval: one-sided lower bound on metric minus reference, oriented; None before verification.
        seconds: mean, selection included.
        seeds: runs behind `metric`.
        references: runs of the reference that they were compared with; None before verification.
        reference_metric: mean of those on the test split.
        error_increase: error of the policy over that of those, minus 1: see `costs.error_increase`.
        passed: the verdict; None while there is none, as of a random control, which is held against the winner alone.
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
    references: int | None = None
    reference_metric: float | None = None
    error_increase: float | None = None
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
        seeds: runs of it that the verdict rests on.
        references: likewise of the reference.
        level: error rate that its tests share; 0 where nothing may be claimed.
    """

    name: str
    policy: Policy
    flops: int
    passed: bool | None
    shortfall: float | None
    reason: str
    seeds: int
    references: int
    level: float

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
class Win:
    """Whether a policy of the subset arm is shown to be better than plain training of equal compute.

    Args:
        policy: name of the candidate.
        against: name of the control that decides, plain training of its compute.
        shown: None while that is open.
        difference: mean over pairs with one seed, oriented: higher is better; None without runs.
        lower_bound: one-sided, at `level`; None likewise.
        seeds: pairs.
        level: of the test taken alone.
    """

    policy: str
    against: str
    shown: bool | None
    difference: float | None
    lower_bound: float | None
    seeds: int
    level: float

    @property
    def is_of_own(self) -> bool:
        """Whether what decides is plain training by the policy's own settings."""
        return role_of(self.against) == OWN


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMargin:
    """What was verified that would have passed with a smaller tolerance, at the level that it was tested at.

    Args:
        margin: the smaller tolerance; 0 is as good as the recipe.
        name: of the cheapest candidate whose bound is above -margin; None where there is none.
        flops: of one training of it.
        saving: against the reference.
    """

    margin: float
    name: str | None
    flops: int | None
    saving: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """The recipe with an early stop, over the reference's seeds, on the validation split.

    Args:
        patience: looks without an improvement after which a run stops; None where all are truncated at `look`.
        look: at which all runs are truncated: the earliest from which on their mean is within the tolerance, found in
            hindsight; None with a patience.
        looks: at a whole run, at equal shares of its compute.
        seeds: runs of the reference.
        stopped: of them, those that it would have stopped before their end.
        metric: mean of the best look of each run up to its stop; truncated, of their last.
        reference_metric: mean of the same runs at their end.
        flops: mean compute of a run up to its stop, looks included.
        saving: share of the recipe's compute that is saved; None where it does not match: that saves nothing.
        is_within: whether the mean is within the tolerance of the reference's; nothing was tested for it.
    """

    patience: int | None = None
    look: int | None = None
    looks: int
    seeds: int
    stopped: int
    metric: float
    reference_metric: float
    flops: float
    saving: float | None
    is_within: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """How long the compute of one kind of phase took, in the runs on record.

    Args:
        kind: `full`, `subset`, `soup`, `pruned`, the name of an order that is not uniform, or `selection`.
        runs: that had it.
        flops: of it, in all of them.
        seconds: likewise.
        relative: seconds per FLOP over those of `full`; None without any.
    """

    kind: str
    runs: int
    flops: int
    seconds: float
    relative: float | None

    @property
    def seconds_per_tflop(self) -> float:
        """Seconds per 10^12 FLOPs."""
        return 1e12 * self.seconds / self.flops


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What the runs of one stage cost, evaluations and repeated work included.

    Args:
        stage: `reference`, `search`, `verification`, `not needed` (runs of verification that were made ahead and that
            nothing rests on), `ablation` or `confirmation`.
        runs: of it, those from the cache included.
        flops: of them, from the cache in full.
        seconds: of training, selection and evaluation; runs from the cache at the pace of this study.
    """

    stage: str
    runs: int
    flops: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What tuning cost: every run, evaluations and repeated work included, a cached reference in full, a stem once.

    Args:
        passes: None before the facts are known.
        flops: in all.
        seconds: of training, selection and evaluation; runs from the cache at the pace of this study.
        shared_flops: not in it: what trials did not have to train, because they began from stems of others.
        break_even: future trainings whose saved compute repays it; None without a verified saving.
        break_even_seconds: future trainings whose saved seconds repay its seconds; None likewise, and where none are
            saved.
        stages: the same by stage, in the order in which they run; those without a run left out.
    """

    passes: float | None
    flops: int
    seconds: float
    break_even: int | None
    break_even_seconds: int | None = None
    shared_flops: int = 0
    stages: tuple[StageCost, ...] = ()


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
        shorter: a shorter schedule on all data, by the settings of the search: of those that were tested for a match
            the cheapest that passed, or what missed by least.
        equal: all data for the compute of the best policy; there where that has a subset and was verified, and no
            candidate was the same.
        own: all data for the compute of a subset policy, by its own settings; None where that was not run.
        random: the random control.
        trials: counts by what became of them.
        false_stops: of the trials that ran on to measure them.
        candidates: in the order in which they are tested.
        components: of the space; no kind of which there is only the neutral one.
        win: of a subset policy over plain training of equal compute; None where that was not tested.
        at_margins: what would have passed with half the tolerance, and with none.
        needs: by arm, between which shares of the reference's compute the least that matches lies, as the search sees
            it; empty where it gave none.
        phase_costs: seconds per FLOP, by kind of phase.
        early_stops: the recipe with an early stop, for some patiences and truncated, on the validation split.
        verified: whether a policy passed.
        bundle: where it lies, or None.
        tuning: what the study cost; not what earlier ones did that it was begun with.
        known_before: what was taken of those.
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
    own: PolicyRow | None = None
    random: PolicyRow | None
    trials: TrialCounts
    false_stops: FalseStops
    candidates: tuple[CandidateRow, ...]
    components: tuple[ComponentRow, ...]
    win: Win | None = None
    at_margins: tuple[AtMargin, ...] = ()
    needs: FrozenDict = FrozenDict()
    phase_costs: tuple[PhaseCost, ...] = ()
    early_stops: tuple[EarlyStop, ...] = ()
    verified: bool
    bundle: str | None
    tuning: Tuning
    known_before: tuple[KnownBefore, ...] = ()
    headline: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """The object that `show --json` prints."""
        return {name: _plain(getattr(self, name)) for name in Summary.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, PolicyRow | CandidateRow | ComponentRow):
        return value.to_mapping()
    if isinstance(value, PhaseCost):
        return {**asdict(value), "seconds_per_tflop": value.seconds_per_tflop}
    if isinstance(value, ReferenceRow | TrialCounts | FalseStops | Tuning | Win | AtMargin | KnownBefore | EarlyStop):
        return {name: _plain(inner) for name, inner in asdict(value).items()}
    if isinstance(value, FrozenDict):
        return config.to_plain(value) or None
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
