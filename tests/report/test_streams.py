from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from subsettune.report.patience import Patience
from subsettune.report.streams import ForgivingStream, forgiving_output


def test_a_full_disk_is_remembered_and_not_raised() -> None:
    with Path("/dev/full").open("w") as full:
        stream = ForgivingStream(full)
        stream.write("words\n")
        stream.flush()
        assert stream.failure is not None
        assert stream.failure.errno == errno.ENOSPC
        stream.write("more\n")  # the disk may have room again: it is tried, and never raises
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # where Python brings the rest when it closes the file


def test_a_closed_stream_is_remembered() -> None:
    inner = io.StringIO()
    inner.close()
    stream = ForgivingStream(inner)
    stream.write("words")
    stream.flush()
    assert str(stream.failure) == "I/O operation on closed file"


def test_letters_that_a_stream_has_not() -> None:
    raw = io.BytesIO()
    stream = ForgivingStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("caf\xe9 \u2713")
    stream.flush()
    assert raw.getvalue() == b"caf\\xe9 \\u2713"
    assert stream.failure is None


def test_standard_streams_come_back_as_they_were() -> None:
    before = sys.stdout, sys.stderr
    with forgiving_output() as (out, errors):
        assert (sys.stdout, sys.stderr) == (out, errors)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_stream_that_is_closed(closed: str, tmp_path: Path) -> None:
    """What a C library prints would be written into it."""
    program = (
        "from subsettune.report.streams import forgiving_output\n"
        f"with forgiving_output(), open({str(tmp_path / 'precious')!r}, 'w') as file:\n"
        "    file.write(str(file.fileno()))"
    )
    subprocess.run(["sh", "-c", f'"{sys.executable}" -c "$0" {closed}', program], check=True, timeout=60)
    assert int((tmp_path / "precious").read_text()) > 2


def test_a_stage_that_lasts_is_named() -> None:
    said = io.StringIO()
    with Patience(said, "loading packages", 0.05) as patience:
        _until(said, "loading packages ...\n")
        patience.stage("reading data")
        _until(said, "loading packages ...\nreading data ...\n")
    assert not [thread for thread in threading.enumerate() if thread.name == "patience" and not _ends(thread)]


def test_a_quick_command_says_nothing() -> None:
    said = io.StringIO()
    with Patience(said, "loading packages", 60.0) as patience:
        patience.stage("reading data")
    assert said.getvalue() == ""


def _until(said: io.StringIO, words: str) -> None:
    limit = time.monotonic() + 20
    while said.getvalue() != words and time.monotonic() < limit:
        time.sleep(0.01)
    assert said.getvalue() == words


def _ends(thread: threading.Thread) -> bool:
    thread.join(20)
    return not thread.is_alive()
