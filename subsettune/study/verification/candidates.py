"""Which policies verification tests, and in which order: by what they are expected to save.

The search ends at the budget that just reaches the target on the validation split. A policy there lies at the margin,
so a test of few seeds will not pass it: what is worth testing is the budget at which (probability to pass) x (log of
what it saves) is greatest, be it one that no trial had. `power` gives that probability from what the search believes of
a policy: its mean, how well that is known, and how much it scatters.

The line-up:

1. the *first*: the policy of the greatest expected saving, of either arm;
2. where it fails, one half-way *between* it and the largest budget, in log cost;
3. where that fails, too, the *last resort*: the recipe as it is at the largest budget of the space, or another policy
   near that budget if it is clearly likelier to pass. It may have more runs of the reference;
4. where the second has passed, a *lower* one half-way back to the first, with the alpha that it leaves;
5. where the first has passed, a *cheaper* one that is likely to, beside the runs of the reference that are there.

All of them, and their shares of alpha, are written down before any is tested. How many studies end empty, and what the
policies that they find cost, `--measure tables` of `benchmarks/studies.py` counts on tables of real runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from subsettune.facts import TaskFacts
from subsettune.policy import FULL, SUBSET, Phase, Policy
from subsettune.study.results.candidate import Candidate
from subsettune.study.search.shortlist import ShortlistedPolicy
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import Rules, allot, plan, sizes, spread_floor
from subsettune.study.verification.power import best_chance

STANDS_APART = 1.15  # times the cost of another candidate: policies of one cost mostly pass or fail together
SHARES = (0.5, 0.3, 0.2)  # of alpha: the first, the one between, the last resort; of one that is missing the others'
STEP = 1.12  # ratio of one budget looked at to the next
MOST_LEADERS = 3  # policies of an arm that are looked at
LEAST_CHANCE = 0.2  # of passing, below which a policy is not worth the runs
LIKELY = 0.5  # chance of passing from which on a cheaper one is worth them, where the first has passed already
SURER = 0.1  # by which the chance of another last resort must exceed that of the unchanged recipe
MOST_BUDGET = 0.9  # of the recipe's compute, for a last resort


class Outlooks(Protocol):
    """What a search believes of policies: `search.shortlist.Shortlist`."""

    def leaders(self, arm: str, count: int) -> Sequence[ShortlistedPolicy]:
        """The policies of an arm that need least."""

    def outlook(self, coordinates: Mapping[str, object], budgets: Sequence[float]) -> Sequence[ShortlistedPolicy]:
        """One of them at other budgets."""

    def recipe(self, budget: float) -> ShortlistedPolicy | None:
        """The unchanged recipe at a budget; None where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a line-up is chosen on.

    Args:
        facts: of the task.
        rules: of the verification.
        spent: alpha given to earlier ones.
        reference_metric: mean of the reference on the validation split.
        reference_spread: of its seeds there.
        examples: of the validation and the test split.
        is_share: whether the metric is a share of examples, or nearly: its noise over seeds is then that of examples
            that flip, and shrinks with the root of their number.
        budgets: the least and the largest of the space, as shares of the reference's compute.
        why_not: why a policy cannot be run, or None if it can.
        count: policies of the search in a line-up, at most.
        verified: cost of the cheapest policy that has passed before, as a share of the reference's; null for none.
    """

    facts: TaskFacts
    rules: Rules
    spent: float
    reference_metric: float
    reference_spread: float
    examples: tuple[int, int]
    is_share: bool
    budgets: tuple[float, float]
    why_not: Callable[[Policy], str | None]
    count: int = 4
    verified: float | None = None

    @property
    def last_budget(self) -> float:
        """Of the last resort, or what has passed before: what costs as much as the recipe, or that, saves nothing."""
        return min(self.budgets[1], MOST_BUDGET, math.inf if self.verified is None else self.verified)

    @property
    def sign(self) -> float:
        """Turns metrics so that more is better."""
        return 1.0 if self.rules.higher_is_better else -1.0

    def chance(self, policy: ShortlistedPolicy, share: float) -> float:
        """How probable it is that a policy passes, with so much of the alpha."""
        rules, floor = self.rules, spread_floor(self.rules.resolution, self.rules.margin)
        level = share * allot(rules.alpha, self.spent)
        difference = self.sign * (policy.metric - self.reference_metric)
        noise = self.reference_spread**2 / rules.seeds + policy.standard_error**2
        doubt = math.sqrt(noise + self._between_splits(difference))
        shrinks = math.sqrt(self.examples[0] / self.examples[1]) if self.is_share else 1.0
        own, theirs = (math.hypot(s * shrinks, floor) for s in (policy.spread, self.reference_spread))
        return best_chance(
            plan(level, sizes(rules, policy.cost)), rules.margin + difference, (own, theirs), doubt, few=rules.few
        )

    def _between_splits(self, difference: float) -> float:
        """Variance of a difference to the reference from one split to the other.

        Where a policy is worse by d, it errs on d n examples more: a number that scatters from split to split as
        Poisson's does.
        """
        if not self.is_share:
            return 0.0
        return abs(difference) * (1 / self.examples[0] + 1 / self.examples[1])

    def saves(self, policy: ShortlistedPolicy) -> float:
        """Log of the compute of the last resort over that of a policy."""
        return math.log(self.last_budget / policy.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUp:
    """Candidates and how alpha is shared among them, in the order of testing.

    Args:
        candidates: by name.
        entries: by name, for `Verification`.
    """

    candidates: Mapping[str, Candidate]
    entries: Mapping[str, Entry]


def choose(outlooks: Outlooks, ground: Ground, round_number: int) -> LineUp:
    """The line-up of a round.

    Args:
        outlooks: of the search, after its last trial.
        ground: what there is to choose on.
        round_number: 1, or more after an extension; it marks the names.
    """
    prospects = [_Prospect(found=p, chance=ground.chance(p, SHARES[0])) for p in _prospects(outlooks, ground)]
    first, last = _best(prospects, ground), _last_resort(outlooks, prospects, ground)
    places = [] if first is None else _places(prospects, first, ground)
    if places and places[0].policy.key == last.policy.key:
        places[0] = replace(places[0], is_last_resort=True)
    elif not places or ground.verified is None:
        places.insert(sum(place.share > 0 for place in places), last)
    return _made(places, ground, round_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prospect:
    """A policy at a budget, and how probable it is that it passes."""

    found: ShortlistedPolicy
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A policy in a line-up; fields as of `Entry`, the share before those of missing ones are dealt out.

    Args:
        policy: to be tested.
        trial: number of the trial that it comes from; None for the unchanged recipe.
    """

    policy: Policy
    trial: int | None
    share: float = 0.0
    is_last_resort: bool = False
    is_extra: bool = False

    @classmethod
    def of(cls, found: ShortlistedPolicy, *, share: float = 0.0, is_last: bool = False, is_extra: bool = False) -> Self:
        """That of a policy of the search."""
        return cls(policy=found.policy, trial=found.number, share=share, is_last_resort=is_last, is_extra=is_extra)


def _places(prospects: Sequence[_Prospect], first: ShortlistedPolicy, ground: Ground) -> list[_Place]:
    """All but the last resort, as many as the settings allow."""
    between = _half_way(prospects, first.cost, ground.last_budget, ground)
    lower = None if between is None else _half_way(prospects, first.cost, between.cost, ground)
    cheaper = _cheaper(prospects, first)
    found = [
        _Place.of(first, share=SHARES[0]),
        *([] if between is None else [_Place.of(between, share=SHARES[1])]),
        *([] if lower is None else [_Place.of(lower)]),
        *([] if cheaper is None else [_Place.of(cheaper, is_extra=True)]),
    ]
    return found[: ground.count]


def _prospects(outlooks: Outlooks, ground: Ground) -> Iterable[ShortlistedPolicy]:
    """The leaders of both arms at every budget of the space that saves something."""
    low, high = ground.budgets[0], ground.last_budget
    count = max(1, math.ceil(math.log(high / low) / math.log(STEP)))
    budgets = tuple(low * (high / low) ** (i / count) for i in range(count))
    for arm in (FULL, SUBSET):
        for leader in outlooks.leaders(arm, MOST_LEADERS):
            found = outlooks.outlook(leader.coordinates, budgets)
            yield from (one for one in found if ground.why_not(one.policy) is None)


def _best(prospects: Iterable[_Prospect], ground: Ground) -> ShortlistedPolicy | None:
    """That of the greatest expected saving; of equal ones a plain schedule."""
    likely = [p for p in prospects if p.chance >= LEAST_CHANCE and ground.saves(p.found) > 0]
    best = max(likely, key=lambda p: (p.chance * ground.saves(p.found), p.found.policy.arm == FULL), default=None)
    return None if best is None else best.found


def _half_way(prospects: Iterable[_Prospect], low: float, high: float, ground: Ground) -> ShortlistedPolicy | None:
    """The best policy half-way between two costs, in the logarithm; None where none stands apart from both."""
    middle = math.sqrt(low * high)
    apart = [p for p in prospects if low * STANDS_APART <= p.found.cost <= high / STANDS_APART]
    nearest = min((_ratio(p.found.cost, middle) for p in apart), default=1.0)
    return _best([p for p in apart if _ratio(p.found.cost, middle) <= max(nearest, STEP)], ground)


def _ratio(cost: float, other: float) -> float:
    return max(cost, other) / min(cost, other)


def _cheaper(prospects: Iterable[_Prospect], first: ShortlistedPolicy) -> ShortlistedPolicy | None:
    """What is expected to save most beside the first, once that has passed; None if none is likely to pass."""
    likely = [p for p in prospects if p.found.cost <= first.cost / STANDS_APART and p.chance >= LIKELY]
    best = max(likely, key=lambda p: p.chance * math.log(first.cost / p.found.cost), default=None)
    return None if best is None else best.found


def _last_resort(outlooks: Outlooks, prospects: Iterable[_Prospect], ground: Ground) -> _Place:
    """The recipe as it is, unless another policy of about that cost is clearly likelier to pass."""
    recipe = outlooks.recipe(ground.last_budget)
    chance = 1.0 if recipe is None else ground.chance(recipe, SHARES[0])
    surer = [p for p in prospects if p.found.cost >= ground.last_budget / STEP and p.chance > chance + SURER]
    best = max(surer, key=lambda p: p.chance, default=None)
    if best is not None:
        return _Place.of(best.found, share=SHARES[2], is_last=True)
    policy = Policy(phases=(Phase(passes=ground.last_budget * ground.facts.reference_passes),))
    return _Place(policy=policy, trial=None, share=SHARES[2], is_last_resort=True)


def _made(places: Sequence[_Place], ground: Ground, round_number: int) -> LineUp:
    """Names, and what is missing to the whole of alpha dealt out in proportion."""
    total = math.fsum(place.share for place in places)
    numbers = itertools.count(1)
    candidates = [_candidate(place, ground, round_number, numbers) for place in places]
    entries = {
        one.name: Entry(
            cost_flops=one.cost_flops,
            share=place.share / total,
            is_last_resort=place.is_last_resort,
            is_extra=place.is_extra,
            has_twin=place.policy.arm != FULL,
        )
        for one, place in zip(candidates, places, strict=True)
    }
    return LineUp(candidates={one.name: one for one in candidates}, entries=entries)


def _candidate(place: _Place, ground: Ground, round_number: int, numbers: Iterator[int]) -> Candidate:
    is_recipe = place.trial is None
    return Candidate(
        role="recipe" if is_recipe else "candidate",
        number=0 if is_recipe else next(numbers),
        round=round_number,
        policy=place.policy,
        trials=() if place.trial is None else (place.trial,),
        cost_flops=place.policy.cost(ground.facts),
    )


def plain_twin(of: Candidate, outlooks: Outlooks, name: str, ground: Ground) -> Candidate:
    """Plain training of a candidate's compute, with the hyperparameters that the search expects most of there.

    Those of the candidate where the search knows no others.

    Args:
        of: a policy of the subset arm.
        outlooks: of the search.
        name: of the control, its round included.
        ground: what candidates are chosen on.
    """
    cost = of.cost_flops / ground.facts.reference_flops
    leaders = outlooks.leaders(FULL, MOST_LEADERS)
    there = [outlooks.outlook(leader.coordinates, (cost,))[0] for leader in leaders]
    best = max(there, key=lambda found: ground.sign * found.metric, default=None)
    recipe = of.policy.recipe if best is None else best.policy.recipe
    policy = Policy(phases=(Phase(passes=of.policy.passes),), recipe=recipe)
    return Candidate.named(name, policy=policy, cost_flops=policy.cost(ground.facts))
