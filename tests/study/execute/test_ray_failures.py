"""What goes wrong in a run: processes and nodes that die, hang, raise, or have neither memory nor a GPU."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from ray.cluster_utils import Cluster
from ray_bench import Bench, requests
from ray_marks import RAY_MARKS

from subsettune.data import load
from subsettune.errors import StudyError
from subsettune.study.execute import ray_reach
from subsettune.train.loop import run_key

pytestmark = RAY_MARKS


# --- what goes wrong in a run ----------------------------------------------------------------------------------------


def test_a_run_that_raises_is_tried_twice_and_recorded(bench: Bench) -> None:
    """Ray: the error crosses processes."""
    bench.order("raise")
    (record,) = bench.execute(requests(bench, 1))
    assert record.cause == "failed"
    assert record.message.startswith("run-0 failed: out of luck. Log: ")
    assert len([note for note in bench.notes if note.endswith("Trying once more.")]) == 1
    assert "in _obey\n" in Path(record.log).read_text()
    assert "RuntimeError: out of luck" in Path(record.log).read_text()
    assert record.metric is None


def test_a_killed_worker_goes_on_from_its_checkpoint(bench: Bench) -> None:
    """Ray: a real SIGKILL. The network goes on writing down its batches: a second process has not made them all."""
    bench.order("kill-once 40 0.02")
    bench.checkpoint_every_s = 0.04
    asked = requests(bench, 1, fakes.two_phases(0.5, 3.5))
    (record,) = bench.execute(asked)
    (untouched,) = bench.inline(asked)
    batches = Counter(line.split()[0] for line in (bench.folder / "log").read_text().splitlines())
    killed, resumed, whole = batches.values()
    assert killed > 40
    assert 0 < resumed <= whole - 20, (killed, resumed, whole)
    assert record.cause == "finished"
    assert (record.metric, record.ledger) == (untouched.metric, untouched.ledger)
    assert [p.metric for p in record.curve] == [p.metric for p in untouched.curve]
    assert record.repeated_flops < record.ledger.total / 2  # none, where the last mark was written just before
    assert len(bench.records) == 1
    (note,) = bench.notes
    assert note.startswith("run-0 failed: its worker process died.")


class HangsOnce:
    """Stands for `SilenceWatch`: the first run hangs as soon as there is a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def heard(self, key: str) -> None:
        """No matter."""

    def hanging(self, running: Any) -> list[str]:
        keys = [key for key, _, sign in running if self.file.exists() and sign() is not None]
        if keys:
            self.file.unlink()
        return keys


def test_a_run_that_hangs_is_ended_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray: a real process that waits for ever; when silence is a hang is tested in `test_silence`."""
    watch = HangsOnce(bench.folder / "hanging")
    monkeypatch.setattr("subsettune.study.execute.ray.SilenceWatch", lambda limit_s, note: watch)
    bench.order("hang-once")
    (record,) = bench.execute(requests(bench, 1))
    assert record.cause == "finished"
    (note,) = bench.notes
    assert note.startswith("run-0 failed: it showed no progress for as long as study.silence_limit_s allows;")


def test_two_deaths_are_a_failure(bench: Bench) -> None:
    """Ray: as above."""
    bench.order("kill 3 0.01")
    (record,) = bench.execute(requests(bench, 1))
    assert record.cause == "failed"
    assert record.message.startswith("run-0 failed: its worker process died 2 times. Was it out of memory? Log: ")
    assert "actor" in Path(record.log).read_text()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers look for the network, for tests with a cluster of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "unruly", raising=False)
    monkeypatch.setattr(ray_reach, "ANSWER_S", 120.0)  # where others want the cores; a late answer would be a note
    return tmp_path


def test_a_node_without_memory_costs_the_runs_that_ray_ends_and_not_the_study(
    alone: Path, tiny_data: dict[str, str]
) -> None:
    """Ray: its own cluster, whose memory monitor finds any node full. Tune knows no such death (`ray_deaths`)."""
    full = {"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 50}
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "_system_config": full})
    bench = Bench(alone, tiny_data, own.address)
    bench.order("slow 0.2")
    try:
        (record,) = bench.execute(requests(bench, 1))
    finally:
        own.shutdown()
    assert record.cause == "failed"
    assert record.message.startswith("run-0 failed: the node ran out of memory; Ray ended its worker. Take fewer runs")
    (note,) = bench.notes
    assert note.startswith("run-0 failed: the node ran out of memory; Ray ended its worker. Log: ")
    assert "memory" in Path(record.log).read_text()


def test_a_run_whose_node_is_taken_away_goes_on_elsewhere(alone: Path, tiny_data: dict[str, str]) -> None:
    """Ray: its own cluster, because it loses a node. Not an error of the run: even the second time."""
    tmp_path = alone
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed = own.add_node(num_cpus=1)
    bench = Bench(tmp_path, tiny_data, own.address)
    bench.order("slow 0.08")
    killer = _when(lambda: _num_pids(tmp_path / "log") == 2, lambda: own.remove_node(doomed, allow_graceful=False))
    try:
        records = bench.execute(requests(bench, 2), parallel=2)
    finally:
        killer.join()
        own.shutdown()
    assert sorted((r.name, r.cause) for r in records) == [("run-0", "finished"), ("run-1", "finished")]
    (tmp_path / "order").unlink()
    local = {r.name: r for r in bench.inline(requests(bench, 2))}
    assert all((r.metric, r.ledger) == (local[r.name].metric, local[r.name].ledger) for r in records)
    logs = [p.read_text() for p in (tmp_path / "ray" / "logs").glob("*.txt")]
    (note,) = [note for note in bench.notes if not note.startswith("Nodes have joined or left: ")]  # if it is quick
    assert note.endswith("was lost; the run goes on elsewhere from its checkpoint."), logs


def _num_pids(log: Path) -> int:
    return len({line.split()[0] for line in log.read_text().splitlines()}) if log.exists() else 0


def _when(condition: Callable[[], bool], act: Callable[[], object]) -> Any:
    import threading

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_run_whose_checkpoint_is_damaged_begins_anew(bench: Bench) -> None:
    """Ray: the worker finds it, the driver tells."""
    (asked,) = requests(bench, 1)
    key = run_key(bench.task, load(bench.task).fingerprint, asked.policy, asked.seed)
    place = bench.folder / "ray" / "checkpoints" / f"{key}.checkpoint"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"rubbish")
    place.with_suffix(".mark").write_text("700 50")
    (record,) = bench.execute([asked])
    assert (record.cause, record.repeated_flops) == ("finished", 750)
    assert bench.notes == [f"run-0: checkpoint {place} is damaged. It begins anew."]


def test_a_gpu_that_torch_cannot_see_is_told_and_nothing_is_trained_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: the head declares a GPU that is not there, as a node does whose driver does not fit its torch."""
    plain = bench.worker
    given = {"options": replace(plain().options, device="auto"), "gpus": 1.0}
    monkeypatch.setattr(bench, "worker", lambda: replace(plain(), **given))
    words = r"a run was given 1 GPUs, and torch finds no GPU on node \S+: torch \S+ is built "
    with pytest.raises(StudyError, match=rf"^run-0 cannot go on: {words}"):
        bench.execute(requests(bench, 1), gpus=1.0)
    with pytest.raises(StudyError, match=rf"^the worker on node \S+ cannot train: {words}"):  # asked beforehand
        bench.execute(requests(bench, 1), code={"unruly:Unruly": "task.model.name"}, gpus=1.0)
    assert bench.records == []
