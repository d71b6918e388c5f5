"""A study of a fraction of a second, as a mapping, and ways to change and write it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REMOVED = object()
STUDY: dict[str, Any] = {
    "task": {
        "data": {"source": "digits"},
        "split": {"validation": 0.2, "test": 0.3, "seed": 0},
        "model": {"name": "mlp", "hidden": [16]},
        "recipe": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 64, "epochs": 6},
        "metric": "accuracy",
        "tolerance": 0.1,
    },
    "space": {
        "budget": {"log": [0.1, 0.8]},
        "switch": {"uniform": [0.1, 0.9]},
        "subset_share": {"log": [0.1, 0.5]},
        "selector": {"choice": ["random", "stratified"]},
    },
    "study": {"trials": 6, "seeds": 3, "max_seeds": 3, "candidates": 1, "ablation_seeds": 0},
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """STUDY with other values at dotted keys; `REMOVED` takes a key out."""
    raw = copy.deepcopy(STUDY)
    for key, value in changes.items():
        *outer, last = key.split(".")
        inner = raw
        for name in outer:
            inner = inner[name]
        if value is REMOVED:
            del inner[last]
        else:
            inner[last] = value
    return raw


def write(path: Path, changes: dict[str, Any] | None = None) -> str:
    """The same as a file."""
    with path.open("w") as stream:
        YAML().dump(changed(changes or {}), stream)
    return str(path)
