"""Whether a cluster may get nodes that take a run.

Ray's own list of what its autoscaler may add is empty under today's autoscaler, so its process on the head node is
looked at: its command names the file with the types of nodes. KubeRay runs it in a container of its own, and says so in
the command that started the head.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from subsettune.study.spec.yaml_core import parse_yaml

HEAD = "node:__internal_head__"  # a resource that the head node alone has
ANSWER_S = 30.0
MONITORS = ("autoscaler/_private/monitor.py", "autoscaler/v2/monitor.py")
FLAG = "--autoscaling-config="
UNKNOWN: Mapping[str, float] = {}  # resources of nodes that may come, where nobody says


def addable() -> tuple[Mapping[str, float], ...]:
    """Resources of each type of node that the cluster may still get; `UNKNOWN` for one of which that is not known."""
    heads = [node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]  # type: ignore[no-untyped-call]
    if not heads:
        return ()
    there = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
    asked: Any = ray.remote(num_cpus=0, max_retries=3)(addable_here).options(scheduling_strategy=there).remote()
    try:
        found: list[dict[str, float]] = ray.get(asked, timeout=ANSWER_S)
    except (GetTimeoutError, RayError):  # such as another version of this package, which is told later
        return (UNKNOWN,)
    return tuple(found)


def addable_here() -> list[dict[str, float]]:
    """The same, asked on the head node."""
    if "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", ""):
        return [dict(UNKNOWN)]
    address = ray.get_runtime_context().gcs_address
    return [resources for path in config_files(Path("/proc"), address) for resources in types_of(path)]


def config_files(processes: Path, address: str) -> Iterator[Path]:
    """Files with types of nodes, of the autoscaler of the cluster at an address."""
    for process in processes.glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if any(word.endswith(MONITORS) for word in words) and f"--gcs-address={address}" in words:
            yield from (Path(word.removeprefix(FLAG)).expanduser() for word in words if word.startswith(FLAG))


def types_of(path: Path) -> list[dict[str, float]]:
    """Resources of the types in a launcher file of which more than none may be added."""
    try:
        raw: Any = parse_yaml(path.read_text())[0]
    except (OSError, ValueError):
        return [dict(UNKNOWN)]
    if not isinstance(raw, dict) or not raw.get("max_workers", 1):
        return []
    types = raw.get("available_node_types") or {}
    workers = [kind for name, kind in types.items() if name != raw.get("head_node_type")]
    return [dict(kind.get("resources") or UNKNOWN) for kind in workers if kind.get("max_workers", raw["max_workers"])]
