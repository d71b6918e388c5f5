"""What a search hands on: a ladder of policies for verification, and the likeliest where it trusts none."""

from __future__ import annotations

from typing import cast

from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.study.search.belief import Assessed, Estimate
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.problem import SearchProblem
from subsettune.study.search.shortlist import Shortlist
from subsettune.study.spec.space import Space

TARGET = 0.9
FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)


class Believed:
    """A model that holds what it was told."""

    def __init__(self, *assessed: Assessed) -> None:
        self.assessed = assessed
        self.belief = self

    def accepted(self, arm: str | None = None) -> tuple[Assessed, ...]:
        kept = [a for a in self.assessed if a.is_accepted and arm in (None, a.tried.arm)]
        return tuple(sorted(kept, key=lambda a: a.tried.cost))


def assessed(cost: float, score: float, *, arm: str = "full", probability: float = 0.99) -> Assessed:
    subset = {"switch": 0.5, "subset_share": 0.1} if arm == "subset" else {}
    point = FrozenDict({"arm": arm, "budget": cost} | subset)
    tried = PolicyObservations(point=point, cost=cost, first=int(1000 * cost), scores=[score, score])
    estimate = Estimate(score=score, standard_error=0.002, spread=0.004, probability=probability)
    return Assessed(tried=tried, estimate=estimate, is_accepted=probability >= 0.9)


def shortlist(*held: Assessed, noise: float | None = 0.01, higher_is_better: bool = True) -> Shortlist:
    space = Space.from_mapping({"budget": {"log": [0.02, 0.6]}, "switch": 0.5, "subset_share": 0.1})
    target = TARGET if higher_is_better else -TARGET
    problem = SearchProblem(space=space, facts=FACTS, target=target, higher_is_better=higher_is_better)
    needs = cast(Needs, Believed(*held)) if held else None
    return Shortlist(problem, SearchEvidence(TARGET, noise), needs)


def test_nothing_is_handed_on_before_anything_ended() -> None:
    empty = shortlist()
    assert (empty.best(), empty.candidates(3), empty.accepted(), empty.likeliest()) == (None, (), (), None)


def test_candidates_are_a_ladder_each_a_standard_deviation_safer() -> None:
    held = [assessed(0.1, 0.901), assessed(0.2, 0.905), assessed(0.3, 0.911), assessed(0.4, 0.915), assessed(0.5, 0.93)]
    assert [found.cost for found in shortlist(*held).candidates(3)] == [0.1, 0.3, 0.5]


def test_a_ladder_that_has_no_higher_rung_is_filled_with_the_cheapest_others() -> None:
    held = [assessed(0.1, 0.901), assessed(0.2, 0.905), assessed(0.3, 0.906)]
    assert [found.cost for found in shortlist(*held).candidates(2)] == [0.1, 0.2]
    assert [found.cost for found in shortlist(*held).candidates(9)] == [0.1, 0.2, 0.3]


def test_without_noise_the_cheapest_are_handed_on() -> None:
    held = [assessed(0.1 * place, 0.91 + place) for place in range(1, 5)]
    assert [found.cost for found in shortlist(*held, noise=None).candidates(2)] == [0.1, 0.2]


def test_one_arm_alone() -> None:
    held = [assessed(0.1, 0.95, arm="subset"), assessed(0.2, 0.95), assessed(0.3, 0.95)]
    found = shortlist(*held)
    best = found.best()
    assert best is not None
    assert (best.cost, best.policy.arm) == (0.1, "subset")
    assert [one.cost for one in found.accepted(arm="full")] == [0.2, 0.3]
    full = found.best(arm="full")
    assert full is not None
    assert full.cost == 0.2


def test_the_likeliest_need_not_be_trusted_and_a_tie_goes_to_the_better_and_then_the_cheaper() -> None:
    held = [
        assessed(0.1, 0.85, probability=0.3),
        assessed(0.2, 0.88, probability=0.4),
        assessed(0.3, 0.89, probability=0.4),
        assessed(0.25, 0.89, probability=0.4),
    ]
    found = shortlist(*held)
    assert found.best() is None
    likeliest = found.likeliest()
    assert likeliest is not None
    assert likeliest.cost == 0.25
    assert found.likeliest(arm="subset") is None


def test_a_metric_of_which_less_is_better_comes_back_with_its_sign() -> None:
    best = shortlist(assessed(0.1, 0.95), higher_is_better=False).best()
    assert best is not None
    assert (best.metric, best.num_seeds, best.number) == (-0.95, 2, 100)
    assert (best.standard_error, best.spread) == (0.002, 0.004)
