"""What a training function of the user's own is given: the batches, rates and switches of one run.

def train(run):
    network, optimizer = ..., torch.optim.SGD(network.parameters(), lr=run.recipe.lr)
    scheduler = run.scheduler(optimizer)
    for inputs, targets in DataLoader(dataset, batch_sampler=run.batch_sampler()):
        ...
        optimizer.step()
        scheduler.step()
    run.finish(validation=accuracy(network, held_out), test=accuracy(network, test), model=network)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from subsettune.config import FrozenDict, must
from subsettune.errors import TrainingFunctionError, did_you_mean
from subsettune.policy import Policy
from subsettune.registry import METRICS
from subsettune.task import Recipe
from subsettune.train.follow.batches import array_of
from subsettune.train.follow.follower import Follower
from subsettune.train.follow.fresh import Fresh
from subsettune.train.follow.position import Position
from subsettune.train.follow.switches import Switches
from subsettune.train.follow.tracker import Outcome, Tracker
from subsettune.train.result import Cause

LOSS = "loss"


class StopRun(Exception):  # noqa: N818 (no error: the search has seen enough)
    """Raised by `Run.report` when the search gives the run up; let it through."""


class Diverged(Exception):  # noqa: N818 (an outcome of the run)
    """Raised by `Run.report` when a metric is not a finite number; let it through."""


class Run(Follower):
    """One run of a training function, which follows a policy by it. What it offers cannot be changed.

    Steps are updates of the optimizer, or of one batch each where gradients are accumulated: one for each batch that is
    handed out. A batch is a list of numbers of training examples, from 0 to `num_examples` - 1.

    Attributes:
        policy: that is followed.
        recipe: the recipe with the policy's own settings: `run.recipe.lr` is the peak of the learning rate.
        options: `task.train_options`.
        seed: of the run; torch, NumPy and Python are seeded with it already.
        device: `cpu` or `cuda`, where the study trains.
        num_examples: N.
        metric: name of the metric, as `report` takes it.
        resume_from: what was last given to `checkpoint` by this run before it was interrupted; else None.
    """

    policy: Policy
    recipe: Recipe
    options: FrozenDict
    seed: int
    device: str
    num_examples: int
    metric: str
    resume_from: Path | None
    _said = "run"
    _tracker: Tracker
    _outcome: Outcome | None
    _is_stopped: bool
    _is_diverged: bool
    _fresh: Fresh

    def __init__(self, tracker: Tracker) -> None:
        job = tracker.job
        self._set(
            _tracker=tracker,
            _batches=tracker.batches,
            _position=Position(tracker.start, len(tracker.batches)),
            _switches=Switches(job.resolved.phases, tracker.opens, job.seed, tracker.start, tracker.switches),
            _fresh=Fresh(job.seed),
            policy=job.policy,
            recipe=job.recipe,
            options=job.task.train_options,
            seed=job.seed,
            device=job.device.type,
            num_examples=job.facts.num_examples,
            metric=job.task.metric.rpartition(":")[2],
            resume_from=tracker.resume_from,
            _weights_read=False,
            _outcome=None,
            _is_stopped=False,
            _is_diverged=False,
            _schedulers=[],
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TrainingFunctionError(
            f"run.{name} must stay as it is: the study knows the run by it. Keep values of your own in your own names."
        )

    def __repr__(self) -> str:
        return f"<subsettune.Run seed {self.seed}, step {self._position.handed} of {self.total_steps()}>"

    # --- batches, rates, switches ----------------------------------------------------------------------------------

    def batch_sampler(self) -> BatchSampler:
        """The batches, for `torch.utils.data.DataLoader(dataset, batch_sampler=...)`: one epoch of all that are left.

        For weights of examples see `weights`, for what comes right before the first update of a phase `on_switch`.
        """
        return BatchSampler(self)

    def _watch_weights(self, weights: Iterable[torch.Tensor]) -> None:
        self._fresh.check_weights(weights)

    def _sampled(self) -> Iterator[list[int]]:
        return iter(BatchSampler(self))

    def _next(self) -> list[int] | None:
        return self._tracker.next()

    def _begin(self) -> None:
        self._fresh.check_seed()
        super()._begin()

    # --- what the function tells -----------------------------------------------------------------------------------

    def report(self, **values: float) -> None:
        """Tell a point of the learning curve: `run.report(accuracy=0.91)`, and `loss` of training if it is at hand.

        Raises:
            StopRun: the search gives the run up; let it through.
        """
        if self._is_stopped:
            raise StopRun
        known = (self.metric, LOSS)
        strange = [name for name in values if name not in known]
        if strange or self.metric not in values:
            guess = f"{did_you_mean(strange[0], known)} " if strange else ""
            raise TrainingFunctionError(
                f"run.report must get {self.metric}=..., and may get loss=..., got {', '.join(values) or 'nothing'}. "
                f"{guess}Take it from the validation split."
            )
        metric = _number(self.metric, values[self.metric])
        if not math.isfinite(metric):
            self._set(_is_diverged=True)
            raise Diverged
        self._refuse_range(self.metric, metric)
        loss = _number(LOSS, values[LOSS]) if LOSS in values else None
        if self._tracker.tell(metric, loss, self._position.made):
            self._set(_is_stopped=True)
            raise StopRun

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around measurements: their time is that of evaluation, and not of training."""
        self._tracker.watch.lap("train")
        try:
            yield
        finally:
            self._tracker.watch.lap("evaluate")

    def checkpoint(self, path: str | Path) -> None:
        """Keep a file or folder that the function has written, after an update; see `resume_from`.

        An interrupted run then goes on behind this step. Does nothing where the study keeps no checkpoints.
        """
        self._tracker.keep(Path(path), self._position.done(), self._switches.state())

    def finish(
        self,
        *,
        validation: float,
        test: float,
        model: Any = None,
        test_correct: Any = None,
        test_errors: Any = None,
    ) -> None:
        """Tell what the final weights are worth; once, and last.

        Args:
            validation: the metric on the validation split, which the search goes by.
            test: on the test split, which only verification looks at.
            model: a module, or the path of a file of weights, for whoever asked for it.
            test_correct: (n,) of a classification, which test examples are right: verification then tells how much of
                a difference may lie in the choice of test examples.
            test_errors: (n,) of a regression, what each adds to the metric, likewise.
        """
        if self._outcome is not None:
            raise TrainingFunctionError("run.finish was called twice. Call it once, when everything is measured.")
        self._position.refuse_unfinished()
        self._refuse_neglect()
        if isinstance(model, nn.Module):
            self._fresh.check_weights(model.parameters())
        self._fresh.check_seed()
        metrics = {"validation": _number("validation", validation), "test": _number("test", test)}
        if not all(map(math.isfinite, metrics.values())):
            self._set(_is_diverged=True)
            raise Diverged
        for split, value in metrics.items():
            self._refuse_range(split, value)
        each = {"test_correct": test_correct, "test_errors": test_errors}
        self._set(_outcome=Outcome.of(metrics, model, self._tracker.job.task.metric, each))

    def _refuse_range(self, name: str, value: float) -> None:
        """Refuse percentages: a tolerance would mean a hundredth of what it says."""
        known = METRICS.get(self._tracker.job.task.metric)
        if known is not None and known.is_share and (value > 1 or (known.has_steps and value < 0)):
            rule = "in [0, 1]" if known.has_steps else "1 at most"
            raise TrainingFunctionError(must(name, rule, value, f"{known.words} is a share: write 0.91 for 91 %."))

    @property
    def _cause(self) -> Cause:
        """How it ended, whatever the function made of what was raised."""
        return "stopped" if self._is_stopped else "diverged" if self._is_diverged else "finished"

    @property
    def outcome(self) -> Outcome:
        """What `finish` was told.

        Raises:
            TrainingFunctionError: it was not called.
        """
        if self._outcome is None:
            raise TrainingFunctionError(
                "the training function ended without run.finish. Call run.finish(validation=..., test=...) at its end."
            )
        return self._outcome


class BatchSampler:
    """The batches of a run, as a loader takes them: an iterable of lists of numbers, as long as what is left."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __len__(self) -> int:
        return self._run.total_steps() - self._run._position.start

    def __iter__(self) -> Iterator[list[int]]:
        run = self._run
        position = run._position
        if position.handed > position.start:
            raise TrainingFunctionError(
                f"the batches of a run can be gone through once, and {position.handed - position.start:,} have been "
                "handed out. Train one epoch: it has all the steps of the policy."
            )
        while (batch := run._hand_out()) is not None:
            yield batch


def _number(name: str, value: Any) -> float:
    """A single number, of whatever kind."""
    array = array_of(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        got = f"an array of shape {array.shape}" if array.size != 1 else repr(value)
        raise TrainingFunctionError(f"{name} must be one number, got {got}. Take the mean over the whole split.")
    return float(array.reshape(()))
