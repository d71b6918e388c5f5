"""Classes in proportion, against largest remainder and against the definition."""

from __future__ import annotations

from collections.abc import Sequence

import oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune.select.families.proportions import proportional_ranking

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(lambda counts: sum(counts) > 0)


def ranking(counts: Sequence[int], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    classes, before = proportional_ranking(counts, k)
    return torch.tensor(classes), torch.tensor(before)


@settings(max_examples=200, deadline=None)
@given(COUNTS)
def test_every_prefix_is_in_proportion(counts: list[int]) -> None:
    n = sum(counts)
    classes, before = ranking(counts, n)
    assert oracles.largest_deviation(classes.tolist(), counts) < 1
    assert torch.bincount(classes, minlength=len(counts)).tolist() == counts
    for c, count in enumerate(counts):
        assert before[classes == c].tolist() == list(range(count))


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.data())
def test_a_prefix_is_the_ranking_of_fewer(counts: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, sum(counts)))
    assert torch.equal(ranking(counts, k)[0], ranking(counts, sum(counts))[0][:k])


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.data())
def test_counts_are_within_1_of_largest_remainder(counts: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, sum(counts)))
    ours = torch.bincount(ranking(counts, k)[0], minlength=len(counts)).tolist()
    assert all(abs(a - b) <= 1 for a, b in zip(ours, oracles.largest_remainder(counts, k), strict=True))


def test_extreme_proportions() -> None:
    counts = [1, 1, 1, 997]
    classes = ranking(counts, 1000)[0].tolist()
    assert oracles.largest_deviation(classes, counts) < 1


def test_equal_classes_take_turns() -> None:
    classes = ranking([20] * 5, 100)[0]
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in classes.view(20, 5).tolist())
