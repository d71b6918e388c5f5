"""A bundle in MLflow: its folder as an artifact, its policy as parameters, its evidence as metrics, tags to find it by.

uri = log_bundle("runs/photos/bundle")  # in the active run, or in one of its own
bundle = load_bundle(uri)  # on any machine that reaches the same MLflow

Reading needs MLflow, torch, NumPy and pyarrow alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import subsettune
from subsettune import config
from subsettune.bundle import Bundle
from subsettune.config import must
from subsettune.errors import BundleError
from subsettune.extras import needed_for
from subsettune.integrations.mlflow_runs import MlflowRuns, Plain, first_line
from subsettune.text import describe, is_number

__all__ = ["load_bundle", "log_bundle"]
MOST_PHASES = 10  # whose settings are parameters of their own; a policy may have a thousand


def log_bundle(
    bundle: Bundle | str | Path,
    *,
    run_id: str | None = None,
    experiment: str = "subsettune",
    tracking_uri: str | None = None,
    name: str = "bundle",
) -> str:
    """Keep a bundle in a run of MLflow.

    Parameters and metrics begin with `bundle.`, so that they fit beside those of a training that follows it.

    Args:
        bundle: or the folder that it lies in.
        run_id: of the run; default: the program's active run, if no `tracking_uri` is given, else one of its own.
        experiment: of a run of its own; made if it is not there.
        tracking_uri: where MLflow keeps its runs; default: as MLflow is set up.
        name: of the folder among the run's artifacts.

    Returns:
        What `load_bundle` takes: `runs:/RUN/bundle`.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        MissingPackageError: MLflow is not installed.
        ConfigError: MLflow cannot use the store.
    """
    found = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    runs = MlflowRuns(experiment, tracking_uri, "log_bundle")
    if run_id is None and tracking_uri is None:
        import mlflow

        active = mlflow.active_run()
        run_id = None if active is None else active.info.run_id
    with _run(runs, run_id, found.evidence.run_id) as run, tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "bundle")
        found.write(target)
        runs.client.log_artifacts(run, str(target), name)
        runs.log_params(run, _params(found))
        runs.log_metrics(run, ((f"bundle.{key}", value, 0) for key, value in _metrics(found).items()))
        runs.set_tags(run, _tags(found, name))
    return f"runs:/{run}/{name}"


def load_bundle(uri: str, *, tracking_uri: str | None = None) -> Bundle:
    """Read a bundle that `log_bundle` or a study's `MLflowCallback` kept.

    Args:
        uri: `runs:/RUN/bundle`, or another address of an artifact.
        tracking_uri: where MLflow keeps its runs; default: as MLflow is set up.

    Raises:
        BundleError: MLflow has none there, or it is damaged.
        MissingPackageError: MLflow is not installed.
    """
    with needed_for("load_bundle"):
        import mlflow
        from mlflow.exceptions import MlflowException
    with tempfile.TemporaryDirectory() as folder:
        try:
            place = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri)
        except (MlflowException, OSError) as error:
            raise BundleError(must("uri", "of a bundle that MLflow holds", uri, first_line(error))) from error
        return Bundle.load(place)


@contextmanager
def _run(runs: MlflowRuns, run_id: str | None, name: str) -> Iterator[str]:
    """The run, or one that ends with the block."""
    if run_id is not None:
        yield run_id
        return
    made = runs.create(name, {})
    try:
        yield made
    except BaseException:
        runs.client.set_terminated(made, "FAILED")
        raise
    runs.client.set_terminated(made, "FINISHED")


def _params(bundle: Bundle) -> dict[str, Plain]:
    """What a training that follows it does."""
    recipe = {key: value for key, value in bundle.recipe.to_mapping().items() if key != "epochs"}  # passes replace it
    found: dict[str, Any] = {"policy": describe(bundle.policy, bundle.facts), "seed": bundle.seed}
    found |= {"num_examples": bundle.facts.num_examples, "phases": len(bundle.policy.phases)}
    for number, phase in enumerate(bundle.policy.phases[:MOST_PHASES], start=1):
        found |= {f"phase_{number}.{key}": value for key, value in config.to_plain(phase).items()}
    found |= {f"recipe.{key}": value for key, value in recipe.items()}
    kept = {key: _plain(value) for key, value in found.items() if value is not None and value != {}}
    return {f"bundle.{key}": value for key, value in kept.items()}


def _plain(value: Any) -> Plain:
    return value if isinstance(value, str | int | float) else config.canonical_json(value)


def _metrics(bundle: Bundle) -> dict[str, float]:
    """What was shown of it, by the names that a study's metrics have; what is not known is left out."""
    evidence, best, verdict = bundle.evidence, bundle.evidence.best, bundle.evidence.best.judgement
    found: Mapping[str, float | None] = {
        "saving": evidence.saving_recipe,
        "saving_over_shorter": evidence.saving_shorter,
        "best_compute_share": best.flops / evidence.reference.flops,
        "best_test_metric": best.metric,
        "reference_test_metric": best.reference_metric,
        "best_lower_bound": None if verdict is None else verdict.lower_bound,
        "num_seeds": None if verdict is None else verdict.num_seeds,
        "margin": evidence.margin,
        "tuning_trainings": evidence.tuning_flops / evidence.reference.flops,
        "break_even_trainings": evidence.break_even,
    }
    return {key: float(value) for key, value in found.items() if value is not None and is_number(value)}


def _tags(bundle: Bundle, name: str) -> dict[str, Plain]:
    return {
        "subsettune.bundle": name,
        "subsettune.fingerprint": bundle.fingerprint,
        "subsettune.metric": bundle.evidence.metric,
        "subsettune.run_id": bundle.evidence.run_id,
        "subsettune.headline": bundle.evidence.headline,
        "subsettune.statement": bundle.evidence.statement,
        "subsettune.version": subsettune.__version__,
    }
