"""The user's own Parquet files, as the Hugging Face hub lays them out, read a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subsettune.data.images import check_shape, decode
from subsettune.data.raw import Array, Raw
from subsettune.data.scratch import allocate
from subsettune.errors import DataError
from subsettune.task import Data

NUMBER_ROWS = 8192  # read in one go
IMAGE_ROWS = 256


@dataclass(frozen=True, slots=True)
class _File:
    """An open Parquet file and its path, for messages."""

    path: Path
    content: pq.ParquetFile

    @property
    def num_rows(self) -> int:
        return int(self.content.metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.content.schema_arrow


def read_parquet(path: Path, data: Data, kind: str, scratch: Path) -> Raw:
    """Read a Parquet file, or a folder with `train*.parquet` and perhaps `test*.parquet`.

    Other files of a folder, `validation*.parquet` among them, are left alone: validation is drawn from training rows.

    Args:
        path: of the file or folder.
        data: which columns. A column of images stands alone (a struct with `bytes`, or the bytes themselves); others
            are numbers or lists of so many numbers. The label of a regression may be such a list too.
        kind: `classification` or `regression`.
        scratch: folder for large arrays.

    Raises:
        DataError: a file is empty, truncated, or lacks a column; images differ in size; a column is not numeric.
    """
    train, test = ([_open(file) for file in files] for files in _parquet_files(path))
    files = [*train, *test]
    _check_files(files, data)
    schema = files[0].schema
    names = _feature_names(schema, data, path)
    columns: tuple[str, ...] = ()
    if _is_image(schema.field(names[0]).type):
        inputs = _read_images(files, names[0], scratch)
    else:
        inputs, columns = _read_numbers(files, _widths(files[0], names), scratch)
    labels, classes = _labels(files, data.label, kind)
    num_train = sum(file.num_rows for file in train)
    return Raw(inputs=inputs, labels=labels, num_train=num_train, classes=classes, columns=columns)


def _parquet_files(path: Path) -> tuple[list[Path], list[Path]]:
    if path.is_file():
        return [path], []
    train = sorted(path.glob("train*.parquet"))
    if not train:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise DataError(f"folder {path} must hold train*.parquet (and may hold test*.parquet), got {found}.")
    return train, sorted(path.glob("test*.parquet"))


def _open(path: Path) -> _File:
    try:
        return _File(path, pq.ParquetFile(path, memory_map=True))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{path} is empty, truncated or not Parquet: {reason}. Write it again.")


def _check_files(files: list[_File], data: Data) -> None:
    """Rows and the named columns must be in every file, and the labels of one type."""
    if data.label in (data.features or ()):
        raise DataError(f"data.label must not be among data.features, got {data.label!r} in both. Remove it there.")
    for file in files:
        if file.num_rows == 0:
            raise DataError(f"{file.path} has no rows. Give a file with examples, or remove it.")
        names = file.schema.names
        missing = [name for name in (data.label, *(data.features or ())) if name not in names]
        if missing:
            advice = "Set data.label and data.features."
            raise DataError(f"{file.path} has no column {missing[0]!r}. Its columns: {', '.join(names)}. {advice}")
        types = [f.schema.field(data.label).type for f in (files[0], file)]
        if types[0] != types[1]:
            raise DataError(
                f"column {data.label!r} must have one type in all files, got {types[0]} and {types[1]} in {file.path}. "
                "Write them alike."
            )


# --- inputs ------------------------------------------------------------------------------------------------------


def _feature_names(schema: pa.Schema, data: Data, path: Path) -> tuple[str, ...]:
    if data.features is None and "image" in schema.names and data.label != "image":
        names: tuple[str, ...] = ("image",)
    else:
        names = data.features or tuple(name for name in schema.names if name != data.label)
    if not names:
        raise DataError(f"{path} has no column besides the label {data.label!r}. Add the features.")
    kinds = [schema.field(name).type for name in names]
    if len(names) == 1 and _is_image(kinds[0]):
        return names
    odd = [f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True) if not _is_numeric(kind)]
    if odd:
        raise DataError(
            f"columns of {path} must be numeric, or one column of encoded images, got {', '.join(odd)}. "
            "Encode them as numbers, or name others in data.features."
        )
    return names


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    return _is_number(kind.value_type if _is_list(kind) else kind)


def _batches(files: Sequence[_File], columns: list[str], num_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of all files, each with the number of its first row."""
    row = 0
    for file in files:
        try:
            for batch in file.content.iter_batches(batch_size=num_rows, columns=columns):
                yield row, batch
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file.path, error) from error


def _widths(file: _File, names: Sequence[str]) -> dict[str, int | None]:
    """How many numbers each column has in a row: None for a plain number, else the length of the first list."""
    if not any(_is_list(file.schema.field(name).type) for name in names):
        return dict.fromkeys(names)
    _, first = next(_batches([file], list(names), 1))
    values = {name: first.column(name)[0].as_py() for name in names}
    return {name: len(value) if isinstance(value, list) else None for name, value in values.items()}


def _read_numbers(files: list[_File], widths: dict[str, int | None], scratch: Path) -> tuple[Array, tuple[str, ...]]:
    """Columns side by side as (n, d) float32; lists give several."""
    names = [_numbered(name, width) for name, width in widths.items()]
    columns = tuple(name for group in names for name in group)
    inputs = allocate((sum(file.num_rows for file in files), len(columns)), np.float32, scratch)
    for row, batch in _batches(files, list(widths), NUMBER_ROWS):
        left = 0
        for name, group in zip(widths, names, strict=True):
            values = _numbers(batch.column(name), widths[name], name, row)
            inputs[row : row + batch.num_rows, left : left + len(group)] = values
            left += len(group)
    return inputs, columns


def _numbered(name: str, width: int | None) -> list[str]:
    return [name] if width is None else [f"{name}[{i}]" for i in range(width)]


def _numbers(column: pa.Array, width: int | None, name: str, row: int) -> Array:
    """(b, 1) or (b, width) float32; what is missing becomes NaN, which is refused later, with its place."""
    if width is None:
        values = column
    else:
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            i = int(np.argmax(lengths != width))
            got = "nothing" if lengths[i] < 0 else int(lengths[i])
            raise DataError(f"lists of column {name!r} must have one length, got {width} and {got} (row {row + i}).")
        values = column.flatten()
    numbers = values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(numbers).reshape(len(column), -1 if width is None else width)


def _read_images(files: list[_File], name: str, scratch: Path) -> Array:
    inputs: Array | None = None
    for row, batch in _batches(files, [name], IMAGE_ROWS):
        column = batch.column(name)
        encoded = column.field("bytes") if pa.types.is_struct(column.type) else column
        for i, item in enumerate(encoded, start=row):
            content = item.as_py()
            if content is None:
                raise DataError(f"column {name!r} must hold encoded bytes, got nothing in row {i}. Embed the files.")
            image = decode(content, f"row {i}")
            if inputs is None:
                inputs = allocate((sum(file.num_rows for file in files), *image.shape), np.uint8, scratch)
            check_shape(image.shape, inputs.shape[1:], f"row {i}")
            inputs[i] = image
    assert inputs is not None
    return inputs


# --- labels ------------------------------------------------------------------------------------------------------


def _labels(files: list[_File], name: str, kind: str) -> tuple[Array, tuple[str, ...]]:
    """Labels, and the names of the classes 0, 1, ... where they are known.

    Returns:
        (n,) numbers, or class numbers of texts in the order of the texts; (n, m) of lists.
    """
    column = pa.chunked_array([chunk for file in files for chunk in _column(file, name).chunks])
    if column.null_count:
        raise DataError(f"column {name!r} must have no missing labels, got {column.null_count}. Drop those rows.")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _texts(column, name, kind)
    if _is_list(column.type) and _is_numeric(column.type):
        first = column[0].as_py()
        return np.concatenate([_numbers(chunk, len(first), name, 0) for chunk in column.chunks]), ()
    if not _is_number(column.type):
        raise DataError(f"column {name!r} must hold numbers or texts, got {column.type}. Name another in data.label.")
    classes = _class_names(files[0].schema, name) if pa.types.is_integer(column.type) else ()
    return np.asarray(column.to_numpy()), classes if kind == "classification" else ()


def _column(file: _File, name: str) -> pa.ChunkedArray:
    try:
        column = file.content.read(columns=[name]).column(name)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file.path, error) from error
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _texts(column: pa.ChunkedArray, name: str, kind: str) -> tuple[Array, tuple[str, ...]]:
    if kind == "regression":
        raise DataError(
            f"labels of a regression must be numbers, got texts in {name!r}. Choose a classification metric."
        )
    names = pc.unique(column).to_pylist()
    order = sorted(names)
    numbers = pc.index_in(column, value_set=pa.array(order, column.type))
    return np.asarray(numbers.to_numpy()).astype(np.int64), tuple(order)


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Names of the classes where the hub's metadata (or a plain `classes` list) give them."""
    metadata = schema.metadata or {}
    try:
        if b"huggingface" in metadata:
            found: Any = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        else:
            found = json.loads(metadata[b"classes"])
    except (ValueError, KeyError, TypeError):
        return ()  # none, or in another form: the classes go by their numbers
    return tuple(map(str, found)) if isinstance(found, list) else ()
