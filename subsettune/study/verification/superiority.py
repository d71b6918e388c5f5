"""Is a policy better than plain training of equal compute? A paired test of the difference, on the same seeds.

The two cost the same, so that runs with one seed come in pairs; what a seed has in common for both takes noise off the
difference. Looks: after `seeds` pairs, and after as many as the policy has runs. Alpha is spent in proportion to the
pairs; levels are those of `noninferiority.spending`. How many runs the policy has depends on how they came out, which
these levels leave out: `benchmarks/verification.py --repeats 10000 --only win` finds 0.031 [0.026, 0.035] at worst
where 0.04 are allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from subsettune.study.verification.noninferiority import FUTILE_BELOW, Array, spending


@dataclass(frozen=True, slots=True, kw_only=True)
class Superiority:
    """What pairs show.

    Args:
        num_pairs: at the look that it rests on.
        mean: of the differences.
        lower_bound: one-sided, at `level`.
        level: of the look's test taken alone.
        shown: whether the bound is above 0; None where more pairs may yet show it.
    """

    num_pairs: int
    mean: float
    lower_bound: float
    level: float
    shown: bool | None


def compare(differences: Array, sizes: tuple[int, ...], level: float, floor: float) -> Superiority:
    """What the latest look shows whose pairs are there.

    An earlier one that had decided does not count any more, as in the tests of matching: alpha is spent as if nothing
    were ever stopped for futility, so to look once more is paid for, and what is told rests on all pairs.

    Args:
        differences: (n,) policy minus control, oriented, finite; at least as many as the first look takes.
        sizes: pairs of each look, growing.
        level: error rate of all looks together.
        floor: added to the spread in quadrature, so that ties are not taken for certainty: two neighbouring steps of
            the metric, at any odds, keep the level with a variance of resolution^2 / 3.
    """
    latest = max(i for i, size in enumerate(sizes) if size <= len(differences))
    _, nominal = spending(level, tuple(map(float, sizes)))[latest]
    return _look(differences[: sizes[latest]], sizes[-1], nominal, floor)


def _look(differences: Array, final: int, nominal: float, floor: float) -> Superiority:
    n = len(differences)
    mean, spread = float(differences.mean()), float(np.hypot(differences.std(ddof=1), floor))
    bound = mean - float(stats.t.isf(nominal, n - 1)) * spread / math.sqrt(n)
    shown: bool | None = bound > 0
    if not shown and n < final:
        wanted = float(stats.t.isf(nominal, final - 1)) * spread / math.sqrt(final)
        moves = spread * math.sqrt(1 / n - 1 / final)
        shown = None if float(stats.t.sf((wanted - mean) / moves, n - 1)) >= FUTILE_BELOW else False
    return Superiority(num_pairs=n, mean=mean, lower_bound=bound, level=nominal, shown=shown)


def pair_floor(resolution: float, scale: float) -> float:
    """The floor of `compare`, in the metric's units; see `noninferiority.spread_floor` for its arguments."""
    return math.hypot(resolution / math.sqrt(3), 64 * np.finfo(np.float64).eps * scale)
