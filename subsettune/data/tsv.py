"""The user's own files of tab-separated values: a line of column names, then a text and a label in each line.

As GLUE has them: no sign is special but tab and line break, so that a quotation mark is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from subsettune.data.columns import ColumnFacts, SourceFacts
from subsettune.data.labels import typed
from subsettune.data.raw import Raw
from subsettune.data.shards import Parts, parts
from subsettune.data.text import read_texts
from subsettune.data.unlabelled import refuse_unlabelled
from subsettune.errors import DataError, did_you_mean
from subsettune.task import Data

SUFFIXES = (".tsv", ".tsv.gz")
QUOTED = r'^"(?:[^"]|"")*"$'  # as programs write fields that hold a quotation mark, each of them
BLOCK_BYTES = 2**24  # read in one go; no line may be longer
PARSING = csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False, ignore_empty_lines=False)


def read_tsv(path: Path, data: Data, kind: str, scratch: Path) -> Raw:
    """Read a .tsv file, or a folder with `train.tsv` and perhaps `test.tsv`, or numbered shards; gzipped or not.

    Other files of a folder, `dev.tsv` among them, are left alone: validation is drawn from training rows.

    Args:
        path: of the file or folder.
        data: which columns; `text` is called that where `data.text` says nothing else.
        kind: `classification` or `regression`.
        scratch: folder for large arrays.

    Raises:
        DataError: a file is empty or damaged, or lacks a column; a text is empty; labels are missing or of no use.
    """
    keys = ("features", "categorical", "embeddings", "exclude", "layout")
    refused = [*(key for key in keys if getattr(data, key)), *data.given]
    if refused:
        raise DataError(f"data.{refused[0]} means nothing to .tsv files: texts are their input. Write Parquet instead.")
    data = data if data.text is not None else replace(data, text="text")
    found = Parts(train=(path,)) if path.is_file() else parts(path, SUFFIXES)
    train, test = found.train, found.test
    files = [*train, *test]
    headers = [_checked_header(file, data, may_lack_labels=file in test) for file in files]
    columns = [_labels(file, data.label, is_test=file in test) for file in files]
    num_rows = [len(column) for column in columns]
    quoted = _about_quotes(files, str(data.text))
    inputs, vocabulary = read_texts(
        lambda: _blocks(files, str(data.text)), sum(num_rows), sum(num_rows[: len(train)]), data, scratch
    )
    return Raw(
        inputs=inputs,
        labels=typed(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()), kind),
        num_train=sum(num_rows[: len(train)]),
        tokens=data.tokens,
        vocabulary=tuple(vocabulary),
        facts=SourceFacts(
            files=tuple(file.name for file in train),
            test_files=tuple(file.name for file in test),
            left_alone=tuple(file.name for file in found.left_alone),
            columns=tuple(_facts(headers[0], data, inputs.shape[1])),
            warnings=(*found.warnings, *quoted),
        ),
    )


def _facts(names: Sequence[str], data: Data, length: int) -> Iterator[ColumnFacts]:
    """What each column is read as: one is the text, one the label."""
    for name in names:
        if name == data.text:
            yield ColumnFacts(name=name, role="text", kind="text", width=length)
        elif name == data.label:
            yield ColumnFacts(name=name, role="label", kind="text")
        else:
            why = f"the column {data.text!r} alone is the input."
            yield ColumnFacts(name=name, role="ignored", kind="text", width=0, why=why)


def _open(file: Path, columns: list[str]) -> csv.CSVStreamingReader:
    """A reader of some columns as texts; of all where none is named."""
    options = csv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
    )
    reading = csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
    try:
        return csv.open_csv(str(file), read_options=reading, parse_options=PARSING, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{file} is empty, damaged or no file of tab-separated values: {reason}. Write it again.")


def names_of(file: Path) -> list[str]:
    """Names of the columns of a .tsv file.

    Raises:
        DataError: it is empty or damaged.
    """
    with _open(file, []) as reader:
        return list(reader.schema.names)


def _checked_header(file: Path, data: Data, *, may_lack_labels: bool) -> list[str]:
    """The names of the columns; text and label must be among them once each."""
    names = names_of(file)
    if may_lack_labels and data.label not in names:
        refuse_unlabelled(file, None, data.label)
    for key, name in (("text", str(data.text)), ("label", data.label)):
        if names.count(name) != 1:
            have = f"its columns: {', '.join(names)}"
            number = "no" if name not in names else "more than one"
            guess = f" {did_you_mean(name, names)}".rstrip() if number == "no" else ""
            advice = f"Set data.{key}, or mend the first line."
            raise DataError(f"{file} has {number} column {name!r} ({have}).{guess} {advice}")
    return names


def _batches(file: Path, column: str) -> Iterator[pa.Array]:
    with _open(file, [column]) as reader:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                raise _damaged(file, error) from error
            yield batch.column(0)


def _blocks(files: list[Path], column: str) -> Iterator[tuple[int, pa.Array]]:
    """A column of all files, each block with the number of its first row."""
    row = 0
    for file in files:
        for values in _batches(file, column):
            yield row, values
            row += len(values)


def _about_quotes(files: list[Path], column: str) -> tuple[str, ...]:
    """A sentence where each text with a quotation mark was written as spreadsheets and pandas write it."""
    num_marked, num_doubled = 0, 0
    for _, texts in _blocks(files, column):
        marked = texts.filter(pc.match_substring(texts, '"'))
        if not pc.all(pc.match_substring_regex(marked, QUOTED), min_count=0).as_py():
            return ()
        num_marked += len(marked)
        num_doubled += pc.sum(pc.match_substring(pc.utf8_slice_codeunits(marked, 1, -1), '""'), min_count=0).as_py()
    if not num_doubled:
        return ()
    return (
        f"in {num_marked:,} of the texts of column {column!r} quotation marks are doubled, and two more stand around, "
        "as pandas and spreadsheets write them. They are read as they stand: each mark is one more word. Write the "
        "file without (quoting=csv.QUOTE_NONE), or as Parquet.",
    )


def _labels(file: Path, name: str, *, is_test: bool) -> pa.ChunkedArray:
    column = pa.chunked_array(list(_batches(file, name)), pa.string())
    if len(column) == 0:
        raise DataError(f"{file} has no rows. Give a file with examples, or remove it.")
    if is_test:
        refuse_unlabelled(file, column, name)
    missing = pc.index(pc.utf8_trim_whitespace(column), "").as_py()
    if missing >= 0:
        raise DataError(f"column {name!r} must have no missing labels, got none in row {missing} of {file}. Fill it.")
    return column
