"""Columns that give the label away, each alone, against closed forms; and those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, load
from subsettune.data.alone import alone
from subsettune.task import Data, Model, Recipe, Task

N = 4000
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, N)
VALUES = RNG.normal(size=N).astype(np.float32)


def columns(*given: Any) -> np.ndarray:
    return np.stack(given, axis=1).astype(np.float32)


def test_the_accuracy_is_that_of_a_hand_formula() -> None:
    """A column is the label but in 1 % of the rows, where it is another class: right in 99 %, a guess in about 25 %."""
    wrong = np.arange(N) % 100 == 0
    found = alone(columns(VALUES, np.where(wrong, (LABELS + 1) % 4, LABELS)), LABELS, N)
    assert list(found) == [1]
    assert found[1].score == pytest.approx(0.99, abs=0.005)  # half the rows: a standard deviation is 0.002
    assert found[1].guess == pytest.approx(0.25, abs=0.04)


def test_what_is_right_in_nine_of_ten_rows_is_a_good_feature() -> None:
    wrong = np.arange(N) % 10 == 0
    assert alone(columns(np.where(wrong, (LABELS + 1) % 4, LABELS)), LABELS, N) == {}


@pytest.mark.parametrize(
    "column",
    [
        np.argsort(np.argsort(LABELS, kind="stable")),  # row numbers of a file that is sorted by class
        LABELS + RNG.uniform(0, 0.9, N),  # numbers that lie in a range for each class
        np.array([3, 0, 2, 1])[LABELS] * 10 + RNG.integers(0, 9, N),  # codes, of which many mean one class
    ],
)
def test_a_column_of_any_form_that_tells_the_class(column: np.ndarray) -> None:
    (found,) = alone(columns(column), LABELS, N).values()
    assert found.score > 0.99


def test_row_numbers_of_shuffled_rows_tell_nothing() -> None:
    assert alone(columns(np.arange(N), RNG.permutation(N), np.zeros(N)), LABELS, N) == {}


def test_a_rare_class_does_not_make_every_column_suspicious() -> None:
    """A guess is right in 99 % of the rows; so is a column of noise."""
    rare = (np.arange(N) % 100 == 0).astype(np.int64)
    found = alone(columns(VALUES, rare + RNG.normal(0, 0.01, N)), rare, N)
    assert list(found) == [1]


def test_values_of_a_regression() -> None:
    """Of y = 3x + e with a standard deviation of e of 0.3, x explains 9 / 9.09 = 0.99 at most."""
    noise = RNG.normal(size=N)
    near, far = 3 * VALUES + 0.01 * noise, 3 * VALUES + 0.6 * noise
    assert list(alone(columns(noise, near), (3 * VALUES).astype(np.float32), N)) == [1]
    assert alone(columns(noise, far), (3 * VALUES).astype(np.float32), N) == {}
    exact = alone(columns(VALUES), (2 * VALUES + 1).astype(np.float32), N)[0]
    assert (exact.score, exact.guess) == (pytest.approx(1, abs=1e-3), 0)


def test_rows_of_a_test_file_and_few_rows_are_not_judged() -> None:
    assert alone(columns(LABELS), np.where(np.arange(N) < 1000, LABELS, 0), 1000)[0].score == 1
    assert alone(columns(LABELS[:30]), LABELS[:30], 30) == {}
    assert alone(np.zeros((N, 1, 2, 2), np.float32), LABELS, N) == {}
    assert alone(columns(LABELS), np.stack([VALUES, VALUES], axis=1), N) == {}


def facts_of(path: Path, metric: str = "accuracy", **data: Any) -> tuple[str, ...]:
    task = Task(
        data=Data(source=str(path), **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,
        tolerance=0.01,
    )
    found = load(task, DataPaths(cache=str(path.parent / "cache"))).facts
    assert found is not None
    return found.sentences


REMEDY = "If it is made from the label, or known only after it, leave it out: data.exclude: [{}]."


def test_columns_of_parquet_are_told_by_name(tmp_path: Path) -> None:
    classes = (np.arange(N) % 2).astype(np.int64)
    paid = np.where(np.arange(N) == 1, "no", np.array(["no", "yes"])[classes])
    pq.write_table(
        pa.table({"noise": VALUES, "paid": paid, "delay": classes + VALUES / 100, "label": classes}),
        tmp_path / "a.parquet",
    )
    paid_, delay = facts_of(tmp_path / "a.parquet")
    assert paid_.startswith("column 'paid' alone tells the label almost perfectly: it is right in 100 % of the rows ")
    assert paid_.endswith(REMEDY.format("paid"))
    assert delay.endswith(REMEDY.format("delay"))


def test_a_regression_is_told_in_its_own_words(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": VALUES, "cents": 100 * VALUES, "label": VALUES + 1e-5}), tmp_path / "a.parquet")
    first, second = facts_of(tmp_path / "a.parquet", "mse")
    assert first == (
        "column 'a' alone tells the label almost perfectly: it explains 100 % of the variance in the rows held back. "
        + REMEDY.format("a")
    )
    assert "'cents'" in second


def test_columns_of_an_array_are_told_by_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=columns(VALUES, LABELS + VALUES / 100), y=LABELS)
    (sentence,) = facts_of(tmp_path / "a.npz")
    assert sentence.startswith("column 'x[1]' alone tells the label almost perfectly: ")
    assert sentence.endswith("known only after it, take it out of the inputs.")


def test_row_numbers_in_an_array_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=columns(np.arange(N), VALUES, RNG.permutation(N)), y=LABELS)
    ordered, shuffled = facts_of(tmp_path / "a.npz")
    words = "holds another whole number in each row"
    rest = "as row numbers and ids do. If it is no feature, take it out of the array."
    assert (ordered, shuffled) == (
        f"column 'x[0]' {words}, in order, {rest}",
        f"column 'x[2]' {words}, {rest}",
    )


def test_an_easy_task_is_told_in_one_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.stack([LABELS + VALUES / (100 + i) for i in range(8)], axis=1), y=LABELS)
    assert facts_of(tmp_path / "a.npz") == (
        "8 of 8 columns tell the label almost perfectly, each alone: the task is easy, or its inputs were made from "
        "the label.",
    )
