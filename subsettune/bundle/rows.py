"""The rows that a bundle's policy trains on, and data of others held against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from subsettune.bundle import files
from subsettune.config import must
from subsettune.errors import BundleError
from subsettune.storage import Folder

if TYPE_CHECKING:
    from subsettune.data import TaskData

CLOSE = 1e-5  # relative, of values: files hold float64 where runs may have read float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRows:
    """The training part of a bundle's data: which rows of its training file, and their labels.

    Args:
        index: (N,) int64 rows of the file, each once, in the order of the training part.
        label: (N,) int64 class numbers, or (N,) or (N, m) float64 values; None where nobody knows them.
        num_source: rows of the file.

    Raises:
        BundleError: the rows are not those of a file of so many.
    """

    index: NDArray[np.int64]
    label: NDArray[Any] | None
    num_source: int

    def __post_init__(self) -> None:
        if len(np.unique(self.index)) != len(self.index):
            raise BundleError("rows of the training part must be there once each, got one twice.")
        if not len(self.index) or self.index.min() < 0 or self.index.max() >= self.num_source:
            raise BundleError(f"rows of the training part must be between 0 and {self.num_source - 1:,}.")
        if self.label is not None and len(self.label) != len(self.index):
            raise BundleError(f"labels must be {len(self.index):,}, one for each row, got {len(self.label):,}.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrainingRows):
            return NotImplemented
        labels = (self.label is None and other.label is None) or (
            self.label is not None and other.label is not None and np.array_equal(self.label, other.label)
        )
        return labels and self.num_source == other.num_source and np.array_equal(self.index, other.index)

    def __hash__(self) -> int:
        return hash((self.index.tobytes(), self.num_source))

    @classmethod
    def of(cls, data: TaskData) -> TrainingRows:
        """Those of the data of a task, whose rows are there once."""
        part = data.train
        knows = data.num_classes or data.num_outputs > 1 or part.all_targets.stride(0) != 0
        label = part.targets.cpu().numpy() if knows else None
        if label is not None:
            label = label.astype(np.int64 if label.dtype.kind in "iub" else np.float64)
        rows = part.rows.cpu().numpy().astype(np.int64)
        return cls(index=rows, label=label, num_source=data.num_source_examples)

    def to_parquet(self) -> bytes:
        """The file of a bundle."""
        label = None if self.label is None else pa.array(list(self.label) if self.label.ndim == 2 else self.label)
        return files.rows_to_parquet(pa.array(self.index), label, self.num_source)

    @classmethod
    def from_parquet(cls, folder: Folder, raw: bytes) -> TrainingRows:
        """What `to_parquet` wrote.

        Raises:
            BundleError: it is damaged.
        """
        table, num_source = files.rows_from_parquet(folder, raw)
        label = None
        if "label" in table.column_names:
            column = table["label"]
            label = np.array(column.to_pylist()) if column.type == files.LABELS[-1] else column.to_numpy().copy()
        return cls(index=table["index"].to_numpy().copy(), label=label, num_source=num_source)

    def refuse_other_length(self, length: int) -> None:
        """Refuse data of another number of rows than the file has."""
        if length != self.num_source:
            advice = "Give the data as the study read them, rows that are held out included, or use bundle.transfer."
            raise BundleError(
                must("data", f"the {self.num_source:,} rows that the bundle was made for", length, advice)
            )

    def refuse_other_labels(self, labels: Any, classes: Sequence[str]) -> None:
        """Refuse labels that differ at a row of the training part.

        Args:
            labels: (num_source,) or (num_source, m) of the data: class names, or numbers, or values.
            classes: names of the classes, in their order; empty where there are none.
        """
        given = array_of_labels(labels)
        if len(given) != self.num_source:
            advice = "Give one for each row of the data."
            raise BundleError(must("labels", f"{self.num_source:,} as the data have rows", len(given), advice))
        if self.label is None:
            return
        there = given[self.index]
        if self.label.dtype.kind == "i" and self.label.ndim == 1:
            is_same = _same_classes(there, self.label, classes)
        else:
            there = there.reshape(self.label.shape) if there.size == self.label.size else there
            is_same = _close(there, self.label)
        if not is_same.all():
            place = int(np.flatnonzero(~is_same)[0])
            known = self.label[place]
            known = classes[int(known)] if classes and self.label.ndim == 1 else known
            found, more = _plain(there[place]), int((~is_same).sum()) - 1
            raise BundleError(
                f"labels must be those that the bundle was made for, got {found!r} instead of {_plain(known)!r} in row "
                f"{int(self.index[place]):,} (and {more:,} more that differ). These are other data, or in another "
                "order: use the original ones, or bundle.transfer; or give the right ones as labels=...."
            )


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _same_classes(found: NDArray[Any], known: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Whether labels are those of a bundle: by the names of classes, else by their numbers."""
    if found.ndim != 1:
        return np.zeros(len(known), bool)
    names = {name: number for number, name in enumerate(classes)}
    values, places = np.unique(found.astype(str), return_inverse=True)
    by_name: NDArray[np.bool_] = np.array([names.get(value, -1) for value in values], np.int64)[places] == known
    if by_name.all() or found.dtype.kind not in "iufb":
        return by_name
    by_number: NDArray[np.bool_] = found == known
    return by_number if by_number.sum() > by_name.sum() else by_name


def _close(found: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    if found.shape != known.shape or found.dtype.kind not in "iufb":
        return np.zeros(len(known), bool)
    is_close = np.isclose(found.astype(np.float64), known, rtol=CLOSE, atol=0.0).reshape(len(known), -1)
    return np.asarray(is_close.all(axis=1))


def array_of_labels(labels: Any, what: str = "labels") -> NDArray[Any]:
    """Labels of whatever kind as an array; or `what`.

    Raises:
        BundleError: they are none.
    """
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    found = np.asarray(labels.to_numpy() if hasattr(labels, "to_numpy") else labels)
    if found.ndim == 0 or found.dtype.kind not in "iufbUSO":
        raise BundleError(must(what, "an array of class names, numbers or values", type(labels).__name__))
    return found


def length_of(data: Any) -> int:
    """Rows of data of whatever kind, or the number itself."""
    if isinstance(data, tuple) and data:
        data = data[0]
    if isinstance(data, Mapping) and data:
        data = next(iter(data.values()))
    if isinstance(data, str | bytes | Path):
        raise BundleError(must("data", "the data themselves, or how many rows they have", f"the text {str(data)!r}"))
    if isinstance(data, int | np.integer) and not isinstance(data, bool):
        return int(data)
    shape = getattr(data, "shape", None)
    if shape is not None and len(shape):
        return int(shape[0])
    try:
        return len(data)
    except TypeError as error:
        advice = "Give the data, or how many rows they have."
        raise BundleError(must("data", "something with a length", type(data).__name__, advice)) from error


def labels_in(data: Any, column: str | None) -> Any:
    """Labels that data hold where people look for them; None where there are none.

    Args:
        data: a pair (x, y), a Dataset with `targets` or `labels`, a `TensorDataset`, or a table with the column.
        column: name of the labels in the study's data.
    """
    if isinstance(data, tuple):
        return data[-1] if len(data) > 1 else None
    if isinstance(data, Mapping) or hasattr(data, "column_names") or hasattr(data, "columns"):
        names = list(getattr(data, "column_names", None) or getattr(data, "columns", data))
        return data[column] if column in names else None
    tensors = getattr(data, "tensors", None)
    if isinstance(tensors, tuple):
        return tensors[-1] if len(tensors) > 1 else None
    for name in ("targets", "labels"):
        found = getattr(data, name, None)
        if found is not None and not callable(found) and hasattr(found, "__len__") and len(found) == length_of(data):
            return found
    return None
