"""The examples of a task that a function of the user's trains: so many numbers, and what selectors may know of them."""

from __future__ import annotations

import torch

from subsettune import config
from subsettune.data.arrays import Arrays
from subsettune.data.encode import Normalizer
from subsettune.data.parts import Part, TaskData
from subsettune.errors import DataError
from subsettune.task import Task

NO_CONTENT = torch.zeros(1, 1)


def fingerprint_of(task: Task, content: str | None = None) -> str:
    """What is known of the identity of such data: their number, their version, and what stands beside."""
    return config.digest(["own", task.examples, task.version, content])


def numbered(task: Task) -> TaskData:
    """Examples of which nothing is known but how many there are."""
    assert task.examples is not None, "a task says how many examples its function has"
    rows, encoder = torch.arange(task.examples), Normalizer(mean=NO_CONTENT, scale=NO_CONTENT + 1)
    inputs = NO_CONTENT.expand(task.examples, 1)
    part = Part(inputs, torch.zeros(1, dtype=torch.int64).expand(task.examples), rows, encoder)
    nothing = Part(inputs, part.all_targets, rows[:0], encoder)
    return TaskData(
        train=part,
        validation=nothing,
        test=nothing,
        fingerprint=fingerprint_of(task),
        kind=task.kind,
        num_outputs=1,
        num_classes=0,
        input_shape=(1,),
        class_names=(),
        num_source_examples=task.examples,
    )


def rows_beside(arrays: Arrays, task: Task) -> dict[str, torch.Tensor]:
    """Rows of each part of data that stand beside a training function: all of them are training examples.

    Raises:
        DataError: there are more or fewer of them than the function has, or a test file among them.
    """
    found = arrays.meta.num_train
    if found != task.examples:
        rule = f"one row for each of the {task.examples:,} training examples of task.examples"
        raise DataError(config.must("data beside train", rule, found, "Leave out what the function holds out."))
    if len(arrays.inputs) > found:
        raise DataError(
            "data beside train must be training examples alone, and there is a test file with them. "
            "Name the training file: what the function is judged on it reads itself."
        )
    rows = torch.arange(found)
    return {"train": rows, "validation": rows[:0], "test": rows[:0]}
