"""One driver a study: two at once would overwrite each other's rows and train the same runs."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from subsettune.errors import StorageError, StudyError
from subsettune.storage import Folder
from subsettune.study.results.lease import Holder, Lease, holder_of

NAME = ".driver.lock"
OWNER = ".driver.json"  # who holds it; not in the lock itself, which is emptied by whoever tries to take it
LOOKED_AT_S = 0.5  # that a driver waits for a lock: whoever looks whether it is held has it for an instant


class DriverLock:
    """Held while a study is driven; the operating system lets go of it when the driver dies, however it dies.

    On an object store, which knows no locks, it is a lease.

    Args:
        folder: of the study.
        run_id: of the study, for the message.

    Raises:
        StudyError: another driver holds it.
        StorageError: the folder cannot be written, or its file system knows no locks.
    """

    def __init__(self, folder: Folder, run_id: str) -> None:
        self._lock: FileLock | Lease | None = None
        if not folder.is_local:
            self._lock = Lease(folder, run_id)
            return
        path = Path(folder.path)
        lock = FileLock(path / NAME)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=LOOKED_AT_S)
            (path / OWNER).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        except Timeout as error:
            advice = "Wait for it or stop it, or choose another --run-id."
            raise StudyError(
                f"study {run_id!r} is being driven already, by {_owner(path / OWNER).words}. {advice}"
            ) from error
        except (OSError, NotImplementedError) as error:
            lock.release()
            advice = "Give a --storage folder that can."
            raise StorageError(f"{path / NAME} cannot be written: {error}. {advice}") from error
        self._lock = lock

    def check(self) -> None:
        """Raise unless this driver may still change the study: of a lease, another may have taken it over.

        Raises:
            StudyError: it has.
        """
        if isinstance(self._lock, Lease):
            self._lock.check()

    def release(self) -> None:
        """Let the next driver in; may be called twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def driver_of(folder: Folder) -> Holder | None:
    """The driver that holds a study, for whoever only looks: nothing is written; None where none does.

    Args:
        folder: of the study.

    Raises:
        StorageError: it cannot be read.
    """
    if not folder.is_local:
        return holder_of(folder)
    path = Path(folder.path)
    return _owner(path / OWNER) if _is_held(path / NAME) else None


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look see no driver in each other
    except BlockingIOError:
        return True
    except OSError:  # there is none, or its file system knows no locks, where no driver begins either
        return False
    return False


def _owner(path: Path) -> Holder:
    """Who has the lock, which is a sign of life by itself."""
    try:
        owner = json.loads(path.read_text())
        return Holder(pid=int(owner["pid"]), host=str(owner["host"]), alive_s=time.time())
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(alive_s=time.time())
