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
from subsettune.train.orders.base import (
    ROUNDING,
    Batch,
    Order,
    StepContext,
    combined,
    last_of_each,
    line_search,
    shuffled,
)
from subsettune.train.orders.uniform import Rounds
from subsettune.train.randomness import generator


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InfoBatch(Order):
    """Drop, at random, a share of the examples whose last loss is below the mean; weigh the kept ones of them more.

    A round keeps every example of the pool that was never trained on, every one whose last loss is at or above the mean
    of the last losses, and of the n others all but floor(prune * n), whose losses it weighs by n over the number kept:
    as counted, not 1 / (1 - prune). So the sum of the losses over a round is, in expectation, that over the pool; the
    weights of a batch are more than 1 on average, and a shorter round moves the weights as far. A loss is that of the
    example's last update, augmentation and dropout included, and costs nothing. What a round keeps is drawn when its
    first example is needed, which may be to complete a batch: the losses of what comes before it in that batch are then
    those of the round before. When the annealing begins, a round that leaves examples out is given up, and from there
    on rounds go through the whole pool with equal weights.
    When: several rounds of a pool of which much is soon learned. It looks at losses that training gives anyway.
    Cost: nothing.
    Source: Qin et al. 2024, arXiv:2303.04947.

    Args:
        prune: r, share of the examples below the mean that is left out; 0 is the uniform order.
        anneal: last share of the policy's compute, in which nothing is left out.
    """

    summary: ClassVar[str] = "leaves out examples of low loss at random, and weighs the others of them more (prune 0.5)"
    observes: ClassVar[bool] = True
    needs_losses: ClassVar[bool] = True
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

    def next(self, share: float) -> Batch:
        """See `Stream.next`."""
        leaves_out = self._current is not None and self._current.weights is not None
        if leaves_out and self.order.anneals(share):
            self.leave_round()
        return super().next(share)

    def whole_round(self, number: int, share: float) -> Batch:
        """The examples kept, in the order of the round."""
        order = shuffled(self.num_examples, self.pool, self.seed, number)
        if self.order.anneals(share):
            return Batch(positions=order)
        losses = self.losses[order.to(self.losses.device)].cpu()
        ranks = torch.randperm(self.num_examples, generator=generator(self.seed, "infobatch", number))[order]
        kept, weights = thinned(losses, ranks, self.order.prune)
        return Batch(positions=order) if bool(kept.all()) else Batch(positions=order[kept], weights=weights[kept])

    def attach(self, learner: Learner) -> None:
        """See `Stream.attach`."""
        self.losses = self.losses.to(learner.device)

    def update(self, learner: Learner, batch: Batch, now: StepContext) -> int:
        """See `Stream.update`; the losses are those of the forward pass that is made anyway."""
        inputs, targets = learner.examples(batch.positions)
        evaluations, outputs = learner.fit(inputs, targets, combined(batch, now.weights), now.lr, most=now.most)
        self.observe(batch.positions, learner.example_losses(outputs, targets))
        return evaluations

    def observe(self, positions: Tensor, losses: Tensor) -> None:
        """See `Stream.observe`."""
        last, device = last_of_each(positions), self.losses.device
        self.losses[positions[last].to(device)] = losses[last.to(losses.device)].to(self.losses)

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        current = None if self._current is None else (self._current.positions, self._current.weights)
        return {**super().state(), "current": current, "losses": self.losses}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        super().load(state, pool)
        if state["current"] is not None:  # drawn by losses that are other ones now
            positions, weights = state["current"]
            self._current = Batch(positions=positions, weights=weights)
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
