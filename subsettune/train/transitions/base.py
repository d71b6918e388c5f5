"""What a transition is: options and prices that are known before a run, and what it may look at when a phase starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subsettune.data import Part
from subsettune.facts import TaskFacts
from subsettune.task import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionContext:
    """What a transition changes, and what it may look at.

    Args:
        network: the run's network; its parameters stay the same objects.
        optimizer: the run's optimizer.
        scales: standard deviation of each parameter at initialisation, by name.
        rng: draws what is random, on the CPU.
        part: the training examples, with batches on the network's device; None where there are none to look at.
        pool: (k,) int64 positions of the phase that begins, on the CPU; None for all.
        losses: (b,) losses of outputs (b, M) and targets, as the run trains on them.
        facts: of the network before.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scales: Mapping[str, float]
    rng: torch.Generator
    part: Part | None = None
    pool: Tensor | None = None
    losses: Callable[[Tensor, Tensor], Tensor] | None = None
    facts: TaskFacts | None = None


class Transition(ABC):
    """What happens to weights and optimizer when a phase starts: a frozen dataclass of its options.

    Attributes:
        summary: one line for `subsettune transitions`.
        spread_options: options that it has in a space alone, where they say how it is spread over phases.
        in_space: what these do, in a sentence.
        reshapes: whether the network may have another shape after it.
        needs_losses: whether it compares the losses of examples.
    """

    summary: ClassVar[str]
    spread_options: ClassVar[tuple[str, ...]] = ()
    in_space: ClassVar[str] = ""
    reshapes: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False

    @property
    def is_neutral(self) -> bool:
        """Whether it changes nothing and is skipped."""
        return False

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """Why it cannot be applied to such a network, in one sentence with a remedy; None if it can."""
        return None

    def flops(self, facts: TaskFacts, pool_size: int) -> int:
        """FLOPs charged for it, as selection, beside the updates.

        Args:
            facts: of the network before it.
            pool_size: examples of the phase that it opens.
        """
        return 0

    def facts_after(self, facts: TaskFacts) -> TaskFacts:
        """Facts of the network after it; only the prices of passes may differ."""
        return facts

    @classmethod
    def spread(
        cls, options: Mapping[str, Any], passes: float, facts: TaskFacts
    ) -> Sequence[tuple[float, Mapping[str, Any]]]:
        """Phases that a stretch on all data is cut into, each with its passes and the options that it begins with.

        Args:
            options: as a space has them, `spread_options` included.
            passes: length of the stretch.
            facts: of the task.
        """
        return ((passes, options),)

    @classmethod
    def idle_options(cls, choices: Mapping[str, Sequence[Any]], facts: TaskFacts) -> Mapping[str, str]:
        """Options of a space that can make no difference to such a network, each with the reason and a remedy.

        Args:
            choices: of each option that the space has, or both ends; None where it may be absent.
            facts: of the task.
        """
        return {}

    @abstractmethod
    def apply(self, context: TransitionContext) -> None:
        """Change weights and optimizer in place."""


def scales(network: nn.Module) -> dict[str, float]:
    """Standard deviation of each parameter now, by name; 0 for a single number.

    Those of whole numbers are left out: Keras keeps the state of its random generators among the parameters.
    """
    floats = [(name, p.detach()) for name, p in network.named_parameters() if p.is_floating_point()]
    return {name: float(p.std(correction=0)) if p.numel() > 1 else 0.0 for name, p in floats}
