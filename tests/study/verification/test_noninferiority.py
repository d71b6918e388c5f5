"""The test behind verification: levels against enumeration and simulation, closed forms against scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.errors import ConfigError
from subsettune.study.verification.noninferiority import (
    BY_CHOICE,
    FEW,
    LEAST_PAIRS,
    MIDDLE,
    MOST_OWN,
    PAIRED_ABOVE,
    UNSTEADY,
    WORTH_A_LOOK,
    Array,
    Look,
    Rules,
    allot,
    decide,
    judge,
    plan,
    sizes,
    spread_floor,
)

MARGIN = 0.01
STEP = 1 / 360
LEVEL = 0.04
COSTS = (0.05, 0.1, 0.25, 0.4, 0.6, 0.9, 1.0)
SCHEDULES = ((5, 10), (3, 10), (8, 16), (5, 5))


def rules(seeds: int = 5, max_seeds: int = 10, **changes: object) -> Rules:
    given_values = {"margin": MARGIN, "alpha": 0.05, "higher_is_better": True, **changes}
    return Rules(seeds=seeds, max_seeds=max_seeds, **given_values)  # type: ignore[arg-type]


def single(level: float, num_seeds: int, num_references: int) -> Look:
    """A look that is the only one."""
    return plan(level, ((num_seeds, num_references),))[0]


# ------------------------------------------------------------------------------------------------ rules, alpha, sizes


def test_rules_name_every_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        Rules(margin=0.0, alpha=5, seeds=1, max_seeds=3, higher_is_better=True, resolution=-1.0, usual_spread=-2.0)
    text = str(caught.value)
    assert "margin must be positive, got 0.0." in text
    assert "alpha must be in (0, 0.5], got 5.0." in text
    assert "seeds must be at least 2, got 1. One run tells nothing of the spread." in text
    assert "resolution must be 0 or more, got -1.0." in text
    assert "usual_spread must be 0 or more, got -2.0." in text
    assert len(caught.value.mistakes) == 5


def test_a_cap_below_the_first_look_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_seeds must be at least seeds \(5\), got 4\."):
        rules(5, 4)


def test_allotment_leaves_something_each_time() -> None:
    assert allot(0.05) == pytest.approx(0.04)
    assert allot(0.05, 0.04) == pytest.approx(0.008)
    spent = 0.0
    for _ in range(15):
        spent += allot(0.05, spent)
    assert spent < 0.05
    with pytest.raises(ConfigError, match=r"spent must be in \[0, alpha\) = \[0, 0.05\), got 0.05. Start a new study."):
        allot(0.05, 0.05)


@given(
    st.floats(1e-4, 3.0),
    st.integers(2, 12),
    st.integers(0, 40),
    st.booleans(),
)
def test_looks_grow_and_stay_within_the_caps(cost: float, seeds: int, more: int, is_last_resort: bool) -> None:
    made = rules(seeds, seeds + more)
    found = sizes(made, cost, is_last_resort=is_last_resort)
    assert found[0] == (seeds, seeds)
    for (own, theirs), (more_own, more_theirs) in itertools.pairwise(found):
        assert more_own > own  # a look is told by the runs of the candidate
        assert more_theirs > theirs or more_own >= WORTH_A_LOOK * own
    assert all(own <= MOST_OWN * theirs for own, theirs in found)
    assert found[-1][1] == max(made.max_seeds if is_last_resort else made.middle_seeds, seeds)


def test_a_cheap_candidate_has_as_many_more_runs_as_are_cheapest() -> None:
    """Neyman: 1 / sqrt(cost) times those of the reference."""
    assert sizes(rules(), 0.25) == ((5, 5), (10, 5), (16, 8))
    assert sizes(rules(), 0.25, is_last_resort=True) == ((5, 5), (10, 5), (16, 8), (20, 10))
    assert sizes(rules(), 1.0) == ((5, 5), (8, 8))
    assert sizes(rules(), 0.01)[1] == (20, 5)
    assert rules().middle_seeds == MIDDLE * 5


# ------------------------------------------------------------------------------------------------------------- levels


def test_one_look_has_the_whole_level() -> None:
    look = single(LEVEL, 7, 5)
    assert (look.nominal, look.alpha_spent, look.size) == (LEVEL, LEVEL, (7, 5))


ALL_SIZES = [
    sizes(rules(*schedule), cost, is_last_resort=is_last)
    for schedule in SCHEDULES
    for cost in COSTS
    for is_last in (False, True)
]


@given(st.floats(1e-6, 0.4), st.sampled_from(ALL_SIZES))
@settings(deadline=None)
def test_a_plan_spends_the_level_and_no_more(level: float, looks: tuple[tuple[int, int], ...]) -> None:
    made = plan(level, looks)
    assert tuple(look.size for look in made) == looks
    assert made[-1].alpha_spent == pytest.approx(level)
    tests = made[1:] if may_only_end(looks) else made
    assert all(look.nominal == look.alpha_spent == 0 for look in made if look not in tests)
    assert all(0 < look.nominal <= look.alpha_spent * (1 + 1e-9) for look in tests)
    # Bonferroni's levels are the crudest that hold; ours are never lower.
    spent = np.diff([0.0, *(look.alpha_spent for look in tests)])
    assert (spent > 0).all()
    assert all(look.nominal >= part * (1 - 1e-6) for look, part in zip(tests, spent, strict=True))


def may_only_end(looks: tuple[tuple[int, int], ...]) -> bool:
    """Whether the first look is followed by more runs of the candidate alone."""
    return len(looks) > 1 and looks[0][1] == looks[1][1]


@given(st.floats(1e-6, 0.2), st.floats(1.001, 2.0), st.sampled_from(ALL_SIZES))
@settings(deadline=None)
def test_more_alpha_never_lowers_the_level_of_a_look(
    level: float, times: float, looks: tuple[tuple[int, int], ...]
) -> None:
    """Without it a policy could lose its pass by alpha that others leave to it."""
    less, more = plan(level, looks), plan(level * times, looks)
    assert all(a.nominal <= b.nominal for a, b in zip(less, more, strict=True))


def draws(seed: int, num_repeats: int, looks: tuple[tuple[int, int], ...], ratio: float) -> tuple[Array, Array]:
    """Normal metrics of a candidate at the margin that scatters `ratio` times as much as the reference."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((num_repeats, looks[-1][0]))
    return -MARGIN + ratio * MARGIN * own, MARGIN * rng.standard_normal((num_repeats, looks[-1][1]))


def at_most(count: int, num_repeats: int, bound: float) -> bool:
    """Whether the count is one that a true rate of `bound` exceeds less than once in a million."""
    return count <= stats.binom.isf(1e-6, num_repeats, bound)


@pytest.mark.parametrize("schedule", [(8, 16), (30, 60)])
def test_two_looks_of_one_spread_use_up_the_level_exactly(schedule: tuple[int, int]) -> None:
    """Against a brute-force simulation of two looks at normal metrics whose spread is known well."""
    num_repeats, level = 200_000, 0.2
    first, last = schedule
    looks = plan(level, ((first, first), (last, last)))
    assert looks[0].alpha_spent == pytest.approx(level / 2)
    assert looks[0].nominal == looks[0].alpha_spent
    rng = np.random.default_rng(1)
    one = rng.standard_normal(num_repeats)
    both = math.sqrt(0.5) * one + math.sqrt(0.5) * rng.standard_normal(num_repeats)
    crossed = (one > stats.norm.isf(looks[0].nominal)) | (both > stats.norm.isf(looks[1].nominal))
    assert abs(crossed.sum() - num_repeats * level) < 4.5 * math.sqrt(num_repeats * level * (1 - level))


@pytest.mark.parametrize("cost", [0.1, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("ratio", [0.1, 0.6, 1.0, UNSTEADY])
def test_the_levels_of_a_plan_hold_whatever_the_ratio_of_the_spreads(cost: float, ratio: float) -> None:
    """By simulation of the normal law, spreads known: near the level, and not above it, as looks share their runs."""
    num_repeats = 60_000
    rng = np.random.default_rng(2)
    looks = plan(LEVEL, sizes(rules(), cost, is_last_resort=True))
    own, theirs = np.zeros(num_repeats), np.zeros(num_repeats)
    crossed, before = np.zeros(num_repeats, dtype=np.bool_), (0, 0)
    for look in looks:
        more = look.num_seeds - before[0], look.num_references - before[1]
        own += math.sqrt(more[0]) * rng.standard_normal(num_repeats)
        theirs += math.sqrt(more[1]) * rng.standard_normal(num_repeats)
        error = math.sqrt(ratio**2 / look.num_seeds + 1 / look.num_references)
        z = (ratio * own / look.num_seeds - theirs / look.num_references) / error
        crossed |= z > stats.norm.isf(look.nominal)
        before = look.size
    assert at_most(int(crossed.sum()), num_repeats, LEVEL)
    assert crossed.mean() > 0.85 * LEVEL


@pytest.mark.parametrize("ratio", [0.4, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("cost", [0.1, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("schedule", [(5, 10), (3, 10), (8, 16)])
def test_a_policy_at_the_margin_passes_in_at_most_the_level(
    schedule: tuple[int, int], cost: float, ratio: float
) -> None:
    made = rules(*schedule, usual_spread=MARGIN)
    looks = plan(LEVEL, sizes(made, cost, is_last_resort=True))
    own, theirs = draws(7, 8000, sizes(made, cost, is_last_resort=True), ratio)
    passed, _ = decide(own, theirs, made, looks)
    assert at_most(int(passed.sum()), 8000, LEVEL)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_t(3, shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 2 - rng.gamma(2.0, size=shape)


def rounded(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.rint(0.6 * rng.standard_normal(shape)) * STEP / MARGIN


def two_values(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.5, 0.5, -0.5) * (STEP / MARGIN)


@pytest.mark.parametrize("law", [heavy_tailed, skewed, rounded, two_values])
@pytest.mark.parametrize("cost", [0.1, 0.4, 1.0])
def test_the_level_holds_for_other_laws_that_both_have(
    law: Callable[[np.random.Generator, tuple[int, ...]], Array], cost: float
) -> None:
    made = rules(resolution=STEP if law in (rounded, two_values) else 0.0, usual_spread=MARGIN)
    looks = plan(LEVEL, sizes(made, cost))
    rng = np.random.default_rng(3)
    own = MARGIN * (law(rng, (8000, looks[-1].num_seeds)) - 1)
    theirs = MARGIN * law(rng, (8000, looks[-1].num_references))
    passed, _ = decide(own, theirs, made, looks)
    assert at_most(int(passed.sum()), 8000, LEVEL)


@pytest.mark.parametrize("resolution", [0.0, STEP])
def test_without_noise_a_policy_at_the_margin_never_passes(resolution: float) -> None:
    made = rules(resolution=resolution)
    looks = plan(LEVEL, sizes(made, 0.25))
    metric = np.random.default_rng(0).random((5000, 1))
    theirs = np.broadcast_to(metric, (5000, looks[-1].num_references))
    own = np.broadcast_to(metric - MARGIN, (5000, looks[-1].num_seeds))
    assert not decide(own, theirs, made, looks)[0].any()


def test_a_policy_that_rarely_fails_is_beyond_the_test() -> None:
    """What the docstring admits: with no failure among the seeds, nothing can tell it from a good policy."""
    made = rules(5, 5)
    rng = np.random.default_rng(0)
    own = np.where(rng.random((20_000, 5)) < 1 / 7, -7 * MARGIN, 0.0)
    theirs = np.zeros((20_000, 5))
    passed, _ = decide(own, theirs, made, (single(LEVEL, 5, 5),))
    found = stats.binomtest(int(passed.sum()), 20_000).proportion_ci(0.9999)
    assert found.low < (6 / 7) ** 5 < found.high


# ------------------------------------------------------------------------------------------------- floor of the spread


def rate_of_neighbours(n: int, m: int, level: float, floor: float) -> float:
    """Worst error rate of one look over all odds of two neighbouring values (step 1) of both, by enumeration.

    Candidate and reference are better by one step with odds p and q; the margin is what these make it, q - p.
    """
    odds = np.linspace(0, 1, 41)
    ours, theirs = np.arange(n + 1), np.arange(m + 1)
    s2 = ours * (1 - ours / n) / (n - 1) + floor**2
    u2 = theirs * (1 - theirs / m) / (m - 1) + floor**2
    own, reference = (s2 / n)[:, None], (u2 / m)[None]
    v = own + reference
    freedom = v**2 / (own**2 / (n - 1) + reference**2 / (m - 1))
    above = ours[:, None] / n - theirs[None] / m - stats.t.isf(level, freedom) * np.sqrt(v)
    p = stats.binom.pmf(ours, n, odds[:, None])
    q = stats.binom.pmf(theirs, m, odds[:, None])
    shifts = odds[:, None] - odds[None]
    passes = above[None, None] > shifts[:, :, None, None] + 1e-9
    return float(np.einsum("ik,jl,ijkl->ij", p, q, passes, optimize=True).max())


@pytest.mark.parametrize("level", [0.08, 0.04, 0.012, 0.0016])
def test_the_floor_keeps_the_level_for_two_neighbouring_values(level: float) -> None:
    floor = spread_floor(1.0, 0.0)
    within = ((n, m) for m in (*range(2, 11), 16) for n in {m, m + 1, 2 * m, 3 * m, MOST_OWN * m} if n <= 40)
    assert max(rate_of_neighbours(n, m, level, floor) for n, m in within) <= level


def test_why_the_floor_is_needed_and_is_not_smaller() -> None:
    assert rate_of_neighbours(5, 5, LEVEL, 1e-9) > 0.25
    assert rate_of_neighbours(8, 4, LEVEL, math.sqrt(1 / 6)) > LEVEL


def test_the_floor_is_no_higher_than_it_has_to_be_for_a_level_of_a_tenth() -> None:
    """What the docstring admits: with many more runs than the reference's four, a tenth is passed by a little."""
    assert 0.1 < rate_of_neighbours(13, 4, 0.1, spread_floor(1.0, 0.0)) < 0.12


# ------------------------------------------------------------------------------------------------- closed forms, chance


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.integers(2, 12),
    st.floats(0.2, 1.5),
)
@settings(max_examples=50, deadline=None)
def test_one_look_is_the_test_of_welch_or_three_times_that_of_pairs(seed: int, n: int, m: int, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    own, theirs = 0.9 + ratio * MARGIN * rng.standard_normal(n), 0.9 + MARGIN * rng.standard_normal(m)
    look = single(LEVEL, n, m)
    found = judge(own, theirs, look, look, rules(usual_spread=1.0), floor=1e-12)
    k = min(n, m)
    is_paired = k >= LEAST_PAIRS and np.corrcoef(own[:k], theirs[:k])[0, 1] > PAIRED_ABOVE
    assert found.is_paired == is_paired
    oracle = stats.ttest_ind(own + MARGIN, theirs, equal_var=False, alternative="greater")
    if is_paired:
        oracle = stats.ttest_rel(own[:k] + MARGIN, theirs[:k], alternative="greater")
    freedom = k - 1 if k < FEW else oracle.df
    p_value = min(1.0, stats.t.sf(oracle.statistic, freedom) * (BY_CHOICE if is_paired else 1))
    assert found.p_value == pytest.approx(p_value, rel=1e-6)
    assert found.freedom == pytest.approx(freedom, rel=1e-6)
    assert found.passed == (p_value < LEVEL)
    assert found.chance == 0.0  # nothing comes after the last look


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 2), (0.05, 4), (0.01, 3), (0.01, 5)])
def test_few_runs_keep_the_level_where_the_policy_scatters_less(alpha: float, n: int) -> None:
    """Satterthwaite's degrees of freedom would pass up to three times as many."""
    rng, repeats = np.random.default_rng(n), 60_000
    theirs, ours = rng.standard_normal((repeats, n)), 0.3 * rng.standard_normal((repeats, 3 * n))
    look = single(0.8 * alpha, 3 * n, n)
    found = judge(ours - MARGIN, theirs, look, look, rules(alpha=alpha, usual_spread=9.0), floor=1e-12)
    assert stats.binomtest(int(found.passed.sum()), repeats, 0.8 * alpha, alternative="greater").pvalue > 1e-3
    assert (found.freedom == n - 1).all()


@pytest.mark.parametrize("n", [5, 6, 8])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_choosing_between_pairs_and_welch_keeps_the_level(n: int, correlation: float) -> None:
    """At the margin, with as many runs of both; the choice is made on the runs that are tested."""
    rng, repeats = np.random.default_rng(n), 60_000
    shared, ours, theirs = (rng.standard_normal((repeats, n)) for _ in range(3))
    common, own = math.sqrt(correlation) * shared, math.sqrt(1 - correlation)
    look = single(LEVEL, n, n)
    found = judge(common + own * ours - MARGIN, common + own * theirs, look, look, rules(usual_spread=9.0), floor=1e-12)
    count = int(found.passed.sum())
    assert stats.binomtest(count, repeats, LEVEL, alternative="greater").pvalue > 1e-3
    assert found.is_paired.any() == (n >= LEAST_PAIRS)
    if correlation == 0.9 and n == 6:
        p_welch = stats.ttest_ind(common + own * ours, common + own * theirs, axis=1, equal_var=False).pvalue
        assert (p_welch / 2 < LEVEL).mean() < 0.1 * found.passed.mean()  # what pairs are for


def test_chance_is_the_predictive_probability() -> None:
    """Against simulation: means from a flat prior, spreads held, degrees of freedom as Satterthwaite has them."""
    looks = plan(LEVEL, ((5, 5), (16, 8)))
    own = 0.9 + np.array([-0.012, 0.004, -0.006, 0.009, -0.003])
    theirs = 0.9 + np.array([0.004, -0.003, 0.001, -0.006, 0.003])
    found = judge(own, theirs, looks[0], looks[1], rules(), floor=1e-12)
    s, u = own.std(ddof=1), theirs.std(ddof=1)
    rng = np.random.default_rng(0)
    common = rng.standard_t(float(found.freedom), 400_000)
    moves = math.sqrt(s**2 * (1 / 5 - 1 / 16) + u**2 * (1 / 5 - 1 / 8))
    v = s**2 / 16 + u**2 / 8
    freedom = v**2 / ((s**2 / 16) ** 2 / 15 + (u**2 / 8) ** 2 / 7)
    reached = (found.mean + moves * common + MARGIN) / math.sqrt(v) > stats.t.isf(looks[1].nominal, freedom)
    assert found.chance == pytest.approx(reached.mean(), abs=0.004)


def test_a_policy_that_scatters_too_much_does_not_pass() -> None:
    look = single(LEVEL, 5, 5)
    shape = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])

    def judged(ratio: float, usual: float = 0.0, unit: float = 0.003) -> tuple[bool, bool]:
        made = rules(usual_spread=usual)
        found = judge(0.92 + ratio * unit * shape, 0.9 + unit * shape, look, look, made, floor=1e-12)
        return bool(found.passed), bool(found.is_unsteady)

    assert judged(UNSTEADY * 0.99) == (True, False)
    assert judged(UNSTEADY * 1.01) == (False, True)
    usual = 2 * 0.003 * float(shape.std(ddof=1))  # the reference happened to scatter half as much as it usually does
    assert judged(UNSTEADY * 1.99, usual) == (True, False)
    assert judged(UNSTEADY * 1.01, unit=0.001) == (True, False)  # less than half the margin is no cause to fail


def test_decide_settles_at_the_first_look_that_can() -> None:
    looks = plan(LEVEL, ((5, 5), (10, 5), (16, 8)))
    spreads, shifts = np.array([0.1, 0.1, 1.0])[:, None], np.array([0.0, -5.0, -0.1])[:, None]
    own = MARGIN * (shifts + spreads * np.resize([1.0, -1.0], 16))
    theirs = MARGIN * spreads * np.resize([-1.0, 1.0], 8)
    passed, settled_at = decide(own, theirs, rules(usual_spread=MARGIN), looks)
    assert passed.tolist()[:2] == [True, False]
    assert settled_at.tolist() == [1, 0, 2]  # the first look may only end it
