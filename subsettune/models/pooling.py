"""Max pooling over 2x2 places: torch's, and where no gradient is wanted the same bits in a fifth of its time on a CPU.

Torch goes over the places of each map one by one, which takes MNIST's cnn more time than its convolutions. As the
largest of four tensors, every second row and column of the maps, they are compared many at a time. Only a gradient
needs to know which of them it was, and finding out costs what the comparison gains: training is left to torch.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class MaxPool2x2(nn.MaxPool2d):
    """`nn.MaxPool2d(2)`."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(..., h // 2, w // 2) largest values of (..., h, w); an odd row or column at the end is left out."""
        needs_gradient = torch.is_grad_enabled() and input.requires_grad
        if needs_gradient or input.device.type != "cpu" or min(input.shape[-2:]) < 2:
            pooled: Tensor = super().forward(input)
            return pooled
        h, w = (2 * (size // 2) for size in input.shape[-2:])
        upper, lower = (torch.maximum(input[..., i:h:2, :w:2], input[..., i:h:2, 1:w:2]) for i in (0, 1))
        return torch.maximum(upper, lower)
