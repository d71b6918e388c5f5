"""Embeddings beside the inputs: which rows they belong to, and every way they can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from subsettune import config, train
from subsettune.data import DataPaths, TaskData, load, scratch
from subsettune.errors import DataError
from subsettune.task import Task

N = 60
VECTORS = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


def make_task(source: str, **data: Any) -> Task:
    raw = {
        "data": {"source": source, **data},
        "model": {"name": "mlp", "hidden": [4]},
        "recipe": {"lr": 0.1, "batch_size": 8, "epochs": 1},
        "tolerance": 0.01,
    }
    return config.build(Task, raw)


def load_file(path: Path, **data: Any) -> TaskData:
    return load(make_task(str(path), **data), DataPaths(cache=str(path.parent / "cache"), download=False))


def table(vectors: Any = VECTORS, kind: pa.DataType | None = None, **columns: Any) -> pa.Table:
    plain = {"a": [float(i) for i in range(N)], "label": [i % 2 for i in range(N)], **columns}
    return pa.table({"vector": pa.array(list(vectors), kind or pa.list_(pa.float32())), **plain})


def write(tmp_path: Path, made: pa.Table, name: str = "data.parquet") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)
    return path


def check_rows(data: TaskData, vectors: np.ndarray) -> None:
    assert data.num_embedding == vectors.shape[1]
    for part in (data.train, data.validation, data.test):
        assert part.embeddings is not None
        assert part.embeddings.dtype == torch.float32
        assert np.array_equal(part.embeddings.numpy(), vectors[part.rows.numpy()])


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)])
def test_a_column_of_lists_is_no_input(tmp_path: Path, kind: pa.DataType) -> None:
    data = load_file(write(tmp_path, table(kind=kind)), embeddings="vector")
    assert data.input_shape == (1,)
    check_rows(data, VECTORS)


def test_without_the_key_it_is_an_input_and_nothing_else(tmp_path: Path) -> None:
    data = load_file(write(tmp_path, table()))
    assert (data.input_shape, data.num_embedding) == ((4,), 0)
    assert data.train.embeddings is None


def test_images_may_have_embeddings(tmp_path: Path) -> None:
    import io

    from PIL import Image

    encoded = []
    for i in range(N):
        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 4), i, dtype=np.uint8)).save(buffer, format="PNG")
        encoded.append(buffer.getvalue())
    path = write(tmp_path, table(image=pa.array(encoded)))
    data = load_file(path, embeddings="vector")
    assert data.input_shape == (1, 4, 4)
    check_rows(data, VECTORS)


def test_training_and_test_file(tmp_path: Path) -> None:
    write(tmp_path, table(), "d/train.parquet")
    write(tmp_path, table(2 * VECTORS), "d/test.parquet")
    check_rows(load_file(tmp_path / "d", embeddings="vector"), np.concatenate([VECTORS, 2 * VECTORS]))


def test_arrays_of_an_npz_file(tmp_path: Path) -> None:
    arrays = {"x": np.arange(4.0 * N).reshape(N, 2, 2), "y": np.arange(N) % 2, "e": VECTORS.astype(np.float64)}
    np.savez(tmp_path / "one.npz", **arrays)
    check_rows(load_file(tmp_path / "one.npz", embeddings="e"), VECTORS)
    np.savez(tmp_path / "two.npz", **arrays, **{f"{name}_test": array for name, array in arrays.items()})
    check_rows(load_file(tmp_path / "two.npz", embeddings="e"), np.concatenate([VECTORS, VECTORS]))


def test_large_embeddings_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY_BYTES", 100)
    check_rows(load_file(write(tmp_path, table()), embeddings="vector"), VECTORS)
    assert not list((tmp_path / "cache/data").glob("*.unpacked"))


def test_other_embeddings_are_other_data(tmp_path: Path) -> None:
    tables = [table(), table(VECTORS + 1), table(VECTORS[:, :2])]
    prints = [
        load_file(write(tmp_path, made, f"{i}.parquet"), embeddings="vector").fingerprint
        for i, made in enumerate(tables)
    ]
    prints.append(load_file(tmp_path / "0.parquet", features=["a"]).fingerprint)
    assert len(set(prints)) == 4


def test_a_moved_part_keeps_its_embeddings(tmp_path: Path) -> None:
    """`meta` stands in for a device: it holds shapes, no numbers."""
    part = load_file(write(tmp_path, table()), embeddings="vector").validation
    moved = part.to(torch.device("meta"))
    assert part.embeddings is not None
    assert moved.embeddings is not None
    assert torch.equal(moved.embeddings, part.embeddings)


def test_the_facts_of_a_task_tell_their_length(tmp_path: Path) -> None:
    task = make_task(str(write(tmp_path, table())), embeddings="vector")
    assert train.facts(task, DataPaths(cache=str(tmp_path / "cache"))).num_embedding == 3


def holed(value: float | None) -> list[Any]:
    rows: list[Any] = [list(map(float, vector)) for vector in VECTORS]
    rows[7][2] = value
    return rows


BAD: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "missing": (
        table(),
        {"embeddings": "vectors"},
        "{path} has no column 'vectors'. Did you mean 'vector'? Its columns: vector, a, label. Set data.embeddings.",
    ),
    "input": (
        table(),
        {"embeddings": "vector", "features": ["a", "vector"]},
        "data.embeddings must not be among data.features, got 'vector' in both. Remove it there.",
    ),
    "category": (
        table(),
        {"embeddings": "vector", "categorical": ["vector"]},
        "data.embeddings must not be among data.categorical, got 'vector' in both. Remove it there.",
    ),
    "label": (
        table(),
        {"embeddings": "label"},
        "data.embeddings must not be the label, got 'label' for both. Name two columns.",
    ),
    "numbers": (
        table(b=[1.0] * N),
        {"embeddings": "a"},
        "column 'a' must hold lists of numbers to be data.embeddings, got double in {path}. Name another.",
    ),
    "length": (
        table([*VECTORS[:9], VECTORS[9, :2], *VECTORS[10:]]),
        {"embeddings": "vector"},
        "lists of column 'vector' must have one length, got 3 and 2 (row 9). Cut or drop them.",
    ),
    "no_list": (
        table([*VECTORS[:9], None, *VECTORS[10:]]),
        {"embeddings": "vector"},
        "lists of column 'vector' must have one length, got 3 and nothing (row 9). Cut or drop them.",
    ),
    "empty": (
        table([[]] * N),
        {"embeddings": "vector"},
        "data.embeddings must have a row of numbers for each of 60 examples, got the shape (60, 0). "
        "Write a vector for each example.",
    ),
    "nan": (
        table(holed(float("nan"))),
        {"embeddings": "vector"},
        "embeddings must be finite float32 numbers, got NaN, infinity or nothing in column 2, row 7. "
        "Fill it, or drop the row or the column.",
    ),
    "null": (
        table(holed(None)),
        {"embeddings": "vector"},
        "embeddings must be finite float32 numbers, got NaN, infinity or nothing in column 2, row 7. "
        "Fill it, or drop the row or the column.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns(tmp_path: Path, case: str) -> None:
    made, data, message = BAD[case]
    path = write(tmp_path, made)
    with pytest.raises(DataError) as caught:
        load_file(path, **data)
    assert str(caught.value) == message.format(path=path)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({}, "e", "{path} must hold the embeddings e, got x, y. Mend data.embeddings."),
    "taken": (
        {},
        "x",
        "data.embeddings must be an array of its own, got 'x', which is input or label. Name another.",
    ),
    "rows": (
        {"e": VECTORS[:9]},
        "e",
        "data.embeddings must have a row of numbers for each of 60 examples, got the shape (9, 3). "
        "Write a vector for each example.",
    ),
    "shape": (
        {"e": np.arange(N)},
        "e",
        "array 'e' of {path} must hold a vector of numbers for each example, got int64 of shape (60,). Reshape it.",
    ),
    "infinite": (
        {"e": np.where(np.arange(N) == 3, np.inf, 0.0)[:, None]},
        "e",
        "embeddings must be finite float32 numbers, got NaN, infinity or nothing in column 0, row 3. "
        "Fill it, or drop the row or the column.",
    ),
    "one_part": (
        {"e": VECTORS, "x_test": np.zeros((4, 2)), "y_test": np.arange(4) % 2},
        "e",
        "{path} must hold the embeddings e_test, got x, y, e, x_test, y_test. Mend data.embeddings.",
    ),
    "two_lengths": (
        {"e": VECTORS, "e_test": VECTORS[:4, :2], "x_test": np.zeros((4, 2)), "y_test": np.arange(4) % 2},
        "e",
        "embeddings of {path} must have one length in training and test, got (3,) and (2,). Mend them.",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path: Path, case: str) -> None:
    arrays, name, message = BAD_ARRAYS[case]
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((N, 2)), y=np.arange(N) % 2, **arrays)
    with pytest.raises(DataError) as caught:
        load_file(path, embeddings=name)
    assert str(caught.value) == message.format(path=path)


def test_a_named_data_set_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(make_task("digits", embeddings="e"), DataPaths(cache=str(tmp_path)))
    assert str(caught.value) == (
        "data.embeddings means nothing to 'digits': its input and label are known. Remove the key."
    )
