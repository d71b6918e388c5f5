"""Failures that are held back until it is clear whose they are: the runs' own, or the surroundings'.

A module that is missing on the workers, a GPU that another program fills or a disk that is full fails every run alike.
Put on record, such failures would be trials for good, told to the search as properties of their policies, and mending
the cause would change nothing. So as long as no run of this start has trained, failures wait; the first run that trains
shows that the surroundings are sound, and they count. Runs that fail alike before that end the study instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from subsettune.errors import StudyError
from subsettune.study.execute.requests import RunRequest
from subsettune.study.results.records import RunRecord

ALIKE = 3  # runs that fail for one reason, none having trained: it is no matter of policies
MOST_HELD = 6  # so many reasons are as many faults of their own, and the search must learn of them


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """A run that has ended, for whatever cause.

    Args:
        request: of it.
        record: of it.
        reason: why it failed, without what differs between runs; empty where it did not.
    """

    request: RunRequest
    record: RunRecord
    reason: str = ""

    @property
    def kind(self) -> str:
        """Of its failure: numbers, such as bytes or addresses, and its own name make no other."""
        return re.sub(r"0x[0-9a-f]+|\d+", "#", self.reason.replace(self.request.name, "run"))


class HeldFailures:
    """Failures of this start of a study, until a run of it has trained."""

    def __init__(self) -> None:
        self._held: list[EndedRun] = []
        self._has_trained = False

    def __len__(self) -> int:
        return len(self._held)

    def pass_on(self, run: EndedRun) -> Iterable[EndedRun]:
        """What counts now that a run has ended: nothing yet, or it and all that waited.

        Raises:
            StudyError: it is the third that fails alike, and none has trained.
        """
        self._has_trained |= run.record.cause != "failed"
        self._held.append(run)
        if self._has_trained or len(self._held) >= MOST_HELD:
            return self.release()
        alike = [held for held in self._held if held.kind == run.kind]
        if len(alike) >= ALIKE:
            names = ", ".join(held.request.name for held in alike[:-1])
            raise StudyError(
                f"{run.record.message} So did {names}, and no run has trained since this start: what fails every run "
                "is no matter of policies, so none of it is on record. Mend it; the same command then goes on."
            )
        return ()

    def release(self) -> list[EndedRun]:
        """All that waits, which now counts."""
        held, self._held = self._held, []
        return held
