"""One driver a study on an object store, which knows no locks and, through Arrow, no conditional writes.

Whoever wants to drive a study writes a *claim*, an object of its own that is never written again, waits until all that
were written in the same seconds are seen, and lists them. The oldest claim by the store's own clock holds; its driver
writes a *beat* beside it every few seconds. A claim whose beat has stopped for a minute is nobody's, and so is one of a
process of this machine that has ended. All times are those of the store, so clocks of machines do not matter.

    <study>/.drivers/<token>.claim     who: process, host
    <study>/.drivers/<token>.beat      written again and again

It rests on what S3 and GCS promise: a listing shows every object that was written before. What is left open: a driver
that is paused for over a minute between looking at its claim and the write that follows does not see that it was given
up (see `check`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subsettune.errors import StorageError, StudyError
from subsettune.storage import Folder

PLACE = ".drivers"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds of a lease.

    Args:
        beat: between signs of life.
        expires: without one, until a claim is nobody's.
        settle: from a claim to the listing that decides: more than the store's clock is coarse, S3's tells seconds, and
            than a claim may take to be written.
        write: within which a claim must be written, or it is made anew: its time is that of the beginning.
    """

    beat: float = 5.0
    expires: float = 60.0
    settle: float = 3.0
    write: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that holds a study.

    Args:
        pid: of its process; null where that is not known.
        host: that it is on; empty likewise.
        alive_s: its last sign of life, in seconds of Unix time.
    """

    pid: int | None = None
    host: str = ""
    alive_s: float

    @property
    def words(self) -> str:
        """Who it is, for people."""
        return "another process" if self.pid is None else f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A claim as a listing shows it; times in seconds of the store's clock."""

    token: str
    at_s: float
    alive_s: float


class Lease:
    """A study on an object store that this process may drive, until it is released.

    Args:
        folder: of the study.
        run_id: of the study, for messages.
        times: of the lease.

    Raises:
        StudyError: another driver holds it.
        StorageError: the store cannot be written.
    """

    def __init__(self, folder: Folder, run_id: str, times: LeaseTimes | None = None) -> None:
        self._folder, self._run_id, self._times = folder / PLACE, run_id, times or LeaseTimes()
        self._is_over = threading.Event()
        self._token = self._claim()
        self._confirmed_s = time.monotonic()
        try:
            self._wait_for_turn()
        except BaseException:
            self._withdraw()
            raise
        self._thread = threading.Thread(target=self._beat_on, name="subsettune-lease", daemon=True)
        self._thread.start()

    # --- taking it -----------------------------------------------------------------------------------------------

    def _claim(self) -> str:
        """Write a claim, quickly enough for its time to be that of its end, too."""
        while True:
            token, started = secrets.token_hex(8), time.monotonic()
            self._folder.write(f"{token}.claim", json.dumps(_identity()).encode())
            if time.monotonic() - started <= self._times.write:
                return token
            self._folder.remove(f"{token}.claim")

    def _wait_for_turn(self) -> None:
        """Until no older claim is left; one that lives, or comes to life, is told.

        Raises:
            StudyError: another driver holds the study.
        """
        self._is_over.wait(self._times.settle)
        seen: dict[str, float] = {}
        while True:
            self._beat()
            claims = self._claims()
            now_s = claims[self._token].alive_s
            own_s = claims[self._token].at_s
            older = [c for c in claims.values() if (c.at_s, c.token) < (own_s, self._token)]
            for claim in older:
                owner = _owner(self._folder, claim.token)
                if claim.alive_s > min(own_s, seen.setdefault(claim.token, claim.alive_s)):
                    raise StudyError(_held(self._run_id, owner))
                if now_s - claim.alive_s > self._times.expires or _has_ended(owner):
                    self._withdraw(claim.token)
                    older = [one for one in older if one is not claim]
            if not older:
                return
            self._is_over.wait(self._times.beat / 4)

    def _claims(self) -> dict[str, _Claim]:
        """All claims, by token."""
        found = _claims_in(self._folder)
        if self._token not in found:
            raise StudyError(_lost(self._run_id))
        return found

    # --- keeping it ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise unless the study is still this driver's; to be called before it is changed.

        The store is asked only where the last sign of life is old: its connection was lost, or the process slept.

        Raises:
            StudyError: another driver may have taken it over.
            StorageError: the store does not answer.
        """
        if self._is_over.is_set():
            raise StudyError(_lost(self._run_id))
        if time.monotonic() - self._confirmed_s > self._times.expires / 2:
            self._confirm()

    def _confirm(self) -> None:
        """A sign of life, if the claim is still there."""
        asked_s = time.monotonic()
        self._beat()
        if not self._folder.exists(f"{self._token}.claim"):
            self._is_over.set()
            self._folder.remove(f"{self._token}.beat")
            raise StudyError(_lost(self._run_id))
        self._confirmed_s = asked_s

    def _beat(self) -> None:
        self._folder.write(f"{self._token}.beat", b"")

    def _beat_on(self) -> None:
        while not self._is_over.wait(self._times.beat):
            try:
                self._confirm()
            except StudyError:  # a store that is away is asked again; a claim that is gone is told by `check`
                continue

    def release(self) -> None:
        """Let the next driver in; where the store is away, the claim ends by itself."""
        self._is_over.set()
        self._thread.join(self._times.beat)
        if time.monotonic() - self._confirmed_s < self._times.expires / 2:
            with contextlib.suppress(StorageError):
                self._withdraw()

    def _withdraw(self, token: str | None = None) -> None:
        for kind in ("beat", "claim"):
            self._folder.remove(f"{token or self._token}.{kind}")


def holder_of(folder: Folder, times: LeaseTimes | None = None) -> Holder | None:
    """The driver that holds a study on an object store, for whoever only looks; None where none does.

    The store's clock is not known without writing. Where a sign of life is not of the last minute by the clock of this
    machine, the next one is waited for.

    Args:
        folder: of the study.
        times: of its lease.

    Raises:
        StorageError: the store cannot be read.
    """
    times, place = times or LeaseTimes(), folder / PLACE
    claims = _claims_in(place)
    owners = {token: _owner(place, token) for token in claims}
    waiting = [claim for claim in claims.values() if not _has_ended(owners[claim.token])]
    living = [claim for claim in waiting if abs(time.time() - claim.alive_s) <= times.expires]
    if waiting and not living:
        time.sleep(1.5 * times.beat)
        now = _claims_in(place)
        living = [now[c.token] for c in waiting if c.token in now and now[c.token].alive_s > c.alive_s]
    if not living:
        return None
    first = min(living, key=lambda claim: (claim.at_s, claim.token))
    return _holder(owners[first.token], first.alive_s)


def _claims_in(folder: Folder) -> dict[str, _Claim]:
    """All claims as a listing shows them, by token."""
    times = {info.base_name: (info.mtime_ns or 0) / 1e9 for info in folder.infos()}
    found = {}
    for name, at_s in times.items():
        token, _, kind = name.partition(".")
        if kind == "claim":
            alive_s = max(at_s, times.get(f"{token}.beat", at_s))
            found[token] = _Claim(token=token, at_s=at_s, alive_s=alive_s)
    return found


def _owner(folder: Folder, token: str) -> Mapping[str, Any]:
    try:
        owner = json.loads(folder.read(f"{token}.claim"))
    except (StorageError, ValueError):  # it was withdrawn meanwhile
        return {}
    return owner if isinstance(owner, dict) else {}


def _holder(owner: Mapping[str, Any], alive_s: float) -> Holder:
    if not {"pid", "host"} <= owner.keys():
        return Holder(alive_s=alive_s)
    return Holder(pid=int(owner["pid"]), host=str(owner["host"]), alive_s=alive_s)


def _held(run_id: str, owner: Mapping[str, Any]) -> str:
    who = _holder(owner, 0.0).words
    return f"study {run_id!r} is being driven already, by {who}. Wait for it or stop it, or choose another --run-id."


def _lost(run_id: str) -> str:
    return (
        f"study {run_id!r} was taken over by another driver, while the storage heard nothing of this one. "
        "What it had finished is on record."
    )


def _identity() -> dict[str, Any]:
    """This process, as other machines and later processes of this one may know it."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "began": _began(os.getpid())}


def _machine() -> str:
    """The machine since it was started, and the space of its process numbers; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process of this machine began, in clock ticks: a number may be given to another later."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _has_ended(owner: Mapping[str, Any]) -> bool:
    """Whether a driver is known to have ended: it ran on this machine, where there is no such process any more."""
    if not owner.get("machine") or owner["machine"] != _machine():
        return False
    return _began(int(owner["pid"])) != owner.get("began")
