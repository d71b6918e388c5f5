"""The made-up tasks of benchmarks/search.py: their optima are those of a grid."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from places import BENCHMARKS

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_search", BENCHMARKS / "search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def policy(cost: float, lr: float, share: float = 1.0, switch: float = 0.0, selector: str = "random") -> Policy:
    """A policy with a budget of `cost` references of 30 passes; a share of 1 is the full arm."""
    passes, recipe = 30 * cost, FrozenDict({"lr": lr})
    if share == 1:
        return Policy(phases=(Phase(passes=passes),), recipe=recipe)
    subset = Phase(share=share, passes=switch * passes, selector=selector)
    return Policy(phases=(subset, Phase(passes=(1 - switch) * passes)), recipe=recipe)


def least(landscape: Any, target: float, lr: float, *manner: Any) -> float:
    """The least budget at which a manner reaches the target, by bisection."""
    low, high = 0.01, 3.0
    for _ in range(22):
        middle = math.sqrt(low * high)
        is_enough = landscape.true(policy(middle, lr, *manner)) >= target
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def rates(landscape: Any, cost: float) -> list[float]:
    """The best rate where it is known, and a grid where runs are lost."""
    if landscape.is_diverging:
        return list(np.geomspace(0.1, 0.2, 80))
    return [landscape.best_lr * (cost / 0.3) ** -landscape.drift]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["halves", "rate", "never", "diverging", "selector", "flat", "drift"])
def test_the_optimum_of_each_arm_is_that_of_a_grid(bench: ModuleType, name: str) -> None:
    landscape = bench.LANDSCAPES[name]
    optima, selector = landscape.optima(), (*landscape.good, "random")[0]
    full, lr = min((least(landscape, bench.TARGET, lr), lr) for lr in rates(landscape, optima["full"]))
    assert full == pytest.approx(optima["full"], rel=0.01)
    if name == "never":  # its subsets only come near, as their stretch becomes short
        return
    lr = lr if landscape.is_diverging else rates(landscape, optima["subset"])[0]
    costs = [
        least(landscape, bench.TARGET, lr, share, switch, selector)
        for share in np.geomspace(0.02, 0.5, 24)
        for switch in np.linspace(0.05, 0.95, 37)
    ]
    assert min(costs) == pytest.approx(optima["subset"], rel=0.02)


def test_three_landscapes_are_held_out_and_the_table_says_which(bench: ModuleType) -> None:
    held_out = [landscape.name for landscape in bench.LANDSCAPES.values() if landscape.is_held_out]
    assert held_out == ["selector", "flat", "drift"]
    found = bench.Found(
        ratio=1.2, short=0.0, is_missed=False, is_held=True, compute=8.0, trials=30, duration=8.0, ask_s=0.04
    )
    line = bench.row("frontier", bench.LANDSCAPES["flat"], [found, found])
    cells = ["frontier", "flat (held out)", "1.20 [1.20, 1.20]", *["0.00"] * 3, "8.0", "30", "8.0", "1.00", "40"]
    assert line == f"| {' | '.join(cells)} |"
    assert line.count("|") == bench.HEADER.count("|")
