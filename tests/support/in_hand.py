"""Small tables with a learnable label, and models that were trained on them: what tests of models in hand ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subsettune import DataPaths, Phase, Policy, Task, TrainedModel, train
from subsettune.train import RunOptions, RunResult

RECIPE = {"lr": 0.1, "momentum": 0.9, "batch_size": 32, "epochs": 4}
PLACES = DataPaths()


def people(num_rows: int = 200, seed: int = 0, cities: tuple[str, ...] = ("Lima", "Oslo", "Rome")) -> pa.Table:
    """Numbers, categories, a list and a large number, and whether somebody says yes."""
    rng = np.random.default_rng(seed)
    age, city = rng.integers(18, 80, num_rows), rng.choice(cities, num_rows)
    noise = rng.normal(0, 0.3, num_rows)
    return pa.table(
        {
            "age": age,
            "city": city,
            "where": rng.normal(size=(num_rows, 2)).tolist(),
            "account": 10**15 + rng.integers(0, 1000, num_rows),
            "label": np.where((age - 50) / 15 + (city == "Oslo") * 2 - 1 + noise > 0, "yes", "no"),
        }
    )


def visits(num_rows: int = 240, seed: int = 0, *, has_gaps: bool = True) -> str:
    """A .csv file of texts, numbers with gaps, whole numbers and dates, and whether somebody came."""
    rng = np.random.default_rng(seed)
    lines = ["when,kind,age,score,group,came"]
    for i in range(num_rows):
        age, kind = int(rng.integers(18, 80)), rng.choice(["new", "old", "01"])
        day = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{2020 + i % 4}"
        came = "yes" if age / 20 + 2 * (kind == "new") + rng.normal(0, 0.5) > 3.2 else "no"
        gone = has_gaps and i % 9 == 4
        lines.append(f"{'' if gone else day},{kind},{'' if gone else age},{rng.normal():.3f},g{i % 30},{came}")
    return "\n".join(lines) + "\n"


def written(folder: Path, table: pa.Table, name: str = "people.parquet") -> str:
    """Path of a table that was written there."""
    pq.write_table(table, folder / name)
    return str(folder / name)


def task_of(source: str, **changes: Any) -> Task:
    """A task on a file."""
    plain: dict[str, Any] = {
        "data": {"source": source},
        "split": {"validation": 0.2, "test": 0.2},
        "model": {"name": "mlp", "hidden": [16]},
        "recipe": RECIPE,
        "tolerance": 0.3,
    }
    return Task(**{**plain, **changes})


def trained(task: Task, policy: Policy | None = None, seed: int = 0) -> tuple[TrainedModel, RunResult]:
    """A model of a task, and the run that it comes from."""
    options = RunOptions(device="cpu", num_threads=1, places=PLACES)
    result = train.run(task, policy or Policy(phases=(Phase(passes=4),)), seed, final=True, options=options)
    return TrainedModel.of(result, task, PLACES), result
