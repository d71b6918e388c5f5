"""Pruning by greedy forward selection: layers of chains get fewer units, and the network gets really smaller.

| symbol | shape | meaning |
|---|---|---|
| m, k | int | units (of a convolution: channels) of the layer that is pruned; those that stay |
| b, n | int | examples that losses are measured on; candidates of one pick |
| S | multiset | units picked so far, |S| of them, some more than once |
| activations | (b, m, ...) | what the units give to the next layer: blocks of numbers behind a Flatten |
| contributions | (n, b, M', ...) | of units to the next layer's pre-activations, M' wide, which are linear in them |

The next layer sees (m / |S|) times the sum over S, so that S with every unit once is the network as it was. A candidate
costs its own contribution, one addition, and the layers after the next one.

A network that is no chain may have some inside, such as the two linear layers in a block of a transformer: what goes in
and what comes out stays as wide as it was. How losses follow from a layer in there only the network itself knows, so a
candidate costs its own contribution and a forward pass of all of it, with other pre-activations put in their place.

Source: Ye et al. 2020, arXiv:2003.01794; Wolfe et al., arXiv:2108.00259. There, the layer is the mean over S; the
factor m makes that right for layers that add up their units. They pick until the network is as good as it was; here k
and the number of picks are given, so that the cost of a policy is known beforehand: a pick may take any unit, until the
picks left are as many as the units missing, and must be new; once there are k, picks can only count one of them again.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from subsettune.config import FrozenDict
from subsettune.errors import ModelDivergedError
from subsettune.policy import ChainLayer, TaskFacts
from subsettune.train.chain import NORMS, Leaf, inner_links, is_weighted, links

MOST_NUMBERS = 2**24  # in the largest activation of candidates that are evaluated together: 64 MiB
Candidates = int | Literal["all"]
Losses = Callable[[Tensor, Tensor], Tensor]
Weighted = nn.Linear | nn.Conv2d


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thoroughly units are picked.

    Args:
        candidates: units that a pick looks at, drawn at random; `all` for every one that it may take.
        repeats: picks of a layer for each unit that stays, at least 1.
    """

    candidates: Candidates
    repeats: float

    def picks(self, kept: int) -> int:
        """Picks of a layer of which so many units stay."""
        return math.ceil(self.repeats * kept)

    def looked_at(self, available: int) -> int:
        """Candidates of a pick out of so many units."""
        return available if self.candidates == "all" else min(self.candidates, available)

    def evaluations(self, width: int, kept: int) -> int:
        """Candidates that all picks of a layer look at, where each has as many to choose from as the first."""
        return self.picks(kept) * self.looked_at(width)


# --- what it does to the facts ----------------------------------------------------------------------------------------


def kept_of(widths: Mapping[str, int], keep: float, layers: Sequence[str] | None) -> dict[str, int]:
    """Units that stay, of each layer that gets narrower: round(keep * m), but one at least.

    Args:
        widths: m by name, of all weighted layers of a chain in order.
        keep: share of the units that stay.
        layers: names of layers; None for all but the last.
    """
    asked = [name for name in list(widths)[:-1] if layers is None or name in layers]
    kept = {name: max(1, round(keep * widths[name])) for name in asked}
    return {name: k for name, k in kept.items() if k < widths[name]}


def narrowed(facts: TaskFacts, kept: Mapping[str, int]) -> TaskFacts:
    """Facts of the network with so many units in the layers named, exactly as they are counted on it.

    What sizes and shares are derived from stays: the number of parameters, and the pass as the unit of compute is that
    of the facts before.
    """
    pairs = [list(zip(chain, _narrower(chain, kept), strict=True)) for chain in facts.chains]
    changes = {facts.exits[old.name]: (old, new) for chain in pairs for old, new in chain}
    saved = {at: old.forward_flops - new.forward_flops for at, (old, new) in changes.items()}
    shares = {at: Fraction(new.width, old.width) for at, (old, new) in changes.items()}  # of what follows each layer
    exits = {name: at - sum(less for place, less in saved.items() if place <= at) for name, at in facts.exits.items()}
    ends = (chain[-2:] for chain in pairs if facts.exits[chain[-1][0].name] == facts.forward_flops)
    head = next((Fraction(end[0][1].width, end[0][0].width) for end in ends if len(end) > 1), Fraction(1))
    chains = tuple(tuple(new for _, new in chain) for chain in pairs)
    return replace(
        facts,
        forward_flops=facts.forward_flops - sum(saved.values()),
        backward_flops=facts.backward_flops - sum(a.backward_flops - b.backward_flops for a, b in changes.values()),
        exits=FrozenDict(exits),
        layers=FrozenDict({name: int(n * shares.get(facts.exits[name], 1)) for name, n in facts.layers.items()}),
        head_features=int(facts.head_features * head),
        chain=chains[0] if facts.chain else (),
        inner=() if facts.chain else chains,
    )


def _narrower(chain: Sequence[ChainLayer], kept: Mapping[str, int]) -> list[ChainLayer]:
    """The layers of a chain with so many units in those named."""
    found: list[ChainLayer] = []
    before = Fraction(1)
    for layer in chain:
        width = kept.get(layer.name, layer.width)
        own = Fraction(width, layer.width)
        forward, backward = (int(flops * before * own) for flops in (layer.forward_flops, layer.backward_flops))
        found.append(ChainLayer(name=layer.name, width=width, forward_flops=forward, backward_flops=backward))
        before = own
    return found


def flops(facts: TaskFacts, kept: Mapping[str, int], effort: Effort, num_examples: int) -> int:
    """FLOPs of choosing the units that stay: passes of the examples up to each layer, and the candidates.

    In a network that is a chain, one pass of the examples up to the last layer pruned, and of each candidate through
    the layers behind its own. Else a whole pass for each layer pruned, and for each candidate.

    The most that it can be: where the last picks have fewer units left than `effort.candidates`, they cost less, and
    how many such picks there are is not known beforehand.

    Args:
        facts: of the network before.
        kept: units that stay, of each layer that gets narrower.
        effort: candidates and picks.
        num_examples: that losses are measured on.
    """
    now, total = facts, 0
    for number, chain in enumerate(facts.chains):
        last = max((i for i, layer in enumerate(chain) if layer.name in kept), default=-1)
        for place in range(last + 1):
            layer, following = now.chains[number][place : place + 2]
            total += layer.forward_flops if facts.chain else 0
            if layer.name in kept:
                before = now.exits[following.name] if facts.chain else 0
                total += 0 if facts.chain else now.forward_flops
                candidate = following.forward_flops // layer.width + now.forward_flops - before
                total += effort.evaluations(layer.width, kept[layer.name]) * candidate
                now = narrowed(now, {layer.name: kept[layer.name]})
    return total * num_examples


# --- which units stay -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Junction:
    """Where the units of a layer are added up, and what comes of the sum.

    Args:
        activations: (b, m, ..., block) that a linear layer takes, at each place if there are some, or (b, m, h, w) that
            a convolution does.
        layer: the next one, which adds up the units.
        after: the layers behind it, in evaluation mode; or, of a chain inside a network, what stands for all of these.
        losses: (r,) losses of outputs (r, M) and targets.
        targets: (b, ...) of the examples.
        most_candidates: that are evaluated together; None for as many as `MOST_NUMBERS` allows.
    """

    activations: Tensor
    layer: Weighted
    after: Sequence[Callable[[Tensor], Tensor]]
    losses: Losses
    targets: Tensor
    most_candidates: int | None = None

    @property
    def width(self) -> int:
        """m."""
        return self.activations.shape[1]

    def contributions(self, units: Tensor) -> Tensor:
        """(n, b, M', ...) of units (n,) to the pre-activations of the next layer, without its bias."""
        chosen, n = self.activations.index_select(1, units), len(units)
        if isinstance(self.layer, nn.Linear):
            weight = self.layer.weight.view(self.layer.out_features, self.width, -1).index_select(1, units)
            rows = chosen.transpose(0, 1).flatten(1, -2)  # of all examples and places
            added = torch.bmm(rows, weight.permute(1, 2, 0))
            return added.view(n, len(chosen), *chosen.shape[2:-1], added.shape[2])
        weight = self.layer.weight.index_select(1, units).transpose(0, 1).flatten(0, 1).unsqueeze(1)
        maps = _convolve(self.layer, chosen, weight, groups=n)
        return maps.view(len(maps), n, self.layer.out_channels, *maps.shape[2:]).transpose(0, 1)

    def outputs(self, sums: Tensor, count: int) -> Tensor:
        """(r, M) float32 outputs for sums (r, M', ...) of so many contributions."""
        values = sums * (self.width / count)
        if self.layer.bias is not None:
            places = 0 if isinstance(self.layer, nn.Linear) else values.dim() - 2
            values = values + self.layer.bias.view(-1, *[1] * places)
        for module in self.after:
            values = module(values)
        outputs: Tensor = values.float()
        return outputs

    def mean_losses(self, sums: Tensor, count: int) -> Tensor:
        """(n,) float64 mean losses for sums (n, b, M', ...) of so many contributions; infinite where not finite."""
        n = len(sums)
        targets = self.targets.repeat(n, *[1] * (self.targets.dim() - 1))
        losses = self.losses(self.outputs(sums.flatten(0, 1), count), targets)
        return losses.double().view(n, -1).mean(dim=1).nan_to_num(nan=math.inf)

    def candidates_at_a_time(self) -> int:
        """How many candidates are evaluated together: their largest activations hold at most `MOST_NUMBERS`."""
        if self.most_candidates is not None:
            return self.most_candidates
        nothing = replace(self, activations=self.activations[:0])  # shapes without FLOPs
        values = nothing.contributions(torch.zeros(1, dtype=torch.int64, device=self.activations.device))[0]
        most = values.shape[1:].numel()
        for module in self.after:
            values = module(values)
            most = max(most, values.shape[1:].numel())
        return max(1, MOST_NUMBERS // (most * len(self.activations)))


class Rest:
    """A network for other pre-activations of one of its layers: a forward pass with those put in their place.

    They must have the shape that the layer gives for the inputs, so one candidate is evaluated at a time: what a
    network does with the dimension of the examples on the way to the layer is its own affair. Memory: that of a forward
    pass of the inputs.

    Args:
        network: in evaluation mode.
        layer: inside it, called once.
        inputs: (b, ...) of the network.
    """

    def __init__(self, network: nn.Module, layer: nn.Module, inputs: Tensor) -> None:
        self.network, self.layer, self.inputs = network, layer, inputs

    def __call__(self, values: Tensor) -> Tensor:
        """(b, M) outputs."""
        handle = self.layer.register_forward_hook(lambda *_: values)
        try:
            outputs: Tensor = self.network(self.inputs)
        finally:
            handle.remove()
        return outputs

    def activations(self) -> Tensor:
        """What the layer is given."""
        seen: list[Tensor] = []
        handle = self.layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self.network(self.inputs)
        finally:
            handle.remove()
        return seen[0]


class Greedy:
    """Greedy forward selection of the units of a layer, pick by pick.

    `counts` (m,) int64 on the CPU tells how often each unit was picked; `total` (b, M', ...) is the sum of their
    contributions.

    Args:
        junction: behind the layer.
    """

    def __init__(self, junction: Junction) -> None:
        self.junction = junction
        self.counts = torch.zeros(junction.width, dtype=torch.int64)
        self.total: Tensor | None = None
        self._at_a_time = junction.candidates_at_a_time()

    def pick(self, units: Tensor) -> int:
        """Add the unit with the least mean loss out of candidates (n,), the first of several; returns it.

        Raises:
            ModelDivergedError: no candidate has a finite loss.
        """
        best, least, gained = -1, math.inf, None
        for block in units.split(self._at_a_time):
            added = self.junction.contributions(block.to(self.junction.activations.device))
            sums = added if self.total is None else self.total + added
            losses = self.junction.mean_losses(sums, int(self.counts.sum()) + 1)
            place = int(losses.argmin())
            if float(losses[place]) < least:
                best, least, gained = int(block[place]), float(losses[place]), sums[place].clone()
        if gained is None:
            raise ModelDivergedError("the network that is pruned left the finite numbers.")
        self.total = gained
        self.counts[best] += 1
        return best


def select(junction: Junction, kept: int, effort: Effort, rng: torch.Generator) -> Tensor:
    """Choose the units of a layer that stay, and how often each counts.

    Cost: at most `effort.evaluations(m, kept)` times the layers from the next one on, of which that one costs 1/m, and
    inside a network a whole pass besides; memory for the contributions of so many candidates as `MOST_NUMBERS` allows.

    Args:
        junction: behind the layer, of m units.
        kept: units that stay, 1 <= kept <= m.
        effort: candidates and picks.
        rng: draws the candidates, on the CPU.

    Returns:
        (m,) int64 counts, 0 for units that go; `kept` of them are positive, and they add up to `effort.picks(kept)`.

    Raises:
        ModelDivergedError: no candidate of a pick has a finite loss.
    """
    greedy = Greedy(junction)
    for left in range(effort.picks(kept), 0, -1):
        allowed = _allowed(greedy.counts, kept, left)
        greedy.pick(draw(allowed, effort.looked_at(len(allowed)), rng))
    return greedy.counts


def _allowed(counts: Tensor, kept: int, left: int) -> Tensor:
    """Units that one of so many picks left may take, for `kept` different ones in the end."""
    missing = kept - int((counts > 0).sum())
    if missing == 0:
        return counts.nonzero().flatten()
    return (counts == 0).nonzero().flatten() if missing == left else torch.arange(len(counts))


def draw(units: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """So many of `units`, in their order."""
    if n >= len(units):
        return units
    return units[torch.randperm(len(units), generator=rng)[:n].sort().values]


def _convolve(layer: nn.Conv2d, maps: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The convolution of a layer with another weight, and no bias."""
    is_padded = layer.padding_mode != "zeros"
    if is_padded:
        maps = functional.pad(maps, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
    padding: Any = 0 if is_padded else layer.padding  # torch's annotation of a convolution leaves `same` out
    return functional.conv2d(maps, weight, None, layer.stride, padding, layer.dilation, groups)


# --- the network gets smaller -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examples:
    """What losses are measured on, as of a `Junction`, for the whole network.

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
    network: nn.Module, kept: Mapping[str, int], effort: Effort, examples: Examples, rng: torch.Generator
) -> None:
    """Prune layers of a network in the order of its chains, each in the network as pruned so far, in place.

    Parameters stay the same objects with less in them; gradients are dropped. Losses are measured in evaluation mode;
    the mode comes back as it was.

    Args:
        network: a chain, or one with chains inside, as `subsettune.train.chain` finds them.
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
    network: nn.Module, kept: Mapping[str, int], effort: Effort, examples: Examples, rng: torch.Generator
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
    network: nn.Module, kept: Mapping[str, int], effort: Effort, examples: Examples, rng: torch.Generator
) -> None:
    """As `prune`, of chains inside a network."""
    for name, stretch, following in (found for leaves in inner_links(network).values() for found in _cut_up(leaves)):
        if name not in kept:
            continue
        rest, layer = Rest(network, following[0], examples.inputs), cast("Weighted", following[0])
        junction = Junction(
            activations=by_unit(stretch, rest.activations(), layer),
            layer=layer,
            after=(rest,),
            losses=examples.losses,
            targets=examples.targets,
            most_candidates=1,
        )
        cut(stretch, layer, select(junction, kept[name], effort, rng))


def _narrow(
    stretch: Sequence[nn.Module],
    following: Sequence[nn.Module],
    values: Tensor,
    kept: int,
    effort: Effort,
    examples: Examples,
    rng: torch.Generator,
) -> Tensor:
    """Prune the layer of a stretch; its outputs (b, ...) without those of the units that go."""
    units = by_unit(stretch, values, following[0])
    junction = Junction(
        activations=units,
        layer=cast("Weighted", following[0]),
        after=following[1:],
        losses=examples.losses,
        targets=examples.targets,
    )
    counts = select(junction, kept, effort, rng)
    cut(stretch, junction.layer, counts)
    stay = counts.nonzero().flatten().to(units.device)
    return units.index_select(1, stay).reshape(len(values), -1, *values.shape[2:])


def stretches(network: nn.Module) -> Iterator[tuple[str, list[nn.Module], list[nn.Module]]]:
    """A chain, cut before each weighted layer but the first: name of the layer, it and those up to the next, the rest.

    What stands before the first weighted layer comes with it. The last layer has nothing behind it and is left out.
    """
    leaves = links(network)
    assert leaves is not None, "an obstacle lets no other network through"
    return _cut_up(leaves)


def _cut_up(leaves: Sequence[Leaf]) -> Iterator[tuple[str, list[nn.Module], list[nn.Module]]]:
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
