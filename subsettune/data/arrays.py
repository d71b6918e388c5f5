"""Data sets as memory-mapped Arrow files: made once a node, keyed by content, shared by all trials.

One file holds one data set in one record batch: the rows of the training file, then those of the official test file if
there is one. It is mapped privately and viewed as torch tensors without a copy. torch warns of memory that it may not
write, so the mapping is copy-on-write: the pages of all trials on a node are the same ones until somebody writes, which
nobody does, and what is written by mistake never reaches the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
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
BLOCK_BYTES = 2**24  # of a data set that is looked at in one go: large against a call, small against memory
MAP_NORESERVE = 0x4000 if os.uname().sysname == "Linux" else 0  # lets files larger than memory be mapped copy-on-write

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the arrays of a data set are.

    Args:
        source: where they came from, for people.
        kind: `classification` or `regression`.
        num_train: rows of the training file; the rest are the official test file's.
        classes: their names, empty for a regression.
        fingerprint: SHA-256 of all that training can see; empty until it is known.
    """

    source: str
    kind: str
    num_train: int
    classes: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A data set, mapped from its file.

    Args:
        inputs: (n, channels, height, width) or (n, features), uint8 or float32.
        targets: (n,) int64 classes, or (n,) or (n, m) float32 values.
        meta: what they are.
    """

    inputs: Tensor
    targets: Tensor
    meta: Meta


def fingerprint(inputs: Array, targets: Array, meta: Meta) -> str:
    """SHA-256 of everything that training can see of a data set; the source's name is no part of it."""
    told = {"inputs": [str(inputs.dtype), *inputs.shape], "targets": [str(targets.dtype), *targets.shape]}
    told |= {"kind": meta.kind, "num_train": meta.num_train, "classes": list(meta.classes)}
    result = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for array in (inputs, targets):
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), BLOCK_BYTES):
            result.update(flat[start : start + BLOCK_BYTES])
    return result.hexdigest()


def write(path: Path, inputs: Array, targets: Array, meta: Meta) -> None:
    """Write an Arrow file to disk, synchronised, so that a rename after it is all that is left to do.

    Args:
        path: of the file.
        inputs: (n, ...), C-contiguous; may itself be mapped from a file.
        targets: (n,) or (n, m), C-contiguous.
        meta: with its fingerprint.
    """
    columns = [_column(inputs), _column(targets)]
    described = {**asdict(meta), "input_shape": inputs.shape[1:], "target_shape": targets.shape[1:]}
    fields = [("input", columns[0].type), ("target", columns[1].type)]
    schema = pa.schema(fields, metadata={META_KEY: json.dumps(described).encode()})
    with path.open("wb") as sink:
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        sink.flush()
        os.fsync(sink.fileno())


def read(path: Path) -> Arrays:
    """Map an Arrow file.

    Raises:
        DataError: the file is not what `write` made.
        FileNotFoundError: there is none.
    """
    try:
        with path.open("rb") as file:
            flags = mmap.MAP_PRIVATE | MAP_NORESERVE
            mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        batch = pa.ipc.open_file(pa.py_buffer(mapped)).get_batch(0)
        described = json.loads(batch.schema.metadata[META_KEY])
        shapes = [(batch.num_rows, *described.pop(key)) for key in ("input_shape", "target_shape")]
        meta = Meta(**{**described, "classes": tuple(described["classes"])})
        inputs, targets = (_view(batch.column(i), mapped, shape) for i, shape in enumerate(shapes))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(path, str(error)) from error
    return Arrays(inputs=inputs, targets=targets, meta=meta)


def verify(path: Path, arrays: Arrays) -> None:
    """Compare the content of a mapped file with the hash in it: reads the whole file.

    Raises:
        DataError: they differ.
    """
    found = fingerprint(arrays.inputs.numpy(), arrays.targets.numpy(), arrays.meta)
    if found != arrays.meta.fingerprint:
        raise damaged(path, "the content is not what was written")


def damaged(path: Path, why: str) -> DataError:
    """The error for a file that somebody or something has changed."""
    return DataError(f"cached data {path} are damaged: {why}. Remove this file: it is made again from the source.")


def _column(array: Array) -> pa.Array:
    flat = array.reshape(-1)
    values = pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), array.size, [None, pa.py_buffer(flat)])
    return values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, math.prod(array.shape[1:]))


def _view(column: pa.Array, mapped: mmap.mmap, shape: tuple[int, ...]) -> Tensor:
    """The numbers of a column as a tensor on the mapping, which it keeps alive."""
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    dtype = torch.from_numpy(np.empty(0, dtype=values.type.to_pandas_dtype())).dtype
    offset = values.buffers()[1].address - pa.py_buffer(mapped).address
    return torch.frombuffer(mapped, dtype=dtype, count=len(values), offset=offset).reshape(shape)
