"""Components: which a policy has, and the policy without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import pytest
from facts import made_up_facts
from selections import selection_flops

from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, Soup
from subsettune.study.spec.components import (  # type: ignore[attr-defined]
    Component,
    Kind,
    is_at_work,
    make,
    name_in,
    neutralised,
    overhead_flops,
    randomised,
    selects,
)
from subsettune.task import Recipe
from subsettune.train.transitions import Transition, TransitionContext

FACTS = made_up_facts(num_features=64, num_classes=10, smallest_class=90, class_counts=(100,) * 10)
RECIPE = Recipe(lr=0.1, batch_size=50, epochs=10)
HARD: dict[str, Any] = {"order": "selective_backprop", "order_options": {"keep": 0.5}}
SOUP = Phase(share=0.1, passes=1, soup=Soup(workers=2, masks="data"), **HARD)
SUBSET = Phase(share=0.2, passes=2, selector="kcenter", selector_options={"start": "random"}, **HARD)
LATER = Phase(share=0.4, passes=3, selector="kcenter", selector_options={"start": "random"}, **HARD)
LAST = Phase(passes=6, transition="shrink_perturb", transition_options={"shrink": 0.5}, **HARD)
ALL = Policy(phases=(SOUP, SUBSET, LATER, LAST), recipe={"lr": 0.2})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dear(Transition):
    """Costs three forward passes of the pool."""

    summary: ClassVar[str] = "costs three forward passes of the pool"

    def flops(self, facts: TaskFacts, pool_size: int) -> int:
        """Three forward passes."""
        return 3 * pool_size * facts.forward_flops

    def apply(self, entered: TransitionContext) -> None:
        """Nothing."""


def test_what_a_policy_has() -> None:
    kinds: tuple[Kind, ...] = ("selector", "order", "transition", "soup")
    assert [name_in(ALL, kind) for kind in kinds] == ["kcenter", "selective_backprop", "shrink_perturb", "soup"]
    plain = Policy(phases=(Phase(passes=1),))
    assert [name_in(plain, kind) for kind in kinds] == [None, "uniform", "keep", "none"]
    mixed = Policy(phases=(replace(SUBSET, selector="random", selector_options={}), LATER, LAST))
    assert name_in(mixed, "selector") is None
    assert name_in(Policy(phases=(SOUP, LAST)), "selector") is None  # the pool of a soup is no choice of a selector
    idle = Policy(phases=(replace(SOUP, soup=Soup(workers=1, density=1.0)), LAST))
    assert name_in(idle, "soup") == "none"
    assert [selects(policy) for policy in (ALL, plain, Policy(phases=(SOUP, LAST)))] == [True, False, False]


def test_a_component_whose_options_change_nothing_is_not_at_work() -> None:
    order, transition = (
        Component(kind="order", name="selective_backprop"),
        Component(kind="transition", name="shrink_perturb"),
    )
    assert is_at_work(order, ALL)
    assert is_at_work(transition, ALL)
    assert not is_at_work(Component(kind="order", name="rs2"), ALL)
    idle = Policy(phases=tuple(replace(phase, order_options={"keep": 1.0}) for phase in ALL.phases))
    assert not is_at_work(order, idle)
    kept = replace(LAST, transition_options={"shrink": 1.0, "noise": 0.0})
    assert not is_at_work(transition, replace(ALL, phases=(*ALL.phases[:-1], kept)))
    assert is_at_work(Component(kind="selector", name="kcenter"), ALL)
    assert is_at_work(Component(kind="soup", name="soup"), ALL)


def test_without_its_order_or_entry_a_policy_is_otherwise_the_same() -> None:
    uniform = neutralised(ALL, "order")
    assert [(phase.order, dict(phase.order_options)) for phase in uniform.phases] == [("uniform", {})] * 4
    assert Policy(phases=tuple(replace(phase, **HARD) for phase in uniform.phases), recipe=ALL.recipe) == ALL
    kept = neutralised(ALL, "transition")
    assert (kept.phases[:-1], kept.recipe) == (ALL.phases[:-1], ALL.recipe)
    assert kept.phases[-1] == replace(LAST, transition="keep", transition_options={})


def test_the_random_control_chooses_at_random_and_keeps_the_rest() -> None:
    drawn = randomised(ALL)
    assert drawn == neutralised(ALL, "selector")
    assert [phase.selector for phase in drawn.phases] == ["random"] * 4
    assert [phase.share for phase in drawn.phases] == [phase.share for phase in ALL.phases]
    assert drawn.phases[-1] == LAST


def test_without_its_soup_the_stretch_before_the_switch_is_as_long() -> None:
    without = neutralised(ALL, "soup")
    assert [phase.soup for phase in without.phases] == [None] * 3
    assert [phase.passes for phase in without.phases] == pytest.approx([2.4, 3.6, 6])
    assert [replace(phase, passes=1) for phase in without.phases] == [replace(p, passes=1) for p in ALL.phases[1:]]
    assert without.cost(FACTS) == ALL.cost(FACTS)
    pruned = [Phase(passes=passes, transition="prune", **HARD) for passes in (0.5, 5)]
    longer = neutralised(Policy(phases=(SOUP, SUBSET, *pruned)), "soup")
    assert longer.phases == (replace(SUBSET, passes=3), *pruned)
    alone = neutralised(Policy(phases=(SOUP, LAST)), "soup")
    assert alone.phases == (replace(LAST, passes=7, transition="keep", transition_options={}),)


def test_what_is_charged_beside_the_updates() -> None:
    dear = Policy(phases=(SUBSET, replace(LAST, transition=f"{__name__}:Dear", transition_options={})))
    assert overhead_flops("transition", dear, RECIPE, FACTS) == 3 * 1000 * 100
    assert overhead_flops("order", dear, RECIPE, FACTS) == 0
    # Two workers measure gradients on the first batch of their shard of 50 examples, forward and backward.
    assert overhead_flops("soup", ALL, RECIPE, FACTS) == 2 * 50 * 300

    assert overhead_flops("selector", ALL, RECIPE, FACTS) == selection_flops(ALL, 1, FACTS) + selection_flops(
        ALL, 2, FACTS
    )


def test_components_are_made_by_kind_and_name() -> None:
    assert make("order", "rs2", {"share": 0.2}).share == 0.2
    assert make("transition", "shrink_perturb", {"shrink": 0.2}).shrink == 0.2
    assert make("selector", "kcenter", {"start": "random"}).start == "random"
    assert make("soup", "soup", {"share": 0.1, "workers": 3}) == Soup(workers=3)
    with pytest.raises(ConfigError, match=r"density must be in \(0, 1\], got 5\."):
        make("soup", "soup", {"density": 5})
    with pytest.raises(
        ConfigError, match=r"^maks: unknown key\. Did you mean 'masks'\? Known keys: .*, masks, .*share"
    ):
        make("soup", "soup", {"maks": "erk"})


def test_components_say_what_they_stand_against() -> None:
    kinds: tuple[Kind, ...] = ("selector", "order", "transition", "soup")
    found = [Component(kind=kind, name="soup" if kind == "soup" else "x") for kind in kinds]
    assert [one.against for one in found] == ["random", "uniform", "keep", "none"]
    assert [one.words for one in found] == ["selector x", "order x", "transition x", "soup"]
    assert [Component(kind=kind, name=one.against).is_neutral for kind, one in zip(kinds, found, strict=True)] == [
        True
    ] * 4


def test_a_soup_at_its_neutral_setting_is_no_soup() -> None:
    neutral = Soup(workers=1, density=1.0)
    policy = Policy(phases=(Phase(share=0.5, passes=1, selector="kcenter", soup=neutral), Phase(passes=1)))
    assert policy.phases[0].active_soup is None
    assert name_in(policy, "soup") == "none"
    assert name_in(policy, "selector") == "kcenter"
    assert selects(policy)
    assert neutralised(policy, "soup") == policy
    assert Phase(passes=1, soup=neutral).is_plain
