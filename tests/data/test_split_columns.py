"""Parts by a column: whole groups, the latest rows, or the parts that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import column, load_source

from subsettune.data import TaskData
from subsettune.data.audit import audit
from subsettune.data.split_columns import _cut
from subsettune.errors import ConfigError, DataError
from subsettune.task import Split

RNG = np.random.default_rng(0)
N = 300
GROUP = RNG.integers(0, 30, N)
TIME = RNG.permutation(N)


def table(**more: Any) -> pa.Table:
    base = {"x": np.random.default_rng(1).normal(size=N), "label": np.random.default_rng(2).integers(0, 3, N)}
    return pa.table({**base, "patient": [f"p{g}" for g in GROUP], "at": TIME, **more})


def loaded(folder: Path, made: pa.Table | None = None, **given_keys: Any) -> TaskData:
    pq.write_table(table() if made is None else made, folder / "d.parquet")
    return load_source(folder / "d.parquet", folder / "cache", **given_keys)


def rows(data: TaskData) -> list[np.ndarray]:
    return [part.rows.numpy() for part in (data.train, data.validation, data.test)]


def test_a_group_stands_in_one_part(tmp_path: Path) -> None:
    data = loaded(tmp_path, split={"by": "patient", "validation": 0.2, "test": 0.3})
    parts = rows(data)
    assert sorted(np.concatenate(parts)) == list(range(N))
    groups = [set(GROUP[part]) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert len(parts[1]) == pytest.approx(0.2 * N, abs=12)
    assert len(parts[2]) == pytest.approx(0.3 * N, abs=12)
    assert column(data, "patient").role == "split"
    assert data.input_shape == (2,)  # the group itself is no input
    told = audit(data, Split(by="patient", validation=0.2, test=0.3)).split
    assert told == (
        "No official test set. Test part: 0.3, and validation part: 0.2 of 300 examples, whole groups of column "
        "'patient', seed 0."
    )
    again = loaded(tmp_path, split={"by": "patient", "validation": 0.2, "test": 0.3})
    assert [part.tolist() for part in rows(again)] == [part.tolist() for part in parts]
    other = loaded(tmp_path, split={"by": "patient", "validation": 0.2, "test": 0.3, "seed": 1})
    assert rows(other)[2].tolist() != parts[2].tolist()


def test_a_space_makes_no_group(tmp_path: Path) -> None:
    """A patient who is written "P1" and "P1 " is one, in Parquet as in .csv; one of spaces is none."""
    ends = np.array(["", " ", "\u200b"])[np.arange(N) % 3]
    made = table(patient=[f"p{g}{end}" for g, end in zip(GROUP, ends, strict=True)])
    parts = rows(loaded(tmp_path, made, split={"by": "patient"}))
    assert sum(len(set(GROUP[part])) for part in parts) == len(set(GROUP))
    plain = rows(loaded(tmp_path, split={"by": "patient"}))
    assert [part.tolist() for part in parts] == [part.tolist() for part in plain]
    blank = table(patient=["p" if i != 7 else " " for i in range(N)])
    with pytest.raises(DataError, match=r"must have a value in each row to split by it, got none in row 7 of "):
        loaded(tmp_path, blank, split={"by": "patient"})


def test_whole_numbers_are_groups_and_may_be_features(tmp_path: Path) -> None:
    made = table(site=GROUP + 2**53)  # which float64 would mix up
    data = loaded(tmp_path, made, split={"by": "site"}, features=("x", "site"))
    parts = rows(data)
    assert not set(GROUP[parts[0]]) & set(GROUP[parts[2]])
    assert data.input_shape == (2,)


def test_the_latest_rows_are_the_test_part(tmp_path: Path) -> None:
    train, validation, test = rows(loaded(tmp_path, split={"time": "at", "validation": 0.1, "test": 0.2}))
    assert (len(train), len(validation), len(test)) == (210, 30, 60)
    assert TIME[train].max() < TIME[validation].min() <= TIME[validation].max() < TIME[test].min()


def test_rows_of_one_time_stay_together(tmp_path: Path) -> None:
    days = pa.array(np.asarray(TIME // 30, dtype=np.int32), pa.date32())
    train, validation, test = rows(loaded(tmp_path, table(day=days), split={"time": "day"}))
    assert [sorted(set(TIME[part] // 30)) for part in (train, validation, test)] == [list(range(7)), [7], [8, 9]]


def test_texts_of_time_need_a_format(tmp_path: Path) -> None:
    texts = [f"{1 + t // 30}.1.2024" for t in TIME]
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, table(day=texts), split={"time": "day"})
    assert "must hold dates or numbers to split by time, got texts as " in str(caught.value)
    data = loaded(tmp_path, table(day=texts), split={"time": "day"}, date_formats={"day": "%d.%m.%Y"})
    assert TIME[rows(data)[0]].max() < TIME[rows(data)[2]].min()


def test_parts_that_a_column_names(tmp_path: Path) -> None:
    names = np.array(["train", "Train ", "val", "test", "training"])[np.arange(N) % 5]
    data = loaded(tmp_path, table(part=names), split={"column": "part"})
    assert [np.unique(part % 5).tolist() for part in rows(data)] == [[0, 1, 4], [2], [3]]
    assert data.from_files == {"validation": False, "test": False}


def test_parts_that_a_column_does_not_name_are_drawn(tmp_path: Path) -> None:
    names = np.array(["train", "test"])[(np.arange(N) % 5 == 0).astype(int)]
    train, validation, test = rows(loaded(tmp_path, table(part=names), split={"column": "part", "validation": 0.25}))
    assert np.unique(test % 5).tolist() == [0]
    assert (len(train), len(validation), len(test)) == (180, 60, 60)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "absent": ({"by": "pationt"}, "has no column 'pationt'. Did you mean 'patient'? Its columns: "),
    "label": ({"by": "label"}, "split must go by another column than the label, got 'label'. Name another."),
    "few": ({"by": "two"}, "column 'two' must have at least 3 groups, one for each part, got 2. Name another column."),
    "few_times": ({"time": "two"}, "column 'two' must have at least 3 times, one for each part, got 2. Name another"),
    "names": ({"column": "patient"}, "must hold train, validation or test in each row, got 'p"),
    "numbers": ({"column": "at"}, "column 'at' must name parts (train, validation, test), got numbers. Write texts."),
    "holes": ({"by": "holes"}, "column 'holes' must have a value in each row to split by it, got none in row 7 of "),
    "classes": ({"time": "sorted"}, "must have examples in the test part, got none. Choose larger shares, or drop the"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns(tmp_path: Path, case: str) -> None:
    split, message = BAD[case]
    labels = np.random.default_rng(2).integers(0, 3, N)
    two = [i % 2 for i in range(N)]
    made = table(two=two, holes=[None if i == 7 else i for i in range(N)], sorted=labels * 1000 + np.arange(N))
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, made, split=split, features=("x",))
    assert message in str(caught.value)


def test_a_split_goes_by_one_column_of_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"time must be left out beside by: a split goes by one column\. Remove one"):
        Split(by="a", time="b")
    with pytest.raises(
        DataError, match=r"split by 'x' means nothing to 'digits', which has no columns\. Remove the key"
    ):
        load_source("digits", tmp_path, split={"by": "x"})


def test_groups_of_training_and_test_file(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("test", 1)):
        made = pa.table(
            {"x": RNG.normal(size=90), "g": [f"g{first + i % 9}" for i in range(90)], "label": RNG.permutation(90) % 2}
        )
        pq.write_table(made, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError) as caught:
        load_source(tmp_path, tmp_path / "cache", split={"by": "g"})
    assert str(caught.value) == (
        "groups of 'g' must stand in one file each, got 'g1' in the training and the test file. Move its rows into one "
        "of them."
    )


def test_keys_of_studies_without_a_column_are_as_before() -> None:
    assert Split().to_mapping() == {"validation": 0.1, "test": None, "seed": 0}
    assert Split(by="g").to_mapping() == {"validation": 0.1, "test": None, "seed": 0, "by": "g"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=3, max_size=40), st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_each_part_gets_a_group_and_nearly_its_share(sizes: list[int], test: float, validation: float) -> None:
    parts = _cut(np.array(sizes), {"test": test, "validation": validation})
    assert set(parts.tolist()) == {0, 1, 2}
    assert (np.diff(parts) >= 0).all()
    first = np.array(sizes)[parts == 0].sum()
    nearest = min(abs(total - test * sum(sizes)) for total in np.cumsum(sizes)[: len(sizes) - 2])
    assert abs(first - test * sum(sizes)) == pytest.approx(nearest)
