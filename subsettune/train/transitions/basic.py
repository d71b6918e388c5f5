"""Transitions that leave the network's shape alone: keep, reset_optimizer, shrink_perturb."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from subsettune import config
from subsettune.config import NOT_NEGATIVE, UNIT, setting
from subsettune.train.transitions.base import Transition, TransitionContext


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Transition):
    """Go on with weights and optimizer as they are.

    When: always, unless another is shown to pay: it is what the others are held against.
    Cost: nothing.
    """

    summary: ClassVar[str] = "go on with weights and optimizer as they are"

    @property
    def is_neutral(self) -> bool:
        """Always."""
        return True

    def apply(self, context: TransitionContext) -> None:
        """Change nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResetOptimizer(Transition):
    """Clear the optimizer's state (momentum, moments); the weights stay.

    When: momentum gathered on a subset points the wrong way on all data.
    Cost: nothing.
    """

    summary: ClassVar[str] = "clear the optimizer's state; the weights stay"

    def apply(self, context: TransitionContext) -> None:
        """Clear the state; the schedule goes on."""
        context.optimizer.state = defaultdict(dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkPerturb(Transition):
    """Shrink the weights and add noise: theta <- shrink * theta + noise * scale * N(0, 1).

    `scale` is the parameter's own standard deviation at initialisation. Norms and biases (fewer than two dimensions)
    stay unless `everything`; the optimizer keeps its state. Source: Ash & Adams 2020, arXiv:1910.08475, section 5.

    When: a network has fitted its subset too closely to learn the rest as well as a fresh one would.
    Cost: nothing.

    Args:
        shrink: lambda, in [0, 1]; 1 with no noise changes nothing.
        noise: in units of the initialisation's scale.
        everything: whether norms and biases change too.
    """

    summary: ClassVar[str] = "shrink the weights and add noise (shrink 0.6, noise 0.01)"
    shrink: float = setting(0.6, rule=UNIT)
    noise: float = setting(0.01, rule=NOT_NEGATIVE)
    everything: bool = False

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether weights stay as they are."""
        return self.shrink == 1 and self.noise == 0

    def apply(self, context: TransitionContext) -> None:
        """Change the trainable weights in place."""
        with torch.no_grad():
            for name, weight in context.network.named_parameters():
                if weight.requires_grad and (weight.dim() >= 2 or self.everything):
                    self._change(weight, context.scales[name], context.rng)

    def _change(self, weight: Tensor, scale: float, rng: torch.Generator) -> None:
        if self.shrink != 1:
            weight.mul_(self.shrink)
        if self.noise:
            draw = torch.randn(weight.shape, generator=rng)  # on the CPU, so that every device sees the same noise
            weight.add_(draw.to(weight), alpha=self.noise * scale)
