"""Watches whether the head of the cluster answers: a driver without one is ended by Ray, and says why beforehand.

Ray's calls wait for a head that is gone, in C++ where no exception of ours reaches them; after a minute Ray ends the
process with a line about `rpc_client.h`. So a thread of ours asks the head's port, tells of its silence, and ends the
process a little earlier, in our words. Everything that a study keeps is written so that it may be killed at any time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import ray

LOOK_S = 2.0
ANSWER_S = 5.0
TELL_S = 10.0  # of silence
END_S = 50.0  # Ray ends the process after 60 (RAY_gcs_rpc_server_reconnect_timeout_s)
CODE = 2  # as of any error that a user can mend
GOES_ON = "What was finished is on record; the same command goes on once there is a cluster."


class HeadWatch:
    """Tells when the head stops answering, and ends this process when it does not come back.

    Args:
        address: of the head, `host:port`.
        note: told what a user should know.
        answers: whether the head does.
        end: ends the process with a code.
    """

    def __init__(
        self,
        address: str,
        note: Callable[[str], None],
        answers: Callable[[str], bool],
        end: Callable[[int], object],
    ) -> None:
        self._address, self._note, self._answers, self._end = address, note, answers, end
        self._silent_since_s: float | None = None
        self._is_told = False

    def look(self, now_s: float) -> None:
        """Ask once; called every few seconds."""
        if self._answers(self._address):
            if self._is_told:
                self._note(f"The head of the Ray cluster at {self._address} answers again.")
            self._silent_since_s, self._is_told = None, False
            return
        self._silent_since_s = now_s if self._silent_since_s is None else self._silent_since_s
        silent_s = now_s - self._silent_since_s
        if silent_s >= END_S:
            silence = f"its head has not answered for {END_S:g} s"
            self._note(f"The Ray cluster at {self._address} is lost: {silence}. {GOES_ON}")
            self._end(CODE)
        elif silent_s >= TELL_S and not self._is_told:
            self._is_told = True
            self._note(f"The head of the Ray cluster at {self._address} does not answer; it is waited for.")


@contextlib.contextmanager
def head_watched(note: Callable[[str], None]) -> Iterator[None]:
    """Watch the head of the cluster that this process is connected to; by ray:// it has none, and hears errors."""
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        yield
        return
    watch = HeadWatch(ray.get_runtime_context().gcs_address, note, _answers, _end)
    over = threading.Event()

    def ask() -> None:
        while not over.wait(LOOK_S):
            watch.look(time.monotonic())

    thread = threading.Thread(target=ask, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(ANSWER_S + 1)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
