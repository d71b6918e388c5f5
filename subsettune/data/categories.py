"""Categorical columns of Parquet files: which columns are, the names of their categories, and the code of each row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.date_texts import format_of
from subsettune.data.raw import Array, Categories
from subsettune.errors import DataError

MOST_CATEGORIES = 1000  # each is a column that every example pays for
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ROWS_EACH = 2  # on average: with fewer, names, texts and numbers of customers are most of what there is


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, plain or in a dictionary; Parquet gives dictionaries of numbers back as numbers."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def can_be_marked(kind: pa.DataType) -> bool:
    """Whether a column holds numbers that a user may declare to be categories."""
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


class Vocabulary:
    """Collects the categories of a column, batch by batch.

    Args:
        name: of the column.
        kind: its type; categories that are numbers go by their size, others by their texts.
        num_rows: of all files.
    """

    def __init__(self, name: str, kind: pa.DataType, num_rows: int) -> None:
        self.name, self.num_rows = name, num_rows
        self._by_number = bool(pa.types.is_integer(kind))
        self._found: set[str | None] = set()
        self.missing = 0  # rows without a value so far

    def add(self, column: pa.Array) -> None:
        """Take in the categories of some rows.

        Raises:
            DataError: there are too many by now.
        """
        self.missing += column.null_count
        self._found.update(pc.unique(_texts(column)).to_pylist())
        if len(self._found) > MOST_CATEGORIES:
            self._refuse(f"at most {MOST_CATEGORIES:,} categories", f"{len(self._found):,} or more")

    def names(self) -> Categories:
        """All categories in order, None for what is missing at the end.

        Raises:
            DataError: there are too many for so few rows.
        """
        if len(self._found) * ROWS_EACH > self.num_rows:
            rule = f"at least {ROWS_EACH} rows for each category on average"
            self._refuse(rule, f"{len(self._found):,} categories in {self.num_rows:,} rows")
        there = [name for name in self._found if name is not None]
        ordered: Iterable[str] = sorted(there, key=int) if self._by_number else sorted(there)
        return (*ordered, *([None] if None in self._found else []))

    def _refuse(self, rule: str, got: str) -> None:
        names = [name for name in self._found if name is not None]
        form, told = format_of(names), ""
        if form:
            told = f"They are dates: say how they are written, data.date_formats: {{{self.name}: '{form}'}}. Else g"
        elif names and all(name.lower().endswith(PICTURES) for name in names):
            told = "They are names of pictures: put these into a folder for each class, as photos/cat/1.jpg. Else g"
        raise DataError(
            f"column {self.name!r} must have {rule} to be an input, got {got}. {told or 'G'}roup them, or "
            "leave the column out (data.exclude)."
        )


def codes(column: pa.Array, names: Categories) -> Array:
    """(b, 1) float32 places of a column's values in the names of its categories."""
    found = pc.index_in(_texts(column), value_set=pa.array(names, pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False)).astype(np.float32)[:, None]


def _texts(column: pa.Array) -> pa.Array:
    values = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return values.cast(pa.string())
