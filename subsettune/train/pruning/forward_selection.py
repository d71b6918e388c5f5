"""Greedy forward selection: which units of a layer stay.

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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subsettune.errors import ModelDivergedError
from subsettune.train.pruning.effect import PickBudget

# In the largest activation of candidates that are evaluated together: 64 MiB on a GPU, and 1 MiB on a CPU, whose cache
# then holds it: picks of MNIST's cnn take 0.52 s of a core there, and 1.19 s by 64 MiB.
MOST_NUMBERS = {"cpu": 2**18, "cuda": 2**24}
Losses = Callable[[Tensor, Tensor], Tensor]
Weighted = nn.Linear | nn.Conv2d


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LayerInterface:
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
        means = losses.double().view(n, -1).mean(dim=1)
        return means.where(means.isfinite(), math.inf)

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
        allowed = MOST_NUMBERS.get(self.activations.device.type, MOST_NUMBERS["cpu"])
        return max(1, allowed // (most * len(self.activations)))


class RemainingForward:
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
        interface: behind the layer.
    """

    def __init__(self, interface: LayerInterface) -> None:
        self.interface = interface
        self.counts = torch.zeros(interface.width, dtype=torch.int64)
        self.total: Tensor | None = None
        self._at_a_time = interface.candidates_at_a_time()

    def pick(self, units: Tensor) -> int:
        """Add the unit with the least mean loss out of candidates (n,), the first of several; returns it.

        Raises:
            ModelDivergedError: no candidate has a finite loss.
        """
        best, least, gained = -1, math.inf, None
        for block in units.split(self._at_a_time):
            added = self.interface.contributions(block.to(self.interface.activations.device))
            sums = added if self.total is None else self.total + added
            losses = self.interface.mean_losses(sums, int(self.counts.sum()) + 1)
            place = int(losses.argmin())
            if float(losses[place]) < least:
                best, least, gained = int(block[place]), float(losses[place]), sums[place].clone()
        if gained is None:
            raise ModelDivergedError("the network that is pruned left the finite numbers.")
        self.total = gained
        self.counts[best] += 1
        return best


def select(interface: LayerInterface, kept: int, effort: PickBudget, rng: torch.Generator) -> Tensor:
    """Choose the units of a layer that stay, and how often each counts.

    Cost: at most `effort.evaluations(m, kept)` times the layers from the next one on, of which that one costs 1/m, and
    inside a network a whole pass besides; memory for the contributions of so many candidates as `MOST_NUMBERS` allows.

    Args:
        interface: behind the layer, of m units.
        kept: units that stay, 1 <= kept <= m.
        effort: candidates and picks.
        rng: draws the candidates, on the CPU.

    Returns:
        (m,) int64 counts, 0 for units that go; `kept` of them are positive, and they add up to `effort.picks(kept)`.

    Raises:
        ModelDivergedError: no candidate of a pick has a finite loss.
    """
    greedy = Greedy(interface)
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
