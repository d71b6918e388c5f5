"""The test of a win: against scipy's paired t test, by enumeration of ties, by simulation of its looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.study.verification.noninferiority import spending
from subsettune.study.verification.superiority import compare, pair_floor

LEVEL = 0.04


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(-1, 3))
@settings(max_examples=60, deadline=None)
def test_one_look_is_the_paired_t_test(seed: int, n: int, shift: float) -> None:
    differences = shift + np.random.default_rng(seed).standard_normal(n)
    found = compare(differences, (n,), LEVEL, 1e-12)
    oracle = stats.ttest_1samp(differences, 0.0, alternative="greater")
    assert found.lower_bound == pytest.approx(oracle.confidence_interval(1 - LEVEL).low, rel=1e-6, abs=1e-9)
    assert found.shown == (oracle.pvalue < LEVEL)
    assert (found.num_pairs, found.level) == (n, LEVEL)
    assert found.mean == pytest.approx(differences.mean())


def test_a_second_look_is_asked_for_only_where_it_may_decide() -> None:
    noise = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    clear, hopeless, unclear = 5 + noise, -5 + noise, 0.5 + noise
    assert compare(clear, (5, 10), LEVEL, 1e-12).shown is True
    assert compare(hopeless, (5, 10), LEVEL, 1e-12).shown is False
    assert compare(unclear, (5, 10), LEVEL, 1e-12).shown is None
    assert compare(unclear, (5,), LEVEL, 1e-12).shown is False
    later = compare(np.concatenate([unclear, np.full(5, 1.0)]), (5, 10), LEVEL, 1e-12)
    assert (later.num_pairs, later.shown) == (10, True)
    first, second = spending(LEVEL, (5.0, 10.0))
    assert compare(clear, (5, 10), LEVEL, 1e-12).level == first[1]
    assert later.level == second[1]


def test_the_latest_look_counts_though_an_earlier_one_had_decided() -> None:
    noise = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    looks = np.concatenate([-5 + noise, 8 + 0.1 * noise]), np.concatenate([5 + noise, -8 + noise])
    for differences, was_shown in zip(looks, (False, True), strict=True):
        assert compare(differences[:5], (5, 10), LEVEL, 1e-12).shown is was_shown
        found = compare(differences, (5, 10), LEVEL, 1e-12)
        assert (found.num_pairs, found.shown) == (10, False)
        assert found.mean == pytest.approx(differences.mean())


@pytest.mark.parametrize("looks", [(5,), (5, 10), (5, 16), (3, 8)])
@pytest.mark.parametrize("law", ["normal", "student", "skewed pair", "steps"])
def test_a_placebo_is_shown_to_win_in_at_most_the_level(law: str, looks: tuple[int, ...]) -> None:
    rng, shape = np.random.default_rng(5), (2000, looks[-1])
    drawn = {
        "normal": lambda: rng.standard_normal(shape),
        "student": lambda: rng.standard_t(3, shape),
        "skewed pair": lambda: rng.exponential(size=shape) - rng.exponential(size=shape),
        "steps": lambda: rng.poisson(0.2, shape) - rng.poisson(0.2, shape),
    }[law]()
    floor = pair_floor(1.0 if law == "steps" else 0.0, 1.0)
    count = sum(compare(one.astype(np.float64), looks, LEVEL, floor).shown is True for one in drawn)
    assert count <= stats.binom.isf(1e-6, len(drawn), LEVEL)


def rate_of_neighbours(num_pairs: int, level: float, floor: float) -> float:
    """Worst error rate of one look over all odds of two neighbouring values (step 1), by enumeration."""
    odds = np.arange(0.005, 1, 0.005)[:, None]
    ones = np.arange(num_pairs + 1)
    spread = np.sqrt(ones * (1 - ones / num_pairs) / (num_pairs - 1) + floor**2)
    passes = (ones / num_pairs - odds) * math.sqrt(num_pairs) > stats.t.isf(level, num_pairs - 1) * spread
    return float((stats.binom.pmf(ones, num_pairs, odds) * passes).sum(axis=1).max())


def rate_of_three(num_pairs: int, level: float, floor: float) -> float:
    """Worst error rate over odds of -1, 0 and 1 with mean 0, by enumeration.

    Policy and control take two neighbouring values each, independently or with something in common: one is better by a
    step in at most a quarter of the pairs.
    """
    ups, downs = (x.ravel() for x in np.meshgrid(np.arange(num_pairs + 1), np.arange(num_pairs + 1)))
    ups, downs = ups[ups + downs <= num_pairs], downs[ups + downs <= num_pairs]
    mean = (ups - downs) / num_pairs
    spread = np.sqrt(((ups + downs) - num_pairs * mean**2) / (num_pairs - 1) + floor**2)
    passes = mean * math.sqrt(num_pairs) > stats.t.isf(level, num_pairs - 1) * spread
    counts = np.stack([ups, downs, num_pairs - ups - downs], axis=1)
    odds = np.arange(0.01, 0.2501, 0.01)
    return max(float(stats.multinomial.pmf(counts, num_pairs, [q, q, 1 - 2 * q])[passes].sum()) for q in odds)


@pytest.mark.parametrize("level", [0.1, 0.05, 0.04, 0.02, 0.008, 0.0016])
def test_the_floor_keeps_the_level_for_ties(level: float) -> None:
    floor = pair_floor(1.0, 0.0)
    assert max(rate_of_neighbours(n, level, floor) for n in range(2, 41)) <= level
    assert max(rate_of_three(n, level, floor) for n in range(2, 17)) <= level


def test_why_the_floor_is_needed_and_is_not_smaller() -> None:
    assert rate_of_neighbours(5, LEVEL, 1e-9) > 0.9
    assert rate_of_neighbours(4, 0.1, 0.5) > 0.1


def test_pairs_that_do_not_differ_show_nothing() -> None:
    assert compare(np.zeros(5), (5,), LEVEL, pair_floor(0.0, 0.9)).shown is False
    assert compare(np.full(5, 1e-17), (5,), LEVEL, pair_floor(0.0, 0.9)).shown is False
