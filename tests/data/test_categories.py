"""Columns of categories in real Parquet files, against a twin in plain Python that encodes one value at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from subsettune import config, train
from subsettune.data import DataPaths, TaskData, arrays, categories, encode, load, parquet
from subsettune.data.encode import Encoder, Normalizer
from subsettune.errors import DataError
from subsettune.policy import Phase, Policy
from subsettune.task import Task

pytestmark = pytest.mark.usefixtures("untouched_random_state")

N = 60
COLOURS = [("red", "blue", None, "green")[i % 4] for i in range(N)]
GRADES = [(10, 9, 100)[i % 3] for i in range(N)]
HEIGHTS = [float(i * i) for i in range(N)]
LABELS = [("no", "yes")[i % 5 < 2] for i in range(N)]


def make_task(path: Path, metric: str = "accuracy", **data: Any) -> Task:
    raw = {
        "data": {"source": str(path), **data},
        "split": {"validation": 0.1, **({"test": 0.2} if path.is_file() else {})},
        "model": {"name": "mlp", "hidden": [8]},
        "recipe": {"lr": 0.05, "momentum": 0.9, "batch_size": 16, "epochs": 4},
        "metric": metric,
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


def load_table(path: Path, metric: str = "accuracy", **data: Any) -> TaskData:
    return load(make_task(path, metric, **data), DataPaths(cache=str(path.parent / "cache"), download=False))


def mixed(**columns: Any) -> pa.Table:
    plain = {"colour": COLOURS, "height": HEIGHTS, "grade": GRADES, "label": LABELS}
    return pa.table({**plain, **columns})


def write(tmp_path: Path, table: pa.Table, name: str = "data.parquet") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def slow_encoded(columns: dict[str, list[Any]], categorical: Sequence[str], rows: list[int], i: int) -> list[float]:
    """Row i, one column after the other, as the training rows have them."""
    encoded: list[float] = []
    for name, values in columns.items():
        known = [values[row] for row in rows]
        if name in categorical:
            there = sorted({value for value in known if value is not None})
            encoded += [1.0 if values[i] == category else 0.0 for category in there]
            encoded += [1.0 if values[i] is None else 0.0] if None in known else []
            continue
        mean = sum(map(float, known)) / len(known)
        std = (sum((float(value) - mean) ** 2 for value in known) / len(known)) ** 0.5
        encoded.append((float(values[i]) - mean) / (std if std > 0 else 1.0))
    return encoded


def check_encoding(data: TaskData, columns: dict[str, list[Any]], categorical: Sequence[str]) -> None:
    rows = data.train.rows.tolist()
    for part in (data.train, data.validation, data.test):
        inputs, _ = part.batch(torch.arange(len(part)))
        expected = [slow_encoded(columns, categorical, rows, row) for row in part.rows.tolist()]
        assert inputs.dtype == torch.float32
        assert (len(part), *data.input_shape) == tuple(inputs.shape)
        np.testing.assert_allclose(inputs.numpy(), np.array(expected, dtype=np.float64), rtol=1e-5, atol=1e-6)


# --- encoding --------------------------------------------------------------------------------------------------------


def test_texts_are_one_hot_and_numbers_standardised(tmp_path: Path) -> None:
    data = load_table(write(tmp_path, mixed()))
    assert data.input_shape == (4 + 1 + 1,)
    assert data.num_features == 6
    check_encoding(data, {"colour": COLOURS, "height": HEIGHTS, "grade": GRADES}, ["colour"])
    inputs, _ = data.train.batch(torch.arange(len(data.train)))
    assert set(inputs[:, :4].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(inputs[:, :4].sum(1), torch.ones(len(data.train)))


def test_marked_numbers_are_categories_in_the_order_of_their_size(tmp_path: Path) -> None:
    data = load_table(write(tmp_path, mixed()), categorical=["grade"])
    assert data.input_shape == (4 + 1 + 3,)
    check_encoding(data, {"colour": COLOURS, "height": HEIGHTS, "grade": GRADES}, ["colour", "grade"])
    (cached,) = (tmp_path / "cache/data").glob("*.arrow")
    meta = arrays.read(cached).meta
    assert meta.columns == ("colour", "height", "grade")
    assert meta.categories == (("blue", "green", "red", None), (), ("9", "10", "100"))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(COLOURS, pa.large_string()),
        pa.array(COLOURS).dictionary_encode(),
        pa.array(COLOURS, pa.string_view()),
    ],
    ids=["large", "dictionary", "view"],
)
def test_texts_of_every_type_are_the_same_data(tmp_path: Path, column: pa.Array) -> None:
    plain = load_table(write(tmp_path, mixed()))
    assert load_table(write(tmp_path, mixed(colour=column), "other.parquet")).fingerprint == plain.fingerprint


def test_booleans_may_be_categories(tmp_path: Path) -> None:
    flags = [(True, False, None)[i % 3] for i in range(N)]
    data = load_table(write(tmp_path, mixed(flag=flags)), categorical=["flag"])
    check_encoding(data, {"colour": COLOURS, "height": HEIGHTS, "grade": GRADES, "flag": flags}, ["colour", "flag"])


def test_lists_stand_beside_categories(tmp_path: Path) -> None:
    pairs = [[float(i), float(i % 7)] for i in range(N)]
    data = load_table(write(tmp_path, mixed(pair=pairs)), features=["pair", "colour"])
    columns = {"0": [a for a, _ in pairs], "1": [b for _, b in pairs], "colour": COLOURS}
    check_encoding(data, columns, ["colour"])


def test_only_categories(tmp_path: Path) -> None:
    data = load_table(write(tmp_path, mixed()), features=["colour", "grade"], categorical=["grade"])
    check_encoding(data, {"colour": COLOURS, "grade": GRADES}, ["colour", "grade"])


def test_a_regression_on_mixed_columns(tmp_path: Path) -> None:
    data = load_table(write(tmp_path, mixed()), "mse", label="height")
    columns = {"colour": COLOURS, "grade": GRADES, "label": LABELS}
    check_encoding(data, columns, ["colour", "label"])
    assert (data.kind, data.num_outputs) == ("regression", 1)


def test_vocabularies_are_of_all_files_and_columns_of_the_training_part(tmp_path: Path) -> None:
    """The test file has a colour of its own, and a missing grade: both become zeros, and shift no other column."""
    test = {
        "colour": ["amber", "red"] * 10,
        "height": [1.0] * 20,
        "grade": [9, None] * 10,
        "label": ["no", "yes"] * 10,
    }
    write(tmp_path, mixed(), "d/train.parquet")
    write(tmp_path, pa.table(test), "d/test.parquet")
    data = load_table(tmp_path / "d", categorical=["grade"])
    assert data.input_shape == (4 + 1 + 3,)
    whole = {name: [*mixed()[name].to_pylist(), *test[name]] for name in ("colour", "height", "grade")}
    check_encoding(data, whole, ["colour", "grade"])
    inputs, _ = data.test.batch(torch.arange(20))
    assert inputs[0, :4].tolist() == [0, 0, 0, 0]
    assert inputs[1, 5:].tolist() == [0, 0, 0]


values = {
    "number": st.floats(-100, 100, width=32),
    "text": st.sampled_from(["a", "b", "ab", "", "\u00e9", None]),
    "code": st.sampled_from([-5, 0, 7, 70, None]),
}
tables = st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=4).flatmap(
    lambda kinds: st.tuples(*(st.lists(values[kind], min_size=24, max_size=24) for kind in kinds)).map(
        lambda columns: {
            f"{kind}{i}": list(column) for i, (kind, column) in enumerate(zip(kinds, columns, strict=True))
        }
    )
)


@settings(deadline=None, max_examples=25)
@given(columns=tables)
def test_any_table_is_its_slow_twin(columns: dict[str, list[Any]]) -> None:
    kinds = {"n": pa.float32(), "t": pa.string(), "c": pa.int32()}
    made = {name: pa.array(column, kinds[name[0]]) for name, column in columns.items()}
    categorical = [name for name in columns if name[0] != "n"]
    assume(len(set(zip(*columns.values(), strict=True))) > 1)  # equal rows are refused
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), pa.table({**made, "label": [i % 2 for i in range(24)]}))
        data = load_table(path, categorical=categorical)
        check_encoding(data, columns, categorical)


def test_columns_of_numbers_keep_their_bits_beside_categories() -> None:
    rng = np.random.default_rng(0)
    numbers = torch.from_numpy((rng.normal(size=(50, 3)) * 7 + 100).astype(np.float32))
    codes = torch.arange(50, dtype=torch.float32)[:, None] % 4
    rows = torch.arange(0, 50, 2)
    encoded = Encoder.fit(torch.cat([numbers[:, :1], codes, numbers[:, 1:]], 1), rows, [0, 4, 0, 0])
    assert encoded.width == 5  # even rows have two of the codes
    plain = Normalizer.fit(numbers, rows)
    mine = encoded(torch.cat([numbers[:, :1], codes, numbers[:, 1:]], 1))
    assert torch.equal(mine[:, [0, 3, 4]], plain(numbers.clone()))


def test_an_encoded_part_moves_to_a_device(tmp_path: Path) -> None:
    """`meta` stands in for one: it holds shapes, no numbers."""
    data = load_table(write(tmp_path, mixed()))
    moved = data.train.to(torch.device("meta"))
    assert moved.batch(torch.arange(3, device="meta"))[0].shape == (3, 6)
    assert isinstance(moved.encoder, Encoder)
    assert moved.encoder.places.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_encodes_as_the_cpu_does(tmp_path: Path) -> None:
    part = load_table(write(tmp_path, mixed()), categorical=["grade"]).train
    index = torch.tensor([7, 0, 39])
    inputs, _ = part.to(torch.device("cuda", 0)).batch(index)
    torch.testing.assert_close(inputs.cpu(), part.batch(index)[0])


def test_small_batches_of_rows_give_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_table(write(tmp_path, mixed()), categorical=["grade"])
    monkeypatch.setattr(parquet, "NUMBER_ROWS", 7)
    monkeypatch.setattr(encode, "STATISTICS_BYTES", 1)
    other = load_table(write(tmp_path, mixed(), "elsewhere/data.parquet"), categorical=["grade"])
    assert other.fingerprint == whole.fingerprint


def test_names_of_columns_and_categories_are_in_the_fingerprint(tmp_path: Path) -> None:
    renamed = [None if colour is None else f"dark {colour}" for colour in COLOURS]  # in the same order
    tables = [mixed(), mixed(colour=renamed), mixed().rename_columns(["hue", "height", "grade", "label"])]
    prints = {load_table(write(tmp_path, table, f"{i}.parquet")).fingerprint for i, table in enumerate(tables)}
    assert len(prints) == 3


# --- refusals --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "one_a_row": (
        mixed(name=[f"person {i}" for i in range(N)]),
        {},
        "column 'name' must have at least 2 rows for each category on average to be an input, got 60 categories in 60 "
        "rows. Group them, or leave the column out (data.exclude).",
    ),
    "missing_number": (
        mixed(height=[1.0] * 7 + [None] * 53),
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 'height', row 7. "
        "Fill it (data.impute: median does), or drop the row or the column.",
    ),
    "unknown": (
        mixed(),
        {"categorical": ["size"]},
        "{path} has no column 'size'. Its columns: colour, height, grade, label. Set data.categorical.",
    ),
    "label": (
        mixed(),
        {"categorical": ["grade", "label"]},
        "data.label must not be among data.categorical, got 'label' in both. Remove it there.",
    ),
    "no_feature": (
        mixed(),
        {"categorical": ["grade"], "features": ["colour"]},
        "data.categorical must be among data.features, got 'grade'. Add it there, or remove it here.",
    ),
    "float": (
        mixed(),
        {"categorical": ["height"]},
        "column 'height' must hold whole numbers, booleans or texts to be categorical, got double. "
        "Convert it, or remove it from data.categorical.",
    ),
    "list": (
        mixed(pair=[[1, 2]] * N),
        {"categorical": ["pair"]},
        "column 'pair' must hold whole numbers, booleans or texts to be categorical, got list<element: int64>. "
        "Convert it, or remove it from data.categorical.",
    ),
    "nothing": (
        mixed(empty=pa.nulls(N)),
        {},
        "columns of {path} must be numbers, texts, or one column of encoded images, got empty (null). "
        "Encode them as numbers, or leave it out: data.exclude: [empty].",
    ),
    "image": (
        pa.table({"image": pa.array([b"png"] * N), "label": LABELS, "grade": GRADES}),
        {"categorical": ["grade"]},
        "data.categorical means nothing to images, got 'grade'. Remove the key.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_categories(tmp_path: Path, case: str) -> None:
    table, data, message = BAD[case]
    path = write(tmp_path, table)
    with pytest.raises(DataError) as caught:
        load_table(path, **data)
    assert str(caught.value) == message.format(path=path)


def test_too_many_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"town {i % 29}" for i in range(N)]
    path = write(tmp_path, mixed(town=names))
    data = load_table(path)
    assert data.input_shape == (4 + 1 + 1 + len({names[row] for row in data.train.rows.tolist()}),)
    monkeypatch.setattr(categories, "MOST_CATEGORIES", 28)
    path = write(tmp_path, mixed(town=names), "again.parquet")
    with pytest.raises(DataError) as caught:
        load_table(path)
    assert str(caught.value) == (
        "column 'town' must have at most 28 categories to be an input, got 29 or more. Group them, or leave the column "
        "out (data.exclude)."
    )


def test_a_column_of_two_kinds(tmp_path: Path) -> None:
    write(tmp_path, mixed(), "d/train.parquet")
    path = write(tmp_path, mixed(grade=["a", "b"] * 30), "d/test.parquet")
    with pytest.raises(DataError) as caught:
        load_table(tmp_path / "d")
    assert str(caught.value) == (
        f"column 'grade' must be numbers in all files, or texts, got int64 and string in {path}. Write them alike."
    )
    path = write(tmp_path, mixed().drop_columns("grade"), "d/test.parquet")
    with pytest.raises(DataError) as caught:
        load_table(tmp_path / "d")
    assert str(caught.value) == (
        f"{path} has no column 'grade'. Its columns: colour, height, label. Write all files alike."
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digits", "data.categorical means nothing to 'digits': its input and label are known. Remove the key."),
        (
            "math:floor",
            "data.categorical means nothing to 'math:floor': its input and label are known. Remove the key.",
        ),
    ],
)
def test_sources_without_columns(tmp_path: Path, source: str, message: str) -> None:
    task = config.build(
        Task,
        {
            "data": {"source": source, "categorical": ["a"]},
            "model": {"name": "mlp"},
            "recipe": {"lr": 0.1, "batch_size": 8, "epochs": 1},
            "tolerance": 0.01,
        },
    )
    with pytest.raises(DataError) as caught:
        load(task, DataPaths(cache=str(tmp_path)))
    assert str(caught.value) == message


def test_npz_files_have_no_categories(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((9, 2)), y=np.arange(9) % 2)
    with pytest.raises(DataError) as caught:
        load_table(path, categorical=["x"])
    assert str(caught.value) == "data.categorical means nothing to .npz files. Write Parquet, or one-hot arrays."


# --- training --------------------------------------------------------------------------------------------------------


def learnable(n: int = 400) -> pa.Table:
    """A label that the colour and the sign of a number decide together, and a value that both add to."""
    rng = np.random.default_rng(0)
    effect = {"red": 2.0, "green": -2.0, "blue": 0.0}
    colours, x = rng.choice(sorted(effect), n), rng.normal(size=n)
    total = np.array([effect[colour] for colour in colours]) + x
    return pa.table({"colour": colours, "x": x, "value": 50 + 10 * total, "label": np.where(total > 0, "yes", "no")})


@pytest.mark.parametrize(
    ("metric", "changes"),
    [
        ("accuracy", {"label": "label", "features": ["colour", "x"]}),
        ("mse", {"label": "value", "features": ["colour", "x"]}),
        ("mae", {"label": "value", "features": ["colour", "x"]}),
    ],
)
def test_a_run_learns_from_mixed_columns(tmp_path: Path, metric: str, changes: dict[str, Any]) -> None:
    task = make_task(write(tmp_path, learnable()), metric, **changes)
    places = DataPaths(cache=str(tmp_path / "cache"))
    options = train.RunOptions(places=places, num_threads=1, device="cpu")
    policy = Policy(phases=(Phase(share=0.1, passes=3.0, selector="kcenter"), Phase(passes=8.0)))
    result = train.run(task, policy, 0, options=options)
    again = train.run(task, policy, 0, options=options)
    assert result.metrics == again.metrics
    found = result.metrics["validation"]
    assert {"accuracy": found > 0.95, "mse": found < 5, "mae": found < 1}[metric]  # of a constant: 370, or 15
    assert train.facts(task, places).num_features == 4
