"""What a user's own code is told while a study runs: trackers of experiments, messages, plots.

A callback is any object that has one or more of the methods of `Callback`. It is told, and decides nothing; what it
raises does not end a study of hours: it is told once, with its traceback, and the callback is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError, did_you_mean
from subsettune.found import Found
from subsettune.policy import Policy
from subsettune.study.observer import Observer
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView

_log = logging.getLogger("subsettune.callbacks")


class Callback:
    """Does nothing; a callback of one's own has those methods that it needs, whether it derives from this or not.

    Calls come one at a time, in the process that called `tune`, and the study waits for them. What is told of a run
    that ended is on disk by then. A study that goes on tells of new runs only; `on_start` has those before.
    """

    def on_start(self, study: Found) -> None:
        """The study stands: data are read, costs are counted; nothing has run yet in this call.

        Args:
            study: as it is on disk, with the runs of earlier calls if it goes on.
        """

    def on_stage(self, name: str, num_runs: int | None) -> None:
        """A stage begins.

        Args:
            name: `reference`, `search`, `verification`, `ablation`, `export`, `report`, or `starting Ray`.
            num_runs: of the stage; None when unknown.
        """

    def on_reference(self, run: RunRecord) -> None:
        """A training by the conventional recipe ended."""

    def on_trial(self, run: RunRecord) -> None:
        """A trial of the search ended, whatever the cause: `finished`, `stopped`, `diverged` or `failed`."""

    def on_verification(self, run: RunRecord) -> None:
        """A run of a candidate ended, on other seeds; `test_metric` is on the test split."""

    def on_ablation(self, run: RunRecord) -> None:
        """A run ended that tells what a component is worth."""

    def on_confirmation(self, run: RunRecord) -> None:
        """A run of an exported policy with fresh seeds ended (`TuneOptions(fresh_seeds=True)`)."""

    def on_finish(self, study: Found) -> None:
        """The study is at its end; bundle and report are written."""

    def on_failure(self, error: BaseException) -> None:
        """The study ended early, by an error or by KeyboardInterrupt; the same call goes on with it."""


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def check_callbacks(callbacks: object) -> tuple[Any, ...]:
    """The callbacks, each looked at before anything runs.

    Raises:
        ConfigError: one has no method that is ever called, or one whose name is mistyped.
    """
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | bytes | dict):
        raise ConfigError(must("callbacks", "a list of objects", callbacks, "Write callbacks=[...]."))
    found = tuple(callbacks)
    for index, callback in enumerate(found):
        _check(f"callbacks[{index}]", callback)
    return found


def _check(name: str, callback: object) -> None:
    if isinstance(callback, type):
        raise ConfigError(must(name, "an object, not its class", callback, f"Write {callback.__name__}()."))
    told = [method for method in dir(callback) if method.startswith("on_")]
    known = f"Methods: {', '.join(METHODS)}."
    for method in told:
        if method not in METHODS:
            rule = "without methods on_... that are never called"
            raise ConfigError(must(name, rule, method, f"{did_you_mean(method, METHODS)} {known}".lstrip()))
    if not any(callable(getattr(callback, method)) for method in told):
        raise ConfigError(must(name, "an object with one of the methods of subsettune.Callback", callback, known))


class ToldObserver:
    """An observer that passes everything on to a display, and what callbacks are told to them.

    Args:
        display: comes first.
        callbacks: checked ones, in the order in which they are told.
    """

    def __init__(self, display: Observer, callbacks: Sequence[Any]) -> None:
        self._display = display
        self._callbacks = list(callbacks)
        self._lock = threading.RLock()
        self._has_begun = False

    def start(self, view: StudyView) -> None:
        """The study stands."""
        self._has_begun = True
        self._tell("on_start", Found(view))

    def fail(self, error: BaseException) -> None:
        """The study ended early."""
        self._tell("on_failure", error)

    def stage(self, name: str, num_runs: int | None) -> None:
        """See `Observer`."""
        self._display.stage(name, num_runs)
        self._tell("on_stage", name, num_runs)

    def run_started(self, name: str) -> None:
        """See `Observer`."""
        self._display.run_started(name)

    def run_progress(self, name: str, share: float, metric: float | None) -> None:
        """See `Observer`."""
        self._display.run_progress(name, share, metric)

    def run_finished(self, record: RunRecord) -> None:
        """See `Observer`."""
        self._display.run_finished(record)
        self._tell(f"on_{record.role}", record)

    def best(self, policy: Policy, cost_share: float, gap: float) -> None:
        """See `Observer`."""
        self._display.best(policy, cost_share, gap)

    def note(self, message: str) -> None:
        """See `Observer`."""
        self._display.note(message)

    def finished(self, view: StudyView) -> None:
        """See `Observer`."""
        self._display.finished(view)
        self._tell("on_finish", Found(view))

    def _tell(self, method: str, *told: object) -> None:
        """Call a method of each callback that has it; one that raises is dropped, so that the study is not lost."""
        with self._lock:
            if not self._has_begun:
                return
            for callback in tuple(self._callbacks):
                try:
                    getattr(callback, method, _nothing)(*told)
                except Exception as error:  # whatever it is: it is a user's code, and told with its traceback
                    self._callbacks = [other for other in self._callbacks if other is not callback]
                    _log.warning(_words(callback, method, error), exc_info=error)


def _words(callback: object, method: str, error: Exception) -> str:
    kind = type(callback).__name__
    what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
    return f"callback {kind} raised in {method}: {what}. It is told no more; the study goes on."


def _nothing(*_: object) -> None:
    pass
