"""Orders: which examples of the pool come next within a phase. One file an order.

A user's own order is a subclass of `Order` in an importable module, a frozen dataclass of its options, named
`package.module:Class`, or by the entry point that its package gives in the group `subsettune.orders`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune.policy import Phase
from subsettune.registry import ORDERS
from subsettune.train.orders.base import Batch, Order, StepContext, Stream
from subsettune.train.orders.uniform import Uniform

__all__ = ["ORDERS", "Batch", "Order", "StepContext", "Stream", "make", "of"]


def make(name: str, options: Mapping[str, Any] | None = None) -> Order:
    """An order by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no order.
    """
    made: Order = ORDERS.make(name, options)
    return made


def of(phase: Phase) -> Order:
    """The order of a phase: the uniform one where its options make it that."""
    made = make(phase.order, phase.order_options)
    return Uniform() if made.is_neutral else made
