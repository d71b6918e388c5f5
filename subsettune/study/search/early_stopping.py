"""When to stop a trial early, and how often that was wrong.

A learning curve of a two-phase policy jumps at the switch and in the tail of the schedule, so trials are never compared
at equal compute. A trial is stopped only when even the largest gain that any finished trial still made from the same
share of its *own* budget on, plus noise, would leave it short of the target. A sample of such trials is run out, which
measures how often the rule is wrong; what they gain counts from then on, so the rule mends itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

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
        self._num = 0
        self._shares = np.full((1, 1), np.inf)  # a row for each finished trial, with room for more; behind its end inf
        self._scores = np.zeros((1, 1))
        self._finals = np.zeros(1)

    def add(self, curve: Curve, final: float) -> None:
        """A trial finished: its curve and where it ended."""
        if not curve:
            return
        rows, columns = self._shares.shape
        if self._num == rows or len(curve) > columns:
            self._make_room(rows if self._num == rows else 0, max(0, len(curve) - columns))
        self._shares[self._num, : len(curve)] = [share for share, _ in curve]
        self._scores[self._num, : len(curve)] = [score for _, score in curve]
        self._finals[self._num] = final
        self._num += 1

    def _make_room(self, rows: int, columns: int) -> None:
        """For so many more trials, and looks at each."""
        more = ((0, rows), (0, columns))
        self._shares = np.pad(self._shares, more, constant_values=np.inf)
        self._scores, self._finals = np.pad(self._scores, more), np.pad(self._finals, (0, rows))

    @property
    def num_finished(self) -> int:
        """Trials that it knows."""
        return self._num

    def projection(self, share_used: float, score: float, noise: float, num_known: int | None = None) -> float | None:
        """The most that a trial can be expected to reach; None while too little is known.

        Args:
            share_used: of the trial's own budget.
            score: there.
            noise: standard deviation of a score.
            num_known: how many of the finished trials, in the order in which they were added, may be used; None is all.
        """
        known = self._num if num_known is None else min(num_known, self._num)
        looks = np.count_nonzero(self._shares[:known] <= share_used, axis=1)  # of each trial's curve, in order
        (rows,) = np.nonzero(looks)
        if len(rows) < NUM_FINISHED:
            return None
        gains = self._finals[rows] - self._scores[rows, looks[rows] - 1]
        return score + max(0.0, float(gains.max())) + _NOISE_WIDTH * noise

    def is_hopeless(self, share_used: float, score: float, noise: float) -> bool:
        """Whether the trial would miss the target even with the best gain seen so far."""
        best = self.projection(share_used, score, noise)
        return best is not None and best < self._target


def is_stop_audit(seed: int, number: int, share: float) -> bool:
    """Whether a trial belongs to the sample that is run out although the rule would stop it."""
    digest = hashlib.sha256(f"check:{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
