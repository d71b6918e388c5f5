"""How a network is put together: the layers at its top, and the chains of weighted layers that it is or holds."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from torch import nn

from subsettune.facts import ChainLayer
from subsettune.models.pooling import MaxPool2x2
from subsettune.train.flops import Visit

ELEMENTWISE = (
    *(nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.GELU),
    *(nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus),
)
# Each unit or channel of the output depends on that unit or channel of the input alone, so one can be left out. Flatten
# makes blocks of equal length of channels.
BETWEEN = (
    *(*ELEMENTWISE, nn.Flatten, nn.Dropout2d, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.MaxPool2d, MaxPool2x2, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
CONTAINERS = (nn.Sequential, nn.ModuleList)
PrunableLayer = tuple[str, nn.Module]  # a layer with its name
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


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


def links(network: nn.Module) -> list[PrunableLayer] | None:
    """All layers of a network that is a chain, in order; None for other networks.

    A chain is an `nn.Sequential`, of others perhaps, of linear layers, plain convolutions, and what `BETWEEN` lists,
    each module and each weight used once, and ends in a linear layer. A class of the user's own is no such layer,
    whatever it is derived from.
    """
    leaves = _leaves(network, "")
    if not leaves or not all(is_weighted(module) or _is_between(module) for _, module in leaves):
        return None
    own = [tensor for _, module in leaves for tensor in (module, *module.parameters())]
    is_repeated = len({id(tensor) for tensor in own}) < len(own)
    return None if is_repeated or not isinstance(leaves[-1][1], nn.Linear) else leaves


def inner_links(network: nn.Module) -> dict[str, list[PrunableLayer]]:
    """The chains inside a network that is none itself: layers with names, in order, from a weighted one to another.

    Such a chain is made of linear layers, plain convolutions, and what `BETWEEN` lists, two with weights at least, each
    weight used once in the network. It is an `nn.Sequential`, or what is left of one without the layers before its
    first weighted layer and after its last, which may be anything. An `nn.Sequential` in one with a chain has none.

    Returns:
        By the name of the `nn.Sequential`, empty for the network itself.
    """
    if links(network) is not None:
        return {}
    found: dict[str, list[PrunableLayer]] = {}
    uses = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    for name, module in network.named_modules():
        leaves = _leaves(module, f"{name}." if name else "")
        places = [i for i, (_, leaf) in enumerate(leaves) if is_weighted(leaf)]
        inside = leaves[places[0] : places[-1] + 1] if len(places) > 1 else []
        is_plain = inside and all(is_weighted(leaf) or _is_between(leaf) for _, leaf in inside)
        taken = {id(leaf) for chain in found.values() for _, leaf in chain}
        if is_plain and not taken & {id(leaf) for _, leaf in inside}:
            own = [p for _, leaf in inside for p in leaf.parameters()]
            found |= {name: inside} if all(uses[id(p)] == 1 for p in own) else {}
    return found


def _leaves(module: nn.Module, prefix: str) -> list[PrunableLayer]:
    """The layers of an `nn.Sequential`, of others perhaps, with their names behind a prefix; empty for others."""
    containers = list(_containers(module))
    if not containers or any(type(inside).forward is not nn.Sequential.forward for inside in containers):
        return []
    return [(f"{prefix}{name}", module.get_submodule(name)) for name in blocks(module)]


def _containers(module: nn.Module) -> Iterator[nn.Module]:
    """A container and those right inside it, as `blocks` opens them up."""
    if isinstance(module, CONTAINERS):
        yield module
        for child in module.children():
            yield from _containers(child)


def is_weighted(module: nn.Module) -> bool:
    """Whether a layer of a chain has a weight matrix: linear, or a convolution that mixes all channels."""
    is_plain = type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
    return is_plain and "weight" in dict(module.named_parameters(recurse=False))  # not so with spectral norm


def _is_between(module: nn.Module) -> bool:
    """Whether a module treats units apart, and in evaluation mode examples as well."""
    looks_at_batch = isinstance(module, NORMS) and not module.track_running_stats
    mixes_examples = isinstance(module, nn.Flatten) and module.start_dim < 1
    return type(module) in BETWEEN and not looks_at_batch and not mixes_examples


def chain(network: nn.Module, visits: Mapping[str, Visit], forward: int, backward: int) -> tuple[ChainLayer, ...]:
    """The weighted layers of a chain with their FLOPs; empty where the network is none, or counts another way.

    Args:
        network: of the task.
        visits: of its modules, by name.
        forward: FLOPs of the whole forward pass.
        backward: FLOPs of the whole backward pass.
    """
    leaves = links(network)
    if leaves is None or not all(p.requires_grad for p in network.parameters()):
        return ()
    found = _layers(leaves, visits)
    totals = sum(layer.forward_flops for layer in found), sum(layer.backward_flops for layer in found)
    return found if totals == (forward, backward) else ()


def inner(network: nn.Module, visits: Mapping[str, Visit]) -> tuple[tuple[ChainLayer, ...], ...]:
    """The weighted layers of each chain inside a network that is none itself, with their FLOPs.

    Those are left out that are not called once as a whole, that train in part only, or whose units are not what the
    next layer adds up, such as those of a linear layer on places that a Flatten follows.

    Args:
        network: of the task.
        visits: of its modules, by name.
    """
    found = []
    for name, leaves in inner_links(network).items():
        is_called = not name or (name in visits and visits[name].calls == 1)  # and not its layers one by one
        if is_called and all(p.requires_grad for _, leaf in leaves for p in leaf.parameters()):
            found.append(_layers(leaves, visits))
    return tuple(layers for layers in found if layers)


def _layers(leaves: Sequence[PrunableLayer], visits: Mapping[str, Visit]) -> tuple[ChainLayer, ...]:
    """The weighted layers of a chain; empty where one of its layers is not called once, or units are not passed on.

    The backward pass of a layer is twice its forward pass, and once where its input needs no gradient.
    """
    if any(name not in visits or visits[name].calls != 1 for name, _ in leaves):
        return ()
    places = [i for i, (_, module) in enumerate(leaves) if is_weighted(module)]
    if not all(_passes_units_on(leaves[here : there + 1], visits) for here, there in itertools.pairwise(places)):
        return ()
    found = []
    for name, module in (leaves[place] for place in places):
        own = visits[name].end - visits[name].start
        width = len(cast("nn.Linear | nn.Conv2d", module).weight)
        backward = (2 if visits[name].needs_gradient else 1) * own
        found.append(ChainLayer(name=name, width=width, forward_flops=own, backward_flops=backward))
    return tuple(found)


def _passes_units_on(stretch: Sequence[PrunableLayer], visits: Mapping[str, Visit]) -> bool:
    """Whether the units of the first layer of a stretch are what its last one adds up.

    A linear layer adds up the last dimension, which are the units of a linear layer before it, or the channels of a
    convolution if all but the examples was flattened.
    """
    (name, layer), *between, (next_name, following) = stretch
    if isinstance(following, nn.Conv2d):
        return isinstance(layer, nn.Conv2d)
    if visits[next_name].dims == 2:
        return isinstance(layer, nn.Conv2d) or visits[name].dims == 2
    return isinstance(layer, nn.Linear) and all(type(module) in ELEMENTWISE for _, module in between)


def has_running_statistics(network: nn.Module) -> bool:
    """Whether a network keeps running means and variances, which its weights alone do not tell."""
    return any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats for m in network.modules())
