"""A policy is resolved once: each component is made once a phase at most, and the work grows with the phases."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import pytest
import selections
import torch
from fakes import image_task, options
from hypothesis import given
from hypothesis import strategies as st

from subsettune import Policy, select, train
from subsettune.facts import TaskFacts
from subsettune.policy import Phase
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.train.orders.base import Order
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.planning.phases import resolve_phases
from subsettune.train.transitions import Transition, TransitionContext

Data = dict[str, str]
MADE: Counter[str] = Counter()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CountedSelector(Selector):
    """Chooses the first examples; counts how often one is made."""

    name: ClassVar[str] = "counted"
    summary: ClassVar[str] = "chooses the first"
    is_ranking: ClassVar[bool] = True
    mark: int = 0

    def __post_init__(self) -> None:
        MADE["selector"] += 1

    def flops(self, facts: TaskFacts, k: int) -> int:
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        return Subset(positions=torch.arange(k))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CountedOrder(Order):
    """The uniform order; counts how often one is made."""

    summary: ClassVar[str] = "shuffles"

    def __post_init__(self) -> None:
        MADE["order"] += 1

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Shuffled:
        return Shuffled(num_examples, batch_size, seed)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CountedTransition(Transition):
    """Changes nothing; counts how often one is made."""

    summary: ClassVar[str] = "changes nothing"
    mark: int = 0

    def __post_init__(self) -> None:
        MADE["transition"] += 1

    def apply(self, entered: TransitionContext) -> None:
        MADE["applied"] += 1


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    MADE.clear()


def counted(num_phases: int, *, alike: bool) -> Policy:
    """A policy with components that count, with options that are equal in all phases or in none."""
    phases = [
        {
            "share": 0.3,
            "passes": 0.4,
            "order": f"{__name__}:CountedOrder",
            "selector": f"{__name__}:CountedSelector",
            "selector_options": {"mark": 0 if alike else index},
            **(
                {"transition": f"{__name__}:CountedTransition", "transition_options": {"mark": 0 if alike else index}}
                if index
                else {}
            ),
        }
        for index in range(num_phases)
    ]
    return Policy.from_mapping({"phases": phases})


@pytest.mark.parametrize("alike", [True, False])
def test_a_run_of_ten_phases_makes_each_component_once(tiny_data: Data, alike: bool) -> None:
    result = train.run(image_task(tiny_data), counted(10, alike=alike), 3, options=options())
    assert result.cause == "finished"
    assert (len(result.switch_shares), MADE.pop("applied")) == (9, 9)
    assert (
        {"selector": 1, "order": 1, "transition": 1} if alike else {"selector": 10, "order": 1, "transition": 9}
    ) == MADE


def test_a_check_grows_with_the_number_of_phases(tiny_data: Data) -> None:
    """Ten times the phases take about ten times as long: 30 times leaves room for a busy machine."""
    task = image_task(tiny_data)
    facts = train.facts(task)

    def fastest(num_phases: int) -> float:
        subsets = [Phase(share=0.5, passes=1.0, draw=draw) for draw in range(num_phases - 1)]
        policy = Policy(phases=(*subsets, Phase(passes=1.0)))
        times = []
        for _ in range(5):
            start = time.process_time()
            train.check(task, policy, facts)
            times.append(time.process_time() - start)
        return min(times)

    fastest(10)
    assert fastest(1000) < 30 * fastest(100)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 10**12))
def test_phases_end_at_sums_that_are_rounded_once(passes: list[float], pass_flops: int) -> None:
    facts = TaskFacts(
        num_examples=pass_flops,
        num_outputs=1,
        num_parameters=1,
        forward_flops=1,
        backward_flops=0,
        reference_passes=1.0,
    )
    policy = Policy(phases=tuple(Phase(passes=one) for one in (*passes, 1.0)))
    sums = [math.fsum([*passes, 1.0][: i + 1]) for i in range(len(passes) + 1)]
    assert policy.boundaries(facts) == tuple(round(one * pass_flops) for one in sums)
    assert policy.boundaries(facts)[-1] == policy.cost(facts)


CHOICES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("random", {}),
    ("kcenter", {}),
    ("kcenter", {"features": "projection"}),
    ("el2n", {"proxy_passes": 0.1}),
    ("grand", {"proxy_passes": 0.1}),
    ("el2n", {"model": "current"}),
    ("stratified", {}),
    ("gradmatch", {"model": "current"}),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    phases = []
    for _ in range(draw(st.integers(1, 7))):
        name, chosen = draw(st.sampled_from(CHOICES))
        share = draw(st.sampled_from([0.2, 0.4, 1.0]))
        phase = {"share": share, "passes": 1e6, "selector": name, "draw": draw(st.integers(0, 1))}
        phases.append({**phase, "selector_options": chosen})
    return Policy.from_mapping({"phases": phases})


def charged_slowly(policy: Policy, index: int, facts: TaskFacts) -> int:
    """What a selection costs, found by looking at every earlier phase."""

    def made(phase: Phase) -> Selector:
        return select.make(phase.selector, phase.selector_options)

    mine, n = policy.phases[index], facts.num_examples
    if mine.is_full:
        return 0
    earlier = [phase for phase in policy.phases[:index] if not phase.is_full]
    selector = made(mine)
    need = selector.model_need
    training = 0 if need is None or any(made(p).model_need == need for p in earlier) else need.flops(facts)
    is_shared = selector.is_ranking and not (need is not None and need.source == "current")
    same = [replace(p, share=mine.share, draw=mine.draw if selector.is_deterministic else p.draw) for p in earlier]
    alike = [p for p, s in zip(earlier, same, strict=True) if is_shared and s == mine]
    paid = max((selector.flops(facts, p.pool_size(n)) for p in alike), default=0)
    return training + max(0, selector.flops(facts, mine.pool_size(n)) - paid)


@given(policies())
def test_selections_are_charged_as_by_looking_at_every_earlier_phase(policy: Policy) -> None:
    planned = selections.plan_selections(policy, FACTS)
    flops = [0 if one is None else one.flops for one in planned]
    assert flops == [charged_slowly(policy, index, FACTS) for index in range(len(planned))]


FACTS = TaskFacts(
    num_examples=200,
    num_outputs=4,
    num_parameters=500,
    forward_flops=1000,
    backward_flops=2000,
    reference_passes=10.0,
    num_features=36,
    num_classes=4,
    smallest_class=40,
    class_counts=(50, 50, 60, 40),
    head_features=8,
)


def test_a_phase_knows_the_network_before_and_in_it(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    facts = train.facts(task)
    pruned = {"transition": "prune", "transition_options": {"keep": 0.5}}
    policy = Policy.from_mapping({"phases": [{"passes": 5}, {"passes": 5, **pruned}, {"passes": 5, "share": 0.5}]})
    first, second, third = resolve_phases(policy, task.recipe, facts)
    assert first.facts_before is first.facts is second.facts_before is facts
    assert second.facts.forward_flops < facts.forward_flops
    assert third.facts_before is third.facts is second.facts
    assert (second.flops, first.flops, third.flops) == (second.transition_flops, 0, 0)
    assert [phase.selection is None for phase in (first, second, third)] == [True, True, False]
