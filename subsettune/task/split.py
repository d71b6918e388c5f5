"""Which examples are held out, and faults that are put into the others on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, OPEN_FRACTION, UNIT, Rule, setting
from subsettune.errors import ConfigError, Mistake

SPLIT_COLUMNS = ("by", "column", "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which examples are held out. Drawn once, by class, from `seed`; every run of the task has the same split.

    Args:
        validation: share of the training file that the search is judged on.
        test: share of the training file that verification is judged on; null where an official test file exists.
        seed: of the draw.
        by: column of groups, such as patients: all rows of a group come into one part.
        column: column that names the part of each row, `train`, `validation` or `test`; parts that it does not name
            are drawn from the training rows.
        time: column of dates or numbers: the latest rows are the test part, those before the validation part.

    The columns of `by`, `column` and `time` are no inputs unless `data.features` names them.
    """

    validation: float = setting(0.1, rule=OPEN_FRACTION)
    test: float | None = setting(None, rule=OPEN_FRACTION)
    seed: int = setting(0, rule=NOT_NEGATIVE)
    by: str | None = None
    column: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        config.check(self)
        if self.validation + (self.test or 0.0) >= 1:
            raise ConfigError("validation + test must be below 1. Leave some examples to train on.")
        given = [name for name in SPLIT_COLUMNS if getattr(self, name) is not None]
        if len(given) > 1:
            message = f"{given[1]} must be left out beside {given[0]}: a split goes by one column. Remove one of them."
            raise ConfigError((Mistake((given[1],), message),))

    @property
    def reads(self) -> str | None:
        """The column that the split goes by; None where it is drawn, or comes from files."""
        return self.by or self.column or self.time

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. A column stands in it where it is given: what does nothing changes no key."""
        always = {"validation": self.validation, "test": self.test, "seed": self.seed}
        return {**always, **{name: getattr(self, name) for name in SPLIT_COLUMNS if getattr(self, name) is not None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """Faults put into the training part on purpose, for experiments: labels are flipped, then examples are repeated.

    Validation and test part stay clean. One seed gives one distortion; where a share grows, the examples that were
    distorted before still are.

    Args:
        flip_labels: share of the training examples, rounded to whole ones, whose class is replaced by another one,
            each of the others equally likely; classification only.
        repeat_share: share of the training examples, rounded likewise, that stand in the training part several times.
        repeat_times: how often each of them stands there; copies share a label, flipped or not.
        seed: of the draws.
    """

    flip_labels: float = setting(0.0, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    repeat_share: float = setting(0.0, rule=UNIT)
    repeat_times: int = setting(2, rule=AT_LEAST_ONE)
    seed: int = setting(0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_off(self) -> bool:
        """Whether the training part stays as it is."""
        return self.flip_labels == 0 and self.most_copies == 1

    @property
    def most_copies(self) -> int:
        """How often an example may stand in the training part."""
        return self.repeat_times if self.repeat_share else 1
