"""The user's own Parquet files, as the Hugging Face hub lays them out, read a batch at a time.

One file, or a folder of train*.parquet and perhaps test*.parquet. A column `image` or `text` is the input; without one
all columns but the label are, numbers and categories together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subsettune.data.categories import Vocabulary, can_be_marked, codes, is_text
from subsettune.data.images import check_shape, decode
from subsettune.data.raw import Array, Categories, Raw
from subsettune.data.scratch import allocate
from subsettune.data.text import read_texts
from subsettune.errors import DataError, did_you_mean
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """An input column.

    Args:
        name: of it.
        width: numbers in each list of a column of lists, else None.
        categories: their names; empty for numbers.
    """

    name: str
    width: int | None = None
    categories: Categories = ()

    @property
    def names(self) -> list[str]:
        """Of the stored columns that it becomes."""
        return [self.name] if self.width is None else [f"{self.name}[{i}]" for i in range(self.width)]

    def stored(self, values: pa.Array, row: int) -> Array:
        """(b, 1) or (b, width) float32 numbers or codes of a batch that begins at a row."""
        return codes(values, self.categories) if self.categories else _numbers(values, self.width, self.name, row)


def read_parquet(path: Path, data: Data, kind: str, scratch: Path) -> Raw:
    """Read a Parquet file, or a folder with `train*.parquet` and perhaps `test*.parquet`.

    Other files of a folder, `validation*.parquet` among them, are left alone: validation is drawn from training rows.

    Args:
        path: of the file or folder.
        data: which columns. A column of images stands alone (a struct with `bytes`, or the bytes themselves), and so
            does one of texts that `text` names, or that is called so where no input is named. Others are numbers, lists
            of so many numbers, or categories: texts, and what `categorical` names.
            The label of a regression may be a list too; `embeddings` is one.
        kind: `classification` or `regression`.
        scratch: folder for large arrays.

    Raises:
        DataError: a file is empty, truncated, or lacks a column; images differ in size; a column is of no use.
    """
    train, test = ([_open(file) for file in files] for files in _parquet_files(path))
    files = [*train, *test]
    _check_files(files, data)
    schema, num_train = files[0].schema, sum(file.num_rows for file in train)
    data = _with_text(schema, data)
    columns: tuple[_Column, ...] = ()
    vocabulary: list[str] = []
    names = () if data.text is not None else _feature_names(schema, data, path)
    if data.text is not None:
        inputs, vocabulary = _read_texts(files, data, num_train, scratch)
    elif _is_image(schema.field(names[0]).type):
        inputs = _read_images(files, names[0], scratch)
    else:
        _check_roles(files, names, data)
        columns = _columns(files, names, data)
        inputs = _read_columns(files, columns, scratch)
    labels, classes = _labels(files, data.label, kind)
    return Raw(
        inputs=inputs,
        labels=labels,
        num_train=num_train,
        classes=classes,
        columns=tuple(name for column in columns for name in column.names),
        categories=_all_categories(columns),
        embeddings=_read_embeddings(files, data.embeddings, scratch),
        tokens="" if data.text is None else data.tokens,
        vocabulary=tuple(vocabulary),
    )


def _parquet_files(path: Path) -> tuple[list[Path], list[Path]]:
    if path.is_file():
        return [path], []
    train = sorted(path.glob("train*.parquet"))
    if not train:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise DataError(
            f"folder {path} must hold train*.parquet or train*.tsv (and may hold test* likewise), got {found}."
        )
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
    _check_names(data)
    for file in files:
        if file.num_rows == 0:
            raise DataError(f"{file.path} has no rows. Give a file with examples, or remove it.")
        _check_there(file, (data.label, *(data.features or ())), "Set data.label and data.features.")
        _check_there(file, data.categorical, "Set data.categorical.")
        _check_there(file, () if data.embeddings is None else (data.embeddings,), "Set data.embeddings.")
        types = [f.schema.field(data.label).type for f in (files[0], file)]
        if types[0] != types[1]:
            raise DataError(
                f"column {data.label!r} must have one type in all files, got {types[0]} and {types[1]} in {file.path}. "
                "Write them alike."
            )


def _check_names(data: Data) -> None:
    """A column has one part to play."""
    single = {"label": data.label, **({} if data.embeddings is None else {"embeddings": data.embeddings})}
    for key, name in single.items():
        for several, names in (("features", data.features or ()), ("categorical", data.categorical)):
            if name in names:
                raise DataError(f"data.{key} must not be among data.{several}, got {name!r} in both. Remove it there.")
    if data.embeddings == data.label:
        raise DataError(f"data.embeddings must not be the label, got {data.label!r} for both. Name two columns.")
    stray = [name for name in data.categorical if data.features is not None and name not in data.features]
    if stray:
        raise DataError(
            f"data.categorical must be among data.features, got {stray[0]!r}. Add it there, or remove it here."
        )


def _check_there(file: _File, wanted: Sequence[str], advice: str) -> None:
    names = file.schema.names
    missing = [name for name in wanted if name not in names]
    if missing:
        guess = f"{did_you_mean(missing[0], names)} ".lstrip()
        raise DataError(f"{file.path} has no column {missing[0]!r}. {guess}Its columns: {', '.join(names)}. {advice}")


# --- inputs ------------------------------------------------------------------------------------------------------


def _with_text(schema: pa.Schema, data: Data) -> Data:
    """The data with the column of texts named, if the input is one.

    Raises:
        DataError: something is said about texts, and there are none.
    """
    is_open = data.text is None and data.features is None and not data.categorical
    is_there = "text" in schema.names and "image" not in schema.names and "text" not in (data.label, data.embeddings)
    if is_open and is_there and is_text(schema.field("text").type):
        return replace(data, text="text")
    if data.text is None and data.text_keys:
        raise DataError(f"data.{data.text_keys[0]} means nothing where no texts are read. Set data.text, or remove it.")
    return data


def _read_texts(files: list[_File], data: Data, num_train: int, scratch: Path) -> tuple[Array, list[str]]:
    assert data.text is not None
    for file in files:
        _check_there(file, (data.text,), "Set data.text.")
        kind = file.schema.field(data.text).type
        if not is_text(kind):
            raise DataError(f"column {data.text!r} must hold texts, got {kind} in {file.path}. Mend data.text.")

    def blocks() -> Iterator[tuple[int, pa.Array]]:
        return ((row, batch.column(0)) for row, batch in _batches(files, [str(data.text)], NUMBER_ROWS))

    return read_texts(blocks, sum(file.num_rows for file in files), num_train, data, scratch)


def _feature_names(schema: pa.Schema, data: Data, path: Path) -> tuple[str, ...]:
    if data.features is None and "image" in schema.names and data.label != "image":
        names: tuple[str, ...] = ("image",)
    else:
        names = data.features or tuple(name for name in schema.names if name not in (data.label, data.embeddings))
    if not names:
        raise DataError(f"{path} has no column besides the label {data.label!r}. Add the features.")
    kinds = [schema.field(name).type for name in names]
    if len(names) == 1 and _is_image(kinds[0]):
        if data.categorical:
            raise DataError(f"data.categorical means nothing to images, got {data.categorical[0]!r}. Remove the key.")
        return names
    odd = [
        f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True) if not (_is_numeric(kind) or is_text(kind))
    ]
    if odd:
        raise DataError(
            f"columns of {path} must be numbers, texts, or one column of encoded images, got {', '.join(odd)}. "
            "Encode them as numbers, or name others in data.features."
        )
    return names


def _check_roles(files: list[_File], names: tuple[str, ...], data: Data) -> None:
    """Inputs must be in every file, texts everywhere or nowhere; what is marked as categorical must suit it."""
    for file in files:
        _check_there(file, names, "Write all files alike.")
        for name in names:
            first, kind = (f.schema.field(name).type for f in (files[0], file))
            if is_text(kind) != is_text(first) or not (is_text(kind) or _is_numeric(kind)):
                raise DataError(
                    f"column {name!r} must be numbers in all files, or texts, got {first} and {kind} in {file.path}. "
                    "Write them alike."
                )
            if name in data.categorical and not (is_text(kind) or can_be_marked(kind)):
                raise DataError(
                    f"column {name!r} must hold whole numbers, booleans or texts to be categorical, got {kind}. "
                    "Convert it, or remove it from data.categorical."
                )


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
    missing = [name for name in names if values[name] is None and _is_list(file.schema.field(name).type)]
    if missing:
        raise DataError(f"lists of column {missing[0]!r} must have one length, got nothing in row 0. Drop such rows.")
    return {name: len(value) if isinstance(value, list) else None for name, value in values.items()}


def _columns(files: list[_File], names: tuple[str, ...], data: Data) -> tuple[_Column, ...]:
    """Width and categories of each input column; the categories are those of all files."""
    schema, num_rows = files[0].schema, sum(file.num_rows for file in files)
    kinds = {name: schema.field(name).type for name in names}
    found = {
        name: Vocabulary(name, kind, num_rows)
        for name, kind in kinds.items()
        if is_text(kind) or name in data.categorical
    }
    for _, batch in _batches(files, list(found), NUMBER_ROWS) if found else ():
        for name, vocabulary in found.items():
            vocabulary.add(batch.column(name))
    widths = _widths(files[0], [name for name in names if name not in found])
    return tuple(
        _Column(name=name, categories=found[name].names()) if name in found else _Column(name=name, width=widths[name])
        for name in kinds
    )


def _all_categories(columns: tuple[_Column, ...]) -> tuple[Categories, ...]:
    """Of each stored column; () where all are numbers."""
    if not any(column.categories for column in columns):
        return ()
    return tuple(column.categories for column in columns for _ in column.names)


def _read_columns(files: list[_File], columns: tuple[_Column, ...], scratch: Path) -> Array:
    """Columns side by side as (n, c) float32; lists give several."""
    width = sum(len(column.names) for column in columns)
    inputs = allocate((sum(file.num_rows for file in files), width), np.float32, scratch)
    for row, batch in _batches(files, [column.name for column in columns], NUMBER_ROWS):
        left = 0
        for column in columns:
            values = column.stored(batch.column(column.name), row)
            inputs[row : row + batch.num_rows, left : left + values.shape[1]] = values
            left += values.shape[1]
    return inputs


def _read_embeddings(files: list[_File], name: str | None, scratch: Path) -> Array | None:
    """(n, e) float32 of a column of lists."""
    if name is None:
        return None
    for file in files:
        kind = file.schema.field(name).type
        if not (_is_list(kind) and _is_numeric(kind)):
            raise DataError(
                f"column {name!r} must hold lists of numbers to be data.embeddings, got {kind} in {file.path}. "
                "Name another."
            )
    column = _Column(name=name, width=_widths(files[0], [name])[name])
    return _read_columns(files, (column,), scratch)


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
