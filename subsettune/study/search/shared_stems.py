"""Which trials begin alike, and what is left to train of one that begins where another has been.

Trials of the same settings in their first phase get the same seeds, one after the other: the first run of each policy
the first seed, its repeats the next ones. So no policy is seen twice with one seed, and a longer or shorter run of a
kind of policy, or one that switches later, need not train what an ended trial has trained.
"""

from __future__ import annotations

import bisect
import hashlib
from collections import defaultdict
from collections.abc import Callable

from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.train.planning.stem_places import Prefix, stems_of

_LATER = ("budget", "switch", "transition")
_BY_NUMBER = 2**31  # above all seeds that go by the number of a trial


class SharedStems:
    """Stems that trials are expected to have left, and the seeds by which others find them.

    Args:
        prefix_at: says which beginning the policy at a point shares with others, if any.
        facts: of the task.
        seed: of the search.
    """

    def __init__(self, prefix_at: Callable[[FrozenDict], Prefix | None], facts: TaskFacts, seed: int) -> None:
        self._prefix_at, self._facts, self._seed = prefix_at, facts, seed
        self._kinds: set[FrozenDict] = set()  # of the trials that left stems
        self._prefixes: dict[FrozenDict, Prefix | None] = {}
        self._left: dict[int, list[int]] = defaultdict(list)  # FLOPs of stems in order, by seed, of which none is alike

    def seed(self, point: FrozenDict, number: int) -> int | None:
        """Of a policy's run of that number, from 0; None if it shares no beginning."""
        prefix = self._prefix(point)
        return None if prefix is None else self._first_seed(prefix.key) + number

    def leave(self, point: FrozenDict, seed: int) -> None:
        """A trial has ended, and left its stems."""
        prefix = self._prefix(point)
        if prefix is not None:
            self._kinds.add(_kind(point))
            places = {*self._left[seed], *stems_of(prefix.end_flops, self._facts.pass_flops)}
            self._left[seed] = sorted(places)

    def found(self, point: FrozenDict, seed: int) -> float:
        """References that a run need not train."""
        prefix, places = self._prefix(point), self._left.get(seed)
        if prefix is None or not places:
            return 0.0
        within = bisect.bisect_right(places, prefix.end_flops)
        return places[within - 1] / self._facts.reference_flops if within else 0.0

    def done(self, point: FrozenDict, number: int) -> float:
        """As `found`, of a policy's run of that number; quick for a kind of policy that left none."""
        seed = self.seed(point, number) if _kind(point) in self._kinds else None
        return 0.0 if seed is None else self.found(point, seed)

    def _prefix(self, point: FrozenDict) -> Prefix | None:
        if point not in self._prefixes:
            self._prefixes[point] = self._prefix_at(point)
        return self._prefixes[point]

    def _first_seed(self, key: str) -> int:
        digest = hashlib.sha256(f"stems:{self._seed}:{key}".encode()).digest()
        return _BY_NUMBER + int.from_bytes(digest[:4], "big") % _BY_NUMBER


def _kind(point: FrozenDict) -> FrozenDict:
    """The coordinates that decide how a policy begins: all but how long, and what happens at the switch."""
    later = {*_LATER, *(key for key in point if key.startswith(f"{point.get('transition')}."))}
    return FrozenDict({key: value for key, value in point.items() if key not in later})
