"""A selector, an order and a transition as another package might bring them, each a class and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from subsettune.facts import TaskFacts
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.train.orders import Batch, Order
from subsettune.train.orders.uniform import Rounds
from subsettune.train.transitions import Transition, TransitionContext


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Latest(Selector):
    """The last examples."""

    name: ClassVar[str] = "latest"
    summary: ClassVar[str] = "the last examples of all"

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing."""
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """The last k."""
        return Subset(positions=torch.arange(context.num_examples - k, context.num_examples))


class _Sorted(Rounds):
    def whole_round(self, number: int, share: float) -> Batch:
        return Batch(positions=torch.arange(self.num_examples) if self.pool is None else self.pool.sort().values)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ascending(Order):
    """By position, in every round alike."""

    summary: ClassVar[str] = "by position, every round alike"

    def stream(self, num_examples: int, batch_size: int, seed: int) -> _Sorted:
        """Rounds that are sorted."""
        return _Sorted(num_examples, batch_size, seed)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Damp(Transition):
    """Every weight a little smaller."""

    summary: ClassVar[str] = "every weight a little smaller"
    factor: float = 0.9

    def apply(self, context: TransitionContext) -> None:
        """Multiply."""
        with torch.no_grad():
            for weight in context.network.parameters():
                weight.mul_(self.factor)
