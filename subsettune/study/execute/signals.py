"""Signals that end a study: what schedulers send is made what a terminal sends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Turn SIGTERM, which `ray job stop` and schedulers send, into the SIGINT that Tune understands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
