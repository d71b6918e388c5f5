from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from subsettune import patience
from subsettune.errors import StorageError
from subsettune.patience import NoAnswerError, hurried, in_thread, passes, patiently, telling
from subsettune.storage import Folder

DOWN = "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATIENCE_S": 0.5, "FIRST_PATIENCE_S": 0.2, "TOLD_AFTER_S": 0.05, "FIRST_WAIT_S": 0.02}.items():
        monkeypatch.setattr(patience, name, value)
    monkeypatch.setattr(patience, "_answered", set())


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def act() -> str:
        if left:
            raise left.pop()
        return "content"

    return act


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_storage_that_comes_back_is_waited_for_and_told_once(is_remote: bool) -> None:
    told: list[str] = []
    with telling(told.append):
        assert patiently(failing(3, OSError(errno.EIO, DOWN)), "s3://bucket", is_remote=is_remote) == "content"
    first, last = told
    assert first.startswith("s3://bucket does not answer; it is tried again for 0 s. [Errno 5] AWS Error NETWORK_CONN")
    assert last.startswith("s3://bucket answers again, after ")


def test_a_hiccup_is_not_told() -> None:
    told: list[str] = []
    with telling(told.append):
        assert patiently(failing(1, OSError(DOWN)), "s3://bucket", is_remote=True) == "content"
    assert told == []


def test_waits_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda s: (waits.append(s), now.__setitem__(0, now[0] + s)))
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(patience, "PATIENCE_S", 120.0)
    patience._answered.add("x")
    with telling(lambda _: None), pytest.raises(NoAnswerError, match=r"no answer in 116 s, the last error was: AWS"):
        patiently(failing(1000, OSError(DOWN)), "x", is_remote=False)
    assert waits[:6] == [0.5, 1, 2, 4, 8, 10]
    assert set(waits[6:]) == {10}
    assert 110 < sum(waits) <= 120


def test_one_that_never_answered_is_given_up_sooner() -> None:
    for known, least_s, most_s in ((False, 0.0, 0.2), (True, 0.2, 0.5)):
        if known:
            patiently(failing(0, OSError()), "x", is_remote=True)
        started = time.monotonic()
        with telling(lambda _: None), pytest.raises(NoAnswerError):
            patiently(failing(10**6, OSError(DOWN)), "x", is_remote=True)
        assert least_s <= time.monotonic() - started
        assert known or time.monotonic() - started < most_s + 2.0


def test_whoever_asked_to_stop_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 60.0)
    monkeypatch.setattr(patience, "HURRIED_S", 0.1)
    patience._answered.add("x")
    started = time.monotonic()
    with telling(lambda _: None), hurried(), pytest.raises(NoAnswerError):
        patiently(failing(10**6, OSError(DOWN)), "x", is_remote=True)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error ACCESS_DENIED during PutObject operation"),
        OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "denied"),
    ],
    ids=["rights", "bucket", "file", "disk", "permission"],
)
def test_what_does_not_pass_is_told_at_once(error: OSError) -> None:
    assert not passes(error)
    with pytest.raises(type(error)) as caught:
        patiently(failing(1, error), "x", is_remote=True)
    assert caught.value is error


def test_a_call_that_hangs_is_left_behind() -> None:
    hang = threading.Event()
    with pytest.raises(NoAnswerError, match="no answer in 0 s"):
        in_thread(hang.wait, limit_s=0.1)
    hang.set()
    assert in_thread(lambda: 3) == 3
    with pytest.raises(KeyError):
        in_thread(lambda: {}["x"])


def test_ctrl_c_is_heard_while_a_call_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "INTERRUPTED_WAIT_S", 0.1)
    hang = threading.Event()
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: hang.wait(30))
    assert time.monotonic() - started < 10
    hang.set()


def test_a_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "study")
    monkeypatch.setattr(Folder, "_join", _raising(OSError(DOWN)))
    with telling(lambda _: None), pytest.raises(StorageError) as caught:
        folder.read("trials.parquet")
    assert str(caught.value).startswith(
        "subtree://study/trials.parquet cannot be read: no answer in 0 s, the last erro"
    )
    assert str(caught.value).endswith(
        "Could not connect to server. What is finished is on record: start the same command again when the storage is "
        "back."
    )
    monkeypatch.setattr(Folder, "_join", _raising(OSError(errno.EDQUOT, "Disk quota exceeded")))
    with pytest.raises(StorageError, match=r"Disk quota exceeded. Make room and start the same command again.$"):
        Folder.at(tmp_path).write("a", b"")


def _raising(error: Exception) -> Callable[..., str]:
    def act(*_: Any) -> str:
        raise error

    return act


@pytest.mark.slow
def test_google_without_a_network_is_told_in_seconds_and_hears_ctrl_c() -> None:
    """In a process of its own: the client that was left behind goes on until it has given up."""
    code = (
        "import os, signal, threading, time\n"
        "from subsettune import patience, storage\n"
        "storage.RETRY_LIMIT_S = patience.FIRST_PATIENCE_S = 1\n"
        "def read():\n"
        "    try: storage.Folder.at('gs://subsettune.invalid/runs').read('manifest.json')\n"
        "    except storage.StorageError as error: print('told', error)\n"
        "    except KeyboardInterrupt: print('heard')\n"
        "read()\n"
        "storage.RETRY_LIMIT_S = 30\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "read()\n"
        "os._exit(0)\n"
    )
    env = {**os.environ, "GCE_METADATA_HOST": "127.0.0.1:1", "CLOUDSDK_CONFIG": "/nowhere"}
    command = [sys.executable, "-u", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=True)
    told, heard = done.stdout.splitlines()
    assert told.startswith("told gs://subsettune.invalid/runs/manifest.json cannot be read: ")
    assert heard == "heard"
