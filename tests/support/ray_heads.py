"""Head nodes of Ray that tests start as a user does, each with a home folder and a folder of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
START_S, STOP_S = 60.0, 20.0


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def head(home: Path, *flags: str, num_cpus: int = 1, port: int | None = None, **environment: str) -> Iterator[str]:
    """`ray start --head` for as long as the context lasts; gives its address."""
    port = port or free_port()
    given = ["--head", f"--port={port}", *flags]
    given += [] if any("dashboard" in flag for flag in flags) else ["--include-dashboard=false"]
    with _started(given, home, num_cpus, environment) as process:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def worker(
    address: str, home: Path, *, num_cpus: int = 1, before: Sequence[str] = (), **environment: str
) -> Iterator[None]:
    """A node that joins a cluster, by a command that stands before `ray start`; it may take a while to be alive."""
    with _started([f"--address={address}"], home, num_cpus, environment, before):
        yield


@contextlib.contextmanager
def _started(
    flags: Sequence[str], home: Path, num_cpus: int, environment: Mapping[str, str], before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # short, for its sockets
        common = ["--node-ip-address=127.0.0.1", f"--num-cpus={num_cpus}", "--disable-usage-stats", "--block"]
        process = subprocess.Popen(
            [*before, RAY, "start", *flags, *common],
            env={**os.environ, "HOME": str(home), "RAY_TMPDIR": folder, **environment},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a head with what it has started: asked first, and not waited for as long as a busy machine takes."""
    started = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
    process.terminate()  # with --block it ends what it has started
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()
    process.wait()


def wait_until(holds: Callable[[], bool], limit_s: float = START_S) -> None:
    """Look again and again until something holds."""
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"not in {limit_s:g} s"
        time.sleep(0.2)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, "the head has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no head on port {port} in {START_S:g} s")
