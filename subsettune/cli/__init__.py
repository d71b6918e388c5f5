"""The command line: parse, one call, print.

Exit codes: 0 done, 2 wrong input, 3 no policy passed verification, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from subsettune.cli.commands import DONE, INTERRUPTED, WRONG_INPUT, Command
from subsettune.cli.parser import make_parser
from subsettune.errors import ConfigError, CostWarning, SubsettuneError
from subsettune.extras import needed_for

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser().parse_args(given)
    options.command_line = shlex.join(["subsettune", *given])
    command: Command = options.command
    before = signal.signal(signal.SIGTERM, _interrupt)  # what a cluster sends before it kills: stop as Ctrl-C does
    try:
        with needed_for(f"subsettune {options.command_name}"), warnings.catch_warnings():
            warnings.simplefilter("ignore", CostWarning)  # commands print it
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
        code = DONE
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
    from subsettune.study.spec.yaml_file import located, read_yaml

    return located(error, options.study, read_yaml(Path(options.study))[1])
