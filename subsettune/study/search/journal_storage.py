"""Where the Optuna journal lies: one file locally, numbered segments on an object store.

Optuna's own file backend waits 30 s for the lock of a writer that was killed, and a line torn by the kill makes the
next one unreadable. Here nothing is locked, because a study has one driver, its sole writer, and a torn last line is
cut off when the journal is opened: it was never acted on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from subsettune.errors import StorageError, StudyError
from subsettune.storage import Folder


def journal_at(folder: Folder, name: str) -> BaseJournalBackend:
    """The journal of a study.

    Args:
        folder: of the study.
        name: of the file, or of the folder of segments on an object store.

    Raises:
        StudyError: the journal is damaged.
    """
    return FileJournal(Path(folder.path) / name) if folder.is_local else SegmentJournal(folder / name)


class FileJournal(BaseJournalBackend):
    """A journal in one local file, a line an entry.

    Args:
        path: of the file; its folder is there.

    Raises:
        StudyError: a line other than the last is damaged.
        StorageError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error}. Make it readable.") from error
        whole = content[: content.rfind(b"\n") + 1]
        self._logs = [_parse(line, f"{path}, line {i}") for i, line in enumerate(whole.splitlines(), 1)]
        if len(whole) != len(content):
            os.truncate(path, len(whole))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on."""
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries; they are on disk when this returns.

        Raises:
            StorageError: they cannot be written.
        """
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        try:
            with self._path.open("ab") as stream:
                stream.write("".join(f"{line}\n" for line in lines).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error}. Give it room and go on.") from error
        self._logs += [json.loads(line) for line in lines]


class SegmentJournal(BaseJournalBackend):
    """A journal of numbered files, one for each append: object stores cannot append.

    Args:
        folder: of the segments.

    Raises:
        StudyError: a segment is missing or cannot be read.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._logs: list[dict[str, Any]] = []
        names = [name for name in folder.names() if name.endswith(".jsonl")]
        if names != [_segment(i) for i in range(len(names))]:
            raise StudyError(f"the journal {folder} lacks a segment. Restore it from a copy.")
        for name in names:
            self._logs += [_parse(line, f"{folder}/{name}") for line in folder.read(name).splitlines()]
        self._num_segments = len(names)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on."""
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries as a new segment."""
        if not logs:
            return
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._folder.write(_segment(self._num_segments), "\n".join(lines).encode())
        self._num_segments += 1
        self._logs += [json.loads(line) for line in lines]


def _segment(number: int) -> str:
    return f"{number:08d}.jsonl"


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        log = json.loads(line)
        if not isinstance(log, dict):
            raise ValueError("an entry is no mapping")
    except ValueError as error:
        advice = "Restore it from a copy, or start a new study with another --run-id."
        raise StudyError(f"the journal is damaged at {where}: {error}. {advice}") from error
    return log
