"""What it takes to put a run on record as a study grows: a row added, against the table written whole each time.

Both are measured in turns in one process, on the same disk; the ratio is the number to look at.

    python benchmarks/records.py --sizes 100 500 1000 2000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord
from subsettune.train.result import CurvePoint

REPEATS = 30


def row(number: int) -> RunRecord:
    """A trial like those of a study: coordinates, a policy of two phases, a curve of four points."""
    curve = tuple(
        CurvePoint(share=s, flops=int(1e9 * s), phase=0, metric=0.9 * s, loss=0.1, seconds=s)
        for s in (0.25, 0.5, 0.75, 1)
    )
    return RunRecord(
        name=f"trial-{number:04d}",
        role="trial",
        number=number,
        policy=Policy(
            phases=(Phase(share=0.3, passes=2.0 + number / 7), Phase(passes=1.0)),
            recipe=FrozenDict({"lr": 0.1 / (1 + number)}),
        ),
        coordinates=FrozenDict(
            {"arm": "subset", "budget": 0.5, "subset_share": 0.3, "switch": 0.4, "selector": "random"}
        ),
        seed=number,
        cause="finished",
        metric=0.9,
        cost_flops=10**12,
        curve=curve,
    )


def milliseconds(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - started)


def measure(storage: Path, size: int) -> None:
    folder = StudyFolder(str(storage), f"study-{size}")
    for number in range(size):
        folder.add(row(number))
    folder.settle()
    added, whole = [], []
    for number in range(size, size + REPEATS):
        added.append(milliseconds(lambda number=number: folder.add(row(number))))  # type: ignore[misc]
        whole.append(milliseconds(folder.settle))
    more = range(size + REPEATS, size + REPEATS + 300)
    started = time.perf_counter()
    for number in more:  # the table is written whole now and then
        folder.add(row(number))
    every = 1e3 * (time.perf_counter() - started)
    a, w, mean = statistics.median(added), statistics.median(whole), every / len(more)
    print(f"{size:>6} rows: {a:7.2f} ms added, {w:7.2f} ms whole, {w / a:6.1f} to 1; {mean:6.2f} ms a row over 300")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 500, 1000, 2000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            measure(Path(scratch), size)


if __name__ == "__main__":
    main()
