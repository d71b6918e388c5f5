"""Memory of processes that train on one data set at the same time, against one alone: the data are there once.

    python benchmarks/memory.py --data-root DIR [--source mnist] [--processes 8]

Each process loads the task's data and iterates over all of the training part. PSS counts a page that k processes share
as 1/k in each, so its sum is what a machine really needs. The column `data` is the PSS of the mapped Arrow file alone
(less than its size, as validation and test rows are not read), `written` what of it a process has changed and so holds
for itself, `as copies` what the data would take if each process had its own; the rest, mostly torch and its libraries,
also depends on what else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

CHILD = """
import json, sys, torch
from subsettune.data import DataPaths, load
from subsettune.task import Data, Model, Recipe, Task
given = json.loads(sys.argv[1])
torch.set_num_threads(1)
task = Task(data=Data(source=given["source"]), model=Model(name="mlp"),
            recipe=Recipe(lr=0.1, batch_size=128, epochs=1), tolerance=0.01)
part = load(task, DataPaths(**given["places"])).train
for index in torch.arange(len(part)).split(128):
    part.batch(index)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of some processes, summed.

    Args:
        processes: how many.
        data_bytes: size of the Arrow file.
        data_pss_bytes: of the mapped Arrow file alone.
        data_private_bytes: of the mapped Arrow file, pages that were written, so that a process has its own copy.
        pss_bytes: proportional set size: a page shared by k processes counts 1/k in each.
        uss_bytes: unique set size: what would be free again if one process ended, summed.
    """

    processes: int
    data_bytes: int
    data_pss_bytes: int
    data_private_bytes: int
    pss_bytes: int
    uss_bytes: int


def measure(processes: int, source: str, places: dict[str, object]) -> Memory:
    """Start processes that load a data set and iterate over it; measure them while all of them hold it."""
    command = [sys.executable, "-c", CHILD, json.dumps({"source": source, "places": places})]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise SystemExit("a process failed; its error is above")
        return _sum([psutil.Process(child.pid) for child in children])
    finally:
        for child in children:
            child.communicate()


def _sum(processes: list[psutil.Process]) -> Memory:
    whole = [process.memory_full_info() for process in processes]
    mapped = [m for process in processes for m in process.memory_maps() if m.path.endswith(".arrow")]
    return Memory(
        processes=len(processes),
        data_bytes=max(Path(m.path).stat().st_size for m in mapped),
        data_pss_bytes=sum(m.pss for m in mapped),
        data_private_bytes=sum(m.private_dirty for m in mapped),
        pss_bytes=sum(w.pss for w in whole),
        uss_bytes=sum(w.uss for w in whole),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root")
    parser.add_argument("--cache")
    parser.add_argument("--source", default="mnist")
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    places: dict[str, object] = {"data_root": options.data_root, "cache": options.cache}
    size = measure(1, options.source, places).data_bytes  # makes the cached file, which is not what is measured
    print(f"{options.source}: {size / 1e6:.1f} MB in its Arrow file")
    names = ("processes", "data, MB", "written, MB", "as copies, MB", "PSS, MB", "USS, MB")
    print("  ".join(names))
    for processes in (1, options.processes):
        m = measure(processes, options.source, places)
        numbers = (m.data_pss_bytes, m.data_private_bytes, m.data_bytes * processes, m.pss_bytes, m.uss_bytes)
        cells = [f"{processes:d}", *(f"{number / 1e6:.1f}" for number in numbers)]
        print("  ".join(f"{cell:>{len(name)}}" for cell, name in zip(cells, names, strict=True)))


if __name__ == "__main__":
    main()
