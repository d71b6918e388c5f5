"""Measures what a run costs on the device: images a second, synchronisations, trainings at a time, memory."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import queue
import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_parts.kit import METRIC_TOLERANCE, Case, Finding, Kit, Part, absent, images, options, plain_policy, task
from subsettune import models, train
from subsettune.data import Part as DataPart
from subsettune.data import TaskData, load
from subsettune.data.parts import EVALUATION_BATCH
from subsettune.task import Task

SEED, EVALUATIONS = 1, 4
GOAL = 0.9  # of the images a second of a bare loop
LR, MOMENTUM, DECAY = 0.02, 0.9, 5e-4
MIB = 2**20
READY_S = 40.0  # until every process has a device and has trained once
FEWEST_PAIRS, MOST_PAIRS, PAIRS_S = 2, 9, 25.0  # as many pairs as begin in so many seconds
PRECISIONS = ("bfloat16", "float32")
Examples = tuple[Tensor, Tensor]


def network_of(kit: Kit) -> str:
    """The network whose speed is measured."""
    return "resnet18" if kit.is_gpu else "cnn"


def cifar(kit: Kit, precision: str = "bfloat16") -> Task:
    """ResNet-18 on images of the shape and number of classes of CIFAR-10; on a processor a small network."""
    data = images(kit, kit.size(30_000, 800), kit.size(32, 8), 10)
    return task(data, {"name": network_of(kit)}, batch_size=kit.size(128, 16), precision=precision)


# --- a bare loop ------------------------------------------------------------------------------------------------------


class BareLoop:
    """What a practitioner would write for the same work: bytes on the device, channels last, autocast, SGD, cosine.

    The data move to the device once, as they do for `train.run`.
    """

    def __init__(self, task: Task, data: TaskData, device: str) -> None:
        self.task, self.data, self.device = task, data, device
        self.layout = torch.channels_last if device == "cuda" else torch.contiguous_format
        self.parts = [self._moved(part) for part in (data.train, data.validation, data.test)]

    def _moved(self, part: DataPart) -> Examples:
        return part.inputs.index_select(0, part.rows).to(self.device), part.targets.to(self.device)

    def run(self, passes: float) -> nn.Module:
        """Train, and measure as often as `train.run` does."""
        torch.manual_seed(SEED)
        network = models.make(self.task.model, self.data.input_shape, self.data.num_outputs)
        network = network.to(self.device).to(memory_format=self.layout).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
        training, validation, test = self.parts
        total, seen, evaluation = round(passes * len(training[1])), 0, 1
        for index in self._batches(len(training[1]), total):
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * seen / total))
            outputs = self.outputs(network, training[0][index])
            loss = functional.cross_entropy(outputs, training[1][index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            seen += len(index)
            if evaluation * total <= seen * EVALUATIONS < total * EVALUATIONS:
                self.accuracy(network, validation)
                evaluation = seen * EVALUATIONS // total + 1
        self.accuracy(network, validation)
        self.accuracy(network, test)
        return network

    def _batches(self, num_examples: int, total: int) -> Iterator[Tensor]:
        """Shuffled rounds without a gap, to the last batch that ends at `total` examples or before."""
        length, left = min(num_examples, self.task.recipe.batch_size), torch.empty(0, dtype=torch.int64)
        left = left.to(self.device)
        for _ in range(total // length):
            if len(left) < length:
                left = torch.cat([left, torch.randperm(num_examples, device=self.device)])
            yield left[:length]
            left = left[length:]

    def outputs(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """(b, M) float32 outputs of stored inputs."""
        batch = inputs.float().sub_(128.0).mul_(1 / 64.0).contiguous(memory_format=self.layout)
        low = self.task.recipe.precision == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16) if low else contextlib.nullcontext():
            outputs: Tensor = network(batch)
        return outputs.float()

    @torch.no_grad()
    def accuracy(self, network: nn.Module, part: Examples) -> float:
        """Of one part of the data, in as large batches as `train.run` takes."""
        network.eval()
        hits = torch.zeros((), dtype=torch.int64, device=self.device)
        size = EVALUATION_BATCH[self.device]
        for inputs, targets in zip(part[0].split(size), part[1].split(size), strict=True):
            hits += (self.outputs(network, inputs).argmax(1) == targets).sum()
        network.train()
        return float(hits) / len(part[1])


def our_run(kit: Kit, task: Task, passes: float) -> train.RunResult:
    """The same work by `train.run`."""
    asked = options(kit.device, evaluations=EVALUATIONS, keep_model=False)
    return train.run(task, plain_policy(passes), SEED, options=asked)


# --- images a second --------------------------------------------------------------------------------------------------


def throughput(kit: Kit) -> Mapping[str, Case]:
    """In both precisions; a processor has one that it is made for."""
    precisions = PRECISIONS if kit.is_gpu else ("float32",)
    return {f"{network_of(kit)}, {precision}": partial(one_throughput, kit, precision) for precision in precisions}


def one_throughput(kit: Kit, precision: str) -> Finding:
    """Paired runs in alternating order; a first pair warms up and is left out."""
    task, passes = cifar(kit, precision), float(kit.size(2, 1))
    data = load(task)
    bare = BareLoop(task, data, kit.device)
    works: dict[str, Callable[[], Any]] = {
        "ours": partial(our_run, kit, task, passes),
        "bare": partial(bare.run, passes),
    }
    pairs = paired(works, kit)
    ratios = sorted(one["bare"] / one["ours"] for one in pairs)
    ratio = statistics.median(ratios)
    rate = passes * len(data.train) / statistics.median(one["ours"] for one in pairs)
    return Finding(
        passed=ratio >= GOAL if kit.is_gpu and not kit.small else None,
        words=f"{rate:,.0f} images/s, {ratio:.3f} of a bare loop's [{ratios[0]:.3f}, {ratios[-1]:.3f}]",
        numbers={
            "precision": precision,
            "images_per_s": rate,
            "ratio": ratio,
            "ratios": ratios,
            "n": len(pairs),
            "batch_size": task.recipe.batch_size,
            "num_examples": len(data.train),
        },
    )


def paired(works: dict[str, Callable[[], Any]], kit: Kit) -> list[dict[str, float]]:
    """Seconds of each work by name, pair by pair."""
    pairs: list[dict[str, float]] = []
    start, number = time.perf_counter(), 0
    most = kit.size(MOST_PAIRS, FEWEST_PAIRS)
    while number <= FEWEST_PAIRS or (number <= most and time.perf_counter() - start < PAIRS_S):
        names = list(works) if number % 2 else list(reversed(works))
        pairs.append({name: seconds_of(works[name], kit) for name in names})
        number += 1
    return pairs[1:]


def seconds_of(work: Callable[[], Any], kit: Kit) -> float:
    """Of a call, until the device has done all of it."""
    start = time.perf_counter()
    work()
    if kit.is_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def throughput_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    told = [
        f"{row['precision']} {row['images_per_s']:,.0f} images/s, {row['ratio']:.3f} of a bare loop's (n = {row['n']})"
        for row in rows
    ]
    return "; ".join(told)


# --- synchronisations -------------------------------------------------------------------------------------------------


def synchronisations(kit: Kit) -> Mapping[str, Case]:
    """Of plain training."""
    return {"resnet18": partial(one_synchronisation, kit)}


def one_synchronisation(kit: Kit) -> Finding:
    """Two runs of different lengths, both with as many evaluations: the difference is what updates make."""
    if not kit.is_gpu:
        return absent("counting synchronisations")
    task = cifar(kit)
    our_run(kit, task, 0.25)  # data move to the device, and libraries choose their kernels
    (short, few), (long, many) = (waits(kit, task, passes) for passes in (0.25, 1.0))
    steps = long.updates - short.updates
    a_step = (many.total() - few.total()) / steps
    places = {place: count / steps for place, count in (many - few).most_common(8)}
    return Finding(
        passed=None,
        words=f"{a_step:.3f} synchronisations a step",
        numbers={"a_step": a_step, "n": steps, "in_all": many.total(), "places": places},
    )


def waits(kit: Kit, task: Task, passes: float) -> tuple[train.RunResult, Counter[str]]:
    """A run, and how often the processor waited for the device, by the line of code that made it.

    Torch tells of copies and other operations that wait, but not of `torch.cuda.synchronize`, which is counted apart.
    """
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as told, _counted(found):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            result = our_run(kit, task, passes)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in told:
        if "synchronizing" in str(warning.message).lower() and "prototype" not in str(warning.message):
            found[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
    return result, found


@contextlib.contextmanager
def _counted(found: Counter[str]) -> Iterator[None]:
    """Count explicit waits."""
    original = torch.cuda.synchronize

    def synchronize(device: Any = None) -> None:
        found["torch.cuda.synchronize"] += 1
        original(device)

    torch.cuda.synchronize = synchronize
    try:
        yield
    finally:
        torch.cuda.synchronize = original


def synchronisation_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    if not rows or "a_step" not in rows[0]:
        return "needs a GPU"
    return f"{rows[0]['a_step']:.3f} a step of plain training (n = {rows[0]['n']} steps)"


# --- several trainings at a time --------------------------------------------------------------------------------------


def at_once(kit: Kit) -> Mapping[str, Case]:
    """Small networks, of which one leaves a card idle."""
    return {name: partial(one_at_once, kit, name) for name in (("mlp", "cnn") if not kit.small else ("mlp",))}


def small_task(kit: Kit, network: str) -> Task:
    """What a trial of a small study trains."""
    return task(images(kit, kit.size(10_000, 320), kit.size(16, 8)), {"name": network}, batch_size=kit.size(128, 32))


def one_at_once(kit: Kit, network: str) -> Finding:
    """So many trainings in as many processes, beside one process that makes all of them in turn."""
    count, passes = kit.size(8, 2), float(kit.size(20, 10))
    seeds = list(range(count))
    together_s, together = timed(kit, network, [[seed] for seed in seeds], passes)
    in_turn_s, in_turn = timed(kit, network, [seeds], passes)
    off = max(abs(together[seed] - in_turn[seed]) for seed in seeds)
    return Finding(
        passed=off <= METRIC_TOLERANCE,
        words=f"{count} at once {together_s:.2f} s, in turn {in_turn_s:.2f} s; metrics off by {off:.4f}",
        numbers={
            "network": network,
            "n": count,
            "together_s": together_s,
            "in_turn_s": in_turn_s,
            "times_as_fast": in_turn_s / together_s,
            "metric_difference": off,
        },
    )


def timed(kit: Kit, network: str, groups: Sequence[Sequence[int]], passes: float) -> tuple[float, dict[int, float]]:
    """Seconds until every process has trained its seeds, from when all of them are ready; metrics by seed.

    Raises:
        RuntimeError: a process failed; with its trace.
    """
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(groups) + 1), context.Queue()
    arguments = (kit, network, passes, barrier, answers)
    processes = [context.Process(target=train_all, args=(list(seeds), *arguments), daemon=True) for seeds in groups]
    for process in processes:
        process.start()
    try:
        with contextlib.suppress(BrokenBarrierError):  # who broke it tells why
            barrier.wait(READY_S)
        start, metrics = time.perf_counter(), dict[int, float]()
        for _ in groups:
            answer = answers.get(timeout=READY_S)
            if isinstance(answer, str):
                raise RuntimeError(answer)
            metrics |= answer
        return time.perf_counter() - start, metrics
    except queue.Empty as error:
        codes = [process.exitcode for process in processes]
        raise RuntimeError(f"a process gave no answer; exit codes {codes}") from error
    finally:
        for process in processes:
            process.kill()
            process.join()


def train_all(seeds: list[int], kit: Kit, network: str, passes: float, barrier: Any, answers: Any) -> None:
    """What a process does: train once to be ready, wait for the others, train its seeds."""
    try:
        task, asked = small_task(kit, network), options(kit.device, num_threads=1, keep_model=False)
        train.run(task, plain_policy(0.5), SEED, options=asked)
        barrier.wait(READY_S)
        made = {seed: train.run(task, plain_policy(passes), seed, options=asked) for seed in seeds}
        answers.put({seed: run.metrics["test"] for seed, run in made.items()})
    except Exception:  # whatever it is, the process that waits is to tell it
        answers.put(traceback.format_exc())
        barrier.abort()


def at_once_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    told = [
        f"{row['network']}: {row['n']} at once in {row['together_s']:.1f} s, in turn {row['in_turn_s']:.1f} s "
        f"({row['times_as_fast']:.1f} times as fast)"
        for row in rows
    ]
    return "; ".join(told)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(kit: Kit) -> Mapping[str, Case]:
    """In both precisions."""
    return {f"resnet18, {precision}": partial(one_memory, kit, precision) for precision in PRECISIONS}


def one_memory(kit: Kit, precision: str) -> Finding:
    """The most that tensors took on the card during a run, and during the bare loop; the data lie there before."""
    if not kit.is_gpu:
        return absent("peak memory")
    task = cifar(kit, precision)
    data = load(task)
    bare = BareLoop(task, data, kit.device)
    our_run(kit, task, 0.1)  # data move to the device
    bare_bytes, our_bytes = peak_bytes(partial(bare.run, 0.25)), peak_bytes(partial(our_run, kit, task, 0.25))
    stored = data.train.inputs
    return Finding(
        passed=None,
        words=f"{our_bytes / MIB:,.0f} MiB, a bare loop {bare_bytes / MIB:,.0f} MiB",
        numbers={
            "precision": precision,
            "peak_bytes": our_bytes,
            "bare_peak_bytes": bare_bytes,
            "data_bytes": stored.numel() * stored.element_size(),
            "batch_size": task.recipe.batch_size,
        },
    )


def peak_bytes(work: Callable[[], Any]) -> int:
    """Of a call, beyond what lies on the card before it."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def memory_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    told = [
        f"{row['precision']} {row['peak_bytes'] / MIB:,.0f} MiB, bare loop {row['bare_peak_bytes'] / MIB:,.0f}"
        for row in rows
        if "peak_bytes" in row
    ]
    return "; ".join(told) or "needs a GPU"


SPEED = (
    Part(
        name="throughput",
        about=f"images a second of train.run over a bare PyTorch loop, goal {GOAL}",
        budget_s=80,
        cases=throughput,
        exact=False,
        words=throughput_words,
    ),
    Part(
        name="synchronisations",
        about="how often a step waits for the device",
        budget_s=25,
        cases=synchronisations,
        exact=False,
        words=synchronisation_words,
    ),
    Part(
        name="at_once",
        about="small trainings at a time on one device, against one after the other",
        budget_s=65,
        cases=at_once,
        exact=False,
        words=at_once_words,
    ),
    Part(
        name="memory",
        about="peak memory of a run, and of a bare loop",
        budget_s=25,
        cases=memory,
        exact=False,
        words=memory_words,
    ),
)
