"""A study as a run of MLflow, and each of its trials as a run inside that."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subsettune.callbacks import Callback
from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.extras import needed_for
from subsettune.found import Found
from subsettune.integrations.tracking import (
    Plain,
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

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MOST_PARAMS, MOST_METRICS = 100, 1000  # of a call, as MLflow's servers take them
LONGEST_PARAM = 6000  # characters, likewise
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
        with needed_for("MLflowCallback"):
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        try:
            self._client: MlflowClient = MlflowClient(tracking_uri)
            self._id = self._experiment_id(experiment)
        except MlflowException as error:  # now, and not when the study has begun
            why = str(error).strip().partition("\n")[0]
            raise ConfigError(must("tracking_uri", "of a store that MLflow can use", tracking_uri, why)) from error
        self._facts: Any = None
        self._parent = ""
        self._known: set[str] = set()

    def on_start(self, study: Found) -> None:
        """Begin the run, or go on with it, and add the trials that it lacks."""
        self._facts = facts_of(study)
        key = hashlib.sha256(study.folder.encode()).hexdigest()  # what a query can hold, whatever the folder is called
        found = self._search(f"tags.`{_STUDY}` = '{key}'")
        if found:
            self._parent = found[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
            self._known = {run.info.run_name for run in self._search(f"tags.`{_PARENT}` = '{self._parent}'")}
        else:
            tags = {_STUDY: key, "folder": study.folder}
            self._parent = self._client.create_run(self._id, run_name=study.run_id, tags=tags).info.run_id
            self._params(self._parent, study_params(study))
        self._tags(self._parent, study_settings(study))
        for run in study.view.trials:
            self.on_trial(run)

    def on_trial(self, run: RunRecord) -> None:
        """A nested run, with its learning curve."""
        if run.name in self._known:
            return
        tags = {_PARENT: self._parent, "cause": run.cause} | ({"message": run.message} if run.message else {})
        nested = self._client.create_run(self._id, run_name=run.name, tags=tags).info.run_id
        self._params(nested, run_params(run, self._facts))
        points = [
            (f"curve/{name}", v, at) for at, p in curve(run, self._facts).items() for name, v in values(p).items()
        ]
        self._metrics(nested, [*points, *((name, v, 0) for name, v in run_metrics(run, self._facts).items())])
        self._client.set_terminated(nested, "FINISHED" if run.cause in ("finished", "stopped") else "FAILED")
        self._known.add(run.name)

    def on_finish(self, study: Found) -> None:
        """What was found, the bundle and the report."""
        self._metrics(self._parent, [(name, value, 0) for name, value in study_metrics(study).items()])
        places = {"bundle": study.summary.bundle or "none", "report": f"{study.folder}/report.html"}
        self._tags(self._parent, {"headline": study.summary.headline, **places})
        folder = local_folder(study)
        if folder is not None:
            self._client.log_artifact(self._parent, str(Path(folder, "report.html")))
            if study.summary.bundle is not None:
                self._client.log_artifacts(self._parent, study.summary.bundle, "bundle")
        self._client.set_terminated(self._parent, "FINISHED")

    def on_failure(self, error: BaseException) -> None:
        """The run has ended; the same call goes on with it."""
        self._client.set_terminated(self._parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _experiment_id(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if known is None else known.experiment_id)

    def _search(self, query: str) -> list[Any]:
        """All runs of the experiment that a query finds."""
        found, token = list[Any](), None
        while True:
            page = self._client.search_runs([self._id], query, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _params(self, run: str, params: Mapping[str, Plain]) -> None:
        from mlflow.entities import Param

        for part in _batches((Param(k, _short(v)) for k, v in params.items()), MOST_PARAMS):
            self._client.log_batch(run, params=part)

    def _metrics(self, run: str, metrics: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for part in _batches((Metric(name, value, now, step) for name, value, step in metrics), MOST_METRICS):
            self._client.log_batch(run, metrics=part)

    def _tags(self, run: str, tags: Mapping[str, Plain]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run, tags=[RunTag(name, str(value)) for name, value in tags.items()])


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def _short(value: Plain) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - 3]}..."
