"""Rows judged together: intervals in closed form, the step-down against its slow twin, and how often it errs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from subsettune.study.ablation.judge import Interval, interval, p_value, step_down
from subsettune.study.results.ablation import ABLATION_LEVEL
from subsettune.study.verification.superiority import pair_floor

Array = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, int], Array]
T_90 = {2: math.tan(0.45 * math.pi), 3: 0.9 * math.sqrt(2 / (1 - 0.9**2))}  # closed forms, by number of seeds
STEP = 1 / 359  # of an accuracy on as many examples


def _ends(found: Interval) -> tuple[float, float]:
    return found.lower, found.upper


@pytest.mark.parametrize("n", [2, 3])
def test_the_interval_is_student_s_in_closed_form(n: int) -> None:
    differences = np.arange(1.0, n + 1)
    half = T_90[n] * differences.std(ddof=1) / math.sqrt(n)
    expected = (differences.mean() - half, differences.mean() + half)
    assert _ends(interval(differences, 0.0)) == pytest.approx(expected, rel=1e-12)


def test_interval_and_p_value_agree_with_scipy_s_test_of_one_sample() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10):
        differences = rng.normal(0.01, 0.02, n)
        test = stats.ttest_1samp(differences, 0)
        assert p_value(differences, 0.0) == pytest.approx(test.pvalue, rel=1e-9)
        for level in (0.9, 0.95, 1 - 0.1 / 3):
            known = test.confidence_interval(level)
            assert _ends(interval(differences, 0.0, level)) == pytest.approx((known.low, known.high), rel=1e-9)


def test_equal_differences_are_not_certain_where_the_metric_has_steps() -> None:
    half = T_90[3] * 0.02 / math.sqrt(3)
    assert _ends(interval(np.full(3, 0.25), 0.02)) == pytest.approx((0.25 - half, 0.25 + half), rel=1e-12)
    assert 0 < p_value(np.full(3, 0.25), 0.02) < 0.01


def test_what_is_always_0_differs_from_nothing_and_what_is_always_1_does() -> None:
    nothing, one = np.zeros(3), np.ones(3)
    assert [p_value(each, 0.0) for each in (nothing, one)] == [1.0, 0.0]
    assert [each.verdict for each in step_down([(nothing, 0.0), (one, 0.0)])] == ["no_difference", "paid"]


def test_no_row_is_no_table() -> None:
    assert step_down([]) == ()


# --- the step-down ----------------------------------------------------------------------------------------------------


def _holm(samples: Sequence[Array]) -> list[bool]:
    """Which means differ from 0, by adjusted p-values (Holm 1979), the obvious way."""
    p = [float(stats.ttest_1samp(each, 0).pvalue) for each in samples]
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = {index: max((len(p) - j) * p[order[j]] for j in range(place + 1)) for place, index in enumerate(order)}
    return [adjusted[index] < 1 - ABLATION_LEVEL for index in range(len(p))]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 6])
def test_the_words_are_those_of_holm_and_the_interval_says_the_same(num_rows: int) -> None:
    rng, seen = np.random.default_rng(num_rows), set[int]()
    for _ in range(200):
        samples = [rng.normal(0.5 * rng.integers(-2, 3), 1, 5) for _ in range(num_rows)]
        found = step_down([(each, 0.0) for each in samples])
        differs = _holm(samples)
        assert [each.verdict != "no_difference" for each in found] == differs
        for sample, each in zip(samples, found, strict=True):
            assert _ends(each) == _ends(interval(sample, 0.0, each.level))
            assert each.verdict == ("paid" if each.lower > 0 else "not_paid" if each.upper < 0 else "no_difference")
        steps = sorted(round(0.1 / (1 - each.level)) for each in found)
        last = max(1, num_rows - sum(differs))  # of those that fail
        assert steps == sorted([*range(num_rows, num_rows - sum(differs), -1), *[last] * (num_rows - sum(differs))])
        seen.add(sum(differs))
    assert seen >= {0, 1}


def test_a_row_behind_one_that_failed_is_not_judged_by_a_milder_step() -> None:
    """p-values of 0.06, 0.07 and 0.08: none is below a third of 0.1, though each is below 0.1."""
    n = 5
    samples = [_with_p_value(p, n) for p in (0.08, 0.06, 0.07)]
    assert [p_value(each, 0.0) for each in samples] == pytest.approx([0.08, 0.06, 0.07])
    found = step_down([(each, 0.0) for each in samples])
    assert {each.verdict for each in found} == {"no_difference"}
    assert [each.level for each in found] == pytest.approx([1 - 0.1 / 3] * 3)
    found = step_down([(_with_p_value(p, n), 0.0) for p in (0.08, 0.01, 0.04)])  # below 0.1 / 3, 0.1 / 2 and 0.1
    assert [each.verdict for each in found] == ["paid"] * 3
    assert [each.level for each in found] == pytest.approx([0.9, 1 - 0.1 / 3, 0.95])


def _with_p_value(p: float, n: int) -> Array:
    centred = np.arange(n) - (n - 1) / 2
    return np.asarray(centred + stats.t.isf(p / 2, n - 1) * centred.std(ddof=1) / math.sqrt(n))


# --- how often it errs ------------------------------------------------------------------------------------------------


TABLES = 2000
ONE_IN_TEN = 1 - ABLATION_LEVEL


def _normal(rng: np.random.Generator, n: int) -> Array:
    return 0.95 + 0.01 * rng.standard_normal(n)


def _tied(rng: np.random.Generator, n: int) -> Array:
    """An accuracy: four of five runs are on one of two steps."""
    return np.asarray(rng.binomial(359, 0.998, n) * STEP)


def _skewed(rng: np.random.Generator, n: int) -> Array:
    return 0.97 - 0.01 * rng.exponential(size=n)


def _failing(rng: np.random.Generator, n: int) -> Array:
    """One run in ten goes wrong."""
    return 0.95 + 0.004 * rng.standard_normal(n) - 0.2 * (rng.random(n) < 0.1)


def _family(rng: np.random.Generator, draw: Draw, n: int, *, is_shared: bool) -> list[tuple[Array, float]]:
    """Three components that equal their baselines, which may be one."""
    one = draw(rng, n)
    floor = pair_floor(STEP, 1.0)
    return [(draw(rng, n) - (one if is_shared else draw(rng, n)), floor) for _ in range(3)]


def _interval_of(count: int) -> tuple[float, float]:
    """Of the share of tables, exact (Clopper & Pearson 1934), at 99 %."""
    found = stats.binomtest(count, TABLES).proportion_ci(0.99)
    return float(found.low), float(found.high)


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("draw", [_normal, _tied, _skewed, _failing])
def test_of_components_that_change_nothing_one_table_in_ten_says_that_one_does(
    draw: Draw, n: int, is_shared: bool
) -> None:
    rng = np.random.default_rng(n)
    tables = [step_down(_family(rng, draw, n, is_shared=is_shared)) for _ in range(TABLES)]
    assert _interval_of(sum(any(row.verdict != "no_difference" for row in table) for table in tables))[0] <= ONE_IN_TEN
    for word in ("paid", "not_paid"):
        assert _interval_of(sum(any(row.verdict == word for row in table) for table in tables))[0] <= ONE_IN_TEN / 2


def _two_ways(rng: np.random.Generator, n: int) -> Array:
    """Half of the runs are 0.1 worse."""
    return np.asarray(0.95 - 0.1 * (rng.random(n) < 0.5))


def _narrow(rng: np.random.Generator, n: int) -> Array:
    """Of the mean that `_skewed` has."""
    return 0.96 + 0.001 * rng.standard_normal(n)


@pytest.mark.parametrize(
    ("draw", "of_baseline", "n", "share"),
    [(_two_ways, _two_ways, 2, 0.32), (_two_ways, _two_ways, 8, 0.15), (_skewed, _narrow, 8, 0.22)],
)
def test_where_it_errs_more_often_and_by_how_much(draw: Draw, of_baseline: Draw, n: int, share: float) -> None:
    rng, floor, wrong = np.random.default_rng(n), pair_floor(STEP, 1.0), 0
    for _ in range(TABLES):
        found = step_down([(draw(rng, n) - of_baseline(rng, n), floor) for _ in range(3)])
        wrong += any(row.verdict != "no_difference" for row in found)
    low, high = _interval_of(wrong)
    assert low <= share <= high


@pytest.mark.parametrize("num_real", [0, 1])
def test_without_ties_it_errs_as_often_as_computed(num_real: int) -> None:
    """Of k rows without a difference some is said to have one in 1 - (1 - 0.1 / k)^k of tables, beside others, too."""
    rng, k, wrong = np.random.default_rng(7), 3 - num_real, 0
    for _ in range(TABLES):
        samples = [(rng.standard_normal(8) + 100 * (row < num_real), 0.0) for row in range(3)]
        found = step_down(samples)
        assert all(row.verdict == "paid" for row in found[:num_real])
        wrong += any(row.verdict != "no_difference" for row in found[num_real:])
    low, high = _interval_of(wrong)
    assert low <= 1 - (1 - ONE_IN_TEN / k) ** k <= high
