"""What a model may be asked about: data frames, tables, columns, arrays, texts, pictures and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from subsettune.errors import DataError, DataNotFoundError
from subsettune.trained.rows import Rows, Wanted, read_rows, rows_of

COLUMNS = Wanted(columns=("age", "city"), label="label")
ARRAYS = Wanted(columns=("x",), label="y", is_array=True)
TEXTS = Wanted(columns=("text",), label="label", is_text=True)
GIVEN = {"age": [1, 2], "city": ["a", None]}


class Stream:
    """What any library of data frames offers that knows Arrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.table(GIVEN).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "given",
    [
        GIVEN,
        [{"age": 1, "city": "a"}, {"age": 2}],
        {"age": np.array([1, 2]), "city": pa.array(["a", None])},
        {"age": torch.tensor([1, 2]), "city": ["a", None]},
        pa.table(GIVEN),
        pa.RecordBatch.from_pydict(GIVEN),
        pd.DataFrame(GIVEN, index=[7, 8]),
        pd.DataFrame(GIVEN).astype({"city": "category"}),
        Stream(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_columns_by_name(given: object) -> None:
    found = rows_of(given, COLUMNS)
    assert found.names == ("age", "city")
    assert found.table.to_pydict() == GIVEN


@pytest.mark.parametrize("given", [np.eye(3), torch.eye(3), [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], {"x": np.eye(3)}])
def test_arrays(given: object) -> None:
    assert np.array_equal(rows_of(given, ARRAYS).array, np.eye(3))


def test_labels_beside_arrays_are_kept() -> None:
    assert rows_of({"x": np.eye(3), "y": [1, 2, 3]}, ARRAYS).labels.tolist() == [1, 2, 3]


def test_pictures_in_memory() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found = rows_of([Image.fromarray(image), Image.fromarray(image)], ARRAYS)
    assert np.array_equal(found.array[0], image.transpose(2, 0, 1))


@pytest.mark.parametrize("given", [["a", "b"], np.array(["a", "b"]), pa.array(["a", "b"])])
def test_texts_alone(given: object) -> None:
    assert rows_of(given, TEXTS).table.to_pydict() == {"text": ["a", "b"]}


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        (
            np.eye(3),
            COLUMNS,
            "the rows must be the columns age, city, as the model was trained on, got 'ndarray'. Give a",
        ),
        ("some.parquet", COLUMNS, "the rows must be the columns age, city, as the model was trained on, got 'str'."),
        (
            [1, 2],
            TEXTS,
            "the rows must be texts, as the model was trained on, got 'list'. Give a list of texts, a Data",
        ),
        (
            {"age": [1, 2], "city": ["a"]},
            COLUMNS,
            "columns must be equally long, got 2 in 'age', 1 in 'city'. Give each",
        ),
        ({"age": [1, "a"], "city": ["a", "b"]}, COLUMNS, "column 'age' cannot be read: "),
        (pd.DataFrame({"age": [1, "a"]}), COLUMNS, "the rows cannot be read: "),
        (pa.table([[1], [2]], names=["a", "a"]), COLUMNS, "the rows have more than one column 'a'. Rename or drop all"),
        (["a", "b"], ARRAYS, "the rows must be a DataFrame, an Arrow table, a dict of columns, or arrays, got 'list'."),
        ([[1.0], [1.0, 2.0]], ARRAYS, "of one shape each, got others: "),
        (
            {"z": np.eye(2)},
            ARRAYS,
            "the rows must be a dict with the key 'x', got ['z']. Call it so, or give the array",
        ),
    ],
)
def test_what_does_not_suit_the_model_is_refused(given: object, wanted: Wanted, message: str) -> None:
    with pytest.raises(DataError) as caught:
        rows_of(given, wanted)
    assert message in str(caught.value)


def test_of_a_parquet_file_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({**GIVEN, "more": [1, 2], "label": ["x", "y"]}), tmp_path / "a.parquet")
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
        ("a.txt", COLUMNS): "FILE must be a file of .parquet, .tsv, .tsv.gz, .npz, got 'FOLDER/a.txt'. Write the rows",
        ("", COLUMNS): "FILE must be a file of .parquet, .tsv, .tsv.gz, .npz, got 'the folder FOLDER'. Write the rows",
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


def test_rows_are_taken_as_they_are() -> None:
    rows = Rows(array=np.eye(2))
    assert rows_of(rows, COLUMNS) is rows
    assert len(rows) == 2
    assert len(Rows()) == 0
