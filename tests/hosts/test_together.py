"""FLAML, AutoGluon with its Ray, and a study on that Ray, in one environment. Run by `make test-hosts`."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from fake_inputs import changed
from packaging.requirements import Requirement
from sklearn.datasets import load_digits

from subsettune import DataPaths, TuneOptions, tune
from subsettune.bundle import Bundle
from subsettune.integrations.autogluon import SubsetModel
from subsettune.integrations.flaml import SubsetLearner
from subsettune.integrations.sklearn import SubsetClassifier

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.ray]  # a study on the Ray that AutoGluon asks for


def test_a_study_on_ray_ends_in_a_bundle_that_each_of_them_follows(tmp_path: Path) -> None:
    asked = [Requirement(line) for line in metadata.requires("autogluon.core") or [] if line.startswith("ray")]
    assert asked
    assert all(one.specifier.contains(metadata.version("ray")) for one in asked)
    where = TuneOptions(storage=str(tmp_path / "runs"), places=DataPaths(cache=str(tmp_path)), device="cpu")
    raw = changed({"task.tolerance": 0.3, "study.trials": 3, "study.seeds": 2, "study.max_seeds": 2})
    found = tune(raw, run_id="one", options=where, quiet=True)
    bundle = Bundle.load(found.summary.bundle)
    x, y = load_digits(return_X_y=True)
    trained = SubsetClassifier(found.summary.bundle, device="cpu", num_threads=1, random_state=0).fit(x, y)
    assert trained.policy_.passes == bundle.policy.passes
    learner = SubsetLearner(task="multiclass", policy=found.summary.bundle, device="cpu", n_jobs=1)
    learner.fit(x, y)
    assert (learner.predict(x) == trained.predict(x)).all()
    assert SubsetModel.ag_key == "SUBSETTUNE"
