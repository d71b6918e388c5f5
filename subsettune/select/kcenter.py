"""k-center: a subset that leaves no example far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from subsettune import config
from subsettune.config import POSITIVE, setting
from subsettune.policy import TaskFacts
from subsettune.select.base import BLOCK_ROWS, PENDING_PICKS, SelectionContext, Selector, Subset

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KCenter(Selector):
    """Greedy 2-approximation of k-center on features given or raw inputs: each pick is the example farthest from all.

    It covers the space, outliers first; it knows nothing of labels. See `kernels.greedy_cover`.

    Nested: yes. Order of the examples: with `start: center` a permutation of the examples permutes the answer (ties
    aside); with `start: random` the first pick is drawn by position, and the rest follows from it.
    Cost: charged as plain greedy, 2 d n k FLOPs for products and 3 n k for the distances, 3 d n for norms; what is
    saved by looking at fewer pairs is not credited, because it is not known beforehand. Memory: one n x d float32
    matrix (none where features are given as float32), O(n) besides; never n x n.
    Source: Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener & Savarese 2018, arXiv:1708.00489, alg. 1.

    Args:
        start: the first pick: `random`, drawn uniformly, or `center`, the example nearest to the mean.
        memory_limit_gib: refuse to start where more memory would be needed.
    """

    name: ClassVar[str] = "kcenter"
    summary: ClassVar[str] = "greedy cover: no example far from the subset; charged about 2 n k d FLOPs"
    start: Literal["random", "center"] = "random"
    memory_limit_gib: float = setting(4.0, rule=POSITIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def memory_limit_bytes(self) -> int:
        """As the option says."""
        return int(self.memory_limit_gib * 2**30)

    def flops(self, facts: TaskFacts, k: int) -> int:
        """(2d + 3) for each pair of an example and a pick, and 3d for each norm; `center`: 4d more for each example."""
        n, d = facts.num_examples, facts.num_features
        start = 4 * n * d if self.start == "center" else 0
        return n * (k - 1) * (2 * d + 3) + 3 * n * d + start if k > 1 else start

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """The matrix, norms and bounds, and one block's product in float64."""
        n, d = facts.num_examples, facts.num_features
        block = 8 * (BLOCK_ROWS * d + PENDING_PICKS * d + BLOCK_ROWS * PENDING_PICKS)
        return 4 * n * d + 24 * n + block

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Draw or find the first pick, then cover."""
        import torch

        from subsettune.select.kernels import greedy_cover, nearest_to_mean

        x = context.matrix()
        first = nearest_to_mean(x) if self.start == "center" else int(torch.randint(len(x), (1,), generator=rng))
        return Subset(positions=greedy_cover(x, k, first=first))
