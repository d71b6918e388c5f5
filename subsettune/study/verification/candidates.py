"""Which policies verification tests, and in which order: by what they are expected to save.

The search ends at the budget that just reaches the target on the validation split. A policy there lies at the margin,
so a test of few seeds will not pass it: what is worth testing is the budget at which (probability to pass) x (log of
what it saves) is greatest, be it one that no trial had. `power` gives that probability from what the search believes of
a policy: its mean, how well that is known, and how much it scatters.

The line-up:

1. the policy of the greatest expected saving, of either arm, is tested first;
2. where it fails, the recipe as it is at the largest budget of the space, the last resort: it may have more runs of the
   reference, and once it has passed it leaves its alpha to what is cheaper;
3. a policy half-way between the two, in log cost, then has that alpha, and leaves it to the first again;
4. a cheaper one than the first is tested once that has passed, beside the runs of the reference that any test has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from subsettune.facts import TaskFacts
from subsettune.policy import FULL, SUBSET, Phase, Policy
from subsettune.study.results.candidate import Candidate
from subsettune.study.search.shortlist import ShortlistedPolicy
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import Rules, allot, plan, sizes, spread_floor
from subsettune.study.verification.power import best_chance

STANDS_APART = 1.25  # times the cost of another candidate: policies of one cost mostly pass or fail together
SHARES = (0.5, 0.5)  # of alpha: the first, and the last resort
STEP = 1.12  # ratio of one budget looked at to the next
MOST_LEADERS = 3  # policies of an arm that are looked at
LEAST_CHANCE = 0.2  # of passing, below which a policy is not worth the runs
MOST_BUDGET = 0.9  # of the recipe's compute, for a last resort


class Outlooks(Protocol):
    """What a search believes of policies: `search.shortlist.Shortlist`."""

    def leaders(self, arm: str, count: int) -> Sequence[ShortlistedPolicy]:
        """The policies of an arm that need least."""

    def outlook(self, coordinates: Mapping[str, object], budgets: Sequence[float]) -> Sequence[ShortlistedPolicy]:
        """One of them at other budgets."""


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
    count: int = 3
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
        return best_chance(plan(level, sizes(rules, policy.cost)), rules.margin + difference, (own, theirs), doubt)

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
    first = _best(prospects, ground)
    if first is None:
        return _made([], ground, round_number)
    between = math.sqrt(first.cost * ground.last_budget)
    rungs = (
        [p for p in prospects if between / STEP <= p.found.cost <= between * STEP],
        [p for p in prospects if p.found.cost <= first.cost / STANDS_APART],
    )
    found = [_best([p for p in rung if _stands_apart(p.found.cost, first.cost)], ground) for rung in rungs]
    chosen = [(first, SHARES[0]), *((one, 0.0) for one in found if one is not None)]
    return _made(chosen[: ground.count], ground, round_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prospect:
    """A policy at a budget, and how probable it is that it passes."""

    found: ShortlistedPolicy
    chance: float


def _stands_apart(cost: float, other: float) -> bool:
    return max(cost, other) >= STANDS_APART * min(cost, other)


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
    likely = [p for p in prospects if p.chance >= LEAST_CHANCE]
    best = max(likely, key=lambda p: (p.chance * ground.saves(p.found), p.found.policy.arm == FULL), default=None)
    return None if best is None else best.found


def _made(chosen: list[tuple[ShortlistedPolicy, float]], ground: Ground, round_number: int) -> LineUp:
    """Names, and the last resort behind those that have alpha; it has what they leave of it."""
    candidates = [_candidate(found, place, ground, round_number) for place, (found, _) in enumerate(chosen)]
    shares = [share for _, share in chosen]
    last = _last_resort(ground, round_number)
    if candidates and (ground.verified is not None or last.policy.key == candidates[0].policy.key):
        shares[0] = 1.0
    else:
        place = sum(share > 0 for share in shares)
        candidates.insert(place, last)
        shares.insert(place, 1 - math.fsum(shares))
    entries = {
        one.name: Entry(
            cost_flops=one.cost_flops,
            share=share,
            is_last_resort=one.policy.key == last.policy.key,
            is_extra=share == 0 and one.cost_flops < candidates[0].cost_flops,
            has_twin=one.policy.arm != FULL,
        )
        for one, share in zip(candidates, shares, strict=True)
    }
    return LineUp(candidates={one.name: one for one in candidates}, entries=entries)


def _last_resort(ground: Ground, round_number: int) -> Candidate:
    passes = ground.last_budget * ground.facts.reference_passes
    policy = Policy(phases=(Phase(passes=passes),))
    return Candidate(role="recipe", round=round_number, policy=policy, cost_flops=policy.cost(ground.facts))


def _candidate(found: ShortlistedPolicy, place: int, ground: Ground, round_number: int) -> Candidate:
    return Candidate(
        role="candidate",
        number=place + 1,
        round=round_number,
        policy=found.policy,
        trials=(found.number,),
        cost_flops=found.policy.cost(ground.facts),
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
