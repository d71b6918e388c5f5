"""Orders that train on the examples of each batch whose losses are largest; how losses are estimated is theirs."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from subsettune import config
from subsettune.config import FRACTION, Rule, must, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import Price, TaskFacts
from subsettune.task import Recipe
from subsettune.train.learner import Learner
from subsettune.train.orders.base import ROUNDING, Batch, Order, StepContext, combined, line_search, shuffled
from subsettune.train.orders.uniform import Rounds

_SETATTR = nn.Module.__setattr__


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLoss(Order):
    """Of each batch, the share `keep` with the largest estimated losses is trained on.

    Greedy and biased: nothing makes up for the examples left out. Of equal losses the earlier in the batch goes first.
    Early on, with a high learning rate, training on the hardest alone can diverge; so there are a start and a stop,
    outside of which updates are those of the uniform order.

    Args:
        keep: k; of a batch of b examples, k * b are trained on, rounded up, and at least two of two or more where the
            network has batch norm, which cannot train on one. 1 is the uniform order.
        start: share of the policy's compute at which the choosing begins.
        stop: share of it at which the choosing ends.
    """

    name: ClassVar[str]
    keep: float = setting(0.5, rule=FRACTION)
    start: float = setting(0.0, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    stop: float = setting(1.0, rule=FRACTION)

    def __post_init__(self) -> None:
        config.check(self)
        if self.start >= self.stop:
            advice = "Both are shares of the policy's compute."
            raise ConfigError((Mistake(("stop",), must("stop", f"above start {self.start:g}", self.stop, advice)),))

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is left out."""
        return self.keep == 1

    @abstractmethod
    def scoring_flops(self, facts: TaskFacts) -> int:
        """FLOPs of estimating the loss of one example."""

    def beside_flops(self, facts: TaskFacts) -> int:
        """FLOPs of an example's forward pass, and as many of its backward pass, through what is trained beside."""
        return 0

    def chooses(self, share: float) -> bool:
        """Whether examples are left out when so much of the policy's compute is spent."""
        return self.start <= share < self.stop

    def min_trained_examples(self, num_examples: int, facts: TaskFacts) -> int:
        """See `Order.kept`: so many while it chooses."""
        least = min(num_examples, 2) if facts.has_batch_norm else 1
        return max(least, math.ceil(self.keep * num_examples - ROUNDING))

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """See `Order.why_not`."""
        return line_search(self.name, recipe)

    def update_cost(self, num_examples: int, share: float, facts: TaskFacts) -> Price:
        """See `Order.price`: estimates for all of the batch, training on what is kept of it."""
        scored = num_examples if self.chooses(share) else 0
        trained = self.min_trained_examples(num_examples, facts) if scored else num_examples
        beside = self.beside_flops(facts) if share < self.stop else 0
        return Price(
            forward=scored * self.scoring_flops(facts) + trained * (facts.forward_flops + beside),
            backward=trained * (facts.backward_flops + beside),
        )

    def max_update_flops(self, num_examples: int, facts: TaskFacts) -> int:
        """See `Order.most`: that of the dearest of its three stretches, as far as it has them."""
        begins = [share for share in (0.0, self.start, self.stop) if share < 1]
        return max(self.update_cost(num_examples, share, facts).total for share in begins)


class HardestStream(Rounds):
    """The stream of such an order: the batches of the uniform one."""

    def __init__(self, order: TopLoss, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_examples, batch_size, seed)
        self.order = order

    def whole_round(self, number: int, share: float) -> Batch:
        """All of the pool."""
        return Batch(positions=shuffled(self.num_examples, self.pool, self.seed, number))

    def attach(self, learner: Learner) -> None:
        """See `Stream.attach`.

        Raises:
            ConfigError: the optimizer is the user's own and evaluates its batch several times.
        """
        if learner.searches:
            name = learner.recipe.optimizer
            raise ConfigError(
                f"order must be uniform with optimizer {name!r}, which takes a closure, got {self.order.name!r}. Its "
                "updates evaluate a batch several times: use another optimizer."
            )

    @abstractmethod
    def losses(self, learner: Learner, inputs: Tensor, targets: Tensor, facts: TaskFacts) -> Tensor:
        """(b,) estimated losses, without gradients."""

    def update(self, learner: Learner, batch: Batch, now: StepContext) -> int:
        """See `Stream.update`; inputs are read and augmented once, for the estimate and for the training."""
        inputs, targets = learner.examples(batch.positions)
        factors = combined(batch, now.weights)
        if self.order.chooses(now.share):
            losses = self.losses(learner, inputs, targets, now.facts)
            kept = hardest(losses, self.order.min_trained_examples(len(batch), now.facts))
            inputs, targets = inputs[kept], targets[kept]
            factors = None if factors is None else factors[kept]
        self.fit(learner, inputs, targets, factors, now)
        return 1

    def fit(self, learner: Learner, inputs: Tensor, targets: Tensor, weights: Tensor | None, now: StepContext) -> None:
        """One step of the optimizer on what is kept; arguments as of `Learner.fit` and `Stream.update`."""
        learner.fit(inputs, targets, weights, now.lr)


def hardest(losses: Tensor, count: int) -> Tensor:
    """(count,) int64 indices of the largest of (b,) losses, in the order of the batch; of equal ones the first."""
    return losses.sort(descending=True, stable=True).indices[:count].sort().values


def exact(learner: Learner, inputs: Tensor, targets: Tensor) -> Tensor:
    """(b,) losses of the network as it predicts: without dropout, by the running statistics of batch norm."""
    with looking(learner):
        return learner.example_losses(learner.outputs(inputs), targets)


@contextlib.contextmanager
def looking(learner: Learner) -> Iterator[None]:
    """Without gradients, in evaluation mode, and with torch's random state as it was afterwards."""
    network, was_training = learner.network, learner.network.training
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(learner.device)] if learner.device.type == "cuda" else []
    with torch.no_grad():
        set_mode(network, is_training=False)
        try:
            yield
        finally:
            set_mode(network, is_training=was_training)
            torch.set_rng_state(states[0])
            if len(states) > 1:
                torch.cuda.set_rng_state(states[1], learner.device)


def set_mode(network: nn.Module, *, is_training: bool) -> None:
    """`network.train(is_training)`, which takes a tenth of an update of a small network, in a quarter of the time.

    Modules with a `train`, an `eval` or attributes of their own are asked as they want to be.
    """
    cls = type(network)
    if cls.train is not nn.Module.train or cls.eval is not nn.Module.eval or cls.__setattr__ is not _SETATTR:
        network.train(is_training) if is_training else network.eval()
        return
    network.__dict__["training"] = is_training
    for child in network._modules.values():
        if child is not None:
            set_mode(child, is_training=is_training)
