"""SIFT: the hardest of each batch by approximate losses, from an early exit of the network."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from subsettune import models
from subsettune.config import Rule, must, setting
from subsettune.errors import ModelDivergedError
from subsettune.facts import TaskFacts
from subsettune.select.network import anatomy, pooled
from subsettune.task import Recipe
from subsettune.train import optimizers
from subsettune.train.learner import Learner
from subsettune.train.orders.base import StepContext
from subsettune.train.orders.top_loss import HardestStream, TopLoss, exact, looking
from subsettune.train.randomness import generator, preserved

AUXILIARY = "auxiliary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Where the forward pass is left, and what makes a loss of what is there.

    Args:
        layer: name of the layer whose output it is; empty for the end of the network, whose loss is exact.
        flops: of the forward pass of one example up to it.
        width: numbers that it gives for an example, maps and sequences averaged over their places.
        head: `own` for the network's last layer, `auxiliary` for one trained along; empty at the end.
    """

    layer: str = ""
    flops: int
    width: int = 0
    head: Literal["", "own", "auxiliary"] = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sift(TopLoss):
    """The examples of each batch with the largest approximate losses, those of an early exit.

    All of the batch goes through the network up to the exit, in evaluation mode and without gradients, and through a
    head to outputs and losses; what is kept is then trained on as ever. The evaluated network never has the auxiliary
    head. Price of an update on b examples, F and B being FLOPs of the network's passes, E those up to the exit, and H
    those of a head, 2 * width * outputs: b * (E + H) + k * b * (F + B), and k * b * 2 * H more for an auxiliary head.

    An auxiliary head is a linear layer on the output of the exit, averaged over places. It is trained from the run's
    beginning until `stop`, also before `start`, by an optimizer of its own as the recipe has it, on the output that
    training gives anyway, and sends no gradient back. It begins anew where a transition changes the exit or its width,
    and waits while a soup's workers train. Source: Das et al. 2024, arXiv:2402.07052.

    When: a part of the network tells hard examples already. Early in training this can diverge: see `start`.
    Cost: for each example of a batch a forward pass up to the exit, and the head.

    Args:
        keep: see `TopLoss`.
        start: likewise.
        stop: likewise.
        exit: name of a layer; or a share of the depth, measured in FLOPs: the last layer at the top of the network
            within that share of a forward pass, or the first one with weights if none is. 1 is the end of the network:
            the loss is exact, and nothing is saved by leaving early.
        head: `own`: a method `read_out(hidden, inputs)` of the network, which gives outputs (b, M) from the output of
            the exit and the inputs for the price of its last layer; or, without one, the last layer itself, after
            averaging over places. It must be linear and take as many numbers as the exit gives. `auxiliary`: see
            above. `auto`: `own` where it fits, else `auxiliary`.
    """

    name: ClassVar[str] = "sift"
    summary: ClassVar[str] = "the half of each batch with the largest losses at an early exit (keep 0.5, exit 0.5)"
    needs_losses: ClassVar[bool] = True
    exit: float | str = setting(
        0.5,
        rule=Rule(
            "the name of a layer or in (0, 1]",
            lambda v: isinstance(v, str) or 0 < v <= 1,
            "A number is a share of the depth; put a name that is a number in quotes.",
        ),
    )
    head: Literal["auto", "own", "auxiliary"] = "auto"

    def leaves(self, facts: TaskFacts) -> Exit:
        """The exit in a network; the end of it where it has no layer of that name."""
        layer = self.exit if isinstance(self.exit, str) else _at(self.exit, facts)
        flops = facts.exits.get(layer, facts.forward_flops)
        if flops >= facts.forward_flops:
            return Exit(flops=facts.forward_flops)
        width = facts.layers[layer]
        fits = width == facts.head_features and self.head != AUXILIARY
        return Exit(layer=layer, flops=flops, width=width, head="own" if fits else "auxiliary")

    def scoring_flops(self, facts: TaskFacts) -> int:
        """See `Hardest.scoring_flops`."""
        left = self.leaves(facts)
        return left.flops + 2 * left.width * facts.num_outputs

    def beside_flops(self, facts: TaskFacts) -> int:
        """See `Hardest.beside_flops`: a linear head, whose input needs no gradient."""
        left = self.leaves(facts)
        return 2 * left.width * facts.num_outputs if left.head == AUXILIARY else 0

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """See `Order.why_not`."""
        refused = TopLoss.why_not(self, recipe, facts)  # `super()` loses its class where slots are added to it
        return refused or self._misplaced(facts) or self._headless(facts)

    def _misplaced(self, facts: TaskFacts) -> str | None:
        known = ", ".join(facts.blocks)
        if isinstance(self.exit, str):
            if self.exit in facts.exits:
                return None
            advice = f"Layers at the top of this model: {known or 'none'}."
            return must("exit", "a layer of the model or a share of its depth", self.exit, advice)
        if self.exit == 1 or any(facts.exits[name] for name in facts.blocks):
            return None
        return must("exit", "1 for a model without layers of its own at its top", self.exit, "Or use uniform.")

    def _headless(self, facts: TaskFacts) -> str | None:
        left = self.leaves(facts)
        if not left.layer:
            advice = f"Nothing but the end of the model is left at {self.exit!r}, where the loss is exact."
            return must("head", "auto or own", self.head, advice) if self.head == AUXILIARY else None
        if self.head != "own" or left.head == "own":
            return None
        ends = "The model does not end in a linear layer."
        if facts.head_features:
            fitting = [name for name in facts.blocks if facts.layers[name] == facts.head_features]
            takes = f"The last layer takes {facts.head_features} numbers, and {left.layer} gives {left.width}."
            ends = f"{takes} Layers that fit: {', '.join(fitting) or 'none'}."
        return must("head", f"auto or auxiliary for exit {self.exit!r}", self.head, ends)

    def stream(self, num_examples: int, batch_size: int, seed: int) -> SiftStream:
        """See `Order.stream`."""
        return SiftStream(self, num_examples, batch_size, seed)


def _at(share: float, facts: TaskFacts) -> str:
    """The layer where a share of the depth ends; of several with equal FLOPs the last, behind activation and pooling.

    Empty for the end of the network, and if no layer at its top has weights.
    """
    if share == 1:
        return ""
    weighted = [name for name in facts.blocks if facts.exits[name] > 0]
    within = [facts.exits[name] for name in weighted if facts.exits[name] <= share * facts.forward_flops]
    depth = max(within, default=min((facts.exits[name] for name in weighted), default=0))
    return next((name for name in reversed(weighted) if facts.exits[name] == depth), "")


@final
class SiftStream(HardestStream):
    """The stream of SIFT, with the auxiliary head where there is one."""

    order: Sift

    def __init__(self, order: Sift, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(order, num_examples, batch_size, seed)
        self._last_layer = ""
        self._maps: frozenset[str] = frozenset()
        self._learner: Learner | None = None
        self._head: Head | None = None
        self._left: tuple[TaskFacts, Exit] | None = None  # the exit last asked for, and in which network

    def attach(self, learner: Learner) -> None:
        """See `HardestStream.attach`; finds the last layer of the network."""
        super().attach(learner)
        with preserved():
            inputs, _ = learner.part.batch(torch.arange(min(2, len(learner.part)), device=learner.device))
            found = anatomy(learner.network, inputs)
            self._last_layer, self._maps = found.head, found.maps
        self._learner = learner

    def losses(self, learner: Learner, inputs: Tensor, targets: Tensor, facts: TaskFacts) -> Tensor:
        """See `HardestStream.losses`.

        Raises:
            ModelDivergedError: losses are not finite; of an auxiliary head, the running loss would not tell.
        """
        left = self._leaves(facts)
        if not left.layer:
            return exact(learner, inputs, targets)
        with looking(learner):
            hidden = output_of(learner, left.layer, inputs).float()
            outputs = self._outputs(learner.network, left, hidden, inputs)
            losses = learner.example_losses(outputs, targets)
        if not bool(losses.isfinite().all()):
            reason = f"the losses at exit {left.layer!r} left the finite numbers"
            raise ModelDivergedError(f"{reason}, at learning rate {learner.recipe.lr:g}.")
        return losses

    def fit(self, learner: Learner, inputs: Tensor, targets: Tensor, weights: Tensor | None, now: StepContext) -> None:
        """See `HardestStream.fit`; the auxiliary head learns along."""
        left = self._leaves(now.facts)
        if left.head != AUXILIARY or now.share >= self.order.stop:
            learner.fit(inputs, targets, weights, now.lr)
            return
        with listening(learner.network, left.layer, inputs, is_map=left.layer in self._maps) as heard:
            learner.fit(inputs, targets, weights, now.lr)
        self._of(left).fit(heard[0], targets, weights, now.lr)

    def _leaves(self, facts: TaskFacts) -> Exit:
        """See `Sift.leaves`: looked up once a phase, whose facts are one object."""
        if self._left is None or self._left[0] is not facts:
            self._left = facts, self.order.leaves(facts)
        return self._left[1]

    def _outputs(self, network: nn.Module, left: Exit, hidden: Tensor, inputs: Tensor) -> Tensor:
        read_out, is_map = getattr(network, "read_out", None), left.layer in self._maps
        if left.head == AUXILIARY:
            outputs = self._of(left).linear(pooled(hidden, inputs, is_map=is_map))
        elif read_out is not None:
            outputs = read_out(hidden, inputs)
        else:
            outputs = network.get_submodule(self._last_layer)(pooled(hidden, inputs, is_map=is_map))
        assert isinstance(outputs, Tensor), "heads give tensors"
        return outputs

    def _of(self, left: Exit) -> Head:
        """The auxiliary head, made when it is first asked for, and anew for another layer or width."""
        if self._head is None or (self._head.layer, self._head.linear.in_features) != (left.layer, left.width):
            assert self._learner is not None, "a stream is attached before its first update"
            self._head = Head(self._learner, left.layer, left.width, self.seed)
        return self._head

    def state(self) -> dict[str, Any]:
        """See `Stream.state`."""
        return {**super().state(), "head": None if self._head is None else self._head.state()}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        """See `Stream.load`."""
        super().load(state, pool)
        self._head = None
        if state["head"] is not None:
            assert self._learner is not None, "a stream is attached before its state is loaded"
            self._head = Head(self._learner, state["head"]["layer"], state["head"]["width"], self.seed)
            self._head.load(state["head"])


@final
class Head:
    """A linear layer from an exit to outputs, with an optimizer as the recipe has it.

    Args:
        learner: whose network it is read from.
        layer: the exit.
        width: numbers that the exit gives for an example.
        seed: of the run; weights are drawn as `nn.Linear` draws them, but from a stream of their own.
    """

    def __init__(self, learner: Learner, layer: str, width: int, seed: int) -> None:
        self.learner, self.layer = learner, layer
        linear = nn.utils.skip_init(nn.Linear, width, learner.data.num_outputs)
        rng, bound = generator(seed, "exit head", width), 1 / math.sqrt(width)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-bound, bound, generator=rng)
        self.linear: nn.Linear = linear.to(learner.device)
        self.optimizer = optimizers.make(learner.recipe, self.linear)
        self._rates = optimizers.Rates(self.optimizer, learner.recipe.lr)

    def fit(self, features: Tensor, targets: Tensor, weights: Tensor | None, lr: float) -> None:
        """One step on (b, width) averages of what the exit gave for examples; arguments as of `Learner.fit`."""
        self._rates.set(lr)
        losses = self.learner.example_losses(self.linear(features), targets)
        self.optimizer.zero_grad(set_to_none=True)
        (losses if weights is None else losses * weights).mean().backward()
        if self.learner.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.linear.parameters(), self.learner.recipe.grad_clip)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits."""
        return {
            "layer": self.layer,
            "width": self.linear.in_features,
            "linear": self.linear.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.linear.load_state_dict(state["linear"])
        self.optimizer.load_state_dict(state["optimizer"])


# --- inside a network -------------------------------------------------------------------------------------------------


class _LeftError(BaseException):
    """Thrown out of a forward pass at the exit; no `Exception`, so that no network swallows it."""


def output_of(learner: Learner, layer: str, inputs: Tensor) -> Tensor:
    """First output of a named layer for inputs; nothing behind it is computed."""
    taken: list[Tensor] = []

    def leave(_: nn.Module, __: tuple[object, ...], output: Tensor) -> None:
        taken.append(output)
        raise _LeftError

    handle = learner.network.get_submodule(layer).register_forward_hook(leave)
    try:
        with contextlib.suppress(_LeftError), models.layer_by_layer():
            learner.outputs(inputs)
    finally:
        handle.remove()
    return taken[0]


@contextlib.contextmanager
def listening(network: nn.Module, layer: str, inputs: Tensor, *, is_map: bool = False) -> Iterator[list[Tensor]]:
    """What a named layer gives for inputs in the forward passes inside: (b, width) float32, pooled and detached.

    Copied, for the next layer may work in place. `is_map`: see `pooled`.
    """
    heard: list[Tensor] = []

    def hear(_: nn.Module, __: tuple[object, ...], output: Tensor) -> None:
        heard.append(pooled(output.detach().float(), inputs, is_map=is_map).clone())

    handle = network.get_submodule(layer).register_forward_hook(hear)
    try:
        with models.layer_by_layer():
            yield heard
    finally:
        handle.remove()
