"""A contrast: the policy that a study found, held against another one of the same compute on the same seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.text import is_number, metric_words, side_words
from subsettune.train.result import finite_or_none


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A policy against a control of it. Differences are oriented: higher is better.

    Args:
        policy: name of the candidate.
        control: name of what it is held against.
        num_seeds: pairs of runs with one seed; 0 before the first look.
        mean_difference: mean of the policy minus the control; NaN without a look.
        lower_bound: one-sided lower bound of it at `level`; minus infinity without a look.
        level: of the test taken alone.
        is_claim: whether the study claims something of it: such claims have an error rate of their own, as large as
            that of the tests for matching.
        shown: whether the policy is shown to be better; None while that is open, or where nothing is claimed.
    """

    policy: str
    control: str
    num_seeds: int
    mean_difference: float
    lower_bound: float
    level: float
    is_claim: bool
    shown: bool | None

    @property
    def claimed_bound(self) -> float | None:
        """The lower bound; None where nothing is claimed."""
        return self.lower_bound if self.is_claim else None

    @property
    def claimed_level(self) -> float | None:
        """The level, likewise."""
        return self.level if self.is_claim else None

    def words(self, tolerance: float) -> str:
        """`better by 0.0042 (at least 0.0011)`, `not shown to differ (worse by 0.0012)`, `not compared`."""
        if not is_number(self.mean_difference):
            return "not compared" if self.num_seeds == 0 else "diverged"
        difference = side_words(self.mean_difference, tolerance)
        if self.shown:
            return f"{difference} (at least {metric_words(self.lower_bound, tolerance)})"
        return f"not shown to differ ({difference})" if self.is_claim else f"{difference}, nothing is claimed"

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; null stands for what is not finite."""
        values = dataclasses.asdict(self)
        return {key: finite_or_none(v) if isinstance(v, float) else v for key, v in values.items()}

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any]) -> Contrast:
        """Read what `to_mapping` gave.

        Raises:
            KeyError, TypeError: a part is missing, or unknown.
        """
        missing = {"mean_difference": math.nan, "lower_bound": -math.inf}
        return cls(**{**plain, **{key: value for key, value in missing.items() if plain[key] is None}})
