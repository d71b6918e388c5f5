from __future__ import annotations

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune.select.kernels.cover import greedy_cover, herd, nearest_pick, nearest_to_mean

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(lambda counts: sum(counts) > 0)


def made_up(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# --- greedy cover -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (7, 3, 7), (255, 2, 60), (256, 5, 60), (700, 8, 120)])
def test_cover_is_the_oracle(n: int, d: int, k: int) -> None:
    x = made_up(n, d)
    assert greedy_cover(x, k, first=n // 2).tolist() == oracles.greedy_cover(x, k, first=n // 2)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e3, 1e15])
def test_cover_is_the_oracle_at_any_scale(scale: float) -> None:
    x = made_up(300, 6) * scale
    assert greedy_cover(x, 80, first=0).tolist() == oracles.greedy_cover(x, 80, first=0)


def test_cover_with_an_offset_that_float32_would_drown_in() -> None:
    x = made_up(300, 6) + 10_000.0  # squared lengths of 6e8 against squared distances of order 1
    assert greedy_cover(x, 80, first=0).tolist() == oracles.greedy_cover(x, 80, first=0)


def test_cover_of_tight_clusters_far_apart() -> None:
    centers = made_up(10, 4, seed=1) * 1e4
    x = centers.repeat(30, 1) + made_up(300, 4, seed=2) * 0.1
    assert greedy_cover(x, 100, first=0).tolist() == oracles.greedy_cover(x, 100, first=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_go_to_the_lowest_index(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    cells = data.draw(st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=n, max_size=n))
    x = torch.tensor(cells, dtype=torch.float32)  # a coarse grid: ties and duplicates everywhere
    first = data.draw(st.integers(0, n - 1))
    assert greedy_cover(x, n, first=first).tolist() == oracles.greedy_cover(x, n, first=first)


def test_duplicates_come_last_in_order() -> None:
    x = made_up(20, 300).repeat(3, 1) / 3
    picks = greedy_cover(x, 60, first=5).tolist()
    assert sorted(picks[:20]) == list(range(20))
    assert picks[20:] == list(range(20, 60))


def test_smaller_covers_are_prefixes() -> None:
    x = made_up(1000, 16)
    longest = greedy_cover(x, 400, first=3)
    assert all(torch.equal(greedy_cover(x, k, first=3), longest[:k]) for k in (1, 2, 3, 10, 257, 399))


def test_more_pending_picks_than_one_product_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    x = made_up(600, 4)
    expected = greedy_cover(x, 300, first=0)
    monkeypatch.setattr("subsettune.select.kernels.cover.PENDING_PICKS", 7)
    assert torch.equal(greedy_cover(x, 300, first=0), expected)


def test_cover_is_within_twice_the_best_radius() -> None:
    # 3 picks on a line of 0..10: the best centers 1, 5, 9 leave nobody farther than 2 (11 points, 3 balls)
    x = torch.arange(11.0)[:, None]
    assert oracles.cover_radius(x, greedy_cover(x, 3, first=0).tolist()) <= 2 * 2


def test_cover_leaves_its_input_alone() -> None:
    x = made_up(50, 3)
    before = x.clone()
    greedy_cover(x, 20, first=0)
    assert torch.equal(x, before)


def test_nearest_to_mean() -> None:
    x = torch.tensor([[0.0, 0.0], [4.0, 4.0], [2.0, 1.0], [2.0, 3.0]])  # mean (2, 2): rows 2 and 3 tie
    assert nearest_to_mean(x) == 2


# --- nearest pick -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (300, 3, 20), (513, 40, 300)])
def test_nearest_pick_is_the_oracle(n: int, d: int, k: int) -> None:
    x, picks = made_up(n, d) + 100.0, made_up(k, d, seed=1) + 100.0
    assert nearest_pick(x, picks).tolist() == oracles.nearest_pick(x, picks)


def test_the_first_of_equal_picks_has_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subsettune.select.kernels.cover.PENDING_PICKS", 3)
    picks = made_up(5, 300).repeat(3, 1) / 3
    assert nearest_pick(picks, picks).tolist() == [0, 1, 2, 3, 4] * 3


# --- herding ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_herding_is_the_oracle_with_ties_and_duplicates(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 25))
    cells = data.draw(st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=n, max_size=n))
    x = torch.tensor(cells, dtype=torch.float32)
    assert herd(x, n).tolist() == oracles.herding(x, n)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_herding_is_the_oracle_at_any_scale(scale: float) -> None:
    whole = (made_up(200, 9) * 1000).round()
    power = 2.0 ** round(math.log2(scale))  # exact: the products keep their order
    assert herd(whole * power, 120).tolist() == oracles.herding(whole, 120)


def test_herding_where_float32_cannot_tell_the_rows() -> None:
    x = (made_up(60, 3) * 10).round() + 200_000.0  # products of 1e11 that differ by 1e6
    assert herd(x, 60).tolist() == oracles.herding(x, 60)


def test_herding_of_identical_rows_goes_by_index() -> None:
    assert herd(torch.full((40, 3), 0.1), 40).tolist() == list(range(40))
    assert herd(torch.zeros(10, 2), 10).tolist() == list(range(10))


def test_the_mean_of_the_herd_is_nearer_than_random_ones() -> None:
    x = made_up(1000, 8)

    def error(picks: torch.Tensor) -> float:
        return float((x[picks].double().mean(0) - x.double().mean(0)).norm())

    others = [error(torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:100]) for seed in range(20)]
    assert error(herd(x, 100)) < 0.2 * min(others)


def test_smaller_herds_are_prefixes() -> None:
    x = made_up(500, 6)
    longest = herd(x, 500)
    assert sorted(longest.tolist()) == list(range(500))
    assert all(torch.equal(herd(x, k), longest[:k]) for k in (1, 2, 77, 499))
