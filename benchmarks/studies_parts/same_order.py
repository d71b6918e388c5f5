"""An order that does nothing: the uniform one under another name, for which no study may claim a win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from subsettune.train.orders.base import Order
from subsettune.train.orders.uniform import Shuffled


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Same(Order):
    """What the uniform order gives, batch by batch."""

    summary: ClassVar[str] = "the uniform order under another name"

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Shuffled:
        """See `Order.stream`."""
        return Shuffled(num_examples, batch_size, seed)
