"""Learning-rate schedules as functions of the share of training compute used.

Each maps a share s in [0, 1) to a factor of the peak learning rate. The share counts compute, not steps, so a schedule
fits every budget, selector and order without knowing how many updates there will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.plugins import call

Schedule = Callable[[float], float]


def constant() -> Schedule:
    """The peak rate throughout."""
    return lambda share: 1.0


def step(*, milestones: tuple[float, ...] = (0.5, 0.75), gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` at each milestone, a share of compute in (0, 1)."""
    _in_unit("milestones", *milestones)
    return lambda share: gamma ** sum(share >= milestone for milestone in milestones)


def cosine(*, final: float = 0.0, warmup: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `final`, after a linear warm-up over the first `warmup` of compute.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    """
    _in_unit("warmup", warmup)

    def factor(share: float) -> float:
        if share < warmup:
            return share / warmup
        progress = (share - warmup) / (1 - warmup)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def one_cycle(*, peak: float = 0.3, start: float = 0.04, final: float = 4e-6) -> Schedule:
    """Rise from `start` to 1 until the share `peak`, then fall to `final`, both along half a cosine.

    Defaults are those of torch's OneCycleLR. Source: Smith & Topin 2019, arXiv:1708.07120.
    """
    _in_unit("peak", peak)

    def factor(share: float) -> float:
        if share < peak:
            return 1 + (start - 1) * 0.5 * (1 + math.cos(math.pi * share / peak))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (share - peak) / (1 - peak)))

    return factor


def warmup_stable_decay(*, warmup: float = 0.05, decay: float = 0.2, final: float = 0.0) -> Schedule:
    """Linear warm-up, a plateau, and a linear decay to `final` over the last `decay` of compute.

    Source: Hu et al. 2024 (MiniCPM), arXiv:2404.06395, section 4.
    """
    _in_unit("warmup", warmup)
    _in_unit("decay", decay)
    if warmup + decay > 1:
        raise ConfigError("warmup + decay must be at most 1. They are shares of the same compute.")

    def factor(share: float) -> float:
        if share < warmup:
            return share / warmup
        if share <= 1 - decay:
            return 1.0
        return final + (1 - final) * (1 - share) / decay

    return factor


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "warmup_stable_decay": warmup_stable_decay,
}


def make(name: str, options: Mapping[str, Any]) -> Schedule:
    """A schedule by name.

    Raises:
        ConfigError: unknown name or option, or an option out of range.
    """
    if name not in SCHEDULES:
        raise ConfigError(must("schedule", f"one of {', '.join(SCHEDULES)}", name))
    schedule: Schedule = call(SCHEDULES[name], f"schedule {name!r}", options)
    return schedule


def _in_unit(name: str, *values: float) -> None:
    for value in values:
        if not 0 <= value < 1:
            raise ConfigError(must(name, "in [0, 1)", value, "It is a share of the compute, not a step."))
