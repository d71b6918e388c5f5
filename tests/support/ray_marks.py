"""Marks of tests that start Ray; this module does not import it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

WARNINGS = [
    # Ray leaves the sockets and logs of the processes that it stops to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]
RAY_MARKS = [pytest.mark.ray, *WARNINGS]


def starts_ray(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark one test of a module whose others do without Ray."""
    for mark in RAY_MARKS:
        test = mark(test)
    return test
