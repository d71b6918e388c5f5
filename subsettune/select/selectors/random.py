"""Random subsets: the control that every other selector has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.select.base import Selector
from subsettune.select.examples import SelectionContext, Subset

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Random(Selector):
    """Uniform without replacement: the first `k` of a random permutation of all examples.

    When: first, and always: most of what training on a subset first gives, it gives with a random one.
    Nested: yes. Order of the examples: the draw is of positions, so permuted examples give other ones with one seed.
    Cost: 0 FLOPs, 8 n bytes.
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "uniform without replacement; free; the control"
    is_ranking: ClassVar[bool] = True

    def __post_init__(self) -> None:
        config.check(self)

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing: no input is read."""
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """The first `k` of one permutation."""
        import torch

        return Subset(positions=torch.randperm(context.num_examples, generator=rng)[:k].clone())
