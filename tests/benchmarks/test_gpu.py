"""The command for a GPU machine: its half for a processor, and that no failure hides another part."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import BENCHMARKS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCRIPT = """
import os, signal, sys, time
sys.path[:0] = [{benchmarks!r}, {root!r}]
import gpu
from gpu_parts.kit import Finding, Part

def fine():
    return Finding(passed=True, words="fine", numbers={{"fine": 1}})

def raises():
    raise ValueError("no such kernel")

def dies():
    os.kill(os.getpid(), signal.SIGSEGV)

def hangs():
    time.sleep(600)

def part(name, budget_s, **cases):
    words = lambda rows: f"{{len(rows)}} came to their end"
    gpu.PARTS[name] = Part(name=name, about="made up", budget_s=budget_s, cases=lambda kit: cases, words=words)

part("broken", 60, first=raises, second=fine, third=dies, fourth=fine)
part("endless", 5, before=fine, hangs=hangs, behind=fine)
gpu.PARTS["empty"] = Part(name="empty", about="", budget_s=60, cases=lambda kit: 1 / 0, words=len)
if __name__ == "__main__":
    sys.exit(gpu.main())
"""
ADDED = ("broken", "endless", "empty")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command with three parts more: one with cases that raise and die, one that hangs, one without cases."""
    path = tmp_path_factory.mktemp("gpu") / "command.py"
    path.write_text(SCRIPT.format(benchmarks=str(BENCHMARKS), root=str(ROOT)))
    return path


def command(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, str(script), *arguments]
    return subprocess.run(asked, capture_output=True, text=True, cwd=script.parent, check=False)


@pytest.fixture(scope="module")
def everything(script: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """One run of all parts on the processor, and its JSON."""
    done = command(script, "--quick", "--device", "cpu", "--out", "all.json")
    return done, json.loads((script.parent / "all.json").read_text())


def parts(told: dict[str, Any]) -> dict[str, Any]:
    return {part["part"]: part for part in told["parts"]}


def test_every_part_has_a_result(everything: tuple[subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    done, told = everything
    found = {name: part for name, part in parts(told).items() if name not in ADDED}
    assert set(found) == {
        *("networks", "resume", "precision", "selectors", "orders", "transitions", "soups"),
        *("throughput", "synchronisations", "at_once", "memory"),
    }
    failed = {name: part for name, part in found.items() if part["status"] == "failed"}
    assert not failed, json.dumps(failed, indent=1)
    assert {name for name, part in found.items() if part["status"] == "measured"} == {
        *("throughput", "synchronisations", "memory")
    }
    assert all(row["words"] and row["seconds"] >= 0 for part in found.values() for row in part["cases"])
    assert found["networks"]["words"].count("0.0e+00") == len(found["networks"]["cases"])  # two runs on one processor
    assert "no GPU" in done.stdout
    assert {"hardware", "versions", "command", "seconds", "device"} <= set(told)
    assert told["versions"]["torch"]


def test_what_the_registries_hold_is_tried(
    everything: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
) -> None:
    from subsettune import select
    from subsettune.registry import MODELS
    from subsettune.train import orders, transitions

    found = {name: [row["case"] for row in part["cases"]] for name, part in parts(everything[1]).items()}
    assert found["networks"] == list(MODELS)
    assert found["selectors"] == list(select.SELECTORS.summaries())
    assert found["orders"] == list(orders.ORDERS)
    assert found["transitions"] == list(transitions.TRANSITIONS)
    assert len(found["soups"]) == 8  # two masks and two ways of filling, each in two ways of carrying out


def test_a_failure_hides_nothing(everything: tuple[subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    """A case that raises, a process that dies, a part that hangs, and one that cannot even say what its cases are."""
    done, told = everything
    broken = {row["case"]: row for row in parts(told)["broken"]["cases"]}
    assert [broken[name]["status"] for name in ("first", "second", "third", "fourth")] == ["failed", "passed"] * 2
    assert broken["first"]["words"] == "ValueError: no such kernel"
    assert "in raises" in broken["first"]["trace"]
    assert broken["third"]["words"] == "ended: its process died of SIGSEGV"
    endless = {row["case"]: row for row in parts(told)["endless"]["cases"]}
    assert endless["before"]["status"] == "passed"
    assert endless["hangs"]["words"] == "ended: the time of the part was spent"
    assert endless["behind"]["words"] == "not begun: the time of the part was spent"
    (empty,) = parts(told)["empty"]["cases"]
    assert empty["words"] == "not begun: its process ended with code 1"
    assert "ZeroDivisionError" in empty["trace"]
    assert done.returncode == 1
    assert "| broken " in done.stdout
    assert "broken, first: ValueError: no such kernel" in done.stdout
    assert told["failed"] == [
        *("broken, first", "broken, third", "endless, hangs", "endless, behind", "empty, start"),
    ]


def test_one_part_alone(script: Path) -> None:
    done = command(script, "--quick", "--device", "cpu", "--only", "memory", "--out", "one.json")
    assert (done.returncode, list(parts(json.loads((script.parent / "one.json").read_text())))) == (0, ["memory"])
    assert "| memory | measured | needs a GPU |" in done.stdout


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command in this process."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_wrong_input_is_told(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--only", "nothing"])
    assert ended.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_the_help_has_an_example_and_the_budgets_are_under_eight_minutes(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert "example:\n    PYTHONPATH=. python benchmarks/gpu.py --out gpu.json" in help_text
    assert "--rows" not in help_text
    assert sum(part.budget_s for part in gpu.PARTS.values()) < 8 * 60
