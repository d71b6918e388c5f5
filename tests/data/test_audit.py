"""What is told of a task's data as a whole: examples, classes and parts, and inputs that stand in two parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from places import ROOT

from subsettune.data import DataPaths, load
from subsettune.data.audit import Audit, audit
from subsettune.report.data_tables import columns_table
from subsettune.task import Data, Model, Recipe, Split, Task

N = 300
RNG = np.random.default_rng(0)
NO_TWINS = {"validation, train": 0, "test, train": 0, "test, validation": 0}


def audit_of(source: Path | str, metric: str = "accuracy", split: Split | None = None, **data: Any) -> Audit:
    task = Task(
        data=Data(source=str(source), **data),
        split=split or Split(validation=0.2),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,
        tolerance=0.01,
    )
    cache = (source.parent if isinstance(source, Path) else ROOT) / "cache"
    places = DataPaths(cache=str(cache)) if isinstance(source, Path) else DataPaths()
    return audit(load(task, places), task.split)


def write(path: Path, label: Any, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "label": label}), path)
    return path


def test_digits_by_hand() -> None:
    """30 % and 20 % of 1,797 examples, class by class: 539 and 359."""
    found = audit_of("digits", split=Split(validation=0.2, test=0.3, seed=3))
    assert found.sizes == {"train": 899, "validation": 359, "test": 539}
    assert found.classes["0"] == {"train": 89, "validation": 36, "test": 53}
    assert sum(counts["train"] for counts in found.classes.values()) == 899
    assert (found.shared, found.warnings) == (NO_TWINS, ())
    assert found.split == (
        "No official test set. Test part: 0.3, and validation part: 0.2 of 1,797 examples, drawn by class, seed 3."
    )
    assert [(c.name, c.role, c.least, c.most, c.distinct) for c in found.source.columns] == [
        ("image", "image", 0, 16, None),
        ("label", "label", None, None, 10),
    ]
    assert json.loads(json.dumps(found.to_mapping()))["classes"] == found.classes


def test_an_official_test_set_is_told(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"d/{part}.parquet", np.arange(N) % 3, a=RNG.normal(size=N))
    found = audit_of(tmp_path / "d")
    assert found.split == (
        "Test part: the official test set (test.parquet). Validation part: 0.2 of 300 examples, drawn by class, seed 0."
    )
    assert found.sizes == {"train": 240, "validation": 60, "test": 300}


def test_texts_and_their_twins(tmp_path: Path) -> None:
    """Each of four texts stands there fifteen times, and so in each part."""
    texts = [f"word{i % 4} and more" for i in range(60)]
    found = audit_of(write(tmp_path / "a.parquet", [i % 2 for i in range(60)], text=texts))
    assert found.shared == {"validation, train": 12, "test, train": 12, "test, validation": 12}
    assert found.warnings == (
        "Some inputs stand in two parts: 12 of 12 validation examples (100 %) in the training part, 12 of 12 test "
        "examples (100 %) in the training part, 12 of 12 test examples (100 %) in the validation part. What is learnt "
        "by heart counts as right there. Drop the copies, or know that they are chance, as in a table of few values.",
    )


def test_a_test_file_that_is_the_training_file(tmp_path: Path) -> None:
    values = RNG.normal(size=N)
    for part in ("train", "test"):
        write(tmp_path / f"d/{part}.parquet", np.arange(N) % 3, a=values)
    found = audit_of(tmp_path / "d")
    assert found.shared == {"validation, train": 0, "test, train": 240, "test, validation": 60}
    assert found.warnings[0].startswith("Some inputs stand in two parts: 240 of 300 test examples (80 %) in the ")


def test_classes_of_three_examples_make_the_parts_larger(tmp_path: Path) -> None:
    """Each of 100 classes gives one to each part, though 0.2 of 300 are 60; and they may be no classes at all."""
    found = audit_of(write(tmp_path / "a.parquet", np.arange(N) // 3, a=RNG.normal(size=N)))
    assert found.sizes == {"train": 100, "validation": 100, "test": 100}
    assert found.split == (
        "No official test set. Test part: 0.2, and validation part: 0.2 of 300 examples, drawn by class, seed 0. Each "
        "class gives one example at least, so that the test part has 100 instead of 60 and the validation part has 100 "
        "instead of 60."
    )
    assert found.warnings == (
        "Labels are taken for 100 classes, of 3 examples each on average. If they are a quantity, choose metric mse or "
        "mae.",
    )
    named = audit_of(write(tmp_path / "b.parquet", [f"c{i // 3}" for i in range(N)], a=RNG.normal(size=N)))
    assert named.warnings == ()


def test_few_twins_stand_in_the_table_only(tmp_path: Path) -> None:
    """One in 300 is chance, and moves no accuracy that a study could tell; nine are said."""
    for count, is_said in ((1, False), (9, True)):
        values, others = RNG.normal(size=N), RNG.normal(size=N)
        others[:count] = values[:count]
        write(tmp_path / f"{count}/train.parquet", np.arange(N) % 3, a=values)
        write(tmp_path / f"{count}/test.parquet", np.arange(N) % 3, a=others)
        found = audit_of(tmp_path / str(count))
        assert found.shared["test, train"] + found.shared["test, validation"] == count
        assert bool(found.warnings) == is_said


def test_a_regression_has_no_classes(tmp_path: Path) -> None:
    values = RNG.normal(size=N)
    found = audit_of(write(tmp_path / "a.parquet", RNG.normal(size=N), a=values), "mse")
    assert found.classes == {}
    assert found.split.endswith("validation part: 0.2 of 300 examples, drawn, seed 0.")
    (label,) = (column for column in found.source.columns if column.role == "label")
    assert (label.distinct, label.least is not None) == (N, True)


def test_several_targets_and_embeddings_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", list(RNG.normal(size=(N, 2))), a=RNG.normal(size=N), e=list(np.eye(N, 3)))
    found = audit_of(path, "mse", embeddings="e")
    assert [(c.name, c.role, c.width) for c in found.source.columns] == [
        ("a", "feature", 1),
        ("e", "embeddings", 3),
        ("label", "label", 2),
    ]
    assert ("label", "2 labels") in {row[:2] for row in columns_table(found.to_mapping()["source"]["columns"]).rows}


def test_repeated_examples_of_a_distortion_are_no_twins(tmp_path: Path) -> None:
    """They all stand in the training part."""
    path = write(tmp_path / "a.parquet", np.arange(N) % 3, a=RNG.normal(size=N))
    task = Task(
        data=Data(source=str(path)),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
        distortion={"repeat_share": 0.5, "repeat_times": 3},  # type: ignore[arg-type]
    )
    found = audit(load(task, DataPaths(cache=str(tmp_path / "cache"))), task.split)
    assert (found.sizes["train"], found.shared) == (420, NO_TWINS)  # 210, half of them three times


def test_sentences_begin_as_sentences_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", np.arange(N) % 3, a=RNG.normal(size=N), row=RNG.permutation(N))
    assert audit_of(path).warnings[0].startswith("Column 'row' holds another whole number in each row, as ")


def test_of_several_labels_it_is_told_how_often_each_is_there(tmp_path: Path) -> None:
    """Lists in a column of Parquet, as the labels of a multilabel task."""
    marks = np.stack([np.arange(N) % 3 == 0, np.arange(N) % 2 == 0], axis=1).astype(np.int64)
    path = write(tmp_path / "data.parquet", marks.tolist(), a=RNG.normal(size=N))
    found = audit_of(path, "subset_accuracy")
    assert {name: sum(counts.values()) for name, counts in found.classes.items()} == {"label 0": 100, "label 1": 150}
    assert "drawn, seed 0" in found.split
    assert json.loads(json.dumps(found.to_mapping()))["classes"]["label 1"].keys() == {"train", "validation", "test"}
