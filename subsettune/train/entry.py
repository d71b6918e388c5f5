"""Entries: what happens to weights and optimizer when a phase starts.

Neutral settings change nothing, bit for bit. The learning-rate schedule runs on: it belongs to the policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from subsettune import config
from subsettune.config import NOT_NEGATIVE, UNIT, must, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.plugins import load_class


class Entry(ABC):
    """A frozen dataclass of its options."""

    summary: ClassVar[str]

    @abstractmethod
    def apply(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scales: Mapping[str, float], rng: torch.Generator
    ) -> None:
        """Change weights and optimizer in place.

        Args:
            network: the run's network.
            optimizer: the run's optimizer.
            scales: standard deviation of each parameter at initialisation, by name.
            rng: draws what is random, on the CPU.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Entry):
    """Go on with weights and optimizer as they are."""

    summary: ClassVar[str] = "go on with weights and optimizer as they are"

    def apply(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scales: Mapping[str, float], rng: torch.Generator
    ) -> None:
        """Change nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResetOptimizer(Entry):
    """Clear the optimizer's state (momentum, moments); the weights stay."""

    summary: ClassVar[str] = "clear the optimizer's state; the weights stay"

    def apply(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scales: Mapping[str, float], rng: torch.Generator
    ) -> None:
        """Clear the state; the schedule goes on."""
        optimizer.state = defaultdict(dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkPerturb(Entry):
    """Shrink the weights and add noise: theta <- shrink * theta + noise * scale * N(0, 1).

    `scale` is the parameter's own standard deviation at initialisation. Norms and biases (fewer than two dimensions)
    stay unless `everything`; the optimizer keeps its state. Source: Ash & Adams 2020, arXiv:1910.08475, section 5.

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

    def apply(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scales: Mapping[str, float], rng: torch.Generator
    ) -> None:
        """Change the trainable weights in place."""
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if weight.requires_grad and (weight.dim() >= 2 or self.everything):
                    self._change(weight, scales[name], rng)

    def _change(self, weight: Tensor, scale: float, rng: torch.Generator) -> None:
        if self.shrink != 1:
            weight.mul_(self.shrink)
        if self.noise:
            draw = torch.randn(weight.shape, generator=rng)  # on the CPU, so that every device sees the same noise
            weight.add_(draw.to(weight), alpha=self.noise * scale)


ENTRIES: dict[str, type[Entry]] = {"keep": Keep, "reset_optimizer": ResetOptimizer, "shrink_perturb": ShrinkPerturb}


def make(name: str, options: Mapping[str, Any]) -> Entry:
    """An entry by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no entry.
    """
    if name not in ENTRIES and ":" not in name:
        raise ConfigError(must("entry", f"one of {', '.join(ENTRIES)} or package.module:Class", name))
    cls = ENTRIES[name] if name in ENTRIES else load_class(name, "entry", Entry)  # type: ignore[type-abstract]
    try:
        return config.build(cls, dict(options))
    except ConfigError as error:
        raise ConfigError(tuple(Mistake(("entry_options", *m.path), m.message) for m in error.mistakes)) from error


def scales(network: nn.Module) -> dict[str, float]:
    """Standard deviation of each parameter now, by name; 0 for a single number."""
    return {n: float(p.detach().std(correction=0)) if p.numel() > 1 else 0.0 for n, p in network.named_parameters()}


def names() -> Mapping[str, str]:
    """Known entries with one line on each."""
    return {name: cls.summary for name, cls in ENTRIES.items()}
