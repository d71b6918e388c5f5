"""What the columns of .csv files hold, judged by all of their rows: numbers, dates, booleans, or texts.

A column is numbers where all values are; where most are, the others are mistakes, and refused with their row, since
texts would make each number a category of its own. So it is with dates. Numbers with leading zeros are names.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from subsettune.data.date_texts import DATE_LIKE, DateTexts
from subsettune.data.mendable import MixedLabelsError
from subsettune.errors import DataError

Role = Literal["feature", "label", "categories", "text", "left"]
Kind = Literal["whole", "number", "comma", "boolean", "date", "text"]

# What programs write where there is no number. Of a column of texts only the empty one is missing: NA may be Namibia.
MISSING = pa.array(
    [
        *(
            "",
            "?",
            "-",
            "NA",
            "N/A",
            "n/a",
            "na",
            "<NA>",
            "NaN",
            "nan",
            "-NaN",
            "-nan",
            "NAN",
            "NaT",
            "null",
            "NULL",
            "Null",
        ),
        *("None", "none", "#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)
NUMBER = r"^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
INFINITE = r"(?i)^[+-]?inf(?:inity)?$"
PADDED = r"^[+-]?0\d"
LONG = r"^[+-]?\d{19,}$"  # more digits than numbers hold
COMMA = r"^[+-]?(?:\d+,\d*|,\d+)(?:[eE][+-]?\d+)?$"
GROUPED = "^[+-]?\\d{1,3}(?:[.,' \u00a0\u202f\u2009]\\d{3})+(?:[.,]\\d+)?$"  # no-break and thin spaces, as Excel writes
MARKED = r"^(?:[$€£¥] ?[+-]?\d[\d.,]*|[+-]?\d[\d.,]* ?[%$€£¥])$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(?:[.,]\d{3})+$"
UNMARKED = r"^[+-]?\d+$"
LARGE = r"^[+-]?\d{4,}$"  # which would have a sign of thousands where others have
SOME = 10  # numbers with three digits after the point and none with others, from which on that is no chance
SURE = r"^[+-]?\d*,(?:0\d+|\d+[eE][+-]?\d+)$"  # no pair and no list: neither has a number with a zero before it
FUTURE = dt.timedelta(days=366)  # beyond today, that dates may be planned for
BOOLEAN = r"(?i)^(?:true|false)$"
MOST = 0.5  # of the values that are numbers, or dates: the others are then mistakes
LEAST_SURE = (
    0.02  # of the numbers with a comma: a tenth of those with two decimals have a zero first, and some are typos
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a task says of a column.

    Args:
        role: `label` has no dates and no booleans; `categories` may be whole numbers or texts; `left` is not read, and
            nothing in it is refused; `feature`.
        is_quantity: whether it is the label of a regression, which must be numbers.
        decimal: the mark before decimals that the task names; None for what the numbers have.
        format: of its dates; None for any that is known.
    """

    role: Role = "feature"
    is_quantity: bool = False
    decimal: str | None = None
    format: str | None = None


@dataclass(slots=True)
class Judge:
    """Takes in the values of a column, block by block, and says what they are.

    Args:
        name: of the column.
        asked: what the task says of it.
        place: a row of all files in words, for messages.
        reading: Python that reads the first file as a table of texts, likewise.
    """

    name: str
    asked: Asked
    place: Callable[[int], str]
    reading: str
    counts: dict[str, int] = field(default_factory=dict, init=False)
    firsts: dict[str, tuple[int, str]] = field(default_factory=dict, init=False)
    is_padded: bool = field(default=False, init=False)
    is_header: bool = field(default=False, init=False)  # whether the name of the column is among its values
    odd_date: tuple[int, str] | None = field(default=None, init=False)  # row and text that no format is left for
    latest_row: int = field(default=0, init=False)  # of the latest date whose year has two digits
    dates: DateTexts = field(init=False)

    def __post_init__(self) -> None:
        self.dates = DateTexts() if self.asked.format is None else DateTexts((self.asked.format,))

    def add(self, column: pa.Array, row: int) -> None:
        """Take in trimmed texts, the first of them in a row; "" is missing."""
        values = column.filter(pc.invert(pc.is_in(column, value_set=MISSING)))
        if len(values) == 0:
            return
        if self.asked.format is not None:
            self._count("date", column, values, row)
            self._add_dates(values, column, row)
            return
        if self._add_numbers(values, column, row):
            return
        self.is_header |= bool(pc.any(pc.equal(values, self.name)).as_py())
        rest = values
        for kind, pattern in KINDS.items():
            is_kind = pc.match_substring_regex(rest, pattern)
            found = rest.filter(is_kind)
            if len(found):
                self._count(kind, column, found, row)
                self._take(kind, found, column, row)
            rest = rest.filter(pc.invert(is_kind))
        if len(rest):
            self._count("other", column, rest, row)

    def _add_numbers(self, found: pa.Array, column: pa.Array, row: int) -> bool:
        """Whether all of a block are plain numbers: the usual case, which needs few patterns."""
        values = found
        if pc.any(pc.starts_with(values, "+")).as_py():  # which Arrow reads in fractions alone
            values = pc.replace_substring_regex(values, r"^\+", "")
        for kind, arrow in (("whole", pa.int64()), ("number", pa.float64())):
            try:
                values.cast(arrow)
            except pa.ArrowInvalid:
                continue
            if pc.any(pc.match_substring(values, "x", ignore_case=True)).as_py():  # hexadecimal, to Arrow
                return False
            self._count(kind, column, found, row)
            self._take(kind, values, column, row)
            return True
        return False

    def _take(self, kind: str, found: pa.Array, column: pa.Array, row: int) -> None:
        """Note what tells names from numbers, and one decimal mark from another."""
        if kind in ("whole", "number"):
            names = PADDED if kind == "whole" else f"{PADDED}|{LONG}"
            self.is_padded |= bool(pc.any(pc.match_substring_regex(found, names)).as_py())
        if (
            kind in ("number", "comma")
            and not pc.all(pc.match_substring_regex(found, f"{UNMARKED}|{THOUSANDS}")).as_py()
        ):
            self.counts[f"plain {kind}"] = 1  # no thousands: three digits do not stand after each mark
            self._note_marks(kind, found, column, row)
        elif kind == "number":
            self._count("thousands", column, _matching(found, THOUSANDS, but=UNMARKED), row)
        if kind in ("whole", "number") and "plain number" not in self.counts:
            self._count("below thousand", column, _matching(found, UNMARKED, but=LARGE), row)
            self._count("large", column, _matching(found, LARGE, but=THOUSANDS), row)
        if kind == "date" and self.asked.role == "feature":
            self._add_dates(found, column, row)

    def _note_marks(self, kind: str, found: pa.Array, column: pa.Array, row: int) -> None:
        """Note numbers whose mark stands before decimals for sure, whatever else it may be in other files."""
        if kind == "comma":
            self._count("sure comma", column, _matching(found, SURE, but=THOUSANDS), row)
        else:
            self._count("point", column, _matching(found, r"\.\d", but=THOUSANDS), row)

    def _add_dates(self, found: pa.Array, column: pa.Array, row: int) -> None:
        before = self.dates.latest
        odd = None if self.odd_date is not None else self.dates.add(found)
        if self.dates.latest is not None and self.dates.latest is not before:
            self.latest_row = row + pc.index(column, self.dates.latest[1]).as_py()
        if odd is not None:
            self.odd_date = (row + pc.index(column, odd).as_py(), odd)

    def _count(self, kind: str, column: pa.Array, found: pa.Array, row: int) -> None:
        if len(found) == 0:
            return
        self.counts[kind] = self.counts.get(kind, 0) + len(found)
        if kind not in self.firsts:
            self.firsts[kind] = (row + pc.index(column, found[0]).as_py(), found[0].as_py())

    def _number(self, *kinds: str) -> int:
        return sum(self.counts.get(kind, 0) for kind in kinds)

    @property
    def _has_plain_commas(self) -> bool:
        """Whether there are numbers with a comma between which no thousands can stand."""
        return "plain comma" in self.counts

    @property
    def _seems_grouped(self) -> bool:
        """Whether it reads `12`, `999`, `1.234`: who writes three decimals writes them of whole numbers, too."""
        is_open = self.asked.decimal is None and "large" not in self.counts
        return is_open and self._number("below thousand") > 0 and self._number("thousands") >= SOME

    def has_decimal_commas(self, *, is_cut_at_commas: bool) -> bool:
        """Whether it is read, and all of its values are numbers of which some have a comma before their decimals.

        Args:
            is_cut_at_commas: whether commas stand between the fields of a file: one within a field may then stand
                between two numbers, or between thousands, and few programs write one before decimals.
        """
        commas = self._number("comma")
        is_read = self.asked.role in ("feature", "label") and self.asked.format is None
        if not is_read or commas + self._number("whole") < self._total:
            return False
        return self._number("sure comma") > LEAST_SURE * commas if is_cut_at_commas else self._has_plain_commas

    @property
    def _total(self) -> int:
        return self._number(*KINDS, "other")

    def refuse_points(self, other: Judge) -> None:
        """Refuse decimal commas beside the decimal points of another column.

        Raises:
            DataError: it has points that can only stand before decimals.
        """
        if "point" in other.counts:
            rule = f"numbers with one decimal mark in all columns, as {other.firsts['point'][1]!r} of {other.name!r} is"
            raise self._odd(rule, self.firsts["comma"], f"Write all alike.{self._else_names}")

    def kind(self, *, has_commas: bool) -> Kind:
        """What the column holds.

        Args:
            has_commas: whether some column of the files has commas that can only stand before decimals.

        Raises:
            DataError: most values are numbers, or dates, and some are not; or they can be read in two ways.
        """
        total = self._total
        if self.asked.role in ("left", "text") or total == 0:
            return "text"
        if self.asked.format is not None:
            return self._date(total)
        if self.asked.role == "categories":
            return "whole" if self._number("whole") == total and not self.is_padded else "text"
        if self._number("boolean") == total:
            return "boolean" if self.asked.role == "feature" else "text"
        if self.asked.role == "feature" and self._number("date") > MOST * total:
            return self._date(total)
        return self._numbers(total, has_commas)

    def _numbers(self, total: int, has_commas: bool) -> Kind:
        plain, commas = self._number("whole", "number"), self._number("comma")
        found = plain + commas + self._number("grouped", "marked")
        if self.asked.role == "label" and not self.asked.is_quantity and found < total:
            return "text"
        if found <= MOST * total and not self.asked.is_quantity:
            return "text"
        if found < total:
            odd = next(self.firsts[kind] for kind in ("other", "date", "boolean") if kind in self.firsts)
            refusal = self._odd("numbers", odd, self._or_categories())
            is_mixed = self.asked.role == "label" and found > MOST * total
            raise MixedLabelsError(str(refusal)) if is_mixed else refusal
        for kind in ("grouped", "marked"):
            if kind in self.firsts:
                raise self._odd("plain numbers", self.firsts[kind], self._unmarked(self.firsts[kind][1]))
        if commas:
            return self._commas(has_commas)
        if self.asked.decimal == "," and ("thousands" in self.counts or "plain number" in self.counts):
            odd = self.firsts.get("number", (0, "a point"))
            raise self._odd("numbers with decimal commas, as data.csv says,", odd, "Write all numbers alike.")
        if "thousands" in self.counts and "plain number" not in self.counts and (has_commas or self._seems_grouped):
            raise self._two_ways("point")
        if self.is_padded and not self.asked.is_quantity:
            return "text"
        return "number" if self._number("number") or self.is_padded else "whole"

    def _commas(self, has_commas: bool) -> Kind:
        if self.asked.decimal == "." or (self._number("number") and self._has_plain_commas):
            raise self._odd("numbers with one decimal mark", self.firsts["comma"], "Write all numbers alike.")
        if not has_commas and self.asked.decimal is None:
            raise self._pairs() if self._has_plain_commas else self._two_ways("comma")
        if self._number("number"):
            raise self._two_ways("point and comma")
        return "comma"

    def _date(self, total: int) -> Kind:
        odd = next((self.firsts[kind] for kind in ("other", *KINDS) if kind != "date" and kind in self.firsts), None)
        odd = odd or self.odd_date
        if odd is not None:
            form = self.asked.format
            rule = "dates of one known format" if form is None else f"dates as {form!r}"
            advice = (
                "Write all as 2024-05-31 or 2024-05-31 14:30, or say how they are written: data.date_formats: "
                f"{{{self.name}: '%d.%m.%Y'}}. Else {self._or_categories(is_first=False)}"
            )
            raise self._odd(rule, odd, advice)
        if self.dates.is_open:
            row, text = self.firsts["date"]
            raise DataError(
                f"column {self.name!r} must say whether its dates have the day or the month first, got {text!r} in "
                f"{self.place(row)}. Set data.date_formats: {{{self.name}: '{self.dates.formats[0]}'}}, or "
                f"'{next(f for f in self.dates.formats if f.startswith('%m'))}'."
            )
        if self.asked.format is None:
            self._refuse_open_times()
        return "date"

    def _refuse_open_times(self) -> None:
        """What Python would guess: centuries, and times without a zone beside others, unless a format is given."""
        way = f"set data.date_formats: {{{self.name}: '{self.dates.formats[0]}'}}"
        if self.dates.latest is not None and self.dates.latest[0] > dt.datetime.now() + FUTURE:
            time, text = self.dates.latest
            raise DataError(
                f"column {self.name!r} must tell centuries where years of two digits go beyond today, got {text!r} in "
                f"{self.place(self.latest_row)}, which may be {time.year - 100} or {time.year}. Write years with four "
                f"digits; if {time.year} is meant, {way}."
            )
        if len(self.dates.zoned) > 1:
            raise DataError(
                f"column {self.name!r} must hold times with a zone in all rows or in none, got "
                f"{self.dates.zoned[True]!r} and {self.dates.zoned[False]!r}. Write all alike; if those without are in "
                f"UTC, {way}."
            )

    def _or_categories(self, *, is_first: bool = True) -> str:
        if self.asked.role == "label":
            return "Mend or drop that row, or choose a classification metric."
        first = "Mend it, or, if" if is_first else "if"
        return f"{first} they are names, put the column into data.categorical; if it is no feature, into data.exclude."

    def _unmarked(self, text: str) -> str:
        """How such numbers are written plainly, by lines of Python that can be copied."""
        column = f"t[{self.name!r}]"
        return (
            "Write them without signs of thousands, money and shares, as these lines do: "
            f"import pandas; t = {self.reading}; {column} = {column}.str.replace(r'[^0-9{decimal_mark(text)}+-]', '', "
            "regex=True); t.to_csv('plain.csv', sep=';', index=False)"
        )

    @property
    def _else_names(self) -> str:
        """What else an input may be."""
        if self.asked.role == "label":
            return ""
        return " If they are names, put the column into data.categorical; if it is no feature, into data.exclude."

    def _odd(self, rule: str, odd: tuple[int, str], advice: str) -> DataError:
        row, text = odd
        return DataError(f"column {self.name!r} must hold {rule}, got {text!r} in {self.place(row)}. {advice}")

    def _pairs(self) -> DataError:
        row, text = self.firsts["comma"]
        return DataError(
            f"column {self.name!r} must say what its commas are, got {text!r} in {self.place(row)}, where it may stand "
            f'before decimals, or between two numbers. If before decimals, set data.csv: {{decimal: ","}}.'
            f"{self._else_names}"
        )

    def _two_ways(self, mark: str) -> DataError:
        kind = "number" if mark == "point" else "comma"
        row, text = self.firsts.get("thousands", self.firsts.get(kind, (0, "1.234")))
        return DataError(
            f"column {self.name!r} must say what stands before decimals, got {text!r} in {self.place(row)}, where it "
            'may stand between thousands. Set data.csv: {decimal: "."} or {decimal: ","}, and write no thousands.'
        )


KINDS = {
    "whole": r"^[+-]?\d{1,18}$",
    "number": rf"(?:{NUMBER})|(?:{INFINITE})",
    "boolean": BOOLEAN,
    "date": DATE_LIKE,
    "comma": COMMA,
    "grouped": GROUPED,
    "marked": MARKED,
}


def decimal_mark(text: str) -> str:
    """The mark before the decimals of a number with signs of thousands or money, or that it would have."""
    marks = re.sub(r"[^.,' \u00a0\u202f\u2009]", "", re.sub(r"^[^0-9]+|[^0-9]+$", "", text))
    is_grouped = len(set(marks)) < 2 and (len(marks) > 1 or re.search(r"\D\d{3}\D*$", text) is not None)
    return "." if not marks or (is_grouped and marks[0] != ".") else "," if is_grouped else marks[-1]


def _matching(texts: pa.Array, pattern: str, *, but: str) -> pa.Array:
    is_meant = pc.and_not(pc.match_substring_regex(texts, pattern), pc.match_substring_regex(texts, but))
    return texts.filter(is_meant)


def converted(column: pa.Array, kind: Kind, dates: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Trimmed texts as what they stand for, null where one is missing."""
    if kind == "text":
        return pc.if_else(pc.equal(column, ""), None, column).cast(pa.large_string())
    values = pc.if_else(pc.is_in(column, value_set=MISSING), None, column)
    if kind == "date":
        return dates(values)
    if kind == "boolean":
        return pc.equal(pc.utf8_lower(values), "true")
    if kind == "comma":
        values = pc.replace_substring(values, ",", ".")
    return pc.replace_substring_regex(values, r"^\+", "").cast(TYPES[kind])


TYPES = {
    "whole": pa.int64(),
    "number": pa.float64(),
    "comma": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.timestamp("us"),
    "text": pa.large_string(),
}
