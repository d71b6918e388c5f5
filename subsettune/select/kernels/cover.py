"""The numeric core of selection: pure functions of tensors, without classes, options or randomness.

| symbol | shape | meaning |
|---|---|---|
| n, d | int | rows, and numbers in a row |
| k | int | picks |
| x | (n, d) float32 | features, finite |
| bound | (n,) float64 | squared distance to the nearest pick looked at so far: an upper bound; -1 once picked |
| tops | (blocks,) float64 | largest bound of each block of rows |
| seen | (blocks,) int | picks that a block's bounds take into account |
| w | (d,) float64 | what the mean of the rows is ahead of the picks so far, summed over these |

Distances are |x|^2 + |c|^2 - 2 x.c in float64, of rows from which the first pick was subtracted. Differences of float32
numbers and their products are exact in float64, whole numbers stay whole, and a large common offset is gone; the error
is some 1e-16 |x|^2. What falls below it counts as distance 0, so that duplicates tie.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from subsettune.select.limits import BLOCK_NUMBERS, BLOCK_ROWS, MOST_ROWS, PENDING_PICKS

EPSILON = torch.finfo(torch.float64).eps


def greedy_cover(x: Tensor, k: int, *, first: int) -> Tensor:
    """Pick `k` rows so that the row farthest from the picks is as near as possible.

    Greedy 2-approximation of k-center. Not k-means: it bounds the worst distance, not the mean. Exact, but lazy: a
    row's distance to the picks only falls, so a block of rows is measured against new picks when its bound is the
    largest, many picks at a time by one matrix product; each pair is looked at once at most. Among equal distances the
    lowest index wins; duplicates of picks come last, in order.

    Cost: at most n (k-1) (2d+3) + 3nd FLOPs in float64, O(n) extra memory.

    Args:
        x: (n, d) float32; one row per example, finite; Euclidean distance in the units of `x`.
        k: number of picks, 1 <= k <= n.
        first: row of the first pick.

    Returns:
        (k,) int64 row indices on the CPU in order of picking: the first j are the answer for every j <= k.

    Source: Gonzalez 1985; Sener & Savarese 2018, arXiv:1708.00489, alg. 1.
    """
    n = len(x)
    origin = x[first].double()
    norms = squared_norms(x, origin) if k > 1 else x.new_zeros(n, dtype=torch.float64)
    blocks = -(-n // BLOCK_ROWS)
    bound = torch.full((blocks * BLOCK_ROWS,), -1.0, dtype=torch.float64, device=x.device)
    bound[:n] = math.inf
    grid = bound.view(blocks, BLOCK_ROWS)
    tops, seen = grid.amax(1), [0] * blocks
    picks = torch.empty(k, dtype=torch.int64)
    picks[0] = first
    for t in range(1, k):
        last = int(picks[t - 1])
        bound[last] = -1.0
        tops[last // BLOCK_ROWS] = grid[last // BLOCK_ROWS].amax()
        while seen[block := int(tops.argmax())] < t:
            rows = slice(block * BLOCK_ROWS, min(n, (block + 1) * BLOCK_ROWS))
            pending = picks[seen[block] : t].to(x.device)
            bound[rows] = torch.minimum(bound[rows], _nearest(x, origin, norms, rows, pending))
            tops[block], seen[block] = grid[block].amax(), t
        picks[t] = block * BLOCK_ROWS + int(grid[block].argmax())
    return picks


def _nearest(x: Tensor, origin: Tensor, norms: Tensor, rows: slice, picks: Tensor) -> Tensor:
    """(b,) squared distance of each row of a block to the nearest of some picks; 0 where it drowns in rounding."""
    block, own = x[rows].double() - origin, norms[rows]
    nearest = torch.full_like(own, math.inf)
    for some in picks.split(PENDING_PICKS):
        products = torch.addmm(norms[some], block, (x[some].double() - origin).T, alpha=-2)
        nearest = torch.minimum(nearest, products.amin(1))
    squared = nearest + own
    return torch.where(squared > noise(x.shape[1]) * own, squared, 0.0)


def noise(d: int) -> float:
    """Relative rounding error of float64 products of `d` numbers: 4 times that measured on duplicates, d to 50,000."""
    return 8 * EPSILON * math.sqrt(d)


def rows_of(x: Tensor) -> int:
    """Rows of (n, d) `x` that are cast to float64 at a time."""
    return max(1, min(MOST_ROWS, BLOCK_NUMBERS // x.shape[1]))


def squared_norms(x: Tensor, origin: Tensor) -> Tensor:
    """(n,) float64 squared distances of the rows of (n, d) `x` from `origin` (d,), a few rows at a time."""
    return torch.cat([(block.double() - origin).square().sum(1) for block in x.split(rows_of(x))])


def nearest_to_mean(x: Tensor) -> int:
    """Index of the row of (n, d) `x` nearest to the mean row, the lowest of several. Cost: 4nd FLOPs, float64."""
    mean = torch.stack([block.double().sum(0) for block in x.split(rows_of(x))]).sum(0) / len(x)
    return int(squared_norms(x, mean).argmin())


def nearest_pick(x: Tensor, picks: Tensor) -> Tensor:
    """Which of some picks each row is nearest to; the first of several, also where picks are duplicates.

    Cost: n k (2d+3) + 3nd FLOPs in float64, O(n) extra memory.

    Args:
        x: (n, d) float32, finite.
        picks: (k, d) float32 rows, k >= 1.

    Returns:
        (n,) int64 places in `picks`, on the device of `x`.
    """
    origin = picks[0].double()
    return torch.cat([_place_of_nearest(block.double() - origin, picks, origin) for block in x.split(BLOCK_ROWS)])


def _place_of_nearest(block: Tensor, picks: Tensor, origin: Tensor) -> Tensor:
    """(b,) place of the nearest pick of each row of a block in float64, relative to an origin."""
    own = block.square().sum(1, keepdim=True)
    nearest = torch.full_like(own[:, 0], math.inf)
    place = torch.zeros_like(nearest, dtype=torch.int64)
    for number, some in enumerate(picks.split(PENDING_PICKS)):
        others = some.double() - origin
        squared = torch.addmm(others.square().sum(1), block, others.T, alpha=-2).add_(own)
        found, where = squared.masked_fill_(squared <= noise(picks.shape[1]) * own, 0.0).min(1)
        place = torch.where(found < nearest, where + number * PENDING_PICKS, place)
        nearest = torch.minimum(nearest, found)
    return place


def herd(x: Tensor, k: int) -> Tensor:
    """Pick `k` rows one by one so that the mean of the picks follows the mean of all rows.

    With w = mean, pick the row of the largest <w, x> that is left, and let w <- w + mean - x. Exact: products in
    float32 find the rows that can be the largest, those of these few in float64 decide. Among equal products, up to
    what rounding leaves open, the lowest index wins.

    Cost: k n (2d+1) + 4nd FLOPs, O(n) extra memory, and a block of rows in float64.

    Args:
        x: (n, d) float32, finite. Not centered: the lengths and the origin of the rows matter.
        k: number of picks, 1 <= k <= n.

    Returns:
        (k,) int64 row indices on the CPU in order of picking: the first j are the answer for every j <= k.

    Source: Welling 2009, doi:10.1145/1553374.1553517, eq. 5 and 6; without replacement as in Chen et al. 2010.
    """
    mean = torch.stack([block.double().sum(0) for block in x.split(rows_of(x))]).sum(0) / len(x)
    longest = squared_norms(x, torch.zeros_like(mean)).max().sqrt()
    rough_error = (x.shape[1] + 2) * torch.finfo(torch.float32).eps * longest  # of <w, x> / |w|: any order of summing
    left = torch.zeros(len(x), device=x.device)  # -inf once picked
    picks = torch.empty(k, dtype=torch.int64)
    w = mean.clone()
    for t in range(k):
        length = w.norm().clamp(min=torch.finfo(torch.float64).tiny)
        direction = w / length
        # w is a sum of t terms, each rounded: nothing is left of it where picks of opposite rows take it back to 0.
        error = noise(x.shape[1]) * longest * (1 + t * longest / length)
        rough = torch.mv(x, direction.float()) + left
        able = ((rough >= rough.max() - 2 * rough_error - error) & (left == 0)).nonzero().flatten()
        products = torch.cat([x[some].double() @ direction for some in able.split(rows_of(x))])
        best = able[(products >= products.max() - error).int().argmax()]
        picks[t] = best
        left[best] = -math.inf
        w += mean - x[best].double()
    return picks
