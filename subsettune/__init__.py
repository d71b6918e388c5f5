"""subsettune: the cheapest way to train a network to the accuracy of its conventional recipe.

The public names are loaded on first use: following a bundle needs neither ray nor optuna, and a task needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subsettune import train
    from subsettune.api import tune
    from subsettune.bundle import Bundle
    from subsettune.data import DataPaths
    from subsettune.facts import TaskFacts
    from subsettune.policy import Phase, Policy
    from subsettune.study.options import TuneOptions
    from subsettune.study.spec.definition import Study
    from subsettune.task import Task
    from subsettune.trained.model import TrainedModel, load_model

__version__ = "0.1.0"  # the one place: pyproject.toml reads it here

_HOMES = {
    "Bundle": "subsettune.bundle",
    "DataPaths": "subsettune.data",
    "Phase": "subsettune.policy",
    "Policy": "subsettune.policy",
    "Study": "subsettune.study.spec.definition",
    "Task": "subsettune.task",
    "TaskFacts": "subsettune.facts",
    "TrainedModel": "subsettune.trained.model",
    "TuneOptions": "subsettune.study.options",
    "load_model": "subsettune.trained.model",
    "tune": "subsettune.api",
}
__all__ = [
    "Bundle",
    "DataPaths",
    "Phase",
    "Policy",
    "Study",
    "Task",
    "TaskFacts",
    "TrainedModel",
    "TuneOptions",
    "load_model",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("subsettune.train")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from subsettune.extras import needed_for  # so that a bare `import subsettune` loads nothing

    with needed_for(f"subsettune.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
