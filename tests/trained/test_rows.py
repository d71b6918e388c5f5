"""What a model may be asked about: data frames, tables, columns, arrays, texts and pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import torch
from PIL import Image

from subsettune.errors import DataError
from subsettune.trained.rows import Rows, Wanted, rows_of

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


def test_pictures_get_the_size_and_the_colour_of_training() -> None:
    wanted = Wanted(columns=("x",), label="y", is_array=True, is_picture=True, size=(4, 2), color="rgb")
    found = rows_of([Image.new("L", (6, 8), 7), Image.new("RGB", (2, 4), (7, 7, 7))], wanted)
    assert found.array is not None
    assert found.array.shape == (2, 3, 4, 2)
    assert (found.array == 7).all()


def test_rows_are_taken_as_they_are() -> None:
    rows = Rows(array=np.eye(2))
    assert rows_of(rows, COLUMNS) is rows
    assert len(rows) == 2
    assert len(Rows()) == 0
