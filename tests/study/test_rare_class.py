"""A table of which one row in twelve is positive, judged by ranks, beside scikit-learn's network on the same split."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

from subsettune import Bundle, DataPaths, Found, TuneOptions, tune
from subsettune.data import load
from subsettune.report.tables import result_text
from subsettune.study.spec.definition import parse
from subsettune.task import Task

RECIPE = {"optimizer": "adam", "lr": 0.01, "batch_size": 50, "epochs": 12, "schedule": "constant"}
HIDDEN = 16


def write_rare(path: Path, n: int = 1500) -> float:
    """A logistic rule of four columns of six with a product in it; returns the share of positives."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    logit = 2 * x[:, 0] - 1.5 * x[:, 1] + 1.5 * x[:, 2] * x[:, 3] - 5.2
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    np.savez(path, x=x, y=y)
    return float(y.mean())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("rare")
    assert 0.06 < write_rare(folder / "rare.npz") < 0.1
    raw: dict[str, Any] = {
        "task": {
            "data": {"source": str(folder / "rare.npz"), "label": "y"},
            "split": {"validation": 0.2, "test": 0.3},
            "model": {"name": "mlp", "hidden": [HIDDEN]},
            "recipe": RECIPE,
            "metric": "roc_auc",
            "tolerance": 0.05,
        },
        "space": {"arm": "full", "budget": {"log": [0.1, 0.7]}},
        "study": {"trials": 3, "seeds": 3, "candidates": 1, "reference_looks": 6},
    }
    options = TuneOptions(
        storage=str(folder / "runs"), places=DataPaths(cache=str(folder)), executor="inline", device="cpu"
    )
    return tune(parse(raw), run_id="rare", options=options)


def sklearn_scores(task: Task) -> dict[str, float]:
    """Both curves of scikit-learn's network of the same size and recipe, a mean over three seeds."""
    data = load(task)
    (x, y), (test_x, test_y) = (part.batch(torch.arange(len(part))) for part in (data.train, data.test))
    found = []
    for seed in range(3):
        network = MLPClassifier(
            (HIDDEN,), alpha=0, learning_rate_init=0.01, batch_size=50, max_iter=12, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as many epochs as the recipe has, and no more
            scores = network.fit(x.numpy(), y.numpy()).predict_proba(test_x.numpy())[:, 1]
        found.append((roc_auc_score(test_y, scores), average_precision_score(test_y, scores)))
    return dict(zip(("roc_auc", "average_precision"), np.mean(found, axis=0).tolist(), strict=True))


def test_the_reference_ranks_as_scikit_learn_s_network_does(study: Found) -> None:
    theirs = sklearn_scores(study.study.task)
    reference = study.summary.reference
    assert reference is not None
    assert reference.test_metric == pytest.approx(theirs["roc_auc"], abs=0.02)
    assert theirs["roc_auc"] > 0.85


def test_the_study_says_what_ranks_can_and_cannot_tell(study: Found) -> None:
    assert study.manifest.test_chance == 0.5
    assert study.summary.status == "finished"
    assert all(run.num_test == 0 for run in study.verification)
    text = " ".join(result_text(study.view).split())
    assert "ROC AUC: mean on the test split over n runs" in text
    assert {one.looks for one in study.summary.early_stops} == {6}
    assert [one.patience for one in study.summary.early_stops][:2] == [1, 3]
    assert {len(run.curve) for run in study.reference} == {6}
    assert study.summary.verified
    assert "ROC AUC is no mean over examples, so that no bound for others is given." in text
    assert study.summary.bundle is not None
    evidence = json.loads((Path(study.summary.bundle) / "evidence.json").read_text())
    assert (evidence["metric"], evidence["higher_is_better"]) == ("roc_auc", True)
    assert Bundle.load(study.summary.bundle).task.metric == "roc_auc"


def test_most_answers_being_right_hides_what_is_looked_for(study: Found) -> None:
    """Of accuracy, a constant answer is nearly as good; of ranks it is not: so they can tell a study something."""
    targets = load(study.study.task).test.targets
    reference = study.summary.reference
    assert reference is not None
    assert reference.test_metric is not None
    assert float((targets == 0).double().mean()) > 0.9
    assert reference.test_metric - 0.5 > 0.3
