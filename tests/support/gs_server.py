"""A real server that speaks Google's storage, on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from subsettune.study.results import lease
from subsettune.study.results.lease import LeaseTimes

START_S = 60.0
SERVE = """
import sys
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@contextlib.contextmanager
def bucket() -> Iterator[str]:
    """URI of a folder in a fresh bucket, of a server in a process of its own: a thread of this one did not answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lease, "LeaseTimes", lambda: LeaseTimes(settle=0.1))  # nobody starts at the same moment
                yield f"gs://anonymous@bucket/runs?endpoint_override=127.0.0.1%3A{port}&scheme=http"
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
