"""The law by which a score rises with compute: both limits, monotone, and its inverse."""

from __future__ import annotations

import numpy as np
import pytest

from subsettune.study.search.law import Laws, grid

U = np.linspace(-3, 2, 41)


def law(headroom: float, power: float, bend: float) -> Laws:
    one = np.array([[1.0]])
    return Laws(headroom=headroom * one, power=power * one, bend=bend * one, log_prior=np.zeros(1))


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_without_a_bend_it_is_a_power_law_of_the_compute(power: float) -> None:
    expected = 0.02 * (1 - np.exp(U) ** -power) + 0.05 * power * 0.02 * U
    assert law(0.02, power, 0.0).value(U)[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_with_a_whole_bend_it_is_exponential_in_the_compute() -> None:
    expected = 0.01 * (1 - np.exp(-4.0 * (np.exp(U) - 1))) + 0.05 * 4.0 * 0.01 * U
    assert law(0.01, 4.0, 1.0).value(U)[0] == pytest.approx(expected)


def test_every_law_meets_the_target_at_0_and_rises_everywhere() -> None:
    laws = grid(0.01)
    assert laws.value(np.zeros(1)) == pytest.approx(np.zeros((len(laws), 1)))
    assert (np.diff(laws.value(U), axis=1) > 0).all()


def test_the_slope_is_the_derivative() -> None:
    laws, step = grid(0.01), 1e-6
    numeric = (laws.value(U + step) - laws.value(U - step)) / (2 * step)
    assert laws.slope(U) == pytest.approx(numeric, rel=1e-4)


def test_a_place_is_where_its_score_is_reached_and_no_farther_than_the_table() -> None:
    laws = grid(0.01)
    for index in range(0, len(laws), 7):
        one = laws.pick(index)
        assert one.place(one.value(U)[0])[0] == pytest.approx(U, abs=2e-3)
    assert np.abs(laws.place(np.array([-1e9, 1e9]))).max() == pytest.approx(7.0)
