from __future__ import annotations

import logging
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from tracked import tracked

from subsettune.errors import ConfigError
from subsettune.integrations.mlflow import MLflowCallback

pytestmark = pytest.mark.filterwarnings("default")  # those of MLflow are not ours


def test_a_study_is_a_run_with_its_trials_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.create_experiment("nightly", artifact_location=(tmp_path / "artifacts").as_uri())
    tracked(tmp_path, [], 2)  # before there was a callback
    found = tracked(tmp_path, [MLflowCallback("nightly", tracking_uri=uri)], 3)
    again = tracked(tmp_path, [MLflowCallback("nightly", tracking_uri=uri)], 4)
    assert [record for record in caplog.records if record.name == "subsettune.callbacks"] == []
    assert mlflow.active_run() is None

    runs = client.search_runs([client.get_experiment_by_name("nightly").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = {run.info.run_name: run for run in runs if run is not parent}
    assert parent.info.run_name == "one"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["task.recipe.lr"] == "0.1"
    assert parent.data.params["space.budget"] == '{"log":[0.1,0.8]}'
    assert parent.data.tags["study.trials"] == "4"
    assert parent.data.tags["headline"] == again.summary.headline
    assert parent.data.metrics["saving"] == again.summary.best.saving
    assert sorted(nested) == [f"trial-{number:04d}" for number in range(4)]
    for trial in again.view.trials:
        run = nested[trial.name]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["budget"] == str(trial.coordinates["budget"])
        assert run.data.metrics["metric"] == trial.metric
        assert run.data.metrics["compute_share"] == trial.cost_flops / again.facts.reference_flops
        points = client.get_metric_history(run.info.run_id, "curve/metric")
        assert [point.value for point in points] == [point.metric for point in trial.curve]
    kept = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "bundle"} <= kept
    assert {Path(one.path).name for one in client.list_artifacts(parent.info.run_id, "bundle")} == {
        path.name for path in Path(found.summary.bundle).iterdir()
    }


def test_an_interrupted_study_is_a_killed_run(tmp_path: Path) -> None:
    class Stops:
        def on_trial(self, run: object) -> None:
            raise KeyboardInterrupt

    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(KeyboardInterrupt):
        tracked(tmp_path, [MLflowCallback(tracking_uri=uri), Stops()], 3)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("subsettune").experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("one", "KILLED"),
        ("trial-0000", "FINISHED"),
    ]


def test_a_store_that_cannot_be_used_is_told_before_the_study() -> None:
    with pytest.raises(
        ConfigError, match=r"^tracking_uri must be of a store that MLflow can use, got 'nonsense://x'. "
    ):
        MLflowCallback(tracking_uri="nonsense://x")
