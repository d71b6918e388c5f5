"""What a notebook shows of a study: progress in one output of the cell that is written anew, and the result.

Nothing here imports IPython: a notebook's kernel has it loaded, and elsewhere there is nothing to show it on.
"""

from __future__ import annotations

import contextvars
import io
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol, Self, TextIO, final
from uuid import uuid4

from markupsafe import Markup

from subsettune.report.progress import Display, Drawn, LineProgress, LiveProgress
from subsettune.report.render import Table, is_terminal
from subsettune.report.tables import beside_text, legend, policy_table, result_rows, result_table
from subsettune.report.tally import Clock
from subsettune.study.results.view import StudyView

REDRAW_S = 1.0
MOST_NOTES = 12  # the latest that stay in sight; the others are counted
_WIDTH = 110
_PRE = "margin:0;line-height:1.4;font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre-wrap"
_PAGE = f'<pre style="{_PRE}">{{code}}</pre>'  # rich puts the words in


class Publisher(Protocol):
    """What sends outputs to the front end: `display_pub` of IPython's shell."""

    def publish(self, data: dict[str, str], **more: Any) -> object:
        """Show, or with `update=True` write anew, the output of a `display_id`."""


def publisher() -> Publisher | None:
    """Of the notebook that this runs in; None in a script, or in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    found: Publisher = shell.display_pub
    return found


def default_progress(stream: TextIO) -> Display:
    """What `tune` shows unasked: in a notebook, redrawn on a terminal, else a line a minute."""
    notebook = publisher()
    if notebook is not None:
        return NotebookProgress(notebook)
    return LiveProgress(stream) if is_terminal(stream) else LineProgress(stream)


@final
class NotebookProgress(Drawn):
    """One output of the cell, written anew about once a second; its last state stays in the notebook.

    Args:
        notebook: where it is shown.
        clock: seconds, monotonic.
    """

    def __init__(self, notebook: Publisher, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._notebook = notebook
        self._id = f"subsettune-{uuid4().hex}"
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._num_notes = 0
        self._is_over = False
        self._woken = threading.Condition(self._lock)

    def __enter__(self) -> Self:
        self._show(update=False)
        context = contextvars.copy_context()  # of the cell: outputs of other threads would land elsewhere
        threading.Thread(target=context.run, args=(self._redraw,), name="progress", daemon=True).start()
        return self

    def close(self) -> None:
        """Leave the last state; what runs is no longer said to run."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            self._woken.notify()
            self._show(update=True)

    def note(self, message: str) -> None:
        """See `Observer`."""
        with self._lock:
            self._notes.append(" ".join(message.split()))
            self._num_notes += 1

    def _redraw(self) -> None:
        with self._lock:
            while not self._woken.wait(REDRAW_S) and not self._is_over:
                self._show(update=True)

    def _show(self, *, update: bool) -> None:
        self._notebook.publish(self._drawn(), metadata={}, transient={"display_id": self._id}, update=update)

    def _drawn(self) -> dict[str, str]:
        """The block as HTML, and as text for front ends that show none."""
        from rich.console import Console
        from rich.text import Text

        console = Console(
            file=io.StringIO(),
            record=True,
            width=_WIDTH,
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
            legacy_windows=False,
        )
        hidden = self._num_notes - len(self._notes)
        for note in ([f"({hidden} earlier lines)"] if hidden else []) + list(self._notes):
            console.print(Text(note, style="dim"))
        for line in [] if self._is_over else self._lines(_WIDTH)[1:]:
            console.print(line)
        html = console.export_html(inline_styles=True, code_format=_PAGE, clear=False)
        return {"text/html": html, "text/plain": console.export_text().rstrip() or "subsettune"}


def summary_html(view: StudyView) -> str:
    """The result of a study for a cell: headline, the table, and where report and bundle are."""
    parts = [Markup("<p><b>{}</b></p>").format(view.summary.headline)]
    parts += [Markup("<p>{}</p>").format(text) for text in beside_text(view)]
    if result_rows(view):
        parts += [_table(result_table(view)), _table(policy_table(view))]
        parts.append(Markup("<details><summary>columns</summary><p>{}</p></details>").format(legend(view)))
    places = {"Report": report_of(view), "Bundle": view.summary.bundle}
    links = [Markup("{}: {}").format(name, _link(path)) for name, path in places.items() if path]
    parts.append(Markup("<p>{}</p>").format(Markup("<br>").join(links)))
    return str(Markup('<div class="subsettune">{}</div>').format(Markup("").join(parts)))


def _table(table: Table) -> Markup:
    sides = [f"text-align:{'right' if column.align == 'right' else 'left'}" for column in table.columns]
    cell = Markup('<{0} style="{1}">{2}</{0}>')
    head = Markup("").join(cell.format("th", s, c.title) for s, c in zip(sides, table.columns, strict=True))
    rows = (Markup("").join(cell.format("td", s, t) for s, t in zip(sides, row, strict=True)) for row in table.rows)
    body = Markup("").join(Markup("<tr>{}</tr>").format(row) for row in rows)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


def report_of(view: StudyView) -> str | None:
    """Where the page about a study lies; None where there is none yet."""
    path = f"{view.folder}/report.html"
    return path if "://" in path or Path(path).exists() else None


def _link(path: str) -> Markup:
    """A place below the working folder as a link, as front ends open no others; another as text."""
    local = Path(path)
    if "://" in path or not local.is_relative_to(Path.cwd()):
        return Markup("<code>{}</code>").format(path)
    return Markup('<a href="{0}" target="_blank">{0}</a>').format(local.relative_to(Path.cwd()).as_posix())
