"""What a run returns: metrics, account and learning curve, all plain numbers with a JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from subsettune import config
from subsettune.config import NOT_NEGATIVE, FrozenDict, setting
from subsettune.ledger import Ledger
from subsettune.policy import Policy

if TYPE_CHECKING:
    from torch import nn

    from subsettune.select import Subset

NOT_PLAIN = ("model", "subsets")
NOT_TOLD = (*NOT_PLAIN, "fingerprint")  # of no use without the model
Cause = Literal["finished", "stopped", "diverged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One evaluation during a run.

    Args:
        share: of the policy's own compute spent so far.
        flops: spent so far, selection and training.
        phase: index of the phase that the run was in.
        metric: on the validation split; null when it is not a finite number, or nothing is measured.
        loss: mean training loss since the previous point; null when it is not a finite number.
        seconds: spent so far on selection and training, evaluation apart.
        select: of `flops`, those of selection.
        forward: of `flops`, those of forward passes of updates; the rest is of backward passes.
    """

    share: float
    flops: int
    phase: int
    metric: float | None
    loss: float | None
    seconds: float
    select: int = 0
    forward: int = 0

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoupPoint:
    """What a soup took, and how much of the network its workers covered.

    Args:
        phase: index of the phase.
        workers: networks that trained apart.
        coverage: share of the masked weights that some worker kept.
        flops: of all workers and of running statistics made anew, which the policy pays.
        longest_flops: of the worker that took the most, and of the running statistics: where every worker has a machine
            of its own, this is how long the soup takes.
        seconds: of all workers on this machine, with masks and averaging; where they have processes of their own, until
            the last of these is done.
        longest_s: of the updates of the worker that took longest; null where they were trained at once on one device.
    """

    phase: int
    workers: int
    coverage: float
    flops: int
    longest_flops: int
    seconds: float
    longest_s: float | None = None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpent:
    """What the updates of a phase took; selection is not in it.

    Args:
        flops: of its updates.
        seconds: likewise.
    """

    flops: int
    seconds: float

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPoint:
    """What the weights were worth when a phase was over, before the transition of the next one changed them.

    Losses are means in evaluation mode, with equal weights, without augmentation and label smoothing; of a regression,
    of its standardised targets. What is not a finite number is null.

    Args:
        phase: index of the phase that is over, or over with the policy.
        share: of the policy's compute spent so far.
        flops: spent so far, selection and training; choosing the examples of the next phase is in it.
        pool_size: examples that the phase trained on.
        pool_loss: mean loss over them.
        train_loss: mean loss over all training examples.
        metrics: by split.
    """

    phase: int
    share: float
    flops: int
    pool_size: int
    pool_loss: float | None
    train_loss: float | None
    metrics: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)


def finite_or_none(value: float) -> float | None:
    """A number, or None where JSON has none for it."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished, stopped or diverged training.

    Args:
        policy: what was followed.
        seed: of the run.
        cause: `finished`; `stopped` by the caller's report; `diverged`: loss or weights left the finite numbers.
        message: one sentence when the cause is not `finished`, else empty.
        metrics: of the final weights, by split (`validation`, `test`); empty unless finished.
        num_test: examples of the test split that the next two tell of; 0 where it was not measured, or nothing is kept.
        test_correct: of a classification, which of them are right: a bit an example, in the order of the split, the
            first in the highest bit of the first byte (`numpy.packbits`); base64 in JSON.
        test_errors: of a regression, what each adds to the metric, which is their mean: float32, little-endian.
        ledger: FLOPs by purpose.
        repeated_flops: compute charged to tuning only: lost between the last checkpoint and an interruption, or spent
            on a ranking that is longer than this policy needs and that other runs share.
        shared_flops: of the ledger, what another run had spent on the stem that this one began from: the policy's cost,
            but spent once.
        shared_s: seconds of training and selection of that, likewise in those below.
        updates: optimizer steps, each of one evaluation of its batch, or of several where there is a line search.
        curve: evaluations in order, at fixed shares of the policy's compute.
        train_s: seconds in updates.
        select_s: seconds in selection.
        evaluate_s: seconds in evaluation.
        device: `cpu` or `cuda`.
        num_threads: CPU threads of torch, which change the bits of the result.
        phases: what the updates of each phase took, as far as the run came.
        switch_shares: share of the policy's compute at which each phase after the first began.
        switches: measurements there and at the end; empty unless `RunOptions.measure_switches`.
        soups: what each soup phase took.
        model: the trained network, on the CPU; not part of the JSON form.
        subsets: the choices that only the run can tell, `select.Subset` by index of the phase; not in the JSON form.
        fingerprint: of the data that it was trained on; not in the JSON form.
    """

    policy: Policy
    seed: int
    cause: Cause
    message: str = ""
    metrics: FrozenDict = setting(FrozenDict())
    num_test: int = setting(0, rule=NOT_NEGATIVE)
    test_correct: bytes | None = None
    test_errors: bytes | None = None
    ledger: Ledger
    repeated_flops: int = 0
    shared_flops: int = setting(0, rule=NOT_NEGATIVE)
    shared_s: float = setting(0.0, rule=NOT_NEGATIVE)
    updates: int
    curve: tuple[CurvePoint, ...] = ()
    train_s: float
    select_s: float = 0.0
    evaluate_s: float = 0.0
    device: str = "cpu"
    num_threads: int = 1
    phases: tuple[PhaseSpent, ...] = ()
    switch_shares: tuple[float, ...] = ()
    switches: tuple[SwitchPoint, ...] = ()
    soups: tuple[SoupPoint, ...] = ()
    model: Any = None
    subsets: Any = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        network: nn.Module | None = self.model
        subsets: Mapping[int, Subset] | None = self.subsets
        for name in NOT_PLAIN:
            object.__setattr__(self, name, None)
        config.check(self)
        object.__setattr__(self, "model", network)
        object.__setattr__(self, "subsets", subsets)

    @property
    def seconds(self) -> float:
        """Seconds that the policy pays: selection and training."""
        return self.train_s + self.select_s

    def to_mapping(self) -> dict[str, Any]:
        """JSON form; `config.build(RunResult, ...)` reads it."""
        names = [name for name in RunResult.__dataclass_fields__ if name not in NOT_TOLD]
        return {name: config.to_plain(getattr(self, name)) for name in names}
