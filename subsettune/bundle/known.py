"""What a bundle tells of the data it was made for, so that other data can be held against them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subsettune import config

if TYPE_CHECKING:
    from subsettune.data import TaskData

INPUTS = ("feature", "categories", "text", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownColumn:
    """An input of the data that a bundle was made for.

    Args:
        name: of the column or array.
        role: what it was read as: `feature`, `categories`, `text` or `image`.
        type: in the file; empty where that has none.
        categories: all that a column of categories has, in their order, None for what is missing; null of other
            columns, and in a bundle of before they were noted.
    """

    name: str
    role: str
    type: str = ""
    categories: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownData:
    """Names of the data that a bundle was made for.

    Args:
        classes: of a classification, in their order.
        columns: that were read as inputs.
        num_test: examples of the test part.
    """

    classes: tuple[str, ...] = ()
    columns: tuple[KnownColumn, ...] = ()
    num_test: int = config.setting(0, rule=config.NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def of(cls, data: TaskData) -> KnownData:
        """Names of the data of a task; without columns where they were loaded by their fingerprint."""
        told: Sequence[Any] = () if data.facts is None else data.facts.columns
        names = categories_of(data)
        columns = [
            KnownColumn(name=c.name, role=c.role, type=c.kind, categories=names.get(c.name))
            for c in told
            if c.role in INPUTS
        ]
        return cls(classes=data.class_names, columns=tuple(columns), num_test=len(data.test))


def categories_of(data: TaskData) -> dict[str, tuple[str | None, ...]]:
    """Names of the categories of each column that has some."""
    if data.meta is None:
        return {}
    return {column: names for column, names in zip(data.meta.columns, data.meta.categories, strict=False) if names}
