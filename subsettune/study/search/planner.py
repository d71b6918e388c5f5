"""Which point of an arm to try next: its opening, then the sampler in use, and where to go above the bound.

A planner yields plans, best first; the search takes the first that it may run. It never asks a sampler again for a
proposal that was turned down: a sampler that saw nothing new would only say the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from subsettune import former_names
from subsettune.config import FrozenDict
from subsettune.policy import FULL
from subsettune.study.search.current_model import CurrentModel
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import SearchEvidence, TrialRecord
from subsettune.study.search.problem import Known
from subsettune.study.search.sources import SOURCES, FrontierSource, Plan, SearchState
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.samplers import Sampler
from subsettune.study.spec.space import Space

_OPENING = 0.65  # place on the budget's axis of the very first trial: dear enough to have a chance
_OPENING_UP, _OPENING_DOWN = 0.9, 0.35  # of the second, as the first failed or passed
_NUM_OPENING = 2
_DESIGN_SHARE = 8  # at most one trial in so many is spent on an arm's space-filling design


class Planner:
    """Plans trials from the evidence. Holds no state but the trials it was shown.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        sampler: where new points come from.
        seed: of the search.
        known: before the first trial; None is nothing.
    """

    def __init__(
        self, space: Space, evidence: SearchEvidence, sampler: Sampler, seed: int, known: Known | None = None
    ) -> None:
        self._space = space
        self._evidence = evidence
        self._seed = seed
        self._current = CurrentModel(space, evidence, known or Known(), seed)
        self._source = SOURCES[sampler](space, evidence, self._current)

    def start(self, record: TrialRecord) -> None:
        """A trial began."""
        self._current.start()
        self._source.start(record)

    def end(self, record: TrialRecord, violation: float | None) -> None:
        """A trial ended, or is no longer awaited, `violation` short of the target; None if that is unknown."""
        self._current.end()
        self._source.end(record, violation)

    @property
    def ends(self) -> bool:
        """Whether the source ends the search when nothing pays any more."""
        return isinstance(self._source, FrontierSource)

    @property
    def proposals(self) -> int:
        """Version of what the source proposes after trials."""
        return self._source.proposals

    def model_of(self, evidence: SearchEvidence) -> CurrentModel:
        """The model of other evidence of the same search."""
        return self._current.of(evidence)

    def needs(self) -> Needs | None:
        """The model of what is known now; None before anything is."""
        return self._current.needs()

    def bound(self, arm: str) -> float:
        """Cost below which further proposals of an arm must lie; infinity while there is none."""
        if not self.ends:
            return self._evidence.bound(arm)
        needs = self.needs()
        accepted = needs.belief.accepted(arm) if needs is not None else ()
        return accepted[0].tried.cost if accepted else math.inf

    def plans(self, state: SearchState) -> Iterator[Plan]:
        """Plans for an arm, the most useful first; without end, unless the source ends the search."""
        rng = self._rng(state)
        if self.ends:
            yield from self._source.plans(state, rng)
            return
        opening = self._opening(state)
        if opening is not None:
            yield opening
        else:
            yield from self._source.plans(state, rng)
        while True:
            yield Plan(point=self._space.sample(rng, state.arm))

    def value(self, state: SearchState) -> float:
        """What the next plan for an arm is worth, to choose between arms; higher is better."""
        return self._source.value(state, self._rng(state))

    def _rng(self, state: SearchState) -> np.random.Generator:
        return np.random.default_rng([self._seed, state.number])

    def below(self, point: FrozenDict, bound: float) -> FrozenDict | None:
        """The point moved to the same place of the budgets below a bound; None if there are none."""
        axis = self._space["budget"]
        place = axis.to_unit(point["budget"])
        if axis.kind == "float":
            top = axis.to_unit(bound) if axis.lo < bound else 0.0
            budget = axis.from_unit(place * top)
        else:
            values = axis.values or tuple(range(int(axis.lo), int(axis.hi) + 1))
            cheaper = sorted(value for value in values if value < bound)
            budget = cheaper[min(int(place * len(cheaper)), len(cheaper) - 1)] if cheaper else math.inf
        return FrozenDict(point | {"budget": budget}) if budget < bound else None

    def _opening(self, state: SearchState) -> Plan | None:
        if state.arm == FULL and state.num_in_arm < _NUM_OPENING:
            return self._middle(state)
        axes = [axis for axis in self._space.axes(state.arm) if not axis.is_single and axis.name != "budget"]
        first = _NUM_OPENING if state.arm == FULL else 0
        size = min(len(axes), state.trials // _DESIGN_SHARE)
        if first <= state.num_in_arm < first + size:
            return self._design(state, state.num_in_arm - first, size)
        return None

    def _middle(self, state: SearchState) -> Plan:
        """The usual values of everything else, and a budget by bisection."""
        place = _OPENING
        if state.num_in_arm:
            seen = [tried for tried in self._evidence if tried.arm == FULL and tried.scores]
            passed = bool(seen) and seen[0].mean >= self._evidence.target
            place = _OPENING_DOWN if passed else _OPENING_UP
        budget = self._space["budget"].from_unit(place)
        return Plan(point=self._space.point(FULL, lambda a: budget if a.name == "budget" else a.default))

    def _design(self, state: SearchState, index: int, size: int) -> Plan:
        """One row of a Latin hypercube; budgets about the cheapest that passed, where trials tell most."""
        passed = [self._space["budget"].to_unit(t.point["budget"]) for t in self._evidence.passed()]
        top = min(passed, default=1.0)

        def value_of(axis: Coordinate) -> object:
            name = f"{state.arm}:{former_names.former_coordinate(axis.name)}"
            rng = np.random.default_rng([self._seed, *hashlib.sha256(name.encode()).digest()])
            place = (rng.permutation(size)[index] + rng.random(size)[index]) / size
            return axis.from_unit(top * (0.5 + 0.5 * place) if axis.name == "budget" else place)

        return Plan(point=self._space.point(state.arm, value_of))
