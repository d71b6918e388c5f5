"""The numeric core of facility location: greedy medoids, exact without an n x n matrix, or of sampled candidates.

| symbol | shape | meaning |
|---|---|---|
| n, d, k | int | rows, numbers in a row, picks |
| x | (n, d) float32 | features, finite |
| unit | float | a power of two that no Euclidean distance exceeds |
| distances | (r, n) int32 | distance of some rows from all rows, in units of unit / STEPS |
| nearest | (n,) int32 | distance to the nearest pick; STEPS before the first |
| gains | (n,) int64 | what a pick of a row adds to the objective: sum_i max(0, nearest_i - distances_ij); or TAKEN |
| closer | (n,) int64 | rows that are closer to a row than its nearest pick |
| near | sparse (n, n) | pairs of which one row is closer to the other than the nearest pick: all that gains need |

Distances are rounded to whole numbers, as fine as float32 tells them. So sums of them are exact in any order, gains can
be carried on from pick to pick without drift, ties are ties, and the answer is the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from subsettune.select.kernels.cover import noise, rows_of, squared_norms
from subsettune.select.selectors.facility_location import PAIR_BYTES, PRODUCT_PAIRS, SPARSE, STORE_BYTES

STEPS = 2**23  # of the largest distance: float32 has no finer ones, and 255 of them are summed up in an int32
TIE = 2**4  # steps: where rows are computed again, two rows can differ so much on the distance between them
ROUNDED = 2  # steps: by so much equal distances differ once they are rounded
TAKEN = -(2**62)  # a gain below all others
BLOCK_PAIRS = 2**18  # distances looked at together: 1 MiB, so that they stay in the cache
BLOCK_ROWS = 128  # at most: sums of a block are exact
NEAR = 0.01  # squared distance over squared lengths, below which float32 products are off by more than some 1e-5


def greedy_medoids(x: Tensor, k: int) -> Tensor:
    """Pick `k` rows one by one, each of which brings all rows nearest to their nearest pick, in the sum of distances.

    Greedy maximum of the facility-location function sum_i max_{j in S} (d_max - d_ij), within 1 - 1/e of the best;
    exact but for the rounding of distances. Gains are not measured anew after a pick: only rows to which it
    is nearer than all picks before change them, about n / t of them after t picks. The matrix of distances is kept
    where it fits into `STORE_BYTES`, else rows of it are computed again. Once few pairs matter, these are kept as a
    sparse matrix, and the features are not looked at any more. Among equal gains the row nearest to the mean wins, then
    the lowest index: two rows that only cover each other have equal gains, so that there are ties in all data.

    Cost: with the matrix kept, n^2 (2d+3) FLOPs for distances, of which half are spent for symmetry; else that for
    each of 2 + (1 + 1/2 + ... + 1/t) passes, if pairs are kept from pick t on. Some 6 FLOPs for each row whose nearest
    pick changes, and each row that is compared with it. Memory: up to 1.1 `STORE_BYTES`, 4nd bytes, O(n), blocks.

    Args:
        x: (n, d) float32; one row per example, finite; Euclidean distance in the units of `x`.
        k: number of picks, 1 <= k <= n.

    Returns:
        (k,) int64 row indices on the CPU in order of picking: the first j are the answer for every j <= k.

    Source: Mirzasoleiman, Bilmes & Leskovec 2020, arXiv:1906.01827, eq. 11 and alg. 1; Nemhauser et al. 1978.
    """
    rows = _Rows(x)
    rows.keep_if_small()
    greedy = _Greedy(rows)
    picks = torch.empty(k, dtype=torch.int64)
    near: _Near | None = None
    for t in range(k):
        if near is None and t > 0 and greedy.pairs <= rows.most_pairs():
            near = _Near(rows, greedy)
            rows.matrix = None
        picks[t] = j = greedy.best(rows)
        if near is None:
            greedy.take(rows, j)
        else:
            near.take(greedy, j)
    return picks


def sampled_medoids(x: Tensor, k: int, *, sample: int, rng: torch.Generator) -> Tensor:
    """As `greedy_medoids`, of which each pick is the best of `sample` rows drawn from those left ("lazier than lazy").

    With sample = (n/k) ln(1/e) it is within 1 - 1/e - e of the best, in expectation. The sample does not depend on `k`
    here, so that smaller answers are prefixes. Cost: k n sample (2d + 6) FLOPs. Memory: 4nd bytes, O(n), one block.

    Args:
        x: (n, d) float32, finite.
        k: number of picks, 1 <= k <= n.
        sample: rows looked at for each pick, at least 1; drawn with replacement, or all rows left if they are fewer.
        rng: on the CPU.

    Returns:
        (k,) int64 row indices on the CPU in order of picking.

    Source: Mirzasoleiman et al. 2015, arXiv:1409.7938, alg. 1.
    """
    rows = _Rows(x)
    nearest = torch.full((rows.n,), STEPS, dtype=torch.int32, device=x.device)
    left = torch.arange(rows.n)
    picks = torch.empty(k, dtype=torch.int64)
    for t in range(k):
        drawn = torch.randint(len(left), (sample,), generator=rng)
        places = drawn.unique() if sample < len(left) else torch.arange(len(left))
        best, most, closest = 0, TAKEN, nearest
        for some, distances in rows.blocks(left[places].to(x.device)):
            closer = torch.minimum(distances, nearest)
            gains = -closer.sum(1)
            place = int(gains.argmax())
            if int(gains[place]) > most:
                best, most, closest = int(some[place]), int(gains[place]), closer[place].clone()
        nearest, picks[t] = closest, best
        left = left[left != best]
    return picks


class _Rows:
    """Rows of the matrix of distances, kept or computed when asked for."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.n = x, len(x)
        self.origin = torch.stack([block.double().sum(0) for block in x.split(rows_of(x))]).sum(0) / self.n
        norms = squared_norms(x, self.origin)
        longest = math.sqrt(float(norms.max()))
        self.unit = 2.0 ** math.ceil(math.log2(2 * longest)) if longest > 0 else 1.0
        self.norms = norms / self.unit**2
        self.centered = torch.empty_like(x)
        for start in range(0, self.n, rows_of(x)):
            self.centered[start : start + rows_of(x)] = self._center(x[start : start + rows_of(x)])
        self.matrix: Tensor | None = None
        self.tie = TIE

    def keep_if_small(self) -> None:
        """Compute the whole matrix once, if there is room for it: its upper half, which is the lower one."""
        if 4 * self.n**2 > STORE_BYTES:
            return
        matrix = torch.empty(self.n, self.n, dtype=torch.int32, device=self.x.device)
        for rows in torch.arange(self.n, device=self.x.device).split(self._rows_of(PRODUCT_PAIRS)):
            first, end = int(rows[0]), int(rows[-1]) + 1
            part = self._compute(rows, first)
            matrix[first:end, first:] = part
            matrix[end:, first:end] = part[:, len(rows) :].T
        self.matrix, self.tie = matrix, ROUNDED

    def most_pairs(self) -> int:
        """Pairs from which on they are kept in place of rows: few enough to find room, twice, and to pay."""
        room = STORE_BYTES // PAIR_BYTES // 2
        return room if self.matrix is None else min(room, self.n**2 // SPARSE)

    def blocks(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows, a few at a time: their indices, and (r, n) distances from all rows, which may be written to."""
        for some in rows.split(self._rows_of(PRODUCT_PAIRS)):
            computed = self._compute(some, 0) if self.matrix is None else some
            for part in torch.arange(len(some), device=some.device).split(min(BLOCK_ROWS, self._rows_of(BLOCK_PAIRS))):
                index = some[part]
                first, end = int(part[0]), int(part[-1]) + 1
                yield index, computed[first:end] if self.matrix is None else self.matrix[index]

    def all(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows, a few at a time."""
        return self.blocks(torch.arange(self.n, device=self.x.device))

    def _rows_of(self, pairs: int) -> int:
        return max(1, pairs // self.n)

    def _compute(self, rows: Tensor, first: int) -> Tensor:
        """(r, n - first) distances of some rows from those from `first` on: in float64 where some are near."""
        own, norms = self.norms[rows, None].float(), self.norms[first:].float()
        squared = torch.addmm(norms, self.centered[rows], self.centered[first:].T, alpha=-2).add_(own)
        itself = torch.arange(len(rows), device=rows.device), rows - first
        squared[itself] = math.inf
        if bool(squared.amin() < NEAR * (own.max() + norms.max())) and bool((squared < NEAR * (own + norms)).any()):
            squared = self._squared_exactly(rows, first)
        squared[itself] = 0.0
        return squared.clamp_(min=0.0).sqrt_().mul_(STEPS).round_().int()

    def _center(self, block: Tensor) -> Tensor:
        return (block.double() - self.origin) / self.unit

    def _squared_exactly(self, rows: Tensor, first: int) -> Tensor:
        block, own = self._center(self.x[rows]), self.norms[rows, None]
        squared = torch.empty(len(rows), self.n - first, dtype=torch.float64, device=self.x.device)
        for start in range(first, self.n, rows_of(self.x)):
            stop = min(start + rows_of(self.x), self.n)
            norms = self.norms[start:stop]
            part = torch.addmm(norms, block, self._center(self.x[start:stop]).T, alpha=-2).add_(own)
            drowned = part <= noise(self.x.shape[1]) * (own + norms)
            squared[:, start - first : stop - first] = part.masked_fill_(drowned, 0.0)
        return squared


class _Greedy:
    """Gains of all rows, and what they depend on."""

    def __init__(self, rows: _Rows) -> None:
        device = rows.x.device
        self.nearest = torch.full((rows.n,), STEPS, dtype=torch.int32, device=device)
        self.gains = torch.full((rows.n,), rows.n * STEPS, device=device)
        self.closer = torch.full((rows.n,), rows.n, device=device)
        for _, distances in rows.all():
            self.gains -= distances.sum(0, dtype=torch.int32)

    @property
    def pairs(self) -> int:
        """Upper bound of the pairs that gains depend on."""
        return int(self.closer.sum())

    def best(self, rows: _Rows) -> int:
        """The row of the largest gain; of equal ones, the one nearest to the mean, then the lowest index."""
        return int(torch.where(self.gains >= self.gains.max() - rows.tie, rows.norms, math.inf).argmin())

    def take(self, rows: _Rows, j: int) -> None:
        """Pick a row: update the gains by the rows of distances of those that it is the nearest pick of."""
        (_, found), *_ = rows.blocks(torch.tensor([j], device=rows.x.device))
        after = found[0].clone()
        for some, distances in rows.blocks((after < self.nearest).nonzero().flatten()):
            high, low = self.nearest[some, None], after[some, None]
            self.closer[some] = -((distances - low) >> 31).sum(1)  # -1 where the difference is negative
            left = torch.minimum(distances, high, out=distances).clamp_(min=low)
            self.gains -= high.sum() - left.sum(0, dtype=torch.int32)
        torch.minimum(self.nearest, after, out=self.nearest)
        self.gains[j] = TAKEN


class _Near:
    """The pairs that gains still depend on, as a sparse symmetric matrix by rows."""

    def __init__(self, rows: _Rows, greedy: _Greedy) -> None:
        device, most = rows.x.device, min(2 * greedy.pairs, rows.n**2)
        self.values = torch.empty(most, dtype=torch.int32, device=device)
        self.columns = torch.empty(most, dtype=torch.int32, device=device)
        self.starts, end = torch.zeros(rows.n + 1, dtype=torch.int64, device=device), 0
        gains = torch.zeros_like(greedy.gains)
        for some, distances in rows.all():
            own = greedy.nearest[some, None]
            row, column = (distances < torch.maximum(own, greedy.nearest)).nonzero(as_tuple=True)
            values = distances[row, column]
            self.values[end : end + len(values)] = values
            self.columns[end : end + len(values)] = column
            gains.index_add_(0, column, (own[row, 0] - values).clamp_(min=0).long())
            self.starts[some + 1] = torch.bincount(row, minlength=len(some))
            end += len(values)
        self.starts.cumsum_(0)
        greedy.gains = torch.where(greedy.gains < TAKEN // 2, TAKEN, gains)

    def take(self, greedy: _Greedy, j: int) -> None:
        """Pick a row: as `_Greedy.take`, with the pairs at hand."""
        own = slice(*self.starts[j : j + 2].tolist())
        others, found = self.columns[own].long(), self.values[own]
        is_nearer = found < greedy.nearest[others]
        changed, after = others[is_nearer], found[is_nearer]
        lengths = self.starts[changed + 1] - self.starts[changed]
        sizes = torch.bincount(lengths.cumsum(0) // BLOCK_PAIRS, minlength=1).tolist()  # rows a block, of many pairs
        for some, low, length in zip(changed.split(sizes), after.split(sizes), lengths.split(sizes), strict=True):
            self._update(greedy, some, low, length)
        greedy.nearest[changed] = after
        greedy.gains[j] = TAKEN

    def _update(self, greedy: _Greedy, changed: Tensor, after: Tensor, lengths: Tensor) -> None:
        """Update the gains by the pairs of some rows whose nearest pick changes."""
        which = torch.arange(len(changed), device=lengths.device).repeat_interleave(lengths)
        shift = self.starts[changed] - (lengths.cumsum(0) - lengths)
        pairs = torch.arange(len(which), device=lengths.device) + shift[which]
        high, low = greedy.nearest[changed][which], after[which]
        left = torch.minimum(self.values[pairs], high).clamp_(min=low)
        greedy.gains.index_add_(0, self.columns[pairs].long(), (left - high).long())
