"""The fingerprint of data in hand, by the reader of a bundle's task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from subsettune import in_memory
from subsettune.data import DataPaths, load
from subsettune.task import Task


def fingerprint_of(task: Task, data: Any, places: DataPaths | None = None) -> str:
    """See `Bundle.fingerprint_of`."""
    named = replace(task, data=replace(task.data, source=in_memory.source_name(data)))
    return load(named, places or DataPaths()).fingerprint
