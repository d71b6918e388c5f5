"""A look at the columns of a table before they are read as features: what they hold, and whether they are features.

What is surely none is left out: the index that pandas writes, and an exact second copy of the label. What may be none
(row numbers, ids, dates, constants) stays, with a sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.categories import Vocabulary
from subsettune.data.columns import ColumnFacts, leave_out
from subsettune.data.date_texts import format_of
from subsettune.data.raw import Array
from subsettune.task import Data

PANDAS = re.compile(r"__index_level_\d+__")  # of an index without a name
UNNAMED = re.compile(r"Unnamed: \d+")  # of one that went through a .csv file
ID_NAME = re.compile(r"(?i:(?:.*[_\W])?(?:id|uid|uuid|guid))|.*[a-z]I[dD]")
DATE_TEXT = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}([ T].*)?")
CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
ROWS_EACH = 2  # of a class on average: with one, all columns of numbers that differ stand one for one for it
BLOCK_ROWS = 2**16  # that are compared with the labels in one go
FEW_ROWS = 20  # with fewer, numbers that all differ mean nothing
FEW_VALUES = 3  # with fewer, numbers in the range of times or dates do not either
COUNTED = 0.9  # of the steps from row to row; of measured numbers half go up
CHANCE = 3.0  # pairs of equal numbers to be expected of measurements; where fewer are, that all differ means nothing
WIDE = 2.0**31  # range of numbers that nobody measures: hashes and ids drawn at random
# Seconds from 2000 to 2050 since 1970; larger powers are milliseconds, microseconds and nanoseconds.
TIMES_S = (946_684_800, 2_524_608_000)
TIME_UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
CENTURIES = "has years of two digits: 69 to 99 are read as 1969 to 1999, the others as 2000 to 2068."
DAYS = (19_000_101, 21_001_231)  # 2024-05-31 written as 20240531


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a column holds.

    Args:
        name: of it.
        distinct: values that differ, without missing ones; None where they were not counted, as of lists.
        missing: rows without a value; NaN is one.
        least: smallest number; None where it holds texts, or nothing.
        most: largest number, likewise.
        is_whole: whether all are whole numbers.
        is_sorted: whether no number is less than the one before it in its file.
        is_unique: whether every row of a file has a number of its own.
        is_counted: whether nearly all whole numbers are larger than the one before, as of tables one below the other.
        is_copy: whether it is a second copy of the label.
        is_text: whether it holds categories.
        texts: the categories.
        has_days: whether all whole numbers read as 20240531 does.
        was_category: whether pandas wrote whole numbers that it held as categories.
        is_date: whether it holds dates or times, as seconds.
        has_short_years: whether the years of its dates have two digits in the file.
    """

    name: str
    distinct: int | None = None
    missing: int = 0
    least: float | None = None
    most: float | None = None
    is_whole: bool = False
    is_sorted: bool = False
    is_unique: bool = False
    is_counted: bool = False
    is_copy: bool = False
    is_text: bool = False
    texts: tuple[str, ...] = ()
    has_days: bool = False
    was_category: bool = False
    is_date: bool = False
    has_short_years: bool = False


def pandas_index(schema: pa.Schema) -> frozenset[str]:
    """Names of the columns that hold the index of the DataFrame that was written, as far as the file tells."""
    listed = {name for name in _pandas(schema, "index_columns") if isinstance(name, str)}
    return frozenset(listed | {name for name in schema.names if PANDAS.fullmatch(name)})


def pandas_categories(schema: pa.Schema) -> frozenset[str]:
    """Names of the columns of whole numbers that were categorical in pandas: Parquet gives them back as numbers."""
    told = [column for column in _pandas(schema, "columns") if isinstance(column, dict)]
    marked = {column.get("field_name") for column in told if column.get("pandas_type") == "categorical"}
    return frozenset(field.name for field in schema if field.name in marked and pa.types.is_integer(field.type))


def _pandas(schema: pa.Schema, key: str) -> list[object]:
    """A list of the metadata that pandas writes; empty where it did not write the file."""
    told: object = []
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = json.loads((schema.metadata or {})[b"pandas"])[key]
    return told if isinstance(told, list) else []


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of all rows, as other columns are compared with them.

    Args:
        values: (n,) as they were read; None where each row has several.
        classes: of a classification, sorted; None of a regression.
    """

    values: Array | None
    classes: Array | None = None

    @classmethod
    def of(cls, labels: Array, kind: str) -> Labels:
        """The labels of a `classification` or `regression`."""
        if labels.ndim != 1:
            return cls(None)
        return cls(labels, np.unique(labels) if kind == "classification" else None)

    def are(self, values: Array, distinct: int) -> bool:
        """Whether values of all rows, of which so many differ, are the labels, or stand one for one for classes."""
        if self.values is None or distinct < 2:
            return False
        if self.classes is None:
            return bool(np.array_equal(values, self.values))
        if distinct != len(self.classes) or ROWS_EACH * distinct > len(values):
            return False
        known, twins = np.unique(values), np.full(distinct, -1)  # of each class the place of its value
        for start in range(0, len(values), BLOCK_ROWS):
            codes = np.searchsorted(self.classes, self.values[start : start + BLOCK_ROWS])
            found = np.searchsorted(known, values[start : start + BLOCK_ROWS])
            is_new = twins[codes] < 0
            twins[codes[is_new]] = found[is_new]
            if (twins[codes] != found).any():
                return False
        return len(np.unique(twins)) == distinct


# --- looking ----------------------------------------------------------------------------------------------------------


def look_at_numbers(name: str, files: Sequence[Array], labels: Labels) -> Look:
    """What a column of numbers holds.

    Args:
        name: of it.
        files: (n_f,) integers, booleans or floats of each file; NaN is missing.
        labels: of the rows of all files.
    """
    values = np.concatenate(files) if len(files) > 1 else files[0]
    ordered = np.sort(values)  # NaN comes last
    num_missing = int(np.isnan(ordered).sum()) if ordered.dtype.kind == "f" else 0
    ordered = ordered[: len(ordered) - num_missing]
    distinct = _distinct(ordered)
    if not distinct or not np.isfinite(ordered[[0, -1]].astype(np.float64)).all():
        return Look(name=name, distinct=distinct, missing=num_missing)  # refused later
    is_whole = ordered.dtype.kind in "biu" or bool((ordered == np.floor(ordered)).all())
    return Look(
        name=name,
        distinct=distinct,
        missing=num_missing,
        least=float(ordered[0]),
        most=float(ordered[-1]),
        is_whole=is_whole,
        is_sorted=all(bool((each[1:] >= each[:-1]).all()) for each in files),
        is_unique=distinct == len(values) or all(_distinct(np.sort(each)) == len(each) for each in files),
        is_counted=is_whole and bool(UNNAMED.fullmatch(name)) and _is_counted(files),
        is_copy=not num_missing and labels.are(values, distinct),
        has_days=is_whole and distinct >= FEW_VALUES and _are_days(ordered),
    )


def _is_counted(files: Sequence[Array]) -> bool:
    steps = np.concatenate([each[1:] > each[:-1] for each in files])
    return bool(steps.sum() > COUNTED * len(steps))


def _distinct(ordered: Array) -> int:
    return int((ordered[1:] != ordered[:-1]).sum()) + 1 if len(ordered) else 0


def look_at_texts(vocabulary: Vocabulary, labels: Labels, read: Callable[[], pa.ChunkedArray]) -> Look:
    """What a column of categories holds; `read` gives all of its texts, and is called where they may be the labels."""
    texts = tuple(text for text in vocabulary.names() if text is not None)
    is_copy = False
    if labels.classes is not None and len(texts) == len(labels.classes) and not vocabulary.missing:
        is_copy = labels.are(pc.index_in(read(), value_set=pa.array(texts, pa.large_string())).to_numpy(), len(texts))
    return Look(
        name=vocabulary.name,
        distinct=len(texts),
        missing=vocabulary.missing,
        is_copy=is_copy,
        is_text=True,
        texts=texts,
    )


def _are_days(ordered: Array) -> bool:
    """Whether sorted whole numbers read as 20240531 does."""
    if not (DAYS[0] <= float(ordered[0]) and float(ordered[-1]) <= DAYS[1]):  # which float16 does not hold
        return False
    numbers = ordered.astype(np.int64)
    months, days = numbers // 100 % 100, numbers % 100
    return bool(((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all())


# --- judging ----------------------------------------------------------------------------------------------------------


def why_not_read(is_index: bool, is_copy: bool = False) -> str:
    """Why a column is surely no feature; empty where it may be one."""
    use = "To use it all the same, name it in data.features with the others."
    if is_index:
        return f"it is the index that pandas wrote, the numbers or names of the rows. {use}"
    return f"it is a second copy of the label. {use}" if is_copy else ""


def facts_of(look: Look, width: int, data: Data, index: frozenset[str]) -> ColumnFacts:
    """What is told of a column that was looked at: whether it is read, and what is suspicious about it.

    Args:
        look: at the column.
        width: numbers that it becomes, or categories that it has.
        data: of the task.
        index: names of the columns that hold the index of pandas.
    """
    is_number_of_row = look.is_whole and (look.is_unique or look.is_counted)
    is_index = look.name in index or bool(UNNAMED.fullmatch(look.name) and is_number_of_row)
    why = why_not_read(is_index, look.is_copy)
    told = ColumnFacts(
        name=look.name,
        role="categories" if look.is_text else "feature",
        width=width,
        distinct=look.distinct,
        least=look.least,
        most=look.most,
        missing=look.missing,
    )
    key = "features" if data.features is not None else "categorical" if look.name in data.categorical else ""
    if why and not key:
        return replace(told, role="ignored", width=0, why=why)
    if why:
        return replace(told, warnings=(f"column {look.name!r} is read as data.{key} names it, but {_first(why)}.",))
    found = _about_texts(look, data) if look.is_text else about_numbers(look, data)
    remedy = f"If it is no feature, {leave_out([look.name], data)}."
    return replace(told, warnings=(f"column {look.name!r} {found} {remedy}",)) if found else told


def _first(sentences: str) -> str:
    return sentences.partition(". ")[0]


def _about_texts(look: Look, data: Data) -> str:
    if not look.texts:
        return "holds nothing: every value is missing."
    if look.name in data.categorical:
        return ""
    if all(DATE_TEXT.fullmatch(text) for text in look.texts):
        form = format_of(look.texts)
        remedy = f"Set data.date_formats: {{{look.name}: '{form}'}}." if form else "Convert it to numbers."
        return f"holds dates as texts, and each is read as a category of its own. {remedy}"
    if len(look.texts) >= FEW_VALUES and all(map(CLOCK.fullmatch, look.texts)):
        form = "%H:%M:%S" if look.texts[0].count(":") > 1 else "%H:%M"
        return (
            "holds times of day as texts, and each is read as a category of its own. Set data.date_formats: "
            f"{{{look.name}: '{form}'}}."
        )
    if len(look.texts) >= FEW_VALUES and all(map(_is_number, look.texts)):
        return (
            "holds numbers written as texts, and each is read as a category of its own. Convert it to numbers, or name "
            "it in data.categorical."
        )
    return "holds one value only." if len(look.texts) == 1 and not look.missing else ""


def about_numbers(look: Look, data: Data) -> str:
    """What is suspicious about a column of numbers, to be read after its name; empty for nothing."""
    if look.distinct is None or look.least is None or look.most is None:
        return ""
    if look.distinct == 1:
        return "holds one value only."
    if look.name in data.categorical:
        return ""
    if look.is_date:
        more = "data.dates: cyclic adds hour, weekday and month."
        said = "" if "dates" in data.given else f"holds dates or times, and is read as seconds. {more}"
        years = CENTURIES if look.has_short_years else ""
        return f"{years} It {said}" if years and said else years or said
    if UNNAMED.fullmatch(look.name) and look.is_whole and look.distinct >= FEW_ROWS:
        return "has no name in its file, as the index that pandas writes has none, and is read as a number."
    time = _time_unit(look.least, look.most)
    if time and look.distinct >= FEW_VALUES:
        return f"looks like a time in {time} since 1970. Convert it to what matters: hour, weekday, age."
    if look.has_days:
        return "looks like a date written as 20240531. Convert it to what matters: month, weekday, age."
    if look.was_category and look.distinct >= FEW_VALUES:
        return (
            "was categorical in pandas, and is read as a number. If it stands for names, put it into data.categorical."
        )
    if look.is_whole and look.is_unique and _is_no_chance(look):
        order = ", in order," if look.is_sorted else ","
        return f"holds another whole number in each row{order} as row numbers and ids do."
    if look.is_whole and ID_NAME.fullmatch(look.name) and look.distinct >= FEW_VALUES:
        return "is called an id, and is read as a number. If it stands for names, put it into data.categorical."
    if look.is_whole and look.is_sorted and look.distinct >= FEW_ROWS:
        return "grows from row to row, as the numbers of groups and times do."
    return ""


def _is_no_chance(look: Look) -> bool:
    """Whether whole numbers that all differ would hardly do so if they were measured: prices of few houses do."""
    if look.distinct is None or look.least is None or look.most is None or look.distinct < FEW_ROWS:
        return False
    span = look.most - look.least + 1
    is_dense = look.distinct * (look.distinct - 1) / (2 * span) >= CHANCE
    return look.is_sorted or is_dense or span >= WIDE or bool(ID_NAME.fullmatch(look.name))


def _time_unit(least: float, most: float) -> str:
    """The unit in which numbers look like times since 1970; empty for none."""
    fits = [unit for scale, unit in TIME_UNITS.items() if TIMES_S[0] * scale <= least and most <= TIMES_S[1] * scale]
    return fits[0] if fits else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
