"""What trials of earlier studies of nearly the same task showed: told to a search before its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.config import FrozenDict
from subsettune.study.search.observations import Outcome, SearchEvidence, TrialRecord
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier study that finished.

    Args:
        point: of this study's space.
        score: that it ended with; higher is better.
        seed: of its run; trials that began alike have the same.
    """

    point: FrozenDict
    score: float
    seed: int

    @property
    def arm(self) -> str:
        """`full` or `subset`."""
        return str(self.point["arm"])


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStudy:
    """What an earlier study showed of its own task. Only differences to its own conventional training are used.

    Args:
        reference: mean score of its conventional training.
        num_references: runs behind that.
        noise: standard deviation of a score over seeds, as its reference measured it; None if it did not.
        trials: by number.
    """

    reference: float
    num_references: int
    noise: float | None
    trials: tuple[EarlierTrial, ...]

    def evidence(self, above: float) -> SearchEvidence:
        """Its trials, beside a target so much below its own reference as the target of the new study is below its."""
        evidence = SearchEvidence(self.reference - above, self.noise)
        for number, trial in enumerate(self.trials):
            outcome = Outcome(cause="finished", metric=trial.score)
            cost = float(trial.point["budget"])
            record = TrialRecord(number=number, point=trial.point, seed=trial.seed, cost=cost, outcome=outcome)
            evidence.start(record)
            evidence.end(record, trial.score)
        return evidence


def point_within(space: Space, coordinates: Mapping[str, Any]) -> FrozenDict | None:
    """The point of a space that has these coordinates; None where it has none, because a value lies outside."""
    if coordinates.get("arm") not in space.arms:
        return None
    try:
        point = space.point(coordinates["arm"], lambda axis: coordinates[axis.name])
    except KeyError:
        return None
    is_within = point == coordinates and all(_holds(space[name], value) for name, value in point.items())
    return point if is_within else None


def _holds(axis: Coordinate, value: Any) -> bool:
    return value in axis.values if axis.values else axis.lo <= value <= axis.hi
