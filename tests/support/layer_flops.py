"""FLOPs of networks of torchvision by hand: a walk over their layers, which knows shapes and formulas alone.

The forward pass of a layer is 2 FLOPs for each multiplication and addition. Its backward pass is as much again for the
gradient of each factor that needs one: the weight, and the input, which that of the first layer does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention

Product = tuple[int, int]  # FLOPs of a product, and how many of its two factors need a gradient
Rule = Callable[[Any, Tensor, Tensor], Iterator[Product]]


def _weighted(flops: int, inputs: Tensor) -> Product:
    return flops, 1 + inputs.requires_grad


def convolution(layer: nn.Conv2d, inputs: Tensor, output: Tensor) -> Iterator[Product]:
    """2 * kernel area * (inputs / groups) * outputs at each pixel of the output."""
    _, _, height, width = output.shape
    area = layer.kernel_size[0] * layer.kernel_size[1]
    each = 2 * area * (layer.in_channels // layer.groups) * layer.out_channels
    yield _weighted(len(inputs) * height * width * each, inputs)


def linear(layer: nn.Linear, inputs: Tensor, output: Tensor) -> Iterator[Product]:
    """2 * inputs * outputs at each place."""
    places = prod(output.shape[:-1])
    yield _weighted(2 * places * layer.in_features * layer.out_features, inputs)


def attention(layer: nn.MultiheadAttention, inputs: Tensor, output: Tensor) -> Iterator[Product]:
    """Four projections, and two products of tokens with tokens."""
    batch, tokens, width = inputs.shape
    for _ in range(4):
        yield _weighted(2 * batch * tokens * width**2, inputs)
    for _ in range(2):
        yield 2 * batch * tokens**2 * width, 2


def window_attention(layer: ShiftedWindowAttention, inputs: Tensor, output: Tensor) -> Iterator[Product]:
    """Attention within windows, for which maps are padded to whole ones; its projections are no calls of layers."""
    batch, height, width, channels = inputs.shape
    high, wide = layer.window_size
    windows, tokens = batch * ceil(height / high) * ceil(width / wide), high * wide
    yield _weighted(2 * windows * tokens * channels * 3 * channels, inputs)
    yield 2 * windows * tokens**2 * channels, 2
    yield 2 * windows * tokens**2 * channels, 2
    yield 2 * windows * tokens * channels**2, 2


def grid_attention(layer: RelativePositionalMultiHeadAttention, inputs: Tensor, output: Tensor) -> Iterator[Product]:
    """The two products of tokens with tokens in each partition; its projections are layers of their own."""
    batch, partitions, tokens, _ = inputs.shape
    for _ in range(2):
        yield 2 * batch * partitions * tokens**2 * layer.n_heads * layer.head_dim, 2


RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: convolution,
    nn.Linear: linear,
    nn.MultiheadAttention: attention,
    ShiftedWindowAttention: window_attention,
    RelativePositionalMultiHeadAttention: grid_attention,
}


@dataclass
class LayerFlops:
    """(forward, backward) FLOPs of a pass of a batch."""

    forward: int = 0
    backward: int = 0
    names: list[str] = field(default_factory=list)


def of_layers(network: nn.Module, inputs: Tensor) -> LayerFlops:
    """Walk through a network in training mode, on the device of the inputs."""
    found = LayerFlops()

    def hook(rule: Rule, name: str) -> Callable[..., None]:
        def add(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            found.names.append(name)
            for flops, factors in rule(layer, given[0], output):
                found.forward += flops
                found.backward += factors * flops

        return add

    for name, module in network.train().named_modules():
        rule = next((rule for kind, rule in RULES.items() if isinstance(module, kind)), None)
        if rule is not None:
            module.register_forward_hook(hook(rule, name))
    with torch.random.fork_rng(devices=[]):
        network(inputs)
    return found
