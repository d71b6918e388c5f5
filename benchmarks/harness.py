"""Runs of an experiment that are paired by their seeds: carried out in parallel, kept on disk, and compared.

Shared by the experiments of this folder; no command of its own. Results are lines of JSON in a file, keyed by all that
they depend on, so that the same command goes on where it was interrupted and adds what more seeds ask for.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scipy import stats

from subsettune import config, train
from subsettune.policy import Policy
from subsettune.task import Task

LEVEL = 0.95
Asked = TypeVar("Asked")
Done = TypeVar("Done")
DIGITS: Mapping[str, Any] = {  # scikit-learn's, for a quick look: nothing to download
    "data": {"source": "digits"},
    "split": {"validation": 0.1, "test": 0.3, "seed": 0},
    "model": {"name": "mlp", "hidden": [64]},
    "recipe": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 30},
    "tolerance": 0.01,
}


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run: what, and where. `name` is for people, and no part of the key.

    `measure`, a function of a module, gets the job and the result; its numbers are kept with the outcome.
    """

    name: str
    task: Task
    policy: Policy
    seed: int
    options: train.RunOptions
    measure: Callable[[Job, train.RunResult], dict[str, float]] | None = None

    @property
    def key(self) -> str:
        told = [self.task, self.policy, self.seed, self.options.splits, self.options.measure_switches]
        if self.measure is not None:
            told.append(self.measure.__qualname__)  # the module of a script has another name in each process
        return config.digest(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run gave; `metric` is that of the test split, None unless finished."""

    key: str
    name: str
    seed: int
    cause: str
    metric: float | None
    spent_flops: int
    select_flops: int
    train_s: float
    select_s: float
    switches: tuple[dict[str, Any], ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)


def carry_out(job: Job) -> Outcome:
    """Train, in whatever process this is."""
    result = train.run(job.task, job.policy, job.seed, options=job.options)
    return Outcome(
        key=job.key,
        name=job.name,
        seed=job.seed,
        cause=result.cause,
        metric=result.metrics.get("test"),
        spent_flops=result.ledger.spent,
        select_flops=result.ledger.select,
        train_s=result.train_s,
        select_s=result.select_s,
        switches=tuple(config.to_plain(switch) for switch in result.switches),
        measured={} if job.measure is None else job.measure(job, result),
    )


def carry_out_all(jobs: Sequence[Job], path: Path, processes: int) -> dict[str, Outcome]:
    """Outcomes by key; what is on disk is not run again, and each is written before the next is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (Outcome(**{**row, "switches": tuple(row["switches"])}) for row in kept(path))
    done = {outcome.key: outcome for outcome in rows}
    missing = list({job.key: job for job in jobs if job.key not in done}.values())
    start_s, finished, asked = time.monotonic(), 0.0, sum(job.policy.passes for job in missing)
    with path.open("a") as file:
        for number, (job, outcome) in enumerate(completed(carry_out, missing, processes), start=1):
            done[outcome.key] = outcome
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            finished += job.policy.passes
            left_s = (time.monotonic() - start_s) * (asked / finished - 1)
            metric = "no result" if outcome.metric is None else f"{outcome.metric:.4f}"
            told = f"{job.name}, seed {job.seed}: {outcome.cause}, {metric}; {left_s / 60:.1f} min left"
            print(f"[{number}/{len(missing)}] {told}", file=sys.stderr, flush=True)
    return {job.key: done[job.key] for job in jobs}


def completed(work: Callable[[Asked], Done], asked: Sequence[Asked], processes: int) -> Iterator[tuple[Asked, Done]]:
    """What is asked for with what `work` makes of it, as it ends; one at a time here, or more in other processes."""
    if processes == 1:
        yield from ((one, work(one)) for one in asked)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, one): one for one in asked}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def kept(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of lines of JSON; a last one that was not written to its end is dropped, and to be made again."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(whole))
    return [json.loads(line) for line in whole]


# --- statistics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and its Student-t interval; without ends for fewer than two seeds."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float], comparisons: int = 1) -> Interval:
        """Of `LEVEL` for so many intervals together (Bonferroni)."""
        n = len(values)
        mean = statistics.fmean(values) if n else math.nan
        if n < 2:
            return cls(mean, -math.inf, math.inf, n)
        quantile = float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), n - 1))
        half = quantile * statistics.stdev(values) / math.sqrt(n)
        return cls(mean, mean - half, mean + half, n)

    @classmethod
    def between(cls, a: Mapping[int, float], b: Mapping[int, float], comparisons: int = 1) -> Interval:
        """Of `a` minus `b`, by seed; seeds that only one of them has are left out."""
        return cls.of([a[seed] - b[seed] for seed in a if seed in b], comparisons)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of 0."""
        return int(self.low > 0) - int(self.high < 0)

    def words(self, digits: int) -> str:
        if self.n < 2:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


# --- pictures ---------------------------------------------------------------------------------------------------------

STYLE = "body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow:auto;font-size:12px}"


def page(heading: str, figures: Sequence[Mapping[str, Any]], text: str) -> str:
    """Figures and words in one file that needs no network."""
    from plotly.offline import get_plotlyjs

    drawn = "".join(
        f'<div id="f{i}"></div><script>Plotly.newPlot("f{i}",{json.dumps(figure["data"])},'
        f"{json.dumps(figure['layout'])})</script>"
        for i, figure in enumerate(figures)
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{heading}</title><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script><h1>{heading}</h1>{drawn}<pre>{text}</pre>\n"
    )


def figure(title: str, x: Mapping[str, Any], y: Mapping[str, Any], data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A plotly figure; `x` and `y` are layouts of the axes, with `title` as plain text."""
    axes = [{**axis, "title": {"text": axis["title"]}} for axis in (x, y)]
    layout = {"title": {"text": title}, "xaxis": axes[0], "yaxis": axes[1], "height": 420}
    return {"data": list(data), "layout": layout}


def marks(name: str, x: Sequence[Any], values: Sequence[Interval], colour: str, mode: str) -> dict[str, Any]:
    """Means with their intervals; `mode` as plotly names it."""
    half = [v.high - v.mean if v.n > 1 else 0.0 for v in values]
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": list(x),
        "y": [v.mean if math.isfinite(v.mean) else None for v in values],
        "error_y": {"type": "data", "array": half, "thickness": 1},
        "line": {"color": colour},
    }
