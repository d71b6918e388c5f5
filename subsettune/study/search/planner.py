"""Which point of an arm to try next: the opening, the sampler in use, repeats, and where to go above the bound.

A planner yields plans without end, best first; the search takes the first that it may run. It never asks a sampler
again for a proposal that was turned down: a sampler that saw nothing new would only say the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from subsettune.config import FrozenDict
from subsettune.policy import FULL
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.frontier import Frontier, Offer, Request
from subsettune.study.search.observations import PolicyObservations, SearchEvidence, TrialRecord
from subsettune.study.search.samplers import ArmSampler
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.samplers import Sampler
from subsettune.study.spec.space import Space

_OPENING = 0.65  # place on the budget's axis of the very first trial: dear enough to have a chance
_OPENING_UP, _OPENING_DOWN = 0.9, 0.35  # of the second, as the first failed or passed
_NUM_OPENING = 2
_EXPLORE_EVERY = 16  # one trial in so many of an arm does not ask the model, in case it is wrong; more often cost 5 %
_EXPLORE_SHARE = 0.35  # probability that such a trial draws a coordinate anew
_IMPROVE_EVERY = 2  # one trial in so many looks for what scores higher, rather than for what passes at less
_CLOSING_SHARE = 0.15  # last share of the trials, in which every sampler gives way to repeats that can settle the best
_DESIGN_SHARE = 8  # at most one trial in so many is spent on an arm's space-filling design


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A point to try; `repeats` is the policy it repeats with another seed, if any."""

    point: FrozenDict
    repeats: PolicyObservations | None = None

    @property
    def confirms(self) -> int | None:
        """Number of the first trial of the policy it repeats."""
        return self.repeats.first if self.repeats is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchState:
    """Where the search stands.

    Args:
        arm: to plan for.
        num_in_arm: trials issued in that arm.
        remaining: trials left, the one being planned included.
        trials: of the whole search.
        number: of the trial being planned; seeds its random choices.
        rival: whether the other arm's best is the cost to beat, too.
    """

    arm: str
    num_in_arm: int
    remaining: int
    trials: int
    number: int
    rival: bool = False


class Planner:
    """Plans trials from the evidence. Holds no state but the trials it was shown.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        source: where new points come from.
        seed: of the search.
    """

    def __init__(self, space: Space, evidence: SearchEvidence, source: Sampler, seed: int) -> None:
        self._space = space
        self._evidence = evidence
        self._source = source
        self._seed = seed
        self._encoding = Encoding(space)
        self._frontier: Frontier | None = None
        self._samplers: dict[str, ArmSampler] = {}
        self._running: dict[int, TrialRecord] = {}
        if source in ("gp", "tpe"):
            kind: Literal["gp", "tpe"] = "gp" if source == "gp" else "tpe"
            self._samplers = {arm: ArmSampler(kind, space, arm) for arm in space.arms}

    def start(self, record: TrialRecord) -> None:
        """A trial began, or is no longer awaited."""
        self._frontier = None
        self._running[record.number] = record

    def end(self, record: TrialRecord, violation: float | None) -> None:
        """A trial ended, `violation` short of the target; None if that is unknown."""
        self._frontier = None
        self._running.pop(record.number, None)
        if violation is not None and self._samplers:
            self._samplers[record.arm].add(record, violation)

    def frontier(self) -> Frontier | None:
        """The model of what is known now; None before anything ended."""
        if self._frontier is None and any(t.scores or t.optimistic or t.num_lost for t in self._evidence):
            self._frontier = Frontier(self._encoding, self._evidence)
        return self._frontier

    def plans(self, state: SearchState) -> Iterator[Plan]:
        """Plans for an arm, the most useful first, without end."""
        rng = np.random.default_rng([self._seed, state.number])
        opening = self._opening(state)
        if opening is not None:
            yield opening
        elif self._source == "frontier":
            yield from self._by_frontier(state, rng)
        else:
            yield from self._by_sampler(state, rng)
        while True:
            yield Plan(point=self._space.sample(rng, state.arm))

    def value(self, state: SearchState) -> float:
        """What the next plan for an arm is worth, to choose between arms; higher is better."""
        if self._source == "frontier" and (frontier := self.frontier()) is not None:
            rng = np.random.default_rng([self._seed, state.number])
            return next((offer.value for offer in frontier.offers(self._request(state, frontier), rng)), 0.0)
        passed = (t.cost for t in self._evidence.passed(state.arm))
        return -min(passed, default=math.inf)

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
            rng = np.random.default_rng([self._seed, *hashlib.sha256(f"{state.arm}:{axis.name}".encode()).digest()])
            place = (rng.permutation(size)[index] + rng.random(size)[index]) / size
            return axis.from_unit(top * (0.5 + 0.5 * place) if axis.name == "budget" else place)

        return Plan(point=self._space.point(state.arm, value_of))

    def _request(self, state: SearchState, frontier: Frontier) -> Request:
        accepted = frontier.accepted(None if state.rival else state.arm)
        return Request(
            arm=state.arm,
            bound=self._evidence.bound(state.arm),
            best=accepted[0].tried.cost if accepted else math.inf,
            may_be_new=state.remaining > 1 or self._evidence.is_noise_free,
        )

    def _by_frontier(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        frontier = self.frontier()
        if frontier is None:
            return
        request = self._request(state, frontier)
        if state.num_in_arm % _EXPLORE_EVERY == _EXPLORE_EVERY - 1 and request.may_be_new:
            yield self._exploring(state, frontier, rng)
        elif self._is_time_to_improve(state):
            yield from map(_plan, frontier.improvers(request, rng))
        yield from map(_plan, frontier.offers(request, rng))

    def _is_time_to_improve(self, state: SearchState) -> bool:
        """Noise makes shaving the budget of the policy at hand look better than it is; without noise it is the best."""
        is_turn = state.num_in_arm % _IMPROVE_EVERY == 0 and not self._evidence.is_noise_free
        return is_turn and state.remaining > _CLOSING_SHARE * state.trials

    def _exploring(self, state: SearchState, frontier: Frontier, rng: np.random.Generator) -> Plan:
        """The most promising policy of the arm with some of its coordinates drawn anew, at about its budget.

        All drawn anew would nearly always be hopeless, and tell nothing of the frontier.
        """
        base = frontier.leader(state.arm)
        if base is None:
            return Plan(point=self._space.sample(rng, state.arm))
        axes = [axis for axis in self._space.axes(state.arm) if not axis.is_single and axis.name != "budget"]
        drawn = {axis.name for axis in axes if rng.random() < _EXPLORE_SHARE}
        drawn |= {axes[int(rng.integers(len(axes)))].name} if axes else set()

        def value_of(axis: Coordinate) -> object:
            place = float(rng.random())
            if axis.name == "budget":
                top = axis.to_unit(base["budget"])
                return axis.from_unit(top * (0.8 + 0.2 * place))
            return axis.from_unit(place) if axis.name in drawn or axis.name not in base else base[axis.name]

        return Plan(point=self._space.point(state.arm, value_of))

    def _by_sampler(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        if not self._evidence.is_noise_free:
            closing = state.remaining <= min(_CLOSING_SHARE * state.trials, 15)
            if closing and (frontier := self.frontier()) is not None:
                request = replace(self._request(state, frontier), may_be_new=False)
                yield from (_plan(offer) for offer in frontier.offers(request, rng) if offer.repeats is not None)
            hopeful = self._evidence.hopeful(state.arm)
            if hopeful is not None:
                yield Plan(point=hopeful.point, repeats=hopeful)
        if self._samplers:
            running = [record for record in self._running.values() if record.arm == state.arm]
            yield Plan(point=self._samplers[state.arm].propose(running, int(rng.integers(2**31))))


def _plan(offer: Offer) -> Plan:
    return Plan(point=offer.point, repeats=offer.repeats)
