"""The command line: parse, one call, print.

Exit codes: 0 done, 2 wrong input, 3 no policy passed verification, 130 interrupted. Heavy packages are imported by the
commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from subsettune.config import must
from subsettune.errors import ConfigError, Mistake, StorageError, StudyError, SubsettuneError

if TYPE_CHECKING:
    from subsettune.data import DataPaths
    from subsettune.facts import TaskFacts
    from subsettune.policy import Policy
    from subsettune.study.results.view import StudyView
    from subsettune.study.spec.definition import Study

WRONG_INPUT, NOT_VERIFIED, INTERRUPTED = 2, 3, 130
REPORT = "report.html"
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["subsettune", *given])
    command: Command = options.command
    before = signal.signal(signal.SIGTERM, _interrupt)  # what a cluster sends before it kills: stop as Ctrl-C does
    try:
        code = command(options)
        sys.stdout.flush()
    except SubsettuneError as error:
        _say_error(error, options)
        code = WRONG_INPUT
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough; nor may Python flush into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say_error(error: SubsettuneError, options: argparse.Namespace) -> None:
    """Print one line a mistake; one that was found after the study file was read gets its place there."""
    if isinstance(error, ConfigError):
        placed = _located(error, options)
        lines = [str(ConfigError((mistake,), placed.source)) for mistake in placed.mistakes]
    else:
        lines = [str(error)]
    for line in lines:
        print(f"error: {' '.join(part.strip() for part in line.splitlines() if part.strip())}", file=sys.stderr)


def _located(error: ConfigError, options: argparse.Namespace) -> ConfigError:
    inside = all(mistake.path and mistake.path[0] in ("task", "space", "study") for mistake in error.mistakes)
    if error.source is not None or not inside or not hasattr(options, "study"):
        return error
    from subsettune.study.spec.definition import located, read_yaml

    return located(error, options.study, read_yaml(Path(options.study))[1])


# --- commands ----------------------------------------------------------------------------------------------------


def _tune(options: argparse.Namespace) -> int:
    from subsettune.report import progress, render, tables
    from subsettune.study.driver import tune
    from subsettune.study.options import TuneOptions, fresh_run_id

    study = _study(options)
    fresh = options.run_id is None
    run_id = fresh_run_id(options.storage, Path(options.study).stem) if fresh else options.run_id
    again = f"{options.command_line} --run-id {shlex.quote(run_id)}" if fresh else options.command_line
    where = TuneOptions(
        storage=options.storage,
        places=_places(options),
        address=options.address,
        executor="inline" if options.inline else "ray",
        device=options.device,
        command=again,
    )
    try:
        with progress.make_progress(sys.stderr, quiet=options.quiet) as observer:
            view = tune(study, run_id=run_id, observer=observer, options=where)
    except KeyboardInterrupt:
        print(f"\nInterrupted; what is finished is kept. Go on with: {again}", file=sys.stderr)
        return INTERRUPTED
    render.write(tables.result_blocks(view, report=_report_of(view)), sys.stdout)
    return 0 if view.summary.verified else NOT_VERIFIED


def _plan(options: argparse.Namespace) -> int:
    from subsettune.report import plan_tables, render
    from subsettune.study.plan import plan

    made = plan(_study(options), _places(options))
    if options.json:
        print(json.dumps(made, indent=2))
    else:
        render.write(plan_tables.plan_blocks(made), sys.stdout)
    return 0


def _show(options: argparse.Namespace) -> int:
    from subsettune.report import render, tables
    from subsettune.study.results.folder import StudyFolder

    study = StudyFolder(options.storage, options.run).open()
    view = study.view()
    if options.json:
        print(json.dumps(view.summary.to_mapping(), indent=2))
    else:
        report = _report_of(view) if study.folder.exists(REPORT) else None
        render.write(tables.result_blocks(view, report=report), sys.stdout)
    return 0


def _report_of(view: StudyView) -> str:
    return f"{view.folder}/{REPORT}"


def _list(options: argparse.Namespace) -> int:
    from subsettune.report import listings, render

    rows = _studies(options.storage)
    if not rows:
        print(f"No studies in {options.storage}. Start one: subsettune tune STUDY.yaml")
        return 0
    render.write([listings.runs_table(rows)], sys.stdout)
    return 0


def _report(options: argparse.Namespace) -> int:
    from subsettune.report import html
    from subsettune.study.results.folder import StudyFolder

    study = StudyFolder(options.storage, options.run).open()
    view = study.view()
    study.folder.write(REPORT, html.page(view, view.manifest.get("command")).encode())
    print(_report_of(view))
    return 0


def _export(options: argparse.Namespace) -> int:
    from subsettune.bundle import Bundle
    from subsettune.study.results.folder import StudyFolder

    view = StudyFolder(options.storage, options.run).open().view()
    source = view.summary.bundle
    if source is None:
        raise StudyError(f"study {options.run!r} has no bundle: {view.summary.headline} Nothing was exported.")
    Bundle.load(source).write(options.directory)
    print(options.directory)
    return 0


def _train(options: argparse.Namespace) -> int:
    from subsettune.data import load
    from subsettune.train.loop import RunOptions, facts, run
    from subsettune.train.transitions import base

    study = _study(options)
    places = _places(options)
    _check_save(options.save)
    known = facts(study.task, places)
    policy = _policy(options, known, load(study.task, places).fingerprint)
    settings = RunOptions(
        splits=("validation", "test"),
        device=options.device,
        num_threads=study.study.cpus_per_trial if options.threads is None else options.threads,  # the bits of a trial
        checkpoints=options.checkpoints,
        keep_model=options.save is not None,
        places=places,
    )
    result = run(study.task, policy, options.seed, report=_say_point, options=settings)
    try:
        if options.save is not None and result.model is not None:
            _save(result.model, options.save)
    finally:  # what was measured is told although the weights are lost
        if options.json:
            print(json.dumps(result.to_mapping(), indent=2))
        else:
            _say_result(result, known, study.task.metric)
    is_pruned = any(p.entry == "prune" and not base.of(p).is_neutral for p in policy.phases)
    if options.save is not None and is_pruned and not options.json:
        print(f"Saved to {options.save}: pruned weights. {FIT_SHAPES}")
    if result.cause == "finished":
        return 0
    print(f"error: {result.message} Lower the learning rate, or set grad_clip.", file=sys.stderr)
    return WRONG_INPUT


FIT_SHAPES = (
    "Call subsettune.train.pruning.surgery.fit_shapes(network, weights) before network.load_state_dict(weights)."
)


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


def _save(network: Any, path: str) -> None:
    import torch

    weights = io.BytesIO()  # torch would hide what the system says of a full disk
    torch.save(network.state_dict(), weights)
    try:
        Path(path).write_bytes(weights.getbuffer())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. Train again with another --save.") from error


def _policy(options: argparse.Namespace, known: TaskFacts, fingerprint: str) -> Policy:
    """The policy of a file or bundle, or the conventional recipe."""
    from subsettune import bundle
    from subsettune.policy import check_written, conventional

    is_bundle = options.policy is not None and not _is_file(options.policy)
    if options.transfer and not is_bundle:
        raise ConfigError("--transfer needs a bundle to transfer. Give its folder as --policy.")
    if options.policy is None:
        return conventional(known)
    if is_bundle:
        made = bundle.Bundle.load(options.policy)
        if options.transfer:
            policy, message = made.transfer(known)
            print(message, file=sys.stderr)
            return policy
        made.check(fingerprint)
        return made.policy
    policy = _read_policy(options.policy)
    check_written(policy, known, options.policy)
    return policy


def _is_file(path: str) -> bool:
    there = Path(path)
    return not there.is_dir() and (there.exists() or there.suffix in (".json", ".yaml", ".yml"))


def _read_policy(path: str) -> Policy:
    """The policy in a JSON or YAML file, alone or as a bundle's policy.json has it."""
    from subsettune import bundle
    from subsettune.policy import Policy
    from subsettune.study.spec.definition import read_yaml

    if path.endswith(".json"):  # which may lie in an object store
        return bundle.read_policy(path)
    plain, _ = read_yaml(Path(path))
    inner = plain["policy"] if isinstance(plain, dict) and "policy" in plain else plain
    return Policy.from_mapping(inner, source=path)


def _say_point(point: Any) -> bool:
    metric = "-" if point.metric is None else f"{point.metric:.4f}"
    loss = "-" if point.loss is None else f"{point.loss:.4f}"
    print(
        f"{100 * point.share:4.0f} %  phase {point.phase + 1}  metric {metric}  loss {loss}  {point.seconds:.1f} s",
        file=sys.stderr,
    )
    return False


def _say_result(result: Any, known: TaskFacts, metric: str) -> None:
    from subsettune.text import flops_words

    scores = ", ".join(f"{split} {value:.4f}" for split, value in result.metrics.items())
    passes = result.ledger.spent / known.pass_flops
    percent = 100 * result.ledger.spent / known.reference_flops
    print(f"{metric}: {scores or '-'}")
    compute = f"{passes:.3g} passes ({percent:.3g} % of the recipe's compute)"
    print(f"{compute}, {result.seconds:.1f} s, {result.updates} updates")
    for soup in result.soups:
        all_of_them, longest = (flops_words(flops) for flops in (soup.flops, soup.longest_flops))
        seconds = "" if soup.longest_s is None else f" ({soup.seconds:.1f} s and {soup.longest_s:.1f} s)"
        covered = f"{100 * soup.coverage:.3g} % of the masked weights kept by some worker"
        print(f"soup of {soup.workers}: {all_of_them} in all, {longest} by the longest worker{seconds}; {covered}")


def _clean(options: argparse.Namespace) -> int:
    from subsettune.report import listings, render
    from subsettune.study.results import clean

    found = clean.find(options.storage, _places(options), runs=options.runs, caches=not options.keep_caches)
    if not found:
        print("Nothing to clean.")
        return 0
    render.write([listings.caches_table([item.row() for item in found])], sys.stdout)
    if not options.yes and not _confirmed(f"Remove these {len(found)}? [y/N] "):
        print("Nothing removed.")
        return 0
    clean.remove(found, _places(options))
    print(f"Removed {len(found)}.")
    return 0


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        print()
        return False


def _names(options: argparse.Namespace) -> int:
    from subsettune import catalog
    from subsettune.report import listings, render

    render.write([listings.names_table(catalog.rows(options.what), options.what)], sys.stdout)
    return 0


# --- shared ------------------------------------------------------------------------------------------------------


def _study(options: argparse.Namespace) -> Study:
    from subsettune.study.spec.definition import read

    names = ("trials", "parallel", "seeds", "time_limit_s")
    study = read(options.study)
    try:
        return study.with_settings({name: getattr(options, name, None) for name in names})
    except ConfigError as error:  # of a flag, which has no line in the file
        raise ConfigError(tuple(_of_flag(mistake) for mistake in error.mistakes)) from error


def _of_flag(mistake: Mistake) -> Mistake:
    name = mistake.path[0]
    return Mistake((), f"--{name.replace('_', '-')}{mistake.message.removeprefix(name)}")


def _places(options: argparse.Namespace) -> DataPaths:
    from subsettune.data import DataPaths

    return DataPaths(data_root=options.data_root, cache=options.cache, download=not options.no_download)


def _studies(storage: str) -> list[dict[str, Any]]:
    from subsettune.storage import Folder
    from subsettune.study.results.folder import StudyFolder

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
        rows.append(_study_row(view, study.folder.total_bytes()))
    return rows


def _study_row(view: StudyView, num_bytes: int) -> dict[str, Any]:
    best = view.summary.best if view.summary.verified else None
    starts = view.manifest["starts"]
    return {
        "run_id": view.run_id,
        "status": view.summary.status,
        "trials": len(view.trials),
        "asked": max(view.study.study.trials, len(view.trials)),  # a later start may have asked for fewer
        "saving": best.saving if best is not None else None,
        "num_bytes": num_bytes,
        "modified": starts[-1]["at"] if starts else view.manifest["created"],
    }


# --- the parser --------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as it is said of any other input."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"error: {message}. See: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="subsettune",
        allow_abbrev=False,
        description="Find the cheapest way to train a network to the accuracy of its conventional recipe, prove that it"
        " matches, and export it.",
        epilog="example: subsettune tune search_spaces/digits.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_study_commands(commands)
    _add_result_commands(commands)
    _add_name_commands(commands)
    return parser


def _add(commands: Any, name: str, command: Command, about: str, example: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about.splitlines()[0],
        description=about,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    sub.set_defaults(command=command)
    return sub


def _add_study_commands(commands: Any) -> None:
    tune = _add(
        commands,
        "tune",
        _tune,
        "Run a study: reference, search, verification, report and bundle.\n"
        "The same command with the same --run-id goes on with an interrupted study, and extends a finished one\n"
        "when more --trials are asked for. Exit code 3: no policy passed.",
        "subsettune tune search_spaces/mnist.yaml --data-root ~/data --run-id mnist-nightly",
    )
    _study_options(tune)
    tune.add_argument("--run-id", help="name of the study (default: a fresh one)")
    tune.add_argument("--trials", type=int, help="instead of the study file's")
    tune.add_argument("--parallel", type=int, help="runs at a time, instead of the study file's")
    tune.add_argument("--seeds", type=int, help="runs of the reference and of each candidate")
    tune.add_argument("--time-limit-s", type=float, help="no new trial starts after so many seconds of search")
    tune.add_argument("--address", help="running Ray cluster: auto, or ray://HOST:10001 (default: start one here)")
    tune.add_argument("--inline", action="store_true", help="without Ray: one run after the other, in this process")
    tune.add_argument("--quiet", action="store_true", help="no progress, only the result")
    _storage_option(tune)
    _device_option(tune)
    plan = _add(
        commands,
        "plan",
        _plan,
        "Check a study and project its cost; nothing is trained.",
        "subsettune plan search_spaces/digits.yaml",
    )
    _study_options(plan)
    plan.add_argument("--json", action="store_true", help="one JSON object")
    _add_train(commands)


POLICY_HELP = """a bundle, or a file with a policy, in YAML or JSON:
  phases:
    - share: 0.2          # of the training examples
      passes: 1           # compute, in passes over all of them
      selector: stratified
      order: rs2          # the same in all phases
      order_options: {share: 0.5}
    - passes: 2
      order: rs2
      order_options: {share: 0.5}
      entry: shrink_perturb
      entry_options: {shrink: 0.6}
  recipe: {lr: 0.05}      # in place of the study's
Only phases and their passes have to be given. A phase may be a
soup: {workers: 2, density: 0.5}"""


def _add_train(commands: Any) -> None:
    train = _add(
        commands,
        "train",
        _train,
        "Train once: by a policy, a bundle, or (without --policy) by the conventional recipe.",
        "subsettune train search_spaces/digits.yaml --policy runs/digits-1/bundle --seed 5",
    )
    _study_options(train)
    train.add_argument("--policy", metavar="FILE_OR_DIR", help=POLICY_HELP)
    train.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    train.add_argument(
        "--transfer", action="store_true", help="follow a bundle made for other data; sizes are re-derived"
    )
    train.add_argument(
        "--threads",
        type=int,
        help="CPU threads; they change the bits of the result\n(default: cpus_per_trial of the study file)",
    )
    train.add_argument("--checkpoints", metavar="DIR", help="keep checkpoints there, and go on from them")
    train.add_argument(
        "--save",
        metavar="FILE",
        help="write the trained weights (a state_dict) there; those of a pruned\n"
        "network fit one that subsettune.train.pruning.surgery.fit_shapes made narrower",
    )
    train.add_argument("--json", action="store_true", help="one JSON object")
    _device_option(train)


def _add_result_commands(commands: Any) -> None:
    show = _add(commands, "show", _show, "Show what a study found.", "subsettune show digits-1 --json")
    show.add_argument("run", help="run id")
    show.add_argument("--json", action="store_true", help="one JSON object")
    listing = _add(commands, "list", _list, "List studies.", "subsettune list --storage runs")
    report = _add(commands, "report", _report, "Write a study's HTML report anew.", "subsettune report digits-1")
    report.add_argument("run", help="run id")
    export = _add(
        commands, "export", _export, "Copy a study's bundle to a folder.", "subsettune export digits-1 policies/digits"
    )
    export.add_argument("run", help="run id")
    export.add_argument("directory", help="folder or URI; a bundle that is there is replaced")
    clean = _add(
        commands,
        "clean",
        _clean,
        "Remove caches, and studies where asked for; sizes are shown and confirmation is asked.",
        "subsettune clean --runs digits-1 digits-2",
    )
    clean.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="studies to remove too")
    clean.add_argument("--keep-caches", action="store_true", help="leave cached data and references")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    _place_options(clean)
    for sub in (show, listing, report, export, clean):
        _storage_option(sub)


def _add_name_commands(commands: Any) -> None:
    for name, about in (
        ("selectors", "List the selectors that a study file may name: who chooses a subset."),
        ("orders", "List the orders that a study file may name: which examples of the pool come next."),
        ("entries", "List the entries that a study file may name: what happens to the network at the switch."),
        ("models", "List the models that a study file may name, with their options."),
        ("data", "List the data sets that a study file may name, and how to bring your own."),
    ):
        sub = _add(commands, name, _names, about, f"subsettune {name}")
        sub.set_defaults(what={"entries": "entry", "data": "data"}.get(name, name.removesuffix("s")))


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY.yaml", help="study file")
    _place_options(parser)


def _place_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", metavar="DIR", help="torchvision's root of named data sets; base of relative paths"
    )
    parser.add_argument("--cache", metavar="DIR", help="where data are kept as Arrow files, and references")
    parser.add_argument("--no-download", action="store_true", help="never fetch a data set")


def _storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", metavar="DIR", default="runs", help="folder or URI that holds studies (default: runs)"
    )


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
