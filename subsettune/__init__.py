"""subsettune: the cheapest way to train a network to the accuracy of its conventional recipe.

The public names are loaded on first use: following a bundle needs neither ray nor optuna, and a task needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subsettune import train
    from subsettune.api import load_study, tune
    from subsettune.bundle import Bundle
    from subsettune.callbacks import Callback
    from subsettune.data import DataPaths
    from subsettune.facts import TaskFacts
    from subsettune.found import Found
    from subsettune.policy import Phase, Policy
    from subsettune.study.options import TuneOptions
    from subsettune.study.spec.definition import Study
    from subsettune.task import Task
    from subsettune.train.follow.run import Run, StopRun
    from subsettune.train.follow.session import session
    from subsettune.trained.model import TrainedModel, load_model

__version__ = "0.1.0"  # the one place: pyproject.toml reads it here

_HOMES = {
    "Bundle": "subsettune.bundle",
    "Callback": "subsettune.callbacks",
    "DataPaths": "subsettune.data",
    "Found": "subsettune.found",
    "Phase": "subsettune.policy",
    "Policy": "subsettune.policy",
    "Run": "subsettune.train.follow.run",
    "StopRun": "subsettune.train.follow.run",
    "session": "subsettune.train.follow.session",
    "Study": "subsettune.study.spec.definition",
    "Task": "subsettune.task",
    "TaskFacts": "subsettune.facts",
    "TrainedModel": "subsettune.trained.model",
    "TuneOptions": "subsettune.study.options",
    "load_model": "subsettune.trained.model",
    "load_study": "subsettune.api",
    "tune": "subsettune.api",
}
__all__ = [
    "Bundle",
    "Callback",
    "DataPaths",
    "Found",
    "Phase",
    "Policy",
    "Run",
    "StopRun",
    "Study",
    "Task",
    "TaskFacts",
    "TrainedModel",
    "TuneOptions",
    "load_model",
    "load_study",
    "session",
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
