"""A look at the columns of open files: which are inputs, what each becomes, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from subsettune.data.arrow_types import SHORT_YEARS, is_date, kind_of
from subsettune.data.categories import Vocabulary, can_be_marked, is_text
from subsettune.data.columns import ColumnFacts
from subsettune.data.dates import cycles_of
from subsettune.data.parquet_files import File, check_there, is_list, is_numeric, row_batches
from subsettune.data.raw import Array, Categories
from subsettune.data.scan import (
    Labels,
    Look,
    facts_of,
    look_at_numbers,
    look_at_texts,
    pandas_categories,
    pandas_index,
)
from subsettune.data.table_columns import NUMBER_ROWS, Column
from subsettune.errors import DataError
from subsettune.task import Data

LOOK_BYTES = 2**26  # of columns that are looked at in one go


def check_roles(files: list[File], names: tuple[str, ...], data: Data) -> None:
    """Inputs must be in every file, texts everywhere or nowhere; what is marked as categorical must suit it."""
    for file in files:
        check_there(file, names, "Write all files alike.")
        for name in names:
            first, kind = (f.schema.field(name).type for f in (files[0], file))
            if is_text(kind) != is_text(first) or not (is_text(kind) or is_numeric(kind)):
                raise DataError(
                    f"column {name!r} must be numbers in all files, or texts, got {first} and {kind} in {file.path}. "
                    "Write them alike."
                )
            if name in data.categorical and pa.types.is_boolean(kind) != pa.types.is_boolean(first):
                raise DataError(
                    f"column {name!r} must hold one kind of categories in all files, got {first} and {kind} in "
                    f"{file.path}. Write them alike."
                )
            if name in data.categorical and not (is_text(kind) or can_be_marked(kind)):
                raise DataError(
                    f"column {name!r} must hold whole numbers, booleans or texts to be categorical, got {kind}. "
                    "Convert it, or remove it from data.categorical."
                )


def surveyed(
    files: list[File], names: tuple[str, ...], data: Data, labels: Labels
) -> tuple[tuple[Column, ...], list[ColumnFacts]]:
    """The input columns, without what is surely none unless it is named, and what is known of each."""
    vocabularies = _vocabularies(files, names, data)
    widths = widths_of(files[0], [name for name in names if name not in vocabularies])
    looks = dict(_looks(files, [name for name, width in widths.items() if width is None], labels))
    looks |= {
        name: look_at_texts(vocabulary, labels, partial(_all_texts, files, name))
        for name, vocabulary in vocabularies.items()
    }
    index, marked = pandas_index(files[0].schema), pandas_categories(files[0].schema)
    columns, told = [], []
    for name in names:
        categories = vocabularies[name].names() if name in vocabularies else ()
        field = files[0].schema.field(name)
        look = replace(
            looks.get(name, Look(name=name)),
            was_category=name in marked,
            is_date=is_date(field),
            has_short_years=has_short_years(field, data),
        )
        made = _columns_of(name, field, widths.get(name), categories, look, data)
        width = len(categories) or sum(len(column.names) for column in made)
        told.append(replace(facts_of(look, width, data, index), kind=kind_of(field)))
        columns += [] if told[-1].role == "ignored" else made
    _refuse_taken([name for column in columns for name in column.names if column.is_made], files[0].schema)
    if not columns:
        raise DataError(f"{files[0].path} has no feature: column {names[0]!r} is not read, as {told[0].why}")
    return tuple(columns), told


def has_short_years(field: pa.Field, data: Data) -> bool:
    """Whether the years of a column of dates have two digits in its file."""
    return SHORT_YEARS in (field.metadata or {}) or "%y" in str(data.date_formats.get(field.name, ""))


def _columns_of(
    name: str, field: pa.Field, width: int | None, categories: Categories, look: Look, data: Data
) -> list[Column]:
    """What a column becomes: itself, whether it is missing where that is filled, and a date's places on circles."""
    is_filled = data.impute is not None and look.missing > 0 and not categories and width is None
    fill = (0.0 if look.least is None else look.least) if is_filled else None
    made = [Column(name=name, width=width, categories=categories, fill=fill)]
    made += [Column(name=name, is_missing=True)] if is_filled else []
    cycles = cycles_of(kind_of(field)) if data.dates == "cyclic" and is_date(field) else ()
    return [*made, Column(name=name, cycles=cycles, fill=fill)] if cycles else made


def _refuse_taken(made: list[str], schema: pa.Schema) -> None:
    taken = [name for name in made if name in schema.names]
    if taken:
        raise DataError(f"column {taken[0]!r} has the name of one that is made beside another. Rename it.")


def _vocabularies(files: list[File], names: tuple[str, ...], data: Data) -> dict[str, Vocabulary]:
    """The categories of all files, of each column that has any."""
    schema, num_rows = files[0].schema, sum(file.num_rows for file in files)
    kinds = {name: schema.field(name).type for name in names}
    found = {
        name: Vocabulary(name, kind, num_rows)
        for name, kind in kinds.items()
        if is_text(kind) or name in data.categorical
    }
    for _, batch in row_batches(files, list(found), NUMBER_ROWS) if found else ():
        for name, vocabulary in found.items():
            vocabulary.add(batch.column(name))
    return found


def _looks(files: list[File], names: list[str], labels: Labels) -> Iterator[tuple[str, Look]]:
    """A look at each column of plain numbers, some columns in memory at a time."""
    step = max(1, LOOK_BYTES // (8 * max(1, sum(file.num_rows for file in files))))
    for start in range(0, len(names), step):
        group = names[start : start + step]
        tables = [file.read(group) for file in files]
        for name in group:
            yield name, look_at_numbers(name, [_plain_numbers(table[name]) for table in tables], labels)


def _plain_numbers(column: pa.ChunkedArray) -> Array:
    """(n,) numbers; NaN for what is missing."""
    return np.asarray((column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column).to_numpy())


def _all_texts(files: list[File], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.cast(pa.large_string()) for file in files for chunk in file.column(name).chunks])


def widths_of(file: File, names: Sequence[str]) -> dict[str, int | None]:
    """How many numbers each column has in a row: None for a plain number, else the length of the first list."""
    if not any(is_list(file.schema.field(name).type) for name in names):
        return dict.fromkeys(names)
    _, first = next(row_batches([file], list(names), 1))
    values = {name: first.column(name)[0].as_py() for name in names}
    missing = [name for name in names if values[name] is None and is_list(file.schema.field(name).type)]
    if missing:
        raise DataError(f"lists of column {missing[0]!r} must have one length, got nothing in row 0. Drop such rows.")
    return {name: len(value) if isinstance(value, list) else None for name, value in values.items()}


def may_be_ids(schema: pa.Schema, columns: tuple[Column, ...]) -> bool:
    """Whether the input is one column of lists of whole numbers."""
    if len(columns) != 1 or (columns[0].width or 1) < 2:
        return False
    return bool(pa.types.is_integer(schema.field(columns[0].name).type.value_type))


def all_categories(columns: tuple[Column, ...]) -> tuple[Categories, ...]:
    """Of each stored column; () where all are numbers."""
    if not any(column.categories for column in columns):
        return ()
    return tuple(column.categories for column in columns for _ in column.names)
