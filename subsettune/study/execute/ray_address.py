"""Connecting to a Ray cluster that is there: a wrong address is told in one sentence, in half a minute.

Ray's own way with an address that leads elsewhere is to try for a minute and more, with lines of its C++ code on the
terminal. So whatever listens there is first asked whether it speaks gRPC at all.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from subsettune.errors import StudyError
from subsettune.study.execute.ray_noise import quiet_connection
from subsettune.study.execute.ray_tokens import match

ANSWER_S = 10.0  # what a cluster gets to answer; Ray itself tries for a minute, then ends the process
SETTINGS = 4  # the kind of the frame with which each side of HTTP/2 begins (RFC 9113, section 3.4)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
VERSIONS = re.compile(r"started with:\s+Ray: (\S+)\s+Python: (\S+)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cluster is said to be, and who says so.

    Args:
        text: `auto`, `HOST:6379` or `ray://HOST:10001`.
        origin: `--address`, or the environment variable that it was taken from.
    """

    text: str
    origin: str = "--address"

    @property
    def way_out(self) -> str:
        """How to run without it."""
        return "leave --address out" if self.origin == "--address" else f"unset {self.origin}"

    def connect(self) -> None:
        """Connect this process to the cluster.

        Raises:
            StudyError: none answers, it is another version's, or it lets nobody in without its token; the sentence says
                where the address came from.
        """
        try:
            self._knock()
            closed = match(self.text)
            if closed is None:
                self._init()
        except ImportError as error:
            advice = "pip install 'ray[client]', with the same version of Ray as the cluster's."
            raise StudyError(
                f"{self.origin} {self.text} needs the client of Ray, which is not installed: {advice}"
            ) from error
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise self._refusal(error) from error
        if closed is not None:
            raise StudyError(f"the cluster at {self.text!r} ({self.origin}) {closed}")

    def _init(self) -> None:
        with warnings.catch_warnings(), quiet_connection():
            warnings.simplefilter("ignore", UserWarning)  # of ray://, what the error says again
            ray.init(address=self.text, **QUIET)

    def _refusal(self, error: Exception) -> StudyError:
        versions = VERSIONS.findall(str(error))
        if len(versions) > 1:
            there, here = (f"Ray {version} on Python {python}" for version, python in versions[:2])
            advice = f"Install the cluster's versions here, or {self.way_out} to run on this machine."
            return StudyError(f"the cluster at {self.text!r} ({self.origin}) has {there}; here is {here}. {advice}")
        words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = f"Start one with `ray start --head`, or {self.way_out} to run on this machine."
        return StudyError(f"no Ray cluster answers at {self.text!r} ({self.origin}): {words.rstrip('.')}. {advice}")

    def _knock(self) -> None:
        """Raise an OSError or ValueError unless what listens there speaks HTTP/2, as every part of a cluster does."""
        kind, is_url, place = self.text.rpartition("://")
        if is_url and kind != "ray":
            raise ValueError(f"{kind}:// is no address of a cluster, write ray://HOST:10001 or HOST:6379")
        host, colon, port = place.rpartition(":")
        if not colon:
            if is_url:
                raise ValueError("it lacks a port, such as ray://HOST:10001")
            return  # `auto` and the like: Ray looks for it itself
        if not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"{port!r} is no port")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as line:
            if not os.environ.get("RAY_USE_TLS"):  # of which a greeting in the clear gets no answer
                line.sendall(GREETING)
                if _first_bytes(line)[3:4] != bytes((SETTINGS,)):
                    raise ValueError("what listens there is no part of a Ray cluster")


def _first_bytes(line: socket.socket) -> bytes:
    """The head of the first frame; fewer bytes where the other side hangs up or says nothing."""
    head = b""
    try:
        while len(head) < 9 and (more := line.recv(9 - len(head))):
            head += more
    except (TimeoutError, ConnectionResetError):
        pass
    return head
