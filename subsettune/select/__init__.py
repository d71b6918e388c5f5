"""Selectors: who chooses a subset of a given size. One file a selector, `kernels` for the numbers.

A user's own selector is a subclass of `Selector` in an importable module, a frozen dataclass of its options, named
`package.module:Class`, or by the entry point that its package gives in the group `subsettune.selectors`. Nothing
here imports torch before a subset is chosen, so that the search can ask what a choice costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune.registry import SELECTORS
from subsettune.select.accounting import PhaseSelection
from subsettune.select.base import ModelNeed, Selector
from subsettune.select.examples import Examples, SelectionContext, Subset

__all__ = [
    "SELECTORS",
    "Examples",
    "ModelNeed",
    "PhaseSelection",
    "SelectionContext",
    "Selector",
    "Subset",
    "make",
]


def make(name: str, options: Mapping[str, Any] | None = None) -> Selector:
    """A selector by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no selector.
    """
    made: Selector = SELECTORS.make(name, options)
    return made
