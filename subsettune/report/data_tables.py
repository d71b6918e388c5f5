"""What a study is trained and judged on, as tables: columns, classes and parts, and what to look at."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from subsettune.report.render import Block, Column, Table
from subsettune.text import NOTHING

MOST_COLUMNS = 30  # of a table; the label, and those that are not read or are suspicious, always stand in it
ALWAYS = ("label", "ignored", "split")
DATES = ("date", "timestamp")  # how types of Arrow begin that are days or times
MOST_CLASSES = 20
NAME_WIDTH = 28  # of a name; longer ones are cut
PARTS = ("train", "validation", "test")
SINGULAR = {"label": "label", "image": "image", "text": "text", "embeddings": "embeddings", "split": "split"}


def data_blocks(told: Mapping[str, Any]) -> list[Block]:
    """What is known of a task's data.

    Args:
        told: `source`: `files`, those of other parts, `left_alone` and `columns`, as
            `subsettune.data.columns` has them; `sizes` of the parts; `split`, a sentence; `classes`: by name, examples
            by part; `shared`: by `part, other part`, examples of the first that stand in the other too.
    """
    source = told.get("source") or {}
    lines = [told.get("split") or "", _files(source)]
    text = "\n".join(line for line in lines if line)
    blocks: list[Block] = [text] if text else []
    if source.get("columns"):
        blocks.append(columns_table(source["columns"]))
    if told.get("sizes"):
        blocks.append(parts_table(told))
    return blocks


def warning_blocks(warnings: Sequence[str]) -> list[Block]:
    """Sentences to read before a number is believed, one a line; nothing where there are none."""
    if not warnings:
        return []
    return ["\n".join(["Look at the data before you believe a number:", *(f"- {warning}" for warning in warnings)])]


def columns_table(columns: Sequence[Mapping[str, Any]]) -> Table:
    """What each column is read as, and what it holds."""
    shown = [c for i, c in enumerate(columns) if i < MOST_COLUMNS or c["role"] in ALWAYS or c["warnings"]]
    rows = tuple((_cut(c["name"]), _role(c), _values(c), _missing(c), _remark(c)) for c in shown)
    titles = (
        Column(title="column"),
        Column(title="read as"),
        Column(title="values"),
        Column(title="missing", align="right"),
        Column(title="remark", wrap=True),
    )
    kept = tuple(i for i in range(len(titles)) if i < 3 or any(row[i] not in ("", NOTHING) for row in rows))
    more = len(columns) - len(shown)
    return Table(
        columns=tuple(titles[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        note=f"And {more:,} more columns: --json lists all." if more else "",
    )


def _role(column: Mapping[str, Any]) -> str:
    role, width = column["role"], column["width"]
    if role == "label" and width > 1:
        return f"{width:,} labels"
    if role in SINGULAR:
        return SINGULAR[role]
    if role == "categories":
        return f"{width:,} categories"
    if role == "feature":
        return "number" if width == 1 else f"{width:,} numbers"
    return "not read"


def _values(column: Mapping[str, Any]) -> str:
    distinct = "" if column["distinct"] is None else f"{column['distinct']:,} distinct"
    if column["least"] is None or column["most"] is None:
        return distinct or NOTHING
    words = _day if column["kind"].startswith(DATES) or column["kind"].endswith(" as a date") else _number
    ends = f"{words(column['least'])} to {words(column['most'])}"
    return f"{distinct}, {ends}" if distinct else ends


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def _day(seconds: float) -> str:
    """A time since 1970 as a date; what no calendar has, as a number."""
    try:
        return (dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)).date().isoformat()
    except OverflowError:
        return _number(seconds)


def _missing(column: Mapping[str, Any]) -> str:
    return f"{column['missing']:,}" if column["missing"] else NOTHING


def _remark(column: Mapping[str, Any]) -> str:
    if column["why"]:
        return str(column["why"]).partition(". ")[0].rstrip(".")
    if column["role"] == "feature" and column["missing"]:  # they are refused otherwise
        return "missing ones filled by the median"
    return "look at it: see below" if column["warnings"] else ""


def parts_table(told: Mapping[str, Any]) -> Table:
    """Examples of each class in each part, and how many stand in two parts."""
    classes, sizes, shared = told.get("classes") or {}, told["sizes"], told.get("shared") or {}
    rows = [
        (_cut(name), *(f"{counts[part]:,}" for part in PARTS)) for name, counts in list(classes.items())[:MOST_CLASSES]
    ]
    rows.append(("all", *(f"{sizes[part]:,}" for part in PARTS)))
    for other, words in (("train", "of them in training too"), ("validation", "of them in validation too")):
        counts = [shared.get(f"{part}, {other}") for part in PARTS]
        if any(counts):
            rows.append((words, *("" if count is None else f"{count:,}" for count in counts)))
    more = len(classes) - MOST_CLASSES
    titles = ("class" if classes else "", "training", "validation", "test")
    return Table(
        columns=tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles)),
        rows=tuple(rows),
        note=f"And {more:,} more classes: --json lists all." if more > 0 else "",
    )


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 2]}.."


def _files(source: Mapping[str, Any]) -> str:
    """Which files or arrays are read, where there are several."""
    keys = ("files", "validation_files", "test_files", "left_alone")
    files, validation, test, left = (list(source.get(key) or ()) for key in keys)
    if len(files) + len(validation) + len(test) + len(left) < 2:
        return ""
    read = f"Read: {_some(files)}" + (f"; for the validation part {_some(validation)}" if validation else "")
    read += f"; for the test part {_some(test)}" if test else ""
    return f"{read}. Not read: {_some(left)}." if left else f"{read}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{names[0]} to {names[-1]} ({len(names):,} files)"
