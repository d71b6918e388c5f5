from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from fake_study import make_view

from subsettune import Callback, Found
from subsettune.callbacks import METHODS, ToldObserver, check_callbacks
from subsettune.errors import ConfigError
from subsettune.report.progress import SilentProgress
from subsettune.study.observer import Observer
from subsettune.study.results.folder import TABLES
from subsettune.study.results.records import RunRecord

VIEW = make_view("subset_wins")
KNOWN = f"Methods: {', '.join(METHODS)}."


class Told:
    """Notes each call; has only some of the methods."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_start(self, study: Found) -> None:
        self.calls.append(("start", study.run_id))

    def on_stage(self, name: str, num_runs: int | None) -> None:
        self.calls.append(("stage", (name, num_runs)))

    def on_trial(self, run: RunRecord) -> None:
        self.calls.append(("trial", run.name))

    def on_finish(self, study: Found) -> None:
        self.calls.append(("finish", study.summary.verified))


class Breaks(Callback):
    def on_trial(self, run: RunRecord) -> None:
        raise ZeroDivisionError("nothing to\ndivide by")


def drive(observer: ToldObserver) -> None:
    observer.stage("reading data", None)
    observer.start(VIEW)
    observer.stage("search", 2)
    observer.run_started("trial-0000")
    observer.run_progress("trial-0000", 0.5, 0.9)
    for run in VIEW.trials[:2]:
        observer.run_finished(run)
    observer.best(VIEW.trials[0].policy, 0.1, 0.0)
    observer.note("hello")
    observer.finished(VIEW)


def test_a_callback_is_told_from_the_start_on() -> None:
    told = Told()
    drive(ToldObserver(SilentProgress(), [told]))
    assert told.calls == [
        ("start", VIEW.run_id),
        ("stage", ("search", 2)),
        ("trial", "trial-0000"),
        ("trial", "trial-0001"),
        ("finish", True),
    ]


def test_each_role_of_a_run_has_a_method() -> None:
    assert {f"on_{role}" for role in TABLES} < set(METHODS)
    for role in TABLES:
        runs: list[RunRecord] = []
        mine = type("Mine", (), {f"on_{role}": lambda self, run, runs=runs: runs.append(run)})()
        observer = ToldObserver(SilentProgress(), check_callbacks([mine]))
        observer.start(VIEW)
        everything = (*VIEW.reference, *VIEW.trials, *VIEW.verification, *VIEW.ablation_runs)
        for run in everything:
            observer.run_finished(run)
        assert runs == [run for run in everything if run.role == role]


def test_the_display_is_told_all_of_it_first() -> None:
    order: list[str] = []

    class Display:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: order.append(name)

    class Mine:
        def on_trial(self, run: RunRecord) -> None:
            order.append("on_trial")

    display: Observer = Display()
    drive(ToldObserver(display, [Mine()]))
    assert order == [
        *("stage", "stage", "run_started", "run_progress", "run_finished", "on_trial", "run_finished", "on_trial"),
        *("best", "note", "finished"),
    ]


def test_one_that_raises_is_told_once_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING, "subsettune.callbacks"):
        drive(ToldObserver(SilentProgress(), [Breaks(), told]))
    assert [name for name, _ in told.calls] == ["start", "stage", "trial", "trial", "finish"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "callback Breaks raised in on_trial: ZeroDivisionError: nothing to divide by. It is told no more; the study "
        "goes on."
    )
    assert "Traceback" in caplog.text


def test_an_interrupt_is_no_mistake_of_a_callback() -> None:
    class Stops:
        def on_trial(self, run: RunRecord) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(ToldObserver(SilentProgress(), [Stops()]))


def test_of_a_study_that_never_stood_nothing_is_told() -> None:
    errors: list[BaseException] = []
    mine = type("Mine", (), {"on_failure": lambda self, error: errors.append(error)})()
    observer = ToldObserver(SilentProgress(), [mine])
    observer.fail(ValueError("of the data"))
    assert errors == []
    observer.start(VIEW)
    observer.fail(KeyboardInterrupt())
    assert [type(error) for error in errors] == [KeyboardInterrupt]


def test_calls_come_one_at_a_time() -> None:
    class Slow:
        inside = most = 0

        def on_trial(self, run: RunRecord) -> None:
            Slow.inside += 1
            Slow.most = max(Slow.most, Slow.inside)
            time.sleep(0.005)
            Slow.inside -= 1

    observer = ToldObserver(SilentProgress(), [Slow()])
    observer.start(VIEW)
    threads = [threading.Thread(target=observer.run_finished, args=(VIEW.trials[0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert Slow.most == 1


class Mistyped:
    def on_trail(self, run: RunRecord) -> None: ...


BAD = {
    "none at all": (None, "callbacks must be a list of objects, got None. Write callbacks=[...]."),
    "one by itself": (Callback(), "callbacks must be a list of objects, got <subsettune.callbacks.Callback object"),
    "a class": (
        [Callback],
        "callbacks[0] must be an object, not its class, got <class 'subsettune.callbacks.Callback'>",
    ),
    "nothing to call": (
        [print],
        "callbacks[0] must be an object with one of the methods of subsettune.Callback, got <b",
    ),
    "a mistyped name": (
        [Told(), Mistyped()],
        f"callbacks[1] must be without methods on_... that are never called, got 'on_trail'. Did you mean 'on_trial'? "
        f"{KNOWN}",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_never_be_called_is_refused(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises(ConfigError) as caught:
        check_callbacks(given)
    assert str(caught.value).startswith(message)


def test_a_generator_of_callbacks_will_do() -> None:
    assert len(check_callbacks(Told() for _ in range(2))) == 2
