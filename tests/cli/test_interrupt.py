"""What is said at Ctrl-C, and where."""

from __future__ import annotations

import io
import signal

from terminal import Terminal

from subsettune.cli.interrupt import Answer
from subsettune.report.progress import LiveProgress


def test_it_is_said_at_once_with_how_to_go_on() -> None:
    stream = io.StringIO()
    answer = Answer(stream)
    answer.go_on = "To go on: subsettune tune x.yaml"
    answer.hear(signal.SIGWINCH)
    assert stream.getvalue() == ""
    answer.hear(signal.SIGINT)
    answer.hear(signal.SIGINT)  # of the same Ctrl-C: a program and its group are both told
    assert stream.getvalue() == "\nStopping; Ctrl-C again ends at once. To go on: subsettune tune x.yaml\n"


def test_a_display_that_redraws_itself_does_not_wipe_it_out() -> None:
    stream = Terminal()
    answer = Answer(stream)
    with LiveProgress(stream) as progress, answer.through(progress.note):
        progress.stage("search", 4)
        progress._live.refresh()
        answer.hear(signal.SIGINT)
        progress._live.refresh()
    lines = stream.getvalue().split("Stopping; Ctrl-C again ends at once.")
    assert len(lines) == 2
    assert lines[0].endswith("\x1b[2m")  # as a note: the block was taken away before it, and is drawn anew below it
    assert "\nStopping" not in stream.getvalue()
    again = Answer(stream)
    with again.through(None):
        again.hear(signal.SIGINT)
    assert stream.getvalue().endswith("\nStopping; Ctrl-C again ends at once.\n")
