"""What is written to runs of MLflow, in the pieces that its servers take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.extras import needed_for

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MOST_PARAMS, MOST_METRICS = 100, 1000  # of a call, as MLflow's servers take them
LONGEST_PARAM = 6000  # characters, likewise
Plain = str | int | float | bool


class MlflowRuns:
    """Runs of one experiment. The active run of the program is left alone.

    Args:
        experiment: of MLflow; made if it is not there.
        tracking_uri: where MLflow keeps its runs; default: as MLflow is set up.
        what: needs MLflow, for the message.

    Attributes:
        client: of MLflow.
        experiment_id: of the experiment.

    Raises:
        MissingPackageError: MLflow is not installed.
        ConfigError: MLflow cannot use the store.
    """

    def __init__(self, experiment: str, tracking_uri: str | None, what: str) -> None:
        with needed_for(what):
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        try:
            self.client: MlflowClient = MlflowClient(tracking_uri)
            self.experiment_id = self._experiment_id(experiment)
        except MlflowException as error:  # now, and not when the study has begun
            raise ConfigError(
                must("tracking_uri", "of a store that MLflow can use", tracking_uri, first_line(error))
            ) from error

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Begin a run; gives its id."""
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def search(self, query: str) -> list[Any]:
        """All runs of the experiment that a query finds."""
        found, token = list[Any](), None
        while True:
            page = self.client.search_runs([self.experiment_id], query, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def log_params(self, run: str, params: Mapping[str, Plain]) -> None:
        """Parameters, which MLflow does not let anybody change; long ones are cut."""
        from mlflow.entities import Param

        for part in _batches((Param(k, _short(v)) for k, v in params.items()), MOST_PARAMS):
            self.client.log_batch(run, params=part)

    def log_metrics(self, run: str, metrics: Iterable[tuple[str, float, int]]) -> None:
        """Names, values and steps."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for part in _batches((Metric(name, value, now, step) for name, value, step in metrics), MOST_METRICS):
            self.client.log_batch(run, metrics=part)

    def set_tags(self, run: str, tags: Mapping[str, Plain]) -> None:
        """Tags, which may change."""
        from mlflow.entities import RunTag

        self.client.log_batch(run, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def _experiment_id(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if known is None else known.experiment_id)


def first_line(error: Exception) -> str:
    """What MLflow says of an error, without the pages that follow."""
    return str(error).strip().partition("\n")[0]


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def _short(value: Plain) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - 3]}..."
