"""Masks of workers and averages of what they kept, against slow twins."""

from __future__ import annotations

from math import prod
from typing import Any

import oracles
import pytest
import torch
from torch import Tensor, nn

from subsettune.train.soup import masks

pytestmark = pytest.mark.usefixtures("untouched_random_state")
LENET = {"a": (300, 784), "b": (100, 300), "c": (10, 100)}
CONV = {"stem": (16, 1, 3, 3), "middle": (32, 16, 3, 3), "head": (10, 32)}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- how many entries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [LENET, CONV], ids=["linear", "convolutions"])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5, 0.9, 0.999])
def test_counts_are_the_densities_of_the_twin(shapes: dict[str, tuple[int, ...]], density: float) -> None:
    counts = masks.erk_counts(shapes, density)
    densities = dict(zip(shapes, oracles.erk_densities(list(shapes.values()), density), strict=True))
    for name, shape in shapes.items():
        assert abs(counts[name] - densities[name] * prod(shape)) <= 0.5 + 1e-6
    assert abs(sum(counts.values()) - density * sum(map(prod, shapes.values()))) <= len(shapes) / 2 + 1e-6


def test_counts_by_hand() -> None:
    # 10 % of 266,200 = 26,620 over sums 1,084 + 400 + 110; the last layer would get 1,837 of its 1,000, and keeps all:
    # 25,620 are left for 1,484.
    assert masks.erk_counts(LENET, 0.1) == {"a": round(1084 * 25620 / 1484), "b": round(400 * 25620 / 1484), "c": 1000}
    assert masks.erk_counts(LENET, 1.0) == {"a": 235200, "b": 30000, "c": 1000}
    assert masks.erk_counts(LENET, 1e-9) == {"a": 1, "b": 1, "c": 1}
    assert masks.erk_counts({}, 0.5) == {}


class Mixed(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.frozen = nn.Linear(4, 4)
        self.frozen.weight.requires_grad_(False)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Conv1d(4, 5, 3)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.table.weight


def test_matrices_and_kernels_are_masked_and_tables_biases_and_frozen_ones_are_not() -> None:
    with torch.random.fork_rng(devices=[]):
        network = Mixed()
    assert list(masks.maskable(network)) == ["inner.weight"]
    assert masks.maskable(network)["inner.weight"] is network.inner.weight


# --- which entries ----------------------------------------------------------------------------------------------------


def test_random_masks_keep_so_many_evenly() -> None:
    drawn = torch.stack([masks.random_mask((5, 4), 6, rng(seed)) for seed in range(2000)])
    assert drawn.flatten(1).sum(1).tolist() == [6] * 2000
    shares = drawn.double().mean(0)  # each is 0.3 +- 0.010
    assert float((shares - 0.3).abs().max()) < 0.05
    assert torch.equal(masks.random_mask((5, 4), 6, rng(3)), drawn[3])


def test_largest_masks_keep_the_largest() -> None:
    scores = torch.tensor([[0.5, 3.0, 1.0], [2.0, 0.1, 0.0]])
    kept = masks.largest_mask(scores, 3, rng())
    assert kept.tolist() == [[False, True, True], [True, False, False]]


def test_equal_scores_are_kept_by_draw() -> None:
    scores = torch.zeros(100)
    scores[60:] = 1.0
    first, second = (masks.largest_mask(scores, 70, rng(seed)) for seed in (0, 1))
    for kept in (first, second):
        assert int(kept.sum()) == 70
        assert bool(kept[60:].all())
    assert not torch.equal(first, second)
    assert int(first[:30].sum()) not in (0, 30)  # not the first ones, nor the last


# --- averages ---------------------------------------------------------------------------------------------------------


def workers(seed: int, shape: tuple[int, ...] = (4, 3), count: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.randn(count, *shape, generator=rng(seed)) * 1000
    kept = torch.rand(count, *shape, generator=rng(seed + 1)) < 0.25
    return values, kept, torch.randn(shape, generator=rng(seed + 2))


@pytest.mark.parametrize("seed", range(5))
def test_averages_are_those_of_the_twin(seed: int) -> None:
    values, kept, uncovered = workers(seed)
    assert not kept.any(0).all()  # the case of a transition that nobody kept is among them
    expected = oracles.merged(list(values), list(kept), uncovered)
    assert torch.equal(masks.average(values, kept, uncovered), expected.float())


def test_without_masks_everybody_counts() -> None:
    values, _, uncovered = workers(7)
    everything = torch.ones_like(values, dtype=torch.bool)
    expected = oracles.merged(list(values), list(everything), uncovered)
    assert torch.equal(masks.average(values, None, uncovered), expected.float())
    assert torch.equal(masks.average(values, everything, uncovered), expected.float())


def test_equal_values_stay_what_they_are() -> None:
    value = torch.randn(50, generator=rng())
    for count in (2, 3, 7, 10):
        assert torch.equal(masks.average(torch.stack([value] * count), None, value), value)


@pytest.mark.parametrize(
    ("kept", "coverage"),
    [
        ({}, 1.0),
        ({"a": [[True, False, False], [True, True, False]]}, 2 / 3),
        ({"a": [[True, False], [False, False]], "b": [[False], [True]]}, 2 / 3),
    ],
)
def test_coverage(kept: dict[str, Any], coverage: float) -> None:
    assert masks.coverage({name: torch.tensor(mask) for name, mask in kept.items()}) == coverage
