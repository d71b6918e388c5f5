"""A Parquet column of lists as arrays: lists of lists, lists of so many numbers, and tensors of one shape.

Token ids may be in lists of several lengths: shorter ones are filled up with 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data import precision
from subsettune.data.layout import arranged, check_ids, stored_type, taken_for
from subsettune.data.raw import Array
from subsettune.data.scratch import allocate
from subsettune.data.text import PADDING
from subsettune.errors import DataError
from subsettune.task import Data

Blocks = Callable[[], Iterator[tuple[int, pa.Array]]]


def depth(kind: pa.DataType) -> int:
    """How many lists lie in each other: 0 of a plain number, the dimensions of a tensor."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return len(kind.shape)
    return 1 + depth(kind.value_type) if _is_list(kind) else 0


def is_shaped(kind: pa.DataType) -> bool:
    """Whether a column has a shape of its own: lists of lists, or tensors."""
    return depth(kind) > 1 or isinstance(kind, pa.FixedShapeTensorType)


def numbers_of(kind: pa.DataType) -> pa.DataType:
    """The type of what lies in the lists."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return kind.value_type
    return numbers_of(kind.value_type) if _is_list(kind) else kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """A column of lists in the stored form.

    Args:
        inputs: (n, ...).
        scaling: how numbers are stored of which float32 would lose what varies.
        taken: what examples were taken for without a layout.
    """

    inputs: Array
    scaling: precision.Scaling
    taken: str


def read_lists(blocks: Blocks, name: str, num_rows: tuple[int, int], data: Data, scratch: Path) -> Lists:
    """A column of lists as examples.

    Args:
        blocks: gives the column from the beginning, block by block, each with the number of its first row.
        name: of the column.
        num_rows: of all files, and of those for training, which come first.
        data: with the layout; lists of lists need one.
        scratch: folder for large arrays.

    Raises:
        DataError: lists are missing, or have several lengths, or do not fit the layout.
    """
    inputs, taken = None, ""
    shortest, longest = _lengths(blocks) if data.layout == "tokens" else (0, 0)
    for row, column in blocks():
        where = f"column {name!r}"
        is_ragged = shortest < longest and depth(column.type) == 1
        found = padded(column, longest, name, row) if is_ragged else as_array(column, name, row)
        if data.layout is None and found.ndim > 2:
            raise DataError(
                f"{where} has examples of shape {found.shape[1:]}, and nothing says what they are. Set data.layout to "
                "image, series (channels, then time) or flat."
            )
        if data.layout == "tokens":
            check_ids(found, where)
        x = arranged(found, data.layout, where, axis=1)
        if inputs is None:
            taken = taken_for(found.shape[1:], found.dtype)
            inputs = allocate((num_rows[0], *x.shape[1:]), stored_type(x.dtype, data.layout), scratch)
        if x.shape[1:] != inputs.shape[1:]:
            raise _ragged(name, inputs.shape[1:], x.shape[1:], row)
        with np.errstate(over="ignore"):  # infinity is found, and refused, with its place
            inputs[row : row + len(x)] = x
    assert inputs is not None, "a file without rows was refused"
    if inputs.dtype != np.float32:
        return Lists(inputs=inputs, scaling=precision.Scaling(), taken=taken)

    def exact() -> Iterator[tuple[int, int, Array]]:
        found = ((row, as_array(column, name, row)) for row, column in blocks())
        return ((row, 0, arranged(x, data.layout, f"column {name!r}", axis=1)) for row, x in found)

    return Lists(inputs=inputs, scaling=precision.kept(inputs, exact, num_rows[1]), taken=taken)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def as_array(column: pa.Array, name: str, row: int) -> Array:
    """(b, ...) of a column whose lists have one length at each depth."""
    _refuse_missing(column, name, row, 1)
    if isinstance(column.type, pa.FixedShapeTensorType):
        found: Array = column.to_numpy_ndarray()
        return found
    shape, values = [len(column)], column
    while _is_list(values.type):
        inner = math.prod(shape[1:])
        _refuse_missing(values, name, row, inner)
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        if (lengths != lengths[0]).any():
            i = int(np.argmax(lengths != lengths[0]))
            raise _ragged(name, int(lengths[0]), int(lengths[i]), row + i // inner)
        shape.append(int(lengths[0]))
        values = values.flatten()
        if shape[-1] == 0:
            raise _empty(name, row)
    if pa.types.is_integer(values.type):  # NumPy would make floats of them; those have NaN, which is refused later
        _refuse_missing(values, name, row, math.prod(shape[1:]))
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _lengths(blocks: Blocks) -> tuple[int, int]:
    """Of the shortest and the longest list of a column; (0, 0) of columns that hold other things."""
    found = [pc.min_max(pc.list_value_length(column)).as_py() for _, column in blocks() if _is_list(column.type)]
    told = [each for each in found if each["max"] is not None]
    return min((each["min"] for each in told), default=0), max((each["max"] for each in told), default=0)


def padded(column: pa.Array, length: int, name: str, row: int) -> Array:
    """(b, length) token ids of lists of several lengths.

    Raises:
        DataError: a list is missing or empty, or the id that they are filled up with stands in it.
    """
    _refuse_missing(column, name, row, 1)
    counts = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (counts == 0).any():
        raise _empty(name, row + int(np.argmin(counts)))
    values, rows = column.flatten(), np.repeat(np.arange(len(column)), counts)
    if values.null_count:
        odd = row + int(rows[np.argmax(values.is_null().to_numpy(zero_copy_only=False))])
        raise DataError(f"lists of column {name!r} must hold numbers, got nothing in row {odd}. Drop such rows.")
    ids = np.asarray(values.to_numpy(zero_copy_only=False))
    check_ids(ids, f"column {name!r}")
    if (ids == PADDING).any():
        odd = row + int(rows[np.argmax(ids == PADDING)])
        raise DataError(
            f"lists of column {name!r} have several lengths, and shorter ones are filled up with {PADDING}, an id in "
            f"row {odd}. Add 1 to all ids, or fill the lists up beforehand."
        )
    found = np.full((len(column), length), PADDING, dtype=ids.dtype)
    found[np.arange(length) < counts[:, None]] = ids
    return found


def _empty(name: str, row: int) -> DataError:
    return DataError(f"lists of column {name!r} must hold numbers, got none (row {row}). Drop such rows.")


def _refuse_missing(values: pa.Array, name: str, row: int, inner: int) -> None:
    if values.null_count:
        i = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"lists of column {name!r} must be whole, got nothing in row {row + i // inner}. Drop such rows."
        )


def _ragged(name: str, first: object, other: object, row: int) -> DataError:
    return DataError(
        f"lists of column {name!r} must have one length, got {first} and {other} (row {row}). Fill them up or cut them."
    )
