"""The cache of data on this machine: Arrow files by content, and an index from sources and tasks to contents.

<cache>/data/<content>.arrow      the examples; written under another name, then renamed
<cache>/data/<key>.json           which content a source, or the data of a task, has; the file's size and time; and of a
                                  source what was found when it was read
<cache>/data/<key>.lock           held while a source is read; it goes with the process that holds it
<cache>/data/<key>.partial, .unpacked    what a process works on, or a killed one left; the next one writes over it
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from subsettune import in_memory
from subsettune.data import arrays, raw, sources
from subsettune.data.columns import SourceFacts
from subsettune.data.facts import completed
from subsettune.data.handed_over import given_here
from subsettune.data.layout import OWN_IDS
from subsettune.data.places import DataPaths
from subsettune.digests import changing
from subsettune.errors import ConfigError, DataError, StorageError
from subsettune.storage import Folder
from subsettune.task import Data

LEFTOVERS = (".partial", ".unpacked")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedData:
    """A data set in the cache.

    Args:
        path: of its file.
        source: where it came from.
        fingerprint: of its content, for `remove_cached`; of a leftover, its name.
        num_bytes: its size.
        used: date of its last change, ISO 8601.
    """

    path: str
    source: str
    fingerprint: str
    num_bytes: int
    used: str


def fetch(data: Data, kind: str, places: DataPaths, reads: str | None = None) -> arrays.Arrays:
    """The arrays of a source: from the cache if they are there, else read once and cached.

    Several processes may ask at once: one reads, the others wait.

    Args:
        data: of the task.
        kind: of the task.
        places: where this machine keeps the cache.
        reads: the column that the task's split goes by, if any.

    Raises:
        DataError: the source cannot be used, or the cached file is damaged.
        StorageError: the cache cannot be written.
    """
    source = sources.find(data, kind, places, reads)
    folder = _folder(places)
    key = source.key[:32]
    known = _recalled(folder, key, source.witness)
    if known is not None:
        return known
    with locked(folder / f"{key}.lock"):
        known = _recalled(folder, key, source.witness)  # another process may have made it while this one waited
        if known is not None:
            return known
        try:
            content, keys, told = _make(source, data, kind, folder)
        finally:
            _remove_leftovers(folder, key)
        for each in keys:
            _index(folder, each, content, told, source.witness)
        return replace(arrays.read(folder / f"{content}.arrow"), facts=told)


def stamp(data: Data, kind: str, places: DataPaths, reads: str | None = None) -> list[Any]:
    """What changes when a source does, for a look at its files and without reading it; errors as of `fetch`."""
    source = sources.find(data, kind, places, reads)
    if source.witness is None:
        return [source.key]
    return [source.key, source.witness.files_now(_read_entry(_entry(source, places)))]


def as_read(before: list[Any], data: Data, kind: str, places: DataPaths, reads: str | None = None) -> list[Any]:
    """The stamp that a source had when it was read, which may be another by now; errors as of `fetch`.

    Args:
        before: its stamp before; which files a function reads is known only afterwards.
        data: of the task.
        kind: of the task.
        places: where this machine keeps the cache.
        reads: the column that the task's split goes by, if any.
    """
    source = sources.find(data, kind, places, reads)
    return before if source.witness is None else [source.key, _read_entry(_entry(source, places)).get("files", [])]


def check_readable(data: Data, kind: str, places: DataPaths, reads: str | None = None) -> None:
    """Refuse a machine where a source is not, or where the cache has no place for it; nothing large is read.

    Raises:
        DataError: the source is not there.
        ConfigError: the user's function cannot be imported.
        StorageError: the cache cannot be written.
    """
    sources.find(data, kind, places, reads)
    if in_memory.is_given(data.source):
        given_here(data.source)
    folder = _folder(places)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _entry(source: sources.Source, places: DataPaths) -> Path:
    return _folder(places) / f"{source.key[:32]}.json"


def recall(fingerprint: str, places: DataPaths) -> arrays.Arrays | None:
    """The arrays that `remember` noted for the data of a task, without a look at their source; None if not here.

    Raises:
        DataError: the cached file is damaged.
    """
    return _recalled(_folder(places), fingerprint[:32])


def remember(fingerprint: str, content: str, places: DataPaths) -> None:
    """Note which content the data of a task are made of; a cache that cannot be written stays as it is."""
    folder = _folder(places)
    entry = folder / f"{fingerprint[:32]}.json"
    if not entry.exists():
        with contextlib.suppress(OSError):  # nothing is lost: the content is found by its source instead
            _index(folder, fingerprint[:32], content)


def cached(places: DataPaths) -> tuple[CachedData, ...]:
    """What is in the cache, and what killed processes left there."""
    folder = _folder(places)
    found = []
    for path in sorted(p for suffix in (".arrow", *LEFTOVERS) for p in folder.glob(f"*{suffix}")):
        with contextlib.suppress(FileNotFoundError):  # made or removed while we look
            whole = path.suffix == ".arrow"
            changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
            found.append(
                CachedData(
                    path=str(path),
                    source=_source_name(path) if whole else "unfinished",
                    fingerprint=path.stem if whole else path.name,
                    num_bytes=sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file()),
                    used=changed.date().isoformat(),
                )
            )
    return tuple(found)


def remove_cached(fingerprint: str, places: DataPaths) -> None:
    """Remove a data set, or a leftover, from the cache; a run that has it mapped keeps it until it ends.

    Waits for processes that are reading its source.

    Args:
        fingerprint: SHA-256 of the content, or the file name of a leftover: what `cached` tells of it.
        places: where this machine keeps the cache.
    """
    folder = _folder(places)
    if fingerprint.endswith(LEFTOVERS):
        key = fingerprint.rpartition(".")[0]
        with locked(folder / f"{key}.lock"):
            _remove_leftovers(folder, key)
        return
    entries = [entry for entry in folder.glob("*.json") if _read_entry(entry).get("fingerprint") == fingerprint]
    with contextlib.ExitStack() as locks:
        for entry in sorted(entries):
            locks.enter_context(locked(entry.with_suffix(".lock")))
        (folder / f"{fingerprint}.arrow").unlink(missing_ok=True)
        for entry in entries:
            entry.unlink(missing_ok=True)


def _folder(places: DataPaths) -> Path:
    return Path(places.cache_folder) / "data"


def _make(source: sources.Source, data: Data, kind: str, folder: Path) -> tuple[str, set[str], SourceFacts]:
    """Read a source and write its Arrow file.

    Returns:
        The fingerprint of its content, the keys that it has, and what was found in it.
    """
    key = source.key[:32]
    _remove_leftovers(folder, key)
    read = source.read(folder / f"{key}.unpacked")
    inputs, targets, classes = raw.checked(read, kind)
    told = completed(read, inputs, targets, data)
    marks = None if read.marks is None else np.ascontiguousarray(read.marks.values)
    meta = arrays.Meta(
        source=source.name,
        kind=kind,
        shape=inputs.shape[1:],
        num_train=read.num_train,
        classes=classes,
        columns=read.columns if read.categories else (),
        categories=read.categories,
        num_embedding=0 if read.embeddings is None else read.embeddings.shape[1],
        tokens=read.tokens,
        vocabulary=read.vocabulary,
        shift=read.scaling.shift,
        exponent=read.scaling.exponent,
        notes=read.scaling.notes,
        num_ids=int(inputs.max()) + 1 if read.tokens == OWN_IDS else 0,
        num_validation=read.num_validation,
        imputed=read.imputed,
        marks="" if marks is None else str(marks.dtype),
        mark_names=() if read.marks is None else read.marks.names,
    )
    meta = replace(meta, fingerprint=arrays.fingerprint(inputs, targets, meta, read.embeddings, marks))
    path, partial = folder / f"{meta.fingerprint}.arrow", folder / f"{key}.partial"
    try:
        arrays.write(partial, inputs, targets, meta, read.embeddings, marks)
        keys = _keys(source)  # now that nothing is read any more
        partial.replace(path)  # the same content under another source, perhaps: whole in any case
    except DataError:
        raise
    except OSError as error:
        raise _unwritable(folder, error) from error
    return meta.fingerprint, keys, told


def _keys(source: sources.Source) -> set[str]:
    """The keys of a source that was just read: before it fetched files, and after.

    Raises:
        DataError: it has changed meanwhile, so that nobody knows what was read.
    """
    now = source.key if source.key_now is None else source.key_now()
    if now != source.key and not source.may_fetch:
        raise changing(source.name)
    return {source.key[:32], now[:32]}


def _index(
    folder: Path,
    key: str,
    content: str,
    told: SourceFacts | None = None,
    witness: sources.Witness | None = None,
) -> None:
    entry: dict[str, Any] = {"fingerprint": content}
    if told is not None:  # not in the Arrow file: another source may have the same content, and other columns
        entry["facts"] = told.to_mapping()
    entry |= {} if witness is None else witness.evidence()
    _write_entry(folder, key, entry, (folder / f"{content}.arrow").stat())


def _write_entry(folder: Path, key: str, entry: dict[str, Any], stat: os.stat_result) -> None:
    now = {**entry, "num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    Folder.at(folder).write(f"{key}.json", json.dumps(now).encode())


def _recalled(folder: Path, key: str, witness: sources.Witness | None = None) -> arrays.Arrays | None:
    """The arrays that an entry of the index names; None without entry or file, or where its source has changed.

    Hashing everything at each load would cost what the cache saves. A file with the size and time that it was written
    with is taken as it is; any other is hashed.
    """
    entry = _read_entry(folder / f"{key}.json")
    if not entry or (witness is not None and not witness.holds(entry)):
        return None
    path = folder / f"{entry['fingerprint']}.arrow"
    try:
        told = SourceFacts.from_mapping(entry["facts"]) if "facts" in entry else None
        stat, found = path.stat(), arrays.read(path)
    except (FileNotFoundError, ConfigError):
        return None
    if (stat.st_size, stat.st_mtime_ns) != (entry.get("num_bytes"), entry.get("mtime_ns")):
        arrays.verify(path, found)
        with contextlib.suppress(OSError):  # a cache that cannot be written is hashed at each load
            _write_entry(folder, key, entry, stat)  # the rest as it is: nothing was read that could tell of files
    return replace(found, facts=told)


def _read_entry(entry: Path) -> dict[str, Any]:
    """An entry of the index; empty if there is none, or one that is not understood: it is then made anew."""
    try:
        found = json.loads(entry.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("fingerprint"), str) else {}


def _remove_leftovers(folder: Path, key: str) -> None:
    (folder / f"{key}.partial").unlink(missing_ok=True)
    shutil.rmtree(folder / f"{key}.unpacked", ignore_errors=True)


def _source_name(path: Path) -> str:
    try:
        return arrays.read(path).meta.source
    except DataError:
        return f"damaged: {path.name}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes of this machine; it goes with the process that holds it, however that ends.

    Not `filelock`, as for studies: reading data takes no package that a base install does not bring.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(path.open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        yield


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cache {folder} cannot be written: {error}. Give --cache a folder that can.")
