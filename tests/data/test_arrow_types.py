"""Arrow's several types for one thing give the same data."""

from __future__ import annotations

import decimal
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from subsettune.data import DataPaths, TaskData, load
from subsettune.data.arrow_types import is_time, plain, plain_column, plain_schema
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Task

N = 60
WORDS = pa.array([["x", "y", None, "z z"][i % 4] for i in range(N)])
NAMES = pa.array([["x", "y"][i % 2] for i in range(N)])
TEXT_TYPES = [
    pa.string_view(),
    pa.large_string(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


def load_table(tmp_path: Path, **columns: Any) -> TaskData:
    path = tmp_path / "data.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    task = Task(
        data=Data(source=str(path)),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(tmp_path / "cache")))


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_texts_of_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    numbers = np.arange(N) / 7
    expected = load_table(tmp_path / "plain", a=numbers, k=WORDS, label=NAMES)
    found = load_table(tmp_path, a=numbers, k=WORDS.cast(kind), label=NAMES.cast(kind))
    assert (found.fingerprint, found.class_names) == (expected.fingerprint, ("x", "y"))
    texts = pa.array([f"w{i % 7} good" for i in range(N)])
    expected = load_table(tmp_path / "plain", text=texts, label=NAMES)
    found = load_table(tmp_path, text=texts.cast(kind), label=NAMES)
    assert found.fingerprint == expected.fingerprint


def png(i: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (4, 4), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def as_struct(images: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([images, pa.nulls(N, pa.string())], ["bytes", "path"])


def same(images: pa.Array) -> pa.Array:
    return images


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("form", [same, as_struct])
def test_images_of_any_type(tmp_path: Path, kind: pa.DataType, form: Any) -> None:
    images = pa.array([png(i) for i in range(N)])
    expected = load_table(tmp_path / "plain", image=images, label=NAMES)
    found = load_table(tmp_path, image=form(images.cast(kind)), label=NAMES)
    assert (found.input_shape, found.fingerprint) == ((1, 4, 4), expected.fingerprint)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([decimal.Decimal(i % 9) / 4 for i in range(N)]),
        pa.array([i % 9 / 4 for i in range(N)], pa.float32()),
        pa.array(np.float16([i % 9 / 4 for i in range(N)])),
        pa.array([i % 9 / 4 for i in range(N)]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:9],
)
def test_numbers_of_any_type(tmp_path: Path, column: pa.Array) -> None:
    rest = {"a": np.arange(N) / 7, "label": NAMES}
    expected = load_table(tmp_path / "plain", **rest, k=[i % 9 / 4 for i in range(N)])
    assert load_table(tmp_path, **rest, k=column).fingerprint == expected.fingerprint


def test_values_that_are_missing_stay_missing() -> None:
    views = pa.array(["x", "y"]).cast(pa.string_view())
    found = plain_column(pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), views))
    assert (found.to_pylist(), found.type) == (["y", None, "x"], pa.large_string())
    assert plain_column(WORDS) is WORDS


def test_lists_and_structs_are_plain_all_the_way_down() -> None:
    inner = pa.struct([("a", pa.list_(pa.string_view())), ("b", pa.list_(pa.decimal128(5, 2), 3))])
    assert plain(pa.large_list(inner)) == pa.large_list(
        pa.struct([("a", pa.list_(pa.large_string())), ("b", pa.list_(pa.float64(), 3))])
    )


class Period(pa.ExtensionType):
    """As pandas defines it; not registered."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "pandas.period")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (pa.field("a", pa.date32()), False),
        (pa.field("a", pa.month_day_nano_interval()), True),
        (pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"}), True),
        (pa.field("a", Period()), True),
        (pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "arrow.uuid"}), False),
        (pa.field("a", pa.int64()), False),
    ],
)
def test_times_are_known_whether_their_type_is_registered_or_not(field: pa.Field, expected: bool) -> None:
    found = plain_schema(pa.schema([field])).field("a")
    assert is_time(found) == expected
    assert not isinstance(found.type, pa.BaseExtensionType)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    """It was a KeyError of Arrow's, with a traceback."""
    values = pa.array(np.arange(N) / 7)
    for names, twice in ((["a", "a", "label"], "a"), (["a", "label", "label"], "label")):
        made = pa.Table.from_arrays([values, values, NAMES], names=names)
        pq.write_table(made, tmp_path / "twice.parquet")
        with pytest.raises(DataError) as caught:
            load(
                Task(
                    data=Data(source=str(tmp_path / "twice.parquet")),
                    model=Model(name="mlp"),
                    recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
                    tolerance=0.01,
                ),
                DataPaths(cache=str(tmp_path / "cache")),
            )
        assert str(caught.value) == (
            f"{tmp_path}/twice.parquet has more than one column {twice!r}. Rename or drop all but one of them."
        )
