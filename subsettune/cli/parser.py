"""What the command line takes: every command with its options, help and an example."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import Any, NoReturn

from subsettune import __version__
from subsettune.cli import cluster_commands, commands, init_study, model_commands, status_command
from subsettune.errors import did_you_mean
from subsettune.keys import masked
from subsettune.study import DEFAULT_STORAGE

FEW = 3  # choices that are read at a glance: of auto, cpu and cuda, who writes gpu does not mean what is most like it
PARTS = ("trials", "verification", "ablation", "costs", "curves")  # of what a study found, as `show` prints them
INIT = "subsettune init --example digits"
TUNE = f"{INIT}\nsubsettune tune digits.yaml --run-id digits"  # what others begin with: a minute
NEW = (  # examples to predict
    'python -c "from sklearn.datasets import load_digits as d; import numpy as n; '
    "n.savez('new', x=n.uint8(d().images))\""
)
RUN = "run"  # the command that starts a program of the user's
FORMER_COMMANDS = {"transitions": ("entries",)}  # what version 0.1 called them, for one release more


def split_program(given: list[str]) -> tuple[list[str], list[str]]:
    """Our part of a command line, and of `subsettune run` the program with its arguments that stands behind `--`."""
    if given[:1] != [RUN] or "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as it is said of any other input."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and say of what is left over what that command takes."""
        found, strange = self.parse_known_args(args, namespace)
        if strange:
            _command(self, found).error(f"unrecognized arguments: {' '.join(strange)}")
        return found

    def error(self, message: str) -> NoReturn:
        sentences = [f"{masked(message)}.", *self._advice(message), f"See: {self.prog} --help"]
        self.exit(commands.WRONG_INPUT, f"error: {' '.join(sentences)}\n")

    def _advice(self, message: str) -> list[str]:
        """What was meant, and what else is known where argparse does not say it."""
        flag = re.match(r"unrecognized arguments: (--?[^\s=]+)", message)
        if flag is not None:
            flags = sorted(name for name in self._option_string_actions if name.startswith("--"))
            return [*filter(None, [did_you_mean(flag[1], flags)]), f"Known: {', '.join(flags)}."]
        choice = re.match(r"argument .*?: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        names = [] if choice is None else [name.strip("' ") for name in choice[2].split(",")]
        if choice is None or len(names) <= FEW:
            return []
        return [*filter(None, [did_you_mean(choice[1], names)])]


def _command(parser: argparse.ArgumentParser, found: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the command that was given."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            command: argparse.ArgumentParser = action.choices[found.command_name]
            return command
    return parser


def make_parser() -> argparse.ArgumentParser:
    """All commands, each with help and an example."""
    parser = _Parser(
        prog="subsettune",
        allow_abbrev=False,
        description="Find the cheapest way to train a network to the accuracy of its conventional recipe, prove that it"
        " matches, and export it.",
        epilog=_examples(TUNE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"subsettune {__version__}")
    to = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command_name", required=True)
    _add_study_commands(to)
    _add_init(to)
    _add_model_commands(to)
    _add_result_commands(to)
    _add_cluster_commands(to)
    _add_name_commands(to)
    return parser


def _add(to: Any, name: str, command: commands.Command, about: str, example: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = to.add_parser(
        name,
        aliases=FORMER_COMMANDS.get(name, ()),
        help=about.splitlines()[0],
        description=about,
        epilog=_examples(example),
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    sub.set_defaults(command=command)
    return sub


def _examples(commands: str) -> str:
    return f"example:\n{textwrap.indent(commands, '  ')}"


def _add_init(to: Any) -> None:
    init = _add(
        to,
        "init",
        init_study.init_study,
        "Write a commented study file for your data, which runs as it is.\n"
        "Label, network, batch size, epochs, tolerance, split and space are guessed, each with its reason.",
        f"{INIT}\nsubsettune init digits --output mine.yaml",
    )
    init.add_argument("source", nargs="?", metavar="FILE_OR_FOLDER", help="Parquet, .csv, .tsv, .npz, or pictures")
    init.add_argument("--label", metavar="NAME", help="column of the label (default: the one that is called like one)")
    init.add_argument(
        "--metric", metavar="NAME", help="(default: what the labels suit; mse for numbers,\nmae for large ones)"
    )
    init.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of data, as data.csv.encoding=latin-1 or 'data.exclude=[id, note]'; more than once for several",
    )
    init.add_argument("--output", metavar="STUDY.yaml", help="(default: the name of the data, in the working folder)")
    examples = init_study.examples()
    init.add_argument(
        "--example",
        choices=examples,
        metavar="NAME",
        help=f"write a study that is shipped instead, one of\n{textwrap.fill(', '.join(examples), 56)}",
    )
    _place_options(init)


def _add_study_commands(to: Any) -> None:
    tune = _add(
        to,
        "tune",
        commands.tune_study,
        "Run a study: reference, search, verification, report and bundle.\n"
        "The same command with the same --run-id goes on with an interrupted study, and extends a finished one\n"
        "when more --trials are asked for. Exit code 3: no policy passed.",
        TUNE,
    )
    _study_options(tune)
    _set_option(tune, KEPT)
    tune.add_argument("--run-id", help="name of the study (default: a fresh one)")
    _tune_options(tune)
    where = tune.add_mutually_exclusive_group()
    addresses = "auto, HOST:6379 or ray://HOST:10001 (default: start one here)"
    where.add_argument("--address", help=f"running Ray cluster: {addresses}")
    where.add_argument("--inline", action="store_true", help="without Ray: one run after the other, in this process")
    tune.add_argument("--quiet", action="store_true", help="no progress, only the result")
    _storage_option(tune)
    plan = _add(
        to,
        "plan",
        commands.plan_study,
        "Check a study and project its cost; nothing is trained.",
        f"{INIT}\nsubsettune plan digits.yaml --price-per-hour 0.40",
    )
    _study_options(plan)
    _set_option(plan, KEPT)
    where = plan.add_mutually_exclusive_group()
    where.add_argument("--address", help="Ray cluster that will run it, as of tune (default: this machine)")
    where.add_argument("--inline", action="store_true", help="for tune --inline: one run after the other, without Ray")
    plan.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="of all machines that carry the study out, in any currency: tells what it costs",
    )
    plan.add_argument("--json", action="store_true", help="one JSON object")
    _warm_start_option(plan)
    _storage_option(plan)
    _add_train(to)


def _tune_options(parser: argparse.ArgumentParser) -> None:
    """What a study is run with, wherever it runs."""
    parser.add_argument("--trials", type=int, help="instead of the study file's")
    parser.add_argument("--parallel", type=int, help="runs at a time, instead of the study file's")
    parser.add_argument("--seeds", type=int, help="runs of the reference and of each candidate")
    parser.add_argument(
        "--fresh-seeds",
        action="store_true",
        help="confirm the exported policy of the finished study --run-id: with seeds and\n"
        "reference runs that nobody has looked at; exit code 3: it did not pass again",
    )
    _warm_start_option(parser)
    parser.add_argument("--time-limit-s", type=float, help="no new trial starts after so many seconds of search")
    parser.add_argument(
        "--accept-no-policy",
        action="store_true",
        help="exit code 0 where no policy passed, too: for schedulers that try again what fails",
    )
    _device_option(parser)


KEPT = ". They are kept with\nthe study, which goes on with the same ones alone"  # keys that are set
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
      transition: shrink_perturb
      transition_options: {shrink: 0.6}
  recipe: {lr: 0.05}      # in place of the study's
Only phases and their passes have to be given. A phase may be a
soup: {workers: 2, density: 0.5}"""


def _add_train(to: Any) -> None:
    train = _add(
        to,
        "train",
        commands.train_once,
        "Train once: by a policy, a bundle, or (without --policy) by the conventional recipe.",
        f"{TUNE}\nsubsettune train digits.yaml --policy runs/digits/bundle --seed 5 --save models/digits",
    )
    _train_options(train)
    program = _add(
        to,
        RUN,
        commands.train_once,
        "Start a program of your own for one run: subsettune.session() gives it batches, rates and switches.\n"
        "The study file has its recipe and how many examples it has; what stands behind -- is in place of task.train.",
        "subsettune init --example program\nsubsettune run program.yaml --seed 5 -- python program.py",
    )
    _train_options(program)
    program.usage = f"{program.format_usage().removeprefix('usage: ').rstrip()} [-- PROGRAM ...]"


def _train_options(train: argparse.ArgumentParser) -> None:
    _study_options(train)
    _set_option(train)
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
        metavar="DIR",
        help="keep the model there: weights, encoders, classes; for subsettune predict\n"
        "and subsettune.load_model. With the name of a file, as weights.pt, the weights\n"
        "alone (a state_dict); those of a pruned network fit one that\n"
        "subsettune.train.pruning.surgery.fit_shapes made narrower",
    )
    train.add_argument("--json", action="store_true", help="one JSON object")
    _device_option(train)


def _add_model_commands(to: Any) -> None:
    predict = _add(
        to,
        "predict",
        model_commands.predict_file,
        "Predict for the rows of a file by a model that train or follow saved.\n"
        "The file has the columns that the model was trained on; a column of labels is not needed, and where there\n"
        "is one, the metric is printed. Predictions are classes or values as the training data have them.",
        f"{INIT}\nsubsettune train digits.yaml --save models/digits\n{NEW}\n"
        "subsettune predict models/digits new.npz --output predictions.csv --probabilities",
    )
    predict.add_argument("model", metavar="DIR", help="folder that --save DIR of train or follow wrote")
    predict.add_argument("file", metavar="FILE", help=".parquet, .tsv or .npz file")
    predict.add_argument("--output", metavar="OUT", help=".parquet or .csv file (default: CSV on standard output)")
    predict.add_argument("--probabilities", action="store_true", help="one column more for each class")
    follow = _add(
        to,
        "follow",
        model_commands.follow_bundle,
        "Train by a bundle's policy on other data of the same columns and classes, as a nightly job does.\n"
        "Sizes are derived anew, subsets chosen again, and the test metric is held against what the runs behind the\n"
        "bundle let expect. Exit code 4: it is clearly below that.",
        f"{TUNE}\nsubsettune follow runs/digits/bundle --save models/tonight",
    )
    follow.add_argument("bundle", metavar="BUNDLE", help="folder or URI of a bundle")
    follow.add_argument(
        "--data", metavar="PATH", help="file or folder of data (default: what the bundle names, as it is)"
    )
    follow.add_argument("--check", action="store_true", help="only say what it would do; nothing is trained")
    follow.add_argument("--save", metavar="DIR", help="keep the model there, for subsettune predict")
    follow.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    follow.add_argument("--threads", type=int, help="CPU threads (default: those of the study)")
    follow.add_argument("--json", action="store_true", help="one JSON object")
    _place_options(follow)
    _device_option(follow)


def _add_result_commands(to: Any) -> None:
    show = _add(
        to,
        "show",
        commands.show_study,
        "Show what a study found: in brief, one part of it, or everything.",
        f"{TUNE}\nsubsettune show digits\nsubsettune show digits trials",
    )
    show.add_argument("run", help="run id")
    show.add_argument("part", nargs="?", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    show.add_argument("--all", action="store_true", help="every table")
    show.add_argument("--json", action="store_true", help="one JSON object")
    status = _add(
        to,
        "status",
        status_command.show_status,
        "Show how far a study is: whether it runs, who drives it, its trials, what it spent, the best policy so far.\n"
        "All is read from the storage, from any machine, and without Ray.",
        f"{TUNE}\nsubsettune status digits",
    )
    status.add_argument("run", help="run id")
    status.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=status_command.EVERY_S,
        metavar="SECONDS",
        help=f"show it again every so many seconds, {status_command.EVERY_S:g} where none are given,\n"
        "until nobody drives the study any more",
    )
    status.add_argument("--json", action="store_true", help="one JSON object; with --watch one a line")
    listing = _add(to, "list", commands.list_studies, "List studies.", "subsettune list --storage runs")
    report = _add(
        to, "report", commands.write_report, "Write a study's HTML report anew.", f"{TUNE}\nsubsettune report digits"
    )
    report.add_argument("run", help="run id")
    export = _add(
        to,
        "export",
        commands.export_bundle,
        "Copy a study's bundle to a folder.",
        f"{TUNE}\nsubsettune export digits policies/digits",
    )
    export.add_argument("run", help="run id")
    export.add_argument("directory", help="folder or URI; a bundle that is there is replaced")
    clean = _add(
        to,
        "clean",
        commands.clean_up,
        "Remove caches, and studies where asked for; sizes are shown and confirmation is asked.",
        f"{TUNE}\nsubsettune clean --runs digits --keep-caches",
    )
    clean.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="studies to remove too")
    clean.add_argument("--keep-caches", action="store_true", help="leave cached data and references")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    _place_options(clean)
    for sub in (show, status, listing, report, export, clean):
        _storage_option(sub)


def _add_cluster_commands(to: Any) -> None:
    _add_submit(to)
    cluster: argparse.ArgumentParser = to.add_parser(
        "cluster",
        help="Check files for clusters.",
        description="Check files for clusters.",
        epilog=_examples("subsettune cluster check cluster.yaml"),
        allow_abbrev=False,
    )
    check = _add(
        cluster.add_subparsers(title="commands", metavar="COMMAND", dest="cluster_command", required=True),
        "check",
        cluster_commands.check_file,
        "Check a file for Ray's cluster launcher, or a RayJob for KubeRay, before it costs anything.\n"
        "Nothing is connected to. Every mistake is told at once, with its line and its remedy.",
        "subsettune cluster check cluster.yaml",
    )
    check.add_argument("file", nargs="?", default="cluster.yaml", metavar="FILE", help="(default: cluster.yaml)")


def _add_submit(to: Any) -> None:
    submit = _add(
        to,
        "submit",
        cluster_commands.submit_study,
        "Run a study as a job of a Ray cluster: the working folder goes along, and this machine may be switched off.\n"
        "The same command goes on with the study where a job of it has ended; while one runs, none is added. With\n"
        "--follow its log is shown, and its exit code is that of tune; Ctrl-C leaves the job running.",
        "subsettune submit study.yaml --address http://HOST:8265 --storage s3://bucket/runs --run-id nightly --follow",
    )
    _study_options(submit)
    submit.add_argument(
        "--address",
        metavar="URL",
        help="of the cluster's dashboard, as http://HOST:8265 (default: $RAY_API_SERVER_ADDRESS)",
    )
    submit.add_argument("--run-id", required=True, help="name of the study")
    submit.add_argument(
        "--storage", metavar="URI", required=True, help="that holds studies: a bucket, or a folder that all nodes have"
    )
    submit.add_argument("--follow", action="store_true", help="show the log of the job until it ends")
    _tune_options(submit)


def _add_name_commands(to: Any) -> None:
    for name, about, example in (
        ("selectors", "List the selectors that a study file may name: who chooses a subset.", "kcenter"),
        ("orders", "List the orders that a study file may name: which examples of the pool come next.", "infobatch"),
        (
            "transitions",
            "List the transitions that a study file may name: what happens to the network at the switch.",
            "prune",
        ),
        ("metrics", "List the metrics that a study file may name: what a task is judged by, of each kind.", "roc_auc"),
        ("models", "List the models that a study file may name, with their options.", "cnn"),
        ("data", "List the data sets that a study file may name, and how to bring your own.", "digits"),
    ):
        sub = _add(to, name, commands.list_names, about, f"subsettune {name} {example}")
        sub.add_argument("name", nargs="?", metavar="NAME", help="explain this one: what it does, when, at what cost")
        sub.set_defaults(what="data" if name == "data" else name.removesuffix("s"))


def _seconds(text: str) -> float:
    """A time above 0; argparse turns what this raises into the usual sentence."""
    seconds = float(text)
    if not seconds > 0:
        raise ValueError("no time above 0")
    return seconds


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY.yaml", help="study file")
    _place_options(parser)


def _set_option(parser: argparse.ArgumentParser, kept: str = "") -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key in place of the study file's, as study.trials=8, task.tolerance=0.02\n"
        f"or 'space.lr={{log: [0.01, 1]}}'; more than once for several{kept}",
    )


def _place_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", metavar="DIR", help="torchvision's root of named data sets; base of relative paths"
    )
    parser.add_argument("--cache", metavar="DIR", help="where data are kept as Arrow files, and references")
    parser.add_argument("--no-download", action="store_true", help="never fetch a data set")


def _storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage",
        metavar="DIR",
        default=DEFAULT_STORAGE,
        help=f"folder or URI that holds studies (default: {DEFAULT_STORAGE})",
    )


def _warm_start_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--warm-start",
        nargs="+",
        metavar="RUN",
        help="earlier studies of the same space on nearly the same task, by run id or folder:\n"
        "the search knows what their trials showed, and needs fewer of its own, as in\n"
        "--run-id mnist-tuesday --warm-start mnist-monday",
    )


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
