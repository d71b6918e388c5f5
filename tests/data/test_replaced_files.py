"""Data that were replaced behind the cache's back: what is there is trained on, whatever sizes and times say."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import subsettune.data as data_module
from subsettune.data import DataPaths, cache, load, sources, user
from subsettune.data import npz as npz_reader
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Split, Task


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataPaths]:
    """A fresh cache; the current folder is where a user works, and what is imported from there is forgotten."""
    data_module._LOADED.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python's own cache goes by size and seconds
    before = set(sys.modules)
    yield DataPaths(cache=str(tmp_path / "cache"))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def total(source: str, places: DataPaths, *, same_process: bool, **options: object) -> float:
    """The sum of the inputs of a task of this source, before they are scaled."""
    data = Data(source=source, options=options)
    recipe = Recipe(lr=0.1, batch_size=8, epochs=1)
    split = Split(validation=0.1, test=0.1)
    if not same_process:
        data_module._LOADED.clear()
        for name in ("made", "made_helper"):
            sys.modules.pop(name, None)
    task = Task(data=data, split=split, model=Model(name="mlp"), recipe=recipe, tolerance=0.01)
    return float(load(task, places).train.inputs.sum())  # those of all parts


def varied(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """300 examples of 4 numbers, in turn a quarter below the value and above it."""
    return np.full((300, 4), value, dtype=np.float32) + np.resize([-0.25, 0.25], (300, 1)).astype(np.float32)


def npz(path: Path, value: float) -> None:
    np.savez(path, x=varied(value), y=np.arange(300) % 3)


def parquet(path: Path, value: float) -> None:
    columns = {f"x{i}": varied(value)[:, i] for i in range(4)}
    pq.write_table(pa.table({**columns, "label": np.arange(300) % 3}), path, compression="none", use_dictionary=False)


def tsv(path: Path, value: float) -> None:
    rows = "".join(f"w{value:.0f}{' x' * (i % 2)}\t{i % 3}\n" for i in range(300))
    path.write_text(f"text\tlabel\n{rows}")


def raw_sum(path: str, places: DataPaths, *, same_process: bool) -> float:
    """As `total`, of what the cached file itself holds: columns are standardised on the way out."""
    if not same_process:
        data_module._LOADED.clear()
    recipe = Recipe(lr=0.1, batch_size=8, epochs=1)
    data = Data(source=path)
    task = Task(data=data, split=Split(validation=0.1, test=0.1), model=Model(name="mlp"), recipe=recipe, tolerance=0.1)
    load(task, places)
    arrays = cache.fetch(task.data, task.kind, places)
    return float(arrays.inputs.float().sum()) + sum(int(word[1:]) for word in arrays.meta.vocabulary if word[1:])


def by_copy(new: Path, old: Path) -> None:
    shutil.copyfile(new, old)
    shutil.copystat(new, old)


def by_rename(new: Path, old: Path) -> None:
    new.replace(old)


def by_link(new: Path, old: Path) -> None:
    old.unlink()
    old.symlink_to(new)


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("replace", [by_copy, by_rename, by_link])
@pytest.mark.parametrize(
    ("write", "name", "sums"),
    [
        (npz, "a.npz", (1200.0, 2400.0)),  # 300 examples of 4 ones on average, then twos
        (parquet, "a.parquet", (1200.0, 2400.0)),
        (parquet, "folder/train.parquet", (1200.0, 2400.0)),
    ],
)
def test_a_file_of_equal_size_and_time_is_read(
    places: DataPaths,
    tmp_path: Path,
    write: Callable[[Path, float], None],
    name: str,
    sums: tuple[float, float],
    replace: Callable[[Path, Path], None],
    same_process: bool,
) -> None:
    file, source = tmp_path / name, name.partition("/")[0]
    file.parent.mkdir(exist_ok=True)
    for path, value in ((file, 1.0), (tmp_path / "new", 2.0)):
        write(path.with_suffix(file.suffix) if path.name == "new" else path, value)
    new = (tmp_path / "new").with_suffix(file.suffix)
    for path in (file, new):
        os.utime(path, (10**9, 10**9))
    assert file.stat().st_size == new.stat().st_size
    assert raw_sum(str(tmp_path / source), places, same_process=same_process) == sums[0]
    replace(new, file)
    assert file.stat().st_mtime == 10**9
    assert raw_sum(str(tmp_path / source), places, same_process=same_process) == sums[1]


@pytest.mark.parametrize("same_process", [True, False])
def test_texts_of_equal_size_and_time_are_read(places: DataPaths, tmp_path: Path, same_process: bool) -> None:
    for name, value in (("a.tsv", 1.0), ("b.tsv", 2.0)):
        tsv(tmp_path / name, value)
        os.utime(tmp_path / name, (10**9, 10**9))
    first = raw_sum("a.tsv", places, same_process=same_process)
    by_copy(tmp_path / "b.tsv", tmp_path / "a.tsv")
    assert raw_sum("a.tsv", places, same_process=same_process) == first + 1  # the one word is w2 instead of w1


def test_a_file_that_changes_while_it_is_read_is_refused_and_not_cached(
    places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npz(tmp_path / "a.npz", 1.0)
    read = npz_reader.read_npz

    def slow(path: Path, data: Data, scratch: Path) -> object:
        found = read(path, data, scratch)
        npz(tmp_path / "b.npz", 2.0)
        by_rename(tmp_path / "b.npz", path)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(sources, "read_npz", slow)
        with pytest.raises(DataError) as caught:
            raw_sum("a.npz", places, same_process=False)
    said = str(caught.value)
    assert said == f"{tmp_path}/a.npz changed while it was read. Wait until it is written, then start again."
    assert list((tmp_path / "cache/data").glob("*.arrow")) == []
    assert raw_sum("a.npz", places, same_process=False) == 2400.0


MADE = """
import numpy as np, torch
import made_helper
def make(path="a.npz"):
    found = np.load(path)
    x = torch.tensor(found["x"]) * made_helper.SCALE
    return torch.utils.data.TensorDataset(x, torch.tensor(found["y"]))
class Lazy(torch.utils.data.Dataset):
    def __len__(self):
        return 300
    def __getitem__(self, i):
        return torch.tensor(np.load(f"rows/{i}.npy")), i % 3
def lazy():
    return Lazy()
class Texts(torch.utils.data.Dataset):
    def __init__(self):
        self.x = np.load("a.npz")["x"]
    def __len__(self):
        return 300
    def __getitem__(self, i):
        return torch.tensor(self.x[i]), "None" if i % 3 else "a"
def texts():
    return Texts()
"""


def outside_the_sample(num_examples: int) -> int:
    rng = np.random.default_rng(0)
    sampled = rng.choice(num_examples, size=user.READ_TWICE, replace=False).tolist()
    return next(i for i in range(num_examples) if i not in sampled)


def write_rows(folder: Path) -> None:
    """A file an example, which the function opens when the example is asked for."""
    (folder / "made.py").write_text(MADE)
    (folder / "made_helper.py").write_text("")
    (folder / "rows").mkdir()
    for i in range(300):
        np.save(folder / f"rows/{i}.npy", varied(1.0)[i])


def change_a_row(folder: Path) -> None:
    """One more in each number of an example that no sample looks at."""
    odd = outside_the_sample(300)
    np.save(folder / f"rows/{odd}.npy", varied(2.0)[odd])


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("how", ["by default", "by option"])
def test_a_file_that_a_function_reads(places: DataPaths, tmp_path: Path, how: str, same_process: bool) -> None:
    """The change is of an example that no sample looks at: only the file tells of it."""
    (tmp_path / "made.py").write_text(MADE)
    (tmp_path / "made_helper.py").write_text("SCALE = 1\n")
    options = {} if how == "by default" else {"path": "a.npz"}
    x = varied(1.0)
    for more, expected in ((0.0, 1200.0), (4.0, 1216.0)):
        x[outside_the_sample(300)] += more
        np.savez(tmp_path / "b.npz", x=x, y=np.arange(300) % 3)
        os.utime(tmp_path / "b.npz", (10**9, 10**9))
        by_rename(tmp_path / "b.npz", tmp_path / "a.npz")
        assert total("made:make", places, same_process=same_process, **options) == expected


def test_a_file_that_a_module_reads_when_it_is_imported(places: DataPaths, tmp_path: Path) -> None:
    """Importing it is the first thing that is done, and is done once in a process."""
    read = "LOADED = np.load('a.npz')['x']"
    (tmp_path / "made.py").write_text(MADE.replace('self.x = np.load("a.npz")["x"]', "self.x = LOADED") + f"{read}\n")
    (tmp_path / "made_helper.py").write_text("")
    x = varied(1.0)
    for more, expected in ((0.0, 1200.0), (4.0, 1216.0)):
        x[outside_the_sample(300)] += more
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(300) % 3)
        assert total("made:texts", places, same_process=False) == expected


def test_a_file_that_is_opened_for_one_example(places: DataPaths, tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert total("made:lazy", places, same_process=False) == 1200.0
    change_a_row(tmp_path)
    assert total("made:lazy", places, same_process=False) == 1204.0


def test_a_cached_file_that_was_touched_forgets_none_of_the_files_that_were_read(
    places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the sample alone opens few of them."""
    write_rows(tmp_path)
    monkeypatch.setattr(sources, "CLOCKS_DIFFER_NS", -(10**9))  # the files are settled
    assert total("made:lazy", places, same_process=False) == 1200.0
    for file in (tmp_path / "cache" / "data").glob("*.arrow"):
        os.utime(file, (10**9, 10**9))
    assert total("made:lazy", places, same_process=False) == 1200.0
    change_a_row(tmp_path)
    assert total("made:lazy", places, same_process=False) == 1204.0


def test_what_is_told_of_data_that_are_read_again_is_told_once(
    places: DataPaths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was written a moment ago is read again each time."""
    (tmp_path / "made.py").write_text(MADE)
    (tmp_path / "made_helper.py").write_text("SCALE = 1\n")
    with caplog.at_level(logging.WARNING, "subsettune.data"):
        for count, value in enumerate((1.0, 2.0), start=1):
            npz(tmp_path / "a.npz", value)
            for _ in range(3):
                assert total("made:texts", places, same_process=True) == 1200.0 * value
            said = [m for m in caplog.messages if m.startswith("class 'None' looks like a missing label")]
            assert len(said) == count


def test_what_a_function_s_module_imports(places: DataPaths, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(MADE)
    npz(tmp_path / "a.npz", 1.0)
    for scale in (1, 2):
        (tmp_path / "made_helper.py").write_text(f"SCALE = {scale}\n")
        assert total("made:make", places, same_process=False) == 1200.0 * scale


def test_a_function_s_data_that_did_not_change_are_read_once(
    places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made.py").write_text(MADE)
    (tmp_path / "made_helper.py").write_text("SCALE = 1\n")
    npz(tmp_path / "a.npz", 1.0)
    monkeypatch.setattr(sources, "CLOCKS_DIFFER_NS", -(10**9))  # the file is settled
    reads = []
    read = user.UserData.read
    monkeypatch.setattr(user.UserData, "read", lambda self, scratch: reads.append(1) or read(self, scratch))
    for same_process in (False, False, True, True):
        assert total("made:make", places, same_process=same_process) == 1200.0
    assert len(reads) == 1


@pytest.mark.parametrize("has_archives", [True, False])
def test_a_named_data_set_goes_by_the_files_that_are_read(
    places: DataPaths, tmp_path: Path, has_archives: bool
) -> None:
    """The archives where all of them are there, else the unpacked files; the others decide nothing."""
    archives = [tmp_path / archive for archive in sources.TORCHVISION["mnist"].archives]
    unpacked = [archive.with_suffix("") for archive in archives]
    for file in (*(archives if has_archives else ()), *unpacked):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"old")
        os.utime(file, (10**9, 10**9))
    where = DataPaths(data_root=str(tmp_path), cache=places.cache)
    keys = [sources.find(Data(source="mnist"), "classification", where).key]
    for file in (unpacked[0], archives[0] if has_archives else unpacked[1]):
        new = tmp_path / "new"
        new.write_bytes(b"new")
        os.utime(new, (10**9, 10**9))
        by_copy(new, file)
        keys.append(sources.find(Data(source="mnist"), "classification", where).key)
    assert (keys[0] == keys[1]) is has_archives
    assert keys[1] != keys[2]
