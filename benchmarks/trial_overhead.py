"""Seconds that a trial costs besides its training and the sampler's own ask: Ray Tune, processes, records on disk.

A study of tiny trials on digits runs through Ray Tune on this machine, with workers re-used between trials. Overhead of
a trial: from the moment that it is asked for until it is on record, less selection, training and evaluation; plus the
time that its place stood empty before it, less the ask. The first trial of each worker, which starts the process, is
reported apart.

    python benchmarks/trial_overhead.py --trials 40 --parallel 1 2
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subsettune.api import tune
from subsettune.data import DataPaths
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.options import TuneOptions
from subsettune.study.results.folder import versions
from subsettune.study.results.records import RunRecord
from subsettune.study.search.search import Search

DIGITS = {"source": "digits"}
RECIPE = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 64, "epochs": 30, "schedule": "cosine"}


def study(trials: int, parallel: int) -> dict[str, Any]:
    task = {"data": DIGITS, "model": {"name": "mlp", "hidden": [64]}, "recipe": RECIPE, "tolerance": 0.01}
    space = {"budget": {"log": [0.02, 0.1]}, "arm": {"choice": ["full", "subset"]}, "switch": {"uniform": [0.1, 0.9]}}
    settings = {"trials": trials, "parallel": parallel, "seeds": 2, "max_seeds": 2, "candidates": 1}
    return {"task": task, "space": {**space, "subset_share": {"log": [0.05, 0.5]}}, "study": settings}


class Asks:
    """Seconds of each call of the sampler, noted while inside the `with`."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._plain = Search.propose

    def __enter__(self) -> Asks:
        plain, seconds = self._plain, self.seconds

        def timed(self: Search) -> Any:
            start = time.monotonic()
            proposal = plain(self)
            seconds[getattr(proposal, "number", -1)] = time.monotonic() - start
            return proposal

        Search.propose = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Search.propose = self._plain  # type: ignore[method-assign]


def overheads(trials: Sequence[RunRecord], asks: dict[int, float], parallel: int) -> list[float]:
    """Of each trial but the first of each worker; each takes the place that was freed first."""
    by_start = sorted(trials, key=lambda t: t.started_s)
    freed = sorted(t.finished_s for t in trials)
    found = []
    for trial, free_s in zip(by_start[parallel:], freed, strict=False):
        busy = trial.train_s + trial.select_s + trial.evaluate_s
        empty = max(0.0, trial.started_s - free_s - asks[trial.number])
        found.append(trial.finished_s - trial.started_s - busy + empty)
    return found


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Of the median, without assumptions: order statistics by the binomial distribution."""
    n, ordered = len(values), sorted(values)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n <= (1 - confidence) / 2:
        below += math.comb(n, k) / 2**n
        k += 1
    return ordered[max(0, k - 1)], ordered[min(n - 1, n - k)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    known = versions()
    print(f"{os.cpu_count()} cores, " + ", ".join(f"{n} {known[n]}" for n in ("python", "ray", "torch", "optuna")))
    start = time.monotonic()
    with cluster(Resources()):
        print(f"cluster on this machine up after {time.monotonic() - start:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for parallel in options.parallel:
            measure(options.trials, parallel, Path(scratch))


def measure(trials: int, parallel: int, scratch: Path) -> None:
    where = TuneOptions(storage=str(scratch / "runs"), places=DataPaths(cache=str(scratch / f"cache-{parallel}")))
    with Asks() as asks:
        view = tune(study(trials, parallel), run_id=f"parallel-{parallel}", options=where).view
    ended = [t for t in view.trials if t.cause == "finished"]  # a stopped one does not say how long it evaluated
    found = overheads(view.trials, asks.seconds, parallel)
    low, high = median_interval(found)
    busy = statistics.median(t.train_s + t.select_s + t.evaluate_s for t in ended)
    print(
        f"parallel {parallel}: median overhead {statistics.median(found):.3f} s a trial (95 % interval {low:.3f} to "
        f"{high:.3f}, worst {max(found):.3f}, n {len(found)}); beside it {busy:.3f} s of work and "
        f"{statistics.median(asks.seconds.values()):.3f} s of asking. First reference run, with its worker's start: "
        f"{min(view.reference, key=lambda r: r.started_s).overhead_s:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
