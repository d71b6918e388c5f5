"""Measuring a run while it goes on: points of its learning curve, of its switches, and the final weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from subsettune.config import FrozenDict
from subsettune.train import metrics
from subsettune.train.account import Stopwatch
from subsettune.train.job import RunJob
from subsettune.train.learner import Learner
from subsettune.train.objective import positive_class
from subsettune.train.options import RunOptions
from subsettune.train.result import CurvePoint, SwitchPoint, finite_or_none
from subsettune.train.run_state import RunState

Report = Callable[[CurvePoint], bool]


class Evaluator:
    """Measures the network of a run as it stands, charges it, and writes the points into the run's state.

    Args:
        job: of the run.
        options: which splits, and how many points.
        learner: whose network is measured.
        state: of the run.
        watch: to which the time is charged.
        report: called with each point of the learning curve; True stops the run.
    """

    def __init__(
        self,
        job: RunJob,
        options: RunOptions,
        learner: Learner,
        state: RunState,
        watch: Stopwatch,
        report: Report | None,
    ) -> None:
        self.job, self.options, self.learner, self.state, self.watch = job, options, learner, state, watch
        self._report, self._total = report, job.resolved.total
        self._next = 0  # FLOPs at which the next point of the curve is due

    @property
    def splits(self) -> tuple[str, ...]:
        """That the final weights are measured on, validation first; none where nothing is measured."""
        if not self.options.measure_metrics:
            return ()
        return ("validation", *(split for split in self.options.splits if split != "validation"))

    def plan(self) -> None:
        """Plan the next point of the curve after what is spent so far; the last one is that of the final weights."""
        self._next = -(-(self._points_due + 1) * self._total // self.options.evaluations)

    @property
    def is_due(self) -> bool:
        """Whether a point of the curve is due that is not the last."""
        return self._next <= self.state.account.spent < self._total

    @property
    def _points_due(self) -> int:
        return self.state.account.spent * self.options.evaluations // self._total

    def measure(self, split: str) -> float:
        """The task's metric on a split; NaN if an output is not finite. Of the test split it keeps every example's."""
        part, name = getattr(self.job.data, split), self.job.task.metric
        outputs, targets = self.learner.predictions(part)
        data = self.job.data
        value = metrics.metric(
            name, outputs, targets, data.num_outputs, positive_class(self.job.task, data.class_names)
        )
        if split == "test" and math.isfinite(value):
            self.state.test_examples = metrics.contributions(name, outputs, targets)
        self._charge(len(part))
        return value

    def tell(self, metric: float | None) -> bool:
        """Add a point with a metric of the validation split to the curve; returns whether the caller stops the run."""
        return self._add(self._points_due / self.options.evaluations, metric)

    def tell_again(self) -> bool:
        """Tell the last point of before an interruption once more; whether the caller stops the run, maybe again."""
        return bool(self.state.curve) and self._report is not None and self._report(self.state.curve[-1])

    def tell_last(self, metric: float) -> None:
        """Add the point of the final weights, which nobody can stop."""
        self._add(1.0, metric)

    def _add(self, share: float, metric: float | None) -> bool:
        account, seconds = self.state.account, self.state.seconds
        point = CurvePoint(
            share=share,
            flops=account.spent,
            phase=self.state.phase,
            metric=metric,
            loss=self.learner.take_loss(),
            seconds=seconds["train"] + seconds["select"],
            select=account.selected,
            forward=account.forward,
        )
        self.state.curve.append(point)
        stop = self._report(point) if self._report is not None else False
        self.watch.lap("other")
        return stop

    def measure_switch(self, metrics: Mapping[str, float] | None = None) -> None:
        """Note losses and metrics of the weights as the phase of the last update leaves them.

        Args:
            metrics: by split, as far as they are known; None to measure them.
        """
        metrics = {split: self.measure(split) for split in self.splits} if metrics is None else metrics
        phase, pool = self.state.trained
        num_examples = self.job.facts.num_examples
        pool_loss, train_loss = self.learner.losses(pool)
        self._charge(num_examples)
        self.state.switch_points.append(
            SwitchPoint(
                phase=phase,
                share=self.state.account.spent / self._total,
                flops=self.state.account.spent,
                pool_size=num_examples if pool is None else len(pool),
                pool_loss=finite_or_none(pool_loss),
                train_loss=finite_or_none(train_loss),
                metrics=FrozenDict({split: finite_or_none(metrics[split]) for split in self.splits}),
            )
        )

    def kept(self) -> dict[str, Any]:
        """What is kept of the examples of the test split: fields of `RunResult`; none if it was not measured."""
        each = self.state.test_examples
        if each is None or "test" not in self.splits:
            return {}
        if each.dtype == torch.bool:
            return {"num_test": len(each), "test_correct": np.packbits(each.numpy()).tobytes()}
        return {"num_test": len(each), "test_errors": each.numpy().astype("<f4").tobytes()}

    def _charge(self, num_examples: int) -> None:
        """Charge forward passes of the network as it stands: before its transition, that of the phase before."""
        phase = self.state.phase - 1 if self.state.entering else self.state.phase
        self.state.account.evaluated += num_examples * self.job.resolved.phases[phase].facts.forward_flops
        self.watch.lap("evaluate")
