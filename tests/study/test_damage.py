"""A study folder that is damaged, in use, or another task's: one sentence, exit code 2, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest
from ruamel.yaml import YAML

from subsettune import cli, config
from subsettune.api import TuneOptions, tune
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.results.lock import DriverLock


def mapping(data: dict[str, str], **task: Any) -> dict[str, Any]:
    return {
        "task": {**config.to_plain(fakes.image_task(data)), **task},
        "space": {"budget": {"log": [0.3, 0.9]}, "arm": "full"},
        "study": {"trials": 3, "seeds": 2, "max_seeds": 2, "candidates": 1, "sampler": "random"},
    }


class Finished:
    """A finished study of three trials, and the command that asks it for one more."""

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.folder, self.run, self.data = folder, folder / "runs" / "one", data
        self.write(mapping(data))
        tune(folder / "study.yaml", run_id="one", options=TuneOptions(storage=str(folder / "runs"), executor="inline"))

    def write(self, study: dict[str, Any]) -> None:
        with (self.folder / "study.yaml").open("w") as stream:
            YAML(typ="safe", pure=True).dump(study, stream)

    def more(self, trials: int = 4) -> int:
        where = ["--run-id", "one", "--storage", str(self.folder / "runs"), "--inline", "--quiet"]
        return cli.main(["tune", str(self.folder / "study.yaml"), *where, "--trials", str(trials)])

    def content(self) -> dict[str, bytes]:
        files = [p for p in self.run.rglob("*") if p.is_file() and p.name not in (".driver.lock", ".driver.json")]
        return {str(p.relative_to(self.run)): p.read_bytes() for p in files}


@pytest.fixture
def finished(tmp_path: Path, tiny_data: dict[str, str]) -> Finished:
    return Finished(tmp_path, tiny_data)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def spoil_first_line(content: bytes) -> bytes:
    return b"x" + content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spoil", "remedy"),
    [
        ("manifest.json", cut, "Restore it from a copy."),
        ("trials.parquet", cut, "Restore it from a copy, or begin anew with another --run-id."),
        ("reference.parquet", cut, "or remove it: its runs are taken from the cache, or trained again."),
        ("optuna.journal", spoil_first_line, "Restore it from a copy, or start a new study with another --run-id."),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy_and_nothing_else_changes(
    name: str, spoil: Callable[[bytes], bytes], remedy: str, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (finished.run / name).read_bytes()
    (finished.run / name).write_bytes(spoil(whole))
    before = finished.content()
    assert finished.more() == 2
    errors = capsys.readouterr().err
    assert f"{finished.run}/{name}" in errors
    assert "damaged" in errors
    assert remedy in errors
    assert len(errors.splitlines()) == 1
    assert finished.content() == before
    (finished.run / name).write_bytes(whole)
    assert finished.more() in (0, 3)


def test_a_table_of_the_reference_may_be_removed_and_one_of_trials_may_not(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished.run / "reference.parquet").unlink()
    assert finished.more() in (0, 3)
    rows = (finished.run / "reference.parquet").read_bytes()
    (finished.run / "trials.parquet").unlink()
    assert finished.more(5) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith(
        f"{finished.run}/trials.parquet lacks trial-0000 and 3 more, which the journal of the search has. Restore it "
        "from a copy, or begin anew with another --run-id."
    )
    assert (finished.run / "reference.parquet").read_bytes() == rows


def test_a_torn_last_line_of_the_journal_does_not_matter(finished: Finished) -> None:
    journal = finished.run / "optuna.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    assert finished.more() in (0, 3)
    assert all(json.loads(line) for line in journal.read_text().splitlines())


@pytest.mark.parametrize(
    ("change", "words"), [({"tolerance": 0.3}, "belongs to another task"), ({"metric": "macro_f1"}, "another task")]
)
def test_a_run_id_of_another_task_is_refused(
    change: dict[str, Any], words: str, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.content()
    finished.write(mapping(finished.data, **change))
    assert finished.more() == 2
    assert words in capsys.readouterr().err
    assert finished.content() == before


# --- two drivers -----------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_while_the_first_is_at_work(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first is another process, as it would be."""
    code = (
        "import sys, time; from subsettune.storage import Folder\n"
        "from subsettune.study.results.lock import DriverLock\n"
        "lock = DriverLock(Folder.at(sys.argv[1]), 'one'); print('held', flush=True); time.sleep(60)"
    )
    before = finished.content()
    first = subprocess.Popen([sys.executable, "-c", code, str(finished.run)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        assert finished.more() == 2
        errors = capsys.readouterr().err
        assert f"study 'one' is being driven already, by process {first.pid} on " in errors
        assert errors.strip().endswith("Wait for it or stop it, or choose another --run-id.")
        assert finished.content() == before
    finally:
        first.kill()
        first.communicate()
    assert finished.more() in (0, 3)  # the lock died with its holder


def test_a_lock_is_let_go_of(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "study")
    lock = DriverLock(folder, "study")
    with pytest.raises(StudyError, match="is being driven already"):
        DriverLock(folder, "study")
    lock.release()
    lock.release()
    DriverLock(folder, "study").release()
