"""The head of a cluster that stops answering, on a made-up clock."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("ray")
from subsettune.study.execute import ray_head
from subsettune.study.execute.ray_head import HeadWatch

GONE = "The head of the Ray cluster at head:6379 does not answer; it is waited for."
BACK = "The head of the Ray cluster at head:6379 answers again."
LOST = (
    "The Ray cluster at head:6379 is lost: its head has not answered for 50 s. What was finished is on record; the "
    "same command goes on once there is a cluster."
)


def told(*silent_s: float) -> tuple[list[str], list[int]]:
    """Notes and exit codes where the head is away for stretches of time."""
    notes, codes, is_there = list[str](), list[int](), [True]
    watch = HeadWatch("head:6379", notes.append, lambda address: is_there[0], codes.append)
    now_s = 0.0
    for stretch_s in silent_s:
        for is_there[0], seconds in ((True, 4.0), (False, stretch_s)):
            for _ in range(round(seconds / ray_head.LOOK_S)):
                now_s += ray_head.LOOK_S
                watch.look(now_s)
        is_there[0] = True
        watch.look(now_s)
    return notes, codes


def test_a_head_that_is_gone_is_told_before_ray_ends_the_process() -> None:
    notes, codes = told(52.0)
    assert notes[:2] == [GONE, LOST]
    assert codes == [2]
    assert ray_head.END_S < 60


def test_a_head_that_comes_back_is_told_too() -> None:
    assert told(30.0, 30.0) == ([GONE, BACK] * 2, [])


def test_a_breath_is_no_silence() -> None:
    assert told(8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0) == ([], [])


def test_it_answers_where_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert ray_head._answers(address)
    assert not ray_head._answers(address)
