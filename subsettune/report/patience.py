"""What a command is busy with, said only where it takes long: quick commands stay as quiet as they are."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self, TextIO

PATIENCE_S = 2.0  # a person begins to wonder
SILENCE_S = 60.0  # and wonders again


class Patience:
    """Names a stage once it has lasted for a while, and again each minute; a thread does it, whatever Python does.

    Args:
        stream: where it is said.
        first: the stage that it begins in.
        patience_s: how long a stage may last in silence; null for the usual time.
    """

    def __init__(self, stream: TextIO, first: str, patience_s: float | None = None) -> None:
        self._stream, self._name = stream, first
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._began_s = time.monotonic()
        self._changed, self._is_over = threading.Condition(), False
        self._thread = threading.Thread(target=self._wait, name="patience", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say nothing more; may be called twice."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def stage(self, name: str) -> None:
        """Another stage begins."""
        with self._changed:
            self._name, self._began_s = name, time.monotonic()
            self._changed.notify()

    def _wait(self) -> None:
        with self._changed:
            while not self._is_over:
                patience_s = self._patience_s
                while not self._changed.wait(patience_s) and not self._is_over:
                    waited_s = time.monotonic() - self._began_s
                    so_far = "" if patience_s == self._patience_s else f", {waited_s:.0f} s so far"
                    self._stream.write(f"{self._name}{so_far} ...\n")
                    self._stream.flush()
                    patience_s = SILENCE_S
