"""One driver a study: two at once would overwrite each other's rows and train the same runs."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TextIO

from subsettune.errors import StorageError, StudyError
from subsettune.storage import Folder

NAME = ".driver.lock"


class DriverLock:
    """Held while a study is driven; the operating system lets go of it when the driver dies, however it dies.

    On an object store nothing can be locked, so nothing is: there the user sees to it.

    Args:
        folder: of the study.
        run_id: of the study, for the message.

    Raises:
        StudyError: another driver holds it.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Folder, run_id: str) -> None:
        self._stream: TextIO | None = None
        if not folder.is_local or sys.platform == "win32":
            return
        path = Path(folder.path) / NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}. Give a --storage folder that can.") from error
        if not _take(stream):
            stream.seek(0)
            owner = _owner(stream.read())
            stream.close()
            advice = "Wait for it or stop it, or choose another --run-id."
            raise StudyError(f"study {run_id!r} is being driven already, by {owner}. {advice}")
        stream.truncate(0)
        stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Let the next driver in; may be called twice."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _take(stream: TextIO) -> bool:
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
