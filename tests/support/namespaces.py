"""Machines that are network namespaces of this one, behind a switch: with addresses and processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]  # or Ray finds the neighbour's processes


def why_none() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    name = f"try{os.getpid()}"
    tries = [["ip", "netns", "add", name], ["ip", "-n", name, "link", "add", "b0", "type", "bridge"], [*APART, "true"]]
    try:
        failed = [words for words in tries if subprocess.run(words, capture_output=True, check=False).returncode]
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    return f"no right to {' '.join(failed[0])}" if failed else ""


def skip_without_namespaces() -> None:
    """Skip the test that calls it where it is not asked for, or no namespaces can be made."""
    if not os.environ.get("SUBSETTUNE_NAMESPACES"):
        pytest.skip("takes one to two minutes, and root's rights: make test-namespaces")
    if why := why_none():
        pytest.skip(f"needs network namespaces: {why}")


@dataclass(slots=True)
class Lan:
    """Machines on one switch.

    Args:
        prefix: of the names of their namespaces.
        names: of the machines.
    """

    prefix: str
    names: Sequence[str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def address(self, name: str) -> str:
        """IP address of a machine."""
        return f"10.99.0.{self.names.index(name) + 1}"

    def start(self, name: str, script: str, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Run a shell script on a machine; standard output and error go into files named after it."""
        with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as errors:
            process = subprocess.Popen(
                ["ip", "netns", "exec", f"{self.prefix}-{name}", *APART, "sh", "-c", script],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )
        self.processes.append(process)
        return process

    def set_link(self, name: str, state: str) -> None:
        """Pull a machine's plug (`down`), or put it in again (`up`)."""
        _ip("-n", f"{self.prefix}-switch", "link", "set", f"to-{name}", state)


@contextlib.contextmanager
def lan(*names: str) -> Iterator[Lan]:
    """Machines of these names, for as long as the context lasts; all that runs there ends with it."""
    machines = Lan(f"lan{os.getpid()}", names)
    switch, made = f"{machines.prefix}-switch", []
    try:
        for name in ("switch", *names):
            _ip("netns", "add", f"{machines.prefix}-{name}")
            made.append(f"{machines.prefix}-{name}")
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        for name in names:
            own = f"{machines.prefix}-{name}"
            _ip("link", "add", f"to-{name}", "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", own)
            _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge0", "up")
            _ip("-n", own, "addr", "add", f"{machines.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", own, "link", "set", device, "up")
        yield machines
    finally:
        for process in machines.processes:
            process.kill()  # and with it whatever has its process namespace
            process.wait(20)
        for namespace in made:
            _ip("netns", "del", namespace)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
