"""Missing numbers of columns, filled by the median of the training part; a column beside says where.

They are NaN in the cache, since the parts are not known there, and are filled when a task's parts are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from subsettune.data.raw import Array
from subsettune.errors import DataError

BLOCK_ROWS = 2**16


def fill_missing(inputs: Array, places: Sequence[tuple[int, str]], rows: Array) -> None:
    """Fill NaN in place by the median of some rows.

    Args:
        inputs: (n, c) float32, written where a number is missing and nowhere else.
        places: stored columns with missing numbers, and their names.
        rows: (n_train,) of the training part.

    Raises:
        DataError: a column has no number there.
    """
    for place, name in places:
        known = inputs[rows, place]
        known = known[~np.isnan(known)]
        if not len(known):
            raise DataError(
                f"column {name!r} must have a number in the training part to be filled with their median, got none. "
                f"Leave it out: data.exclude: [{name}]."
            )
        _fill(inputs, place, np.float32(np.median(known.astype(np.float64))))


def filled_copy(inputs: Array, places: Sequence[tuple[int, str]], num_train: int) -> Array:
    """Inputs as looks at them take them, filled by the training file; the same array where nothing is missing."""
    if not places:
        return inputs
    assert inputs.ndim == 2, "columns alone are filled"
    made = inputs.copy()
    for place, _ in places:
        known = made[:num_train, place]
        known = known[~np.isnan(known)]
        _fill(made, place, np.float32(np.median(known)) if len(known) else np.float32(0))
    return made


def fill_tensor(inputs: Tensor, places: Sequence[tuple[int, str]], rows: Tensor) -> None:
    """The same of mapped tensors, which are private to this process: what is written never reaches the file."""
    fill_missing(inputs.numpy(), places, rows.numpy())


def _fill(inputs: Array, place: int, value: np.float32) -> None:
    for start in range(0, len(inputs), BLOCK_ROWS):
        column = inputs[start : start + BLOCK_ROWS, place]
        missing = np.isnan(column)
        if missing.any():  # pages without one are not touched
            column[missing] = value
