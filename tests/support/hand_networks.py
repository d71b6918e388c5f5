"""Networks of a user's own, as models in hand are built from: a plain one, and one whose state is no tensors alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATION: list[Any] = [torch.relu]  # what a test changes, as somebody edits a file


class Tied(nn.Module):
    """Two layers with one weight, and a batch norm."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.inside, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.again = nn.Linear(width, width)
        self.again.weight = self.inside.weight
        self.last = nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = ACTIVATION[0](self.norm(self.inside(inputs.flatten(1))))
        outputs: Tensor = self.last(ACTIVATION[0](self.again(hidden)))
        return outputs


class Noted(Tied):
    """One that keeps words in its state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}

    def set_extra_state(self, state: object) -> None:
        pass


class Picky(Tied):
    """One that takes no numbers but those of its data."""

    def forward(self, inputs: Tensor) -> Tensor:
        if bool((inputs.abs() < 0.5).any()):
            raise ValueError("of the data no number is small")
        return super().forward(inputs)


def tied(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Tied(math.prod(input_shape), num_outputs)


def picky(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Picky(math.prod(input_shape), num_outputs)


def noted(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Noted(math.prod(input_shape), num_outputs)
