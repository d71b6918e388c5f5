"""Models in hand of tasks with own goals: several labels, metrics, averages of weights, outputs of any form."""

from __future__ import annotations

import json
from pathlib import Path

import in_hand
import night
import numpy as np
import pyarrow as pa
import pytest
import torch

from subsettune import Task, TrainedModel, load_model
from subsettune.data import load
from subsettune.errors import DataError
from subsettune.train import RunOptions
from subsettune.trained.nightly import follow_on
from subsettune.trained.write import table_of

OPTIONS = RunOptions(device="cpu", num_threads=1, places=in_hand.PLACES)
SHARE = {"name": "own_goals:share_right", "higher_is_better": True}


def kept(task: Task, folder: Path) -> tuple[TrainedModel, float]:
    """A model that was written and read, and the test metric of its run."""
    made, result = in_hand.trained(task)
    made.save(folder / "model")
    return load_model(folder / "model"), result.metrics["test"]


def test_rows(model: TrainedModel, table: pa.Table) -> pa.Table:
    return table.take(load(model.origin.task, in_hand.PLACES).test.rows.tolist())


test_rows.__test__ = False  # type: ignore[attr-defined]


def labelled(seed: int = 0) -> pa.Table:
    """Rows with lists of three labels."""
    x = np.random.default_rng(seed).normal(size=(200, 3))
    labels = (x + np.random.default_rng(1).normal(0, 0.3, x.shape) > 0).astype(np.int64)
    return pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "label": labels.tolist()})


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "subset_accuracy", "log_loss"])
def test_several_labels(tmp_path: Path, metric: str) -> None:
    table = labelled()
    task = in_hand.task_of(in_hand.written(tmp_path, table), kind="multilabel", metric=metric, tolerance=0.3)
    model, score = kept(task, tmp_path)
    rows = test_rows(model, table)
    assert model.score(rows) == pytest.approx(score, rel=1e-6)
    values, shares = model.predict(rows), model.predict_proba(rows)
    assert values.shape == shares.shape == (40, 3)
    assert ((shares > 0.5) == (values == 1)).all()
    assert repr(model).startswith("TrainedModel(mlp, 3 labels of 'label', ")
    names = table_of(model.examine(rows), model, with_probabilities=True).column_names
    assert names == [*(f"prediction[{j}]" for j in range(3)), *(f"probability of label[{j}]" for j in range(3))]
    assert model.examine(rows.drop_columns(["label"])).metric is None


def test_labels_that_are_none_are_refused(tmp_path: Path) -> None:
    table = labelled()
    task = in_hand.task_of(in_hand.written(tmp_path, table), kind="multilabel", metric="macro_f1")
    model, _ = kept(task, tmp_path)
    odd = table.set_column(3, "label", pa.array([[0, 1, 2]] * 200))
    with pytest.raises(DataError, match=r"labels in 'label' of the rows must be 0 or 1, got \[0.0, 1.0, 2.0\]"):
        model.score(odd)
    short = table.set_column(3, "label", pa.array([[0, 1]] * 200))
    with pytest.raises(DataError, match=r"lists of column 'label' must have one length, got 3 and 2"):
        model.score(short)


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": SHARE},
        {"metric": "roc_auc", "positive": "no"},
        {"metric": "average_precision", "positive": "no"},
        {"metric": "log_loss"},
        {"recipe": {**in_hand.RECIPE, "ema": 0.9}},
        {"model": {"name": "own_goals:Rich", "form": "named"}},
        {"model": {"name": "own_goals:Rich", "form": "object"}},
        {"loss": "own_goals:cross_entropies", "recipe": {**in_hand.RECIPE, "ema": 0.99}},
    ],
    ids=str,
)
def test_the_score_is_that_of_the_run(tmp_path: Path, changes: dict[str, object]) -> None:
    table = in_hand.people()
    model, score = kept(in_hand.task_of(in_hand.written(tmp_path, table), **changes), tmp_path)
    assert model.score(test_rows(model, table)) == pytest.approx(score, rel=1e-6)
    assert model.predict_proba(table).sum(axis=1) == pytest.approx(1)
    assert json.loads((tmp_path / "model/model.json").read_text())["task"] == model.origin.task.to_mapping()


def test_averaged_weights_are_those_that_are_kept(tmp_path: Path) -> None:
    source = in_hand.written(tmp_path, in_hand.people())
    plain, _ = in_hand.trained(in_hand.task_of(source))
    averaged, _ = kept(in_hand.task_of(source, recipe={**in_hand.RECIPE, "ema": 0.9}), tmp_path)
    pairs = zip(plain.network.parameters(), averaged.network.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": SHARE}, "by the spread of other seeds and other test examples)"),
        ({"metric": "roc_auc", "positive": "no"}, "by the spread of other seeds and other test examples)"),
        ({"metric": "log_loss"}, "by the spread of other seeds and other test examples)"),
    ],
)
def test_follow_says_of_a_metric_what_it_can(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    bundle = night.make_bundle(tmp_path / "bundle", in_hand.written(tmp_path, in_hand.people()), **changes)
    ready = follow_on(bundle, in_hand.written(tmp_path, in_hand.people(seed=5), "tonight.parquet"), OPTIONS)
    _, outcome = ready.train(0)
    assert words in outcome.sentences[0]
    low, high = outcome.interval
    assert low >= 0
    if bundle.task.metric == "roc_auc":
        assert high <= 1


def test_follow_refuses_another_number_of_labels(tmp_path: Path) -> None:
    task = {"kind": "multilabel", "metric": "macro_f1"}
    bundle = night.make_bundle(tmp_path / "bundle", in_hand.written(tmp_path, labelled()), **task)
    two = labelled(3)
    two = two.set_column(3, "label", pa.array([each[:2] for each in two["label"].to_pylist()]))
    with pytest.raises(DataError, match=r"data must have the 3 labels that the bundle was made for, got 2. Mend the"):
        follow_on(bundle, in_hand.written(tmp_path, two, "tonight.parquet"), OPTIONS)
