"""Live progress of a study: what its driver reports, shown on a terminal or as plain lines in a log.

Every display is an `Observer` and a context manager; leaving the context, for whatever reason, gives the terminal
back as it was. Displays may be called from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast, final

from subsettune.report.render import is_terminal
from subsettune.report.streams import ForgivingStream
from subsettune.report.tally import Clock, Tally
from subsettune.text import cost_words, describe, seconds_words, share_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from subsettune.policy import Policy
    from subsettune.study.results.records import RunRecord
    from subsettune.study.results.view import StudyView

SILENCE_S = 60.0  # between the lines of a log
ROOMY = 64  # columns in which a bar and labels have room beside the words
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
            self._tally.tell(name, share)

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


@final
class LineProgress(Display):
    """For logs and whoever did not ask for more: one line at the beginning, one a minute; notes and failures at once.

    Args:
        stream: where they are written.
        clock: seconds, monotonic.
        tells_result: whether the last line is what was found, where nothing else prints it.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic, *, tells_result: bool = True) -> None:
        super().__init__(clock)
        self._stream = ForgivingStream(stream)
        self._last_s = -math.inf
        self._tells_result = tells_result
        self._alive = threading.Condition(self._lock)
        self._is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._break_silence, name="progress", daemon=True).start()
        return self

    def close(self) -> None:
        """Say nothing more."""
        with self._lock:
            self._is_over = True
            self._alive.notify()

    def note(self, message: str) -> None:
        """See `Observer`."""
        with self._lock:
            self._line(" ".join(message.split()), is_news=True)

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
                self._line(_failed_words(record), is_news=True)
            self._tell()

    def finished(self, view: StudyView) -> None:
        """See `Observer`."""
        with self._lock:
            if self._tells_result:
                self._line(view.summary.headline)
        super().finished(view)

    def _tell(self) -> None:
        """A line about the stage as it stands, where the last one is a minute old."""
        if self._tally.clock() - self._last_s >= SILENCE_S:
            self._line("; ".join(part for part in self._standing() if part) + _left_words(self._tally))

    def _standing(self) -> list[str]:
        tally, best = self._tally, self._tally.incumbent
        total = "" if tally.num_runs is None else f"/{tally.num_runs}"
        is_counted = tally.num_runs is not None or tally.done
        found = [f"{tally.name} {tally.done}{total}" if is_counted else tally.name]
        found += [f"{running} under way"] if (running := _running_words(tally)) else []
        found += [f"waiting {waiting}"] if (waiting := _waiting_words(tally)) else []
        return [*found, f"best so far: {_best_words(*best[1:])}" if best is not None else ""]

    def _line(self, text: str, *, is_news: bool = False) -> None:
        """Write a line; news leave the next line of the minute where it is."""
        now = self._tally.clock()
        self._last_s = self._last_s if is_news else now
        self._stream.write(f"[{_clock_words(now - self._tally.began_s)}] {text}\n")
        self._stream.flush()

    def _break_silence(self) -> None:
        """Say now and then that a stage goes on which tells nothing: data are read, a GPU computes, a node starts."""
        with self._lock:
            while not self._alive.wait(SILENCE_S / 4) and not self._is_over:
                if self._tally.name and self._tally.clock() - self._last_s >= SILENCE_S:
                    lasted = seconds_words(self._tally.clock() - self._tally.stage_s)
                    told = "; ".join([*filter(None, self._standing()), f"{lasted} so far"])
                    self._line(told + _left_words(self._tally))


class Drawn(Display):
    """What is redrawn in place: stage, bar, best policy so far, time left, runs under way."""

    def _lines(self, width: int) -> list[Any]:
        """The block as things that rich renders; the caller holds the lock.

        Args:
            width: columns that there are; in few of them nothing stands side by side.
        """
        from rich.text import Text

        tally, rows = self._tally, {}
        if tally.incumbent is not None:
            policy, cost_share, gap = tally.incumbent
            rows["best so far"] = f"{_best_words(cost_share, gap)}: {policy}"
        if tally.running:
            rows["running"] = _running_words(tally)
        if waiting := _waiting_words(tally):
            rows["waiting"] = waiting
        if width >= ROOMY:
            return [Text(""), self._head(), _labelled(rows)]
        told = Text("  ".join([tally.name, *self._counts()]), style="bold")
        return [Text(""), told, *(Text(f"{label}: {words}") for label, words in rows.items())]

    def _head(self) -> RichTable:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        grid = Table.grid(padding=(0, 1), expand=False)
        total = tally.num_runs or None
        bar = ProgressBar(total=total, completed=tally.done, width=24, pulse=total is None)
        grid.add_row(Text(f"{tally.name:<12}", style="bold"), bar, *map(Text, self._counts()))
        return grid

    def _counts(self) -> list[str]:
        """Runs of the stage, time since the beginning of the study, time to the end of the stage; what is known."""
        tally = self._tally
        left, total = tally.time_left_s(), "" if tally.num_runs is None else f"/{tally.num_runs}"
        counts = [f"{tally.done}{total}"] if total or tally.done else []
        counts.append(f"{_clock_words(tally.clock() - tally.began_s).strip()} elapsed")
        return [*counts, *([f"about {_clock_words(left).strip()} left"] if left is not None else [])]

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
            return Group(*self._lines(self._console.width))


def make_progress(stream: TextIO, *, quiet: bool = False) -> Display:
    """For a command that prints the result: redrawn on a terminal, lines in a file or pipe, nothing when quiet."""
    if quiet:
        return SilentProgress()
    return LiveProgress(stream) if is_terminal(stream) else LineProgress(stream, tells_result=False)


def _labelled(rows: Mapping[str, str]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for label, words in rows.items():
        grid.add_row(Text(f"{label:<12}", style="dim", no_wrap=True), Text(words))
    return grid


def _best_words(cost_share: float, gap: float) -> str:
    distance = f"{abs(gap):,.0f}" if abs(gap) >= 100 else f"{abs(gap):.2g}"
    against = "equal to its" if gap == 0 else f"{distance} {'better' if gap > 0 else 'worse'} than its"
    return f"{cost_words(cost_share)} of the reference's compute, metric {against}"


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


def _waiting_words(tally: Tally) -> str:
    """What keeps a stage of runs from going on, as far as it shows from here; empty where runs tell of themselves."""
    if tally.num_runs is None or tally.done >= tally.num_runs:
        return ""
    if not tally.running:
        return "for the next run to be chosen"
    return "" if tally.has_told else "for the first run: its process starts, data are loaded"


def _stage_words(tally: Tally) -> str:
    counts = ", ".join(f"{count} {cause}" for cause, count in tally.causes.items())
    if not counts and tally.num_runs is None:
        return f"{tally.name}: {seconds_words(tally.clock() - tally.stage_s)}"
    return f"{tally.name}: {counts or 'no runs'} in {seconds_words(tally.clock() - tally.stage_s)}"


def _clock_words(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:2d}:{rest:02d}"
