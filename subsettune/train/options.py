"""Where and how a run is carried out: what does not belong to its policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Rule, setting
from subsettune.data.places import DataPaths

SPLITS = ("train", "validation", "test")
_DEVICE = Rule("auto, cpu, cuda or cuda:N", lambda v: re.fullmatch(r"auto|cpu|cuda(:\d+)?", v) is not None)
_SPLITS = Rule(f"some of {', '.join(SPLITS)}", lambda v: len(v) > 0 and set(v) <= set(SPLITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What does not change the result of a run; `num_threads`, `device` and `soup_workers` do change its bits.

    Args:
        splits: which splits the final weights are measured on, besides validation.
        measure_metrics: whether metrics are measured at all; False for data of which no part is held out: `splits` then
            mean nothing, and the points of the curve have no metric.
        evaluations: points of the learning curve, at equal shares of the policy's compute.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if there is one.
        num_threads: CPU threads of torch; null leaves them as they are. A run that goes on from a checkpoint keeps the
            number that it began with.
        checkpoints: folder or URI; null for none. A run that finds its checkpoint there goes on from it.
        stems: folder or URI; null for none. A run that has checkpoints leaves its state there while its rate is still
            the peak, and one that has begun in the same way goes on from it; see `subsettune.train.stems`.
        checkpoint_every_s: seconds between checkpoints, besides those at each switch, at a stop and at the end; null
            for 2 to 60, so that they take a 50th of the time.
        keep_model: whether the result carries the trained network; with `final=True`, `run` sees to it.
        measure_switches: whether losses and `splits` are also measured where a phase gives way to the next, and at the
            end: `RunResult.switches`. A run that goes on from a checkpoint has them from there on.
        soup_workers: how the workers of a soup are carried out: `together`, as one network whose weights have a further
            dimension; `in_turn`, which measures each worker's time; or `auto`: together on a GPU where that works. A
            run that goes on from a checkpoint keeps what it began with.
        soup_processes: Ray actors among which the workers of a soup are divided; 0: they are carried out in the run's
            own process. It changes no bits.
        keep_rankings: whether rankings of selectors that need no network are kept for later runs on the same data.
        places: where this machine keeps data.
        fingerprint: of the data as the caller knows it; data with another one are refused.
    """

    splits: tuple[str, ...] = setting(("validation",), rule=_SPLITS)
    measure_metrics: bool = True
    evaluations: int = setting(10, rule=AT_LEAST_ONE)
    device: str = setting("auto", rule=_DEVICE)
    num_threads: int | None = setting(None, rule=AT_LEAST_ONE)
    checkpoints: str | None = None
    stems: str | None = None
    checkpoint_every_s: float | None = setting(None, rule=POSITIVE)
    keep_model: bool = False
    measure_switches: bool = False
    soup_workers: Literal["auto", "together", "in_turn"] = "auto"
    soup_processes: int = setting(0, rule=NOT_NEGATIVE)
    keep_rankings: bool = True
    places: DataPaths = setting(DataPaths())
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        config.check(self)
