"""Signals that end a study: what schedulers send is made what a terminal sends, and a terminal is heard again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

TUNE_SIGNALS = [signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Turn SIGTERM, which `ray job stop` and schedulers send, into the SIGINT that Tune understands.

    A program that was started in the background of a script ignores SIGINT: there it is the exception itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
