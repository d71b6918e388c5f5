"""What the parts share: the device, made-up data of known shapes, tasks on them, and how two runs are compared.

A part is a set of named cases. A case is a function without arguments that returns a `Finding`, or raises.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from subsettune import config, train
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.models import FOR_TOKENS
from subsettune.policy import Phase, Policy
from subsettune.task import Task

CLASSES = 4
MOST_PASSES = 1024.0  # of a phase whose choice is dear; more is given up
# Relative, of a loss. Float32 sums in another order give other last digits, and updates carry them on. Two ways of a
# processor (oneDNN's kernels or torch's own, one thread or two) are off by 1e-7 after 12 updates of mlp, cnn and
# transformer, and by 2e-3 of resnet18, whose batch norm divides by the spread of a few examples.
LOSS_TOLERANCE, BATCH_NORM_TOLERANCE = 1e-3, 0.05
METRIC_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Where and how large.

    Args:
        device: `cuda` or `cpu`.
        small: whether sizes are those that a processor manages in a minute.
        folder: of made-up data and caches, shared by the parts of a command.
    """

    device: str
    small: bool
    folder: Path

    @property
    def is_gpu(self) -> bool:
        """Whether there is a card; without one the same runs are made on the processor."""
        return self.device == "cuda"

    def size(self, full: int, small: int) -> int:
        """A number that depends on the machine."""
        return small if self.small else full


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a case found.

    Args:
        passed: whether a check held or a goal was met; None for what is only measured, or needs a card.
        words: one line for people.
        numbers: for the JSON, and for the line of the part.
    """

    passed: bool | None
    words: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


Case = Callable[[], Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One row of the table.

    Args:
        name: as `--only` takes it.
        about: what it checks or measures, in one line.
        budget_s: seconds after which it is ended, its processes' start included.
        cases: makes them, by name.
        words: the line of the table, from the numbers of the cases that came to an end.
        exact: whether products of float32 numbers are made of all their bits, because results are compared; where
            speed is measured they are as torch has them.
    """

    name: str
    about: str
    budget_s: float
    cases: Callable[[Kit], Mapping[str, Case]]
    words: Callable[[Sequence[Mapping[str, Any]]], str]
    exact: bool = True


def absent(what: str) -> Finding:
    """What cannot be looked at without a card."""
    return Finding(passed=None, words=f"{what} needs a GPU", numbers={"absent": True})


# --- data and tasks ---------------------------------------------------------------------------------------------------


def images(kit: Kit, num_examples: int, side: int, classes: int = CLASSES) -> dict[str, Any]:
    """Data of a task: a pattern for each class, and noise, as 3 x side x side bytes."""
    path = kit.folder / f"images_{num_examples}_{side}_{classes}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        y = np.arange(num_examples) % classes
        patterns = rng.integers(98, 158, (classes, 3, side, side), dtype=np.int16)
        noise = rng.integers(-100, 100, (num_examples, 3, side, side), dtype=np.int16)
        np.savez(path, x=np.clip(patterns[y] + noise, 0, 255).astype(np.uint8), y=y)
    return {"source": str(path), "label": "y"}


def texts(kit: Kit, num_examples: int) -> dict[str, Any]:
    """Data of a task: sentences of up to 16 words, of which each class prefers some."""
    path = kit.folder / f"texts_{num_examples}.tsv"
    if not path.exists():
        rng = random.Random(0)
        lines = ["text\tlabel"]
        for number in range(num_examples):
            label = number % CLASSES
            own = [f"w{label}{rng.randrange(5)}" if rng.random() < 0.5 else f"v{rng.randrange(40)}" for _ in range(16)]
            lines.append(f"{' '.join(own[: rng.randrange(4, 17)])}\tc{label}")
        path.write_text("\n".join(lines) + "\n")
    return {"source": str(path), "text": "text", "label": "label"}


def task(data: Mapping[str, Any], model: Mapping[str, Any], **recipe: Any) -> Task:
    """A classification, by default trained in float32 with SGD."""
    plain = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 32, "epochs": 2, **recipe}
    split = {"validation": 0.2, "test": 0.2}
    return config.build(Task, {"data": data, "split": split, "model": model, "recipe": plain, "tolerance": 0.01})


def task_of(kit: Kit, network: str, num_examples: int, options: Mapping[str, Any] | None = None, **recipe: Any) -> Task:
    """A task for a network of the registry: texts for those that read tokens, else images."""
    own = {"name": network, **(options or {})}
    if network in FOR_TOKENS:
        return task(texts(kit, num_examples), {"dropout": 0.0, **own}, **recipe)
    return task(images(kit, num_examples, kit.size(32, 8)), own, **recipe)


def affordable(task: Task, policy_of: Callable[[float], Policy]) -> Policy:
    """The policy whose phase is just long enough for what it has to pay first, by doubling its passes."""
    facts, passes = train.facts(task), 1.0
    while True:
        policy = policy_of(passes)
        try:
            train.check(task, policy, facts)
        except ConfigError:
            if passes >= MOST_PASSES:
                raise
            passes *= 2
        else:
            return policy


# --- runs -------------------------------------------------------------------------------------------------------------


def options(device: str, **changes: Any) -> train.RunOptions:
    """Of a run whose network is looked at."""
    plain = {"device": device, "evaluations": 4, "splits": ("validation", "test"), "keep_model": True}
    return train.RunOptions(**{**plain, **changes})


def plain_policy(passes: float) -> Policy:
    """All data."""
    return Policy(phases=(Phase(passes=passes),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Between two runs of one policy and seed.

    Args:
        same_bits: whether the networks are equal, bit for bit.
        same_ledger: whether both spent the same, purpose by purpose.
        loss: largest difference of two points of the curves of the training loss, relative.
        metric: largest difference of a metric of the final weights.
    """

    same_bits: bool
    same_ledger: bool
    loss: float
    metric: float

    @classmethod
    def of(cls, a: train.RunResult, b: train.RunResult) -> Difference:
        """Two finished runs; of others all differs."""
        if a.cause != "finished" or b.cause != "finished":
            return cls(same_bits=False, same_ledger=a.ledger == b.ledger, loss=math.inf, metric=math.inf)
        pairs = [(p.loss, q.loss) for p, q in zip(a.curve, b.curve, strict=False)]
        losses = [abs(p - q) / max(abs(q), 1e-3) for p, q in pairs if p is not None and q is not None]
        return cls(
            same_bits=same_bits(a.model, b.model),
            same_ledger=a.ledger == b.ledger,
            loss=max(losses, default=math.inf),
            metric=max(abs(a.metrics[split] - b.metrics[split]) for split in a.metrics),
        )

    def is_small(self, facts: TaskFacts) -> bool:
        """Whether ledgers are equal, and losses and metrics within the tolerances for such a network."""
        allowed = BATCH_NORM_TOLERANCE if facts.has_batch_norm else LOSS_TOLERANCE
        return self.same_ledger and self.loss <= allowed and self.metric <= METRIC_TOLERANCE

    @property
    def words(self) -> str:
        """One line."""
        ledger = "ledger equal" if self.same_ledger else "ledger differs"
        bits = "bits equal" if self.same_bits else f"loss off by {self.loss:.1e}, metric by {self.metric:.4f}"
        return f"{ledger}, {bits}"

    @property
    def numbers(self) -> dict[str, Any]:
        """For the JSON, which has no infinity."""
        finite = {name: value if math.isfinite(value) else None for name, value in self._values.items()}
        return {"same_bits": self.same_bits, "same_ledger": self.same_ledger, **finite}

    @property
    def _values(self) -> dict[str, float]:
        return {"loss_difference": self.loss, "metric_difference": self.metric}


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have equal parameters and buffers."""
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def largest(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The largest of a number over the cases, in words."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{max(values):.1e}" if values else "unknown"
