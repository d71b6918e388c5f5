"""The short list: which policies a search would stake a verification on, and which comes nearest if it trusts none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.config import FrozenDict
from subsettune.policy import Policy
from subsettune.study.search.belief import Assessed, Estimate
from subsettune.study.search.interval import interval
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import SearchEvidence
from subsettune.study.search.problem import SearchProblem
from subsettune.study.search.recipe_point import nearest_budget, recipe_point


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortlistedPolicy:
    """A policy as the search hands it on.

    Args:
        policy: to verify.
        coordinates: the point of the space it comes from.
        cost: share of the reference's compute.
        metric: estimate of its noise-free metric, from its seeds and its neighbours; not the luckiest seed.
        standard_error: of that estimate.
        spread: standard deviation of its metric from seed to seed, from its own seeds and those of its like.
        probability: that its noise-free metric reaches the target.
        num_seeds: seeds it was seen on.
        number: of the first trial that had this policy.
    """

    policy: Policy
    coordinates: FrozenDict
    cost: float
    metric: float
    standard_error: float
    spread: float
    probability: float
    num_seeds: int
    number: int


class Shortlist:
    """What a search would hand on as it stands. Every method takes the arm to choose from; None is both.

    Args:
        problem: what is searched.
        evidence: what its trials have shown.
        needs: the model of it; None before any trial ended.
    """

    def __init__(self, problem: SearchProblem, evidence: SearchEvidence, needs: Needs | None) -> None:
        self._problem = problem
        self._evidence = evidence
        self._needs = needs
        self._belief = needs.belief if needs is not None else None

    def best(self, *, arm: str | None = None) -> ShortlistedPolicy | None:
        """The policy to verify first: the cheapest that is feasible beyond the luck of its seeds; None if none is."""
        return next(iter(self.candidates(1, arm=arm)), None)

    def candidates(self, count: int, *, arm: str | None = None) -> tuple[ShortlistedPolicy, ...]:
        """Up to `count` policies for verification, cheapest first.

        The first is the cheapest that is feasible; each further one is the cheapest that clears the target by one
        more standard deviation of a single run, because a test on a few seeds will rarely pass a policy that is
        feasible by a hair.
        """
        accepted = self._accepted(arm)
        noise = self._evidence.noise
        step = noise[0] if noise is not None else 0.0
        chosen: list[Assessed] = []
        for place in range(count):
            clear = [
                a for a in accepted if a not in chosen and a.estimate.score >= self._evidence.target + place * step
            ]
            chosen += clear[:1]
        chosen += [a for a in accepted if a not in chosen][: count - len(chosen)]
        return tuple(self._tried(a) for a in sorted(chosen, key=lambda a: a.tried.cost))

    def accepted(self, *, arm: str | None = None) -> tuple[ShortlistedPolicy, ...]:
        """Every policy that the search would stake a verification on, cheapest first."""
        return tuple(self._tried(assessed) for assessed in self._accepted(arm))

    def likeliest(self, *, arm: str | None = None) -> ShortlistedPolicy | None:
        """The policy that most probably reaches the target, accepted or not.

        For a search that trusts nothing: a verification of this policy tells by how much it missed.
        """
        assessed = self._belief.assessed if self._belief is not None else ()
        tried = [a for a in assessed if arm in (None, a.tried.arm)]
        best = max(tried, key=lambda a: (a.estimate.probability, a.estimate.score, -a.tried.cost), default=None)
        return self._tried(best) if best is not None else None

    def leaders(self, arm: str, count: int) -> tuple[ShortlistedPolicy, ...]:
        """The policies of an arm that need least, accepted or not, each at the budget that it is expected to need."""
        if self._needs is None:
            return ()
        units, needs = self._needs.tried(arm)
        points = [self._needs.places.point(row, arm) for row in units[:count]]
        pairs = zip(points, needs, strict=False)
        return tuple(self.outlook(point, (math.exp(need),))[0] for point, need in pairs)

    def outlook(self, coordinates: Mapping[str, Any], budgets: Sequence[float]) -> tuple[ShortlistedPolicy, ...]:
        """What the model expects of a policy at budgets, be they tried or not; none before any trial ended."""
        if self._belief is None or not self._belief.known:
            return ()
        found = []
        for budget, estimate in self._belief.outlook(coordinates, budgets):
            point = FrozenDict({**coordinates, "budget": budget})
            tried, own = self._belief.nearest_trial(point), self._evidence.find(point)
            found.append(self._handed_on(point, estimate, 0 if own is None else len(own.scores), tried.first))
        return tuple(found)

    def recipe(self, budget: float) -> ShortlistedPolicy | None:
        """What the model expects of the unchanged recipe at the nearest budget of the space; None before any trial."""
        space = self._problem.space
        point = recipe_point(space, self._problem.known, nearest_budget(space["budget"], budget))
        return next(iter(self.outlook(point, (budget,))), None)

    def interval(self, arm: str) -> tuple[float, float] | None:
        """Between which costs the model sees the least one with which a policy of an arm reaches the target.

        It is the model's 80 %, for policies like those that were tried: it knows nothing of a better kind that the
        search never met, so that where there is one the truth lies below. `benchmarks/search.py` counts how often it
        holds the true least cost (0.1 to 0.7). None if no run of the arm finished.
        """
        return interval(self._needs, arm, np.random.default_rng(0)) if self._needs is not None else None

    def _accepted(self, arm: str | None) -> tuple[Assessed, ...]:
        return self._belief.accepted(arm) if self._belief is not None else ()

    def _tried(self, assessed: Assessed) -> ShortlistedPolicy:
        tried = assessed.tried
        return self._handed_on(tried.point, assessed.estimate, len(tried.scores), tried.first)

    def _handed_on(self, point: FrozenDict, estimate: Estimate, num_seeds: int, number: int) -> ShortlistedPolicy:
        return ShortlistedPolicy(
            policy=self._problem.policy(point),
            coordinates=point,
            cost=float(point["budget"]),
            metric=self._problem.metric(estimate.score),
            standard_error=estimate.standard_error,
            spread=estimate.spread,
            probability=estimate.probability,
            num_seeds=num_seeds,
            number=number,
        )
