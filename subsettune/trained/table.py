"""Columns of a table as a network's input: how each was stored and encoded in training, and the same for other rows.

What a number becomes is `((value - shift) / 2**exponent - mean) * scale`; a category becomes a place of ones and zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from subsettune import config
from subsettune.config import AT_LEAST_ONE, FrozenDict, setting
from subsettune.data import precision
from subsettune.data.arrow_types import AS_DATE, DATE, is_time, kind_of, seconds
from subsettune.data.categories import is_text
from subsettune.data.csv_files import Written
from subsettune.data.csv_kinds import Kind
from subsettune.data.date_texts import ISO
from subsettune.data.dates import CLOCK_KINDS, DAY_KINDS, SPAN, on_circles
from subsettune.data.encode import Encoder, Normalizer
from subsettune.data.parquet_files import flat_numbers, is_list, is_number
from subsettune.data.raw import Array
from subsettune.errors import DataError, did_you_mean
from subsettune.trained.csv_rows import dates_of
from subsettune.trained.rows import Rows, Wanted

MOST_TOLD = 3  # categories that a warning names
COLUMNS_TOLD = 20  # in a message
FAR = 10.0  # standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column as training encoded it.

    Args:
        name: of it.
        type: in the file, as Arrow calls it.
        width: numbers in each list; None of plain numbers and of categories.
        mean: of each number, as it is stored; after the column's own, whether it is missing, and its places on circles.
        scale: 1 / standard deviation, likewise.
        shift: what is taken away before it is stored; empty where nothing is.
        exponent: of 2, by which it is then divided; empty likewise.
        categories: those that the training part has, in the order of their places, None for what is missing; null of
            numbers.
        fill: what stands for a number that is missing, as it is stored, beside which a further one says that it is;
            null where none may be missing.
        cycles: of dates, whose sines and cosines stand beside them.
        written: how a .csv file has it; null for what its type says.
        formats: of dates that are texts.
    """

    name: str
    type: str
    width: int | None = setting(None, rule=AT_LEAST_ONE)
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    shift: tuple[int | float, ...] = ()
    exponent: tuple[int, ...] = ()
    categories: tuple[str | None, ...] | None = None
    fill: float | None = None
    cycles: tuple[str, ...] = ()
    written: Kind | None = None
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def num_stored(self) -> int:
        """Stored columns that it becomes."""
        return self.num_own + (self.fill is not None) + 2 * len(self.cycles)

    @property
    def num_own(self) -> int:
        """Numbers that the column itself has in a row."""
        return self.width or 1

    @property
    def form(self) -> Written:
        """How a .csv file has it."""
        if self.written is not None:
            return Written(kind=self.written, formats=self.formats)
        if self.categories is not None:
            kinds: dict[bool, Kind] = {self.type == "bool": "boolean", _is_named(self.type): "text"}
            return Written(kind=kinds.get(True, "whole"))
        if time_kind(self.type):
            return Written(kind="date", formats=self.formats or (ISO,))
        return Written(kind="boolean" if self.type == "bool" else "whole")

    @property
    def num_encoded(self) -> int:
        """Numbers that a network gets of it."""
        return self.num_stored if self.categories is None else len(self.categories)

    def stored(self, rows: Rows) -> tuple[Array, str]:
        """(n, num_stored) float32 numbers or codes, and a sentence about unseen categories, empty without any.

        Raises:
            DataError: it is missing, or of another type, or holds what is no number.
        """
        column, field = found_in(rows, self.name)
        if self.categories is not None:
            return self._codes(column, field, rows)
        if self.formats and is_text(field.type):
            column, field = self._dated(column, field, rows)
        if self.fill is not None and pa.types.is_null(field.type):  # a frame's column of nothing
            column, field = column.cast(pa.float64()), field.with_type(pa.float64())
        elif time_kind(kind_of(field)) != time_kind(self.type):
            self._refuse_type(field, time_kind(self.type) or "numbers", rows)
        kind = field.type
        if pa.types.is_boolean(kind) and self.type != "bool":
            self._refuse_type(field, "numbers", rows)
        if is_time(field) or is_list(kind) != (self.width is not None) or not _is_numeric(kind):
            self._refuse_type(field, "numbers" if self.width is None else f"lists of {self.width} numbers", rows)
        parts = [self._filled(chunk) for chunk in column.chunks]
        stored = np.concatenate(parts) if parts else np.empty((0, self.num_stored), np.float32)
        self._refuse_not_finite(stored, rows)
        return stored, self._far(stored[:, : self.num_own])

    def _dated(self, column: pa.ChunkedArray, field: pa.Field, rows: Rows) -> tuple[pa.ChunkedArray, pa.Field]:
        """Texts as the dates that they are, in seconds."""
        times = dates_of(column.combine_chunks().cast(pa.string()), self.formats, self.name, rows.place)
        dated = field.with_type(pa.float64()).with_metadata({DATE: str(times.type).encode()})
        return pa.chunked_array([seconds(times)]), dated

    def _filled(self, chunk: pa.Array) -> Array:
        """(b, num_stored): the numbers, whether each is missing where that may be, and their places on circles."""
        if self.fill is None and not self.cycles:
            return self._stored(_values(chunk, self.width, self.name))
        is_missing = np.asarray(pc.is_null(chunk, nan_is_null=True).to_numpy(zero_copy_only=False))
        if self.fill is not None and is_missing.any():  # else whole numbers would become floats
            chunk = pc.if_else(pa.array(is_missing), pa.scalar(0).cast(chunk.type), chunk)
        values = _values(chunk, None, self.name)
        made = [self._stored(values)]
        if self.fill is not None:
            made[0][is_missing] = np.float32(self.fill)
            made.append(is_missing.astype(np.float32)[:, None])
        if self.cycles:
            turned = on_circles(values[:, 0].astype(np.float64), self.cycles)
            turned[is_missing] = 0.0 if self.fill is not None else np.nan  # the middle of the circle
            made.append(turned)
        return np.concatenate(made, axis=1)

    def _stored(self, values: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            if not self.shift:
                return np.asarray(values.astype(np.float32))
            less = precision.less(values, self.shift)
            return np.asarray(np.ldexp(less, -np.array(self.exponent))).astype(np.float32)

    def _far(self, stored: Array) -> str:
        """That most rows lie where no more than one in `FAR`^2 of the training part does (Chebyshev): another unit?"""
        mean, scale = (np.array(each[: self.num_own]) for each in (self.mean, self.scale))
        if not len(mean) or time_kind(self.type):
            return ""
        count = int((np.abs(stored - mean) * scale > FAR).any(axis=1).sum())
        if count <= len(stored) / 2:
            return ""
        place = ""
        if self.num_own == 1 and scale[0] > 0:
            unit, least = 2.0 ** (self.exponent[0] if self.exponent else 0), float(self.shift[0]) if self.shift else 0.0
            place = f" ({mean[0] * unit + least:.4g}, spread {unit / scale[0]:.4g})"
        return (
            f"column {self.name!r} has in {count:,} of {len(stored):,} rows numbers more than {FAR:g} standard "
            f"deviations from the mean of the training part{place}. Is it in another unit?"
        )

    def _refuse_not_finite(self, stored: Array, rows: Rows) -> None:
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            raise DataError(
                f"column {self.name!r} must hold finite numbers, got NaN, infinity or nothing in "
                f"{rows.place(int(np.argmin(finite)))}. Fill it, or drop the row."
            )

    def _codes(self, column: pa.ChunkedArray, field: pa.Field, rows: Rows) -> tuple[Array, str]:
        assert self.categories is not None
        texts = self._as_texts(column, field, rows)
        found = pc.index_in(texts, value_set=pa.array(self.categories, pa.large_string()))
        unseen = pc.is_null(found)
        codes = np.asarray(pc.fill_null(found, len(self.categories)).to_numpy()).astype(np.float32)[:, None]
        count = int(pc.sum(unseen, min_count=0).as_py())
        if not count:
            return codes, ""
        names = [repr(name) if name is not None else "nothing" for name in pc.unique(texts.filter(unseen)).to_pylist()]
        more = f" and {len(names) - MOST_TOLD:,} more" if len(names) > MOST_TOLD else ""
        return codes, (
            f"column {self.name!r} has categories in {count:,} of {len(rows):,} rows that the training part had not: "
            f"{', '.join(names[:MOST_TOLD])}{more}. They are none of the known ones, as in training."
        )

    def _as_texts(self, column: pa.ChunkedArray, field: pa.Field, rows: Rows) -> pa.ChunkedArray:
        """The categories as they are called; whole numbers that pandas made floats of are whole."""
        kind, trained_bool, trained_text = field.type, self.type == "bool", _is_named(self.type)
        if pa.types.is_null(kind):
            return column.cast(pa.large_string())
        if pa.types.is_floating(kind) and not trained_text and not trained_bool:
            try:
                column = pc.cast(_nulls_for_nan(column), pa.int64())
            except pa.ArrowInvalid:
                self._refuse_type(field, "whole numbers", rows)
            kind = pa.int64()
        fits = is_text(kind) if trained_text else pa.types.is_boolean(kind) if trained_bool else _is_whole(kind)
        if not fits or is_time(field):
            self._refuse_type(field, "texts" if trained_text else "booleans" if trained_bool else "whole numbers", rows)
        return (
            column.cast(pa.large_string()) if not _is_whole(kind) else column.cast(pa.string()).cast(pa.large_string())
        )

    def _refuse_type(self, field: pa.Field, wanted: str, rows: Rows) -> None:
        raise DataError(
            f"column {self.name!r} must hold {wanted}, as in training ({self.type}), got {kind_of(field)} in "
            f"{rows.where}. Convert it."
        )


def time_kind(kind: str) -> str:
    """What a column of a type of a file tells of time, in words; empty where it tells none."""
    if kind.startswith(CLOCK_KINDS):
        return "times of day"
    if kind.startswith(SPAN):
        return "spans of time"
    return "dates" if kind.startswith((*DAY_KINDS, "timestamp")) or kind.endswith(AS_DATE) else ""


def is_array_kind(kind: str) -> bool:
    """Whether a type of a file, empty of arrays, has several numbers an example."""
    return not kind or "list" in kind or "tensor" in kind


def _is_named(kind: str) -> bool:
    """Whether categories of a type are texts."""
    return "string" in kind or kind == "text"


def found_in(rows: Rows, name: str) -> tuple[pa.ChunkedArray, pa.Field]:
    """A column of rows, and its field.

    Raises:
        DataError: it is missing.
    """
    table = rows.table
    if table is None:
        raise DataError(f"{rows.where} must have the column {name!r}, which the model was trained on, got an array.")
    if name not in table.schema.names:
        names = rows.all_names or table.schema.names
        guess = f"{did_you_mean(name, names)} ".lstrip()
        more = f" and {len(names) - COLUMNS_TOLD:,} more" if len(names) > COLUMNS_TOLD else ""
        raise DataError(
            f"{rows.where} must have the column {name!r}, which the model was trained on. {guess}Known columns: "
            f"{', '.join(names[:COLUMNS_TOLD]) or 'none'}{more}."
        )
    return table[name], table.schema.field(name)


def _is_numeric(kind: pa.DataType) -> bool:
    return is_number(kind.value_type if is_list(kind) else kind)


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _nulls_for_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(column), None, column)


def _values(chunk: pa.Array, width: int | None, name: str) -> Array:
    plain = flat_numbers(chunk, width, name, 0)
    plain = plain.cast(pa.uint8()) if pa.types.is_boolean(plain.type) else plain
    values = np.asarray(plain.to_numpy(zero_copy_only=False))
    return values.reshape(-1, width or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Inputs that are columns.

    Args:
        columns: in the order of the network's input.
    """

    form: Literal["table"] = "table"
    columns: tuple[Column, ...] = setting(rule=config.NOT_EMPTY)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example as the network gets it."""
        return (sum(column.num_encoded for column in self.columns),)

    def wanted(self, label: str) -> Wanted:
        """What it looks for in rows."""
        forms = FrozenDict({column.name: column.form for column in self.columns})
        return Wanted(columns=tuple(forms), label=label, forms=forms)

    def stored(self, rows: Rows) -> tuple[Tensor, tuple[str, ...]]:
        """(n, c) float32 rows as training stores them, and sentences about what it had not seen.

        Raises:
            DataError: a column is missing, or of another type, or holds what cannot be read.
        """
        if rows.table is None:
            names = ", ".join(column.name for column in self.columns)
            raise DataError(f"{rows.where} must have the columns that the model was trained on: {names}.")
        found = [column.stored(rows) for column in self.columns]
        return torch.from_numpy(np.concatenate([one for one, _ in found], axis=1)), tuple(w for _, w in found if w)

    def encoder(self) -> Normalizer | Encoder:
        """What makes the network's input of stored rows, bit for bit as in training."""
        numbers = [column for column in self.columns if column.categories is None]
        mean, scale = (
            torch.tensor([value for column in numbers for value in getattr(column, name)]).reshape(1, -1)
            for name in ("mean", "scale")
        )
        normalizer = Normalizer(mean=mean, scale=scale)
        if len(numbers) == len(self.columns):
            return normalizer
        starts: list[int] = []
        places: list[int] = []
        present: list[float] = []
        for left, column in self._encoded():
            if column.categories is not None:
                starts.append(len(places))
                count = len(column.categories)
                places += [*range(left, left + count), left]  # the last code is that of what training had not
                present += [*[1.0] * count, 0.0]
        kinds = [column.categories is not None for column in self.columns for _ in range(column.num_stored)]
        return Encoder(
            numeric=torch.tensor([j for j, is_code in enumerate(kinds) if not is_code], dtype=torch.int64),
            normalizer=normalizer,
            numeric_places=torch.tensor(self._number_places(), dtype=torch.int64),
            categorical=torch.tensor([j for j, is_code in enumerate(kinds) if is_code]),
            starts=torch.tensor(starts),
            places=torch.tensor(places),
            present=torch.tensor(present),
            width=self.shape[0],
        )

    def _encoded(self) -> Iterator[tuple[int, Column]]:
        """Each column with the first of its places in the network's input."""
        left = 0
        for column in self.columns:
            yield left, column
            left += column.num_encoded

    def _number_places(self) -> list[int]:
        return [
            place
            for left, column in self._encoded()
            if column.categories is None
            for place in range(left, left + column.num_stored)
        ]
