"""Columns as a network's input: the same numbers as in training, and every way in which a file may be otherwise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from subsettune.errors import DataError
from subsettune.trained.rows import Rows, rows_of
from subsettune.trained.table import Column, Table

NUMBER = Column(name="age", type="int64", mean=(50.0,), scale=(0.5,))
LIST = Column(name="where", type="list<element: double>", width=2, mean=(0.0, 1.0), scale=(1.0, 2.0))
LARGE = Column(name="big", type="int64", mean=(0.0,), scale=(1.0,), shift=(10**15,), exponent=(3,))
CITY = Column(name="city", type="string", categories=("Oslo", "Rome", None))
LEVEL = Column(name="level", type="int64", categories=("2", "10"))
FLAG = Column(name="flag", type="bool", categories=("false", "true"))
TABLE = Table(columns=(CITY, NUMBER, LIST, LARGE, LEVEL, FLAG))


def rows(**changes: object) -> Rows:
    plain = {
        "age": [52, 48],
        "where": [[1.0, 2.0], [0.0, 1.0]],
        "big": [10**15 + 16, 10**15 - 8],
        "city": ["Rome", None],
        "level": [10, 2],
        "flag": [True, False],
    }
    given = {name: value for name, value in {**plain, **changes}.items() if value is not None}
    return rows_of(given, TABLE.wanted("label"))


def encoded(given: Rows) -> list[list[float]]:
    stored, _ = TABLE.stored(given)
    found: list[list[float]] = TABLE.encoder()(stored).tolist()
    return found


def test_rows_become_what_the_columns_say() -> None:
    assert TABLE.shape == (3 + 1 + 2 + 1 + 2 + 2,)
    assert encoded(rows()) == [
        [0, 1, 0, 1, 1, 2, 2, 0, 1, 0, 1],
        [0, 0, 1, -1, 0, 0, -1, 1, 0, 1, 0],
    ]


def test_what_training_had_not_is_none_of_the_known_and_is_counted() -> None:
    given = rows(city=["Paris", "Bonn"], level=[10, 7])
    stored, warnings = TABLE.stored(given)
    assert TABLE.encoder()(stored)[:, :3].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert warnings == (
        "column 'city' has categories in 2 of 2 rows that the training part had not: 'Paris', 'Bonn'. They are none of "
        "the known ones, as in training.",
        "column 'level' has categories in 1 of 2 rows that the training part had not: '7'. They are none of the known "
        "ones, as in training.",
    )


def test_many_unseen_categories_are_cut_short() -> None:
    table = Table(columns=(CITY,))
    _, (said,) = table.stored(rows_of({"city": list("abcdef")}, table.wanted("label")))
    assert "'a', 'b', 'c' and 3 more. They" in said


def test_types_that_mean_the_same_are_read() -> None:
    """Other programs write whole numbers as floats where some are missing, texts as dictionaries, booleans as such."""
    plain = encoded(rows())
    assert encoded(rows(age=pa.array([52.0, 48.0], pa.float32()))) == plain
    assert encoded(rows(level=np.array([10.0, 2.0]))) == plain
    assert encoded(rows(city=pa.array(["Rome", None]).dictionary_encode())) == plain
    assert encoded(rows(city=pa.array(["Rome", None], pa.large_string()))) == plain
    assert encoded(rows(where=np.array([[1.0, 2.0], [0.0, 1.0]]))) == plain
    _, warnings = TABLE.stored(rows(level=np.array([np.nan, 2.0])))
    assert warnings[0].startswith(
        "column 'level' has categories in 1 of 2 rows that the training part had not: nothing."
    )
    _, warnings = TABLE.stored(rows(city=pa.nulls(2)))
    assert warnings == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"age": None},
            "the rows must have the column 'age', which the model was trained on. Known columns: where, big",
        ),
        ({"age": None, "Age": [1, 2]}, "which the model was trained on. Did you mean 'Age'? Known columns: where,"),
        (
            {"age": [True, False]},
            "column 'age' must hold numbers, as in training (int64), got bool in the rows. Convert",
        ),
        ({"age": ["52", "48"]}, "column 'age' must hold numbers, as in training (int64), got string in the rows."),
        ({"age": [[1], [2]]}, "column 'age' must hold numbers, as in training (int64), got list<"),
        ({"age": np.array(["2024-01-01", "2024-01-02"], "M8[D]")}, "column 'age' must hold numbers, as in training"),
        (
            {"age": [52, None]},
            "column 'age' must hold finite numbers, got NaN, infinity or nothing in row 1 of the rows.",
        ),
        ({"age": [np.inf, 1.0]}, "column 'age' must hold finite numbers, got NaN, infinity or nothing in row 0"),
        ({"age": [1e39, 1.0]}, "column 'age' must hold finite numbers, got NaN, infinity or nothing in row 0"),
        ({"where": [1.0, 2.0]}, "column 'where' must hold lists of 2 numbers, as in training (list<element: double>),"),
        ({"where": [[1.0, 2.0], [1.0]]}, "lists of column 'where' must have one length, got 2 and 1 (row 1)."),
        (
            {"city": [1, 2]},
            "column 'city' must hold texts, as in training (string), got int64 in the rows. Convert it.",
        ),
        ({"level": ["10", "2"]}, "column 'level' must hold whole numbers, as in training (int64), got string"),
        ({"level": [10.5, 2.0]}, "column 'level' must hold whole numbers, as in training (int64), got double"),
        ({"level": [True, False]}, "column 'level' must hold whole numbers, as in training (int64), got bool"),
        ({"flag": [1, 0]}, "column 'flag' must hold booleans, as in training (bool), got int64 in the rows."),
    ],
)
def test_a_column_that_is_missing_or_otherwise_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        TABLE.stored(rows(**changes))
    assert message in str(caught.value)


def test_arrays_without_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"^the rows must have the columns that the model was trained on: city, age, "):
        TABLE.stored(Rows(array=np.zeros((2, 6))))


def test_numbers_alone_need_no_places() -> None:
    table = Table(columns=(NUMBER, LARGE))
    stored, _ = table.stored(rows_of({"age": [52], "big": [10**15]}, table.wanted("label")))
    assert torch.equal(table.encoder()(stored), torch.tensor([[1.0, 0.0]]))
