"""The Optuna journal on disk: nothing that was written is lost, nothing that was torn is believed."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage

from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.search import journal_storage
from subsettune.study.search.journal_storage import FileJournal, OwnJournal, ReadOnlyJournal, SegmentJournal, journal_at

LOGS = [{"op": 1, "text": "a\nb"}, {"op": 2}, {"op": 3, "value": 0.1}]


def opened(kind: str, folder: Path) -> OwnJournal:
    return FileJournal(folder / "journal") if kind == "file" else SegmentJournal(Folder.at(folder / "segments"))


@pytest.mark.parametrize("kind", ["file", "segments"])
def test_what_was_appended_is_read_back_by_the_next_driver(kind: str, tmp_path: Path) -> None:
    first = opened(kind, tmp_path)
    first.append_logs(LOGS[:1])
    first.append_logs(LOGS[1:])
    assert list(first.read_logs(0)) == LOGS
    second = opened(kind, tmp_path)
    assert list(second.read_logs(0)) == LOGS
    assert list(second.read_logs(2)) == LOGS[2:]
    second.append_logs([{"op": 4}])
    assert list(opened(kind, tmp_path).read_logs(3)) == [{"op": 4}]


@pytest.mark.parametrize("kind", ["file", "segments"])
def test_optuna_finds_its_study_again(kind: str, tmp_path: Path) -> None:
    for _ in range(2):
        storage = JournalStorage(opened(kind, tmp_path))
        study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert [trial.number for trial in study.trials] == list(range(6))


def test_the_kind_follows_the_storage(tmp_path: Path) -> None:
    assert isinstance(journal_at(Folder.at(tmp_path), "j"), FileJournal)


@pytest.mark.parametrize("cut", [1, 5, 8])
def test_a_torn_last_line_is_cut_off(cut: int, tmp_path: Path) -> None:
    FileJournal(tmp_path / "journal").append_logs(LOGS)
    content = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(content[:-cut])
    torn = FileJournal(tmp_path / "journal")
    assert list(torn.read_logs(0)) == LOGS[:2]
    torn.append_logs([{"op": 9}])
    assert list(FileJournal(tmp_path / "journal").read_logs(0)) == [*LOGS[:2], {"op": 9}]


@pytest.mark.parametrize(("line", "why"), [(b"{]", "Expecting property name"), (b"7", "an entry is no mapping")])
def test_a_damaged_line_is_told_with_its_place(line: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'{"op":1}\n' + line + b'\n{"op":2}\n')
    before = (tmp_path / "journal").read_bytes()
    words = rf"the journal is damaged at {tmp_path}/journal, line 2: {why}.* Restore it from a copy, or start a new"
    with pytest.raises(StudyError, match=words):
        FileJournal(tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == before


def test_segments_are_numbered_and_none_may_be_missing(tmp_path: Path) -> None:
    journal = SegmentJournal(Folder.at(tmp_path))
    for log in LOGS:
        journal.append_logs([log])
    assert Folder.at(tmp_path).names() == ["00000000.jsonl", "00000001.jsonl", "00000002.jsonl"]
    (tmp_path / "00000001.jsonl").unlink()
    with pytest.raises(StudyError, match=rf"the journal {tmp_path} lacks a segment. Restore it from a copy"):
        SegmentJournal(Folder.at(tmp_path))


def test_many_segments_become_a_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_storage, "BLOCK", 4)
    folder, logs = Folder.at(tmp_path), [{"op": i} for i in range(10)]
    for log in logs:  # another driver each time
        SegmentJournal(folder).append_logs([log])
        assert list(SegmentJournal(folder).read_logs(0)) == logs[: log["op"] + 1]
    assert folder.names() == ["00000000-00000003.jsonl", "00000004-00000007.jsonl", "00000008.jsonl", "00000009.jsonl"]
    assert list(ReadOnlyJournal(folder, "").read_logs(0)) == logs
    (tmp_path / "00000000-00000003.jsonl").unlink()
    with pytest.raises(StudyError, match="lacks a segment"):
        SegmentJournal(folder)


def test_a_driver_killed_after_it_wrote_a_block_leaves_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_storage, "BLOCK", 2)
    folder, logs = Folder.at(tmp_path), [{"op": i} for i in range(5)]
    with monkeypatch.context() as killed:
        killed.setattr(Folder, "remove", lambda *_: None)
        journal = SegmentJournal(folder)
        for log in logs[:3]:
            journal.append_logs([log])
    assert folder.names() == ["00000000-00000001.jsonl", "00000000.jsonl", "00000001.jsonl", "00000002.jsonl"]
    again = SegmentJournal(folder)
    assert list(again.read_logs(0)) == logs[:3]
    again.append_logs([logs[3]])
    assert folder.names() == ["00000000-00000001.jsonl", "00000002-00000003.jsonl"]
    again.append_logs([logs[4]])
    assert list(SegmentJournal(folder).read_logs(0)) == logs


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    SegmentJournal(Folder.at(tmp_path)).append_logs(LOGS)
    (tmp_path / "00000000.jsonl").write_bytes(b'{"op":')
    with pytest.raises(StudyError, match=rf"the journal is damaged at {tmp_path}/00000000.jsonl: "):
        SegmentJournal(Folder.at(tmp_path))


def test_an_empty_append_writes_nothing(tmp_path: Path) -> None:
    journal = SegmentJournal(Folder.at(tmp_path))
    journal.append_logs([])
    assert Folder.at(tmp_path).names() == []


@pytest.mark.parametrize("kind", ["file", "segments"])
def test_a_journal_that_is_only_looked_at_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    name = "journal" if kind == "file" else "segments"
    opened(kind, tmp_path).append_logs(LOGS)
    if kind == "file":
        with (tmp_path / name).open("ab") as stream:
            stream.write(b'{"op": 3')  # its driver is writing
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = ReadOnlyJournal(Folder.at(tmp_path), name)
    assert list(found.read_logs(1)) == LOGS[1:]
    message = f"{tmp_path}/{name} is only looked at: a trial added here would be none of the study. Copy it first"
    with pytest.raises(StudyError, match=re.escape(message)):
        found.append_logs(LOGS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_journal_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    message = f"{tmp_path}/journal is not there: the search has not begun. Wait for its first trial."
    with pytest.raises(StudyError, match=re.escape(message)):
        ReadOnlyJournal(Folder.at(tmp_path), "journal")


@pytest.mark.parametrize("kind", ["file", "segments"])
def test_what_is_written_together_is_seen_at_once_and_on_disk_at_the_end(kind: str, tmp_path: Path) -> None:
    journal = opened(kind, tmp_path)
    with journal.together():
        journal.append_logs(LOGS[:1])
        journal.append_logs(LOGS[1:])
        assert list(journal.read_logs(0)) == LOGS
        assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert list(opened(kind, tmp_path).read_logs(0)) == LOGS
