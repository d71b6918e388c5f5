"""Which files of a folder are read: whole sets and numbered shards, and nothing else without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, TaskData, load
from subsettune.data.shards import Parts, parts
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Task

HASH = "0123456789abcdef"


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def names_of(found: Parts) -> tuple[list[str], list[str], list[str]]:
    train, test, left = ([path.name for path in files] for files in (found.train, found.test, found.left_alone))
    return train, test, left


READ: list[tuple[list[str], list[str], list[str]]] = [  # training files, test files, left alone
    (["train.parquet"], [], []),
    (["train.parquet"], ["test.parquet"], []),
    (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["test-00000-of-00001.parquet"], []),
    ([f"train-00000-of-00001-{HASH}.parquet"], [f"test-00000-of-00001-{HASH}.parquet"], []),
    (["train0.parquet", "train1.parquet"], [], []),
    (["train_1.parquet", "train_2.parquet"], ["test_1.parquet"], []),
    (["train-part-1.parquet", "train-part-3.parquet"], [], []),
    (["train.parquet"], ["test.parquet"], ["train_small.parquet", "test_small.parquet"]),
    (["train-0.parquet", "train-1.parquet"], [], ["train-tiny.parquet"]),
    (["train_clean.parquet"], ["test_clean.parquet"], []),  # the only ones
    (["train.parquet"], [], ["training.parquet", "testimony.parquet"]),
    (["train.parquet"], [], ["val.parquet", "validation-00000-of-00001.parquet"]),
]


@pytest.mark.parametrize(("train", "test", "left"), READ)
def test_which_files_are_read(tmp_path: Path, train: list[str], test: list[str], left: list[str]) -> None:
    folder = touched(tmp_path, *train, *test, *left, "README.md", "notes.parquet")
    assert names_of(parts(folder, (".parquet",))) == (train, test, left)
    assert bool(parts(folder, (".parquet",)).warnings) == any(name.startswith("t") for name in left)


def test_a_held_out_set_of_another_name_is_told(tmp_path: Path) -> None:
    found = parts(touched(tmp_path, "train.csv", "eval.csv", "evaluate.py"), (".csv",), has_validation=True)
    assert names_of(found) == (["train.csv"], [], ["eval.csv"])
    assert found.warnings == (
        "file eval.csv is not read: it is not known whether it is a validation or a test set. Rename it to validation "
        "or test, or move it elsewhere.",
    )


def test_tsv_files_gzipped_or_not(tmp_path: Path) -> None:
    folder = touched(tmp_path, "train-1.tsv", "train-0.tsv.gz", "test.tsv.gz", "train_small.tsv.gz", "dev.tsv")
    found = names_of(parts(folder, (".tsv", ".tsv.gz")))
    assert found == (["train-0.tsv.gz", "train-1.tsv"], ["test.tsv.gz"], ["train_small.tsv.gz", "dev.tsv"])


REFUSED: list[tuple[list[str], str]] = [
    (
        ["train_a.parquet", "train_b.parquet"],
        "folder {} must hold one train file, train.parquet, or numbered shards of it, got train_a.parquet, "
        "train_b.parquet. Rename the one that is meant to train.parquet.",
    ),
    (
        ["train.parquet", "test_a.parquet", "test_b.parquet"],
        "folder {} must hold one test file, test.parquet, or numbered shards of it, got test_a.parquet, "
        "test_b.parquet. Rename the one that is meant to test.parquet.",
    ),
    (
        ["train.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "folder {} must hold train.parquet or numbered shards, got train-00000-of-00002.parquet, "
        "train-00001-of-00002.parquet, train.parquet. Remove one of them, or move it elsewhere: a row must not be read "
        "twice.",
    ),
    (
        ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
        "folder {} must hold all 3 train shards, got no number 1: train-00000-of-00003.parquet, "
        "train-00002-of-00003.parquet. Fetch all of them.",
    ),
    (
        ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "folder {} must hold one set of train shards, got train-00000-of-00001.parquet, train-00000-of-00002.parquet, "
        "train-00001-of-00002.parquet. Remove those of the other set.",
    ),
    (
        [f"train-00000-of-00001-{HASH}.parquet", f"train-00000-of-00001-{HASH[::-1]}.parquet"],
        f"folder {{}} must hold all 1 train shards, got 2: train-00000-of-00001-{HASH}.parquet, "
        f"train-00000-of-00001-{HASH[::-1]}.parquet. Fetch all of them.",
    ),
    (
        ["train.parquet", "test.tsv"],
        "folder {} must hold training and test files of one kind, got train.parquet and test.tsv. Write them alike, or "
        "move one elsewhere.",
    ),
]


@pytest.mark.parametrize(("files", "message"), REFUSED)
def test_folders_that_say_two_things(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parts(touched(tmp_path, *files), (".parquet",))
    assert str(caught.value) == message.format(tmp_path)


def write(path: Path, first: int, num_rows: int) -> None:
    rows = np.arange(first, first + num_rows)
    pq.write_table(pa.table({"a": rows + 0.5, "label": rows % 3}), path)


def load_folder(folder: Path) -> TaskData:
    task = Task(
        data=Data(source=str(folder)),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(folder / "cache")))


def test_a_small_copy_beside_the_training_set_is_not_read_into_it(tmp_path: Path) -> None:
    """It was: 700 rows, of which 100 stood there twice, in training, validation and test part."""
    write(tmp_path / "train.parquet", 0, 600)
    write(tmp_path / "train_small.parquet", 0, 100)
    data = load_folder(tmp_path)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 600
    assert data.facts is not None
    assert data.facts.left_alone == ("train_small.parquet",)
    assert data.facts.sentences == (
        "file train_small.parquet is not read beside train.parquet. If they are parts of one set, number all as shards "
        "(train-0, train-1); if another one is the training set, give its path as data.source.",
    )


def test_a_small_test_set_beside_the_test_set_is_not_read_into_it(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 0, 300)
    write(tmp_path / "test.parquet", 300, 90)
    write(tmp_path / "test_small.parquet", 300, 30)
    data = load_folder(tmp_path)
    assert len(data.test) == 90
    assert data.facts is not None
    assert data.facts.warnings == (
        "file test_small.parquet is not read beside test.parquet. If they are parts of one set, number all as shards "
        "(test-0, test-1); if another one is the test set, move this one elsewhere.",
    )


def test_shards_are_one_set(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"train-{i:05d}-of-00003.parquet", 100 * i, 100)
    data = load_folder(tmp_path)
    assert data.train.inputs[:, 0].tolist() == (np.arange(300) + 0.5).tolist()
