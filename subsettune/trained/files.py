"""Files that a model is asked about: Parquet, .csv, .tsv, .npz, a picture, or a folder of pictures."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from subsettune.config import must
from subsettune.data.csv_dialect import SUFFIXES as CSV
from subsettune.data.npz import INPUT_NAMES, LABEL_NAMES
from subsettune.data.parquet_files import open_file, row_batches
from subsettune.data.pictures import SUFFIXES as PICTURES
from subsettune.data.tsv import BLOCK_BYTES, PARSING, SUFFIXES
from subsettune.errors import DataError, DataNotFoundError
from subsettune.trained.csv_rows import read_csv
from subsettune.trained.picture_rows import read_pictures
from subsettune.trained.rows import Rows, Wanted


def read_rows(path: str | Path, wanted: Wanted, limit: int | None = None) -> Rows:
    """Rows of a file: the columns that the model looks for, and the label if it is there.

    Args:
        path: of a .parquet, .csv, .tsv or .npz file; of a model of pictures also of a picture, or a folder of them.
        wanted: what the model looks for.
        limit: the first so many rows.

    Raises:
        DataNotFoundError: it is not there.
        DataError: it is damaged, or of another kind.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise DataNotFoundError(f"file {str(path)!r} is not there. Give the path of one that is.")
    if wanted.is_picture and (file.is_dir() or file.suffix.lower() in PICTURES):
        return read_pictures(file, wanted)
    reader = next((read for suffix, read in READERS.items() if file.name.endswith(suffix)), None)
    if file.is_dir() or reader is None:
        more = ", a picture or a folder of pictures" if wanted.is_picture else ""
        rule, got = f"a file of {', '.join(READERS)}{more}", f"the folder {path}" if file.is_dir() else str(path)
        raise DataError(must("FILE", rule, got, "Write the rows into one, or give them in Python."))
    return reader(file, wanted, limit)


def _read_parquet(path: Path, wanted: Wanted, limit: int | None) -> Rows:
    file = open_file(path)
    names = [name for name in file.schema.names if name in (*wanted.columns, wanted.label)]
    schema = pa.schema([file.schema.field(name) for name in names], metadata=file.schema.metadata)
    if limit is None:
        found = file.read(names)
        table = pa.Table.from_arrays([found[name] for name in names], schema=schema)
    else:
        first = [batch for _, batch in itertools.islice(row_batches([file], names, limit), 1)]
        table = pa.Table.from_batches([batch.cast(schema) for batch in first], schema=schema)
    if not names or not file.num_rows:  # what is missing is told with the file's own columns
        table = pa.schema(file.schema).empty_table()
    return Rows(table=table, where=str(path), all_names=tuple(file.schema.names))


def _read_tsv(path: Path, wanted: Wanted, limit: int | None) -> Rows:
    """All columns that are wanted, as texts."""
    reading = csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
    try:
        with csv.open_csv(str(path), read_options=reading, parse_options=PARSING) as reader:
            names = reader.schema.names
        chosen = [name for name in dict.fromkeys(names) if name in (*wanted.columns, wanted.label)] or names[:1]
        options = csv.ConvertOptions(
            include_columns=chosen, column_types=dict.fromkeys(chosen, pa.string()), strings_can_be_null=False
        )
        table = csv.read_csv(str(path), read_options=reading, parse_options=PARSING, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} is empty, damaged or no file of tab-separated values: {reason}.") from error
    table = table if limit is None else table.slice(0, limit)
    return Rows(table=table, where=str(path), all_names=tuple(names))


def _read_npz(path: Path, wanted: Wanted, limit: int | None) -> Rows:
    """The array of inputs, and that of labels if it is there; nothing is unpickled."""
    if not wanted.is_array:
        raise DataError(f"{path} has arrays, and the model was trained on columns: {', '.join(wanted.columns)}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = tuple(archive.files)
            x = next((name for name in (*wanted.columns, *INPUT_NAMES) if name in names), None)
            y = next((name for name in (wanted.label, *LABEL_NAMES) if name in names and name != x), None)
            array, labels = (None if name is None else archive[name][:limit] for name in (x, y))
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, holds objects, or is no .npz file. Write it again.") from error
    if array is None:
        raise DataError(
            f"{path} must hold the inputs as {wanted.columns[0]!r}, got {', '.join(names) or 'nothing'}. Rename them."
        )
    if labels is not None and len(labels) != len(array):
        got = f"{len(array):,} in {x!r} and {len(labels):,} in {y!r}"
        raise DataError(f"inputs and labels of {path} must be as many, got {got}. Mend the file.")
    return Rows(array=array, labels=labels, where=str(path))


READERS = {
    ".parquet": _read_parquet,
    **dict.fromkeys(CSV, read_csv),
    **dict.fromkeys(SUFFIXES, _read_tsv),
    ".npz": _read_npz,
}
