"""Which budget each policy needs: the least one at which it reaches the target, read off the process.

A policy without its budget is called a *manner*: all coordinates but one. For each manner the process gives its *need*,
with an error. Trials that run count as having come out as expected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from subsettune.config import FrozenDict
from subsettune.study.search.belief import Belief
from subsettune.study.search.kernel import Array
from subsettune.study.search.places import manner

_NUM_STEPS = 3  # of Newton's, to where the mean is 0


class Needs:
    """What manners need, at one moment of the search.

    Args:
        belief: in what the trials that ended have shown. The trials that run are taken from its evidence now; once
            another one has begun, the needs are others.
    """

    def __init__(self, belief: Belief) -> None:
        self.belief = belief
        self.places, self.evidence = belief.places, belief.evidence
        running = [tried for tried in self.evidence for _ in range(tried.num_running)]
        self.expected = belief.process.condition(self.places.rows(running)) if running else belief.process
        self._leaders: dict[str, tuple[Array, Array]] = {}
        self._tried: dict[str, tuple[Array, Array]] = {}

    def of(self, units: Array, arm: str, start: float) -> Array:
        """(m,) log of the budgets at which manners reach the target in the mean, up to an e-fold outside the space.

        Args:
            units: (m, axes of the arm) places; that of the budget is not looked at.
            arm: theirs.
            start: log of the budget from which it is looked for.
        """
        low, high = self.places.ends
        columns, t = self.places.encode(units, arm), np.full(len(units), start)
        for _ in range(_NUM_STEPS):
            t = np.clip(t - self.expected.mean(self.places.at(columns, t)), low - 1.0, high + 1.0)
        return t

    def of_point(self, point: FrozenDict, arm: str) -> float:
        """The budget that the manner of a point needs, in the mean; within the space."""
        units = self.places.units(point, arm)[None, :]
        low, high = self.places.ends
        return math.exp(min(max(float(self.of(units, arm, 0.5 * (low + high))[0]), low), high))

    def leaders(self, arm: str) -> tuple[Array, Array]:
        """Places of the manners of an arm, tried here or in earlier studies, and the log of what they need.

        The one that needs least is first.
        """
        if arm not in self._leaders:
            told = [trial.point for study in self.places.known.earlier for trial in study.trials if trial.arm == arm]
            self._leaders[arm] = self._by_need([*self._points(arm), *told], arm) if told else self.tried(arm)
        return self._leaders[arm]

    def tried(self, arm: str) -> tuple[Array, Array]:
        """Likewise, of those that were tried in this study."""
        if arm not in self._tried:
            self._tried[arm] = self._by_need(self._points(arm), arm)
        return self._tried[arm]

    def _points(self, arm: str) -> list[FrozenDict]:
        return [t.point for t in self.belief.known if t.arm == arm and t.scores and not t.num_lost]

    def _by_need(self, points: Sequence[FrozenDict], arm: str) -> tuple[Array, Array]:
        manners: dict[FrozenDict, Array] = {}
        for point in points:
            manners.setdefault(manner(point), self.places.units(point, arm))
        if not manners:
            return np.empty((0, len(self.places.space.axes(arm)))), np.empty(0)
        units = np.stack(list(manners.values()))
        needs = self.of(units, arm, self.places.ends[1] - 1.0) + self.places.edge_price(units, arm)
        order = np.argsort(needs, kind="stable")
        return units[order], needs[order]

    def least(self, arm: str) -> float:
        """The least budget that a manner tried in an arm needs, in the mean; infinity if none was."""
        needs = self.leaders(arm)[1] if arm in self.places.space.arms else np.empty(0)
        return math.exp(float(needs[0])) if len(needs) else math.inf
