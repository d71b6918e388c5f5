"""Signals that ask a program to stop."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from subsettune.study.execute import ray as ray_executor
from subsettune.study.execute.ray_cluster import Resources
from subsettune.study.execute.signals import handled, hangups_ignored, stops_as_sigint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_what_asks_to_stop_stops_as_ctrl_c_does(number: int, on_ctrl_c: Any) -> None:
    before = (
        signal.signal(signal.SIGINT, on_ctrl_c),
        signal.signal(number, signal.SIG_DFL),
    )
    try:
        with pytest.raises(KeyboardInterrupt), stops_as_sigint():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(number, before[1])


def test_nohup_means_what_it_says() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(signal.default_int_handler):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hangup_is_heard_again_once_processes_have_started() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with hangups_ignored():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == before


@contextlib.contextmanager
def as_ray_has_it(*_: object, is_early: bool = False) -> Iterator[int]:
    """A cluster, to whose start it belongs that SIGTERM ends the process; one comes there, or later."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        if is_early:
            os.kill(os.getpid(), signal.SIGTERM)
        yield 1
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("is_early", [True, False], ids=["while it starts", "connected"])
def test_sigterm_interrupts_a_study_on_ray(is_early: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def run(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            heard.append(type(error).__name__)
            raise

    monkeypatch.setattr(ray_executor, "cluster", functools.partial(as_ray_has_it, is_early=is_early))
    monkeypatch.setattr(ray_executor, "head_watched", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(ray_executor, "sent", lambda *_: None)
    monkeypatch.setattr(ray_executor, "check_nodes", lambda *_: None)
    monkeypatch.setattr(ray_executor.RayExecutor, "_run", run)
    executor = ray_executor.RayExecutor(
        None, None, 0, lambda: 0.0, resources=Resources(parallel=1, cpus=1), storage="/tmp/nowhere", note=heard.append
    )
    with pytest.raises(KeyboardInterrupt), stops_as_sigint():
        executor.execute(None)
    assert heard == ([] if is_early else ["KeyboardInterrupt"])
