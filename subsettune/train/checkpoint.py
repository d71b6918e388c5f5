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
from typing import Any

import torch

from subsettune.errors import CheckpointError
from subsettune.storage import Folder

HEADER = b"subsettune-checkpoint-1 "
ADVICE = "Delete it: the run then starts over."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMarker:
    """How far a run had come when it was last seen.

    Args:
        flops: spent, evaluation included.
        repeated: FLOPs that earlier interruptions cost.
    """

    flops: int = 0
    repeated: int = 0


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

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None if there is none.

        Raises:
            CheckpointError: the file is damaged, or belongs to another run.
        """
        if not self.folder.exists(self._name):
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
        self.folder.write(self._mark_name, f"{mark.flops} {mark.repeated}".encode())

    def marked(self) -> ProgressMarker:
        """What was last noted; zeros if nothing was.

        Raises:
            CheckpointError: the mark is damaged.
        """
        if not self.folder.exists(self._mark_name):
            return ProgressMarker()
        found = re.fullmatch(rb"(\d+) (\d+)", self.folder.read(self._mark_name))
        if found is None:
            advice = "Delete it: the work lost so far is then not counted."
            raise CheckpointError(f"mark {self.folder}/{self._mark_name} is damaged. {advice}")
        return ProgressMarker(flops=int(found[1]), repeated=int(found[2]))

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
