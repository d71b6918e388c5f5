"""What every source gives: plain arrays of inputs and labels, and how they are checked before they are cached.

A reader of a format fills a `Raw`; `checked` refuses numbers that are not finite and labels that make no classes, and
turns labels into targets. So every format has the same checks and the same sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.data import labels as labelling
from subsettune.data import precision
from subsettune.data.columns import SourceFacts
from subsettune.data.mendable import MendableDataError
from subsettune.errors import DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a column says of the part of each row: a group, a time, or the part itself.

    Args:
        values: (n,) int64 places in `names`, or float64 numbers.
        names: of the groups, or of the parts; empty of numbers.
    """

    values: Array
    names: tuple[str, ...] = ()


Categories = tuple[str | None, ...]  # names of the codes 0, 1, ..., None for what is missing
CHECK_BYTES = 2**24  # of inputs looked at in one go
MANY = 20  # classes: numbers with gaps that are more, or go up to more, may be a quantity
EACH = 5  # examples of a class that a number with gaps beside it names: of quantities some values are rarer


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Examples as they were read.

    Args:
        inputs: (n, *shape), uint8 or float32, or (n, t) int32 token ids; the training file's rows first.
        labels: (n,) integers, texts or floats, or (n, m) floats.
        num_train: rows of the training file.
        num_validation: rows of the official validation file, which follow them; those of the test file come last.
        classes: names of the classes 0, 1, ... where the source knows them.
        columns: names of the inputs, where they are columns.
        categories: of each column, empty for one of numbers; () where all are numbers.
        embeddings: (n, e) float32 beside the inputs, for selectors.
        tokens: what the inputs' texts were cut into, or `ids` of the user's own token ids; empty of numbers.
        vocabulary: the words that have an id of their own, in the order of their ids.
        scaling: how the inputs are stored, where float32 alone would lose what varies in them.
        taken: what an example was taken for, where its shape leaves that open: see `layout.taken_for`.
        imputed: places and names of the columns in which NaN is a missing number that is filled later.
        marks: (n,) what the split goes by: see `split_columns.Marks`.
        facts: of the source, as far as its reader knows more than the arrays say.
    """

    inputs: Array
    labels: Array
    num_train: int
    num_validation: int = 0
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    categories: tuple[Categories, ...] = ()
    embeddings: Array | None = None
    tokens: str = ""
    vocabulary: tuple[str, ...] = ()
    scaling: precision.Scaling = precision.Scaling()
    taken: str = ""
    imputed: tuple[tuple[int, str], ...] = ()
    marks: Marks | None = None
    facts: SourceFacts | None = None


def checked(raw: Raw, kind: str) -> tuple[Array, Array, tuple[str, ...]]:
    """Check what was read and turn labels into targets.

    Args:
        raw: of a source.
        kind: `classification`, `regression` or `multilabel`.

    Returns:
        inputs (n, *shape) uint8, float32 or int32, C-contiguous; targets (n,) int64, or (n,) or (n, m) float32 or
        float64 of a regression, or (n, m) float32 0 and 1 of several labels; class names.

    Raises:
        DataError: there are too few rows, numbers that are not finite, embeddings that do not fit, or labels that do
            not make classes.
    """
    if len(raw.inputs) != len(raw.labels):
        raise DataError(
            f"inputs and labels must be as many, got {len(raw.inputs)} and {len(raw.labels)}. Mend the data."
        )
    if raw.num_train < 2:
        raise DataError(f"data must have at least 2 examples to train on, got {raw.num_train}. Add examples.")
    if raw.inputs[0].size == 0:
        raise DataError(f"inputs must hold numbers, got the shape {raw.inputs.shape}. Give each example a feature.")
    inputs = np.ascontiguousarray(raw.inputs)
    assert inputs.dtype in ((np.int32,) if raw.tokens else (np.uint8, np.float32)), inputs.dtype
    if inputs.dtype == np.float32:
        _refuse_not_finite(inputs, "features", raw.columns, [place for place, _ in raw.imputed])
    if raw.embeddings is not None:
        _check_embeddings(raw.embeddings, len(inputs))
    _refuse_constant(inputs)
    if kind == "regression":
        return inputs, _values(raw), ()
    if kind == "multilabel":
        return inputs, _labels(raw), ()
    return inputs, *_classes(raw)


def _check_embeddings(embeddings: Array, num_rows: int) -> None:
    assert embeddings.dtype == np.float32, embeddings.dtype
    if embeddings.ndim != 2 or len(embeddings) != num_rows or embeddings.shape[1] == 0:
        raise DataError(
            f"data.embeddings must have a row of numbers for each of {num_rows:,} examples, got the shape "
            f"{embeddings.shape}. Write a vector for each example."
        )
    _refuse_not_finite(embeddings, "embeddings", ())


def _refuse_not_finite(inputs: Array, what: str, columns: tuple[str, ...], filled: Sequence[int] = ()) -> None:
    flat = inputs.reshape(len(inputs), -1)
    block = max(1, CHECK_BYTES // flat[0].nbytes)
    for start in range(0, len(flat), block):
        finite = np.isfinite(flat[start : start + block])
        finite[:, filled] |= np.isnan(flat[start : start + block, filled])
        if finite.all():
            continue
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        name = repr(columns[column]) if columns else str(column)
        place = tuple(int(i) for i in np.unravel_index(column, inputs.shape[1:]))
        where = f"column {name}" if len(place) == 1 else f"place {place} of an example {inputs.shape[1:]}"
        can_be_filled = columns and not columns[column].endswith("]") and np.isnan(flat[start + row, column])
        remedy = " (data.impute: median does)" if can_be_filled else ""  # of a number, and not of a list of them
        message = (
            f"{what} must be finite float32 numbers, got NaN, infinity or nothing in {where}, row "
            f"{start + row}. Fill it{remedy}, or drop the row or the column."
        )
        raise MendableDataError(message, {"impute": "median"}) if can_be_filled else DataError(message)


def _refuse_constant(inputs: Array) -> None:
    """Examples that are all the same tell nothing of their labels. Looks no further than the first that differs."""
    flat = inputs.reshape(len(inputs), -1)
    block = max(1, CHECK_BYTES // flat[0].nbytes)
    if all((flat[start : start + block] == flat[0]).all() for start in range(0, len(flat), block)):
        raise DataError(
            f"inputs must vary, got the same example {len(inputs):,} times. There is nothing to learn. Mend the data."
        )


def _values(raw: Raw) -> Array:
    labels = raw.labels
    if labels.dtype.kind not in "fiub":
        raise DataError(f"labels of a regression must be numbers, got {labels.dtype}. Choose a classification metric.")
    if labels.ndim not in (1, 2) or labels[0].size == 0:
        raise DataError(f"labels of a regression must be (n,) or (n, m), got shape {labels.shape}. Reshape them.")
    finite = np.isfinite(labels.reshape(len(labels), -1)).all(axis=1)
    if not finite.all():
        raise DataError(f"labels must be finite, got NaN or infinity in row {int(np.argmin(finite))}. Drop such rows.")
    train = labels[: raw.num_train].reshape(raw.num_train, -1)
    constant = np.flatnonzero(train.min(axis=0) == train.max(axis=0))
    if len(constant):
        which = f" in target {int(constant[0])}" if labels.ndim == 2 else ""
        raise DataError(f"labels must vary, got only {train[0, constant[0]]:g}{which}. There is nothing to learn.")
    return precision.targets(labels, raw.num_train)


def _labels(raw: Raw) -> Array:
    """(n, m) float32: which labels an example has."""
    labels = raw.labels
    if labels.dtype.kind not in "fiub" or labels.ndim != 2 or labels[0].size == 0:
        raise DataError(
            f"labels of a multilabel task must be (n, m) of 0 and 1, got {labels.dtype} of shape {labels.shape}. Write "
            "a row of m zeros and ones for each example, one of each label, or leave kind out."
        )
    is_mark = np.isin(labels, (0, 1)).all(axis=1)
    if not is_mark.all():
        row = int(np.argmin(is_mark))
        raise DataError(f"labels of a multilabel task must be 0 or 1, got {labels[row].tolist()} in row {row}.")
    train = labels[: raw.num_train].astype(bool)
    constant = np.flatnonzero(train.all(axis=0) | ~train.any(axis=0))
    if len(constant):
        which = int(constant[0])
        everywhere = "every" if train[0, which] else "no"
        raise DataError(f"labels must vary, got label {which} in {everywhere} example. Leave it out.")
    return labels.astype(np.float32)


def _classes(raw: Raw) -> tuple[Array, tuple[str, ...]]:
    labels = raw.labels
    if labels.ndim != 1:
        raise DataError(
            f"labels of a classification must be one per example, got shape {labels.shape}. Use class numbers."
        )
    if labels.dtype.kind in "OUST":
        return _named(labels)
    if labels.dtype.kind not in "fiub":
        raise DataError(f"labels must be class numbers or texts, got {labels.dtype}. Number the classes 0, 1, 2, ...")
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels) & (labels == np.floor(labels))):
        bad = float(labels[~(np.isfinite(labels) & (labels == np.floor(labels)))][0])
        raise DataError(f"labels of a classification must be whole numbers, got {bad}. For numbers choose metric mse.")
    _refuse_range(labels)
    numbers = labels.astype(np.int64)
    found, counts = np.unique(numbers, return_counts=True)
    if not raw.classes and _are_names(found, counts):
        return np.searchsorted(found, numbers).astype(np.int64), tuple(map(str, found.tolist()))
    if numbers.min() < 0:
        return _signed(numbers, raw.classes)
    return numbers, _populated(numbers, raw.classes)


def _are_names(found: Array, counts: Array) -> bool:
    """Whether whole numbers that are not 0, 1, ..., C - 1 name classes: few, each of several examples.

    One number below 0 among others names none: it usually marks rows without a label.

    Args:
        found: (C,) the numbers that there are, sorted.
        counts: (C,) examples of each.
    """
    if found[0] == 0 and found[-1] == len(found) - 1:
        return False  # they are the classes themselves
    return 2 <= len(found) <= MANY and counts.min() >= EACH and (found < 0).sum() != 1


def _refuse_range(labels: Array) -> None:
    """Numbers beyond int64 would come out as others."""
    least, most = float(labels.min()), float(labels.max())
    if labels.dtype.kind in "fu" and (most >= 2.0**63 or least < -(2.0**63)):
        raise DataError(
            f"labels must be class numbers 0, 1, 2, ..., got {most:g}. Number the classes, or write them as texts."
        )


def _signed(numbers: Array, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """Classes of labels of which some are below 0: -1 and 1 are two, and nothing else is."""
    found = np.unique(numbers)
    if found.tolist() == [-1, 1] and not names:
        return (numbers > 0).astype(np.int64), ("-1", "1")
    row = int(np.argmax(numbers < 0))
    if found[0] == -1 and found[1:].min(initial=0) >= 0:
        raise DataError(
            f"labels must say which class -1 is, got it in row {row} among classes from 0: it usually marks rows "
            "without a label. Drop these rows, or number the classes 0, 1, 2, ..."
        )
    raise DataError(
        f"labels must be 0 or more, got {int(numbers[row])} in row {row}. Number the classes 0, 1, 2, ..., or write "
        "them as texts."
    )


def _named(labels: Array) -> tuple[Array, tuple[str, ...]]:
    """Classes in the order of their names."""
    if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels):
        odd = next(label for label in labels if not isinstance(label, str))
        raise DataError(f"labels must be all class numbers or all texts, got {odd!r} among them. Mend the labels.")
    numbers, names = labelling.named(list(map(str, labelling.decoded(labels).tolist())))
    return numbers, _populated(numbers, names)


def _populated(numbers: Array, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse gaps and a single class; name the classes."""
    present = np.unique(numbers)
    if len(present) < 2:
        only = names[present[0]] if present[0] < len(names) else int(present[0])
        raise DataError(f"labels must have at least 2 classes, got only {only}. There is nothing to tell apart.")
    if names and present[-1] >= len(names):
        raise DataError(
            f"labels must be below {len(names)}, the number of class names, got {int(present[-1])}. "
            "Mend the labels or the names."
        )
    num_classes = len(names) or int(present[-1]) + 1
    if len(present) < num_classes:
        gap = int(np.argmax(np.append(present, -1) != np.arange(len(present) + 1)))
        if names:
            raise DataError(f"every class that is listed must have rows, got none of {names[gap]!r}. Take it out.")
        remedy = "Renumber them" if num_classes <= MANY else "Renumber them, or choose metric mse for a quantity"
        raise DataError(f"labels must use every class from 0 to {num_classes - 1}, got none of {gap}. {remedy}.")
    return names or tuple(map(str, range(num_classes)))
