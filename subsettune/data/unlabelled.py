"""Test files that cannot judge anything, as competitions and benchmarks hand them out: rows whose labels they keep."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from subsettune.errors import DataError

VERBS = {"test": "verified", "validation": "chosen"}
HIDDEN = -1  # in the place of a class, as the hub's copies of GLUE have it


def refuse_unlabelled(path: Path, labels: pa.ChunkedArray | None, name: str, part: str = "test") -> None:
    """Refuse a test file without labels.

    Args:
        path: of the test file.
        labels: its column of labels; None where it has none.
        name: of that column, which the training file has.
        part: `test` or `validation`, of which the file is.

    Raises:
        DataError: the column is missing, or holds nothing, or the number that stands for a hidden label.
    """
    why = _why(labels, name)
    if why:
        raise DataError(
            f"{path} has no labels: {why}. Nothing can be {VERBS[part]} on it: move it out of the folder, and a {part} "
            f"part is drawn from the training file, of the share task.split.{part}."
        )


def _why(labels: pa.ChunkedArray | None, name: str) -> str:
    """What is wrong with a column of labels; empty for nothing."""
    if labels is None:
        return f"it lacks the column {name!r} that the training file has"
    if len(labels) and labels.null_count == len(labels):
        return f"column {name!r} is empty"
    hidden = f"column {name!r} holds nothing but {HIDDEN}, which stands for a hidden label"
    if pa.types.is_integer(labels.type) and len(labels):
        ends = pc.min_max(labels).as_py()
        if ends["min"] == ends["max"] == HIDDEN:
            return hidden
    if (pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type)) and len(labels):
        texts = pc.unique(pc.utf8_trim_whitespace(labels)).to_pylist()
        return f"column {name!r} is empty" if texts == [""] else hidden if texts == [str(HIDDEN)] else ""
    return ""
