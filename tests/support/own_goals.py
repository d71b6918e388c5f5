"""Metrics, losses and augmentations as users write them: good ones, and such as are to be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Array = NDArray[Any]


# --- metrics: targets and outputs as arrays, one number ---------------------------------------------------------------


def share_right(targets: Array, outputs: Array) -> float:
    """The accuracy."""
    return float((outputs.argmax(axis=1) == targets).mean())


def worst_error(targets: Array, outputs: Array) -> Any:
    """The largest error of a regression, as a NumPy number."""
    return np.abs(outputs - targets).max()


def a_vector(targets: Array, outputs: Array) -> Array:
    """The accuracy of each class: no number."""
    return np.array([(outputs.argmax(axis=1) == targets)[targets == c].mean() for c in np.unique(targets)])


def nothing(targets: Array, outputs: Array) -> float:
    """NaN."""
    return float("nan")


def breaks(targets: Array, outputs: Array) -> float:
    """Raises."""
    raise ZeroDivisionError("no positives")


def scribbles(targets: Array, outputs: Array) -> float:
    """Changes what it is given, which must be a copy."""
    outputs[:] = 0
    targets[:] = 0
    return 1.0


# --- losses: outputs and targets as tensors, (b,) or () ---------------------------------------------------------------


def cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each example: what the built-in loss is the mean of."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def mean_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Their mean alone."""
    return functional.cross_entropy(outputs, targets)


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of a regression with one output; what the built-in loss is the mean of."""
    assert outputs.shape == targets.shape
    return (outputs - targets).square()


def pinball(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of the 0.9-quantile."""
    difference = targets - outputs
    return torch.maximum(0.9 * difference, -0.1 * difference)


def undefined(outputs: Tensor, targets: Tensor) -> Tensor:
    """NaN."""
    return cross_entropies(outputs, targets) * torch.nan


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    """Without a gradient."""
    return cross_entropies(outputs.detach(), targets)


def by_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """(b, C): not one an example."""
    return -functional.log_softmax(outputs, dim=1)


# --- augmentations ----------------------------------------------------------------------------------------------------


def noisy(inputs: Tensor, rng: torch.Generator, *, scale: float = 0.1) -> Tensor:
    """Noise on inputs of any shape."""
    return inputs + scale * torch.randn(inputs.shape, generator=rng, device=inputs.device)


def flat(inputs: Tensor, rng: torch.Generator) -> Tensor:
    """Another shape."""
    return inputs.flatten(1)


# --- networks that return more than logits ----------------------------------------------------------------------------


class Answer:
    """What a network returns: its logits and something else."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.hidden = logits, logits + 1


class Rich(nn.Module):
    """A linear network that returns `form` of its logits: an object, or one of several dicts."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, form: str) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(int(np.prod(input_shape)), num_outputs), form

    def forward(self, x: Tensor) -> Any:
        """More than logits."""
        logits: Tensor = self.layer(x.flatten(1))
        forms = {
            "object": Answer(logits),
            "named": {"hidden": logits + 1, "logits": logits},
            "alone": {"scores": logits},
            "unclear": {"a": logits, "b": logits + 1},
        }
        return forms[self.form]


# --- code whose runs are not independent ------------------------------------------------------------------------------

CALLS = [0]


def counting(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that grows from call to call."""
    CALLS[0] += 1
    return cross_entropies(outputs, targets) * CALLS[0]


def seeding(inputs: Tensor, rng: torch.Generator) -> Tensor:
    """The same noise for every seed, and for all that comes after."""
    torch.manual_seed(0)
    return inputs + 0.1 * torch.randn(inputs.shape)
