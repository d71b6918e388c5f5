"""Checkpoints of a run: plain tensors and numbers, checked by a hash, replaced atomically.

A checkpoint is keyed by task, data, policy, seed and the user's code, so a run that comes back finds its own. Beside it
lies a mark, which is written more often: how many FLOPs the run had spent when it was last seen. The difference tells
how much work an interruption cost.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch

from subsettune.errors import CheckpointError
from subsettune.ledger import Ledger
from subsettune.storage import Folder
from subsettune.train.account import Stopwatch

HEADER = b"subsettune-checkpoint-1 "
ADVICE = "Delete it: the run then starts over."
MARK_EVERY_S = 5.0  # at most between marks; and a quarter of the time between checkpoints, so that little is unknown
# Where nobody sets the time between checkpoints: it is so long that they take a 50th of it, but within these bounds. A
# machine that is taken away again and again then costs a run seconds each time, not all that it has done.
SAVING_SHARE = 0.02
SHORTEST_S, FIRST_S, LONGEST_S = 2.0, 5.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMarker:
    """How far a run had come when it was last seen.

    Args:
        flops: spent, evaluation included.
        repeated: FLOPs that earlier interruptions cost.
        shared: of `flops`, those of the stem that the run began from, which another run spent.
    """

    flops: int = 0
    repeated: int = 0
    shared: int = 0

    @property
    def own(self) -> int:
        """FLOPs that the run spent itself."""
        return self.flops - self.shared


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoint of one run in a folder of checkpoints.

    Args:
        folder: shared by the runs of a study.
        key: of the run, 64 hexadecimal digits.
    """

    folder: Folder
    key: str

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Args:
            state: nested dicts, lists and tuples of tensors, numbers and texts.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = io.BytesIO()
        torch.save({"key": self.key, **state}, buffer)
        payload = buffer.getvalue()
        self.folder.write(self._name, HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)

    @property
    def exists(self) -> bool:
        """Whether a state was saved."""
        return self.folder.exists(self._name)

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None if there is none.

        Raises:
            CheckpointError: the file is damaged, or belongs to another run.
        """
        if not self.exists:
            return None
        header, _, payload = self.folder.read(self._name).partition(b"\n")
        if header != HEADER + hashlib.sha256(payload).hexdigest().encode():
            raise CheckpointError(f"{self} is damaged. {ADVICE}")
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{self} cannot be read: {reason} {ADVICE}") from error
        if not isinstance(state, dict) or state.pop("key", None) != self.key:
            raise CheckpointError(f"{self} belongs to another run. {ADVICE}")
        return state

    def mark(self, mark: ProgressMarker) -> None:
        """Note how far the run is, between checkpoints."""
        shared = f" {mark.shared}" if mark.shared else ""
        self.folder.write(self._mark_name, f"{mark.flops} {mark.repeated}{shared}".encode())

    def marked(self) -> ProgressMarker:
        """What was last noted; zeros if nothing was.

        Raises:
            CheckpointError: the mark is damaged.
        """
        if not self.folder.exists(self._mark_name):
            return ProgressMarker()
        found = re.fullmatch(rb"(\d+) (\d+)(?: (\d+))?", self.folder.read(self._mark_name))
        if found is None:
            advice = "Delete it: the work lost so far is then not counted."
            raise CheckpointError(f"mark {self.folder}/{self._mark_name} is damaged. {advice}")
        return ProgressMarker(flops=int(found[1]), repeated=int(found[2]), shared=int(found[3] or 0))

    def unfit(self, error: Exception) -> CheckpointError:
        """What to raise where a state that was loaded is not that of the run."""
        reason = str(error).strip().splitlines()[0]
        return CheckpointError(f"{self} does not fit this run: {reason} {ADVICE}")

    def clear(self) -> str:
        """Remove what a run cannot go on from: its state, whose mark stays and tells what is lost, or a damaged mark.

        Returns:
            a sentence: what becomes of the run.
        """
        try:
            self.marked()
        except CheckpointError:
            self.folder.remove(self._mark_name)
            return "What interruptions cost it so far is not counted."
        self.folder.remove(self._name)
        return "It begins anew."

    def remove(self) -> None:
        """Remove the checkpoint and its mark."""
        self.folder.remove(self._name)
        self.folder.remove(self._mark_name)

    def __str__(self) -> str:
        return f"checkpoint {self.folder}/{self._name}"

    @property
    def _name(self) -> str:
        return f"{self.key}.checkpoint"

    @property
    def _mark_name(self) -> str:
        return f"{self.key}.mark"


class CheckpointWriter:
    """Keeps one run safe when it is time, and counts what interruptions cost.

    Args:
        checkpoints: of the run; None keeps nothing.
        every_s: seconds between checkpoints; None for as many as what they take calls for.
        watch: of the run.
        goes_on: whether a run can go on from a checkpoint with the same bits. Else only finished runs are kept, and an
            interrupted one begins again.
    """

    def __init__(
        self, checkpoints: Checkpoints | None, every_s: float | None, watch: Stopwatch, *, goes_on: bool = True
    ) -> None:
        self.checkpoints, self.watch, self._goes_on = checkpoints, watch, goes_on
        self.repeated = 0  # FLOPs that interruptions cost, and what was done for other runs
        self.shared = 0  # FLOPs of the stem that the run began from
        self._adapts = every_s is None
        self._every_s = FIRST_S if every_s is None else every_s
        self._last_save = self._last_mark = watch.lap_start

    def load(self) -> dict[str, Any] | None:
        """What was last saved and can be gone on from; None if nothing was."""
        saved = None if self.checkpoints is None else self.checkpoints.load()
        return saved if saved is None or self._goes_on or saved.get("done") else None

    def count_repeated(self, ledger: Ledger) -> None:
        """Count what was done after the checkpoint or stem that the run goes on from, and is lost."""
        if self.checkpoints is None:
            return
        mark = self.checkpoints.marked()
        lost = mark.own - (ledger.total - self.shared)
        self.repeated = mark.repeated + max(0, lost)
        if lost > 0:
            self.mark(ledger)

    def count_extra(self, flops: int, ledger: Ledger) -> None:
        """Count what was done beside the run's own work, of which nothing has to be done again."""
        self.repeated += flops
        if flops:
            self.mark(ledger)

    def due(self) -> Literal["save", "mark"] | None:
        """What it is time for, which the caller then does."""
        if self.checkpoints is None:
            return None
        now = self.watch.now()
        if self._goes_on and now - self._last_save >= self._every_s:
            return "save"
        if now - self._last_mark < min(MARK_EVERY_S, self._every_s / 4):
            return None
        self._last_mark = now
        return "mark"

    def mark(self, ledger: Ledger) -> None:
        """Note how far the run is."""
        if self.checkpoints is not None:
            self.checkpoints.mark(ProgressMarker(flops=ledger.total, repeated=self.repeated, shared=self.shared))

    def save(self, state: dict[str, Any], ledger: Ledger) -> None:
        """Replace the checkpoint, after the mark: should it get lost, what it took is known."""
        if not state["done"]:
            self.mark(ledger)
        if self.checkpoints is not None and (self._goes_on or state["done"]):
            begun_s = self.watch.now()
            self.checkpoints.save(state)
            self.watch.lap("other")
            self._last_save = self._last_mark = self.watch.lap_start
            if self._adapts:
                self._every_s = min(max((self._last_save - begun_s) / SAVING_SHARE, SHORTEST_S), LONGEST_S)
