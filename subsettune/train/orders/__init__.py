"""Orders: which examples of the pool come next within a phase. One file an order, and the registry.

A user's own order is a subclass of `Order` in an importable module, a frozen dataclass of its options, named
`package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune import config
from subsettune.config import must
from subsettune.errors import ConfigError, Mistake
from subsettune.plugins import load_class
from subsettune.policy import Phase
from subsettune.train.orders.base import Batch, Order, StepContext, Stream
from subsettune.train.orders.infobatch import InfoBatch
from subsettune.train.orders.rs2 import Rs2
from subsettune.train.orders.selective_backprop import SelectiveBackprop
from subsettune.train.orders.sift import Sift
from subsettune.train.orders.uniform import Uniform

__all__ = ["ORDERS", "Batch", "Moment", "Order", "StepContext", "Stream", "make", "names", "of"]

ORDERS: dict[str, type[Order]] = {
    "uniform": Uniform,
    "rs2": Rs2,
    "infobatch": InfoBatch,
    "sift": Sift,
    "selective_backprop": SelectiveBackprop,
}


def make(name: str, options: Mapping[str, Any] | None = None) -> Order:
    """An order by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no order.
    """
    if name not in ORDERS and ":" not in name:
        raise ConfigError(must("order", f"one of {', '.join(ORDERS)} or package.module:Class", name))
    cls = ORDERS[name] if name in ORDERS else load_class(name, "order", Order)  # type: ignore[type-abstract]
    try:
        return config.build(cls, dict(options or {}))
    except ConfigError as error:
        raise ConfigError(tuple(Mistake(("order_options", *m.path), m.message) for m in error.mistakes)) from error


def of(phase: Phase) -> Order:
    """The order of a phase: the uniform one where its options make it that."""
    made = make(phase.order, phase.order_options)
    return Uniform() if made.is_neutral else made


def names() -> Mapping[str, str]:
    """Known orders with one line on each."""
    return {name: cls.summary for name, cls in ORDERS.items()}
