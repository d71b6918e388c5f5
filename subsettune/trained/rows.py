"""What a model is asked about, as somebody holds it in Python: a data frame, columns by name, arrays, texts, pictures.

Everything becomes a table in plain Arrow types, or an array of examples. pandas is not needed: a data frame is known by
what it offers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from subsettune.config import FrozenDict, must
from subsettune.data.arrow_types import plain_chunks, plain_schema
from subsettune.data.images import coloured, pixels, resized
from subsettune.data.raw import Array
from subsettune.errors import DataError
from subsettune.task import Csv

GIVEN = "the rows"  # what is not a file is called
FORMS = "a DataFrame, an Arrow table, a dict of columns, or arrays"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Examples as somebody has them.

    Args:
        table: named columns in plain types; None where the examples have no names.
        array: (n, ...) examples; None where there is a table.
        labels: (n,) or (n, m) labels that lie beside an array; None where there are none.
        where: what they are called in messages.
        names_of_rows: of pictures that are files; empty of what has no names.
        all_names: of the columns of a file, of which the table has those that are read; empty where it has all.
        place_of: where a row stands, in words, where lines or the like are counted; None where rows are.
    """

    table: pa.Table | None = None
    array: Array | None = None
    labels: Array | None = None
    where: str = GIVEN
    names_of_rows: tuple[str, ...] = ()
    all_names: tuple[str, ...] = ()
    place_of: Callable[[int], str] | None = None

    def __len__(self) -> int:
        found = self.array if self.table is None else self.table
        return 0 if found is None else len(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns; none of an array."""
        return () if self.table is None else tuple(self.table.schema.names)

    def place(self, row: int) -> str:
        """A row in words."""
        if self.place_of is not None:
            return self.place_of(row)
        return self.names_of_rows[row] if self.names_of_rows else f"row {row} of {self.where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a model looks for in rows.

    Args:
        columns: names of its inputs.
        label: name of the labels.
        is_array: whether its examples are arrays without names of their own.
        is_text: whether its only input is a column of texts.
        forms: how columns are written in .csv files, a `Written` by name.
        csv: how these files are written, where that is not to be found out.
        classes: that the model knows.
        is_picture: whether its examples are pictures.
        size: height and width that these get; None where they keep their own.
        color: what they become.
    """

    columns: tuple[str, ...]
    label: str
    is_array: bool = False
    is_text: bool = False
    forms: FrozenDict = FrozenDict()
    csv: Csv = Csv()
    classes: tuple[str, ...] = ()
    is_picture: bool = False
    size: tuple[int, int] | None = None
    color: str | None = None

    def fitted(self, image: Array) -> Array:
        """Pixels (c, h, w) with the colour and the size that pictures get."""
        return resized(coloured(image, self.color), self.size)


# --- what is in memory ------------------------------------------------------------------------------------------------


def rows_of(given: Any, wanted: Wanted) -> Rows:
    """Rows of what a caller holds.

    Args:
        given: a DataFrame of pandas or of whatever else knows Arrow, an Arrow table, a dict of columns, a list of
            dicts, one a row, an array or tensor (n, ...), a list of texts or of pictures.
        wanted: what the model looks for.

    Raises:
        DataError: it is nothing of these, or does not suit the model.
    """
    if isinstance(given, Rows):
        return given
    if isinstance(given, Mapping):
        return _columns(given, wanted)
    if isinstance(given, list | tuple) and given and all(isinstance(each, Mapping) for each in given):
        return _columns({name: [each.get(name) for each in given] for name in _keys(given)}, wanted)
    table = _table(given)
    if table is not None:
        return Rows(table=plain_table(table))
    if wanted.is_text and _are_texts(given):
        return Rows(table=pa.table({wanted.columns[0]: pa.array(_texts(given), pa.large_string())}))
    if not wanted.is_array:
        kinds = "texts" if wanted.is_text else f"the columns {', '.join(wanted.columns)}"
        advice = (
            f"Give {'a list of texts, ' if wanted.is_text else ''}a DataFrame, an Arrow table or a dict of columns."
        )
        raise DataError(must(GIVEN, f"{kinds}, as the model was trained on", type(given).__name__, advice))
    return Rows(array=_array(given, wanted))


def _keys(given: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Of all rows, in the order in which they come."""
    return list(dict.fromkeys(name for each in given for name in each))


def _columns(given: Mapping[Any, Any], wanted: Wanted) -> Rows:
    """A dict of columns; of a model of arrays the one that has the name of its input."""
    if wanted.is_array and wanted.columns[0] in given and not _is_column(given[wanted.columns[0]]):
        labels = given.get(wanted.label)
        array = _array(given[wanted.columns[0]], wanted)
        return Rows(array=array, labels=None if labels is None else np.asarray(labels))
    if wanted.is_array and wanted.columns[0] not in given:
        advice = "Call it so, or give the array alone."
        raise DataError(must(GIVEN, f"a dict with the key {wanted.columns[0]!r}", list(map(str, given)), advice))
    arrays = {str(name): _column(str(name), values) for name, values in given.items()}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length:,} in {name!r}" for name, length in lengths.items())
        raise DataError(f"columns must be equally long, got {told}. Give each row a value in every column.")
    return Rows(table=plain_table(pa.table(arrays)))


def _is_column(values: Any) -> bool:
    """Whether examples are such as a column of a file holds: encoded pictures, or lists, of several lengths perhaps."""
    first = values[0] if isinstance(values, list | tuple) and values else None
    return isinstance(values, pa.Array | pa.ChunkedArray) or isinstance(first, bytes | dict | list | tuple)


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    try:
        is_deep = isinstance(values, np.ndarray) and values.ndim > 1
        return pa.array(values.tolist() if is_deep else values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"column {name!r} cannot be read: {reason}. Give values of one type.") from error


def _table(given: Any) -> pa.Table | None:
    """An Arrow table of what knows how to become one; None of other things."""
    if isinstance(given, pa.Table):
        return given
    try:
        if isinstance(given, pa.RecordBatch):
            return pa.Table.from_batches([given])
        pandas = sys.modules.get("pandas")  # no one has a frame of a package that is not loaded
        if pandas is not None and isinstance(given, pandas.DataFrame):
            return pa.Table.from_pandas(given, preserve_index=False)
        is_array = isinstance(given, pa.Array | pa.ChunkedArray)
        return pa.table(given) if hasattr(given, "__arrow_c_stream__") and not is_array else None
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(part) for part in error.args).splitlines()[0].rstrip(".")
        raise DataError(f"{GIVEN} cannot be read: {reason}. Give each column values of one type.") from error


def plain_table(table: pa.Table) -> pa.Table:
    """A table in plain types.

    Raises:
        DataError: it has two columns of one name.
    """
    names = table.schema.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{GIVEN} have more than one column {twice[0]!r}. Rename or drop all but one of them.")
    columns = [plain_chunks(column) for column in table.columns]
    schema = plain_schema(table.schema)
    return pa.Table.from_arrays(columns, schema=schema)


def _are_texts(given: Any) -> bool:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray | pa.Array | pa.ChunkedArray):
        return False
    values: Any = given.to_pylist() if isinstance(given, pa.Array | pa.ChunkedArray) else given
    return all(isinstance(each, str) or each is None for each in values)


def _texts(given: Any) -> list[str | None]:
    return list(given.to_pylist() if isinstance(given, pa.Array | pa.ChunkedArray) else given)


def _array(given: Any, wanted: Wanted) -> Array:
    """(n, ...) numbers of an array, a tensor, or a list of arrays or pictures."""
    if isinstance(given, Tensor):
        array: Array = given.detach().cpu().numpy()
        return array
    pillow = sys.modules.get("PIL.Image")
    if isinstance(given, list | tuple) and given and pillow is not None and isinstance(given[0], pillow.Image):
        given = [wanted.fitted(pixels(image, f"picture {i}")) for i, image in enumerate(given)]
    try:
        found = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(f"{GIVEN} must be {FORMS}, of one shape each, got others: {error}.") from error
    if found.dtype.kind not in "fiub" or found.ndim == 0:
        raise DataError(must(GIVEN, FORMS, type(given).__name__, "Give numbers, a row for each example."))
    return found
