"""Data sets as memory-mapped Arrow files: made once a node, keyed by content, shared by all trials.

One file holds one data set in one record batch: the rows of the training file, then those of the official test file if
there is one. It is mapped privately and viewed as torch tensors without a copy. torch warns of memory that it may not
write, so the mapping is copy-on-write: all trials on a node share its pages until somebody writes, which nobody does,
and what is written by mistake never reaches the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from subsettune.data.columns import SourceFacts
from subsettune.data.raw import Array, Categories
from subsettune.data.text import num_tokens
from subsettune.errors import DataError

META_KEY = b"subsettune.data"
HASH_BLOCK_BYTES = 2**24
# Left out where empty, as in files of versions that lack them.
SINCE = (
    *("columns", "categories", "num_embedding", "tokens", "vocabulary"),
    *("shift", "exponent", "notes", "num_ids"),
    *("num_validation", "imputed", "marks", "mark_names"),
)
# Without it Linux counts a copy-on-write mapping as memory, and refuses files larger than that. New in mmap in 3.13.
MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the arrays of a data set are.

    Args:
        source: where they came from, for people.
        kind: `classification` or `regression`.
        shape: of one input: (channels, height, width), (channels, time), (features,) or (tokens,).
        num_train: rows of the training file; the rest are the official test file's.
        classes: their names, empty for a regression.
        fingerprint: SHA-256 of arrays, shapes, classes, categories and vocabulary.
        columns: names of the inputs, where some of them are categorical columns.
        categories: of each column their names in the order of their codes, None for what is missing; empty for a column
            of numbers.
        num_embedding: numbers in the embedding of an example; 0 without embeddings.
        tokens: what texts were cut into, `words` or `bytes`, or `ids` of the user's own; empty where the inputs are
            numbers.
        vocabulary: the words that have an id of their own, in the order of their ids.
        shift: of each column or channel: stored is (value - shift) / 2 ** exponent; empty where it is the value.
        exponent: of each column or channel, likewise.
        notes: sentences about inputs that are not what they seem.
        num_ids: one more than the largest of the user's own token ids.
        num_validation: rows of the official validation file, between those of training and test file.
        imputed: places and names of columns in which NaN is a number that is missing.
        marks: type of the column that the split goes by; empty where there is none.
        mark_names: of its groups or parts, where it holds their places.
    """

    source: str
    kind: str
    shape: tuple[int, ...]
    num_train: int
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    columns: tuple[str, ...] = ()
    categories: tuple[Categories, ...] = ()
    num_embedding: int = 0
    tokens: str = ""
    vocabulary: tuple[str, ...] = ()
    shift: tuple[int | float, ...] = ()
    exponent: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    num_ids: int = 0
    num_validation: int = 0
    imputed: tuple[tuple[int, str], ...] = ()
    marks: str = ""
    mark_names: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of training and validation file; the rest are the test file's."""
        return self.num_train, self.num_validation

    @property
    def num_tokens(self) -> int:
        """Token ids that there are, padding and unknown included; 0 where the inputs are numbers."""
        return self.num_ids or (num_tokens(self.tokens, self.vocabulary) if self.tokens else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A data set in memory or mapped from a file.

    Args:
        inputs: (n, *shape) uint8 or float32, of a categorical column the codes; or (n, t) int32 token ids.
        targets: (n,) int64 classes, or (n,) or (n, m) float32 or float64 values.
        meta: what they are.
        embeddings: (n, e) float32, if there are any.
        facts: what was found in the source, where it was asked for; no part of the file.
        marks: (n,) int64 or float64, what the split goes by, if a column says it.
    """

    inputs: Tensor
    targets: Tensor
    meta: Meta
    embeddings: Tensor | None = None
    facts: SourceFacts | None = None
    marks: Tensor | None = None


def fingerprint(
    inputs: Array, targets: Array, meta: Meta, embeddings: Array | None = None, marks: Array | None = None
) -> str:
    """SHA-256 of everything that training can see of a data set; the source's name is no part of it."""
    told: dict[str, Any] = {"kind": meta.kind, "num_train": meta.num_train, "classes": list(meta.classes)}
    told["inputs"] = [str(inputs.dtype), *inputs.shape]
    told["targets"] = [str(targets.dtype), *targets.shape]
    if meta.categories:
        told["categories"] = list(zip(meta.columns, meta.categories, strict=True))
    if meta.tokens:
        told["tokens"] = [meta.tokens, *meta.vocabulary]
    if meta.shift:
        told["scaling"] = [list(meta.shift), list(meta.exponent)]
    if embeddings is not None:
        told["embeddings"] = list(embeddings.shape)
    if meta.num_validation:
        told["num_validation"] = meta.num_validation
    if meta.imputed:
        told["imputed"] = [list(each) for each in meta.imputed]
    if marks is not None:
        told["marks"] = [str(marks.dtype), *meta.mark_names]
    result = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for array in (inputs, targets, *(each for each in (embeddings, marks) if each is not None)):
        flat = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), HASH_BLOCK_BYTES):
            result.update(flat[start : start + HASH_BLOCK_BYTES])
    return result.hexdigest()


def write(
    path: Path,
    inputs: Array,
    targets: Array,
    meta: Meta,
    embeddings: Array | None = None,
    marks: Array | None = None,
) -> None:
    """Write an Arrow file and see it onto the disk, so that all that is left to do is to rename it.

    Args:
        path: of the file; what a killed process left there is written over.
        inputs: (n, *shape), C-contiguous; may itself be mapped from a file.
        targets: (n,) or (n, m), C-contiguous.
        meta: with its fingerprint.
        embeddings: (n, e), C-contiguous, if there are any.
        marks: (n,), likewise.
    """
    beside = {"embedding": embeddings, "marks": marks}
    arrays = {"input": inputs, "target": targets} | {name: x for name, x in beside.items() if x is not None}
    columns = [_column(array) for array in arrays.values()]
    told = {name: value for name, value in asdict(meta).items() if value or name not in SINCE}
    described = json.dumps({**told, "target_shape": list(targets.shape[1:])}).encode()
    types = [(name, column.type) for name, column in zip(arrays, columns, strict=True)]
    schema = pa.schema(types, metadata={META_KEY: described})
    with path.open("wb") as sink:
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # one batch of more than 2 ** 31 numbers
        with pa.ipc.new_file(sink, schema, options=options) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        sink.flush()
        os.fsync(sink.fileno())


def read(path: Path) -> Arrays:
    """Map an Arrow file.

    Raises:
        DataError: the file is damaged.
        FileNotFoundError: it is not there.
    """
    with path.open("rb") as file:
        try:
            return _mapped(file.fileno())
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise damaged(path, str(error)) from error


def verify(path: Path, arrays: Arrays) -> None:
    """Compare what is in a file with the hash that it was written with; reads all of it.

    Raises:
        DataError: they differ.
    """
    embeddings = None if arrays.embeddings is None else arrays.embeddings.numpy()
    marks = None if arrays.marks is None else arrays.marks.numpy()
    found = fingerprint(arrays.inputs.numpy(), arrays.targets.numpy(), arrays.meta, embeddings, marks)
    if found != arrays.meta.fingerprint:
        raise damaged(path, "its content is not what was written")


def damaged(path: Path, why: str) -> DataError:
    """The error for a cached file that somebody or something changed."""
    return DataError(f"cached data {path} are damaged: {why}. Remove the file: it is made anew.")


def _mapped(descriptor: int) -> Arrays:
    flags = mmap.MAP_PRIVATE | MAP_NORESERVE
    content = mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    reader = pa.ipc.open_file(pa.py_buffer(content))
    if reader.num_record_batches != 1:
        raise ValueError("it must hold one batch of rows")
    batch = reader.get_batch(0)
    described = json.loads(reader.schema.metadata[META_KEY])
    target_shape = described.pop("target_shape")
    for name in ("shape", "classes", "columns", "vocabulary", "shift", "exponent", "notes", "mark_names"):
        described[name] = tuple(described.get(name, ()))
    described["categories"] = tuple(tuple(names) for names in described.get("categories", ()))
    described["imputed"] = tuple((int(place), str(name)) for place, name in described.get("imputed", ()))
    meta = Meta(**described)
    shapes = {"input": meta.shape, "target": target_shape}
    if meta.num_embedding:
        shapes["embedding"] = (meta.num_embedding,)
    if meta.marks:
        shapes["marks"] = ()
    views = {name: _view(batch.column(name), content, (batch.num_rows, *shape)) for name, shape in shapes.items()}
    embeddings, marks = views.get("embedding"), views.get("marks")
    return Arrays(inputs=views["input"], targets=views["target"], meta=meta, embeddings=embeddings, marks=marks)


def _column(array: Array) -> pa.Array:
    values = pa.Array.from_buffers(
        pa.from_numpy_dtype(array.dtype), array.size, [None, pa.py_buffer(array.reshape(-1))]
    )
    return values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, math.prod(array.shape[1:]))


def _view(column: pa.Array, content: mmap.mmap, shape: tuple[int, ...]) -> Tensor:
    """The numbers of a column as a tensor on the mapping, which it keeps alive."""
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    dtype = torch.from_numpy(np.empty(0, dtype=values.type.to_pandas_dtype())).dtype
    offset = values.buffers()[1].address - pa.py_buffer(content).address
    return torch.frombuffer(content, dtype=dtype, count=len(values), offset=offset).reshape(shape)
