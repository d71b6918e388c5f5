"""What is known of a source besides its arrays: which columns it has, what each is read as, and what looks wrong in it.

Found once, when the source is read; kept beside the cached arrays; told by `plan` and at the start of a study.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config
from subsettune.task import Data

Role = Literal["feature", "categories", "text", "image", "label", "embeddings", "split", "ignored", "excluded"]
PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]*")  # needs no quotes in a list of YAML


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """A column of a table, or the only input of a source that has no columns.

    Args:
        name: of it.
        role: what it is read as; `ignored` where we leave it out, `excluded` where the task says so.
        kind: its type in the file.
        width: numbers in each example; of categories how many there are; 0 of what is not read.
        distinct: values that differ, missing ones left out; None where they were not counted.
        least: smallest number; None where they are no numbers.
        most: largest number, likewise.
        missing: examples without a value.
        why: why it is not read; empty where it is.
        warnings: sentences about it, each with what to do.
    """

    name: str
    role: Role
    kind: str = ""
    width: int = 1
    distinct: int | None = None
    least: float | None = None
    most: float | None = None
    missing: int = 0
    why: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What was found in a source when it was read.

    Args:
        files: names of the files, or of the arrays, that training and validation part come from.
        test_files: of the official test set; empty where there is none.
        validation_files: of the official validation set, likewise.
        left_alone: what lies beside them and was not read.
        columns: in the order of the file, the label among them.
        warnings: sentences about the source as a whole.
        taken: what an example was taken for, where its shape leaves that open: see `layout.taken_for`.
    """

    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()
    columns: tuple[ColumnFacts, ...] = ()
    warnings: tuple[str, ...] = ()
    taken: str = ""

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything that somebody should look at: what was ignored unasked, and every warning."""
        ignored = [f"column {c.name!r} is not read: {c.why}" for c in self.columns if c.role == "ignored"]
        return (*self.warnings, *ignored, *(said for column in self.columns for said in column.warnings))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form."""
        return {name: config.to_plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> SourceFacts:
        """Read what `to_mapping` wrote.

        Raises:
            ConfigError: it is something else.
        """
        return config.build(cls, raw)


def leave_out(names: Sequence[str], data: Data) -> str:
    """What a user writes so that columns are no features: `leave it out: data.exclude: [id]`."""
    it = "it" if len(names) == 1 else "them"
    if data.features is not None:
        return f"remove {it} from data.features"
    return f"leave {it} out: data.exclude: {listed([*data.exclude, *names])}"


def listed(names: Sequence[str]) -> str:
    """Names as a list of YAML."""
    plain = (name if PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)
    return f"[{', '.join(plain)}]"
