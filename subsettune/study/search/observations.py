"""What the trials of a study have shown so far: repeats, noise, bounds. Plain Python, no model.

A *score* is the metric with the sign that makes higher better; the target has the same sign. Trials of one policy with
different seeds are its *repeats*.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from subsettune.config import FrozenDict
from subsettune.study.search.shared_stems import SharedStems

Cause = Literal["finished", "stopped", "diverged", "failed"]
_NUM_AGREEING = 3  # repeats that agree exactly, after which a metric is taken to be free of noise
ECHO = 0.4  # correlation of the noise of runs that began alike: 0.25 to 0.5 on digits (`benchmarks/shared_prefixes.py`)
_REFERENCE_DOF = 1  # a small budget is noisier than the reference: its spread is a hint, soon outweighed by repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended.

    Args:
        cause: `finished`; `stopped` early by the search; `diverged` to NaN or infinity; `failed` with an error.
        metric: of the final weights; None unless finished (a stopped trial may give the last one seen).
        share_used: compute spent, as a share of the trial's own budget.
        message: of the failure.
    """

    cause: Cause
    metric: float | None = None
    share_used: float = 1.0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial as the journal holds it.

    Args:
        number: in the Optuna study.
        point: the active coordinates.
        seed: of the run.
        cost: share of the reference's compute that its policy may spend.
        confirms: number of the trial whose policy it repeats with another seed.
        outcome: None while it runs.
        curve: (share of its own budget used, metric) as observed.
        projection: of a stopped trial, the most that its metric was expected to reach.
        is_stop_audit: whether it would have been stopped and was run out to see if that had been right.
        is_probe: whether it was not expected to reach the target; such a run is not stopped for missing it.
        num_shown: trials whose end was known when it was proposed; null in journals of before this was noted.
    """

    number: int
    point: FrozenDict
    seed: int
    cost: float
    confirms: int | None = None
    outcome: Outcome | None = None
    curve: tuple[tuple[float, float], ...] = ()
    projection: float | None = None
    is_stop_audit: bool = False
    is_probe: bool = False
    num_shown: int | None = None

    @property
    def arm(self) -> str:
        """`full` or `subset`."""
        return str(self.point["arm"])


@dataclass(slots=True)
class PolicyObservations:
    """One policy and all that was seen of it; `seeds` are those of the scores."""

    point: FrozenDict
    cost: float
    first: int
    scores: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    optimistic: list[float] = field(default_factory=list)
    num_lost: int = 0
    num_running: int = 0

    @property
    def arm(self) -> str:
        """`full` or `subset`."""
        return str(self.point["arm"])

    @property
    def has_ended(self) -> bool:
        """Whether a trial of it showed anything."""
        return bool(self.scores or self.optimistic or self.num_lost)

    @property
    def mean(self) -> float:
        """Mean score over the seeds that finished."""
        return math.fsum(self.scores) / len(self.scores)

    @property
    def squares(self) -> Fraction:
        """Sum of squares of the scores about their mean; exact, so that sums of it can be taken up and left in turn."""
        mean = self.mean if self.scores else 0.0
        return sum((Fraction((score - mean) ** 2) for score in self.scores), Fraction())

    @property
    def num_begun(self) -> int:
        """Runs that have ended, for whatever cause, or are under way."""
        return len(self.scores) + len(self.optimistic) + self.num_lost + self.num_running

    def num_feasible(self, target: float) -> int:
        """Number of seeds that reached the target."""
        return sum(score >= target for score in self.scores)


class SearchEvidence:
    """Gathers trials by policy. Everything it says follows from the trials it was given, whatever their order.

    Args:
        target: least score that counts as matched.
        noise: standard deviation of the score over seeds, if the reference measured it.
        stems: that ended trials left for others; None where trials share nothing.
    """

    def __init__(self, target: float, noise: float | None = None, stems: SharedStems | None = None) -> None:
        self.target = target
        self.stems = stems
        self._given_noise = noise
        self._tried: dict[FrozenDict, PolicyObservations] = {}
        self._hopeful: dict[str, dict[FrozenDict, PolicyObservations]] = {}
        self._repeated: dict[FrozenDict, PolicyObservations] = {}
        self._squares, self._dof = Fraction(), 0  # of the repeats; kept, for each trial that ends changes one policy
        self._is_noise_free: bool | None = None
        self._passed: dict[FrozenDict, PolicyObservations] = {}
        self._num_alike: Counter[int] = Counter()  # scores by the seed of their run

    def __iter__(self) -> Iterator[PolicyObservations]:
        return iter(self._tried.values())

    def __len__(self) -> int:
        return len(self._tried)

    def find(self, point: FrozenDict) -> PolicyObservations | None:
        """What was seen of a policy; None if it was never tried."""
        return self._tried.get(point)

    def start(self, record: TrialRecord) -> None:
        """A trial begins."""
        tried = self._tried.get(record.point)
        if tried is None:
            tried = self._tried[record.point] = PolicyObservations(
                point=record.point, cost=record.cost, first=record.number
            )
        tried.num_running += 1

    def drop(self, record: TrialRecord) -> None:
        """A trial vanishes without an outcome."""
        self._tried[record.point].num_running -= 1

    def end(self, record: TrialRecord, score: float | None) -> None:
        """A trial ends; `score` is its final one, what it could have reached if stopped, or None if it was lost."""
        assert record.outcome is not None
        tried = self._tried[record.point]
        tried.num_running -= 1
        self._is_noise_free = None
        if record.outcome.cause == "finished" and score is not None:
            self._squares -= tried.squares
            tried.scores.append(score)
            self._squares += tried.squares
            self._dof += len(tried.scores) > 1
            tried.seeds.append(record.seed)
            self._num_alike[record.seed] += 1
            if self.stems is not None:
                self.stems.leave(record.point, record.seed)
        elif record.outcome.cause == "stopped" and score is not None:
            tried.optimistic.append(score)
        else:
            tried.num_lost += 1
        self._file(tried)

    def _file(self, tried: PolicyObservations) -> None:
        hopeful = self._hopeful.setdefault(tried.arm, {})
        lost = tried.num_lost + len(tried.optimistic)
        passed = bool(tried.scores) and not lost and tried.mean >= self.target
        if passed:
            self._passed[tried.point] = tried
        else:
            self._passed.pop(tried.point, None)
        if passed and len(tried.scores) == 1:
            hopeful[tried.point] = tried
        else:
            hopeful.pop(tried.point, None)
        if len(tried.scores) > 1:
            self._repeated[tried.point] = tried

    def worth(self, tried: PolicyObservations) -> float:
        """How many independent runs the scores of a policy tell as much as.

        Those of trials with one seed, which began alike, rise and fall together, and tell less than so many others.
        """
        return math.fsum(1 / (1 + ECHO * (self._num_alike[seed] - 1)) for seed in tried.seeds)

    def done(self, point: FrozenDict, num_runs: int) -> float:
        """References that other trials have trained of the next runs of a policy: the study does not pay them again."""
        if self.stems is None:
            return 0.0
        known = self.find(point)
        begun = 0 if known is None else known.num_begun
        return math.fsum(self.stems.done(point, begun + i) for i in range(num_runs))

    @property
    def scores(self) -> list[float]:
        """All final scores."""
        return [score for tried in self for score in tried.scores]

    @property
    def repeats(self) -> tuple[float, int]:
        """Sum of squares of the scores about their policies' means, and its degrees of freedom."""
        return float(self._squares), self._dof

    @property
    def noise(self) -> tuple[float, int] | None:
        """Standard deviation of a score over seeds and the degrees of freedom behind it; None if nothing is known."""
        squares, dof = self.repeats
        if self._given_noise is not None:
            squares, dof = squares + _REFERENCE_DOF * self._given_noise**2, dof + _REFERENCE_DOF
        return (math.sqrt(squares / dof), dof) if dof else None

    @property
    def is_noise_free(self) -> bool:
        """Whether the score depends on the policy alone.

        Two equal scores prove little when scores are coarse (accuracy on 200 examples), much when no two policies
        ever agreed.
        """
        if self._is_noise_free is None:
            self._is_noise_free = self._looks_noise_free()
        return self._is_noise_free

    def _looks_noise_free(self) -> bool:
        groups = list(self._repeated.values())
        if not groups or self._given_noise or any(min(t.scores) != max(t.scores) for t in groups):
            return False
        if self.repeats[1] >= _NUM_AGREEING:
            return True
        firsts = [tried.scores[0] for tried in self if tried.scores]
        return len(firsts) > _NUM_AGREEING and len(set(firsts)) == len(firsts)

    def is_confirmed(self, tried: PolicyObservations) -> bool:
        """Whether a policy is feasible on two seeds at least, and by more than the standard error of their mean.

        The second half is ours: of many policies just below the target some pass twice by luck, and a bound set by
        one of them would hide the true optimum.
        """
        if tried.num_feasible(self.target) < 2 or tried.num_lost or tried.optimistic:
            return False
        known = self.noise
        assert known is not None, "two seeds give a noise estimate"
        error = 0.0 if self.is_noise_free else known[0] / math.sqrt(len(tried.scores))
        return tried.mean - error >= self.target

    def bound(self, arm: str) -> float:
        """Cost below which further proposals of an arm must lie; infinity while nothing is confirmed."""
        return min((tried.cost for tried in self.confirmed(arm)), default=math.inf)

    def confirmed(self, arm: str) -> Iterator[PolicyObservations]:
        """The confirmed policies of an arm."""
        for tried in self._passed.values():
            if len(tried.scores) > 1 and tried.arm == arm and self.is_confirmed(tried):
                yield tried

    def passed(self, arm: str | None = None) -> Iterator[PolicyObservations]:
        """Policies, of one arm if given, whose mean score reached the target and that no seed was lost of."""
        for tried in self._passed.values():
            if arm in (None, tried.arm):
                yield tried

    def hopeful(self, arm: str) -> PolicyObservations | None:
        """The cheapest policy of an arm that passed on its only seed, below the bound and with no repeat running."""
        bound = self.bound(arm)
        waiting = self._hopeful.get(arm, {})
        for point in [point for point, tried in waiting.items() if tried.cost >= bound]:
            del waiting[point]  # a bound that is lifted later brings better-known policies back with it
        open_ = [tried for tried in waiting.values() if not tried.num_running]
        return min(open_, key=lambda tried: (tried.cost, tried.first), default=None)


def to_plain_outcome(record: TrialRecord) -> dict[str, Any]:
    """What the journal keeps of a trial's end."""
    assert record.outcome is not None
    outcome = record.outcome
    return {
        "cause": outcome.cause,
        "metric": outcome.metric,
        "share_used": outcome.share_used,
        "message": outcome.message,
        "curve": [list(pair) for pair in record.curve],
        "projection": record.projection,
        "is_check": record.is_stop_audit,
    }
