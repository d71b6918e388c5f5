"""The page about Python: its examples run one after the other, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

from subsettune.callbacks import METHODS
from subsettune.found import Found

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)  # as a reader would
    out = capsys.readouterr().out
    assert out.startswith("Study 'tour': ")
    assert "['gain', 'verification', 'compute', 'search', 'curves']" in out
    assert re.search(r"^trial-0004 finished 0\.\d+$", out, re.MULTILINE)


def test_what_it_names_is_there() -> None:
    for name in re.findall(r"`found\.(\w+)", PAGE):
        assert hasattr(Found, name), name
    assert set(re.findall(r"`(on_\w+)\(", PAGE)) == set(METHODS)


def test_the_readme_leads_to_it() -> None:
    assert "](docs/python.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
