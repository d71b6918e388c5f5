"""What is put right before Ray starts on this machine. Only the last test starts it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_inputs import write
from places import ROOT

from subsettune.errors import StudyError
from subsettune.study.execute import ray_start
from subsettune.study.execute.ray_start import session_folder

LONG = "a" * 120


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return []


def test_a_usual_folder_is_left_to_ray(notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert session_folder(notes.append) is None
    assert notes == []


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        (LONG, "is longer than the 39 bytes that its sockets allow."),
        ("file/tmp", "cannot be written (Not a directory)."),
    ],
)
def test_a_folder_that_will_not_do_is_told_with_the_one_taken(
    folder: str, problem: str, notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets: 107 bytes of a path, of which the longest name that Ray gives one takes 63, and `/ray/` 5."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(ray_start, "SOCKET", ray_start.SOCKET if folder == LONG else "s")
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    taken = session_folder(notes.append)
    assert taken is not None
    assert taken.startswith(("/tmp/ray", "/var/tmp/ray", "/dev/shm/ray"))
    assert notes[0].startswith(f"Ray's own files lie in {taken}: {tmp_path}")
    assert notes[0].endswith(problem)


def test_the_longest_path_that_linux_allows(notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path("/tmp") / f"st-{os.getpid()}"
    fits = base / ("b" * (107 - len(ray_start.SOCKET) - len("/ray/") - len(str(base)) - 1))
    try:
        monkeypatch.setenv("TMPDIR", str(fits))
        assert session_folder(notes.append) is None
        monkeypatch.setenv("TMPDIR", f"{fits}b")
        assert session_folder(notes.append) is not None
    finally:
        shutil.rmtree(base, ignore_errors=True)


def test_no_folder_has_room(notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    words = (
        "^Ray cannot start on this machine: /tmp/ray is full \\(0 MiB are left\\). Set TMPDIR to a short path that can"
    )
    with pytest.raises(StudyError, match=words):
        session_folder(notes.append)


def test_a_limit_is_raised_as_far_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: told.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 256))
    ray_start._check_limit("n", resource.RLIMIT_NOFILE, 0, 100, "open files")
    assert told == [(256, 256)]
    words = (
        "ulimit -u must be at least 310 for Ray here, got 256: it needs about 210 threads, and 100 are in use. "
        "Raise it, or run without Ray: --inline."
    )
    with pytest.raises(StudyError, match=f"^{re.escape(words)}$"):
        ray_start._check_limit("u", resource.RLIMIT_NPROC, 100, 210, "threads")


@pytest.mark.ray
def test_a_study_in_poor_surroundings(tmp_path: Path) -> None:
    """Ray: whether it comes up is the question. All at once, so that one cluster will do."""
    short = {"study.trials": 2, "study.seeds": 2, "study.max_seeds": 2, "task.tolerance": 0.5}
    path = write(tmp_path / "study.yaml", {**short, "study.parallel": 4})
    (tmp_path / LONG).mkdir()
    for name in ("random", "types", "ray"):  # each would end whatever imports it
        (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    environment = {"TMPDIR": str(tmp_path / LONG), "HOME": "/dev/null", "RAY_ADDRESS": "", "OMP_NUM_THREADS": "0"}
    environment |= {"SUBSETTUNE_CACHE": str(tmp_path / "cache"), "SUBSETTUNE_ROOT": str(ROOT)}
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "sys.path[0] = os.environ['SUBSETTUNE_ROOT']\n"  # as the command has it: not the working folder
        "from subsettune.cli import main; sys.exit(main())"
    )
    command = f'ulimit -n 128; exec "{sys.executable}" "{tmp_path}/bin/run" tune "{path}" --device cpu >&-'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/run").write_text(program)
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert " is longer than the 39 bytes that its sockets allow." in done.stderr
    assert "1 run fits here at a time, not 4." in done.stderr
    assert re.search(r"^\[ 0:[0-5]\d\] reading data$", done.stderr, re.MULTILINE), (
        "the other stages begin within a minute"
    )
