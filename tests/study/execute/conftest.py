"""A small cluster of real processes for a module, and an executor on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray_bench import CLIENT_PORT, Bench, nodes_of

from subsettune.study.execute import ray_reach


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes; the GPUs are declared, and no run of these tests uses one."""
    head = {"num_cpus": 4, "num_gpus": 1, "ray_client_server_port": CLIENT_PORT}
    both = Cluster(initialize_head=True, head_node_args=head)
    both.add_node(num_cpus=1)
    yield both
    both.shutdown()


@pytest.fixture
def bench(
    tmp_path: Path, tiny_data: dict[str, str], nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)  # where workers look for the network
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "unruly", raising=False)
    monkeypatch.setattr(ray_reach, "ANSWER_S", 120.0)  # where others want the cores; a late answer would be a note
    yield Bench(tmp_path, tiny_data, nodes.address)
    assert not ray.is_initialized(), "the driver is still connected"
    assert sum(node["Alive"] for node in nodes_of(nodes.address)) == 2, "a cluster that was there must stay"
