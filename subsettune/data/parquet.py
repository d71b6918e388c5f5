"""The user's own Parquet files, as the Hugging Face hub lays them out, read a batch at a time.

One file, or a folder of train.parquet and perhaps test.parquet, or of numbered shards of them. A column `image` or
`text` is the input; without one all columns but the label are, numbers and categories together, and what is surely no
feature is left out: `scan` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from subsettune.data import precision
from subsettune.data.arrow_types import is_time, kind_of
from subsettune.data.categories import is_text
from subsettune.data.columns import ColumnFacts, SourceFacts, leave_out
from subsettune.data.csv_dialect import SUFFIXES
from subsettune.data.csv_files import open_csv_files
from subsettune.data.images import RECOLOUR, RESIZE, check_shape, decode, fitted
from subsettune.data.layout import OWN_IDS, arranged_image
from subsettune.data.lists import Lists, depth, is_shaped, numbers_of, read_lists
from subsettune.data.parquet_files import (
    File,
    check_there,
    is_image,
    is_list,
    is_number,
    is_numeric,
    open_file,
    row_batches,
    row_place,
    table_files,
)
from subsettune.data.parquet_labels import label_kind, labels_of
from subsettune.data.raw import Array, Raw
from subsettune.data.scan import (
    CENTURIES,
    Labels,
    pandas_index,
    why_not_read,
)
from subsettune.data.scratch import allocate
from subsettune.data.shards import Parts
from subsettune.data.split_columns import marks_of
from subsettune.data.survey import all_categories, check_roles, has_short_years, may_be_ids, surveyed, widths_of
from subsettune.data.table_columns import (
    NUMBER_ROWS,
    Column,
    exact_numbers,
    filled_places,
    mark_missing,
    read_columns,
)
from subsettune.data.text import read_texts
from subsettune.data.unlabelled import refuse_unlabelled
from subsettune.errors import DataError
from subsettune.task import Data

IMAGE_ROWS = 256


def read_parquet(path: Path, data: Data, kind: str, scratch: Path, reads: str | None = None) -> Raw:
    """Read a Parquet file, or a folder with `train.parquet` and perhaps `validation` and `test`, or shards of them.

    Args:
        path: of the file or folder.
        data: which columns. A column of images stands alone (a struct with `bytes`, or the bytes themselves), and so
            does one of texts that `text` names, or that is called so where no input is named. Others are numbers, lists
            of so many numbers, or categories: texts, and what `categorical` names.
            The label of a regression may be a list too; `embeddings` is one.
        kind: `classification` or `regression`.
        scratch: folder for large arrays.
        reads: the column that the split goes by, if any.

    Raises:
        DataError: a file is empty, truncated, or lacks a column, or has two of one name; a test file has no labels;
            images differ in size; a column is of no use.
    """
    found = table_files(path, (".parquet",))
    files = [open_file(file, data.date_formats) for file in (*found.train, *found.validation, *found.test)]
    return read_tables(Tables.of(files, found), data, kind, scratch, reads)


def read_csv(path: Path, data: Data, kind: str, scratch: Path, reads: str | None = None) -> Raw:
    """Read a .csv file, gzipped or not, or a folder of them; arguments and errors as of `read_parquet`."""
    found = table_files(path, SUFFIXES)
    files = open_csv_files((*found.train, *found.validation, *found.test), data, kind, scratch, reads)
    return read_tables(Tables.of(files, found), data, kind, scratch, reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Open files of a source.

    Args:
        train: of the training set.
        validation: of the official validation set; empty where there is none.
        test: of the official test set, likewise.
        left_alone: names of what lies beside them.
        warnings: sentences about that.
    """

    train: list[File]
    validation: list[File] = field(default_factory=list)
    test: list[File] = field(default_factory=list)
    left_alone: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: list[File], found: Parts) -> Tables:
        """Files in the order training, validation, test."""
        first, second = len(found.train), len(found.train) + len(found.validation)
        return cls(
            train=files[:first],
            validation=files[first:second],
            test=files[second:],
            left_alone=tuple(file.name for file in found.left_alone),
            warnings=found.warnings,
        )

    @property
    def files(self) -> list[File]:
        """All of them, in the order of their rows."""
        return [*self.train, *self.validation, *self.test]


def read_tables(tables: Tables, data: Data, kind: str, scratch: Path, reads: str | None = None) -> Raw:
    """Read open files; arguments and errors as of `read_parquet`."""
    files, path = tables.files, tables.files[0].path
    check_there(files[0], (data.label,), "Set data.label and data.features.")
    for part, held in (("validation", tables.validation), ("test", tables.test)):
        for file in held:
            there = file.column(data.label) if data.label in file.schema.names else None
            refuse_unlabelled(file.path, there, data.label, part)
    _check_files(files, data)
    if reads is not None:
        _check_split(files, data, reads)
    schema, num_train = files[0].schema, sum(file.num_rows for file in tables.train)
    data = _with_text(schema, data)
    columns: tuple[Column, ...] = ()
    scaling = precision.Scaling()
    told: list[ColumnFacts] = []
    vocabulary: list[str] = []
    taken = ""
    names = () if data.text is not None else _feature_names(schema, data, path, reads)
    labels, classes = labels_of(files, data.label, kind)
    if data.text is not None:
        inputs, vocabulary = _read_texts(files, data, num_train, scratch)
        told = [ColumnFacts(name=data.text, role="text", kind=_kind(schema, data.text), width=inputs.shape[1])]
    elif is_image(schema.field(names[0]).type):
        inputs = _read_images(files, names[0], data, scratch)
        told = [ColumnFacts(name=names[0], role="image", kind=_kind(schema, names[0]), width=inputs[0].size)]
    elif _is_shaped(schema, names, data):
        lists = _read_lists(files, names[0], data, num_train, scratch)
        inputs, scaling, taken = lists.inputs, lists.scaling, lists.taken
        told = [ColumnFacts(name=names[0], role="feature", kind=_kind(schema, names[0]), width=inputs[0].size)]
    else:
        check_roles(files, names, data)
        columns, told = surveyed(files, names, data, Labels.of(labels, kind))
        inputs = read_columns(files, columns, scratch)
        if data.layout != "tokens":
            stored = [name for column in columns for name in column.names]
            scaling = precision.kept(inputs, partial(exact_numbers, files, columns), num_train, stored)
            mark_missing(inputs, filled_places(columns))
        taken = "numbers" if may_be_ids(schema, columns) else ""
    _refuse_idle(data, told, reads)
    return Raw(
        inputs=inputs,
        labels=labels,
        num_train=num_train,
        num_validation=sum(file.num_rows for file in tables.validation),
        classes=classes,
        columns=tuple(name for column in columns for name in column.names),
        categories=all_categories(columns),
        embeddings=_read_embeddings(files, data.embeddings, scratch),
        tokens=OWN_IDS if data.layout == "tokens" else "" if data.text is None else data.tokens,
        vocabulary=tuple(vocabulary),
        scaling=scaling,
        taken=taken,
        imputed=tuple((number, name) for name, (number, _) in filled_places(columns).items()),
        marks=None if reads is None else marks_of(files, reads),
        facts=SourceFacts(
            files=tuple(file.path.name for file in tables.train),
            validation_files=tuple(file.path.name for file in tables.validation),
            test_files=tuple(file.path.name for file in tables.test),
            left_alone=tables.left_alone,
            columns=tuple(_in_order(schema, told, data, reads)),
            warnings=tables.warnings,
        ),
    )


def _refuse_idle(data: Data, told: list[ColumnFacts], reads: str | None) -> None:
    """A key that nobody reads would be a wrong belief about the data."""
    is_image = told[0].role == "image"
    for key in ("resize", "color"):
        if key in data.given and not is_image:
            raise DataError(f"data.{key} means nothing where no pictures are read. Remove it.")
    stray = [name for name in data.date_formats if name not in (reads, *(column.name for column in told))]
    if stray:
        raise DataError(f"data.date_formats names {stray[0]!r}, which is no input. Remove it there.")
    is_table = told[0].role in ("feature", "categories", "ignored")
    odd = [key for key in ("impute", "dates") if key in data.given and not is_table]
    if odd:
        raise DataError(f"data.{odd[0]} means nothing to {told[0].role}s. Remove the key.")


def _check_split(files: list[File], data: Data, reads: str) -> None:
    """The column that the split goes by has no other part to play."""
    if reads in (data.label, data.embeddings):
        raise DataError(f"split must go by another column than the label, got {reads!r}. Name another.")
    for file in files:
        check_there(file, (reads,), "Set split.")


def _check_files(files: list[File], data: Data) -> None:
    """Rows and the named columns must be in every file, and the labels of one type."""
    _check_names(data)
    check_there(files[0], data.exclude, "Set data.exclude.")
    for file in files:
        if file.num_rows == 0:
            raise DataError(f"{file.path} has no rows. Give a file with examples, or remove it.")
        check_there(file, (data.label, *(data.features or ())), "Set data.label and data.features.")
        check_there(file, data.categorical, "Set data.categorical.")
        check_there(file, () if data.embeddings is None else (data.embeddings,), "Set data.embeddings.")
        types = [f.schema.field(data.label).type for f in (files[0], file)]
        if label_kind(types[0]) != label_kind(types[1]):
            raise DataError(
                f"column {data.label!r} must have one type in all files, got {types[0]} and {types[1]} in {file.path}. "
                "Write them alike."
            )


def _check_names(data: Data) -> None:
    """A column has one part to play."""
    single = {"label": data.label, **({} if data.embeddings is None else {"embeddings": data.embeddings})}
    for key, name in single.items():
        for several, names in (("features", data.features or ()), ("categorical", data.categorical)):
            if name in names:
                raise DataError(f"data.{key} must not be among data.{several}, got {name!r} in both. Remove it there.")
    if data.embeddings == data.label:
        raise DataError(f"data.embeddings must not be the label, got {data.label!r} for both. Name two columns.")
    stray = [name for name in data.categorical if data.features is not None and name not in data.features]
    if stray:
        raise DataError(
            f"data.categorical must be among data.features, got {stray[0]!r}. Add it there, or remove it here."
        )


# --- inputs ------------------------------------------------------------------------------------------------------


def _with_text(schema: pa.Schema, data: Data) -> Data:
    """The data with the column of texts named, if the input is one.

    Raises:
        DataError: something is said about texts, and there are none.
    """
    is_open = data.text is None and data.features is None and not data.categorical
    names = [name for name in schema.names if name not in data.exclude]
    is_there = "text" in names and "image" not in names and "text" not in (data.label, data.embeddings)
    if is_open and is_there and is_text(schema.field("text").type):
        return replace(data, text="text")  # refuses a layout beside it
    if data.text is None and data.text_keys:
        raise DataError(f"data.{data.text_keys[0]} means nothing where no texts are read. Set data.text, or remove it.")
    return data


def _read_texts(files: list[File], data: Data, num_train: int, scratch: Path) -> tuple[Array, list[str]]:
    assert data.text is not None
    for file in files:
        check_there(file, (data.text,), "Set data.text.")
        kind = file.schema.field(data.text).type
        if not is_text(kind):
            raise DataError(f"column {data.text!r} must hold texts, got {kind} in {file.path}. Mend data.text.")

    def blocks() -> Iterator[tuple[int, pa.Array]]:
        return ((row, batch.column(0)) for row, batch in row_batches(files, [str(data.text)], NUMBER_ROWS))

    return read_texts(blocks, sum(file.num_rows for file in files), num_train, data, scratch)


def _feature_names(schema: pa.Schema, data: Data, path: Path, reads: str | None) -> tuple[str, ...]:
    index = pandas_index(schema)
    used = [n for n in schema.names if n not in (data.label, data.embeddings, reads, *data.exclude)]
    if data.features is None and "image" in used:
        names: tuple[str, ...] = ("image",)
    else:
        names = data.features or tuple(name for name in used if name not in index or name in data.categorical)
    if not names:
        gone = " and those of data.exclude" if data.exclude else ""
        gone = f", data.exclude and the index of pandas, {', '.join(index)}" if index & set(used) else gone
        raise DataError(f"{path} has no column besides the label {data.label!r}{gone}. Add the features.")
    kinds = [schema.field(name).type for name in names]
    if len(names) == 1 and is_image(kinds[0]):
        if data.categorical:
            raise DataError(f"data.categorical means nothing to images, got {data.categorical[0]!r}. Remove the key.")
        return names
    if len(names) == 1 and is_shaped(kinds[0]) and is_number(numbers_of(kinds[0])):
        return names
    _refuse_odd([schema.field(name) for name in names], path, data)
    return names


def _refuse_odd(fields: list[pa.Field], path: Path, data: Data) -> None:
    """Columns must be of types that can be features."""
    odd = [field for field in fields if is_time(field) or not (is_numeric(field.type) or is_text(field.type))]
    if not odd:
        return
    told = ", ".join(f"{field.name} ({field.type})" for field in odd)
    remedy = leave_out([field.name for field in odd], data)
    if all(map(is_time, odd)):
        raise DataError(
            f"columns of {path} must be numbers or texts, got dates or times in {told}. Convert them to what matters, "
            f"as numbers (month, weekday, hour, age), or {remedy}."
        )
    raise DataError(
        f"columns of {path} must be numbers, texts, or one column of encoded images, got {told}. Encode them as "
        f"numbers, or {remedy}."
    )


def _is_shaped(schema: pa.Schema, names: tuple[str, ...], data: Data) -> bool:
    """Whether the input is a column of lists that have a shape; of plain lists, only where a layout says so."""
    dims = depth(schema.field(names[0]).type) if len(names) == 1 else 0
    if data.layout not in (None, "flat") and dims == 0:
        got = f"{len(names)} columns" if len(names) > 1 else f"numbers in {names[0]!r}"
        raise DataError(
            f"data.layout {data.layout} needs one column of lists, got {got}. Name one in data.features, or remove the "
            "key."
        )
    return dims > 0 and (is_shaped(schema.field(names[0]).type) or data.layout not in (None, "flat"))


def _read_lists(files: list[File], name: str, data: Data, num_train: int, scratch: Path) -> Lists:
    for file in files:
        check_there(file, (name,), "Write all files alike.")
        first, kind = (f.schema.field(name).type for f in (files[0], file))
        if depth(kind) != depth(first) or not is_number(numbers_of(kind)):
            raise DataError(
                f"column {name!r} must hold like lists of numbers in all files, got {first} and {kind} in {file.path}. "
                "Write them alike."
            )

    def blocks() -> Iterator[tuple[int, pa.Array]]:
        return ((row, batch.column(0)) for row, batch in row_batches(files, [name], IMAGE_ROWS))

    return read_lists(blocks, name, (sum(file.num_rows for file in files), num_train), data, scratch)


def _in_order(schema: pa.Schema, told: list[ColumnFacts], data: Data, reads: str | None) -> Iterator[ColumnFacts]:
    """What is known of all columns of a file: those that are read, and why others are not."""
    known, index = {facts.name: facts for facts in told}, pandas_index(schema)
    is_alone = data.features is None and len(told) == 1 and told[0].name in ("image", data.text)
    only = f"the column {told[0].name!r} alone is the input." if is_alone else ""
    for name in schema.names:
        facts = ColumnFacts(name=name, role="excluded", kind=_kind(schema, name), width=0)
        if name in known:
            yield known[name]
        elif name == reads:
            short = has_short_years(schema.field(name), data)
            yield replace(facts, role="split", width=1, warnings=(f"column {name!r} {CENTURIES}",) if short else ())
        elif name in (data.label, data.embeddings):
            yield replace(facts, role="label" if name == data.label else "embeddings", width=1)
        elif name in data.exclude:
            yield replace(facts, why="data.exclude names it")
        elif data.features is not None:
            yield replace(facts, why="data.features does not name it")
        else:
            yield replace(facts, role="ignored", why=only or why_not_read(is_index=name in index))


def _kind(schema: pa.Schema, name: str) -> str:
    return kind_of(schema.field(name))


def _read_embeddings(files: list[File], name: str | None, scratch: Path) -> Array | None:
    """(n, e) float32 of a column of lists."""
    if name is None:
        return None
    for file in files:
        kind = file.schema.field(name).type
        if not (is_list(kind) and is_numeric(kind)):
            raise DataError(
                f"column {name!r} must hold lists of numbers to be data.embeddings, got {kind} in {file.path}. "
                "Name another."
            )
    column = Column(name=name, width=widths_of(files[0], [name])[name])
    embeddings = read_columns(files, (column,), scratch)
    precision.refuse_lost(partial(exact_numbers, files, (column,)), len(embeddings), f"data.embeddings {name!r}")
    return embeddings


def _read_images(files: list[File], name: str, data: Data, scratch: Path) -> Array:
    inputs: Array | None = None
    layout = data.layout
    for row, batch in row_batches(files, [name], IMAGE_ROWS):
        column = batch.column(name)
        encoded = column.field("bytes") if pa.types.is_struct(column.type) else column
        for i, item in enumerate(encoded, start=row):
            where, content = row_place(files, i), item.as_py()
            if content is None:
                raise DataError(f"column {name!r} must hold encoded bytes, got nothing in {where}. Embed the files.")
            image = arranged_image(fitted(decode(content, where), data), layout, where)
            if inputs is None:
                inputs = allocate((sum(file.num_rows for file in files), *image.shape), image.dtype, scratch)
            check_shape(image.shape, inputs.shape[1:], where, RESIZE, RECOLOUR)
            if image.dtype != inputs.dtype:
                raise DataError(
                    f"images must have 8 bits a channel in all rows, or more in all, got both ({where}). Convert them "
                    "beforehand."
                )
            inputs[i] = image
    assert inputs is not None
    return inputs
