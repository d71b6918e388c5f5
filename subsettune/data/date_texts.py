"""Dates that are written as texts: which format a column has, and its times.

A format is one of Python's `strptime`, or `ISO`. A column that can be read in two ways (day or month first), or in
none, is refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

ISO = "ISO"
SAMPLE = 100  # texts that tell a format
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DATE_LIKE = (
    r"(?i)^(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}/\d{1,2}/\d{2}|\d{2}\.\d{2}\.\d{2}|"
    rf"\d{{1,2}}[ -]{MONTH}[ ,-]*\d{{2,4}}|{MONTH} \d{{1,2}},? \d{{4}})(?:[ T,].*)?$"
)
DAYS = (
    *("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y"),
)
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
KNOWN = (ISO, *(day + time for day in DAYS for time in TIMES))
LOOSE_ISO = tuple(f"%Y-%m-%d{time}" for time in TIMES)  # without the zeros: 2024-5-1 9:30
DAY_FIRST = re.compile(r"%d[/-]%m")
EPOCH_US = pa.timestamp("us")


@dataclass(slots=True)
class DateTexts:
    """Takes in the texts of a column and keeps the formats in which all of them can be read.

    Args:
        formats: that may be; those of `KNOWN`, or the one that the task names.
        latest: time and text of the latest whose year has two digits; None where none has.
        zoned: the first text with a zone, and the first without, of those of ISO 8601.
    """

    formats: tuple[str, ...] = KNOWN
    latest: tuple[dt.datetime, str] | None = None
    zoned: dict[bool, str] = field(default_factory=dict)

    def add(self, texts: pa.Array) -> str | None:
        """Take in some texts without missing ones; returns the first that no format is left for."""
        for text in pc.unique(texts).to_pylist():
            left = {form: time for form in self.formats if (time := time_of(text, form)) is not None}
            if not left:
                return str(text)
            self.formats = tuple(left)
            self._note(text, left)
        return None

    def _note(self, text: str, left: Mapping[str, dt.datetime]) -> None:
        """Note what a format alone does not tell: the century of a year, and whether a time has a zone."""
        if ISO in left:
            self.zoned.setdefault(_has_zone(text), text)
        times = [time for form, time in left.items() if "%y" in form]
        if times and (self.latest is None or max(times) > self.latest[0]):
            self.latest = (max(times), text)

    @property
    def is_open(self) -> bool:
        """Whether day and month can be exchanged: the formats that are left read other dates."""
        return len({bool(DAY_FIRST.match(form)) for form in self.formats if re.match("%[dm][/-]%[dm]", form)}) > 1


def format_of(texts: Iterable[str]) -> str:
    """A format in which some texts are dates; empty where they are none, or can be read in two ways."""
    found, some = DateTexts(), list(texts)[:SAMPLE]
    if not some or not all(re.match(DATE_LIKE, text) for text in some) or found.add(pa.array(some)) is not None:
        return ""
    return "" if found.is_open else next((form for form in found.formats if form != ISO), ISO)


def time_of(text: str, form: str) -> dt.datetime | None:
    """The time that a text tells, in UTC and without a zone; None where it is not of the format."""
    try:
        found = dt.datetime.fromisoformat(text) if form == ISO else dt.datetime.strptime(text, form)
        return found if found.tzinfo is None else found.astimezone(dt.UTC).replace(tzinfo=None)
    except OverflowError:  # 0001-01-01T00:00+02:00, as .NET writes for nothing, is in no year in UTC
        return None
    except ValueError:
        return next((time for loose in LOOSE_ISO if (time := time_of(text, loose))), None) if form == ISO else None


def _has_zone(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:  # one without all zeros, which has none
        return False


def times_of(texts: pa.Array, forms: Sequence[str]) -> tuple[pa.Array, int | None]:
    """The times of a column of texts, null where one is missing.

    Returns:
        (n,) timestamps in microseconds, and the place of the first text that is of no format; None where all are.
    """
    encoded = texts.dictionary_encode()
    found = [_first(text, forms) for text in encoded.dictionary.to_pylist()]
    odd = [i for i, time in enumerate(found) if time is None]
    if odd:
        return pa.nulls(0, EPOCH_US), int(pc.index(encoded.indices, pa.scalar(odd[0], encoded.indices.type)).as_py())
    return pa.array(found, EPOCH_US).take(encoded.indices), None


def _first(text: str, forms: Iterable[str]) -> dt.datetime | None:
    return next((time for form in forms if (time := time_of(text, form)) is not None), None)
