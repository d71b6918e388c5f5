"""Missing numbers: refused, or filled by the median of the training part alone, with a column that says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tables import column, load_csv, load_source, pets

from subsettune.data.impute import fill_missing, filled_copy
from subsettune.errors import DataError

RNG = np.random.default_rng(0)
N = 200


def write(folder: Path, name: str = "d.parquet", **columns: object) -> Path:
    path = folder / name
    pq.write_table(pa.table({**columns, "label": RNG.permutation(N) % 2}), path)
    return path


def holes(values: np.ndarray, every: int = 5) -> list[float | None]:
    return [None if i % every == 0 else value for i, value in enumerate(values.tolist())]


def test_the_median_is_that_of_the_training_part(tmp_path: Path) -> None:
    values = RNG.normal(size=N)
    data = load_source(write(tmp_path, x=holes(values), y=RNG.normal(size=N)), tmp_path / "cache", impute="median")
    assert (data.input_shape, column(data, "x").width, column(data, "x").missing) == ((3,), 2, N // 5)
    rows = data.train.rows.numpy()
    wanted = np.float32(np.median(values[[i for i in rows if i % 5]].astype(np.float32)))
    missing = np.arange(N) % 5 == 0
    assert (data.train.inputs[missing, 0] == float(wanted)).all()
    assert data.train.inputs[:, 1].tolist() == missing.astype(float).tolist()
    other = load_source(tmp_path / "d.parquet", tmp_path / "cache", impute="median", split={"seed": 5})
    assert float(other.train.inputs[0, 0]) != float(wanted)  # of another training part
    again = load_source(tmp_path / "d.parquet", tmp_path / "cache", impute="median")
    assert again.fingerprint == data.fingerprint
    assert torch.isfinite(again.train.batch(torch.arange(len(again.train)))[0]).all()


def test_large_whole_numbers_keep_what_varies_beside_missing_ones(tmp_path: Path) -> None:
    """As float32 alone, times with gaps would lose the seconds that they differ by."""
    times = 1_700_000_000 + RNG.permutation(N)
    column_of = pa.array(holes(times), pa.int64())
    data = load_source(write(tmp_path, t=column_of), tmp_path / "cache", impute="median")
    found = data.train.batch(torch.arange(len(data.train)))[0][:, 0].double()
    rows = [i for i in data.train.rows.tolist() if i % 5]
    exact = torch.tensor(times[rows] - 1_700_000_000, dtype=torch.float64)
    mine = found[[i for i, row in enumerate(data.train.rows.tolist()) if row % 5]]
    slope = (mine[1] - mine[0]) / (exact[1] - exact[0])
    assert torch.allclose(mine - mine[0], (exact - exact[0]) * slope, atol=1e-4)


def test_texts_booleans_and_dates_beside(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        flag=pa.array([None if i % 9 == 0 else i % 2 == 0 for i in range(N)]),
        when=pa.array(holes(np.arange(N)), pa.int64()).cast(pa.timestamp("s")),
        city=["Rome" if i % 3 else None for i in range(N)],
    )
    data = load_source(path, tmp_path / "cache", impute="median", dates="cyclic")
    assert [(c.name, c.width) for c in data.facts.columns] == [("flag", 2), ("when", 8), ("city", 2), ("label", 1)]
    encoded = data.train.batch(torch.arange(len(data.train)))[0]
    assert torch.isfinite(encoded).all()
    circles = data.train.inputs[::5, 4:10]
    assert (circles == 0).all()  # a missing time lies in the middle of each circle


def test_refusals(tmp_path: Path) -> None:
    path = write(tmp_path, x=holes(RNG.normal(size=N)), y=pa.array([None] * N, pa.float64()))
    with pytest.raises(DataError) as caught:
        load_source(path, tmp_path / "cache", impute="median")
    assert str(caught.value) == (
        "column 'y' must have a number in the training part to be filled with their median, got none. Leave it out: "
        "data.exclude: [y]."
    )
    infinite = write(tmp_path, "i.parquet", x=[float("inf"), None, *RNG.normal(size=N - 2)])
    with pytest.raises(DataError, match=r"in column 'x', row 0\. Fill it, or drop the row or the column\.$"):
        load_source(infinite, tmp_path / "cache", impute="median")
    taken = write(tmp_path, "t.parquet", **{"x": holes(RNG.normal(size=N)), "x.missing": RNG.normal(size=N)})
    with pytest.raises(DataError, match=r"column 'x\.missing' has the name of one that is made beside another\."):
        load_source(taken, tmp_path / "cache", impute="median")
    with pytest.raises(DataError, match=r"data\.impute means nothing to 'digits': its input and label are known\."):
        load_source("digits", tmp_path / "cache", impute="median")


def test_csv_with_missing_numbers(tmp_path: Path) -> None:
    data = load_csv(tmp_path, pets() + ",red,1,cat\nNA,blue,2,dog\n", impute="median")
    assert column(data, "a").missing == 2
    assert data.train.inputs[60:, 1].tolist() == [1.0, 1.0]


def test_nothing_missing_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, x=RNG.normal(size=N))
    with_key = load_source(path, tmp_path / "cache", impute="median")
    assert with_key.fingerprint == load_source(path, tmp_path / "cache").fingerprint


def test_filling() -> None:
    inputs = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0], [9.0, np.nan]], dtype=np.float32)
    copy = filled_copy(inputs, [(0, "a"), (1, "b")], 3)
    assert copy.tolist() == [[1.0, 3.0], [2.0, 2.0], [3.0, 4.0], [9.0, 3.0]]
    assert np.isnan(inputs).sum() == 3
    fill_missing(inputs, [(0, "a")], np.array([2, 3]))
    assert inputs[1, 0] == 6.0
