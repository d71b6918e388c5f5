"""Watching which files are read disturbs no reader."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from subsettune.data.observed import observed


def test_a_folder_that_is_gone_fails_no_call_of_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with observed(set()):
        sqlite3.connect(":memory:").close()


def test_a_file_that_is_read_is_told(tmp_path: Path) -> None:
    read, written = tmp_path / "read.txt", tmp_path / "written.txt"
    read.write_text("a")
    files: set[str] = set()
    with observed(files):
        read.read_text()
        written.write_text("b")
    assert str(read) in files
    assert str(written) not in files
