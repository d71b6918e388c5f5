"""Ray Tune as the hands of a study: a thin `Searcher` around a `StageSequence` of runs.

Tune starts workers, gives them resources, and brings reports and deaths back. It decides nothing: what to run next,
when to stop a run, whether to try again and what a result means is the study's business, and the study's own files, not
Tune's, are what an interrupted study goes on from. So Tune retries nothing itself (`max_failures` is 0): a run that is
tried again is a new Tune trial that goes on from the run's own checkpoint, whether it raised, its process died or its
node was taken away, and only the last of these costs it no attempt.

Workers are re-used between trials, which takes the overhead of a trial from seconds to milliseconds; each run seeds,
forks and restores all random state, so a re-used process changes no result. What torch's allocator has cached on a GPU
is given back after each run, or workers that share one would starve each other.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.tune.search import ConcurrencyLimiter, Searcher

from subsettune import config
from subsettune.errors import ConfigError, StudyError
from subsettune.facts import TaskFacts
from subsettune.storage import Folder
from subsettune.study.execute.sequence import (
    ATTEMPTS,
    INFRASTRUCTURE_ERRORS,
    Failure,
    Pause,
    RunRequest,
    StageSequence,
    Times,
    Worker,
    in_order,
    record,
)
from subsettune.train.result import CurvePoint, RunResult

OBJECT_STORE_BYTES = 128 * 2**20  # nothing large passes through it: data are mapped from files
ANSWER_S = 10.0  # what a cluster gets to answer; Ray itself tries for a minute, then ends the process
EXPERIMENT = "experiment-"  # begins the name of Tune's own folder, which nobody needs once the experiment is over
NODE_DEATH_S = 20.0  # Ray breaks the connection to a lost node at once, and misses its heartbeat only later
THREAD_END_S = "60"  # until a stopped run has left its worker: it may be in the middle of an update; Tune allows 2
NODES_LOST = 10  # by one run, until it is given up: no error of the run's, but something is wrong
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own Parquet is the log
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user's code mean the driver's folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOGGERS = ("ray", "ray.tune", "ray.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run gets, and how many run at a time.

    Args:
        parallel: runs at a time.
        cpus: CPU cores of a run.
        gpus: GPUs of a run; a fraction shares one.
        address: of a running cluster (`auto`, `host:6379`, `ray://host:10001`), or null to start one on this
            machine.
    """

    parallel: int = 1
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            rule = "a whole number, or a share below 1"
            raise ConfigError(config.must("gpus_per_trial", rule, self.gpus, "A run cannot have one GPU and a half."))

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus:g} GPUs"

    def fit_in(self, node: Mapping[str, float]) -> int:
        """How many runs a node with these resources takes at a time."""
        by_cpus = int(node.get("CPU", 0) // self.cpus)
        gpus = node.get("GPU", 0)
        if self.gpus == 0:
            return by_cpus
        by_gpus = int(gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(gpus // self.gpus)
        return min(by_cpus, by_gpus)


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

    def execute(self, chain: StageSequence) -> None:
        """Run everything that the chain asks for.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; what was finished is on record.
            StudyError: the cluster cannot be reached, has not the resources for one run, or is lost.
            the first error of a stage.
        """
        searcher = ChainSearcher(chain, self._worker, self._facts, self._num_validation, self._clock, self._note)
        with cluster(self._resources) as slots, _staging(), _sigterm_as_sigint():
            if slots is not None and slots < self._resources.parallel:
                self._note(f"{slots} runs at a time fit here, not {self._resources.parallel}.")
            folder = Folder.at(self._storage)
            for name in folder.names():  # of drivers that were killed
                if name.startswith(EXPERIMENT):
                    folder.remove(name)
            name = f"{EXPERIMENT}{os.getpid()}-{round(self._clock() * 1000)}"
            self._run(searcher, name, min(self._resources.parallel, slots or self._resources.parallel))
            folder.remove(name)
        if chain.error is not None:
            raise chain.error
        if not chain.is_over:  # Tune swallows SIGINT: it finishes writing and returns as if all were well
            raise KeyboardInterrupt

    def _run(self, searcher: ChainSearcher, name: str, parallel: int) -> None:
        worker = config.canonical_json(self._worker)
        limited = ConcurrencyLimiter(searcher, max_concurrent=parallel)  # as Tune would, but within our reach
        try:
            # Not a `Tuner`: connected by ray://, that would move the searcher, and the study with it, to the cluster.
            tune.run(
                tune.with_parameters(_trainable, worker=worker, home=str(Path.cwd())),
                name=name,
                storage_path=self._storage,
                search_alg=limited,
                num_samples=-1,
                reuse_actors=True,
                resources_per_trial={"cpu": self._resources.cpus, "gpu": self._resources.gpus},
                trial_dirname_creator=_trial_name,
                trial_name_creator=_trial_name,
                stop=_ChainStopper(searcher),
                callbacks=[_Deaths(searcher, limited)],
                max_failures=0,
                raise_on_failed_trial=False,
                verbose=0,
                _remote=False,
            )
        except (RayError, tune.TuneError, ConnectionError) as error:
            words = str(error).strip().splitlines()[0]
            advice = "What was finished is on record; the same command goes on."
            raise StudyError(f"the Ray cluster was lost: {words} {advice}") from error


@dataclass(slots=True, kw_only=True)
class ActiveRun:
    """A run that is being carried out, over all its attempts."""

    request: RunRequest
    started_s: float
    points: list[CurvePoint] = field(default_factory=list)
    attempts: int = 0
    nodes_lost: int = 0


class ChainSearcher(Searcher):
    """Translates between Ray Tune and a chain; keeps no state of its own that a resume would need."""

    def __init__(
        self,
        chain: StageSequence,
        worker: Worker,
        facts: TaskFacts,
        num_validation: int,
        clock: Callable[[], float],
        note: Callable[[str], None],
    ) -> None:
        super().__init__(metric="share", mode="max")
        self._chain, self._worker, self._facts, self._num_validation = chain, worker, facts, num_validation
        self._clock, self._note = clock, note
        self._runs: dict[str, ActiveRun] = {}
        self._again: list[ActiveRun] = []
        self._nodes = _Nodes()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its own state; ours has nothing worth keeping there."""
        return {"_metric": self._metric, "_mode": self._mode}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a text
        """Configuration of the next trial, None to wait, or FINISHED."""
        if self._chain.error is None and self._again:
            run = self._again.pop(0)
        else:
            request = self._chain.next()
            if request is Pause.DONE:
                return str(Searcher.FINISHED)
            if not isinstance(request, RunRequest):
                return None
            run = ActiveRun(request=request, started_s=self._clock())
        self._runs[trial_id] = run
        self._nodes.look()
        return {"request": config.canonical_json(run.request)}

    @property
    def has_failed(self) -> bool:
        """Whether the chain ended with an error: what still runs is not waited for."""
        return self._chain.error is not None

    def should_stop(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a run must stop at this point of its curve; Tune calls it once a report."""
        if "point" not in result or trial_id not in self._runs:
            return False
        run = self._runs[trial_id]
        point = config.build(CurvePoint, json.loads(result["point"]))
        run.points = in_order([*run.points, point])
        return self._chain.progress(run.request, point)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A run has finished, was stopped, or raised; of deaths Tune tells nothing here, see `died`."""
        if error or trial_id not in self._runs:
            return
        run, result = self._runs.pop(trial_id), result or {}
        if "failure" in result:
            self._failed(run, config.build(Failure, json.loads(result["failure"])))
        elif "result" in result:
            self._ended(run, config.build(RunResult, json.loads(result["result"])))
        else:
            self._ended(run, None)

    def died(self, trial_id: str, error: Exception | None) -> None:
        """A run's process or node died, or Tune could not start it."""
        run = self._runs.pop(trial_id, None)
        if run is None:
            return
        name, trace = run.request.name, str(error)
        if isinstance(error, RayActorError) and self._nodes.are_to_blame(error):
            run.nodes_lost += 1
            if run.nodes_lost < NODES_LOST:
                self._note(f"The node of {name} was lost; the run goes on elsewhere from its checkpoint.")
                self._again.append(run)
                return
            failure = self._worker.failure(run.request, f"its node was lost {NODES_LOST} times", trace)
        elif isinstance(error, RayActorError):
            reason = f"its worker process died {ATTEMPTS} times. Was it out of memory?"
            if run.attempts + 1 < ATTEMPTS:
                reason = "its worker process died."
            failure = self._worker.failure(run.request, reason, trace)
        else:  # what a run raises comes back as its result, so this is Tune's own: the storage, for one
            words = trace.strip().splitlines()[-1] if trace.strip() else "no reason given"
            failure = Failure(message=f"Ray Tune cannot start {name}: {words}", ends_study="StudyError")
        self._failed(run, failure, is_final=run.nodes_lost >= NODES_LOST)

    def is_under_way(self, trial_id: str) -> bool:
        """Whether a trial of Tune's has neither ended nor died, as far as is known."""
        return trial_id in self._runs

    def given_up(self, trial_id: str) -> None:
        """Tune ended a run with an error that was brought by nobody."""
        run = self._runs.pop(trial_id)
        reason = "Ray Tune could not use its worker process again."
        self._failed(run, self._worker.failure(run.request, reason, ""))

    def _failed(self, run: ActiveRun, failure: Failure, *, is_final: bool = False) -> None:
        run.attempts += 1
        if run.attempts < ATTEMPTS and not is_final:
            self._note(f"{failure.message} Trying once more.")
            self._again.append(run)
        elif failure.ends_study:
            self._chain.fail(failure.error)
        else:
            self._ended(run, failure)

    def _ended(self, run: ActiveRun, outcome: RunResult | Failure | None) -> None:
        try:
            seen = None if isinstance(outcome, RunResult) else self._worker.seen(run.request, run.points)
        except tuple(INFRASTRUCTURE_ERRORS.values()) as error:
            self._chain.fail(error)
            return
        times = Times(started_s=run.started_s, finished_s=self._clock())
        row = record(run.request, self._facts, outcome, self._num_validation, times, seen)
        self._chain.finished(run.request, row)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's files hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Nodes:
    """Tells the death of a process from that of its node."""

    def __init__(self) -> None:
        self._alive: set[str] | None = None
        self._lost_at_s = -math.inf

    def look(self) -> None:
        """Note which nodes are alive."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        if self._alive is not None and self._alive - alive:
            self._lost_at_s = time.monotonic()
        self._alive = alive

    def are_to_blame(self, error: RayActorError) -> bool:
        """Whether an actor is gone because its node is; waits until Ray knows, where it only lost the connection."""
        if error.preempted or "node has died" in str(error):
            return True
        if not isinstance(error, ActorUnavailableError):
            return False
        started = time.monotonic()
        while self._lost_at_s < started - NODE_DEATH_S and time.monotonic() < started + NODE_DEATH_S:
            self.look()
            if self._alive is not None and len(self._alive) == 1 and self._lost_at_s == -math.inf:
                break  # the driver's own node is the only one, and there it is
            time.sleep(0.2)
        return self._lost_at_s >= started - NODE_DEATH_S


class _ChainStopper(tune.Stopper):
    """Stops a run when its stage says so, and all of them when the chain has failed."""

    def __init__(self, searcher: ChainSearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        return self._searcher.has_failed


class _Deaths(tune.Callback):
    """Brings to the searcher what Tune does not tell it: the cause of a death, and runs that were never begun.

    A worker is used again once the thread of its last run has ended. If that takes too long, Tune gives up the next
    run, and tells nobody.
    """

    def __init__(self, searcher: ChainSearcher, limited: ConcurrencyLimiter) -> None:
        self._searcher, self._limited = searcher, limited

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with Path(trial.pickled_error_file).open("rb") as stream:  # this driver wrote it just now
            self._searcher.died(trial.trial_id, ray.cloudpickle.load(stream))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            if trial.status == "ERROR" and self._searcher.is_under_way(trial.trial_id):
                self._limited.on_trial_complete(trial.trial_id, error=True)
                self._searcher.given_up(trial.trial_id)


def _trial_name(trial: Any) -> str:
    return str(json.loads(trial.config["request"])["name"]) + f"-{trial.trial_id}"


def _trainable(settings: dict[str, Any], worker: str, home: str) -> None:
    """What a worker process runs for each trial."""
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", THREAD_END_S)
    with contextlib.suppress(OSError):  # on another node the driver's folder may not exist
        os.chdir(home)
    hands = config.build(Worker, json.loads(worker))
    request = config.build(RunRequest, json.loads(settings["request"]))
    outcome = hands.train(request, _report)
    _free_gpu()
    if isinstance(outcome, Failure):
        tune.report({"failure": json.dumps(config.to_plain(outcome)), "share": 0.0})
    else:
        tune.report({"result": json.dumps(outcome.to_mapping()), "share": 1.0})


def _report(point: CurvePoint) -> bool:
    """Bring a point to the driver; a run that the driver stops never returns from here."""
    if point.share < 1:
        tune.report({"point": json.dumps(config.to_plain(point)), "share": point.share})
    return False


def _free_gpu() -> None:
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


# --- the cluster -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(resources: Resources) -> Iterator[int | None]:
    """Connect to a cluster, or start one on this machine and shut it down again; one that was there stays.

    Yields:
        how many runs fit at a time; None where the cluster may grow.

    Raises:
        StudyError: no cluster answers, or none of its nodes has the resources for one run.
    """
    with _quiet():
        ours = not ray.is_initialized()
        if ours:
            _connect(resources.address or "local")
        try:
            yield _slots(resources)
        finally:
            if ours:
                ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's and Tune's own lines off the user's terminal; levels and environment come back as they were."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    fresh = [name for name in QUIET if name not in os.environ]
    os.environ.update({name: QUIET[name] for name in fresh})
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in fresh:
            os.environ.pop(name, None)


def _connect(address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if address == "local":
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except ImportError as error:
        advice = "pip install 'ray[client]', with the same version of Ray as the cluster's."
        raise StudyError(f"--address {address} needs the client of Ray, which is not installed: {advice}") from error
    except (OSError, ValueError, RuntimeError, RayError) as error:
        words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = "Start one with `ray start --head`, or leave --address out to run on this machine."
        raise StudyError(f"no Ray cluster answers at {address!r}: {words.rstrip('.')}. {advice}") from error


def _knock(address: str) -> None:
    """Raise an OSError or ValueError unless something listens there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        if address.startswith("ray://"):
            raise ValueError("it lacks a port, such as ray://HOST:10001")
        return  # `auto` and the like: Ray looks for it itself
    if not port.isdigit():
        raise ValueError(f"{port!r} is no port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def _slots(resources: Resources) -> int | None:
    """How many runs fit at a time; a cluster that may grow is asked for all of them.

    Raises:
        StudyError: a run fits on no node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if _may_grow():
        return None
    slots = sum(resources.fit_in(node) for node in nodes)
    if slots == 0:
        most = max(((n.get("CPU", 0), n.get("GPU", 0)) for n in nodes), default=(0, 0))
        largest = f"{most[0]:g} CPUs and {most[1]:g} GPUs"
        raise StudyError(f"no node has the {resources} that one run asks for; the largest has {largest}. Ask for less.")
    return slots


def _may_grow() -> bool:
    """Whether an autoscaler watches over the cluster; then a node that is not there yet is no reason to refuse."""
    if _is_client():  # its state is out of sight
        return True
    from ray._private.state import state

    groups = getattr(state.get_cluster_config(), "node_group_configs", ())
    return len(groups) > 0


def _is_client() -> bool:
    """Whether this process is connected by ray:// and so is on no node of the cluster."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _staging() -> Iterator[None]:
    """A folder where Tune stages its state, for a driver on no node: Tune looks for that of its node, and would fail.

    Tune's own way with ray:// is to move the whole experiment to the cluster, which the study cannot follow.
    """
    if not _is_client():
        yield
        return
    name = "ray.train._internal.storage._get_ray_train_session_dir"
    with tempfile.TemporaryDirectory(prefix="subsettune-") as folder, mock.patch(name, return_value=folder):
        yield


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Turn SIGTERM, which `ray job stop` and schedulers send, into the SIGINT that Tune understands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
