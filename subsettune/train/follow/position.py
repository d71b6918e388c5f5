"""Which update a training function is at, told by whoever counts.

Loaders fetch ahead: with workers by several batches, and Lightning, accelerate and others by one even without. So the
batch that was last handed out is not the one that is trained, and a rate or a switch that went by it would be early
without a word. Here the count is that of schedulers' steps, or of a loop that we drive; where there is neither, the
rate must be read in each update, which shows whether anything was fetched ahead.
"""

from __future__ import annotations

from subsettune.errors import TrainingFunctionError


class Position:
    """Where a training function is.

    Args:
        start: updates that were made before, by a run that was interrupted.
        total: updates of the policy.
        said: what people call it that hands the batches out, for messages.
    """

    def __init__(self, start: int, total: int, said: str = "run") -> None:
        self.start, self.total, self._said = start, total, said
        self.handed = start  # batches that were handed out, those before included
        self.is_in_body = False  # whether a loop that we drive is between two batches
        self._loop: int | None = None  # updates that a loop which we drive has made
        self._schedulers: list[int] = []  # that each scheduler has counted
        self._stepped: list[bool] = []  # whether the optimizer of each has stepped since
        self._hears: list[bool] = []  # whether updates of the optimizer are told
        self.missed: list[int] = []  # updates that a scheduler counted and its optimizer did not make
        self._read = start - 1  # update at which a rate was last read

    @property
    def how(self) -> str:
        """What to do so that steps are counted."""
        said = self._said
        return (
            f"Iterate `{said}.steps(loader)` instead of the loader, or step `{said}.scheduler(optimizer)` after each "
            "update."
        )

    @property
    def counted(self) -> int | None:
        """Updates that were made, where somebody counts: the loop, else the scheduler that is behind."""
        return self._loop if self._loop is not None else min(self._schedulers, default=None)

    def begin_loop(self) -> int:
        """A loop that we drive begins, or goes on after another; gives the updates that were made."""
        self._loop = self.start if self._loop is None else self._loop
        return self._loop

    def count_loop(self, updates: int) -> None:
        """The loop has made so many updates."""
        self._loop = updates

    def add_scheduler(self, *, hears_updates: bool = True) -> int:
        """One more scheduler counts; gives its number.

        Args:
            hears_updates: whether `note_update` will tell of the updates of its optimizer.
        """
        self._hears.append(hears_updates)
        self._schedulers.append(self.start)
        self._stepped.append(False)
        self.missed.append(0)
        return len(self._schedulers) - 1

    def note_update(self, scheduler: int) -> None:
        """The optimizer of a scheduler has made an update."""
        self._stepped[scheduler] = True

    def count_scheduler(self, scheduler: int, updates: int) -> None:
        """A scheduler has counted so many updates.

        Raises:
            TrainingFunctionError: more than batches were handed out.
        """
        if updates > self.handed:
            raise TrainingFunctionError(
                f"a scheduler of {self._said}.scheduler was stepped {updates - self.start:,} times for "
                f"{self.handed - self.start:,} batches. Step it once for each batch; where its state was loaded, load "
                f"that of {self._said}, too."
            )
        self.missed[scheduler] += self._hears[scheduler] and not self._stepped[scheduler]
        self._schedulers[scheduler], self._stepped[scheduler] = updates, False

    def now(self, what: str) -> int:
        """The update that is being trained, from 0.

        Args:
            what: is asked for, for the message.

        Raises:
            TrainingFunctionError: it cannot be told: batches were fetched ahead, or nobody counts.
        """
        if self._loop is not None and self._loop >= self.total and not self.is_in_body:
            raise TrainingFunctionError(
                f"{what} was read after the last step: whatever goes round {self._said}.steps fetches ahead."
            )
        counted = self.counted
        if counted is not None:
            return min(counted, self.total - 1)
        if self.handed == self.start:
            return min(self.start, self.total - 1)
        at = self.handed - 1
        if at - self._read not in (0, 1):
            raise TrainingFunctionError(
                f"{what} was read when {self.handed - self.start} batches had been handed out, and in "
                f"{self._read + 1 - self.start} steps before: the loader fetches ahead, or not each step reads it. "
                f"{self.how}"
            )
        self._read = at
        return at

    @property
    def made(self) -> int:
        """Updates that are made, as far as anybody has told: within the body of a loop its own is."""
        if self._loop is not None:
            return min(self.total, self._loop + self.is_in_body)
        if self._schedulers:
            return min(n + stepped for n, stepped in zip(self._schedulers, self._stepped, strict=True))
        return self.handed

    def go_to(self, step: int) -> None:
        """Go on at a step, before anything is handed out."""
        self.start = self.handed = step
        self._read = step - 1
        self._schedulers = [step] * len(self._schedulers)

    def go_on_by(self, scheduler: int, step: int) -> None:
        """A scheduler goes on at a step, whatever of the batches before it is handed out once more and left out."""
        self._schedulers[scheduler] = step

    def done(self, what: str = "checkpoint") -> int:
        """As `made`, for a checkpoint that is written after an update.

        Args:
            what: is written, for the message.

        Raises:
            TrainingFunctionError: it cannot be told.
        """
        if self.counted is None and self.handed > self.start:
            self.now(f"{self._said}.{what}")
        return self.made

    def refuse_unfinished(self) -> None:
        """Refuse a run of which not each batch is known to have been trained on once.

        Raises:
            TrainingFunctionError: with what is missing.
        """
        if self.handed < self.total:
            raise TrainingFunctionError(
                f"{self._said}.finish was called after {self.handed:,} of {self.total:,} batches. "
                "Train on all of them: the policy is judged by what all of its compute gives."
            )
        counted = self.counted
        if counted is not None and self.made != self.total:
            raise TrainingFunctionError(
                f"{self.made:,} updates were counted by {self._said}.scheduler or {self._said}.steps, and "
                f"the policy has {self.total:,}. Make one for each batch."
            )
        if counted is None and self._read != self.total - 1 and self.start < self.total:
            raise TrainingFunctionError(
                f"the batches were handed out, and nobody told that each was trained on: {self._said}.lr_factor was "
                f"not read in each step. {self.how}"
            )

    def is_known_before(self, step: int) -> bool:
        """Whether it is sure that all updates before `step` are made when its batch is asked for."""
        return step == self.start or self._read == step - 1
