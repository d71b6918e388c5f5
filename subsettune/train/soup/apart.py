"""Workers of a soup in processes of their own: Ray actors, within the placement group of the run where it has one.

Each process takes some of the workers, has the data from its node's cache, and is told nothing but learning rates. It
does what `executors.Sequential` does in the run's own process, step by step and with the same random numbers: bits,
account and checkpoints are the same, and either goes on from what the other has kept. Networks that draw random numbers
in training are refused: in one process all workers draw from one stream.

A process that dies fails the run with its cause; a study tries a run once more, from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor, nn

from subsettune import models
from subsettune.config import must
from subsettune.data import load
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.train.job import RunJob
from subsettune.train.learner import Learner
from subsettune.train.options import RunOptions
from subsettune.train.randomness import isolated, preserved
from subsettune.train.soup.executors import Read, WorkerExecutor
from subsettune.train.soup.workers import SoupPhase, Workers

ONE_STREAM = "In one process all workers draw from one stream, so set soup_processes to 0."
NO_TIME = "Workers in processes of their own take turns in each: leave soup_workers at auto, on a CPU, or at in_turn."


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What another process makes the same learner of, beside the network: settings, and the key of the data.

    Args:
        job: of the run, without its data.
        fingerprint: of the data.
        options: of the run.
        num_threads: of torch.
    """

    job: RunJob
    fingerprint: str
    options: RunOptions
    num_threads: int

    @classmethod
    def of(cls, job: RunJob, options: RunOptions) -> Origin:
        """That of a run in this process."""
        bare = replace(job, data=None)  # type: ignore[arg-type] # data are found by their key
        return cls(job=bare, fingerprint=job.data.fingerprint, options=options, num_threads=torch.get_num_threads())


class Process:
    """What a process does: some workers of a soup, in turn.

    Args:
        origin: of the run.
        place: of the soup.
        network: that all workers start from.
        own: numbers of the workers.
        masks: (len(own), ...) by name of a parameter.
    """

    def __init__(
        self, origin: Origin, place: SoupPhase, network: nn.Module, own: tuple[int, ...], masks: dict[str, Tensor]
    ) -> None:
        job = origin.job
        with isolated(job.seed, origin.num_threads):
            data = load(job.task, origin.options.places, fingerprint=origin.fingerprint)
            learner = Learner(job.task, job.recipe, data, job.device, job.seed)
            learner.network = network.to(job.device)
            weights = None if place.weights is None else place.weights.to(job.device)
            here = replace(place, clock=time.perf_counter, weights=weights)
            self._workers = Workers(here, learner, own)
            self._workers.begin({name: mask.to(job.device) for name, mask in masks.items()})
        torch.set_num_threads(origin.num_threads)  # the process has nothing else to do

    def step(self, lr: float) -> tuple[Tensor, list[float]]:
        """One update of each worker: their losses (len(own),), and the seconds that each took."""
        return self._workers.step(lr).cpu(), self._workers.take_seconds()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, (len(own), ...) by name."""
        return {name: values.cpu() for name, values in self._workers.executor.tensors().items()}

    def state(self) -> tuple[dict[str, Any], list[Tensor]]:
        """What `load` needs: of the networks and optimizers, and of the random streams."""
        return self._workers.executor.state(), self._workers.streams()

    def load(self, crew: Mapping[str, Any], streams: Sequence[Tensor], place: tuple[int, int, int]) -> None:
        """Go on from there."""
        self._workers.go_on(crew, streams, place)


@final
class Apart(WorkerExecutor):
    """The networks of the workers, in other processes.

    Args:
        origin: of the run.
        place: of the soup.
        learner: of the run, whose network the workers start from.
        masks: see `WorkerExecutor`.

    Raises:
        ConfigError: the network draws random numbers, or the workers are to train together.
        SubsettuneError: a process cannot be started, or died.
    """

    def __init__(self, origin: Origin, place: SoupPhase, learner: Learner, masks: Mapping[str, Tensor]) -> None:
        super().__init__(learner, [], masks)
        if place.mode != "in_turn":
            raise ConfigError(must("soup_workers", "in_turn with soup_processes", place.mode, NO_TIME))
        if _draws(learner):
            rule = "one that draws no random numbers in training, with soup_processes"
            raise ConfigError(must("model", rule, learner.task.model.name, ONE_STREAM))
        count = min(origin.options.soup_processes, place.soup.workers)
        self._own = [tuple(map(int, part)) for part in torch.arange(place.soup.workers).tensor_split(count)]
        bare = replace(place, apart=None, clock=_no_clock)
        told = [ray.put(one) for one in (origin, bare, models.copy_of(learner.network).cpu())]  # once a node
        self._actors = [self._start(told, i, own) for i, own in enumerate(self._own)]
        self._call("__ray_ready__")  # so that what is wrong with a process is told now

    def _start(self, told: Sequence[Any], index: int, own: tuple[int, ...]) -> Any:
        group, options = ray.util.get_current_placement_group(), dict[str, Any]()
        if group is not None and group.bundle_count > index + 1:  # the first bundle is the run's own
            given = group.bundle_specs[index + 1]
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index + 1)
            options = {"num_cpus": given.get("CPU", 0), "num_gpus": given.get("GPU", 0), "scheduling_strategy": where}
        masks = {name: mask[list(own)].cpu() for name, mask in self.masks.items()}
        remote: Any = ray.remote(num_cpus=1)(Process)
        return remote.options(**options).remote(*told, own, masks)

    def step(self, read: Read, lr: float, seconds: list[float] | None) -> Tensor:
        """See `WorkerExecutor.step`; each process reads for itself."""
        told = self._call("step", [(lr,)] * len(self._own))
        if seconds is not None:
            for worker, more in enumerate(second for _, each in told for second in each):
                seconds[worker] += more
        return torch.cat([losses for losses, _ in told]).to(self.learner.device)

    def tensors(self) -> dict[str, Tensor]:
        """See `WorkerExecutor.tensors`."""
        parts = self._call("tensors")
        return {name: torch.cat([part[name] for part in parts]).to(self.learner.device) for name in parts[0]}

    def state(self) -> dict[str, Any]:
        """As of `Sequential`, and the states of the random streams, in `streams`."""
        parts = self._call("state")
        merged = {key: [one for crew, _ in parts for one in crew[key]] for key in ("networks", "optimizers")}
        halves = ([stream for _, own in parts for stream in _half(own, second)] for second in (False, True))
        return {**merged, "streams": [stream for half in halves for stream in half]}

    def load(self, state: Mapping[str, Any]) -> None:
        """See `WorkerExecutor.load`; `streams` and `place` are needed, too."""
        parts = [
            (
                {key: [state[key][w] for w in own] for key in ("networks", "optimizers")},
                [_half(state["streams"], second)[w] for second in (False, True) for w in own],
                state["place"],
            )
            for own in self._own
        ]
        self._call("load", parts)

    def close(self) -> None:
        """End the processes."""
        for actor in self._actors:
            with contextlib.suppress(Exception):  # it may have died, or the cluster
                ray.kill(actor)
        self._actors = []

    def _call(self, method: str, given: Iterable[tuple[Any, ...]] | None = None) -> list[Any]:
        """What a method gives in each process.

        Raises:
            SubsettuneError: a process died, or could not be started.
        """
        each = [()] * len(self._actors) if given is None else given
        calls = [getattr(actor, method).remote(*told) for actor, told in zip(self._actors, each, strict=True)]
        try:
            return list(ray.get(calls))
        except RayTaskError as error:
            raise _cause(error) from error
        except RayActorError as error:
            words = next(iter(str(error).strip().splitlines()), "no reason given")
            raise SubsettuneError(f"a process that trained workers of the soup died: {words}") from error


def _no_clock() -> float:
    raise AssertionError("each process has a clock of its own")


def _half(streams: Sequence[Tensor], second: bool) -> Sequence[Tensor]:
    """Of augmentation come first, those of RandAugment then."""
    middle = len(streams) // 2
    return streams[middle:] if second else streams[:middle]


def _cause(error: RayTaskError) -> BaseException:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _draws(learner: Learner) -> bool:
    """Whether the network draws random numbers in training: tried on two examples."""
    index = torch.arange(2) % len(learner.part)
    with preserved():
        inputs, _ = learner.part.batch(index.to(learner.device))
        network = models.in_training(models.copy_of(learner.network))
        before = list(_streams(learner.device))
        with torch.no_grad():
            learner.outputs(inputs, network)
        return any(not torch.equal(a, b) for a, b in zip(before, _streams(learner.device), strict=True))


def _streams(device: torch.device) -> Iterator[Tensor]:
    yield torch.get_rng_state()
    if device.type == "cuda":
        yield torch.cuda.get_rng_state(device)
