"""The model for AutoGluon: its own verification, its time, its tables. Run by `make test-hosts`."""

from __future__ import annotations

import logging
import re
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from autogluon.core.utils.exceptions import TimeLimitExceeded
from autogluon.tabular import TabularPredictor
from autogluon.tabular.testing import FitHelper
from places import ROOT
from sklearn.datasets import load_digits

from subsettune.bundle import Bundle
from subsettune.integrations.autogluon import SubsetModel

pytestmark = pytest.mark.filterwarnings("default")  # AutoGluon's own are not ours to mend
POLICY = {"phases": [{"share": 0.5, "passes": 2}, {"passes": 3}]}
ONE_CPU = {"ag_args_fit": {"num_cpus": 1}}


@pytest.fixture(scope="module")
def digits() -> pd.DataFrame:
    table: pd.DataFrame = load_digits(as_frame=True).frame[:500]
    return table


def fitted(folder: Path, table: pd.DataFrame, label: str = "target", **settings: Any) -> tuple[TabularPredictor, Any]:
    """A predictor, and the estimator within its one model."""
    predictor = TabularPredictor(label=label, path=str(folder / "models"), verbosity=0)
    fit = {key: settings.pop(key) for key in ("time_limit", "calibrate_decision_threshold") if key in settings}
    hyperparameters = {SubsetModel: {**settings, **ONE_CPU}}
    predictor.fit(table, hyperparameters=hyperparameters, raise_on_model_failure=True, **fit)
    return predictor, predictor._trainer.load_model("Subset").model[-1]


@pytest.mark.parametrize("policy", [None, POLICY], ids=["recipe", "policy"])
def test_it_passes_the_verification_of_autogluon(
    policy: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which leaves folders where it runs
    FitHelper.verify_model(SubsetModel, {"policy": policy, "epochs": 4, **ONE_CPU}, bag=True, refit_full=True)


def test_hyperparameters_are_those_of_the_estimator(tmp_path: Path, digits: pd.DataFrame, bundle_folder: str) -> None:
    predictor, trained = fitted(tmp_path, digits, policy=bundle_folder, module_options={"hidden": [32]}, random_state=4)
    found = Bundle.load(bundle_folder)
    assert trained.policy_ == found.derive(trained.facts_)[0]
    assert trained.recipe_ == found.recipe
    assert trained.random_state == 4
    assert trained.num_threads == 1
    assert trained.complete_
    assert trained.limits_[0].startswith("Sizes were derived anew: phase 1 takes ")
    full = predictor._trainer.load_model(predictor.refit_full()["Subset"]).model[-1]
    assert full.facts_.num_examples == 500 > trained.facts_.num_examples
    assert full.policy_.phases[0].pool_size(500) == 58


def test_a_table_may_have_categories_and_gaps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=400), "colour": rng.choice(["red", "green", "blue"], 400)})
    is_yes = (table["colour"] == "red") | (table["size"] > 1)
    table.loc[::7, "size"] = np.nan
    table["target"] = np.where(is_yes, "yes", "no")
    predictor, _ = fitted(tmp_path, table, policy=POLICY, lr=0.02)
    assert (predictor.predict(table) == table["target"]).mean() > 0.9
    assert set(predictor.predict(table.assign(colour="violet"))) <= {"yes", "no"}
    values = table.assign(target=np.where(is_yes, 100.0, -100.0) + rng.normal(size=400))
    predictor, _ = fitted(tmp_path / "values", values, policy=POLICY, lr=0.02)
    assert predictor.evaluate(values)["r2"] > 0.7


def test_the_time_that_autogluon_gives_is_kept_to_and_told(
    tmp_path: Path, digits: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.perf_counter()
    with caplog.at_level(logging.WARNING, "autogluon.subsettune"):
        predictor, trained = fitted(tmp_path, digits, epochs=100_000, time_limit=4)
    assert time.perf_counter() - start < 30
    assert not trained.complete_
    assert trained.time_budget_s <= 4
    assert "ended the training after 0% of its compute" in caplog.text
    assert predictor.predict(digits).shape == (500,)
    model = SubsetModel(path=str(tmp_path), name="late", problem_type="multiclass")
    with pytest.raises(TimeLimitExceeded):
        model.fit(X=digits.drop(columns="target"), y=digits["target"], time_limit=-1.0)


def test_weights_of_rows_are_refused(tmp_path: Path, digits: pd.DataFrame) -> None:
    model = SubsetModel(path=str(tmp_path), name="weighed", problem_type="multiclass")
    with pytest.raises(ValueError, match=r"^sample_weight must be left out, got 'Series'. "):
        model.fit(X=digits.drop(columns="target"), y=digits["target"], sample_weight=pd.Series(np.ones(500)))


@pytest.mark.parametrize("with_bundle", [False, True])
def test_the_example_runs(
    with_bundle: bool, bundle_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "examples" / "autogluon_tabular.py"
    monkeypatch.setattr(sys, "argv", [path.name, *([bundle_folder] if with_bundle else [])])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r", [34]% of the recipe's compute" if with_bundle else r", 40% of the recipe's compute", said)
    assert len(path.read_text().splitlines()) < 40
