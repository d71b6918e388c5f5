"""What a run has spent so far: compute in FLOPs, and seconds by purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from subsettune.ledger import Ledger
from subsettune.policy import TaskFacts

PURPOSES = ("train", "select", "evaluate", "other")


@dataclass(slots=True, kw_only=True)
class Account:
    """Counts of one run; `ledger` turns them into FLOPs.

    Args:
        facts: of the task.
        selected: FLOPs of selection.
        examples: trained on, counted once for each evaluation of their loss.
        evaluated: examples that metrics were measured on, each time counted.
    """

    facts: TaskFacts
    selected: int = 0
    examples: int = 0
    evaluated: int = 0

    @property
    def trained(self) -> int:
        """FLOPs of all updates."""
        return self.examples * self.facts.example_flops

    @property
    def spent(self) -> int:
        """FLOPs that the policy pays: selection and training."""
        return self.selected + self.trained

    def ledger(self) -> Ledger:
        """The account by purpose."""
        return Ledger(
            select=self.selected,
            forward=self.examples * self.facts.forward_flops,
            backward=self.examples * self.facts.backward_flops,
            evaluate=self.evaluated * self.facts.forward_flops,
        )


class Stopwatch:
    """Seconds by purpose.

    Args:
        clock: in seconds.
        device: waited for before the clock is read, so that queued work is charged to its own purpose.
    """

    def __init__(self, clock: Callable[[], float], device: torch.device) -> None:
        self._clock, self._device = clock, device
        self.seconds = dict.fromkeys(PURPOSES, 0.0)
        self.lap_start = clock()

    def lap(self, purpose: str) -> None:
        """Charge the time since the last lap to a purpose."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        self.seconds[purpose] += now - self.lap_start
        self.lap_start = now

    def now(self) -> float:
        """The clock as it stands; nothing is waited for or charged."""
        return self._clock()
