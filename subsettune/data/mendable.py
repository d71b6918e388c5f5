"""Refusals that tell whoever drafts a study more than their sentence: what mends them, and what labels are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune.errors import DataError


class MendableDataError(DataError):
    """Data that can be used with other keys.

    Args:
        message: the sentence.
        changes: keys of `data` that mend it, with their values.
    """

    def __init__(self, message: str, changes: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.changes = dict(changes)

    def __reduce__(self) -> tuple[type[MendableDataError], tuple[str, dict[str, Any]]]:
        return type(self), (str(self), self.changes)


class MixedLabelsError(DataError):
    """Labels that are numbers in most rows, and something else in one that the sentence names."""
