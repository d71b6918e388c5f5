"""Trains by a policy, as an install without extras must be able to. Run it away from the checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from subsettune import DataPaths, Policy, Task, train

LEFT_OUT = ("ray", "optuna", "scipy", "sklearn", "torchvision", "plotly", "rich", "ruamel", "PIL", "platformdirs")


def main() -> None:
    """Train once in the current folder, and check what was imported for it."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    np.savez("examples.npz", x=rng.normal(size=(300, 8)).astype(np.float32) + y[:, None], y=y)
    recipe: Any = {"lr": 0.1, "momentum": 0.9, "batch_size": 16, "epochs": 4}
    data: Any = {"source": "examples.npz"}
    model: Any = {"name": "mlp"}
    task = Task(data=data, model=model, recipe=recipe, tolerance=0.05)
    policy = Policy.from_mapping({"phases": [{"share": 0.5, "passes": 1}, {"passes": 1}]})
    options = train.RunOptions(places=DataPaths(cache="cache"), device="cpu", splits=("test",))
    result = train.run(task, policy, seed=0, options=options)
    assert result.metrics["test"] > 0.5, result.metrics
    loaded = sorted(set(LEFT_OUT) & set(sys.modules))
    assert not loaded, f"imported without need: {loaded}"
    print(f"{Path(train.__file__).parent}: {result.metrics}")


if __name__ == "__main__":
    main()
