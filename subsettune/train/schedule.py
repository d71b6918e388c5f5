"""Learning-rate schedules as functions of the share of training compute used.

Each maps a share s in [0, 1) to a factor of the peak learning rate; an update uses the share spent before it, so the
first one uses s = 0. The share counts compute, not steps, so a schedule fits every budget, selector and order without
knowing how many updates there will be.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from subsettune import config
from subsettune.config import NOT_NEGATIVE, OPEN_FRACTION, UNIT, Rule, setting
from subsettune.errors import ConfigError
from subsettune.registry import SCHEDULES

_SHARE = Rule("in [0, 1)", lambda v: 0 <= v < 1, "It is a share of the compute, not a step.")
_SHARES = Rule(
    "shares in [0, 1)", lambda values: all(0 <= v < 1 for v in values), "They are shares of the compute, not steps."
)


class Schedule(ABC):
    """A frozen dataclass of its options."""

    @abstractmethod
    def __call__(self, share: float) -> float:
        """Factor of the peak learning rate at a share of training compute in [0, 1)."""

    @property
    def stable_share(self) -> float:
        """Up to which share of training compute the factor is 1 from the first update on; 0 if it is not, then."""
        return 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Schedule):
    """The peak rate throughout, after a linear warm-up from 0.

    Args:
        warmup: share of compute of the warm-up.
    """

    warmup: float = setting(0.0, rule=_SHARE)

    def __post_init__(self) -> None:
        config.check(self)

    def __call__(self, share: float) -> float:
        """1 but for the warm-up."""
        return share / self.warmup if share < self.warmup else 1.0

    @property
    def stable_share(self) -> float:
        """All of it; with a warm-up, which is a share of the compute, no two budgets begin alike."""
        return 0.0 if self.warmup else 1.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Schedule):
    """Multiply by `gamma` at each milestone, after a linear warm-up from 0.

    Args:
        milestones: shares of compute.
        gamma: factor at each.
        warmup: share of compute of the warm-up.
    """

    milestones: tuple[float, ...] = setting((0.5, 0.75), rule=_SHARES)
    gamma: float = setting(0.1, rule=NOT_NEGATIVE)
    warmup: float = setting(0.0, rule=_SHARE)

    def __post_init__(self) -> None:
        config.check(self)

    def __call__(self, share: float) -> float:
        """`gamma` to the power of the milestones at or before `share`, less in the warm-up."""
        rise = share / self.warmup if share < self.warmup else 1.0
        return float(rise * self.gamma ** sum(share >= milestone for milestone in self.milestones))

    @property
    def stable_share(self) -> float:
        """Up to the first milestone; with a warm-up, which is a share of the compute, no two budgets begin alike."""
        return 0.0 if self.warmup else min(self.milestones, default=1.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `final`, after a linear warm-up from 0.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.

    Args:
        final: factor at the end.
        warmup: share of compute of the warm-up.
    """

    final: float = setting(0.0, rule=UNIT)
    warmup: float = setting(0.0, rule=_SHARE)

    def __post_init__(self) -> None:
        config.check(self)

    def __call__(self, share: float) -> float:
        """Warm-up, then the cosine."""
        if share < self.warmup:
            return share / self.warmup
        return _half_cosine(1.0, self.final, (share - self.warmup) / (1 - self.warmup))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle(Schedule):
    """Rise from `start` to 1, then fall to `final`, both along half a cosine.

    Defaults are those of torch's OneCycleLR. Source: Smith & Topin 2019, arXiv:1708.07120.

    Args:
        peak: share of compute at which the rate is highest.
        start: factor at the beginning.
        final: factor at the end.
    """

    peak: float = setting(0.3, rule=_SHARE)
    start: float = setting(0.04, rule=UNIT)
    final: float = setting(4e-6, rule=UNIT)

    def __post_init__(self) -> None:
        config.check(self)

    def __call__(self, share: float) -> float:
        """Up to the peak, then down."""
        if share < self.peak:
            return _half_cosine(self.start, 1.0, share / self.peak)
        return _half_cosine(1.0, self.final, (share - self.peak) / (1 - self.peak))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """Linear warm-up from 0, a plateau, and a linear decay.

    Source: Hu et al. 2024 (MiniCPM), arXiv:2404.06395, section 4.

    Args:
        warmup: share of compute of the warm-up.
        decay: share of compute of the decay, at the end.
        final: factor at the end.
    """

    warmup: float = setting(0.05, rule=_SHARE)
    decay: float = setting(0.2, rule=OPEN_FRACTION)
    final: float = setting(0.0, rule=UNIT)

    def __post_init__(self) -> None:
        config.check(self)
        if self.warmup + self.decay > 1:
            raise ConfigError("warmup + decay must be at most 1. They are shares of the same compute.")

    def __call__(self, share: float) -> float:
        """Warm-up, plateau, decay."""
        if share < self.warmup:
            return share / self.warmup
        if share <= 1 - self.decay:
            return 1.0
        return self.final + (1 - self.final) * (1 - share) / self.decay

    @property
    def stable_share(self) -> float:
        """Up to the decay; a warm-up is a share of the compute, too, so that with one no two budgets begin alike."""
        return 0.0 if self.warmup else 1 - self.decay


def make(name: str, options: Mapping[str, Any]) -> Schedule:
    """A schedule by name.

    Raises:
        ConfigError: unknown name or option, or an option out of range.
    """
    made: Schedule = SCHEDULES.make(name, options)
    return made


def _half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
