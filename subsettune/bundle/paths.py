"""Paths of data in a bundle: written so that they hold from whatever folder it is followed in."""

from __future__ import annotations

from dataclasses import replace

from subsettune.data import DataPaths
from subsettune.data.sources import is_function
from subsettune.in_memory import is_given
from subsettune.registry import DATASETS
from subsettune.task import Task


def is_path(source: object) -> bool:
    """Whether a source is a path of files, and no data set by name, or code, or what was handed over in Python."""
    if not isinstance(source, str) or is_given(source):
        return False
    return source not in DATASETS and not is_function(source)


def placed(task: Task, places: DataPaths) -> Task:
    """A task whose path of data holds from any folder, and needs no data root."""
    if not is_path(task.data.source):
        return task
    return replace(task, data=replace(task.data, source=str(places.own(task.data.source))))
