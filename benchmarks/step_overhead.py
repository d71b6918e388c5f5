"""What `train.run` costs beside a bare PyTorch loop that does the same work, as a ratio of seconds from paired runs.

Seconds are the clock's, and the processor's: on a machine that others use as well, only the second are a fair measure.

Both train the same network on the same examples in the same order with the same optimizer and schedule, read the same
memory-mapped uint8 data, and measure the validation split as often. `train.run` also keeps its ledger and writes its
checkpoints; the bare loop does nothing else. Each pair runs both, in alternating order; before that both run once. The
final weights must be equal bit for bit, or the comparison means nothing.

    python benchmarks/step_overhead.py --data-root DIR

How much of it depends on the kind of phase: `benchmarks/phase_seconds.py`.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from subsettune import config, train
from subsettune.data import DataPaths, Part, TaskData, load
from subsettune.data.parts import EVALUATION_BATCH
from subsettune.models import make
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.randomness import isolated

SEED, EVALUATIONS, BATCH_SIZE, LR = 0, 10, 128, 0.05
SOURCES = {"mnist": {"validation": 0.1}, "digits": {"validation": 0.1, "test": 0.2}}


def make_task(source: str) -> Task:
    recipe = {"lr": LR, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": BATCH_SIZE, "epochs": 1}
    plain = {
        "data": {"source": source},
        "split": SOURCES[source],
        "model": {"name": "cnn", "channels": [16, 32], "hidden": 64},
        "recipe": recipe,
        "tolerance": 0.01,
    }
    return config.build(Task, plain)


def bare_loop(task: Task, data: TaskData, passes: float) -> nn.Module:
    """What a practitioner would write, with the loop's order of examples so that the work is the same."""
    with isolated(SEED, 1):
        network = make(task.model, data.input_shape, data.num_outputs).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
        order, n = Shuffled(len(data.train), BATCH_SIZE, SEED), len(data.train)
        seen, total, evaluation = 0, round(passes * n), 1
        while True:
            index = order.next(0.0).positions
            if seen + len(index) > total:
                break
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * seen / total))
            inputs, targets = normalised(data.train, index)
            loss = functional.cross_entropy(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(index)
            if seen * EVALUATIONS >= evaluation * total and seen < total:
                accuracy(network, data.validation)
                evaluation = seen * EVALUATIONS // total + 1
        accuracy(network, data.validation)
    return network


def normalised(part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
    """The fastest way that two lines of PyTorch allow, so that the ratio hides nothing."""
    rows = part.rows.index_select(0, index)
    return part.encoder(part.inputs.index_select(0, rows)), part.all_targets.index_select(0, rows)


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    network.eval()
    hits = 0
    for index in torch.arange(len(part)).split(EVALUATION_BATCH["cpu"]):
        inputs, targets = normalised(part, index)
        hits += int((network(inputs).argmax(1) == targets).sum())
    network.train()
    return hits / len(part)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one run, by the clock and by the processor."""

    clock: float
    processor: float

    @classmethod
    def of(cls, work: Callable[[], nn.Module]) -> tuple[Seconds, nn.Module]:
        clock, processor = time.perf_counter(), time.process_time()
        network = work()
        return cls(time.perf_counter() - clock, time.process_time() - processor), network


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, default="mnist", help="digits needs no files")
    parser.add_argument("--data-root", help="torchvision's root of MNIST")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--passes", type=float, default=0.5)
    given = parser.parse_args()
    places = DataPaths(data_root=given.data_root)
    task = make_task(given.source)
    data = load(task, places)
    policy = Policy(phases=(Phase(passes=given.passes),))

    def ours() -> nn.Module:
        with tempfile.TemporaryDirectory() as folder:
            options = train.RunOptions(
                evaluations=EVALUATIONS, device="cpu", num_threads=1, checkpoints=folder, keep_model=True, places=places
            )
            network: nn.Module = train.run(task, policy, SEED, options=options).model
        return network

    def bare() -> nn.Module:
        return bare_loop(task, data, given.passes)

    pairs = compare(ours, bare, given.pairs)
    for kind in ("clock", "processor"):
        ratios = [getattr(ours, kind) / getattr(bare, kind) for ours, bare in pairs]
        low, high = interval(ratios)
        print(f"{kind}: median ratio {statistics.median(ratios):.4f}, 95 % interval [{low:.4f}, {high:.4f}]")
    work = f"{given.source}, cnn [16, 32] + 64, batch {BATCH_SIZE}, {given.passes:g} passes, {EVALUATIONS} evaluations"
    machine = platform.processor() or platform.machine()
    print(f"{len(pairs)} pairs on {work}; one thread of {machine}, torch {torch.__version__}")


def compare(
    ours: Callable[[], nn.Module], bare: Callable[[], nn.Module], num_pairs: int
) -> list[tuple[Seconds, Seconds]]:
    """Seconds of both, in alternating order; a first pair warms up and is left out."""
    pairs = []
    for number in range(num_pairs + 1):
        order = (ours, bare) if number % 2 else (bare, ours)
        (first, network), (second, other) = Seconds.of(order[0]), Seconds.of(order[1])
        equal = all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
        assert equal, "the two loops must end with the same weights"
        pair = (first, second) if number % 2 else (second, first)
        if number:
            pairs.append(pair)
            clock, processor = pair[0].clock / pair[1].clock, pair[0].processor / pair[1].processor
            print(f"pair {number}: {pair[0].clock:.2f} s, ratio {clock:.4f} (processor {processor:.4f})", flush=True)
    return pairs


if __name__ == "__main__":
    main()
