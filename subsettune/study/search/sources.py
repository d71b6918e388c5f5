"""Where the plans of an arm come from once it has opened: one source for each sampler that a study may name."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from subsettune.config import FrozenDict
from subsettune.policy import FULL, SUBSET
from subsettune.study.search.belief import SEEDS
from subsettune.study.search.checks import checks, repeats
from subsettune.study.search.current_model import CurrentModel
from subsettune.study.search.journal import FIRST_PROPOSALS
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import PolicyObservations, SearchEvidence, TrialRecord
from subsettune.study.search.offers import Wish
from subsettune.study.search.probes import probes
from subsettune.study.search.recipe_point import nearest, nearest_budget, recipe_point
from subsettune.study.search.samplers import ArmSampler, GPArmSampler, TPEArmSampler
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.samplers import Sampler
from subsettune.study.spec.space import Space

_NUM_RECIPE = 2  # trials of the unchanged recipe that open the full arm
_FULL_DESIGN, _SUBSET_DESIGN = 12, 4  # at most one trial in so many is spent on an arm's design
_CLOSER = 0.6  # of what the recipe seems to need after one look: the budget of the second
_TOLD_SHARE = 0.5  # of the coordinates: a design where earlier studies tell as much; without any a misled search ends
_CHEAP = 0.33  # of what the recipe needs: the budget of a design
_HYPER_WIDTH = 0.8  # e-folds; standard deviation of a design's hyperparameters about the recipe's
_NEARLY = 1.1  # of what a subset seems to need: a shorter schedule that costs more than this is not improved on
_RESERVE = 5  # trials that are kept for the checks of an arm of which no policy is accepted
_CLOSING_SHARE = 0.15  # last share of the trials, in which every sampler gives way to repeats that can settle the best
_MAX_CLOSING = 15  # trials of that share


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A point to try.

    Args:
        point: of the space.
        repeats: the policy that it repeats with another seed, if any.
        value: what it gains, net of what it costs; 0 where the source does not say.
        is_probe: whether it is not expected to reach the target.
    """

    point: FrozenDict
    repeats: PolicyObservations | None = None
    value: float = 0.0
    is_probe: bool = False

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
        must: whether the arm gets a trial even if none of it pays.
    """

    arm: str
    num_in_arm: int
    remaining: int
    trials: int
    number: int
    rival: bool = False
    must: bool = False


class PlanSource(ABC):
    """A sampler: proposes points to try, and says what the next one is worth.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        current: the model of it.
    """

    proposals: ClassVar[int] = FIRST_PROPOSALS
    """Raised when, after the same trials, others are proposed than before; see `Journal`."""

    def __init__(self, space: Space, evidence: SearchEvidence, current: CurrentModel) -> None:
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
    """This package's own model of what each policy needs (`needs`).

    It begins cheap: the unchanged recipe at two budgets, then an arm's design at a fraction of what the recipe needs,
    where every category is met. From then on probes, while they pay and trials are left to check what they find, and
    checks. It ends when nothing pays. Of an arm of which earlier studies tell as much as its design would, a smaller
    design and one look at the recipe are left: by them it is seen whether what was told holds here.
    """

    def plans(self, state: SearchState, rng: np.random.Generator) -> Iterator[Plan]:
        """The opening, the design, then what gains most."""
        if state.arm == FULL and state.num_in_arm < self._num_recipe(state):
            yield self._recipe(state)
        needs = self._current.needs()
        design = self._design(state, needs)
        if design is not None:
            yield design
        if needs is None:
            while True:
                yield Plan(point=self._space.sample(rng, state.arm), value=math.inf)
        wish = self._wish(state, needs)
        offers = []
        if state.must or state.remaining > self._reserve(state, needs):
            offers = [(offer, 1.0) for offer in probes(needs, wish, rng)]
        offers += [(offer, 0.0) for offer in checks(needs, wish, rng)]
        for offer, first in offers:
            value = offer.value + first
            yield Plan(point=offer.point, repeats=offer.repeats, value=value, is_probe=offer.is_probe)

    def _wish(self, state: SearchState, needs: Needs) -> Wish:
        is_control = state.arm == FULL and bool(needs.belief.accepted(FULL))  # of that, one is wanted in any case
        is_rival = state.arm != FULL or is_control
        accepted = needs.belief.accepted(None if is_rival else state.arm)
        best = accepted[0].tried.cost if accepted else math.inf
        return Wish(
            arm=state.arm,
            best=min(accepted[0].tried.cost, _NEARLY * needs.least(SUBSET)) if accepted and is_control else best,
            is_rival=is_rival and not state.must,
            may_be_new=state.remaining >= SEEDS or self._evidence.is_noise_free,
            must=state.must,
        )

    def _reserve(self, state: SearchState, needs: Needs) -> int:
        """Trials that are kept for checks."""
        if self._evidence.is_noise_free:
            return 1
        open_ = sum(not needs.belief.accepted(arm) for arm in self._space.arms)
        return min(_RESERVE * open_ + 2, state.trials // 2)

    def _recipe(self, state: SearchState) -> Plan:
        """The unchanged recipe, at a budget in the middle, then nearer to what it needs."""
        axis, needs = self._space["budget"], self._current.needs()
        point = recipe_point(self._space, self._current.known, axis.from_unit(0.5))
        if state.num_in_arm:
            tried = self._evidence.find(point)
            is_seen = tried is not None and bool(tried.scores)
            need = _CLOSER * needs.of_point(point, FULL) if needs is not None and is_seen else axis.from_unit(0.7)
            point = FrozenDict(point | {"budget": nearest_budget(axis, need)})
        return Plan(point=point, value=math.inf)

    def _design(self, state: SearchState, needs: Needs | None) -> Plan | None:
        """One row of a Latin hypercube over all but the budget, at a fraction of what the recipe needs."""
        size = self._design_size(state, is_told=self._is_told(state))
        index = state.num_in_arm - (self._num_recipe(state) if state.arm == FULL else 0)
        if not 0 <= index < size:
            return None
        budget = self._space["budget"]
        recipe = recipe_point(self._space, self._current.known, budget.from_unit(0.5))
        need = needs.of_point(recipe, FULL) if needs is not None else budget.from_unit(0.65)

        def value_of(axis: Coordinate) -> object:
            if axis.name == "budget":
                return nearest_budget(axis, _CHEAP * need)
            digest = hashlib.sha256(f"{state.arm}:{axis.name}".encode()).digest()
            rng = np.random.default_rng([self._current.seed, *digest])
            place = (rng.permutation(size)[index] + rng.random(size)[index]) / size
            return axis.from_unit(self._near_recipe(axis, place))

        return Plan(point=self._space.point(state.arm, value_of), value=math.inf, is_probe=True)

    def _free_axes(self, arm: str) -> list[Coordinate]:
        """The coordinates of an arm, but the budget, that have something to choose."""
        return [axis for axis in self._space.axes(arm) if not axis.is_single and axis.name != "budget"]

    def _design_size(self, state: SearchState, *, is_told: bool = False) -> int:
        """As many as there are coordinates, or half of them, or else categories of one, as far as trials go round."""
        axes = self._free_axes(state.arm)
        num_axes = math.ceil(_TOLD_SHARE * len(axes)) if is_told else len(axes)
        most = state.trials // (_FULL_DESIGN if state.arm == FULL else _SUBSET_DESIGN)
        return min(max([num_axes, *(len(axis.values) for axis in axes)]), most)

    def _num_recipe(self, state: SearchState) -> int:
        return 1 if self._is_told(state) else _NUM_RECIPE

    def _is_told(self, state: SearchState) -> bool:
        """Whether earlier studies ran as many trials of an arm as its design here has, and met every category."""
        told = [t.point for study in self._current.known.earlier for t in study.trials if t.arm == state.arm]
        met = {axis.name: {point.get(axis.name) for point in told} for axis in self._free_axes(state.arm)}
        has_met = all(met[axis.name] >= set(axis.values) for axis in self._free_axes(state.arm))
        return has_met and len(told) >= max(self._design_size(state), 1)

    def _near_recipe(self, axis: Coordinate, place: float) -> float:
        """A place of a hyperparameter about the recipe's, within an e-fold mostly; of other axes, as it is."""
        recipe = self._current.known.recipe
        if axis.name not in recipe or axis.kind == "choice" or not axis.log:
            return place
        centre = axis.to_unit(nearest(axis, recipe[axis.name]))
        width = _HYPER_WIDTH / math.log(axis.hi / axis.lo)
        low, high = ndtr(-centre / width), ndtr((1 - centre) / width)
        return float(np.clip(centre + width * ndtri(low + place * (high - low)), 0.0, 1.0))


class SampledSource(PlanSource):
    """Points from a sampler that knows nothing of repeats, and repeats beside it.

    Args:
        space: to search.
        evidence: shared with the search, which fills it.
        current: the model of it.
        kind: of the sampler, one for each arm; None for points drawn evenly.
    """

    proposals = 2  # the closing repeats are those of `checks`

    def __init__(
        self,
        space: Space,
        evidence: SearchEvidence,
        current: CurrentModel,
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
            if state.remaining <= min(_CLOSING_SHARE * state.trials, _MAX_CLOSING):
                yield from self._repeats(state)
            hopeful = self._evidence.hopeful(state.arm)
            if hopeful is not None:
                yield Plan(point=hopeful.point, repeats=hopeful)
        if self._samplers:
            running = [record for record in self._running.values() if record.arm == state.arm]
            yield Plan(point=self._samplers[state.arm].propose(running, int(rng.integers(2**31))))

    def _repeats(self, state: SearchState) -> Iterator[Plan]:
        """Repeats that pay, the best first."""
        needs = self._current.needs()
        if needs is None:
            return
        accepted = needs.belief.accepted(None if state.rival else state.arm)
        best = accepted[0].tried.cost if accepted else math.inf
        for offer in repeats(needs, Wish(arm=state.arm, best=best, is_rival=state.rival)):
            yield Plan(point=offer.point, repeats=offer.repeats, value=offer.value)


SOURCES: Mapping[Sampler, Callable[[Space, SearchEvidence, CurrentModel], PlanSource]] = {
    "frontier": FrontierSource,
    "gp": partial(SampledSource, kind=GPArmSampler),
    "tpe": partial(SampledSource, kind=TPEArmSampler),
    "random": SampledSource,
}
