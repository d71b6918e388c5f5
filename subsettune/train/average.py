"""A moving average of the weights of a run, which is measured and kept in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of weights and running statistics; whole numbers are left as they are.

    After t updates the old average keeps min(decay, (1 + t) / (10 + t)), so that it forgets the initial weights in runs
    that are short beside 1 / (1 - decay), as those of policies are. Source of that warm-up: TensorFlow's
    ExponentialMovingAverage, `num_updates`.

    Args:
        decay: what the old average keeps at each update, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._count, self._values = 0, dict[str, Tensor]()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights after an update in."""
        now = _averaged(network)
        if not self._values:
            self._values = {name: value.clone() for name, value in now.items()}
            return
        self._count += 1
        kept = min(self.decay, (1 + self._count) / (10 + self._count))
        for name, value in now.items():
            self._values[name].lerp_(value, 1 - kept)

    def restart(self) -> None:
        """Forget all: something else than updates changed the weights, and what they were is of no use."""
        self._count, self._values = 0, {}

    @contextlib.contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """The network has the averaged weights meanwhile; its own come back as they were, bit for bit."""
        own = {name: value.clone() for name, value in _averaged(network).items()} if self._values else {}
        self._write(network, self._values)
        try:
            yield
        finally:
            self._write(network, own)

    def take(self, network: nn.Module) -> None:
        """Give the network the averaged weights for good."""
        self._write(network, self._values)
        self.restart()

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits."""
        return {"count": self._count, "values": dict(self._values)}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from `state`."""
        self._count = state["count"]
        self._values = {name: value.to(device) for name, value in state["values"].items()}

    @torch.no_grad()
    def _write(self, network: nn.Module, values: dict[str, Tensor]) -> None:
        now = _averaged(network) if values else {}
        for name, value in values.items():
            now[name].copy_(value)


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a network that an average is taken of, by name, without gradients."""
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
