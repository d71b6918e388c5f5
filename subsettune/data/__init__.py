"""The data of a task: found, read, checked, cached as a memory-mapped Arrow file, split, and handed out in batches.

Data flow one way: a source (`sources` and a module for each format) gives a `raw.Raw`; `cache` writes it as an Arrow
file named by its content (`arrays`); `split` and `distort` say which rows are whose; `parts` hands out batches that
`encode` has made into numbers. `load` goes all the way.
"""

from __future__ import annotations

import logging

import torch

from subsettune import config
from subsettune.data import distort, own_rows
from subsettune.data.arrays import Arrays
from subsettune.data.cache import (
    CachedData,
    as_read,
    cached,
    check_readable,
    fetch,
    recall,
    remember,
    remove_cached,
    stamp,
)
from subsettune.data.impute import fill_tensor
from subsettune.data.parts import Part, TaskData, assemble
from subsettune.data.places import DataPaths
from subsettune.data.split import VERSION, check_test_file, divide
from subsettune.data.split_columns import Rows, divide_by_column
from subsettune.errors import DataError
from subsettune.task import Task

__all__ = ["CachedData", "DataPaths", "Part", "TaskData", "cached", "load", "remove_cached"]

_LOG = logging.getLogger("subsettune.data")
_LOADED: dict[tuple[str, str, str], tuple[object, TaskData]] = {}


def load(task: Task, places: DataPaths | None = None, *, fingerprint: str | None = None) -> TaskData:
    """The data of a task, mapped from this machine's cache, split, distorted and ready to train on.

    Loaded once a process, and again when a file of the source has changed. A source that is not in the cache is read
    and cached first.

    Args:
        task: whose data.
        places: where this machine keeps things.
        fingerprint: what the data must be, as the study's driver knows them: a machine whose cache has them does not
            look at the source at all; any other reads the source and compares.

    Raises:
        DataError: the data cannot be used, or are not those of `fingerprint`.
        ConfigError: the user's function cannot be imported, or does not fit its options.
        StorageError: the cache cannot be written.
    """
    places = places or DataPaths()
    own = [own_rows.fingerprint_of(task)] if task.is_own else []
    what = config.digest([task.data, task.split, task.kind, task.distortion, *own])
    memo = (what, str(places.data_root), places.cache_folder)
    if not task.has_data:
        return _expected(own_rows.numbered(task), fingerprint)
    reads = task.split.reads
    now = stamp(task.data, task.kind, places, reads) if fingerprint is None else None
    known_stamp, known = _LOADED.get(memo, (None, None))
    data = known
    if data is None or (data.fingerprint != fingerprint if fingerprint is not None else known_stamp != now):
        data = _load(task, places, fingerprint)
        _LOADED[memo] = (now if now is None else as_read(now, task.data, task.kind, places, reads), data)
        is_said = known is not None and known_stamp is not None and _told(known) == _told(data)
        if fingerprint is None and not is_said:  # workers know it, and nobody reads what they say
            _say(data)
    return _expected(data, fingerprint)


def check_at_hand(task: Task, places: DataPaths, fingerprint: str | None) -> None:
    """Refuse a machine that neither has the data of a task in its cache nor their source; nothing large is read.

    Args:
        task: whose data.
        places: where this machine keeps things.
        fingerprint: of the data, as the study's driver knows them.

    Raises:
        DataError: the source cannot be found.
        ConfigError: the user's function cannot be imported, or does not fit its options.
        StorageError: the cache cannot be written.
    """
    if task.has_data and (fingerprint is None or recall(fingerprint, places) is None):
        check_readable(task.data, task.kind, places, task.split.reads)


def _expected(data: TaskData, fingerprint: str | None) -> TaskData:
    if fingerprint is not None and data.fingerprint != fingerprint:
        raise DataError(
            f"the data here have the fingerprint {data.fingerprint[:16]}, and {fingerprint[:16]} were expected. "
            "Give every machine the same data."
        )
    return data


def _say(data: TaskData) -> None:
    """Log what is not what it seems; `audit` tells it to people who look."""
    for note in _told(data)[1]:
        _LOG.warning("%s", note)


def _told(data: TaskData) -> tuple[str, tuple[str, ...]]:
    """Which data, and what there is to know of them."""
    return data.fingerprint, (*(data.facts.sentences if data.facts is not None else ()), *data.notes)


def _load(task: Task, places: DataPaths, fingerprint: str | None) -> TaskData:
    arrays = None if fingerprint is None else recall(fingerprint, places)
    if arrays is None or _fingerprint(arrays, task) != fingerprint:
        arrays = fetch(task.data, task.kind, places, task.split.reads)
    known = _fingerprint(arrays, task)
    remember(known, arrays.meta.fingerprint, places)
    rows = _rows(arrays, task)
    fill_tensor(arrays.inputs, arrays.meta.imputed, rows["train"])
    return assemble(arrays, rows, known, task.distortion, task.data.vocabulary)


def _fingerprint(arrays: Arrays, task: Task) -> str:
    if task.is_own:
        return own_rows.fingerprint_of(task, arrays.meta.fingerprint)
    distortion = [] if task.distortion.is_off else [task.distortion, distort.VERSION]
    texts = [min(task.data.vocabulary, len(arrays.meta.vocabulary))] if arrays.meta.tokens else []
    return config.digest([arrays.meta.fingerprint, task.split, VERSION, *distortion, *texts])


def _rows(arrays: Arrays, task: Task) -> dict[str, torch.Tensor]:
    """Rows of each part in the mapped file, where those of validation and test file follow the training file's."""
    if task.is_own:
        return own_rows.rows_beside(arrays, task)
    meta, (num_train, num_validation) = arrays.meta, arrays.meta.sizes
    rows = Rows(
        targets=arrays.targets,
        marks=arrays.targets if arrays.marks is None else arrays.marks,
        names=meta.mark_names,
        sizes=(num_train, num_validation, len(arrays.inputs) - num_train - num_validation),
        class_names=meta.classes,
    )
    if task.split.reads is not None:
        return divide_by_column(rows, task.split)
    has = {f"has_{part}_file": bool(size) for part, size in zip(("validation", "test"), rows.sizes[1:], strict=True)}
    parts = divide(arrays.targets[:num_train], task.split, len(meta.classes), class_names=meta.classes, **has)
    for part, chosen in rows.from_files.items():
        if meta.classes:
            check_test_file(arrays.targets[chosen], meta.classes, part)
        parts[part] = chosen
    return parts
