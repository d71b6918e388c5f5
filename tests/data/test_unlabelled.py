"""Test files whose labels somebody keeps: told in one sentence with the way out, which works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, TaskData, load
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Split, Task

N = 60
WAY_OUT = (
    "Nothing can be verified on it: move it out of the folder, and a test part is drawn from the training file, of the "
    "share task.split.test."
)
HIDDEN = "has no labels: column 'label' holds nothing but -1, which stands for a hidden label."


def load_folder(folder: Path, split: Split | None = None, **data: Any) -> TaskData:
    task = Task(
        data=Data(source=str(folder), **data),
        split=split or Split(),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(folder.parent / "cache")))


UNLABELLED: dict[str, tuple[dict[str, Any], str]] = {
    "no_column": ({}, "has no labels: it lacks the column 'label' that the training file has."),
    "nothing": ({"label": pa.nulls(N, pa.int64())}, "has no labels: column 'label' is empty."),
    "no_type": ({"label": pa.nulls(N)}, "has no labels: column 'label' is empty."),
    "minus_one": ({"label": np.full(N, -1)}, HIDDEN),
}


@pytest.mark.parametrize("case", UNLABELLED)
def test_a_test_file_of_parquet_without_labels(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    values = np.arange(N) / 7
    label, words = UNLABELLED[case]
    pq.write_table(pa.table({"a": values, "label": np.arange(N) % 3}), folder / "train.parquet")
    pq.write_table(pa.table({"a": values, **label}), folder / "test.parquet")
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert str(caught.value) == f"{folder}/test.parquet {words} {WAY_OUT}"
    (folder / "test.parquet").unlink()
    assert len(load_folder(folder, Split(validation=0.1, test=0.3)).test) == 18


@pytest.mark.parametrize(
    ("header", "line", "words"),
    [
        ("index\ttext", "{}\tso it goes", UNLABELLED["no_column"][1]),
        ("text\tlabel", "so it goes {}\t", UNLABELLED["nothing"][1]),
        ("text\tlabel", "so it goes {}\t-1", HIDDEN),
    ],
)
def test_a_test_file_of_texts_without_labels(tmp_path: Path, header: str, line: str, words: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.tsv").write_text("text\tlabel\n" + "".join(f"word{i} more\t{i % 2}\n" for i in range(N)))
    (folder / "test.tsv").write_text(f"{header}\n" + "".join(f"{line.format(i)}\n" for i in range(N)))
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert str(caught.value) == f"{folder}/test.tsv {words} {WAY_OUT}"


def test_a_misspelt_label_is_no_missing_one(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for part in ("train", "test"):
        pq.write_table(pa.table({"a": np.arange(N) / 7, "class": np.arange(N) % 3}), folder / f"{part}.parquet")
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert str(caught.value) == (
        f"{folder}/train.parquet has no column 'label'. Its columns: a, class. Set data.label and data.features."
    )


def test_some_missing_labels_are_told_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    label = [None, *(i % 3 for i in range(1, N))]
    pq.write_table(pa.table({"a": np.arange(N) / 7, "label": np.arange(N) % 3}), folder / "train.parquet")
    pq.write_table(pa.table({"a": np.arange(N) / 7, "label": label}), folder / "test.parquet")
    with pytest.raises(DataError, match=r"^column 'label' must have no missing labels, got 1\."):
        load_folder(folder)
