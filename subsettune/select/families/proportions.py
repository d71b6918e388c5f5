"""Classes in proportion, at every length of a ranking. No torch: costs depend on it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def proportional_ranking(counts: Sequence[int], k: int) -> tuple[list[int], list[int]]:
    """A sequence of classes of which every prefix is in proportion: after t picks, class c has t n_c / n, rounded.

    Rounded down or up: the deviation is below 1 for every class and every t. The j-th pick (from 1) of class c must
    then come after (j-1) n / n_c and before j n / n_c + 1, i.e. in [floor((j-1) n / n_c) + 1, ceil(j n / n_c)]. These
    are jobs of unit length with integer release times and deadlines, so the earliest deadline first meets them all if
    anything does, and something does: Tijdeman 1980, doi:10.1016/0012-365X(80)90269-1, has a sequence for any
    proportions that deviates by at most 1 - 1/(2m - 2) with m classes.

    Cost: 0 FLOPs, O(k log m) time.

    Args:
        counts: (m,) examples of each class, not negative; n is their sum.
        k: length of the sequence, 1 <= k <= n.

    Returns:
        Class of each pick, and how many picks of that class came before.

    Source: Steiner & Yeomans 1993, doi:10.1287/mnsc.39.6.728 (earliest deadline first for just-in-time sequences).
    """
    n = sum(counts)
    waiting = [(1, c) for c, count in enumerate(counts) if count]  # (release time of the next pick, class)
    ready: list[tuple[int, int]] = []  # (deadline of the next pick, class)
    taken = [0] * len(counts)
    classes: list[int] = []
    before: list[int] = []
    for t in range(1, k + 1):
        while waiting and waiting[0][0] <= t:
            _, c = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(taken[c] + 1) * n // counts[c]), c))
        deadline, c = heapq.heappop(ready)
        assert deadline >= t, "a schedule within all deadlines exists"
        classes.append(c)
        before.append(taken[c])
        taken[c] += 1
        if taken[c] < counts[c]:
            heapq.heappush(waiting, (taken[c] * n // counts[c] + 1, c))
    return classes, before
