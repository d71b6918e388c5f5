"""Runs that show no progress, on a made-up clock."""

from __future__ import annotations

import pytest

from subsettune.study.execute.silence import LOOK_S, TELL_S, SilenceWatch


class Watched:
    """A watch over one run, looked at every second."""

    def __init__(self, limit_s: float | None = None) -> None:
        self.now_s, self.notes, self.sign, self.num_signs = 0.0, list[str](), 0, 0
        self.watch = SilenceWatch(limit_s, self.notes.append, lambda: self.now_s)

    def wait(self, seconds: float, name: str = "trial-0001") -> list[float]:
        """When the run hung."""
        found = []
        for _ in range(round(seconds)):
            self.now_s += 1
            found += [self.now_s for _ in self.watch.hanging([(name, name, self.read)])]
        return found

    def read(self) -> int:
        self.num_signs += 1
        return self.sign


def test_a_silent_run_is_told_after_some_minutes_then_ever_more_seldom() -> None:
    watched = Watched()
    assert watched.wait(7.5 * TELL_S) == []
    words = "trial-0001 has shown no progress for {} min; it is waited for (study.silence_limit_s would end it)."
    assert watched.notes == [words.format(minutes) for minutes in (5, 10, 20)]
    assert watched.num_signs <= 7.5 * TELL_S / LOOK_S


@pytest.mark.parametrize("by", ["a report", "its mark"])
def test_one_that_is_heard_is_not_silent(by: str) -> None:
    watched = Watched(limit_s=TELL_S + 1)
    for _ in range(10):
        assert watched.wait(TELL_S / 2) == []
        if by == "a report":
            watched.watch.heard("trial-0001")
        else:
            watched.sign += 1
    assert watched.notes == []


def test_one_that_is_silent_for_the_limit_hangs() -> None:
    watched = Watched(limit_s=100)
    (first,) = watched.wait(199)
    assert 100 <= first <= 100 + LOOK_S
    assert watched.notes == []


def test_one_that_is_tried_again_starts_from_zero() -> None:
    watched = Watched(limit_s=100)
    watched.wait(90)
    assert watched.wait(90, "another") == []


def test_a_limit_of_seconds_is_looked_at_in_time() -> None:
    (first,) = Watched(limit_s=5).wait(8)
    assert first <= 7
