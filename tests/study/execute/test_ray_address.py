"""Addresses at which there is no Ray cluster. Nothing here starts one."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fake_inputs import changed

from subsettune.api import TuneOptions, tune
from subsettune.errors import StudyError
from subsettune.study.execute import ray_address
from subsettune.study.execute.ray_address import Address


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Something that takes connections and says what it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def answer(server: socket.socket, words: bytes) -> None:
    line, _ = server.accept()
    with line:
        line.recv(64)
        line.sendall(words)
        time.sleep(0.5)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00"])
def test_what_is_no_part_of_a_cluster_is_told_soon(
    words: bytes, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would try such an address for minutes: a dashboard, a database, a port that never answers."""
    monkeypatch.setattr(ray_address, "ANSWER_S", 0.3)
    threading.Thread(target=answer, args=(listener, words), daemon=True).start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(StudyError) as caught:
        Address(address).connect()
    assert str(caught.value) == (
        f"no Ray cluster answers at '{address}' (--address): what listens there is no part of a Ray cluster. "
        "Start one with `ray start --head`, or leave --address out to run on this machine."
    )


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:8265", "http:// is no address of a cluster, write ray://HOST:10001 or HOST:6379"),
        ("ray://nowhere", "it lacks a port, such as ray://HOST:10001"),
        ("127.0.0.1:99999", "'99999' is no port"),
        ("127.0.0.1:0", "'0' is no port"),
    ],
)
def test_what_is_no_address(address: str, reason: str) -> None:
    with pytest.raises(StudyError, match=re.escape(f"at {address!r} (RAY_ADDRESS): {reason}. Start one")):
        Address(address, "RAY_ADDRESS").connect()


def test_an_address_from_the_environment_is_told_as_that(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A line in a shell's profile outlives its cluster, and nobody remembers it."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(StudyError) as caught:
        tune(changed({}), run_id="dead", options=TuneOptions(storage=str(tmp_path)))
    assert str(caught.value) == (
        "no Ray cluster answers at '127.0.0.1:1' (RAY_ADDRESS): [Errno 111] Connection refused. Start one with "
        "`ray start --head`, or unset RAY_ADDRESS to run on this machine."
    )
    inline = tune(changed({}), run_id="dead", options=TuneOptions(storage=str(tmp_path), executor="inline")).view
    assert inline.summary.status == "finished"


def test_a_study_in_this_process_looks_at_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """RAY_ADDRESS names a cluster that such a study does not use: its GPUs count for nothing."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    study = changed({"study.gpus_per_trial": 1})
    with pytest.raises(ValueError, match="gpus_per_trial must be at most 0 here, got 1"):
        tune(study, run_id="gpu", options=TuneOptions(storage=str(tmp_path), executor="inline"))
