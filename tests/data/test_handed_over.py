"""Tables, arrays and Datasets of Python as data: by their content, and in the cache for other processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from places import ROOT
from tables import load_source, task_of
from torch.utils.data import Dataset, TensorDataset

from subsettune import in_memory
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, DataError, DataNotFoundError
from subsettune.task import Model, Recipe, Task

RNG = np.random.default_rng(0)
N = 60
X, Y = RNG.normal(size=(N, 3)), RNG.permutation(N) % 2


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": X[:, 0], "city": ["Rome", "Oslo", "Lima"] * (N // 3), "label": Y})


def test_a_frame_is_the_table_in_its_file(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "d.parquet", index=False)
    file = load_source(tmp_path / "d.parquet", tmp_path / "cache")
    for source in (frame(), pa.Table.from_pandas(frame()), pa.table(dict(frame()))):
        found = load_source(source, tmp_path / "cache")
        assert found.fingerprint == file.fingerprint
    assert found.facts.files == ("the table",)


class Foreign:
    """A table of another library, of which nothing is known but Arrow's protocol, as polars has it."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> object:
        return self._table[name]

    def __len__(self) -> int:
        return int(self._table.num_rows)


def test_any_table_with_the_protocol_of_arrow(tmp_path: Path) -> None:
    table = pa.table(dict(frame()))
    assert task_of(Foreign(table)).data == task_of(table).data
    assert load_source(Foreign(table), tmp_path / "cache").input_shape == (4,)


def test_a_task_goes_by_the_content(tmp_path: Path) -> None:
    first, same = task_of(frame()), task_of(frame())
    assert first.data.source.startswith("python://table/")
    assert (first.key, first.data) == (same.key, same.data)
    changed = frame()
    changed.loc[3, "a"] += 1
    assert task_of(changed).key != first.key
    assert task_of(pa.table(dict(frame()))[:50]).data != task_of(pa.table(dict(frame()))[10:]).data
    sliced = pa.concat_tables([pa.table(dict(frame()))[:7], pa.table(dict(frame()))[7:]])
    assert task_of(sliced).data == task_of(pa.table(dict(frame()))).data  # however it lies in chunks


def test_tables_of_parts(tmp_path: Path) -> None:
    both = load_source((frame(), frame()[:30]), tmp_path / "cache")
    assert ([len(part) for part in (both.train, both.validation, both.test)], both.from_files) == (
        [54, 6, 30],
        {"validation": False, "test": True},
    )
    three = load_source((frame(), frame()[:20], frame()[:30]), tmp_path / "cache")
    assert [len(part) for part in (three.train, three.validation, three.test)] == [60, 20, 30]
    assert three.facts.validation_files == ("the validation table",)
    with pytest.raises(DataError, match=r"the test table has no labels: it lacks the column 'label' that the training"):
        load_source((frame(), frame()[["a", "city"]]), tmp_path / "cache")
    with pytest.raises(DataError, match=r"the table has no rows\. Give a file with examples, or remove it\."):
        load_source(frame()[:0], tmp_path / "cache")


def test_other_processes_find_them_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(frame())
    here = load(task, DataPaths(cache=str(tmp_path / "cache")))
    monkeypatch.setattr(in_memory, "_GIVEN", {})
    monkeypatch.setattr("subsettune.data._LOADED", {})
    there = load(task, DataPaths(cache=str(tmp_path / "cache")), fingerprint=here.fingerprint)
    assert torch.equal(there.train.targets, here.train.targets)
    with pytest.raises(DataNotFoundError, match=r"were handed over in Python, to another process, and are not in the"):
        load(task, DataPaths(cache=str(tmp_path / "other")), fingerprint=here.fingerprint)


def test_what_is_changed_afterwards_is_refused(tmp_path: Path) -> None:
    x = X.copy()
    task = task_of((x, Y))
    x[0] += 1
    with pytest.raises(DataError) as caught:
        load(task, DataPaths(cache=str(tmp_path / "cache")))
    assert str(caught.value) == "the arrays have changed since they were handed over. Hand them over again."


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    file = load_source(tmp_path / "d.npz", tmp_path / "cache")
    for source in ((X, Y), (torch.tensor(X), torch.tensor(Y)), (X.tolist(), Y.tolist()), (X, pd.Series(Y))):
        assert load_source(source, tmp_path / "cache").fingerprint == file.fingerprint
    both = load_source(((X, Y), (X[:20], Y[:20])), tmp_path / "cache")
    assert (both.num_source_examples, len(both.test)) == (N, 20)
    named = load_source((X, np.where(Y, "yes", "no")), tmp_path / "cache")
    assert named.class_names == ("no", "yes")
    beside = load_source((frame()[["a", "city"]], frame()["label"]), tmp_path / "cache")
    assert beside.input_shape == (4,)
    with pytest.raises(ConfigError, match=r"X and y must be as many, got 60 rows and 59 labels\. Mend them\."):
        task_of((frame()[["a"]], Y[1:]))
    with pytest.raises(ConfigError, match=r"X must have no column 'label' where y holds the labels\."):
        task_of((frame(), Y))
    with pytest.raises(DataError, match=r"split by 'a' means nothing to arrays, which have no such column\."):
        load_source((X, Y), tmp_path / "cache", split={"by": "a"})


WRONG: dict[str, tuple[Any, str]] = {
    "objects": ((np.array([[1, "a"]] * N, dtype=object), Y), "X must hold numbers, got object. Convert it: times to "),
    "times": ((np.arange(N).astype("datetime64[D]"), Y), "X must hold numbers, got datetime64[D]. Convert it: times "),
    "complex": ((X * 1j, Y), "X must hold numbers, got complex128. Convert it: times to numbers, "),
    "complex_tensor": ((torch.ones(N, 2, dtype=torch.complex64), Y), "X must hold numbers, got torch.complex64."),
    "labels": ((X, np.array([1, None] * (N // 2))), "y must hold numbers or texts, got object. Convert it: "),
    "masked": (
        (np.ma.masked_greater(X, 2.0), Y),
        "source must have a value in each place, got an array with ",
    ),
    "masked_labels": ((X, np.ma.masked_equal(Y, 1)), "source must have a value in each place, got an array with "),
    "intervals": (
        pd.DataFrame({"a": pd.cut(X[:, 0], 3), "label": Y}),
        "column 'a' must hold numbers, texts or dates, got categories of extension<pandas.interval",
    ),
    "tuples": (
        pd.DataFrame({"a": pd.Categorical([(1, 2), (3, 4)] * (N // 2)), "label": Y}),
        "column 'a' must hold numbers, texts or dates, got categories of list<item: int64>, as pandas.cut makes them. "
        "Convert it: frame['a'].astype(str), or cut it into numbers (labels=False).",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_file_could_hold_is_told(case: str) -> None:
    source, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        task_of(source)
    assert message in str(caught.value)


def test_a_mask_that_hides_nothing_is_none(tmp_path: Path) -> None:
    plain = load_source((X, Y), tmp_path / "cache")
    assert load_source((np.ma.masked_array(X), Y), tmp_path / "cache").fingerprint == plain.fingerprint


class Noisy(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3), i % 2


def test_datasets(tmp_path: Path) -> None:
    dataset = TensorDataset(torch.tensor(X).float(), torch.tensor(Y))
    before = torch.get_rng_state()
    data = load_source(dataset, tmp_path / "cache")
    assert (data.input_shape, data.class_names) == ((3,), ("0", "1"))
    assert task_of(dataset).data == task_of(TensorDataset(torch.tensor(X).float(), torch.tensor(Y))).data
    assert task_of(dataset).data != task_of(TensorDataset(torch.tensor(X).float(), torch.tensor(1 - Y))).data
    assert len(load_source((dataset, dataset), tmp_path / "cache").test) == N
    with pytest.raises(DataError, match=r"differently each time: there is a random transform inside\."):
        load_source(Noisy(), tmp_path / "cache")
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(DataError, match=r"data\.label means nothing to 'python://dataset/"):
        load_source(dataset, tmp_path / "cache", label="y")


def test_a_path_and_a_split_by_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(frame()), tmp_path / "d.parquet")
    assert task_of(tmp_path / "d.parquet").data.source == str(tmp_path / "d.parquet")
    assert task_of(Path("d.parquet")).data.source == "./d.parquet"
    timed = frame().assign(day=pd.date_range("2024-01-01", periods=N))
    data = load_source(timed, tmp_path / "cache", split={"time": "day"})
    assert data.test.rows.tolist() == list(range(48, 60))


def test_a_whole_task_by_objects(tmp_path: Path) -> None:
    task = Task(data=(X, Y), model=Noisy, recipe=Recipe(lr=0.1, batch_size=8, epochs=1), tolerance=0.1)
    assert (task.data.source[:16], task.model.name) == ("python://arrays/", f"{__name__}:Noisy")
    assert task == Task(data={"source": (X, Y)}, model={"name": Noisy}, recipe=task.recipe, tolerance=0.1)
    assert Model(name=Noisy).name == f"{__name__}:Noisy"


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL)
    given = {**os.environ, "SUBSETTUNE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "training compute" in done.stdout
