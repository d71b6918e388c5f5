"""The user's own .npz files: NumPy arrays of inputs and labels by name, of a training set and perhaps a test set.

Names are found (`x`, `images`, ...; `y`, `label`, ...) or given in the task; nothing in a file is unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from subsettune.data import precision
from subsettune.data.columns import ColumnFacts, Role, SourceFacts
from subsettune.data.labels import decoded
from subsettune.data.layout import OWN_IDS, arranged, check_ids, stored_type, taken_for
from subsettune.data.raw import Array, Raw
from subsettune.data.scratch import allocate
from subsettune.errors import DataError
from subsettune.task import Data

INPUT_NAMES = (
    *("x", "features", "inputs", "images", "x_train", "train_x"),
    *("X", "X_train", "train_X", "data", "image", "train_images"),
)
LABEL_NAMES = (
    *("label", "y", "labels", "targets", "y_train", "train_y"),
    *("Y", "target", "Y_train", "train_Y", "train_labels"),
)
COPY_ROWS = 4096


def read_npz(path: Path, data: Data, scratch: Path) -> Raw:
    """Read an .npz file: inputs `x` and labels `y` (or `x_train`, `y_train`), and perhaps `x_test` and `y_test`.

    Args:
        path: of a file that numpy.savez wrote.
        data: `features` names another array of inputs, `label` one of labels, `embeddings` one of embeddings, which
            has a twin `_test` where inputs and labels have.
        scratch: folder for large arrays.

    Raises:
        DataError: the file is damaged, or lacks an array, or its arrays do not fit each other.
    """
    with path.open("rb") as file, _open(file, path) as archive:
        return read_arrays(archive, path, data, scratch)


def read_arrays(archive: Any, path: Path, data: Data, scratch: Path) -> Raw:
    """Read arrays by name; arguments and errors as of `read_npz`.

    Args:
        archive: gives an array for each of the names in its `files`.
        path: what they are called in messages.
        data: as of `read_npz`.
        scratch: folder for large arrays.
    """
    names = tuple(archive.files)
    x_name = _name(names, _input_names(data), "inputs", path)
    y_name = _name(names, (data.label,) if data.label != "label" else LABEL_NAMES, "labels", path)
    if x_name == y_name:
        raise DataError(f"data.label must not be among data.features, got {y_name!r} for both. Name two arrays.")
    has_test = _has_test(names, x_name, y_name, path)
    x_names, y_names = (_with_twin(name, names, has_test) for name in (x_name, y_name))
    labels = [decoded(_array(archive, name, path)) for name in y_names]
    for name, y in zip(y_names[1:], labels[1:], strict=True):
        _refuse_empty(y, name, path)
    parts, taken = _inputs(archive, x_names, data, path)
    stored = stored_type(parts[0].dtype, data.layout)
    inputs, num_train = _filled(parts, sum(map(len, parts)), stored, scratch), len(parts[0])
    scaling = _kept(parts, inputs)
    embeddings = _embeddings(archive, (x_name, y_name), has_test, data, path, scratch)
    _refuse_kinds(labels, path)
    if len({y.shape[1:] for y in labels}) > 1:
        raise DataError(f"labels of {path} must have one shape in training and test, got {_shapes(labels)}. Mend them.")
    if len(labels[0]) != num_train:
        raise DataError(
            f"inputs and labels must be as many, got {num_train} in {x_name!r} and {len(labels[0])} in {y_name!r}. "
            "Mend the data."
        )
    if has_test and len(labels[1]) != len(inputs) - num_train:
        raise DataError(
            f"inputs and labels must be as many, got {len(inputs) - num_train} in {x_names[1]!r} and {len(labels[1])} "
            f"in {y_names[1]!r}. Mend the data."
        )
    read = [name for pair in zip(x_names, y_names, strict=True) for name in pair]
    return Raw(
        inputs=inputs,
        labels=np.concatenate(labels),
        num_train=num_train,
        embeddings=embeddings,
        tokens=OWN_IDS if data.layout == "tokens" else "",
        scaling=scaling,
        taken=taken,
        facts=_facts(names, read, inputs, data),
    )


def _refuse_kinds(labels: list[Array], path: Path) -> None:
    """NumPy joins numbers and texts to texts, where 1.0 and 1 are two classes; whole numbers do no harm."""
    if len({y.dtype.kind in "fb" for y in labels}) > 1 and any(y.dtype.kind not in "fiub" for y in labels):
        got = " and ".join(str(y.dtype) for y in labels)
        raise DataError(f"labels of {path} must be numbers or texts in training and test, got {got}. Write them alike.")


def _facts(names: tuple[str, ...], read: list[str], inputs: Array, data: Data) -> SourceFacts:
    """Which arrays are read, and what lies beside them."""
    embeddings = () if data.embeddings is None else (data.embeddings, _twin(data.embeddings, names))
    left = tuple(name for name in names if name not in (*read, *embeddings))
    stray = [name for name in left if "test" in name.lower()]
    role: Role = "image" if inputs.ndim == 4 else "feature"
    return SourceFacts(
        files=tuple(read[:2]),
        test_files=tuple(read[2:]),
        left_alone=left,
        columns=(
            ColumnFacts(name=read[0], role=role, width=math.prod(inputs.shape[1:])),
            ColumnFacts(name=read[1], role="label"),
            *(ColumnFacts(name=name, role="embeddings") for name in embeddings[:1]),
        ),
        warnings=(
            *(_not_read(name, read) for name in (stray[:1] if len(read) == 2 else ())),
            *(_other(name, read[0], "features") for name in left if name in INPUT_NAMES),
            *(_other(name, read[1], "label") for name in left if name in LABEL_NAMES),
        ),
    )


def _other(name: str, read: str, key: str) -> str:
    return f"array {name!r} is not read, as {read!r} is. Name the one that is meant in data.{key}."


def _not_read(stray: str, read: list[str]) -> str:
    return (
        f"array {stray!r} is not read: a test set must be called {_twin(read[0], ())!r} and {_twin(read[1], ())!r}, or "
        "the test part is drawn from the training set. Rename the arrays, or leave them out."
    )


def _embeddings(
    archive: Any, taken: tuple[str, ...], has_test: bool, data: Data, path: Path, scratch: Path
) -> Array | None:
    """Embeddings as float32, training first; each array of the file is held once."""
    if data.embeddings is None:
        return None
    if data.embeddings in taken:
        raise DataError(
            f"data.embeddings must be an array of its own, got {data.embeddings!r}, which is input or label. Name "
            "another."
        )
    parts = []
    for name in _with_twin(data.embeddings, tuple(archive.files), has_test):
        if name not in archive.files:
            raise DataError(
                f"{path} must hold the embeddings {name}, got {', '.join(archive.files)}. Mend data.embeddings."
            )
        parts.append(_array(archive, name, path))
        if parts[-1].dtype.kind not in "fiub" or parts[-1].ndim != 2:
            raise DataError(
                f"array {name!r} of {path} must hold a vector of numbers for each example, got {parts[-1].dtype} of "
                f"shape {parts[-1].shape}. Reshape it."
            )
    if len({part.shape[1] for part in parts}) > 1:
        raise DataError(
            f"embeddings of {path} must have one length in training and test, got {_shapes(parts)}. Mend them."
        )
    precision.refuse_lost(partial(_blocks, parts), sum(map(len, parts)), f"data.embeddings {data.embeddings!r}")
    return _filled(parts, sum(map(len, parts)), np.dtype(np.float32), scratch)


def _inputs(archive: Any, names: list[str], data: Data, path: Path) -> tuple[list[Array], str]:
    """The arrays of inputs, and what they were taken for without a layout."""
    first, taken = _examples(archive, names[0], data, path)
    parts = [first, *(_examples(archive, name, data, path)[0] for name in names[1:])]
    stored = stored_type(first.dtype, data.layout)
    for name, rest in zip(names[1:], parts[1:], strict=True):
        _refuse_empty(rest, name, path)
        if rest.shape[1:] != first.shape[1:] or stored_type(rest.dtype, data.layout) != stored:
            got = f"{first.dtype} {first.shape[1:]} and {rest.dtype} {rest.shape[1:]}"
            raise DataError(
                f"inputs of {path} must have one type and shape in training and test, got {got}. Mend them."
            )
    return parts, taken


def _kept(parts: list[Array], inputs: Array) -> precision.Scaling:
    """How the inputs are stored: those that float32 would spoil are overwritten."""
    if inputs.dtype != np.float32:
        return precision.Scaling()
    return precision.kept(inputs, partial(_blocks, parts), len(parts[0]))


def _blocks(parts: list[Array]) -> Iterator[tuple[int, int, Array]]:
    """The arrays block by block, each with its first row and column."""
    row = 0
    for part in parts:
        for start in range(0, len(part), COPY_ROWS):
            yield row + start, 0, part[start : start + COPY_ROWS]
        row += len(part)


def _filled(parts: list[Array], num_rows: int, stored: np.dtype[Any], scratch: Path) -> Array:
    only = parts[0]
    if len(parts) == 1 and only.dtype == stored and only.flags.c_contiguous:
        return only
    inputs = allocate((num_rows, *only.shape[1:]), stored, scratch)
    row = 0
    for part in parts:
        for start in range(0, len(part), COPY_ROWS):
            block = part[start : start + COPY_ROWS]
            with np.errstate(over="ignore"):  # infinity is found, and refused, with its place
                inputs[row : row + len(block)] = block
            row += len(block)
    return inputs


def _examples(archive: Any, name: str, data: Data, path: Path) -> tuple[Array, str]:
    """The examples (n, ...) in the shape that networks get, and what they were taken for without a layout."""
    x, where = _array(archive, name, path), f"array {name!r} of {path}"
    if x.dtype.kind not in "fiub":
        raise DataError(f"{where} must hold numbers, got {x.dtype}. Encode them.")
    if data.layout == "tokens":
        check_ids(x, where)
    return arranged(x, data.layout, where, axis=1), taken_for(x.shape[1:], x.dtype)


def _open(file: BinaryIO, path: Path) -> Any:
    try:
        archive = np.load(file, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is empty, truncated or no .npz file. Write it again.") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(
            f"{path} must be an .npz file, got a single array. Write it with numpy.savez(path, x=..., y=...)."
        )
    return archive


def _array(archive: Any, name: str, path: Path) -> Array:
    try:
        array: Array = archive[name]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"array {name!r} of {path} is damaged, or holds objects instead of numbers. Write it again."
        ) from error
    if array.ndim == 0:
        raise DataError(
            f"array {name!r} of {path} must have a row for each example, got a single value. Write it again."
        )
    return array


def _input_names(data: Data) -> tuple[str, ...]:
    if data.features is not None and len(data.features) != 1:
        raise DataError(
            f"data.features of an .npz file must be one array, got {list(data.features)}. Join the arrays beforehand."
        )
    return data.features or INPUT_NAMES


def _name(names: tuple[str, ...], wanted: tuple[str, ...], what: str, path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    listed = " or ".join(filter(None, (", ".join(wanted[:-1]), wanted[-1])))
    raise DataError(
        f"{path} must hold {what} as {listed}, got {', '.join(names) or 'nothing'}. "
        f"Set data.{'label' if what == 'labels' else 'features'} to the array's name."
    )


def _has_test(names: tuple[str, ...], x_name: str, y_name: str, path: Path) -> bool:
    has_x, has_y = (_twin(name, names) in names for name in (x_name, y_name))
    if has_x != has_y:
        there, missing = (_twin(name, names) for name in ((x_name, y_name) if has_x else (y_name, x_name)))
        raise DataError(f"{path} holds {there} but no {missing}. Add it, or leave both out.")
    return has_x


def _twin(name: str, names: tuple[str, ...]) -> str:
    """What the test array to a training array is called: `x_test` to `x`, and to `x_train`."""
    longer, replaced = f"{name}_test", name.replace("train", "test")
    return replaced if "train" in name and longer not in names else longer


def _with_twin(name: str, names: tuple[str, ...], has_test: bool) -> list[str]:
    return [name, _twin(name, names)] if has_test else [name]


def _refuse_empty(array: Array, name: str, path: Path) -> None:
    if len(array) == 0:
        raise DataError(
            f"array {name!r} of {path} must have a row for each example, got none. Give a test set with examples, or "
            "leave it out: a test part is then drawn from the training set."
        )


def _shapes(arrays: list[Array]) -> str:
    return " and ".join(str(array.shape[1:]) for array in arrays)
