"""A run of training code of the user's own as a value: how it begins, what becomes of it, and what is kept of it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.data import load
from subsettune.policy import Policy
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train.checkpoint import Checkpoints
from subsettune.train.evaluation import Report
from subsettune.train.follow.run import Run
from subsettune.train.follow.tracker import Tracker
from subsettune.train.job import RunJob, find_device
from subsettune.train.options import RunOptions
from subsettune.train.planning.check import facts_of, resolve_checked, run_key
from subsettune.train.randomness import isolated, preserved
from subsettune.train.result import Cause, RunResult

MESSAGES = {
    "finished": "",
    "stopped": "Stopped by the caller.",
    "diverged": "A metric that the training function told is no finite number.",
}


@contextlib.contextmanager
def begun(
    task: Task,
    policy: Policy,
    seed: int,
    *,
    report: Report | None,
    clock: Callable[[], float],
    options: RunOptions,
) -> Iterator[Tracker]:
    """A run that is ready for its function, or goes on from where it was interrupted; seeds are set inside."""
    device = find_device(options.device)
    with preserved():
        data = load(task, options.places, fingerprint=options.fingerprint)
        resolved = resolve_checked(task, policy, facts_of(task, data))
    with isolated(seed, options.num_threads or torch.get_num_threads()), tempfile.TemporaryDirectory() as folder:
        job = RunJob(task=task, resolved=resolved, seed=seed, data=data, device=device)
        tracker = Tracker(job, options, clock, report, Path(folder))
        tracker.go_on()
        yield tracker


def result_of(tracker: Tracker, run: Run, cause: Cause, options: RunOptions) -> RunResult:
    """What became of a run; what `finish` told of splits that nobody asked for stays out of it."""
    tracker.watch.lap("train")
    outcome = run.outcome if cause == "finished" else None
    metrics, model = ({}, None) if outcome is None else (outcome.metrics, outcome.model)
    job, seconds = tracker.job, tracker.seconds
    return RunResult(
        policy=job.policy,
        seed=job.seed,
        cause=cause,
        message=MESSAGES[cause],
        metrics=FrozenDict({split: metrics[split] for split in _asked(options) if split in metrics}),
        **(dict(outcome.kept) if outcome is not None and "test" in options.splits else {}),
        ledger=tracker.account.ledger(),
        repeated_flops=tracker.writer.repeated,
        updates=tracker.batches.number,
        curve=tuple(tracker.curve),
        train_s=seconds["train"],
        select_s=seconds["select"],
        evaluate_s=seconds["evaluate"],
        device=job.device.type,
        num_threads=torch.get_num_threads(),
        phases=tracker.phases,
        switch_shares=tuple(tracker.batches.plan.shares[step] for step in sorted(tracker.opens)),
        model=model if options.keep_model else None,
    )


def keep_result(tracker: Tracker, result: RunResult, run: Run) -> None:
    """Keep a finished run, with the metrics of all splits, so that it is never trained twice; its model is not kept."""
    if result.cause != "finished":
        tracker.writer.mark(result.ledger)
        return
    outcome = run.outcome
    told = {**result.to_mapping(), "metrics": dict(outcome.metrics)}
    kept = {name: config.to_plain(value) for name, value in outcome.kept.items()}
    state = {"done": True, "result": config.canonical_json({**told, **kept}), "curve": told["curve"]}
    tracker.writer.save(state, result.ledger)


def finished_before(task: Task, policy: Policy, seed: int, options: RunOptions) -> RunResult | None:
    """The result of a run that finished before; None where it has to be carried out."""
    if options.checkpoints is None:
        return None
    kept = _checkpoints(task, policy, seed, options)
    saved = kept.load()
    if saved is None or not saved["done"]:
        return None
    told = json.loads(saved["result"])
    told["metrics"] = {split: told["metrics"][split] for split in _asked(options) if split in told["metrics"]}
    if "test" not in options.splits:
        told |= {"num_test": 0, "test_correct": None, "test_errors": None}
    return config.build(RunResult, told)


def _asked(options: RunOptions) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("validation", *options.splits)))


def forget(task: Task, policy: Policy, seed: int, options: RunOptions) -> None:
    """Remove what was kept of a run that failed after all."""
    if options.checkpoints is not None:
        _checkpoints(task, policy, seed, options).remove()


def _checkpoints(task: Task, policy: Policy, seed: int, options: RunOptions) -> Checkpoints:
    assert options.checkpoints is not None, "callers look"
    with preserved():
        data = load(task, options.places, fingerprint=options.fingerprint)
        resolve_checked(task, policy, facts_of(task, data))
    return Checkpoints(Folder.at(options.checkpoints), run_key(task, data.fingerprint, policy, seed))
