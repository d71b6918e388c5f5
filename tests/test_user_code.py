"""The code of a program of the user's: its script or module, what these import, and the files that its words name."""

from __future__ import annotations

from pathlib import Path

import pytest

from subsettune.user_code import digest_of_command

FILES = {
    "train.py": "from pkg import model\nimport beside\n",
    "beside.py": "A = 1\n",
    "pkg/__init__.py": "from .conf import X\n",
    "pkg/conf.py": "X = 1\n",
    "pkg/model.py": "from . import conf\nimport json\n",
    "pkg/cli/__init__.py": "",
    "pkg/cli/__main__.py": "from ..model import conf\n",
    "apart.py": "B = 1\n",
    "data.txt": "1\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("python train.py", {"train.py", "beside.py", "pkg/__init__.py", "pkg/conf.py", "pkg/model.py"}),
        ("python -m train", {"train.py", "beside.py", "pkg/__init__.py", "pkg/conf.py", "pkg/model.py"}),
        ("python -m pkg.cli --n 3", {"pkg/cli/__init__.py", "pkg/cli/__main__.py", "pkg/model.py", "pkg/conf.py"}),
        ("python train.py --data data.txt", {"train.py", "beside.py", "data.txt"}),
    ],
)
def test_what_an_edit_of_changes_a_program(command: str, seen: set[str], folder: Path) -> None:
    before, found = digest_of_command(command, {}), set()
    for name, content in FILES.items():
        file = folder / name
        file.write_text(f"{content}# edited\n")
        if digest_of_command(command, {}) != before:
            found.add(name)
        file.write_text(content)
    assert seen <= found
    assert "apart.py" not in found
    assert digest_of_command(command, {}) == before
