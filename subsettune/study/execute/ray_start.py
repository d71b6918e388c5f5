"""Starting Ray on this machine: what it would stumble over is put right beforehand, or told in one sentence.

Ray puts its sockets below the folder for temporary files, counts the CPUs of the machine rather than those of this
process, and answers a limit that is too low with a trace, half a minute later or as the end of the process.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from subsettune.errors import StudyError
from subsettune.study.execute.ray_noise import quiet_connection
from subsettune.study.execute.ray_tokens import provide_token
from subsettune.study.execute.signals import hangups_ignored
from subsettune.study.machine import num_cores

OBJECT_STORE_BYTES = 128 * 2**20  # nothing large passes through it: data are mapped from files
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
SOCKET = "session_2026-11-28_15-21-26_870303_4194304/sockets/plasma_store"  # below Ray's folder; all are as long
SOCKET_BYTES = 107  # of a path, by Linux' sockaddr_un
FOLDER_BYTES = 8 * 2**20  # Ray's logs take less; with nothing left, it never comes up
INLINE = "or run without Ray: --inline."
# Measured on Ray 2.60: its own processes beside this one, and what each worker adds.
OWN_THREADS, WORKER_THREADS = 150, 30
OWN_FILES, WORKER_FILES = 48, 8


def start(note: Callable[[str], None]) -> None:
    """Start a cluster on this machine, and connect to it.

    Args:
        note: told what is not as the user may expect.

    Raises:
        StudyError: it cannot be started; the sentence says what to change.
    """
    num_cpus = num_cores()  # those of this process, as the plan counts them
    _check_limit("n", resource.RLIMIT_NOFILE, 0, OWN_FILES + WORKER_FILES * num_cpus, "open files")
    if os.geteuid() != 0:  # whom this limit does not hold
        _check_limit("u", resource.RLIMIT_NPROC, _own_threads(), OWN_THREADS + WORKER_THREADS * num_cpus, "threads")
    folder = session_folder(note)
    provide_token()
    try:
        with hangups_ignored(), quiet_connection():
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=num_cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=folder,
                **QUIET,
            )
    except Exception as error:  # Ray raises bare ones, too
        words = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        advice = f"See the logs in {folder or _default_folder()}/session_latest/logs, {INLINE}"
        raise StudyError(f"Ray cannot start on this machine: {words}. {advice}") from error


def session_folder(note: Callable[[str], None]) -> str | None:
    """Where Ray keeps its sockets and logs: where it would by itself, told as None, or the next best that will do.

    Raises:
        StudyError: no folder for temporary files can be used.
    """
    usual = _default_folder()
    problem = _why_not(usual)
    if problem is None:
        return None
    for folder in _other_folders():
        if folder != usual and _why_not(folder) is None:
            note(f"Ray's own files lie in {folder}: {problem}.")
            return str(folder)
    raise StudyError(f"Ray cannot start on this machine: {problem}. Set TMPDIR to a short path that can be written.")


def _default_folder() -> Path:
    """As Ray has it: below RAY_TMPDIR, else TMPDIR, else /tmp."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp").absolute() / "ray"


def _other_folders() -> Iterator[Path]:
    for name in ("/tmp", "/var/tmp", "/dev/shm"):
        yield Path(name) / "ray"
        yield Path(name) / f"ray-{os.getuid()}"  # where the first is another user's


def _why_not(folder: Path) -> str | None:
    """Why Ray cannot keep its files in a folder; None if it can."""
    if len(os.fsencode(folder / SOCKET)) > SOCKET_BYTES:
        longest = SOCKET_BYTES - len(SOCKET) - len("/ray/")
        return f"{folder.parent} is longer than the {longest} bytes that its sockets allow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    return None if free >= FOLDER_BYTES else f"{folder} is full ({free // 2**20} MiB are left)"


def _check_limit(flag: str, kind: int, used: int, needed: int, what: str) -> None:
    """Raise a soft limit towards the hard one where it is too low for Ray, and say so where that is, too.

    Raises:
        StudyError: the hard limit is too low.
    """
    soft, hard = resource.getrlimit(kind)
    wanted = used + needed
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise StudyError(
            f"ulimit -{flag} must be at least {wanted} for Ray here, got {hard}: it needs about {needed} {what}"
            f"{f', and {used} are in use' if used else ''}. Raise it, {INLINE}"
        )
    resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else hard, hard))


def _own_threads() -> int:
    """Threads that this user has, of all programs: what the limit counts."""
    found, me = 0, os.getuid()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += len(list((process / "task").iterdir())) if process.stat().st_uid == me else 0
        except OSError:  # it has just ended
            continue
    return found
