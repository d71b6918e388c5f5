"""How long a study's work takes on this machine: an update, a measurement, and the start of a worker.

Runs that go side by side slow each other down, by caches and memory that they share. So they are timed as they will
run: as many processes at once as the study has. `python -m subsettune.study.timing` is one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from subsettune import config
from subsettune.data import DataPaths, TaskData, load
from subsettune.study.spec.definition import Study
from subsettune.task import Task
from subsettune.train.learner import Learner, predict
from subsettune.train.orders.base import batch_length
from subsettune.train.randomness import isolated

WARM_UP_UPDATES = 2  # the first ones allocate
TIMED_UPDATES = 50  # at most; a network that needs a second for an update shows it in fewer
TIMED_S = 0.5
TIMED_EXAMPLES = 2048  # of those that are measured
MOST_PROCESSES = 8  # timed at once: more show little more, and each takes memory
PATIENCE_S = 120.0  # for a process to start; then the time alone has to do
WORKER_START_S = 4.0  # of a process that imports torch and Ray, where none was timed: on 2 cores of a Xeon


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds on this machine.

    Args:
        example_s: of an update, for each example of its batch: read, augmented, forward and backward.
        measured_s: of a measurement, for each example.
        start_s: of a worker process, until it can train.
        at_once: processes that were timed side by side.
    """

    example_s: float
    measured_s: float
    start_s: float = WORKER_START_S
    at_once: int = 1


Beside = Callable[[Study, DataPaths, str, int], Timing | None]


def time_here(
    task: Task, data: TaskData, threads: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Time some updates and measurements on a network that is then thrown away, in this process alone.

    Args:
        task: whose recipe is timed.
        data: of the task.
        threads: of the CPU.
        device: what it is trained on.
        clock: seconds.
    """
    with isolated(0, threads):
        learner = Learner(task, task.recipe, data, device, 0)
        size = batch_length(len(data.train), task.recipe.batch_size)
        batches = torch.randperm(len(data.train))[: len(data.train) // size * size].split(size)
        for update in range(WARM_UP_UPDATES):
            learner.update(batches[update % len(batches)], task.recipe.lr, None)
        start, updates, examples = _now(device, clock), 0, 0
        while updates == 0 or (updates < TIMED_UPDATES and _now(device, clock) - start < TIMED_S):
            batch = batches[updates % len(batches)]
            examples += len(batch) * learner.update(batch, task.recipe.lr, None)
            updates += 1
        example_s = (_now(device, clock) - start) / examples
        part = data.validation
        some = replace(part, rows=part.rows[:TIMED_EXAMPLES]).to(device)
        start = _now(device, clock)
        predict(learner.network, some, learner.layout, learner.low_precision)
        measured_s = (_now(device, clock) - start) / len(some)
    return Timing(example_s=example_s, measured_s=measured_s)


def side_by_side(study: Study, places: DataPaths, fingerprint: str, at_once: int) -> Timing | None:
    """The mean of several processes that are timed at once, each with the threads of a run; None where one fails.

    Args:
        study: whose runs are timed, on the CPU.
        places: where this machine keeps data.
        fingerprint: of the data.
        at_once: processes.
    """
    given = {
        "task": config.to_plain(study.task),
        "places": config.to_plain(replace(places, cache=places.cache_folder)),
        "threads": study.study.cpus_per_trial,
        "fingerprint": fingerprint,
    }
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)  # a user's own modules, too
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_process(given, paths)) for _ in range(min(at_once, MOST_PROCESSES))]
        told = [process.stdout.readline() for process in started if process.stdout is not None]
        start_s = time.perf_counter() - began
        if any(line.strip() != "ready" for line in told):
            return None
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        try:
            found = [json.loads(process.communicate(timeout=PATIENCE_S)[0]) for process in started]
        except (subprocess.TimeoutExpired, ValueError):
            return None
    example_s, measured_s = (statistics.fmean(one[name] for one in found) for name in ("example_s", "measured_s"))
    return Timing(example_s=example_s, measured_s=measured_s, start_s=start_s, at_once=len(started))


@contextlib.contextmanager
def _process(given: dict[str, Any], paths: str) -> Any:
    words = [sys.executable, "-m", "subsettune.study.timing", json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": paths}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def main(argument: str) -> None:
    """One of the processes: get ready, wait for the others, and tell what was timed."""
    given = json.loads(argument)
    task, places = config.build(Task, given["task"]), config.build(DataPaths, given["places"])
    data = load(task, places, fingerprint=given["fingerprint"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    timing = time_here(task, data, given["threads"], torch.device("cpu"))
    sys.stdout.write(json.dumps({"example_s": timing.example_s, "measured_s": timing.measured_s}))


if __name__ == "__main__":
    main(sys.argv[1])
