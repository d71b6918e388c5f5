from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from fake_bundle import export
from mlflow.tracking import MlflowClient
from places import ROOT
from small_bundles import digits_bundle, run_example
from tracked import tracked

from subsettune import Bundle
from subsettune.errors import BundleError, ConfigError
from subsettune.integrations.mlflow import MLflowCallback
from subsettune.integrations.mlflow_bundle import load_bundle, log_bundle
from subsettune.text import describe

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
    read = load_bundle(f"runs:/{parent.info.run_id}/bundle", tracking_uri=uri)
    assert read.policy == Bundle.load(found.summary.bundle).policy


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


# --- bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a store: a file, or a server process with artifacts of its own."""
    sqlite = f"sqlite:///{tmp_path}/mlflow.db"
    if request.param == "sqlite":
        MlflowClient(sqlite).create_experiment("subsettune", artifact_location=(tmp_path / "artifacts").as_uri())
        yield sqlite
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", sqlite, "--artifacts-destination", str(tmp_path / "served")]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen([*command, *places], cwd=tmp_path, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer in {seconds:g} s")


def test_a_bundle_goes_to_mlflow_and_comes_back(tmp_path: Path, store: str) -> None:
    made, _ = export(tmp_path / "bundle")
    uri = log_bundle(tmp_path / "bundle", tracking_uri=store)
    run = MlflowClient(store).get_run(uri.split("/")[1])
    assert uri == f"runs:/{run.info.run_id}/bundle"
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["bundle.policy"] == describe(made.policy, made.facts)
    assert params["bundle.phase_1.selector"] == "stratified"
    assert params["bundle.recipe.lr"] == str(made.recipe.lr)
    assert "bundle.recipe.epochs" not in params
    metrics = run.data.metrics
    assert metrics["bundle.saving"] == made.evidence.saving_recipe
    assert metrics["bundle.best_test_metric"] == made.evidence.best.metric
    assert metrics["bundle.best_lower_bound"] == made.evidence.best.judgement.lower_bound
    (found,) = MlflowClient(store).search_runs(
        [run.info.experiment_id], f"tags.`subsettune.fingerprint` = '{made.fingerprint}'"
    )
    assert found.data.tags["subsettune.headline"] == made.evidence.headline

    read = load_bundle(uri, tracking_uri=store)
    assert (read.policy, read.evidence, read.fingerprint) == (made.policy, made.evidence, made.fingerprint)
    assert read.table == made.table
    assert read.subset().index.tolist() == made.subset().index.tolist()


def test_a_bundle_is_logged_beside_a_training_that_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, _ = export(tmp_path / "bundle")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with mlflow.start_run() as active:
            mlflow.log_params({"seed": 5, "lr": 0.3})
            uri = log_bundle(made, name="policy")
        assert uri == f"runs:/{active.info.run_id}/policy"
        run = mlflow.get_run(active.info.run_id)
        assert (run.data.params["seed"], run.data.params["bundle.seed"]) == ("5", str(made.seed))
        assert load_bundle(uri).policy == made.policy
    finally:
        mlflow.set_tracking_uri(before)


def test_the_example_trains_by_what_it_reads_back(tmp_path: Path) -> None:
    made = digits_bundle(tmp_path)
    uri = run_example("mlflow_bundle", made.folder, tmp_path).splitlines()[-1]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["0"], f"tags.follows = '{uri}'")
    assert run.data.metrics["flops"] == made.bundle.batch_sampler(len(made.inputs)).promise.spent


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(BundleError):
        log_bundle(tmp_path / "nothing", tracking_uri=store)
    missing = f"runs:/{'0' * 32}/bundle"
    with pytest.raises(BundleError, match=f"^uri must be of a bundle that MLflow holds, got '{missing}'. "):
        load_bundle(missing, tracking_uri=store)
    with pytest.raises(ConfigError, match=r"^tracking_uri must be of a store that MLflow can use, got 'file:.*migrate"):
        log_bundle(export(tmp_path / "bundle")[0], tracking_uri=(tmp_path / "mlruns").as_uri())


def test_neither_ray_nor_optuna_is_loaded() -> None:
    code = "import sys, subsettune.integrations.mlflow_bundle; print(sorted({'ray', 'optuna'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
