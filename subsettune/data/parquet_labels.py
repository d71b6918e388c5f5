"""Labels of Parquet files: numbers, texts, or class numbers with the names that the files list for them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.arrow_types import is_date, kind_of
from subsettune.data.categories import is_text
from subsettune.data.labels import joined, named, renumbered
from subsettune.data.parquet_files import (
    File,
    flat_numbers,
    is_image,
    is_list,
    is_number,
    is_numeric,
)
from subsettune.data.raw import Array
from subsettune.errors import DataError


def labels_of(files: list[File], name: str, kind: str) -> tuple[Array, tuple[str, ...]]:
    """Labels, and the names of the classes 0, 1, ... where they are known.

    Returns:
        (n,) numbers, or class numbers of texts in the order of the texts; (n, m) of lists.
    """
    field = files[0].schema.field(name)
    if is_date(field):
        raise DataError(
            f"column {name!r} must hold numbers or texts, got {kind_of(field)}. Name another in data.label."
        )
    as_kind = label_kind(field.type)
    column = pa.chunked_array([chunk.cast(as_kind) for file in files for chunk in file.column(name).chunks], as_kind)
    if column.null_count:
        raise DataError(f"column {name!r} must have no missing labels, got {column.null_count}. Drop those rows.")
    if is_image(column.type) and not pa.types.is_struct(column.type):
        column = _decoded(column, name)
    if is_text(column.type):
        return _texts(column, name, kind)
    if is_list(column.type) and is_numeric(column.type):
        width = len(column[0].as_py())
        chunks = [flat_numbers(chunk, width, name, 0).to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return np.concatenate(chunks).reshape(len(column), width), ()
    if not is_number(column.type):
        raise DataError(f"column {name!r} must hold numbers or texts, got {column.type}. Name another in data.label.")
    if kind == "classification" and pa.types.is_integer(column.type):
        return _listed(files, name)
    return np.asarray(column.to_numpy()), ()


def label_kind(kind: pa.DataType) -> pa.DataType:
    """The type that labels are read as: programs choose among those of texts, and of whole numbers, as they like."""
    if is_text(kind):
        return pa.large_string()
    return pa.int64() if pa.types.is_integer(kind) and kind != pa.uint64() else kind


def _texts(column: pa.ChunkedArray, name: str, kind: str) -> tuple[Array, tuple[str, ...]]:
    if kind == "regression":
        raise DataError(
            f"labels of a regression must be numbers, got texts in {name!r}. Choose a classification metric."
        )
    if kind == "multilabel":
        advice = "Write a list of zeros and ones for each example."
        raise DataError(f"labels of a multilabel task must be lists of 0 and 1, got texts in {name!r}. {advice}")
    found = pc.unique(column)
    places, names = named(found.to_pylist(), name)
    return places[np.asarray(pc.index_in(column, value_set=found).to_numpy())], names


def _decoded(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Texts that were written as bytes."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} must hold labels in UTF-8, got other bytes. Write them as texts.") from error


def _listed(files: list[File], name: str) -> tuple[Array, tuple[str, ...]]:
    """Class numbers, by the names that each file lists for them, and those of all files."""
    listed, paths = [listed_names(file.schema, name) for file in files], [file.path for file in files]
    classes = joined(listed, paths)
    numbers = [
        renumbered(np.asarray(file.column(name).to_numpy()), names, classes, file.path)
        for file, names in zip(files, listed, strict=True)
    ]
    return np.concatenate(numbers), classes


def listed_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
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
