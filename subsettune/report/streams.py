"""Streams for words: one that is closed, full or of few letters loses words, never the work that they tell of."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

STANDARD = (0, 1, 2)


class ForgivingStream(io.TextIOBase):
    """Passes text on for as long as the stream takes it, and remembers why it stopped to.

    Args:
        stream: that the words are for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute there
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what can be written; letters that the stream has not are written as `\\xe9`."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except OSError as error:
            self._fail(error)
        except ValueError as error:  # it was closed
            self._fail(OSError(*error.args))
        return len(text)

    def flush(self) -> None:
        """Bring out what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)
        except ValueError as error:
            self._fail(OSError(*error.args))

    def _fail(self, error: OSError) -> None:
        self.failure = self.failure or error

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(getattr(self._stream, "isatty", lambda: False)())

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Anything may be written."""
        return True


@contextlib.contextmanager
def forgiving_output() -> Iterator[tuple[ForgivingStream, ForgivingStream]]:
    """Make standard output and standard error forgiving, for a program; they come back as they were.

    Numbers of standard streams that are closed are taken first: else the next file that is opened would get one, and
    what C libraries print would be written into it.

    Yields:
        both; `failure` of the first tells whether the result arrived.
    """
    _take_closed_numbers()
    before = sys.stdout, sys.stderr
    out, errors = (ForgivingStream(stream or _nowhere()) for stream in before)
    sys.stdout, sys.stderr = out, errors
    try:
        yield out, errors
    finally:
        sys.stdout, sys.stderr = before
        for stream in (out, errors):
            stream.flush()
            if stream.failure is not None:
                _abandon(stream)


def _take_closed_numbers() -> None:
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (for as long as the program runs)


def _abandon(stream: ForgivingStream) -> None:
    """Let Python end: it flushes at exit, and would fail there again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
