"""The slow, obvious twin of each fast kernel, in float64. Nothing here is clever, so that it can be believed."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional

# --- selection ------------------------------------------------------------------------------------------------------


def greedy_cover(x: Tensor, k: int, *, first: int) -> list[int]:
    """Gonzalez' greedy: after `first`, always the row farthest from its nearest pick, the lowest index of several."""
    rows = x.double()
    picks = [first]
    while len(picks) < k:
        farthest, distance = -1, -1.0
        for i in range(len(rows)):
            if i in picks:
                continue
            nearest = float((rows[picks] - rows[i]).square().sum(1).min())
            if nearest > distance:
                farthest, distance = i, nearest
        picks.append(farthest)
    return picks


def cover_radius(x: Tensor, picks: Sequence[int]) -> float:
    """Distance of the row that is farthest from its nearest pick."""
    return float(torch.cdist(x.double(), x.double()[list(picks)]).amin(1).max())


def nearest_pick(x: Tensor, picks: Tensor) -> list[int]:
    """The pick that each row is nearest to, the first of several."""
    places = []
    for row in x.double():
        distances = [float((row - pick).square().sum()) for pick in picks.double()]
        places.append(distances.index(min(distances)))
    return places


def herding(x: Tensor, k: int) -> list[int]:
    """Welling's herding of rows of whole numbers, in exact arithmetic: the lowest index of several."""
    rows = [[int(v) for v in row] for row in x.tolist()]
    n, sums = len(rows), [sum(column) for column in zip(*rows, strict=True)]
    w, picks = list(sums), []  # n times the paper's, so that it stays whole
    for _ in range(k):
        left = [i for i in range(n) if i not in picks]
        best = max(left, key=lambda i: (sum(a * b for a, b in zip(w, rows[i], strict=True)), -i))
        picks.append(best)
        w = [a + s - n * v for a, s, v in zip(w, sums, rows[best], strict=True)]
    return picks


def distances(x: Tensor) -> Tensor:
    """(n, n) float64 Euclidean distances, one subtraction each."""
    rows = x.double()
    return (rows[:, None] - rows[None]).square().sum(2).sqrt()


def facility_value(x: Tensor, picks: Sequence[int]) -> float:
    """sum_i max_{j in S} (d_max - d_ij)."""
    d = distances(x)
    return float((d.max() - d[:, list(picks)].amin(1)).sum())


def facility_location(x: Tensor, k: int) -> list[int]:
    """Plain greedy, every gain anew for every pick; of equal gains the row nearest to the mean, then the lowest."""
    d, rows = distances(x), x.double()
    central = (rows - rows.mean(0)).square().sum(1).tolist()
    tie = 1e-9 * float(d.max())
    nearest = torch.full((len(x),), float(d.max()), dtype=torch.float64)
    picks: list[int] = []
    for _ in range(k):
        gains = (nearest[:, None] - d).clamp(min=0).sum(0)
        gains[picks] = -math.inf
        least = float(gains.max()) - tie
        tied = [i for i, gain in enumerate(gains.tolist()) if gain >= least]
        best = min(tied, key=lambda i: (central[i], i))
        picks.append(best)
        nearest = torch.minimum(nearest, d[best])
    return picks


def largest_deviation(classes: Sequence[int], counts: Sequence[int]) -> float:
    """Over all prefixes of a sequence of classes: how far a count is from its proportion t * n_c / n, at most."""
    n, worst = sum(counts), 0.0
    for t in range(len(classes) + 1):
        for c, count in enumerate(counts):
            worst = max(worst, abs(classes[:t].count(c) * n - t * count) / n)
    return worst


def largest_remainder(counts: Sequence[int], k: int) -> list[int]:
    """How many of each class are in a proportional sample of `k`: shares rounded down, the rest by remainder."""
    n = sum(counts)
    taken = [k * count // n for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda c: -(k * counts[c] % n))
    for c in by_remainder[: k - sum(taken)]:
        taken[c] += 1
    assert sum(taken) == k
    assert all(math.floor(k * c / n) <= t <= math.ceil(k * c / n) for c, t in zip(counts, taken, strict=True))
    return taken


# --- scores from training ---------------------------------------------------------------------------------------------


def error_norms(outputs: Tensor, targets: Tensor) -> list[float]:
    """EL2N of a classification: the length of softmax minus one-hot, number by number."""
    norms = []
    for row, label in zip(outputs.double().tolist(), targets.tolist(), strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        errors = [power / sum(powers) - (m == label) for m, power in enumerate(powers)]
        norms.append(math.sqrt(math.fsum(error**2 for error in errors)))
    return norms


def gradient_norms(
    network: nn.Module, inputs: Tensor, targets: Tensor, parameters: Callable[[nn.Module], list[nn.Parameter]]
) -> list[float]:
    """GraNd: the length of the gradient of each example's loss, by one backward pass each.

    A classification where the targets are whole numbers; else a regression with standardised targets.
    """
    twin = copy.deepcopy(network).double().eval()
    norms = []
    for example, target in zip(inputs.double(), targets, strict=True):
        output = twin(example.unsqueeze(0)).reshape(1, -1)
        if target.is_floating_point():
            loss = (output - target.double().reshape(1, -1)).square().mean()
        else:
            loss = functional.cross_entropy(output, target.unsqueeze(0))
        gradients = torch.autograd.grad(loss, parameters(twin))
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)))
    return norms


def forgetting_events(history: Sequence[bool]) -> int:
    """How often right was followed by wrong in what happened to one example; -1 if it was never right."""
    if not any(history):
        return -1
    return sum(before and not after for before, after in itertools.pairwise(history))


# --- gradients of the last layer --------------------------------------------------------------------------------------


def nonnegative_weights(atoms: Tensor, picks: Sequence[int], ridge: float) -> Tensor:
    """Least |sum w_i g_i - sum of all g|^2 + ridge |w|^2 with w >= 0, the ridge as rows of the matrix."""
    k = len(picks)
    matrix = torch.cat([atoms[list(picks)].T, math.sqrt(ridge) * torch.eye(k, dtype=torch.float64)])
    aim = torch.cat([atoms.sum(0), torch.zeros(k, dtype=torch.float64)])
    return torch.from_numpy(nnls(matrix.numpy(), aim.numpy(), maxiter=100 * k)[0])


def matching_pursuit(atoms: Tensor, k: int, lam: float) -> tuple[list[int], list[Tensor]]:
    """Picks and, for each number of them, weights: gradients (n, D) written out, and every fit from scratch."""
    ridge = lam * float(atoms.square().sum(1).mean())
    noise = 1e-9 * float(atoms.norm(dim=1).max() * atoms.norm(dim=1).sum())
    picks: list[int] = []
    weights: list[Tensor] = []
    remainder, is_met = atoms.sum(0), False
    while len(picks) < k:
        along = (atoms @ remainder).tolist()
        left = [i for i in range(len(atoms)) if i not in picks]
        largest = max(along[i] for i in left)
        pick = next(i for i in left if along[i] >= largest - noise)
        is_met = is_met or largest <= noise
        if is_met:  # the rest in the order of the same products
            rest = sorted(left, key=lambda i: -round(along[i] / noise) if noise else 0)
            for i in rest[: k - len(picks)]:
                picks.append(i)
                weights.append(torch.cat([weights[-1] if weights else atoms.new_zeros(0), atoms.new_zeros(1)]))
            break
        picks.append(pick)
        weights.append(nonnegative_weights(atoms, picks, ridge))
        remainder = atoms.sum(0) - weights[-1] @ atoms[picks]
    return picks, weights


def last_layer_gradients(
    network: nn.Module, head: Callable[[nn.Module], nn.Linear], inputs: Tensor, losses: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """(n, D) gradients by the parameters of the last layer, by one backward pass each; `losses(output, i)`."""
    twin = copy.deepcopy(network).double().eval()
    parameters = list(head(twin).parameters())
    rows = []
    for i, example in enumerate(inputs.double()):
        gradients = torch.autograd.grad(losses(twin(example[None])[0], i), parameters)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def held_out_gains(
    atoms: Tensor,
    layer: Tensor,
    loss: Callable[[Tensor], Tensor],
    groups: Sequence[int],
    group_of: Sequence[int],
    *,
    eta: float,
    refresh: int,
) -> list[int]:
    """The ranking by gain: (n, M, A) gradients of the candidates, and the held-out loss of a last layer (M, A)."""
    picks: list[int] = []
    while len(picks) < len(groups):
        moved = (layer - eta * atoms[picks].sum(0)).requires_grad_()
        (direction,) = torch.autograd.grad(loss(moved), moved)
        gains = (atoms * direction).sum((1, 2)).tolist()
        for group in groups[len(picks) : len(picks) + refresh]:
            left = [i for i in range(len(atoms)) if i not in picks and group_of[i] == group]
            largest = max(gains[i] for i in left)
            picks.append(next(i for i in left if gains[i] >= largest - 1e-10))
    return picks


# --- soups ------------------------------------------------------------------------------------------------------------


def erk_densities(shapes: Sequence[Sequence[int]], density: float) -> list[float]:
    """Densities min(1, s (sum of dims) / (product of dims)), with the s that gives the density of all, by bisection."""
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]

    def at(scale: float) -> list[float]:
        return [min(1.0, scale * r) for r in raw]

    low, high = 0.0, 1.0 / min(raw)
    for _ in range(200):
        middle = (low + high) / 2
        kept = math.fsum(d * n for d, n in zip(at(middle), sizes, strict=True))
        low, high = (middle, high) if kept < density * sum(sizes) else (low, middle)
    return at(high)


def merged(values: Sequence[Tensor], masks: Sequence[Tensor], uncovered: Tensor) -> Tensor:
    """Entry by entry, the mean over those workers whose mask keeps it, and `uncovered` where none does."""
    result = uncovered.double().flatten().tolist()
    for place in range(len(result)):
        kept = [
            float(v.double().flatten()[place])
            for v, mask in zip(values, masks, strict=True)
            if bool(mask.flatten()[place])
        ]
        if kept:
            result[place] = math.fsum(kept) / len(kept)
    return torch.tensor(result, dtype=torch.float64).reshape(uncovered.shape)


# --- orders -----------------------------------------------------------------------------------------------------------


def hardest(losses: Sequence[float], count: int) -> list[int]:
    """The `count` largest losses, of equal ones the first, in the order of the batch."""
    return sorted(sorted(range(len(losses)), key=lambda i: (-losses[i], i))[:count])


def place_mean(output: Tensor) -> Tensor:
    """(w,) of one example's output: (w,), a sequence (t, w) or maps (w, h, v), averaged over places in turn."""
    if output.dim() == 1:
        return output
    places = (
        list(output)
        if output.dim() == 2
        else [output[:, i, j] for i, j in itertools.product(*map(range, output.shape[1:]))]
    )
    return sum(places, torch.zeros_like(places[0])) / len(places)


def early_losses(
    network: nn.Sequential, num_layers: int, head: nn.Linear, inputs: Tensor, targets: Tensor
) -> list[float]:
    """Losses behind the first layers of a chain, one example at a time, as it predicts; squares of a regression."""
    twin, losses = copy.deepcopy(network).double().eval(), []
    weight, bias = head.weight.detach().double(), head.bias.detach().double()
    for example, target in zip(inputs.double(), targets, strict=True):
        hidden = example[None]
        for layer in list(twin)[:num_layers]:
            hidden = layer(hidden).detach()
        row = (weight @ place_mean(hidden[0]) + bias).tolist()
        if target.is_floating_point():
            losses.append(sum((a - b) ** 2 for a, b in zip(row, target.reshape(-1).tolist(), strict=True)) / len(row))
        else:
            losses.append(math.log(math.fsum(math.exp(v - max(row)) for v in row)) + max(row) - row[int(target)])
    return losses


def thinned(losses: Sequence[float], ranks: Sequence[int], prune: float) -> tuple[list[int], list[float]]:
    """InfoBatch's round: examples kept and their weights; a loss that is NaN was never seen."""
    seen = [loss for loss in losses if not math.isnan(loss)]
    mean = math.fsum(seen) / len(seen) if seen else math.nan
    low = sorted((i for i, loss in enumerate(losses) if loss < mean), key=lambda i: ranks[i])
    dropped = low[: math.floor(Fraction(str(prune)) * len(low))]
    kept = [i for i in range(len(losses)) if i not in dropped]
    return kept, [len(low) / (len(low) - len(dropped)) if i in low else 1.0 for i in kept]


# --- pruning ----------------------------------------------------------------------------------------------------------


def with_units(network: nn.Sequential, place: int, units: Sequence[int]) -> nn.Sequential:
    """A float64 network of which a layer has those units, some several times, and the next averages over them.

    Built anew: the layer has a row for each unit of the list, batch norms behind it likewise, and the next layer has m
    divided by the length of the list in front of each copy of a column.

    Args:
        network: flat, of linear and convolution layers and what is applied to each unit.
        place: of the layer in the network.
        units: numbers of its units.
    """
    twin, many = copy.deepcopy(network).double().eval(), len(units)
    layer: Any = twin[place]
    width = len(layer.weight)
    twin[place] = _layer_like(layer, layer.weight[units], None if layer.bias is None else layer.bias[units])
    for number in range(place + 1, len(twin)):
        module = twin[number]
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            block = module.num_features // width
            rows = [unit * block + i for unit in units for i in range(block)]
            norm = type(module)(len(rows), eps=module.eps).double().eval()
            for name, values in module.state_dict().items():
                norm.state_dict()[name].copy_(values[rows] if values.dim() else values)
            twin[number] = norm
        if isinstance(module, nn.Linear | nn.Conv2d):
            block = module.weight.shape[1] // width
            columns = [unit * block + i for unit in units for i in range(block)]
            twin[number] = _layer_like(module, module.weight[:, columns] * (width / many), module.bias)
            return twin.eval()
    raise AssertionError("no layer follows")


def _layer_like(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    if isinstance(layer, nn.Linear):
        made: nn.Linear | nn.Conv2d = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), bias=bias is not None)
    else:
        assert isinstance(layer, nn.Conv2d)
        made = nn.utils.skip_init(
            *(nn.Conv2d, weight.shape[1], len(weight), layer.kernel_size, layer.stride, layer.padding, layer.dilation),
            padding_mode=layer.padding_mode,
            bias=bias is not None,
        )
    made = made.double()
    with torch.no_grad():
        made.weight.copy_(weight)
        if made.bias is not None and bias is not None:
            made.bias.copy_(bias)
    return made


def greedy_units(
    network: nn.Sequential,
    place: int,
    kept: int,
    picks: int,
    loss: Callable[[nn.Module], float],
    candidates: Callable[[list[int]], list[int]],
) -> list[int]:
    """Greedy forward selection of the units of a layer, a network built anew for every candidate; the list S.

    Args:
        network: as of `with_units`.
        place: of the layer.
        kept: different units in the end.
        picks: length of the list.
        loss: of a float64 network.
        candidates: of the units that may be picked, those that are looked at.
    """
    picked: list[int] = []
    for number in range(picks):
        missing = kept - len(set(picked))
        allowed = list(range(len(network.get_parameter(f"{place}.weight"))))
        if missing == picks - number:
            allowed = [unit for unit in allowed if unit not in picked]
        if missing == 0:
            allowed = sorted(set(picked))
        losses = {unit: loss(with_units(network, place, [*picked, unit])) for unit in candidates(allowed)}
        least = min(losses.values())
        picked.append(next(unit for unit, value in losses.items() if value <= least + 1e-6 * abs(least)))
    return picked
