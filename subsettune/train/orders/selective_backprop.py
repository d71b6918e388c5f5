"""Selective backprop: the hardest of each batch by their exact losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from subsettune.facts import TaskFacts
from subsettune.train.learner import Learner
from subsettune.train.orders.top_loss import HardestStream, TopLoss, exact


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveBackprop(TopLoss):
    """The examples of each batch with the largest losses, by a forward pass of the whole network for all of them.

    The forward pass of the kept ones is made again, in training mode. Where the paper keeps an example by chance, in
    proportion to a power of the rank of its loss among recent ones, a fixed share is kept here, so that costs are known
    beforehand; and no estimate is reused. Source: Jiang et al. 2019, arXiv:1910.00762.

    When: the backward pass is what is dear, and labels are right: it trains on the largest losses alone.
    Cost: a forward pass for each example of a batch.

    Args:
        keep: see `TopLoss`.
        start: likewise.
        stop: likewise.
    """

    name: ClassVar[str] = "selective_backprop"
    summary: ClassVar[str] = "the half of each batch with the largest losses (keep 0.5, start 0, stop 1)"
    needs_losses: ClassVar[bool] = True

    def scoring_flops(self, facts: TaskFacts) -> int:
        """See `Hardest.scoring_flops`."""
        return facts.forward_flops

    def stream(self, num_examples: int, batch_size: int, seed: int) -> SelectiveStream:
        """See `Order.stream`."""
        return SelectiveStream(self, num_examples, batch_size, seed)


@final
class SelectiveStream(HardestStream):
    """The stream of selective backprop."""

    def losses(self, learner: Learner, inputs: Tensor, targets: Tensor, facts: TaskFacts) -> Tensor:
        """See `HardestStream.losses`."""
        return exact(learner, inputs, targets)
