"""Files that models are asked about: what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.errors import DataError, DataNotFoundError
from subsettune.trained.files import read_rows
from subsettune.trained.rows import Wanted

COLUMNS = Wanted(columns=("age", "city"), label="label")
ARRAYS = Wanted(columns=("x",), label="y", is_array=True)
TEXTS = Wanted(columns=("text",), label="label", is_text=True)


def test_of_a_parquet_file_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"age": [1, 2], "city": ["a", "b"], "more": [1, 2], "label": ["x", "y"]}), tmp_path / "a.parquet"
    )
    found = read_rows(tmp_path / "a.parquet", COLUMNS)
    assert found.names == ("age", "city", "label")
    assert found.where == str(tmp_path / "a.parquet")
    assert len(read_rows(tmp_path / "a.parquet", COLUMNS, limit=1)) == 1


def test_of_a_tsv_file_everything_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('n\ttext\tlabel\n1\tsay "hi"\t0\n2\tNA\t1\n')
    found = read_rows(tmp_path / "a.tsv", TEXTS)
    assert found.table.to_pydict() == {"text": ['say "hi"', "NA"], "label": ["0", "1"]}
    assert len(read_rows(tmp_path / "a.tsv", TEXTS, limit=1)) == 1


def test_of_an_npz_file_the_usual_names_are_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.eye(3), labels=np.arange(3))
    found = read_rows(tmp_path / "a.npz", ARRAYS)
    assert (found.array.shape, found.labels.tolist()) == ((3, 3), [0, 1, 2])
    assert read_rows(tmp_path / "a.npz", ARRAYS, limit=2).labels.tolist() == [0, 1]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("bad.parquet", "bad.npz", "bad.tsv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").touch()
    np.savez(tmp_path / "other.npz", a=np.eye(2))
    np.savez(tmp_path / "short.npz", x=np.eye(2), y=[1])
    told = {
        ("none.parquet", COLUMNS): "file 'FOLDER/none.parquet' is not there. Give the path of one that is.",
        (
            "a.txt",
            COLUMNS,
        ): "FILE must be a file of .parquet, .csv, .csv.gz, .tsv, .tsv.gz, .npz, got 'FOLDER/a.txt'.",
        (
            "",
            COLUMNS,
        ): "FILE must be a file of .parquet, .csv, .csv.gz, .tsv, .tsv.gz, .npz, got 'the folder FOLDER'.",
        ("bad.parquet", COLUMNS): "FOLDER/bad.parquet is empty, truncated or not Parquet: ",
        ("bad.tsv", TEXTS): "FOLDER/bad.tsv is empty, damaged or no file of tab-separated values: ",
        ("bad.npz", ARRAYS): "FOLDER/bad.npz is damaged, holds objects, or is no .npz file. Write it again.",
        ("other.npz", ARRAYS): "FOLDER/other.npz must hold the inputs as 'x', got a. Rename them.",
        ("other.npz", COLUMNS): "FOLDER/other.npz has arrays, and the model was trained on columns: age, city.",
        ("short.npz", ARRAYS): "inputs and labels of FOLDER/short.npz must be as many, got 2 in 'x' and 1 in 'y'.",
    }
    for (name, wanted), message in told.items():
        with pytest.raises(DataError) as caught:
            read_rows(tmp_path / name if name else tmp_path, wanted)
        assert str(caught.value).replace(str(tmp_path), "FOLDER").startswith(message)
    with pytest.raises(DataNotFoundError, match="is not there"):
        read_rows(tmp_path / "none.parquet", COLUMNS)
