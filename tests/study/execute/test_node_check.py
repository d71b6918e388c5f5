"""What a node is asked before the first run: each thing that it may lack is told, with what to do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest

from subsettune import DataPaths, config
from subsettune.storage import Folder
from subsettune.study.execute import node_check
from subsettune.study.execute.node_check import NodeQuestion, versions_here, why_not_on_this_node
from subsettune.study.execute.worker import Worker

MARK = ".seen-x"


def question(folder: Path, data: dict[str, str], **changes: Any) -> NodeQuestion:
    options = fakes.options(places=changes.pop("places", DataPaths(cache=str(folder / "cache"))))
    worker = Worker(task=fakes.image_task(data), options=options, logs=str(folder / "logs"))
    Folder.at(folder / "runs").write(MARK, b"")
    asked = NodeQuestion(
        worker=config.canonical_json(worker),
        code={},
        storage=str(folder / "runs"),
        mark=MARK,
        home=str(Path.cwd()),
        versions=dict(versions_here()),
        settings={},
    )
    return replace(asked, **changes)


def test_a_node_that_has_everything_is_left_as_it_was(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    assert why_not_on_this_node(question(tmp_path, tiny_data)) is None
    assert Folder.at(tmp_path / "runs").names() == [MARK]


def test_other_versions_are_named(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    here = dict(versions_here())
    asked = question(tmp_path, tiny_data, versions={**here, "torch": "1.0.0", "ray": "1.0"})
    assert why_not_on_this_node(asked) == (
        f"it has torch {here['torch']} where the driver has 1.0.0 and ray {here['ray']} where the driver has 1.0. "
        "Install the same versions of Python, torch, ray and subsettune on every node."
    )
    assert "+" not in here["torch"]  # a driver without a GPU has another build of the same version


def test_storage_that_the_driver_has_not_written_is_not_the_driver_s(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    told = why_not_on_this_node(question(tmp_path, tiny_data, mark=".seen-y"))
    assert str(told).startswith(f"it does not see {tmp_path / 'runs'}. Give a --storage that all nodes share")


def test_storage_that_cannot_be_written_or_forgets_is_refused(
    tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(tmp_path, tiny_data)
    with monkeypatch.context() as patched:
        patched.setattr("subsettune.storage._write_local", _read_only)
        told = str(why_not_on_this_node(asked))
    assert told.startswith(f"{tmp_path / 'runs'}/{MARK}-")
    assert told.endswith(" cannot be written: Read-only file system. Give a --storage folder that can be written.")
    monkeypatch.setattr(Folder, "names", lambda folder, name="": [MARK])
    told = str(why_not_on_this_node(asked))
    assert told.startswith(f"what it writes into {tmp_path / 'runs'} is not what it reads or lists there. ")


def _read_only(path: Path, content: bytes) -> None:
    raise OSError(30, "Read-only file system")


def test_data_must_be_in_the_cache_or_where_they_are_read(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    elsewhere = {**tiny_data, "images": str(tmp_path / "gone.npz")}
    told = str(why_not_on_this_node(question(tmp_path, elsewhere)))
    assert str(tmp_path / "gone.npz") in told
    assert told.endswith(f"It was looked for on that node, in {Path.cwd()}.")
    told = str(why_not_on_this_node(question(tmp_path, tiny_data, places=DataPaths(cache="/dev/null/cache"))))
    assert told.startswith("cache /dev/null/cache/data cannot be written: ")


def test_what_stands_in_the_way_of_our_package_is_told(
    tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_check, "TRAINING", "subsettune.nowhere")
    told = str(why_not_on_this_node(question(tmp_path, tiny_data)))
    words = "No module named 'subsettune.nowhere'. Install the driver's packages on every node."
    assert told == f"it cannot load subsettune.nowhere: ModuleNotFoundError: {words}"


def test_keys_of_the_storage_come_with_the_question(
    tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    why_not_on_this_node(question(tmp_path, tiny_data, settings={"AWS_ACCESS_KEY_ID": "new"}))
    assert os.environ["AWS_ACCESS_KEY_ID"] == "new"
