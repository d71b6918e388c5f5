"""How a network is put together: the layers at its top, and whether it is nothing but a chain of weighted layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from subsettune.policy import ChainLayer

# Each unit or channel of the output depends on that unit or channel of the input alone, so one can be left out. Flatten
# makes blocks of equal length of channels.
BETWEEN = (
    *(nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks(network: nn.Module) -> Iterator[str]:
    """Names of the modules that follow each other at the top of a network, containers opened up."""

    def walk(module: nn.Module, prefix: str) -> Iterator[str]:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if isinstance(child, CONTAINERS):
                yield from walk(child, f"{path}.")
            else:
                yield path

    return walk(network, "")


def links(network: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """All layers of a network that is a chain, in order; None for other networks.

    A chain is an `nn.Sequential`, of others perhaps, of linear layers, plain convolutions, and what `BETWEEN` lists,
    each module used once, and ends in a linear layer.
    """
    if not isinstance(network, nn.Sequential):
        return None
    leaves = [(name, network.get_submodule(name)) for name in blocks(network)]
    if not all(is_weighted(module) or isinstance(module, BETWEEN) for _, module in leaves):
        return None
    is_repeated = len({id(module) for _, module in leaves}) < len(leaves)
    return None if is_repeated or not leaves or not isinstance(leaves[-1][1], nn.Linear) else leaves


def is_weighted(module: nn.Module) -> bool:
    """Whether a layer of a chain has a weight matrix: linear, or a convolution that mixes all channels."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def chain(network: nn.Module, exits: Mapping[str, int], forward: int, backward: int) -> tuple[ChainLayer, ...]:
    """The weighted layers of a chain with their FLOPs; empty where the network is none, or counts another way.

    The backward pass of a layer is twice its forward pass, and of the first once: the input needs no gradient.

    Args:
        network: of the task.
        exits: FLOPs up to the output of each module, of one example.
        forward: FLOPs of the whole forward pass.
        backward: FLOPs of the whole backward pass.
    """
    leaves = links(network)
    if leaves is None or not all(p.requires_grad for p in network.parameters()):
        return ()
    found: list[ChainLayer] = []
    before = 0
    for name, module in leaves:
        if not is_weighted(module):
            continue
        assert isinstance(module, nn.Linear | nn.Conv2d)
        width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        own = exits[name] - before
        before = exits[name]
        layer = ChainLayer(
            name=name,
            width=width,
            forward_flops=own,
            backward_flops=(2 if found else 1) * own,
        )
        found.append(layer)
    totals = sum(layer.forward_flops for layer in found), sum(layer.backward_flops for layer in found)
    return tuple(found) if totals == (forward, backward) else ()


def has_running_statistics(network: nn.Module) -> bool:
    """Whether a network keeps running means and variances, which its weights alone do not tell."""
    return any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats for m in network.modules())
