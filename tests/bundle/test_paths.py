"""Where the data of a bundle lie: paths that hold from any folder, and a page that says what to give again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fake_bundle
import in_hand
import pytest

from subsettune import Bundle, DataPaths
from subsettune.bundle.known import KnownColumn, KnownData
from subsettune.bundle.paths import is_path, placed
from subsettune.bundle.usage import how


def test_a_relative_path_is_written_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = placed(in_hand.task_of("a/people.parquet"), DataPaths())
    assert made.data.source == str(tmp_path / "a" / "people.parquet")
    assert placed(in_hand.task_of("~/people.parquet"), DataPaths()).data.source == str(Path.home() / "people.parquet")


@pytest.mark.parametrize("source", ["digits", "package.module:function", "/data/people.parquet"])
def test_what_holds_from_any_folder_stays(source: str) -> None:
    task = in_hand.task_of(source)
    assert placed(task, DataPaths()) == task
    assert is_path(source) == source.startswith("/")


def test_a_root_that_was_given_is_in_the_path_and_the_page_of_a_bundle_of_before_asks_for_it(tmp_path: Path) -> None:
    task = in_hand.task_of("people.parquet")
    made = placed(task, DataPaths(data_root=str(tmp_path)))
    assert made.data.source == str(tmp_path / "people.parquet")
    bundle, _ = fake_bundle.export(tmp_path / "bundle")
    assert "places = DataPaths()  # where this machine keeps data\n" in how(bundle, "b", "")
    below = dataclasses.replace(bundle, task=dataclasses.replace(bundle.task, data=task.data))
    assert "places = DataPaths(data_root=\"FOLDER\")  # that 'people.parquet' lies in\n" in how(below, "b", "")


def test_names_of_the_data_come_back_and_may_be_missing(tmp_path: Path) -> None:
    bundle, _ = fake_bundle.export(tmp_path / "bundle")
    assert bundle.known is None
    assert '"known"' not in (tmp_path / "bundle" / "policy.json").read_text()
    city = KnownColumn(name="city", role="categories", type="string", categories=("Kiel", "Ulm", None))
    columns = (KnownColumn(name="age", role="feature", type="int64"), city)
    known = KnownData(classes=("no", "yes"), columns=columns, num_test=7)
    dataclasses.replace(bundle, known=known).write(tmp_path / "named")
    assert Bundle.load(tmp_path / "named").known == known
