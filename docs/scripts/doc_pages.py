"""Where the pages are, and how parts of them are written by a script: between two marks, the rest by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; a bar within a cell is written so that it stays in it."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def between(page: Path, name: str) -> str:
    """What stands between the marks `name` of a page."""
    start, end = _marks(name)
    return page.read_text(encoding="utf-8").partition(start)[2].partition(end)[0].strip("\n")


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands there.

    Raises:
        AssertionError: the page has no such marks.
    """
    start, end = _marks(name)
    old = page.read_text(encoding="utf-8")
    assert start in old, f"{page.name} has no mark {start}"
    assert end in old, f"{page.name} has no mark {end}"
    before, after = old.partition(start)[0], old.partition(end)[2]
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by docs/scripts -->", f"<!-- end of {name} -->"
