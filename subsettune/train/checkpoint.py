"""Checkpoints of a run: plain tensors and numbers, checked by a hash, replaced atomically.

A checkpoint is keyed by task, data, policy and seed, so a run that comes back finds its own. Beside it lies a mark, a
number of FLOPs that is written more often: the difference tells how much work an interruption cost.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch

from subsettune.errors import CheckpointError
from subsettune.storage import Folder

HEADER = b"subsettune-checkpoint-1 "
ADVICE = "Delete it: the run then starts over."


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
            raise CheckpointError(f"checkpoint {self.folder}/{self._name} is damaged. {ADVICE}")
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"checkpoint {self.folder}/{self._name} cannot be read: {error}. {ADVICE}") from error
        if state.pop("key", None) != self.key:
            raise CheckpointError(f"checkpoint {self.folder}/{self._name} belongs to another run. {ADVICE}")
        return state

    def mark(self, flops: int) -> None:
        """Note how much has been spent, between checkpoints."""
        self.folder.write(f"{self.key}.mark", str(flops).encode())

    def marked(self) -> int:
        """FLOPs last noted; 0 if nothing was."""
        name = f"{self.key}.mark"
        text = self.folder.read(name) if self.folder.exists(name) else b"0"
        return int(text) if text.isdigit() else 0

    def remove(self) -> None:
        """Remove the checkpoint and its mark."""
        self.folder.remove(self._name)
        self.folder.remove(f"{self.key}.mark")

    @property
    def _name(self) -> str:
        return f"{self.key}.checkpoint"
