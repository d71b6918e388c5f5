"""What an order is: options and prices that are known before a run, and the stream of batches of one run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from subsettune.facts import Price, TaskFacts
from subsettune.task import Recipe
from subsettune.train.randomness import generator

if TYPE_CHECKING:
    from subsettune.train.learner import Learner

ROUNDING = 1e-9  # of a share of a number of examples that should be whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples that an update takes.

    Args:
        positions: (b,) int64 in the training part, on the CPU. Where a batch spans two rounds, an example that came
            late in one and comes early in the next is in it twice; see `last_of_each`.
        weights: (b,) float32 factors of their losses, on the CPU, on top of those of the subset; None for equal ones.
    """

    positions: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepContext:
    """Where in a run an update is made.

    Args:
        lr: learning rate.
        weights: (N,) factors of the losses by the subset, on the learner's device; None for equal ones.
        most: evaluations that an optimizer with a line search may make.
        share: of the policy's compute spent so far, as given to `Stream.next`.
        facts: of the network as it stands, as given to `Order.price`.
    """

    lr: float
    weights: Tensor | None
    most: int
    share: float
    facts: TaskFacts


class Order(ABC):
    """Which examples of the pool come next within a phase: a frozen dataclass of the options of an order.

    What an update costs is known beforehand: it follows from the length of the batch and from the share of the
    policy's compute that is spent.
    """

    summary: ClassVar[str]
    heeds_share: ClassVar[bool] = True  # whether the share of compute spent may change batches, prices or updates
    observes: ClassVar[bool] = False  # whether it goes by nothing but the losses of its batches: see `Stream.observe`

    needs_losses: ClassVar[bool] = False  # whether it compares the losses of examples

    @property
    def is_neutral(self) -> bool:
        """Whether the options make it the uniform order, which is then used instead."""
        return False

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """Why such a network cannot be trained in this order, in one sentence with a remedy; None if it can."""
        return None

    def update_cost(self, num_examples: int, share: float, facts: TaskFacts) -> Price:
        """FLOPs of an update on a batch, with all that the order does for it.

        Args:
            num_examples: b, of the batch as the stream gives it.
            share: of the policy's compute spent before it, in [0, 1).
            facts: of the network as it stands, which may be narrower than the task's.
        """
        return Price(forward=num_examples * facts.forward_flops, backward=num_examples * facts.backward_flops)

    def max_update_flops(self, num_examples: int, facts: TaskFacts) -> int:
        """FLOPs of the dearest update on such a batch, whenever it comes."""
        return self.update_cost(num_examples, 0.0, facts).total

    def min_trained_examples(self, num_examples: int, facts: TaskFacts) -> int:
        """Examples of such a batch that are trained on at least."""
        return num_examples

    def lengths(self, pool_size: int, batch_size: int) -> Sequence[int]:
        """Lengths of the batches on a pool in turn, and then again from the first; of ours one, which all have."""
        return (batch_length(pool_size, batch_size),)

    @abstractmethod
    def stream(self, num_examples: int, batch_size: int, seed: int) -> Stream:
        """The stream of one run.

        Args:
            num_examples: N, size of the training part.
            batch_size: examples per update; a smaller pool gives full-pool batches.
            seed: of the run.
        """


class Stream(ABC):
    """An endless stream of batches of one run, across its phases."""

    @abstractmethod
    def enter(self, pool: Tensor | None) -> None:
        """Begin a phase on a pool, (k,) int64 positions, or None for all. The same pool continues its round."""

    @abstractmethod
    def next(self, share: float) -> Batch:
        """The next batch.

        Args:
            share: of the policy's compute spent so far, in [0, 1).
        """

    def attach(self, learner: Learner) -> None:
        """Look at the learner before the first update; called once, before `load`."""
        return

    def update(self, learner: Learner, batch: Batch, now: StepContext) -> int:
        """One update of the network on a batch, for the price that the order names.

        Args:
            learner: of the run.
            batch: what `next` gave.
            now: where in the run it is.

        Returns:
            Evaluations made, each for the price of the batch.
        """
        return learner.update(batch.positions, now.lr, combined(batch, now.weights), most=now.most)

    def observe(self, positions: Tensor, losses: Tensor) -> None:
        """Take note of the losses of a batch that was trained on elsewhere, where the order goes by them.

        Args:
            positions: (b,) int64, as `next` gave them.
            losses: (b,) float, on the same device.
        """
        return

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same batches, apart from the pool."""

    @abstractmethod
    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """Go on from `state` on `pool`."""


def is_blind(order: Order) -> bool:
    """Whether which examples an update is on follows from the seed alone."""
    kind = type(order.stream(1, 1, 0))
    return kind.update is Stream.update and kind.attach is Stream.attach


def combined(batch: Batch, weights: Tensor | None) -> Tensor | None:
    """(b,) factors of the losses of a batch, by subset and order, on the device of `weights`; None if all are equal."""
    of_subset = None if weights is None else weights[batch.positions.to(weights.device)]
    if batch.weights is None or of_subset is None:
        return batch.weights if of_subset is None else of_subset
    return of_subset * batch.weights.to(of_subset.device)


def line_search(name: str, recipe: Recipe) -> str | None:
    """Why an order that leaves out examples cannot be trained in with a recipe; None if it can."""
    if recipe.optimizer != "lbfgs":
        return None
    return (
        f"order must be uniform with lbfgs, got {name!r}. Its curvature is that of one loss, on the same examples in "
        "every update: use another optimizer."
    )


def shuffled(num_examples: int, pool: Tensor | None, seed: int, number: int) -> Tensor:
    """(k,) int64: round `number` of a run, all training examples shuffled and those of the pool kept in that order."""
    order = torch.randperm(num_examples, generator=generator(seed, "order", number))
    if pool is None:
        return order
    member = torch.zeros(num_examples, dtype=torch.bool)
    member[pool] = True
    return order[member[order]]


def batch_length(pool_size: int, batch_size: int) -> int:
    """Examples of every batch on a pool; one that is smaller than a batch gives full-pool batches.

    A short batch at the end of each round would be an update of its own at the full learning rate: 3 examples of 899
    made runs of scikit-learn's digits noisy and skewed, and shares of the data win or fail by their remainder.
    """
    return min(batch_size, pool_size)


def joined(parts: Sequence[Batch]) -> Batch:
    """Batches one behind the other; where some have no weights, theirs are 1."""
    if len(parts) == 1:
        return parts[0]
    positions = torch.cat([part.positions for part in parts])
    if all(part.weights is None for part in parts):
        return Batch(positions=positions)
    weights = [torch.ones(len(part)) if part.weights is None else part.weights for part in parts]
    return Batch(positions=positions, weights=torch.cat(weights))


def last_of_each(positions: Tensor) -> Tensor:
    """(m,) int64 indices in ascending order of the last place of each example in (b,) positions.

    For what keeps one number an example: a write to equal places at once leaves open which one stays.
    """
    ordered, places = positions.sort(stable=True)
    is_last = torch.ones(len(positions), dtype=torch.bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    return places[is_last].sort().values


def is_same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two pools are one."""
    if a is None or b is None:
        return a is b
    return torch.equal(a, b)
