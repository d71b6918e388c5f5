"""`subsettune status`: how far a study is, once or again and again."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from time import sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subsettune.study.status import StudyStatus

EVERY_S = 10.0  # unless another number is given
CLEAR = "\033[H\033[2J"


def show_status(options: argparse.Namespace) -> int:
    """Print how far a study is; with `--watch` until nobody drives it any more."""
    from subsettune.study.results.folder import not_there
    from subsettune.study.status import has_begun, read_status

    is_told, is_there = False, options.watch is None
    while True:
        is_there = is_there or has_begun(options.storage, options.run)
        if is_there:
            status = read_status(options.storage, options.run)
            _print(status, options)
            if options.watch is None or not status.goes_on:
                return 0
        elif not is_told:  # of a job that was just submitted
            print(f"{not_there(options.storage, options.run)} Waiting for it.", file=sys.stderr)
            is_told = True
        sleep(options.watch)


def _print(status: StudyStatus, options: argparse.Namespace) -> None:
    from subsettune.report import render
    from subsettune.report.status import status_blocks

    if options.json:
        print(json.dumps(status.to_mapping(), indent=None if options.watch else 2), flush=True)
        return
    if options.watch is not None:
        sys.stdout.write(CLEAR if render.is_terminal(sys.stdout) else "\n")
    render.write(status_blocks(status, datetime.datetime.now(datetime.UTC)), sys.stdout)
