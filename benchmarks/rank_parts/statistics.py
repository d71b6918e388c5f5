"""What rankings are worth: Kendall's tau-b against a target, the regret, and bootstrap intervals of both.

Symbols: R recipes, S rankings of a way (one run of every recipe, each with the same seed), B bootstrap samples, K
comparisons. A bootstrap sample draws recipes and seeds with replacement, each apart from the other, and the same for
all ways, so that differences are paired: the pigeonhole bootstrap of Owen (2007, arXiv:0712.1111), which overestimates
variance somewhat. A recipe that is drawn twice makes a pair that is tied in both orders, and tau-b leaves those out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray

LEVEL = 0.95
TIES = 1e-6  # less than the smallest difference of two accuracies: breaks ties at random
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Resamples:
    """Bootstrap samples that all ways share.

    Args:
        recipes: (B, R) which recipes were drawn.
        seeds: (B, S) likewise.
        ties: (B, R) in [0, 1): who comes first among equals.
    """

    recipes: Ints
    seeds: Ints
    ties: Floats

    @classmethod
    def draw(cls, num_recipes: int, num_seeds: int, num_samples: int, seed: int = 0) -> Resamples:
        """With replacement."""
        rng = np.random.default_rng(seed)
        recipes = rng.integers(num_recipes, size=(num_samples, num_recipes))
        seeds = rng.integers(num_seeds, size=(num_samples, num_seeds))
        return cls(recipes, seeds, rng.random((num_samples, num_recipes)))

    @classmethod
    def observed(cls, num_recipes: int, num_seeds: int, num_samples: int = 200, seed: int = 0) -> Resamples:
        """What was observed, each time with other ties."""
        recipes, seeds = (np.tile(np.arange(n), (num_samples, 1)) for n in (num_recipes, num_seeds))
        return cls(recipes, seeds, np.random.default_rng(seed).random((num_samples, num_recipes)))

    @cached_property
    def recipe_counts(self) -> Floats:
        """(B, R) how often each recipe was drawn."""
        return counts(self.recipes)

    @cached_property
    def seed_shares(self) -> Floats:
        """(B, S) how often each seed was drawn, over S."""
        return np.asarray(counts(self.seeds) / self.seeds.shape[1])


def counts(drawn: Ints) -> Floats:
    """(B, n) how often each of n things was drawn in each of B samples of n."""
    return np.array([np.bincount(row, minlength=len(row)) for row in drawn], dtype=np.float64)


def tau_b(scores: Floats, target: Floats, weights: Floats) -> Floats:
    """Kendall's tau-b where each item stands there several times; 0 where all are tied.

    Args:
        scores: (R,) of a ranking.
        target: (R,) of another.
        weights: (B, R) how often each item is there.

    Returns:
        (B,) what `scipy.stats.kendalltau` gives of the repeated items.
    """
    order, other = (np.sign(values[:, None] - values[None, :]) for values in (scores, target))
    agreed, told, targeted = ((weights @ pairs * weights).sum(1) for pairs in (order * other, order**2, other**2))
    norm = np.sqrt(told * targeted)
    return np.asarray(np.divide(agreed, norm, out=np.zeros_like(norm), where=norm > 0))


@cache
def pools() -> threadpoolctl.ThreadpoolController:
    """The libraries with threads; to look for them takes longer than to limit them."""
    return threadpoolctl.ThreadpoolController()


def mean_tau(rankings: Floats, target: Floats, samples: Resamples, among: Floats | None = None) -> Floats:
    """(B,) mean of tau-b over the rankings of a way.

    Args:
        rankings: (S, R) scores, by seed.
        target: (R,) scores.
        samples: of both.
        among: (R,) 1 for recipes that count and 0 for those that do not; default: all do.
    """
    weights = samples.recipe_counts if among is None else samples.recipe_counts * among
    with pools().limit(limits=1, user_api="blas"):  # products this small are slower on more threads
        taus = np.stack([tau_b(scores, target, weights) for scores in rankings], axis=1)
    return np.asarray((taus * samples.seed_shares).sum(1))


def mean_regret(rankings: Floats, target: Floats, samples: Resamples, first: int = 1) -> Floats:
    """(B,) how far the best of the `first` recipes of a ranking is behind the best of all, mean over rankings.

    Args:
        rankings: (S, R) scores, by seed.
        target: (R,) what is lost.
        samples: of both.
        first: how many recipes are taken from the top of a ranking.
    """
    drawn, first = target[samples.recipes], min(first, len(target))
    lost = np.empty(samples.seeds.shape)
    for seed, scores in enumerate(rankings):
        keys = scores[samples.recipes] + TIES * samples.ties
        top = np.argpartition(keys, -first, axis=1)[:, -first:]
        lost[:, seed] = drawn.max(1) - np.take_along_axis(drawn, top, axis=1).max(1)
    return np.asarray((lost * samples.seed_shares).sum(1))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and an interval of `LEVEL`."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: Floats) -> Estimate:
        """With the percentiles of its bootstrap samples (B,)."""
        low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(value, float(low), float(high))

    @classmethod
    def ratio(cls, over: tuple[Floats, ...], under: tuple[Floats, ...]) -> Estimate:
        """Of what was observed, the first of each, and its bootstrap samples; where those under it are positive."""
        held = under[1] > 0
        return cls.of(float(over[0][0] / under[0][0]), over[1][held] / under[1][held])

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of 0."""
        return int(self.low > 0) - int(self.high < 0)

    def words(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def together(values: Floats, samples: Floats) -> list[Estimate]:
    """Intervals that hold all at once with probability `LEVEL`: of the largest studentised deviation (max-t).

    An interval is as many standard errors wide as the largest of the K deviations of a bootstrap sample from what was
    observed, in standard errors, has as its quantile. Correlated comparisons cost less than Bonferroni's. Source:
    single-step method of Romano and Wolf 2005, Exact and approximate stepdown methods for multiple hypothesis testing.

    Args:
        values: (K,) differences.
        samples: (B, K) of each.
    """
    errors = samples.std(axis=0, ddof=1)
    deviations = np.divide(np.abs(samples - values), errors, out=np.zeros_like(samples), where=errors > 0)
    half = np.quantile(deviations.max(1), LEVEL) * errors
    return [Estimate(v, v - h, v + h) for v, h in zip(values.tolist(), half.tolist(), strict=True)]


def is_called(
    num_recipes: int, num_seeds: int, rng: np.random.Generator, num_ways: int = 9, num_samples: int = 1000
) -> bool:
    """Whether any way is called better or worse than the first in a made-up experiment where all are alike.

    Recipes differ by 1 (standard deviation), what a way thinks of a recipe beyond that by 0.4, one run by 0.4, and the
    target by 0.2; what the runs of a seed have in common moves all recipes alike, but for a part of 0.2.
    """
    true = rng.standard_normal(num_recipes)
    target = true + 0.2 * rng.standard_normal(num_recipes)
    samples = Resamples.draw(num_recipes, num_seeds, num_samples, int(rng.integers(2**31)))
    plain = Resamples.observed(num_recipes, num_seeds, 1)
    slopes = true * 0.2  # a seed that spreads good and bad recipes apart, or pulls them together
    found, drawn = [], []
    for _ in range(num_ways):
        bias, noise = rng.standard_normal(num_recipes), rng.standard_normal((num_seeds, num_recipes))
        rankings = true + 0.4 * bias + 0.4 * noise + rng.standard_normal((num_seeds, 1)) * slopes
        found.append(float(mean_tau(rankings, target, plain)[0]))
        drawn.append(mean_tau(rankings, target, samples))
    held = together(np.array(found[1:]) - found[0], np.stack(drawn[1:], axis=1) - drawn[0][:, None])
    return any(estimate.sign for estimate in held)
