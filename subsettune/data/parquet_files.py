"""Parquet files that are open: their schema in plain types, their rows in batches, and where a row stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subsettune.config import FrozenDict
from subsettune.data.arrow_types import AS_DATE, DATE, kind_of, plain_chunks, plain_column, plain_schema, seconds
from subsettune.data.categories import is_text
from subsettune.data.date_texts import times_of
from subsettune.data.mendable import OtherDataError
from subsettune.data.shards import Parts, parts
from subsettune.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class File:
    """An open Parquet file, its path for messages, and its schema in plain types.

    Of a copy of a .csv file `line_of` gives the line in which a row ends there.
    """

    path: Path
    content: pq.ParquetFile
    schema: pa.Schema
    formats: FrozenDict = FrozenDict()  # of the columns of texts that are dates
    line_of: Callable[[int], int] | None = None

    @property
    def num_rows(self) -> int:
        """Of all row groups."""
        return int(self.content.metadata.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """All of a column."""
        return self.read([name])[name]

    def read(self, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """All of some columns, in plain types."""
        try:
            found = self.content.read(columns=list(names))
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.path, error) from error
        columns = {name: plain_chunks(found.column(name)) for name in names}
        return {name: self._dated(name, column) for name, column in columns.items()}

    def batches(self, num_rows: int, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        """Some columns in plain types, so many rows at a time."""
        row = 0
        for batch in self.content.iter_batches(batch_size=num_rows, columns=list(names)):
            plain = {name: plain_column(batch.column(name)) for name in names}
            yield {name: self._times(name, column, row) for name, column in plain.items()}
            row += batch.num_rows

    def _dated(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if name not in self.formats:
            return column
        rows = np.cumsum([0, *map(len, column.chunks)]).tolist()
        return pa.chunked_array([self._times(name, c, row) for row, c in zip(rows, column.chunks, strict=False)])

    def _times(self, name: str, column: pa.Array, row: int) -> pa.Array:
        """Texts of a column whose format is told as seconds; all other columns as they are."""
        if name not in self.formats:
            return column
        form = self.formats[name]
        times, odd = times_of(column.cast(pa.string()), [form])
        if odd is not None:
            raise DataError(
                f"column {name!r} must hold dates as {form!r}, got {column[odd].as_py()!r} in row {row + odd} of "
                f"{self.path.name}. Mend data.date_formats, or the row."
            )
        return seconds(times)


def table_files(path: Path, suffixes: Sequence[str]) -> Parts:
    """The files at a path: itself, or those of a folder for training, validation and test, whole or in shards."""
    if path.is_file():
        return Parts(train=(path,))
    found = parts(path, suffixes, has_validation=True)
    if not found.train:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise DataError(
            f"folder {path} must hold train*.parquet, train*.csv or train*.tsv (and may hold validation* and test* "
            f"likewise), or a folder of pictures for each class, got {names}."
        )
    return found


def open_file(path: Path, formats: Mapping[str, Any] | None = None) -> File:
    """Open a file, and refuse a damaged one or one that has a column twice.

    Args:
        path: of it.
        formats: of dates, of the columns of texts that are some.
    """
    try:
        content = pq.ParquetFile(path, memory_map=True)
        file = File(path, content, plain_schema(content.schema_arrow))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    names = file.schema.names
    told = {name: form for name, form in (formats or {}).items() if name in names}
    for name in told:
        field = file.schema.field(name)
        if not is_text(field.type):
            raise DataError(
                f"column {name!r} of {path} must hold texts to have a format of dates, got {kind_of(field)}. "
                "Remove it from data.date_formats."
            )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}. Rename or drop all but one of them.")
    return replace(file, schema=_with_dates(file.schema, told), formats=FrozenDict(told)) if told else file


def _with_dates(schema: pa.Schema, formats: Mapping[str, str]) -> pa.Schema:
    for name in formats:
        field = schema.field(name)
        dated = field.with_type(pa.float64()).with_metadata({DATE: f"{field.type}{AS_DATE}".encode()})
        schema = schema.set(schema.get_field_index(name), dated)
    return schema


def check_there(file: File, wanted: Sequence[str], advice: str) -> None:
    """Refuse a file that lacks one of some columns, with what was meant."""
    names = file.schema.names
    missing = [name for name in wanted if name not in names]
    if missing:
        guess = f"{did_you_mean(missing[0], names)} ".lstrip()
        brief = f"{file.path} has no column {missing[0]!r}. {guess}Its columns: {', '.join(names)}."
        raise OtherDataError(f"{brief} {advice}", brief)


def damaged(path: Path, error: Exception) -> DataError:
    """What is told of a file that cannot be read."""
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{path} is empty, truncated or not Parquet: {reason}. Write it again.")


def row_batches(files: Sequence[File], columns: list[str], num_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of all files, each with the number of its first row."""
    row = 0
    for file in files:
        try:
            for found in file.batches(num_rows, columns):
                batch = pa.RecordBatch.from_arrays(list(found.values()), columns)
                yield row, batch
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged(file.path, error) from error


def row_place(files: list[File], row: int) -> str:
    """A row of all files in words: which row of which file."""
    for file in files:
        if row < file.num_rows:
            place = f"row {row}" if file.line_of is None else f"line {file.line_of(row)}"
            return f"{place} of {file.path.name}"
        row -= file.num_rows
    raise AssertionError("no file has the row")


def is_image(kind: pa.DataType) -> bool:
    """Whether a column holds encoded images."""
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers, or lists of them."""
    return is_number(kind.value_type if is_list(kind) else kind)


def flat_numbers(column: pa.Array, width: int | None, name: str, row: int) -> pa.Array:
    """The numbers of a column, of lists one after the other, in their own type."""
    if width is not None:
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            i = int(np.argmax(lengths != width))
            got = "nothing" if lengths[i] < 0 else int(lengths[i])
            raise DataError(
                f"lists of column {name!r} must have one length, got {width} and {got} (row {row + i}). Cut or drop "
                "them."
            )
    return column if width is None else column.flatten()
