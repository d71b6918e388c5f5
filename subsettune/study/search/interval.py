"""Between which costs the least one lies with which a policy of an arm reaches the target."""

from __future__ import annotations

import numpy as np

from subsettune.study.search.kernel import Array, on_one_thread
from subsettune.study.search.needs import Needs
from subsettune.study.search.offers import NUM_LEADERS, perturb

QUANTILES = (0.1, 0.9)  # of the least cost that are stated


@on_one_thread
def interval(needs: Needs, arm: str, rng: np.random.Generator, num_draws: int = 256) -> tuple[float, float] | None:
    """Quantiles (`QUANTILES`) of the least cost of a policy of an arm; None if no run of the arm finished.

    Drawn jointly from the posterior for the manners that were tried and others near the best, at budgets about theirs.
    """
    leaders, needed = needs.tried(arm)
    if not len(leaders):
        return None
    best, leaders = float(needed[0]), leaders[: 2 * NUM_LEADERS]
    near = perturb(leaders[rng.integers(min(len(leaders), 4), size=24)], rng)
    manners, process = np.concatenate([leaders, near]), needs.belief.process
    t = np.clip(best + np.linspace(-0.7, 0.7, 9), *needs.places.ends)
    x = np.concatenate([needs.places.x(manners, arm, np.full(len(manners), v)) for v in t])
    mean, covariance = process.mean(x), process.covariance(x, x)
    root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(x)))
    drawn = mean + rng.standard_normal((num_draws, len(x))) @ root.T
    at = drawn.reshape(num_draws, len(t), len(manners)).max(axis=2)  # the best manner at each budget
    cost = np.exp([_crossing(t, row) for row in at])
    return float(np.quantile(cost, QUANTILES[0])), float(np.quantile(cost, QUANTILES[1]))


def _crossing(t: Array, u: Array) -> float:
    """Where a line through points first rises above 0; an end of the range if it never does, or always is."""
    above = np.flatnonzero(u >= 0)
    if not len(above):
        return float(t[-1] - u[-1])
    i = int(above[0])
    if i == 0:
        return float(t[0] - u[0])
    return float(t[i - 1] + (t[i] - t[i - 1]) * -u[i - 1] / (u[i] - u[i - 1]))
