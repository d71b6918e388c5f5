"""k-center: a subset that leaves no example far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from subsettune.select.families.classes import Balance
from subsettune.select.families.distance import DistanceSelector
from subsettune.select.limits import BLOCK_NUMBERS, BLOCK_ROWS, MOST_ROWS, PENDING_PICKS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KCenter(DistanceSelector):
    """Greedy 2-approximation of k-center: each pick is the example farthest from all picks.

    It covers the space, outliers first; by default it knows nothing of labels. See `kernels.greedy_cover`.

    When: redundant data, where every region must be covered. On small networks it seldom earns back what it costs.
    Order of the examples: with `start: center` nothing is drawn; with `start: random` the first pick of a group is
    drawn by position, and the rest follows from it.
    Cost: charged as plain greedy: with q picks of a group of g examples, 2 d g q FLOPs for products and 3 g q for the
    distances, 3 d g for norms; what is saved by looking at fewer pairs is not credited, because it is not known
    beforehand. Memory: the features, a copy of the largest group where there are several, and O(g); never n x n.
    Network: only where `features` are taken from one; Sener & Savarese take its last layer.
    Source: Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener & Savarese 2018, arXiv:1708.00489, alg. 1.

    Args:
        start: the first pick of a group: `random`, drawn uniformly, or `center`, the example nearest to the mean.
        classes: as for all, but `none` by default: all examples are covered together.
    """

    name: ClassVar[str] = "kcenter"
    summary: ClassVar[str] = "greedy cover: no example far from the subset; charged about 2 n k d FLOPs"
    start: Literal["random", "center"] = "random"
    classes: Balance = "none"

    @property
    def is_deterministic(self) -> bool:
        """Whether the first pick is not drawn."""
        return self.start == "center"

    def rank_flops(self, size: int, k: int, width: int) -> int:
        """(2d + 3) for each pair of an example and a pick, and 3d for each norm; `center`: 4d more for each example."""
        start = 4 * size * width if self.start == "center" else 0
        return size * (k - 1) * (2 * width + 3) + 3 * size * width + start if k > 1 else start

    def rank_bytes(self, size: int, k: int, width: int) -> int:
        """Norms and bounds, and one block's product in float64."""
        block = 8 * (BLOCK_ROWS * width + PENDING_PICKS * width + BLOCK_ROWS * PENDING_PICKS)
        return 24 * size + max(block, 16 * max(width, min(size * width, MOST_ROWS * width, BLOCK_NUMBERS)))

    def rank(self, x: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """Draw or find the first pick, then cover."""
        import torch

        from subsettune.select.kernels.cover import greedy_cover, nearest_to_mean

        first = nearest_to_mean(x) if self.start == "center" else int(torch.randint(len(x), (1,), generator=rng))
        return greedy_cover(x, k, first=first)
