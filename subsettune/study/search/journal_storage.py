"""Where the Optuna journal lies: one file locally, numbered segments on an object store.

Optuna's own file backend waits 30 s for the lock of a writer that was killed, and a line torn by the kill makes the
next one unreadable. Here nothing is locked, because a study has one driver, its sole writer, and a torn last line is
cut off when the journal is opened: it was never acted on.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from optuna.storages.journal import BaseJournalBackend

from subsettune.errors import StorageError, StudyError
from subsettune.storage import Folder, append

BLOCK = 256  # segments of an object store that are put into one, which takes a second


def journal_at(folder: Folder, name: str) -> OwnJournal:
    """The journal of a study.

    Args:
        folder: of the study.
        name: of the file, or of the folder of segments on an object store.

    Raises:
        StudyError: the journal is damaged.
    """
    return FileJournal(Path(folder.path) / name) if folder.is_local else SegmentJournal(folder / name)


class OwnJournal(BaseJournalBackend):
    """A journal of which this process is the sole writer.

    Args:
        logs: what it holds.
    """

    def __init__(self, logs: list[dict[str, Any]]) -> None:
        self._logs = logs
        self._held: list[str] | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on."""
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries; they are on disk when this returns, or within `together` when that ends.

        Raises:
            StorageError: they cannot be written.
        """
        if not logs:
            return
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        if self._held is None:
            self._write(lines)
        else:
            self._held += lines
        self._logs += [json.loads(line) for line in lines]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that is added inside it at once: a file is synchronised, and an object written, one time.

        Raises:
            StorageError: it cannot be written.
        """
        assert self._held is None, "what is written together is not nested"
        held: list[str] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            if held:
                self._write(held)

    @abstractmethod
    def _write(self, lines: list[str]) -> None:
        """Add lines to what is on disk."""


@final
class FileJournal(OwnJournal):
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
        super().__init__([_parse(line, f"{path}, line {i}") for i, line in enumerate(whole.splitlines(), 1)])
        if len(whole) != len(content):
            os.truncate(path, len(whole))
        self._size_bytes = len(whole)

    def _write(self, lines: list[str]) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        append(self._path, content, self._size_bytes)
        self._size_bytes += len(content)


@final
class SegmentJournal(OwnJournal):
    """A journal of numbered files, one for each append: object stores cannot append.

    `BLOCK` of them are put into one, whose name has the numbers of the first and the last, so that a journal of many
    trials is read again in a few requests. The block is written first: of segments that it holds none counts.

    Args:
        folder: of the segments.

    Raises:
        StudyError: a segment is missing or cannot be read.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        try:
            found = _blocks_and_segments(folder)
            contents = folder.read_all(found.names)
        except StorageError:  # segments that were put into a block while they were read
            found = _blocks_and_segments(folder)
            contents = folder.read_all(found.names)
        named = zip(found.names, contents, strict=True)
        lines = ((name, line) for name, content in named for line in content.splitlines())
        super().__init__([_parse(line, f"{folder}/{name}") for name, line in lines])
        self._num_segments, self._spent = found.num_segments, list(found.spent)
        self._loose = contents[len(contents) - found.num_loose :]

    def _write(self, lines: list[str]) -> None:
        content = "\n".join(lines).encode()
        self._folder.write(_segment(self._num_segments), content)
        self._num_segments += 1
        self._loose.append(content)
        if len(self._loose) >= BLOCK:
            self._merge()

    def _merge(self) -> None:
        """Put the loose segments into a block."""
        first, last = self._num_segments - len(self._loose), self._num_segments - 1
        self._folder.write(f"{first:08d}-{last:08d}.jsonl", b"\n".join(self._loose))
        self._loose = []
        spent = [*self._spent, *(_segment(number) for number in range(first, last + 1))]
        self._spent = []
        self._folder.remove_all(spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segments:
    """Names of the files of a journal of segments, in order.

    Args:
        names: blocks, then loose segments.
        num_loose: how many of the last are these.
        num_segments: in all, those within blocks included.
        spent: segments that a block holds, and that a killed driver did not come to remove.
    """

    names: tuple[str, ...]
    num_loose: int
    num_segments: int
    spent: tuple[str, ...]


def _blocks_and_segments(folder: Folder) -> _Segments:
    """What is there.

    Raises:
        StudyError: a segment is missing.
    """
    names = [name for name in folder.names() if name.endswith(".jsonl")]
    blocks, following = [name for name in names if "-" in name], 0
    for name in blocks:
        first, last = map(int, name.removesuffix(".jsonl").split("-"))
        if first != following:
            raise _lacks_a_segment(folder)
        following = last + 1
    loose = [name for name in names if "-" not in name]
    left = [name for name in loose if name >= _segment(following)]
    if left != [_segment(following + i) for i in range(len(left))]:
        raise _lacks_a_segment(folder)
    return _Segments(
        names=(*blocks, *left),
        num_loose=len(left),
        num_segments=following + len(left),
        spent=tuple(name for name in loose if name < _segment(following)),
    )


def _lacks_a_segment(folder: Folder) -> StudyError:
    return StudyError(f"the journal {folder} lacks a segment. Restore it from a copy.")


@final
class ReadOnlyJournal(BaseJournalBackend):
    """A journal as it was when it was read; what a killed driver, or one that is writing, left torn is not in it.

    Args:
        folder: of the study.
        name: see `journal_at`.

    Raises:
        StudyError: it is not there yet, or damaged.
        StorageError: it cannot be read.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._where = f"{folder}/{name}"
        if not folder.exists(name):
            raise StudyError(f"{self._where} is not there: the search has not begun. Wait for its first trial.")
        if not folder.is_local or Path(folder.path, name).is_dir():  # a copy of an object store's lies in a folder, too
            self._logs = list(SegmentJournal(folder / name).read_logs(0))
            return
        content = folder.read(name)
        whole = content[: content.rfind(b"\n") + 1]
        self._logs = [_parse(line, f"{self._where}, line {i}") for i, line in enumerate(whole.splitlines(), 1)]

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on."""
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse: a study has one writer, its driver.

        Raises:
            StudyError: always.
        """
        advice = "Copy it first: optuna.copy_study, or a new study and its add_trials."
        raise StudyError(f"{self._where} is only looked at: a trial added here would be none of the study. {advice}")


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
