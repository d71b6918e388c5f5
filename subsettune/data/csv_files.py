"""The user's own .csv files as files of typed columns: read as texts twice, judged as a whole, written as Parquet.

The Parquet copies lie in the scratch folder of the source, so that all that reads Parquet reads .csv files too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from subsettune.data.arrow_types import SHORT_YEARS
from subsettune.data.csv_dialect import Dialect, dialect_of, line_of, numbered, unreadable
from subsettune.data.csv_kinds import TYPES, Asked, Judge, Kind, Role, converted
from subsettune.data.date_texts import KNOWN, times_of
from subsettune.data.parquet_files import File, open_file
from subsettune.errors import DataError, StorageError
from subsettune.task import Csv, Data

BLOCK_BYTES = 2**24  # read in one go; no row may be longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How the values of a column are written.

    Args:
        kind: what they hold.
        formats: of its dates.
    """

    kind: Kind
    formats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Csv:
    """A file, how it is written, and the number of its first row among those of all files."""

    path: Path
    dialect: Dialect
    first: int

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Its rows as trimmed texts, "" where nothing stands."""
        bad: list[csv.InvalidRow] = []
        try:
            with _reader(self.path, self.dialect, bad) as reader:
                for batch in reader:
                    columns = [pc.utf8_trim_whitespace(column) for column in batch.columns]
                    yield pa.RecordBatch.from_arrays(columns, list(self.dialect.names))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._refusal(error, bad) from error

    @property
    def reading(self) -> str:
        """Python that reads it as texts, as pandas would."""
        said = f"sep={self.dialect.separator!r}, encoding={self.dialect.encoding!r}"
        return f"pandas.read_csv({str(self.path)!r}, {said}, dtype=str, keep_default_na=False)"

    def _refusal(self, error: Exception, bad: list[csv.InvalidRow]) -> DataError:
        if bad:
            return self._uneven()
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            return unreadable(self.path, self.dialect.encoding)
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        if "straddl" in reason:
            reason = "a row is longer than 16 MB, or a quotation mark is not closed"
        return DataError(f"{self.path} is damaged or no .csv file: {reason}. Write it again.")

    def _uneven(self) -> DataError:
        """Names the line of the first row that has not as many fields as there are names."""
        wanted = len(self.dialect.names)
        found = ((line, len(row)) for line, row in numbered(self.path, self.dialect) if len(row) != wanted)
        line, got = next(found, (0, 0))
        where = f"{got} in line {line}" if line else "another number in one"
        return DataError(
            f"rows of {self.path} must have {wanted} fields, as many as the first line has names, got {where}. "
            f"Mend that line; a field that holds {self.dialect.separator!r} must stand in quotation marks."
        )


def open_csv_files(paths: Sequence[Path], data: Data, kind: str, scratch: Path, reads: str | None) -> list[File]:
    """Open .csv files as one table: a column has one type in all of them, judged by all their rows.

    Args:
        paths: of the files, in the order of their rows.
        data: how they are written, and what part each column has to play.
        kind: `classification` or `regression`.
        scratch: folder for the typed copies.
        reads: the column that the split goes by, if any.

    Raises:
        DataError: a file is empty, damaged, of another encoding or without names; rows have several lengths; or a
            column can be read in two ways.
    """
    files, judges, kinds = _looked_at(paths, data, kind, reads)
    _refuse_headless(files[0], judges, kinds)
    return [_typed(file, kinds, judges, scratch / f"table-{i}.parquet") for i, file in enumerate(files)]


def written_as(paths: Sequence[Path], data: Data, kind: str, reads: str | None) -> dict[str, Written]:
    """How each column of .csv files is written, by name; arguments and errors as of `open_csv_files`."""
    _, judges, kinds = _looked_at(paths, data, kind, reads)
    return {
        name: Written(kind=kinds[name], formats=_formats(judge) if kinds[name] == "date" else ())
        for name, judge in judges.items()
    }


def text_blocks(path: Path, asked: Csv) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    """Names of the columns of a .csv file, and its rows as trimmed texts, "" where nothing stands.

    Args:
        path: of the file, which may have one column.
        asked: how it is written, where that is not to be found out.

    Raises:
        DataError: it is empty, damaged, of another encoding or without names; while rows are read, that they have
            several lengths.
    """
    file = _Csv(path, dialect_of(path, asked, least=1), 0)
    return file.dialect.names, file.blocks()


def _looked_at(
    paths: Sequence[Path], data: Data, kind: str, reads: str | None
) -> tuple[list[_Csv], dict[str, Judge], dict[str, Kind]]:
    """Files as one table, and what their columns hold."""
    files, first = [], 0
    for path in paths:
        file = _Csv(path, dialect_of(path, data.csv), first)
        num_rows = sum(batch.num_rows for batch in file.blocks()) if len(paths) > 1 else 0
        files.append(file)
        first += num_rows
    judges = _judged(files, data, kind, reads)
    is_cut_at_commas = any(file.dialect.separator == "," for file in files)
    has_commas = data.csv.decimal == "," or any(
        judge.has_decimal_commas(is_cut_at_commas=is_cut_at_commas) for judge in judges.values()
    )
    kinds = {name: judge.kind(has_commas=has_commas) for name, judge in judges.items()}
    _refuse_two_marks(judges, kinds)
    return files, judges, kinds


def _refuse_two_marks(judges: dict[str, Judge], kinds: dict[str, Kind]) -> None:
    """Decimal commas in one column and decimal points in another: one of them is something else."""
    commas = [judge for name, judge in judges.items() if kinds[name] == "comma"]
    for judge in commas[:1]:
        for name in (name for name, kind in kinds.items() if kind == "number"):
            judge.refuse_points(judges[name])


def _reader(path: Path, dialect: Dialect, bad: list[csv.InvalidRow]) -> csv.CSVStreamingReader:
    def refuse(row: csv.InvalidRow) -> str:
        bad.append(row)
        return "error"

    parsing = csv.ParseOptions(delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=refuse)
    types = dict.fromkeys(dialect.raw_names, pa.string())
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    reading = csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False, encoding=dialect.encoding)
    return csv.open_csv(str(path), read_options=reading, parse_options=parsing, convert_options=options)


def _judged(files: list[_Csv], data: Data, kind: str, reads: str | None) -> dict[str, Judge]:
    """What the columns of all files hold, by name."""
    place = partial(_place, files)
    judges: dict[str, Judge] = {}
    for file in files:
        for name in file.dialect.names:
            judges.setdefault(name, Judge(name, _asked(name, data, kind, reads), place, files[0].reading))
        row = file.first
        for batch in file.blocks():
            for name in file.dialect.names:
                judges[name].add(batch.column(name), row)
            row += batch.num_rows
    return judges


def _asked(name: str, data: Data, kind: str, reads: str | None) -> Asked:
    if name == data.label:
        return Asked(role="label", is_quantity=kind == "regression", decimal=data.csv.decimal)
    if name in data.categorical:
        return Asked(role="categories")
    if name == reads:
        return Asked(decimal=data.csv.decimal, format=data.date_formats.get(name))
    is_open = data.text is None and data.features is None and not data.categorical
    if name == data.text or (name == "text" and is_open):
        return Asked(role="text")
    is_read = data.text is None and name not in data.exclude and (data.features is None or name in data.features)
    role: Role = "feature" if is_read else "left"
    return Asked(role=role, decimal=data.csv.decimal, format=data.date_formats.get(name) if is_read else None)


def _place(files: list[_Csv], row: int) -> str:
    file = next(file for file in reversed(files) if file.first <= row)
    return f"line {line_of(file.path, file.dialect, row - file.first)} of {file.path.name}"


def _refuse_headless(file: _Csv, judges: dict[str, Judge], kinds: dict[str, Kind]) -> None:
    """A table of texts alone, of which the first line holds values: no number tells that it is no line of names."""
    found = [name for name, judge in judges.items() if judge.is_header]
    if found and set(kinds.values()) == {"text"}:
        raise DataError(
            f"{file.path} must name its columns in the first line, got {found[0]!r} there, which is also a value of "
            "that column. Write a line of names above the rows."
        )


def _typed(file: _Csv, kinds: dict[str, Kind], judges: dict[str, Judge], target: Path) -> File:
    """A copy of a file with typed columns."""
    names = file.dialect.names
    schema = pa.schema([_field(name, kinds[name], judges[name]) for name in names])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.blocks():
                dates = {name: partial(_dates, judges[name]) for name in names}
                columns = [converted(batch.column(name), kinds[name], dates[name]) for name in names]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    except OSError as error:
        raise StorageError(
            f"cache {target.parent.parent} cannot be written: {error}. Give --cache a folder with room."
        ) from error
    made = open_file(target)
    return File(file.path, made.content, made.schema, line_of=partial(line_of, file.path, file.dialect))


def _field(name: str, kind: Kind, judge: Judge) -> pa.Field:
    is_short = kind == "date" and any("%y" in form for form in _formats(judge))
    return pa.field(name, TYPES[kind], metadata={SHORT_YEARS: b"1"} if is_short else None)


def _dates(judge: Judge, texts: pa.Array) -> pa.Array:
    """Times of texts that were judged to be dates of the formats that are left."""
    times, odd = times_of(texts, _formats(judge))
    assert odd is None, f"{texts[odd]} was judged to be a date"
    return times


def _formats(judge: Judge) -> tuple[str, ...]:
    return tuple(form for form in judge.dates.formats if form in KNOWN or form == judge.asked.format)
