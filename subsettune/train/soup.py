"""LiPT's soup: workers that train apart on disjoint shards, with masks of their own, and are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from subsettune.policy import Phase, Soup, TaskFacts
from subsettune.task import Recipe
from subsettune.train.learner import Learner
from subsettune.train.orders.base import lengths as round_lengths
from subsettune.train.result import SoupPoint


def of(phase: Phase) -> Soup | None:
    """The soup of a phase; None where it is plain training."""
    return None if phase.soup is None or phase.soup.is_neutral else phase.soup


def shard_size(soup: Soup, pool_size: int) -> int:
    """Examples of each worker: shards are equal, and what is left over is used by nobody."""
    return pool_size // soup.workers


def lengths(soup: Soup, pool_size: int, batch_size: int) -> Sequence[int]:
    """Examples, over all workers, that each step of a round through the shards takes."""
    return [soup.workers * length for length in round_lengths(shard_size(soup, pool_size), batch_size)]


def obstacle(soup: Soup, pool_size: int, recipe: Recipe, facts: TaskFacts) -> str | None:
    """Why such a soup cannot be made, in one sentence with a remedy; None if it can."""
    raise NotImplementedError


def flops(soup: Soup, pool_size: int, facts: TaskFacts) -> int:
    """FLOPs charged, as selection, beside the updates: data-driven masks, and running statistics made anew."""
    raise NotImplementedError


class Workers:
    """The workers of a soup phase.

    Args:
        soup: its settings.
        learner: of the run; its network is what the workers start from and are averaged into.
        pool: (k,) int64 positions of the phase; None for all.
        seed: of the run.
        phase: index of the phase.
    """

    def __init__(self, soup: Soup, learner: Learner, pool: Tensor | None, seed: int, phase: int) -> None:
        raise NotImplementedError

    has_begun: bool

    def begin(self) -> None:
        """Copy the learner's network to the workers and draw their masks."""
        raise NotImplementedError

    def next_length(self) -> int:
        """Examples, over all workers, that the next step takes."""
        raise NotImplementedError

    def update(self, lr: float) -> None:
        """One update of every worker, each on the next batch of its shard; counts the mean loss into the learner's."""
        raise NotImplementedError

    def pour(self) -> None:
        """Write the average of the workers, as they are now, into the learner's network."""
        raise NotImplementedError

    def merge(self) -> SoupPoint:
        """End the phase: pour, make running statistics anew, clear the optimizer's state."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits."""
        raise NotImplementedError

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        raise NotImplementedError
