"""Recipes that are drawn at random, and the cheap ways of ranking them, as policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from studies_parts.tasks import mnist_part

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.task import Task

RECIPES_SEED = 0
SWITCH = 0.8  # share of a policy's compute that goes into the subset, where all data follow
SMALL = {"features": "projection", "dimensions": 8}  # distances that the cheapest policy of the smallest network pays


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is ranked.

    Args:
        task: in plain form, without what a recipe says.
        widths: of the network, one of which a recipe draws.
        model: network of a width and a probability of dropout.
        costs: shares of the conventional compute.
        evaluations: points of a learning curve, so that each of `costs` is one of them.
        recipes: how many.
        target_seeds: trainings in full whose mean is the target.
        seeds: rankings of each way.
    """

    task: Mapping[str, Any]
    widths: tuple[int, ...]
    model: Callable[[int, float], dict[str, Any]]
    costs: tuple[float, ...]
    evaluations: int
    recipes: int
    target_seeds: int
    seeds: int


def _mlp(width: int, dropout: float) -> dict[str, Any]:
    return {"name": "mlp", "hidden": [width], "dropout": dropout}


def _cnn(width: int, dropout: float) -> dict[str, Any]:
    return {"name": "cnn", "channels": [width, 2 * width], "hidden": 32, "dropout": dropout}


MNIST_FILE = "mnist_10000.npz"
BENCHES: Mapping[str, Bench] = {
    "digits": Bench(
        task={
            "data": {"source": "digits"},
            "split": {"validation": 0.25, "test": 0.25, "seed": 0},
            "recipe": {"epochs": 30},
        },
        widths=(32, 64, 128, 256),
        model=_mlp,
        costs=(1 / 30, 1 / 10, 1 / 4),
        evaluations=60,
        recipes=100,
        target_seeds=10,
        seeds=8,
    ),
    "mnist": Bench(
        task={
            "data": {"source": MNIST_FILE},
            "split": {"validation": 0.4, "seed": 0},
            "recipe": {"epochs": 5},
        },
        widths=(4, 8),
        model=_cnn,
        costs=(1 / 20, 1 / 10, 1 / 4),
        evaluations=20,
        recipes=24,
        target_seeds=2,
        seeds=2,
    ),
}


def write_mnist(raw: Path, path: Path) -> None:
    """The first 10,000 training images, of which 6,000 are trained on, and the official test images."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        (x, y), (x_test, y_test) = (mnist_part(raw, stem, 10_000) for stem in ("train", "t10k"))
        np.savez_compressed(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def draw_recipe(bench: Bench, number: int) -> Task:
    """Recipe of that number; it is the same however many are drawn."""
    rng = np.random.default_rng([RECIPES_SEED, number])
    recipe = {
        "lr": float(np.exp(rng.uniform(math.log(0.01), math.log(0.5)))),
        "momentum": float(rng.uniform(0, 0.95)),
        "weight_decay": float(np.exp(rng.uniform(math.log(1e-5), math.log(1e-2)))),
        "batch_size": int(rng.choice([16, 32, 64, 128, 256])),
        "label_smoothing": float(rng.uniform(0, 0.2)),
    }
    model = bench.model(int(rng.choice(bench.widths)), float(rng.choice([0.0, 0.25, 0.5])))
    plain = {**bench.task, "model": model, "recipe": {**recipe, **bench.task["recipe"]}, "tolerance": 0.01}
    return config.build(Task, plain)


# --- ways of ranking --------------------------------------------------------------------------------------------------

SHORTER, AGAIN = "shorter schedule", "shorter schedule, other seeds"
RANDOM, RANDOM_AGAIN = "random subset", "random subset, other seeds"
RANDOM_THEN = "random subset, then all data"
LOOK, FULL = "full training, looked at early", "full training"
PLACEBOS = {AGAIN: SHORTER, RANDOM_AGAIN: RANDOM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A cheap training.

    Args:
        power: a cost of c is spent on a subset of the share c ** power: 0 is all data, 1 as many epochs as in full.
        switch: share of the compute that is spent on the subset.
        selector: who chooses it.
        options: of the selector.
    """

    power: float
    switch: float = 1.0
    selector: str = "random"
    options: Mapping[str, Any] = config.FrozenDict()

    def policy(self, cost: float, facts: TaskFacts) -> Policy:
        """For a share of the conventional compute, the choosing included."""
        total = cost * facts.reference_passes
        if self.power == 0:
            return Policy(phases=(Phase(passes=total),))
        chosen = Phase(
            share=cost**self.power,
            passes=self.switch * total,
            selector=self.selector,
            selector_options=config.FrozenDict(self.options),
        )
        rest = total - chosen.passes
        return Policy(phases=(chosen, Phase(passes=rest)) if rest else (chosen,))


WAYS: Mapping[str, Way] = {
    SHORTER: Way(power=0),
    AGAIN: Way(power=0),
    RANDOM: Way(power=0.5),
    RANDOM_AGAIN: Way(power=0.5),
    "random subset, all epochs": Way(power=1),
    RANDOM_THEN: Way(power=0.5, switch=SWITCH),
    "stratified": Way(power=0.5, selector="stratified"),
    "herding": Way(power=0.5, selector="herding", options=SMALL),
    "kcenter": Way(power=0.5, selector="kcenter", options=SMALL),
    "kcenter, then all data": Way(power=0.5, switch=SWITCH, selector="kcenter", options=SMALL),
}
# Which way is held against which: all against the shorter schedule, and what is chosen against what is drawn.
COMPARISONS: tuple[tuple[str, str], ...] = (
    *((name, SHORTER) for name in (LOOK, *WAYS) if name != SHORTER),
    *((name, RANDOM) for name in (RANDOM_AGAIN, "stratified", "herding", "kcenter")),
    ("kcenter, then all data", RANDOM_THEN),
)
