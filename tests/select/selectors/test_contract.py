from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from contracts import choose, facts_of, made_up_part, selector_keeps_its_promises
from hypothesis import given, settings
from hypothesis import strategies as st
from options import components
from selections import selection_flops

from subsettune import select
from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import SelectionContext, Selector, Subset


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Brightest(Selector):
    """A user's own: the examples with the largest sum, weighted by it."""

    name: ClassVar[str] = "brightest"
    summary: ClassVar[str] = "the largest sum of inputs"

    @property
    def is_deterministic(self) -> bool:
        return True

    def flops(self, facts: TaskFacts, k: int) -> int:
        return facts.num_examples * facts.num_features

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        values, positions = context.matrix().sum(1).topk(k)
        weights = values - values.min() + 1
        return Subset(positions=positions, weights=weights * (context.num_examples / weights.sum()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*select.SELECTORS, "tests.select.selectors.test_contract:Brightest"])
@settings(deadline=None, max_examples=10)
@given(data=st.data(), k=st.integers(1, 150), seed=st.integers(0, 99))
def test_every_selector_keeps_its_promises(name: str, data: st.DataObject, k: int, seed: int) -> None:
    cls = type(select.make(name))
    selector_keeps_its_promises(data.draw(components(cls, ("1", "3"))), k, seed)


@pytest.mark.parametrize("name", select.SELECTORS)
def test_all_of_the_data_are_chosen_for_nothing(name: str) -> None:
    policy = Policy(phases=(Phase(share=1.0, passes=1, selector=name),))
    assert selection_flops(policy, 0, facts_of(made_up_part())) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Selector):
    """Gives whatever it is told to."""

    name: ClassVar[str] = "broken"
    summary: ClassVar[str] = "breaks the contract"
    subset: Subset

    def flops(self, facts: TaskFacts, k: int) -> int:
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        return self.subset


GOOD = torch.arange(5)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (
            Subset(positions=torch.arange(4)),
            r"Broken must give \(5,\) int64 positions on the CPU, got torch.int64 \(4,\)",
        ),
        (Subset(positions=torch.arange(5.0)), r"must give \(5,\) int64 positions on the CPU, got torch.float32"),
        (Subset(positions=torch.tensor([0, 1, 2, 3, 3])), r"must give 5 different positions in \[0, 150\)"),
        (Subset(positions=torch.tensor([0, 1, 2, 3, 150])), r"must give 5 different positions in \[0, 150\)"),
        (Subset(positions=torch.tensor([0, 1, 2, 3, -1])), r"must give 5 different positions in \[0, 150\)"),
        (Subset(positions=GOOD, weights=torch.ones(4)), r"must give \(5,\) float32 weights"),
        (Subset(positions=GOOD, weights=torch.tensor([1, 1, 1, 1, torch.nan])), "finite and not negative"),
        (Subset(positions=GOOD, weights=torch.tensor([1.0, 1, 1, 1, -1])), "finite and not negative"),
        (
            Subset(positions=GOOD, weights=torch.zeros(5)),
            "^Broken must give weights that sum to the 150 examples they stand for, got 0. Multiply them by what is",
        ),
        (Subset(positions=GOOD, weights=torch.full((5,), 30.1)), "sum to the 150 examples they stand for, got 150.5"),
    ],
)
def test_a_selector_that_breaks_the_contract_is_named(subset: Subset, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        choose(Broken(subset=subset), made_up_part(), 5)


def test_a_selector_that_gives_bare_positions_is_told_what_to_return() -> None:
    with pytest.raises(SelectionError) as caught:
        choose(Broken(subset=GOOD), made_up_part(), 5)  # type: ignore[arg-type]
    assert str(caught.value) == ("Broken must give a Subset, got a Tensor. Return Subset(positions=..., weights=...).")
