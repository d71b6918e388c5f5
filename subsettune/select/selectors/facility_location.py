"""Facility location: medoids that all examples are near to, each weighted by how many it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from subsettune.config import AT_LEAST_ONE, setting
from subsettune.facts import TaskFacts
from subsettune.select.examples import SelectionContext
from subsettune.select.families import classes
from subsettune.select.families.distance import DistanceSelector
from subsettune.select.families.features import group
from subsettune.select.limits import BLOCK_NUMBERS, MOST_ROWS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STORE_BYTES = 7 * 2**28  # of distances kept: 21,670 rows as a matrix; 50,000 rows as pairs from about the 20th pick on
PRODUCT_PAIRS = 2**22  # distances computed together, by one product of matrices
PAIR_BYTES = 8  # an int32 distance and an int32 index
SPARSE = 48  # one pair in so many: from there on a sparse matrix is faster than a dense one


def _fits(size: int) -> bool:
    """Whether the distances between so many rows are kept as a matrix."""
    return 4 * size**2 <= STORE_BYTES


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FacilityLocation(DistanceSelector):
    """Greedy maximum of F(S) = sum_i max_{j in S} (d_max - d_ij), the function of CRAIG, in each class.

    It minimises the sum of distances to the nearest pick, where k-center minimises the largest. The weight of a pick is
    the number of examples of its class that are nearest to it; examples of a class without a pick count for the nearest
    of all. CRAIG's own features are `gradients`, those by the outputs.

    When: data in clusters, each to be stood for by a weighted example. `method: stochastic` is the affordable one.
    Order of the examples: nothing is drawn with `method: greedy`; samples are drawn by position else.
    Cost: with g examples and q picks in a group, `greedy` is charged g^2 (2d + 3) FLOPs for all distances and 3 g^2 q
    for the gains, which is what plain greedy takes with the matrix at hand; where there is no room for it (more than
    21,670 examples in a group), for 2 + log2(q) such passes. What lazy updates save is not credited, because it is not
    known beforehand. `stochastic` is charged g q s (2d + 6) with samples of s, which is what it does. The weights add
    g q (2d + 3), and 3 g d; a group without a pick is held against all of them. Memory: features, a copy of the largest
    class, and 1.75 GiB of distances at most,
    whatever the size of a group: all g^2 of them only where they fit.
    Network: only where `features` are taken from one.
    Source: Mirzasoleiman, Bilmes & Leskovec 2020, arXiv:1906.01827, eq. 11 and alg. 1, with weights that sum to n;
    `stochastic`: Mirzasoleiman et al. 2015, arXiv:1409.7938, with samples that do not depend on k, so that smaller
    subsets are prefixes.

    Args:
        method: `greedy`, the exact greedy ranking; `stochastic`, the best of a sample for each pick, which is cheaper
            where a subset is a small share of a large group: below 1 / sample of it, or somewhat more without room.
        sample: examples that `stochastic` looks at for each pick. (n/k) ln(1/e) of them come to within 1 - 1/e - e of
            the best.
    """

    name: ClassVar[str] = "facility_location"
    summary: ClassVar[str] = "medoids that all examples of their class are near to, weighted (CRAIG)"
    method: Literal["greedy", "stochastic"] = "greedy"
    sample: int = setting(64, rule=AT_LEAST_ONE)

    @property
    def is_deterministic(self) -> bool:
        """Whether nothing is drawn."""
        return self.method == "greedy"

    def flops(self, facts: TaskFacts, k: int) -> int:
        """The features, the ranking of each group, and the weights."""
        return DistanceSelector.flops(self, facts, k) + self._count_flops(facts, k)

    def weigh_flops(self, facts: TaskFacts, k: int) -> int:
        """The features once more, and the weights."""
        return self.source.flops(facts) + self._count_flops(facts, k)

    def _count_flops(self, facts: TaskFacts, k: int) -> int:
        """Distances of each group from its own picks, or from all where it has none."""
        width = self.source.width(facts)
        pairs = sum(size * (quota or k) for size, quota in self._groups(facts, k))
        return pairs * (2 * width + 3) + 3 * facts.num_examples * width

    def rank_flops(self, size: int, k: int, width: int) -> int:
        """Distances and gains."""
        if self.method == "stochastic":
            return size * k * min(self.sample, size) * (2 * width + 6)
        passes = 1 if _fits(size) else 2 + k.bit_length()
        return passes * size**2 * (2 * width + 3) + 3 * size**2 * k

    def rank_bytes(self, size: int, k: int, width: int) -> int:
        """Distances kept, the centered rows, blocks of products, and O(g)."""
        pairs = 2 * (size**2 // SPARSE) * PAIR_BYTES + 4 * size**2 if _fits(size) else STORE_BYTES
        products = 32 * max(PRODUCT_PAIRS, size) + 24 * max(width, min(MOST_ROWS * width, BLOCK_NUMBERS))
        return (pairs if self.method == "greedy" else 0) + 4 * size * width + products + 100 * size

    def rank(self, x: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """As the kernels do."""
        from subsettune.select.kernels.medoids import greedy_medoids, sampled_medoids

        return greedy_medoids(x, k) if self.method == "greedy" else sampled_medoids(x, k, sample=self.sample, rng=rng)

    def weights(self, x: Tensor, context: SelectionContext, positions: Tensor) -> Tensor:
        """How many examples each pick stands for."""
        import torch

        from subsettune.select.kernels.cover import nearest_pick

        n = context.num_examples
        alone = len(classes.groups(context.facts, self.classes)) == 1
        labels = torch.zeros(n, dtype=torch.int64) if alone else context.targets.cpu()
        chosen = labels[positions]
        counts = torch.zeros(len(positions), dtype=torch.int64)
        for c in labels.unique().tolist():
            members, mine = (labels == c).nonzero().flatten(), (chosen == c).nonzero().flatten()
            mine = mine if len(mine) else torch.arange(len(positions))
            rows = group(x, members)
            counts[mine] += torch.bincount(nearest_pick(rows, x[positions[mine]]).cpu(), minlength=len(mine))
        return counts.float()

    def weigh(self, context: SelectionContext, positions: Tensor) -> Tensor:
        """The weights of a prefix of the ranking."""
        return self.weights(self.source.compute(context), context, positions)
