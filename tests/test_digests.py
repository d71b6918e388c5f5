"""Hashes of files: taken once, and taken anew wherever a file may have changed since."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from subsettune import digests
from subsettune.digests import SETTLED_S, FileDigests
from subsettune.errors import DataError

LATER_NS = int((SETTLED_S + 1) * 1e9)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Watched(FileDigests):
    """Counts the files whose content is read."""

    def __init__(self, memory: Path | None, monkeypatch: pytest.MonkeyPatch, ahead_ns: int = LATER_NS) -> None:
        super().__init__(memory, now_ns=lambda: time.time_ns() + ahead_ns)
        self.reads = 0
        read = digests._read

        def counted(path: Path) -> tuple[digests.Stamp, str]:
            self.reads += 1
            return read(path)

        monkeypatch.setattr(digests, "_read", counted)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def copied_with_times(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"new")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    shutil.copyfile(other, file)
    shutil.copystat(other, file)


def moved(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"new")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


def linked(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"new")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    file.unlink()
    file.symlink_to(other)


def mapped(file: Path) -> None:
    times = file.stat()
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        memory[:] = b"new"
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [copied_with_times, moved, linked, mapped])
def test_a_file_of_the_same_size_and_time_is_another_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    found = Watched(file.with_name("memory"), monkeypatch)
    assert found.of([file]) == found.of([file]) == [[str(file), sha256(b"old")]]
    assert found.reads == 1
    before = file.stat()
    change(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert found.of([file]) == found.of([file]) == [[str(file), sha256(b"new")]]
    assert found.reads == 2


def test_other_processes_are_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = file.with_name("memory")
    Watched(memory, monkeypatch).of([file])
    other = Watched(memory, monkeypatch)
    assert other.of([file]) == [[str(file), sha256(b"old")]]
    assert other.reads == 0
    assert len(json.loads(memory.read_text())) == 1
    assert other.of([]) == []
    assert json.loads(memory.read_text()) == []  # only what was asked for last is kept


def test_a_file_that_changed_lately_is_not_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next change might get the same time, and a memory map writes unseen until the page is written back."""
    found = Watched(file.with_name("memory"), monkeypatch, ahead_ns=int((SETTLED_S - 5) * 1e9))
    found.of([file])
    found.of([file])
    assert found.reads == 2
    os.utime(file, (10**9, 10**9))  # old by its own account, but the inode has just changed
    found.of([file])
    found.of([file])
    assert found.reads == 4
    settled = Watched(file.with_name("memory"), monkeypatch)
    settled.of([file])
    settled.of([file])
    assert settled.reads == 1


def test_a_time_in_the_future_is_not_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file, (2**32, 2**32))
    found = Watched(None, monkeypatch)
    found.of([file])
    found.of([file])
    assert found.reads == 2


@pytest.mark.parametrize(("kind", "reads"), [("ext4", 1), ("tmpfs", 2), ("fuse.sshfs", 2)])
def test_a_file_system_that_forgets_changes_is_not_trusted(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, reads: int
) -> None:
    device = file.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"27 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {kind} /dev/x rw\n")
    monkeypatch.setattr(digests, "_MOUNTS", mounts)
    digests._file_systems.cache_clear()
    found = Watched(None, monkeypatch)
    found.of([file])
    found.of([file])
    digests._file_systems.cache_clear()
    assert found.reads == reads


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hashlib.file_digest

    def slow(stream: object, name: str) -> object:
        result = real(stream, name)  # type: ignore[arg-type, type-var]
        file.write_bytes(b"longer")
        return result

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(DataError) as caught:
        FileDigests().of([file])
    assert str(caught.value) == f"{file} changed while it was read. Wait until it is written, then start again."


def test_what_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    assert FileDigests().of([tmp_path / "none"]) == [[str(tmp_path / "none"), ""]]
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        FileDigests().of([tmp_path / "folder"])
    assert str(caught.value) == f"{tmp_path}/folder cannot be read: Is a directory. Give a file that can be read."


@pytest.mark.parametrize("content", ["{not json", "[1]", '[["a", [1, 2], "b"]]', "3"])
def test_a_damaged_memory_costs_time_alone(file: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    memory = file.with_name("memory")
    memory.write_text(content)
    found = Watched(memory, monkeypatch)
    assert found.of([file]) == [[str(file), sha256(b"old")]]
    assert Watched(memory, monkeypatch).of([file]) == [[str(file), sha256(b"old")]]


def test_a_memory_that_cannot_be_written_costs_time_alone(file: Path) -> None:
    assert FileDigests(file / "below" / "memory").of([file]) == [[str(file), sha256(b"old")]]
