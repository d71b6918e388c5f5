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


class OtherDataError(DataError):
    """Data that lack a column which a key of a task names, or mean nothing to a key.

    Args:
        message: the sentences, with advice for who can change the keys.
        brief: what is so, in a sentence for who cannot: who follows a bundle has its keys.
    """

    def __init__(self, message: str, brief: str) -> None:
        super().__init__(message)
        self.brief = brief

    def __reduce__(self) -> tuple[type[OtherDataError], tuple[str, str]]:
        return type(self), (str(self), self.brief)
