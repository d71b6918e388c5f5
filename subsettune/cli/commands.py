"""What each command does, one function a command: read the input, one call, print. Returns the exit code.

What a command needs is imported inside it: `--help`, `--version` and a mistyped flag then answer at once, without
torch, Ray or the rest, and an install without some package runs the commands that do not need it.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subsettune.cli.interrupt import INTERRUPTED
from subsettune.config import must
from subsettune.errors import (
    ConfigError,
    Mistake,
    StorageError,
    StudyError,
    SubsettuneError,
    TrainingFunctionError,
    did_you_mean,
)
from subsettune.loggers import quieted
from subsettune.report.patience import Patience
from subsettune.study import MANIFEST

if TYPE_CHECKING:
    from subsettune.bundle import Bundle
    from subsettune.data import DataPaths
    from subsettune.facts import TaskFacts
    from subsettune.policy import Policy
    from subsettune.storage import Folder
    from subsettune.study.results.view import StudyView
    from subsettune.study.spec.definition import Study
    from subsettune.task import Task

DONE, WRONG_INPUT, NOT_VERIFIED = 0, 2, 3
REPORT = "report.html"
LOADING = "loading packages"
# Variables of a job: the command that goes on with its study, and the one that stops it, both where it was submitted.
SUBMITTED, STOP = "SUBSETTUNE_SUBMITTED", "SUBSETTUNE_STOP"
FIT_SHAPES = (
    "Call subsettune.train.pruning.surgery.fit_shapes(network, weights) before network.load_state_dict(weights)."
)
Command = Callable[[argparse.Namespace], int]


def tune_study(options: argparse.Namespace) -> int:
    """Run a study, or go on with one, and print its result; 3 where no policy passed."""
    with Patience(sys.stderr, LOADING):
        from subsettune.study.options import fresh_run_id

    study = read_study(options)
    if options.fresh_seeds and options.run_id is None:
        raise ConfigError("--fresh-seeds needs a finished study to confirm. Give its name as --run-id.")
    if options.run_id is not None:
        return _tune(study, options, options.run_id, options.command_line)
    with fresh_run_id(options.storage, Path(options.study).stem) as run_id:
        return _tune(study, options, run_id, f"{options.command_line} --run-id {shlex.quote(run_id)}")


def _tune(study: Study, options: argparse.Namespace, run_id: str, again: str) -> int:
    with Patience(sys.stderr, LOADING):
        from subsettune.api import tune
        from subsettune.report import brief, progress, render
        from subsettune.storage import Folder
        from subsettune.study.options import TuneOptions
        from subsettune.study.results.folder import StudyFolder

    options.answer.go_on = _on_interruption(Folder.at(options.storage), run_id, options.command_line, again)
    where = TuneOptions(
        storage=options.storage,
        places=places_of(options),
        address=options.address,
        executor="inline" if options.inline else "ray",
        device=options.device,
        command=again,
        stop=os.environ.get(STOP) or "Ctrl-C",
        fresh_seeds=options.fresh_seeds,
    )
    try:
        with (
            progress.make_progress(sys.stderr, quiet=options.quiet) as observer,
            options.answer.through(observer.note if isinstance(observer, progress.Drawn) else None),
        ):
            view = tune(study, run_id=run_id, observer=observer, options=where).view
    except KeyboardInterrupt:
        if not _has_begun(options.storage, run_id):  # and a folder that was made for it goes with the exception
            words = "Interrupted before the study had begun: nothing of it is kept. Start it with"
            raise KeyboardInterrupt(f"\n{words}: {options.command_line}") from None
        print(f"\nInterrupted; what is finished is kept. Go on with: {again}", file=sys.stderr)
        return INTERRUPTED
    seen = brief.Where(storage=options.storage, report=_report_in(StudyFolder(options.storage, run_id).folder))
    render.write(brief.brief_blocks(view, seen), sys.stdout)
    confirmation = view.manifest.confirmation
    is_upheld = confirmation is None or confirmation.verdict.passed is not False
    return DONE if options.accept_no_policy or (view.summary.verified and is_upheld) else NOT_VERIFIED


def _on_interruption(storage: Folder, run_id: str, afresh: str, again: str) -> Callable[[], str]:
    """What Ctrl-C is answered with, by what is there by then; an object store is not asked, which may take its time."""

    def words() -> str:
        if storage.is_local and not Path(storage.path, run_id, MANIFEST).exists():
            return f"The study has not begun: nothing of it is kept. To start it: {afresh}"
        return f"What is finished is kept; to go on: {again}"

    return words


def _has_begun(storage: str, run_id: str) -> bool:
    """Whether a study that was interrupted is there to go on with; where the storage does not tell, it may be."""
    from subsettune.patience import hurried
    from subsettune.study.results.folder import StudyFolder

    try:
        with hurried():
            return StudyFolder(storage, run_id).exists
    except StorageError:
        return True


def plan_study(options: argparse.Namespace) -> int:
    """Print what a study would do and cost."""
    with Patience(sys.stderr, LOADING) as patience, quieted("subsettune.own_code"):
        from subsettune.report import plan_tables, render
        from subsettune.study.plan import check_price, plan, price

        if options.price_per_hour is not None:
            check_price(options.price_per_hour)
        study, where = read_study(options), {"address": options.address, "is_inline": options.inline}
        made = plan(study, places_of(options), **where, storage=options.storage, stage=patience.stage)
        made |= {} if options.price_per_hour is None else {"price": price(made, options.price_per_hour)}
    if options.json:
        print(json.dumps(made, indent=2))
    else:
        render.write(plan_tables.plan_blocks(made), sys.stdout)
    return 0


def show_study(options: argparse.Namespace) -> int:
    """Print the result of a study as it is on disk: in brief, one part of it, or everything."""
    from subsettune.report import brief, parts, render, tables
    from subsettune.study.results.folder import StudyFolder

    if sum(map(bool, (options.json, options.all, options.part))) > 1:
        raise ConfigError("show prints one thing: --json, --all or a part such as trials. Give one of them.")
    study = StudyFolder(options.storage, options.run).open()
    view = study.view()
    if options.json:
        print(json.dumps(view.summary.to_mapping(), indent=2))
        return 0
    report = _report_in(study.folder)
    if options.all:
        blocks = tables.result_blocks(view, report=report)
    elif options.part:
        blocks = parts.part_blocks(view, options.part)
    else:
        blocks = brief.brief_blocks(view, brief.Where(storage=options.storage, report=report))
    render.write(blocks, sys.stdout)
    return 0


def _report_in(folder: Folder) -> str | None:
    """The page of a study; None where a full disk had no room for it."""
    return f"{folder}/{REPORT}" if folder.exists(REPORT) else None


def list_studies(options: argparse.Namespace) -> int:
    """Print a line for each study in the storage folder."""
    from subsettune.report import listings, render

    rows = _studies(options.storage)
    if not rows:
        print(f"No studies in {options.storage}. Start one: subsettune tune STUDY.yaml")
        return 0
    render.write([listings.runs_table(rows)], sys.stdout)
    return 0


def write_report(options: argparse.Namespace) -> int:
    """Write a study's page from its records, and print where it is."""
    from subsettune.api import report_page
    from subsettune.study.results.folder import StudyFolder

    study = StudyFolder(options.storage, options.run).open()
    study.folder.write(REPORT, report_page(study.view()).encode())
    print(f"{study.folder}/{REPORT}")
    return 0


def export_bundle(options: argparse.Namespace) -> int:
    """Copy a study's bundle, and print where it went; an error where no policy passed."""
    from subsettune.bundle import Bundle
    from subsettune.bundle.readme import page
    from subsettune.study.results.folder import StudyFolder

    view = StudyFolder(options.storage, options.run).open().view()
    source = view.summary.bundle
    if source is None:
        raise StudyError(f"study {options.run!r} has no bundle: {view.summary.headline} Nothing was exported.")
    made = Bundle.load(source)
    dataclasses.replace(made, readme=page(made, options.directory)).write(options.directory)
    print(options.directory)
    return 0


def train_once(options: argparse.Namespace) -> int:
    """Train by a policy, a bundle or the recipe, and print the result; 2 where the training diverged."""
    with Patience(sys.stderr, LOADING) as patience:
        from subsettune.cli import model_commands
        from subsettune.data import load
        from subsettune.data.audit import audit
        from subsettune.data.example import guess_of
        from subsettune.train import transitions
        from subsettune.train.loop import RunOptions, facts, run

        study = _for_program(read_study(options), options.program)
        places = places_of(options)
        is_folder = model_commands.is_model_folder(options.save)
        _check_save(None if is_folder else options.save)
        patience.stage("reading data")
        data = load(study.task, places)
        if is_folder:
            model_commands.check_save(options.save, study.task, data, places)
        patience.stage("counting FLOPs" if study.task.has_flops else "counting examples")
        known = facts(study.task, places)
        patience.stage("looking at the data")
        warnings = known.notes if study.task.is_own else (*known.notes, *audit(data, study.task.split).warnings)
        policy = _policy(options, study.task, known, data.fingerprint)
    guess = "" if study.task.is_own else guess_of(data, study.task.data)
    if guess:
        print(f"An example was {guess}.", file=sys.stderr)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.checkpoints is not None:
        options.answer.go_on = f"To go on from the last checkpoint: {options.command_line}"
    settings = RunOptions(
        splits=("validation", "test"),
        device=options.device,
        num_threads=study.study.cpus_per_trial if options.threads is None else options.threads,  # the bits of a trial
        checkpoints=options.checkpoints,
        keep_model=options.save is not None,
        places=places,
    )
    result = run(study.task, policy, options.seed, report=say_point, options=settings)
    is_saved = False
    try:
        if is_folder:
            is_saved = model_commands.save(result, study.task, places, options.save)
        elif options.save is not None and result.cause == "finished":
            _save(result.model, options.save)
    finally:  # what was measured is told although the weights are lost
        if options.json:
            print(json.dumps(result.to_mapping(), indent=2))
        else:
            _say_result(result, known, study.task.metric)
    is_pruned = any(transitions.of(phase).reshapes for phase in policy.phases)
    if is_saved and not options.json:
        print(model_commands.saved_words(options.save))
    elif options.save is not None and not is_folder and not options.json:
        what = f"pruned weights. {FIT_SHAPES}" if is_pruned else "weights alone."
        print(f"Saved to {options.save}: {what} {model_commands.WEIGHTS_ALONE}")
    if result.cause == "finished":
        return 0
    nothing = " Nothing was saved." if is_folder else ""
    print(f"error: {result.message} Lower the learning rate, or set grad_clip.{nothing}", file=sys.stderr)
    return WRONG_INPUT


def _check_save(path: str | None) -> None:
    """Refuse before the training what could not be written after it."""
    if path is None:
        return
    file = Path(path)
    try:
        is_new = not os.path.lexists(file)
        if not file.is_fifo():  # whose reader may not be there yet
            file.open("ab").close()
        if is_new:
            file.unlink()
    except OSError as error:
        advice = f"{error.strerror}: make the folder, or choose another."
        raise StorageError(must("--save", "a file in a folder that can be written", path, advice)) from error


def _for_program(study: Study, program: list[str]) -> Study:
    """The study with another program in place of its training function."""
    if not program:
        return study
    if not study.task.is_own:
        advice = "Write task.train and task.examples into it, in place of data and model."
        raise ConfigError(must("the study file", "of training code of your own to run a program", "another", advice))
    task = dataclasses.replace(study.task, train=shlex.join(program))
    return dataclasses.replace(study, task=task)


def _save(network: Any, path: str) -> None:
    """Write a network's weights; a file of weights of the user's is copied."""
    import torch

    if network is None:
        raise TrainingFunctionError(
            "--save needs a network, and the training function gave none: run.finish(..., model=network). A run that "
            "had finished before its --checkpoints were read gives none either."
        )
    if isinstance(network, str | Path):
        shutil.copyfile(network, path)
        return
    weights = io.BytesIO()  # torch would hide what the system says of a full disk
    torch.save(network.state_dict(), weights)
    try:
        Path(path).write_bytes(weights.getbuffer())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. Train again with another --save.") from error


def _policy(options: argparse.Namespace, task: Task, known: TaskFacts, fingerprint: str) -> Policy:
    """The policy of a file or bundle, or the conventional recipe."""
    from subsettune import bundle
    from subsettune.cli.policy_file import read_policy, refuse_without_bundle
    from subsettune.policy import check_written, conventional
    from subsettune.train.loop import check

    if options.policy is not None:
        refuse_without_bundle(options.policy)
    is_bundle = options.policy is not None and not _is_file(options.policy)
    if options.transfer and not is_bundle:
        raise ConfigError("--transfer needs a bundle to transfer. Give its folder as --policy.")
    if options.policy is None:
        return conventional(known)
    if is_bundle:
        return _of_bundle(bundle.Bundle.load(options.policy), task, known, None if options.transfer else fingerprint)
    policy = read_policy(options.policy, task)
    check_written(policy, known, options.policy)
    try:
        check(task, policy, known)
    except ConfigError as error:
        raise ConfigError(error.mistakes, options.policy) from error
    return policy


def _of_bundle(made: Bundle, task: Task, known: TaskFacts, fingerprint: str | None) -> Policy:
    """The policy of a bundle, and a warning of each setting that it was shown to match with another value of.

    Args:
        made: the bundle.
        task: to train.
        known: of the task.
        fingerprint: of its data, which have to be the bundle's; None to transfer the policy to them.
    """
    from subsettune.bundle import limits

    policy, told = made.policy, ""
    if fingerprint is not None:
        made.check(fingerprint)
    else:
        policy, message = made.derive(known)
        told = "\n".join((message, *limits.limits(made, policy, known)))
    for sentence in limits.changed_task(made, task):
        print(f"warning: {sentence}", file=sys.stderr)
    if told:
        print(told, file=sys.stderr)
    return policy


def _is_file(path: str) -> bool:
    there = Path(path)
    if not there.exists() and "://" not in path and there.suffix not in (".json", ".yaml", ".yml"):
        guess = did_you_mean(there.name, (p.name for p in there.parent.iterdir())) if there.parent.is_dir() else ""
        advice = f"{guess} Give the path of one that is there.".lstrip()
        raise ConfigError(must("--policy", "a bundle or a file with a policy", path, f"Nothing is there. {advice}"))
    return not there.is_dir() and (there.exists() or there.suffix in (".json", ".yaml", ".yml"))


def say_point(point: Any) -> bool:
    """Print a point of a learning curve; never stops the run."""
    from subsettune.text import score_words

    metric, loss = score_words(point.metric), score_words(point.loss)
    print(
        f"{100 * point.share:4.0f} %  phase {point.phase + 1}  metric {metric}  loss {loss}  {point.seconds:.1f} s",
        file=sys.stderr,
    )
    return False


def _say_result(result: Any, known: TaskFacts, metric: str) -> None:
    from subsettune.text import cost_words, counted, flops_words, passes_words, score_words

    scores = ", ".join(f"{split} {score_words(value)}" for split, value in result.metrics.items())
    passes = result.ledger.spent / known.pass_flops
    spent = cost_words(result.ledger.spent / known.reference_flops)
    print(f"{metric}: {scores or '-'}")
    compute = f"{passes_words(passes)} passes ({spent} of the recipe's compute)"
    print(f"{compute}, {result.seconds:.1f} s, {counted(result.updates, 'update')}")
    for soup in result.soups:
        all_of_them, longest = (flops_words(flops) for flops in (soup.flops, soup.longest_flops))
        seconds = "" if soup.longest_s is None else f" ({soup.seconds:.1f} s and {soup.longest_s:.1f} s)"
        covered = f"{100 * soup.coverage:.3g} % of the masked weights kept by some worker"
        print(f"soup of {soup.workers}: {all_of_them} in all, {longest} by the longest worker{seconds}; {covered}")


def clean_up(options: argparse.Namespace) -> int:
    """Remove caches and studies, once the user has seen their sizes and agreed."""
    from subsettune.report import listings, render
    from subsettune.study.results import clean

    found = clean.find(options.storage, places_of(options), runs=options.runs, caches=not options.keep_caches)
    if not found:
        print("Nothing to clean.")
        return 0
    render.write([listings.caches_table([item.row() for item in found])], sys.stdout)
    if not options.yes and not _confirmed(f"Remove these {len(found)}? [y/N] "):
        print("Nothing removed.")
        return 0
    clean.remove(found, places_of(options))
    print(f"Removed {len(found)}.")
    return 0


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        print()
        return False


def list_names(options: argparse.Namespace) -> int:
    """Print what a study file may name, of one kind; or explain one of them."""
    from subsettune import catalog
    from subsettune.report import listings, render

    if options.name is None:
        render.write([listings.names_table(catalog.rows(options.what), options.what)], sys.stdout)
        return 0
    told = dataclasses.asdict(catalog.explain(options.what, options.name))
    render.write(listings.explanation_blocks(told), sys.stdout)
    return 0


def read_study(options: argparse.Namespace) -> Study:
    """The study of a command, with its flags in place of the file's settings.

    Raises:
        ConfigError: a mistake of the file, or of a flag.
    """
    from subsettune.cli.set_keys import with_keys
    from subsettune.study.spec.yaml_file import read

    names = ("trials", "parallel", "seeds", "time_limit_s", "warm_start")
    given = getattr(options, "set", ())
    study = read(options.study, (lambda raw: with_keys(raw, given)) if given else None)
    try:
        return study.with_settings({name: getattr(options, name, None) for name in names})
    except ConfigError as error:  # of a flag, which has no line in the file
        raise ConfigError(tuple(_of_flag(mistake) for mistake in error.mistakes)) from error


def _of_flag(mistake: Mistake) -> Mistake:
    name = mistake.path[0]
    return Mistake((), f"--{name.replace('_', '-')}{mistake.message.removeprefix(name)}")


def places_of(options: argparse.Namespace) -> DataPaths:
    """Where this machine keeps data, by the flags of a command."""
    from subsettune.data import DataPaths

    return DataPaths(data_root=options.data_root, cache=options.cache, download=not options.no_download)


def _studies(storage: str) -> list[dict[str, Any]]:
    from subsettune.storage import Folder
    from subsettune.study.results.folder import StudyFolder, last_written

    rows = []
    for name in Folder.at(storage).names():
        study = StudyFolder(storage, name) if not name.startswith(".") else None
        if study is None or not study.exists:
            continue
        try:
            view = study.open().view()
        except SubsettuneError as error:
            print(f"warning: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        rows.append(_study_row(view, study.folder.total_bytes(), last_written(study.folder)))
    return rows


def _study_row(view: StudyView, num_bytes: int, written: str | None) -> dict[str, Any]:
    best = view.summary.best if view.summary.verified else None
    return {
        "run_id": view.run_id,
        "status": view.summary.status,
        "trials": len(view.trials),
        "asked": max(view.study.study.trials, len(view.trials)),  # a later start may have asked for fewer
        "saving": best.saving if best is not None else None,
        "num_bytes": num_bytes,
        "modified": written or view.manifest.created,
    }
