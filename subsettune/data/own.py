"""The user's own files: Parquet as the Hugging Face hub lays it out, and .npz."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subsettune.data.raw import Array, Raw
from subsettune.errors import DataError
from subsettune.task import Data

INPUT_NAMES = ("x", "features", "inputs", "images")
LABEL_NAMES = ("y", "labels", "targets")


def read_parquet(path: Path, data: Data, kind: str) -> Raw:
    """Read a Parquet file, or a folder with `train*.parquet` and perhaps `test*.parquet`.

    Other files of a folder, `validation*.parquet` among them, are left alone: validation is drawn from training rows.

    Args:
        path: of the file or folder.
        data: which columns.
        kind: `classification` or `regression`.

    Raises:
        DataError: a file is empty, truncated, or lacks a column; images differ in size; a column is not numeric.
    """
    train, test = _parquet_files(path)
    files = [_open(file) for file in (*train, *test)]
    _check_columns(files, data, path)
    rows = [file.metadata.num_rows for file in files]
    num_train = sum(rows[: len(train)])
    if num_train == 0:
        raise DataError(f"{path} has no rows. Give a file with examples.")
    schema = files[0].schema_arrow
    image = data.features in (None, ("image",)) and "image" in schema.names
    columns = ("image",) if image else _numeric_columns(schema, data, path)
    inputs = _read_images(files, sum(rows)) if image else _read_numbers(files, columns, sum(rows))
    labels = np.concatenate([_label_column(file, data.label) for file in files])
    classes = _class_names(schema, data.label) if kind == "classification" else ()
    return Raw(inputs=inputs, labels=labels, num_train=num_train, classes=classes, columns=() if image else columns)


def _parquet_files(path: Path) -> tuple[list[Path], list[Path]]:
    if path.is_file():
        return [path], []
    train = sorted(path.glob("train*.parquet"))
    if not train:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise DataError(f"folder {path} must hold train*.parquet (and may hold test*.parquet), got {found}.")
    return train, sorted(path.glob("test*.parquet"))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is empty, truncated or not Parquet: {reason}. Write it again.") from error


def _check_columns(files: list[pq.ParquetFile], data: Data, path: Path) -> None:
    for file in files:
        names = file.schema_arrow.names
        missing = [name for name in (data.label, *(data.features or ())) if name not in names]
        if missing:
            raise DataError(
                f"{path} has no column {missing[0]!r}. Its columns: {', '.join(names)}. Set data.label or features."
            )


def _numeric_columns(schema: pa.Schema, data: Data, path: Path) -> tuple[str, ...]:
    columns = data.features or tuple(name for name in schema.names if name != data.label)
    odd = [name for name in columns if not _is_numeric(schema.field(name).type)]
    if odd:
        what = ", ".join(f"{name} ({schema.field(name).type})" for name in odd)
        raise DataError(
            f"columns of {path} must be numeric, got {what}. Encode them as numbers, or name others in data.features."
        )
    if not columns:
        raise DataError(f"{path} has no column besides the label {data.label!r}. Add the features.")
    return tuple(columns)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _batches(files: list[pq.ParquetFile], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for file in files:
        try:
            yield from file.iter_batches(batch_size=8192, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"a Parquet file is damaged: {str(error).splitlines()[0]}. Write it again.") from error


def _read_numbers(files: list[pq.ParquetFile], columns: tuple[str, ...], num_rows: int) -> Array:
    inputs = np.empty((num_rows, len(columns)), dtype=np.float32)
    start = 0
    for batch in _batches(files, list(columns)):
        for i, name in enumerate(columns):
            values = batch.column(name).cast(pa.float32(), safe=False)
            inputs[start : start + len(values), i] = values.to_numpy(zero_copy_only=False)  # null becomes NaN
        start += batch.num_rows
    return inputs


def _read_images(files: list[pq.ParquetFile], num_rows: int) -> Array:
    inputs: Array | None = None
    row = 0
    for batch in _batches(files, ["image"]):
        for item in batch.column("image").to_pylist():
            image = _decode(item, row)
            if inputs is None:
                inputs = np.empty((num_rows, *image.shape), dtype=np.uint8)
            if image.shape != inputs.shape[1:]:
                sizes = " and ".join(f"{s[1]}x{s[2]} in {s[0]} channels" for s in (inputs.shape[1:], image.shape))
                raise DataError(f"images must have one size, got {sizes} (row {row}). Resize them beforehand.")
            inputs[row] = image
            row += 1
    assert inputs is not None
    return inputs


def _decode(item: Any, row: int) -> Array:
    from PIL import Image, UnidentifiedImageError

    content = item.get("bytes") if isinstance(item, dict) else item
    if not isinstance(content, bytes):
        raise DataError(
            f"column 'image' must hold encoded bytes, got {type(content).__name__} in row {row}. Embed the files."
        )
    try:
        with Image.open(io.BytesIO(content)) as image:
            grey = image.mode in ("L", "1")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"image in row {row} cannot be decoded: {error}. Write it again, as PNG or JPEG.") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _label_column(file: pq.ParquetFile, name: str) -> Array:
    try:
        column = file.read(columns=[name]).column(name)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"a Parquet file is damaged: {str(error).splitlines()[0]}. Write it again.") from error
    if column.null_count:
        raise DataError(f"column {name!r} must have no missing labels, got {column.null_count}. Drop those rows.")
    return np.asarray(column.to_numpy())


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Names of the classes where the hub's metadata (or a plain `classes` list) give them."""
    metadata = schema.metadata or {}
    try:
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            return tuple(features.get(label, {}).get("names", ()))
        return tuple(json.loads(metadata.get(b"classes", b"[]")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()  # metadata in another form: the classes go by their numbers


def read_npz(path: Path, data: Data) -> Raw:
    """Read an .npz file: inputs `x` and labels `y`, and perhaps `x_test` and `y_test`.

    Args:
        path: of the file.
        data: `features` names one other array of inputs, `label` one of labels.

    Raises:
        DataError: the file is damaged, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path} is empty, damaged, or holds objects instead of numbers: {error}. Write it again."
        ) from error
    x_name = _array(arrays, data.features or INPUT_NAMES, "inputs", path)
    y_name = _array(arrays, (data.label, *LABEL_NAMES), "labels", path)
    x, y = arrays[x_name], arrays[y_name]
    num_train = len(x)
    if f"{x_name}_test" in arrays and f"{y_name}_test" in arrays:
        x, y = (np.concatenate([arrays[name], arrays[f"{name}_test"]]) for name in (x_name, y_name))
    if x.dtype.kind not in "fiub":
        raise DataError(f"array {x_name!r} of {path} must hold numbers, got {x.dtype}. Encode them.")
    return Raw(inputs=shaped(x), labels=y, num_train=num_train)


def shaped(x: Array) -> Array:
    """Inputs as (n, features) or (n, channels, height, width): channels first, grey images get their channel."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim == 1:
        x = x[:, None]
    return np.ascontiguousarray(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32)


def _array(arrays: dict[str, Array], names: tuple[str, ...], what: str, path: Path) -> str:
    for name in names:
        if name in arrays:
            return name
    raise DataError(f"{path} must hold {what} as one of {', '.join(names)}, got {', '.join(arrays) or 'nothing'}.")
