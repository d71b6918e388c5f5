"""Selectors that rank the examples, of each class apart, by distances between features."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Rule, setting
from subsettune.facts import TaskFacts
from subsettune.select.base import ModelNeed, ModelSource, Selector
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.families import classes
from subsettune.select.families.classes import Balance
from subsettune.select.families.features import FORMS, Features, group, is_known

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SEEDS = 2**62
KNOWN = Rule(FORMS, is_known)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceSelector(Selector):
    """Ranks groups of rows of an (n, d) matrix of features, a group being a class or all examples.

    Nested: yes. Order of the examples: where nothing is drawn, a permutation of the examples permutes the answer (ties
    aside).

    Args:
        features: what distances are measured on; see `features.Features`.
        dimensions: of a projection.
        projection_seed: of a projection.
        model: the network that features are taken from: `proxy` or `current`.
        proxy_passes: allowance of the proxy. Means nothing to `model: current`.
        classes: class counts of the subset: `proportional`, `equal`, or `none` to rank all examples together.
        memory_limit_gib: refuse to start where more memory would be needed.
    """

    is_ranking: ClassVar[bool] = True
    features: str = setting("raw", rule=KNOWN)
    dimensions: int = setting(64, rule=AT_LEAST_ONE)
    projection_seed: int = setting(0, rule=NOT_NEGATIVE)
    model: ModelSource = "proxy"
    proxy_passes: float = setting(1.0, rule=NOT_NEGATIVE)
    classes: Balance = "proportional"
    memory_limit_gib: float = setting(4.0, rule=POSITIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @abstractmethod
    def rank(self, x: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """(k,) int64 places of the picks among the rows of a group (g, d), best first, on the CPU."""

    @abstractmethod
    def rank_flops(self, size: int, k: int, width: int) -> int:
        """FLOPs charged for ranking `k` >= 1 of the `size` rows of a group."""

    @abstractmethod
    def rank_bytes(self, size: int, k: int, width: int) -> int:
        """Upper bound of the memory that ranking a group takes beside its rows."""

    @property
    def model_need(self) -> ModelNeed | None:
        """A network where features are taken from one."""
        return self.source.model_need

    @property
    def memory_limit_bytes(self) -> int:
        """As the option says."""
        return int(self.memory_limit_gib * 2**30)

    @property
    def source(self) -> Features:
        """The features."""
        return Features(
            name=self.features,
            dimensions=self.dimensions,
            projection_seed=self.projection_seed,
            model=self.model,
            proxy_passes=self.proxy_passes,
        )

    def flops(self, facts: TaskFacts, k: int) -> int:
        """The features, and the ranking of each group."""
        width = self.source.width(facts)
        return self.source.flops(facts) + sum(
            self.rank_flops(size, quota, width) for size, quota in self._groups(facts, k) if quota
        )

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """The features; then a copy of the largest group beside them, and its ranking."""
        width, parts = self.source.width(facts), self._groups(facts, k)
        matrix = 4 * facts.num_examples * width
        ranking = max(self.rank_bytes(size, quota, width) for size, quota in parts)
        copy = 4 * width * max(size for size, _ in parts) if len(parts) > 1 else 0
        return max(self.source.memory_bytes(facts), matrix + copy + ranking)

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """Features of such data, room for the classes, and memory."""
        problem = None
        if 1 <= k <= facts.num_examples:
            problem = self.source.why_not(self.name, facts) or classes.why_not(self.name, self.classes, facts, k)
        return problem or Selector.why_not(self, facts, k)

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Compute the features, and rank each group."""
        x = self.source.compute(context)
        positions = self.positions(x, context, k, rng)
        return Subset(positions=positions, weights=self.weights(x, context, positions))

    def positions(self, x: Tensor, context: SelectionContext, k: int, rng: torch.Generator) -> Tensor:
        """(k,) int64 positions of the picks. Each group draws from a stream of its own, so that rankings are nested."""
        import torch

        alone = len(classes.groups(context.facts, self.classes)) == 1
        seed = 0 if alone or self.is_deterministic else int(torch.randint(SEEDS, (1,), generator=rng))

        def within(members: Tensor, quota: int) -> Tensor:
            stream = rng if alone else torch.Generator().manual_seed(seed + int(members[0]))
            return self.rank(group(x, members), quota, stream)

        return classes.rank(context.targets, context.facts, self.classes, k, within)

    def weights(self, x: Tensor, context: SelectionContext, positions: Tensor) -> Tensor | None:
        """(k,) float32 weights of the picks, as in `Subset`; None for equal ones."""
        return None

    def _groups(self, facts: TaskFacts, k: int) -> list[tuple[int, int]]:
        """Size and quota of each group; a quota is 1 at least where `k` is out of range."""
        sizes = classes.groups(facts, self.classes)
        if len(sizes) == 1:
            return [(facts.num_examples, k)]
        return list(zip(sizes, classes.quotas(facts, self.classes, k), strict=True))
