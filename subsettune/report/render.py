"""Tables as values, rendered as plain aligned ASCII or, on a terminal, by rich."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 80
_GAP = 2
_NO_BREAK = "\N{NO-BREAK SPACE}"
_SMALLEST_WRAP = 20  # a wrapped column narrower than this is harder to read than a line that is too long


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Heading and alignment of a column; at most one column of a table wraps its text."""

    title: str
    align: Literal["left", "right"] = "left"
    wrap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under headings; `note` follows the rows."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """What a reader may paste: each row a line and a comment, which may be empty. No line is broken."""

    rows: tuple[tuple[str, str], ...]

    def lines(self, width: int) -> list[str]:
        """Each with its comment behind it, or where that would be too long, above it."""
        found: list[str] = []
        for line, about in self.rows:
            beside = f"{line}  # {about}" if about else line
            found += [beside] if len(beside) <= width or not about else [f"# {about}", line]
        return found


Block = Table | Snippet | str


def render(blocks: Sequence[Block], width: int = WIDTH) -> str:
    """Plain aligned ASCII, one empty line between blocks, no trailing spaces, ending in a newline."""
    return "\n\n".join(text for text in (_plain(block, width) for block in blocks) if text) + "\n"


def _plain(block: Block, width: int) -> str:
    if isinstance(block, Table):
        return render_table(block, width)
    return "\n".join(block.lines(width)) if isinstance(block, Snippet) else _fill(block, width)


def _fill(text: str, width: int) -> str:
    """Wrap sentences; a line without a place to break, such as a path, stays whole."""
    return "\n".join("\n".join(_wrapped(line, width)) for line in text.splitlines())


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` that keep a number and its per cent sign together."""
    held = text.replace(" %", _NO_BREAK + "%")
    lines = textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def render_table(table: Table, width: int = WIDTH) -> str:
    """One table as plain text; the column that wraps takes what the others leave of `width`."""
    parts = [table.title] if table.title else []
    if table.rows:
        sizes = _sizes(table, width)
        titles = tuple(column.title for column in table.columns)
        lines = [line for row in table.rows for line in _row_lines(row, table.columns, sizes)]
        if any(titles):
            rule = (" " * _GAP).join("-" * size for size in sizes)
            lines = [*_row_lines(titles, table.columns, sizes), rule, *lines]
        parts.append("\n".join(lines))
    if table.note:
        parts.append(_fill(table.note, width))
    return "\n\n".join(parts) if table.title else "\n".join(parts)


def _fits(table: Table, width: int) -> bool:
    sizes = _sizes(table, width) if table.rows else []
    return sum(sizes) + _GAP * (len(sizes) - 1) <= width


def _row_by_row(table: Table, width: int) -> str:
    """A table that is wider than its terminal: the first cell of each row, below it the others by their headings."""
    titles = [column.title for column in table.columns]
    parts = [table.title] if table.title else []
    for first, *cells in table.rows:
        pairs = zip(titles[1:], cells, strict=True)
        told = ", ".join(f"{title} {cell}".strip() for title, cell in pairs if cell)
        parts.append("\n".join([f"{titles[0]} {first}".strip(), *(f"  {line}" for line in _wrapped(told, width - 2))]))
    return "\n\n".join([*parts, *([_fill(table.note, width)] if table.note else [])])


def _sizes(table: Table, width: int) -> list[int]:
    cells = [tuple(column.title for column in table.columns), *table.rows]
    sizes = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    for i, column in enumerate(table.columns):
        if column.wrap:
            others = sum(sizes) - sizes[i] + _GAP * (len(sizes) - 1)
            sizes[i] = min(sizes[i], max(_SMALLEST_WRAP, width - others))
    return sizes


def _row_lines(row: tuple[str, ...], columns: tuple[Column, ...], sizes: list[int]) -> list[str]:
    stacks = [
        _wrapped(cell, size) or [""] if column.wrap else [cell]
        for cell, column, size in zip(row, columns, sizes, strict=True)
    ]
    lines = []
    for i in range(max(len(stack) for stack in stacks)):
        texts = [stack[i] if i < len(stack) else "" for stack in stacks]
        aligned = [
            text.rjust(size) if column.align == "right" else text.ljust(size)
            for text, column, size in zip(texts, columns, sizes, strict=True)
        ]
        lines.append((" " * _GAP).join(aligned).rstrip())
    return lines


def write(blocks: Sequence[Block], stream: TextIO) -> None:
    """Print blocks: by rich with emphasis on a terminal, else as plain text of 80 columns."""
    if is_terminal(stream):
        from rich.console import Console

        console = Console(file=stream)
        for i, block in enumerate(blocks):
            is_whole = not isinstance(block, Table)  # is broken into lines already, where it may be
            console.print(to_rich(block, console.width, first=i == 0), highlight=False, soft_wrap=is_whole)
            if i < len(blocks) - 1:
                console.print()
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(render(blocks).encode(encoding, "replace").decode(encoding))
    stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands control sequences."""
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"


def to_rich(block: Block, width: int = WIDTH, *, first: bool = False) -> RenderableType:
    """The same block for rich: bold headings, green and red verdicts; the first text of a page is emphasised.

    Args:
        block: to be shown.
        width: of the terminal; a table that is wider is told row by row.
        first: of its page.
    """
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(block, str):
        return Text(_fill(block, width), style="bold" if first else "")
    if isinstance(block, Snippet):
        return Text("\n".join(block.lines(width)))
    if not _fits(block, width):
        return Text(_row_by_row(block, width))
    grid = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=any(c.title for c in block.columns))
    for column in block.columns:
        grid.add_column(column.title, justify=column.align, header_style="bold", no_wrap=not column.wrap)
    for row in block.rows:
        grid.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    head = [Text(block.title, style="bold")] if block.title else []
    return Group(
        *head, *([grid] if block.rows else []), *([Text(_fill(block.note, width), style="dim")] if block.note else [])
    )


def _style(cell: str) -> str:
    if cell in ("passed", "paid for itself"):
        return "green"
    return "red" if cell == "did not" or cell.startswith("missed by") else ""
