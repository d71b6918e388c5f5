"""The test behind verification: is a policy as good as the conventional recipe, to within the tolerance?

Pure functions of arrays. The error rate that is kept: the chance that any policy whose true mean metric is worse than
the reference's by the margin or more passes, over all candidates, looks and extensions, is at most alpha.

How. Runs are paired by seed. H0 of a candidate, mean difference <= -margin, is rejected by a one-sided t test.

1. Candidates are tested dearest first until the first failure, each at the full level of the verification. The first
   one at the margin is the only one that can start a mistake, so nothing is divided by the number of candidates
   (Maurer, Hothorn & Lehmacher 1995; with several looks at each: Glimm, Maurer & Bretz 2010, Stat. Med. 29:219).
2. Looks about double: `seeds`, twice as many, ... up to `max_seeds`. Alpha is spent in proportion to the seeds used
   (Lan & DeMets 1983; power family of Kim & DeMets 1987 with rho = 1). Spending late, like O'Brien-Fleming (rho = 3),
   has more power, 0.86 against 0.82 for an equal policy at seeds 5, max_seeds 10, sigma = margin; but with less noise,
   sigma = 2/3 margin, where both pass 99 of 100, it takes 8.4 seeds on average and this rule 6.7.
3. The variance is unknown, so the looks' t statistics, not normal ones, are bounded: exactly for two looks, and for
   more by the bound of Hunter 1976 and Worsley 1982 on adjacent looks, which errs on the safe side (`plan`).
4. Each verification of a study is given 4/5 of what is left of alpha (`allot`), used or not: with 0.05 the first has
   0.04, an extension 0.008, the next 0.0016. A union bound over verifications holds however the data are shared.

What it cannot do. No test of a mean keeps its level for every distribution and has power too (Bahadur & Savage
1956). A policy that nearly always does well and rarely fails by a lot, so that its mean lies at the margin, passes n
seeds whenever no failure is among them: one failure in seven runs, with probability 0.46 at n = 5. Few seeds cannot
see it. Symmetric noise, heavy-tailed or not, and ties are held; `benchmarks/verification.py` prints which is which.

| symbol | shape | meaning |
|---|---|---|
| n, n1, n2 | int | seeds used at a look, at a look and at the next |
| d | (..., n) | metric of the policy minus that of the reference, same seed, oriented: higher is better |
| s | (...) | spread of d: its standard deviation, floor included |
| T | (...) | (mean(d) + margin) sqrt(n) / s |
| u | (...) | direction of d + margin: cosine of its angle to (1, ..., 1), T / sqrt(T^2 + n - 1) |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, Rule, must, setting
from subsettune.errors import ConfigError, Mistake

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int, int]], Array]

SHARE_OF_REST = 0.8  # of the alpha left: the first verification keeps most of it, and no extension finds nothing left
FUTILE_BELOW = 0.1  # chance of passing below which no seeds are added; the benchmark prints what it saves and costs
ENOUGH_POWER = 0.8  # what "would do" means when a number of seeds is named
MOST_SEEDS = 1000  # beyond it a number of seeds is no advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as matched, and how much may be spent on showing it.

    Args:
        margin: tolerance, in the metric's units.
        alpha: chance that a policy at the margin, or worse, passes; over the whole study.
        seeds: runs of each candidate at the first look.
        max_seeds: cap on the runs of each candidate.
        higher_is_better: direction of the metric.
        resolution: smallest step of the metric: 1 / (test examples) for accuracy, and for balanced accuracy and F1
            too, for want of a better one; 0 for a metric without ties, such as MSE.

    Raises:
        ConfigError: a value is out of range; all such values are named.
    """

    margin: float = setting(rule=POSITIVE)
    alpha: float = setting(rule=Rule("in (0, 0.5]", lambda v: 0 < v <= 0.5))
    seeds: int = setting(rule=Rule("at least 2", lambda v: v >= 2, "One run tells nothing of the spread."))
    max_seeds: int
    higher_is_better: bool
    resolution: float = setting(0.0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)
        if self.max_seeds < self.seeds:
            message = must("max_seeds", f"at least seeds ({self.seeds})", self.max_seeds)
            raise ConfigError((Mistake(("max_seeds",), message),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the data.

    Args:
        num_seeds: runs of the candidate used, and as many of the reference.
        alpha_spent: error rate of all looks so far, this one included.
        critical: T must exceed it.
        nominal: level of this look's test taken alone: P(T > critical) at the margin; p-values are held against it.
    """

    num_seeds: int
    alpha_spent: float
    critical: float
    nominal: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The test at one look, for arrays of candidates at once; all fields have the shape of d without its last axis."""

    mean: Array
    spread: Array
    statistic: Array
    passed: NDArray[np.bool_]
    chance: Array


def allot(alpha: float, spent: float = 0.0) -> float:
    """Error rate of the next verification of a study, when earlier ones were given `spent` of `alpha`.

    Raises:
        ConfigError: nothing is left.
    """
    if not 0 <= spent < alpha:
        raise ConfigError(must("spent", f"in [0, alpha) = [0, {alpha:g})", spent, "Start a new study."))
    return SHARE_OF_REST * (alpha - spent)


@functools.lru_cache(maxsize=256)
def plan(level: float, seeds: int, max_seeds: int, rho: float = 1.0) -> tuple[Look, ...]:
    """The looks of a verification: after how many seeds, and what T has to exceed there.

    Exact for two looks: P(T1 <= c1 and T2 > c2) is the alpha that the second may add. With more looks each is held
    against the one before only, and the sum bounds the error rate from above (Hunter 1976, Worsley 1982).

    Args:
        level: error rate of all looks together, in (0, 0.5).
        seeds: runs at the first look.
        max_seeds: runs at the last.
        rho: alpha is spent as (share of seeds used)^rho; 3 is like O'Brien-Fleming.
    """
    sizes = [seeds]
    while sizes[-1] < max_seeds:  # the last step may triple: a look for a seed or two would cost more than it tells
        sizes.append(2 * sizes[-1] if 3 * sizes[-1] <= max_seeds else max_seeds)
    looks: list[Look] = []
    for n in sizes:
        spent = level * (n / max_seeds) ** rho
        critical = _next_critical(looks[-1], n, spent) if looks else float(stats.t.isf(spent, n - 1))
        nominal = float(stats.t.sf(critical, n - 1))
        looks.append(Look(num_seeds=n, alpha_spent=spent, critical=critical, nominal=nominal))
    return tuple(looks)


def _next_critical(last: Look, num_seeds: int, spent: float) -> float:
    """The c2 with P(T2 > c2) - P(T1 > c1 and T2 > c2) = what may be spent beyond the alpha of the last look."""

    def excess(critical: float) -> float:
        alone = float(stats.t.sf(critical, num_seeds - 1))
        return alone - _both_exceed(last, critical, num_seeds) - (spent - last.alpha_spent)

    # The joint probability lies between 0 and P(T1 > c1) <= last.alpha_spent, so these two enclose the root.
    lowest = float(stats.t.isf(spent, num_seeds - 1))
    highest = float(stats.t.isf(spent - last.alpha_spent, num_seeds - 1))
    return lowest if excess(lowest) <= 0 else float(optimize.brentq(excess, lowest, highest, xtol=1e-10))


def _both_exceed(first: Look, critical: float, num_seeds: int) -> float:
    """P(T1 > c1 and T2 > c2) at the margin, for normal differences of unknown variance.

    Source: Jennison & Turnbull 1991, Biometrika 78:133, reduced to one dimension: the direction of the first n1
    differences, that of the m new ones, and the share b of the sum of squares in the first are independent;
    b ~ Beta(n1/2, m/2). The sum of all is sqrt(n1 b) u1 + sqrt(m (1-b)) w, w the direction of the new ones. With
    b = cos^2(phi) it is rho cos(phi - psi), so for given u1 and w the event is an interval of phi.
    """
    n1, m = first.num_seeds, num_seeds - first.num_seeds
    tails, tail_weights = _nodes(0.0, first.nominal, 64)
    u1 = _direction(stats.t.isf(tails, n1 - 1), n1)
    w, w_weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    if m > 1:
        quantiles, w_weights = _nodes(0.0, 1.0, 96)
        w = _direction(stats.t.isf(quantiles, m - 1), m)
    x, y = math.sqrt(n1) * u1[:, None], math.sqrt(m) * w[None, :]
    threshold = math.sqrt(num_seeds) * _direction(np.float64(critical), num_seeds)
    psi = np.arctan2(y, x)
    reach = np.arccos(np.clip(threshold / np.hypot(x, y), -1.0, 1.0))  # out of reach gives an empty interval
    low, high = (np.cos(np.clip(phi, 0.0, np.pi / 2)) ** 2 for phi in (psi + reach, psi - reach))
    share = special.betainc(n1 / 2, m / 2, high) - special.betainc(n1 / 2, m / 2, low)
    return float(tail_weights @ share @ w_weights)


def _direction(statistic: Array | np.float64, num_seeds: int) -> Array:
    return np.asarray(statistic / np.sqrt(statistic**2 + num_seeds - 1), dtype=np.float64)


def _nodes(low: float, high: float, num: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [low, high]."""
    x, weights = np.polynomial.legendre.leggauss(num)
    return low + (high - low) * (x + 1) / 2, (high - low) * weights / 2


def spread_floor(resolution: float, scale: float) -> float:
    """What is added to the spread, in quadrature, so that ties are not taken for certainty. In the metric's units.

    With few seeds all differences can coincide by chance, and s = 0 would let anything pass. A variance of
    resolution^2 / 3 keeps the level for differences that take two neighbouring values, at any odds, for every number
    of seeds and every level up to 0.1 (tests/test_study_verify.py enumerates them); resolution^2 / 4, the largest
    variance that two neighbouring values can have, does so up to 0.05 only. The price in power: a spread of one step
    counts 15 % more, one of five steps 0.7 %; and a policy that always equals the reference needs seeds too.

    Args:
        resolution: smallest step of the metric.
        scale: largest magnitude among the numbers subtracted, whose rounding must not count as a margin kept.
    """
    rounding = 64 * np.finfo(np.float64).eps * scale
    return math.hypot(resolution / math.sqrt(3), rounding)


def judge(differences: Array, look: Look, last: Look, *, margin: float, floor: float) -> Judgement:
    """The test at one look.

    `chance` is the predictive probability of passing at the last look, given the differences so far, no prior
    knowledge, and a spread that stays as it is (Spiegelhalter, Freedman & Blackburn 1986); 0 at the last look.

    Args:
        differences: (..., look.num_seeds) oriented, finite, in the metric's units.
        look: the one at hand.
        last: of the same plan.
        margin: in the metric's units.
        floor: see `spread_floor`; positive.
    """
    n, more = look.num_seeds, last.num_seeds - look.num_seeds
    mean = differences.mean(axis=-1)
    spread = np.hypot(differences.std(axis=-1, ddof=1), floor)
    statistic = (mean + margin) * math.sqrt(n) / spread
    passed = statistic > look.critical
    chance = np.zeros_like(statistic)
    if more:
        # Mean of the new differences over s / sqrt(n) that would carry T to the last look's boundary.
        wanted = (last.critical * math.sqrt(last.num_seeds * n) - n * statistic) / more
        chance = stats.t.sf((wanted - statistic) / math.sqrt(1 + n / more), n - 1)
    return Judgement(mean=mean, spread=spread, statistic=statistic, passed=passed, chance=chance)


def decide(
    differences: Array, rules: Rules, spent: float = 0.0, *, rho: float = 1.0, futile_below: float = FUTILE_BELOW
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Verdicts of many candidates at once, each on its own: the arithmetic of `Verification` without its books.

    Args:
        differences: (..., max_seeds) oriented, in the order in which seeds are used.
        rules: of the verification.
        spent: alpha given to earlier ones.
        rho: see `plan`; a verification uses the default, a benchmark compares.
        futile_below: likewise, the chance of passing below which it stops.

    Returns:
        (...) whether it passed, and (...) after how many seeds that was settled.
    """
    looks = plan(allot(rules.alpha, spent), rules.seeds, rules.max_seeds, rho)
    floor = spread_floor(rules.resolution, rules.margin)
    passed = np.zeros(differences.shape[:-1], dtype=np.bool_)
    num_seeds = np.full(differences.shape[:-1], rules.max_seeds, dtype=np.int64)
    is_open = np.ones_like(passed)
    for look in looks:
        result = judge(differences[..., : look.num_seeds], look, looks[-1], margin=rules.margin, floor=floor)
        settled = is_open & (result.passed | (result.chance < futile_below))
        passed |= is_open & result.passed
        num_seeds[settled] = look.num_seeds
        is_open &= ~settled
    return passed, num_seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """How often something happened in a simulation.

    Args:
        count: times it happened.
        num_repeats: times it was tried.
        mean_runs: candidates' runs per repeat, those of the reference not counted.
    """

    count: int
    num_repeats: int
    mean_runs: float

    @property
    def rate(self) -> float:
        """The observed share."""
        return self.count / self.num_repeats

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Exact two-sided confidence interval of the rate (Clopper & Pearson 1934)."""
        found = stats.binomtest(self.count, self.num_repeats).proportion_ci(confidence, method="exact")
        return float(found.low), float(found.high)


# More than six parameters: each is a condition of the simulation that a reader may want to vary alone.
def error_rate(
    rules: Rules,
    draw: Draw,
    *,
    rng: np.random.Generator,
    num_repeats: int = 20_000,
    num_equal: int = 0,
    num_at_margin: int = 1,
    num_extensions: int = 0,
) -> Frequency:
    """How often a study passes a policy that lies exactly at the margin. Simulated, vectorised.

    Args:
        rules: of every verification.
        draw: (rng, (num_repeats, candidates, max_seeds)) -> oriented differences whose mean is -margin exactly.
        rng: drawn from.
        num_repeats: studies simulated.
        num_equal: candidates tested first, in each verification, that equal the reference: `draw` plus margin.
        num_at_margin: candidates tested after them.
        num_extensions: further verifications, with new candidates, whatever came of those before.
    """
    num_candidates = num_equal + num_at_margin
    differences = draw(rng, (num_repeats, (1 + num_extensions) * num_candidates, rules.max_seeds))
    wrong, runs, spent = np.zeros(num_repeats, dtype=np.bool_), 0, 0.0
    for family in np.split(differences, 1 + num_extensions, axis=1):
        tested = np.ones(num_repeats, dtype=np.bool_)
        for i in range(num_candidates):
            shift = rules.margin if i < num_equal else 0.0
            passed, num_seeds = decide(family[:, i] + shift, rules, spent)
            runs += int(num_seeds[tested].sum())
            tested &= passed
            if i >= num_equal:
                wrong |= tested
        spent += allot(rules.alpha, spent)
    return Frequency(count=int(wrong.sum()), num_repeats=num_repeats, mean_runs=runs / num_repeats)


def power(
    rules: Rules,
    sigma: float,
    true_difference: ArrayLike,
    *,
    rng: np.random.Generator,
    num_repeats: int = 20_000,
    spent: float = 0.0,
) -> Array:
    """Probability that a policy passes, against its true mean difference. Simulated with normal differences.

    Args:
        rules: of the verification.
        sigma: standard deviation of the paired differences, in the metric's units.
        true_difference: any shape; metric minus reference, oriented, in the metric's units.
        rng: drawn from; the same noise serves all true differences, so that the curve is smooth.
        num_repeats: verifications simulated per point.
        spent: alpha given to earlier verifications.

    Returns:
        The shape of `true_difference`.
    """
    noise = sigma * rng.standard_normal((num_repeats, rules.max_seeds))
    shifts = np.asarray(true_difference, dtype=np.float64)
    rates = [decide(noise + shift, rules, spent)[0].mean() for shift in shifts.ravel()]
    return np.array(rates, dtype=np.float64).reshape(shifts.shape)


def required_seeds(
    rules: Rules, sigma: float, *, true_difference: float = 0.0, target: float = ENOUGH_POWER, spent: float = 0.0
) -> int | None:
    """How many seeds, looked at once (`seeds` = `max_seeds`), pass a policy with probability `target`.

    T follows a noncentral t distribution; the floor under the spread counts as noise.

    Args:
        rules: give margin, alpha, and resolution.
        sigma: standard deviation of the paired differences, in the metric's units.
        true_difference: metric minus reference, oriented, in the metric's units.
        target: power, in (0, 1).
        spent: alpha given to earlier verifications.

    Returns:
        At least 2; None if more than 1000, or if the policy lies at the margin or below.
    """
    excess = rules.margin + true_difference
    if excess <= 0:
        return None
    level, noise = allot(rules.alpha, spent), math.hypot(sigma, spread_floor(rules.resolution, rules.margin))

    def is_enough(n: int) -> bool:
        return _pass_probability(n, level, excess * math.sqrt(n) / noise) >= target

    low, high = 1, 2
    while not is_enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _pass_probability(num_seeds: int, level: float, noncentrality: float) -> float:
    """Power of one look: P(T > c) for noncentral t, integrated over the spread.

    `scipy.stats.nct` gives NaN for the large noncentralities of a nearly noiseless task.
    """
    relative_spread, weights = _relative_spreads(num_seeds)
    critical = float(stats.t.isf(level, num_seeds - 1))
    return float(weights @ special.ndtr(noncentrality - critical * relative_spread))


@functools.lru_cache(maxsize=MOST_SEEDS)
def _relative_spreads(num_seeds: int) -> tuple[Array, Array]:
    """Quantiles of s / sigma for normal differences, with their weights."""
    quantiles, weights = _nodes(0.0, 1.0, 96)
    return np.sqrt(stats.chi2.ppf(quantiles, num_seeds - 1) / (num_seeds - 1)), weights
