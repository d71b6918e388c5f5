"""What the commands do that have a trained model in hand: predict, follow, and the saving of train.

As in `commands`, what a command needs is imported inside it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subsettune.config import must
from subsettune.errors import ModelError, StorageError
from subsettune.loggers import quieted
from subsettune.report.patience import Patience

if TYPE_CHECKING:
    from subsettune.data import DataPaths, TaskData
    from subsettune.task import Task
    from subsettune.train.result import RunResult
    from subsettune.trained.nightly import Followed

DONE, WRONG_INPUT, BELOW = 0, 2, 4
LOADING = "loading packages"
WEIGHTS_ALONE = "With a folder, as --save DIR/, encoders and classes are kept too, for: subsettune predict DIR FILE"


def is_model_folder(path: str | None) -> bool:
    """Whether a place to save to is that of a folder, and not of a file of weights: a file has a suffix, or exists."""
    if path is None:
        return False
    there = Path(path)
    is_file = os.path.lexists(there) and not there.is_dir()
    return "://" in path or path.endswith(("/", os.sep)) or there.is_dir() or not (there.suffix or is_file)


def check_save(path: str, task: Task, data: TaskData, places: DataPaths) -> None:
    """Refuse before a training the folder that could not be written after it."""
    from subsettune.trained.model import check_can_be_saved

    check_can_be_saved(task, data, path, places)
    if "://" in path:
        return
    target = Path(path).expanduser().absolute()
    trial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        advice = f"{error.strerror}: choose another."
        raise StorageError(must("--save", "a folder that can be written", path, advice)) from error


def save(result: RunResult, task: Task, places: DataPaths, path: str) -> bool:
    """Keep the model of a run in a folder; false where the run did not finish and there is none to keep."""
    from subsettune.trained.model import TrainedModel

    if result.cause != "finished":
        return False
    with quieted("subsettune.data", "subsettune.own_code"):  # told before the training
        TrainedModel.of(result, task, places).save(path)
    return True


def saved_words(path: str) -> str:
    """What is told of a folder that was written."""
    return f"Saved to {path}: weights, encoders and classes. Predict with: subsettune predict {shlex.quote(path)} FILE"


def predict_file(options: argparse.Namespace) -> int:
    """Predict for the rows of a file, and print or write what comes out."""
    with Patience(sys.stderr, LOADING) as patience:
        from subsettune.text import score_words
        from subsettune.trained import write
        from subsettune.trained.model import load_model

        if options.output is not None:
            write.check_output(options.output, options.file)
        patience.stage("reading the model")
        model = load_model(options.model)
        patience.stage("reading rows")
        rows = model.read(options.file)
        patience.stage("predicting")
        found = model.examine(rows)
        table = write.table_of(found, model, with_probabilities=options.probabilities)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    metric = model.origin.task.metric
    if options.output is None:
        sys.stdout.write(write.csv_text(table))
    else:
        write.write_table(table, options.output)
        print(f"Wrote {table.num_rows:,} predictions to {options.output}.")
    if found.metric is not None:
        to = sys.stderr if options.output is None else sys.stdout
        print(f"{metric}: {score_words(found.metric)} over {table.num_rows:,} rows with labels", file=to)
    return DONE


def follow_bundle(options: argparse.Namespace) -> int:
    """Train by a bundle's policy on other data; 4 where the result is clearly below what the bundle promises."""
    ready = _derived(options)
    out = sys.stderr if options.json else sys.stdout
    for sentence in ready.sentences:
        print(sentence, file=out)
    if options.check:
        return _say_check(ready, options)
    from subsettune.cli.commands import say_point

    result, outcome = ready.train(options.seed, say_point)
    is_saved = False
    try:
        if options.save is not None:
            is_saved = save(result, ready.task, ready.options.places, options.save)
    finally:  # what was measured is told although the model is lost
        _say_outcome(ready, result, outcome, options)
    if is_saved:
        print(saved_words(options.save), file=out)
    if result.cause != "finished":
        nothing = " Nothing was saved." if options.save is not None else ""
        print(f"error: {result.message}{nothing}", file=sys.stderr)
    return BELOW if outcome.is_below else DONE


def _derived(options: argparse.Namespace) -> Followed:
    """A bundle's policy for the data that were asked for; what is to be known of these is told."""
    with Patience(sys.stderr, LOADING) as patience:
        from subsettune.bundle import Bundle
        from subsettune.cli.commands import places_of
        from subsettune.cli.policy_file import refuse_without_bundle
        from subsettune.data import load
        from subsettune.data.audit import audit
        from subsettune.train.options import RunOptions
        from subsettune.trained.nightly import follow_on

        places = places_of(options)
        refuse_without_bundle(options.bundle)
        bundle = Bundle.load(options.bundle)
        patience.stage("reading data")
        settings = RunOptions(device=options.device, num_threads=options.threads, places=places)
        with quieted("subsettune.own_code"):
            ready = follow_on(bundle, options.data, settings)
            data = load(ready.task, places)
            if options.save is not None:
                _refuse_file(options.save)
                check_save(options.save, ready.task, data, places)
        patience.stage("looking at the data")
        warnings = (*ready.warnings, *ready.facts.notes, *audit(data, ready.task.split).warnings)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return ready


def _refuse_file(path: str) -> None:
    if not is_model_folder(path):
        raise ModelError(must("--save", "a folder", path, "Give a name without a suffix, or one that ends in a slash."))


def _say_check(ready: Followed, options: argparse.Namespace) -> int:
    """What would be done, and what would be held against what."""
    if options.json:
        plain: dict[str, Any] = {
            "notes": list(ready.sentences),
            "warnings": list(ready.warnings),
            "policy": ready.policy.to_mapping(),
            "task": ready.task.to_mapping(),
        }
        print(json.dumps({**plain, "promise": ready.promise.sentence}, indent=2))
    else:
        print(ready.promise.sentence)
        print("Nothing was trained: leave out --check to train.")
    return DONE


def _say_outcome(ready: Followed, result: RunResult, outcome: Any, options: argparse.Namespace) -> None:
    if options.json:
        plain = {
            "notes": list(ready.sentences),
            "warnings": list(ready.warnings),
            "outcome": outcome.to_mapping(),
            "run": result.to_mapping(),
        }
        print(json.dumps(plain, indent=2))
        return
    for sentence in outcome.sentences:
        print(sentence)
