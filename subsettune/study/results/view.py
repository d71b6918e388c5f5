"""What a study found: the view that tables, the report and `show --json` are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from subsettune import config
from subsettune.config import setting
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.study.results.records import RunRecord
from subsettune.study.spec.components import KIND_RULE, Component, current_kind
from subsettune.study.spec.definition import Study

if TYPE_CHECKING:
    from subsettune.study.results.manifest import Manifest

COMPARISON_LEVEL = 0.9  # of the two-sided interval of a comparison: each of its ends errs once in twenty


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy that verification looks at.

    Args:
        name: `candidate-1`, ..., `shorter` (the best of the full arm), `equal` (all data for the winner's compute),
            `random` (the random control); of a later round of verification with its number, as in `random@2`.
        policy: what is trained.
        trials: numbers of the trials it was found by; empty for controls of the winner.
        cost_flops: known cost of one training.
    """

    name: str
    policy: Policy
    trials: tuple[int, ...] = ()
    cost_flops: int


def role_of(name: str) -> str:
    """What a candidate of that name is tested as, whatever the round: `random` for `random@2`."""
    return name.split("@")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """Whether a component paid for itself: its most promising policy against the same policy without it.

    Args:
        kind: `selector`, compared with a random subset; `order`, with the uniform one; `transition`, with keeping on;
            or `soup`, with none.
        name: of the component.
        verdict: `paid`, `not_paid` or `no_difference`, as the interval lies above, below or about 0; `no_result`: a run
            diverged or failed; `not_tried`: there is no policy; `open`: runs are missing.
        reason: of the last three, in words.
        policy: that the component is compared by, or null.
        twin: the same without it, or null.
        trials: numbers of the policy's trials; empty where the search never finished one with this component, and the
            policy is the best without it, or near it.
        cost_flops: known compute of one training, selection included.
        twin_cost_flops: of the twin, likewise; the two are equal.
        selection_flops: of `cost_flops`, what is charged for the component as selection; an order's price is in its
            updates.
        differences: metric minus the twin's by seed on the validation split, oriented: higher is better.
        metric: mean over the seeds.
        twin_metric: of the twin, likewise.
        difference: mean of `differences`.
        lower: end of the two-sided interval of that mean, at `COMPARISON_LEVEL`.
        upper: the other end.
        select_s: mean seconds of selection.
        seconds: mean seconds of training and selection.
        twin_seconds: of the twin, likewise.
    """

    kind: str = setting("selector", rule=KIND_RULE)
    name: str
    verdict: Literal["paid", "not_paid", "no_difference", "no_result", "not_tried", "open"]
    reason: str = ""
    policy: Policy | None = None
    twin: Policy | None = None
    trials: tuple[int, ...] = ()
    cost_flops: int | None = None
    twin_cost_flops: int | None = None
    selection_flops: int | None = None
    differences: tuple[float, ...] = ()
    metric: float | None = None
    twin_metric: float | None = None
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    select_s: float | None = None
    seconds: float | None = None
    twin_seconds: float | None = None

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read a row from before there was anything but selectors to compare, or with the former name of its kind."""
        if "selector" not in raw:
            return {**raw, "kind": current_kind(raw["kind"])} if "kind" in raw else raw
        rest = {key: value for key, value in raw.items() if key != "selector"}
        return {"kind": "selector", "name": raw["selector"], **rest}

    @property
    def component(self) -> Component:
        """What was compared."""
        return Component(kind=self.kind, name=self.name)

    @property
    def selection_share(self) -> float | None:
        """Share of the policy's compute that is charged for the component as selection."""
        if self.selection_flops is None or not self.cost_flops:
            return None
        return self.selection_flops / self.cost_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
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
        verdicts: by name, as `subsettune.study.verification.verification.Verdict` has them, as plain mappings.
        summary: the object that `show --json` prints.
        comparison: runs that compare components with their neutral kin.
        compared: by component, in the order of the space; empty before the comparison and where there is none.
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
    verdicts: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    comparison: tuple[RunRecord, ...] = ()
    compared: Mapping[Component, AblationResult] = field(default_factory=dict)


def saving(policy_flops: int, reference_flops: int) -> float:
    """Share of the reference's compute that the policy does not need; negative if it needs more."""
    return 1 - policy_flops / reference_flops


def break_even(tuning_flops: int, reference_flops: int, policy_flops: int) -> int | None:
    """How many future trainings repay the tuning; None if the policy saves nothing."""
    saved_flops = reference_flops - policy_flops
    return -(-tuning_flops // saved_flops) if saved_flops > 0 else None
