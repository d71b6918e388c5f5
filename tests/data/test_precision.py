"""What varies in numbers reaches the network and the metric, whatever the size of the numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from subsettune.data import DataPaths, TaskData, arrays, load
from subsettune.data.cache import fetch
from subsettune.data.precision import Scaling, Spreads, kept, less, targets
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Task

N = 120
RNG = np.random.default_rng(0)
Z = np.round(RNG.normal(size=(N, 2)) * 1000).astype(np.int64)  # whole numbers, so that every type holds offsets of them
Y = np.arange(N) % 3


def load_data(source: Path | str, cache: Path, metric: str = "accuracy", **data: Any) -> TaskData:
    task = Task(
        data=Data(source=str(source), **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,  # type: ignore[arg-type]
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(cache / "cache"), download=False))


def load_npz(tmp_path: Path, x: np.ndarray, y: np.ndarray = Y, metric: str = "accuracy", **more: Any) -> TaskData:
    np.savez(tmp_path / "data.npz", x=x, y=y, **more)
    return load_data(tmp_path / "data.npz", tmp_path, metric)


def seen(data: TaskData) -> np.ndarray:
    """What a network gets of all examples of the training part."""
    return data.train.batch(torch.arange(len(data.train)))[0].numpy()


def standardised(x: np.ndarray, rows: torch.Tensor) -> np.ndarray:
    """The oracle: in exact fractions, but for the root."""
    exact = [[Fraction(int(v) if x.dtype.kind in "iu" else float(v)) for v in row] for row in x[rows.numpy()]]
    columns = []
    for column in zip(*exact, strict=True):
        mean = sum(column, Fraction(0)) / len(column)
        variance = sum(((v - mean) ** 2 for v in column), Fraction(0)) / len(column)
        columns.append([float(v - mean) for v in column] / np.sqrt(float(variance)))
    return np.stack(columns, axis=1)


FEATURES: dict[str, np.ndarray] = {
    "unix_times": 1_700_000_000 + Z / 1000,
    "offset": 1e9 + Z / 1e3,
    "ids": Z + 2**60,
    "unsigned": Z.astype(np.uint64) + np.uint64(2**63 + 2**40),
    "beyond_24_bits": Z // 300 + 2**27,
    "int32": (Z // 100 + 2**30).astype(np.int32),
    "tiny": Z * 1e-40,
    "denormal_float32": (Z * 1e-43).astype(np.float32),
    "long_double": Z.astype(np.longdouble) + 2**40,
    "big_endian": (Z + 2**60).astype(">i8"),
    **{
        f"few_beyond_float64_{offset}": (np.arange(N, dtype=np.uint64)[:, None] % 9 + offset).astype(dtype)
        for offset, dtype in (
            (np.uint64(2**60), np.int64),
            (np.uint64(2**62), np.int64),
            (np.uint64(2**63 - 20), np.int64),
            (np.uint64(2**63), np.uint64),
            (np.uint64(2**64 - 20), np.uint64),
        )
    },
    "one_of_two": np.stack([Z[:, 0] + 2.0**50, Z[:, 1] * 1.0], axis=1),
}


@pytest.mark.parametrize("case", list(FEATURES))
def test_networks_see_what_varies(tmp_path: Path, case: str) -> None:
    x = FEATURES[case]
    data = load_npz(tmp_path, x)
    np.testing.assert_allclose(seen(data), standardised(x, data.train.rows), atol=1e-5)
    assert data.train.inputs.dtype == torch.float32


@pytest.mark.parametrize("size", [1e300, 1e-300, 1e38])
def test_numbers_beyond_float32(tmp_path: Path, size: float) -> None:
    """Against the numbers in another unit: a power of ten moves digits of float64, far below those of float32."""
    (tmp_path / "plain").mkdir()
    plain = seen(load_npz(tmp_path / "plain", Z.astype(np.float64)))
    np.testing.assert_allclose(seen(load_npz(tmp_path, Z * (size / 1000))), plain, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16, np.bool_])
def test_what_float32_holds_is_stored_as_it_is(tmp_path: Path, dtype: Any) -> None:
    x = RNG.normal(size=(N, 3)) if dtype != np.int64 else RNG.integers(-(2**24), 2**24, (N, 3))
    x = x > 0 if dtype == np.bool_ else x.astype(dtype)
    (tmp_path / "wide").mkdir()
    data, wide = load_npz(tmp_path, x), load_npz(tmp_path / "wide", x.astype(np.float64))
    np.testing.assert_array_equal(data.train.inputs.numpy(), x.astype(np.float32))
    assert data.fingerprint == wide.fingerprint
    assert not data.notes


def test_ordinary_numbers_on_a_small_offset_are_stored_as_they_are(tmp_path: Path) -> None:
    """Kelvin: float32 rounds by 2e-6 of the spread."""
    x = 293.15 + RNG.normal(size=(N, 3)) * 5
    np.testing.assert_array_equal(load_npz(tmp_path, x).train.inputs.numpy(), x.astype(np.float32))


@pytest.mark.parametrize("offset", [0, 2**60, -(2**62)])
def test_large_whole_numbers_that_float32_holds_are_stored_as_they_are(tmp_path: Path, offset: int) -> None:
    """What is rounded is what counts: 2 ** 60 and multiples of 2 ** 40 beside it are rounded by nothing."""
    x = (np.arange(N) % 9)[:, None] * 2**40 + offset
    np.testing.assert_array_equal(load_npz(tmp_path, x).train.inputs.numpy(), x.astype(np.float32))


def test_images_have_a_shift_for_each_channel(tmp_path: Path) -> None:
    pixels = RNG.normal(size=(N, 3, 4, 4))
    offset = np.array([0.0, 1e9, -1e12]).reshape(3, 1, 1)
    data = load_npz(tmp_path, pixels + offset)
    exact = (pixels + offset - offset)[data.train.rows.numpy()]  # as float64 holds them
    mean, std = (f(exact, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    np.testing.assert_allclose(seen(data), (exact - mean) / std, atol=1e-5)


def test_the_test_file_is_stored_as_the_training_file_is(tmp_path: Path) -> None:
    x = 1e9 + Z / 1e3
    data = load_npz(tmp_path, x[:90], Y[:90], x_test=x[90:], y_test=Y[90:])
    rows = data.train.rows.numpy()
    mean, std = x[rows].mean(axis=0), x[rows].std(axis=0)
    got = data.test.batch(torch.arange(30))[0].numpy()
    np.testing.assert_allclose(got, (x[90:] - mean) / std, atol=1e-5)


def test_another_shift_is_another_data_set(tmp_path: Path) -> None:
    """The residuals are the same, what they stand for is not."""
    prints = []
    for offset in (2**40, 2**41):
        (tmp_path / str(offset)).mkdir()
        prints.append(load_npz(tmp_path / str(offset), Z + offset).fingerprint)
    assert prints[0] != prints[1]


def parquet(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({**columns, "label": Y}), tmp_path / "data.parquet", row_group_size=50)
    return tmp_path / "data.parquet"


def test_columns_of_parquet(tmp_path: Path) -> None:
    """Beside a categorical column, a plain one, and a list; nanoseconds need more digits than float64 has."""
    times, lists, plain = Z[:, 0] + 1_700_000_000_000_000_000, 1e9 + Z / 1e3, RNG.normal(size=N)
    path = parquet(tmp_path, t=times, c=np.resize(["a", "b"], N), l=pa.array(lists.tolist()), p=plain)
    data = load_data(path, tmp_path)
    x = np.column_stack([Z[:, 0], lists, plain])  # differences to a whole number are exact
    np.testing.assert_allclose(seen(data)[:, [0, 3, 4, 5]], standardised(x, data.train.rows), atol=1e-5)
    np.testing.assert_array_equal(data.train.inputs.numpy()[:, 4], plain.astype(np.float32))


def test_a_column_that_is_whole_in_one_file_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    whole, rest = Z[:60, 0] + 2**40, Z[60:, 0] / 1000 + 2.0**40 + 0.5
    for i, column in enumerate((whole, rest)):
        pq.write_table(pa.table({"a": column, "b": Z[:60, 1], "label": Y[:60]}), folder / f"train-{i}.parquet")
    data = load_data(folder, tmp_path)
    x = np.concatenate([whole.astype(np.float64), rest])[:, None]  # both are exact in float64
    np.testing.assert_allclose(seen(data)[:, :1], standardised(x, data.train.rows), atol=1e-5)
    shifts = np.diff(np.append(data.train.inputs.numpy()[59:61, 0], 0))[:1]
    np.testing.assert_allclose(shifts, rest[0] - whole[-1], rtol=1e-5)


def test_a_column_of_rounding_errors_is_constant_and_said_to_be(tmp_path: Path) -> None:
    noise = np.where(np.arange(N) % 2, 0.1 + 0.2, 0.3)
    data = load_data(parquet(tmp_path, a=noise, b=Z[:, 0]), tmp_path)
    assert np.unique(seen(data)[:, 0]).tolist() == [0.0]
    assert data.notes == (
        "column 'a' varies by 3e-17 at a size of 0.3, in the last digits that float64 holds, and is taken as constant. "
        "Subtract a constant before it is written, or leave it out.",
    )


def test_float32_numbers_that_were_more_exact_once_are_said_to_be_coarse(tmp_path: Path) -> None:
    column = (1e9 + np.resize([0.0, 64.0, 192.0, 64.0], N)).astype(np.float32)  # float32 has steps of 64 there
    data = load_data(parquet(tmp_path, a=column, b=Z[:, 0]), tmp_path)
    np.testing.assert_array_equal(data.train.inputs.numpy()[:, 0], column)
    assert data.notes == (
        "column 'a' holds float32 numbers between 1000000000 and 1000000192, where float32 tells 4 values apart. If "
        "they were more exact once, write them as float64.",
    )


def test_what_is_found_is_told_from_the_cache_too(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=np.where(np.arange(N) % 2, 0.1 + 0.2, 0.3), b=Z[:, 0] + 2**40)
    first = load_data(path, tmp_path)
    (file,) = (tmp_path / "cache" / "data").glob("*.arrow")
    stored = arrays.read(file)
    arrays.verify(file, stored)
    assert stored.meta.notes == first.notes
    assert stored.meta.shift[0] == 0
    assert abs(stored.meta.shift[1] - 2**40 - Z[:, 0].mean()) <= 1
    assert stored.meta.exponent == (0, 0)


@pytest.mark.parametrize(
    ("x", "what"),
    [(np.array([[np.inf, 1.0]]), "0, row 7"), (np.array([[1.0, np.nan]]), "1, row 7")],
)
def test_what_is_not_finite_is_refused_beside_a_shift(tmp_path: Path, x: np.ndarray, what: str) -> None:
    values = 1e9 + Z / 1e3
    values[7] = x
    with pytest.raises(DataError, match=f"got NaN, infinity or nothing in column {what}"):
        load_npz(tmp_path, values)


def test_embeddings_on_an_offset_are_refused(tmp_path: Path) -> None:
    x, e = RNG.normal(size=(N, 2)), 1e9 + RNG.normal(size=(N, 3))
    np.savez(tmp_path / "data.npz", x=x, y=Y, e=e)
    message = (
        "data.embeddings 'e' must vary in digits that float32 holds, got a spread of {:.2g} at a size of 1e+09 in "
        "place 0. Subtract a constant from them, or choose another unit."
    )
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "data.npz", tmp_path, embeddings="e")
    assert str(caught.value) == message.format(e[:, 0].std())
    pq.write_table(pa.table({"x": x[:, 0], "label": Y, "e": e.tolist()}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"data\.embeddings 'e' must vary in digits that float32 holds"):
        load_data(tmp_path / "data.parquet", tmp_path, embeddings="e")


# --- Datasets ---------------------------------------------------------------------------------------------------------


OWN = """
import numpy as np
import torch
Z = np.round(np.random.default_rng(0).normal(size=(120, 2)) * 1000).astype(np.int64)
MADE = {
    "float64": lambda i: torch.tensor(1e9 + Z[i] / 1e3, dtype=torch.float64),
    "int64": lambda i: torch.tensor(Z[i] + 2**60),
    "numpy": lambda i: 1e9 + Z[i] / 1e3,
    "mixed": lambda i: torch.tensor(Z[i] / 1e3, dtype=torch.float32 if i % 2 else torch.float64),
    "lists": lambda i: [1, 2] if i == 0 else list(Z[i] / 1e3),
}
class Rows(torch.utils.data.Dataset):
    def __init__(self, kind): self.kind = kind
    def __len__(self): return 120
    def __getitem__(self, i): return MADE[self.kind](i), i % 3
"""


@pytest.mark.parametrize("kind", ["float64", "int64", "numpy", "mixed", "lists"])
def test_a_dataset_of_wide_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "own_wide_rows.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = load_data("own_wide_rows:Rows", tmp_path, options={"kind": kind})
    x = Z.astype(np.float64) if kind in ("int64",) else Z / 1e3
    if kind == "lists":
        x[0] = [1, 2]
    np.testing.assert_allclose(seen(data), standardised(x, data.train.rows), atol=1e-4)


# --- targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda z: z, np.float32),
        (lambda z: 100 + z, np.float32),
        (lambda z: 1e6 + z, np.float64),
        (lambda z: 1e9 + z, np.float64),
        (lambda z: z * 1e-20, np.float32),
        (lambda z: z * 1e-40, np.float64),
        (lambda z: z * 1e40, np.float64),
        (lambda z: np.round(z * 1000).astype(np.int64) + 2**50, np.float64),
        (lambda z: (1e9 + 64 * np.round(z * 10)).astype(np.float32), np.float64),
    ],
)
def test_targets_are_wide_where_float32_is_not_enough(make: Callable[[np.ndarray], np.ndarray], dtype: Any) -> None:
    values = make(RNG.normal(size=200))
    stored = targets(values, 150)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, values.astype(dtype))


@pytest.mark.parametrize("columns", [1, 2])
def test_mean_and_spread_of_wide_targets(tmp_path: Path, columns: int) -> None:
    y = 1e9 + RNG.normal(size=(N, columns))
    y = y[:, 0] if columns == 1 else y
    data = load_npz(tmp_path, Z.astype(np.float64), y, "mae")
    train = y[data.train.rows.numpy()]
    assert data.train.targets.dtype == torch.float64
    np.testing.assert_array_equal(np.asarray(data.target_mean), train.mean(axis=0))
    np.testing.assert_array_equal(np.asarray(data.target_std), train.std(axis=0))


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_lists_of_wide_targets(tmp_path: Path, dtype: Any) -> None:
    y = (1e9 + Z).astype(dtype)
    pq.write_table(pa.table({"a": Z[:, 0], "label": list(y)}), tmp_path / "data.parquet", row_group_size=50)
    data = load_data(tmp_path / "data.parquet", tmp_path, "mae")
    np.testing.assert_array_equal(data.train.all_targets.numpy(), y)


BAD_TARGETS: dict[str, tuple[np.ndarray, str]] = {
    "ids": (
        Z[:, 0] + 2**60,
        "labels must vary in digits that float64 holds, got a spread of {std:.2g} at a size of 1.15e+18. Subtract a "
        "constant from them.",
    ),
    "noise": (
        np.where(np.arange(N) % 2, 0.1 + 0.2, 0.3),
        "labels must vary in digits that float64 holds, got a spread of {std:.2g} at a size of 0.3. Subtract a "
        "constant from them.",
    ),
    "large": (
        Z[:, 0] * 1e300,
        "labels must have a spread between 3e-151 and 3e+150, got {std:.2g}. Choose another unit.",
    ),
    "small": (
        Z[:, 0] * 1e-200,
        "labels must have a spread between 3e-151 and 3e+150, got {std:.2g}. Choose another unit.",
    ),
}


@pytest.mark.parametrize("case", list(BAD_TARGETS))
def test_targets_that_no_metric_can_judge(tmp_path: Path, case: str) -> None:
    y, message = BAD_TARGETS[case]
    std = {"ids": Z[:, 0].std(), "noise": 2.0**-55, "large": Z[:, 0].std() * 1e300, "small": Z[:, 0].std() * 1e-200}
    with pytest.raises(DataError) as caught:
        load_npz(tmp_path, Z.astype(np.float64), y, "mse")
    assert str(caught.value) == message.format(std=std[case])


# --- the sums behind it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 3), (50, 3, 4)])
def test_stored_numbers_come_back_in_their_units(shape: tuple[int, ...]) -> None:
    scale = np.array([1.0, 1e-300, 1e200]).reshape(3, *[1] * (len(shape) - 2))
    exact = (RNG.normal(size=shape) + np.array([1e9, 0, 0]).reshape(scale.shape)) * scale
    with np.errstate(over="ignore"):
        stored = exact.astype(np.float32)
    scaling = kept(stored, lambda: iter([(0, 0, exact)]), len(exact))
    assert np.isfinite(stored).all()
    np.testing.assert_allclose(scaling.restored(stored) / scale, exact / scale, atol=1e-6)
    assert Scaling().restored(stored).tolist() == stored.tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_differences_of_whole_numbers_are_exact(dtype: Any) -> None:
    info = np.iinfo(dtype)
    values = np.array([[info.min], [info.max], [info.max - 1], [2**62], [2**53 + 1]], dtype)
    for origin in (info.max - 3, 0, 2**53, 2**40 + 0.5):
        expected = [float(int(value) - Fraction(origin)) for value in values[:, 0]]
        np.testing.assert_allclose(less(values, [origin])[:, 0], expected, rtol=2**-52)
    assert less(values, [info.max - 3])[1:3, 0].tolist() == [3.0, 2.0]


@pytest.mark.parametrize("size", [1.0, 1e-300, 1e150, 1e300])
def test_spreads_come_block_by_block_and_pass_over_what_is_not_finite(size: float) -> None:
    values = RNG.normal(size=(1000, 3)) * [1, 10, 100] + [0, 5, -7]
    spreads = Spreads(3)
    for block in np.split(np.vstack([values, np.full((2, 3), np.nan)]) * size, [1, 400]):
        spreads.add(block)
    np.testing.assert_allclose(spreads.std / size, values.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.array(spreads.mean) / size, values.mean(axis=0), rtol=1e-9, atol=1e-12)


def test_series_in_lists_keep_what_varies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = 1e9 + rng.normal(size=(200, 3, 5))
    table = pa.table({"x": x.tolist(), "label": (x[:, 0, 0] > 1e9).astype(int)})
    pq.write_table(table, tmp_path / "a.parquet")
    data = Data(source=str(tmp_path / "a.parquet"), layout="series")
    found = fetch(data, "classification", DataPaths(cache=str(tmp_path / "cache")))
    shift = np.array(found.meta.shift)[:, None]
    stored = found.inputs.numpy().astype(np.float64) * 2.0 ** np.array(found.meta.exponent)[:, None] + shift
    assert np.abs(stored - x).max() < 1e-5
