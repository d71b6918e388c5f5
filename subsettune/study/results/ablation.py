"""What the ablation says of one component: whether it paid for itself, and by which runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config, former_names
from subsettune.config import setting
from subsettune.policy import Policy
from subsettune.study.spec.components import KIND_RULE, Component, current_kind

ABLATION_CAVEAT = (
    "This is validation evidence on policies that were chosen after the search, by the same split, which favours the "
    "component, and nothing of it is part of the verified claim."
)
ABLATION_WORDS = {
    "paid": "paid for itself",
    "not_paid": "did not",
    "no_difference": "no difference shown",
    "no_result": "no result",
    "not_tried": "could not be tried",
    "open": "not compared yet",
}
ABLATION_LEVEL = 0.9  # of an ablation's rows together: where nothing differs, one table in ten says that something does


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """Whether a component paid for itself: its most promising policy against the same policy without it.

    Args:
        kind: `selector`, compared with a random subset; `order`, with the uniform one; `transition`, with keeping on;
            or `soup`, with none.
        name: of the component.
        verdict: `paid`, `not_paid` or `no_difference`, as the interval lies above, below or about 0; `no_result`: a run
            diverged or failed; `not_tried`: there is no policy, or others are nearer to the target; `open`: runs are
            missing, its own or those of a row that it is judged with.
        reason: of the last three, in words.
        policy: that the component is compared by, or null.
        baseline: the same without it, or null.
        trials: numbers of the policy's trials; empty where the search never finished one with this component, and the
            policy is the best without it, or near it.
        cost_flops: known compute of one training, selection included.
        baseline_cost_flops: of the baseline, likewise; the two are equal.
        selection_flops: of `cost_flops`, what is charged for the component as selection; an order's price is in its
            updates.
        differences: metric minus the baseline's by seed on the validation split, oriented: higher is better.
        metric: mean over the seeds.
        baseline_metric: of the baseline, likewise.
        difference: mean of `differences`.
        lower: end of the two-sided interval of that mean, at `level`.
        upper: the other end.
        level: of the interval, taken alone: 1 - (1 - `ABLATION_LEVEL`) / k, where k rows were left at the row's step.
        family_size: rows that were judged together, this one included; null where each was judged alone, as version 0.1
            did.
        select_s: mean seconds of selection.
        seconds: mean seconds of training and selection.
        baseline_seconds: of the baseline, likewise.
    """

    kind: str = setting("selector", rule=KIND_RULE)
    name: str
    verdict: Literal["paid", "not_paid", "no_difference", "no_result", "not_tried", "open"]
    reason: str = ""
    policy: Policy | None = None
    baseline: Policy | None = None
    trials: tuple[int, ...] = ()
    cost_flops: int | None = None
    baseline_cost_flops: int | None = None
    selection_flops: int | None = None
    differences: tuple[float, ...] = ()
    metric: float | None = None
    baseline_metric: float | None = None
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    level: float | None = None
    family_size: int | None = None
    select_s: float | None = None
    seconds: float | None = None
    baseline_seconds: float | None = None

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read a row of when selectors alone were compared, or rows had no level, or kinds had their former names."""
        raw = former_names.current_result(raw)
        if raw.get("lower") is not None and "level" not in raw:
            raw = {**raw, "level": ABLATION_LEVEL}
        if "selector" not in raw:
            return {**raw, "kind": current_kind(raw["kind"])} if "kind" in raw else raw
        rest = {key: value for key, value in raw.items() if key != "selector"}
        return {"kind": "selector", "name": raw["selector"], **rest}

    @property
    def component(self) -> Component:
        """What was compared."""
        return Component(kind=self.kind, name=self.name)

    @property
    def words(self) -> str:
        """`paid for itself`, `did not`, `no difference shown`, or that there is no result, and why."""
        words = ABLATION_WORDS[self.verdict]
        return f"{words}: {self.reason}" if self.reason else words

    @property
    def selection_share(self) -> float | None:
        """Share of the policy's compute that is charged for the component as selection."""
        if self.selection_flops is None or not self.cost_flops:
            return None
        return self.selection_flops / self.cost_flops
