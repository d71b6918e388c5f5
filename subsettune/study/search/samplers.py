"""Optuna's samplers as a source of new points, one view of the study per arm.

A sampler sees the trials of one arm with that arm's coordinates alone, so its joint model is not diluted by coordinates
that the arm ignores. It is made anew for every proposal with a seed of its own: then a search continued from its
journal proposes what the uninterrupted one would have.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from subsettune.config import FrozenDict
from subsettune.former_names import former_coordinate
from subsettune.study.search.journal import decode, distribution, encode, quiet
from subsettune.study.search.observations import TrialRecord
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space

_NUM_STARTUP = 5  # trials of an arm that precede the sampler's model


class ArmSampler(ABC):
    """Proposes points of one arm by an Optuna sampler.

    Args:
        space: of the search.
        arm: whose points it proposes.
    """

    draws_inactive: ClassVar[bool]
    """Whether every coordinate is always drawn, and ignored while inactive."""

    def __init__(self, space: Space, arm: str) -> None:
        self._space = space
        self._arm = arm
        self._axes = [axis for axis in space.axes(arm) if not axis.is_single]
        with quiet():
            self._view = optuna.create_study(direction="minimize")

    def add(self, record: TrialRecord, violation: float) -> None:
        """A trial of the arm ended; a stopped or diverged one counts with its full cost and a violated constraint."""
        self._view.add_trial(
            create_trial(
                params=self._params(record.point),
                distributions=self._distributions(record.point),
                value=math.log(record.cost),
                constraints={"accuracy": violation},
            )
        )

    def propose(self, running: Sequence[TrialRecord], seed: int) -> FrozenDict:
        """A new point, given the trials of the arm that still run."""
        with quiet():
            first = len(self._view.get_trials(deepcopy=False))
            self._view.sampler = RandomSampler(seed=seed)  # the trials below are given their values
            for record in running:
                self._view.enqueue_trial(self._params(record.point))
                self._view.ask(self._distributions(record.point))
            self._view.sampler = self._sampler(seed)
            trial = self._view.ask()
            point = self._space.point(self._arm, lambda axis: self._suggest(trial, axis))
            self._draw_inactive(trial, point)
            for number in range(first, trial.number + 1):
                self._view.tell(number, state=TrialState.FAIL)
        return point

    def _suggest(self, trial: optuna.Trial, axis: Coordinate) -> Any:
        return axis.values[0] if axis.is_single and axis.values else decode(axis, _ask(trial, axis))

    def _draw_inactive(self, trial: optuna.Trial, point: FrozenDict) -> None:
        if self.draws_inactive:
            for axis in self._axes:
                if axis.name not in point:
                    _ask(trial, axis)

    def _params(self, point: FrozenDict) -> dict[str, Any]:
        kept = [axis for axis in self._axes if axis.name in point or self.draws_inactive]
        return {former_coordinate(axis.name): encode(point.get(axis.name, axis.default)) for axis in kept}

    def _distributions(self, point: FrozenDict) -> dict[str, BaseDistribution]:
        kept = [axis for axis in self._axes if axis.name in point or self.draws_inactive]
        return {former_coordinate(axis.name): distribution(axis) for axis in kept}

    @abstractmethod
    def _sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler for one proposal."""


class GPArmSampler(ArmSampler):
    """Optuna's Gaussian process, which has no conditional coordinates."""

    draws_inactive = True

    def _sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=_NUM_STARTUP, warn_independent_sampling=False)


class TPEArmSampler(ArmSampler):
    """Optuna's tree-structured Parzen estimator."""

    draws_inactive = False

    def _sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed, n_startup_trials=_NUM_STARTUP, multivariate=True, group=True, constant_liar=True)


def _ask(trial: optuna.Trial, axis: Coordinate) -> Any:
    name = former_coordinate(axis.name)  # Optuna draws in the order of names, so that these decide what is drawn
    if axis.kind == "float":
        return trial.suggest_float(name, axis.lo, axis.hi, log=axis.log)
    if axis.kind == "int":
        return trial.suggest_int(name, int(axis.lo), int(axis.hi), log=axis.log)
    return trial.suggest_categorical(name, [encode(value) for value in axis.values])
