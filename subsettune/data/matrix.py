"""Rows of numbers that are in memory already, as the data of a task: all are trained on, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsettune.data.encode import STATISTICS_BYTES, Normalizer, moments
from subsettune.data.in_hand import whole
from subsettune.data.parts import Part, TaskData, with_target_scale
from subsettune.data.precision import NOISE, targets
from subsettune.data.raw import Array
from subsettune.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standardizer:
    """Subtracts a mean and divides by a spread, those of the training part, as columns of tables are standardised.

    Columns of 0 and 1 alone stay as they are, like the one-hot columns of tables: a rare category would become a number
    far from the others. In float64, so that what varies on a large offset is kept; what comes out is float32.

    Args:
        mean: (d,) float64; 0 of columns of 0 and 1.
        scale: (d,) float64: 1 / standard deviation, and 1 where the training part is constant, or 0 and 1.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, x: Array) -> Standardizer:
        """Of (n, d) finite numbers.

        Raises:
            DataError: their squares are no numbers of float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = (found[0] for found in moments(x, np.arange(len(x))))
        if not np.isfinite(std).all():
            column = int(np.flatnonzero(~np.isfinite(std))[0])
            raise DataError(f"column {column} must have a spread below 1e150, got a larger one. Choose another unit.")
        constant = std <= np.maximum(np.finfo(np.float64).tiny, NOISE * np.abs(mean))
        is_one_hot = np.ones(x.shape[1], bool)
        for some in _blocks(x):
            is_one_hot &= ((some == 0) | (some == 1)).all(axis=0)
        scale = np.where(constant | is_one_hot, 1.0, 1.0 / np.where(constant, 1.0, std))
        return cls(mean=np.where(is_one_hot, 0.0, mean), scale=scale)

    def __call__(self, x: Array) -> Tensor:
        """(n, d) float32 of (n, d) numbers."""
        found = np.empty(x.shape, np.float32)
        with np.errstate(over="ignore"):  # a row far outside of what was seen in training
            for some, place in zip(_blocks(x), _blocks(found), strict=True):
                place[...] = (some - self.mean) * self.scale
        return torch.from_numpy(found)


def _blocks(x: Array) -> Iterator[Array]:
    """Rows of (n, d) numbers in turn, so many that they fit the cache of a core."""
    step = max(1, STATISTICS_BYTES // (8 * max(1, x.shape[1])))
    return (x[start : start + step] for start in range(0, len(x), step))


def part_of(inputs: Tensor, labels: Tensor) -> Part:
    """Rows that are standardised already, as a part of a task's data.

    Args:
        inputs: (n, d) float32.
        labels: (n,) int64 classes, or (n,) or (n, m) values.
    """
    same = Normalizer(mean=torch.zeros(1, inputs.shape[1]), scale=torch.ones(1, inputs.shape[1]))
    return Part(inputs, labels, torch.arange(len(inputs)), same)


def task_data(inputs: Tensor, labels: Array, class_names: tuple[str, ...]) -> TaskData:
    """The data of a task of which no part is held out, for runs that measure nothing.

    Args:
        inputs: (n, d) float32, standardised.
        labels: (n,) int64 places in `class_names`; (n,) or (n, m) values of a regression.
        class_names: empty for a regression.

    Raises:
        DataError: values vary in digits that float64 does not hold.
    """
    told = torch.from_numpy(labels.astype(np.int64) if class_names else targets(labels, len(labels)))
    kind = "classification" if class_names else "regression"
    data = whole(part_of(inputs, told), told, kind=kind, class_names=class_names)
    return data if class_names else with_target_scale(data)
