"""One driver a study where nothing can be locked: on a file system of Arrow's that stands for an object store."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.results import lease
from subsettune.study.results.lease import Lease, LeaseTimes, holder_of
from subsettune.study.results.lock import DriverLock

QUICK = LeaseTimes(beat=0.05, expires=0.6, settle=0.1, write=5.0)


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    (tmp_path / "study" / lease.PLACE).mkdir(parents=True)
    return Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "study")


def left(store: Folder) -> list[str]:
    return store.names(lease.PLACE)


def claim(store: Folder, token: str, owner: dict[str, Any]) -> None:
    store.write(f"{lease.PLACE}/{token}.claim", json.dumps(owner).encode())


def test_a_second_driver_is_told_who_holds_the_study(store: Folder) -> None:
    first = Lease(store, "one", QUICK)
    with pytest.raises(StudyError) as caught:
        Lease(store, "one", QUICK)
    assert str(caught.value).startswith(f"study 'one' is being driven already, by process {os.getpid()} on ")
    assert str(caught.value).endswith(". Wait for it or stop it, or choose another --run-id.")
    first.check()
    first.release()
    assert left(store) == []
    Lease(store, "one", QUICK).release()


def test_of_drivers_that_start_together_one_holds(store: Folder) -> None:
    held: list[Lease] = []
    refused: list[StudyError] = []

    def start() -> None:
        try:
            held.append(Lease(store, "one", QUICK))
        except StudyError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    held[0].check()
    held[0].release()
    assert left(store) == []


def test_the_claim_of_a_process_of_this_machine_that_was_killed_is_nobodys(store: Folder, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pyarrow import fs; from subsettune.storage import Folder\n"
        "from subsettune.study.results.lease import Lease, LeaseTimes\n"
        "lease = Lease(Folder(fs.SubTreeFileSystem(sys.argv[1], fs.LocalFileSystem()), 'study'), 'one',\n"
        "    LeaseTimes(beat=0.05, settle=0.1, write=5.0)); print('held', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=f"by process {first.pid} on "):
            Lease(store, "one", QUICK)
    finally:
        first.kill()
        first.communicate()
    slow = LeaseTimes(beat=0.05, expires=60.0, settle=0.1, write=5.0)
    Lease(store, "one", slow).release()  # without waiting for the claim to expire
    assert left(store) == []


def test_a_claim_of_another_machine_is_nobodys_once_it_has_been_silent(store: Folder) -> None:
    claim(store, "other", {"pid": 1, "host": "gpu-3", "machine": "another", "began": "7"})
    started = time.monotonic()
    held = Lease(store, "one", QUICK)
    assert time.monotonic() - started > QUICK.expires
    assert not [name for name in left(store) if name.startswith("other")]
    held.release()


def test_a_driver_that_was_taken_for_dead_stops_before_it_writes(store: Folder) -> None:
    held = Lease(store, "one", LeaseTimes(beat=60.0, expires=0.2, settle=0.1, write=5.0))
    folder = store.guarded(held.check)
    folder.write("a", b"1")
    time.sleep(0.3)
    folder.write("a", b"2")  # silent for long, and still the holder
    time.sleep(0.3)
    store.remove(f"{lease.PLACE}/{held._token}.claim")
    with pytest.raises(StudyError, match=r"study 'one' was taken over by another driver, while the storage heard noth"):
        folder.write("a", b"3")
    with pytest.raises(StudyError, match=r"study 'one' was taken over"):
        (folder / "inner").remove("b")
    assert store.read("a") == b"2"
    held.release()
    assert left(store) == []


def test_a_claim_that_took_long_to_write_is_made_again(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of the beginning of the upload: it would come before one that nobody could see then."""
    write, made = Folder.write, list[str]()

    def slow(folder: Folder, name: str, content: bytes) -> None:
        write(folder, name, content)
        if name.endswith(".claim"):
            made.append(name)
            time.sleep(0.3 if len(made) == 1 else 0.0)

    monkeypatch.setattr(Folder, "write", slow)
    held = Lease(store, "one", LeaseTimes(beat=0.05, expires=0.6, settle=0.1, write=0.2))
    assert len(made) == 2
    assert [name for name in left(store) if name.endswith(".claim")] == [made[1]]
    held.release()


def test_a_store_that_is_away_does_not_keep_a_driver_from_ending(
    store: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(store, "one", LeaseTimes(beat=60.0, expires=0.2, settle=0.1, write=5.0))
    time.sleep(0.2)

    def away(*_: object) -> None:
        raise AssertionError("it is not asked")

    monkeypatch.setattr(Folder, "remove", away)
    held.release()


def test_where_processes_cannot_be_told_silence_alone_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Callable[[], dict[str, Any]] = lease._identity
    assert not lease._has_ended(own())
    assert lease._has_ended({**own(), "began": "1"})
    assert not lease._has_ended({**own(), "machine": "another", "began": "1"})
    monkeypatch.setattr(lease, "_machine", lambda: "")
    assert not lease._has_ended({**own(), "began": "1"})


def test_the_lock_of_a_driver_is_a_lease_there(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LeaseTimes", lambda: QUICK)
    lock = DriverLock(store, "one")
    with pytest.raises(StudyError, match="is being driven already"):
        DriverLock(store, "one")
    lock.check()
    lock.release()
    lock.release()
    assert left(store) == []


# --- looking at it ----------------------------------------------------------------------------------------------------


def test_who_only_looks_sees_the_driver_and_writes_nothing(store: Folder) -> None:
    assert holder_of(store, QUICK) is None
    lease_ = Lease(store, "one", QUICK)
    before = [name for name in left(store) if name.endswith(".claim")]
    holder = holder_of(store, QUICK)
    assert holder is not None
    assert holder.pid == os.getpid()
    assert holder.words.startswith(f"process {os.getpid()} on ")
    assert abs(holder.alive_s - time.time()) < 5
    assert [name for name in left(store) if name.endswith(".claim")] == before
    lease_.release()
    assert holder_of(store, QUICK) is None


def test_the_driver_is_the_one_that_came_first(store: Folder) -> None:
    claim(store, "b", {"pid": 1, "host": "first"})
    time.sleep(0.02)
    claim(store, "a", {"pid": 2, "host": "second"})
    holder = holder_of(store, LeaseTimes())
    assert holder is not None
    assert (holder.pid, holder.host) == (1, "first")


def test_a_sign_of_life_that_this_clock_finds_old_is_waited_for(store: Folder, tmp_path: Path) -> None:
    """As one of a store whose clock is an hour behind, or of a driver that was killed elsewhere."""
    lease_ = Lease(store, "one", QUICK)
    place = tmp_path / "study" / lease.PLACE
    is_over = threading.Event()

    def hold_back() -> None:
        while not is_over.wait(0.001):
            for path in place.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime > time.time() - 1800:
                        os.utime(path, (path.stat().st_mtime - 3600,) * 2)

    thread = threading.Thread(target=hold_back)
    thread.start()
    time.sleep(0.2)
    try:
        holder = holder_of(store, QUICK)
        assert holder is not None
        assert holder.pid == os.getpid()
    finally:
        is_over.set()
        thread.join()
        lease_.release()
    claim(store, "dead", {"pid": 1, "host": "elsewhere"})
    os.utime(place / "dead.claim", (time.time() - 3600,) * 2)
    assert holder_of(store, QUICK) is None
