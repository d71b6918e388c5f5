"""The loader of a policy for hosts that want one: the sampler's batches, without a draw from torch's generator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

from subsettune.config import must
from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.train.follow.sampler import PolicySampler
from subsettune.train.randomness import generator

DECIDED = ("batch_size", "batch_sampler", "drop_last", "sampler", "shuffle")  # of a loader's options, by the policy


def policy_loader(
    sampler: PolicySampler,
    dataset: Any,
    *,
    weights: bool,
    batches: Iterable[list[int]] | None = None,
    **options: Any,
) -> DataLoader[Any]:
    """A loader of a policy's batches, which draws no number from torch's global generator.

    So a host that makes or goes through it once more, when it goes on from a checkpoint, trains with the same bits.

    Args:
        sampler: of the policy.
        dataset: map-style, all rows of the training file.
        weights: whether each example brings the factor of its loss along, see `PolicySampler.weighted`.
        batches: the sampler's batches as the host wants to see them; default: the sampler.
        options: of `DataLoader`.

    Raises:
        ConfigError: an option that the policy decides.
        TrainingFunctionError: the policy weighs its examples, and nobody asked for the weights.
    """
    refuse_decided(options)
    if sampler.needs_weights and not weights:
        raise TrainingFunctionError(
            "the policy weighs its examples, or its batches have uneven slices, and the loss does not heed it. Ask for "
            "weights=True: each example then brings the factor of its loss along, as the last of a tuple or as "
            "`weight`. Multiply the losses by it before their mean is taken."
        )
    return DataLoader(
        sampler.weighted(dataset) if weights else dataset,
        batch_sampler=sampler if batches is None else batches,
        **{"generator": generator(sampler.seed, "loader", sampler.slices.rank), **options},
    )


def refuse_decided(options: dict[str, Any]) -> None:
    """Refuse options of a loader that the policy decides."""
    for name in DECIDED:
        if name in options:
            raise ConfigError(must(name, "left out, since the policy says which batches come", options[name]))
