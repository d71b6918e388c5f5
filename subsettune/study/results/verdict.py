"""A verdict: what verification says of one candidate or control."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.text import is_number, metric_words
from subsettune.train.result import finite_or_none

_NO_NUMBER = {"mean_difference": math.nan, "lower_bound": -math.inf, "shortfall": math.inf, "spread": math.nan}
_LATER = ("num_references", "reference_spread", "level")  # fields that verdicts of version 0.1 lack


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verification says of one candidate or control. Differences are oriented: higher is better.

    Args:
        name: of the candidate.
        passed: None while undecided, and when not tested.
        num_seeds: runs of the candidate used; 0 before the first look.
        num_references: runs of the reference used.
        mean_difference: mean of the candidate minus mean of the reference; NaN without a look or when a run diverged.
        lower_bound: one-sided lower bound of that difference, at the nominal level of the look; passed if above
            -margin.
        shortfall: by how much the bound missed -margin; 0 when passed.
        p_value: of the one-sided t test at the margin, to be held against `nominal`.
        level: error rate that the candidate's looks share, as far as others have left it to them.
        alpha_spent: of it, by the looks so far.
        seeds_needed: how many runs of each, looked at once in a verification of the level that comes next, would let a
            policy that equals the reference pass with probability 0.8, the spreads being as observed; None when passed,
            unknown, or above 1000.
        reason: one sentence for the table.
        spread: standard deviation of the candidate's metric over seeds, floor included; NaN where the mean is.
        reference_spread: likewise of the reference's; null where it is unknown.
        nominal: level of the look's test taken alone.
        is_paired: whether only pairs of runs with one seed were compared, as many as there are runs of both.
    """

    name: str
    passed: bool | None
    num_seeds: int
    num_references: int
    mean_difference: float
    lower_bound: float
    shortfall: float
    p_value: float
    level: float
    alpha_spent: float
    seeds_needed: int | None
    reason: str
    spread: float
    reference_spread: float | None
    nominal: float
    is_paired: bool = False

    @property
    def is_tested(self) -> bool:
        """Whether it rests on runs."""
        return self.num_seeds > 0

    def words(self, tolerance: float) -> str:
        """`passed`, `missed by 0.0021`, `missed` (a run diverged), `undecided`, or `not tested`."""
        if self.passed is None:
            return "undecided" if self.is_tested else "not tested"
        if self.passed:
            return "passed"
        return f"missed by {metric_words(self.shortfall, tolerance)}" if is_number(self.shortfall) else "missed"

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; null stands for what is not finite."""
        values = dataclasses.asdict(self)
        return {key: finite_or_none(v) if isinstance(v, float) else v for key, v in values.items()}

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any]) -> Verdict:
        """Read what `to_mapping` gave.

        Raises:
            KeyError, TypeError: a part is missing, or unknown.
        """
        missing: dict[str, Any] = {key: value for key, value in _NO_NUMBER.items() if plain[key] is None}
        if not any(name in plain for name in _LATER):  # version 0.1 compared pairs, as many of each
            missing |= {"num_references": plain["num_seeds"], "reference_spread": None, "level": plain["alpha_spent"]}
            missing["is_paired"] = True
        return cls(**{**plain, **missing})
