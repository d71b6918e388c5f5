"""What a search accepts, when it ends, and what it says of what it could not find out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.study.search.belief import ACCEPT, SEEDS, Belief
from subsettune.study.search.checks import checks, repeats
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.interval import interval
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import Outcome, SearchEvidence, TrialRecord
from subsettune.study.search.offers import Wish
from subsettune.study.search.places import Places
from subsettune.study.search.probes import probes
from subsettune.study.search.problem import Known, SearchProblem, SearchSettings
from subsettune.study.search.recipe_point import nearest, nearest_budget, recipe_point
from subsettune.study.search.search import DONE, Pause, Search
from subsettune.study.spec.space import Space

TARGET = 0.9
SPACE = Space.from_mapping(
    {"budget": {"log": [0.02, 0.9]}, "switch": 0.5, "subset_share": {"log": [0.02, 0.5]}, "lr": {"log": [0.02, 0.5]}}
)
KNOWN = Known(recipe=FrozenDict({"lr": 0.06}), reference=0.91, num_references=5)
FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)


def true(budget: float, lr: float = 0.1) -> float:
    """Of the full arm: reached at a budget of 0.3 with the best rate."""
    return 0.91 - 0.01 * float(np.exp(-4.0 * (budget / 0.3 * np.exp(-(np.log(lr / 0.1) ** 2)) - 1)))


class Trials:
    """Trials of the full arm, and what the model makes of them."""

    def __init__(self, noise: float = 0.001) -> None:
        self.evidence, self.number = SearchEvidence(TARGET, noise), 0

    def run(self, budget: float, score: float | None, lr: float = 0.1) -> None:
        """A trial; one without a score diverged."""
        cause: Any = "diverged" if score is None else "finished"
        point = FrozenDict({"arm": "full", "budget": budget, "lr": lr})
        outcome = Outcome(cause=cause, metric=score)
        record = TrialRecord(number=self.number, point=point, seed=self.number, cost=budget, outcome=outcome)
        self.number += 1
        self.evidence.start(record)
        self.evidence.end(record, score)

    def look(self) -> Trials:
        """Cheap looks that tell the law and the best rate."""
        for budget, lr in ((0.05, 0.1), (0.1, 0.1), (0.2, 0.1), (0.1, 0.05), (0.1, 0.2)):
            self.run(budget, true(budget, lr), lr)
        return self

    def belief(self) -> Belief:
        return Belief(Places(Encoding(SPACE), KNOWN), self.evidence)

    def needs(self) -> Needs:
        return Needs(self.belief())


def test_cheap_looks_tell_the_need_and_the_interval_holds_it() -> None:
    needs = Trials().look().needs()
    assert needs.least("full") == pytest.approx(0.3, rel=0.12)
    low, high = interval(needs, "full", np.random.default_rng(0)) or (1.0, 0.0)
    assert low < 0.3 < high
    assert high / low < 2
    assert interval(needs, "subset", np.random.default_rng(0)) is None


@pytest.mark.parametrize("num_seeds", [1, SEEDS - 1, SEEDS])
def test_a_policy_is_accepted_on_three_seeds_and_not_before(num_seeds: int) -> None:
    trials = Trials().look()
    for _ in range(num_seeds):
        trials.run(0.4, true(0.4))
    accepted = trials.belief().accepted("full")
    assert [a.tried.cost for a in accepted] == ([0.4] if num_seeds == SEEDS else [])
    assert all(
        a.estimate.probability >= ACCEPT and a.estimate.standard_error > 0 and a.estimate.spread > 0 for a in accepted
    )


def test_where_runs_like_it_go_wrong_three_good_seeds_are_not_enough() -> None:
    trials = Trials().look()
    for _ in range(SEEDS):
        trials.run(0.4, true(0.4))
    assert trials.belief().accepted("full")
    for budget in (0.38, 0.42):
        trials.run(budget, None)
    assert not trials.belief().accepted("full")
    for _ in range(30):
        trials.run(0.4, true(0.4))
    assert trials.belief().accepted("full")


def test_a_policy_that_lost_a_seed_is_never_accepted() -> None:
    trials = Trials().look()
    trials.run(0.4, None)
    for _ in range(40):
        trials.run(0.4, true(0.4))
    assert not trials.belief().accepted("full")


def test_seeds_that_scatter_make_a_wider_spread() -> None:
    calm, wild = Trials().look(), Trials().look()
    for offset in (-0.004, 0.0, 0.004):
        calm.run(0.5, true(0.5) + offset / 10)
        wild.run(0.5, true(0.5) + offset)
    spreads = [next(a.estimate.spread for a in t.belief().assessed if a.tried.cost == 0.5) for t in (calm, wild)]
    assert spreads[1] > 1.5 * spreads[0]


def test_probes_begin_cheap_and_what_does_not_pay_is_left_out() -> None:
    needs, rng = Trials().look().needs(), np.random.default_rng(0)
    offers = probes(needs, Wish(arm="subset", best=np.inf, is_rival=True), rng)
    assert offers
    assert [offer.value for offer in offers] == sorted((offer.value for offer in offers), reverse=True)
    assert offers[0].value > 0
    assert offers[0].point["budget"] < 0.3
    trials = Trials().look()
    for _ in range(8):
        trials.run(0.0201, TARGET + 0.005)
    assert checks(trials.needs(), Wish(arm="full", best=0.0202), rng) == []


def test_a_check_is_wanted_somewhat_above_the_need() -> None:
    offers = checks(Trials().look().needs(), Wish(arm="full", best=np.inf), np.random.default_rng(0))
    assert 0.28 < offers[0].point["budget"] < 0.45
    assert not offers[0].is_probe


def test_repeats_are_the_checks_of_what_was_tried() -> None:
    trials = Trials().look()
    trials.run(0.4, true(0.4))
    wish, needs = Wish(arm="full", best=np.inf), trials.needs()
    found = repeats(needs, wish)
    assert [(offer.point["budget"], offer.repeats is not None) for offer in found] == [(0.4, True)]
    assert found[0] in checks(needs, wish, np.random.default_rng(0))


def test_the_recipe_is_tried_first_twice_and_cheaply() -> None:
    problem = SearchProblem(space=SPACE, facts=FACTS, target=TARGET, recipe=KNOWN.recipe, reference=KNOWN.reference)
    search = Search(problem, SearchSettings(trials=30, sampler="frontier", noise=0.001))
    seen = []
    for _ in range(2):
        proposal = search.propose()
        assert not isinstance(proposal, Pause)
        seen.append(proposal)
        metric = true(proposal.cost, proposal.coordinates["lr"])
        search.tell(proposal.number, Outcome(cause="finished", metric=metric))
    assert [(p.coordinates["arm"], p.coordinates["lr"]) for p in seen] == [("full", 0.06)] * 2
    assert seen[0].cost < seen[1].cost < 0.6


def test_a_search_ends_by_itself_when_nothing_pays() -> None:
    problem = SearchProblem(space=SPACE, facts=FACTS, target=TARGET, recipe=KNOWN.recipe, reference=KNOWN.reference)
    search = Search(problem, SearchSettings(trials=200, sampler="frontier", noise=0.0003))
    for _ in range(200):
        proposal = search.propose()
        if isinstance(proposal, Pause):
            break
        score = true(proposal.cost, proposal.coordinates["lr"]) - 0.02 * (proposal.policy.arm == "subset")
        noise = 0.0003 * float(np.random.default_rng(proposal.seed).standard_normal())
        search.tell(proposal.number, Outcome(cause="finished", metric=score + noise))
    assert search.propose() is DONE
    assert len(search.records) < 60
    best = search.shortlist.best()
    assert best is not None
    assert best.policy.arm == "full"
    assert 0.3 <= best.cost < 0.39


def test_a_recipe_outside_of_the_space_is_tried_at_its_nearest_end() -> None:
    known = Known(recipe=FrozenDict({"lr": 3.0}))
    assert recipe_point(SPACE, known, 0.2) == FrozenDict({"arm": "full", "budget": 0.2, "lr": 0.5})
    whole = Space.from_mapping({"arm": "full", "budget": {"choice": [0.1, 0.2]}, "batch_size": {"int": [16, 64]}})
    assert nearest(whole["batch_size"], 128) == 64
    assert nearest_budget(whole["budget"], 0.19) == 0.2
    assert nearest_budget(SPACE["budget"], 3.0) == 0.9
