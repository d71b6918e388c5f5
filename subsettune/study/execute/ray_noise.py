"""Keeps what Ray says off the terminal: what a user must know of deaths and delays, the study tells in its own words.

Ray (2.60) speaks in four ways, each of which is closed where it comes from, so that nothing of the user's is lost:

- loggers of its Python code;
- errors that its nodes publish ("A worker died ..."), which a thread of the driver prints to standard output;
- by ray://, whatever the server of the client prints;
- its C++ code, on file descriptor 2: every line until the driver is connected, and errors from then on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ray._private import utils, worker

from subsettune.keys import masked
from subsettune.loggers import quieted

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own Parquet is the log
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user's code mean the driver's folder
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # Tune's state grows by each trial and is written whole; nothing goes on from it
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
COMMAND = "get_entrypoint_name"  # gives the command of this process, for a cluster's list of jobs
LOGGERS = ("ray", "ray.tune", "ray.train")
CPP_LEVEL = "RAY_BACKEND_LOG_LEVEL"
BEGINNING = re.compile(rb"\[\d{4}-")
CPP_LINE = re.compile(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z] \d+ \d+\] ")  # time, level, process, thread
CHUNK_BYTES = 2**16
DRAIN_S = 0.5  # for what was written before the end; processes that still write are read from as long as they live
ERRORS = 2  # the file descriptor


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray's and Tune's own lines off the user's terminal; levels and environment come back as they were."""
    fresh = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in fresh})
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(quieted(*LOGGERS, level=logging.CRITICAL))
            for owner, name in _printing():
                with contextlib.suppress(AttributeError):  # another Ray
                    stack.enter_context(mock.patch.object(owner, name, _say_nothing))
            yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)


def _printing() -> Iterator[tuple[Any, str]]:
    """What prints, each with its owner."""
    yield worker, "print_to_stdstream"
    with contextlib.suppress(ImportError):  # Ray's client, an extra of Ray's
        from ray.util.client.logsclient import LogstreamClient

        yield from ((LogstreamClient, "stdstream"), (LogstreamClient, "log"))


def _say_nothing(*_: Any, **__: Any) -> None:
    """In place of what would print."""


@contextlib.contextmanager
def quiet_connection() -> Iterator[None]:
    """Keep lines of Ray's C++ code off the terminal while this process connects, and its errors from then on.

    Clusters list the commands of their drivers: keys in ours are masked.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(AttributeError):  # another Ray
            stack.enter_context(mock.patch.object(worker, "connect", _silently(worker.connect)))
            stack.enter_context(mock.patch.object(utils, COMMAND, functools.partial(_masked, getattr(utils, COMMAND))))
        stack.enter_context(cpp_lines_dropped())
        yield


def _masked(tell: Callable[[], str]) -> str:
    return masked(tell())


def _silently(connect: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with C++ code that says nothing in this process; those that were started before write their logs."""

    @functools.wraps(connect)
    def connected(*arguments: Any, **named: Any) -> Any:
        is_fresh = CPP_LEVEL not in os.environ
        os.environ.setdefault(CPP_LEVEL, "fatal")
        try:
            return connect(*arguments, **named)
        finally:
            if is_fresh:
                os.environ.pop(CPP_LEVEL, None)

    return connected


@contextlib.contextmanager
def cpp_lines_dropped() -> Iterator[None]:
    """Let everything through to standard error but lines of Ray's C++ code, as it comes."""
    sys.stderr.flush()
    try:
        target = os.dup(ERRORS)
    except OSError:  # it is closed
        yield
        return
    source, sink = os.pipe()
    os.dup2(sink, ERRORS)
    os.close(sink)
    reader = threading.Thread(target=pass_on, args=(source, target), name="standard error", daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(target, ERRORS)
        reader.join(DRAIN_S)


def pass_on(source: int, target: int) -> None:
    """Copy what comes from one file descriptor to another until its end, without lines of C++; both are closed then.

    C++ writes its lines whole, in the middle of another one, too. All else is copied at once, whole lines or not.
    """
    held = b""
    with contextlib.suppress(OSError):  # the terminal is gone
        while chunk := os.read(source, CHUNK_BYTES):
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                found = CPP_LINE.search(line)
                os.write(target, line + b"\n" if found is None else line[: found.start()])
            begins = _cpp_begins(held)
            os.write(target, held[:begins])
            held = held[begins:]
        os.write(target, b"" if CPP_LINE.match(held) else held)
    os.close(source)
    os.close(target)


def _cpp_begins(line: bytes) -> int:
    """Where in the beginning of a line one of C++ begins, or may turn out to; its length if nowhere."""
    found = CPP_LINE.search(line)
    start = line.rfind(b"[") if found is None else found.start()
    may_begin = start >= 0 and BEGINNING.match(line[start:] + b"[2026-"[len(line) - start :]) is not None
    return start if may_begin else len(line)
