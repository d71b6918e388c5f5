"""The learner for FLAML: its trials, its time, its tables. Run by `make test-hosts`."""

from __future__ import annotations

import pickle
import re
import runpy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from flaml import AutoML
from flaml.automl.task.factory import task_factory
from places import ROOT
from sklearn.datasets import load_diabetes
from sklearn.pipeline import Pipeline

from subsettune.bundle import Bundle
from subsettune.errors import ConfigError
from subsettune.integrations.flaml import SubsetLearner
from subsettune.policy import Phase, Policy

pytestmark = pytest.mark.filterwarnings("default")  # FLAML's own are not ours to mend
POLICY = Policy(phases=(Phase(share=0.4, passes=2), Phase(passes=3)))


class Learner(SubsetLearner):
    settings: ClassVar[Mapping[str, Any]] = {"policy": POLICY, "epochs": 8, "device": "cpu"}


def fitted(learner: type[SubsetLearner], x: Any, y: Any, task: str = "classification", **settings: Any) -> AutoML:
    automl = AutoML()
    automl.add_learner("subset", learner)
    given = {"time_budget": 60, "max_iter": 2, "n_jobs": 1, "verbose": 0, **settings}
    automl.fit(x, y, task=task, estimator_list=["subset"], **given)
    return automl


def test_it_searches_around_the_recipe_and_trains_the_best_by_the_policy(digits: tuple[Any, Any]) -> None:
    automl = fitted(Learner, *digits, max_iter=4)
    trained = automl.model.estimator
    assert 0.25 <= automl.best_config["lr_factor"] <= 4
    assert trained.recipe_.lr == pytest.approx(0.005 * automl.best_config["lr_factor"])
    assert trained.policy_ == POLICY
    assert trained.complete_
    assert trained.facts_.num_examples == 500  # the last training is on all rows
    assert trained.ledger_.spent / trained.plain_flops_ == pytest.approx(5 / 8, rel=0.05)
    assert automl.score(*digits) > 0.85
    again = pickle.loads(pickle.dumps(automl))
    assert np.array_equal(again.predict(digits[0]), automl.predict(digits[0]))


def test_a_bundle_is_given_by_custom_hp(digits: tuple[Any, Any], bundle_folder: str) -> None:
    custom = {"subset": {"policy": {"domain": bundle_folder, "init_value": bundle_folder}}}
    automl = fitted(SubsetLearner, *digits, custom_hp=custom, max_iter=1)
    trained, found = automl.model.estimator, Bundle.load(bundle_folder)
    assert automl.best_config["lr_factor"] == 1
    assert trained.recipe_ == found.recipe
    assert trained.policy_ == found.derive(trained.facts_)[0]
    assert trained.limits_[0].startswith("Sizes were derived anew: phase 1 takes 58 of 500 examples")


def test_a_table_may_have_categories_and_gaps() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=300), "colour": rng.choice(["red", "green", "blue"], 300)})
    table["kind"] = pd.Categorical(rng.choice(["a", "b"], 300))
    labels = (table["colour"] == "red") | (table["size"] > 1)
    table.loc[::7, "size"] = np.nan
    automl = fitted(Learner, table, labels.map({True: "yes", False: "no"}))
    assert isinstance(automl.model.model, Pipeline)
    assert (automl.predict(table) == np.where(labels, "yes", "no")).mean() > 0.9
    unseen = table.assign(colour="violet")
    assert set(automl.predict(unseen)) <= {"yes", "no"}


def test_values_are_a_regression() -> None:
    x, y = load_diabetes(return_X_y=True)
    automl = fitted(Learner, x, y, task="regression")
    assert automl.model.estimator.policy_ == POLICY
    assert automl.score(x, y) > 0.2


def test_the_time_that_flaml_gives_is_kept_to_and_told(digits: tuple[Any, Any]) -> None:
    learner = SubsetLearner(task=task_factory("multiclass", None, None), epochs=100_000, device="cpu", n_jobs=1)
    start = time.perf_counter()
    with pytest.warns(UserWarning, match=r"^time_budget_s of 0.5 ended the training after 0% of its compute."):
        seconds = learner.fit(*digits, budget=0.5)
    assert 0.4 < seconds <= time.perf_counter() - start < 10
    assert not learner.estimator.complete_
    assert learner.predict(digits[0]).shape == (500,)
    with pytest.warns(UserWarning, match="ended the training"):
        learner.fit(*digits, budget=-1.0)
    assert learner.estimator.n_iter_ > 0


def test_weights_of_rows_are_refused(digits: tuple[Any, Any]) -> None:
    learner = Learner(task=task_factory("multiclass", None, None))
    with pytest.raises(ConfigError, match=r"^sample_weight must be left out, got 'ndarray'. "):
        learner.fit(*digits, sample_weight=np.ones(500))


@pytest.mark.parametrize("with_bundle", [False, True])
def test_the_example_runs(
    with_bundle: bool, bundle_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "examples" / "flaml_automl.py"
    monkeypatch.setattr(sys, "argv", [path.name, *([bundle_folder] if with_bundle else [])])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r", [34]% of the recipe's compute" if with_bundle else r", 40% of the recipe's compute", said)
    assert ("phase 1 takes 156 of 1,347 examples" in said) == with_bundle
    assert len(Path(path).read_text().splitlines()) < 40
