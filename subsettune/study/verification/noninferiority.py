"""The test behind verification: is a policy as good as the conventional recipe, to within the tolerance?

Pure functions of arrays. H0 of a policy, mean difference <= -margin, is rejected by a one-sided t test of Welch (1947),
which takes the spread of the policy and that of the reference from their own runs, as many as there are of each.

Paired by seed or not. A run of the reference costs a whole training and one of a candidate a fraction of it, so the
same certainty is cheapest with more runs of the candidate: 1 / sqrt(cost) times as many (Neyman 1934), which pairs do
not allow. A pair with the same initial weights and order of examples is worth something for near copies of the recipe,
and where the noise is that of the start, as in small regressions. So pairs are used where the metrics of both correlate
by more than `PAIRED_ABOVE` in six or more; that the data choose is paid for by tripling the p-value of the pairs, which
keeps the level for as many runs of both, at every true correlation from 0 up. Elsewhere a shared seed makes the
difference less noisy than Welch's test assumes, and it errs on the safe side.

1. Looks. A policy is looked at after `seeds` runs beside as many of the reference, then with more runs of its own, then
   with more of both. Where its runs are cheap the first look may only end a hopeless test: few runs are what a skewed
   metric deceives most. Alpha is spent in proportion to the information (Lan & DeMets 1983; Kim & DeMets 1987, with
   rho = 1). Each look is a t test at the level that the normal law of adjacent looks allows (significance level
   approach, Jennison & Turnbull 2000, ch. 3.4; bound of Hunter 1976 and Worsley 1982 for more than two looks);
   `benchmarks/verification.py` holds what comes of it against alpha.
2. Several policies share alpha: `verification` says how it moves on from one that passed.
3. Unequal spreads are what Welch's test is for. A policy that scatters by more than `UNSTEADY` times the reference, and
   by more than half the margin, does not pass all the same: that is what a rate does with which a run in ten goes
   wrong. More seeds may settle it.
4. Each verification of a study is given 4/5 of what is left of alpha (`allot`), used or not: with 0.05 the first has
   0.04, an extension 0.008, the next 0.0016. A union bound over verifications holds however data are shared, as long
   as each line-up is drawn up without the test split. An extension seeks what is cheaper than a policy that passed,
   and so looks at it in that: were every line-up that this may come to tested, each could add its 0.008.
5. Few runs. With fewer than five of an arm, or ten where alpha is below 0.05, the degrees of freedom are those of the
   smaller arm, which errs on the safe side whatever the spreads (Mickey & Brown 1966). Satterthwaite's are too many
   where a policy scatters less than the reference (`benchmarks/verification.py --only few` holds what comes of it
   against alpha).
6. Small shares of alpha. Satterthwaite's degrees of freedom are too many where the candidate has several times the
   runs of the reference and the level is small: at 0.012, 20 runs beside 5 pass in 1.25 times as many cases, 10
   beside 5 in 1.04 times (`benchmarks/verification.py --only shares`). The tests of a line-up have the reference in
   common, and the whole keeps its level, cheap line-ups included (`--only level`).

What it cannot do. No test of a mean keeps its level for every distribution and has power too (Bahadur & Savage
1956). A policy that nearly always does well and rarely fails by a lot, so that its mean lies at the margin, passes n
seeds whenever no failure is among them: one failure in seven runs, with probability 0.46 at n = 5. Few seeds cannot
see it, and several such policies in one line-up make it worse (0.6 for five of them). A policy that alone is skewed, as
gamma(2) is, passes in 0.04 to 0.06 where 0.04 are allowed, and in 0.05 to 0.08 if it also scatters 1.5 times as much as
the reference. Held are symmetric noise, heavy tails or not, unequal spreads, ties, skew that the reference has too, and
seeds that both share; not runs that go against the reference's seed by seed (0.057 at a correlation of -0.3).
`benchmarks/verification.py` prints which is which.

| symbol | shape | meaning |
|---|---|---|
| n, m | int | runs of the candidate and of the reference at a look |
| c, r | (..., n), (..., m) | their metrics, oriented: higher is better |
| s, u | (...) | standard deviations of c and r, floor included |
| v | (...) | s^2 / n + u^2 / m, variance of mean(c) - mean(r) |
| nu | (...) | v^2 / ((s^2/n)^2 / (n - 1) + (u^2/m)^2 / (m - 1)), degrees of freedom (Satterthwaite 1946); see 5 |
| T | (...) | (mean(c) - mean(r) + margin) / sqrt(v) |
| k | int | pairs, min(n, m): runs of both with one seed |
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, Rule, must, setting
from subsettune.errors import ConfigError, Mistake

Array = NDArray[np.float64]

SHARE_OF_REST = 0.8  # of the alpha left: the first verification keeps most of it, and no extension finds nothing left
FUTILE_BELOW = 0.15  # chance of passing below which no seeds are added; the benchmark prints what it saves and costs
PAIRED_ABOVE = 0.7  # correlation over seeds from which on pairs are worth more than the runs that they leave out
BY_CHOICE = 3.0  # what the p-value of pairs is multiplied by
LEAST_PAIRS = 6  # of fewer, independent ones correlate as much by luck so often that nothing pays for it
FEW, FEW_AT_SMALL_ALPHA = 5, 10  # runs; of fewer Satterthwaite's degrees of freedom are too many
SMALL_ALPHA = 0.05  # below it
UNSTEADY = 2.5  # times the reference's spread; good policies often scatter more than it, few by so much
MIDDLE = 1.6  # times `seeds`: runs of the reference that any candidate may have; all of `max_seeds` is a last resort
MOST_OWN = 4  # runs of a candidate for one of the reference, at most: beyond it the reference's are all that is left
WORTH_A_LOOK = 1.5  # times the runs of the look before, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as matched, and how much may be spent on showing it.

    Args:
        margin: tolerance, in the metric's units.
        alpha: chance that a policy at the margin, or worse, passes; over the whole study.
        seeds: runs of each candidate, and of the reference, at the first look.
        max_seeds: cap on the runs of the reference; a candidate that costs less may have more of its own.
        higher_is_better: direction of the metric.
        resolution: smallest step of the metric: 1 / (test examples) for accuracy, and for balanced accuracy and F1
            too, for want of a better one; 0 for a metric without ties, such as MSE.
        usual_spread: of the reference's metric over seeds, as the validation split shows it: a policy is not called
            unsteady because the reference happened to scatter little in its few runs on the test split.

    Raises:
        ConfigError: a value is out of range; all such values are named.
    """

    margin: float = setting(rule=POSITIVE)
    alpha: float = setting(rule=Rule("in (0, 0.5]", lambda v: 0 < v <= 0.5))
    seeds: int = setting(rule=Rule("at least 2", lambda v: v >= 2, "One run tells nothing of the spread."))
    max_seeds: int
    higher_is_better: bool
    resolution: float = setting(0.0, rule=NOT_NEGATIVE)
    usual_spread: float = setting(0.0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)
        if self.max_seeds < self.seeds:
            message = must("max_seeds", f"at least seeds ({self.seeds})", self.max_seeds)
            raise ConfigError((Mistake(("max_seeds",), message),))

    @property
    def few(self) -> int:
        """Runs of an arm below which degrees of freedom are those of the smaller arm."""
        return FEW_AT_SMALL_ALPHA if self.alpha < SMALL_ALPHA else FEW

    @property
    def middle_seeds(self) -> int:
        """Runs of the reference that any candidate may have."""
        return min(self.max_seeds, round(MIDDLE * self.seeds))


Size = tuple[int, int]  # runs of the candidate, and of the reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the data.

    Args:
        num_seeds: runs of the candidate used.
        num_references: runs of the reference used.
        alpha_spent: error rate of all looks so far, this one included.
        nominal: level of this look's test taken alone, against which its p-value is held; 0 where it may only end it.
    """

    num_seeds: int
    num_references: int
    alpha_spent: float
    nominal: float

    @property
    def size(self) -> Size:
        """Runs of the candidate and of the reference."""
        return self.num_seeds, self.num_references


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The test at one look, for arrays of candidates at once; all fields have the shape of c without its last axis.

    Args:
        mean: mean(c) - mean(r), of the pairs where pairs are used.
        error: its standard error, sqrt(v) or that of the pairs.
        freedom: nu, or k - 1.
        spread: s.
        reference_spread: u.
        is_paired: whether pairs are used.
        p_value: of T, or `BY_CHOICE` times that of the pairs.
        is_unsteady: whether the policy scatters too much to pass.
        passed: whether the p-value is below the look's level and the policy is steady.
        chance: of passing at the last look, as it seems now; 0 at the last look.
    """

    mean: Array
    error: Array
    freedom: Array
    spread: Array
    reference_spread: Array
    is_paired: NDArray[np.bool_]
    p_value: Array
    is_unsteady: NDArray[np.bool_]
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


def sizes(rules: Rules, cost: float, *, is_last_resort: bool = False) -> tuple[Size, ...]:
    """The looks at a candidate, as numbers of runs; known before any of them.

    The runs of the reference that are there already cost nothing, so the second look adds runs of the candidate alone,
    as many as are worth their price beside those. The third adds both, in the ratio that is cheapest for the certainty
    gained. A last resort, without which a study would come back empty, may go on to `max_seeds`.

    Args:
        rules: of the verification.
        cost: of a run of the candidate, as a share of one of the reference; positive.
        is_last_resort: whether the reference may be run as often as `max_seeds`.
    """
    ratio = min(float(MOST_OWN), max(1.0, cost**-0.5))
    found = [(rules.seeds, rules.seeds)]
    steps = [rules.seeds, rules.middle_seeds, *([rules.max_seeds] if is_last_resort else [])]
    for references in steps:
        own = round(ratio * references)
        is_dearer = references > found[-1][1]
        if (is_dearer and own >= found[-1][0]) or own >= WORTH_A_LOOK * found[-1][0]:
            found.append((own, references))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def plan(level: float, looks: tuple[Size, ...]) -> tuple[Look, ...]:
    """The looks of a candidate, and the level of each.

    A first look that is followed by more runs of the candidate alone spends nothing: it may end the test, not pass it.
    Information is that of a candidate which scatters `UNSTEADY` times as much as the reference, where looks have least
    in common: their levels are then on the safe side for every steadier one.

    Args:
        level: error rate of all looks together, in (0, 0.5).
        looks: runs of the candidate and of the reference, growing.
    """
    only_ends = len(looks) > 1 and looks[0][1] == looks[1][1]
    tests = looks[1:] if only_ends else looks
    information = tuple(1 / (UNSTEADY**2 / own + 1 / references) for own, references in tests)
    spent = [*([(0.0, 0.0)] if only_ends else []), *spending(level, information)]
    return tuple(
        Look(num_seeds=own, num_references=references, alpha_spent=so_far, nominal=nominal)
        for (own, references), (so_far, nominal) in zip(looks, spent, strict=True)
    )


@functools.lru_cache(maxsize=4096)
def spending(level: float, information: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """(alpha spent so far, level of the look's test alone) for each look, alpha in proportion to the information."""
    found: list[tuple[float, float]] = []
    for i, known in enumerate(information):
        spent = nominal = level * known / information[-1]
        if found:
            nominal = _next_level(found[-1], math.sqrt(information[i - 1] / known), spent)
        found.append((spent, nominal))
    return tuple(found)


def _next_level(last: tuple[float, float], correlation: float, spent: float) -> float:
    """The p with P(P2 < p) - P(P1 < p1 and P2 < p) = what may be spent beyond the alpha of the last look."""
    spent_before, nominal_before = last
    more = spent - spent_before

    def excess(level: float) -> float:
        return level - _both_below(nominal_before, level, correlation) - more

    # The joint probability lies between 0 and p1 <= the alpha spent before, so these two enclose the root.
    return spent if excess(spent) <= 0 else float(optimize.brentq(excess, more, spent, xtol=1e-14))


def _both_below(first: float, second: float, correlation: float) -> float:
    """P(Z1 > z1 and Z2 > z2) of standard normals with that correlation, integrated over the tail of Z1."""
    tails, weights = nodes(0.0, first, 64)
    z1, z2 = special.ndtri(1 - tails), special.ndtri(1 - second)
    return float(weights @ special.ndtr((correlation * z1 - z2) / math.sqrt(1 - correlation**2)))


def nodes(low: float, high: float, num: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [low, high]."""
    x, weights = np.polynomial.legendre.leggauss(num)
    return low + (high - low) * (x + 1) / 2, (high - low) * weights / 2


def spread_floor(resolution: float, scale: float) -> float:
    """What is added to each spread, in quadrature, so that ties are not taken for certainty. In the metric's units.

    With few seeds all metrics can coincide by chance, and s = 0 would let anything pass. A variance of
    resolution^2 / 4, the largest that two neighbouring values can have, keeps the level for metrics that take two
    neighbouring values, at any odds, for up to `MOST_OWN` runs of the candidate for one of the reference and every
    level up to 0.08, the most that an alpha of 0.1 gives (a test enumerates them); resolution^2 / 6 does so up to 0.015
    only. The price in power: a spread of one step counts 12 % more, one of three steps 1.4 %.

    Args:
        resolution: smallest step of the metric.
        scale: largest magnitude among the numbers subtracted, whose rounding must not count as a margin kept.
    """
    rounding = 64 * np.finfo(np.float64).eps * scale
    return math.hypot(resolution / 2, rounding)


def judge(c: Array, r: Array, look: Look, last: Look, rules: Rules, *, floor: float) -> Judgement:
    """The test at one look.

    `chance` is the predictive probability of passing at the last look, given the runs so far, no prior knowledge, and
    spreads that stay as they are (Spiegelhalter, Freedman & Blackburn 1986).

    Args:
        c: (..., look.num_seeds) oriented metrics of the candidate, finite.
        r: (..., look.num_references) likewise of the reference.
        look: the one at hand.
        last: of the same plan.
        rules: give the margin, and the reference's usual spread.
        floor: see `spread_floor`; positive.
    """
    s2, u2 = (x.var(axis=-1, ddof=1) + floor**2 for x in (c, r))
    alone, pairs = _welch(c, r, look, last, rules, (s2, u2)), _paired(c, r, look, last, rules, floor)
    use = pairs.is_worth_it
    mean, error, freedom, p_value, chance = (
        np.where(use, getattr(pairs, name), getattr(alone, name))
        for name in ("mean", "error", "freedom", "p_value", "chance")
    )
    usual = np.maximum(u2, rules.usual_spread**2)
    is_unsteady = np.asarray((s2 > UNSTEADY**2 * usual) & (s2 > (rules.margin / 2) ** 2))
    return Judgement(
        mean=mean,
        error=error,
        freedom=freedom,
        spread=np.sqrt(s2),
        reference_spread=np.sqrt(u2),
        is_paired=use,
        p_value=p_value,
        is_unsteady=is_unsteady,
        passed=(p_value < look.nominal) & ~is_unsteady,
        chance=chance if look.size != last.size else np.zeros_like(chance),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tested:
    """One of the two tests; fields as in `Judgement`."""

    mean: Array
    error: Array
    freedom: Array
    p_value: Array
    chance: Array
    is_worth_it: NDArray[np.bool_]


def _welch(c: Array, r: Array, look: Look, last: Look, rules: Rules, variances: tuple[Array, Array]) -> _Tested:
    mean, (s2, u2) = c.mean(axis=-1) - r.mean(axis=-1), variances
    error, freedom = _error(s2, u2, look.size, rules.few)
    final_error, final_freedom = _error(s2, u2, last.size, rules.few)
    wanted = stats.t.isf(last.nominal, final_freedom) * final_error - rules.margin
    moves = np.sqrt(s2 * (1 / look.num_seeds - 1 / last.num_seeds) + u2 * _gain(look, last))
    return _Tested(
        mean=mean,
        error=error,
        freedom=freedom,
        p_value=np.asarray(stats.t.sf((mean + rules.margin) / error, freedom), dtype=np.float64),
        chance=_chance(wanted - mean, moves, freedom),
        is_worth_it=np.ones_like(mean, dtype=np.bool_),
    )


def _paired(c: Array, r: Array, look: Look, last: Look, rules: Rules, floor: float) -> _Tested:
    """The t test of pairs; a floor a run is worth 4/3 of it in a difference (`superiority.pair_floor`)."""
    k, final = min(look.size), min(last.size)
    ours, theirs = c[..., :k], r[..., :k]
    difference = ours - theirs
    mean, variance = difference.mean(axis=-1), difference.var(axis=-1, ddof=1) + 4 / 3 * floor**2
    error, freedom = np.sqrt(variance / k), np.full_like(mean, k - 1)
    wanted = stats.t.isf(last.nominal / BY_CHOICE, final - 1) * np.sqrt(variance / final) - rules.margin
    p_value = np.minimum(1.0, BY_CHOICE * stats.t.sf((mean + rules.margin) / error, freedom))
    return _Tested(
        mean=mean,
        error=error,
        freedom=freedom,
        p_value=p_value,
        chance=_chance(wanted - mean, np.sqrt(variance * (1 / k - 1 / final)), freedom),
        is_worth_it=(k >= LEAST_PAIRS) & (_correlation(ours, theirs) > PAIRED_ABOVE),
    )


def _correlation(a: Array, b: Array) -> Array:
    """(...) of two samples; 0 where one does not vary."""
    x, y = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return np.asarray((x * y).sum(axis=-1) / np.where(scale > 0, scale, 1.0))


def _chance(way: Array, moves: Array, freedom: Array) -> Array:
    """That the mean moves by more than `way` when it moves by so much at random; 0 or 1 where it cannot move."""
    standing = np.where(moves > 0, moves, 1.0)
    return np.where(moves > 0, stats.t.sf(way / standing, freedom), (way < 0).astype(np.float64))


def _gain(look: Look, last: Look) -> float:
    return 1 / look.num_references - 1 / last.num_references


def _error(s2: Array, u2: Array, size: Size, few: int) -> tuple[Array, Array]:
    """sqrt(v) and nu."""
    return np.sqrt(s2 / size[0] + u2 / size[1]), degrees(s2, u2, size, few)


def degrees(s2: Array, u2: Array, size: Size, few: int = FEW) -> Array:
    """nu: Satterthwaite's, or those of the smaller arm where it has few runs, which no spreads can make too many.

    Args:
        s2: (...) variances of the candidate's runs, positive.
        u2: (...) likewise of the reference's.
        size: runs of both.
        few: see `Rules.few`.
    """
    return np.full(np.shape(s2 + u2), min(size) - 1.0) if min(size) < few else satterthwaite(s2, u2, size)


def satterthwaite(s2: Array, u2: Array, size: Size) -> Array:
    """nu as Satterthwaite has it; arguments as above."""
    own, reference = s2 / size[0], u2 / size[1]
    return np.asarray((own + reference) ** 2 / (own**2 / (size[0] - 1) + reference**2 / (size[1] - 1)))


def decide(
    c: Array, r: Array, rules: Rules, looks: tuple[Look, ...], *, futile_below: float = FUTILE_BELOW
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Verdicts of many candidates at once, each on its own: the arithmetic of `Verification` without its books.

    Args:
        c: (..., runs) oriented metrics, in the order in which seeds are used; as many as the last look takes.
        r: (..., runs) likewise of the reference.
        rules: of the verification.
        looks: of `plan`.
        futile_below: chance of passing below which it stops.

    Returns:
        (...) whether it passed, and (...) the index of the look that settled it.
    """
    floor = spread_floor(rules.resolution, rules.margin)
    passed = np.zeros(c.shape[:-1], dtype=np.bool_)
    settled_at = np.full(c.shape[:-1], len(looks) - 1, dtype=np.int64)
    is_open = np.ones_like(passed)
    for i, look in enumerate(looks):
        own, theirs = c[..., : look.num_seeds], r[..., : look.num_references]
        result = judge(own, theirs, look, looks[-1], rules, floor=floor)
        settled = is_open & (result.passed | (result.chance < futile_below))
        passed |= is_open & result.passed
        settled_at[settled] = i
        is_open &= ~settled
    return passed, settled_at
