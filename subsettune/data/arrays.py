"""Data sets as memory-mapped Arrow files: made once a node, keyed by content, shared by all trials.

One file holds one data set: the rows of the training file, then those of the official test file if there is one. It is
mapped copy-on-write and viewed as torch tensors without a copy, so trials on one node share its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from subsettune.errors import DataError

META_KEY = b"subsettune.data"
HASH_BLOCK_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the arrays of a data set are.

    Args:
        source: where they came from, for people.
        kind: `classification` or `regression`.
        shape: of one input: (channels, height, width) or (features,).
        num_train: rows of the training file; the rest are the official test file's.
        classes: their names, empty for a regression.
        fingerprint: SHA-256 of arrays, shapes and classes.
    """

    source: str
    kind: str
    shape: tuple[int, ...]
    num_train: int
    classes: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A data set in memory or mapped from a file.

    Args:
        inputs: (n, *shape) uint8 or float32.
        targets: (n,) int64 classes, or (n,) or (n, m) float32 values.
        meta: what they are.
    """

    inputs: Tensor
    targets: Tensor
    meta: Meta


def fingerprint(inputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], meta: Meta) -> str:
    """SHA-256 of everything that training can see of a data set; the source's name is no part of it."""
    told = {"inputs": [str(inputs.dtype), *inputs.shape], "targets": [str(targets.dtype), *targets.shape]}
    told |= {"kind": meta.kind, "num_train": meta.num_train, "classes": list(meta.classes)}
    result = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for array in (inputs, targets):
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), HASH_BLOCK_BYTES):
            result.update(flat[start : start + HASH_BLOCK_BYTES])
    return result.hexdigest()


def write(path: Path, inputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], meta: Meta) -> None:
    """Write an Arrow file whole or not at all.

    Args:
        path: of the file.
        inputs: (n, *shape), C-contiguous; may itself be mapped from a file.
        targets: (n,) or (n, m).
        meta: with its fingerprint.
    """
    columns = [_column(inputs), _column(targets)]
    described = json.dumps({**asdict(meta), "target_shape": list(targets.shape[1:])}).encode()
    schema = pa.schema([("input", columns[0].type), ("target", columns[1].type)], metadata={META_KEY: described})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> Arrays:
    """Map an Arrow file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with pa.memory_map(str(path)) as mapped:
            base = mapped.read_buffer(mapped.size()).address
            mapped.seek(0)
            reader = pa.ipc.open_file(mapped)
            described = json.loads(reader.schema.metadata[META_KEY])
            batch = reader.get_batch(0)
            if reader.num_record_batches != 1 or batch.num_rows == 0:
                raise ValueError("it must hold one batch of rows")
            target_shape = tuple(described.pop("target_shape"))
            meta = Meta(**{**described, "shape": tuple(described["shape"]), "classes": tuple(described["classes"])})
            places = [_place(batch.column(i), base) for i in (0, 1)]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"cached data {path} are damaged: {error}. Remove the file: it is made anew.") from error
    shapes = ((batch.num_rows, *meta.shape), (batch.num_rows, *target_shape))
    inputs, targets = (_view(path, place, shape) for place, shape in zip(places, shapes, strict=True))
    return Arrays(inputs=inputs, targets=targets, meta=meta)


def _column(array: np.ndarray[Any, Any]) -> pa.Array:
    values = pa.Array.from_buffers(
        pa.from_numpy_dtype(array.dtype), array.size, [None, pa.py_buffer(array.reshape(-1))]
    )
    width = array.size // len(array)
    return values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, width)


def _place(column: pa.Array, base: int) -> tuple[int, np.dtype[Any]]:
    """Offset of a column's numbers in the file, and their type."""
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return values.buffers()[1].address - base, np.dtype(values.type.to_pandas_dtype())


def _view(path: Path, place: tuple[int, np.dtype[Any]], shape: tuple[int, ...]) -> Tensor:
    """Map a part of a file copy-on-write: shared until written, which nobody does; torch wants writable memory."""
    offset, dtype = place
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape))
