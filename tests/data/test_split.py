"""The split: disjoint, complete, proportional by class, the same everywhere, and refused where it cannot be."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subsettune.data.split import check_test_file, divide, quota
from subsettune.errors import DataError
from subsettune.task import Split

SIZES = st.lists(st.integers(3, 60), min_size=1, max_size=8)


def labels(sizes: list[int]) -> torch.Tensor:
    ordered = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return ordered[torch.randperm(len(ordered), generator=torch.Generator().manual_seed(1))]


@given(sizes=SIZES, validation=st.floats(0.01, 0.45), test=st.floats(0.01, 0.45), seed=st.integers(0, 99))
def test_parts_are_disjoint_complete_sorted_and_hold_every_class(
    sizes: list[int], validation: float, test: float, seed: int
) -> None:
    targets = labels(sizes)
    rows = divide(targets, Split(validation=validation, test=test, seed=seed), len(sizes), False)
    assert sorted(torch.cat(list(rows.values())).tolist()) == list(range(len(targets)))
    for part in rows.values():
        assert part.tolist() == sorted(part.tolist())
        assert set(targets[part].tolist()) == set(range(len(sizes)))


@given(sizes=SIZES, share=st.floats(0.01, 0.9))
def test_quota_is_within_one_of_proportional_and_sums_to_the_share(sizes: list[int], share: float) -> None:
    free = [size + 1 for size in sizes]  # nothing capped
    exact = [Fraction(str(share)) * size for size in sizes]
    counts = quota(sizes, share, free)
    raised = sum(1 for count, e in zip(counts, exact, strict=True) if count == 1 and e < 1)
    for count, e in zip(counts, exact, strict=True):
        assert count == 1 if e < 1 else math.floor(e) <= count <= math.ceil(e)
    assert abs(sum(counts) - round(sum(exact))) <= raised


def test_quota_by_hand() -> None:
    # 0.1 of (15, 14, 21) is (1.5, 1.4, 2.1), 5 in all: floors (1, 1, 2) and the one left goes to the remainder 0.5
    assert quota([15, 14, 21], 0.1, [99] * 3) == [2, 1, 2]
    assert quota([10, 10], 0.25, [99] * 2) == [3, 2]  # 5 in all; the tie of the halves goes to the first
    assert quota([100], 0.29, [99]) == [29]  # in binary 0.29 * 100 is below 29


def test_the_drawing_is_pinned() -> None:
    # One seed, one division, on every platform and in every version: other rows would need another split.VERSION.
    rows = divide(torch.arange(20) % 2, Split(validation=0.2, test=0.2, seed=3), 2, False)
    assert rows["test"].tolist() == [3, 6, 7, 12]
    assert rows["validation"].tolist() == [1, 2, 5, 8]


def test_seeds_differ_and_the_test_part_does_not_follow_the_validation_share() -> None:
    targets = labels([50, 50])
    first = divide(targets, Split(validation=0.1, test=0.2, seed=0), 2, False)
    other_seed = divide(targets, Split(validation=0.1, test=0.2, seed=1), 2, False)
    other_share = divide(targets, Split(validation=0.3, test=0.2, seed=0), 2, False)
    assert not torch.equal(first["test"], other_seed["test"])
    assert torch.equal(first["test"], other_share["test"])


def test_regression_is_one_group() -> None:
    rows = divide(torch.randn(50, generator=torch.Generator().manual_seed(0)), Split(validation=0.1), 0, False)
    assert [len(rows[name]) for name in ("train", "validation", "test")] == [35, 5, 10]  # test: null is 0.2


def test_an_official_test_file_leaves_no_test_part_to_draw() -> None:
    assert set(divide(labels([20, 20]), Split(), 2, True)) == {"train", "validation"}
    with pytest.raises(DataError, match=r"split\.test must be null for data that have an official test file, got 0\.2"):
        divide(labels([20, 20]), Split(test=0.2), 2, True)


def test_too_few_examples_of_a_class_names_it_its_count_and_what_is_needed() -> None:
    with pytest.raises(DataError, match=r"class 'cat' must have at least 3 examples, .*got 2\. Add examples"):
        divide(labels([9, 2]), Split(), 2, False, ("dog", "cat"))
    divide(labels([9, 2]), Split(), 2, True, ("dog", "cat"))  # two parts need two
    with pytest.raises(DataError, match="the data must have at least 3 examples"):
        divide(torch.zeros(2), Split(), 0, False)


def test_no_room_to_train_beside_the_default_test_part() -> None:
    with pytest.raises(DataError, match=r"split.validation must be below 0.8 beside a test part of 0.2, got 0.85"):
        divide(labels([50, 50]), Split(validation=0.85), 2, False)


def test_a_class_without_test_examples_is_refused() -> None:
    check_test_file(torch.tensor([0, 1, 1]), ("a", "b"))
    with pytest.raises(DataError, match="class 'b' must have examples in the test file, got none"):
        check_test_file(torch.tensor([0, 0]), ("a", "b"))


def test_the_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    divide(labels([20, 20]), Split(), 2, False)
    assert torch.equal(before, torch.get_rng_state())
