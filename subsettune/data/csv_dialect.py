"""How a .csv file is written: its encoding, the sign between fields, and the line of names, found in its beginning.

What cannot be told apart is refused with the key that says it, `data.csv`.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from subsettune.errors import DataError
from subsettune.task import Csv

SUFFIXES = (".csv", ".csv.gz")
SEPARATORS = (",", ";", "\t", "|")
CALLED = {"\t": "tab"}
SAMPLE_BYTES = 2**18  # that tell the separator
SAMPLE_ROWS = 100
SHOWN = 40  # signs of a first line that is none
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
PLAIN_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
COUNT = re.compile(r"\d+")
INDEX = "Unnamed: 0"  # what pandas calls the index that it wrote without a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a file is written.

    Args:
        separator: between fields.
        encoding: of its texts, as Python calls it.
        raw_names: the fields of its first line, as they stand.
        names: of the columns.
    """

    separator: str
    encoding: str
    raw_names: tuple[str, ...]
    names: tuple[str, ...]


def dialect_of(file: Path, asked: Csv, *, least: int = 2) -> Dialect:
    """Find out how a file is written.

    Args:
        file: .csv, gzipped or not.
        asked: what the task says of it.
        least: columns that it must have.

    Raises:
        DataError: it is empty, no text, in another encoding, without names of columns, or written in two ways at once.
    """
    sample = _beginning(file)
    if not sample.strip(b"\x00 \t\r\n"):
        raise DataError(f"{file} is empty. Give a file with a line of column names, and a row for each example.")
    encoding = _encoding(file, sample, asked)
    records = {sign: _records(text := _text(sample, encoding), sign) for sign in _candidates(asked)}
    assert text.strip(), "a file of spaces was refused"
    is_single = least == 1 and all(len(rows[0]) == 1 for rows in records.values())
    separator = next(iter(records)) if is_single else _separator(file, records, asked)
    raw = tuple(records[separator][0])
    return Dialect(separator=separator, encoding=encoding, raw_names=raw, names=_names(file, raw))


def opened(file: Path) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    return cast(IO[bytes], gzip.open(file) if file.name.endswith(".gz") else file.open("rb"))


def numbered(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file with the number of the line in which each ends, from 1; slow, and for messages."""
    with opened(file) as stream:
        lines = (line.decode(dialect.encoding, "replace") for line in stream)
        reader = csv.reader(lines, delimiter=dialect.separator)
        with contextlib.suppress(csv.Error):  # a field longer than that module takes
            yield from ((reader.line_num, row) for row in reader if row)


def line_of(file: Path, dialect: Dialect, row: int) -> int:
    """The number of the line, from 1, in which a row of a file ends; rows count from 0, below the line of names."""
    found = next(islice(numbered(file, dialect), row + 1, None), None)
    return row + 2 if found is None else found[0]


def unreadable(file: Path, encoding: str) -> DataError:
    """What is told of a file that has bytes of another encoding, with the line of the first."""
    with opened(file) as stream:
        found = ((number, _odd_byte(line, encoding)) for number, line in enumerate(stream, start=1))
        number, odd = next(((number, byte) for number, byte in found if byte), (0, b""))
    other = "cp1252" if fits(file, "cp1252") else "latin-1"
    byte = f"got the byte 0x{odd.hex()} in line {number}" if odd else "got other bytes"
    return DataError(
        f"{file} must be {encoding.upper()}, {byte}. Save it as UTF-8, or say how it is written: "
        f"data.csv: {{encoding: {other}}}."
    )


def fits(file: Path, encoding: str) -> bool:
    """Whether all bytes of a file stand for signs in an encoding of one byte a sign."""
    with opened(file) as stream:
        return not any(_odd_byte(line, encoding) for line in stream)


def _odd_byte(line: bytes, encoding: str) -> bytes:
    try:
        line.decode(encoding)
    except UnicodeDecodeError as error:
        return line[error.start : error.start + 1]
    return b""


def _beginning(file: Path) -> bytes:
    try:
        with opened(file) as stream:
            return stream.read(SAMPLE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cannot be read: {error}. Write it again.") from error


def _encoding(file: Path, sample: bytes, asked: Csv) -> str:
    if asked.encoding is not None:
        return "utf-8" if codecs.lookup(asked.encoding).name in ("utf-8", "utf-8-sig") else asked.encoding
    for mark, encoding in MARKS:
        if sample.startswith(mark):
            return encoding
    if b"\x00" in sample:
        raise DataError(
            f"{file} holds zero bytes, as no UTF-8 text does. Save it as UTF-8, or say how it is written: data.csv: "
            "{encoding: utf-16-le}."
        )
    return "utf-8"


def _text(sample: bytes, encoding: str) -> str:
    """The beginning of a file as text; of what is no such text, which is found with its line later, signs stand in."""
    return codecs.getincrementaldecoder(encoding)("replace").decode(sample).removeprefix("\ufeff")


def _candidates(asked: Csv) -> tuple[str, ...]:
    return SEPARATORS if asked.separator is None else (asked.separator,)


def _records(text: str, separator: str) -> list[list[str]]:
    """The first rows of a text cut at a separator; the last of many lines may not be whole, and is left out."""
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    found: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # a field longer than that module takes: the rows before tell enough
        for row in reader:
            found += [row] if row else []
            if len(found) > SAMPLE_ROWS:
                break
    return found[:-1] if len(found) > 2 else found or [[text[:SHOWN]]]


def _separator(file: Path, records: dict[str, list[list[str]]], asked: Csv) -> str:
    """The separator at which the rows have as many fields as the first."""
    fit = {sign: _alike(rows) for sign, rows in records.items() if len(rows[0]) > 1}
    if not fit:
        cut = "" if asked.separator is None else f" at {CALLED.get(asked.separator, asked.separator)!r}"
        first = next(iter(records.values()))[0][0]
        raise DataError(
            f"{file} must have a column of labels and one of inputs at least, got one column{cut}, {first!r}. Say "
            'what stands between its fields: data.csv: {separator: ";"}.'
        )
    best = max(fit.values())
    found = [sign for sign, share in fit.items() if share == best]
    if len(found) > 1:
        signs = " and ".join(repr(CALLED.get(sign, sign)) for sign in found)
        raise DataError(
            f'{file} can be cut into columns at {signs}. Say which is meant: data.csv: {{separator: "{found[0]}"}}.'
        )
    return found[0]


def _alike(rows: list[list[str]]) -> float:
    """Share of the rows that have as many fields as the first."""
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _names(file: Path, raw: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the columns; what pandas writes without a name is its index."""
    names = tuple(name.strip() for name in raw)
    names = (INDEX, *names[1:]) if names[0] == "" else names
    numbers = [name for name in names if PLAIN_NUMBER.fullmatch(name)]
    if numbers and not _are_counted(numbers):
        raise DataError(
            f"{file} must name its columns in the first line, got {numbers[0]!r} there. Write a line of names above "
            "the rows."
        )
    if "" in names:
        raise DataError(
            f"{file} must name all columns in the first line, got none for column {names.index('') + 1} of "
            f"{len(names)}. Name it, or remove the column."
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file} has more than one column {twice[0]!r}. Rename or drop all but one of them.")
    return names


def _are_counted(names: list[str]) -> bool:
    """Whether numbers are names that go on by one: 0, 1, 2 of pandas, or years."""
    if len(names) < 2 or not all(COUNT.fullmatch(name) for name in names):
        return False
    found = list(map(int, names))
    return found == list(range(found[0], found[0] + len(found)))
