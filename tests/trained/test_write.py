"""Predictions as files: Parquet and CSV, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from subsettune.errors import ConfigError, StorageError
from subsettune.trained.model import Predictions
from subsettune.trained.write import check_output, csv_text, table_of, write_table

MODEL = SimpleNamespace(classes=("no", "yes"))
FOUND = Predictions(values=np.array(["yes", "no"]), probabilities=np.array([[0.25, 0.75], [0.5, 0.5]]), metric=None)


def test_a_column_of_predictions_and_one_for_each_class(tmp_path: Path) -> None:
    table = table_of(FOUND, MODEL, with_probabilities=True)  # type: ignore[arg-type]
    write_table(table, str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {
        "prediction": ["yes", "no"],
        "probability of no": [0.25, 0.5],
        "probability of yes": [0.75, 0.5],
    }
    write_table(table_of(FOUND, MODEL), str(tmp_path / "out.csv"))  # type: ignore[arg-type]
    assert (tmp_path / "out.csv").read_text() == '"prediction"\n"yes"\n"no"\n'
    assert csv_text(table).splitlines()[1] == '"yes",0.25,0.75'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.parquet"]


def test_values_of_several_targets() -> None:
    found = Predictions(values=np.array([[1.0, 2.0]]), probabilities=None, metric=None)
    assert table_of(found, MODEL).to_pydict() == {"prediction[0]": [1.0], "prediction[1]": [2.0]}  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--probabilities are those of classes, and this model predicts values."):
        table_of(found, MODEL, with_probabilities=True)  # type: ignore[arg-type]


def test_outputs_that_cannot_be_written_are_refused_before(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").touch()
    source = str(tmp_path / "in.parquet")
    with pytest.raises(
        ConfigError, match=r"--output must be a \.parquet or \.csv file, got 'out\.txt'\. Give it such a"
    ):
        check_output("out.txt", source)
    with pytest.raises(ConfigError, match=r"--output must be another file than the one that is read, got "):
        check_output(source, source)
    with pytest.raises(StorageError, match=r"--output must be a file in a folder that is there, got "):
        check_output(str(tmp_path / "none" / "out.csv"), source)
    check_output(str(tmp_path / "out.csv"), source)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(StorageError, match=r"out\.csv cannot be written: Is a directory\. Choose another --output\."):
        write_table(table_of(FOUND, MODEL), str(tmp_path / "out.csv"))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
