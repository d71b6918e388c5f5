"""RS2: every round a fresh random part of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from subsettune import config
from subsettune.config import FRACTION, setting
from subsettune.facts import TaskFacts
from subsettune.task import Recipe
from subsettune.train.orders.base import Batch, Order, is_same, line_search, shuffled
from subsettune.train.orders.uniform import Rounds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rs2(Order):
    """Repeated sampling of a random subset: each round goes through a fresh random part of the pool.

    Without replacement, a permutation of the pool is cut into rounds one after the other, until fewer examples than a
    round takes are left; then it is shuffled anew. Batches run on over the ends of rounds, so it differs from the
    uniform order only in the examples left over, which wait for the next permutation. With replacement, every round
    draws from the whole pool. Within a round no example comes twice. Source: Okanovic et al. 2023, arXiv:2305.18424.

    When: to see what choosing is worth: it leaves examples out at random, and looks at none of them.
    Cost: nothing.

    Args:
        share: of the pool that a round takes, rounded to whole examples, at least one; 1 is the uniform order.
        replacement: whether a round draws from the whole pool, whatever the rounds before it took.
    """

    summary: ClassVar[str] = "a fresh random part of the pool each round (share 0.1)"
    heeds_share: ClassVar[bool] = False
    share: float = setting(0.1, rule=FRACTION)
    replacement: bool = False

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether a round takes the whole pool."""
        return self.share == 1

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """See `Order.why_not`."""
        return line_search("rs2", recipe)

    def taken(self, pool_size: int) -> int:
        """Examples of a round."""
        return max(1, round(self.share * pool_size))

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Rs2Stream:
        """See `Order.stream`."""
        return Rs2Stream(self, num_examples, batch_size, seed)


@final
class Rs2Stream(Rounds):
    """The stream of RS2. A new pool begins with a new permutation."""

    def __init__(self, order: Rs2, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_examples, batch_size, seed)
        self.order = order
        self._first = 0  # round with which the pool began

    def enter(self, pool: Tensor | None) -> None:
        """See `Stream.enter`."""
        is_new = not is_same(pool, self.pool)
        super().enter(pool)
        if is_new:
            self._first = self._round

    def whole_round(self, number: int, share: float) -> Batch:
        """A part of a permutation of the pool."""
        size = self.num_examples if self.pool is None else len(self.pool)
        taken = self.order.taken(size)
        parts = 1 if self.order.replacement else size // taken
        cycle, part = divmod(number - self._first, parts)
        # Permutations of a pool are numbered from its first round on: below the first round of the pool after it.
        permutation = shuffled(self.num_examples, self.pool, self.seed, self._first + cycle)
        return Batch(positions=permutation[part * taken : (part + 1) * taken])

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        return {**super().state(), "first": self._first}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        super().load(state, pool)
        self._first = state["first"]
