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
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.widgets.util import in_notebook

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.facts import TaskFacts
from subsettune.keys import settings_of_stores
from subsettune.storage import Folder
from subsettune.study.execute.outcomes import Times, in_order, record
from subsettune.study.execute.payload import sent
from subsettune.study.execute.ray_cluster import Nodes, Resources, cluster, keys_unlogged, num_slots, staging
from subsettune.study.execute.ray_deaths import every_death_is_told, ran_out_of_memory
from subsettune.study.execute.ray_head import head_watched
from subsettune.study.execute.ray_reach import MARK, check_nodes
from subsettune.study.execute.ray_reuse import workers_are_kept
from subsettune.study.execute.requests import INFRASTRUCTURE_ERRORS, Failure, Pause, RunRequest
from subsettune.study.execute.sequence import StageSequence
from subsettune.study.execute.signals import exits_as_sigint, handlers_restored, stops_as_sigint
from subsettune.study.execute.silence import SilenceWatch
from subsettune.study.execute.worker import ATTEMPTS, Worker
from subsettune.train.result import CurvePoint, RunResult

EXPERIMENT = "experiment-"  # begins the name of Tune's own folder, which nobody needs once the experiment is over
THREAD_END_S = "60"  # until a stopped run has left its worker: it may be in the middle of an update; Tune allows 2


COUNT_NODES_S = 10.0  # between looks at whether nodes have joined or left
NODES_LOST = 10  # by one run, until it is given up: no error of the run's, but something is wrong


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
        code: of the study, not ours, that workers must be able to import.
        silence_limit_s: of a run that shows no progress, until it is taken to hang; None for never.
    """

    # More than six parameters: the first four are those of the executor in this process.
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
        code: Mapping[str, str] = FrozenDict(),
        silence_limit_s: float | None = None,
    ) -> None:
        self._worker, self._facts, self._num_validation, self._clock = worker, facts, num_validation, clock
        self._silence = SilenceWatch(silence_limit_s, note)
        self._resources, self._storage, self._note, self._code = resources, storage, note, code

    def execute(self, chain: StageSequence) -> None:
        """Run everything that the chain asks for.

        Raises:
            KeyboardInterrupt: SIGINT; what was finished is on record.
            StudyError: the cluster cannot be reached, has not the resources for one run, or is lost, a node lacks what
                a run needs, or what goes with each run is too large.
            the first error of a stage.
        """
        searcher = SequenceSearcher(chain, self._worker, self._facts, self._num_validation, self._clock, self._note)
        worker = sent("worker", self._worker)  # before anything is started
        # Ray ends the process at SIGTERM from its start on: connected, what asks to stop is heard again.
        with (
            exits_as_sigint(),
            cluster(self._resources, self._note) as slots,
            stops_as_sigint(),
            head_watched(self._note),
            staging(),
            handlers_restored(),
        ):
            if slots is not None and slots < self._resources.parallel:
                fit = "run fits" if slots == 1 else "runs fit"
                self._note(f"{slots} {fit} here at a time, not {self._resources.parallel}.")
            folder = Folder.at(self._storage)
            for name in folder.names():  # of drivers that were killed
                if name.startswith((EXPERIMENT, MARK)):
                    folder.remove(name)
            check_nodes(self._worker, self._code, self._storage, self._note, self._resources.fit_in)
            name = f"{EXPERIMENT}{os.getpid()}-{round(self._clock() * 1000)}"
            self._run(searcher, worker, name, slots)
            folder.remove(name)
        if chain.error is not None:
            raise chain.error
        if not chain.is_over:  # Tune swallows SIGINT: it finishes writing and returns as if all were well
            raise KeyboardInterrupt

    def _run(self, searcher: SequenceSearcher, worker: str, name: str, slots: int | None) -> None:
        """Run the experiment; with as many runs at a time as fit, of which None is all: the cluster grows for them."""
        parallel = self._resources.parallel
        usual = {"cpu": self._resources.cpus, "gpu": self._resources.gpus}
        now = min(parallel, slots or parallel)
        limited = ConcurrencyLimiter(searcher, max_concurrent=now)  # as Tune would, but within our reach
        watching: list[tune.Callback] = [_Deaths(searcher, limited, self._silence)]
        watching += [] if slots is None else [_Slots(self._resources, limited, self._note)]
        try:
            # Not a `Tuner`: connected by ray://, that would move the searcher, and the study with it, to the cluster.
            with every_death_is_told(), keys_unlogged(), workers_are_kept():
                tune.run(
                    self._trainable(worker),
                    name=name,
                    storage_path=self._storage,
                    search_alg=limited,
                    num_samples=-1,
                    reuse_actors=True,
                    resources_per_trial=None if self._resources.soup_processes else usual,
                    trial_dirname_creator=_trial_name,
                    trial_name_creator=_trial_name,
                    stop=_SequenceStopper(searcher),
                    callbacks=watching,
                    max_failures=0,
                    raise_on_failed_trial=False,
                    progress_reporter=_reporter(),
                    verbose=0,
                    _remote=False,
                )
        except (RayError, tune.TuneError, ConnectionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not isinstance(error.__cause__, RayError):
                raise
            words = str(error).strip().splitlines()[0]
            advice = "What was finished is on record; the same command goes on."
            raise StudyError(f"the Ray cluster was lost: {words} {advice}") from error

    def _trainable(self, worker: str) -> Any:
        """What Tune runs for each trial; one with a soup takes more than others, where its workers have processes."""
        run = tune.with_parameters(_trainable, worker=worker, home=str(Path.cwd()), stores=settings_of_stores())
        asked = self._resources
        return tune.with_resources(run, asked.placement) if asked.soup_processes else run


@dataclass(slots=True, kw_only=True)
class ActiveRun:
    """A run that is being carried out, over all its attempts."""

    request: RunRequest
    started_s: float
    points: list[CurvePoint] = field(default_factory=list)
    attempts: int = 0
    nodes_lost: int = 0
    is_hanging: bool = False
    has_begun_anew: bool = False


class SequenceSearcher(Searcher):
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
        self._nodes = Nodes()

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
        try:
            payload = sent("run", run.request)
        except StudyError as error:
            self._chain.fail(error)
            return None
        self._runs[trial_id] = run
        self._nodes.look()
        return {"request": payload}

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
        if run.is_hanging:
            run.is_hanging = False
            reason = "it showed no progress for as long as study.silence_limit_s allows; its worker was ended."
            failure = self._worker.failure(run.request, reason, trace)
        elif isinstance(error, RayActorError) and self._nodes.are_to_blame(error):
            run.nodes_lost += 1
            if run.nodes_lost < NODES_LOST:
                self._note(f"The node of {name} was lost; the run goes on elsewhere from its checkpoint.")
                self._again.append(run)
                return
            failure = self._worker.failure(run.request, f"its node was lost {NODES_LOST} times", trace)
        elif isinstance(error, RayActorError):
            failure = self._worker.failure(run.request, _why_dead(error, run.attempts + 1), trace)
        else:  # what a run raises comes back as its result, so this is Tune's own: the storage, for one
            words = trace.strip().splitlines()[-1] if trace.strip() else "no reason given"
            failure = Failure(message=f"Ray Tune cannot start {name}: {words}", ends_study="StudyError")
        self._failed(run, failure, is_final=run.nodes_lost >= NODES_LOST)

    def signs_of(self, trial_id: str) -> tuple[str, str, Callable[[], object]]:
        """Key and name of a run that is under way, and what reads how far it is."""
        request = self._runs[trial_id].request
        return trial_id, request.name, lambda: self._worker.sign(request)

    def hangs(self, trial_id: str) -> None:
        """A run is taken to hang: its process is about to be ended."""
        self._runs[trial_id].is_hanging = True

    def is_under_way(self, trial_id: str) -> bool:
        """Whether a trial of Tune's has neither ended nor died, as far as is known."""
        return trial_id in self._runs

    def given_up(self, trial_id: str) -> None:
        """Tune ended a run with an error that was brought by nobody."""
        run = self._runs.pop(trial_id)
        reason = "Ray Tune could not use its worker process again."
        self._failed(run, self._worker.failure(run.request, reason, ""))

    def _failed(self, run: ActiveRun, failure: Failure, *, is_final: bool = False) -> None:
        if failure.begins_anew and not run.has_begun_anew:
            run.has_begun_anew = True
            self._note(failure.message)
            self._again.append(run)
            return
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
        self._chain.finished(run.request, row, outcome.reason if isinstance(outcome, Failure) else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's files hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _SequenceStopper(tune.Stopper):
    """Stops a run when its stage says so, and all of them when the chain has failed."""

    def __init__(self, searcher: SequenceSearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        return self._searcher.has_failed


class _Unseen(tune.ProgressReporter):
    """Shows nothing."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        """Never called."""


def _reporter() -> tune.ProgressReporter | None:
    """In a notebook Tune would clear the cell for a table of its own; elsewhere it warns where it is given any."""
    return _Unseen() if in_notebook() else None


class _Deaths(tune.Callback):
    """Brings to the searcher what Tune does not tell it: the cause of a death, and runs that hang or never began.

    A worker is used again once the thread of its last run has ended. If that takes too long, Tune gives up the next
    run, and tells nobody.
    """

    def __init__(self, searcher: SequenceSearcher, limited: ConcurrencyLimiter, silence: SilenceWatch) -> None:
        self._searcher, self._limited, self._silence = searcher, limited, silence
        self._num_seen, self._open = 0, list[Any]()  # of Tune's trials, which it hands over all, ended ones too

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self._silence.heard(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.died(trial.trial_id, _error_of(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        known = [*self._open, *trials[self._num_seen :]]
        self._num_seen, self._open = len(trials), [t for t in known if self._searcher.is_under_way(t.trial_id)]
        for trial in self._open:
            if trial.status == "ERROR":
                self._limited.on_trial_complete(trial.trial_id, error=True)
                self._searcher.given_up(trial.trial_id)
        running = {trial.trial_id: trial for trial in self._open if trial.status == "RUNNING"}
        for key in self._silence.hanging(self._searcher.signs_of(trial_id) for trial_id in running):
            self._searcher.hangs(key)
            ray.kill(running[key].temporary_state.ray_actor)


class _Slots(tune.Callback):
    """Lets more runs start at a time when nodes have joined, and fewer when some have left."""

    def __init__(self, resources: Resources, limited: ConcurrencyLimiter, note: Callable[[str], None]) -> None:
        self._resources, self._limited, self._note = resources, limited, note
        self._next_look_s = time.monotonic() + COUNT_NODES_S

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + COUNT_NODES_S
        slots = max(1, min(num_slots(self._resources), self._resources.parallel))
        if slots != self._limited.max_concurrent:
            self._limited.max_concurrent = slots
            self._note(f"Nodes have joined or left: {slots} {'run fits' if slots == 1 else 'runs fit'} at a time now.")


def _error_of(trial: Any) -> Exception | None:
    """What a trial ended with, which this driver wrote just now: pickled where it is Ray's, else in words."""
    if trial.pickled_error_file is not None:
        with Path(trial.pickled_error_file).open("rb") as stream:
            error: Exception = ray.cloudpickle.load(stream)
        return error
    return None if trial.error_file is None else tune.TuneError(Path(trial.error_file).read_text())


def _why_dead(error: RayActorError, times: int) -> str:
    """Why the worker process of a run died, as far as is known; what to do about it where it is the last time."""
    if ran_out_of_memory(error):
        advice = "" if times < ATTEMPTS else " Take fewer runs at a time (parallel) or a machine with more."
        return f"the node ran out of memory; Ray ended its worker.{advice}"
    if times < ATTEMPTS:
        return "its worker process died."
    return f"its worker process died {times} times. Was it out of memory?"


def _trial_name(trial: Any) -> str:
    return str(json.loads(trial.config["request"])["name"]) + f"-{trial.trial_id}"


def _trainable(settings: dict[str, Any], worker: str, home: str, stores: dict[str, str]) -> None:
    """What a worker process runs for each trial."""
    os.environ.update(stores)
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
