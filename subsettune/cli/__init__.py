"""The command line: parse, one call, print.

Exit codes: 0 done, 2 wrong input, 3 no policy passed verification, 4 a training that followed a bundle came out clearly
below what the bundle promises, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from subsettune.cli.interrupt import INTERRUPTED, Answer, answered
from subsettune.report.streams import forgiving_output

if TYPE_CHECKING:
    import argparse

    from subsettune.errors import ConfigError, SubsettuneError

__all__ = ["main"]

KEPT = {"tune": " The study is kept; see it with: subsettune show RUN_ID"}

ADDRESSES = ("storage", "bundle", "policy", "directory")  # options that may be URIs, which commands print


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with forgiving_output() as (out, errors):
        answer = Answer(errors)
        try:
            with answered(answer):
                code = _run(given, answer)
        except KeyboardInterrupt as stop:
            print(stop.args[0] if stop.args else "interrupted.", file=errors)
            code = INTERRUPTED
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError):  # `head` has seen enough
            kept = KEPT.get(given[0], "") if given else ""
            print(f"error: the result cannot be printed: {out.failure.strerror}.{kept}", file=errors)
            code = 2
    return code


def _run(given: list[str], answer: Answer) -> int:
    """Parse and call; what that takes is imported here, where Ctrl-C is answered already."""
    import shlex
    import warnings

    from subsettune.cli.commands import SUBMITTED, WRONG_INPUT
    from subsettune.cli.parser import make_parser, split_program
    from subsettune.errors import CostWarning, StorageError, SubsettuneError
    from subsettune.extras import needed_for
    from subsettune.keys import masked, without_keys
    from subsettune.loggers import quieted

    if not given:
        make_parser().print_help()
        return 0
    ours, program = split_program(given)
    options = make_parser().parse_args(ours)
    options.program = program
    options.command_line, options.answer = masked(shlex.join(["subsettune", *given])), answer
    if options.command_name == "tune":  # what goes on with the study of a job is the command that submitted it
        options.command_line = masked(os.environ.get(SUBMITTED) or options.command_line)
    try:
        for name in ADDRESSES if options.command_name != "submit" else ():  # which refuses keys
            if isinstance(value := getattr(options, name, None), str):
                setattr(options, name, without_keys(value))
        _check_working_folder(StorageError)
        with needed_for(f"subsettune {options.command_name}"), warnings.catch_warnings(), quieted("subsettune.data"):
            warnings.simplefilter("ignore", CostWarning)  # commands print it, and what is to be known of the data
            return int(options.command(options))
    except SubsettuneError as error:
        _say_error(error, options)
        return WRONG_INPUT


def _check_working_folder(refusal: type[SubsettuneError]) -> None:
    """Libraries of C++ fail without one in ways of their own."""
    try:
        os.getcwd()  # noqa: PTH109 (pathlib takes longer to load)
    except FileNotFoundError as error:
        raise refusal("The working folder is not there any more. Change to one that is.") from error


def _say_error(error: SubsettuneError, options: argparse.Namespace) -> None:
    """Print one line a mistake; one that was found after the study file was read gets its place there."""
    from subsettune.errors import ConfigError

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
    from pathlib import Path

    from subsettune.study.spec.yaml_file import located, read_yaml

    return located(error, options.study, read_yaml(Path(options.study))[1])
