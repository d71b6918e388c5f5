"""Parts by a column: whole groups, the latest rows, or what the column itself says.

Symbols: n rows of the training file, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from subsettune.data.arrow_types import is_date
from subsettune.data.categories import is_text
from subsettune.data.labels import plain_name
from subsettune.data.parquet_files import File, is_number, row_place
from subsettune.data.raw import Array, Marks
from subsettune.data.split import check_part, draw, shares_of
from subsettune.errors import DataError
from subsettune.task import Split

DRAWS = 64  # of groups, of which the one is taken whose parts have nearly the classes of all rows
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}


def marks_of(files: list[File], name: str) -> Marks:
    """What a column of all files says of the part of each row.

    Raises:
        DataError: a row has nothing there, or the column holds neither texts nor numbers nor dates.
    """
    field = files[0].schema.field(name)
    column = pa.chunked_array(
        [chunk for file in files for chunk in file.column(name).cast(field.type).chunks], field.type
    )
    missing = np.asarray(column.is_null(nan_is_null=pa.types.is_floating(field.type)).to_numpy())
    if missing.any():
        raise _nothing(name, row_place(files, int(np.argmax(missing))))
    if is_text(field.type):
        return _marks_of_texts(column, name, files)
    if not is_number(field.type) and not is_date(field):
        raise DataError(
            f"column {name!r} must hold texts, numbers or dates to split by it, got {field.type}. Name another."
        )
    is_whole = pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
    return Marks(values=np.asarray(column.to_numpy(), dtype=np.int64 if is_whole else np.float64))


def _marks_of_texts(column: pa.ChunkedArray, name: str, files: list[File]) -> Marks:
    """Places of texts in the order in which they come first; what nobody sees (a space behind) makes no group."""
    encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    called = [plain_name(str(text)) for text in encoded.dictionary.to_pylist()]
    places = {text: place for place, text in enumerate(dict.fromkeys(called))}
    values = np.array([places[text] for text in called], dtype=np.int64)[encoded.indices.to_numpy()]
    if "" in places:
        raise _nothing(name, row_place(files, int(np.argmax(values == places[""]))))
    return Marks(values=values, names=tuple(places))


def _nothing(name: str, where: str) -> DataError:
    return DataError(f"column {name!r} must have a value in each row to split by it, got none in {where}. Fill it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that are to be divided.

    Args:
        targets: (n_all,) int64 classes, or values of a regression.
        marks: (n_all,) of the column.
        names: of the marks, where they are places.
        sizes: rows of the training, validation and test file, in this order.
        class_names: of all classes; empty for a regression.
    """

    targets: Tensor
    marks: Tensor
    names: tuple[str, ...]
    sizes: tuple[int, int, int]
    class_names: tuple[str, ...]

    @property
    def from_files(self) -> dict[str, Tensor]:
        """Rows of the official validation and test set."""
        train, validation, test = self.sizes
        starts = {"validation": (train, validation), "test": (train + validation, test)}
        return {part: torch.arange(first, first + size) for part, (first, size) in starts.items() if size}


def divide_by_column(rows: Rows, split: Split) -> dict[str, Tensor]:
    """Rows of each part, sorted; errors as of `split.divide`, and a column that does not suit the split."""
    shares = shares_of(split, has_test_file=bool(rows.sizes[2]), has_validation_file=bool(rows.sizes[1]))
    marks = rows.marks[: rows.sizes[0]].numpy()
    if split.by is not None:
        _refuse_shared(rows, split.by)
        found = _by_groups(marks, rows, shares, split)
    elif split.time is not None:
        found = _by_time(marks, rows, shares, split.time)
    else:
        found = _by_name(marks, rows, shares, split)
    parts = {name: torch.from_numpy(np.sort(chosen)) for name, chosen in found.items()} | rows.from_files
    for name, chosen in parts.items():
        if not len(chosen):
            raise DataError(
                f"the {name} part must have rows, got none by split of {split.reads!r}. Choose other shares."
            )
        if rows.class_names:
            check_part(rows.targets[chosen], rows.class_names, f"the {name} part", _advice(split))
    return parts


def _advice(split: Split) -> str:
    if split.by is not None:
        return "Choose another split.seed or larger shares, or drop the class."
    return "Choose larger shares, or drop the class."


def _refuse_shared(rows: Rows, name: str) -> None:
    """A group of the training file must not stand in an official validation or test file."""
    known = rows.marks[: rows.sizes[0]]
    for part, chosen in rows.from_files.items():
        twice = rows.marks[chosen][torch.isin(rows.marks[chosen], known)]
        if len(twice):
            raise DataError(
                f"groups of {name!r} must stand in one file each, got {_called(rows.names, twice[0].item())!r} in the "
                f"training and the {part} file. Move its rows into one of them."
            )


def _called(names: Sequence[str], mark: float) -> object:
    return names[int(mark)] if names else mark


def _by_groups(marks: Array, rows: Rows, shares: Mapping[str, float], split: Split) -> dict[str, Array]:
    """Whole groups, drawn from the seed: of some draws the one whose parts are nearest to all rows in their classes."""
    _, group = np.unique(marks, return_inverse=True)
    num_groups = int(group.max()) + 1
    if num_groups <= len(shares):
        raise DataError(
            f"column {split.by!r} must have at least {len(shares) + 1} groups, one for each part, got {num_groups}. "
            "Name another column."
        )
    num_classes = max(1, len(rows.class_names))
    labels = rows.targets[: len(marks)].numpy() if rows.class_names else np.zeros(len(marks), dtype=np.int64)
    counts = np.bincount(group * num_classes + labels, minlength=num_groups * num_classes)
    counts = counts.reshape(num_groups, num_classes)
    rng = torch.Generator().manual_seed(split.seed)
    best, least = None, np.inf
    for _ in range(DRAWS):
        order = torch.randperm(num_groups, generator=rng).numpy()
        drawn = _cut(counts[order].sum(axis=1), shares)
        off = _distance(counts[order], drawn, shares)
        if off < least:
            best, least = (order, drawn), off
    assert best is not None
    part_of = np.empty(num_groups, dtype=np.int64)
    part_of[best[0]] = best[1]
    return _named(part_of[group], shares)


def _cut(sizes: Array, shares: Mapping[str, float]) -> Array:
    """(G,) which part each group of an order comes into: one after the other until the part has nearly its share."""
    ends, total = np.cumsum(sizes), sizes.sum()
    parts, first = np.full(len(sizes), len(shares)), 0
    for i, share in enumerate(shares.values()):
        before = ends[first - 1] if first else 0
        upto = int(np.argmin(np.abs(ends[first:] - before - share * total))) + first + 1
        upto = min(max(upto, first + 1), len(sizes) - (len(shares) - i))
        parts[first:upto], first = i, upto
    return parts


def _distance(counts: Array, parts: Array, shares: Mapping[str, float]) -> float:
    """How far the parts are from their shares of each class; far beyond all others where a part lacks a class."""
    wanted = [*shares.values(), 1 - sum(shares.values())]
    total = counts.sum(axis=0)
    found = np.stack([counts[parts == i].sum(axis=0) for i in range(len(wanted))])
    lacking = float(((found == 0) & (total > 0)).sum())
    return lacking + float(np.abs(found / np.maximum(total, 1) - np.array(wanted)[:, None]).mean())


def _by_time(marks: Array, rows: Rows, shares: Mapping[str, float], name: str) -> dict[str, Array]:
    """The latest rows are the test part, those before the validation part; rows of one time stay together."""
    if rows.names:
        raise DataError(
            f"column {name!r} must hold dates or numbers to split by time, got texts as {rows.names[0]!r}. Say how "
            f"its dates are written: data.date_formats: {{{name}: '%d.%m.%Y'}}."
        )
    times, counts = np.unique(marks, return_counts=True)
    if len(times) <= len(shares):
        raise DataError(
            f"column {name!r} must have at least {len(shares) + 1} times, one for each part, got {len(times)}. Name "
            "another column."
        )
    part_of = _cut(counts[::-1], shares)[::-1]
    return _named(part_of[np.searchsorted(times, marks)], shares)


def _by_name(marks: Array, rows: Rows, shares: Mapping[str, float], split: Split) -> dict[str, Array]:
    """Parts that the column names; those that it does not are drawn from its training rows."""
    if not rows.names:
        raise DataError(f"column {split.column!r} must name parts (train, validation, test), got numbers. Write texts.")
    called = [PARTS.get(plain_name(name).lower(), "") for name in rows.names]
    odd = [name for name, part in zip(rows.names, called, strict=True) if not part]
    if odd:
        raise DataError(
            f"column {split.column!r} must hold train, validation or test in each row, got {odd[0]!r}. Mend it."
        )
    part_of = np.array(called)[marks]
    found = {part: np.flatnonzero(part_of == part) for part in ("train", "validation", "test")}
    for part in ("validation", "test"):
        if len(found[part]) and part not in shares:
            raise DataError(
                f"column {split.column!r} must not name {part} rows where there is a {part} file. Remove one of them."
            )
    if len(found["test"]) and split.test is not None:
        raise DataError(f"split.test must be null where column {split.column!r} names test rows. Remove the key.")
    left = {part: share for part, share in shares.items() if not len(found[part])}
    if left and len(found["train"]):
        found |= _drawn(found["train"], rows, left, split.seed)
    return {part: chosen for part, chosen in found.items() if part in shares or part == "train"}


def _drawn(train: Array, rows: Rows, shares: Mapping[str, float], seed: int) -> dict[str, Array]:
    """Parts drawn from training rows, by class as `split.divide` does."""
    found = draw(rows.targets[torch.from_numpy(train)], shares, seed, rows.class_names)
    return {name: train[chosen.numpy()] for name, chosen in found.items()}


def _named(part_of: Array, shares: Mapping[str, float]) -> dict[str, Array]:
    return {name: np.flatnonzero(part_of == i) for i, name in enumerate((*shares, "train"))}
