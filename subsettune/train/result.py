"""What a run returns: metrics, account and learning curve, all plain numbers with a JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from subsettune import config
from subsettune.config import FrozenDict, setting
from subsettune.ledger import Ledger
from subsettune.policy import Policy

if TYPE_CHECKING:
    from torch import nn

Cause = Literal["finished", "stopped", "diverged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One evaluation during a run.

    Args:
        share: of the policy's own compute spent so far.
        flops: spent so far, selection and training.
        phase: index of the phase that the run was in.
        metric: on the validation split; null when it is not a finite number.
        loss: mean training loss since the previous point; null when it is not a finite number.
        seconds: spent so far on selection and training, evaluation apart.
    """

    share: float
    flops: int
    phase: int
    metric: float | None
    loss: float | None
    seconds: float

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished, stopped or diverged training.

    Args:
        policy: what was followed.
        seed: of the run.
        cause: `finished`; `stopped` by the caller's report; `diverged`: loss or weights left the finite numbers.
        message: one sentence when the cause is not `finished`, else empty.
        metrics: of the final weights, by split (`validation`, `test`); empty unless finished.
        ledger: FLOPs by purpose.
        repeated_flops: compute lost between the last checkpoint and an interruption, charged to tuning only.
        updates: optimizer steps.
        curve: evaluations in order, at fixed shares of the policy's compute.
        train_s: seconds in updates.
        select_s: seconds in selection.
        evaluate_s: seconds in evaluation.
        device: `cpu` or `cuda`.
        num_threads: CPU threads of torch, which change the bits of the result.
        switch_shares: share of the policy's compute at which each phase after the first began.
        model: the trained network, on the CPU; not part of the JSON form.
    """

    policy: Policy
    seed: int
    cause: Cause
    message: str = ""
    metrics: FrozenDict = setting(FrozenDict())
    ledger: Ledger
    repeated_flops: int = 0
    updates: int
    curve: tuple[CurvePoint, ...] = ()
    train_s: float
    select_s: float = 0.0
    evaluate_s: float = 0.0
    device: str = "cpu"
    num_threads: int = 1
    switch_shares: tuple[float, ...] = ()
    model: Any = None

    def __post_init__(self) -> None:
        network: nn.Module | None = self.model
        object.__setattr__(self, "model", None)
        config.check(self)
        object.__setattr__(self, "model", network)

    @property
    def seconds(self) -> float:
        """Seconds that the policy pays: selection and training."""
        return self.train_s + self.select_s

    def to_mapping(self) -> dict[str, Any]:
        """JSON form; `config.build(RunResult, ...)` reads it."""
        names = [name for name in RunResult.__dataclass_fields__ if name != "model"]
        return {name: config.to_plain(getattr(self, name)) for name in names}
