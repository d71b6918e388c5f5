"""What every source gives: plain arrays, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.errors import DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Examples as they were read.

    Args:
        inputs: (n, *shape), uint8 or float32; the training file's rows first.
        labels: (n,) integers, texts or floats, or (n, m) floats.
        num_train: rows of the training file.
        classes: names of the classes 0, 1, ... where the source knows them.
        columns: names of the inputs, where they are numeric columns.
    """

    inputs: Array
    labels: Array
    num_train: int
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def checked(raw: Raw, kind: str) -> tuple[Array, Array, tuple[str, ...]]:
    """Check what was read and turn labels into targets.

    Returns:
        inputs (n, *shape) uint8 or float32, C-contiguous; targets (n,) int64, or float32 for a regression; class names.

    Raises:
        DataError: there are too few rows, numbers that are not finite, or labels that do not make classes.
    """
    if len(raw.inputs) != len(raw.labels):
        raise DataError(
            f"inputs and labels must be as many, got {len(raw.inputs)} and {len(raw.labels)}. Mend the data."
        )
    if raw.num_train < 2:
        raise DataError(f"data must have at least 2 examples to train on, got {raw.num_train}. Add examples.")
    inputs = raw.inputs if raw.inputs.dtype == np.uint8 else np.ascontiguousarray(raw.inputs, dtype=np.float32)
    if inputs.dtype != np.uint8:
        _refuse_not_finite(inputs, raw.columns)
    if kind == "regression":
        return inputs, _values(raw.labels), ()
    return inputs, *_classes(raw)


def _refuse_not_finite(inputs: Array, columns: tuple[str, ...]) -> None:
    block = 65_536
    for start in range(0, len(inputs), block):
        finite = np.isfinite(inputs[start : start + block].reshape(len(inputs[start : start + block]), -1))
        if finite.all():
            continue
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        name = repr(columns[column]) if columns else str(column)
        raise DataError(
            f"features must be finite, got NaN or infinity in column {name}, row {start + row}. Fill or drop it."
        )


def _values(labels: Array) -> Array:
    if labels.dtype.kind not in "fiub":
        raise DataError(f"labels of a regression must be numbers, got {labels.dtype}. Choose a classification metric.")
    values = labels.astype(np.float32)
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise DataError(f"labels must be finite, got NaN or infinity in row {int(np.argmin(finite))}. Drop such rows.")
    return values


def _classes(raw: Raw) -> tuple[Array, tuple[str, ...]]:
    labels = raw.labels
    if labels.ndim != 1:
        raise DataError(
            f"labels of a classification must be one per example, got shape {labels.shape}. Use class numbers."
        )
    if labels.dtype.kind in "OUST":
        names, numbers = np.unique(labels.astype(str), return_inverse=True)
        return _populated(numbers.astype(np.int64), tuple(str(name) for name in names))
    if labels.dtype.kind == "f" and not np.all(labels == np.floor(labels)):
        bad = labels[~(labels == np.floor(labels))][0]
        raise DataError(f"labels of a classification must be whole numbers, got {bad}. For numbers choose metric mse.")
    numbers = labels.astype(np.int64)
    if numbers.min() < 0:
        raise DataError(f"labels must be 0 or more, got {int(numbers.min())}. Number the classes 0, 1, 2, ...")
    return _populated(numbers, raw.classes)


def _populated(numbers: Array, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """Refuse gaps and a single class; name the classes."""
    num_classes = max(int(numbers.max()) + 1, len(names))
    counts = np.bincount(numbers, minlength=min(num_classes, 10**6))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        raise DataError(
            f"labels must have at least 2 classes, got only {int(present[0])}. There is nothing to tell apart."
        )
    if len(present) < num_classes:
        gap = int(np.flatnonzero(counts == 0)[0]) if (counts == 0).any() else len(counts)
        raise DataError(f"labels must use every class from 0 to {num_classes - 1}, got none of {gap}. Renumber them.")
    return numbers, names or tuple(str(i) for i in range(num_classes))
