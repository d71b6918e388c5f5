"""What is to be run, and what may keep it from running."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from subsettune import config
from subsettune.config import FrozenDict, setting
from subsettune.errors import CheckpointError, DataError, StorageError, StudyError, SubsettuneError
from subsettune.policy import Policy
from subsettune.study.results.records import Role

# What is wrong with the surroundings, not with the run: a person mends it, and the run is then worth trying again.
INFRASTRUCTURE_ERRORS: dict[str, type[SubsettuneError]] = {
    cls.__name__: cls for cls in (CheckpointError, DataError, StorageError, StudyError)
}


class Pause(enum.Enum):
    """Instead of a request: nothing to run now (WAIT for a run to end), or never again (DONE)."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One training to be carried out.

    Args:
        name: unique in the study.
        role: why it is trained.
        policy: what to follow.
        seed: of the run.
        splits: on which the final weights are measured.
        number: of a trial, else -1.
        candidate: of a verification run; of an ablation run: the component.
        coordinates: of a trial.
        confirms: the trial that this one repeats.
    """

    name: str
    role: Role
    policy: Policy
    seed: int
    splits: tuple[str, ...] = ("validation",)
    number: int = -1
    candidate: str = ""
    coordinates: FrozenDict = setting(FrozenDict())
    confirms: int | None = None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run that ended in an error.

    Args:
        message: the sentence.
        log: where its trace is written.
        reason: the part of the message that tells why; runs that fail for the same have the same.
        ends_study: a key of `INFRASTRUCTURE_ERRORS` when the error is not the run's own: the study stops, and nothing
            is recorded, so that the run is carried out once that is mended.
        begins_anew: whether nothing but its checkpoint was in the way, which is gone now: it is no attempt.
    """

    message: str
    log: str = ""
    reason: str = ""
    ends_study: str = ""
    begins_anew: bool = False

    @property
    def error(self) -> SubsettuneError:
        """What the study ends with."""
        return INFRASTRUCTURE_ERRORS[self.ends_study](self.message)
