"""Calls of a storage that may be away for a while: tried again with growing waits, told, and given up in a sentence.

What a call of Arrow's does cannot be interrupted, and some take minutes to fail. So those of other file systems than
this machine's are made in a thread: whoever waits for them hears Ctrl-C, and does not wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pyarrow import ArrowException

T = TypeVar("T")
PATIENCE_S = 120.0  # with a storage that has answered before: a server that restarts, a link that is down
FIRST_PATIENCE_S = 40.0  # with one that has never answered: a slip in an address is told soon
OPENING_LIMIT_S = 30.0  # for one call that opens a file system
TOLD_AFTER_S = 3.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
HURRIED_S = 5.0  # at most, where somebody has asked to stop
INTERRUPTED_WAIT_S = 1.0  # for a call that is under way when Ctrl-C comes: what it writes must not come last

# Words of errors that pass, as the clients of S3 and GCS have them; others (rights, names, buckets) are told at once.
_PASSING = (
    *("NETWORK_CONNECTION", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "THROTTLING", "INTERNAL_FAILURE", "REQUEST_TIMEOUT"),
    *("curlCode", "HTTP response code 5", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Retry policy exhausted"),
)
_PASSING_ERRNO = (
    *(errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH),
    *(errno.EHOSTUNREACH, errno.ESTALE),
)
_answered: set[str] = set()  # storages that have answered this process
_hurries: list[None] = []  # who wants no more than a short wait
_listeners: list[tuple[int, Callable[[str], None]]] = []  # with the thread that each belongs to


class NoAnswerError(OSError):
    """A storage did not answer for as long as it was waited for."""


@contextlib.contextmanager
def telling(note: Callable[[str], None]) -> Iterator[None]:
    """Tell `note` inside when a storage does not answer this thread, and when it does again; else it is logged."""
    listener = (threading.get_ident(), note)
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Wait for no storage for long inside: somebody has asked to stop."""
    _hurries.append(None)
    try:
        yield
    finally:
        _hurries.pop()


def patiently(act: Callable[[], T], where: str, *, is_remote: bool) -> T:
    """What a call gives, which is made again while its storage is away.

    Args:
        act: the call; made twice, it does no more than once.
        where: name of the storage, for people.
        is_remote: whether it is no file system of this machine.

    Raises:
        NoAnswerError: it was away for too long.
        OSError, ArrowException: whatever else went wrong.
    """
    started, wait_s, is_told = time.monotonic(), FIRST_WAIT_S, False
    while True:
        try:
            found = in_thread(act) if is_remote else act()
        except (OSError, ArrowException) as error:
            waited_s = time.monotonic() - started
            patience_s = PATIENCE_S if where in _answered or not is_remote else FIRST_PATIENCE_S
            patience_s = min(patience_s, HURRIED_S) if _hurries else patience_s
            if not passes(error):
                raise
            if waited_s + wait_s > patience_s:
                why = f"no answer in {waited_s:.0f} s, the last error was: {error}"
                raise NoAnswerError(why) from error
            if not is_told and waited_s + wait_s > TOLD_AFTER_S:
                _tell(f"{where} does not answer; it is tried again for {patience_s:.0f} s. {_first_line(error)}")
                is_told = True
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        else:
            _answered.add(where)
            if is_told:
                _tell(f"{where} answers again, after {time.monotonic() - started:.0f} s.")
            return found


def in_thread(act: Callable[[], T], limit_s: float | None = None) -> T:
    """What a call gives that is made in another thread, so that a signal is heard while it goes on.

    Args:
        act: the call.
        limit_s: seconds after which it is not waited for any more; None for as long as it takes.

    Raises:
        NoAnswerError: it took longer; it goes on behind the scenes, and nobody looks at what it gives.
        whatever it raises.
    """
    found: list[T] = []
    raised: list[BaseException] = []
    is_over = threading.Event()

    def made() -> None:
        try:
            found.append(act())
        except BaseException as error:  # raised again by the one who waits
            raised.append(error)
        finally:
            is_over.set()

    threading.Thread(target=made, name="subsettune-storage", daemon=True).start()
    try:
        if not is_over.wait(limit_s):
            raise NoAnswerError(f"no answer in {limit_s:.0f} s")
    except KeyboardInterrupt:
        is_over.wait(INTERRUPTED_WAIT_S)
        raise
    if raised:
        raise raised[0]
    return found[0]


def passes(error: Exception) -> bool:
    """Whether what went wrong may be gone in a while: a network or a server, and not rights, names or a full disk."""
    if isinstance(error, NoAnswerError | FileNotFoundError):
        return False
    return getattr(error, "errno", None) in _PASSING_ERRNO or any(word in str(error) for word in _PASSING)


def is_full(error: BaseException) -> bool:
    """Whether a disk or a quota is used up."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def _tell(sentence: str) -> None:
    here = [note for thread, note in _listeners if thread == threading.get_ident()]
    for note in here[-1:]:
        note(sentence)
    if not _listeners:  # else what another thread has to do is told by the one that is listened to
        logging.getLogger("subsettune").warning(sentence)


def _first_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{words[:200].rstrip('. ')}."
