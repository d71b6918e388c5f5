"""Hour, weekday and month of times, each as a point on a circle, so that 23:59 lies beside 0:00.

Times are seconds since 1970 in UTC, or since midnight.
"""

from __future__ import annotations

import numpy as np

from subsettune.data.raw import Array

DAY_S = 86_400.0
FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0
DAY_KINDS = ("date32", "date64")  # types of Arrow that have no time of day
CLOCK_KINDS = ("time32", "time64")  # and those that have no day
SPAN = "duration"


def cycles_of(kind: str) -> tuple[str, ...]:
    """The cycles that a column of a type has: `hour`, `weekday`, `month`; of spans of time none."""
    if kind.startswith(SPAN):
        return ()
    if kind.startswith(CLOCK_KINDS):
        return ("hour",)
    return ("weekday", "month") if kind.startswith(DAY_KINDS) else ("hour", "weekday", "month")


def parts_of(cycles: tuple[str, ...]) -> list[str]:
    """Names of the numbers that `on_circles` gives."""
    return [f"{cycle}_{part}" for cycle in cycles for part in ("sin", "cos")]


def on_circles(seconds: Array, cycles: tuple[str, ...]) -> Array:
    """(b, 2 * cycles) float32: sine and cosine of each cycle of times (b,); NaN where a time is missing."""
    found = np.full((len(seconds), 2 * len(cycles)), np.nan, dtype=np.float32)
    there = np.isfinite(seconds)
    for i, cycle in enumerate(cycles):
        turn = 2 * np.pi * TURNS[cycle](seconds[there])
        found[there, 2 * i], found[there, 2 * i + 1] = np.sin(turn), np.cos(turn)
    return found


def _months(seconds: Array) -> Array:
    """How much of a year has passed by whole months."""
    return (np.floor(seconds).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12) / 12


TURNS = {
    "hour": lambda s: (s % DAY_S) / DAY_S,
    "weekday": lambda s: ((np.floor(s / DAY_S) + FIRST_WEEKDAY) % 7) / 7,
    "month": _months,
}
