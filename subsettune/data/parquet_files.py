"""Parquet files that are open: their schema in plain types, their rows in batches, and where a row stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subsettune.data.arrow_types import plain_chunks, plain_column, plain_schema
from subsettune.data.shards import Parts, parts
from subsettune.errors import DataError


@dataclass(frozen=True, slots=True)
class File:
    """An open Parquet file, its path for messages, and its schema in plain types."""

    path: Path
    content: pq.ParquetFile
    schema: pa.Schema

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
        return {name: plain_chunks(found.column(name)) for name in names}


def parquet_files(path: Path) -> Parts:
    """The files at a path: itself, or the shards of a folder."""
    if path.is_file():
        return Parts(train=(path,))
    found = parts(path, (".parquet",))
    if not found.train:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise DataError(
            f"folder {path} must hold train*.parquet or train*.tsv (and may hold test* likewise), got {names}."
        )
    return found


def open_file(path: Path) -> File:
    """Open a file, and refuse a damaged one or one that has a column twice."""
    try:
        content = pq.ParquetFile(path, memory_map=True)
        file = File(path, content, plain_schema(content.schema_arrow))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    names = file.schema.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}. Rename or drop all but one of them.")
    return file


def damaged(path: Path, error: Exception) -> DataError:
    """What is told of a file that cannot be read."""
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{path} is empty, truncated or not Parquet: {reason}. Write it again.")


def row_batches(files: Sequence[File], columns: list[str], num_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of all files, each with the number of its first row."""
    row = 0
    for file in files:
        try:
            for batch in file.content.iter_batches(batch_size=num_rows, columns=columns):
                plain = [plain_column(batch.column(name)) for name in columns]
                yield row, pa.RecordBatch.from_arrays(plain, columns)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged(file.path, error) from error


def row_place(files: list[File], row: int) -> str:
    """A row of all files in words: which row of which file."""
    for file in files:
        if row < file.num_rows:
            return f"row {row} of {file.path.name}"
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
