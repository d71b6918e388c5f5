from __future__ import annotations

import io
import re
import threading
import time

import pytest
from fake_study import make_view
from terminal import Terminal

from subsettune.report.progress import (
    Display,
    LineProgress,
    LiveProgress,
    SilentProgress,
    make_progress,
)
from subsettune.report.tally import Tally
from subsettune.study.observer import Observer
from subsettune.study.results.records import RunRecord

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")


def records(cause: str = "finished") -> list[RunRecord]:
    return [trial for trial in make_view("subset_wins").trials if trial.cause == cause]


def drive(progress: Observer, clock: Clock, *, each_s: float, runs: list[RunRecord]) -> None:
    progress.stage("search", len(runs))
    for record in runs:
        progress.run_started(record.name)
        clock.now_s += each_s
        progress.run_progress(record.name, 0.5, 0.9)
        progress.run_finished(record)


def test_whoever_did_not_ask_for_lines_gets_one_a_minute(clock: Clock) -> None:
    stream = io.StringIO()
    runs = records() * 4
    with LineProgress(stream, clock) as progress:
        progress.stage("reading data", None)
        drive(progress, clock, each_s=5.0, runs=runs)
        progress.best(runs[0].policy, 0.061, -0.0031)
        clock.now_s += 60
        progress.run_progress("trial-0099", 0.4, 0.9)
        progress.finished(make_view("subset_wins"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[ 0:00] reading data"
    assert len(lines) == 5 * len(runs) // 60 + 3
    assert re.fullmatch(r"\[ 1:00\] search 11/\d+; trial-\d+ 50 % under way, about .* left", lines[1])
    assert lines[-2].endswith("; best so far: 6.1 % of the reference's compute, metric 0.0031 worse than its")
    assert lines[-1].endswith(make_view("subset_wins").summary.headline)


def test_notes_and_failures_are_told_at_once_to_them_too(clock: Clock) -> None:
    stream = io.StringIO()
    with LineProgress(stream, clock) as progress:
        progress.stage("search", 2)
        progress.note("Look at the data:\nrow numbers")
        progress.run_finished(records("failed")[0])
    lines = stream.getvalue().splitlines()
    assert lines[1] == "[ 0:00] Look at the data: row numbers"
    assert lines[2].endswith("on node <gpu-3>: CUDA out of memory.")
    assert len(lines) == 3


def test_what_is_waited_for_is_told_until_a_run_has_told_of_itself(clock: Clock) -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, clock)
    progress.stage("reference", 5)
    progress.run_started("reference-seed-0")
    progress.note("Ray has started")
    clock.now_s += 60
    progress._tell()
    clock.now_s += 60
    progress.run_progress("reference-seed-0", 0.4, 0.9)
    assert stream.getvalue().splitlines() == [
        "[ 0:00] reference 0/5; waiting for the next run to be chosen",
        "[ 0:00] Ray has started",
        "[ 1:00] reference 0/5; reference-seed-0 under way; waiting for the first run: its process starts, data are "
        "loaded",
        "[ 2:00] reference 0/5; reference-seed-0 40 % under way",
    ]


def test_a_stage_without_runs_is_what_is_waited_for(clock: Clock) -> None:
    stream = io.StringIO()
    LineProgress(stream, clock).stage("starting Ray", None)
    assert stream.getvalue() == "[ 0:00] starting Ray\n"


def test_the_result_is_told_where_nothing_else_prints_it(clock: Clock) -> None:
    view = make_view("subset_wins")
    for tells in (True, False):
        stream = io.StringIO()
        with LineProgress(stream, clock, tells_result=tells) as progress:
            progress.finished(view)
        assert (view.summary.headline in stream.getvalue()) == tells
    stream = io.StringIO()
    with make_progress(stream) as shown:
        shown.finished(view)
    assert stream.getvalue() == ""


def test_a_silent_stage_is_told_of_each_minute(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subsettune.report.progress.SILENCE_S", 0.04)
    stream = io.StringIO()
    with LineProgress(stream, clock) as progress:
        progress.stage("starting Ray", None)
        clock.now_s += 75
        deadline = time.monotonic() + 20
        while "so far" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "[ 1:15] starting Ray; 75.0 s so far" in stream.getvalue().splitlines()


def test_a_reader_that_left_does_not_end_the_study(clock: Clock) -> None:
    with LineProgress(ClosedPipe(), clock) as progress:
        drive(progress, clock, each_s=2.0, runs=records()[:3])


def test_time_left_follows_durations_and_parallel_runs(clock: Clock) -> None:
    tally = Tally(clock=clock)
    tally.begin("search", 10)
    assert tally.time_left_s() is None
    for name in ("a", "b"):
        tally.start(name)
    clock.now_s += 8
    for name in ("a", "b"):
        tally.end(name, "finished")
    assert tally.time_left_s() == 8 * 8 / 2  # eight runs of 8 s, two at a time
    tally.start("c")
    clock.now_s += 2
    assert tally.time_left_s() == (7 * 8 + 6) / 2
    clock.now_s += 100
    assert tally.time_left_s() == 7 * 8 / 2  # a run that takes longer than others is about to end


def test_time_left_is_at_least_that_of_the_run_that_began_last(clock: Clock) -> None:
    tally = Tally(clock=clock)
    tally.begin("search", 3)
    for name in ("a", "b"):
        tally.start(name)
    clock.now_s += 10
    tally.end("a", "finished")
    tally.end("b", "finished")
    tally.start("c")
    clock.now_s += 1
    assert tally.time_left_s() == 9


def test_a_stage_of_unknown_length_has_no_time_left(clock: Clock) -> None:
    tally = Tally(clock=clock)
    tally.begin("verification", None)
    tally.start("a")
    clock.now_s += 1
    tally.end("a", "finished")
    assert tally.time_left_s() is None


def draw(progress: LiveProgress) -> str:
    with progress._console.capture() as captured:
        progress._console.print(progress._draw())
    return captured.get()


def test_the_live_display_shows_everything(clock: Clock) -> None:
    progress = LiveProgress(Terminal(), clock)
    runs = records()[:4]
    drive(progress, clock, each_s=60, runs=runs[:2])
    progress.stage("search", 4)
    for record in runs[:2]:
        progress.run_started(record.name)
    clock.now_s += 30
    progress.run_finished(runs[0])
    progress.run_progress(runs[1].name, 0.43, 0.9)
    progress.best(runs[0].policy, 0.061, -0.0031)
    text = draw(progress)
    for part in ("search", "1/4", "2:30 elapsed", "about 0:30 left", "6.1 % of the reference's", "0.0031 worse"):
        assert part in text
    assert f"{runs[1].name} 43 %" in text


@pytest.mark.parametrize("width", [40, 60, 90])
def test_the_live_display_fits_a_narrow_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    progress = LiveProgress(Terminal(), clock)
    runs = records()[:4]
    progress.stage("search", 4)
    progress.run_started(runs[0].name)
    lines = draw(progress).splitlines()
    assert any("waiting" in line for line in lines)
    clock.now_s += 30
    progress.run_finished(runs[0])
    progress.run_started(runs[1].name)
    progress.run_progress(runs[1].name, 0.43, 0.9)
    progress.best(runs[0].policy, 0.061, -0.0031)
    text = draw(progress)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= width
    assert "waiting" not in plain
    words = " ".join(plain.split())
    for part in ("search", "1/4", "0:30 elapsed", "about 1:30 left", "0.0031 worse", f"{runs[1].name} 43 %"):
        assert part in words
    assert len(plain.splitlines()) <= 9


def test_the_display_follows_the_width(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = LiveProgress(Terminal(), clock)
    progress.stage("search", 4)
    shapes = []
    for width in ("90", "40", "90"):
        monkeypatch.setenv("COLUMNS", width)
        progress._console.width = int(width)
        shapes.append(draw(progress))
    assert shapes[0] == shapes[2] != shapes[1]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {}])
def test_no_colour_where_none_is_asked_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    progress = LiveProgress(Terminal(), clock)
    progress.stage("search", 4)
    progress.run_finished(records()[0])
    coloured = re.search(r"\x1b\[[0-9;]*(3[0-8]|9[0-7])[;m0-9]*", draw(progress))
    assert (coloured is None) == bool(variables)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(Terminal()), LineProgress)


def test_a_stage_of_unknown_length_is_drawn_too(clock: Clock) -> None:
    progress = LiveProgress(Terminal(), clock)
    progress.stage("verification", None)
    assert "verification" in draw(progress)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_terminal_is_given_back_whatever_happens(error: type[BaseException], clock: Clock) -> None:
    stream = Terminal()

    def fails() -> None:
        with LiveProgress(stream, clock) as progress:
            progress.stage("search", 3)
            assert HIDE_CURSOR in stream.getvalue()
            raise error

    with pytest.raises(error):
        fails()
    assert stream.getvalue().rindex(SHOW_CURSOR) > stream.getvalue().rindex(HIDE_CURSOR)


def test_live_notes_stay_and_markup_is_text(clock: Clock) -> None:
    stream = Terminal()
    with LiveProgress(stream, clock) as progress:
        drive(progress, clock, each_s=1, runs=records()[:2])
        progress.note("trial-0003 is\nretried: [bold]lost[/bold]")
        progress.run_finished(records("failed")[0])
        progress.stage("verification", 1)
        progress.finished(make_view("subset_wins"))
    text = stream.getvalue()
    assert "trial-0003 is retried: [bold]lost[/bold]" in text
    assert "trial-0017 failed: Trial failed in phase" in text
    assert "search: 2 finished, 1 failed in 2.00 s" in text


@pytest.mark.parametrize("kind", [LineProgress, LiveProgress])
def test_displays_may_be_called_from_many_threads(kind: type[LineProgress] | type[LiveProgress]) -> None:
    runs = records()
    with kind(Terminal()) as progress:
        progress.stage("search", 8 * len(runs))

        def work() -> None:
            for record in runs:
                progress.run_started(record.name)
                progress.run_progress(record.name, 0.5, None)
                progress.note("hello")
                progress.best(record.policy, 0.1, 0.0)
                progress.run_finished(record)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)
        assert progress._tally.done == 8 * len(runs)


def test_the_display_fits_the_stream() -> None:
    assert isinstance(make_progress(Terminal()), LiveProgress)
    assert isinstance(make_progress(io.StringIO()), LineProgress)
    assert isinstance(make_progress(Terminal(), quiet=True), SilentProgress)


def test_silence_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    display: Display = SilentProgress(clock)
    with display as progress:
        drive(progress, clock, each_s=1, runs=records()[:2])
        progress.best(records()[0].policy, 0.1, 0.0)
        progress.note("hello")
        progress.finished(make_view("subset_wins"))
    assert capsys.readouterr() == ("", "")
