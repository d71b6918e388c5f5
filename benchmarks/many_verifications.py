"""Many verifications at once, each driven to its end: the decisions of `Verification`, without its books.

No command of its own: `verification.py` counts its mistakes. A test holds it against `Verification`, study by study.

| symbol | shape | meaning |
|---|---|---|
| R | int | studies, all with one line-up |
| H | int | hypotheses: the policies of the line-up, then the plain twins of those that have one |
| N | int | runs drawn of each, more than any look takes |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from subsettune.study.verification.lineup import Entry, Hypothesis, levels, sizes_of
from subsettune.study.verification.noninferiority import (
    FUTILE_BELOW,
    Array,
    Rules,
    Size,
    allot,
    judge,
    plan,
    spending,
    spread_floor,
)
from subsettune.study.verification.superiority import pair_floor

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
OPEN, FAILED, PASSED = 0, 1, 2
NONE = -1
SCALE = 1.0  # magnitude of the metrics, whose rounding must not count as a margin kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Metrics of runs, by seed, higher is better.

    Args:
        reference: (R, N) of the conventional recipe.
        own: (R, H, N) of each hypothesis.
    """

    reference: Array
    own: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What came of the verifications.

    Args:
        passed: (R, H) whether a hypothesis passed; twins that were not tested did not.
        shown: (R,) whether the winner is claimed to be better than its twin.
        twin_of: (R,) index of the candidate that got a twin; -1 where none did.
        winner: (R,) index of the cheapest candidate that passed; -1 where none did.
        own_runs: (R, H) runs of each.
        reference_runs: (R,) of the reference.
    """

    passed: Flags
    shown: Flags
    twin_of: Counts
    winner: Counts
    own_runs: Counts
    reference_runs: Counts


def hypotheses(entries: Mapping[str, Entry]) -> tuple[Hypothesis, ...]:
    """Those of a line-up, in the order of the axis H."""
    twins = (Hypothesis(name, is_twin=True) for name, entry in entries.items() if entry.has_twin)
    return (*map(Hypothesis, entries), *twins)


def carry_out(
    entries: Mapping[str, Entry], rules: Rules, drawn: Drawn, *, reference_flops: int, spent: float = 0.0
) -> Ended:
    """Drive all verifications to their end, twins included.

    Args:
        entries: of the line-up, by name.
        rules: of the verification; higher is better.
        drawn: what runs give.
        reference_flops: of one conventional training.
        spent: alpha given to earlier ones.
    """
    batch = _Batch(entries, rules, drawn, reference_flops, spent)
    while batch.go_on():
        pass
    return batch.ended()


class _Batch:
    """State: how many looks at each candidate have their runs, which candidate has a twin, how often that was run."""

    def __init__(
        self, entries: Mapping[str, Entry], rules: Rules, drawn: Drawn, reference_flops: int, spent: float
    ) -> None:
        self.entries, self.rules, self.drawn = entries, rules, drawn
        self.all = hypotheses(entries)
        self.num = len(drawn.reference)
        self.level = allot(rules.alpha, spent)
        names = sorted(entries, key=lambda name: (entries[name].cost_flops, name))
        self.cheapest_first = [tuple(entries).index(name) for name in names]
        self.costs = np.array([entry.cost_flops for entry in entries.values()])
        self.sizes: list[tuple[Size, ...]] = [
            sizes_of(entries[one.name], rules, reference_flops, is_twin=one.is_twin) for one in self.all
        ]
        self.done = np.zeros((self.num, len(entries)), dtype=np.int64)
        self.twin_of = np.full(self.num, NONE)
        self.twin_runs = np.zeros(self.num, dtype=np.int64)
        self._known: dict[tuple[int, float], NDArray[np.int64]] = {}

    def go_on(self) -> bool:
        """Ask every study for its next runs; whether any had a wish."""
        status = self._status()
        current = self._current(status)
        at_work = np.flatnonzero(current != NONE)
        self.done[at_work, current[at_work]] += 1
        rest = current == NONE
        winner = self._winner(status)
        has_twin = np.array([entry.has_twin for entry in self.entries.values()])
        fresh = rest & (self.twin_of == NONE) & (winner != NONE) & has_twin[winner]
        self.twin_of[fresh], self.twin_runs[fresh] = winner[fresh], self.rules.seeds
        held = rest & ~fresh & (self.twin_of != NONE)
        own, shown = self._own_runs(), self._shown()
        pairs = np.where(held, own[np.arange(self.num), self.twin_of], 0)
        is_open = (shown == OPEN) | (self._of_twin(status) == OPEN)
        more = held & is_open & (self.twin_runs < pairs)
        self.twin_runs[more] = pairs[more]
        return bool(len(at_work) or fresh.any() or more.any())

    def ended(self) -> Ended:
        """The outcome."""
        status = self._status()
        own = np.zeros((self.num, len(self.all)), dtype=np.int64)
        own[:, : len(self.entries)] = self._own_runs()
        for h, k in self._twins():
            own[:, h] = np.where(self.twin_of == k, self.twin_runs, 0)
        return Ended(
            passed=status == PASSED,
            shown=self._shown() == PASSED,
            twin_of=self.twin_of,
            winner=self._winner(status),
            own_runs=own,
            reference_runs=self._reference_runs(),
        )

    def _twins(self) -> Iterator[tuple[int, int]]:
        """(index of the twin, index of its candidate)."""
        names = tuple(self.entries)
        yield from ((h, names.index(one.name)) for h, one in enumerate(self.all) if one.is_twin)

    def _runs_at(self, k: int, part: int) -> Counts:
        """(R,) runs of candidate k (part 0), or of the reference for it (part 1)."""
        return np.array([0, *(size[part] for size in self.sizes[k])])[self.done[:, k]]

    def _own_runs(self) -> Counts:
        return np.stack([self._runs_at(k, 0) for k in range(len(self.entries))], axis=1)

    def _reference_runs(self) -> Counts:
        found: Counts = np.stack([self._runs_at(k, 1) for k in range(len(self.entries))]).max(axis=0)
        return found

    def _looks_done(self, h: int) -> Counts:
        """(R,) looks at a hypothesis whose runs are there."""
        if h < len(self.entries):
            return self.done[:, h]
        k = dict(self._twins())[h]
        own = np.where(self.twin_of == k, self.twin_runs, 0)
        theirs = self._reference_runs()
        found: Counts = np.stack([(own >= n) & (theirs >= m) for n, m in self.sizes[h]]).sum(axis=0)
        return found

    # What the tests say.

    def _status(self) -> NDArray[np.int64]:
        """(R, H) FAILED also where there is no alpha."""
        kept = np.zeros((self.num, len(self.all)), dtype=np.bool_)
        done = np.stack([self._looks_done(h) for h in range(len(self.all))], axis=1)
        while True:
            status = self._status_beside(kept, done)
            fresh = (status == PASSED) & ~kept
            if not fresh.any():
                return status
            kept |= fresh

    def _status_beside(self, kept: Flags, done: Counts) -> NDArray[np.int64]:
        """Verdicts at the levels that those which have passed leave."""
        status = np.where(kept, PASSED, FAILED)
        masks, which = np.unique(kept, axis=0, return_inverse=True)
        for i, mask in enumerate(masks):
            rows = np.flatnonzero(which.ravel() == i)
            having = levels(self.entries, self.level, {one for one, is_in in zip(self.all, mask, strict=True) if is_in})
            for h, one in enumerate(self.all):
                if one in having and having[one] > 0:
                    status[rows, h] = self._by_looks(h, having[one])[rows, done[rows, h]]
        return status

    def _by_looks(self, h: int, level: float) -> NDArray[np.int64]:
        """(R, looks + 1) status once the runs of so many looks are there."""
        if (h, level) not in self._known:
            looks = plan(level, self.sizes[h])
            floor = spread_floor(self.rules.resolution, SCALE)
            found = np.full((self.num, len(looks) + 1), OPEN)
            for i, look in enumerate(looks):
                own = self.drawn.own[:, h, : look.num_seeds]
                theirs = self.drawn.reference[:, : look.num_references]
                result = judge(own, theirs, look, looks[-1], self.rules, floor=floor)
                found[:, i + 1] = np.where(result.passed, PASSED, np.where(result.chance < FUTILE_BELOW, FAILED, OPEN))
            self._known[h, level] = found
        return self._known[h, level]

    def _winner(self, status: NDArray[np.int64]) -> Counts:
        winner = np.full(self.num, NONE)
        for k in reversed(self.cheapest_first):
            winner[status[:, k] == PASSED] = k
        return winner

    def _current(self, status: NDArray[np.int64]) -> Counts:
        """(R,) index of the candidate under test: the first that is open, or the dearest of those that are cheaper."""
        winner = self._winner(status)
        current = np.full(self.num, NONE)
        for k in reversed(range(len(self.entries))):
            current[(winner == NONE) & (status[:, k] == OPEN)] = k
        highest = np.full(self.num, NONE)
        for k, cost in enumerate(self.costs):
            is_next = (winner != NONE) & (status[:, k] == OPEN) & (cost < self.costs[winner]) & (cost > highest)
            current[is_next], highest[is_next] = k, cost
        return current

    def _of_twin(self, status: NDArray[np.int64]) -> Counts:
        """(R,) status of the twin that is tested; FAILED where none is."""
        found = np.full(self.num, FAILED)
        for h, k in self._twins():
            found = np.where(self.twin_of == k, status[:, h], found)
        return found

    # The win.

    def _shown(self) -> NDArray[np.int64]:
        """(R,) PASSED where the candidate is shown to be better than its twin; FAILED where none is tested."""
        found = np.full(self.num, FAILED)
        own = self._own_runs()
        count = sum(entry.has_twin for entry in self.entries.values())
        for h, k in self._twins():
            for most in np.unique(own[self.twin_of == k, k]):
                rows = np.flatnonzero((self.twin_of == k) & (own[:, k] == most))
                looks = (self.rules.seeds, int(most)) if most > self.rules.seeds else (self.rules.seeds,)
                differences = self.drawn.own[rows, k, :most] - self.drawn.own[rows, h, :most]
                floor = pair_floor(self.rules.resolution, SCALE)
                by_looks = compared(differences, looks, self.level / count, floor)
                seen = np.where(self.twin_runs[rows] >= most, len(looks), 1)
                found[rows] = by_looks[np.arange(len(rows)), seen]
        return found


def compared(differences: Array, looks: tuple[int, ...], level: float, floor: float) -> NDArray[np.int64]:
    """(R, looks + 1) status of `superiority.compare` once the pairs of so many looks are there."""
    found = np.full((len(differences), len(looks) + 1), OPEN)
    for i, (n, (_, nominal)) in enumerate(zip(looks, spending(level, tuple(map(float, looks))), strict=True)):
        seen, final = differences[:, :n], looks[-1]
        mean, spread = seen.mean(axis=1), np.hypot(seen.std(axis=1, ddof=1), floor)
        now = np.where(mean > stats.t.isf(nominal, n - 1) * spread / math.sqrt(n), PASSED, FAILED)
        if n < final:
            wanted = stats.t.isf(nominal, final - 1) * spread / math.sqrt(final)
            chance = stats.t.sf((wanted - mean) / (spread * math.sqrt(1 / n - 1 / final)), n - 1)
            now = np.where((now == FAILED) & (chance >= FUTILE_BELOW), OPEN, now)
        found[:, i + 1] = now
    return found


def most_drawn(entries: Mapping[str, Entry], rules: Rules, reference_flops: int) -> int:
    """Runs that the longest of all looks takes."""
    looks = (sizes_of(entries[one.name], rules, reference_flops, is_twin=one.is_twin) for one in hypotheses(entries))
    return max(max(size) for size in itertools.chain.from_iterable(looks))
