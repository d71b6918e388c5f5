"""Studies: search, simulation, verification, and their records.

`subsettune.study.simulate` is both a module and, called, its function. It is loaded on first use, because it needs
Optuna and reading a study does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subsettune.study.simulate import Simulation, simulate

__all__ = ["Simulation", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module("subsettune.study.simulate")
    return module if name == "simulate" else getattr(module, name)
