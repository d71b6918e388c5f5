"""Every example of the pool once a round, shuffled; and what other orders that go by rounds share with it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from subsettune.train.orders.base import Batch, Order, Stream, is_same, lengths, shuffled


class Rounds(Stream):
    """A stream that goes by rounds over the pool; what a round consists of is the subclass's.

    Round r of a run is a permutation of all training examples drawn from (seed, r). It is filtered by the phase's pool
    and cut into batches, so a subset run sees a sub-sequence of the full run's order and arms with one seed are paired.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.pool: Tensor | None = None
        self._round, self._position = 0, 0
        self._batches: list[Batch] = []

    @abstractmethod
    def cut(self, number: int, share: float) -> list[Batch]:
        """The batches of a round; called once, when it begins, and again when a run is resumed within it."""

    def enter(self, pool: Tensor | None) -> None:
        """See `Stream.enter`."""
        if is_same(pool, self.pool):
            return
        self.pool = pool
        if self._position:
            self._round, self._position = self._round + 1, 0
        self._batches = []

    def next(self, share: float) -> Batch:
        """See `Stream.next`."""
        if not self._batches:
            self._batches = self.cut(self._round, share)
        batch = self._batches[self._position]
        self._position += 1
        if self._position == len(self._batches):
            self._round, self._position, self._batches = self._round + 1, 0, []
        return batch

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        return {"round": self._round, "position": self._position}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        self.pool, self._batches = pool, []
        self._round, self._position = state["round"], state["position"]


def split(order: Tensor, batch_size: int) -> list[Batch]:
    """Cut a shuffled pool into the batches of a round; batch norm cannot train on a single left-over example."""
    return [Batch(positions=positions) for positions in order.split(lengths(len(order), batch_size))]


@final
class Shuffled(Rounds):
    """The stream of the uniform order."""

    def cut(self, number: int, share: float) -> list[Batch]:
        """All of the pool."""
        return split(shuffled(self.num_examples, self.pool, self.seed, number), self.batch_size)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Order):
    """Every example of the pool once a round, in random order."""

    summary: ClassVar[str] = "every example of the pool once a round, shuffled"

    @property
    def is_neutral(self) -> bool:
        """It is what the others are measured against."""
        return True

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Shuffled:
        """See `Order.stream`."""
        return Shuffled(num_examples, batch_size, seed)
