"""What a run knows of itself while it goes on: exactly what its checkpoint holds, beside network, order and workers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from subsettune import config
from subsettune.select import Subset
from subsettune.train.account import LedgerBuilder, no_seconds
from subsettune.train.result import CurvePoint, PhaseSpent, SoupPoint, SwitchPoint

_AS_THEY_ARE = ("phase", "updates", "entering", "pool", "weights", "trained", "switches", "metrics", "done")


@dataclass(slots=True, kw_only=True, eq=False)
class RunState:
    """How far a run has come. Names are those of the keys in a checkpoint.

    Args:
        phase: index of the phase; -1 before the first.
        updates: of the optimizer, or of every worker of a soup.
        entering: whether the phase was prepared, and its transition waits for the first update.
        pool: (k,) int64 positions of the phase; None for all.
        weights: (N,) factors of the losses by the subset, on the run's device; None for equal ones.
        trained: phase and pool of the last update.
        switches: share of the policy's compute at which each phase after the first began.
        metrics: of the final weights, by split, as far as they were measured.
        test_examples: (n,) what each example of the test split adds to its metric, bool or float32; None where it was
            not measured, or by an earlier version, or is not kept.
        done: whether the last update was made, and the final weights were measured.
        account: FLOPs spent.
        shared_flops: of them, what another run spent on the stem that this one began from.
        shared_s: seconds of training and selection of that.
        seconds: by purpose.
        phase_ends: FLOPs and seconds of all updates by the end of each phase that is over.
        curve: points of the learning curve.
        switch_points: measurements where a phase gave way to the next, and at the end.
        soups: what each soup took.
        subsets: those that only this run can tell, by phase.
    """

    phase: int = -1
    updates: int = 0
    entering: bool = False
    pool: Tensor | None = None
    weights: Tensor | None = None
    trained: tuple[int, Tensor | None] = (0, None)
    switches: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    test_examples: Tensor | None = None
    done: bool = False
    account: LedgerBuilder = field(default_factory=LedgerBuilder)
    shared_flops: int = 0
    shared_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=no_seconds)
    phase_ends: list[tuple[int, float]] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    switch_points: list[SwitchPoint] = field(default_factory=list)
    soups: list[SoupPoint] = field(default_factory=list)
    subsets: dict[int, Subset] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Nested dicts, lists and tuples of tensors, numbers and texts, which `load` reads."""
        return {
            **{name: getattr(self, name) for name in _AS_THEY_ARE},
            "test_examples": self.test_examples,
            "shared": (self.shared_flops, self.shared_s),
            "account": {each.name: getattr(self.account, each.name) for each in fields(self.account)},
            "seconds": self.seconds,
            "phase_ends": self.phase_ends,
            "curve": [config.to_plain(point) for point in self.curve],
            "switch_points": [config.to_plain(point) for point in self.switch_points],
            "soups": [config.to_plain(point) for point in self.soups],
            "subsets": {phase: (subset.positions, subset.weights) for phase, subset in self.subsets.items()},
        }

    @property
    def phases(self) -> tuple[PhaseSpent, ...]:
        """What the updates of each phase took so far."""
        ends = [(0, 0.0), *self.phase_ends, (self.account.trained, self.seconds["train"])]
        steps = itertools.pairwise(ends)
        return tuple(PhaseSpent(flops=f - before, seconds=s - since) for (before, since), (f, s) in steps)

    def begin_from_stem(self) -> None:
        """Note that all so far was done by another run."""
        self.shared_flops = self.account.ledger().total
        self.shared_s = self.seconds["train"] + self.seconds["select"]
        self.seconds.update(evaluate=0.0, other=0.0)  # in place: the stopwatch adds to it

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_mapping` gave."""
        for name in _AS_THEY_ARE:
            setattr(self, name, saved[name])
        self.test_examples = saved.get("test_examples")  # earlier versions did not keep them, nor what is shared
        self.shared_flops, self.shared_s = saved.get("shared", (0, 0.0))
        self.account = LedgerBuilder(**saved["account"])
        self.seconds.update(saved["seconds"])  # in place: the stopwatch adds to it
        self.phase_ends = [(flops, seconds) for flops, seconds in saved["phase_ends"]]
        self.curve = [config.build(CurvePoint, point) for point in saved["curve"]]
        self.switch_points = [config.build(SwitchPoint, point) for point in saved["switch_points"]]
        self.soups = [config.build(SoupPoint, point) for point in saved["soups"]]
        self.subsets = {phase: Subset(positions=p, weights=w) for phase, (p, w) in saved["subsets"].items()}
