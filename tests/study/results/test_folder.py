"""Rows of a study are added, and its tables written whole now and then: nothing is lost, doubled or misread between."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from facts import made_up_facts
from fake_inputs import changed
from pyarrow import fs

from subsettune.errors import StorageError, StudyError
from subsettune.policy import conventional
from subsettune.storage import Folder
from subsettune.study.results import folder as folders
from subsettune.study.results.appended import AppendedRows
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord, from_row, from_table, to_row
from subsettune.study.spec.definition import Study, parse

POLICY = conventional(made_up_facts())
BITS = np.packbits(np.arange(12) % 3 == 0).tobytes()


def row(number: int, **changes: Any) -> RunRecord:
    plain = {"name": f"trial-{number:04d}", "role": "trial", "number": number, "policy": POLICY, "seed": number}
    return RunRecord(**{**plain, "cause": "finished", "metric": 0.1 + number / 7, "cost_flops": 1, **changes})


@pytest.fixture(scope="module")
def study() -> Study:
    return parse(changed({}))


@pytest.fixture(params=["file", "objects"])
def make(request: pytest.FixtureRequest, tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the study of a temporary folder, or of one that stands for an object store, anew each time."""
    if request.param == "objects":
        store = Folder(fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem()), tmp_path.name)
        write = Folder.write

        def written(folder: Folder, name: str, content: bytes) -> None:
            Path(tmp_path.parent, folder.path, name).parent.mkdir(parents=True, exist_ok=True)
            write(folder, name, content)

        monkeypatch.setattr(Folder, "write", written)
        monkeypatch.setattr(Folder, "at", lambda _: store)

    def made() -> StudyFolder:
        found = StudyFolder(str(tmp_path), "one")
        if not found.exists:
            found.begin(study)
            return found
        return found.open()

    return made


def test_rows_are_read_back_in_order_whether_added_or_in_the_table(make: Any, tmp_path: Path) -> None:
    rows = [row(i) for i in range(5)]
    first = make()
    for one in rows[:3]:
        first.add(one)
    assert not (tmp_path / "one" / "trials.parquet").exists()
    assert make().records("trial") == tuple(rows[:3])
    first.settle()
    assert from_table(pq.read_table(tmp_path / "one" / "trials.parquet")) == tuple(rows[:3])
    second = make()
    for one in rows[3:]:
        second.add(one)
    second.add(replace(rows[1], metric=0.5))
    assert make().records("trial") == (rows[0], replace(rows[1], metric=0.5), *rows[2:])
    assert len(pq.read_table(tmp_path / "one" / "trials.parquet")) == 3


def test_the_table_is_written_now_and_then_and_rows_beside_it_stay_few(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "LEAST_ADDED", 4)
    monkeypatch.setattr(folders, "MOST_ADDED", 10)
    first, lengths = make(), list[int]()
    for number in range(60):
        first.add(row(number))
        path = tmp_path / "one" / "trials.parquet"
        lengths.append(len(pq.read_table(path)) if path.exists() else 0)
    assert sorted(set(lengths)) == [0, 4, 8, 15, 25, 35, 45, 55]
    assert [record.number for record in make().records("trial")] == list(range(60))


def test_a_driver_that_dies_between_the_table_and_its_rows_leaves_nothing_twice(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    for number in range(3):
        first.add(row(number))
    with monkeypatch.context() as patched:
        patched.setattr(AppendedRows, "clear", lambda self: None)
        first.settle()
    again = make()
    assert again.records("trial") == tuple(row(i) for i in range(3))
    again.add(row(3))
    assert make().records("trial") == tuple(row(i) for i in range(4))
    again.settle()
    assert make().records("trial") == tuple(row(i) for i in range(4))


def rows_of(tmp_path: Path) -> list[Path]:
    found = tmp_path / "one" / "trials.rows"
    return sorted(found.iterdir()) if found.is_dir() else [found.with_name("trials.rows.jsonl")]


def test_a_row_that_is_missing_or_damaged_is_noticed(make: Any, tmp_path: Path) -> None:
    first = make()
    for number in range(3):
        first.add(row(number))
    files = rows_of(tmp_path)
    whole = files[0].read_bytes()
    if len(files) == 1:
        lines = whole.splitlines(keepends=True)
        files[0].write_bytes(lines[0] + lines[2])
    else:
        files[1].unlink()
    with pytest.raises(StudyError, match=r"row 1 of .*trials.parquet is missing: rows behind it are there. Restore it"):
        make()
    files[0].write_bytes(b"x" + whole)
    with pytest.raises(StudyError, match=r"trials.rows\S* .*is damaged: .* Restore it from a copy, or begin anew with"):
        make()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_last_line_that_a_kill_tore_is_cut_off(tmp_path: Path, study: Study, cut: int) -> None:
    first = StudyFolder(str(tmp_path), "one")
    first.begin(study)
    for number in range(3):
        first.add(row(number))
    path = tmp_path / "one" / "trials.rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = StudyFolder(str(tmp_path), "one").open()
    assert again.records("trial") == (row(0), row(1))
    again.add(row(2, metric=0.25))
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert StudyFolder(str(tmp_path), "one").open().records("trial")[2].metric == 0.25


def test_a_disk_without_room_leaves_no_part_of_a_row(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = StudyFolder(str(tmp_path), "one")
    first.begin(study)
    first.add(row(0))
    path = tmp_path / "one" / "trials.rows.jsonl"
    whole = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError) as caught:
            first.add(row(1))
    assert str(caught.value) == (
        f"{path} cannot be written: [Errno 28] No space left on device. Make room and start the same command again."
    )
    assert path.read_bytes() == whole
    first.add(row(1))
    assert StudyFolder(str(tmp_path), "one").open().records("trial") == (row(0), row(1))


def test_a_reader_beside_a_driver_that_writes_the_table_sees_every_row(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver writes the table between the two looks of the reader."""
    driver = StudyFolder(str(tmp_path), "one")
    driver.begin(study)
    for number in range(3):
        driver.add(row(number))
    read = AppendedRows.read

    def overtaken(self: Any) -> Any:
        found = read(self)
        driver.settle()
        return found

    monkeypatch.setattr(AppendedRows, "read", overtaken)
    assert len(StudyFolder(str(tmp_path), "one").open().records("trial")) == 3


def test_rows_are_plain_text_and_exact() -> None:
    rows = [
        row(1),
        row(2, metric=1 / 3, num_test=12, test_correct=BITS),
        row(3, num_test=1, test_errors=b"\0\xff\0\x01"),
    ]
    for one in rows:
        assert from_row(json.loads(json.dumps(to_row(one)))) == one
