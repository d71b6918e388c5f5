"""Clusters that may grow: real ones under Ray's autoscaler, whose provider starts nodes on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray_heads import head
from ray_marks import WARNINGS

from subsettune.errors import StudyError
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.execute.ray_growth import UNKNOWN, addable_here, config_files, types_of

pytestmark = WARNINGS
HEAD = "ray.head.default"  # as Ray's provider for tests calls it
COMMANDS = [f"{which}_commands" for which in ("initialization", "setup", "head_setup", "worker_setup")]
LISTS = [*COMMANDS, "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter"]
LISTS += ["cluster_synced_files"]
TYPES: dict[str, Any] = {
    HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}


def launcher(**changes: Any) -> dict[str, Any]:
    """A head without CPUs and workers from none, as cluster.yaml has them, on this machine."""
    return {
        "cluster_name": "fake_multinode",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "provider": {"type": "fake_multinode"},
        "available_node_types": TYPES,
        "head_node_type": HEAD,
        **{name: [] for name in LISTS},
        **{name: {} for name in ("docker", "auth", "file_mounts")},
        "file_mounts_sync_continuously": False,
        "no_restart": False,
        **changes,
    }


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("growing")
    (folder / "launcher.yaml").write_text(json.dumps(launcher()))
    kinds = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    with head(folder, f"--autoscaling-config={folder}/launcher.yaml", num_cpus=0, **kinds) as address:
        yield address


@pytest.mark.ray
def test_a_head_without_cpus_and_no_workers_yet_is_a_cluster_that_grows(growing: str) -> None:
    """Ray: what the autoscaler may add is in none of Ray's own lists."""
    with cluster(Resources(address=growing, cpus=2, gpus=1)) as slots:
        assert slots is None
        assert sum(node["Resources"].get("CPU", 0) for node in ray.nodes()) == 0
    refused = "no node of the cluster, and none that it may add, has the 3 CPUs and 1 GPUs that one run asks for; the "
    words = re.escape(f"{refused}largest has 2 CPUs and 1 GPUs. Ask for less.")
    with pytest.raises(StudyError, match=words), cluster(Resources(address=growing, cpus=3, gpus=1)):
        pass


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, [{"CPU": 2, "GPU": 1}]),
        ({"max_workers": 0}, []),
        ({"available_node_types": {**TYPES, "gpu": {**TYPES["gpu"], "max_workers": 0}}}, []),
        ({"available_node_types": {HEAD: TYPES[HEAD], "gpu": {"node_config": {}}}}, [UNKNOWN]),
        ({"provider": {"type": "local"}, "available_node_types": None}, []),
    ],
    ids=["as it is", "no workers", "none of the type", "resources unsaid", "machines of one's own"],
)
def test_what_a_launcher_file_may_add(changes: dict[str, Any], found: list[Any], tmp_path: Path) -> None:
    (tmp_path / "launcher.yaml").write_text(json.dumps(launcher(**changes)))
    assert types_of(tmp_path / "launcher.yaml") == found


def test_a_file_that_cannot_be_read_is_no_reason_to_refuse(tmp_path: Path) -> None:
    assert types_of(tmp_path / "gone.yaml") == [UNKNOWN]


def test_the_autoscaler_of_another_cluster_is_not_ours(tmp_path: Path) -> None:
    for number, words in enumerate(
        (
            ["python", "/ray/autoscaler/v2/monitor.py", "--autoscaling-config=/a.yaml", "--gcs-address=10.0.0.1:6379"],
            ["python", "/ray/autoscaler/v2/monitor.py", "--autoscaling-config=/b.yaml", "--gcs-address=10.0.0.2:6379"],
            ["python", "/ray/autoscaler/_private/monitor.py", "--gcs-address=10.0.0.1:6379"],
            ["vim", "--autoscaling-config=/c.yaml", "--gcs-address=10.0.0.1:6379"],
        )
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join(words).encode())
    assert list(config_files(tmp_path, "10.0.0.1:6379")) == [Path("/a.yaml")]


def test_kuberay_grows_where_its_head_runs_no_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head --no-monitor=true --num-cpus=0")
    assert addable_here() == [UNKNOWN]
