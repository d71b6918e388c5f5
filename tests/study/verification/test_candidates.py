"""Which policies a verification tests, by what the search believes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.policy import FULL, SUBSET, Phase, Policy
from subsettune.study.search.shortlist import ShortlistedPolicy
from subsettune.study.verification import candidates
from subsettune.study.verification.candidates import SHARES, STANDS_APART, Ground, choose, plain_twin
from subsettune.study.verification.noninferiority import Rules

FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30)
RULES = Rules(margin=0.01, alpha=0.05, seeds=5, max_seeds=15, higher_is_better=True, resolution=1 / 540)
REFERENCE = 0.97


@dataclass(frozen=True)
class Curve:
    """What a search believes: an arm's best policy is worse than the reference by its need over the budget.

    Args:
        full: budget at which plain training lies at the margin.
        subset: likewise of the subset arm; None where none was tried.
        spread: of a run.
        rates: learning rate of each arm's best policy.
    """

    full: float = 0.15
    subset: float | None = None
    spread: float = 0.003
    sign: float = 1.0

    def leaders(self, arm: str, count: int) -> Sequence[ShortlistedPolicy]:
        """One an arm."""
        need = self.full if arm == FULL else self.subset
        return [] if need is None else self.outlook({"arm": arm}, [need])

    def outlook(self, coordinates: Mapping[str, object], budgets: Sequence[float]) -> Sequence[ShortlistedPolicy]:
        """At the margin where the budget is the need, better above."""
        return [self._at(str(coordinates["arm"]), budget) for budget in budgets]

    def recipe(self, budget: float) -> ShortlistedPolicy | None:
        """As likely as can be."""
        return None

    def _at(self, arm: str, budget: float) -> ShortlistedPolicy:
        need = self.full if arm == FULL else self.subset
        assert need is not None
        passes = budget * FACTS.reference_passes
        plain = (Phase(passes=passes),)
        half = (Phase(passes=passes / 2, share=0.5, selector="random"), Phase(passes=passes / 2))
        policy = Policy(phases=plain if arm == FULL else half, recipe=FrozenDict({"lr": 0.2 if arm == FULL else 0.3}))
        difference = -self.sign * RULES.margin * (need / budget)
        return ShortlistedPolicy(
            policy=policy,
            coordinates=FrozenDict({"arm": arm, "budget": budget}),
            cost=budget,
            metric=REFERENCE + difference,
            standard_error=0.001,
            spread=self.spread,
            probability=0.5,
            num_seeds=2,
            number=7,
        )


def _ground(*, why_not: Callable[[Policy], str | None] = lambda policy: None, **changes: Any) -> Ground:
    plain: dict[str, Any] = {
        "facts": FACTS,
        "rules": RULES,
        "spent": 0.0,
        "reference_metric": REFERENCE,
        "reference_spread": 0.003,
        "examples": (100_000, 100_000),
        "is_share": True,
        "budgets": (0.02, 0.6),
        "why_not": why_not,
        "count": 4,
    }
    return Ground(**{**plain, **changes})


def test_the_line_up_is_the_first_one_between_a_last_resort_and_two_that_wait() -> None:
    line_up = choose(Curve(full=0.05), _ground(), 1)
    names = list(line_up.candidates)
    assert names == ["candidate-1", "candidate-2", "recipe", "candidate-3", "candidate-4"]
    first, between, last, lower, cheaper = (line_up.candidates[name] for name in names)
    assert [line_up.entries[name].share for name in names] == pytest.approx([*SHARES, 0, 0])
    assert between.cost_flops == pytest.approx(math.sqrt(first.cost_flops * last.cost_flops), rel=0.13)
    assert lower.cost_flops == pytest.approx(math.sqrt(first.cost_flops * between.cost_flops), rel=0.13)
    assert cheaper.cost_flops * STANDS_APART <= first.cost_flops * 1.001
    assert last.policy == Policy(phases=(Phase(passes=0.6 * 30),))
    assert [line_up.entries[name].is_last_resort for name in names] == [False, False, True, False, False]
    assert [line_up.entries[name].is_extra for name in names] == [False, False, False, False, True]
    assert not any(entry.has_twin for entry in line_up.entries.values())


def test_the_first_is_where_chance_times_log_saving_is_greatest_above_the_frontier() -> None:
    curve, ground = Curve(), _ground()
    first = choose(curve, ground, 1).candidates["candidate-1"]
    cost = first.cost_flops / FACTS.reference_flops
    assert 1.1 * curve.full < cost < 2.5 * curve.full  # at the frontier itself a policy lies at the margin
    grid = [0.02 * 1.02**i for i in range(170)]
    best = max(curve.outlook({"arm": FULL}, grid), key=lambda p: ground.chance(p, SHARES[0]) * ground.saves(p))
    assert cost == pytest.approx(best.cost, rel=0.1)


def test_the_chance_rises_with_the_budget_and_falls_with_noise_and_doubt() -> None:
    (low, high), ground = Curve().outlook({"arm": FULL}, [0.2, 0.4]), _ground()
    (noisy,) = Curve(spread=0.006).outlook({"arm": FULL}, [0.4])
    assert 0.05 < ground.chance(low, 0.4) < ground.chance(high, 0.4) < 1
    assert ground.chance(noisy, 0.4) < ground.chance(high, 0.4)
    assert ground.chance(high, 0.1) < ground.chance(high, 0.4)
    assert _ground(reference_spread=0.006).chance(high, 0.4) < ground.chance(high, 0.4)
    assert _ground(examples=(400, 400)).chance(high, 0.4) < ground.chance(high, 0.4)  # splits differ more


def test_a_cheaper_arm_comes_first_and_has_a_twin() -> None:
    line_up = choose(Curve(subset=0.05), _ground(), 2)
    first = line_up.candidates["candidate-1@2"]
    assert first.policy.arm == SUBSET
    assert line_up.entries["candidate-1@2"].has_twin
    twin = plain_twin(first, Curve(subset=0.05), "equal@2", _ground())
    assert twin.policy == Policy(phases=(Phase(passes=first.policy.passes),), recipe=FrozenDict({"lr": 0.2}))
    assert twin.name == "equal@2"


def test_a_twin_has_the_policy_s_own_rate_where_no_plain_one_is_known() -> None:
    class Nothing(Curve):
        def leaders(self, arm: str, count: int) -> Sequence[ShortlistedPolicy]:
            return []

    first = choose(Curve(subset=0.05), _ground(), 1).candidates["candidate-1"]
    assert plain_twin(first, Nothing(), "equal", _ground()).policy.recipe == FrozenDict({"lr": 0.3})


def test_where_nothing_is_likely_the_recipe_has_all_of_alpha() -> None:
    line_up = choose(Curve(full=3.0), _ground(), 1)
    assert list(line_up.candidates) == ["recipe"]
    assert line_up.entries["recipe"].share == 1
    assert line_up.entries["recipe"].is_last_resort


class Knowing(Curve):
    """A search that has seen the unchanged recipe fall short."""

    def recipe(self, budget: float) -> ShortlistedPolicy | None:
        """At the margin."""
        return replace(self._at(FULL, budget), metric=REFERENCE - RULES.margin)


def test_the_last_resort_is_another_policy_where_that_is_clearly_likelier_to_pass_than_the_recipe() -> None:
    line_up = choose(Knowing(), _ground(), 1)
    names = list(line_up.candidates)
    assert names[:3] == ["candidate-1", "candidate-2", "candidate-3"]
    assert line_up.entries["candidate-3"].is_last_resort
    assert line_up.entries["candidate-3"].share == pytest.approx(SHARES[2])
    last = line_up.candidates["candidate-3"]
    assert last.policy.recipe["lr"] == 0.2
    assert last.cost_flops / FACTS.reference_flops == pytest.approx(0.6, rel=0.13)


def test_a_cheaper_one_waits_only_if_it_is_likely_to_pass() -> None:
    def waits(curve: Curve) -> bool:
        entries = choose(curve, _ground(examples=(250, 540)), 1).entries
        return any(entry.is_extra for entry in entries.values())

    assert waits(Curve(full=0.03, spread=0.002))
    assert not waits(Curve(spread=0.006))


def test_the_share_of_one_that_is_missing_goes_to_the_others() -> None:
    entries = choose(Curve(), _ground(verified=0.5), 2).entries
    assert not any(entry.is_last_resort for entry in entries.values())
    shares = [entry.share for entry in entries.values() if entry.share]
    assert shares == pytest.approx([SHARES[0] / sum(SHARES[:2]), SHARES[1] / sum(SHARES[:2])])


def test_a_last_resort_saves_something_whatever_the_space_allows() -> None:
    last = choose(Curve(), _ground(budgets=(0.02, 2.0)), 1).candidates["recipe"]
    assert last.policy.passes == pytest.approx(candidates.MOST_BUDGET * 30)


def test_what_cannot_run_is_not_chosen() -> None:
    cheap = _ground(why_not=lambda policy: "too dear" if policy.passes < 12 else None)
    line_up = choose(Curve(), cheap, 1)
    assert min(one.policy.passes for one in line_up.candidates.values()) >= 12


def test_as_many_as_the_settings_say() -> None:
    assert list(choose(Curve(), _ground(count=1), 1).candidates) == ["candidate-1", "recipe"]
    entries = choose(Curve(), _ground(count=1), 1).entries
    assert math.fsum(entry.share for entry in entries.values()) == pytest.approx(1)


def test_lower_is_better_turns_the_sign() -> None:
    rules = Rules(margin=0.01, alpha=0.05, seeds=5, max_seeds=15, higher_is_better=False)
    up = choose(Curve(), _ground(is_share=False), 1).candidates["candidate-1"].cost_flops
    down = choose(Curve(sign=-1.0), _ground(rules=rules, is_share=False), 1).candidates["candidate-1"].cost_flops
    assert down == pytest.approx(up, rel=0.13)  # ties of the metric have no floor here
