"""Which files the user's code reads while it makes examples, so that a change of one of them is noticed later.

Python tells of each file that it opens (PEP 578); one that a C library keeps open or mapped is found in /proc. One that
such a library opens and closes again is not seen, and none that a child process reads, e.g. in a pool of workers or a
program that is called: name it among the options of the function.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_RECORDS: dict[int, set[str]] = {}  # of all that are being made
_WRITING = frozenset("wax")
_CODE = (".py", ".pyc", ".so", ".pyd")  # hashed as code, or installed
_SYSTEM = ("/proc", "/sys", *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))


@contextlib.contextmanager
def observed(files: set[str]) -> Iterator[None]:
    """Add the absolute paths of all files that this process opens for reading meanwhile, in whatever thread.

    Args:
        files: what they are added to.
    """
    _listen()
    before = _held()
    _RECORDS[id(files)] = files
    try:
        yield
    finally:
        del _RECORDS[id(files)]
        files |= _held() - before


def data_files(opened: set[str], cache: Path) -> list[Path]:
    """Those of some opened files that can hold data, sorted: no code, nothing of the system's and of this cache's."""
    others = tuple(f"{folder}/" for folder in (*_SYSTEM, cache))
    kept = {path for path in opened if not path.startswith(others) and not path.endswith(_CODE)}
    return [Path(path) for path in sorted(kept) if Path(path).is_file()]


@functools.cache  # a hook cannot be taken away again
def _listen() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _RECORDS or event not in ("open", "sqlite3.connect"):
        return
    name = arguments[0]
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str) or not name or (event == "open" and _only_writes(*arguments[1:3])):
        return
    try:
        path = os.path.abspath(name)  # noqa: PTH100 (no more work than needs be, at each file that is opened)
    except OSError:  # the working folder is gone; what fails here would fail the call of the user's code
        return
    for files in tuple(_RECORDS.values()):
        files.add(path)


def _only_writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return bool(_WRITING & set(mode))
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _held() -> set[str]:
    """Files that this process has open or mapped; none where the system does not tell."""
    found = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
            found.add(line.partition("/")[2] and f"/{line.partition('/')[2]}")
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names alone)
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return {path for path in found if path.startswith("/")}
