"""A study as a run of MLflow, and each of its trials as a run inside that."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from subsettune.callbacks import Callback
from subsettune.found import Found
from subsettune.integrations.mlflow_runs import MlflowRuns
from subsettune.integrations.tracking import (
    curve,
    facts_of,
    local_folder,
    run_metrics,
    run_params,
    study_metrics,
    study_params,
    study_settings,
    values,
)
from subsettune.study.results.records import RunRecord

_STUDY, _PARENT = "subsettune.study", "mlflow.parentRunId"


class MLflowCallback(Callback):
    """Tells MLflow of a study: one run for it, with the bundle and the report, and one nested in it for each trial.

    A study that goes on is found again by its folder, and gets the trials that it lacks, also those of a time before
    there was this callback. The active run of the program is left alone.

    Args:
        experiment: of MLflow; made if it is not there.
        tracking_uri: where MLflow keeps its runs; default: as MLflow is set up.

    Raises:
        MissingPackageError: MLflow is not installed.
        ConfigError: MLflow cannot use the store.
    """

    def __init__(self, experiment: str = "subsettune", *, tracking_uri: str | None = None) -> None:
        self._runs = MlflowRuns(experiment, tracking_uri, "MLflowCallback")
        self._client = self._runs.client
        self._facts: Any = None
        self._parent = ""
        self._known: set[str] = set()

    def on_start(self, study: Found) -> None:
        """Begin the run, or go on with it, and add the trials that it lacks."""
        self._facts = facts_of(study)
        key = hashlib.sha256(study.folder.encode()).hexdigest()  # what a query can hold, whatever the folder is called
        found = self._runs.search(f"tags.`{_STUDY}` = '{key}'")
        if found:
            self._parent = found[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
            self._known = {run.info.run_name for run in self._runs.search(f"tags.`{_PARENT}` = '{self._parent}'")}
        else:
            tags = {_STUDY: key, "folder": study.folder}
            self._parent = self._runs.create(study.run_id, tags)
            self._runs.log_params(self._parent, study_params(study))
        self._runs.set_tags(self._parent, study_settings(study))
        for run in study.view.trials:
            self.on_trial(run)

    def on_trial(self, run: RunRecord) -> None:
        """A nested run, with its learning curve."""
        if run.name in self._known:
            return
        tags = {_PARENT: self._parent, "cause": run.cause} | ({"message": run.message} if run.message else {})
        nested = self._runs.create(run.name, tags)
        self._runs.log_params(nested, run_params(run, self._facts))
        points = [
            (f"curve/{name}", v, at) for at, p in curve(run, self._facts).items() for name, v in values(p).items()
        ]
        self._runs.log_metrics(nested, [*points, *((name, v, 0) for name, v in run_metrics(run, self._facts).items())])
        self._client.set_terminated(nested, "FINISHED" if run.cause in ("finished", "stopped") else "FAILED")
        self._known.add(run.name)

    def on_finish(self, study: Found) -> None:
        """What was found, the bundle and the report."""
        self._runs.log_metrics(self._parent, [(name, value, 0) for name, value in study_metrics(study).items()])
        places = {"bundle": study.summary.bundle or "none", "report": f"{study.folder}/report.html"}
        self._runs.set_tags(self._parent, {"headline": study.summary.headline, **places})
        folder = local_folder(study)
        if folder is not None:
            self._client.log_artifact(self._parent, str(Path(folder, "report.html")))
            if study.summary.bundle is not None:
                self._client.log_artifacts(self._parent, study.summary.bundle, "bundle")
        self._client.set_terminated(self._parent, "FINISHED")

    def on_failure(self, error: BaseException) -> None:
        """The run has ended; the same call goes on with it."""
        self._client.set_terminated(self._parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
