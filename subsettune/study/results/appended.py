"""Rows that were added to a table since it was last written whole: a line each of a file, or an object each of a store.

A row costs what it is long, however many there are. Each has a number, and the table knows the number of the first that
it does not hold: a driver that is killed between writing the table and removing the rows leaves nothing twice, and a
row that is missing is noticed. A last line that was torn by a kill was never acted on, and is cut off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subsettune.errors import StudyError
from subsettune.storage import Folder, append

ADVICE = "Restore it from a copy, or begin anew with another --run-id."


class AppendedRows:
    """The rows beside one table.

    Args:
        folder: of the study.
        name: of the table, without its suffix.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, f"{name}.rows.jsonl" if folder.is_local else f"{name}.rows"
        self._size_bytes: int | None = None  # of the whole lines of a file

    def read(self) -> list[tuple[int, dict[str, Any]]]:
        """All rows with their numbers, in order.

        Raises:
            StudyError: one is damaged.
            StorageError: they cannot be read.
        """
        if self._folder.is_local:
            content = self._folder.read(self._name) if self._folder.exists(self._name) else b""
            whole = content[: content.rfind(b"\n") + 1]
            self._size_bytes = len(whole)
            pairs = ((f"{self._name}, line {i}", line) for i, line in enumerate(whole.splitlines(), 1))
        else:
            names = [f"{self._name}/{name}" for name in self._folder.names(self._name)]
            pairs = zip(names, self._folder.read_all(names), strict=True)  # type: ignore[assignment]
        return sorted((self._parsed(where, line) for where, line in pairs), key=lambda one: one[0])

    def _parsed(self, where: str, line: bytes) -> tuple[int, dict[str, Any]]:
        try:
            plain = json.loads(line)
            return int(plain["number"]), dict(plain["row"])
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{self._folder}/{where} is damaged: {error}. {ADVICE}") from error

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """Add a row; it is on disk when this returns.

        Raises:
            StorageError: it cannot be written; nothing of it is left.
        """
        content = json.dumps({"number": number, "row": row}, separators=(",", ":"), sort_keys=True).encode()
        if not self._folder.is_local:
            self._folder.write(f"{self._name}/{number:08d}.json", content)
            return
        if self._size_bytes is None:
            self.read()
        assert self._size_bytes is not None
        path = Path(self._folder.path, self._name)
        line = content + b"\n"
        append(path, line, self._size_bytes)
        self._size_bytes += len(line)

    def clear(self) -> None:
        """Remove them all: the table holds them."""
        self._folder.remove(self._name)
        self._size_bytes = 0
