"""Herding: a subset whose mean follows the mean of all examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune.select.families.distance import DistanceSelector
from subsettune.select.limits import BLOCK_NUMBERS, MOST_ROWS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Herding(DistanceSelector):
    """Herding of each class: with w = mean, pick the largest <w, x> that is left; then w <- w + mean - x.

    After t picks, w / t is the mean of the class less the mean of the picks, but for 1/t of a mean: it is kept short,
    so typical examples come first and the picks balance each other. See `kernels.herd`.

    When: redundant data, where the mean of each class is what counts. Small networks seldom earn back what it costs.
    Order of the examples: nothing is drawn.
    Cost: charged g q (2d + 1) + 4 g d FLOPs for q picks of a group of g examples. Memory: the features and a copy of
    the largest class, O(g) besides.
    Network: only where `features` are taken from one.
    Source: Welling 2009, doi:10.1145/1553374.1553517, eq. 5 and 6; as a selector Chen, Welling & Smola 2010,
    arXiv:1203.3472. We pick without replacement, and from the features as they are, not centered or scaled.
    """

    name: ClassVar[str] = "herding"
    summary: ClassVar[str] = "the mean of the subset follows that of its class; charged about 2 n k d / classes FLOPs"

    @property
    def is_deterministic(self) -> bool:
        """Nothing is drawn."""
        return True

    def rank_flops(self, size: int, k: int, width: int) -> int:
        """A product of all rows with w for each pick; the mean and the norms."""
        return size * k * (2 * width + 1) + 4 * size * width

    def rank_bytes(self, size: int, k: int, width: int) -> int:
        """Products, and rows in float64."""
        return 24 * max(width, min(size * width, MOST_ROWS * width, BLOCK_NUMBERS)) + 60 * size

    def rank(self, x: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """As the kernel does."""
        from subsettune.select.kernels.cover import herd

        return herd(x, k)
