"""Runs that show no progress: they are waited for, but not without a word, and not for ever where a limit is set.

A run is heard when it reports a point of its curve, which most do seldom. In between its mark tells how far it is:
beside its checkpoint, written every few seconds. A run that hangs, in a deadlock of its data or a file system that does
not answer, does neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

LOOK_S = 30.0  # at most between looks at the marks of silent runs, each of which is a request to the storage
TELL_S = 300.0  # of silence, until it is told; then after twice as long, and so on


@dataclass(slots=True, kw_only=True)
class _Silence:
    """Of one run."""

    name: str
    sign: object = None
    since_s: float
    tell_at_s: float = TELL_S


class SilenceWatch:
    """Notices runs that show no progress.

    Args:
        limit_s: of silence, after which a run is taken to hang; None for never.
        note: told of silent runs.
        clock: in seconds.
    """

    def __init__(
        self, limit_s: float | None, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s, self._note, self._clock = limit_s, note, clock
        self._look_s = LOOK_S if limit_s is None else min(LOOK_S, limit_s / 5)
        self._next_look_s = 0.0
        self._runs: dict[str, _Silence] = {}

    def heard(self, key: str) -> None:
        """A run has reported."""
        if key in self._runs:
            silence = self._runs[key]
            silence.since_s, silence.tell_at_s = self._clock(), TELL_S

    def hanging(self, running: Iterable[tuple[str, str, Callable[[], object]]]) -> list[str]:
        """Keys of the runs that hang, when it is time to look; each is told once.

        Args:
            running: key, name, and what reads a sign of each run that has a worker: equal while nothing happens.
        """
        now_s = self._clock()
        if now_s < self._next_look_s:
            return []
        self._next_look_s = now_s + self._look_s
        found = list(running)
        before, self._runs = self._runs, {}
        for key, name, _ in found:
            self._runs[key] = before.get(key) or _Silence(name=name, since_s=now_s)
        return [key for key, _, sign in found if self._hangs(self._runs[key], sign, now_s)]

    def _hangs(self, silence: _Silence, read_sign: Callable[[], object], now_s: float) -> bool:
        if now_s - silence.since_s < self._look_s:
            return False
        sign = read_sign()
        if sign != silence.sign:
            silence.sign, silence.since_s, silence.tell_at_s = sign, now_s, TELL_S
            return False
        silent_s = now_s - silence.since_s
        if self._limit_s is not None and silent_s >= self._limit_s:
            silence.since_s = now_s
            return True
        if silent_s >= silence.tell_at_s:
            silence.tell_at_s *= 2
            limit = "study.silence_limit_s would end it" if self._limit_s is None else f"up to {self._limit_s:g} s"
            self._note(f"{silence.name} has shown no progress for {silent_s / 60:.0f} min; it is waited for ({limit}).")
        return False
