"""What Ray says stays off the terminal, and nothing else does; whole studies are in test_ray_studies.py."""

from __future__ import annotations

import logging
import os
import sys
import threading

import pytest
from ray._private import utils, worker
from ray.tune.execution import class_cache
from ray.util.client.logsclient import LogstreamClient

from subsettune.keys import settings_of_stores
from subsettune.study.execute.ray_cluster import keys_unlogged
from subsettune.study.execute.ray_noise import cpp_lines_dropped, pass_on, quiet, quiet_connection

CPP = b"[2026-11-29 10:48:00,123 W 4711 4712] (raylet) gcs_client.cc:179: Failed to connect to GCS within 5 seconds\n"


def passed_on(*chunks: bytes) -> bytes:
    """What comes out of what is written piece by piece, each read before the next is written."""
    (source, sink), (out, target) = os.pipe(), os.pipe()
    reader = threading.Thread(target=pass_on, args=(source, target))
    reader.start()
    for chunk in chunks:
        os.write(sink, chunk)
        reader.join(0.02)
    os.close(sink)
    reader.join()
    with os.fdopen(out, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize(
    ("chunks", "left"),
    [
        ((CPP, CPP), b""),
        ((CPP[:30], CPP[30:]), b""),
        ((CPP[:-1],), b""),  # the last words of a process
        ((b"one\n" + CPP + b"two\n",), b"one\ntwo\n"),
        ((b"[ 0:07] 3 of 9\r", CPP, b"[ 0:08] 4 of 9\r"), b"[ 0:07] 3 of 9\r[ 0:08] 4 of 9\r"),
        ((b"[2026] a year\n", b"[20"), b"[2026] a year\n[20"),
        (
            (b"Traceback (most recent call last):\n", b"  File", b" x\n"),
            b"Traceback (most recent call last):\n  File x\n",
        ),
    ],
)
def test_lines_of_cpp_are_dropped_and_all_else_is_passed_on(chunks: tuple[bytes, ...], left: bytes) -> None:
    assert passed_on(*chunks) == left


def test_what_is_no_line_of_cpp_is_passed_on_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with cpp_lines_dropped():
        os.write(2, b"Continue? ")
        os.write(2, CPP)
        for _ in range(100):
            threading.Event().wait(0.02)
            if told := capfd.readouterr().err:
                break
        assert told == "Continue? "
        print("of the user's", file=sys.stderr)
        os.write(2, CPP)
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "of the user's\nafter\n"


def test_what_nodes_publish_is_printed_only_outside(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"lines": ["A worker died or was killed"], "pid": "raylet", "is_err": False}
    client = LogstreamClient.__new__(LogstreamClient)
    with quiet():
        worker.print_to_stdstream(data, ignore_prefix=False)
        client.stdstream(level=-2, msg="of the client's server")
        assert not logging.getLogger("ray").isEnabledFor(logging.ERROR)
    assert capsys.readouterr() == ("", "")
    worker.print_to_stdstream(data, ignore_prefix=False)
    client.stdstream(level=-2, msg="of the client's server")
    assert "A worker died" in capsys.readouterr().out


def test_a_cluster_is_not_told_the_keys_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "get_entrypoint_name", lambda: "subsettune tune --storage s3://AKIA:secret@bucket/runs")
    with quiet_connection():
        assert utils.get_entrypoint_name() == "subsettune tune --storage s3://***@bucket/runs"


def test_cpp_is_silent_in_this_process_and_not_in_those_that_were_started_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL", raising=False)
    monkeypatch.setattr(worker, "connect", lambda: seen.append(os.environ.get("RAY_BACKEND_LOG_LEVEL")))
    with quiet_connection():
        seen.append(os.environ.get("RAY_BACKEND_LOG_LEVEL"))  # what processes get that are started here
        worker.connect()
    assert [*seen, os.environ.get("RAY_BACKEND_LOG_LEVEL")] == [None, "fatal", None]


def test_nodes_are_given_no_keys_that_they_would_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune's own way to its workers is an environment that every node writes into `runtime_env_agent.log`."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")

    def given() -> dict[str, str]:
        actor = class_cache._ActorClassCache().get(type("Trainable", (), {}))
        return dict(actor._default_options["runtime_env"]["env_vars"])

    assert given()["AWS_SECRET_ACCESS_KEY"] == "secret"
    with keys_unlogged():
        assert "AWS_SECRET_ACCESS_KEY" not in given()
        assert given()["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
    assert settings_of_stores()["AWS_SECRET_ACCESS_KEY"] == "secret"  # which goes with the run instead
