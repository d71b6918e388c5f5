"""Files of the user's own, written and loaded as a task's data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from subsettune.data import DataPaths, TaskData, load
from subsettune.data.columns import ColumnFacts
from subsettune.task import Data, Model, Recipe, Split, Task

ROWS = 60


def csv_text(header: str, row: Callable[[int], str], num_rows: int = ROWS) -> str:
    """A line of names, and so many rows."""
    return "".join(f"{line}\n" for line in (header, *map(row, range(num_rows))))


def pets(num_rows: int = ROWS) -> str:
    """A small table: a number, a text, whole numbers, and labels that none of them tells."""
    rng = np.random.default_rng(0)
    numbers, labels = rng.normal(size=num_rows), rng.choice(["cat", "dog"], num_rows)
    colours = ("red", "blue", "green")
    return csv_text("a,colour,n,label", lambda i: f"{numbers[i]:.3f},{colours[i % 3]},{i % 7},{labels[i]}", num_rows)


def task_of(source: Any, *, metric: str = "accuracy", split: dict[str, Any] | None = None, **data: Any) -> Task:
    """A task of such data."""
    return Task(
        data=Data(source=source, **data),
        split=Split(**(split or {})),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,
        tolerance=0.01,
    )


def load_source(source: Any, cache: Path, **given: Any) -> TaskData:
    """The data of a source; what is given goes to `task_of`."""
    name = str(source) if isinstance(source, Path) else source
    return load(task_of(name, **given), DataPaths(cache=str(cache), download=False))


def load_csv(folder: Path, text: str | bytes, **given: Any) -> TaskData:
    """The data of a .csv file with a content."""
    path = folder / "d.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_source(path, folder / "cache", **given)


def column(data: TaskData, name: str) -> ColumnFacts:
    """What is known of a column."""
    assert data.facts is not None
    return next(facts for facts in data.facts.columns if facts.name == name)
