"""The Ray cluster that a study runs on: started here or connected to, how many runs fit, which nodes are lost."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import ray
from ray.exceptions import RayActorError
from ray.tune import PlacementGroupFactory
from ray.tune.execution import class_cache

from subsettune import config
from subsettune.errors import ConfigError, StudyError
from subsettune.keys import SECRET_SETTINGS
from subsettune.study.execute.ray_address import Address
from subsettune.study.execute.ray_deaths import may_be_of_node, names_node
from subsettune.study.execute.ray_growth import UNKNOWN, addable
from subsettune.study.execute.ray_noise import quiet
from subsettune.study.execute.ray_start import start
from subsettune.study.execute.ray_tokens import settings_restored
from subsettune.study.execute.requests import RunRequest

NODE_DEATH_S = 20.0  # Ray breaks the connection to a lost node at once, and misses its heartbeat only later


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run gets, and how many run at a time.

    Args:
        parallel: runs at a time.
        cpus: CPU cores of a run.
        gpus: GPUs of a run; a fraction shares one.
        soup_processes: further processes of a run with a soup, each with as much.
        address: of a running cluster (`auto`, `host:6379`, `ray://host:10001`); null or `local` starts one on this
            machine.
        origin: where the address was given, for the message.
    """

    parallel: int = 1
    cpus: int = 1
    gpus: float = 0.0
    soup_processes: int = 0
    address: str | None = None
    origin: str = "--address"

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            rule = "a whole number, or a share below 1"
            raise ConfigError(config.must("gpus_per_trial", rule, self.gpus, "A run cannot have one GPU and a half."))

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus:g} GPUs"

    def placement(self, settings: Mapping[str, Any]) -> PlacementGroupFactory:
        """What Tune reserves for a trial with these settings: the run, and the processes of its soup if it has one.

        Args:
            settings: of the trial, with its `request` as JSON.
        """
        one = {"CPU": float(self.cpus), "GPU": float(self.gpus)}
        policy = config.build(RunRequest, json.loads(settings["request"])).policy
        has_soup = any(phase.active_soup is not None for phase in policy.phases)
        return PlacementGroupFactory([one] * (1 + (self.soup_processes if has_soup else 0)))

    def fit_in(self, node: Mapping[str, float]) -> int:
        """How many runs a node with these resources takes at a time."""
        by_cpus = int(node.get("CPU", 0) // self.cpus)
        gpus = node.get("GPU", 0)
        if self.gpus == 0:
            return by_cpus
        by_gpus = int(gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(gpus // self.gpus)
        return min(by_cpus, by_gpus)


class Nodes:
    """Tells the death of a process from that of its node."""

    def __init__(self) -> None:
        self._alive: set[str] | None = None
        self._lost_at_s = -math.inf

    def look(self) -> None:
        """Note which nodes are alive."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        if self._alive is not None and self._alive - alive:
            self._lost_at_s = time.monotonic()
        self._alive = alive

    def are_to_blame(self, error: RayActorError) -> bool:
        """Whether an actor is gone because its node is; waits until Ray knows, where it only lost the connection."""
        if names_node(error):
            return True
        if not may_be_of_node(error):
            return False
        started = time.monotonic()
        while self._lost_at_s < started - NODE_DEATH_S and time.monotonic() < started + NODE_DEATH_S:
            self.look()
            if self._alive is not None and len(self._alive) == 1 and self._lost_at_s == -math.inf:
                break  # the driver's own node is the only one, and there it is
            time.sleep(0.2)
        return self._lost_at_s >= started - NODE_DEATH_S


@contextlib.contextmanager
def cluster(resources: Resources, note: Callable[[str], None] = lambda words: None) -> Iterator[int | None]:
    """Connect to a cluster, or start one on this machine and shut it down again; one that was there stays.

    Args:
        resources: of a run, and where the cluster is.
        note: told what is not as the user may expect.

    Yields:
        how many runs fit at a time; None where the cluster may grow.

    Raises:
        StudyError: no cluster answers, none of its nodes has the resources for one run, or all of them have not those
            for one with a soup.
    """
    with quiet(), settings_restored():
        ours = not ray.is_initialized()
        try:
            if ours and (resources.address is None or resources.address == "local"):
                start(note)
            elif ours and resources.address is not None:
                Address(resources.address, resources.origin).connect()
            slots = _slots(resources)
            if slots is not None and slots <= resources.soup_processes:
                advice = f"{slots} of them fit here, the run's own with them."
                raise StudyError(
                    config.must("soup_processes", f"at most {slots - 1}", resources.soup_processes, advice)
                )
            yield slots
        finally:
            if ours:
                ray.shutdown()


def num_slots(resources: Resources) -> int:
    """How many runs fit at a time on the nodes that are alive."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return sum(resources.fit_in(node) for node in nodes)


def _slots(resources: Resources) -> int | None:
    """How many runs fit at a time; a cluster that may grow is asked for all of them.

    Raises:
        StudyError: a run fits on no node that is there or may come.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    slots = num_slots(resources)
    if slots >= resources.parallel:
        return slots
    coming = addable()
    if any(kind == UNKNOWN or resources.fit_in(kind) for kind in coming):
        return None
    if slots == 0:
        most = max(((n.get("CPU", 0), n.get("GPU", 0)) for n in (*nodes, *coming)), default=(0, 0))
        largest = f"{most[0]:g} CPUs and {most[1]:g} GPUs"
        which = "no node has" if not coming else "no node of the cluster, and none that it may add, has"
        raise StudyError(f"{which} the {resources} that one run asks for; the largest has {largest}. Ask for less.")
    return slots


def is_client() -> bool:
    """Whether this process is connected by ray:// and so is on no node of the cluster."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def keys_unlogged() -> Iterator[None]:
    """Keep keys of stores out of what Tune has Ray put around a worker: nodes write that into their logs."""
    harmless = class_cache.ENV_VARS_TO_PROPAGATE - set(SECRET_SETTINGS)
    with mock.patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", harmless):
        yield


@contextlib.contextmanager
def staging() -> Iterator[None]:
    """A folder where Tune stages its state, for a driver on no node: Tune looks for that of its node, and would fail.

    Tune's own way with ray:// is to move the whole experiment to the cluster, which the study cannot follow.
    """
    if not is_client():
        yield
        return
    name = "ray.train._internal.storage._get_ray_train_session_dir"
    with tempfile.TemporaryDirectory(prefix="subsettune-") as folder, mock.patch(name, return_value=folder):
        yield
