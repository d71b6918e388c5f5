"""Random subsets with the classes in proportion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.select.base import Selector, share_of
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.families.proportions import proportional_ranking

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stratified(Selector):
    """Random within each class, with class counts in proportion: each is k n_c / n, rounded down or up.

    Rounding by largest remainder gives such counts for one `k`, but its subsets are not nested (Alabama paradox). The
    ranking of `proportions.proportional_ranking` gives them for every `k` at once. A class whose proportional count is
    below 1 may get none.

    When: a classification with rare classes, of which a small random subset may have none.
    Nested: yes. Order of the examples: as for `random`.
    Cost: 0 FLOPs, O(n) memory, O(n log n) time.
    """

    name: ClassVar[str] = "stratified"
    summary: ClassVar[str] = "random within each class, class counts in proportion; free"
    is_ranking: ClassVar[bool] = True

    def __post_init__(self) -> None:
        config.check(self)

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing: no input is read."""
        return 0

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """Classes are needed, and room for one example of each."""
        if facts.num_classes == 0:
            return f"stratified needs classes, and the task {facts.classless}. Use random or kcenter."
        if k < facts.num_classes:
            least = share_of(facts.num_classes, facts.num_examples)
            return (
                f"k must be at least the {facts.num_classes:,} classes for stratified, got {k:,}. "
                f"Choose a subset_share of {least} or more, or another selector."
            )
        return Selector.why_not(self, facts, k)  # slots make a new class, which `super()` does not know

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """The class of each pick from the proportional ranking, the example from a shuffle of that class."""
        import torch

        shuffle = torch.randperm(context.num_examples, generator=rng)
        labels = context.targets.cpu()[shuffle]
        counts = torch.bincount(labels)
        by_class = shuffle[labels.argsort(stable=True)]
        first = counts.cumsum(0) - counts
        classes, nth = (torch.tensor(v) for v in proportional_ranking(counts.tolist(), k))
        return Subset(positions=by_class[first[classes] + nth])
