"""Test files that are unlike the training file, and ones that are alike and cause no alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, load
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Split, Task

N, N_TEST = 300, 100
RNG = np.random.default_rng(0)
VALUES, OTHERS = RNG.normal(size=N), RNG.normal(size=N_TEST)
LABELS, TEST_LABELS = np.arange(N) % 3, np.arange(N_TEST) % 3
ADVICE = "If both files are meant to be alike, write them in one unit and with the same words."


def sentences(source: Path, metric: str = "accuracy", **data: Any) -> tuple[str, ...]:
    task = Task(
        data=Data(source=str(source), **data),
        split=Split(validation=0.2),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,
        tolerance=0.01,
    )
    found = load(task, DataPaths(cache=str(source.parent / "cache"))).facts
    assert found is not None
    return found.sentences


def files(folder: Path, train: dict[str, Any], test: dict[str, Any]) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"a": VALUES, "label": LABELS, **train}), folder / "train.parquet")
    pq.write_table(pa.table({"a": OTHERS, "label": TEST_LABELS, **test}), folder / "test.parquet")
    return folder


def beyond(count: int, total: int, ends: str) -> str:
    return f"has in {count} of {total} test examples numbers beyond those of the training file, {ends}. {ADVICE}"


def test_files_that_are_alike_cause_no_alarm(tmp_path: Path) -> None:
    heavy = {"tails": RNG.standard_cauchy(N), "color": RNG.choice(list("rgb"), N), "grid": RNG.integers(0, 3, N)}
    more = {"tails": RNG.standard_cauchy(100), "color": RNG.choice(list("rgbx"), 100), "grid": RNG.integers(0, 4, 100)}
    assert sentences(files(tmp_path / "d", heavy, more)) == ()


def test_another_unit_is_told(tmp_path: Path) -> None:
    test = {"size": np.arange(N_TEST) % 50 + 51 - 50 * (np.arange(N_TEST) < 40), "b": OTHERS}
    (said,) = sentences(files(tmp_path / "d", {"size": np.arange(N) % 50 + 1, "b": VALUES}, test))
    assert said == f"column 'size' {beyond(60, 100, '1 to 50')}"


def test_shifted_columns_are_told_in_their_units(tmp_path: Path) -> None:
    """They are stored less a shift, which float32 needs."""
    kept = 10**15 + 10**6 * (np.arange(N) * 7 % N)
    (said,) = sentences(files(tmp_path / "d", {"t": kept}, {"t": np.full(N_TEST, 3.0e15).astype(np.int64)}))
    assert said == f"column 't' {beyond(100, 100, '1e+15 to 1.000000299e+15')}"


@pytest.mark.parametrize("strange", [["female"] * N_TEST, [None] * N_TEST])
def test_other_words_are_told(tmp_path: Path, strange: list[str | None]) -> None:
    """What the training part lacks has no column: the network saw nothing there."""
    source = files(tmp_path / "d", {"sex": ["F", "M"] * 150}, {"sex": pa.array(strange, pa.string())})
    (said,) = sentences(source)
    assert said == f"column 'sex' has in 100 of 100 test examples a category that the training file lacks. {ADVICE}"


def test_numbers_of_rows_go_on_and_are_told_once(tmp_path: Path) -> None:
    (said,) = sentences(files(tmp_path / "d", {"row": np.arange(N)}, {"row": np.arange(N, N + N_TEST)}))
    assert "row numbers" in said


def test_labels_of_a_regression(tmp_path: Path) -> None:
    source = files(tmp_path / "d", {"label": np.arange(N) / 2}, {"label": 1000.0 + np.arange(N_TEST)})
    (said,) = sentences(source, "mse")
    assert said == f"column 'label' {beyond(100, 100, '0 to 149.5')}"


def test_images_that_were_scaled_in_one_file_only(tmp_path: Path) -> None:
    images, others = RNG.random((N, 4, 4)), RNG.random((N_TEST, 4, 4))
    images[0, 0, :2] = (0, 1)
    for name, factor in (("alike", 1), ("unlike", 255)):
        np.savez(tmp_path / f"{name}.npz", x=images, y=LABELS, x_test=factor * others, y_test=TEST_LABELS)
    assert sentences(tmp_path / "alike.npz") == ()
    assert sentences(tmp_path / "unlike.npz") == (f"column 'x' {beyond(100, 100, '0 to 1')}",)


def test_a_channel_of_series_in_its_own_unit(tmp_path: Path) -> None:
    """Channels are stored less a shift each; only the second one is another in the test file."""
    series, others = RNG.random((N, 2, 9)) + np.array([[1e9], [5e9]]), RNG.random((N_TEST, 2, 9))
    series[0, 1, :2] = (5e9, 5e9 + 1)
    others[:, 0] = 1e9 + 0.5
    np.savez(tmp_path / "a.npz", x=series, y=LABELS, x_test=others, y_test=TEST_LABELS)
    assert sentences(tmp_path / "a.npz", layout="series") == (
        f"column 'x' {beyond(100, 100, '5000000000 to 5000000001')}",
    )


def test_what_is_constant_in_the_training_file_only(tmp_path: Path) -> None:
    (said,) = sentences(files(tmp_path / "d", {"b": np.full(N, 7.0)}, {"b": OTHERS}))
    assert said == f"column 'b' {beyond(100, 100, 'all 7')}"


def test_many_columns_are_one_sentence(tmp_path: Path) -> None:
    x, x_test = RNG.random((N, 9)), RNG.random((N_TEST, 9)) + 5
    np.savez(tmp_path / "a.npz", x=x, y=LABELS, x_test=x_test, y_test=TEST_LABELS)
    (said,) = sentences(tmp_path / "a.npz")
    assert said.startswith("column 'x[0]' has in 100 of 100 test examples numbers beyond those of the training file, ")
    assert said.endswith(f"So it is with 8 more columns. {ADVICE}")


def test_a_class_of_the_test_file_only(tmp_path: Path) -> None:
    source = files(tmp_path / "d", {"label": ["0", "1"] * 150}, {"label": ["no", "yes"] * 50})
    with pytest.raises(DataError) as caught:
        sentences(source)
    assert str(caught.value) == (
        "class 'no' must have examples in the training file, got some in the test file only. Write the labels of both "
        "alike, or drop the class."
    )


@pytest.mark.parametrize("layout", ["series", "flat"])
def test_a_column_of_lists_has_its_name_where_the_label_stands_first(tmp_path: Path, layout: str) -> None:
    """The label is a column, and no input."""
    folder = tmp_path / "d"
    folder.mkdir()
    for name, labels, scale in (("train", LABELS, 1.0), ("test", TEST_LABELS, 1000.0)):
        values = (scale * np.random.default_rng(1).normal(size=(len(labels), 2, 3))).tolist()
        table = pa.table({"label": labels, "x": pa.array(values, pa.list_(pa.list_(pa.float32())))})
        pq.write_table(table, folder / f"{name}.parquet")
    (said,) = sentences(folder, layout=layout)
    assert said.startswith("column 'x' has in " if layout == "series" else "column 'x[0]' has in ")
