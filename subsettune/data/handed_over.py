"""Data that were handed over in Python: read into the cache like those of files, and found there by their content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from subsettune import in_memory
from subsettune.data.npz import read_arrays
from subsettune.data.parquet import Tables, read_tables
from subsettune.data.parquet_files import File, open_file
from subsettune.data.raw import Raw
from subsettune.data.user import UserData
from subsettune.errors import DataError, DataNotFoundError, StorageError
from subsettune.task import Data

CALLED = {
    in_memory.TABLE: "table handed over in Python",
    in_memory.ARRAYS: "arrays handed over in Python",
    in_memory.DATASET: "Dataset handed over in Python",
}

CHANGED = {
    in_memory.TABLE: "has changed since it was handed over. Hand it over again.",
    in_memory.ARRAYS: "have changed since they were handed over. Hand them over again.",
}


def name_of(source: str) -> str:
    """What people call data of a name: `table handed over in Python (1a2b3c4d)`."""
    return f"{CALLED.get(in_memory.kind_of(source), source)} ({source.rpartition('/')[2][:8]})"


def read_given(data: Data, kind: str, scratch: Path, reads: str | None) -> Raw:
    """Read what was handed over.

    Args:
        data: under which name, and which columns.
        kind: `classification` or `regression`.
        scratch: folder for large arrays.
        reads: the column that the split goes by, if any.

    Raises:
        DataNotFoundError: it was handed to another process, and is not in the cache here.
        DataError: as of the formats of files.
    """
    held = given_here(data.source)
    kind_given = in_memory.kind_of(data.source)
    if not in_memory.is_unchanged(data.source):
        raise DataError(f"the {kind_given} {CHANGED[kind_given]}")
    if kind_given == in_memory.TABLE:
        return _tables(held, data, kind, scratch, reads)
    if kind_given == in_memory.ARRAYS:
        return read_arrays(_Archive(held), Path("the arrays"), data, scratch)
    return UserData(lambda: held, replace(data, source=f"{in_memory.PREFIX}Dataset")).read(scratch)


def given_here(source: str) -> Any:
    """What was handed over to this process.

    Raises:
        DataNotFoundError: nothing was, under that name.
    """
    held = in_memory.given(source)
    if held is None:
        raise DataNotFoundError(
            f"data {source!r} were handed over in Python, to another process, and are not in the cache of this "
            "machine. Start from the program that has them, or write them as Parquet and name the file."
        )
    return held


def _tables(held: tuple[Any, ...], data: Data, kind: str, scratch: Path, reads: str | None) -> Raw:
    """One table, or those of training and test, or of training, validation and test."""
    names = {1: ("table",), 2: ("training table", "test table")}
    called = names.get(len(held), ("training table", "validation table", "test table"))
    files = [[_file(table, f"the {name}", data, scratch)] for table, name in zip(held, called, strict=True)]
    validation = files[1] if len(files) == 3 else []
    tables = Tables(train=files[0], validation=validation, test=files[-1] if len(files) > 1 else [])
    return read_tables(tables, data, kind, scratch, reads)


def _file(table: Any, called: str, data: Data, scratch: Path) -> File:
    path = scratch / f"{called.replace(' ', '-')}.parquet"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    except OSError as error:
        raise StorageError(
            f"cache {scratch.parent} cannot be written: {error}. Give --cache a folder with room."
        ) from error
    return replace(open_file(path, data.date_formats), path=Path(called))


class _Archive(dict[str, Any]):
    """Arrays by name, as an .npz file gives them."""

    @property
    def files(self) -> list[str]:
        """Their names."""
        return list(self)
