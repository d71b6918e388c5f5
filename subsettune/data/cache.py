"""The cache of data on this machine: Arrow files by content, and an index from sources to contents."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from subsettune.data import arrays, raw, sources
from subsettune.data.places import Places
from subsettune.errors import DataError, StorageError
from subsettune.storage import Folder
from subsettune.task import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedData:
    """A data set in the cache.

    Args:
        path: of its file.
        source: where it came from.
        fingerprint: of its content.
        num_bytes: its size.
        used: date of its last change, ISO 8601.
    """

    path: str
    source: str
    fingerprint: str
    num_bytes: int
    used: str


def fetch(data: Data, kind: str, places: Places) -> arrays.Arrays:
    """The arrays of a source: from the cache if they are there, else read once and cached.

    Several processes may ask at once: one reads, the others wait.

    Raises:
        DataError: the source cannot be used, or the cached file is damaged.
        StorageError: the cache cannot be written.
    """
    source = sources.find(data, kind, places)
    folder = Path(places.cache_folder) / "data"
    index = folder / f"{source.key[:32]}.json"
    known = _indexed(index, folder)
    if known is not None:
        return arrays.read(known)
    with _locked(folder / f"{source.key[:32]}.lock"):
        known = _indexed(index, folder)
        return arrays.read(known if known is not None else _make(source, kind, folder, data, places))


def _make(source: sources.Source, kind: str, folder: Path, data: Data, places: Places) -> Path:
    read = source.read()
    inputs, targets, classes = raw.checked(read, kind)
    meta = arrays.Meta(source=source.name, kind=kind, shape=inputs.shape[1:], num_train=read.num_train, classes=classes)
    meta = replace(meta, fingerprint=arrays.fingerprint(inputs, targets, meta))
    path = folder / f"{meta.fingerprint}.arrow"
    try:
        if not path.exists():
            arrays.write(path, inputs, targets, meta)
    except OSError as error:
        raise StorageError(f"cache {folder} cannot be written: {error}. Give --cache a folder that can.") from error
    # Reading may have unpacked or fetched files: index the source as it is now.
    now = sources.find(data, kind, places)
    for key in {source.key, now.key}:
        Folder.at(folder).write(f"{key[:32]}.json", json.dumps({"fingerprint": meta.fingerprint}).encode())
    return path


def _indexed(index: Path, folder: Path) -> Path | None:
    try:
        path = folder / f"{json.loads(index.read_text())['fingerprint']}.arrow"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"cache index {index} is damaged: {error}. Remove the file: it is made anew.") from error
    return path if path.exists() else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes of this machine; it goes with the process that holds it, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise StorageError(
            f"cache {path.parent} cannot be written: {error}. Give --cache a folder that can."
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def cached(places: Places) -> tuple[CachedData, ...]:
    """What is in the cache."""
    found = []
    for path in sorted((Path(places.cache_folder) / "data").glob("*.arrow")):
        try:
            source = arrays.read(path).meta.source
        except DataError:
            source = f"damaged: {path.name}"
        changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        found.append(
            CachedData(
                path=str(path),
                source=source,
                fingerprint=path.stem,
                num_bytes=path.stat().st_size,
                used=changed.date().isoformat(),
            )
        )
    return tuple(found)


def remove_cached(fingerprint: str, places: Places) -> None:
    """Remove a data set from the cache; a run that has it mapped keeps it until it ends."""
    folder = Path(places.cache_folder) / "data"
    (folder / f"{fingerprint}.arrow").unlink(missing_ok=True)
    for index in folder.glob("*.json"):
        with contextlib.suppress(ValueError, KeyError, OSError):
            if json.loads(index.read_text())["fingerprint"] == fingerprint:
                index.unlink()
