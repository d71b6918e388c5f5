"""The README promises nothing that is not there: its example runs, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_in_at_most_15_lines(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 15
    inline = 'run_id="readme", options=TuneOptions(executor="inline"))'  # the same code, without a cluster to start
    code = "from subsettune import TuneOptions\n" + block.replace('run_id="readme")', inline)
    assert inline in code
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "validation" in done.stdout


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`subsettune ([a-z]+)", README))))
def test_the_commands_exist(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "subsettune.cli", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


@pytest.mark.parametrize("name", sorted(set(re.findall(r"benchmarks/\w+\.py|search_spaces/\w+\.yaml", README))))
def test_the_files_exist(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_commands_of_make_are_in_the_makefile() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"(?:^|`)make ([\w-]+)(?: +#|`)", README + contributing, re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "test-fast"} <= told <= targets


def test_the_study_file_of_the_readme_is_valid() -> None:
    from subsettune.study.spec.definition import parse
    from subsettune.study.spec.yaml_file import read_yaml

    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = ROOT / "search_spaces" / "digits.yaml"
    raw, _ = read_yaml(path)
    assert parse(raw).task.tolerance == 0.01
    from ruamel.yaml import YAML

    assert parse(YAML(typ="safe", pure=True).load(block)).study.trials == 30
