"""Made-up data, networks and clocks that are small enough for any test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.task import Task
from subsettune.train import RunOptions

RECIPE = {"lr": 0.1, "momentum": 0.9, "batch_size": 16, "epochs": 4}
ONE_THREAD = RunOptions(num_threads=1, device="cpu")


def write_images(path: Path, n: int = 300, num_classes: int = 4) -> str:
    """Images of 1x8x8: one pattern a class, and noise."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % num_classes
    patterns = rng.integers(60, 196, (num_classes, 1, 8, 8))
    x = np.clip(patterns[y] + rng.normal(0, 60, (n, 1, 8, 8)), 0, 255).astype(np.uint8)
    np.savez(path, x=x, y=y)
    return str(path)


def write_values(path: Path, n: int = 300) -> str:
    """A linear regression on 5 columns, with targets far from 0 and 1."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = 1000 + 50 * (x @ np.array([1.0, -2, 0.5, 0, 3])) + rng.normal(0, 5, n)
    np.savez(path, x=x, y=y.astype(np.float32))
    return str(path)


def image_task(data: Mapping[str, str], model: Any = None, metric: str = "accuracy", **recipe: Any) -> Task:
    """A classification of the made-up images by a small network."""
    raw = {
        "data": {"source": data["images"], "label": "y"},
        "split": {"validation": 0.1, "test": 0.2},
        "model": model or {"name": "mlp", "hidden": [8]},
        "recipe": {**RECIPE, **recipe},
        "metric": metric,
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


def value_task(data: Mapping[str, str], **recipe: Any) -> Task:
    """The made-up regression."""
    raw = {
        "data": {"source": data["values"], "label": "y"},
        "split": {"validation": 0.1, "test": 0.2},
        "model": {"name": "mlp", "hidden": []},
        "recipe": {**RECIPE, "lr": 0.05, **recipe},
        "metric": "mse",
        "tolerance": 1.0,
    }
    return config.build(Task, raw)


def two_phases(
    first: float, second: float, *, share: float = 0.4, transition: str = "keep", **first_phase: Any
) -> Policy:
    """A subset phase and a full one."""
    return Policy(phases=(Phase(share=share, passes=first, **first_phase), Phase(passes=second, transition=transition)))


def options(**changes: Any) -> RunOptions:
    """Options of a run on one thread."""
    return RunOptions(**{"num_threads": 1, "device": "cpu", **changes})


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers."""
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


class Noisy(nn.Module):
    """Convolution, batch norm and dropout: everything that keeps state or draws random numbers."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(input_shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 64, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Exploding(nn.Module):
    """A linear model whose weights become NaN after a number of training batches."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, after: int) -> None:
        super().__init__()
        self.layer = nn.Linear(prod(input_shape), num_outputs)
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.training and not x.is_meta:
            self.left -= 1
        logits: Tensor = self.layer(x.flatten(1))
        if self.training and self.left < 0:
            logits.register_hook(lambda gradient: gradient * torch.nan)
        return logits


def flat_norm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Batch norm over features, which one example does not do for."""
    width = prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(width), nn.Linear(width, num_outputs))


def untracked_norm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Batch norm that keeps no running statistics, and needs two examples all the same."""
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), 8), norm, nn.ReLU(), nn.Linear(8, num_outputs))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted(Selector):
    """The first examples, with growing weights."""

    name: ClassVar[str] = "weighted"
    summary: ClassVar[str] = "the first examples, with growing weights"
    weighted: bool = True

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing."""
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Weights in proportion to 1 to k."""
        growing = torch.arange(1, k + 1, dtype=torch.float32)
        weights = growing * (context.num_examples / growing.sum()) if self.weighted else None
        return Subset(positions=torch.arange(k), weights=weights)


class FakeClock:
    """A clock that goes on by a fixed step each time it is read."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        """Seconds."""
        self.now_s += self.step_s
        return self.now_s
