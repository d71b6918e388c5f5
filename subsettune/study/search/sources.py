"""Where the plans of an arm come from once it has opened: one source for each sampler that a study may name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from subsettune.config import FrozenDict
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.frontier import Frontier, Offer, Request
from subsettune.study.search.observations import PolicyObservations, SearchEvidence, TrialRecord
from subsettune.study.search.samplers import ArmSampler, GPArmSampler, TPEArmSampler
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.samplers import Sampler
from subsettune.study.spec.space import Space

_EXPLORE_EVERY = 16  # one trial in so many of an arm does not ask the model, in case it is wrong; more often cost 5 %
_EXPLORE_SHARE = 0.35  # probability that such a trial draws a coordinate anew
_IMPROVE_EVERY = 2  # one trial in so many looks for what scores higher, rather than for what passes at less
_CLOSING_SHARE = 0.15  # last share of the trials, in which every sampler gives way to repeats that can settle the best


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


class CurrentFrontier:
    """The model of what is known now, fitted when it is asked for.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
    """

    def __init__(self, space: Space, evidence: SearchEvidence) -> None:
        self._encoding = Encoding(space)
        self._evidence = evidence
        self._fitted: Frontier | None = None

    def forget(self) -> None:
        """Something was learnt."""
        self._fitted = None

    def get(self) -> Frontier | None:
        """The model; None before anything ended."""
        if self._fitted is None and any(t.scores or t.optimistic or t.num_lost for t in self._evidence):
            self._fitted = Frontier(self._encoding, self._evidence)
        return self._fitted

    def request(self, state: SearchState, frontier: Frontier) -> Request:
        """What is wanted of the model for an arm."""
        accepted = frontier.accepted(None if state.rival else state.arm)
        return Request(
            arm=state.arm,
            bound=self._evidence.bound(state.arm),
            best=accepted[0].tried.cost if accepted else math.inf,
            may_be_new=state.remaining > 1 or self._evidence.is_noise_free,
        )


class PlanSource(ABC):
    """A sampler: proposes points to try, and says what the next one is worth.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        current: the model of it.
    """

    def __init__(self, space: Space, evidence: SearchEvidence, current: CurrentFrontier) -> None:
        self._space = space
        self._evidence = evidence
        self._current = current

    def start(self, record: TrialRecord) -> None:  # noqa: B027 - most sources need not know
        """A trial began."""

    def end(self, record: TrialRecord, violation: float | None) -> None:  # noqa: B027
        """A trial ended, or is no longer awaited, `violation` short of the target; None if that is unknown."""

    @abstractmethod
    def plans(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        """A few plans for an arm, the most useful first."""

    def value(self, state: SearchState, rng: np.random.Generator) -> float:
        """What the next plan for an arm is worth; higher is better."""
        passed = (tried.cost for tried in self._evidence.passed(state.arm))
        return -min(passed, default=math.inf)


class FrontierSource(PlanSource):
    """This package's own model of the frontier between feasible and infeasible policies."""

    def plans(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        """Now and then a look elsewhere; then what moves the frontier most."""
        frontier = self._current.get()
        if frontier is None:
            return
        request = self._current.request(state, frontier)
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

    def value(self, state: SearchState, rng: np.random.Generator) -> float:
        """What the best offer is worth."""
        frontier = self._current.get()
        if frontier is None:
            return super().value(state, rng)
        offers = frontier.offers(self._current.request(state, frontier), rng)
        return next((offer.value for offer in offers), 0.0)


class SampledSource(PlanSource):
    """Points from a sampler that knows nothing of repeats, and repeats beside it.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        current: the model of it.
        kind: of the sampler, one for each arm; None for points drawn evenly.
    """

    def __init__(
        self,
        space: Space,
        evidence: SearchEvidence,
        current: CurrentFrontier,
        kind: type[ArmSampler] | None = None,
    ) -> None:
        super().__init__(space, evidence, current)
        self._samplers = {arm: kind(space, arm) for arm in space.arms} if kind is not None else {}
        self._running: dict[int, TrialRecord] = {}

    def start(self, record: TrialRecord) -> None:
        """A trial began."""
        self._running[record.number] = record

    def end(self, record: TrialRecord, violation: float | None) -> None:
        """A trial ended, or is no longer awaited, `violation` short of the target; None if that is unknown."""
        self._running.pop(record.number, None)
        if violation is not None and self._samplers:
            self._samplers[record.arm].add(record, violation)

    def plans(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        """Repeats that can settle what is best; then the sampler's point, if there is a sampler."""
        if not self._evidence.is_noise_free:
            closing = state.remaining <= min(_CLOSING_SHARE * state.trials, 15)
            if closing and (frontier := self._current.get()) is not None:
                request = replace(self._current.request(state, frontier), may_be_new=False)
                yield from (_plan(offer) for offer in frontier.offers(request, rng) if offer.repeats is not None)
            hopeful = self._evidence.hopeful(state.arm)
            if hopeful is not None:
                yield Plan(point=hopeful.point, repeats=hopeful)
        if self._samplers:
            running = [record for record in self._running.values() if record.arm == state.arm]
            yield Plan(point=self._samplers[state.arm].propose(running, int(rng.integers(2**31))))


SOURCES: Mapping[Sampler, Callable[[Space, SearchEvidence, CurrentFrontier], PlanSource]] = {
    "frontier": FrontierSource,
    "gp": partial(SampledSource, kind=GPArmSampler),
    "tpe": partial(SampledSource, kind=TPEArmSampler),
    "random": SampledSource,
}


def _plan(offer: Offer) -> Plan:
    return Plan(point=offer.point, repeats=offer.repeats)
