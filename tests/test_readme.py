"""README is short and promises nothing that is not there: its example runs, its commands and files exist.

That its numbers are those of the demo is held in `test_docs_written`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from scipy.stats import binomtest

from subsettune.cli.parser import make_parser

README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL_PAGES = "\n".join([README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))])


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
def test_the_example_runs_in_at_most_15_lines(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 15
    inline = 'run_id="readme", options=TuneOptions(executor="inline"))'  # the same code, without a cluster to start
    code = "from subsettune import TuneOptions\n" + block.replace('run_id="readme")', inline)
    assert inline in code
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "validation" in done.stdout


def test_the_commands_of_all_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", ALL_PAGES, re.DOTALL))
    told = set(re.findall(r"^subsettune ([a-z]+)", shell, re.MULTILINE))
    told |= set(re.findall(r"`subsettune ([a-z]+)", ALL_PAGES))
    assert len(told) > 10
    for command in sorted(told):
        with pytest.raises(SystemExit) as left:
            make_parser().parse_args([command, "--help"])
        assert left.value.code == 0, command
        assert "example:" in capsys.readouterr().out, command


def test_the_table_beside_doing_it_by_hand_is_one_of_the_benchmark() -> None:
    """Its ways are those of `benchmarks/studies.py`, and each interval is the exact one of its count."""
    rows = re.findall(r"^\| ([\w ,]+) \| (\d+) of (\d+) \[(\d+), (\d+)\] % \|", README, re.MULTILINE)
    code = (ROOT / "benchmarks" / "studies_parts" / "splits.py").read_text(encoding="utf-8")
    assert len(rows) == 5
    for name, *numbers in rows:
        assert f'"{name.replace(", ten seeds", "").removesuffix(", 40 trials")}"' in code, name
        count, total, low, high = map(int, numbers)
        exact = binomtest(count, total).proportion_ci(method="exact")
        assert (low, high) == (round(100 * exact.low), round(100 * exact.high)), name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"(?:benchmarks|search_spaces)/\w+\.(?:py|yaml)", ALL_PAGES))))
def test_the_files_exist(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_commands_of_make_are_in_the_makefile() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"(?:^|`)make ([\w-]+)(?: +#|`)", README + contributing, re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "docs", "test", "test-fast"} <= told <= targets


def test_the_study_file_of_its_page_is_valid() -> None:
    from ruamel.yaml import YAML

    from subsettune.study.spec.definition import parse

    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "study_file.md").read_text(encoding="utf-8"), re.DOTALL
    )
    study = parse(YAML(typ="safe", pure=True).load(block))
    assert study.study.trials == 30
    assert study.task.tolerance == 0.01
