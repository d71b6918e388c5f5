"""A study whose driver is killed at random moments is, when the command was repeated often enough, the study it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed
from places import ROOT

from subsettune import DataPaths, TuneOptions, tune
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView

# One process that has imported everything begins the driver again and again: a kill costs no start of Python.
SCRIPT = """
import json, os, random, signal, sys, time
from subsettune import DataPaths, TuneOptions, tune
from subsettune.report import progress  # what a driver imports late
storage, cache, study, kills, seed = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rng = random.Random(int(seed))
options = TuneOptions(storage=storage, places=DataPaths(cache=cache), executor="inline", device="cpu")
killed = 0
while True:
    child = os.fork()
    if child == 0:
        tune(study, run_id="killed", options=options)
        os._exit(0)
    end = time.monotonic() + rng.uniform(0.1, 1.5)
    while killed < kills and time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.002)
    if killed < kills:
        os.kill(child, signal.SIGKILL)  # one that has ended is not hurt by it
    status = os.waitpid(child, 0)[1]
    killed += os.WIFSIGNALED(status)
    if os.WIFEXITED(status):
        assert os.waitstatus_to_exitcode(status) == 0, status
        break
print(killed)
"""


def essence(record: RunRecord) -> dict[str, Any]:
    """All of a row but what tells when and where it was trained, and what interruptions cost."""
    names = ("name", "number", "candidate", "policy", "coordinates", "seed", "confirms", "cause", "message", "cached")
    more = ("metric", "test_metric", "test_correct", "share_used", "cost_flops", "ledger", "is_stop_audit")
    curve = [(p.share, p.flops, p.phase, p.metric, p.loss) for p in record.curve]
    return {name: getattr(record, name) for name in (*names, *more)} | {"curve": curve}


def tables(view: StudyView) -> dict[str, list[dict[str, Any]]]:
    roles = (view.reference, view.trials, view.verification, view.ablation_runs)
    return {rows[0].role: [essence(row) for row in rows] for rows in roles if rows}


@pytest.mark.slow
def test_a_killed_study_is_the_undisturbed_one(tmp_path: Path) -> None:
    study = changed({"task.tolerance": 0.03, "study.trials": 12, "study.ablation_seeds": 2, "task.recipe.epochs": 12})
    places = DataPaths(cache=str(tmp_path / "cache"))
    options = TuneOptions(storage=str(tmp_path / "whole"), places=places, executor="inline", device="cpu")
    whole = tune(study, run_id="whole", options=options).view
    words = [str(tmp_path / "runs"), str(tmp_path / "cache2"), json.dumps(study), "6", "0"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    again = TuneOptions(storage=str(tmp_path / "runs"), places=places, executor="inline", device="cpu")
    killed = tune(study, run_id="killed", options=again).view  # it is finished: nothing is trained
    assert tables(killed) == tables(whole)
    assert len(killed.trials) == 12
    assert (killed.summary.trials, killed.manifest.winner) == (whole.summary.trials, whole.manifest.winner)
    assert killed.manifest.verdicts == whole.manifest.verdicts
