"""What the benchmark of studies trains: scikit-learn's digits, and small parts of MNIST, Adult and TREC.

A `Bench` is a task with two spaces: the one of its table, whose coordinates are all lists, so that every policy of it
can be trained beforehand; and where real studies are run, the one of `search_spaces/digits.yaml`.
"""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subsettune import config
from subsettune.study.spec.definition import Study, parse
from subsettune.study.spec.yaml_file import read
from subsettune.study.verification.noninferiority import MOST_OWN

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "search_spaces" / "digits.yaml"
NUM_SPLITS = 24  # of the digits
GRID_BUDGETS = (0.1, 0.143, 0.205, 0.293, 0.419, 0.6)  # of the plain grid on digits: even in the logarithm
GRID_RATES = (0.1, 0.2, 0.4)  # likewise: the recipe's, and higher, as shorter trainings want them
NUM_COLUMNS = 40  # seeds of a table: as many as a verification may ask of a policy that costs little
NEARLY_ALL = {"subset_share": 0.995, "selector": "random"}
SAME_ORDER = {"subset_share": 1, "selector": None, "order": "studies_parts.same_order:Same"}
PLACEBOS: Mapping[str, Mapping[str, Any]] = {  # what differs from the study of the digits; None removes a coordinate
    "share 0.995": {"space": NEARLY_ALL, "recipe": {}},
    "share 0.995, batches of 32": {"space": NEARLY_ALL, "recipe": {"batch_size": 32}},
    "an order that does nothing": {"space": SAME_ORDER, "recipe": {}},
}
TABLED_BUDGETS = (0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.42, 0.6)  # closer where policies begin to pass
SMALL_BUDGETS = (0.12, 0.2, 0.32, 0.5, 0.8)
MAX_SEEDS = NUM_COLUMNS // MOST_OWN  # so that no verification asks for more seeds than a table has
SETTINGS: Mapping[str, Any] = {"trials": 40, "seeds": 5, "max_seeds": MAX_SEEDS, "alpha": 0.05, "candidates": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A task whose space is tabled.

    Args:
        name: of the table's file, too.
        study: task, space of lists, settings.
        num_columns: seeds with which each policy of the space is trained.
    """

    name: str
    study: Study
    num_columns: int


def digits_study(split: int, seed: int = 0, space: Mapping[str, Any] | None = None) -> Study:
    """The study of `search_spaces/digits.yaml` on another split, one run at a time.

    Args:
        split: seed of the split.
        seed: of the study.
        space: instead of the file's; None keeps that.
    """
    study = read(DIGITS).with_settings({"seed": seed, "parallel": 1})
    task = dataclasses.replace(study.task, split=dataclasses.replace(study.task.split, seed=split))
    changed = dataclasses.replace(study, task=task)
    return changed if space is None else parse({**_plain(changed), "space": dict(space)})


def placebo_study(split: int, seed: int, kind: str) -> Study:
    """A study on digits with a component that does nothing: no policy with it can win by what it is.

    Args:
        split: seed of the split.
        seed: of the study.
        kind: a key of `PLACEBOS`.
    """
    study = digits_study(split, seed)
    changes = PLACEBOS[kind]
    plain = {**_plain(study), "space": {**study.space, "transition": "keep", **changes["space"]}}
    plain["space"] = {key: value for key, value in plain["space"].items() if value is not None}
    plain["task"]["recipe"] |= changes["recipe"]
    return parse(plain)


def tabled(name: str) -> Bench:
    """A task with a table, by name.

    Raises:
        KeyError: there is none of that name.
    """
    return BENCHES[name]()


def _plain(study: Study) -> dict[str, Any]:
    return dict(config.to_plain(study))


def _tabled_digits(split: int) -> Bench:
    space = {
        "budget": {"choice": list(TABLED_BUDGETS)},
        "arm": {"choice": ["full", "subset"]},
        "switch": {"choice": [0.3, 0.6]},
        "subset_share": 0.3,
        "selector": {"choice": ["random", "kcenter"]},
        "transition": "keep",
        "lr": {"choice": list(GRID_RATES)},
    }
    study = digits_study(split, space=space).with_settings({"max_seeds": MAX_SEEDS})
    return Bench(name=f"digits-{split}", study=study, num_columns=NUM_COLUMNS)


# More than six parameters: each is a key of the study file that is made of them.
def _small(
    name: str,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    recipe: Mapping[str, Any],
    rates: tuple[float, ...],
    switches: tuple[float, ...],
    tolerance: float,
) -> Bench:
    task = {
        "data": data,
        "split": {"validation": 0.2, "seed": 0},
        "model": model,
        "recipe": recipe,
        "metric": "accuracy",
        "tolerance": tolerance,
    }
    space = {
        "budget": {"choice": list(SMALL_BUDGETS)},
        "arm": {"choice": ["full", "subset"]},
        "switch": {"choice": list(switches)},
        "subset_share": 0.3,
        "selector": "random",
        "transition": "keep",
        "lr": {"choice": list(rates)},
    }
    return Bench(
        name=name,
        study=parse({"task": task, "space": space, "study": SETTINGS}),
        num_columns=NUM_COLUMNS,
    )


def _mnist() -> Bench:
    recipe = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 12, "schedule": "cosine"}
    return _small(
        "mnist-small",
        {"source": "mnist_small.npz"},
        {"name": "mlp", "hidden": [32]},
        recipe,
        rates=(0.05, 0.1, 0.2),
        switches=(0.3, 0.6),
        tolerance=0.01,
    )


def _adult() -> Bench:
    recipe = {
        **{"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "batch_size": 128, "epochs": 10},
        "schedule": "cosine",
    }
    return _small(
        "adult-small",
        {"source": "adult_small/", "label": "income"},
        {"name": "mlp", "hidden": [64]},
        recipe,
        rates=(1e-3, 2e-3, 4e-3),
        switches=(0.4,),
        tolerance=0.005,
    )


def _trec() -> Bench:
    recipe = {
        **{"optimizer": "adamw", "lr": 1e-2, "weight_decay": 1e-2, "batch_size": 64, "epochs": 6},
        "schedule": "one_cycle",
    }
    data = {"source": "trec_small/", "text": "text", "label": "label", "tokens": "words", "max_tokens": 10}
    model = {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "feedforward": 32, "dropout": 0.1}
    return _small(
        "trec-small",
        {**data, "vocabulary": 2000},
        model,
        recipe,
        rates=(1e-2, 2e-2),
        switches=(0.4,),
        tolerance=0.01,
    )


BENCHES = {
    "digits-0": lambda: _tabled_digits(0),
    "digits-1": lambda: _tabled_digits(1),
    "mnist-small": _mnist,
    "adult-small": _adult,
    "trec-small": _trec,
}


# --- small parts of published data ------------------------------------------------------------------------------------

PARQUET = {  # folder of the converted files, then rows kept of train and test
    "adult_small": ("adult", {"train": 5000, "test": 4000}),
    "trec_small": ("trec", {"train": 5452, "test": 500}),
}
MNIST_ROWS = {"train": 2500, "t10k": 2000}
IDX = ("images-idx3-ubyte", "labels-idx1-ubyte")
Bytes = NDArray[np.uint8]


def write_small(source: Path, target: Path) -> None:
    """Cut the small data sets out of the whole ones: the first examples of each; what is there is left as it is.

    Args:
        source: holds MNIST/raw as torchvision has it, and adult and trec as `benchmarks/convert` writes them.
        target: folder that `data_root` then names.
    """
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "mnist_small.npz").exists():
        _write_mnist(source / "MNIST" / "raw", target / "mnist_small.npz")
    for name, (whole, rows) in PARQUET.items():
        for part, size in rows.items():
            path = target / name / f"{part}.parquet"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                pq.write_table(pq.read_table(source / whole / path.name).slice(0, size), path)


def _write_mnist(raw: Path, path: Path) -> None:
    (x_train, y_train), (x_test, y_test) = (mnist_part(raw, stem, MNIST_ROWS[stem]) for stem in MNIST_ROWS)
    np.savez_compressed(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def mnist_part(raw: Path, stem: str, num_rows: int) -> tuple[Bytes, Bytes]:
    """Images and labels: the headers of the two kinds of file have 16 and 8 bytes."""
    images, labels = (gzip.decompress((raw / f"{stem}-{kind}.gz").read_bytes()) for kind in IDX)
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels[:num_rows], np.frombuffer(labels, np.uint8, offset=8)[:num_rows]
