"""Signals that ask a program to stop."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from subsettune.study.execute.signals import handled, hangups_ignored, stops_as_sigint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_what_asks_to_stop_stops_as_ctrl_c_does(number: int, on_ctrl_c: Any) -> None:
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    kept = signal.getsignal(number)
    try:
        with pytest.raises(KeyboardInterrupt), stops_as_sigint():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(number) == kept


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
