"""What a search makes of the trials of an earlier one: it learns from them, and is not held by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from facts import made_up_facts
from optuna.storages import InMemoryStorage

from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.study.search.belief import SEEDS
from subsettune.study.search.current_model import CurrentModel
from subsettune.study.search.earlier import EarlierStudy, EarlierTrial, point_within
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import Outcome, SearchEvidence, TrialRecord
from subsettune.study.search.problem import Known, SearchProblem, SearchSettings
from subsettune.study.search.search import Pause, Proposal, Search
from subsettune.study.spec.space import Space

TARGET = 0.9
SPACE = Space.from_mapping(
    {
        "budget": {"log": [0.02, 0.9]},
        "switch": 0.5,
        "subset_share": {"log": [0.02, 0.5]},
        "selector": {"choice": ["random", "stratified"]},
        "lr": {"log": [0.02, 0.5]},
    }
)
FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)
RECIPE = FrozenDict({"lr": 0.06})


def score(point: Any, need: float = 0.3, lr: float = 0.1) -> float:
    """Of a task whose full arm needs a budget at the best rate, and whose subset arm needs a third less."""
    needed = need * np.exp(np.log(point["lr"] / lr) ** 2) * (0.67 if point["arm"] == "subset" else 1.0)
    return TARGET + 0.01 * float(1 - np.exp(-4.0 * (point["budget"] / needed - 1)))


def earlier(need: float = 0.3, lr: float = 0.1, *, shift: float = 0.0, count: int = 40) -> EarlierStudy:
    """Of a task whose metrics are all higher by a shift."""
    rng = np.random.default_rng(0)
    points = [SPACE.sample(rng) for _ in range(count)]
    trials = (EarlierTrial(point=p, score=score(p, need, lr) + shift, seed=i) for i, p in enumerate(points))
    return EarlierStudy(reference=TARGET + 0.01 + shift, num_references=5, noise=0.0005, trials=tuple(trials))


def needs_of(*studies: EarlierStudy, own: tuple[tuple[float, float], ...] = (), true_lr: float = 0.1) -> Needs:
    """What the full arm needs, after trials of one's own at budgets and rates."""
    evidence = SearchEvidence(TARGET, 0.0005)
    for number, (budget, lr) in enumerate(own):
        point = FrozenDict({"arm": "full", "budget": budget, "lr": lr})
        record = TrialRecord(
            number=number, point=point, seed=number, cost=budget, outcome=Outcome(cause="finished", metric=0.0)
        )
        evidence.start(record)
        evidence.end(record, score(point, lr=true_lr))
    known = Known(recipe=RECIPE, reference=TARGET + 0.01, num_references=5, earlier=studies)
    needs = CurrentModel(SPACE, evidence, known, seed=0).needs()
    assert needs is not None
    return needs


def full(lr: float) -> FrozenDict:
    return FrozenDict({"arm": "full", "budget": 0.3, "lr": lr})


def test_an_earlier_study_tells_what_policies_need_before_the_first_trial() -> None:
    needs = needs_of(earlier())
    assert needs.of_point(full(0.1), "full") == pytest.approx(0.3, rel=0.1)
    assert needs.of_point(full(0.3), "full") > 0.6
    assert needs.least("subset") < needs.least("full")
    assert needs.tried("full")[1].size == 0


def test_only_differences_to_its_own_reference_count() -> None:
    needs = [needs_of(earlier(shift=shift)).of_point(full(0.1), "full") for shift in (0.0, 0.05)]
    assert needs[0] == pytest.approx(needs[1], rel=1e-6)


def test_however_much_an_earlier_study_saw_what_it_leaves_open_does_not_vanish() -> None:
    few, many = (needs_of(earlier(count=count)) for count in (40, 110))
    at = few.places.x(few.places.units(full(0.1), "full")[None, :], "full")
    deviations = [float(needs.expected.predict(at)[1][0]) for needs in (few, many)]
    assert min(deviations) > 0.1
    own = needs_of(earlier(), own=((0.1, 0.1), (0.2, 0.1), (0.15, 0.07)))
    assert own.expected.predict(at)[1][0] < 0.6 * deviations[0]


def test_trials_of_ones_own_outweigh_an_earlier_study_of_another_landscape() -> None:
    own = tuple((budget, lr) for budget in (0.06, 0.12, 0.2) for lr in (0.04, 0.1, 0.25))
    misled = needs_of(earlier(need=0.6, lr=0.4), own=own)
    assert misled.of_point(full(0.1), "full") == pytest.approx(0.3, rel=0.15)
    assert misled.belief.process.points.kinship[0] < 0.9
    assert needs_of(earlier(), own=own).belief.process.points.kinship[0] > 0.9


def search_told(*studies: EarlierStudy, storage: Any = None) -> Search:
    problem = SearchProblem(
        space=SPACE,
        facts=FACTS,
        target=TARGET,
        recipe=RECIPE,
        reference=TARGET + 0.01,
        num_references=5,
        earlier=studies,
    )
    return Search(problem, SearchSettings(trials=30, sampler="frontier", noise=0.0005), storage=storage)


def drive(search: Search) -> list[Proposal]:
    found = []
    while not isinstance(proposal := search.propose(), Pause):
        noise = 0.0005 * float(np.random.default_rng(proposal.seed).standard_normal())
        metric = score(proposal.coordinates) + noise
        search.tell(proposal.number, Outcome(cause="finished", metric=metric))
        found.append(proposal)
    return found


def test_a_policy_is_accepted_on_seeds_of_its_own_alone() -> None:
    search = search_told(earlier(count=100))
    drive(search)
    accepted = search.shortlist.accepted()
    assert accepted
    assert all(one.num_seeds >= SEEDS for one in accepted)
    assert {one.coordinates for one in accepted} <= {record.point for record in search.records}


def test_a_search_that_is_told_spends_less_and_finds_as_much() -> None:
    cold, warm = search_told(), search_told(earlier())
    spent = [sum(proposal.cost for proposal in drive(search)) for search in (cold, warm)]
    best = [search.shortlist.best() for search in (cold, warm)]
    assert spent[1] < 0.9 * spent[0]
    assert best[0] is not None
    assert best[1] is not None
    assert best[1].cost < 1.1 * best[0].cost


def test_a_search_that_is_misled_still_finds() -> None:
    search = search_told(earlier(need=0.6, lr=0.4))
    drive(search)
    best = search.shortlist.best()
    assert best is not None
    assert best.cost < 0.3  # the least is 0.2, of the subset arm at a rate of 0.1
    assert 0.05 < best.coordinates["lr"] < 0.2


def test_a_search_goes_on_only_with_what_it_was_told() -> None:
    storage = InMemoryStorage()
    search_told(earlier(), storage=storage)
    search_told(earlier(), storage=storage)
    with pytest.raises(StudyError, match="made with other settings of: warm_start"):
        search_told(earlier(count=39), storage=storage)


def test_a_point_lies_within_a_space_where_all_its_values_do() -> None:
    subset = {"arm": "subset", "budget": 0.3, "switch": 0.5, "subset_share": 0.1, "selector": "random", "lr": 0.1}
    assert point_within(SPACE, subset) == FrozenDict(subset)
    assert point_within(SPACE, full(0.1)) == full(0.1)
    for key, value in (("budget", 1.2), ("switch", 0.4), ("selector", "kcenter"), ("lr", 0.01), ("arm", "other")):
        assert point_within(SPACE, subset | {key: value}) is None
    assert point_within(SPACE, {key: value for key, value in subset.items() if key != "lr"}) is None
    assert point_within(SPACE, subset | {"order": "rs2"}) is None


def test_no_run_repeats_one_of_the_earlier_study_bit_for_bit() -> None:
    seeds, warm = ({p.seed for p in drive(search)} for search in (search_told(), search_told(earlier())))
    assert seeds
    assert warm
    assert seeds.isdisjoint(warm)


def test_trials_that_began_alike_tell_less_than_as_many_others() -> None:
    alone = earlier()
    alike = replace(alone, trials=tuple(replace(trial, seed=0) for trial in alone.trials))
    first, second = (study.evidence(0.01) for study in (alone, alike))
    assert sum(map(first.worth, first)) == len(alone.trials)
    assert sum(map(second.worth, second)) < 3
