"""Kill the driver of the digits study with SIGKILL at random moments of every stage, and check that nothing is lost.

After each kill the same command goes on. Checked: a run that was on record is never trained again (its row stays as it
was, byte for byte), none is counted twice, and the study ends complete. With `--compare` the study is run once more and
left alone: policies, seeds and results must be the same (with as many trials at a time).

    python benchmarks/kill.py --kills 5 --seed 0 --compare
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord

STAGES = ("reference", "search", "search", "verification", "export")
LONGEST_S = 40.0  # that all kills may wait within their stages, so that the study does not end before the last
ROOT = Path(__file__).resolve().parent.parent


def start(storage: Path, cache: Path, extra: list[str], run_id: str = "killed") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "subsettune.cli", "tune", "search_spaces/digits.yaml", "--run-id", run_id]
    places = ["--storage", str(storage), "--cache", str(cache), "--quiet"]
    return subprocess.Popen([*command, *places, *extra], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def state(folder: Path) -> tuple[str, int]:
    """The stage of a study, and how often it was started."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return str(manifest["status"]), len(manifest["starts"])
    except (OSError, ValueError, KeyError):
        return "", 0


def kill_in(stage: str, within_s: float, folder: Path, process: subprocess.Popen[bytes], num_starts: int) -> str:
    """Wait for this start to come to a stage and a while, then kill; returns the stage that the kill hit."""
    while process.poll() is None:
        status, starts = state(folder)
        if starts > num_starts and status in (stage, "finished"):
            break
        time.sleep(0.002)
    time.sleep(within_s)
    hit, _ = state(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return hit or "before the study began"


def rows(storage: Path, run_id: str = "killed") -> dict[str, RunRecord]:
    study = StudyFolder(str(storage), run_id)
    if not study.exists:
        return {}
    study.open()
    found: dict[str, RunRecord] = {}
    for role in ("reference", "trial", "verification"):
        for record in study.records(role):
            assert record.name not in found, f"{record.name} is counted twice"
            found[record.name] = record
    return found


def check_kept(before: dict[str, RunRecord], after: dict[str, RunRecord]) -> None:
    for name, record in before.items():
        assert after.get(name) == record, f"{name} was on record and changed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="with a study that is left alone")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="further flags of `subsettune tune`")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        storage, cache = Path(scratch) / "runs", Path(scratch) / "cache"
        before: dict[str, RunRecord] = {}
        for i in range(options.kills):
            _, num_starts = state(storage / "killed")
            process = start(storage, cache, options.extra)
            stage = STAGES[i * len(STAGES) // options.kills]
            within_s = rng.uniform(0.0, 0.02 if stage == "export" else LONGEST_S / options.kills)
            hit = kill_in(stage, within_s, storage / "killed", process, num_starts)
            after = rows(storage)
            check_kept(before, after)
            print(f"kill {i + 1}: in {hit}, {len(after)} runs on record, {len(before)} of them before", flush=True)
            before = after
        code = start(storage, cache, options.extra).wait()
        after = rows(storage)
        check_kept(before, after)
        report(storage, after, code)
        if options.compare:
            assert start(storage, Path(scratch) / "cache2", options.extra, "whole").wait() in (0, 3)
            compare(after, rows(storage, "whole"))


def compare(killed: dict[str, RunRecord], whole: dict[str, RunRecord]) -> None:
    names = ("policy", "seed", "confirms", "cause", "metric", "test_metric", "ledger")
    found, wanted = (
        {name: [getattr(record, each) for each in names] for name, record in runs.items()} for runs in (killed, whole)
    )
    assert found == wanted, "the study is another one than if it had been left alone"
    print(f"the same {len(whole)} runs as in a study that was left alone: policies, seeds and results")


def report(storage: Path, after: dict[str, RunRecord], code: int) -> None:
    study = StudyFolder(str(storage), "killed").open()
    summary = study.view().summary
    trials = study.records("trial")
    numbers = [record.number for record in trials]
    assert code in (0, 3), f"the study ended with exit code {code}"
    assert summary.status == "finished", summary.status
    assert len(numbers) == len(set(numbers)), "a trial number is on record twice"
    runs = [(record.policy.key, record.seed) for record in trials]
    assert len(runs) == len(set(runs)), "a policy was trained twice with one seed"
    asked = study.view().study.study.trials
    assert len(trials) == asked, f"{len(trials)} trials are on record and {asked} were asked for"
    repeated = sum(record.repeated_flops for record in after.values())
    print(f"complete: {len(after)} runs, {len(trials)} of {asked} trials, exit code {code}, bundle {summary.bundle}")
    print(f"repeated work, charged to tuning: {repeated:,} FLOPs of {summary.tuning.flops:,}")


if __name__ == "__main__":
    main()
