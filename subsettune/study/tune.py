"""Ray Tune as the hands of a study: a thin `Searcher` around a `Chain` of runs.

Tune starts workers, gives them resources, restarts a trial whose process died, and brings reports back. It decides
nothing: what to run next, when to stop a run and what a result means is the study's business, and the study's own
files, not Tune's, are what an interrupted study goes on from. Workers are re-used between trials, which takes the
overhead of a trial from seconds to milliseconds; each run seeds, forks and restores all random state, so a re-used
process changes no result. A worker keeps the memory that torch's allocator has cached on a GPU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from subsettune import config
from subsettune.errors import ConfigError, StudyError
from subsettune.policy import TaskFacts
from subsettune.study.runs import ATTEMPTS, Chain, Failure, Pause, RunRequest, Times, Worker, record
from subsettune.train.result import CurvePoint, RunResult

OBJECT_STORE_BYTES = 128 * 2**20  # nothing large passes through it: data are mapped from files
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own Parquet is the log
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user's code mean the driver's folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run gets, and how many run at a time.

    Args:
        parallel: runs at a time.
        cpus: CPU cores of a run.
        gpus: GPUs of a run; a fraction shares one.
        address: of a running cluster (`auto`, `ray://host:10001`), or null to start one on this machine.
    """

    parallel: int = 1
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None


class RayExecutor:
    """Carries out a chain of runs as trials of one Ray Tune experiment.

    Args:
        worker: of the study.
        facts: of the task.
        num_validation: examples of the validation split.
        clock: seconds since the study began.
        resources: of the runs.
        storage: folder or URI for Tune's own state.
        note: told what a user should know, e.g. a retry.
    """

    def __init__(
        self,
        worker: Worker,
        facts: TaskFacts,
        num_validation: int,
        clock: Callable[[], float],
        *,
        resources: Resources,
        storage: str,
        note: Callable[[str], None],
    ) -> None:
        self._worker, self._facts, self._num_validation, self._clock = worker, facts, num_validation, clock
        self._resources, self._storage, self._note = resources, storage, note

    def execute(self, chain: Chain) -> None:
        """Run everything that the chain asks for.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; what was finished is on record.
            StudyError: the cluster cannot be reached, or has not the resources for one run.
            the first error of a stage.
        """
        searcher = ChainSearcher(chain, self._facts, self._num_validation, self._clock, self._note)
        with cluster(self._resources), _interruptible() as interrupted:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(_trainable, worker=config.canonical_json(self._worker), home=str(Path.cwd())),
                    {"cpu": self._resources.cpus, "gpu": self._resources.gpus},
                ),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    num_samples=-1,
                    max_concurrent_trials=self._resources.parallel,
                    reuse_actors=True,
                    trial_dirname_creator=_trial_name,
                    trial_name_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name=f"experiment-{os.getpid()}-{round(self._clock() * 1000)}",
                    storage_path=self._storage,
                    verbose=0,
                    stop=searcher.should_stop,
                    failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                ),
            )
            tuner.fit()
        if chain.error is not None:
            raise chain.error
        if interrupted.is_set() or chain.next() is not Pause.DONE:
            raise KeyboardInterrupt


class ChainSearcher(Searcher):
    """Translates between Ray Tune and a chain; keeps no state of its own that a resume would need."""

    def __init__(
        self,
        chain: Chain,
        facts: TaskFacts,
        num_validation: int,
        clock: Callable[[], float],
        note: Callable[[str], None],
    ) -> None:
        super().__init__(metric="share", mode="max")
        self._chain, self._facts, self._num_validation, self._clock = chain, facts, num_validation, clock
        self._note = note
        self._requests: dict[str, tuple[RunRequest, float]] = {}
        self._points: dict[str, list[CurvePoint]] = {}
        self._again: list[RunRequest] = []

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its own state; ours has nothing worth keeping there."""
        return {"_metric": self._metric, "_mode": self._mode}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a text
        """Configuration of the next trial, None to wait, or FINISHED."""
        request = self._again.pop(0) if self._again else self._chain.next()
        if request is Pause.DONE:
            return str(Searcher.FINISHED)
        if not isinstance(request, RunRequest):
            return None
        self._requests[trial_id] = (request, self._clock())
        self._points[trial_id] = []
        return {"request": config.canonical_json(request)}

    def should_stop(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a run must stop at this point of its curve; Tune calls it once a report."""
        if "point" not in result or trial_id not in self._requests:
            return False
        point = config.build(CurvePoint, json.loads(result["point"]))
        points = self._points[trial_id]
        if points and point.share <= points[-1].share:
            points.clear()  # the run was restarted, and tells its curve from its checkpoint on
        points.append(point)
        return self._chain.progress(self._requests[trial_id][0], point)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A run has ended: finished, failed, stopped, or its process died more than once."""
        if trial_id not in self._requests:
            return
        request, started_s = self._requests.pop(trial_id)
        outcome = self._outcome(request, self._points.pop(trial_id), result or {}, error)
        if isinstance(outcome, Failure) and not error and request.attempt < ATTEMPTS:
            self._note(f"{outcome.message} Trying once more.")
            self._again.append(RunRequest(**{**_fields(request), "attempt": request.attempt + 1}))
            return
        times = Times(started_s=started_s, finished_s=self._clock())
        self._chain.finished(request, record(request, self._facts, outcome, self._num_validation, times))

    def _outcome(
        self, request: RunRequest, points: list[CurvePoint], result: dict[str, Any], error: bool
    ) -> RunResult | Failure | tuple[CurvePoint, ...]:
        if error:
            return Failure(
                message=f"{request.name} failed: its worker process died {ATTEMPTS} times. Was it out of memory?"
            )
        if "failure" in result:
            return Failure(**json.loads(result["failure"]))
        if "result" in result:
            return config.build(RunResult, json.loads(result["result"]))
        return tuple(points)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's files hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _fields(request: RunRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in RunRequest.__dataclass_fields__}


def _trial_name(trial: Any) -> str:
    return str(json.loads(trial.config["request"])["name"]) + f"-{trial.trial_id}"


def _trainable(settings: dict[str, Any], worker: str, home: str) -> None:
    """What a worker process runs for each trial."""
    with contextlib.suppress(OSError):  # on another node the driver's folder may not exist
        os.chdir(home)
    hands = config.build(Worker, json.loads(worker))
    request = config.build(RunRequest, json.loads(settings["request"]))
    outcome = hands.train(request, _report)
    if isinstance(outcome, Failure):
        tune.report({"failure": json.dumps(config.to_plain(outcome)), "share": 0.0})
    else:
        tune.report({"result": json.dumps(outcome.to_mapping()), "share": 1.0})


def _report(point: CurvePoint) -> bool:
    """Bring a point to the driver; a run that the driver stops never returns from here."""
    if point.share < 1:
        tune.report({"point": json.dumps(config.to_plain(point)), "share": point.share})
    return False


@contextlib.contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine and shut it down again; one that was there stays.

    Raises:
        StudyError: no cluster answers, or none of its nodes has the resources for one run.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    if ours:
        _connect(resources)
    try:
        _check_resources(resources)
        yield
    finally:
        if ours:
            ray.shutdown()


def _connect(resources: Resources) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if resources.address is not None:
        try:
            ray.init(address=resources.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            advice = "Start one with `ray start --head`, or leave --address out to run on this machine."
            raise StudyError(f"no Ray cluster answers at {resources.address!r}: {error}. {advice}") from error
        return
    if resources.cpus > (available := os.cpu_count() or 1):
        raise ConfigError(
            config.must("cpus_per_trial", f"at most the {available} cores of this machine", resources.cpus)
        )
    ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


def _check_resources(resources: Resources) -> None:
    """One run must fit on one node; more in parallel than fit simply wait."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    fits = any(n.get("CPU", 0) >= resources.cpus and n.get("GPU", 0) >= resources.gpus for n in nodes)
    if not fits:
        most = max((f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes), default="nothing")
        want = f"{resources.cpus} CPUs and {resources.gpus:g} GPUs"
        raise StudyError(f"no node has the {want} that one run asks for; the largest has {most}. Ask for less.")


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn SIGTERM into the SIGINT that Tune understands, and tell whether either came.

    Tune puts its own SIGINT handler in place while it runs: it finishes writing and returns as if all were well.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def stop(*_: object) -> None:
        interrupted.set()
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGTERM, before)
