"""Pruning: layers of chains get fewer units, as `forward_selection` picks them, and the network really shrinks."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from subsettune.train.pruning.effect import PickBudget
from subsettune.train.pruning.forward_selection import LayerInterface, Losses, RemainingForward, Weighted, select
from subsettune.train.pruning.layers import NORMS, PrunableLayer, inner_links, is_weighted, links


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examples:
    """What losses are measured on, as of a `LayerInterface`, for the whole network.

    Args:
        inputs: (b, ...) encoded, on the network's device.
        targets: (b, ...).
        losses: (r,) losses of outputs (r, M) and targets.
    """

    inputs: Tensor
    targets: Tensor
    losses: Losses


@torch.no_grad()
def prune(
    network: nn.Module, kept: Mapping[str, int], effort: PickBudget, examples: Examples, rng: torch.Generator
) -> None:
    """Prune layers of a network in the order of its chains, each in the network as pruned so far, in place.

    Parameters stay the same objects with less in them; gradients are dropped. Losses are measured in evaluation mode;
    the mode comes back as it was.

    Args:
        network: a chain, or one with chains inside, as `subsettune.train.pruning.layers` finds them.
        kept: units that stay, of each layer that gets narrower.
        effort: candidates and picks.
        examples: that losses are measured on.
        rng: draws the candidates, on the CPU.

    Raises:
        ModelDivergedError: the losses are not finite.
    """
    was_training = network.training
    network.eval()
    carry_out = _prune_inside if links(network) is None else _prune_chain
    try:
        carry_out(network, kept, effort, examples, rng)
    finally:
        network.train(was_training)
    network.zero_grad(set_to_none=True)


def _prune_chain(
    network: nn.Module, kept: Mapping[str, int], effort: PickBudget, examples: Examples, rng: torch.Generator
) -> None:
    """As `prune`, of a chain: each layer's outputs are taken once."""
    left, values = dict(kept), examples.inputs
    for name, stretch, following in stretches(network):
        if not left:
            break
        for module in stretch:
            values = module(values)
        if name in left:
            values = _narrow(stretch, following, values, left.pop(name), effort, examples, rng)


def _prune_inside(
    network: nn.Module, kept: Mapping[str, int], effort: PickBudget, examples: Examples, rng: torch.Generator
) -> None:
    """As `prune`, of chains inside a network."""
    for name, stretch, following in (found for leaves in inner_links(network).values() for found in _cut_up(leaves)):
        if name not in kept:
            continue
        rest, layer = RemainingForward(network, following[0], examples.inputs), cast("Weighted", following[0])
        interface = LayerInterface(
            activations=by_unit(stretch, rest.activations(), layer),
            layer=layer,
            after=(rest,),
            losses=examples.losses,
            targets=examples.targets,
            most_candidates=1,
        )
        cut(stretch, layer, select(interface, kept[name], effort, rng))


# More than six parameters: three are the layer, four what every layer of one call is pruned by.
def _narrow(
    stretch: Sequence[nn.Module],
    following: Sequence[nn.Module],
    values: Tensor,
    kept: int,
    effort: PickBudget,
    examples: Examples,
    rng: torch.Generator,
) -> Tensor:
    """Prune the layer of a stretch; its outputs (b, ...) without those of the units that go."""
    units = by_unit(stretch, values, following[0])
    interface = LayerInterface(
        activations=units,
        layer=cast("Weighted", following[0]),
        after=following[1:],
        losses=examples.losses,
        targets=examples.targets,
    )
    counts = select(interface, kept, effort, rng)
    cut(stretch, interface.layer, counts)
    stay = counts.nonzero().flatten().to(units.device)
    return units.index_select(1, stay).reshape(len(values), -1, *values.shape[2:])


def stretches(network: nn.Module) -> Iterator[tuple[str, list[nn.Module], list[nn.Module]]]:
    """A chain, cut before each weighted layer but the first: name of the layer, it and those up to the next, the rest.

    What stands before the first weighted layer comes with it. The last layer has nothing behind it and is left out.
    """
    leaves = links(network)
    assert leaves is not None, "`why_not` lets no other network through"
    return _cut_up(leaves)


def _cut_up(leaves: Sequence[PrunableLayer]) -> Iterator[tuple[str, list[nn.Module], list[nn.Module]]]:
    """As `stretches`, of the layers of any chain."""
    places = [i for i, (_, module) in enumerate(leaves) if is_weighted(module)]
    modules = [module for _, module in leaves]
    for number, (here, there) in enumerate(itertools.pairwise(places)):
        yield leaves[here][0], modules[here if number else 0 : there], modules[there:]


def by_unit(stretch: Sequence[nn.Module], values: Tensor, following: nn.Module) -> Tensor:
    """(b, m, ...) what each unit of a stretch gives to the layer that follows, of its outputs (b, ...)."""
    if not isinstance(following, nn.Linear):
        return values
    if values.dim() > 2:  # a linear layer on places
        return values.movedim(-1, 1).unsqueeze(-1)
    return values.reshape(len(values), width_of(stretch), -1)


def width_of(stretch: Sequence[nn.Module]) -> int:
    """m, the units of the weighted layer of a stretch."""
    return next(len(cast("Weighted", module).weight) for module in stretch if is_weighted(module))


@torch.no_grad()
def cut(stretch: Sequence[nn.Module], following: Weighted, counts: Tensor) -> None:
    """Leave out units of a layer, and weigh those that stay in the next one: m / |S| times their counts.

    Args:
        stretch: the layer and what stands up to the next; batch norms are cut with it.
        following: the next weighted layer.
        counts: (m,) how often each unit counts.
    """
    stay = counts.nonzero().flatten().to(following.weight.device)
    factors = counts.to(stay.device)[stay].double() * (len(counts) / int(counts.sum()))
    weighted = next(i for i, module in enumerate(stretch) if is_weighted(module))
    for module in stretch[weighted:]:
        if is_weighted(module) or isinstance(module, NORMS):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim():  # all but the number of batches that a norm has seen
                    blocks = tensor.reshape(len(counts), -1, *tensor.shape[1:])  # a Flatten makes blocks of channels
                    _put(tensor, blocks.index_select(0, stay).flatten(0, 1))
            _note_sizes(module)
    weight = following.weight
    blocks = weight.reshape(len(weight), len(counts), -1, *weight.shape[2:]).index_select(1, stay)
    scaled = blocks * factors.to(weight.dtype).view(-1, *[1] * (blocks.dim() - 2))
    _put(weight, scaled.flatten(1, 2))
    _note_sizes(following)


def fit_shapes(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make linear, convolution and batch-norm layers as narrow as weights are that a pruned network left behind.

    Then `network.load_state_dict(state)` takes them. Layers that fit, or differ in more than their width, stay as they
    are. The values of those that are changed are not set. Parameters stay the same objects.

    Args:
        network: as it is built before pruning.
        state: what `state_dict()` of the pruned network gave, e.g. saved by `subsettune train --save`.
    """
    for name, module in network.named_modules():
        if not (is_weighted(module) or isinstance(module, NORMS)):
            continue
        own = dict(itertools.chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)))
        found = {key: state[f"{name}.{key}"] for key in own if f"{name}.{key}" in state}
        if all(_is_narrower(tensor, own[key]) for key, tensor in found.items()):
            for key, tensor in found.items():
                if tensor.shape != own[key].shape:
                    _put(own[key], torch.empty_like(tensor, dtype=own[key].dtype, device=own[key].device))
            _note_sizes(module)


def _is_narrower(tensor: Tensor, than: Tensor) -> bool:
    """Whether shapes are equal but for fewer units in one of the first two dimensions."""
    same_kernel = tensor.dim() == than.dim() and tensor.shape[2:] == than.shape[2:]
    return same_kernel and all(1 <= a <= b for a, b in zip(tensor.shape[:2], than.shape[:2], strict=True))


def _put(tensor: Tensor, values: Tensor) -> None:
    """Give a parameter or buffer other contents, of another shape perhaps, and the layout in memory that it had."""
    is_last = tensor.dim() == 4 and not tensor.is_contiguous()
    layout = torch.channels_last if is_last else torch.contiguous_format
    tensor.data = values.contiguous(memory_format=layout)


def _note_sizes(module: nn.Module) -> None:
    """Let a layer say how wide it is now."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, NORMS):
        sizes = [len(t) for t in (*module.parameters(), *module.buffers()) if t.dim()]
        module.num_features = sizes[0] if sizes else module.num_features


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Clear what an optimizer remembers of weights that have other shapes now."""
    optimizer.state = defaultdict(dict)
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer._numel_cache = None  # it counts the weights once
