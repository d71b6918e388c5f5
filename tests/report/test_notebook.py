from __future__ import annotations

import io
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import STATES, make_view
from terminal import Terminal

from subsettune.report import notebook
from subsettune.report.notebook import NotebookProgress, default_progress, publisher, summary_html
from subsettune.report.progress import LineProgress, LiveProgress


class Kernel:
    """What a front end is sent; `shown` is what it shows, by the id of the output."""

    def __init__(self) -> None:
        self.sent: list[bool] = []
        self.shown: dict[str, dict[str, str]] = {}
        self.came = threading.Event()

    def publish(self, data: dict[str, str], *, metadata: Any, transient: dict[str, str], update: bool) -> None:
        self.sent.append(update)
        self.shown[transient["display_id"]] = data
        self.came.set()

    @property
    def text(self) -> str:
        (data,) = self.shown.values()
        return data["text/plain"]


def test_all_of_a_study_is_one_output_written_anew() -> None:
    kernel, runs = Kernel(), [t for t in make_view("subset_wins").trials if t.cause == "finished"]
    with NotebookProgress(kernel) as progress:
        progress.stage("search", 1000)
        for number in range(1000):
            progress.run_started(f"trial-{number}")
            progress.run_progress(f"trial-{number}", 0.5, 0.9)
            progress.run_finished(replace(runs[0], name=f"trial-{number}"))
        progress.finished(make_view("subset_wins"))
    assert kernel.sent[0] is False
    assert all(kernel.sent[1:])
    assert len(kernel.sent) < 20
    assert kernel.text.startswith("search: 1000 finished in ")
    (data,) = kernel.shown.values()
    assert data["text/html"].startswith("<pre style=")


def test_what_goes_on_is_drawn_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "REDRAW_S", 0.01)
    kernel, run = Kernel(), make_view("subset_wins").trials[0]
    with NotebookProgress(kernel) as progress:
        progress.stage("search", 4)
        progress.run_started(run.name)
        progress.run_progress(run.name, 0.43, 0.9)
        progress.best(run.policy, 0.061, -0.0031)
        for _ in range(2):  # one may have been drawn before the last call
            kernel.came.clear()
            assert kernel.came.wait(10)
        for part in ("search", "0/4", "elapsed", "6.1 % of the reference's", f"{run.name} 43 %"):
            assert part in kernel.text
    assert "elapsed" not in kernel.text


def test_an_interrupted_study_leaves_what_was_told_and_the_thread_ends() -> None:
    kernel = Kernel()

    def interrupted() -> None:
        with NotebookProgress(kernel) as progress:
            for number in range(30):
                progress.note(f"note {number}: [bold]<b>")
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    lines = kernel.text.splitlines()
    assert lines[0] == "(18 earlier lines)"
    assert lines[1:] == [f"note {number}: [bold]<b>" for number in range(18, 30)]
    assert "&lt;b&gt;" in next(iter(kernel.shown.values()))["text/html"]
    for thread in threading.enumerate():
        if thread.name == "progress":
            thread.join(10)
    assert threading.active_count() <= before


def test_the_display_fits_where_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def ipython(shell: object) -> None:
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert publisher() is None
    assert isinstance(default_progress(io.StringIO()), LineProgress)
    assert isinstance(default_progress(Terminal()), LiveProgress)
    ipython(types.SimpleNamespace())  # IPython on a terminal has no kernel
    assert isinstance(default_progress(Terminal()), LiveProgress)
    ipython(types.SimpleNamespace(kernel=object(), display_pub=Kernel()))
    assert isinstance(default_progress(io.StringIO()), NotebookProgress)


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_summary(state: str) -> None:
    view = make_view(state)
    page = summary_html(view)
    assert page.startswith('<div class="subsettune"><p><b>')
    assert ("<table>" in page) == (view.summary.reference is not None)
    assert page.count("<tr>") == page.count("</tr>")


def test_links_are_for_what_lies_below_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_view("subset_wins")
    view = replace(made, folder=str(tmp_path / "runs" / "a&b"))
    (tmp_path / "runs" / "a&b").mkdir(parents=True)
    assert "Report" not in summary_html(view)
    (tmp_path / "runs" / "a&b" / "report.html").touch()
    assert '<a href="runs/a&amp;b/report.html" target="_blank">runs/a&amp;b/report.html</a>' in summary_html(view)
    elsewhere = replace(view, folder="s3://bucket/runs/one", summary=replace(made.summary, bundle="/else/<bundle>"))
    page = summary_html(elsewhere)
    assert "Report: <code>s3://bucket/runs/one/report.html</code>" in page
    assert "Bundle: <code>/else/&lt;bundle&gt;</code>" in page
