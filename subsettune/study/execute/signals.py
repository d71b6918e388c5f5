"""Signals that end a study: what schedulers send is made what a terminal sends, and a terminal is heard again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# What schedulers send, and what a terminal that is closed or a connection that is lost sends.
STOP_SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
TUNE_SIGNALS = [signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextlib.contextmanager
def stops_as_sigint() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into the SIGINT that Tune understands.

    A program that was started in the background of a script ignores SIGINT: there it is the exception itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled(_interrupt):
        yield


@contextlib.contextmanager
def exits_as_sigint() -> Iterator[None]:
    """Turn the end of the process that Ray makes of SIGTERM, from its start on, into what Ctrl-C raises."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let a handler hear what asks a program to stop; a SIGHUP that is ignored, as `nohup` has it, stays so."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    heard = [number for number in STOP_SIGNALS if number == signal.SIGTERM or before[number] != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextlib.contextmanager
def hangups_ignored() -> Iterator[None]:
    """Have processes that are started meanwhile ignore SIGHUP: whoever is asked to stop still needs them for that."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Put the handlers of signals back that Tune sets and leaves behind: the next Ctrl-C would only end a dead run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in TUNE_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back from it
                signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
