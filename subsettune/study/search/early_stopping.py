"""When to stop a trial early, and how often that was wrong.

A learning curve of a two-phase policy jumps at the switch and in the tail of the schedule, so trials are never compared
at equal compute. A trial is stopped only when even the largest gain that any finished trial still made from the same
share of its *own* budget on, plus noise, would leave it short of the target. A sample of such trials is run out, which
measures how often the rule is wrong; what they gain counts from then on, so the rule mends itself.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence

Curve = Sequence[tuple[float, float]]

NUM_FINISHED = 8  # trials that must have finished with a curve before any is stopped
_NOISE_WIDTH = 2.0  # standard deviations of a single run's score


class GainRule:
    """Projects what a running trial can still reach. Scores: higher is better.

    Args:
        target: score that a trial must reach.
    """

    def __init__(self, target: float) -> None:
        self._target = target
        self._finished: list[tuple[Curve, float]] = []

    def add(self, curve: Curve, final: float) -> None:
        """A trial finished: its curve and where it ended."""
        if curve:
            self._finished.append((tuple(curve), final))

    @property
    def num_finished(self) -> int:
        """Trials that it knows."""
        return len(self._finished)

    def projection(self, share_used: float, score: float, noise: float, num_known: int | None = None) -> float | None:
        """The most that a trial can be expected to reach; None while too little is known.

        Args:
            share_used: of the trial's own budget.
            score: there.
            noise: standard deviation of a score.
            num_known: how many of the finished trials, in the order in which they were added, may be used; None is all.
        """
        finished = self._finished[:num_known]
        gains = [final - seen for curve, final in finished if (seen := _at(curve, share_used)) is not None]
        if len(gains) < NUM_FINISHED:
            return None
        return score + max(0.0, *gains) + _NOISE_WIDTH * noise

    def is_hopeless(self, share_used: float, score: float, noise: float) -> bool:
        """Whether the trial would miss the target even with the best gain seen so far."""
        best = self.projection(share_used, score, noise)
        return best is not None and best < self._target


def _at(curve: Curve, share: float) -> float | None:
    """Score of a curve at a share of its budget: the last one seen by then; None before the first."""
    place = bisect_right([used for used, _ in curve], share)
    return curve[place - 1][1] if place else None


def is_stop_audit(seed: int, number: int, share: float) -> bool:
    """Whether a trial belongs to the sample that is run out although the rule would stop it."""
    digest = hashlib.sha256(f"check:{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
