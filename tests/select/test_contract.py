from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from contracts import SelectorContract, choose, made_up_part, untouched_random_state  # noqa: F401 (a fixture)

from subsettune import select
from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.select import SelectionContext, Selector, Subset


@pytest.mark.parametrize("selector", [select.make(name) for name in select.SELECTORS], ids=list(select.SELECTORS))
class TestRegistry(SelectorContract):
    pass


@pytest.mark.parametrize("selector", [select.make("kcenter", {"start": "center"})], ids=["kcenter-center"])
class TestKCenterFromTheCenter(SelectorContract):
    pass


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


@pytest.mark.parametrize("selector", [Brightest()], ids=["brightest"])
class TestUsersOwn(SelectorContract):
    pass


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
