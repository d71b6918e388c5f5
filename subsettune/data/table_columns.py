"""Input columns of a table: what each becomes in the stored array, and how it is read into it.

A column of numbers becomes one stored column, and two where numbers are missing and filled (the number, and whether it
was there); a list becomes several; a date, the seconds and its places on circles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.categories import codes
from subsettune.data.dates import on_circles, parts_of
from subsettune.data.parquet_files import File, flat_numbers, is_list, row_batches
from subsettune.data.raw import Array, Categories
from subsettune.data.scratch import allocate

NUMBER_ROWS = 8192  # read in one go
MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Stored columns that come from one column of the files.

    Args:
        name: of the column of the files.
        width: numbers in each list of a column of lists, else None.
        categories: their names; empty for numbers.
        is_missing: whether it says where the column has no number.
        cycles: of dates, whose places on circles it holds.
        fill: a number that the column has, where some are missing and filled later; None where none is.
    """

    name: str
    width: int | None = None
    categories: Categories = ()
    is_missing: bool = False
    cycles: tuple[str, ...] = ()
    fill: float | None = None

    @property
    def is_made(self) -> bool:
        """Whether it stands beside the column itself."""
        return self.is_missing or bool(self.cycles)

    @property
    def names(self) -> list[str]:
        """Of the stored columns that it becomes."""
        if self.is_missing:
            return [f"{self.name}.{MISSING}"]
        if self.cycles:
            return [f"{self.name}.{part}" for part in parts_of(self.cycles)]
        return [self.name] if self.width is None else [f"{self.name}[{i}]" for i in range(self.width)]

    def stored(self, values: pa.Array, row: int) -> Array:
        """(b, 1) or (b, width) float32 numbers or codes of a batch that begins at a row."""
        if self.categories:
            return codes(values, self.categories)
        numbers = _numbers(values, self.width, self.name, row)
        if self.is_missing:
            return np.isnan(numbers).astype(np.float32)
        if not self.cycles:
            return numbers
        exact = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        parts = on_circles(exact, self.cycles)
        return parts if self.fill is None else np.nan_to_num(parts)  # the middle of the circle


def read_columns(files: list[File], columns: Sequence[Column], scratch: Path) -> Array:
    """Columns side by side as (n, c) float32; lists give several."""
    width = sum(len(column.names) for column in columns)
    inputs = allocate((sum(file.num_rows for file in files), width), np.float32, scratch)
    for row, batch in row_batches(files, list(dict.fromkeys(column.name for column in columns)), NUMBER_ROWS):
        left = 0
        for column in columns:
            values = column.stored(batch.column(column.name), row)
            inputs[row : row + batch.num_rows, left : left + values.shape[1]] = values
            left += values.shape[1]
    return inputs


def exact_numbers(files: list[File], columns: Sequence[Column]) -> Iterator[tuple[int, int, Array]]:
    """Numbers (b, 1) or (b, width) of columns in the type of their file, each with its first row and stored column.

    A number that is missing and filled later is one that the column has, so that it moves no mean.
    """
    own = {column.name: column for column in columns if not column.is_made and not column.categories}
    places = {column.name: left for left, column in placed(columns) if own.get(column.name) is column}
    for row, batch in row_batches(files, list(places), NUMBER_ROWS) if places else ():
        for name, left in places.items():
            column = _filled(batch.column(name), own[name].fill)
            plain = column.flatten() if is_list(column.type) else column
            values = np.asarray(plain.to_numpy(zero_copy_only=False))
            if values.dtype.kind in "fiu" and values.size:  # booleans, and columns of nothing, lose nothing
                yield row, left, values.reshape(len(column), own[name].width or 1)


def placed(columns: Sequence[Column]) -> Iterator[tuple[int, Column]]:
    """Each column with the first of its stored columns."""
    lefts = np.cumsum([0, *(len(column.names) for column in columns)]).tolist()
    return zip(lefts, columns, strict=False)


def filled_places(columns: Sequence[Column]) -> dict[str, tuple[int, int]]:
    """Stored columns of each column in which numbers are missing: that of the numbers, and that which says where."""
    numbers = {column.name: left for left, column in placed(columns) if not column.is_made}
    return {column.name: (numbers[column.name], left) for left, column in placed(columns) if column.is_missing}


def mark_missing(inputs: Array, places: Mapping[str, tuple[int, int]]) -> None:
    """Put NaN where numbers are missing, whatever stands in for them."""
    for number, indicator in places.values():
        for start in range(0, len(inputs), NUMBER_ROWS):
            block = inputs[start : start + NUMBER_ROWS]
            block[block[:, indicator] > 0, number] = np.nan


def _filled(column: pa.Array, fill: float | None) -> pa.Array:
    if fill is None:
        return column
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        return pc.fill_null(column, pa.scalar(fill).cast(column.type))
    return pc.fill_null(column, pa.scalar(int(fill)).cast(column.type)) if pa.types.is_integer(column.type) else column


def _numbers(column: pa.Array, width: int | None, name: str, row: int) -> Array:
    """(b, 1) or (b, width) float32; what is missing becomes NaN, which is refused or filled later, with its place."""
    numbers = flat_numbers(column, width, name, row).cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(numbers).reshape(len(column), -1 if width is None else width)
