"""What a study costs beside its training as it grows: nodes, trials, reports.

    python benchmarks/scale.py nodes                     trials a minute of 1, 2, 4 and 8 nodes, against ideal
    python benchmarks/scale.py driver --trials 10000     the driver alone, with made-up runs: time, memory, files
    python benchmarks/scale.py reports                   1,000 trials of 20 reports through Ray Tune

`nodes` starts a Ray cluster of so many logical nodes of one CPU on this machine and a study of trials that sleep.
Counted are trials that end while every node is at work, its first trial, which starts a process, left out; `full` is
how long it took until then, from the start of the driver. Ideal is a trial on each node all the time. The processes of
all nodes share this machine's cores, which no real cluster does.

`driver` is a whole study on disk, reference and search, whose runs are made up in no time. Given for each stretch of
it are the medians, and the mean of all, of: a proposal, of which `sampler` is Optuna's own; telling the search;
putting a trial on record, which writes its row and the manifest; saying what is the best so far.

`reports` gives seconds of a trial beside its sleep, over the first and the last hundred, and the bytes of Ray Tune's
own state and of the study's files.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from scale_parts.sleeping import LOG, REFERENCE_UPDATES, worth
from studies_parts.simulated import DELIVERY, Silent

from subsettune.data import DataPaths
from subsettune.ledger import Ledger
from subsettune.study.driver import Executor, Stage, StudyDriver
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.outcomes import PartialRun
from subsettune.study.execute.requests import RunRequest
from subsettune.study.options import TuneOptions
from subsettune.study.results.folder import StudyFolder, versions
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.study.search.samplers import ArmSampler
from subsettune.study.search.search import Search
from subsettune.study.spec.definition import Study, parse
from subsettune.study.stages.reference import ReferenceStage
from subsettune.study.stages.search import SearchStage
from subsettune.train.result import CurvePoint, RunResult

BENCHMARKS = Path(__file__).resolve().parent
SPACE = {
    "budget": {"log": [0.05, 0.9]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.1, 0.9]},
    "subset_share": {"log": [0.05, 0.5]},
    "lr": {"log": [0.01, 1.0]},
}


def study(trials: int, parallel: int, sampler: str, seconds: float, reports: int = 0) -> Study:
    """A study of trials that sleep; a made-up run looks at nothing but its policy and seed."""
    options = {"seconds": seconds, "reports": reports}
    recipe = {"lr": 0.1, "batch_size": 8, "epochs": REFERENCE_UPDATES // 20}
    task = {"train": "scale_parts.sleeping:sleep", "train_options": options, "examples": 160, "recipe": recipe}
    settings = {"trials": trials, "parallel": parallel, "seeds": 2, "max_seeds": 2, "sampler": sampler}
    return parse({"task": {**task, "tolerance": 0.01}, "space": SPACE, "study": settings})


class SearchOnly(StudyDriver):
    """A study that ends with its search."""

    def stages(self) -> Iterator[Stage]:
        yield ReferenceStage(self.context)
        yield SearchStage(self.context)


def carry_out(asked: Study, folder: Path, driver: type[StudyDriver], address: str | None = None) -> StudyView:
    executor: Any = "ray" if driver is SearchOnly else "inline"
    places = DataPaths(cache=str(folder / "cache"))
    options = TuneOptions(storage=str(folder), executor=executor, address=address, device="cpu", places=places)
    driven = driver(asked, StudyFolder(str(folder), "study"), Silent(), options)
    try:
        return driven.run(DELIVERY)
    finally:
        driven.lock.release()


# --- nodes ------------------------------------------------------------------------------------------------------------


def measure_nodes(counts: Sequence[int], seconds: float, each: int) -> None:
    print(f"trials of {seconds:g} s; counted while every node has one that is not its first")
    columns = ("nodes", "a minute", "ideal", "of ideal", "beside its sleep, ms", "trials", "full, s")
    print("  ".join(columns))
    for nodes in counts:
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch) / "log"
            with mock.patch.dict(os.environ, {LOG: str(log)}), nodes_of(nodes) as address:
                begun_s = time.time()
                carry_out(study(nodes * each, nodes, "random", seconds), Path(scratch), SearchOnly, address)
            ends = defaultdict(list)
            for line in log.read_text().splitlines():
                process, end = line.split()
                ends[process].append(float(end))
        full, last = max(of_one[0] for of_one in ends.values()), min(of_one[-1] for of_one in ends.values())
        counted = sum(full < end <= last for of_one in ends.values() for end in of_one)
        if not counted:
            print(f"{len(ends)} nodes were never all at work: give --each more trials than {each}")
            continue
        rate, ideal = 60 * counted / (last - full), 60 * nodes / seconds
        told = (
            f"{rate:.1f}",
            f"{ideal:.0f}",
            f"{100 * rate / ideal:.1f} %",
            f"{1e3 * (60 * nodes / rate - seconds):.0f}",
        )
        cells = (str(len(ends)), *told, str(counted), f"{full - begun_s:.0f}")
        print("  ".join(f"{cell:>{len(name)}}" for cell, name in zip(cells, columns, strict=True)), flush=True)


@contextmanager
def nodes_of(count: int) -> Iterator[str]:
    """The address of a cluster whose head takes no runs and which has so many nodes of one CPU."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, object_store_memory=10**8)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


# --- driver -----------------------------------------------------------------------------------------------------------


class MadeUp:
    """Stands for the worker of a study: runs that take no time."""

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult:
        flops = round(request.policy.passes * 160)
        steps = round(flops / 8)
        points = tuple(self._point(share, flops, steps, request.seed) for share in (0.25, 0.5, 0.75, 1.0))
        for point in points[:-1]:
            report(point)  # made-up trials are not stopped: each has as much to tell
        assert points[-1].metric is not None
        return RunResult(
            policy=request.policy,
            seed=request.seed,
            cause="finished",
            metrics={"validation": points[-1].metric},  # type: ignore[arg-type] # checked into a FrozenDict
            ledger=Ledger(forward=flops),
            updates=steps,
            curve=points,
            train_s=1.0,
        )

    def _point(self, share: float, flops: int, steps: int, seed: int) -> CurvePoint:
        metric = worth(round(share * steps), seed)
        return CurvePoint(
            share=share, flops=round(share * flops), phase=0, metric=metric, loss=0.1, seconds=share, forward=0
        )

    def seen(self, request: RunRequest, points: Sequence[CurvePoint]) -> PartialRun:
        return PartialRun(points=tuple(points))


class MadeUpDriver(SearchOnly):
    """A study whose runs are made up."""

    def _executor(self) -> Executor:
        return InlineExecutor(MadeUp(), self.context.facts, 0, self.context.clock)


class Stopwatch:
    """Seconds of each call of some methods, by a name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def on(self, name: str, owner: type, method: str) -> Any:
        plain, kept = getattr(owner, method), self.seconds[name]

        def timed(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return plain(*args, **named)
            finally:
                kept.append(time.perf_counter() - start)

        return mock.patch.object(owner, method, timed)


WATCHED: tuple[tuple[str, type, str], ...] = (
    ("propose", Search, "propose"),
    ("sampler", ArmSampler, "propose"),
    ("tell", Search, "tell"),
    ("record", StudyFolder, "add"),
    ("best", SearchStage, "_tell_best"),
)


def measure_driver(trials: int, sampler: str, parallel: int, every: int) -> None:
    print(f"{trials:,} made-up trials, {parallel} at a time, sampler {sampler}; ms a trial, median (mean)")
    names = [name for name, _, _ in WATCHED if name != "sampler" or sampler in ("tpe", "gp")]
    print(
        f"{'trials':>7} "
        + " ".join(f"{n:>15}" for n in names)
        + f" {'all':>8} {'MB of memory':>13} {'MB of files':>12}"
    )
    watch, marks = Stopwatch(), [time.perf_counter()]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as patches:
        for name, owner, method in WATCHED:
            patches.enter_context(watch.on(name, owner, method))
        add, places = StudyFolder.add, defaultdict[str, int](int)

        def added(self: StudyFolder, record: RunRecord) -> None:
            add(self, record)
            if record.role == "trial" and (record.number + 1) % every == 0:
                cells = " ".join(f"{cell(watch.seconds[n][places[n] :]):>15}" for n in names)
                places.update({n: len(watch.seconds[n]) for n in names})
                marks.append(time.perf_counter())
                whole = 1e3 * (marks[-1] - marks[-2]) / every
                files = sum(size for _, size in sizes(Path(scratch) / "study"))
                print(
                    f"{record.number + 1:>7} {cells} {whole:>8.1f} {memory():>13.0f} {files / 1e6:>12.2f}", flush=True
                )

        patches.enter_context(mock.patch.object(StudyFolder, "add", added))
        view = carry_out(study(trials, parallel, sampler, 0.0), Path(scratch), MadeUpDriver)
        start = time.perf_counter()
        StudyFolder(scratch, "study").open().view()
        read = time.perf_counter() - start
        for name, size in sorted(sizes(Path(scratch) / "study"), key=lambda one: -one[1])[:6]:
            print(f"  {name}: {size:,} bytes, {size / len(view.trials):,.0f} a trial")
        print(f"  read again and summed up: {read:.1f} s")
        again = time.perf_counter()
        carry_out(study(trials + 1, parallel, sampler, 0.0), Path(scratch), MadeUpDriver)
        print(f"  gone on with, one trial more: {time.perf_counter() - again:.1f} s")


def cell(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    return f"{1e3 * statistics.median(seconds):.2f} ({1e3 * statistics.fmean(seconds):.2f})"


def memory() -> float:
    """Of this process, in MB: what it holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def sizes(folder: Path) -> list[tuple[str, int]]:
    return [(str(p.relative_to(folder)), p.stat().st_size) for p in folder.rglob("*") if p.is_file()]


# --- reports ----------------------------------------------------------------------------------------------------------


class Largest:
    """Bytes of Ray Tune's own state while a study runs, by the number of trials that have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, dict[int, int]()

    def __call__(self, record: RunRecord) -> None:
        if record.role == "trial" and (record.number + 1) % 100 == 0:
            files = [(name, size) for name, size in sizes(self.folder) if name.startswith("tune/experiment-")]
            own = sum(size for name, size in sizes(self.folder) if not name.startswith("tune/"))
            self.seen[record.number + 1] = sum(size for _, size in files)
            print(
                f"{record.number + 1:>6} trials: Tune's own state {self.seen[record.number + 1]:>11,} bytes in "
                f"{len(files)} files, the study's {own:>10,} bytes; {memory():.0f} MB of memory",
                flush=True,
            )


def measure_reports(trials: int, reports: int, parallel: int, seconds: float) -> None:
    import ray

    from subsettune.study.execute.ray_cluster import Resources, cluster

    print(f"{trials:,} trials of {reports} reports and {seconds:g} s, {parallel} at a time")
    with tempfile.TemporaryDirectory() as scratch, cluster(Resources(parallel=parallel)):
        assert ray.is_initialized()
        look, add = Largest(Path(scratch) / "study"), StudyFolder.add

        def added(self: StudyFolder, record: RunRecord) -> None:
            add(self, record)
            look(record)

        with mock.patch.object(StudyFolder, "add", added):
            view = carry_out(study(trials, parallel, "random", seconds, reports), Path(scratch), SearchOnly)
    rows = sorted(view.trials, key=lambda t: t.finished_s)
    spans = {"first": rows[parallel : parallel + 101], "last": rows[-101:]}  # the first of each starts its worker
    beside = {}
    for name, span in spans.items():
        length = (span[-1].finished_s - span[0].finished_s) / (len(span) - 1)
        beside[name] = 1e3 * (parallel * length - seconds)
        points = statistics.fmean(len(row.curve) for row in span)
        print(f"{name} 100 trials: {beside[name]:.0f} ms a trial beside its sleep; {points:.1f} points on record")
    print(f"last to first: {beside['last'] / beside['first']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    nodes = parts.add_parser("nodes")
    nodes.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    nodes.add_argument("--seconds", type=float, default=4.0)
    nodes.add_argument("--each", type=int, default=10)
    driver = parts.add_parser("driver")
    driver.add_argument("--trials", type=int, default=10_000)
    driver.add_argument("--sampler", default="random")
    driver.add_argument("--parallel", type=int, default=4)
    driver.add_argument("--every", type=int, default=1000)
    reports = parts.add_parser("reports")
    reports.add_argument("--trials", type=int, default=1000)
    reports.add_argument("--reports", type=int, default=20)
    reports.add_argument("--parallel", type=int, default=2)
    reports.add_argument("--seconds", type=float, default=0.1)
    options = vars(parser.parse_args())
    known = versions()
    told = ", ".join(f"{name} {known[name]}" for name in ("python", "ray", "torch", "optuna"))
    print(f"{len(os.sched_getaffinity(0))} cores, {told}")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(BENCHMARKS))
    part = options.pop("part")
    if part == "nodes":
        measure_nodes(options["nodes"], options["seconds"], options["each"])
    elif part == "driver":
        measure_driver(**options)
    else:
        measure_reports(**options)


if __name__ == "__main__":
    main()
