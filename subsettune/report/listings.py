"""What there is to choose from, to show, or to remove, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from subsettune.report.render import Block, Column, Snippet, Table
from subsettune.text import NOTHING, bytes_words, saving_words

Row = Mapping[str, Any]


def runs_table(rows: Sequence[Row]) -> Table:
    """Studies on a storage path: `run_id`, `status`, `trials`, `asked`, `saving`, `num_bytes`, `modified`."""
    return _listing(
        rows,
        {
            "run": lambda r: str(r["run_id"]),
            "status": lambda r: str(r.get("status") or NOTHING),
            "trials": lambda r: f"{r.get('trials', 0)}/{r['asked']}" if r.get("asked") else str(r.get("trials", 0)),
            "saved": lambda r: saving_words(r.get("saving")),
            "size": lambda r: bytes_words(r.get("num_bytes")),
            "changed": lambda r: str(r.get("modified") or NOTHING),
        },
        right=("trials", "saved", "size"),
        empty="No runs here yet. Start one: subsettune tune STUDY.yaml",
    )


def names_table(rows: Sequence[Row], what: str) -> Table:
    """What there is to choose from: `name`, `about`, and if given `options`; `what` is `order`, `model`, `data`."""
    columns = {what: lambda r: str(r["name"]), "about": _about}
    return _listing(rows, columns, wrap="about", empty=f"No {what} is known.")


def _about(row: Row) -> str:
    """What something is; and its options, which many have too many of for a column of their own."""
    about = str(row.get("about") or "")
    return f"{about.rstrip('.')}. Options: {row['options']}." if row.get("options") else about


def explanation_blocks(told: Row) -> list[Block]:
    """One of the names explained.

    Args:
        told: `what`: `selector`, `model`, `data` and so on; `name`; `about`, paragraphs; `when`, `cost`, `source`,
            which may be empty; `options`, each with `name`, `kind`, `default`, `rule` and `about`; `lines` of a study
            file.
    """
    blocks: list[Block] = [f"{told['what']} {told['name']}", *told["about"]]
    labelled = {"When": told["when"], "Cost": told["cost"], "Source": told["source"]}
    blocks += [f"{label}: {words}" for label, words in labelled.items() if words]
    if told["options"]:
        titles = ("option", "default", "values")
        rows = tuple((one["name"], one["default"], _values(one)) for one in told["options"])
        columns = tuple(Column(title=title, wrap=title == "values") for title in titles)
        blocks.append(Table(columns=columns, rows=rows))
    return [*blocks, "In a study file:", Snippet(rows=tuple((line, "") for line in told["lines"]))]


def _values(option: Row) -> str:
    """What an option may be, and what it means."""
    allowed = ", ".join(words for words in (option["kind"], option["rule"]) if words)
    return f"{allowed}: {option['about']}" if option["about"] else allowed


def caches_table(rows: Sequence[Row]) -> Table:
    """What `clean` may remove: `kind`, `path`, `num_bytes`, and if known `used`; the sum is in the note."""
    table = _listing(
        rows,
        {
            "kind": lambda r: str(r["kind"]),
            "size": lambda r: bytes_words(r.get("num_bytes")),
            "used": lambda r: str(r.get("used") or NOTHING),
            "path": lambda r: str(r["path"]),
        },
        right=("size",),
        empty="Nothing to clean.",
    )
    total = sum(row.get("num_bytes") or 0 for row in rows)
    return Table(columns=table.columns, rows=table.rows, note=f"{bytes_words(total)} in all." if rows else table.note)


def _listing(
    rows: Sequence[Row],
    cells: Mapping[str, Callable[[Row], str]],
    *,
    right: tuple[str, ...] = (),
    wrap: str = "",
    empty: str = "",
) -> Table:
    columns = tuple(Column(title=t, align="right" if t in right else "left", wrap=t == wrap) for t in cells)
    found = tuple(tuple(cell(row) for cell in cells.values()) for row in rows)
    return Table(columns=columns if rows else (), rows=found, note="" if rows else empty)
