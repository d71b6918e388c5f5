"""Which arm the next trial goes to, which policy is run again, and which plans are turned down."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.policy import Policy
from subsettune.study.search.allocation import Allocation
from subsettune.study.search.observations import Outcome, SearchEvidence, TrialRecord
from subsettune.study.search.planner import Planner
from subsettune.study.search.problem import SearchProblem
from subsettune.study.spec.space import Space

TARGET = 0.9
RAW = {"budget": {"log": [0.02, 0.6]}, "switch": 0.5, "subset_share": {"log": [0.02, 0.5]}}
FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)


class Trials:
    """An allocation with all that it shares with a search, and trials that are begun and ended by hand."""

    def __init__(self, num_trials: int = 30, *, noise: float | None = 0.01, **problem: object) -> None:
        self.problem = SearchProblem(
            **{"space": Space.from_mapping(RAW), "facts": FACTS, "target": TARGET} | problem  # type: ignore[arg-type]
        )
        self.evidence = SearchEvidence(TARGET, noise)
        self.planner = Planner(self.problem.space, self.evidence, "random", 0)
        self.allocation = Allocation(self.problem, num_trials, self.evidence, self.planner, 0)
        self.number = 0

    def run(self, point: FrozenDict, metric: float) -> TrialRecord:
        """A trial of a policy, from its beginning to its end."""
        record = self.begin(point)
        ended = TrialRecord(
            number=record.number,
            point=point,
            seed=record.seed,
            cost=record.cost,
            outcome=Outcome(cause="finished", metric=metric),
        )
        self.evidence.end(ended, metric)
        self.planner.end(ended, TARGET - metric)
        return ended

    def begin(self, point: FrozenDict) -> TrialRecord:
        record = TrialRecord(number=self.number, point=point, seed=self.number, cost=float(point["budget"]))
        self.number += 1
        for part in (self.evidence, self.planner, self.allocation):
            part.start(record)
        return record

    def next_point(self) -> FrozenDict:
        plan = self.allocation.next_plan(self.number)
        assert plan is not None
        return plan.point


def full(budget: float) -> FrozenDict:
    return FrozenDict({"arm": "full", "budget": budget})


def test_the_full_arm_opens_and_each_arm_keeps_its_third() -> None:
    trials, arms = Trials(), Counter[str]()
    while trials.allocation.remaining:
        point = trials.next_point()
        arms[point["arm"]] += 1
        assert arms["full"] >= trials.number // 3
        trials.run(point, 0.5)
        assert trials.number > 3 or set(arms) == {"full"}
    assert min(arms.values()) >= 10


def test_the_policy_that_sets_a_bound_is_run_again_later_each_time() -> None:
    space = Space.from_mapping({"arm": "full", "budget": RAW["budget"]})  # or an arm behind its third would come first
    trials, again = Trials(space=space), []
    leader = full(0.3)
    trials.run(leader, 0.99)
    trials.run(leader, 0.99)  # on two seeds, and far above the target: it sets a bound
    for index in range(20):
        point = trials.next_point() if trials.next_point() == leader else full(0.29 - 0.001 * index)
        again += [trials.number] if point == leader else []
        trials.run(point, 0.99 if point == leader else 0.5)
    assert again == [6, 15]  # after 4 others, then after 8


def test_without_noise_nothing_is_run_again() -> None:
    trials = Trials(noise=None)
    for _ in range(4):
        trials.run(full(0.3), 0.99)
    assert trials.evidence.is_noise_free
    for index in range(12):
        assert trials.next_point() != full(0.3)
        trials.run(full(0.29 - 0.001 * index), 0.5)


def test_plans_above_the_bound_are_moved_below_it_and_counted() -> None:
    trials = Trials(1000)
    trials.run(full(0.05), 0.99)
    trials.run(full(0.05), 0.99)
    for number in range(40):
        plan = trials.allocation.next_plan(100 + number)
        assert plan is not None
        assert plan.point["arm"] == "full"
        assert plan.point["budget"] < 0.05
    assert trials.allocation.num_skipped > 0


@pytest.mark.parametrize("num_skipped", [0, 7])
def test_policies_that_cannot_run_are_turned_down_and_counted_on(num_skipped: int) -> None:
    def why_not(policy: Policy) -> str | None:
        return "no"

    trials = Trials(why_not=why_not)
    trials.allocation.num_skipped = num_skipped
    assert trials.allocation.next_plan(0) is None
    assert trials.allocation.num_skipped == num_skipped + 64


def test_at_the_least_budget_all_that_is_left_is_a_repeat() -> None:
    trials = Trials()
    least = full(0.02)
    trials.run(least, 0.99)
    trials.run(least, 0.99)
    assert trials.evidence.bound("full") == 0.02
    assert trials.next_point() == least
    trials.begin(least)
    assert trials.evidence.bound("subset") == math.inf
    assert trials.next_point()["arm"] == "subset"
