"""Numbers with their uncertainty: a share with its exact interval, a median with that of the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 4000


def share(count: int, total: int) -> str:
    """`3 of 24 (12 %) [2.7, 32]`: Clopper and Pearson, 95 %."""
    if total == 0:
        return "0 of 0"
    found = stats.binomtest(count, total).proportion_ci(LEVEL, method="exact")
    return f"{count} of {total} ({100 * count / total:.3g} %) [{_percent(found.low)}, {_percent(found.high)}]"


def _percent(share: float) -> str:
    """Two digits, and 100 as it is."""
    return "100" if share >= 0.995 else f"{100 * share:.2g}"


def lower(count: int, total: int) -> float:
    """Lower end of the exact interval of a share."""
    return float(stats.binomtest(count, total).proportion_ci(LEVEL, method="exact").low)


def median(values: Sequence[float]) -> str:
    """`1.02 [0.94, 1.31]`: bootstrap over what was measured, 95 %; `-` for nothing."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return "-"
    draws = np.random.default_rng(0).choice(finite, size=(DRAWS, len(finite)))
    low, high = np.quantile(np.median(draws, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return f"{np.median(finite):.3g} [{low:.3g}, {high:.3g}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
