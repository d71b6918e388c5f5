"""Runs through Ray Tune, on small local clusters of real processes: what is tested is what processes do and suffer."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import ray
from places import SUPPORT
from ray.cluster_utils import Cluster

from subsettune import config
from subsettune.api import tune
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, StudyError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, Soup, conventional
from subsettune.storage import Folder
from subsettune.study.execute import ray as ray_executor
from subsettune.study.execute import ray_reach, ray_start
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.node_check import versions_here
from subsettune.study.execute.ray import RayExecutor
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import FixedRuns, StageSequence, stopwatch
from subsettune.study.execute.worker import Worker
from subsettune.study.options import TuneOptions
from subsettune.study.results.records import RunRecord
from subsettune.study.spec import yaml_file
from subsettune.study.spec.components import Component
from subsettune.task import Task
from subsettune.train.loop import facts as facts_of
from subsettune.train.loop import run, run_key

pytestmark = [
    pytest.mark.ray,
    # Ray leaves the sockets and logs of the processes that it stops to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]
SUBSETTUNE = [sys.executable, "-m", "subsettune.cli"]
CLIENT_PORT = 20000 + os.getpid() % 10000
OURS = re.compile(
    r"\[ ?\d+:\d\d\] .+|loading packages \.\.\.|Stopping; Ctrl-C again ends at once\. .+|"
)  # what a user reads


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes; the GPUs are declared, and no run of these tests uses one."""
    head = {"num_cpus": 4, "num_gpus": 1, "ray_client_server_port": CLIENT_PORT}
    both = Cluster(initialize_head=True, head_node_args=head)
    both.add_node(num_cpus=1)
    yield both
    both.shutdown()


class Bench:
    """A task with an unruly network, and an executor for it."""

    def __init__(self, folder: Path, data: dict[str, str], address: str | None) -> None:
        self.folder, self.address, self.notes, self.soup_processes = folder, address, list[str](), 0
        shutil.copy(SUPPORT / "unruly.py", folder)
        self.task: Task = fakes.image_task(data, {"name": "unruly:Unruly", "folder": str(folder)})
        self.facts: TaskFacts = facts_of(self.task)
        self.records: list[RunRecord] = []

    def order(self, words: str) -> None:
        (self.folder / "order").write_text(words)

    def worker(self, name: str = "ray") -> Worker:
        options = fakes.options(
            checkpoints=str(self.folder / name / "checkpoints"),
            fingerprint=load(self.task).fingerprint,
            soup_processes=self.soup_processes if name == "ray" else 0,
        )
        return Worker(task=self.task, options=options, logs=str(self.folder / name / "logs"))

    def execute(
        self, requests: list[RunRequest], code: Mapping[str, str] = FrozenDict(), **resources: Any
    ) -> list[RunRecord]:
        executor = RayExecutor(
            self.worker(),
            self.facts,
            len(load(self.task).validation),
            stopwatch(),
            resources=Resources(address=self.address, **resources),
            storage=str(self.folder / "ray"),
            note=self.notes.append,
            code=code,
        )
        executor.execute(StageSequence(iter([FixedRuns(requests, self.records.append)])))
        return self.records

    def inline(self, requests: list[RunRequest]) -> list[RunRecord]:
        records: list[RunRecord] = []
        executor = InlineExecutor(self.worker("inline"), self.facts, len(load(self.task).validation), stopwatch())
        executor.execute(StageSequence(iter([FixedRuns(requests, records.append)])))
        return records

    def most_at_once(self, window_s: float) -> int:
        """Processes that trained within any stretch of time."""
        lines = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        seen = sorted((float(at), pid) for pid, at in lines)
        return max(len({pid for at, pid in seen if start <= at < start + window_s}) for start, _ in seen)


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
    assert sum(node["Alive"] for node in _nodes(nodes.address)) == 2, "a cluster that was there must stay"


def _nodes(address: str) -> list[dict[str, Any]]:
    ray.init(address=address, log_to_driver=False)
    try:
        return list(ray.nodes())
    finally:
        ray.shutdown()


def requests(bench: Bench, count: int, policy: Policy | None = None) -> list[RunRequest]:
    policy = policy or conventional(bench.facts)
    return [RunRequest(name=f"run-{i}", role="reference", policy=policy, seed=i) for i in range(count)]


# --- what comes back -------------------------------------------------------------------------------------------------


def test_a_run_has_the_same_bits_as_in_this_process(bench: Bench) -> None:
    """Ray: the other process is the point."""
    asked = requests(bench, 2, fakes.two_phases(1.0, 2.0))
    there = sorted(bench.execute(asked, parallel=2), key=lambda r: r.name)
    for remote, local in zip(there, bench.inline(asked), strict=True):
        assert (remote.metric, remote.ledger, remote.cause) == (local.metric, local.ledger, "finished")
        assert [(p.share, p.metric, p.loss) for p in remote.curve] == [(p.share, p.metric, p.loss) for p in local.curve]
        assert remote.repeated_flops == 0


def test_the_workers_of_a_soup_have_processes_in_the_trial_s_placement_group(bench: Bench) -> None:
    """Ray: what is reserved for a trial is the point; three CPUs for one with a soup, and one for another."""
    bench.soup_processes = 2
    bench.order("slow 0")  # has each process write its number
    souped = Policy(phases=(Phase(share=0.5, passes=1.0, soup=Soup(workers=2)), Phase(passes=0.5)))
    asked = [*requests(bench, 1, souped), replace(requests(bench, 2)[1], policy=conventional(bench.facts))]
    there = sorted(bench.execute(asked, parallel=2, soup_processes=2), key=lambda r: r.name)
    assert len({line.split()[1] for line in (bench.folder / "log").read_text().splitlines()}) >= 3
    for remote, local in zip(there, bench.inline(asked), strict=True):
        assert (remote.metric, remote.ledger, remote.cause) == (local.metric, local.ledger, "finished")


def test_more_processes_than_there_is_room_for_are_refused(bench: Bench) -> None:
    words = "soup_processes must be at most 4, got 5. 5 of them fit here, the run's own with them."
    with pytest.raises(StudyError, match=re.escape(words)):
        bench.execute(requests(bench, 1), soup_processes=5)


def test_ctrl_c_means_after_a_study_what_it_meant_before(bench: Bench) -> None:
    """Ray: Tune sets handlers of its own, and leaves them; the first Ctrl-C after a study would then do nothing."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)]
    bench.execute(requests(bench, 1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)] == before


def test_tune_leaves_nothing_behind(bench: Bench) -> None:
    """Ray: Tune's own folder. Only checkpoints stay, and Tune was handed JSON, never data."""
    bench.execute(requests(bench, 1))
    assert Folder.at(bench.folder / "ray").names() == ["checkpoints"]


class StopAt:
    """A source that stops its runs at a share."""

    def __init__(self, inner: FixedRuns, share: float) -> None:
        self.next, self.finished, self.share = inner.next, inner.finished, share

    def progress(self, request: RunRequest, point: Any) -> bool:
        return bool(point.share >= self.share)


def test_a_stopped_run_has_the_ledger_it_had_at_that_point(bench: Bench) -> None:
    """Ray: the run is cut off there, and its account is made here."""
    (asked,) = requests(bench, 1, fakes.two_phases(1.0, 2.0, share=0.02, selector="kcenter"))
    executor = RayExecutor(
        bench.worker(), bench.facts, len(load(bench.task).validation), stopwatch(),
        resources=Resources(address=bench.address), storage=str(bench.folder / "ray"), note=bench.notes.append,
    )  # fmt: skip
    executor.execute(StageSequence(iter([StopAt(FixedRuns([asked], bench.records.append), 0.5)])))
    (stopped,) = bench.records
    same = run(bench.task, asked.policy, asked.seed, report=lambda p: p.share >= 0.5, options=fakes.options())
    assert stopped.cause == "stopped"
    assert stopped.ledger == same.ledger
    assert stopped.share_used == same.ledger.spent / asked.policy.cost(bench.facts)
    assert [p.metric for p in stopped.curve] == [p.metric for p in same.curve]


# --- how many at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "most"),
    [
        ({"parallel": 2}, 2),
        ({"parallel": 8, "gpus": 0.5}, 2),  # there is one GPU
    ],
)
def test_no_more_runs_at_a_time_than_asked_for_or_fit(bench: Bench, resources: dict[str, Any], most: int) -> None:
    """Ray: its scheduler shares out the GPUs."""
    bench.order("slow 0.02")
    bench.execute(requests(bench, 4), **resources)
    assert bench.most_at_once(0.4) == most
    assert len(bench.records) == 4
    assert (f"{most} runs fit here at a time, not 8." in bench.notes) == (resources["parallel"] == 8)


class JoinAt:
    """A source at whose first point another node joins the cluster; in this thread, where Ray sets its handlers."""

    def __init__(self, inner: FixedRuns, join: Callable[[], Any]) -> None:
        self.next, self.finished, self.join, self.joined = inner.next, inner.finished, join, list[Any]()

    def progress(self, request: RunRequest, point: Any) -> bool:
        self.joined = self.joined or [self.join()]
        return False


def test_a_node_that_joins_later_is_used(bench: Bench, nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray: a real node. Two runs share the only GPU until there is another one."""
    monkeypatch.setattr(ray_executor, "COUNT_NODES_S", 0.5)
    bench.order("slow 0.03")
    runs = FixedRuns(requests(bench, 5), bench.records.append)
    source = JoinAt(runs, lambda: nodes.add_node(num_cpus=2, num_gpus=1))
    executor = RayExecutor(
        bench.worker(), bench.facts, len(load(bench.task).validation), stopwatch(),
        resources=Resources(address=bench.address, parallel=4, gpus=0.5), storage=str(bench.folder / "ray"),
        note=bench.notes.append,
    )  # fmt: skip
    try:
        executor.execute(StageSequence(iter([source])))
    finally:
        for node in source.joined:
            nodes.remove_node(node)
    first_end_s = min(record.finished_s for record in bench.records)
    assert sum(record.started_s < first_end_s for record in bench.records) == 4  # workers for them start meanwhile
    fit_now = "Nodes have joined or left: 4 runs fit at a time now."
    assert bench.notes == ["2 runs fit here at a time, not 4.", fit_now]


def test_a_cluster_of_our_own_has_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the plan counts them; Ray by itself counts those of the machine."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(ray_start, "num_cores", lambda: 3)
    ray_start.start(print)
    assert (given["address"], given["num_cpus"]) == ("local", 3)


def test_a_share_of_a_gpu_is_counted_per_gpu() -> None:
    node = {"CPU": 100.0, "GPU": 2.0}
    assert Resources(gpus=0.5).fit_in(node) == 4
    assert Resources(gpus=0.4).fit_in(node) == 4
    assert Resources(gpus=1 / 3).fit_in(node) == 6
    assert Resources(gpus=2).fit_in(node) == 1
    assert Resources(cpus=30).fit_in(node) == 3
    assert Resources(gpus=0.5).fit_in({"CPU": 4.0}) == 0
    with pytest.raises(ConfigError, match=r"gpus_per_trial must be a whole number, or a share below 1, got 1.5"):
        Resources(gpus=1.5)


def test_a_run_that_gets_no_worker_is_tried_again(bench: Bench) -> None:
    """Ray: a worker that is still busy with a stopped run is given up by Tune, and the next run with it."""
    bench.order("hasty 0")
    source = StopAt(FixedRuns(requests(bench, 2), bench.records.append), 0.3)
    executor = RayExecutor(
        bench.worker(), bench.facts, len(load(bench.task).validation), stopwatch(),
        resources=Resources(address=bench.address), storage=str(bench.folder / "ray"), note=bench.notes.append,
    )  # fmt: skip
    executor.execute(StageSequence(iter([source])))
    assert [(record.name, record.cause) for record in bench.records] == [("run-0", "stopped"), ("run-1", "stopped")]
    (note,) = bench.notes
    assert note.startswith("run-1 failed: Ray Tune could not use its worker process again. Log: ")
    assert note.endswith("Trying once more.")


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
    """Ray: a real SIGKILL. A mark is written every 5 s at most, so the run must live so long after its switch."""
    bench.order("kill-once 49 0.13")
    asked = requests(bench, 1, fakes.two_phases(0.5, 3.5))
    (record,) = bench.execute(asked)
    (untouched,) = bench.inline(asked)
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


# --- what goes wrong with a cluster ----------------------------------------------------------------------------------


def test_a_run_that_fits_on_no_node_is_refused(bench: Bench) -> None:
    """Ray: only a cluster knows its nodes."""
    with pytest.raises(StudyError, match=r"no node has the 64 CPUs and 0 GPUs that one run asks for; the largest has"):
        bench.execute(requests(bench, 1), cpus=64)


def test_code_that_a_node_cannot_import_is_told_before_anything_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: a worker is another process. Each run would fail, and the study end as one that found nothing."""
    phantom = types.ModuleType("phantom")
    phantom.net = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "phantom", phantom)  # of this process alone, as what is typed at a prompt
    words = r"^the worker on node \S+ cannot train: task.model.name 'phantom:net' cannot be imported: No module named"
    with pytest.raises(StudyError, match=words):
        bench.execute(requests(bench, 1), code={"phantom:net": "task.model.name"})
    assert bench.records == []


def test_a_file_that_workers_take_for_a_package_is_named(bench: Bench) -> None:
    """Ray: it puts the working folder first where workers look."""
    (bench.folder / "torch.py").write_text("raise RuntimeError('not torch')")
    with pytest.raises(StudyError, match=r"it cannot load .*: not torch\. The working folder holds torch\.py,"):
        bench.execute(requests(bench, 1))
    assert bench.records == []


def test_a_node_with_other_versions_is_named_before_anything_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: nodes are asked. Its own comparison, of itself and Python, is the test below."""
    monkeypatch.setattr(ray_reach, "versions_here", lambda: {**versions_here(), "torch": "1.0.0"})
    words = r"^the worker on node [\d.]+ cannot train: it has torch \S+ where the driver has 1.0.0. Install the same"
    with pytest.raises(StudyError, match=words):
        bench.execute(requests(bench, 1))
    assert bench.records == []
    assert not [name for name in Folder.at(bench.folder / "ray").names() if name.startswith(ray_reach.MARK)]


@pytest.mark.parametrize(
    ("program", "answer_s", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", 60.0, "WorkerCrashedError, The worker died unexpectedly"),
        ("import time; time.sleep(60)", 2.0, "no answer in 2 s. Runs are tried there nonetheless."),
    ],
    ids=["ended", "busy"],
)
def test_a_node_that_cannot_be_asked_is_told_and_its_runs_are_tried(
    program: str, answer_s: float, words: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: workers that die of being asked, or do not answer; neither says that a run would fail."""
    (bench.folder / "odd.py").write_text(program)
    monkeypatch.setattr(ray_reach, "RETRIES", 0)
    monkeypatch.setattr(ray_reach, "ANSWER_S", answer_s)
    (record,) = bench.execute(requests(bench, 1), code={"odd:net": "task.model.name"})
    assert record.cause == "finished"
    (note,) = bench.notes
    assert re.match(rf"Node [\d.]+ could not be asked what runs need: {re.escape(words)}", note), note


def test_a_cluster_of_another_version_is_told_with_both(nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray: its own comparison is the point."""
    monkeypatch.setattr(ray, "__version__", "2.1.0")
    there = re.escape(f"the cluster at '{nodes.address}' (--address) has Ray {importlib.metadata.version('ray')} on ")
    words = rf"^{there}Python \S+; here is Ray 2\.1\.0 on Python \S+\. Install the cluster's versions here, or leave"
    with pytest.raises(StudyError, match=words), cluster(Resources(address=nodes.address)):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "ray://nowhere", "127.0.0.1:port"])
def test_an_address_where_nothing_answers_is_told_at_once(address: str) -> None:
    started = time.monotonic()
    words = rf"no Ray cluster answers at '{address}' \(--address\): .*leave --address out"
    with pytest.raises(StudyError, match=words), cluster(Resources(address=address)):
        pass
    assert time.monotonic() - started < 20


# --- whole studies ---------------------------------------------------------------------------------------------------


def study_mapping(data: dict[str, str], **settings: Any) -> dict[str, Any]:
    space = {"budget": {"log": [0.2, 0.9]}, "arm": {"choice": ["full", "subset"]}, "switch": {"uniform": [0.1, 0.8]}}
    return {
        "task": config.to_plain(fakes.image_task(data)),
        "space": {**space, "subset_share": {"log": [0.2, 0.8]}, "selector": {"choice": ["random", "stratified"]}},
        "study": {
            "trials": 5,
            "seeds": 2,
            "max_seeds": 2,
            "candidates": 1,
            "sampler": "random",
            **settings,
        },
    }


def test_a_study_on_a_running_cluster_is_the_study_in_this_process(
    bench: Bench, tiny_data: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ray: the whole way, a worker killed, on a cluster of two nodes, which is still there afterwards (see `bench`)."""
    study = study_mapping(tiny_data)
    study["study"]["ablation_seeds"] = 3
    study["task"] = config.to_plain(bench.task)
    bench.order("kill-once 12 0")  # of which Ray says much
    places = DataPaths(cache=str(tmp_path / "cache"))  # its own, or the references may be those of another test
    options = TuneOptions(storage=str(tmp_path / "there"), address=bench.address, places=places)
    there = tune(study, run_id="one", options=options).view
    told = capfd.readouterr()
    assert "failed: its worker process died." in told.err
    assert [line for line in told.err.splitlines() if not OURS.fullmatch(line)] == []
    assert told.out == ""
    here = tune(study, run_id="one", options=TuneOptions(storage=str(tmp_path / "here"), executor="inline")).view
    assert [r.metric for r in there.reference] == [r.metric for r in here.reference]
    assert not any(r.cached for r in there.reference)
    assert there.target == here.target
    assert [(t.policy, t.metric, t.cause) for t in there.trials] == [(t.policy, t.metric, t.cause) for t in here.trials]
    compared = [{n: (r.verdict, r.differences) for n, r in view.ablation.items()} for view in (there, here)]
    assert compared[0] == compared[1]
    assert len(compared[0][Component(kind="selector", name="stratified")][1]) == 3
    assert Folder.at(tmp_path / "there" / "one" / "tune").names() == ["logs"]


def test_a_study_through_ray_client(bench: Bench, tiny_data: dict[str, str], tmp_path: Path) -> None:
    """Ray: the driver is on no node. It has a process of its own, because Ray's client keeps its threads."""
    pytest.importorskip("grpc")
    code = (
        "import json, sys; from subsettune.api import TuneOptions, tune\n"
        "options = TuneOptions(storage='runs', address=sys.argv[1])\n"
        "view = tune(json.loads(sys.argv[2]), run_id='one', options=options)\n"
        "print(json.dumps([[t.metric, t.cause] for t in view.view.trials]))"
    )
    study = study_mapping(tiny_data)
    study["task"] = config.to_plain(bench.task)
    bench.order("kill-once 12 0")  # counting FLOPs takes up to 7 batches in the driver
    command = [sys.executable, "-c", code, f"ray://127.0.0.1:{CLIENT_PORT}", json.dumps(study)]
    there = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert there.returncode == 0, there.stderr
    assert "failed: its worker process died." in there.stderr
    assert [line for line in there.stderr.splitlines() if not OURS.fullmatch(line)] == []
    here = tune(study, run_id="one", options=TuneOptions(storage=str(tmp_path / "here"), executor="inline")).view
    assert json.loads(there.stdout) == [[t.metric, t.cause] for t in here.trials]


@pytest.fixture
def study_file(tmp_path: Path, tiny_data: dict[str, str]) -> Path:
    from ruamel.yaml import YAML

    (tmp_path / "place").mkdir()
    shutil.copy(SUPPORT / "unruly.py", tmp_path / "place")
    study = study_mapping(tiny_data, trials=6, parallel=2)
    study["task"]["model"] = {"name": "unruly:Unruly", "folder": str(tmp_path / "place")}
    with (tmp_path / "place" / "unruly.yaml").open("w") as stream:
        YAML(typ="safe", pure=True).dump(study, stream)
    return tmp_path / "place" / "unruly.yaml"


def start(study: Path, *flags: str) -> subprocess.Popen[str]:
    command = [*SUBSETTUNE, "tune", study.name, "--storage", "runs", "--run-id", "one", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=study.parent, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]


def trials_on_record(study: Path) -> list[RunRecord]:
    from subsettune.study.results.folder import StudyFolder

    folder = StudyFolder(str(study.parent / "runs"), "one")
    return [*folder.open().records("trial")] if folder.exists else []


def wait_for_trials(study: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240  # a cluster starts slowly where others want the cores
    while len(trials_on_record(study)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.3)
    assert process.poll() is None, process.communicate()[1]
    assert len(trials_on_record(study)) >= count, "no trial ended in time"


@pytest.mark.timeout(900)
def test_interrupted_and_killed_the_same_command_goes_on(study_file: Path) -> None:
    """Ray: signals reach real processes, Ctrl-C those of the workers too. The terminal sees none but our lines."""
    (study_file.parent / "order").write_text("slow 0.02")
    first = start(study_file)
    wait_for_trials(study_file, 1, first)
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    lines = errors.splitlines()
    assert lines[-1].startswith("Interrupted; what is finished is kept. Go on with: subsettune tune unruly.yaml")
    assert [line for line in lines[:-1] if not OURS.fullmatch(line)] == []

    kept = trials_on_record(study_file)
    second = start(study_file)
    wait_for_trials(study_file, len(kept) + 1, second)
    second.kill()
    second.communicate()
    more = trials_on_record(study_file)
    assert [r for r in more if r.name in {k.name for k in kept}] == kept

    (study_file.parent / "order").unlink()
    third = start(study_file)
    output, errors = third.communicate(timeout=240)
    assert third.returncode in (0, 3), errors
    assert [line for line in errors.splitlines() if not OURS.fullmatch(line)] == []
    done = trials_on_record(study_file)
    assert len({r.name for r in done}) == len(done) == 6
    assert len({(r.policy.key, r.seed) for r in done}) == 6
    assert {r.name: r for r in done}.items() >= {r.name: r for r in more}.items()
    assert "Report:" in output


def test_what_fails_every_run_is_on_no_record_and_says_how_to_run_one_alone(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: one local cluster. The reference is cached by the first study; the trials of the others all raise."""
    monkeypatch.chdir(study_file.parent)
    here = TuneOptions(storage=str(study_file.parent / "runs"), executor="inline")
    tune(study_file, run_id="fine", options=here)
    (study_file.parent / "order").write_text("raise")
    words = r"^trial-\d+ failed: out of luck. Log: .* So did trial-\d+, trial-\d+, and no run has trained "
    for options, settings in [(replace(here, executor="ray"), {}), (here, {"parallel": 1})]:
        study = yaml_file.read(study_file).with_settings(settings)
        with pytest.raises(StudyError, match=words) as caught:
            tune(study, run_id="one", options=options)
        assert trials_on_record(study_file) == []
    words = shlex.split(str(caught.value).partition("Run it alone: ")[2].partition(" So did ")[0])
    assert words[:2] == ["subsettune", "train"]
    alone = subprocess.run([*SUBSETTUNE, *words[1:]], cwd=study_file.parent, capture_output=True, text=True)
    assert "RuntimeError: out of luck" in alone.stderr
    (study_file.parent / "order").unlink()
    alone = subprocess.run([*SUBSETTUNE, *words[1:]], cwd=study_file.parent, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("accuracy: validation ")
    view = tune(study_file, run_id="one", options=here).view
    assert len(view.trials) == 6
    assert "failed" not in {t.cause for t in view.trials}
