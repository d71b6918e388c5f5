"""What a run of a training function has spent and shown so far, and what is kept of it for when it is interrupted."""

from __future__ import annotations

import io
import itertools
import math
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subsettune import config
from subsettune.errors import TrainingFunctionError
from subsettune.registry import METRICS
from subsettune.storage import Folder
from subsettune.train.account import LedgerBuilder, Stopwatch, no_seconds
from subsettune.train.checkpoint import Checkpoints, CheckpointWriter
from subsettune.train.evaluation import Report
from subsettune.train.follow.batches import Batches, Pool, array_of, pool
from subsettune.train.job import RunJob
from subsettune.train.options import RunOptions
from subsettune.train.planning.check import run_key
from subsettune.train.randomness import capture, restore
from subsettune.train.result import CurvePoint, PhaseSpent
from subsettune.train.selection.chooser import SubsetProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a training function told at its end.

    Args:
        metrics: of the validation and of the test split.
        model: a module or a path; None where it gave none.
        kept: of the test examples: fields of `RunResult`.
    """

    metrics: Mapping[str, float]
    model: Any = None
    kept: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: Mapping[str, float], model: Any, metric: str, each: Mapping[str, Any]) -> Outcome:
        """An outcome, with what was told of single test examples checked.

        Raises:
            TrainingFunctionError: it is not of this kind of task, or does not give the metric that was told.
        """
        given = {name: array_of(values) for name, values in each.items() if values is not None}
        known = METRICS.get(metric)
        is_counted = known is not None and known.has_steps
        fitting = None if known is None or known.mean_of != "examples" else _EACH[is_counted]
        for name, values in given.items():
            if name != fitting or values.ndim != 1 or not len(values):
                rule = (
                    "left out" if fitting is None else f"left out, or {fitting}=(n,) numbers, one for each test example"
                )
                got = f"{name} of shape {values.shape}"
                advice = f"{metric} is told by itself." if fitting is None else "Their mean is the metric."
                raise TrainingFunctionError(f"{name} must be {rule}, got {got}. {advice}")
            mean = float(values.mean(dtype=np.float64))
            if abs(mean - metrics["test"]) > 1e-6 * max(1.0, abs(mean)):
                raise TrainingFunctionError(
                    f"{name} has the mean {mean:.6g}, and test is {metrics['test']:.6g}: they must be of the same "
                    "weights and examples."
                )
        return cls(metrics=metrics, model=model, kept={k: v for n, v in given.items() for k, v in _packed(n, v)})


_EACH = {True: "test_correct", False: "test_errors"}


def _packed(name: str, values: NDArray[Any]) -> list[tuple[str, Any]]:
    is_bits = name == "test_correct"
    kept = np.packbits(values.astype(bool)).tobytes() if is_bits else values.astype("<f4").tobytes()
    return [("num_test", len(values)), (name, kept)]


class Tracker:
    """Hands out the batches of a run, charges them, and keeps what a later start needs.

    Args:
        job: of the run.
        options: where it runs.
        clock: seconds.
        report: told each point of the learning curve; True stops the run.
        folder: that holds what was kept of an earlier start, for as long as the run takes.
    """

    def __init__(
        self, job: RunJob, options: RunOptions, clock: Callable[[], float], report: Report | None, folder: Path
    ) -> None:
        self.job, self.account, self.curve = job, LedgerBuilder(), list[CurvePoint]()
        self.phase_ends: list[tuple[int, float]] = []
        self.seconds = no_seconds()
        self.watch = Stopwatch(clock, job.device, self.seconds)
        self._provider = SubsetProvider(job, places=options.places, clock=clock)
        self.batches = Batches(job.resolved, job.facts.num_examples, job.seed, self._choose)
        self._report, self._folder = report, folder
        self._random: dict[str, Any] | None = None  # as it was behind the checkpoint
        begun = {step: phase for phase, step in self.batches.plan.begins}  # the last one, where several begin
        self.opens = {step: phase for step, phase in begun.items() if step}
        self._charged = {phase.index: phase.flops for phase in job.resolved.phases}
        self._begins = list(self.batches.plan.begins)
        kept = None
        if options.checkpoints is not None:
            key = run_key(job.task, job.data.fingerprint, job.policy, job.seed)
            kept = Checkpoints(Folder.at(options.checkpoints), key)
        self.writer = CheckpointWriter(kept, math.inf, self.watch)  # it is the function that saves
        self.start, self.resume_from = 0, None
        self.switches: dict[str, Any] | None = None  # as a run that was interrupted left them
        self._told = (0, 0, 0)  # updates whose FLOPs are added up for points of the curve, forward and backward
        self.saved = self.writer.load()

    # --- batches -------------------------------------------------------------------------------------------------

    def next(self) -> list[int] | None:
        """The next batch, paid for; None at the end."""
        if self.batches.number == self.start:
            self.watch.lap("other")  # of reading data and building a network
            if self._random is not None:
                restore(self._random)
        self.batches.refuse_unobserved()
        self._pay_begins()
        batch = self.batches.next()
        if batch is None:
            return None
        self.account.pay(self.batches.plan.prices[batch.number])
        index: list[int] = batch.positions.tolist()
        if self.writer.due() is not None:
            self.writer.mark(self.account.ledger())
        return index

    def _pay_begins(self) -> None:
        """Charge what the phases that begin now cost before their first update, and note where the last one ended."""
        while self._begins and self._begins[0][1] == self.batches.number:
            phase, _ = self._begins.pop(0)
            self.watch.lap("train")
            if phase:
                self.phase_ends.append((self.account.trained, self.seconds["train"]))
            self.account.selected += self._charged[phase]

    def _choose(self, phase: int) -> Pool:
        self.watch.lap("train")
        choice = self._provider.choose(phase)
        self.watch.lap("other")  # what was prepared by another run is charged all the same
        self.seconds["select"] += choice.seconds
        self.writer.count_extra(choice.extra_flops, self.account.ledger())
        subset = choice.subset
        factors = None if subset.weights is None else subset.loss_weights
        return pool(subset.positions, factors, self.job.facts.num_examples)

    # --- the curve -----------------------------------------------------------------------------------------------

    def tell(self, metric: float, loss: float | None, made: int) -> bool:
        """Note a point of the learning curve after so many updates, and ask whether the run must stop."""
        self.watch.lap("train")
        account = self._account_after(made)
        point = CurvePoint(
            share=account.spent / self.job.resolved.total,
            flops=account.spent,
            phase=self.batches.plan.phases[max(0, made - 1)],
            metric=metric,
            loss=loss,
            seconds=self.seconds["train"] + self.seconds["select"],
            select=account.selected,
            forward=account.forward,
        )
        self.curve = [before for before in self.curve if before.share < point.share] + [point]
        return self._report(point) if self._report is not None else False

    def _account_after(self, made: int) -> LedgerBuilder:
        """What a number of updates cost, whatever was handed out ahead."""
        done, forward, backward = self._told if self._told[0] <= made else (0, 0, 0)
        for price in self.batches.plan.prices[done:made]:
            forward, backward = forward + price.forward, backward + price.backward
        self._told = (made, forward, backward)
        return LedgerBuilder(selected=self._selected_by(made), forward=forward, backward=backward)

    @property
    def phases(self) -> tuple[PhaseSpent, ...]:
        """What the updates of each phase took so far."""
        ends = [(0, 0.0), *self.phase_ends, (self.account.trained, self.seconds["train"])]
        steps = itertools.pairwise(ends)
        return tuple(PhaseSpent(flops=f - before, seconds=max(0.0, s - since)) for (before, since), (f, s) in steps)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def keep(self, path: Path, step: int, switches: Mapping[str, Any]) -> None:
        """Keep what a training function wrote after `step` updates, and which switches it had made.

        Raises:
            TrainingFunctionError: nothing is there, or batches were fetched ahead that an order drew by losses.
        """
        if not path.exists():
            raise TrainingFunctionError(f"run.checkpoint must get a file or folder that is there, got {str(path)!r}.")
        if self.writer.checkpoints is None:
            return
        self.batches.refuse_unobserved()
        self.watch.lap("train")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
            archive.add(path, arcname=path.name)
        made = self.batches.plan.prices[:step]
        state = {
            "step": step,
            "switches": dict(switches),
            "order": None if self.batches.is_blind else self.batches.state(),
            "name": path.name,
            "files": torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8),
            "seconds": dict(self.seconds),
            "phase_ends": [end for end in self.phase_ends if end[0] < sum(price.total for price in made)],
            "curve": [config.to_plain(point) for point in self.curve],
            "random": capture(),
            "price": self.job.price,
            "done": False,
        }
        account = LedgerBuilder(selected=self._selected_by(step))
        for price in made:
            account.pay(price)
        self.writer.save(state, account.ledger())
        self.writer.mark(self.account.ledger())

    def go_on(self) -> None:
        """Go on from what was kept of a run that was interrupted, if anything was."""
        saved = self.saved
        if saved is not None:
            self.job.refuse_another_price({"price": saved["price"], "account": {}})
            with tarfile.open(fileobj=io.BytesIO(saved["files"].numpy().tobytes())) as archive:
                archive.extractall(self._folder, filter="data")
            self.resume_from, self.start = self._folder / saved["name"], saved["step"]
            self.switches = saved["switches"]
            if saved["order"] is None:
                self.batches.skip(self.start)
            else:
                self.batches.load(saved["order"])
            self.account.selected = self._selected_by(self.start)
            for price in self.batches.plan.prices[: self.start]:
                self.account.pay(price)
            self._begins = [begin for begin in self._begins if begin[1] >= self.start]
            self.seconds.update(saved["seconds"])
            self.phase_ends = [(flops, seconds) for flops, seconds in saved["phase_ends"]]
            self.curve = [config.build(CurvePoint, point) for point in saved["curve"]]
            self._random = saved["random"]
            self.watch.lap("other")
        self.writer.count_repeated(self.account.ledger())

    def _selected_by(self, step: int) -> int:
        """FLOPs of what the phases needed that had begun before a step."""
        return sum(self._charged[phase] for phase, at in self.batches.plan.begins if at < step)
