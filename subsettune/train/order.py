"""Orders: which examples of the pool come next within a phase.

Round r of a run is a permutation of all training examples drawn from (seed, r). It is filtered by the phase's pool and
cut into batches, so a subset run sees a sub-sequence of the full run's order and arms with one seed are paired. The
last batch of a round is short, except that a single left-over example joins the batch before it: batch norm cannot
train on one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.plugins import load_class
from subsettune.train.randomness import generator


class Order(ABC):
    """An endless stream of batches of one run, across its phases.

    Args:
        num_examples: N, size of the training part.
        batch_size: examples per update; a smaller pool gives full-pool batches.
        seed: of the run.
    """

    summary: ClassVar[str]

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed

    @abstractmethod
    def enter(self, pool: Tensor | None) -> None:
        """Begin a phase on a pool, (k,) int64 positions, or None for all. The same pool continues its round."""

    @abstractmethod
    def next(self) -> Tensor:
        """The next batch: (b,) int64 positions in the training part."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same batches, apart from the pool."""

    @abstractmethod
    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """Go on from `state` on `pool`."""


@final
class Uniform(Order):
    """Every example of the pool once a round, in random order."""

    summary = "every example of the pool once a round, shuffled"

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_examples, batch_size, seed)
        self._round, self._position = 0, 0
        self._pool: Tensor | None = None
        self._batches: tuple[Tensor, ...] = ()

    def enter(self, pool: Tensor | None) -> None:
        """See `Order.enter`."""
        if _same(pool, self._pool):
            return
        self._pool = pool
        if self._position:
            self._round, self._position = self._round + 1, 0
        self._batches = ()

    def next(self) -> Tensor:
        """See `Order.next`."""
        if not self._batches:
            self._batches = self._cut()
        batch = self._batches[self._position]
        self._position += 1
        if self._position == len(self._batches):
            self._round, self._position, self._batches = self._round + 1, 0, ()
        return batch

    def state(self) -> dict[str, Any]:
        """See `Order.state`."""
        return {"round": self._round, "position": self._position}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Order.load`."""
        self._pool, self._batches = pool, ()
        self._round, self._position = state["round"], state["position"]

    def _cut(self) -> tuple[Tensor, ...]:
        order = torch.randperm(self.num_examples, generator=generator(self.seed, "order", self._round))
        if self._pool is not None:
            member = torch.zeros(self.num_examples, dtype=torch.bool)
            member[self._pool] = True
            order = order[member[order]]
        batches: tuple[Tensor, ...] = order.split(self.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        return batches


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a, b)


ORDERS: dict[str, type[Order]] = {"uniform": Uniform}


def make(name: str, num_examples: int, batch_size: int, seed: int) -> Order:
    """An order by name or `package.module:Class`.

    Raises:
        ConfigError: unknown name, or a class that is no order.
    """
    if name not in ORDERS and ":" not in name:
        raise ConfigError(must("order", f"one of {', '.join(ORDERS)} or package.module:Class", name))
    cls = ORDERS[name] if name in ORDERS else load_class(name, "order", Order)  # type: ignore[type-abstract]
    return cls(num_examples, batch_size, seed)


def names() -> Mapping[str, str]:
    """Known orders with one line on each."""
    return {name: cls.summary for name, cls in ORDERS.items()}
