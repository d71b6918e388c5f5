"""Live progress of a study: what its driver reports, shown on a terminal or as plain lines in a log.

Every display is an `Observer` and a context manager; leaving the context, for whatever reason, gives the terminal
back as it was. Displays may be called from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast, final

from subsettune.report.render import is_terminal
from subsettune.report.streams import ForgivingStream
from subsettune.report.tally import Clock, Tally
from subsettune.text import describe, is_number, seconds_words, share_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from subsettune.policy import Policy
    from subsettune.study.results.records import RunRecord
    from subsettune.study.results.view import StudyView

LINE_EVERY_S = 1.0  # a fast study prints at most one line of finished runs in so many seconds
SILENCE_S = 60.0  # a slow one says at least this often that it is alive
_NAMED_RUNNING = 4


class Display(ABC):
    """A display: keeps the tally under a lock; what is shown is for the subclasses."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._lock = threading.RLock()
        self._tally = Tally(clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back and give the terminal back; may be called twice."""

    def stage(self, name: str, num_runs: int | None) -> None:
        """See `Observer`."""
        with self._lock:
            self._tally.begin(name, num_runs)

    def run_started(self, name: str) -> None:
        """See `Observer`."""
        with self._lock:
            self._tally.start(name)

    def run_progress(self, name: str, share: float, metric: float | None) -> None:
        """See `Observer`."""
        with self._lock:
            self._tally.shares[name] = share

    def run_finished(self, record: RunRecord) -> None:
        """See `Observer`."""
        with self._lock:
            self._tally.end(record.name, record.cause)

    def best(self, policy: Policy, cost_share: float, gap: float) -> None:
        """See `Observer`."""
        with self._lock:
            self._tally.incumbent = (describe(policy), cost_share, gap)

    @abstractmethod
    def note(self, message: str) -> None:
        """See `Observer`."""

    def finished(self, view: StudyView) -> None:
        """See `Observer`."""
        self.close()


@final
class SilentProgress(Display):
    """Shows nothing."""

    def close(self) -> None:
        """Nothing is held back."""

    def note(self, message: str) -> None:
        """See `Observer`."""


class _Lines(Display):
    """Plain lines with the elapsed time, and one at least every `SILENCE_S` while a stage goes on."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = ForgivingStream(stream)
        self._last_s = -math.inf
        self._alive = threading.Condition(self._lock)
        self._is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._break_silence, name="progress", daemon=True).start()
        return self

    def close(self) -> None:
        """Write the runs that are still held back."""
        with self._lock:
            self._flush()
            self._is_over = True
            self._alive.notify()

    def note(self, message: str) -> None:
        """See `Observer`."""
        with self._lock:
            self._flush()
            self._line(" ".join(message.split()))

    def _flush(self) -> None:
        """Write what is held back."""

    def _counted(self) -> str:
        if self._tally.num_runs is None and not self._tally.done:
            return self._tally.name
        total = "" if self._tally.num_runs is None else f"/{self._tally.num_runs}"
        return f"{self._tally.name} {self._tally.done}{total}"

    def _line(self, text: str) -> None:
        self._last_s = self._tally.clock()
        self._stream.write(f"[{_clock_words(self._last_s - self._tally.began_s)}] {text}\n")
        self._stream.flush()

    def _break_silence(self) -> None:
        """Say now and then that a stage goes on which tells nothing: data are read, a GPU computes, a node starts."""
        with self._lock:
            while not self._alive.wait(SILENCE_S / 4) and not self._is_over:
                if self._tally.name and self._tally.clock() - self._last_s >= SILENCE_S:
                    lasted = seconds_words(self._tally.clock() - self._tally.stage_s)
                    running = _running_words(self._tally)
                    self._line(f"{self._counted()}: {f'{running} under way, ' if running else ''}{lasted} so far")


@final
class LineProgress(_Lines):
    """For logs: a line a finished run, fewer when runs end faster than a second."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._held: list[RunRecord] = []

    def stage(self, name: str, num_runs: int | None) -> None:
        """See `Observer`."""
        with self._lock:
            self._flush()
            super().stage(name, num_runs)
            self._line(name if num_runs is None else f"{name}: {num_runs} runs")

    def run_progress(self, name: str, share: float, metric: float | None) -> None:
        """Say that a long run is alive."""
        with self._lock:
            super().run_progress(name, share, metric)
            if self._tally.clock() - self._last_s >= SILENCE_S:
                self._line(f"{self._counted()}: {_running_words(self._tally)} under way")

    def run_finished(self, record: RunRecord) -> None:
        """See `Observer`."""
        with self._lock:
            super().run_finished(record)
            self._held.append(record)
            if record.cause == "failed" or self._tally.clock() - self._last_s >= LINE_EVERY_S:
                self._flush()

    def best(self, policy: Policy, cost_share: float, gap: float) -> None:
        """See `Observer`."""
        with self._lock:
            before = self._tally.incumbent
            super().best(policy, cost_share, gap)
            if self._tally.incumbent == before:
                return
            self._flush()
            self._line(f"best so far: {_best_words(cost_share, gap)}: {describe(policy)}")

    def _flush(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        self._line(f"{self._counted()}: {_ended_words(held)}{_left_words(self._tally)}")
        for record in held:
            if record.cause == "failed":
                self._line(_failed_words(record))


@final
class SparseProgress(_Lines):
    """For whoever did not ask for lines: one at the beginning, one a minute, one at the end; notes and failures."""

    def stage(self, name: str, num_runs: int | None) -> None:
        """See `Observer`."""
        with self._lock:
            super().stage(name, num_runs)
            self._tell()

    def run_progress(self, name: str, share: float, metric: float | None) -> None:
        """See `Observer`."""
        with self._lock:
            super().run_progress(name, share, metric)
            self._tell()

    def run_finished(self, record: RunRecord) -> None:
        """See `Observer`."""
        with self._lock:
            super().run_finished(record)
            if record.cause == "failed":
                self._line(_failed_words(record))
            self._tell()

    def finished(self, view: StudyView) -> None:
        """See `Observer`."""
        with self._lock:
            self._line(view.summary.headline)
        super().finished(view)

    def _tell(self) -> None:
        """A line about the stage as it stands, where the last one is a minute old."""
        if self._tally.clock() - self._last_s < SILENCE_S:
            return
        running, best = _running_words(self._tally), self._tally.incumbent
        parts = [self._counted(), f"{running} under way" if running else ""]
        parts += [f"best so far: {_best_words(*best[1:])}"] if best is not None else []
        self._line("; ".join(part for part in parts if part) + _left_words(self._tally))


class Drawn(Display):
    """What is redrawn in place: stage, bar, best policy so far, time left, runs under way."""

    def _lines(self) -> list[Any]:
        """The block as things that rich renders; the caller holds the lock."""
        from rich.text import Text

        rows = {}
        if self._tally.incumbent is not None:
            policy, cost_share, gap = self._tally.incumbent
            rows["best so far"] = f"{_best_words(cost_share, gap)}: {policy}"
        if self._tally.running:
            rows["running"] = _running_words(self._tally)
        return [Text(""), self._head(), _labelled(rows)]

    def _head(self) -> RichTable:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        grid = Table.grid(padding=(0, 1), expand=False)
        total = tally.num_runs or None
        bar = ProgressBar(total=total, completed=tally.done, width=24, pulse=total is None)
        left = tally.time_left_s()
        about = f"about {_clock_words(left)} left" if left is not None else ""
        count = f"{tally.done}/{total}" if total else str(tally.done)
        elapsed = f"{_clock_words(tally.clock() - tally.began_s)} elapsed"
        grid.add_row(Text(f"{tally.name:<12}", style="bold"), bar, Text(count), Text(elapsed), Text(about, style="dim"))
        return grid

    def stage(self, name: str, num_runs: int | None) -> None:
        """Leave one line about the stage that ended."""
        with self._lock:
            ended = _stage_words(self._tally) if self._tally.name else ""
            super().stage(name, num_runs)
        if ended:
            self.note(ended)

    def run_finished(self, record: RunRecord) -> None:
        """Leave a line about a failed run; the others are counted."""
        super().run_finished(record)
        if record.cause == "failed":
            self.note(_failed_words(record))

    def finished(self, view: StudyView) -> None:
        """See `Observer`."""
        with self._lock:
            ended = _stage_words(self._tally) if self._tally.name else ""
        if ended:
            self.note(ended)
        super().finished(view)


@final
class LiveProgress(Drawn):
    """A block that redraws itself on a terminal."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(clock)
        self._console = Console(file=cast(TextIO, ForgivingStream(stream)))
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def close(self) -> None:
        """Take the block away; the result table follows it."""
        self._live.stop()  # not under the lock: it waits for the thread that draws, which takes the lock

    def note(self, message: str) -> None:
        """See `Observer`."""
        self._console.print(" ".join(message.split()), markup=False, highlight=False, style="dim")

    def _draw(self) -> Group:
        from rich.console import Group

        with self._lock:
            return Group(*self._lines())


def make_progress(stream: TextIO, *, quiet: bool = False) -> Display:
    """The display that fits a stream: redrawn on a terminal, lines in a file or pipe, nothing when quiet."""
    if quiet:
        return SilentProgress()
    return LiveProgress(stream) if is_terminal(stream) else LineProgress(stream)


def _labelled(rows: Mapping[str, str]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for label, words in rows.items():
        grid.add_row(Text(f"{label:<12}", style="dim", no_wrap=True), Text(words))
    return grid


def _best_words(cost_share: float, gap: float) -> str:
    against = "equal to its" if gap == 0 else f"{abs(gap):.4g} {'better' if gap > 0 else 'worse'} than its"
    return f"{share_words(cost_share)} of the reference's compute, metric {against}"


def _ended_words(records: list[RunRecord]) -> str:
    if len(records) == 1:
        record = records[0]
        metric = f" at {record.metric:.4g}" if record.metric is not None and is_number(record.metric) else ""
        return f"{record.name} {record.cause}{metric}: {describe(record.policy)}"
    counts = Counter(record.cause for record in records)
    return "runs ended: " + ", ".join(f"{count} {cause}" for cause, count in counts.items())


def _failed_words(record: RunRecord) -> str:
    return f"{record.name} failed: {' '.join(record.message.split())}"


def _left_words(tally: Tally) -> str:
    left = tally.time_left_s()
    return f", about {seconds_words(left)} left" if left is not None and left >= 1 else ""


def _running_words(tally: Tally) -> str:
    names = list(tally.running)
    shown = [_running_run(tally, name) for name in names[:_NAMED_RUNNING]]
    more = [f"{len(names) - _NAMED_RUNNING} more"] if len(names) > _NAMED_RUNNING else []
    return ", ".join([*shown, *more])


def _running_run(tally: Tally, name: str) -> str:
    """A run with its share, if it has told one: many runs are evaluated at their end alone."""
    return f"{name} {share_words(round(tally.shares[name], 2))}" if name in tally.shares else name


def _stage_words(tally: Tally) -> str:
    counts = ", ".join(f"{count} {cause}" for cause, count in tally.causes.items())
    if not counts and tally.num_runs is None:
        return f"{tally.name}: {seconds_words(tally.clock() - tally.stage_s)}"
    return f"{tally.name}: {counts or 'no runs'} in {seconds_words(tally.clock() - tally.stage_s)}"


def _clock_words(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:2d}:{rest:02d}"
