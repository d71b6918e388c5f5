"""The cache: one file for many processes, never half a file, and damage that is found and said."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import subsettune.data as data_module
from subsettune.data import DataPaths, cached, load, remove_cached
from subsettune.data.arrays import META_KEY, Meta, fingerprint, read, verify, write
from subsettune.errors import DataError, StorageError
from subsettune.task import Data, Model, Recipe, Task

# A source that takes a while, and notes which of its 90 examples are read.
SLOW = """
import os, time, torch
class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 90
    def __getitem__(self, i):
        with open("reads", "a") as f:
            f.write(f"{i}\\n")
        time.sleep(float(os.environ["SLOW_S"]) / 90)
        return torch.full((4,), float(i)), i % 3
def make():
    return Slow()
"""
# Children are forked from a server that has the imports, which would be most of the time of each.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["subsettune.data", "subsettune.task", "sklearn.datasets", "pytest"])


def child(folder: str, source: str, slow_s: float, dies_writing: bool, answer: Connection) -> None:
    """Load a data set in another process, and tell its fingerprint."""
    warnings.simplefilter("error")
    os.chdir(folder)
    os.environ["SLOW_S"] = str(slow_s)
    if dies_writing:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    answer.send(load(task(source), DataPaths(cache="cache")).fingerprint)


def task(source: str = "digits") -> Task:
    recipe = Recipe(lr=0.1, batch_size=8, epochs=1)
    return Task(data=Data(source=source), model=Model(name="mlp"), recipe=recipe, tolerance=0.01)


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    data_module._LOADED.clear()
    return DataPaths(cache=str(tmp_path / "cache"))


@pytest.fixture
def slow_folder(tmp_path: Path) -> Path:
    (tmp_path / "slow_data.py").write_text(SLOW)
    return tmp_path


def start(
    folder: Path, slow_s: float, source: str = "slow_data:make", dies_writing: bool = False
) -> tuple[BaseProcess, Connection]:
    receiver, sender = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=child, args=(str(folder), source, slow_s, dies_writing, sender))
    process.start()
    sender.close()
    return process, receiver


def wait_for(condition: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def arrow_files(folder: Path) -> list[Path]:
    return sorted((folder / "cache/data").glob("*.arrow"))


@pytest.mark.slow
def test_processes_that_start_at_once_read_the_source_once(slow_folder: Path) -> None:
    children = [start(slow_folder, 1.0) for _ in range(4)]
    assert len({receiver.recv() for _, receiver in children}) == 1
    # A sample is looked at more often; an example outside it is read by nobody but the one that writes the file.
    times = Counter((slow_folder / "reads").read_text().split())
    assert len(times) == 90
    assert min(times.values()) == 1
    assert len(arrow_files(slow_folder)) == 1
    for process, receiver in children:
        process.join(30)
        receiver.close()


@pytest.mark.slow
def test_a_process_killed_while_reading_leaves_no_half_file_and_no_lock(slow_folder: Path) -> None:
    process, receiver = start(slow_folder, 5.0)
    reads = slow_folder / "reads"
    wait_for(lambda: reads.exists() and len(reads.read_text().split()) > 50)  # past the sample, in the midst of all
    process.kill()
    process.join(30)
    receiver.close()
    assert arrow_files(slow_folder) == []
    process, receiver = start(slow_folder, 0.0)
    assert len(receiver.recv()) == 64
    process.join(30)
    receiver.close()


@pytest.mark.slow
def test_a_process_killed_while_writing_leaves_what_the_next_one_writes_over(places: DataPaths, tmp_path: Path) -> None:
    process, receiver = start(tmp_path, 0.0, "digits", dies_writing=True)
    process.join(60)
    receiver.close()
    assert process.exitcode == -signal.SIGKILL
    left = [item for item in cached(places) if item.source == "unfinished"]
    assert len(left) == 1
    assert arrow_files(tmp_path) == []
    data = load(task(), places)
    assert len(data.train) > 1000
    assert [item.source for item in cached(places)] == ["digits"]


def test_leftovers_can_be_removed(places: DataPaths, tmp_path: Path) -> None:
    folder = tmp_path / "cache/data"
    (folder / "abc.unpacked").mkdir(parents=True)
    (folder / "abc.unpacked/file").write_bytes(b"12345")
    (item,) = cached(places)
    assert (item.source, item.num_bytes) == ("unfinished", 5)
    remove_cached(item.fingerprint, places)
    assert cached(places) == ()


def test_what_is_cached_is_listed_and_removed(places: DataPaths, tmp_path: Path) -> None:
    assert cached(places) == ()
    first = load(task(), places)
    (item,) = cached(places)
    assert item.source == "digits"
    assert item.num_bytes == Path(item.path).stat().st_size > 1797 * 64
    remove_cached(item.fingerprint, places)
    assert cached(places) == ()
    assert list((tmp_path / "cache/data").glob("*.json")) == []
    assert len(first.train.batch(torch.arange(3))[0]) == 3  # a run that has it mapped goes on
    data_module._LOADED.clear()
    assert load(task(), places).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten"])
def test_a_damaged_file_is_found_and_the_remedy_works(places: DataPaths, damage: str) -> None:
    before = load(task(), places).fingerprint
    path = Path(cached(places)[0].path)
    content = bytearray(path.read_bytes())
    if damage == "overwritten":
        content[len(content) // 2] ^= 255
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "overwritten": content}[damage])
    for known in (None, before):
        data_module._LOADED.clear()
        with pytest.raises(DataError, match=r"cached data .*arrow are damaged: .*Remove the file: it is made anew"):
            load(task(), places, fingerprint=known)
    path.unlink()
    assert load(task(), places).fingerprint == before


def test_a_file_that_was_only_touched_is_taken(places: DataPaths) -> None:
    before = load(task(), places).fingerprint
    os.utime(cached(places)[0].path, (1, 1))
    data_module._LOADED.clear()
    assert load(task(), places).fingerprint == before


def test_a_damaged_index_is_made_anew(places: DataPaths, tmp_path: Path) -> None:
    before = load(task(), places).fingerprint
    for entry in (tmp_path / "cache/data").glob("*.json"):
        entry.write_text("{not json")
    data_module._LOADED.clear()
    assert load(task(), places).fingerprint == before


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    data_module._LOADED.clear()
    with pytest.raises(StorageError, match=r"cannot be written: .*Give --cache a folder that can"):
        load(task(), DataPaths(cache=str(tmp_path / "file")))


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBSETTUNE_CACHE", str(tmp_path / "there"))
    data_module._LOADED.clear()
    load(task(), DataPaths())
    assert len(cached(DataPaths(cache=str(tmp_path / "there")))) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("columns", [(), (2,)])
def test_arrays_come_back_bit_for_bit_and_the_file_is_plain_arrow(
    tmp_path: Path, dtype: type, columns: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 255, (7, 3, 4, 5)).astype(dtype)
    targets = rng.random((7, *columns)).astype(np.float32)
    meta = Meta(source="here", kind="regression", shape=(3, 4, 5), num_train=7, fingerprint="f")
    write(tmp_path / "a.arrow", inputs, targets, meta)
    back = read(tmp_path / "a.arrow")
    assert np.array_equal(back.inputs.numpy(), inputs)
    assert np.array_equal(back.targets.numpy(), targets)
    assert back.inputs.dtype == torch.from_numpy(inputs).dtype
    assert back.meta == meta
    with pa.memory_map(str(tmp_path / "a.arrow")) as file:
        assert pa.ipc.open_file(file).read_all().num_rows == 7
    content = (tmp_path / "a.arrow").read_bytes()
    back.inputs.zero_()  # a mistake of somebody else's code stays in its process
    assert (tmp_path / "a.arrow").read_bytes() == content


def test_categories_and_embeddings_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.random((7, 2)).astype(np.float32), np.arange(7)
    embeddings = rng.random((7, 3)).astype(np.float32)
    meta = Meta(
        source="here",
        kind="classification",
        shape=(2,),
        num_train=7,
        classes=tuple("abcdefg"),
        columns=("size", "colour"),
        categories=((), ("red", "", None)),
        num_embedding=3,
    )
    meta = replace(meta, fingerprint=fingerprint(inputs, targets, meta, embeddings))
    write(tmp_path / "a.arrow", inputs, targets, meta, embeddings)
    back = read(tmp_path / "a.arrow")
    assert back.meta == meta
    assert back.embeddings is not None
    assert np.array_equal(back.embeddings.numpy(), embeddings)
    with pa.memory_map(str(tmp_path / "a.arrow")) as file:
        assert pa.ipc.open_file(file).read_all().column_names == ["input", "target", "embedding"]
    verify(tmp_path / "a.arrow", back)
    back.embeddings[6, 2] += 1
    with pytest.raises(DataError) as caught:
        verify(tmp_path / "a.arrow", back)
    assert str(caught.value) == (
        f"cached data {tmp_path / 'a.arrow'} are damaged: its content is not what was written. "
        "Remove the file: it is made anew."
    )


def test_plain_data_are_described_as_before_there_were_categories(tmp_path: Path) -> None:
    """So that versions of before and after read each other's files."""
    meta = Meta(source="here", kind="regression", shape=(2,), num_train=3, fingerprint="f")
    write(tmp_path / "a.arrow", np.zeros((3, 2), np.float32), np.zeros(3, np.float32), meta)
    with pa.memory_map(str(tmp_path / "a.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column_names == ["input", "target"]
    assert json.loads(table.schema.metadata[META_KEY]) == {
        "source": "here",
        "kind": "regression",
        "shape": [2],
        "num_train": 3,
        "classes": [],
        "fingerprint": "f",
        "target_shape": [],
    }
    assert read(tmp_path / "a.arrow").meta == meta


def test_the_fingerprint_sees_everything_but_the_name() -> None:
    inputs, targets = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 2
    meta = Meta(source="a", kind="classification", shape=(2,), num_train=6, classes=("x", "y"))
    first = fingerprint(inputs, targets, meta)
    assert first == fingerprint(inputs, targets, Meta(**{**_plain(meta), "source": "b"}))
    others = [
        fingerprint(inputs.reshape(6, 1, 2), targets, meta),
        fingerprint(inputs + 1, targets, meta),
        fingerprint(inputs, 1 - targets, meta),
        fingerprint(inputs, targets, Meta(**{**_plain(meta), "classes": ("x", "z")})),
        fingerprint(inputs, targets, Meta(**{**_plain(meta), "num_train": 5})),
        fingerprint(inputs, targets, Meta(**{**_plain(meta), "columns": ("a", "b"), "categories": ((), ("x",))})),
        fingerprint(inputs, targets, meta, inputs),
        fingerprint(inputs, targets, meta, inputs + 1),
    ]
    assert len({first, *others}) == 9


def _plain(meta: Meta) -> dict[str, object]:
    return {name: getattr(meta, name) for name in Meta.__dataclass_fields__}
