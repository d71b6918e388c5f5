"""What a run has spent so far: compute in FLOPs, and seconds by purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from subsettune.facts import Price
from subsettune.ledger import Ledger

PURPOSES = ("train", "select", "evaluate", "other")


@dataclass(slots=True, kw_only=True)
class LedgerBuilder:
    """FLOPs of one run so far.

    Args:
        selected: of choosing examples, and of what transitions and soups prepare.
        forward: of the forward passes of updates, and of what orders look at for them.
        backward: of the backward passes of updates.
        evaluated: of measuring metrics and losses.
    """

    selected: int = 0
    forward: int = 0
    backward: int = 0
    evaluated: int = 0

    def pay(self, price: Price, times: int = 1) -> None:
        """Charge an update whose price was paid so many times."""
        self.forward += times * price.forward
        self.backward += times * price.backward

    @property
    def trained(self) -> int:
        """Of all updates."""
        return self.forward + self.backward

    @property
    def spent(self) -> int:
        """What the policy pays: selection and training."""
        return self.selected + self.trained

    def ledger(self) -> Ledger:
        """The account by purpose."""
        return Ledger(select=self.selected, forward=self.forward, backward=self.backward, evaluate=self.evaluated)


def no_seconds() -> dict[str, float]:
    """Zero seconds for each purpose."""
    return dict.fromkeys(PURPOSES, 0.0)


class Stopwatch:
    """Seconds by purpose.

    Args:
        clock: in seconds.
        device: waited for before the clock is read, so that queued work is charged to its own purpose.
        seconds: by purpose, to which is added.
    """

    def __init__(self, clock: Callable[[], float], device: torch.device, seconds: dict[str, float]) -> None:
        self._clock, self._device = clock, device
        self.seconds = seconds
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
