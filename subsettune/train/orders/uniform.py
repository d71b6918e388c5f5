"""Every example of the pool once a round, shuffled; and what other orders that go by rounds share with it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from subsettune.train.orders.base import Batch, Order, Stream, batch_length, is_same, joined, shuffled


class Rounds(Stream):
    """A stream that goes by rounds over the pool; what a round consists of is the subclass's.

    Round r of a run is a permutation of all training examples drawn from (seed, r), filtered by the phase's pool. A
    phase's rounds follow one another without a gap and are cut into batches of one length: what a round leaves over
    begins the batch that the next one completes. So updates per example are the same whatever the size of the pool, and
    a subset run sees a sub-sequence of the full run's order: arms with one seed are paired. With a new pool a new round
    begins, and what is left of the old one is dropped.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.pool: Tensor | None = None
        self._round, self._position = 0, 0  # of the next example, and its place in it
        self._current: Batch | None = None  # the round that is on, whole; None until an example of it is needed

    @abstractmethod
    def whole_round(self, number: int, share: float) -> Batch:
        """A round as one long batch, which is not empty.

        Called when the stream first needs an example of it, and again when a run is resumed within it.

        Args:
            number: of the round.
            share: of the policy's compute spent so far, as given to `next`.
        """

    def enter(self, pool: Tensor | None) -> None:
        """See `Stream.enter`."""
        if is_same(pool, self.pool):
            return
        self.pool = pool
        if self._position:
            self.leave_round()
        self._current = None

    def leave_round(self) -> None:
        """Begin the next round; what is left of this one is dropped."""
        self._round, self._position, self._current = self._round + 1, 0, None

    def next(self, share: float) -> Batch:
        """See `Stream.next`."""
        missing = batch_length(self.num_examples if self.pool is None else len(self.pool), self.batch_size)
        parts: list[Batch] = []
        while missing:
            parts.append(self._take(missing, share))
            missing -= len(parts[-1])
        return joined(parts)

    def _take(self, most: int, share: float) -> Batch:
        """The next examples of the round that is on: as many as it has, up to `most`."""
        if self._current is None:
            self._current = self.whole_round(self._round, share)
        taken = slice(self._position, self._position + most)
        weights = self._current.weights
        part = Batch(positions=self._current.positions[taken], weights=None if weights is None else weights[taken])
        self._position += len(part)
        if self._position == len(self._current):
            self.leave_round()
        return part

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        return {"round": self._round, "position": self._position}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        self.pool, self._current = pool, None
        self._round, self._position = state["round"], state["position"]


@final
class Shuffled(Rounds):
    """The stream of the uniform order."""

    def whole_round(self, number: int, share: float) -> Batch:
        """All of the pool."""
        return Batch(positions=shuffled(self.num_examples, self.pool, self.seed, number))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Order):
    """Every example of the pool once a round, in random order.

    When: always, unless another is shown to pay: it is what the others are held against.
    Cost: nothing.
    """

    summary: ClassVar[str] = "every example of the pool once a round, shuffled"
    heeds_share: ClassVar[bool] = False

    @property
    def is_neutral(self) -> bool:
        """It is what the others are measured against."""
        return True

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Shuffled:
        """See `Order.stream`."""
        return Shuffled(num_examples, batch_size, seed)
