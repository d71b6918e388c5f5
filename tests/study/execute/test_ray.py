"""Runs through Ray Tune, on small local clusters of real processes: what is tested is what processes do."""

from __future__ import annotations

import importlib.metadata
import re
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fakes
import pytest
import ray
from ray.cluster_utils import Cluster
from ray_bench import Bench, StopAt, requests
from ray_marks import RAY_MARKS

from subsettune.errors import ConfigError, StudyError
from subsettune.policy import Phase, Policy, Soup, conventional
from subsettune.storage import Folder
from subsettune.study.execute import ray as ray_executor
from subsettune.study.execute import ray_reach, ray_start
from subsettune.study.execute.node_check import versions_here
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import FixedRuns
from subsettune.train.loop import run

pytestmark = RAY_MARKS


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


def test_a_stopped_run_has_the_ledger_it_had_at_that_point(bench: Bench) -> None:
    """Ray: the run is cut off there, and its account is made here."""
    (asked,) = requests(bench, 1, fakes.two_phases(1.0, 2.0, share=0.02, selector="kcenter"))
    (stopped,) = bench.execute([asked], source=lambda runs: StopAt(runs, 0.5))
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
        self.next, self.finished, self.join, self.has_joined = inner.next, inner.finished, join, False

    def progress(self, request: RunRequest, point: Any) -> bool:
        if not self.has_joined:
            self.join()
            self.has_joined = True
        return False


def test_a_node_that_joins_later_is_used(bench: Bench, nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray: a real node. Two runs share the only GPU until there is another one."""
    monkeypatch.setattr(ray_executor, "COUNT_NODES_S", 0.5)
    bench.order("slow 0.03")
    joined: list[Any] = []
    try:
        bench.execute(
            requests(bench, 5),
            source=lambda runs: JoinAt(runs, lambda: joined.append(nodes.add_node(num_cpus=2, num_gpus=1))),
            parallel=4,
            gpus=0.5,
        )
    finally:
        for node in joined:
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
    records = bench.execute(requests(bench, 2), source=lambda runs: StopAt(runs, 0.3))
    assert [(record.name, record.cause) for record in records] == [("run-0", "stopped"), ("run-1", "stopped")]
    (note,) = bench.notes
    assert note.startswith("run-1 failed: Ray Tune could not use its worker process again. Log: ")
    assert note.endswith("Trying once more.")


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
