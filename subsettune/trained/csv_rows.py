"""Rows of .csv files as a model was trained on them: each column is read in the one way that training found for it.

A few rows cannot tell again what all rows of the training data told (day or month first, decimal commas, names that
look like numbers), so nothing is judged anew: what does not fit is refused with its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.csv_dialect import dialect_of, line_of
from subsettune.data.csv_files import Written, text_blocks
from subsettune.data.csv_kinds import BOOLEAN, COMMA, INFINITE, MISSING, NUMBER, THOUSANDS, TYPES, Kind, converted
from subsettune.data.date_texts import times_of
from subsettune.errors import DataError
from subsettune.task import Csv
from subsettune.trained.rows import Rows, Wanted, plain_table

Place = Callable[[int], str]
WHOLE = r"^[+-]?\d+$"
PATTERNS = {
    "number": rf"(?:{NUMBER})|(?:{INFINITE})",
    "comma": rf"(?:{COMMA})|(?:{WHOLE})|(?:{INFINITE})",
    "boolean": BOOLEAN,
}
RULES = {
    "number": "numbers with a point before decimals",
    "comma": "numbers with a comma before decimals",
    "boolean": "true or false",
}
UNTOLD = Written(kind="text")  # what nobody said anything of


def read_csv(path: Path, wanted: Wanted, limit: int | None = None) -> Rows:
    """Rows of a .csv file, gzipped or not: the columns that a model looks for, and the label if it is there.

    Args:
        path: of the file.
        wanted: what the model looks for, and how it is written.
        limit: the first so many rows.

    Raises:
        DataError: the file is damaged, or a column holds what training could not have read.
    """
    names, blocks = text_blocks(path, wanted.csv)
    chosen = [name for name in names if name in (*wanted.columns, wanted.label)] or list(names[:1])
    texts = pa.Table.from_batches(_first(blocks, limit), pa.schema([(name, pa.string()) for name in names]))
    has_commas = wanted.csv.decimal == "," or any(form.kind == "comma" for form in wanted.forms.values())
    place = partial(_place, path, wanted.csv)
    columns = {name: _typed(texts[name].combine_chunks(), name, place, wanted, has_commas) for name in chosen}
    return Rows(table=plain_table(pa.table(columns)), where=str(path), all_names=names, place_of=place)


def _first(blocks: Iterator[pa.RecordBatch], limit: int | None) -> list[pa.RecordBatch]:
    found, left = [], limit
    for block in blocks:
        found.append(block if left is None else block.slice(0, left))
        left = None if left is None else left - len(found[-1])
        if left == 0:
            break
    return found


def _typed(texts: pa.Array, name: str, place: Place, wanted: Wanted, has_commas: bool) -> pa.Array:
    """A column as what it stands for, null where a value is missing."""
    form = wanted.forms.get(name, UNTOLD)
    if form.kind == "text":
        return converted(texts, "text", _no_dates)
    values = pc.if_else(pc.is_in(texts, value_set=MISSING), None, texts)
    if form.kind == "date":
        return dates_of(values, form.formats, name, place)
    kind: Kind = form.kind if form.kind != "whole" else "comma" if has_commas else "number"
    fits = pc.fill_null(pc.match_substring_regex(values, PATTERNS[kind]), True)
    if not pc.all(fits, min_count=0).as_py():
        row = pc.index(fits, False).as_py()
        raise DataError(
            f"column {name!r} must hold {RULES[kind]}, as in training, got {values[row].as_py()!r} in {place(row)}. "
            "Mend it."
        )
    if form.kind == "whole":
        if wanted.csv.decimal is None:
            _refuse_thousands(values, name, place)
        try:
            return pc.replace_substring_regex(values, r"^\+", "").cast(TYPES["whole"])
        except pa.ArrowInvalid:
            pass  # fractions, or more digits than whole numbers hold
    return converted(texts, kind, _no_dates)


def _refuse_thousands(values: pa.Array, name: str, place: Place) -> None:
    """Of a column that was whole numbers, 1.234 alone is more likely a thousand than a fraction."""
    marked = pc.fill_null(pc.match_substring_regex(values, "[.,]"), False)
    grouped = pc.fill_null(pc.match_substring_regex(values, THOUSANDS), False)
    if pc.any(marked, min_count=0).as_py() and marked.equals(grouped):
        row = pc.index(grouped, True).as_py()
        raise DataError(
            f"column {name!r} must hold whole numbers, as in training, got {values[row].as_py()!r} in "
            f"{place(row)}, which may be thousands. Write them without signs of thousands, fractions with another zero."
        )


def dates_of(values: pa.Array, formats: tuple[str, ...], name: str, place: Place) -> pa.Array:
    """(n,) times of texts, null where one is missing.

    Args:
        values: texts.
        formats: in which training could read them.
        name: of the column.
        place: where a row of them stands, in words.

    Raises:
        DataError: one is of another format.
    """
    times, odd = times_of(values, formats)
    if odd is not None:
        told = " or ".join(map(repr, formats))
        raise DataError(
            f"column {name!r} must hold dates as {told}, as in training, got {values[odd].as_py()!r} in "
            f"{place(odd)}. Write it so."
        )
    return times


def _place(path: Path, asked: Csv, row: int) -> str:
    return f"line {line_of(path, dialect_of(path, asked, least=1), row)} of {path}"


def _no_dates(_: pa.Array) -> pa.Array:
    raise AssertionError("dates are read by their formats")
