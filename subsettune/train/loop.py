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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from subsettune import config, select
from subsettune.config import FrozenDict
from subsettune.data import TaskData, load
from subsettune.errors import CheckpointError, ConfigError, ModelDivergedError, StorageError
from subsettune.facts import Price
from subsettune.policy import Policy
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train import optimizers, orders, schedule, transitions
from subsettune.train.account import LedgerBuilder, Stopwatch
from subsettune.train.checkpoint import ADVICE, Checkpoints, ProgressMarker
from subsettune.train.learner import Learner, predict
from subsettune.train.options import RunOptions
from subsettune.train.planning import phases
from subsettune.train.planning.check import check, facts, facts_of, run_key
from subsettune.train.randomness import capture, generator, isolated, preserved, restore
from subsettune.train.result import Cause, CurvePoint, RunResult, SoupPoint, SwitchPoint, finite_or_none
from subsettune.train.selection.chooser import SubsetProvider
from subsettune.train.soup import executors, workers

__all__ = ["Report", "RunOptions", "SubsetProvider", "check", "facts", "predict", "run", "run_key"]

Report = Callable[[CurvePoint], bool]
CHECK_EVERY = 25  # updates between looks at the running loss, which would force a device to synchronise
MARK_EVERY_S = 5.0


def run(
    task: Task,
    policy: Policy,
    seed: int,
    *,
    report: Report | None = None,
    clock: Callable[[], float] = time.perf_counter,
    options: RunOptions | None = None,
) -> RunResult:
    """Train the task's network by a policy.

    The same task, data, policy, seed and number of threads give the same bits on the CPU, interrupted or not. The
    caller's global random state and number of threads come back as they were.

    Args:
        task: what is trained.
        policy: how compute is spent; `conventional(facts)` is the recipe as it stands.
        seed: of everything random in the run.
        report: called with each point of the learning curve that this call adds; True stops the run.
        clock: seconds, for the times in the result and between checkpoints.
        options: where and how it runs.

    Returns:
        The result; a loss that leaves the finite numbers ends the run with the cause `diverged`, not with an exception.

    Raises:
        ConfigError, DataError, ModelError, SelectionError: before the first update.
        CheckpointError: the checkpoint of this run is damaged, or does not fit.
        StorageError: a checkpoint cannot be written.
    """
    options = options or RunOptions()
    device = _device(options.device)
    with preserved():  # reading data imports other packages, and one of them draws from Python's state
        data = load(task, options.places, fingerprint=options.fingerprint)
    job = _Job(task=task, policy=policy, seed=seed, options=options, data=data, device=device)
    with isolated(seed, options.num_threads or torch.get_num_threads()):
        return _Run(job, clock, report).train()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is to be run, and where."""

    task: Task
    policy: Policy
    seed: int
    options: RunOptions
    data: TaskData
    device: torch.device


class _Run:
    """State of one run. Compute in FLOPs."""

    def __init__(self, job: _Job, clock: Callable[[], float], report: Report | None) -> None:
        self.job, self.policy, self.options, self.data = job, job.policy, job.options, job.data
        self.report = report
        self.facts = facts_of(job.task, job.data)
        self.recipe = check(job.task, job.policy, self.facts)
        self.total = self.policy.cost(self.facts)
        self.ends = self.policy.boundaries(self.facts)
        self.openings = phases.openings(self.policy, self.recipe, self.facts)
        self.train_total = self.total - sum(opening.flops for opening in self.openings)
        self.schedule = schedule.make(self.recipe.schedule, self.recipe.schedule_options)
        self.order = orders.of(self.policy.phases[0])
        self.stream = self.order.stream(len(self.data.train), self.recipe.batch_size, job.seed)
        self.learner = self._learner()
        self.stream.attach(self.learner)
        self.way = self._way()
        places, device = self.options.places, job.device
        self.chooser = SubsetProvider(
            job.task, job.policy, job.seed, job.data, self.facts, device=device, places=places, clock=clock
        )
        self.checkpoints = self._find_checkpoints()
        self.account = LedgerBuilder()
        self.watch = Stopwatch(clock, job.device)
        self._last_checkpoint = self._last_mark = self.watch.lap_start
        # The rest changes as the run goes on, and is in the checkpoint.
        self.phase, self.updates = -1, 0
        self.entering = False  # a phase was prepared, and its transition waits for its first update
        self.pool: Tensor | None = None
        self.weights: Tensor | None = None
        self.workers: workers.Workers | None = None
        self.soups: list[SoupPoint] = []
        self.subsets: dict[int, select.Subset] = {}  # those that only this run can tell
        self.curve: list[CurvePoint] = []
        self.switches: list[float] = []
        self.switch_points: list[SwitchPoint] = []
        self.trained: tuple[int, Tensor | None] = (0, None)  # phase and pool of the last update
        self.metrics: dict[str, float] = {}
        self.done, self.repeated = False, 0
        self.why_diverged = ""

    def _learner(self) -> Learner:
        learner = Learner(self.job.task, self.recipe, self.data, self.job.device, self.job.seed)
        shortest = min(length for opening in self.openings for length in opening.lengths)
        if shortest == 1 or self.recipe.batch_size == 1:  # the lengths of a soup are those of all workers
            learner.check_batch(1)
        elif any(
            self.order.min_trained_examples(n, o.facts) == 1 for o in self.openings if not o.is_soup for n in o.lengths
        ):
            learner.check_batch(1, advice="Keep more than one example of each batch.")
        return learner

    def _way(self) -> executors.ExecutionMode:
        """How workers of soups are carried out; tried on the network, so only where there are some."""
        is_needed = any(opening.is_soup for opening in self.openings)
        return executors.way(self.options.soup_workers, self.learner) if is_needed else "in_turn"

    def _find_checkpoints(self) -> Checkpoints | None:
        if self.options.checkpoints is None:
            return None
        key = run_key(self.job.task, self.data.fingerprint, self.policy, self.job.seed)
        return Checkpoints(Folder.at(self.options.checkpoints), key)

    # --- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> RunResult:
        """Run to an end, or go on from the checkpoint."""
        self._resume()
        self.watch.lap("other")
        cause: Cause = "finished"
        try:
            if not self.done:
                cause = self._updates()
            if cause == "finished":
                cause = self._finish()
        except ModelDivergedError as error:
            cause, self.why_diverged = "diverged", str(error)
        except BaseException:
            with contextlib.suppress(StorageError):  # the first error is the one to tell
                self._mark()
            raise
        if cause == "diverged":
            self._mark()
        return self._result(cause)

    def _updates(self) -> Cause:
        """Update until the compute is used up, the loss diverges, or the caller stops the run."""
        self._plan_evaluation()
        while True:
            self._advance()
            share = self.account.spent / self.total
            batch = None if self.workers is not None else self.stream.next(share)
            length = self.workers.next_length() if self.workers is not None else len(batch or ())
            price = phases.update_cost(self.openings[self.phase], self.order, length, share)
            most = self._evaluations_left(price)
            if most == 0:
                self._leave()
                self.watch.lap("train")
                return "finished" if self.learner.is_finite() else "diverged"
            if self.entering:
                self._enter()
            self.account.pay(price, self._update(batch, most, share))
            self.updates += 1
            self.trained = (self.phase, self.pool)
            cause = self._look()
            if cause is not None:
                return cause
            self._keep_safe()

    def _update(self, batch: orders.Batch | None, most: int, share: float) -> int:
        """Update on a batch, or every worker on one of its own; returns the evaluations made."""
        if self.workers is None:
            assert batch is not None
            now = orders.StepContext(
                lr=self._lr(), weights=self.weights, most=most, share=share, facts=self.openings[self.phase].facts
            )
            return self.stream.update(self.learner, batch, now)
        if not self.workers.has_begun:
            self.workers.begin()
        self.workers.update(self._lr())
        return 1

    def _evaluations_left(self, price: Price) -> int:
        """How often a batch may be evaluated until the phase is at or after its end; the total is never exceeded."""
        left = (self.total - self.account.spent) // price.total
        return left if left <= 1 else min(left, -(-(self.ends[self.phase] - self.account.spent) // price.total))

    def _lr(self) -> float:
        return self.recipe.lr * self.schedule(self.account.trained / self.train_total)

    def _advance(self) -> None:
        """Move on to the phase that the compute spent so far belongs to.

        A phase of which nothing is left is passed over: its examples are not chosen, its transition does not happen.
        """
        last = len(self.ends) - 1
        while self.phase < 0 or (self.phase < last and self.account.spent >= self.ends[self.phase]):
            self._leave()
            self.phase += 1
            if self.phase == last or self.account.spent < self.ends[self.phase]:
                self._prepare()

    def _leave(self) -> None:
        """End a phase: the workers of a soup become one network."""
        if self.workers is not None:
            self.soups.append(self.workers.merge())
            self.workers = None

    def _prepare(self) -> None:
        """Choose the pool of a phase, and keep what came before safe; `_enter` follows with the first update."""
        self.watch.lap("train")
        self.pool, self.weights = None, None
        self.account.selected += self.openings[self.phase].flops
        assert self.account.spent <= self.total, "check lets no opening through that does not fit"
        if not self.policy.phases[self.phase].is_full:
            self._select()
        self._gather_workers()
        self.stream.enter(self.pool)
        self.entering = self.updates > 0  # before the first update there is nothing to enter from
        self.watch.lap("select")
        self._plan_evaluation()  # points that the selection has passed by are not made up for
        if self.updates > 0 or self.account.selected > 0:
            self._save()

    def _gather_workers(self) -> None:
        active_soup = self.policy.phases[self.phase].active_soup
        if active_soup is not None:
            place = workers.SoupPhase(
                soup=active_soup,
                seed=self.job.seed,
                phase=self.phase,
                facts=self.openings[self.phase].facts,
                pool=self.pool,
                weights=self.weights,
                way=self.way,
                clock=self.watch.now,
            )
            self.workers = workers.Workers(place, self.learner)

    def _select(self) -> None:
        choice = self.chooser.choose(self.phase, self.learner.network)
        self.watch.lap("other")  # what was prepared by another run is charged all the same
        self.watch.seconds["select"] += choice.seconds
        subset, self.pool = choice.subset, choice.subset.positions
        if choice.only_now:
            self.subsets[self.phase] = subset
        if subset.weights is not None:
            weights = torch.ones(len(self.data.train))
            weights[self.pool] = subset.loss_weights
            self.weights = weights.to(self.job.device)

    def _enter(self) -> None:
        """Begin a phase: its transition changes weights and optimizer right before its first update."""
        if self.options.measure_switches:
            self._measure_switch({split: self._measure(split) for split in self._splits()})
        learner = self.learner
        entered = transitions.TransitionContext(
            network=learner.network,
            optimizer=learner.optimizer,
            scales=learner.scales,
            rng=generator(self.job.seed, "entry", self.phase),
            part=learner.part,
            pool=self.pool,
            losses=learner.example_losses,
            facts=self.openings[max(0, self.phase - 1)].facts,
        )
        transitions.of(self.policy.phases[self.phase]).apply(entered)
        if self.openings[self.phase].flops:
            self.watch.lap("select")
        optimizers.change_objective(self.learner.optimizer)
        self.switches.append(self.account.spent / self.total)
        self.entering = False

    # --- looking -------------------------------------------------------------------------------------------------

    def _plan_evaluation(self) -> None:
        """FLOPs at which the next point of the curve is due; the last point is made by `_finish`."""
        n = self.options.evaluations
        done = self.account.spent * n // self.total
        self.next_evaluation = -(-(done + 1) * self.total // n)

    def _look(self) -> Cause | None:
        """At its time: measure the validation split and tell the caller. A cause if the run must end."""
        due = self.next_evaluation <= self.account.spent < self.total
        if not due and self.updates % CHECK_EVERY and not self.learner.searches:
            return None
        if not self.learner.is_finite():
            self.watch.lap("train")
            return "diverged"
        if not due:
            return None
        self.watch.lap("train")
        metric = self._measure("validation")
        if not math.isfinite(metric):
            return "diverged"
        n = self.options.evaluations
        stop = self._tell((self.account.spent * n // self.total) / n, metric)
        self._plan_evaluation()
        if stop:
            self._save()
        return "stopped" if stop else None

    def _tell(self, share: float, metric: float) -> bool:
        point = CurvePoint(
            share=share,
            flops=self.account.spent,
            phase=self.phase,
            metric=metric,
            loss=self.learner.take_loss(),
            seconds=self.watch.seconds["train"] + self.watch.seconds["select"],
            select=self.account.selected,
            forward=self.account.forward,
        )
        self.curve.append(point)
        stop = self.report(point) if self.report is not None else False
        self.watch.lap("other")
        return stop

    def _measure(self, split: str) -> float:
        part = getattr(self.data, split)
        if self.workers is not None and self.workers.has_begun:
            self.workers.write_average()
        value = self.learner.measure(part)
        self.account.evaluated += len(part) * self._forward_flops
        self.watch.lap("evaluate")
        return value

    @property
    def _forward_flops(self) -> int:
        """FLOPs of a forward pass of one example of the network as it stands."""
        has_entered = not self.entering
        now = self.openings[self.phase if has_entered else self.phase - 1]
        return now.facts.forward_flops

    def _finish(self) -> Cause:
        """Measure the final weights on every split asked for that was not measured before an interruption."""
        missing = [split for split in self._splits() if split not in self.metrics]
        for split in missing:
            value = self._measure(split)
            if not math.isfinite(value):
                return "diverged"
            self.metrics[split] = value
            if split == "validation":
                self._tell(1.0, value)
        if self.options.measure_switches and not self.done:
            self._measure_switch({split: self.metrics[split] for split in self._splits()})
        self.done = True
        if missing:
            self._save()
        return "finished"

    def _measure_switch(self, measured: Mapping[str, float]) -> None:
        """Note losses and metrics of the weights as the phase of the last update leaves them."""
        phase, pool = self.trained
        pool_loss, train_loss = self.learner.losses(pool)
        self.account.evaluated += self.facts.num_examples * self._forward_flops
        self.watch.lap("evaluate")
        self.switch_points.append(
            SwitchPoint(
                phase=phase,
                share=self.account.spent / self.total,
                flops=self.account.spent,
                pool_size=self.facts.num_examples if pool is None else len(pool),
                pool_loss=finite_or_none(pool_loss),
                train_loss=finite_or_none(train_loss),
                metrics=FrozenDict({split: finite_or_none(value) for split, value in measured.items()}),
            )
        )

    def _splits(self) -> tuple[str, ...]:
        return ("validation", *(split for split in self.options.splits if split != "validation"))

    def _result(self, cause: Cause) -> RunResult:
        rate = f"at learning rate {self.recipe.lr:g}"
        diverged = f"The loss left the finite numbers after {self.updates} updates, {rate}."
        messages = {"diverged": self.why_diverged or diverged, "stopped": "Stopped by the caller.", "finished": ""}
        asked = {split: self.metrics[split] for split in self._splits()} if cause == "finished" else {}
        return RunResult(
            policy=self.policy,
            seed=self.job.seed,
            cause=cause,
            message=messages[cause],
            metrics=FrozenDict(asked),
            ledger=self.account.ledger(),
            repeated_flops=self.repeated,
            updates=self.updates,
            curve=tuple(self.curve),
            train_s=self.watch.seconds["train"],
            select_s=self.watch.seconds["select"],
            evaluate_s=self.watch.seconds["evaluate"],
            device=self.job.device.type,
            num_threads=torch.get_num_threads(),
            switch_shares=tuple(self.switches),
            switches=tuple(self.switch_points),
            soups=tuple(self.soups),
            model=self.learner.network.cpu() if self.options.keep_model else None,
            subsets=self.subsets,
        )

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _keep_safe(self) -> None:
        """Save, or at least mark how far the run is, when it is time."""
        if self.checkpoints is None:
            return
        now = self.watch.now()
        if now - self._last_checkpoint >= self.options.checkpoint_every_s:
            self.watch.lap("train")
            self._save()
        elif now - self._last_mark >= MARK_EVERY_S:
            self._mark()
            self._last_mark = now

    def _mark(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.mark(ProgressMarker(flops=self.account.ledger().total, repeated=self.repeated))

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self.checkpoints.save(self._state())  # an older mark does no harm: it lies behind
        self.watch.lap("other")
        self._last_checkpoint = self._last_mark = self.watch.lap_start

    def _state(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _PLAIN_STATE},
            "account": {field.name: getattr(self.account, field.name) for field in fields(self.account)},
            "seconds": self.watch.seconds,
            "curve": [config.to_plain(point) for point in self.curve],
            "switch_points": [config.to_plain(point) for point in self.switch_points],
            "soups": [config.to_plain(point) for point in self.soups],
            "workers": None if self.workers is None else self.workers.state(),
            "subsets": {phase: (subset.positions, subset.weights) for phase, subset in self.subsets.items()},
            "learner": self.learner.state(),
            "order": self.stream.state(),
            "random": capture(),
            "num_threads": torch.get_num_threads(),
            "device": self.job.device.type,
        }

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one; what was done after it is lost, and counted as repeated."""
        if self.checkpoints is None:
            return
        state, mark = self.checkpoints.load(), self.checkpoints.marked()
        if state is not None:
            try:
                self._load(state)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise CheckpointError(f"{self.checkpoints} does not fit this run: {reason} {ADVICE}") from error
        lost = mark.flops - self.account.ledger().total
        self.repeated = mark.repeated + max(0, lost)
        if lost > 0:
            self._mark()

    def _load(self, state: dict[str, Any]) -> None:
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])
        self.account = LedgerBuilder(**state["account"])
        self.watch.seconds.update(state["seconds"])
        self.curve = [config.build(CurvePoint, point) for point in state["curve"]]
        self.switch_points = [config.build(SwitchPoint, point) for point in state["switch_points"]]
        self.soups = [config.build(SoupPoint, point) for point in state["soups"]]
        self.subsets = {i: select.Subset(positions=p, weights=w) for i, (p, w) in state["subsets"].items()}
        self.learner.load(state["learner"], weights_only=self.done)
        if self.done:
            return
        if state["device"] != self.job.device.type:
            raise ValueError(f"it was made on {state['device']}, and the device is {self.job.device.type} now.")
        torch.set_num_threads(state["num_threads"])  # `isolated` gives the caller's number back
        self.weights = None if self.weights is None else self.weights.to(self.job.device)
        if state["workers"] is not None:
            self._gather_workers()
            assert self.workers is not None
            self.workers.load(state["workers"])
        self.stream.load(state["order"], self.pool)
        restore(state["random"])


_PLAIN_STATE = ("phase", "updates", "entering", "pool", "weights", "trained", "switches", "metrics", "done")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"device must be cpu here, got {name!r}: torch finds no GPU. Use device auto.")
        torch.cuda.init()  # so that the caller's random state on the GPU can be captured
    return torch.device(name)
