"""Loggers of others, and our own, that are kept from saying what is told otherwise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quieted(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let loggers say nothing below a level inside; afterwards they say what they did before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(level)
    try:
        yield
    finally:
        for one, its_own in zip(loggers, before, strict=True):
            one.setLevel(its_own)
