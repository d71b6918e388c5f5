"""Masks of workers that keep a share of each weight matrix, and the average of what they kept.

Symbols: W workers, n entries of a weight matrix (of a tensor, for convolutions), w a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from subsettune.train.flops import FREE

Shape = tuple[int, ...]


def maskable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that are masked, by name: trainable, of two dimensions or more, and not the table of an embedding.

    Biases and norms have one dimension. A row of a table is all that the network knows of a token, not a connection
    between units, and a table is so large that it would take the density of all other layers with it.
    """
    tables = {id(p) for m in network.modules() if isinstance(m, FREE) for p in m.parameters(recurse=False)}
    named = network.named_parameters()
    return {name: p for name, p in named if p.requires_grad and p.dim() >= 2 and id(p) not in tables}


def erk_counts(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Entries that each weight keeps by Erdos-Renyi-kernel densities: narrow layers stay denser than wide ones.

    The density of a layer is proportional to (sum of its dimensions) / (product of its dimensions), scaled so that all
    layers together have `density`. Where that gives a layer more than it has, it keeps all, and the others are scaled
    anew. Counts are rounded layer by layer, and at least 1, so that no layer is cut off.

    Args:
        shapes: of the weights, by name.
        density: over all weights, in (0, 1].

    Source: Mocanu et al. 2018, arXiv:1707.04780; for kernels Evci et al. 2020, arXiv:1911.11134, section 3.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    left, budget = dict(shapes), density * sum(sizes.values())
    scale = 0.0
    while left:
        scale = budget / sum(sum(shape) for shape in left.values())
        full = [name for name, shape in left.items() if scale * sum(shape) >= sizes[name]]
        if not full:
            break
        budget -= sum(sizes[name] for name in full)
        left = {name: shape for name, shape in left.items() if name not in full}
    kept = {name: round(scale * sum(shapes[name])) if name in left else sizes[name] for name in shapes}
    return {name: min(sizes[name], max(1, count)) for name, count in kept.items()}


def random_mask(shape: Shape, count: int, rng: torch.Generator) -> Tensor:
    """A boolean tensor with `count` entries set, at places drawn evenly.

    Args:
        shape: of the mask.
        count: from 0 to all entries.
        rng: on the CPU, where the mask is made.
    """
    mask = torch.zeros(prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=rng)[:count]] = True
    return mask.reshape(shape)


def largest_mask(scores: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """A boolean tensor with the `count` largest entries of `scores` set; of equal ones, those that a draw puts first.

    Many scores of a layer can be 0, e.g. at the black border of images, and the first of them are no better than the
    last.

    Args:
        scores: finite or not; NaN counts as the largest.
        count: from 0 to all entries.
        rng: on the CPU, where the mask is made.
    """
    flat = scores.detach().cpu().flatten()
    shuffled = torch.randperm(len(flat), generator=rng)
    best = shuffled[flat[shuffled].argsort(descending=True, stable=True)[:count]]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[best] = True
    return mask.reshape(scores.shape)


def average(values: Tensor, masks: Tensor | None, uncovered: Tensor) -> Tensor:
    """Mean of each entry over the workers that kept it, in float64 on the way.

    Args:
        values: (W, ...) of the workers.
        masks: (W, ...) bool, what each kept; None where all kept all.
        uncovered: (...) what entries become that nobody kept.

    Returns:
        (...) of the type of `values`.
    """
    wide = torch.promote_types(values.dtype, torch.float64)
    if masks is None:
        return values.mean(0, dtype=wide).to(values.dtype)
    keepers = masks.sum(0)
    total = values.masked_fill(~masks, 0).sum(0, dtype=wide)
    return torch.where(keepers > 0, (total / keepers.clamp(min=1)).to(values.dtype), uncovered)


def coverage(masks: Mapping[str, Tensor]) -> float:
    """Share of the masked entries, (W, ...) by name, that some worker kept; 1 where nothing is masked."""
    covered = sum(int(mask.any(0).sum()) for mask in masks.values())
    entries = sum(mask[0].numel() for mask in masks.values())
    return covered / entries if entries else 1.0
