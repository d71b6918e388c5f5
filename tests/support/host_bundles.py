"""Bundles that hosts follow, each with what `train.run` did by the same policy: rows, weights and ledger."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from fake_bundle import export
from places import ROOT
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.utils.data import TensorDataset

from subsettune import Bundle, models
from subsettune.bundle.export import chosen, export_policy
from subsettune.bundle.rows import TrainingRows
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, TaskData, load
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train import loop
from subsettune.train.job import RunJob
from subsettune.train.learner import Learner
from subsettune.train.randomness import isolated
from subsettune.train.selection.chooser import SubsetProvider

SEED = 3
_CRAIG = Phase(share=0.2, passes=8, selector="facility_location")
_HALF = Phase(share=0.3, passes=0.5)
# name: settings of the recipe, policy. `uneven` has batches of 15 and, first, of one example.
CASES: dict[str, tuple[dict[str, Any], Policy]] = {
    "plain": ({}, Policy(phases=(_HALF, Phase(passes=1.53)))),
    "reset": ({}, Policy(phases=(_HALF, Phase(passes=1.53, transition="reset_optimizer")))),
    "shrunk": ({}, Policy(phases=(_HALF, Phase(passes=1.53, transition="shrink_perturb")))),
    "weighted": ({}, Policy(phases=(_CRAIG, Phase(passes=1.53, transition="shrink_perturb")))),
    "uneven": ({"batch_size": 15}, Policy(phases=(Phase(share=0.005, passes=0.03), Phase(passes=1.5)))),
    "dropout": ({}, Policy(phases=(_HALF, Phase(passes=1.53, transition="shrink_perturb")))),
}
_BY_LOSS = Phase(passes=1.53, transition="shrink_perturb", order="infobatch")
OBSERVED = {"infobatch": Policy(phases=(Phase(share=0.3, passes=1.5, order="infobatch"), _BY_LOSS))}


@dataclass(frozen=True, kw_only=True)
class HostCase:
    """A bundle, its data, and the run that hosts are held against.

    Args:
        folder: of the bundle.
        task: of the bundle.
        data: of the task.
        steps: rows of each update.
        weights: of the trained network, as one vector.
        ledger: of the run, without its evaluation.
    """

    folder: Path
    task: Task
    data: TaskData
    steps: list[list[int]]
    weights: Tensor
    ledger: Ledger

    @property
    def bundle(self) -> Bundle:
        return Bundle.load(self.folder)

    @property
    def rows(self) -> list[int]:
        """Of all updates, one after the other."""
        return [row for step in self.steps for row in step]

    @property
    def dataset(self) -> TensorDataset:
        """Row number, inputs and class of each row of the training file."""
        part, number = self.data.train, self.data.num_source_examples
        return TensorDataset(torch.arange(number), part.encoder(part.inputs[:number]), part.all_targets[:number])

    def network(self) -> nn.Module:
        """As the run began with."""
        return models.make(self.task.model, self.data.input_shape, self.data.num_outputs, self.data.num_tokens)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        recipe = self.task.recipe
        return torch.optim.SGD(
            network.parameters(), lr=recipe.lr, momentum=recipe.momentum or 0, weight_decay=recipe.weight_decay
        )

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """The random state and the thread of the run."""
        with isolated(SEED, 1):
            yield


def mean_loss(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """As `train.run` takes it: by torch's own mean where all weights are 1, which has other bits."""
    if weights is None or bool((weights == 1).all()):
        return nn.functional.cross_entropy(outputs, targets)
    return (nn.functional.cross_entropy(outputs, targets, reduction="none") * weights).mean()


def vector(network: nn.Module) -> Tensor:
    return parameters_to_vector(network.parameters()).detach()


def make_case(name: str, folder: Path) -> HostCase:
    """Train by a policy, and export the bundle."""
    recipe, policy = CASES[name] if name in CASES else ({}, OBSERVED[name])
    model = {"name": "mlp", "hidden": [8], "dropout": 0.3} if name == "dropout" else None
    task = fakes.image_task({"images": fakes.write_images(folder / "images.npz")}, model, **recipe)
    places = DataPaths(cache=str(folder / "cache"))
    data = load(task, places)
    steps: list[list[int]] = []
    real = Learner.examples

    def noted(self: Learner, batch: Tensor) -> tuple[Tensor, Tensor]:
        steps.append(data.train.rows[batch].tolist())
        return real(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "examples", noted)
        result = loop.run(task, policy, SEED, options=fakes.options(keep_model=True, places=places))
    assert result.model is not None
    export_bundle(task, policy, places, folder)
    return HostCase(
        folder=folder / "bundle",
        task=task,
        data=data,
        steps=steps,
        weights=vector(result.model),
        ledger=dataclasses.replace(result.ledger, evaluate=0),
    )


def export_bundle(task: Task, policy: Policy, places: DataPaths, folder: Path, seed: int = SEED) -> Bundle:
    """The bundle of a policy, with made-up evidence, as `bundle` in a folder."""
    data = load(task, places)
    provider = SubsetProvider(RunJob.of(task, policy, seed, data), places=places)
    with isolated(seed, 1):
        subsets = {i: provider.choose(i).subset for i, phase in enumerate(policy.phases) if not phase.is_full}
    rows = [chosen(index, subset, data.train) for index, subset in subsets.items()]
    known = {"facts": loop.facts(task, places), "fingerprint": data.fingerprint, "seed": seed}
    known["rows"] = TrainingRows.of(data)
    evidence = export(folder / "evidence")[0].evidence
    return export_policy(folder / "bundle", policy, evidence, task=task, subsets=rows, **known)  # type: ignore[arg-type]


def digits_bundle(folder: Path) -> Path:
    """A small bundle of scikit-learn's digits, with a subset phase and a transition."""
    plain = {"name": "mlp", "hidden": [16]}
    recipe = {"lr": 0.1, "momentum": 0.9, "batch_size": 64, "epochs": 10}
    task = Task(data={"source": "digits"}, model=plain, recipe=recipe, tolerance=0.02)  # type: ignore[arg-type]
    policy = Policy(
        phases=(Phase(share=0.5, passes=1), Phase(passes=4, transition="shrink_perturb")), recipe=FrozenDict({})
    )
    folder.mkdir(parents=True, exist_ok=True)
    export_bundle(task, policy, DataPaths(cache=str(folder / "cache")), folder)
    return folder / "bundle"


STUDIES = frozenset({"jinja2", "optuna", "plotly", "ray", "ruamel"})  # which following does without
# A process that runs this first cannot import them.
_HIDE = """
import runpy, sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(script: Path, *arguments: str, folder: str | None = None) -> str:
    """What a script prints, in a process of its own and one thread, where what studies take is not installed."""
    command = [sys.executable, "-W", "ignore", "-c", _HIDE.format(hidden=set(STUDIES)), str(script), *arguments]
    return _run(command, {}, folder)


def _run(command: list[str], environment: dict[str, str], folder: str | None = None) -> str:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    surroundings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_ranks_train_as_one(host: str, case: HostCase, folder: Path, accumulate: int = 1) -> None:
    """Two real processes of a host together train on the rows of a run, each once, and end with its weights.

    But for rounding, as gradients are averaged over slices. Batches that have an example for no slice are computed
    with weight 0, and are no rows of the policy.
    """
    ranks = run_ranks(host, case, folder)
    steps = [[rank["seen"][i : i + accumulate] for i in range(0, len(rank["seen"]), accumulate)] for rank in ranks]
    for own, *parts in zip(case.steps, *steps, strict=True):
        trained = [row for part in parts for batch in part for row, weight in batch if weight]
        assert trained == own
    for rank in ranks:
        torch.testing.assert_close(rank["weights"], case.weights, rtol=1e-4, atol=1e-5)
        assert rank["flops"] == case.ledger.total
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])


def run_ranks(host: str, case: HostCase, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """What two processes of a host left."""
    shutil.copytree(case.folder, folder / "bundle")
    with case.seeded():
        network = case.network()
    torch.save({"tensors": case.dataset.tensors, "network": network.state_dict()}, folder / "given.pt")
    script = ROOT / "tests" / "support" / "host_ranks.py"
    launch(script, host, str(folder), **environment)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def launch(script: Path, *arguments: str, **environment: str) -> str:
    """What two processes of a script print."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return _run([*command, str(script), *arguments], environment)
