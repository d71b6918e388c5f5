from __future__ import annotations

import oracles
import pytest
import torch
from contracts import ArrayPart, choose, context_of, made_up_part

from subsettune import select
from subsettune.errors import SelectionError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- random -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_is_uniform() -> None:
    part = made_up_part(20)
    hits = torch.zeros(20)
    for seed in range(2000):
        hits[choose(select.make("random"), part, 5, seed=seed).positions] += 1
    # Binomial(2000, 1/4): standard deviation 19.4; 20 positions stay within 4.5 of them
    assert float((hits - 500).abs().max()) < 4.5 * 19.4


def test_random_differs_between_seeds() -> None:
    first, second = (choose(select.make("random"), made_up_part(), 40, seed=seed).positions for seed in (0, 1))
    assert not torch.equal(first, second)


# --- stratified -------------------------------------------------------------------------------------------------------


def test_stratified_counts_of_every_size() -> None:
    part = made_up_part()
    counts = torch.bincount(part.targets).tolist()
    ranking = choose(select.make("stratified"), part, 150).positions
    assert oracles.largest_deviation(part.targets[ranking].tolist(), counts) < 1


@pytest.mark.slow
def test_stratified_is_random_within_a_class() -> None:
    part = ArrayPart(torch.zeros(40, 2), torch.arange(40) % 2)
    hits = torch.zeros(40)
    for seed in range(1000):
        hits[choose(select.make("stratified"), part, 10, seed=seed).positions] += 1
    assert float((hits - 250).abs().max()) < 4.5 * 13.7  # Binomial(1000, 1/4)


def test_stratified_needs_room_for_each_class() -> None:
    with pytest.raises(SelectionError, match=r"^k must be at least the 5 classes for stratified, got 4. Choose"):
        choose(select.make("stratified"), made_up_part(), 4)


# --- kcenter ----------------------------------------------------------------------------------------------------------


def test_kcenter_is_the_oracle_on_raw_inputs() -> None:
    part = made_up_part()
    picks = choose(select.make("kcenter"), part, 40).positions.tolist()
    assert picks == oracles.greedy_cover(part.inputs.flatten(1), 40, first=picks[0])


def test_kcenter_uses_the_features_it_is_given() -> None:
    part = made_up_part()
    features = torch.randn(150, 3, generator=rng(9), dtype=torch.float64)
    picks = select.make("kcenter").select(context_of(part, features), 40, rng=rng()).positions.tolist()
    assert picks == oracles.greedy_cover(features.float(), 40, first=picks[0])


def test_kcenter_first_pick_is_uniform() -> None:
    part = made_up_part(20)
    first = [int(choose(select.make("kcenter"), part, 4, seed=seed).positions[0]) for seed in range(400)]
    assert set(first) == set(range(20))


def test_kcenter_from_the_center() -> None:
    part = ArrayPart(torch.tensor([[0.0], [10.0], [4.9], [3.0]]), torch.tensor([0, 1, 0, 1]))
    picks = choose(select.make("kcenter", {"start": "center"}), part, 3).positions.tolist()
    assert picks == [2, 1, 0]  # the mean is 4.475; then 10 (5.1 away), then 0 (4.9 away)


def test_kcenter_covers_better_than_random() -> None:
    part = made_up_part()
    radius = {
        name: oracles.cover_radius(part.inputs.flatten(1), choose(select.make(name), part, 30).positions.tolist())
        for name in ("kcenter", "random")
    }
    assert radius["kcenter"] < 0.9 * radius["random"]


def test_kcenter_refuses_nan() -> None:
    part = made_up_part()
    part.inputs[3] = torch.nan
    with pytest.raises(SelectionError, match="features must be finite, got NaN or infinity in training example 3"):
        choose(select.make("kcenter"), part, 10)


def test_kcenter_refuses_more_memory_than_it_may_use() -> None:
    with pytest.raises(
        SelectionError,
        match=r"kcenter needs 2.07 MiB of memory for 150 examples of 6 numbers, more than the 0.00102 MiB it may",
    ):
        choose(select.make("kcenter", {"memory_limit_gib": 1e-6}), made_up_part(), 10)
