"""Ctrl-C gets its answer at once, whatever Python is busy with; the second one ends the program at once.

Python runs a handler only between two of its own instructions, which a long call into torch, Arrow or Ray keeps away
for seconds. So a thread waits for the byte that Python's C code writes the moment a signal comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from subsettune.report.streams import ForgivingStream
from subsettune.study.execute.signals import STOP_SIGNALS, handled

INTERRUPTED = 130
SAME_S = 0.3  # `timeout` and some shells send a signal to the program and to its group: it is one Ctrl-C


class Answer:
    """What is said at the first Ctrl-C.

    Args:
        stream: where it is said.
    """

    def __init__(self, stream: TextIO | ForgivingStream) -> None:
        self._stream = stream
        self._display: Callable[[str], None] | None = None
        self.go_on: str | Callable[[], str] = ""  # a sentence: how to go on; commands set it once they know
        self.what = "Stopping"  # what Ctrl-C does
        self._heard_s = -1.0

    def hear(self, number: int) -> None:
        """A signal has come."""
        now = time.monotonic()
        if number not in (signal.SIGINT, *STOP_SIGNALS):
            return
        if self._heard_s < 0:
            go_on = self.go_on if isinstance(self.go_on, str) else self.go_on()
            words = " ".join(f"{self.what}; Ctrl-C again ends at once. {go_on}".split())
            (self._display or self._say)(words)
        elif number == signal.SIGINT and now - self._heard_s > SAME_S:
            self._say("Ended.")
            os._exit(INTERRUPTED)  # Ray's processes end with this one
        else:
            return
        self._heard_s = now

    @contextlib.contextmanager
    def through(self, display: Callable[[str], None] | None) -> Iterator[None]:
        """Let a display, if one redraws itself, say it inside: it would wipe out what is written beside it."""
        self._display = display
        try:
            yield
        finally:
            self._display = None

    def _say(self, words: str) -> None:
        self._stream.write(f"\n{words}\n")
        self._stream.flush()


@contextlib.contextmanager
def answered(answer: Answer) -> Iterator[None]:
    """Let a thread answer signals that ask to stop as they come; each raises KeyboardInterrupt where Python gets to it.

    Args:
        answer: told of each.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    thread = threading.Thread(target=_listen, args=(ours, answer), name="ctrl-c", daemon=True)
    thread.start()
    woken = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        with handled(_interrupt):  # what a cluster sends before it kills: stop as Ctrl-C does
            yield
    finally:
        signal.set_wakeup_fd(woken)
        os.close(theirs)  # the thread reads the end, and goes
        thread.join()
        os.close(ours)


def _listen(pipe: int, answer: Answer) -> None:
    while numbers := os.read(pipe, 64):
        for number in numbers:
            answer.hear(number)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
