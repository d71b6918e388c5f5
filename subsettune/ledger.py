"""The ledger: exact account, in FLOPs, of what a run spent and for what.

Counting the FLOPs of a model lives in `subsettune.train.flops`, because it needs torch; the account itself does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from subsettune import config
from subsettune.config import NOT_NEGATIVE, setting

Purpose = Literal["select", "forward", "backward", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """FLOPs by purpose, all integers. `spent` is what a policy pays; evaluation is ledgered apart.

    Args:
        select: choosing the subset, proxies included.
        forward: forward passes of training updates.
        backward: backward passes of training updates.
        evaluate: metrics and losses measured on any split.
    """

    select: int = setting(0, rule=NOT_NEGATIVE)
    forward: int = setting(0, rule=NOT_NEGATIVE)
    backward: int = setting(0, rule=NOT_NEGATIVE)
    evaluate: int = setting(0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def train(self) -> int:
        """Forward and backward of all updates."""
        return self.forward + self.backward

    @property
    def spent(self) -> int:
        """What the policy pays: selection and training. Never more than `policy.cost(facts)`."""
        return self.select + self.train

    @property
    def total(self) -> int:
        """Everything, evaluation included: what tuning pays."""
        return self.spent + self.evaluate

    def __add__(self, other: Ledger) -> Ledger:
        """Sum by purpose."""
        return Ledger(
            select=self.select + other.select,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            evaluate=self.evaluate + other.evaluate,
        )
