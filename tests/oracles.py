"""The slow, obvious twin of each fast kernel, in float64. Nothing here is clever, so that it can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# --- selection ------------------------------------------------------------------------------------------------------


def greedy_cover(x: Tensor, k: int, *, first: int) -> list[int]:
    """Gonzalez' greedy: after `first`, always the row farthest from its nearest pick, the lowest index of several."""
    rows = x.double()
    picks = [first]
    while len(picks) < k:
        farthest, distance = -1, -1.0
        for i in range(len(rows)):
            if i in picks:
                continue
            nearest = float((rows[picks] - rows[i]).square().sum(1).min())
            if nearest > distance:
                farthest, distance = i, nearest
        picks.append(farthest)
    return picks


def cover_radius(x: Tensor, picks: Sequence[int]) -> float:
    """Distance of the row that is farthest from its nearest pick."""
    return float(torch.cdist(x.double(), x.double()[list(picks)]).amin(1).max())


def largest_deviation(classes: Sequence[int], counts: Sequence[int]) -> float:
    """Over all prefixes of a sequence of classes: how far a count is from its proportion t * n_c / n, at most."""
    n, worst = sum(counts), 0.0
    for t in range(len(classes) + 1):
        for c, count in enumerate(counts):
            worst = max(worst, abs(classes[:t].count(c) * n - t * count) / n)
    return worst


def largest_remainder(counts: Sequence[int], k: int) -> list[int]:
    """How many of each class are in a proportional sample of `k`: shares rounded down, the rest by remainder."""
    n = sum(counts)
    taken = [k * count // n for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda c: -(k * counts[c] % n))
    for c in by_remainder[: k - sum(taken)]:
        taken[c] += 1
    assert sum(taken) == k
    assert all(math.floor(k * c / n) <= t <= math.ceil(k * c / n) for c, t in zip(counts, taken, strict=True))
    return taken
