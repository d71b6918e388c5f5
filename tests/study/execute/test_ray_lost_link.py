"""A cluster whose nodes have addresses of their own, started as a user does; a cable is pulled in mid-run."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import fakes
import pytest
from namespaces import lan, skip_without_namespaces
from places import ROOT, SUPPORT
from ray_heads import RAY, wait_until

from subsettune import config
from subsettune.study.results.folder import StudyFolder

HEALTH = {  # Ray's own would take half a minute to miss a node
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
START = f"mount -t tmpfs none $RAY_TMPDIR && {RAY} start --disable-usage-stats --object-store-memory=80000000"
OURS = re.compile(r"\[ ?\d+:\d\d\] .+|loading packages \.\.\.|")


def study(folder: Path, data: dict[str, str]) -> dict[str, Any]:
    shutil.copy(SUPPORT / "unruly.py", folder)
    return {
        "task": config.to_plain(fakes.image_task(data, {"name": "unruly:Unruly", "folder": str(folder)})),
        "space": {"budget": {"log": [0.4, 0.9]}, "arm": "full"},
        "study": {"trials": 2, "seeds": 2, "max_seeds": 2, "candidates": 1, "sampler": "random", "parallel": 2},
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_study_goes_on_when_the_link_to_a_node_is_lost(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    """Ray: real raylets, with a head that has no CPUs; nothing tells the driver that a node is gone but its silence."""
    skip_without_namespaces()
    (tmp_path / "study.json").write_text(json.dumps(study(tmp_path, tiny_data)))
    (tmp_path / "order").write_text("slow 0.1")
    with tempfile.TemporaryDirectory(dir="/tmp") as short, lan("head", "left", "right") as machines:
        begun = {name: _environment(tmp_path, name, short) for name in machines.names}
        where = machines.address("head")
        driver = f"{sys.executable} -m subsettune.cli tune study.json --run-id one --address {where}:6379"
        flags = f"--head --port=6379 --num-cpus=0 --node-ip-address={where} --include-dashboard=false"
        script = f"{START} {flags} >head.log 2>&1 && touch head-up; until [ -e go ]; do sleep 0.1; done; {driver}"
        head = machines.start("head", script, tmp_path, **begun["head"], **HEALTH)
        wait_until((tmp_path / "head-up").exists, 90)
        for name in ("left", "right"):
            flags = f"--address={where}:6379 --num-cpus=1 --node-ip-address={machines.address(name)}"
            script = f"{START} {flags} >{name}.log 2>&1 && touch {name}-up; exec sleep 600"
            machines.start(name, script, tmp_path, **begun[name])
        wait_until(lambda: all((tmp_path / f"{name}-up").exists() for name in ("left", "right")), 90)
        (tmp_path / "go").touch()
        wait_until(lambda: head.poll() is not None or _num_under_way(tmp_path) == 2, 120)
        machines.set_link("right", "down")
        (tmp_path / "order").unlink()
        assert head.wait(200) in (0, 3), (tmp_path / "head.err").read_text()
    errors = (tmp_path / "head.err").read_text()
    assert re.search(r"The node of reference-seed-\d was lost; the run goes on elsewhere from its checkpoint\.", errors)
    assert [line for line in errors.splitlines() if not OURS.fullmatch(line)] == []
    assert "raylet" not in (tmp_path / "head.out").read_text()
    kept = StudyFolder(str(tmp_path / "runs"), "one").open()
    assert sorted((run.name, run.cause) for run in kept.records("reference")) == [  # on record as they ended
        ("reference-seed-0", "finished"),
        ("reference-seed-1", "finished"),
    ]
    assert {run.cause for run in kept.records("trial")} <= {"finished", "stopped", "skipped"}
    assert len(kept.records("trial")) == 2


def _environment(folder: Path, name: str, short: str) -> dict[str, str]:
    """Home, cache and a folder for Ray's own files of a machine: one path on all, where each mounts a disk of its own.

    Nodes take the head's path, whatever they are given; it is short, for their sockets.
    """
    home = folder / f"home-{name}"
    home.mkdir()
    return {
        "HOME": str(home),
        "SUBSETTUNE_CACHE": str(home / "cache"),
        "RAY_TMPDIR": short,
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": f"{ROOT}:{folder}",
    }


def _num_under_way(folder: Path) -> int:
    """Runs that have left a mark of how far they are."""
    return len([*folder.glob("runs/one/tune/checkpoints/*.mark")])
