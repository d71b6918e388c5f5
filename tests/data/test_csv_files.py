"""CSV files as people have them: several dialects, types by all rows, and every way they can be wrong."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tables import ROWS, column, csv_text, load_csv, load_source, pets

from subsettune.data import csv_files
from subsettune.errors import ConfigError, DataError

PETS = pets()


def refusal(folder: Path, text: str | bytes, **given: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_csv(folder, text, **given)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_file_is_read_as_the_same_table_in_parquet(tmp_path: Path) -> None:
    """One code path: inputs, classes, split and facts are those of Parquet."""
    found = load_csv(tmp_path, PETS)
    frame = pd.read_csv(io.StringIO(PETS))
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "d.parquet")
    same = load_source(tmp_path / "d.parquet", tmp_path / "cache")
    assert found.fingerprint == same.fingerprint
    assert torch.equal(found.train.batch(torch.arange(5))[0], same.train.batch(torch.arange(5))[0])
    assert found.class_names == ("cat", "dog")
    assert [(c.name, c.role, c.width) for c in found.facts.columns] == [
        ("a", "feature", 1),
        ("colour", "categories", 3),
        ("n", "feature", 1),
        ("label", "label", 1),
    ]


@pytest.mark.parametrize(
    "content",
    [
        ("\ufeff" + PETS).encode(),
        PETS.encode("utf-16"),
        PETS.replace(",", ";").encode(),
        PETS.replace(",", "\t").encode(),
        PETS.replace(",", " | ").encode(),
        PETS.replace(",", ";").replace(".", ",").encode(),
        PETS.replace("\n", "\r\n").encode(),
        PETS.replace("red", '"red"').encode(),
        ("\n" + PETS.replace("\n", "\n\n")).encode(),
    ],
    ids=["bom", "utf-16", "semicolons", "tabs", "bars", "decimal_commas", "crlf", "quotes", "empty_lines"],
)
def test_one_table_in_many_dialects(tmp_path: Path, content: bytes) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    assert load_csv(tmp_path, content).fingerprint == load_csv(plain, PETS).fingerprint


def test_a_gzipped_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("train-0", "train-1", "test"):
        (tmp_path / f"d/{name}.csv.gz").write_bytes(gzip.compress(PETS.encode()))
    data = load_source(tmp_path / "d", tmp_path / "cache")
    assert (data.num_source_examples, len(data.test)) == (2 * ROWS, ROWS)
    assert data.facts.files == ("train-0.csv.gz", "train-1.csv.gz")
    (tmp_path / "d/val.csv.gz").write_bytes(gzip.compress(PETS.encode()))
    assert len(load_source(tmp_path / "d", tmp_path / "cache").validation) == ROWS


def test_types_are_judged_by_all_rows_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its first block, and in the training file, the column has whole numbers; the test file has a fraction."""
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 200)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.csv").write_text(csv_text("x,label", lambda i: f"{i},{i % 2}"))
    (tmp_path / "d/test.csv").write_text(csv_text("label,x", lambda i: f"{i % 2},{i + 0.5 * (i == 59)}"))
    data = load_source(tmp_path / "d", tmp_path / "cache")
    assert column(data, "x").kind == "double"
    assert data.train.inputs[:, 0].tolist() == [*map(float, range(60)), *map(float, range(59)), 59.5]


def test_fields_with_separators_quotation_marks_and_line_breaks(tmp_path: Path) -> None:
    data = load_csv(tmp_path, csv_text("t,label", lambda i: f'"a, ""{i % 3}""\nb",{i % 2}'))
    assert column(data, "t").distinct == 3
    assert data.train.inputs[:, 0].tolist() == [i % 3 for i in range(ROWS)]


def test_texts_are_the_input_as_in_parquet(tmp_path: Path) -> None:
    data = load_csv(tmp_path, csv_text("text,other,label", lambda i: f'"good, film {i % 9}",{i},{i % 2}'))
    assert (data.tokens, data.input_shape) == ("words", (4,))
    assert column(data, "other").why == "the column 'text' alone is the input."


KINDS = {
    "negative": (lambda i: f"-{i}", "int64"),
    "plus": (lambda i: f"+{i}", "int64"),
    "power": (lambda i: f"{i}e-3", "double"),
    "large": (lambda i: str(2**40 - i), "int64"),
    "boolean": (lambda i: "TRUE" if i % 3 else "false", "bool"),
    "padded": (lambda i: f"0{i % 9}", "large_string"),
    "long": (lambda i: f"{10**20 + i % 9}", "large_string"),
    "hexadecimal": (lambda i: f"0x{i % 9}", "large_string"),
    "date": (lambda i: f"2024-01-{i % 28 + 1:02d}", "timestamp[us]"),
    "day_first": (lambda i: f"{i % 28 + 1}.1.2024 1{i % 9}:30", "timestamp[us]"),
    "month_name": (lambda i: f"{i % 28 + 1} Mar 2024", "timestamp[us]"),
}


@pytest.mark.parametrize("case", KINDS)
def test_what_a_column_holds(tmp_path: Path, case: str) -> None:
    value, kind = KINDS[case]
    assert column(load_csv(tmp_path, csv_text("x,label", lambda i: f"{value(i)},{i % 2}")), "x").kind == kind


def test_empty_texts_are_a_category_and_na_is_a_name(tmp_path: Path) -> None:
    """NA may be Namibia: of texts only what is empty is missing."""
    data = load_csv(tmp_path, csv_text("x,label", lambda i: f"{('NA', 'DE', '')[i % 3]},{i % 2}"))
    assert (column(data, "x").distinct, column(data, "x").missing) == (2, ROWS // 3)
    assert data.input_shape == (3,)


def test_labels_of_truth_keep_their_names_and_padded_ones_are_names(tmp_path: Path) -> None:
    truth = load_csv(tmp_path, csv_text("x,label", lambda i: f"{i * 7 % 60},{i % 2 == 0}"))
    assert truth.class_names == ("False", "True")
    padded = load_csv(tmp_path, csv_text("x,label", lambda i: f"{i * 7 % 60},0{i % 2}"))
    assert padded.class_names == ("00", "01")


def test_columns_that_are_left_out_may_hold_anything(tmp_path: Path) -> None:
    text = PETS.replace("a,colour", "b,colour").replace("0.126", "oops")
    assert "oops" in text
    assert load_csv(tmp_path, text, exclude=("b",)).input_shape == (4,)
    assert load_csv(tmp_path, text, features=("n",)).input_shape == (1,)


def plain_lines(separator: str, mark: str) -> str:
    """What a refusal says of numbers with signs of thousands, money or shares, behind the table's name."""
    return (
        f"pandas.read_csv('d.csv', sep={separator!r}, encoding='utf-8', dtype=str, keep_default_na=False); t['x'] = "
        f"t['x'].str.replace(r'[^0-9{mark}+-]', '', regex=True); t.to_csv('plain.csv', sep=';', index=False)"
    )


BAD: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "empty": ("", {}, "d.csv is empty. Give a file with a line of column names, and a row for each example."),
    "no_rows": ("a,label\n", {}, "d.csv has no rows. Give a file with examples, or remove it."),
    "label": (
        PETS,
        {"label": "lable"},
        "d.csv has no column 'lable'. Did you mean 'label'? Its columns: a, colour, n, label. Set data.label and "
        "data.features.",
    ),
    "header": (
        PETS.partition("\n")[2],
        {},
        "d.csv must name its columns in the first line, got '0.126' there. Write a line of names above the rows.",
    ),
    "header_of_texts": (
        csv_text("red,cat", lambda i: ("red,cat", "blue,dog")[i % 2]),
        {"label": "cat"},
        "d.csv must name its columns in the first line, got 'red' there, which is also a value of that column. Write a "
        "line of names above the rows.",
    ),
    "nameless": (
        PETS.replace("a,colour", "a,"),
        {},
        "d.csv must name all columns in the first line, got none for column 2 of 4. Name it, or remove the column.",
    ),
    "twice": (
        PETS.replace("a,colour", "a,a"),
        {},
        "d.csv has more than one column 'a'. Rename or drop all but one of them.",
    ),
    "too_many": (
        PETS.replace("\n", "\n\n", 3) + "1,red,1,cat,5\n",
        {},
        "rows of d.csv must have 4 fields, as many as the first line has names, got 5 in line 65. Mend that line; a "
        "field that holds ',' must stand in quotation marks.",
    ),
    "too_few": (
        PETS + "1,red\n",
        {},
        "rows of d.csv must have 4 fields, as many as the first line has names, got 2 in line 62. Mend that line; a "
        "field that holds ',' must stand in quotation marks.",
    ),
    "latin_1": (
        PETS.replace("red", "röd").encode("latin-1"),
        {},
        "d.csv must be UTF-8, got the byte 0xf6 in line 2. Save it as UTF-8, or say how it is written: data.csv: "
        "{encoding: cp1252}.",
    ),
    "no_cp1252": (
        PETS.replace("red", "r\x81öd").encode("latin-1"),
        {},
        "d.csv must be UTF-8, got the byte 0x81 in line 2. Save it as UTF-8, or say how it is written: data.csv: "
        "{encoding: latin-1}.",
    ),
    "slips_among_labels": (
        csv_text("x,label", lambda i: f"{i},{'much' if i == 9 else i % 4 + 0.5}"),
        {},
        "labels must be numbers in all rows, or classes of enough examples each, got 'much' among numbers. Mend that "
        "label, or drop its row.",
    ),
    "one_column": (
        "label\n1\n2\n",
        {},
        "d.csv must have a column of labels and one of inputs at least, got one column, 'label'. Say what stands "
        'between its fields: data.csv: {separator: ";"}.',
    ),
    "two_ways": (
        csv_text("a;b,label", lambda i: f"{i};1,2"),
        {},
        "d.csv can be cut into columns at ',' and ';'. Say which is meant: data.csv: {separator: \",\"}.",
    ),
    "stray_text": (
        PETS + "oops,red,1,cat\n",
        {},
        "column 'a' must hold numbers, got 'oops' in line 62 of d.csv. Mend it, or, if they are names, put the column "
        "into data.categorical; if it is no feature, into data.exclude.",
    ),
    "stray_label": (
        csv_text("x,label", lambda i: f"{i},{i / 7 if i != 9 else 'much'}"),
        {"metric": "mse"},
        "column 'label' must hold numbers, got 'much' in line 11 of d.csv. Mend or drop that row, or choose a "
        "classification metric.",
    ),
    "thousands": (
        csv_text("x,label", lambda i: f'"1,{100 + i}",{i % 2}'),
        {},
        "column 'x' must say what stands before decimals, got '1,100' in line 2 of d.csv, where it may stand between "
        'thousands. Set data.csv: {decimal: "."} or {decimal: ","}, and write no thousands.',
    ),
    "points_beside_commas": (
        csv_text("x;y;label", lambda i: f"1.{100 + i};0,5{i};{i % 2}"),
        {},
        "column 'x' must say what stands before decimals, got '1.100' in line 2 of d.csv, where it may stand between "
        'thousands. Set data.csv: {decimal: "."} or {decimal: ","}, and write no thousands.',
    ),
    "pairs": (
        csv_text("genres,label", lambda i: f'"{i % 7},{i % 3}",{i % 2}'),
        {},
        "column 'genres' must say what its commas are, got '0,0' in line 2 of d.csv, where it may stand before "
        'decimals, or between two numbers. If before decimals, set data.csv: {decimal: ","}. If they are names, put '
        "the column into data.categorical; if it is no feature, into data.exclude.",
    ),
    "pairs_as_labels": (
        csv_text("x,label", lambda i: f'{i},"1,{i % 2}"'),
        {},
        "column 'label' must say what its commas are, got '1,0' in line 2 of d.csv, where it may stand before "
        'decimals, or between two numbers. If before decimals, set data.csv: {decimal: ","}.',
    ),
    "thousands_with_a_slip": (
        csv_text("x,label", lambda i: f'"{"1,05" if i == 9 else f"1,{100 + i}"}",{i % 2}'),
        {},
        "column 'x' must say what its commas are, got '1,100' in line 2 of d.csv, where it may stand before decimals, "
        'or between two numbers. If before decimals, set data.csv: {decimal: ","}. If they are names, put the '
        "column into data.categorical; if it is no feature, into data.exclude.",
    ),
    "two_marks": (
        csv_text("x;genres;label", lambda i: f"{i}.5;{i % 7},{i % 3};{i % 2}"),
        {},
        "column 'genres' must hold numbers with one decimal mark in all columns, as '0.5' of 'x' is, got '0,0' in line "
        "2 of d.csv. Write all alike. If they are names, put the column into data.categorical; if it is no feature, "
        "into data.exclude.",
    ),
    "both": (
        csv_text("x;label", lambda i: f"1.234,5{i};{i % 2}"),
        {},
        "column 'x' must hold plain numbers, got '1.234,50' in line 2 of d.csv. Write them without signs of "
        "thousands, money and shares, as these lines do: import pandas; t = " + plain_lines(";", ","),
    ),
    "money": (
        csv_text("x,label", lambda i: f'"$1,{100 + i}",{i % 2}'),
        {},
        "column 'x' must hold plain numbers, got '$1,100' in line 2 of d.csv. Write them without signs of thousands, "
        "money and shares, as these lines do: import pandas; t = " + plain_lines(",", "."),
    ),
    "pictures_by_name": (
        csv_text("image,label", lambda i: f"photos/{i}.jpg,{i % 2}"),
        {},
        "column 'image' must have at least 2 rows for each category on average to be an input, got 60 categories in 60 "
        "rows. They are names of pictures: put these into a folder for each class, as photos/cat/1.jpg. Else group "
        "them, or leave the column out (data.exclude).",
    ),
    "missing_label": (
        PETS + "1,red,1,\n",
        {},
        "column 'label' must have no missing labels, got 1. Drop those rows.",
    ),
    "missing_number": (
        PETS + "NA,red,1,cat\n",
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 'a', row 60. Fill it "
        "(data.impute: median does), or drop the row or the column.",
    ),
    "unknown_date": (
        csv_text("when,label", lambda i: f"2024-01-{i % 28 + 1:02d},{i % 2}") + "2024-05-31 at noon,1\n",
        {},
        "column 'when' must hold dates of one known format, got '2024-05-31 at noon' in line 62 of d.csv. Write all as "
        "2024-05-31 or 2024-05-31 14:30, or say how they are written: data.date_formats: {when: '%d.%m.%Y'}. Else if "
        "they are names, put the column into data.categorical; if it is no feature, into data.exclude.",
    ),
    "open_date": (
        csv_text("when,label", lambda i: f"{i % 12 + 1}/{i % 11 + 1}/2024,{i % 2}"),
        {},
        "column 'when' must say whether its dates have the day or the month first, got '1/1/2024' in line 2 of d.csv. "
        "Set data.date_formats: {when: '%d/%m/%Y'}, or '%m/%d/%Y'.",
    ),
    "centuries": (
        csv_text("born,label", lambda i: f"01.01.{(50 + i) % 100:02d},{i % 2}"),
        {},
        "column 'born' must tell centuries where years of two digits go beyond today, got '01.01.68' in line 20 of "
        "d.csv, which may be 1968 or 2068. Write years with four digits; if 2068 is meant, set data.date_formats: "
        "{born: '%d.%m.%y'}.",
    ),
    "zones": (
        csv_text("at,label", lambda i: f"2024-01-{i % 28 + 1:02d}T00:00:00{'Z' * (i > 6)},{i % 2}"),
        {},
        "column 'at' must hold times with a zone in all rows or in none, got '2024-01-08T00:00:00Z' and "
        "'2024-01-01T00:00:00'. Write all alike; if those without are in UTC, set data.date_formats: {at: 'ISO'}.",
    ),
    "before_all_years": (
        csv_text("at,label", lambda i: f"{2024 if i else 1:04d}-01-01T00:00:00+02:00,{i % 2}"),
        {"date_formats": {"at": "ISO"}},
        "column 'at' must hold dates as 'ISO', got '0001-01-01T00:00:00+02:00' in line 2 of d.csv. Write all as "
        "2024-05-31 or 2024-05-31 14:30, or say how they are written: data.date_formats: {at: '%d.%m.%Y'}. Else if "
        "they are names, put the column into data.categorical; if it is no feature, into data.exclude.",
    ),
    "no_break_space": (
        csv_text("x,label", lambda i: f"5\u202f{100 + i},{i % 2}"),
        {},
        "column 'x' must hold plain numbers, got '5\\u202f100' in line 2 of d.csv. Write them without signs of "
        "thousands, money and shares, as these lines do: import pandas; t = " + plain_lines(",", "."),
    ),
    "other_format": (
        csv_text("when,label", lambda i: f"{i % 12 + 1}~{i % 11 + 1}~2024,{i % 2}"),
        {"date_formats": {"when": "%d-%m-%Y"}},
        "column 'when' must hold dates as '%d-%m-%Y', got '1~1~2024' in line 2 of d.csv. Write all as 2024-05-31 or "
        "2024-05-31 14:30, or say how they are written: data.date_formats: {when: '%d.%m.%Y'}. Else if they are names, "
        "put the column into data.categorical; if it is no feature, into data.exclude.",
    ),
    "quotation": (
        PETS + '1,"red,1,cat\n',
        {},
        "rows of d.csv must have 4 fields, as many as the first line has names, got 2 in line 62. Mend that line; a "
        "field that holds ',' must stand in quotation marks.",
    ),
    "binary": (
        bytes(range(256)),
        {},
        "d.csv holds zero bytes, as no UTF-8 text does. Save it as UTF-8, or say how it is written: data.csv: "
        "{encoding: utf-16-le}.",
    ),
    "pictures": (PETS, {"resize": 8}, "data.resize means nothing to .csv files. Remove the key."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, case: str) -> None:
    text, given, message = BAD[case]
    assert refusal(tmp_path, text, **given) == message


STRAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a_text": (lambda i: '"3,5"' if i == 9 else "hello", {}),
    "a_category": (lambda i: f'"3,{i % 2}"', {"categorical": ("note",)}),
    "left_out": (lambda i: f'"3,0{i % 9}"', {"exclude": ("note",)}),
    "not_named": (lambda i: f'"3,0{i % 9}"', {"features": ("x",)}),
    "a_pair": (lambda i: f'"3,{i % 9}"' if i % 2 else "4", {}),
}


@pytest.mark.parametrize("case", STRAYS)
def test_commas_of_other_columns_make_no_decimals(tmp_path: Path, case: str) -> None:
    """Thousands stay open, and numbers with three decimals are numbers, whatever commas stand in a column of texts."""
    note, given = STRAYS[case]
    thousands = csv_text("x,note,label", lambda i: f'"{1 + i % 9},{100 + i}",{note(i)},{i % 2}')
    assert "column 'x' must say what stands before decimals, got '1,100'" in refusal(tmp_path, thousands, **given)
    points = csv_text("x;note;label", lambda i: f"1.{100 + i};{note(i)};{i % 2}")
    if case != "a_pair":
        assert column(load_csv(tmp_path, points, **given), "x").most == 1.159


def test_decimal_commas_between_commas_are_sure_where_a_zero_follows(tmp_path: Path) -> None:
    text = csv_text("x,y,label", lambda i: f'"{i % 9},{i % 20:02d}","1,{100 + i}",{i % 2}')
    data = load_csv(tmp_path, text)
    assert data.train.inputs[:2].tolist() == pytest.approx(np.array([[0.0, 1.1], [1.01, 1.101]]))


def test_what_the_task_says_decides(tmp_path: Path) -> None:
    swedish = PETS.replace("red", "röd").encode("latin-1")
    assert load_csv(tmp_path, swedish, csv={"encoding": "latin-1"}).input_shape == (5,)
    thousands = csv_text("x,label", lambda i: f'"1,{100 + i}",{i % 2}')
    assert column(load_csv(tmp_path, thousands, csv={"decimal": ","}), "x").most == 1.159
    both = csv_text("a;b,label", lambda i: f"{i % 9};1,{i % 2}")
    assert load_csv(tmp_path, both, csv={"separator": ","}).facts.columns[0].name == "a;b"
    formats = {"when": "%d~%m~%Y"}
    dated = csv_text("when,label", lambda i: f"{i % 12 + 1}~{i % 11 + 1}~2024,{i % 2}")
    assert column(load_csv(tmp_path, dated, date_formats=formats), "when").kind == "timestamp[us]"


def test_years_of_two_digits_and_times_without_a_zone_are_told(tmp_path: Path) -> None:
    """A century is told; what goes beyond today, and times without a zone beside others, need a format."""
    years = csv_text("born,x,label", lambda i: f"{1 + i % 28:02d}.01.{(70 + i % 50) % 100:02d},{i % 7},{i % 2}")
    first = "column 'born' has years of two digits: 69 to 99 are read as 1969 to 1999, the others as 2000 to 2068. "
    for split in ({}, {"time": "born"}):
        (told,) = load_csv(tmp_path, years, split=split).facts.sentences
        assert told.startswith(first.rstrip())
    later = years.replace(".70,", ".50,")
    born = load_csv(tmp_path, later, date_formats={"born": "%d.%m.%y"})
    assert column(born, "born").most > 2.5e9
    assert born.facts.sentences[0].startswith(first)
    zones = csv_text("at,label", lambda i: f"2024-01-{i % 28 + 1:02d}T00:00:00{'Z' * (i > 6)},{i % 2}")
    assert column(load_csv(tmp_path, zones, date_formats={"at": "ISO"}), "at").least == 1704067200.0


def test_a_date_that_pandas_lacks_is_missing(tmp_path: Path) -> None:
    text = csv_text("at,label", lambda i: f"{'NaT' if i == 9 else f'2024-01-{i % 28 + 1:02d}'},{i % 2}")
    assert column(load_csv(tmp_path, text, impute="median"), "at").missing == 1


@pytest.mark.parametrize("form", ["%Q", "%d.%", "day"])
def test_a_format_must_be_one(tmp_path: Path, form: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a format of dates, as '%d\.%m\.%Y', or ISO, got "):
        load_csv(tmp_path, PETS, date_formats={"a": form})


def test_times_of_day_are_told(tmp_path: Path) -> None:
    text = csv_text("at,label", lambda i: f"{i % 9}:{i % 6}5,{i % 2}")
    (told,) = load_csv(tmp_path, text).facts.sentences
    assert told.startswith(
        "column 'at' holds times of day as texts, and each is read as a category of its own. Set data.date_formats: "
        "{at: '%H:%M'}."
    )
    assert column(load_csv(tmp_path, text, date_formats={"at": "%H:%M"}), "at").kind == "timestamp[us]"


def test_a_stray_row_is_told_with_its_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.csv").write_text(PETS)
    (tmp_path / "d/test.csv").write_text(PETS + "oops,red,1,cat\n")
    with pytest.raises(DataError, match=r"column 'a' must hold numbers, got 'oops' in line 62 of test\.csv\."):
        load_source(tmp_path / "d", tmp_path / "cache")


def test_numbers_of_a_file_are_exact(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=ROWS) * 10.0 ** np.arange(-30, 30)
    data = load_csv(
        tmp_path, csv_text("x,label", lambda i: f"{values[i]!r},{i % 2}".replace("np.float64(", "").replace(")", ""))
    )
    assert np.array_equal(data.train.inputs[:, 0].numpy(), values.astype(np.float32))


def test_a_long_text_is_no_reason_to_fail(tmp_path: Path) -> None:
    text = csv_text("text,label", lambda i: f"{'word ' * (60_000 if i == 7 else 3)},{i % 2}")
    assert load_csv(tmp_path, text, max_tokens=5).input_shape == (5,)


def test_a_file_of_another_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(DataError) as caught:
        load_source(path, tmp_path / "cache")
    assert (
        str(caught.value) == f"{path} must be Parquet, .csv, .tsv or .npz, got .xlsx. Save it as .csv, or as Parquet."
    )


@pytest.mark.parametrize("separator", [";", ","])
def test_thousands_among_numbers_below_one_are_no_decimals(tmp_path: Path, separator: str) -> None:
    """In a file with decimal commas, and without them, too: 999 and 1.234 would be read as 999 and 1.2."""
    small = (lambda i: f"0,{10 + i}") if separator == ";" else (lambda i: f"0.{10 + i}")
    text = csv_text(f"a{separator}x{separator}label", lambda i: separator.join([
        small(i), f"1.{100 + i}" if i % 3 == 0 else str(100 + i), str(i % 2)]))  # fmt: skip
    assert "column 'x' must say what stands before decimals, got '1.100' in line 2" in refusal(tmp_path, text)
    read = load_csv(tmp_path, text, csv={"decimal": "."}) if separator == "," else None
    assert read is None or column(read, "x").least < 2


@pytest.mark.parametrize("given", [{}, {"csv": {"decimal": ","}}], ids=["found", "said"])
@pytest.mark.parametrize("num_long", [1, 20], ids=["one", "all"])
def test_whole_numbers_that_are_too_long_have_no_mark(tmp_path: Path, num_long: int, given: dict[str, Any]) -> None:
    """Beside decimal commas, too: nothing in them may stand between thousands."""
    ids = [str(12345678901234567890 + i if i < num_long else i) for i in range(20)]
    text = csv_text("a;id;label", lambda i: f"0,{10 + i};{ids[i % 20]};{i % 2}")
    assert [one.role for one in load_csv(tmp_path, text, **given).facts.columns][:2] == ["feature", "categories"]


def test_decimals_among_large_whole_numbers_are_decimals(tmp_path: Path) -> None:
    text = csv_text("x,label", lambda i: f"{'1.' if i % 3 == 0 else '1'}{100 + i},{i % 2}")
    assert column(load_csv(tmp_path, text), "x").least == 1.1
