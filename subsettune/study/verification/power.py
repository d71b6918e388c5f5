"""How probable it is that a policy passes, before it was tested, and how many runs would make it so."""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import special, stats

from subsettune.study.verification.noninferiority import (
    FEW,
    Array,
    Look,
    Rules,
    Size,
    degrees,
    nodes,
    satterthwaite,
    spread_floor,
)

ENOUGH_POWER = 0.8  # what "would do" means when a number of seeds is named
MOST_SEEDS = 1000  # beyond it a number of seeds is no advice


def pass_probability(
    level: float, size: Size, excess: float, spreads: tuple[float, float], doubt: float = 0.0, *, few: int = FEW
) -> float:
    """Chance that one look rejects.

    T is taken as noncentral t with Satterthwaite's degrees of freedom at the true spreads, integrated over the spread
    that the runs will show (`scipy.stats.nct` gives NaN for the large noncentralities of a nearly noiseless task).

    Args:
        level: of the look's test alone.
        size: runs of the candidate and of the reference.
        excess: true difference plus the margin, as far as it is known.
        spreads: true standard deviations of candidate and reference, floors included; positive.
        doubt: standard deviation of what is believed of `excess`.
        few: see `Rules.few`.
    """
    own, theirs = (spread**2 / n for spread, n in zip(spreads, size, strict=True))
    v = own + theirs
    s2, u2 = np.square(spreads)
    ratio, weights = _relative_spreads(round(float(satterthwaite(s2, u2, size)), 1))
    critical = float(stats.t.isf(level, degrees(s2, u2, size, few)))
    reach = (excess / math.sqrt(v) - critical * ratio) / math.sqrt(1 + doubt**2 / v)
    return float(weights @ special.ndtr(reach))


def best_chance(
    looks: tuple[Look, ...], excess: float, spreads: tuple[float, float], doubt: float, *, few: int = FEW
) -> float:
    """Chance of passing at the most favourable of the looks: a lower bound of that at any of them."""
    tests = (look for look in looks if look.nominal > 0)
    return max(pass_probability(look.nominal, look.size, excess, spreads, doubt, few=few) for look in tests)


def required_seeds(
    rules: Rules, spreads: tuple[float, float], level: float, *, target: float = ENOUGH_POWER
) -> int | None:
    """How many runs of each, looked at once, would pass a policy that equals the reference with probability `target`.

    Args:
        rules: give margin and resolution.
        spreads: standard deviations of the candidate's and the reference's metric.
        level: error rate of the test.
        target: power, in (0, 1).

    Returns:
        At least 2; None if more than 1000.
    """
    floor = spread_floor(rules.resolution, rules.margin)
    floored = (math.hypot(spreads[0], floor), math.hypot(spreads[1], floor))

    def is_enough(n: int) -> bool:
        return pass_probability(level, (n, n), rules.margin, floored, few=rules.few) >= target

    low, high = 1, 2
    while not is_enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=MOST_SEEDS)
def _relative_spreads(freedom: float) -> tuple[Array, Array]:
    """Quantiles of the estimated over the true standard error, with their weights."""
    quantiles, weights = nodes(0.0, 1.0, 96)
    return np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom), weights
