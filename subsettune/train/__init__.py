"""One training loop for the reference and for every policy.

The functions and `RunOptions` are loaded on first use, because they need torch and the plain records of this package
do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subsettune.train.result import CurvePoint, RunResult

if TYPE_CHECKING:
    from subsettune.train.loop import RunJob, RunOptions, SubsetProvider, check, facts, predict, run, run_key

_LAZY = ("RunJob", "RunOptions", "SubsetProvider", "check", "facts", "predict", "run", "run_key")
__all__ = [
    "CurvePoint",
    "RunJob",
    "RunOptions",
    "RunResult",
    "SubsetProvider",
    "check",
    "facts",
    "predict",
    "run",
    "run_key",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from subsettune.train import loop

    return getattr(loop, name)
