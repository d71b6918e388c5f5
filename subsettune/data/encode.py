"""How stored inputs become what a network sees: numbers standardised, categories one-hot, by the training part.

Token ids are numbered anew: words that only other parts hold are unknown.

Symbols: b examples of a batch, c stored columns, m of them numbers, d encoded columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsettune.data.text import PADDING, SPECIAL_WORDS, UNKNOWN

STATISTICS_BYTES = 2**21  # of float64 looked at in one go: fits the cache of a core; 60,000 MNIST images take 0.07 s
PLACES = {3: (2,), 4: (2, 3)}  # axes of series (n, c, t) and images (n, c, h, w) that share a channel's mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalizer:
    """Subtracts a mean and divides by a standard deviation, both of the training part.

    Args:
        mean: float32, broadcastable over a batch: (1, c, 1, 1) for images, (1, c, 1) for series, (1, ...) else; in
            units of stored inputs.
        scale: float32, of the shape of `mean`: 1 / standard deviation, and 1 where the training part is constant.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, inputs: Tensor, rows: Tensor) -> Normalizer:
        """Mean and spread by channel of images and series, else by number, in float64 over `rows` of `inputs`."""
        mean, std = moments(inputs.numpy(), rows.numpy())
        constant = std < np.finfo(np.float32).tiny  # nothing varies, or by less than float32 can tell
        scale = np.where(constant, 1.0, 1.0 / np.where(constant, 1.0, std))
        return cls(mean=float32(mean), scale=float32(scale))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised float32 inputs; those handed in may be overwritten. A product takes less than a quotient."""
        return inputs.float().sub_(self.mean).mul_(self.scale)

    def to(self, device: torch.device) -> Normalizer:
        """The same on another device."""
        return Normalizer(mean=self.mean.to(device), scale=self.scale.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Standardises columns of numbers and turns columns of category codes into one-hot ones, in the columns' order.

    A category that the training part lacks has no column: it becomes zeros. One-hot columns stay 0 and 1.

    Args:
        numeric: (m,) int64 stored columns that hold numbers.
        normalizer: of those, (1, m).
        numeric_places: (m,) int64 encoded columns that they become.
        categorical: (c - m,) int64 stored columns that hold codes.
        starts: (c - m,) int64 where each of them begins in `places` and `present`, which have a row for each code.
        places: int64 encoded column of each code; of a code that has none, the first of its stored column.
        present: float32, 1 for each code that the training part has, else 0.
        width: d.
    """

    numeric: Tensor
    normalizer: Normalizer
    numeric_places: Tensor
    categorical: Tensor
    starts: Tensor
    places: Tensor
    present: Tensor
    width: int

    @classmethod
    def fit(cls, inputs: Tensor, rows: Tensor, num_categories: Sequence[int]) -> Encoder:
        """Statistics of the numbers, and which categories there are, over `rows`.

        Args:
            inputs: (n, c) float32 numbers and codes.
            rows: of the training part.
            num_categories: of each column; 0 of a column of numbers.
        """
        numeric = [j for j, count in enumerate(num_categories) if not count]
        categorical = [j for j, count in enumerate(num_categories) if count]
        numeric_places, places, present, width = [], [], [], 0
        for j, count in enumerate(num_categories):
            if not count:
                numeric_places.append(width)
                width += 1
                continue
            seen = torch.bincount(inputs[:, j].index_select(0, rows).long(), minlength=count) > 0
            places.append(width + (seen.long().cumsum(0) - 1) * seen)
            present.append(seen.float())
            width += int(seen.sum())
        counts = torch.tensor([num_categories[j] for j in categorical])
        whole = Normalizer.fit(inputs, rows)  # of codes too, which is less than a copy of the other columns
        return cls(
            numeric=torch.tensor(numeric, dtype=torch.int64),
            normalizer=Normalizer(mean=whole.mean[:, numeric], scale=whole.scale[:, numeric]),
            numeric_places=torch.tensor(numeric_places, dtype=torch.int64),
            categorical=torch.tensor(categorical),
            starts=counts.cumsum(0) - counts,
            places=torch.cat(places),
            present=torch.cat(present),
            width=width,
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """(b, d) float32 of (b, c) stored inputs."""
        codes = inputs.index_select(1, self.categorical).long().add_(self.starts)
        flat = codes.flatten()  # for `index_select`, which is faster than `[]`
        places, present = (table.index_select(0, flat).view_as(codes) for table in (self.places, self.present))
        encoded = inputs.new_zeros(len(inputs), self.width)
        encoded.scatter_(1, places, present)  # columns have places of their own: none is written twice
        return encoded.index_copy_(1, self.numeric_places, self.normalizer(inputs.index_select(1, self.numeric)))

    def to(self, device: torch.device) -> Encoder:
        """The same on another device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "width"}
        return Encoder(width=self.width, **{name: value.to(device) for name, value in moved.items()})


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Gives token ids as networks look them up: of the words of the training part; all others are one unknown word.

    Args:
        numbers: (ids,) int64 what each stored id becomes.
        length: tokens of the longest text of the training part: at places beyond it nothing is learnt.
        size: ids that there are, padding and unknown included.
    """

    numbers: Tensor
    length: int
    size: int

    @classmethod
    def fit(cls, inputs: Tensor, rows: Tensor, num_stored: int, most: int | None) -> TokenIds:
        """Number the words of the training part by how often they stand in it, the most frequent first.

        Args:
            inputs: (n_all, t) int32 stored ids.
            rows: (n,) int64 rows of the training part.
            num_stored: ids that there are in `inputs`.
            most: words that keep an id of their own; of equally frequent ones those with the least stored id. None
                keeps every stored id, as of bytes.
        """
        counts, length = torch.zeros(num_stored, dtype=torch.int64), 1
        for some in rows.split(max(1, STATISTICS_BYTES // (8 * inputs[0].numel()))):
            block = inputs.index_select(0, some)
            counts += torch.bincount(block.flatten(), minlength=num_stored)
            length = max(length, int((block != PADDING).sum(dim=1).max()))
        if most is None:
            return cls(torch.arange(num_stored), length, num_stored)
        own = counts[SPECIAL_WORDS:]
        kept = own.argsort(descending=True, stable=True)[: min(most, int((own > 0).sum()))]
        numbers = torch.full((num_stored,), UNKNOWN)
        numbers[PADDING] = PADDING
        numbers[kept + SPECIAL_WORDS] = torch.arange(len(kept)) + SPECIAL_WORDS
        return cls(numbers, length, len(kept) + SPECIAL_WORDS)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(b, length) int64 of (b, t) int32 stored ids."""
        cut = inputs[:, : self.length]
        return self.numbers.index_select(0, cut.flatten()).view_as(cut)

    def to(self, device: torch.device) -> TokenIds:
        """The same on another device."""
        return TokenIds(self.numbers.to(device), self.length, self.size)


def moments(array: np.ndarray[Any, Any], chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of inputs, by channel of images and series, else by number.

    NumPy sums in one order whatever the number of threads, so that every process gets the same bits.

    Args:
        array: (n_all, ...) numbers.
        chosen: (n,) rows that count, at least one.

    Returns:
        Both broadcastable over a batch, as `Normalizer.mean` is.
    """
    places = PLACES.get(array.ndim, ())
    axes = (0, *places)
    corner = array[chosen[0]][(slice(None), *[slice(1)] * len(places))]
    shift = corner[None].astype(np.float64)  # near the data, so that squares lose no digits; of constants exact
    first, second = np.zeros_like(shift), np.zeros_like(shift)
    block = max(1, STATISTICS_BYTES // (8 * max(1, array[0].size)))
    for start in range(0, len(chosen), block):
        values = array[chosen[start : start + block]] - shift
        first += values.sum(axis=axes, keepdims=True)
        values *= values
        second += values.sum(axis=axes, keepdims=True)
    count = len(chosen) * array[0].size // shift.size
    variance = np.maximum(second / count - (first / count) ** 2, 0.0)
    return shift + first / count, np.sqrt(variance)


def float32(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    """Numbers of float64 as a float32 tensor."""
    return torch.from_numpy(values.astype(np.float32))
