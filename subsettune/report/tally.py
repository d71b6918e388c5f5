"""What has happened in the current stage of a study: the account that every display of its progress keeps."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]
_RECENT = 8  # finished runs that the time left is estimated from: late trials are cheaper than early ones


@dataclass(slots=True)
class Tally:
    """What has happened in the current stage; the caller holds the lock.

    Args:
        clock: seconds, monotonic.
        began_s: when the study began.
        stage_s: when the stage began.
        name: of the stage.
        num_runs: of the stage, or null.
        causes: finished runs of the stage by cause.
        running: start of each run under way.
        shares: latest share of compute of each run under way.
        durations_s: of the latest finished runs.
        most_at_once: largest number of runs under way at a time.
        incumbent: the best policy in words, its cost share and gap, or null.
        has_told: whether a run of the study has told of itself, so that processes and data are there.
    """

    clock: Clock
    began_s: float = 0.0
    stage_s: float = 0.0
    name: str = ""
    num_runs: int | None = None
    causes: Counter[str] = field(default_factory=Counter)
    running: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    most_at_once: int = 1
    incumbent: tuple[str, float, float] | None = None
    has_told: bool = False

    def __post_init__(self) -> None:
        self.began_s = self.stage_s = self.clock()

    @property
    def done(self) -> int:
        """Runs of the stage that came to their end."""
        return sum(self.causes.values())

    def begin(self, name: str, num_runs: int | None) -> None:
        """Start the account of a new stage; the incumbent stays."""
        self.name, self.num_runs, self.stage_s, self.most_at_once = name, num_runs, self.clock(), 1
        for account in (self.causes, self.running, self.shares, self.durations_s):
            account.clear()

    def start(self, name: str) -> None:
        """A run is under way."""
        self.running[name] = self.clock()
        self.most_at_once = max(self.most_at_once, len(self.running))
        if self.num_runs is not None:  # verification may add seeds
            self.num_runs = max(self.num_runs, self.done + len(self.running))

    def tell(self, name: str, share: float) -> None:
        """A run has used a share of its compute."""
        self.shares[name], self.has_told = share, True

    def end(self, name: str, cause: str) -> None:
        """A run came to its end."""
        self.has_told = True
        started = self.running.pop(name, None)
        self.shares.pop(name, None)
        self.causes[cause] += 1
        if started is not None:
            self.durations_s.append(self.clock() - started)

    def time_left_s(self) -> float | None:
        """Seconds to the end of the stage, from the durations of its latest runs and how many ran at a time."""
        if self.num_runs is None or not self.durations_s:
            return None
        mean = sum(self.durations_s) / len(self.durations_s)
        now = self.clock()
        under_way = [max(0.0, mean - (now - started)) for started in self.running.values()]
        waiting = max(0, self.num_runs - self.done - len(self.running))
        return max([(waiting * mean + sum(under_way)) / self.most_at_once, *under_way])
