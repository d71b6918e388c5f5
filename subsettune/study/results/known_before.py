"""What was known before a study's first trial: the trials of earlier studies that it was begun with.

They are kept in the study's own folder, so that it goes on as it began when an earlier study is changed or removed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.text import counted

FILE = "warm_start.json"  # in the study's folder
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBefore:
    """What was taken of an earlier study, as it is told.

    Args:
        run_id: of that study.
        folder: where it lay.
        trials: that were taken.
        outside: trials that were not, because a value of theirs lies outside of this study's space.
        unfinished: likewise, because they did not finish with a metric.
        trainings: what all its trials cost, evaluations and repeated work included, in its conventional trainings; and
            those of the studies that it was begun with itself.
    """

    run_id: str
    folder: str
    trials: int
    outside: int = 0
    unfinished: int = 0
    trainings: float = 0.0

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def sentence(self) -> str:
        """What was known, and that this study is not charged for it."""
        left = [(self.outside, "outside of this space"), (self.unfinished, "unfinished")]
        left_out = ", ".join(f"{count} {why}" for count, why in left if count)
        return (
            f"{counted(self.trials, 'trial')} of study {self.run_id!r} {'was' if self.trials == 1 else 'were'} known "
            f"before the first trial{f' ({left_out} left out)' if left_out else ''}; its search had cost as much as "
            f"{self.trainings:.1f} conventional trainings, which are not counted here."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenTrial:
    """A trial of an earlier study: its coordinates, the metric that it ended with on the validation split, its seed."""

    coordinates: FrozenDict
    metric: float
    seed: int

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenStudy:
    """What was taken of an earlier study.

    Args:
        known: how it is told.
        reference: mean metric of its conventional training on the validation split.
        num_references: runs behind that.
        noise: spread of the metric over seeds, as that reference measured it.
        trials: by number.
    """

    known: KnownBefore
    reference: float
    num_references: int
    noise: float
    trials: tuple[TakenTrial, ...]

    def __post_init__(self) -> None:
        config.check(self)


def store(folder: Folder, taken: Sequence[TakenStudy]) -> None:
    """Write what was taken into the folder of the study that takes it."""
    content = {"schema": _SCHEMA, "studies": [config.to_plain(one) for one in taken]}
    folder.write(FILE, json.dumps(content, indent=1, sort_keys=True).encode())


def stored(folder: Folder) -> tuple[TakenStudy, ...]:
    """What `store` wrote.

    Raises:
        StudyError: the file is missing or damaged.
    """
    try:
        raw: Any = json.loads(folder.read(FILE))
        if raw["schema"] != _SCHEMA:
            raise ValueError(f"schema {raw['schema']!r}")
        return tuple(config.build(TakenStudy, one) for one in raw["studies"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise StudyError(
            f"{folder}/{FILE}, the trials that this study was begun with, cannot be read: {why}. Restore it from a "
            "copy, or choose another --run-id."
        ) from error
