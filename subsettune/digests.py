"""Content hashes of files, taken once and then remembered by what the file system tells of a file.

Size and time of change alone tell nothing of a file that `cp -p`, `rsync -t`, `tar`, a backup or a switched link has
replaced by another of the same size. Device, inode and the time of the last change of the inode, which no program can
set, do; and where a file has changed so lately that the next change might get the same time, its hash is taken anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from subsettune.errors import DataError

# A write through a memory map sets the times when a page becomes dirty, and Linux writes it back within half a minute;
# until then further writes leave no trace. FAT's times are coarser than most: 2 s. Twice the longest of these.
SETTLED_S = 60.0
# On these a file can change and all its times stay: memory maps of tmpfs are never written back, FAT has no time of
# the inode, and what a FUSE server says of it is its own affair.
FORGETFUL = ("tmpfs", "ramfs", "vfat", "msdos", "exfat", "fuse")
_MOUNTS = Path("/proc/self/mountinfo")

Stamp = tuple[int, int, int, int, int]


def stamp(stat: os.stat_result) -> Stamp:
    """Device, inode, size in bytes, and the times of the last change of content and inode in nanoseconds."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@dataclass(slots=True)
class FileDigests:
    """SHA-256 of files, remembered as long as nothing tells of a change.

    Args:
        memory: JSON file that keeps them for other processes; null for this process alone. One that cannot be read or
            written costs time, nothing else.
        now_ns: the time, as files have it.
    """

    memory: Path | None = None
    now_ns: Callable[[], int] = time.time_ns
    _known: dict[str, tuple[Stamp, str]] = field(default_factory=dict)

    def of(self, paths: Iterable[Path]) -> list[list[str]]:
        """Path and hash of each file, in the order given; a missing file has the hash "".

        Raises:
            DataError: a file cannot be read, or changes while it is.
        """
        before = dict(self._known) if self.memory is None else self._recall()
        found = [[str(path), self._digest(path)] for path in paths]
        if self.memory is not None:
            asked = {path for path, _ in found}
            self._known = {path: known for path, known in self._known.items() if path in asked}
            if self._known != before:
                self._keep(self.memory)
        return found

    def _digest(self, path: Path) -> str:
        """The hash of one file; a link is followed."""
        try:
            now = stamp(path.stat())
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _unreadable(path, error) from error
        known = self._known.get(str(path))
        if known is not None and known[0] == now:
            return known[1]
        self._known.pop(str(path), None)
        start_ns = self.now_ns()
        now, digest = _read(path)
        if start_ns - max(now[3:]) >= SETTLED_S * 1e9 and not _forgets(now[0]):
            self._known[str(path)] = (now, digest)
        return digest

    def _recall(self) -> dict[str, tuple[Stamp, str]]:
        """Take up what other processes have found; returns it."""
        assert self.memory is not None
        try:
            rows = json.loads(self.memory.read_text())
            kept = {str(path): (tuple(map(int, values)), str(digest)) for path, values, digest in rows}
        except (OSError, ValueError, TypeError):
            kept = {}
        self._known = kept  # type: ignore[assignment]
        return dict(self._known)

    def _keep(self, memory: Path) -> None:
        rows = [[path, values, digest] for path, (values, digest) in sorted(self._known.items())]
        temporary = memory.with_name(f".{memory.name}.{secrets.token_hex(8)}.tmp")
        with contextlib.suppress(OSError):  # the next process takes them anew
            memory.parent.mkdir(parents=True, exist_ok=True)
            try:  # not by `storage`, which needs pyarrow: names are known without it
                temporary.write_text(json.dumps(rows))
                temporary.replace(memory)
            finally:
                temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Stamp, str]:
    try:
        with path.open("rb") as stream:
            before = stamp(os.fstat(stream.fileno()))
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            after = stamp(os.fstat(stream.fileno()))
    except OSError as error:
        raise _unreadable(path, error) from error
    if before != after:
        raise changing(path)
    return after, digest


def changing(path: Path | str) -> DataError:
    """What to raise where a file is not the one that it was a moment ago."""
    return DataError(f"{path} changed while it was read. Wait until it is written, then start again.")


def _unreadable(path: Path, error: OSError) -> DataError:
    reason = error.strerror or type(error).__name__
    return DataError(f"{path} cannot be read: {reason}. Give a file that can be read.")


def _forgets(device: int) -> bool:
    """Whether a device has a file system that can change a file and tell nothing of it; unknown ones have none."""
    kind = _file_systems().get(device, "")
    return kind.partition(".")[0] in FORGETFUL


@functools.lru_cache(maxsize=1)
def _file_systems() -> dict[int, str]:
    """Kinds of the mounted file systems by device: `ext4`, `fuse.sshfs`; empty where the system does not tell."""
    found = {}
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        place, _, kind = line.partition(" - ")
        major, _, minor = place.split()[2].partition(":")
        found[os.makedev(int(major), int(minor))] = kind.split()[0]
    return found
