"""The page on models in hand promises nothing that is not there: its example runs, its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

from subsettune.cli.parser import make_parser
from subsettune.trained import folder

PAGE = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    metric, told = capsys.readouterr().out.splitlines()[:2]
    assert 0.9 < float(metric) <= 1
    assert told.startswith("('old', 'young') ['young' 'old'] [[")
    assert {path.name for path in Path("model").iterdir()} == {folder.MODEL, *folder.FILES}


def test_the_commands_are_understood() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        assert make_parser().parse_args(line.split()[1:]).command_name in ("train", "predict", "follow")


def test_the_files_are_those_of_a_model() -> None:
    assert set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE)) == {folder.MODEL, *folder.FILES}


def test_the_readme_leads_to_it() -> None:
    assert "](docs/model.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
