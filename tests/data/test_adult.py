"""The conversion of the Adult data: lines as UCI publishes them, and the whole of the real files where they are."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from places import BENCHMARKS, ROOT

from subsettune.data import DataPaths, load
from subsettune.study.spec.yaml_file import read

SCRIPT = BENCHMARKS / "convert" / "adult.py"
FIRST = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K"  # noqa: E501
SECOND = "28, ?, 338409, Bachelors, 13, Married-civ-spouse, ?, Wife, Black, Female, 0, 0, 40, Cuba, >50K"


def convert(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(source), str(out)], capture_output=True, text=True)


def write_source(folder: Path, zipped: bool, test: str | None = None) -> None:
    folder.mkdir()
    test = f"|1x3 Cross validator\n{SECOND}.\n{FIRST}.\n\n" if test is None else test
    for name, content in (("adult.data", f"{FIRST}\n{SECOND}\n{FIRST}\n\n"), ("adult.test", test)):
        raw = content.encode()
        (folder / f"{name}.gz" if zipped else folder / name).write_bytes(gzip.compress(raw) if zipped else raw)


@pytest.mark.parametrize("zipped", [True, False])
def test_lines_become_rows(tmp_path: Path, zipped: bool) -> None:
    write_source(tmp_path / "in", zipped)
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "adult"
    assert done.stdout == f"{folder / 'train.parquet'}: 3 examples\n{folder / 'test.parquet'}: 2 examples\n"
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    assert rows[0] == {
        "age": 39,
        "workclass": "State-gov",
        "final_weight": 77516,
        "education": "Bachelors",
        "education_years": 13,
        "marital_status": "Never-married",
        "occupation": "Adm-clerical",
        "relationship": "Not-in-family",
        "race": "White",
        "sex": "Male",
        "capital_gain": 2174,
        "capital_loss": 0,
        "hours_per_week": 40,
        "native_country": "United-States",
        "income": "<=50K",
    }
    assert rows[2] == rows[0]
    assert (rows[1]["workclass"], rows[1]["occupation"], rows[1]["income"]) == (None, None, ">50K")
    assert pq.read_table(folder / "test.parquet").to_pylist() == [rows[1], rows[0]]


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    done = convert(tmp_path, tmp_path / "out")
    message = f"error: {tmp_path} must hold adult.data, gzipped or not, got neither. Fetch it.\n"
    assert (done.returncode, done.stderr) == (1, message)
    write_source(tmp_path / "in", zipped=False, test=f"|1x3 Cross validator\n{FIRST}.\n1, 2\n")
    done = convert(tmp_path / "in", tmp_path / "out")
    message = f"error: {tmp_path / 'in' / 'adult.test'} must have 15 fields a line, got 2 in line 3.\n"
    assert (done.returncode, done.stderr) == (1, message)
    assert not (tmp_path / "out").exists()


def test_the_real_files_suit_their_studies(tmp_path: Path) -> None:
    """Counts of rows, classes and categories are those that UCI's adult.names and the files themselves tell."""
    kept = os.environ.get("SUBSETTUNE_DATA")
    if not kept or not (Path(kept) / "adult/adult.data.gz").is_file():
        pytest.skip("needs the real Adult data: set SUBSETTUNE_DATA to a folder that holds adult/adult.data.gz")
    done = convert(Path(kept) / "adult", tmp_path)
    assert done.returncode == 0, done.stderr
    places = DataPaths(data_root=str(tmp_path), cache=str(tmp_path / "cache"), download=False)
    classes = load(read(ROOT / "search_spaces/adult.yaml").task, places)
    assert (classes.num_source_examples, len(classes.test)) == (32_561, 16_281)
    assert classes.class_names == ("<=50K", ">50K")
    assert classes.test.targets.bincount().tolist() == [12_435, 3_846]
    categories = 9 + 16 + 7 + 15 + 6 + 5 + 2 + 42  # "?" included where there are any
    assert classes.input_shape == (6 + categories,)
    hours = load(read(ROOT / "search_spaces/adult_hours.yaml").task, places)
    assert hours.input_shape == (5 + categories + 2,)
    assert hours.target_mean == pytest.approx(40.4, abs=0.1)
