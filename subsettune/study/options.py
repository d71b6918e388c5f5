"""Where and how a study runs; none of it changes what is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from subsettune import config
from subsettune.config import setting
from subsettune.data import DataPaths
from subsettune.storage import Folder
from subsettune.study.spec.definition import Study


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
    """

    storage: str = "runs"
    places: DataPaths = setting(DataPaths())
    address: str | None = None
    executor: Literal["ray", "inline"] = "ray"
    device: str = "auto"
    command: str = ""

    def __post_init__(self) -> None:
        config.check(self)


def fresh_run_id(storage: str, name: str) -> str:
    """`name-1`, or the first number that no study in the storage has."""
    taken = set(Folder.at(storage).names())
    number = 1
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def device_of(study: Study, options: TuneOptions) -> str:
    """What runs train on; those that are given no GPU leave it to those that are."""
    if options.executor == "ray" and options.device == "auto" and study.study.gpus_per_trial == 0:
        return "cpu"
    return options.device
