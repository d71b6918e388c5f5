"""Real bundles of scikit-learn's digits, made in a second, and what `train.run` does by them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import torch
from host_bundles import export_bundle
from numpy.typing import NDArray
from places import ROOT, SUPPORT
from torch.nn.utils import parameters_to_vector

from subsettune import Bundle, DataPaths, Phase, Policy, Task, config, models, train
from subsettune.data import load
from subsettune.train.randomness import isolated

SEED = 3
RECIPE = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 65, "epochs": 8}
# A few examples of whole batches, then larger batches of two phases with weights and switches.
SWITCHING = Policy(
    phases=(
        Phase(share=0.2, passes=0.5, selector="fakes:Weighted"),
        Phase(share=0.5, passes=0.6, transition="reset_optimizer"),
        Phase(passes=1.2, transition="shrink_perturb"),
    )
)


@dataclass(frozen=True)
class Followed:
    """A bundle and the run that others are held against.

    Args:
        folder: of the bundle.
        inputs: (num rows, 1, 8, 8) of the whole file, as the run reads them; those of rows held out are 0.
        targets: (num rows,) int64 of the whole file.
        weights: (P,) of the trained network.
        ledger: of the run, without evaluation.
    """

    folder: Path
    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    ledger: Any

    @property
    def bundle(self) -> Bundle:
        return Bundle.load(self.folder)


def digits_bundle(folder: Path, policy: Policy = SWITCHING, **recipe: Any) -> Followed:
    """Export a policy for the digits to `folder / "bundle"`, and train by it."""
    places = DataPaths(cache=str(folder / "cache"))
    task = digits_task(recipe)
    options = fakes.options(keep_model=True, places=places)
    result = train.run(task, policy, SEED, options=options)
    data = load(task, places)
    export_bundle(task, policy, places, folder, SEED)
    inputs, targets = data.train.batch(torch.arange(len(data.train)))
    rows = data.train.rows
    whole = torch.zeros((data.num_source_examples, *inputs.shape[1:]))
    whole[rows] = inputs
    labels = torch.zeros(data.num_source_examples, dtype=torch.int64)
    labels[rows] = targets
    weights = parameters_to_vector(result.model.parameters()).detach()
    return Followed(folder / "bundle", whole, labels, weights, result.ledger)


def digits_task(recipe: Mapping[str, Any]) -> Task:
    """The digits with a small network."""
    raw = {
        "data": {"source": "digits"},
        "split": {"validation": 0.2, "test": 0.3},
        "model": {"name": "mlp", "hidden": [16]},
        "recipe": {**RECIPE, **recipe},
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


def network(task: Task) -> torch.nn.Module:
    """The network of the digits as a run of the seed initialises it."""
    with isolated(SEED, 1):
        return models.make(task.model, (1, 8, 8), 10)


def promised(bundle: Bundle, seed: int = SEED) -> list[tuple[NDArray[np.int64], NDArray[np.float32] | None]]:
    """The batches that a host must train on, each with its weights."""
    assert bundle.rows is not None
    sampler = bundle.batch_sampler(bundle.rows.num_source, seed=seed)
    sampler.on_switch(lambda switch: switch.done())
    return list(sampler.batches())


def run_example(name: str, bundle: Path, folder: Path) -> str:
    """What a script of `examples` prints that follows a bundle, run in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SUPPORT))), "HOME": str(folder)}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(bundle)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
