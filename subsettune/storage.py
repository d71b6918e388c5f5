"""Files of a study, wherever they lie: a local folder, NFS or an object store, all through pyarrow.fs.

A file is written whole or not at all: locally under another name and then renamed, on an object store by one upload.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from pyarrow import ArrowException, fs, parquet

from subsettune.errors import StorageError
from subsettune.keys import masked, without_keys
from subsettune.patience import OPENING_LIMIT_S, NoAnswerError, in_thread, is_full, patiently

T = TypeVar("T")
AT_ONCE = 16  # files of a store that are read, or removed, at a time
RETRY_LIMIT_S = 10  # of Google's client, for one call: it would try for a quarter of an hour
OF_KEYS = (
    "ACCESS_DENIED",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_ACCESS_KEY_ID",
    "EXPIRED_TOKEN",
)  # as S3's client has it
GONE = "The working folder is not there any more."


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on a file system; its methods take names relative to it.

    A storage that is away for a while is tried again, see `subsettune.patience`.

    Args:
        filesystem: where it lies.
        path: its path there, without a trailing slash.
        guard: called before anything is changed; raises where this process may not change it any more.
    """

    filesystem: Any
    path: str
    guard: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, uri: str | Path) -> Folder:
        """The folder that a local path or a URI (`s3://bucket/runs`, `gs://...`, `file:///...`) names.

        Raises:
            StorageError: the URI is not understood, or its file system cannot be reached.
        """
        text = os.fspath(uri)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), str(absolute(text)))
        text = without_keys(text)
        _provide_region(text)
        try:
            filesystem, path = patiently(
                lambda: in_thread(lambda: _opened(text), OPENING_LIMIT_S), text, is_remote=True
            )
        except (OSError, ArrowException, ValueError) as error:
            words = f"storage {masked(text)!r} cannot be reached: {masked(_reason(error))}. Check the address."
            raise StorageError(words) from error
        return cls(filesystem, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether other programs on this machine find it under `path`."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}", self.guard)

    def guarded(self, guard: Callable[[], None]) -> Folder:
        """The same folder, with a guard."""
        return Folder(self.filesystem, self.path, guard)

    def __str__(self) -> str:
        scheme = {"gcs": "gs"}.get(self.filesystem.type_name, self.filesystem.type_name)
        return self.path if self.is_local else f"{scheme}://{self.path}"

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

        def act() -> bytes:
            with self.filesystem.open_input_file(self._join(name)) as stream:
                return bytes(stream.read())

        return self._call(act, name, "read", "")

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """The content of some files, in order; read several at a time, because a store answers each after a while.

        Raises:
            StorageError: one cannot be read.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.read, names))

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove some files, several at a time; one that is not there is no matter."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.remove, names))

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, making its folder if need be.

        Raises:
            StorageError: it cannot be written.
        """

        def act() -> None:
            if self.is_local:
                _write_local(Path(self._join(name)), content)
                return
            with self.filesystem.open_output_stream(self._join(name)) as stream:
                stream.write(content)

        self._change(act, name, "written", " Give a --storage folder that can be written.")

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
        return [info.base_name for info in self.infos(name)]

    def infos(self, name: str = "") -> list[Any]:
        """Arrow's `FileInfo` of the files and folders in a folder, by name; empty if it is not there."""
        path, is_google = self._join(name), self.filesystem.type_name == "gcs"
        selector = fs.FileSelector(path, allow_not_found=True, recursive=is_google)

        def act() -> list[Any]:
            try:
                found = self.filesystem.get_file_info(selector)
                return sorted(_children(path, found) if is_google else found, key=lambda info: info.base_name)
            except FileNotFoundError:  # it is made, or removed, at this very moment
                return []

        return self._call(act, name, "listed", " Give a --storage folder.")

    def total_bytes(self) -> int:
        """Size of everything inside."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = self._call(lambda: self.filesystem.get_file_info(selector), "", "listed", "")
        return sum(info.size or 0 for info in found)

    def trim(self, most_bytes: int) -> None:
        """Remove the oldest files of the folder until those left are no larger in all; files being written stay."""
        found = [info for info in self.infos() if not info.base_name.startswith(".")]
        kept_bytes = 0
        for info in sorted(found, key=lambda info: (info.mtime_ns or 0, info.base_name), reverse=True):
            kept_bytes += info.size or 0
            if kept_bytes > most_bytes:
                self.remove(info.base_name)

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder and everything in it; nothing happens if it is not there."""

        def act() -> None:
            info = self.filesystem.get_file_info(self._join(name))
            if info.type == fs.FileType.Directory:
                self._remove_dir(info.path)
            elif info.type != fs.FileType.NotFound:
                self.filesystem.delete_file(info.path)

        self._change(act, name, "removed", "")

    def _remove_dir(self, path: str) -> None:
        """Google's store has no folders, so that what stands for one is mostly not there to be removed last."""
        try:
            self.filesystem.delete_dir(path)
        except FileNotFoundError:
            if self.filesystem.get_file_info(path).type != fs.FileType.NotFound:
                raise

    def _join(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _info(self, name: str) -> Any:
        return self._call(lambda: self.filesystem.get_file_info(self._join(name)), name, "reached", "")

    def _change(self, act: Callable[[], None], name: str, done: str, advice: str) -> None:
        if self.guard is not None:
            self.guard()
        self._call(act, name, done, advice)

    def _call(self, act: Callable[[], T], name: str, done: str, advice: str) -> T:
        """What a call gives; one that fails for good is told in a sentence.

        Raises:
            StorageError: it does.
        """
        where = self.path if self.is_local else "/".join(str(self).split("/")[:3])
        try:
            return patiently(act, where, is_remote=not self.is_local)
        except (OSError, ArrowException) as error:
            if isinstance(error, NoAnswerError):
                advice = " What is finished is on record: start the same command again when the storage is back."
            elif is_full(error):
                advice = " Make room and start the same command again."
            elif any(word in str(error) for word in OF_KEYS):
                advice = " Check the keys, and what they may do there."
            what = f"{self}/{name}" if name else str(self)
            has_no_bucket = not self.is_local and done == "written" and isinstance(error, FileNotFoundError)
            why = "there is no such bucket" if has_no_bucket else _reason(error)  # as Google's client has it
            raise StorageError(f"{what} cannot be {done}: {why}.{advice}") from error


def _children(path: str, found: Iterable[Any]) -> Iterable[Any]:
    """What lies in a folder, of all that lies under it: Google's client lists files, and no folders that they make."""
    children: dict[str, Any] = {}
    for info in found:
        name, slash, _ = info.path.removeprefix(f"{path}/").partition("/")
        if not slash:
            children[name] = info
        children.setdefault(name, fs.FileInfo(f"{path}/{name}", type=fs.FileType.Directory))
    return children.values()


def append(path: Path, content: bytes, size_bytes: int) -> None:
    """Add to a file of this machine, which had so many bytes, or leave it as it was; on disk when this returns.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        patiently(lambda: _append_whole(path, content, size_bytes), str(path.parent), is_remote=False)
    except OSError as error:
        advice = "Make room" if is_full(error) else "Make it writable"
        message = f"{path} cannot be written: {error}. {advice} and start the same command again."
        raise StorageError(message) from error


def _append_whole(path: Path, content: bytes, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("ab") as stream:
            stream.truncate(size_bytes)  # what a kill left torn goes first
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size_bytes)
        raise


def _opened(text: str) -> tuple[Any, str]:
    """The file system and path that a URI names, with what Arrow leaves out by itself, where its version knows it.

    A small object is one request and not the three of an upload in parts, and a store of Google's that does not answer
    is given up after seconds and not after minutes.
    """
    more = {"s3": "allow_delayed_open=true", "gs": f"retry_limit_seconds={RETRY_LIMIT_S}"}
    more["gcs"] = more["gs"]
    setting = more.get(text.partition("://")[0])
    if setting is not None and setting.partition("=")[0] not in text:
        with contextlib.suppress(pa.ArrowInvalid):
            return fs.FileSystem.from_uri(f"{text}{'&' if '?' in text else '?'}{setting}")  # type: ignore[no-any-return]
    return fs.FileSystem.from_uri(text)  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    """What went wrong, without the name that the sentence has already."""
    number = getattr(error, "errno", None)
    if number is not None and not isinstance(error, NoAnswerError):
        return os.strerror(number)
    return " ".join(str(error).split()).rstrip(".")


def not_shared(storage: str, who: str) -> str:
    """The sentence for a storage that a node does not see."""
    advice = "Give a --storage that all nodes share: a bucket (s3://BUCKET/runs), or a folder that each of them mounts."
    return f"{who} does not see {masked(storage)}. {advice}"


def _provide_region(uri: str) -> None:
    """Put the region of a URI where the client of S3 looks for one first.

    Each of them would else ask the metadata service of a cloud for it, which takes 4 to 8 s where none answers, even
    with a region in the URI.
    """
    if not uri.startswith("s3://") or {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        return
    query = parse_qs(urlsplit(uri).query)
    own = query.get("region", ["us-east-1"] if "endpoint_override" in query else [])  # servers of one's own: any
    if own:
        os.environ["AWS_DEFAULT_REGION"] = own[0]


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
