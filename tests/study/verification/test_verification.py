"""Verification: error rates against bounds, closed forms against scipy, and the books against the arithmetic."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.errors import ConfigError, StudyError
from subsettune.study.results.costs import break_even, saving
from subsettune.study.results.verdict import Verdict
from subsettune.study.verification.noninferiority import (
    Array,
    Draw,
    Frequency,
    Rules,
    allot,
    decide,
    error_rate,
    judge,
    plan,
    power,
    required_seeds,
    spread_floor,
)
from subsettune.study.verification.verification import REFERENCE, Verification, statement

MARGIN = 0.01
STEP = 1 / 360
SCHEDULES = ((5, 10), (3, 10), (5, 5))


def rules(seeds: int = 5, max_seeds: int = 10, **changes: object) -> Rules:
    given_values = {"margin": MARGIN, "alpha": 0.05, "higher_is_better": True, **changes}
    return Rules(seeds=seeds, max_seeds=max_seeds, **given_values)  # type: ignore[arg-type]


def verification(candidates: dict[str, int] | None = None, **changes: object) -> Verification:
    made = rules(**changes)  # type: ignore[arg-type]
    return Verification(candidates or {"a": 300, "b": 200}, made, seeds=range(made.max_seeds))


def play(made: Verification, metric: Callable[[str, int], float]) -> list[tuple[tuple[str, int], ...]]:
    """Do what is needed until nothing is; the batches that were asked for."""
    asked = []
    while batch := made.needed():
        asked.append(batch)
        for name, seed in batch:
            made.record(name, seed, metric(name, seed))
    return asked


def steady(difference: dict[str, float], sigma: float = 0.001) -> Callable[[str, int], float]:
    """A metric near 0.9 with a little noise, a fixed function of name and seed."""

    def metric(name: str, seed: int) -> float:
        noise = np.random.default_rng([seed, *name.encode()]).standard_normal()
        return float(0.9 + difference.get(name, 0.0) + sigma * noise)

    return metric


def at_most(found: Frequency, bound: float) -> bool:
    """Whether the count is one that a true rate of `bound` exceeds less than once in a million."""
    return found.count <= stats.binom.isf(1e-6, found.num_repeats, bound)


# ---------------------------------------------------------------------------------------------- rules and plan


def test_rules_name_every_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        Rules(margin=0.0, alpha=5, seeds=1, max_seeds=3, higher_is_better=True, resolution=-1.0)
    text = str(caught.value)
    assert "margin must be positive, got 0.0." in text
    assert "alpha must be in (0, 0.5], got 5.0." in text
    assert "seeds must be at least 2, got 1. One run tells nothing of the spread." in text
    assert "resolution must be 0 or more, got -1.0." in text
    assert len(caught.value.mistakes) == 4


def test_cap_below_first_look_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_seeds must be at least seeds \(5\), got 4\."):
        rules(5, 4)


def test_one_look_is_the_plain_t_test() -> None:
    (look,) = plan(0.04, 5, 5)
    assert look.critical == pytest.approx(stats.t.isf(0.04, 4))
    assert look.nominal == pytest.approx(0.04)


@pytest.mark.slow
@given(st.floats(1e-6, 0.4), st.integers(2, 12), st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_plan_spends_the_level_and_no_more(level: float, seeds: int, more: int) -> None:
    looks = plan(level, seeds, seeds + more)
    sizes = [look.num_seeds for look in looks]
    assert sizes[0] == seeds
    assert sizes[-1] == seeds + more
    assert all(2 * n <= later <= 3 * n or later == sizes[-1] < 3 * n for n, later in itertools.pairwise(sizes))
    assert looks[-1].alpha_spent == pytest.approx(level)
    assert all(0 < look.nominal <= look.alpha_spent * (1 + 1e-9) and look.critical > 0 for look in looks)
    # Bonferroni's boundaries are the crudest that hold; ours are never higher.
    spent = np.diff([0.0, *(look.alpha_spent for look in looks)])
    assert all(look.nominal >= part * (1 - 1e-6) for look, part in zip(looks, spent, strict=True))


@pytest.mark.parametrize("schedule", [(2, 3), (3, 4), (5, 10), (3, 8)])
def test_two_looks_use_up_the_level_exactly(schedule: tuple[int, int]) -> None:
    num_repeats, level = 200_000, allot(0.25)
    differences = -MARGIN + np.random.default_rng(1).standard_normal((num_repeats, schedule[1]))
    passed, _ = decide(differences, rules(*schedule, alpha=0.25), futile_below=0.0)
    assert len(plan(level, *schedule)) == 2
    assert abs(passed.sum() - num_repeats * level) < 4.5 * math.sqrt(num_repeats * level * (1 - level))


def test_allotment_leaves_something_each_time() -> None:
    assert allot(0.05) == pytest.approx(0.04)
    assert allot(0.05, 0.04) == pytest.approx(0.008)
    spent = 0.0
    for _ in range(15):
        spent += allot(0.05, spent)
    assert spent < 0.05
    with pytest.raises(ConfigError, match=r"spent must be in \[0, alpha\) = \[0, 0.05\), got 0.05. Start a new study."):
        allot(0.05, 0.05)


# --------------------------------------------------------------------------------------------------- error rates


def normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    return -MARGIN + MARGIN * rng.standard_normal(shape)


def shared_reference(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    return normal(rng, shape) - MARGIN * rng.standard_normal((shape[0], 1, shape[2]))


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    return -MARGIN + MARGIN * rng.standard_t(3, shape)


def both_skewed(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    return -MARGIN * (1 + rng.exponential(size=shape) - rng.exponential(size=shape))


def few_flips(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    base = np.where(rng.random(shape) < MARGIN / STEP - 3, -4, -3)
    return np.asarray((base + rng.poisson(0.1, shape) - rng.poisson(0.1, shape)) * STEP, dtype=np.float64)


def neighbours(odds: float) -> Draw:
    return lambda rng, shape: -MARGIN + STEP * ((rng.random(shape) < odds).astype(np.float64) - odds)


def rounded(sigma: float) -> Draw:
    return lambda rng, shape: -MARGIN + STEP * np.rint(sigma * rng.standard_normal(shape))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("draw", "resolution"),
    [
        (normal, 0.0),
        (heavy_tailed, 0.0),
        (both_skewed, 0.0),
        (few_flips, STEP),
        (neighbours(0.45), STEP),
        (neighbours(0.6), STEP),
        (rounded(0.4), STEP),
        (rounded(1.0), STEP),
    ],
    ids=["normal", "heavy_tailed", "both_skewed", "few_flips", "two_even", "two_skewed", "rounded_0.4", "rounded_1"],
)
def test_a_policy_at_the_margin_passes_in_at_most_the_level(
    draw: Draw, resolution: float, schedule: tuple[int, int]
) -> None:
    found = error_rate(rules(*schedule, resolution=resolution), draw, rng=np.random.default_rng(0))
    assert at_most(found, allot(0.05))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("num_equal", "num_extensions"), [(0, 0), (1, 0), (2, 0), (0, 3), (1, 3)])
def test_a_whole_study_errs_in_at_most_alpha(num_equal: int, num_extensions: int, schedule: tuple[int, int]) -> None:
    found = error_rate(
        rules(*schedule),
        shared_reference,
        rng=np.random.default_rng(2),
        num_equal=num_equal,
        num_at_margin=3 - num_equal,
        num_extensions=num_extensions,
        num_repeats=10_000,
    )
    assert at_most(found, 0.05)


@pytest.mark.parametrize("resolution", [0.0, STEP])
def test_without_noise_a_policy_at_the_margin_never_passes(resolution: float) -> None:
    def constant(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
        metric = rng.random((shape[0], 1, 1))
        return np.broadcast_to((metric - MARGIN) - metric, shape)

    assert error_rate(rules(resolution=resolution), constant, rng=np.random.default_rng(0)).count == 0


def rate_of_neighbours(num_seeds: int, level: float, floor: float) -> float:
    """Worst error rate of one look over all odds of two neighbouring values (step 1), by enumeration."""
    odds = np.arange(0.005, 1, 0.005)[:, None]
    ones = np.arange(num_seeds + 1)
    spread = np.sqrt(ones * (1 - ones / num_seeds) / (num_seeds - 1) + floor**2)
    passes = (ones / num_seeds - odds) * math.sqrt(num_seeds) > stats.t.isf(level, num_seeds - 1) * spread
    return float((stats.binom.pmf(ones, num_seeds, odds) * passes).sum(axis=1).max())


@pytest.mark.parametrize("level", [0.1, 0.05, 0.04, 0.008, 0.0016])
def test_the_floor_keeps_the_level_for_two_neighbouring_values(level: float) -> None:
    floor = spread_floor(1.0, 0.0)
    assert max(rate_of_neighbours(n, level, floor) for n in range(2, 41)) <= level


def test_why_the_floor_is_needed_and_is_not_smaller() -> None:
    assert rate_of_neighbours(5, 0.04, 1e-9) > 0.9
    assert rate_of_neighbours(4, 0.1, 0.5) > 0.1


def test_a_policy_that_rarely_fails_is_beyond_the_test() -> None:
    """What the docstring admits: with no failure among the seeds, nothing can tell it from a good policy."""

    def rarely(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
        return np.where(rng.random(shape) < 1 / 7, -7 * MARGIN, 0.0)

    low, high = error_rate(rules(5, 5), rarely, rng=np.random.default_rng(0)).interval(0.9999)
    assert low < (6 / 7) ** 5 < high


# --------------------------------------------------------------------------------------- closed forms and power


@given(st.lists(st.floats(-0.05, 0.05), min_size=5, max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_one_look_agrees_with_scipy(shifts: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = 0.9 + 0.01 * rng.standard_normal(5)
    policy = reference + np.array(shifts) + 1e-4 * rng.standard_normal(5)
    made = Verification({"a": 1}, rules(5, 5), range(5))
    for i in range(5):
        made.record(REFERENCE, i, reference[i])
        made.record("a", i, policy[i])
    oracle = stats.ttest_1samp(policy - reference, -MARGIN, alternative="greater")
    verdict = made.verdicts["a"]
    assert verdict.p_value == pytest.approx(oracle.pvalue, rel=1e-6)
    assert verdict.lower_bound == pytest.approx(oracle.confidence_interval(1 - allot(0.05)).low, rel=1e-6, abs=1e-12)
    assert verdict.passed == (oracle.pvalue < allot(0.05))
    assert verdict.shortfall == pytest.approx(max(0.0, -MARGIN - verdict.lower_bound))


@given(st.floats(0.1, 3.0), st.floats(-0.5, 1.0), st.sampled_from([0.0, STEP]))
@settings(max_examples=25, deadline=None)
def test_required_seeds_is_the_first_number_that_does(ratio: float, shift: float, resolution: float) -> None:
    made = rules(resolution=resolution)
    sigma, difference = ratio * MARGIN, shift * MARGIN
    found = required_seeds(made, sigma, true_difference=difference)
    noise = math.hypot(sigma, resolution / math.sqrt(3))

    def oracle(n: int) -> float:
        noncentrality = (MARGIN + difference) / noise * math.sqrt(n)
        return float(stats.nct.sf(stats.t.isf(allot(0.05), n - 1), n - 1, noncentrality))

    assert found is not None
    assert oracle(found) >= 0.8 - 1e-4
    assert found == 2 or oracle(found - 1) < 0.8 + 1e-4


def test_required_seeds_without_an_answer() -> None:
    assert required_seeds(rules(), 100 * MARGIN) is None
    assert required_seeds(rules(), MARGIN, true_difference=-MARGIN) is None
    assert required_seeds(rules(), 0.0) == 2


def test_required_seeds_give_the_power_they_promise() -> None:
    n = required_seeds(rules(), MARGIN)
    assert n is not None
    reached = power(rules(n, n), MARGIN, 0.0, rng=np.random.default_rng(0), num_repeats=20_000)
    assert reached.shape == ()
    assert 0.8 - 0.012 < reached < 0.9


def test_power_rises_with_the_true_difference_and_more_alpha() -> None:
    shifts = np.linspace(-1, 1, 9) * MARGIN
    first = power(rules(), MARGIN, shifts, rng=np.random.default_rng(0), num_repeats=4000)
    later = power(rules(), MARGIN, shifts, rng=np.random.default_rng(0), num_repeats=4000, spent=0.04)
    assert np.all(np.diff(first) > 0)
    assert np.all(later < first)


def test_chance_is_the_predictive_probability() -> None:
    """Against simulation: future mean from a flat prior, the spread held."""
    first, last = plan(0.04, 5, 10)
    seen = np.array([-0.012, 0.004, -0.006, 0.009, -0.003])
    chance = judge(seen, first, last, margin=MARGIN, floor=1e-12).chance
    rng, spread = np.random.default_rng(0), seen.std(ddof=1)
    future = seen.mean() + spread * math.sqrt(1 / 5 + 1 / 5) * rng.standard_t(4, 400_000)
    reached = ((seen.mean() + future) / 2 + MARGIN) * math.sqrt(10) / spread > last.critical
    assert chance == pytest.approx(reached.mean(), abs=0.004)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_books_agree_with_the_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = 0.9 + 0.01 * rng.standard_normal(10)
    differences = rng.uniform(-1.5, 1) * MARGIN + rng.uniform(0.2, 2) * MARGIN * rng.standard_normal(10)
    made = Verification({"a": 1}, rules(3, 10, resolution=STEP), range(10))
    play(made, lambda name, i: reference[i] if name == REFERENCE else reference[i] + differences[i])
    passed, num_seeds = decide(differences, made.rules)
    assert made.verdicts["a"].passed == bool(passed)
    assert made.verdicts["a"].num_seeds == int(num_seeds)


# ------------------------------------------------------------------------------------------------ the sequence


def test_order_is_cost_descending_and_ties_by_name() -> None:
    assert verification({"z": 5, "b": 7, "a": 5, "c": 9}).order == ("c", "b", "a", "z")


def test_cheaper_candidates_are_run_only_after_the_dearer_passed() -> None:
    made = verification({"a": 3, "b": 2, "c": 1})
    asked = play(made, steady({"b": -0.03}))
    assert set(asked[0]) == {(name, seed) for name in (REFERENCE, "a") for seed in range(5)}
    assert set(asked[1]) == {("b", seed) for seed in range(5)}
    assert len(asked) == 2
    assert made.winner == "a"
    assert made.finished
    assert [made.verdicts[name].passed for name in made.order] == [True, False, None]
    assert made.verdicts["c"].reason == "not tested: b, dearer, failed"
    assert made.verdicts["b"].shortfall == pytest.approx(-MARGIN - made.verdicts["b"].lower_bound)


def test_all_pass_and_the_cheapest_wins() -> None:
    made = verification({"a": 3, "b": 2, "c": 1})
    play(made, steady({}))
    assert made.winner == "c"
    assert made.finished


def open_at_first_look(name: str, seed: int) -> float:
    """A difference whose first 5 seeds are too spread to pass, and whose next 5 are calm."""
    difference = (-0.012, 0.009, -0.008, 0.012, 0.0, 0.004, 0.003, 0.002, 0.003, 0.004)[seed]
    return 0.9 + difference * (name != REFERENCE)


def test_more_seeds_are_asked_only_where_the_verdict_is_open() -> None:
    made = verification({"a": 1}, resolution=1e-4)
    _, second = play(made, open_at_first_look)
    assert set(second) == {(name, seed) for name in (REFERENCE, "a") for seed in range(5, 10)}
    assert made.verdicts["a"].passed
    assert made.verdicts["a"].num_seeds == 10
    assert made.verdicts["a"].alpha_spent == pytest.approx(0.04)


def test_an_open_verdict_says_how_many_seeds_would_do() -> None:
    made = verification({"a": 2, "b": 1})
    for name, seed in made.needed():
        made.record(name, seed, open_at_first_look(name, seed))
    verdict = made.verdicts["a"]
    sigma = float(np.std([-0.012, 0.009, -0.008, 0.012, 0.0], ddof=1))
    assert verdict.passed is None
    assert verdict.seeds_needed == required_seeds(made.rules, sigma)
    assert verdict.reason.startswith("open: missed by 0.00")
    assert verdict.reason.endswith("with 5 seeds; up to 10 seeds may be used")
    assert made.verdicts["b"].reason == "not tested: a, dearer, is still open"
    assert not made.finished


def test_a_failure_says_how_many_seeds_would_do() -> None:
    made = verification({"a": 1}, max_seeds=5)
    play(made, open_at_first_look)
    verdict = made.verdicts["a"]
    assert verdict.passed is False
    assert verdict.seeds_needed == required_seeds(made.rules, verdict.spread, spent=made.alpha_spent)
    assert verdict.reason.endswith(
        f"with 5 seeds; with this spread a policy that equals the reference would need {verdict.seeds_needed} seeds"
    )


def test_reference_runs_already_there_are_not_asked_again() -> None:
    made = verification({"a": 1})
    for seed in range(5):
        made.record(REFERENCE, seed, 0.9)
    assert made.needed() == tuple(("a", seed) for seed in range(5))


def test_a_policy_equal_run_by_run_passes() -> None:
    for resolution in (0.0, STEP):
        made = verification({"a": 1}, resolution=resolution)
        play(made, lambda name, seed: 0.9 + 0.001 * seed)
        assert made.winner == "a"


@given(st.floats(0.02, 1.0), st.floats(1e-6, 0.02), st.booleans(), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_exactly_at_the_margin_without_spread_never_passes(
    metric: float, margin: float, higher: bool, seeds: int
) -> None:
    made = Verification({"a": 1}, rules(seeds, 2 * seeds, margin=margin, higher_is_better=higher), range(2 * seeds))
    play(made, lambda name, seed: metric if name == REFERENCE else metric + (-margin if higher else margin))
    assert made.finished
    assert made.winner is None


def test_lower_is_better_mirrors_higher_is_better() -> None:
    metric = steady({"a": -0.002, "b": -0.02})
    up, down = verification(), verification(higher_is_better=False)
    play(up, metric)
    play(down, lambda name, seed: -metric(name, seed))
    assert up.verdicts == down.verdicts
    assert up.winner == "a"


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_recording_does_not_matter(random: object) -> None:
    metric = steady({"b": -0.006}, sigma=0.006)
    runs = [(name, seed) for name in (REFERENCE, "a", "b") for seed in range(10)]
    straight, shuffled = verification(), verification()
    for name, seed in runs:
        straight.record(name, seed, metric(name, seed))
    random.shuffle(runs)  # type: ignore[attr-defined]
    for name, seed in runs:
        shuffled.record(name, seed, metric(name, seed))
    assert straight.verdicts == shuffled.verdicts


def test_no_candidates_is_finished_at_once() -> None:
    made = Verification({}, rules(), range(10))
    assert made.finished
    assert made.needed() == ()
    assert made.winner is None


# ---------------------------------------------------------------------------------------- diverged runs and errors


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_run_fails_for_good(bad: float) -> None:
    made = verification()
    made.record("a", 3, bad)
    verdict = made.verdicts["a"]
    assert verdict.passed is False
    assert verdict.reason == "diverged with seed 3, which counts as a failure"
    assert verdict.lower_bound == -math.inf
    assert made.needed() == ()
    assert made.finished
    assert made.winner is None
    made.record("a", 3, math.nan)
    with pytest.raises(StudyError, match=r"metric of a with seed 3 must be nan, as recorded before, got 0.9\."):
        made.record("a", 3, 0.9)


def test_a_diverged_run_takes_back_a_pass() -> None:
    made = verification({"a": 1})
    play(made, steady({}))
    assert made.winner == "a"
    made.record("a", 9, math.nan)
    assert made.winner is None


def test_a_diverged_reference_lets_nothing_pass() -> None:
    made = verification()
    made.record(REFERENCE, 0, math.nan)
    assert made.verdicts["a"].reason == "the reference diverged with seed 0, which counts as a failure"
    assert made.finished
    assert made.winner is None


def test_recording_twice_is_once() -> None:
    made = verification()
    made.record("a", 0, 0.9)
    before = made.to_mapping()
    made.record("a", 0, 0.9)
    assert made.to_mapping() == before
    with pytest.raises(StudyError, match=r"metric of a with seed 0 must be 0.9, as recorded before, got 0.8\. The two"):
        made.record("a", 0, 0.8)


def test_unknown_names_and_seeds_list_the_known() -> None:
    made = verification(seeds=2, max_seeds=2)
    with pytest.raises(ConfigError, match=r"name must be one of reference, a, b, got 'c'\."):
        made.record("c", 0, 0.9)
    with pytest.raises(ConfigError, match=r"seed must be one of 0, 1, got 7\."):
        made.record("a", 7, 0.9)


def test_impossible_set_ups_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"seeds must be 10 different numbers \(max_seeds\), got \[0, 1\]\."):
        Verification({"a": 1}, rules(), [0, 1])
    with pytest.raises(ConfigError, match="name of a candidate must be another, got 'reference'"):
        Verification({REFERENCE: 1}, rules(), range(10))
    with pytest.raises(ConfigError, match="name of a control must be no candidate's and not 'reference', got 'a'"):
        verification().add_control("a")


# ------------------------------------------------------------------------------------------------------- controls


def test_a_control_is_tested_but_never_wins() -> None:
    made = verification({"a": 1})
    play(made, steady({}))
    made.add_control("random")
    made.add_control("random")
    assert made.controls == ("random",)
    assert not made.finished
    assert made.needed() == tuple(("random", seed) for seed in range(5))
    play(made, steady({}))
    assert made.verdicts["random"].passed
    assert made.winner == "a"
    assert made.finished


def test_a_control_takes_the_seeds_of_the_winner_and_none_of_the_reference() -> None:
    made = verification({"a": 1}, resolution=1e-4)
    play(made, open_at_first_look)
    made.add_control("random")
    assert made.needed() == tuple(("random", seed) for seed in range(10))
    play(made, open_at_first_look)
    assert made.verdicts["random"].num_seeds == 10
    assert made.verdicts["random"].p_value == made.verdicts["a"].p_value


def test_a_control_without_a_winner_takes_the_first_look() -> None:
    made = Verification({"a": 1}, rules(), range(10), controls=["random"])
    play(made, steady({"a": -0.05, "random": -0.05}))
    assert made.finished
    assert made.verdicts["random"].num_seeds == 5
    assert made.verdicts["random"].passed is False


# ------------------------------------------------------------------------------------------ resume and extension


def halves(made: Verification, metric: Callable[[str, int], float]) -> Iterator[Verification]:
    """The verification after each single run, restored from JSON each time."""
    while batch := made.needed():
        name, seed = batch[0]
        made.record(name, seed, metric(name, seed))
        made = Verification.from_mapping(json.loads(json.dumps(made.to_mapping(), allow_nan=False)))
        yield made


def test_a_resumed_verification_ends_like_an_uninterrupted_one() -> None:
    metric = steady({"b": -0.006}, sigma=0.004)
    straight = verification({"a": 3, "b": 2, "c": 1})
    play(straight, metric)
    *_, resumed = halves(verification({"a": 3, "b": 2, "c": 1}), metric)
    assert resumed.to_mapping()["verdicts"] == straight.to_mapping()["verdicts"]
    assert resumed.alpha_spent == straight.alpha_spent


def test_everything_survives_the_round_trip() -> None:
    made = Verification({"a": 3, "b": 2}, rules(), range(10, 20), controls=["random"], spent=0.04)
    play(made, lambda name, seed: math.nan if (name, seed) == ("b", 12) else 0.9)
    restored = Verification.from_mapping(json.loads(json.dumps(made.to_mapping(), allow_nan=False)))
    assert restored.to_mapping() == made.to_mapping()
    assert restored.verdicts["b"].passed is False


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 9}, "version of the verification must be 1, got 9."),
        ({"winner": "b"}, "recorded winner must be 'a', as its runs say, got 'b'. Restore a copy."),
        ({"runs": [{"name": "x", "seed": 0, "metric": 1.0}]}, "The recorded verification is damaged: name must be one"),
        ({"rules": {"margin": 1.0}}, "The recorded verification is damaged: "),
        ({"spent": 0.06}, "The recorded verification is damaged: spent must be in"),
    ],
)
def test_damage_is_noticed(change: dict[str, object], text: str) -> None:
    made = verification({"a": 1})
    play(made, steady({}))
    with pytest.raises(StudyError) as caught:
        Verification.from_mapping({**made.to_mapping(), **change})
    assert str(caught.value).startswith(text)


def test_an_extension_spends_from_the_same_alpha() -> None:
    first = verification({"a": 1})
    play(first, steady({}))
    extension = Verification({"b": 1}, rules(), range(10), spent=first.alpha_spent)
    play(extension, steady({}))
    assert first.alpha_spent == pytest.approx(0.04)
    assert extension.alpha_spent == pytest.approx(0.048)
    assert extension.verdicts["b"].nominal == pytest.approx(0.004)


# -------------------------------------------------------------------------------------------- words and counting


def test_the_statement_says_what_is_covered_and_what_not() -> None:
    made = verification({"a": 2, "b": 1})
    play(made, steady({"a": -0.002, "b": math.nan}))
    text = statement(made.verdicts["a"], made.rules)
    assert text.startswith(
        "5 runs of a, each paired with a conventional run of the same seed: its mean test metric is "
    )
    assert "below the reference's, and at one-sided level 0.02 no more than " in text
    assert "covers the noise of training" in text
    assert "not the sampling of the test set" in text
    nothing = statement(made.verdicts["b"], made.rules)
    assert nothing == "There is no evidence for b: diverged with seed 0, which counts as a failure"


def test_the_statement_follows_the_direction_of_the_metric() -> None:
    made = verification({"a": 1}, higher_is_better=False)
    play(made, steady({"a": 0.002}))
    text = statement(made.verdicts["a"], made.rules)
    assert " above the reference's, and at one-sided level 0.02 no more than " in text
    assert " above it; 0.01 above it is tolerated." in text


def test_verdict_mapping_has_null_for_what_is_not_finite() -> None:
    mapping = verification().verdicts["a"].to_mapping()
    assert mapping["lower_bound"] is None
    assert mapping["mean_difference"] is None
    assert set(mapping) == set(Verdict.__slots__)


def test_saving_and_break_even() -> None:
    assert saving(25, 100) == 0.75
    assert saving(120, 100) == pytest.approx(-0.2)
    assert break_even(1000, 100, 60) == 25
    assert break_even(1001, 100, 60) == 26
    assert break_even(0, 100, 60) == 0
    assert break_even(1000, 100, 100) is None


@given(st.integers(0, 10**18), st.integers(1, 10**16), st.integers(0, 10**16))
def test_break_even_is_the_first_count_that_repays(tuning: int, reference: int, policy: int) -> None:
    found = break_even(tuning, reference, policy)
    if policy >= reference:
        assert found is None
    else:
        assert found is not None
        assert found * (reference - policy) >= tuning
        assert found == 0 or (found - 1) * (reference - policy) < tuning


def test_it_needs_no_torch_ray_or_optuna() -> None:
    code = (
        "import sys, subsettune.study.verification.verification as _\n"
        "print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
