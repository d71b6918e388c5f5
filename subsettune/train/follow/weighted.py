"""Weights that travel with their examples, through loaders with workers and hosts that fetch ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from subsettune.errors import DataError

KEY = "weight"


class WeightedRow(int):
    """The row of an example, which any dataset takes, and the factor of its loss."""

    weight: float

    def __new__(cls, row: int, weight: float) -> WeightedRow:
        """A row with its weight."""
        made = super().__new__(cls, row)
        made.weight = weight
        return made

    def __reduce__(self) -> tuple[type[WeightedRow], tuple[int, float]]:
        return WeightedRow, (int(self), self.weight)


class Weighted(Dataset[Any]):
    """A dataset whose examples bring a float32 factor of their loss: the last of a tuple, or `weight` of a mapping.

    Args:
        dataset: map-style.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        return _with(self.dataset[int(row)], row)

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """A batch at once, where the dataset reads them so."""
        numbers = [int(row) for row in rows]
        batched = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[number] for number in numbers] if batched is None else batched(numbers)
        return [_with(item, row) for item, row in zip(items, rows, strict=True)]


def _with(item: Any, row: int) -> Any:
    weight = np.float32(getattr(row, "weight", 1.0))
    if isinstance(item, Mapping):
        if KEY in item:
            raise DataError(f"examples must have no key {KEY!r} of their own, got {', '.join(item)}. Rename it.")
        return {**item, KEY: weight}
    return (*item, weight) if isinstance(item, tuple | list) else (item, weight)
