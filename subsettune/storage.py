"""Files of a study, wherever they lie: a local folder, NFS or an object store, all through pyarrow.fs.

A file is written whole or not at all: locally under another name and then renamed, on an object store by one upload.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ArrowException, fs, parquet

from subsettune.errors import StorageError

GONE = "The working folder is not there any more."


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on a file system; its methods take names relative to it.

    Args:
        filesystem: where it lies.
        path: its path there, without a trailing slash.
    """

    filesystem: Any
    path: str

    @classmethod
    def at(cls, uri: str | Path) -> Folder:
        """The folder that a local path or a URI (`s3://bucket/runs`, `gs://...`, `file:///...`) names.

        Raises:
            StorageError: the URI is not understood, or its file system cannot be reached.
        """
        text = os.fspath(uri)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), str(absolute(text)))
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except (OSError, ArrowException, ValueError) as error:
            raise StorageError(f"storage {text!r} cannot be reached: {error}. Check the address.") from error
        return cls(filesystem, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether other programs on this machine find it under `path`."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def size_bytes(self, name: str) -> int:
        """Size of a file, 0 if it is not there."""
        return int(self._info(name).size or 0)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with self.filesystem.open_input_file(self._join(name)) as stream:
                return bytes(stream.read())
        except (OSError, ArrowException) as error:
            raise StorageError(f"{self}/{name} cannot be read: {error}.") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, making its folder if need be.

        Raises:
            StorageError: it cannot be written.
        """
        path = self._join(name)
        try:
            if not self.is_local:
                with self.filesystem.open_output_stream(path) as stream:
                    stream.write(content)
                return
            _write_local(Path(path), content)
        except (OSError, ArrowException) as error:
            advice = "Give a --storage folder that can be written."
            raise StorageError(f"{self}/{name} cannot be written: {error}. {advice}") from error

    def claim(self, name: str) -> bool:
        """Make a folder on this machine's file systems; false if somebody else has, at whatever moment.

        Raises:
            StorageError: it cannot be made.
        """
        assert self.is_local, "an object store has no folders to make"
        path = Path(self._join(name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not path.parent.is_dir():
                advice = "Give a --storage folder."
                raise StorageError(f"{path.parent} cannot be written: it is a file. {advice}") from None
            return False
        except OSError as error:
            advice = "Give a --storage folder that can be written."
            raise StorageError(f"{path} cannot be written: {error}. {advice}") from error
        return True

    def names(self, name: str = "") -> list[str]:
        """Names of the files and folders in a folder, sorted; empty if it is not there."""
        selector = fs.FileSelector(self._join(name), allow_not_found=True)
        try:
            return sorted(info.base_name for info in self.filesystem.get_file_info(selector))
        except FileNotFoundError:  # it is made, or removed, at this very moment
            return []
        except (OSError, ArrowException) as error:
            where = self._join(name)
            raise StorageError(f"{where} cannot be listed: {error}. Give a --storage folder.") from error

    def total_bytes(self) -> int:
        """Size of everything inside."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        return sum(info.size or 0 for info in self.filesystem.get_file_info(selector))

    def trim(self, most_bytes: int) -> None:
        """Remove the oldest files of the folder until those left are no larger in all; files being written stay."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        try:
            found = [info for info in self.filesystem.get_file_info(selector) if not info.base_name.startswith(".")]
        except (OSError, ArrowException) as error:
            raise StorageError(f"{self} cannot be listed: {error}. Give a --storage folder.") from error
        kept_bytes = 0
        for info in sorted(found, key=lambda info: (info.mtime_ns or 0, info.base_name), reverse=True):
            kept_bytes += info.size or 0
            if kept_bytes > most_bytes:
                self.remove(info.base_name)

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder and everything in it; nothing happens if it is not there."""
        info = self._info(name)
        try:
            if info.type == fs.FileType.Directory:
                self.filesystem.delete_dir(info.path)
            elif info.type != fs.FileType.NotFound:
                self.filesystem.delete_file(info.path)
        except (OSError, ArrowException) as error:
            raise StorageError(f"{self}/{name} cannot be removed: {error}.") from error

    def _join(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _info(self, name: str) -> Any:
        try:
            return self.filesystem.get_file_info(self._join(name))
        except (OSError, ArrowException) as error:
            raise StorageError(f"{self}/{name} cannot be reached: {error}.") from error


def parsed(content: bytes) -> pa.Table:
    """The table that the bytes of a Parquet file hold.

    Read by the calling thread alone: one of Arrow's own that still lets go of Python's bytes while the interpreter ends
    aborts the process, with "terminate called without an active exception" (apache/arrow#34314).

    Raises:
        ArrowException, OSError: it is no Parquet file, or it is damaged.
    """
    with parquet.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(use_threads=False)


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # writers on other hosts may share our pid
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def absolute(path: str | Path) -> Path:
    """A local path as every process understands it: `~` and the working folder written out.

    Raises:
        StorageError: there is no such home folder, or the working folder was removed.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise StorageError(f"{str(path)!r} names a home folder that is not there. Write the path in full.") from error
    except FileNotFoundError as error:
        raise StorageError(f"{GONE} Change to one that is there, or write {str(path)!r} in full.") from error


def inside(folder: str, name: str) -> str:
    """Path or URI of something in a folder; the query of a URI (`s3://bucket/runs?region=...`) stays at its end."""
    if "://" not in folder:
        return f"{absolute(folder)}/{name}"
    path, mark, query = folder.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"
