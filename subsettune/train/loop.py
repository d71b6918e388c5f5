"""The one training loop: the conventional recipe, every policy, every trial and every bundle run through `run`.

Compute decides when things happen. A phase ends at the first update boundary at or after its allowance, and its excess
is taken from the next; the run ends before the update that would exceed the policy's total. So the ledger never exceeds
`policy.cost(facts)`, and falls short of it by less than one update.

An optimizer with a line search evaluates its batch several times an update, and pays for each. For it, read evaluation
for update above: its step is cut short at the end of the phase and of the run. So two phases on the same examples are
one for other optimizers, bit for bit, but not for such a one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from subsettune.config import FrozenDict
from subsettune.data import load
from subsettune.errors import ModelDivergedError, StorageError
from subsettune.facts import Price
from subsettune.policy import Policy
from subsettune.registry import OPTIMIZERS
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train import orders, schedule
from subsettune.train.account import Stopwatch
from subsettune.train.checkpoint import Checkpoints, CheckpointWriter
from subsettune.train.evaluation import Evaluator, Report
from subsettune.train.follow.carry_out import carry_out
from subsettune.train.job import RunJob, find_device
from subsettune.train.learner import Learner, predict
from subsettune.train.options import RunOptions
from subsettune.train.phase_switch import PhaseSwitch
from subsettune.train.planning import own_code, own_state
from subsettune.train.planning.check import (
    check,
    check_own_code,
    facts,
    facts_of,
    own_components,
    resolve_checked,
    run_key,
    study_code,
    user_code_of,
)
from subsettune.train.randomness import capture, isolated, preserved, restore
from subsettune.train.result import Cause, RunResult
from subsettune.train.run_state import RunState
from subsettune.train.selection.chooser import SubsetProvider
from subsettune.train.stems import Stems

__all__ = [
    "Report",
    "RunJob",
    "RunOptions",
    "SubsetProvider",
    "check",
    "facts",
    "predict",
    "run",
    "run_job",
    "run_key",
    "study_code",
    "user_code_of",
]

CHECK_EVERY = 25  # updates between looks at the running loss, which would force a device to synchronise
UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)  # what a foreign checkpoint raises


# More than six parameters: the run, what it is told, and whether it is the one that somebody wants to keep.
def run(
    task: Task,
    policy: Policy,
    seed: int,
    *,
    final: bool = False,
    report: Report | None = None,
    clock: Callable[[], float] = time.perf_counter,
    options: RunOptions | None = None,
) -> RunResult:
    """Train the task's network by a policy.

    The same task, data, policy, seed and number of threads give the same bits on the CPU, interrupted or not. The
    caller's global random state and number of threads come back as they were. Neither `torch.autocast`, `no_grad`, a
    default type or device, nor a run in another thread changes a run: see `subsettune.train.surroundings`.

    Args:
        task: what is trained.
        policy: how compute is spent; `conventional(facts)` is the recipe as it stands.
        seed: of everything random in the run.
        final: whether it is the training whose network is wanted: the result then has `model`, the trained network, and
            the test metric among `metrics`, whatever `options.keep_model` and `options.splits` say. To choose among
            policies by it would spoil the test split.
        report: called with each point of the learning curve that this call adds; True stops the run. One that goes on
            from a checkpoint begins with the last point before it, which an interruption may have left unheard.
        clock: seconds, for the times in the result and between checkpoints.
        options: where and how it runs.

    Returns:
        The result; a loss that leaves the finite numbers ends the run with the cause `diverged`, not with an exception.

    Raises:
        ConfigError, DataError, ModelError, SelectionError: before the first update.
        TrainingFunctionError: a training function of the user's did what no run can be made of.
        CheckpointError: the checkpoint of this run is damaged, or does not fit.
        StorageError: a checkpoint cannot be written.
    """
    options = options or RunOptions()
    if final:
        options = replace(options, keep_model=True, splits=tuple(dict.fromkeys((*options.splits, "test"))))
    if task.is_own:
        return carry_out(task, policy, seed, report=report, clock=clock, options=options)
    device = find_device(options.device)
    with preserved():  # reading data imports other packages, and one of them draws from Python's state
        data = load(task, options.places, fingerprint=options.fingerprint)
        is_tried = options.fingerprint is not None  # by a caller who knows the data, such as a study
        if not is_tried:
            check_own_code(task, task.recipe.override(policy.recipe), data)
        resolved = resolve_checked(task, policy, facts_of(task, data))
        OPTIMIZERS.load(resolved.recipe.optimizer)  # like all of the user's modules: imports may draw random numbers
    job = RunJob(task=task, resolved=resolved, seed=seed, data=data, device=device)
    return run_job(job, report=report, clock=clock, options=options)


def run_job(
    job: RunJob,
    *,
    report: Report | None = None,
    clock: Callable[[], float] = time.perf_counter,
    options: RunOptions | None = None,
) -> RunResult:
    """As `run`, of a job that was checked, on data in hand: nothing is read, and own code is not tried before.

    Args:
        job: whose policy `resolve_checked` has resolved, and whose device `find_device` has found.
        report: as of `run`.
        clock: likewise.
        options: how it runs; those that say where data lie mean nothing here.

    Raises:
        ModelError, SelectionError, CheckpointError, StorageError: as of `run`.
    """
    options = options or RunOptions()
    with isolated(job.seed, options.num_threads or torch.get_num_threads()):
        own = own_components(job.task, job.policy).values()
        before = own_state.snapshot(own)
        result = _Run(job, options, clock, report).train()
        own_state.tell(before, own_state.snapshot(own))
        return result


class _Run:
    """Drives one run: what has happened so far is in `state`, and what is to happen in `job`."""

    def __init__(self, job: RunJob, options: RunOptions, clock: Callable[[], float], report: Report | None) -> None:
        self.job, self.options, self.resolved, self.state = job, options, job.resolved, RunState()
        recipe, resolved = job.recipe, job.resolved
        self.train_total = resolved.total - sum(phase.flops for phase in resolved.phases)
        self.schedule = schedule.make(recipe.schedule, recipe.schedule_options)
        self.stream = resolved.order.stream(len(job.data.train), recipe.batch_size, job.seed)
        self.learner = Learner(job.task, recipe, job.data, job.device, job.seed)
        if resolved.min_batch == 1 or recipe.batch_size == 1:
            self.learner.check_batch(1)
        elif resolved.min_trained_examples == 1:
            self.learner.check_batch(1, advice="Keep more than one example of each batch.")
        self.stream.attach(self.learner)
        self.watch = Stopwatch(clock, job.device, self.state.seconds)
        self.switch = PhaseSwitch(job, options, self.learner, self.stream, self.state, self.watch)
        self.evaluator = Evaluator(job, options, self.learner, self.state, self.watch, report)
        kept, every_s = _find_checkpoints(job, options), options.checkpoint_every_s
        goes_on = kept is None or own_code.goes_on(job.task, recipe, job.data)
        self.writer = CheckpointWriter(kept, every_s, self.watch, goes_on=goes_on)
        has_stems = kept is not None and goes_on and not self.learner.searches
        self.stems = Stems.of(job, options) if has_stems else Stems()

    # --- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> RunResult:
        """Run to an end, or go on from the checkpoint."""
        self._resume()
        self.watch.lap("other")
        cause: Cause = "finished"
        message = ""
        try:
            if not self.state.done:
                cause = self._updates()
            if cause == "finished":
                cause = self._finish()
        except ModelDivergedError as error:
            cause, message = "diverged", str(error)
        except BaseException:
            with contextlib.suppress(StorageError):  # the first error is the one to tell
                self.writer.mark(self.state.account.ledger())
            raise
        finally:
            self.switch.close()
        if cause == "diverged":
            self.writer.mark(self.state.account.ledger())
        return self._result(cause, message)

    def _updates(self) -> Cause:
        """Update until the compute is used up, the loss diverges, or the caller stops the run."""
        state = self.state
        if self.evaluator.tell_again():
            return "stopped"
        self.evaluator.plan()
        while True:
            self._advance()
            share = state.account.spent / self.resolved.total
            workers = self.switch.workers
            batch = self.stream.next(share) if workers is None else None
            length = len(batch or ()) if workers is None else workers.next_length()
            price = self.resolved.phases[state.phase].update_cost(length, share)
            most = self._evaluations_left(price)
            if most == 0:
                self.switch.leave()
                self.watch.lap("train")
                return "finished" if self.learner.is_finite() else "diverged"
            if state.entering:
                if self.options.measure_switches:
                    self.evaluator.measure_switch()
                self.switch.enter()
            state.account.pay(price, self._update(batch, most, share))
            state.updates += 1
            state.trained = (state.phase, state.pool)
            cause = self._look()
            if cause is not None:
                return cause
            self._leave_stem(price)
            self._keep_safe()

    def _update(self, batch: orders.Batch | None, most: int, share: float) -> int:
        """Update on a batch, or every worker on one of its own; returns the evaluations made."""
        workers = self.switch.workers
        if workers is None:
            assert batch is not None
            facts = self.resolved.phases[self.state.phase].facts
            now = orders.StepContext(lr=self._lr(), weights=self.state.weights, most=most, share=share, facts=facts)
            return self.stream.update(self.learner, batch, now)
        if not workers.has_begun:
            workers.begin()
        workers.update(self._lr())
        return 1

    def _evaluations_left(self, price: Price) -> int:
        """How often a batch may be evaluated until the phase is at or after its end; the total is never exceeded."""
        spent = self.state.account.spent
        left = (self.resolved.total - spent) // price.total
        return left if left <= 1 else min(left, -(-(self.resolved.ends[self.state.phase] - spent) // price.total))

    def _lr(self) -> float:
        return self.job.recipe.lr * self.schedule(self.state.account.trained / self.train_total)

    def _look(self) -> Cause | None:
        """At its time: measure the validation split, where anything is, and tell the caller. A cause to end the run."""
        due = self.evaluator.is_due
        if not due and self.state.updates % CHECK_EVERY and not self.learner.searches:
            return None
        if not self.learner.is_finite():
            self.watch.lap("train")
            return "diverged"
        if not due:
            return None
        self.watch.lap("train")
        if self.switch.workers is not None:
            self.switch.workers.write_average()
        metric = self.evaluator.measure("validation") if self.evaluator.splits else None
        if metric is not None and not math.isfinite(metric):
            return "diverged"
        stop = self.evaluator.tell(metric)
        self.evaluator.plan()
        if stop:
            self._save()
        return "stopped" if stop else None

    def _finish(self) -> Cause:
        """Measure the final weights on every split asked for that was not measured before an interruption."""
        metrics = self.state.metrics
        self.learner.keep_average()
        if not self.evaluator.splits and not self.learner.has_finite_weights():
            return "diverged"
        missing = [split for split in self.evaluator.splits if split not in metrics]
        for split in missing:
            value = self.evaluator.measure(split)
            if not math.isfinite(value):
                return "diverged"
            metrics[split] = value
            if split == "validation":
                self.evaluator.tell_last(value)
        if self.options.measure_switches and not self.state.done:
            self.evaluator.measure_switch(metrics)
        self.state.done = True
        if missing:
            self._save()
        return "finished"

    def _advance(self) -> None:
        """Move on to the phase that the compute spent so far belongs to.

        A phase of which nothing is left is passed over: its examples are not chosen, its transition does not happen.
        """
        state, ends = self.state, self.resolved.ends
        last = len(ends) - 1
        while state.phase < 0 or (state.phase < last and state.account.spent >= ends[state.phase]):
            self.switch.leave()
            if state.phase >= 0:
                self.watch.lap("train")
                state.phase_ends.append((state.account.trained, state.seconds["train"]))
            state.phase += 1
            if state.phase == last or state.account.spent < ends[state.phase]:
                self._prepare()
                self.evaluator.plan()  # points that the selection has passed by are not made up for
                if state.updates > 0 or state.account.selected > 0:
                    self._save()

    def _prepare(self) -> None:
        """Choose the pool; what that did for other runs is charged to tuning."""
        before = self.switch.extra_flops
        self.switch.prepare()
        self.writer.count_extra(self.switch.extra_flops - before, self.state.account.ledger())

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _keep_safe(self) -> None:
        """Save, or at least mark how far the run is, when it is time."""
        due = self.writer.due()
        if due == "save":
            self.watch.lap("train")
            self._save()
        elif due == "mark":
            self.writer.mark(self.state.account.ledger())

    def _leave_stem(self, price: Price) -> None:
        """Leave the state for other runs, where it is time; marked before, so that what it took is never lost."""
        if self.stems.is_due(self.state.account.spent, price.total):
            self.watch.lap("train")
            self.writer.mark(self.state.account.ledger())
            self.stems.save(self._whole_state(), self.state.account.spent)
            self.watch.lap("other")

    def _save(self) -> None:
        if self.writer.checkpoints is not None:
            self.writer.save(self._whole_state(), self.state.account.ledger())

    def _whole_state(self) -> dict[str, Any]:
        return {**self.state.to_mapping(), **self._live_state()}

    def _live_state(self) -> dict[str, Any]:
        """State of what the run works with."""
        return {
            "workers": None if self.switch.workers is None else self.switch.workers.state(),
            "learner": self.learner.state(),
            "order": self.stream.state(),
            "random": capture(),
            "price": self.job.price,
            "num_threads": torch.get_num_threads(),
            "device": self.job.device.type,
        }

    def _resume(self) -> None:
        """Go on from the checkpoint, else from a stem, if there is one; what was done after it is lost, and counted."""
        kept, saved = self.writer.checkpoints, self.writer.load()
        stem = self.stems.longest() if saved is None else None
        if stem is not None:
            kept, saved = stem
        if kept is not None and saved is not None:
            try:
                self._load(saved)
            except UNFIT as error:
                raise kept.unfit(error) from error
        if stem is not None:
            self.state.begin_from_stem()
        self.stems.plan(self.state.account.spent)
        self.writer.shared = self.state.shared_flops
        self.writer.count_repeated(self.state.account.ledger())

    def _load(self, saved: dict[str, Any]) -> None:
        state, device = self.state, self.job.device
        self.job.refuse_another_price(saved)
        state.load(saved)
        self.learner.load(saved["learner"], weights_only=state.done)
        if state.done:
            return
        if saved["device"] != device.type:
            raise ValueError(f"it was made on {saved['device']}, and the device is {device.type} now.")
        torch.set_num_threads(saved["num_threads"])  # `isolated` gives the caller's number back
        state.weights = None if state.weights is None else state.weights.to(device)
        if saved["workers"] is not None:
            self.switch.gather_workers()
            assert self.switch.workers is not None
            self.switch.workers.load(saved["workers"])
        self.stream.load(saved["order"], state.pool)
        restore(saved["random"])

    # --- the result ----------------------------------------------------------------------------------------------

    def _result(self, cause: Cause, message: str) -> RunResult:
        state, seconds = self.state, self.state.seconds
        self.learner.keep_average()
        rate = f"at learning rate {self.job.recipe.lr:g}"
        diverged = message or f"The loss left the finite numbers after {state.updates} updates, {rate}."
        messages = {"diverged": diverged, "stopped": "Stopped by the caller.", "finished": ""}
        asked = {split: state.metrics[split] for split in self.evaluator.splits} if cause == "finished" else {}
        return RunResult(
            policy=self.job.policy,
            seed=self.job.seed,
            cause=cause,
            message=messages[cause],
            metrics=FrozenDict(asked),
            **(self.evaluator.kept() if asked else {}),
            ledger=state.account.ledger(),
            repeated_flops=self.writer.repeated,
            shared_flops=state.shared_flops,
            shared_s=state.shared_s,
            updates=state.updates,
            curve=tuple(state.curve),
            train_s=seconds["train"],
            select_s=seconds["select"],
            evaluate_s=seconds["evaluate"],
            device=self.job.device.type,
            num_threads=torch.get_num_threads(),
            phases=state.phases,
            switch_shares=tuple(state.switches),
            switches=tuple(state.switch_points),
            soups=tuple(state.soups),
            model=self.learner.network.cpu() if self.options.keep_model else None,
            subsets=state.subsets,
            fingerprint=self.job.data.fingerprint,
        )


def _find_checkpoints(job: RunJob, options: RunOptions) -> Checkpoints | None:
    if options.checkpoints is None:
        return None
    key = run_key(job.task, job.data.fingerprint, job.policy, job.seed)
    return Checkpoints(Folder.at(options.checkpoints), key)
