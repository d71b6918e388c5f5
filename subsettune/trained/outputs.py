"""A network's outputs in the user's own words, and the user's labels as a network is judged by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from subsettune import config
from subsettune.config import setting
from subsettune.data.csv_files import Written
from subsettune.data.csv_kinds import Kind
from subsettune.data.labels import NUMBER, decoded, plain_name
from subsettune.data.parquet_files import flat_numbers, is_list
from subsettune.data.parquet_labels import listed_names
from subsettune.data.raw import Array
from subsettune.errors import DataError, did_you_mean
from subsettune.trained.rows import Rows

CLASSES_TOLD = 20  # in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a network's outputs stand for.

    Args:
        label: name of the column or array of labels.
        kind: `classification`, `regression` or `multilabel`.
        classes: names, in the order of the outputs; empty of a regression.
        are_numbers: whether classes are whole numbers in the user's data: predictions are then numbers, too.
        are_booleans: whether the classes 0 and 1 are false and true there.
        mean: of the training part's targets, one for each; empty of a classification.
        std: standard deviation, likewise.
        are_wide: whether targets are float64.
        is_single: whether a label is one value, and no list.
        num_labels: that an example may have several of.
        written: how a .csv file has values of a regression; null for what they are.
    """

    label: str
    kind: Literal["classification", "regression", "multilabel"]
    classes: tuple[str, ...] = ()
    are_numbers: bool = False
    are_booleans: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    are_wide: bool = False
    is_single: bool = True
    num_labels: int = setting(0, rule=config.NOT_NEGATIVE)
    written: Kind | None = None

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def num_outputs(self) -> int:
        """Units of the network's last layer."""
        return len(self.classes) or len(self.mean) or self.num_labels

    @property
    def form(self) -> Written:
        """How a .csv file has the labels: classes go by their names."""
        return Written(kind=self.written or "whole") if self.kind == "regression" else Written(kind="text")

    # --- outputs ----------------------------------------------------------------------------------------------------

    def in_units(self, outputs: Tensor) -> Tensor:
        """Outputs (n, M) in the units of the data, as metrics take them; of classes and labels as they are."""
        if self.kind != "regression":
            return outputs
        shaped = outputs.reshape(len(outputs)) if self.is_single else outputs.reshape(len(outputs), -1)
        mean, std = (self._scale(values) for values in (self.mean, self.std))
        return shaped.to(self._type) * std + mean

    def _scale(self, values: tuple[float, ...]) -> float | Tensor:
        return values[0] if self.is_single else torch.tensor(values, dtype=self._type)

    @property
    def _type(self) -> torch.dtype:
        return torch.float64 if self.are_wide else torch.float32

    def words(self, outputs: Tensor) -> Array:
        """(n,) classes as the user calls them, (n, m) labels of 0 and 1, or (n,) or (n, m) values, of outputs."""
        if self.kind == "regression":
            values: Array = outputs.numpy()
            return values
        if self.kind == "multilabel":
            return np.asarray((outputs > 0).long().numpy())
        names = np.array([int(name) for name in self.classes] if self.are_numbers else self.classes)
        found = names[outputs.argmax(dim=1).numpy()]
        return np.asarray(found == 1 if self.are_booleans else found)

    def probabilities(self, outputs: Tensor) -> Array:
        """(n, classes) float64 of outputs (n, M); each row adds up to 1. Of labels (n, m), each by itself.

        Raises:
            DataError: a regression has none.
        """
        if self.kind == "regression":
            raise DataError("probabilities are those of classes, and this model predicts values. Use its predictions.")
        exact = outputs.double()
        found: Array = (exact.sigmoid() if self.kind == "multilabel" else exact.softmax(dim=1)).numpy()
        return found

    # --- labels -----------------------------------------------------------------------------------------------------

    def labels_in(self, rows: Rows) -> Any:
        """The labels that rows hold; None where they hold none, or nothing but gaps."""
        if rows.table is None or self.label not in rows.names:
            return rows.labels
        column = rows.table[self.label]
        return None if column.null_count == len(column) else column

    def targets(self, labels: Any, rows: Rows) -> Tensor:
        """(n,) int64 classes, (n, m) float32 labels of 0 and 1, or (n,) or (n, m) values.

        Args:
            labels: a column or an array.
            rows: that they belong to.

        Raises:
            DataError: a label is missing, or a class that the model does not know, or no number.
        """
        if len(labels) != len(rows):
            raise DataError(f"labels must be as many as the rows, got {len(labels):,} and {len(rows):,}. Mend them.")
        if self.kind != "classification":
            return self._values(labels, rows)
        names = listed_names(rows.table.schema, self.label) if rows.table is not None else ()
        found = self._plain(labels, rows)
        known = {name: place for place, name in enumerate(self.classes)}
        numbers = {value: self._class_of(value, known, names, rows) for value in dict.fromkeys(found)}
        return torch.tensor([numbers[value] for value in found], dtype=torch.int64)

    def _plain(self, labels: Any, rows: Rows) -> list[Any]:
        if isinstance(labels, pa.Array | pa.ChunkedArray):
            found: list[Any] = labels.to_pylist()
        else:
            found = decoded(np.asarray(labels)).tolist()
        if any(value is None or value != value for value in found):
            row = next(i for i, value in enumerate(found) if value is None or value != value)
            raise DataError(
                f"labels must be there in every row or in none, got nothing for {self.label!r} in "
                f"{rows.place(row)}. Drop the column, or such rows."
            )
        return found

    def _class_of(self, value: Any, known: dict[str, int], names: Sequence[str], rows: Rows) -> int:
        """The place of a label among the classes."""
        text = plain_name(value.decode() if isinstance(value, bytes) else str(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            text = str(int(value)) if isinstance(value, bool) and "0" in known else text
            is_number = self.are_numbers and NUMBER.fullmatch(text) and float(text).is_integer()
            text = str(int(float(text))) if is_number else text
        elif float(value).is_integer():
            number = int(value)
            is_place = not self.are_numbers and str(number) not in known
            listed = names or (self.classes if is_place else ())
            text = listed[number] if 0 <= number < len(listed) else str(number)
        if text in known:
            return known[text]
        shown = ", ".join(self.classes[:CLASSES_TOLD]) + (", ..." if len(self.classes) > CLASSES_TOLD else "")
        guess = f"{did_you_mean(text, self.classes)} ".lstrip()
        raise DataError(
            f"labels in {self.label!r} must be classes that the model knows ({shown}), got {value!r} in {rows.where}. "
            f"{guess}Drop the column, or such rows."
        )

    def _values(self, labels: Any, rows: Rows) -> Tensor:
        try:
            array = self._numbers(labels)
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise DataError(f"labels in {self.label!r} of {rows.where} must be numbers: {error}. Mend them.") from error
        wanted = (len(rows),) if self.is_single else (len(rows), self.num_outputs)
        if array.shape != wanted or not np.isfinite(array).all():
            got = "others" if array.shape == wanted else f"shape {array.shape}"
            raise DataError(
                f"labels in {self.label!r} of {rows.where} must be finite numbers of shape {wanted}, got {got}. Drop "
                "the column, or such rows."
            )
        if self.kind == "multilabel" and not np.isin(array, (0, 1)).all():
            row = int(np.argmin(np.isin(array, (0, 1)).all(axis=1)))
            raise DataError(
                f"labels in {self.label!r} of {rows.where} must be 0 or 1, got {array[row].tolist()} in row {row}. "
                "Drop the column, or such rows."
            )
        return torch.from_numpy(array.astype(np.float64 if self.are_wide else np.float32))

    def _numbers(self, labels: Any) -> Array:
        if not isinstance(labels, pa.ChunkedArray):
            return np.asarray(labels, dtype=np.float64)
        if not is_list(labels.type):
            return np.asarray(labels.cast(pa.float64()).to_numpy())
        parts = [flat_numbers(chunk, self.num_outputs, self.label, 0) for chunk in labels.chunks]
        flat = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])
        return flat.astype(np.float64).reshape(len(labels), self.num_outputs)
