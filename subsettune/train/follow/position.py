"""Which update a training function is at, told by whoever counts.

Loaders fetch ahead: with workers by several batches, and Lightning, accelerate and others by one even without. So the
batch that was last handed out is not the one that is trained, and a rate or a switch that went by it would be early
without a word. Here the count is that of a scheduler's steps, or of a loop that we drive; where there is neither, rates
must be read once an update, which shows whether anything was fetched ahead.
"""

from __future__ import annotations

from subsettune.errors import TrainingFunctionError

HOW = "Iterate `run.steps(loader)` instead of the loader, or step `run.scheduler(optimizer)` after each update."


class Position:
    """Where a training function is.

    Args:
        start: updates that were made before, by a run that was interrupted.
        total: updates of the policy.
    """

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total
        self.handed = start  # batches that were handed out, those before included
        self.is_in_body = False  # whether a loop that we drive is between two batches
        self._counted: int | None = None  # updates that were made, where somebody counts
        self._read = start - 1  # update at which a rate was last read

    @property
    def is_counted(self) -> bool:
        """Whether somebody counts the updates."""
        return self._counted is not None

    def count(self, updates: int) -> None:
        """Take note that so many updates were made."""
        self._counted = max(updates, self._counted or self.start)

    def now(self, what: str) -> int:
        """The update that is being trained, from 0.

        Args:
            what: is asked for, for the message.

        Raises:
            TrainingFunctionError: it cannot be told: batches were fetched ahead, or nobody counts.
        """
        if self._counted is not None:
            return min(self._counted, self.total - 1)
        if self.handed == self.start:
            return min(self.start, self.total - 1)
        at = self.handed - 1
        if at - self._read not in (0, 1):
            raise TrainingFunctionError(
                f"{what} was read when {self.handed - self.start} batches had been handed out, and in "
                f"{self._read + 1 - self.start} steps before: the loader fetches ahead, or not each step reads it. "
                f"{HOW}"
            )
        self._read = at
        return at

    def done(self) -> int:
        """Updates that are made when a checkpoint is written, which is after one.

        Raises:
            TrainingFunctionError: it cannot be told.
        """
        if self._counted is not None:
            return min(self.total, self._counted + self.is_in_body)
        return self.now("run.checkpoint") + 1 if self.handed > self.start else self.start

    def is_known_before(self, step: int) -> bool:
        """Whether it is sure that all updates before `step` are made when its batch is asked for."""
        return step == self.start or self._read == step - 1
