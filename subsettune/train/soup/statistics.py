"""Running statistics of averaged weights, which no worker has: made anew on examples of the pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from subsettune.data.augment import make_augment
from subsettune.train.learner import Learner
from subsettune.train.soup import costs

STATISTICS_BATCH = 256


@torch.no_grad()
def make_anew(learner: Learner, pool: Tensor, rng: torch.Generator, augment_rng: torch.Generator) -> None:
    """Give the learner's network the running means and variances of its weights, over augmented examples of the pool.

    Args:
        learner: of the run.
        pool: (k,) int64 positions.
        rng: draws the examples, on the CPU.
        augment_rng: of their augmentation, on the learner's device.
    """
    drawn = torch.randperm(len(pool), generator=rng)[: costs.STATISTICS_EXAMPLES]
    augment = make_augment(learner.recipe.augment, learner.data.input_shape, augment_rng)
    pieces = pool[drawn].tensor_split(-(-len(drawn) // STATISTICS_BATCH))  # of equal size, as their averages count
    with _starting_anew(learner.network):
        for positions in pieces:
            inputs, _ = learner.part.batch(positions.to(learner.device))
            learner.outputs(inputs if augment is None else augment(inputs))


@contextlib.contextmanager
def _starting_anew(network: nn.Module) -> Iterator[None]:
    """Let running statistics be plain averages over what comes; all else is in evaluation mode, for which they are."""
    norms = [m for m in network.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    tracked = [norm.get_buffer("num_batches_tracked") for norm in norms]
    before = [(norm.momentum, count.clone()) for norm, count in zip(norms, tracked, strict=True)]
    was_training = network.training
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for a cumulative average
        norm.train()
    try:
        yield
    finally:
        network.train(was_training)
        for norm, count, (momentum, counted) in zip(norms, tracked, before, strict=True):
            norm.momentum = momentum
            count.copy_(counted)
