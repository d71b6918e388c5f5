"""Rows of .csv files as training read them: exactly so, or refused with their row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import in_hand
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import torch

from subsettune import Task, config, load_model
from subsettune.config import FrozenDict
from subsettune.data import load
from subsettune.data.csv_files import Written
from subsettune.errors import DataError
from subsettune.task import Csv
from subsettune.trained.csv_rows import read_csv
from subsettune.trained.encoding import Encoding
from subsettune.trained.rows import Wanted
from subsettune.trained.table import Table, found_in

VISITS = {"label": "came", "impute": "median", "dates": "cyclic"}
FORMS = {
    "n": Written(kind="whole"),
    "x": Written(kind="number"),
    "c": Written(kind="comma"),
    "b": Written(kind="boolean"),
    "d": Written(kind="date", formats=("%d.%m.%Y",)),
}


def task_of(source: Path, split: dict[str, object] | None = None, **data: object) -> Task:
    chosen = {"validation": 0.2, "test": 0.2, **(split or {})}
    return in_hand.task_of("", data={"source": str(source), **VISITS, **data}, split=chosen)


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "split", "data"),
    [
        ("v.csv", {}, {}),
        ("v.csv.gz", {"by": "group"}, {}),
        ("v.csv", {"time": "when"}, {"impute": "median", "date_formats": {"when": "%d.%m.%Y"}, "exclude": ["group"]}),
        ("v.csv", {}, {"features": ["kind", "when", "age"], "dates": "number"}),
    ],
)
def test_every_row_comes_out_as_in_training(
    tmp_path: Path, name: str, split: dict[str, object], data: dict[str, object]
) -> None:
    source = write(tmp_path / name, in_hand.visits(has_gaps="time" not in split))
    task = task_of(source, split, **data)
    loaded = load(task, in_hand.PLACES)
    made = config.build(Encoding, config.to_plain(Encoding.of(task, loaded)))
    part, warnings = made.part(made.read(str(source)))
    index = torch.arange(len(part))
    assert len(part) == 240
    assert torch.equal(part.batch(index)[0], loaded.train.encoder(loaded.train.inputs))
    assert all("had not" in said for said in warnings)


def test_what_stands_for_a_gap_is_the_median_of_training(tmp_path: Path) -> None:
    task = task_of(write(tmp_path / "v.csv", in_hand.visits()), exclude=["group"])
    loaded = load(task, in_hand.PLACES)
    made = Encoding.of(task, loaded).inputs
    assert isinstance(made, Table)
    when, kind, age, score = made.columns
    known = [line.split(",")[2] for line in in_hand.visits().splitlines()[1:]]
    ages = [float(known[row]) for row in loaded.train.rows.tolist() if known[row]]
    assert age.fill == np.median(ages)
    assert (when.formats, when.cycles, when.num_stored) == (("%d.%m.%Y",), ("hour", "weekday", "month"), 8)
    assert kind.categories == ("01", "new", "old")
    assert (score.fill, score.written) == (None, "number")


def test_a_model_is_asked_about_files_and_frames_alike(tmp_path: Path) -> None:
    source = write(tmp_path / "v.csv", in_hand.visits())
    made, result = in_hand.trained(task_of(source, exclude=["group"]))
    made.save(tmp_path / "model")
    model = load_model(tmp_path / "model")
    test = load(made.origin.task, in_hand.PLACES).test.rows.tolist()
    whole = model.read(str(source))
    rows = whole.table.take(pa.array(test))
    assert model.score(rows) == result.metrics["test"]
    frame = pd.read_csv(source, dtype={"kind": str})
    assert model.predict_proba(frame).tolist() == model.predict_proba(whole).tolist()
    dated = frame.assign(when=pd.to_datetime(frame["when"], format="%d.%m.%Y"))
    assert model.predict_proba(dated).tolist() == model.predict_proba(whole).tolist()
    empty = frame.assign(when=None, age=None).head(3)
    assert set(model.predict(empty)) <= {"yes", "no"}
    write(tmp_path / "none.csv", 'when;kind;age;score\n"03.04.2021";01;;1.5\n')
    assert len(model.predict(model.read(str(tmp_path / "none.csv")))) == 1


def test_columns_are_typed_by_what_training_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'n;x;c;b;d;t\n1;2.5;"1,5";TRUE;03.04.2021;01\n+2;NA;3;false;;\n')
    wanted = Wanted(columns=("n", "x", "c", "b", "d", "t"), label="y", forms=FrozenDict(FORMS))
    table = read_csv(path, wanted).table
    assert table is not None
    assert table.to_pydict() == {
        "n": [1, 2],
        "x": [2.5, None],
        "c": [1.5, 3.0],
        "b": [True, False],
        "d": [1617408000.0, None],
        "t": ["01", None],
    }
    assert len(read_csv(path, wanted, limit=1)) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "x",
            "1,5",
            "column 'x' must hold numbers with a point before decimals, as in training, got '1,5' in line",
        ),
        ("x", "0x1F", "column 'x' must hold numbers with a point before decimals, as in training, got '0x1F' in line"),
        (
            "c",
            "1.234",
            "column 'c' must hold numbers with a comma before decimals, as in training, got '1.234' in line 3",
        ),
        ("b", "yes", "column 'b' must hold true or false, as in training, got 'yes' in line 3 of"),
        ("d", "2021-04-03", "column 'd' must hold dates as '%d.%m.%Y', as in training, got '2021-04-03' in line 3 of"),
        ("d", "31.02.2021", "column 'd' must hold dates as '%d.%m.%Y', as in training, got '31.02.2021' in line 3 of"),
    ],
)
def test_what_training_could_not_have_read_is_refused_with_its_row(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    path = write(tmp_path / "a.csv", f'{name};t\n;a\n"{value}";a\n')
    with pytest.raises(DataError) as caught:
        read_csv(path, Wanted(columns=(name, "t"), label="y", forms=FrozenDict({name: FORMS[name]})))
    assert str(caught.value).startswith(message)


def test_a_line_is_that_of_the_file_and_a_missing_column_is_told_with_all_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 't;x;z\n"a\nb";1.5;0\nc;oops;0\n')
    with pytest.raises(DataError, match=r"got 'oops' in line 4 of .*a\.csv\. Mend it\."):
        read_csv(path, Wanted(columns=("t", "x"), label="y", forms=FrozenDict(x=FORMS["x"])))
    rows = read_csv(path, Wanted(columns=("q",), label="y", forms=FrozenDict()))
    assert rows.place(1) == f"line 4 of {path}"
    with pytest.raises(DataError, match=r"a\.csv must have the column 'q', .* Known columns: t, x, z\."):
        found_in(rows, "q")


def test_whole_numbers_among_decimal_commas_have_no_points(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n;c\n1.234;1\n")
    with pytest.raises(DataError, match=r"column 'n' must hold numbers with a comma before decimals, as in training"):
        read_csv(path, Wanted(columns=("n", "c"), label="y", forms=FrozenDict(FORMS)))
    with pytest.raises(DataError, match=r"column 'n' must hold numbers with a comma"):
        read_csv(path, Wanted(columns=("n",), label="y", forms=FrozenDict(n=FORMS["n"]), csv=Csv(decimal=",")))


def test_thousands_in_a_column_of_whole_numbers_are_no_fractions(tmp_path: Path) -> None:
    wanted = Wanted(columns=("n",), label="y", forms=FrozenDict(n=FORMS["n"]))
    with pytest.raises(DataError) as caught:
        read_csv(write(tmp_path / "a.csv", "n;c\n12;1\n1.234;1\n"), wanted)
    assert "column 'n' must hold whole numbers, as in training, got '1.234' in line 3 of " in str(caught.value)
    table = read_csv(write(tmp_path / "b.csv", "n;c\n12;1\n1.5;1\n1.234;2\n"), wanted).table
    assert table is not None
    assert table["n"].to_pylist() == [12.0, 1.5, 1.234]


@pytest.mark.parametrize("mark", [".", ","])
def test_what_stands_before_decimals_is_as_the_task_said(tmp_path: Path, mark: Literal[".", ","]) -> None:
    wanted = Wanted(columns=("n",), label="y", forms=FrozenDict(n=FORMS["n"]), csv=Csv(decimal=mark))
    table = read_csv(write(tmp_path / "a.csv", f"n;c\n12;1\n1{mark}234;1\n"), wanted).table
    assert table is not None
    assert table["n"].to_pylist() == [12.0, 1.234]


def test_a_file_of_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\ngood\n"bad, and long"\n')
    table = read_csv(path, Wanted(columns=("text",), label="y", is_text=True)).table
    assert table is not None
    assert table["text"].to_pylist() == ["good", "bad, and long"]


def test_a_model_of_parquet_reads_csv_too(tmp_path: Path) -> None:
    table = in_hand.people().drop_columns(["where"])
    when = pa.array(np.arange(200) * 86_400_000_000 * 3, pa.timestamp("us"))
    table = table.append_column("when", when)
    task = in_hand.task_of("", data={"source": in_hand.written(tmp_path, table), "dates": "cyclic"})
    model, _ = in_hand.trained(task)
    frame = table.to_pandas()
    frame.to_csv(tmp_path / "a.csv", index=False)
    rows = model.read(str(tmp_path / "a.csv"))
    assert model.predict_proba(rows).tolist() == model.predict_proba(frame).tolist()
    assert model.score(rows) == model.score(table)
    for values, message in (
        (frame["when"].astype("int64"), "column 'when' must hold dates, as in training (timestamp[us]), got int64"),
        (frame["when"].dt.time, "column 'when' must hold dates, as in training (timestamp[us]), got time64[us]"),
    ):
        with pytest.raises(DataError) as caught:
            model.predict(frame.assign(when=values))
        assert str(caught.value).startswith(message)


def test_parquet_with_dates_as_texts_and_gaps(tmp_path: Path) -> None:
    table = in_hand.people().drop_columns(["where"])
    days = [None if i % 7 == 3 else f"{i % 28 + 1}/{i % 12 + 1}/2021" for i in range(200)]
    ages = [None if i % 5 == 2 else age for i, age in enumerate(table["age"].to_pylist())]
    big = [None if i % 5 == 1 else each for i, each in enumerate(table["account"].to_pylist())]
    table = table.set_column(0, "age", pa.array(ages)).set_column(2, "account", pa.array(big))
    source = in_hand.written(tmp_path, table.append_column("day", pa.array(days)))
    data = {"source": source, "dates": "cyclic", "date_formats": {"day": "%d/%m/%Y"}, "impute": "median"}
    task = in_hand.task_of("", data=data)
    loaded = load(task, in_hand.PLACES)
    made = Encoding.of(task, loaded)
    part, _ = made.part(made.read(source))
    assert torch.equal(part.batch(torch.arange(200))[0], loaded.train.encoder(loaded.train.inputs))
    account = made.inputs.columns[2]  # type: ignore[union-attr]
    assert abs(account.shift[0] - 10**15) < 1000
    assert account.fill is not None


def test_a_table_handed_over_in_python_is_tried_too(tmp_path: Path) -> None:
    table = in_hand.people()
    model, result = in_hand.trained(in_hand.task_of("", data={"source": table}))
    model.save(tmp_path / "model")
    rows = load(model.origin.task, in_hand.PLACES).test.rows.tolist()
    assert load_model(tmp_path / "model").score(table.take(rows)) == result.metrics["test"]
