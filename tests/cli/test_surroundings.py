"""The command line where its surroundings are not as they should be: processes of their own, as a shell starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest
from fake_inputs import changed, write
from places import ROOT

from subsettune.cli import commands, main
from subsettune.storage import Folder
from subsettune.study.results.folder import StudyFolder
from subsettune.study.spec.definition import parse

SUBSETTUNE = f'"{sys.executable}" -m subsettune.cli'
SLOW_DATA = """
import hashlib

def data():
    print("reading", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 40_000_000)  # one call into C, of many seconds
"""


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "2>/dev/full", "| head -1"])
def test_output_that_nobody_takes_is_no_error(closed: str, tmp_path: Path) -> None:
    done = shell(f"{SUBSETTUNE} selectors {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_result_that_finds_no_room_is_told(tmp_path: Path) -> None:
    done = shell(f"{SUBSETTUNE} selectors >/dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: the result cannot be printed: No space left on device.\n")


def test_a_study_whose_result_nobody_reads_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is still that of the study: 3, for none passed."""

    class Gone:
        encoding = "ascii"

        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = close = lambda self: None

    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "study.yaml", {"task.tolerance": 1e-6})
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Gone())
        patch.setattr(sys, "stderr", Gone())
        patch.setattr("subsettune.report.streams._abandon", lambda stream: None)  # of these, there is no number
        assert main(["tune", path, "--inline", "--device", "cpu"]) == 3
    assert (tmp_path / "runs/study-1/report.html").is_file()


def test_letters_that_the_terminal_has_not(tmp_path: Path) -> None:
    (tmp_path / "caf\xe9").mkdir()
    done = shell(f"{SUBSETTUNE} list --storage caf\xe9", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "No studies in caf\\xe9. Start one: subsettune tune STUDY.yaml\n"


def test_a_working_folder_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell(f"cd gone && rmdir ../gone && {SUBSETTUNE} list", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: The working folder is not there any more. Change to one that is."


def test_a_user_without_a_home(tmp_path: Path) -> None:
    """As in a container, where the user's number has no entry in /etc/passwd."""
    path = write(tmp_path / "study.yaml")
    program = "import pwd; pwd.getpwuid = {}.__getitem__; from subsettune.cli import main; raise SystemExit(main())"
    unset = "env -u HOME -u SUBSETTUNE_CACHE -u XDG_CACHE_HOME"
    done = shell(f'{unset} "{sys.executable}" -c "{program}" plan {path}', tmp_path)
    words = "error: cache must be given here, got none: this user has no home folder. Give --cache, or set HOME."
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, words)


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    done = shell(f"{SUBSETTUNE} list --storage '~nobody-of-that-name/runs'", tmp_path)
    words = "error: '~nobody-of-that-name/runs' names a home folder that is not there. Write the path in full.\n"
    assert (done.returncode, done.stderr) == (2, words)


class Reading:
    """A command in the middle of a long call into C, which reads data."""

    def __init__(self, folder: Path) -> None:
        (folder / "slow.py").write_text(SLOW_DATA)
        path = write(folder / "study.yaml", {"task.data": {"source": "slow:data"}})
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "subsettune.cli", "tune", path, "--inline"]
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a script's background
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "reading\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)

    def interrupt(self) -> tuple[str, float]:
        """Ctrl-C; gives the first words of the answer and the seconds until they came."""
        assert self.process.stderr is not None
        time.sleep(0.1)
        self.process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        while not (line := self.process.stderr.readline()).startswith(("Stopping", "Ended", "Interrupted")):
            assert line, "the process ended without a word"
        return line, time.monotonic() - sent


def test_ctrl_c_says_what_is_kept_once_the_study_has_begun(tmp_path: Path) -> None:
    study = StudyFolder(str(tmp_path), "one")
    words = commands._on_interruption(Folder.at(tmp_path), "one", "AFRESH", "AGAIN")
    assert words() == "The study has not begun: nothing of it is kept. To start it: AFRESH"
    study.begin(parse(changed({})))
    study.save()
    assert words() == "What is finished is kept; to go on: AGAIN"


def test_ctrl_c_is_answered_at_once_and_the_second_ends_at_once(tmp_path: Path) -> None:
    with Reading(tmp_path) as reading:
        first, first_s = reading.interrupt()
        time.sleep(0.5)  # less is one Ctrl-C, sent to a program and to its group
        second, second_s = reading.interrupt()
        code = reading.process.wait(10)
    assert re.fullmatch(
        r"Stopping; Ctrl-C again ends at once\. The study has not begun: nothing of it is kept\. To start it: "
        r"subsettune tune .* --inline\n",
        first,
    )
    assert first_s < 1.5, "Python itself would answer when the call into C is over"
    assert (second, code) == ("Ended.\n", 130)
    assert second_s < 1.5
    assert not any((tmp_path / "runs/study-1").iterdir()), "nothing had begun: only its name is taken"
