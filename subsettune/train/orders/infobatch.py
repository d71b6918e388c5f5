"""InfoBatch: rounds without a random part of the examples that are learned already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from subsettune import config
from subsettune.config import UNIT, Rule, setting
from subsettune.facts import TaskFacts
from subsettune.task import Recipe
from subsettune.train.learner import Learner
from subsettune.train.orders.base import ROUNDING, Batch, Order, StepContext, combined, line_search, shuffled
from subsettune.train.orders.uniform import Rounds, split
from subsettune.train.randomness import generator


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InfoBatch(Order):
    """Drop, at random, a share of the examples whose last loss is below the mean; weigh the kept ones of them more.

    A round keeps every example of the pool that was never trained on, every one whose last loss is at or above the mean
    of the last losses, and of the n others all but floor(prune * n), whose losses it weighs by n over the number kept:
    as counted, not 1 / (1 - prune). So the sum of the losses over a round is, in expectation, that over the pool; the
    weights of a batch are more than 1 on average, and a shorter round moves the weights as far. A loss is that of the
    example's last update, augmentation and dropout included, and costs nothing. When the annealing begins, a round that
    leaves examples out is given up, and from there on rounds go through the whole pool with equal weights.
    Source: Qin et al. 2024, arXiv:2303.04947.

    Args:
        prune: r, share of the examples below the mean that is left out; 0 is the uniform order.
        anneal: last share of the policy's compute, in which nothing is left out.
    """

    summary: ClassVar[str] = "leaves out examples of low loss at random, and weighs the others of them more (prune 0.5)"
    prune: float = setting(0.5, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    anneal: float = setting(0.125, rule=UNIT)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is ever left out."""
        return self.prune == 0 or self.anneal == 1

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """See `Order.why_not`."""
        return line_search("infobatch", recipe)

    def max_update_flops(self, num_examples: int, facts: TaskFacts) -> int:
        """See `Order.most`: the last batch of a shorter round may be longer by one example."""
        return self.update_cost(num_examples + 1, 0.0, facts).total

    def anneals(self, share: float) -> bool:
        """Whether everything is trained on when so much of the policy's compute is spent."""
        return share >= 1 - self.anneal

    def stream(self, num_examples: int, batch_size: int, seed: int) -> InfoBatchStream:
        """See `Order.stream`."""
        return InfoBatchStream(self, num_examples, batch_size, seed)


@final
class InfoBatchStream(Rounds):
    """The stream of InfoBatch; remembers the last loss of every example, on the learner's device."""

    def __init__(self, order: InfoBatch, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_examples, batch_size, seed)
        self.order = order
        self.losses = torch.full((num_examples,), torch.nan)  # NaN where an example was never trained on
        self._drawn = -1  # round that the next two belong to
        self._positions = torch.empty(0, dtype=torch.int64)
        self._weights: Tensor | None = None

    def next(self, share: float) -> Batch:
        """See `Stream.next`."""
        leaves_out = self._weights is not None and self._drawn == self._round
        if leaves_out and self._position and self.order.anneals(share):
            self._round, self._position, self._batches = self._round + 1, 0, []
        return super().next(share)

    def cut(self, number: int, share: float) -> list[Batch]:
        """The examples kept, in the order of the round; they stay the same when a run is resumed within it."""
        if self._drawn != number:
            self._draw(number, share)
        batches = split(self._positions, self.batch_size)
        if self._weights is None:
            return batches
        weights = self._weights.split([len(batch) for batch in batches])
        return [Batch(positions=b.positions, weights=w) for b, w in zip(batches, weights, strict=True)]

    def _draw(self, number: int, share: float) -> None:
        order = shuffled(self.num_examples, self.pool, self.seed, number)
        self._drawn, self._positions, self._weights = number, order, None
        if self.order.anneals(share):
            return
        losses = self.losses[order.to(self.losses.device)].cpu()
        ranks = torch.randperm(self.num_examples, generator=generator(self.seed, "infobatch", number))[order]
        kept, weights = thinned(losses, ranks, self.order.prune)
        if not bool(kept.all()):
            self._positions, self._weights = order[kept], weights[kept]

    def attach(self, learner: Learner) -> None:
        """See `Stream.attach`."""
        self.losses = self.losses.to(learner.device)

    def update(self, learner: Learner, batch: Batch, now: StepContext) -> int:
        """See `Stream.update`; the losses are those of the forward pass that is made anyway."""
        inputs, targets = learner.examples(batch.positions)
        evaluations, outputs = learner.fit(inputs, targets, combined(batch, now.weights), now.lr, most=now.most)
        self.losses[batch.positions.to(self.losses.device)] = learner.example_losses(outputs, targets)
        return evaluations

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        drawn = {"drawn": self._drawn, "positions": self._positions, "weights": self._weights}
        return {**super().state(), **drawn, "losses": self.losses}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        super().load(state, pool)
        self._drawn, self._positions, self._weights = state["drawn"], state["positions"], state["weights"]
        self.losses.copy_(state["losses"])


def thinned(losses: Tensor, ranks: Tensor, prune: float) -> tuple[Tensor, Tensor]:
    """Which examples a round keeps, and their weights.

    Args:
        losses: (n,) last losses, NaN for examples that were never trained on.
        ranks: (n,) different numbers at random: of the examples below the mean, those of the lowest ranks are left out.
        prune: share of them, rounded down, in [0, 1).

    Returns:
        kept (n,) bool, and weights (n,) float32: 1, but for kept examples below the mean, of which each stands for its
        share of them all.
    """
    kept, weights = torch.ones(len(losses), dtype=torch.bool), torch.ones(len(losses))
    mean = losses.double().nanmean().to(losses)  # rounded as the losses are: equal ones are not below their mean
    low = (losses < mean).nonzero().squeeze(1)  # NaN is below nothing
    if not len(low):
        return kept, weights
    dropped = min(math.floor(prune * len(low) + ROUNDING), len(low) - 1)
    kept[low[ranks[low].argsort()[:dropped]]] = False
    weights[low] = len(low) / (len(low) - dropped)
    return kept, weights
