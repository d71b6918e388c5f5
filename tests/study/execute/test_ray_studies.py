"""Whole studies through Ray: on a running cluster, by its client, killed, interrupted, and gone on with."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from places import SUPPORT
from ray.cluster_utils import Cluster
from ray_bench import CLIENT_PORT, Bench
from ray_marks import RAY_MARKS

from subsettune import config
from subsettune.api import tune
from subsettune.data import DataPaths
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.options import TuneOptions
from subsettune.study.results.records import RunRecord
from subsettune.study.spec import yaml_file
from subsettune.study.spec.components import Component

pytestmark = RAY_MARKS
SUBSETTUNE = [sys.executable, "-m", "subsettune.cli"]
OURS = re.compile(
    r"\[ ?\d+:\d\d\] .+|loading packages \.\.\.|Stopping; Ctrl-C again ends at once\. .+|"
)  # what a user reads


# --- whole studies ---------------------------------------------------------------------------------------------------


def study_mapping(data: dict[str, str], **settings: Any) -> dict[str, Any]:
    space = {"budget": {"log": [0.2, 0.9]}, "arm": {"choice": ["full", "subset"]}, "switch": {"uniform": [0.1, 0.8]}}
    return {
        "task": config.to_plain(fakes.image_task(data)),
        "space": {**space, "subset_share": {"log": [0.2, 0.8]}, "selector": {"choice": ["random", "stratified"]}},
        "study": {
            "trials": 3,
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
def test_interrupted_and_killed_the_same_command_goes_on(study_file: Path, nodes: Cluster) -> None:
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
    third = start(study_file, "--address", nodes.address)  # it is up: a cluster more would show nothing more
    output, errors = third.communicate(timeout=240)
    assert third.returncode in (0, 3), errors
    assert [line for line in errors.splitlines() if not OURS.fullmatch(line)] == []
    done = trials_on_record(study_file)
    assert len({r.name for r in done}) == len(done) == 6
    assert len({(r.policy.key, r.seed) for r in done}) == 6
    assert {r.name: r for r in done}.items() >= {r.name: r for r in more}.items()
    assert "Report:" in output


def test_what_fails_every_run_is_on_no_record_and_says_how_to_run_one_alone(
    study_file: Path, nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: as much on a cluster. The reference is cached by the first study; the trials of the others all raise."""
    monkeypatch.chdir(study_file.parent)
    here = TuneOptions(storage=str(study_file.parent / "runs"), executor="inline")
    tune(study_file, run_id="fine", options=here)
    (study_file.parent / "order").write_text("raise")
    words = r"^trial-\d+ failed: out of luck. Log: .* So did trial-\d+, trial-\d+, and no run has trained "
    for options, settings in [(replace(here, executor="ray", address=nodes.address), {}), (here, {"parallel": 1})]:
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
