"""Where and how a study runs; none of it changes what is searched."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subsettune import config
from subsettune.config import setting
from subsettune.data import DataPaths
from subsettune.errors import StorageError
from subsettune.keys import masked, without_keys
from subsettune.storage import Folder
from subsettune.study import DEFAULT_STORAGE
from subsettune.study.spec.definition import Study

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job
PACKAGES = "/runtime_resources/working_dir_files/"  # where it unpacks working folders


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """Where and how a study runs; none of it changes what is searched.

    Args:
        storage: folder or URI that holds studies.
        places: where this machine keeps data and caches.
        address: of a running Ray cluster; null starts one on this machine.
        executor: `ray`, or `inline`: in this process, one run after the other, without a cluster.
        device: `auto`, `cpu` or `cuda`.
        command: as the user typed it, for the record.
        stop: what stops the study, for people: a key, or the command that stops its job.
        fresh_seeds: confirm the policy that a finished study exported, with seeds and reference runs that nobody has
            looked at, instead of going on with the study.
    """

    storage: str = DEFAULT_STORAGE
    places: DataPaths = setting(DataPaths())
    address: str | None = None
    executor: Literal["ray", "inline"] = "ray"
    device: str = "auto"
    command: str = ""
    stop: str = "Ctrl-C"
    fresh_seeds: bool = False

    def __post_init__(self) -> None:
        config.check(self)
        object.__setattr__(self, "storage", without_keys(self.storage))  # from here on it is printed, and kept
        object.__setattr__(self, "command", masked(self.command))


@contextlib.contextmanager
def fresh_run_id(storage: str, name: str) -> Iterator[str]:
    """`name-1`, or the first number that no study in the storage has: kept from others, and given back by an error.

    Two studies that start at once get one each, because a folder can be made only once. An object store has no folders
    to make: there the name ends in something drawn.

    Args:
        storage: folder or URI that holds studies.
        name: of the study file.

    Raises:
        StorageError: the storage cannot be written.
    """
    folder = Folder.at(storage)
    if not folder.is_local:
        names = folder.names()
        yield f"{_numbered(name, [*names, *(each.rpartition('-')[0] for each in names)])}-{secrets.token_hex(3)}"
        return
    run_id = _numbered(name, folder.names())
    while not folder.claim(run_id):
        run_id = _numbered(name, [*folder.names(), run_id])
    try:
        yield run_id
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it: the study had begun
            Path(folder.path, run_id).rmdir()
        raise


def _numbered(name: str, taken: Iterable[str]) -> str:
    known = set(taken)
    return next(f"{name}-{number}" for number in itertools.count(1) if f"{name}-{number}" not in known)


def device_of(study: Study, options: TuneOptions) -> str:
    """What runs train on; those that are given no GPU leave it to those that are."""
    if options.executor == "ray" and options.device == "auto" and study.study.gpus_per_trial == 0:
        return "cpu"
    return options.device


def check_storage(options: TuneOptions) -> None:
    """Refuse a folder that a job of a cluster would leave in its copy of the working folder, which dies with it.

    Raises:
        StorageError: it is relative, or lies there.
    """
    storage = options.storage
    if JOB not in os.environ or "://" in storage:
        return
    if not Path(storage).expanduser().is_absolute() or PACKAGES in storage:
        advice = (
            "A job runs in a copy of the working folder on the head node, which goes with it. Give a bucket, as "
            "s3://BUCKET/runs, or the full path of a folder that all nodes mount."
        )
        raise StorageError(config.must("--storage", "a place that stays, in a job of a cluster", storage, advice))
