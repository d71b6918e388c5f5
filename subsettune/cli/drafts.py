"""Drafts of study files: what is guessed of somebody's data, each guess with the reason beside it.

A draft runs as it is: its data are read, and its network and space are checked, before it is written.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from subsettune import config
from subsettune.data import DataPaths, TaskData, load
from subsettune.data.columns import PLAIN_NAME
from subsettune.data.csv_dialect import SUFFIXES as CSV
from subsettune.data.csv_dialect import dialect_of
from subsettune.data.formats import format_of
from subsettune.data.labels import WHOLE
from subsettune.data.mendable import MendableDataError, MixedLabelsError
from subsettune.data.parquet_files import open_file, table_files
from subsettune.data.raw import EACH, MANY
from subsettune.data.tsv import SUFFIXES as TSV
from subsettune.data.tsv import names_of
from subsettune.errors import DataError, DataNotFoundError, did_you_mean
from subsettune.goal import LOOKS_FOR
from subsettune.registry import DATASETS, METRICS
from subsettune.task import Csv, Data, Model, Recipe, Split, Task

LABELS = ("label", "labels", "target", "class", "y", "outcome", "species", "category")
MANY_CLASSES, FEW_EACH = 20, 10  # numbers that are more classes, or of fewer examples each, are a quantity
MOST_LISTED = 30  # columns in a message
SKEWED = 0.8  # share of the largest class beyond which accuracy tells little
UPDATES = 1000  # that a small network takes to learn most of what it will
EPOCHS = (5, 60)
BATCHES = (16, 256)
BATCHES_AN_EPOCH = 40
LEAST_SHARE = 0.05  # of the training examples
SMALL = 5_000  # rows, of which larger shares are held out
LEAST_PIXELS = 12  # of a side, for which convolutions are worth it
OF_VARIANCE = 0.01  # that a regression may fall short by, as of r2; half of it of the deviation, its root
LARGE = 1000  # standard deviation of labels, from which on their mean squared error has seven digits or more
OF_LOSS = 0.02  # nats, of a loss of classes
RATES = {"mlp": 2e-3, "cnn": 2e-3, "transformer": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is guessed.

    Args:
        data: what stands under `data`.
        why: of each guess, by what it is about.
        loaded: the data, divided as the draft says.
        metric: of the task.
        shares: of the parts that have no files.
    """

    data: dict[str, Any]
    loaded: TaskData
    metric: str
    shares: dict[str, float]
    why: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is not to be guessed.

    Args:
        label: column of the label.
        metric: of the task.
        data: keys of `data`.
    """

    label: str | None = None
    metric: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def draft(source: str, asked: Asked, places: DataPaths) -> Draft:
    """Read data and guess what a study of them needs.

    Args:
        source: path of a file or folder, or the name of a data set.
        asked: what is not to be guessed.
        places: where this machine keeps data.

    Raises:
        ConfigError: a key of the data is unknown or wrong.
        DataError: they cannot be read, or it is not clear which column is the label.
    """
    _refuse_absent(source, places)
    why: dict[str, str] = {}
    data: dict[str, Any] = {"source": _written(source, places), **asked.data}
    columns = _columns(places.own(source), config.build(Data, data).csv)
    label = asked.label if asked.label is not None else asked.data.get("label")
    if columns:
        data["label"] = _label(source, columns, label, why)
    elif label is not None:
        data["label"] = label
    if columns and format_of(places.own(source)) == "tsv":
        _name_text(data, columns, why)
    loaded, metric = _loaded(data, asked.metric, places, why)
    shares = _shares(loaded)
    if shares:  # as training will have them: the first look divided by the default
        loaded = load(_task(data, metric, shares), places)
    return Draft(data=data, why=why, loaded=loaded, metric=metric, shares=shares)


def _refuse_absent(source: str, places: DataPaths) -> None:
    path = places.own(source)
    if source in DATASETS or ":" in source or path.exists():
        return
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = f"{did_you_mean(path.name, beside)} ".lstrip()
    raise DataNotFoundError(f"data {str(path)!r} are not there. {guess}Give the path of a file or folder that is.")


def _written(source: str, places: DataPaths) -> str:
    """A path as a study file names it: a folder of the working folder with a slash."""
    is_bare = "/" not in source and not source.endswith((".parquet", ".npz", ".tsv", ".tsv.gz", *CSV))
    return f"./{source}" if is_bare and places.own(source).exists() else source


def _columns(path: Path, asked: Csv) -> list[str]:
    """Names of the columns of a table; none of what has none, or is not there, which is told when it is read."""
    if not path.exists():
        return []
    form = format_of(path)
    if form == "csv":
        return list(dialect_of(table_files(path, CSV).train[0], asked).names)
    if form == "parquet":
        return list(open_file(table_files(path, (".parquet",)).train[0]).schema.names)
    return names_of(table_files(path, TSV).train[0]) if form == "tsv" else []


def _name_text(data: dict[str, Any], columns: Sequence[str], why: dict[str, str]) -> None:
    """The only column beside the label is the text; of several it is the one of that name, or has to be named."""
    others = [name for name in columns if name != data["label"]]
    if "text" not in (*columns, *data) and len(others) == 1:
        data["text"] = others[0]
        why["text"] = "the only column beside the label"


def _label(source: str, columns: Sequence[str], asked: str | None, why: dict[str, str]) -> str:
    if asked is not None:
        return asked  # one that is not there is refused when the data are read, with what was meant
    found = [name for name in columns if name.lower() in LABELS]
    if len(found) == 1:
        why["label"] = f"the only column that is called like one; the others: {_some(columns, found[0])}"
        return found[0]
    if "label" in found:
        why["label"] = "the column of that name"
        return "label"
    listed = ", ".join(columns[:MOST_LISTED]) + (", ..." if len(columns) > MOST_LISTED else "")
    guess = f"Did you mean {found[0]!r}?" if found else did_you_mean("label", columns)
    guess = guess or f"Did you mean {columns[-1]!r}, the last one?"
    raise DataError(f"the label of {source} must be named, got none. Its columns: {listed}. {guess} Give --label NAME.")


def _some(columns: Sequence[str], but: str) -> str:
    others = [name for name in columns if name != but]
    return ", ".join(others[:6]) + (f" and {len(others) - 6:,} more" if len(others) > 6 else "")


# --- reading ----------------------------------------------------------------------------------------------------------


def _loaded(data: dict[str, Any], asked: str | None, places: DataPaths, why: dict[str, str]) -> tuple[TaskData, str]:
    """The data as classes, or as a quantity where they are none; keys that they need are set."""
    if asked is not None:
        return _mended(data, asked, places, why), asked
    try:
        found = _mended(data, "accuracy", places, why)
    except DataError as error:
        if not str(error).startswith(("labels ", "class ")):
            raise
        found = _quantity(data, error, places, why)
        return found, _metric_of_values(found, why)
    if _is_quantity(found):
        why["metric"] = f"{found.num_classes:,} numbers are taken for a quantity (for classes write accuracy)"
        found = _mended(data, "mse", places, why)
        return found, _metric_of_values(found, why)
    metric, reason = _metric_of_classes(found)
    why |= {"metric": reason} if reason else {}
    return found, metric


def _metric_of_values(data: TaskData, why: dict[str, str]) -> str:
    """Squared errors, but of large numbers, prices for instance, absolute ones: nobody reads ten digits."""
    if _variance(data) < LARGE**2:
        why["metric"] += ": mean squared error, lower is better"
        return "mse"
    why["metric"] += ": mean absolute error, lower is better; the mse of numbers so large has too many digits"
    return "mae"


def _variance(data: TaskData) -> float:
    return float((data.train.targets.double() - data.target_mean).square().mean())


def _metric_of_classes(data: TaskData) -> tuple[str, str]:
    """A metric that suits the classes, and why it is no plain accuracy, or why they are classes."""
    largest = float(data.class_counts.max()) / len(data.train)
    share = f"{100 * largest:.0f} % are of one class"
    if largest > SKEWED and data.num_classes == 2:
        return (
            "roc_auc",
            f"{share}: how well the two are told apart, at whatever threshold; average_precision where the first of "
            "those that are found count most",
        )
    if largest > SKEWED:
        return "balanced_accuracy", f"{share}: the mean accuracy of all classes tells more"
    names = data.class_names
    if _are_numbers(data) and names not in (("-1", "1"), tuple(map(str, range(len(names))))):
        return "accuracy", f"the numbers {', '.join(names)} are taken for classes; for a quantity write mse"
    return "accuracy", ""


def _quantity(data: dict[str, Any], error: DataError, places: DataPaths, why: dict[str, str]) -> TaskData:
    """The data as a quantity, of which no classes can be made; an error where they may be some all the same."""
    try:
        found = _mended(data, "mse", places, why)
    except MixedLabelsError:
        raise
    except DataError:
        raise error from None
    values, counts = found.train.all_targets.unique(return_counts=True)
    is_whole = found.train.all_targets.ndim == 1 and bool((values == values.floor()).all())
    if is_whole and len(values) <= MANY and int(counts.min()) >= EACH:
        raise DataError(f"{error} If they are a quantity, give --metric mse.") from None
    made = f"the labels are {len(values):,} different whole numbers, and are taken for a quantity"
    none = "the labels are numbers of which no classes can be made"
    why["metric"] = made if is_whole else none
    return found


def _is_quantity(data: TaskData) -> bool:
    is_many = data.num_classes > MANY_CLASSES or len(data.train) < FEW_EACH * data.num_classes
    return is_many and data.num_classes > 2 and _are_numbers(data)  # two values are no quantity, however few rows


def _are_numbers(data: TaskData) -> bool:
    """Whether the classes are whole numbers that stand for nothing but themselves, as far as anybody can tell."""
    label = next((column for column in data.facts.columns if column.role == "label"), None) if data.facts else None
    is_text = label is not None and "string" in label.kind
    return not is_text and all(WHOLE.fullmatch(name) for name in data.class_names)


def _mended(data: dict[str, Any], metric: str, places: DataPaths, why: dict[str, str]) -> TaskData:
    while True:
        try:
            return load(_task(data, metric), places)
        except MendableDataError as error:
            if error.changes.keys() <= data.keys():
                raise
            data |= error.changes
            why |= {key: MENDED[key] for key in error.changes}


MENDED = {
    "impute": "numbers are missing: the median of the training part, and a column that says where",
    "color": "some pictures are grey, and some are not",
    "resize": "the pictures have several sizes: [height, width] of all",
}


def _task(data: Mapping[str, Any], metric: str, shares: Mapping[str, float] | None = None) -> Task:
    recipe, made = Recipe(lr=0.1, batch_size=1, epochs=1), config.build(Data, data)
    split = config.build(Split, shares or {})
    return Task(data=made, model=Model(name="mlp"), recipe=recipe, metric=metric, tolerance=0.01, split=split)


# --- guessing ---------------------------------------------------------------------------------------------------------


def text(made: Draft, name: str) -> str:
    """A study file of a draft, a comment beside each guess.

    Args:
        made: the draft.
        name: of the file, for the commands in it.
    """
    data, why = made.loaded, made.why
    num_train = len(data.train)
    model, about_model = _model(data)
    batch = 2 ** round(math.log2(min(max(num_train / BATCHES_AN_EPOCH, BATCHES[0]), BATCHES[1])))
    epochs = min(max(math.ceil(UPDATES * batch / num_train), EPOCHS[0]), EPOCHS[1])
    rate = RATES[str(model["name"])]
    low = max(LEAST_SHARE, math.ceil(100 * max(1, data.num_classes) / num_train) / 100)  # one of each class
    tolerance, about_tolerance = _tolerance(made)
    selectors = "[random, stratified]" if data.num_classes else "[random]"
    recipe = {"optimizer": "adamw", "lr": rate, "weight_decay": 0.01, "batch_size": batch, "epochs": epochs}
    lines = [
        f"# A draft for {made.data['source']}: {_size(data)}. Each guess has its reason: change what you know better.",
        f"# subsettune plan {shlex.quote(name)}     what it would do and cost",
        f"# subsettune tune {shlex.quote(name)}     the study",
        "task:",
        f"  data: {_flow(made.data)}",
        *(f"    # {key}: {why[key]}" for key in made.data if key in why),
        *_split(made),
        f"  model: {_flow(model)}",
        f"    # {about_model}",
        f"  recipe: {_flow({**recipe, 'schedule': 'cosine'})}",
        f"    # the conventional training that is to be matched: about {round(epochs * num_train / batch):,} updates. "
        "If you have a recipe, write it here.",
        f"  metric: {made.metric}" + (f"    # {why['metric']}" if "metric" in why else ""),
        f"  tolerance: {tolerance:g}    # {about_tolerance}",
        "space:",
        "  budget: {log: [0.05, 0.8]}        # what a policy may spend, as a share of the recipe's compute",
        "  arm: {choice: [full, subset]}     # a shorter schedule on all data, or a subset first",
        "  switch: {uniform: [0.05, 0.9]}    # share of the budget spent before the full data",
        f"  subset_share: {{log: [{low:g}, {0.5 if low < 0.25 else 0.9}]}}  # of the training examples",
        f"  selector: {{choice: {selectors}}}",
        "  transition: {choice: [keep, reset_optimizer]}",
        f"  lr: {{log: [{rate / 5:g}, {rate * 5:g}]}}            # around the recipe's",
        f"study: {{trials: 30, parallel: {min(2, os.cpu_count() or 1)}, cpus_per_trial: 1, seeds: 5, alpha: 0.05}}",
    ]
    return "\n".join(lines) + "\n"


def _size(data: TaskData) -> str:
    kind = f"{data.num_classes} classes" if data.num_classes else "a regression"
    kind = f"{data.num_outputs} labels each" if data.kind == "multilabel" else kind
    return f"{len(data.train.inputs):,} examples, {kind}"


def _shares(data: TaskData) -> dict[str, float]:
    """Shares of the parts that have no files."""
    share = 0.2 if data.num_source_examples < SMALL else 0.1
    return {part: share for part, is_file in data.from_files.items() if not is_file}


def _split(made: Draft) -> list[str]:
    if not made.shares:
        return ["  # validation and test part are the files of these names"]
    held, drawn = " and ".join(made.shares), "drawn by class" if made.loaded.num_classes else "drawn"
    return [
        f"  split: {_flow({**made.shares, 'seed': 0})}",
        f"    # {held}: {drawn}. Rows that belong together (a patient's): by: COLUMN; in time: time: COLUMN",
    ]


def _model(data: TaskData) -> tuple[dict[str, Any], str]:
    if data.num_tokens:
        return {"name": "transformer", "width": 32, "depth": 2, "heads": 4, "feedforward": 64}, "a small one, for texts"
    if len(data.input_shape) == 3 and min(data.input_shape[1:]) >= LEAST_PIXELS:
        return {"name": "cnn", "channels": [16, 32]}, "a small one; resnet18 for pictures that are hard to tell apart"
    width = 128 if data.num_features > 200 else 64
    return {"name": "mlp", "hidden": [width]}, f"one hidden layer, for {data.num_features:,} numbers an example"


def _tolerance(made: Draft) -> tuple[float, str]:
    data, short = made.loaded, "how far short still matches"
    if data.kind == "regression":
        variance = _variance(data)
        share, of, size = {
            "mse": (OF_VARIANCE, "variance", variance),
            "r2": (OF_VARIANCE, "variance", 1.0),
        }.get(made.metric, (OF_VARIANCE / 2, "standard deviation", math.sqrt(variance)))
        return float(f"{share * size:.1g}"), f"{short}: {100 * share:g} % of the {of} of the labels"
    if not METRICS[made.metric].is_share:
        return OF_LOSS, f"{short}, in nats"
    num_test = len(data.test)
    if made.metric in LOOKS_FOR and data.kind == "classification":
        rare = int(torch.bincount(data.test.targets).min())
        tolerance = next((tol for least, tol in ((500, 0.01), (100, 0.02)) if rare >= least), 0.05)
        return tolerance, f"{short}; {rare:,} of {num_test:,} test examples are of the rarer class"
    tolerance = next((tol for least, tol in ((2000, 0.01), (400, 0.02)) if num_test >= least), 0.05)
    return tolerance, f"{short}; one of {num_test:,} test examples is {1 / num_test:.2g}"


def _flow(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_scalar(key)}: {_scalar(value)}" for key, value in values.items()) + "}"


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return _flow(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if isinstance(value, str):
        return value if PLAIN_NAME.fullmatch(value) and value.lower() not in WORDS else json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


WORDS = ("true", "false", "null", "yes", "no", "on", "off", "nan", "inf")  # names that YAML reads as something else
