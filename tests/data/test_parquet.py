"""Parquet as users and the Hugging Face hub write it: real files, and every way they can be wrong."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from subsettune.data import DataPaths, TaskData, load, scratch
from subsettune.data.parquet import read_parquet
from subsettune.errors import DataError, DataNotFoundError
from subsettune.task import Data, Model, Recipe, Split, Task

RNG = np.random.default_rng(0)
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def load_file(path: Path, metric: str = "accuracy", split: Split | None = None, **data: Any) -> TaskData:
    task = Task(
        data=Data(source=str(path), **data),
        split=split or Split(),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,  # type: ignore[arg-type]
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(path.parent / "cache"), download=False))


def encode(pixels: np.ndarray, form: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(buffer, format=form)
    return buffer.getvalue()


def images_table(images: list[bytes], labels: list[Any], plain: bool = False) -> pa.Table:
    column = pa.array(images, pa.binary())
    if not plain:
        column = pa.StructArray.from_arrays(
            [column, pa.array([None] * len(images), pa.string())], fields=list(IMAGE_TYPE)
        )
    return pa.table({"image": column, "label": labels})


def numbers_table(num_rows: int = 60, **columns: Any) -> pa.Table:
    base = {"a": np.arange(num_rows, dtype=np.float64), "b": np.arange(num_rows) % 7, "label": np.arange(num_rows) % 3}
    return pa.table({**base, **columns})


def write(tmp_path: Path, table: pa.Table, name: str = "data.parquet") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def stored(data: TaskData) -> np.ndarray:
    """The inputs as they are in the cache, in the order of the source."""
    return data.train.inputs.numpy()


# --- images ----------------------------------------------------------------------------------------------------------


def test_cifar_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    """Structs of PNG bytes, row groups, names of classes in the schema, a training and a test file."""
    pixels = RNG.integers(0, 256, (2400, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(2400) % 10
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for part, rows in (("train", slice(0, 2000)), ("test", slice(2000, 2400))):
        table = images_table([encode(image) for image in pixels[rows]], list(labels[rows]))
        table = table.replace_schema_metadata({"classes": json.dumps(names)})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=512)
    data = load_file(tmp_path)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names == tuple(names)
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 400)
    np.testing.assert_array_equal(stored(data), pixels.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.train.all_targets.numpy(), labels)
    assert data.test.rows.tolist() == list(range(2000, 2400))


def test_class_label_names_of_the_hub(tmp_path: Path) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "a": {"dtype": "float32", "_type": "Value"}}
    info = json.dumps({"info": {"features": features}})
    table = pa.table({"a": RNG.normal(size=40), "label": np.arange(40) % 2})
    path = write(tmp_path, table.replace_schema_metadata({"huggingface": info}))
    assert load_file(path).class_names == ("no", "yes")


@pytest.mark.parametrize("plain", [False, True])
def test_struct_and_plain_bytes_are_the_same(tmp_path: Path, plain: bool) -> None:
    pixels = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
    path = write(tmp_path, images_table([encode(p) for p in pixels], [0, 1] * 10, plain))
    data = load_file(path)
    assert data.input_shape == (1, 6, 5)
    np.testing.assert_array_equal(stored(data)[:, 0], pixels)


@pytest.mark.parametrize(
    ("mode", "form", "channels"),
    [
        *(("L", "PNG", 1), ("1", "PNG", 1), ("LA", "PNG", 1), ("RGB", "PNG", 3), ("RGBA", "PNG", 3), ("P", "PNG", 3)),
        *(("L", "JPEG", 1), ("RGB", "JPEG", 3), ("CMYK", "JPEG", 3), ("P", "GIF", 3)),
    ],
)
def test_every_kind_of_image_is_what_pillow_makes_of_it(tmp_path: Path, mode: str, form: str, channels: int) -> None:
    pixels = RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    encoded = [encode(p, form, mode) for p in pixels]
    data = load_file(write(tmp_path, images_table(encoded, [0, 1] * 10)))
    expected = [np.asarray(Image.open(io.BytesIO(e)).convert("L" if channels == 1 else "RGB")) for e in encoded]
    got = stored(data)
    assert got.shape == (20, channels, 8, 8)
    np.testing.assert_array_equal(got[:, 0] if channels == 1 else got.transpose(0, 2, 3, 1), np.stack(expected))


def test_a_palette_with_transparency_raises_no_warning(tmp_path: Path) -> None:
    encoded = []
    for pixels in RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("P").save(buffer, format="PNG", transparency=bytes([0, 128, 255]))
        encoded.append(buffer.getvalue())
    assert load_file(write(tmp_path, images_table(encoded, [0, 1] * 10))).input_shape == (3, 8, 8)


def test_an_image_column_of_another_name(tmp_path: Path) -> None:
    table = images_table([encode(p) for p in RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)], [0, 1] * 10)
    path = write(tmp_path, table.rename_columns(["img", "fine_label"]))
    assert load_file(path, features=["img"], label="fine_label").input_shape == (1, 4, 4)


GREY = encode(np.zeros((4, 4), dtype=np.uint8))
BAD_IMAGES = {
    "size": (
        [GREY, encode(np.zeros((5, 4), dtype=np.uint8))],
        "inputs must have one shape, got (1, 4, 4) and (1, 5, 4) (row 1 of data.parquet). Scale "
        "them to one: data.resize: [64, 64], or another height and width.",
    ),
    "channels": (
        [GREY, encode(np.zeros((4, 4, 3), dtype=np.uint8))],
        "images must be all grey or all RGB, got 1 and 3 channels (row 1 of data.parquet). Make all of them so: "
        "data.color: rgb, or grey.",
    ),
    "missing": (
        [GREY, None],
        "column 'image' must hold encoded bytes, got nothing in row 1 of data.parquet. Embed the files.",
    ),
    "depth": (
        [GREY, encode(np.zeros((4, 4), dtype=np.uint16))],
        "images must have 8 bits a channel in all rows, or more in all, got both (row 1 of data.parquet). Convert them "
        "beforehand.",
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(tmp_path: Path, case: str) -> None:
    images, message = BAD_IMAGES[case]
    path = write(tmp_path, images_table(images, [0, 1]))
    with pytest.raises(DataError) as caught:
        load_file(path)
    assert str(caught.value) == message


@pytest.mark.parametrize("content", [b"", b"no image", GREY[:20], GREY[:45]], ids=["empty", "text", "head", "half"])
def test_undecodable_images_name_their_row(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, images_table([GREY, content], [0, 1]))
    with pytest.raises(
        DataError, match=r"^image in row 1 of data.parquet cannot be decoded: .*\. Write it again, as PNG or JPEG\.$"
    ):
        load_file(path)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numeric_columns_in_their_order(tmp_path: Path) -> None:
    table = numbers_table(c=np.arange(60) % 2 == 0, d=pa.array([[i, -i] for i in range(60)], pa.list_(pa.int32())))
    data = load_file(write(tmp_path, table))
    assert data.input_shape == (5,)  # a, b, c, and the two numbers of d
    n = np.arange(60)
    np.testing.assert_array_equal(stored(data), np.stack([n, n % 7, n % 2 == 0, n, -n], axis=1).astype(np.float32))


def test_chosen_features_only(tmp_path: Path) -> None:
    path = write(tmp_path, numbers_table(name=[f"row {i}" for i in range(60)]))
    assert load_file(path, features=["b"]).input_shape == (1,)


def test_texts_bools_and_categories_are_classes(tmp_path: Path) -> None:
    words = [("dog", "cat", "bird")[i % 3] for i in range(60)]
    for i, (column, names) in enumerate(
        [
            (pa.array(words), ("bird", "cat", "dog")),
            (pa.array(words, pa.large_string()), ("bird", "cat", "dog")),
            (pa.array(words).dictionary_encode(), ("bird", "cat", "dog")),
            (pa.array([i % 2 == 0 for i in range(60)]), ("0", "1")),
            (pa.array([float(i % 2) for i in range(60)]), ("0", "1")),
            (pa.array([i % 2 for i in range(60)], pa.uint8()), ("0", "1")),
        ]
    ):
        data = load_file(write(tmp_path, numbers_table(label=column), f"{i}.parquet"))
        assert data.class_names == names
        assert data.num_outputs == len(names)
    data = load_file(tmp_path / "0.parquet")
    assert [data.class_names[c] for c in data.train.all_targets.tolist()] == words


def test_texts_mean_the_same_in_training_and_test_files(tmp_path: Path) -> None:
    write(tmp_path, numbers_table(label=["b", "a", "c"] * 20), "d/train-00000-of-00001.parquet")
    write(tmp_path, numbers_table(label=["c", "b", "a"] * 20), "d/test-00000-of-00001.parquet")
    data = load_file(tmp_path / "d")
    assert data.train.all_targets.tolist() == [1, 0, 2] * 20 + [2, 1, 0] * 20


def test_regression_on_one_and_on_several_targets(tmp_path: Path) -> None:
    one = load_file(write(tmp_path, numbers_table(label=np.linspace(0, 59, 60)), "one.parquet"), "mse")
    assert (one.num_outputs, one.num_classes, one.kind, one.class_names) == (1, 0, "regression", ())
    assert isinstance(one.target_mean, float)
    rows = one.train.rows.double()
    assert one.target_mean == pytest.approx(float(rows.mean()))
    assert one.target_std == pytest.approx(float(rows.std(correction=0)))
    pairs = pa.array([[float(i), 100.0 - i] for i in range(60)], pa.list_(pa.float64()))
    two = load_file(write(tmp_path, numbers_table(label=pairs), "two.parquet"), "mse")
    assert two.num_outputs == 2
    assert two.train.batch(torch.arange(3))[1].shape == (3, 2)
    assert isinstance(two.target_mean, torch.Tensor)
    torch.testing.assert_close(two.target_mean.sum(), torch.tensor(100.0))


def test_folders_take_train_and_validation_and_test(tmp_path: Path) -> None:
    """A validation file was left alone, and the part drawn from training rows."""
    for name in ("train-0", "train-1", "validation-0"):
        write(tmp_path, numbers_table(), f"d/{name}.parquet")
    data = load_file(tmp_path / "d")
    assert data.num_source_examples == 120
    assert (len(data.train), len(data.validation), len(data.test)) == (96, 60, 24)
    assert data.from_files == {"validation": True, "test": False}
    assert data.facts.validation_files == ("validation-0.parquet",)
    write(tmp_path, numbers_table(), "d/test.parquet")
    data = load_file(tmp_path / "d")
    assert [part.rows.tolist() for part in (data.train, data.validation, data.test)] == [
        list(range(120)),
        list(range(120, 180)),
        list(range(180, 240)),
    ]
    with pytest.raises(DataError) as caught:
        load_file(tmp_path / "d", split=Split(validation=0.2))
    assert str(caught.value) == (
        "split.validation must be left out for data that have a validation file, got 0.2. Remove the key."
    )


def test_a_validation_file_without_labels_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path, numbers_table(), "d/train.parquet")
    (tmp_path / "d/dev.csv").write_text("a,b,label\n1,2,0\n")
    with pytest.raises(DataError, match=r"must hold training and validation files of one kind, got train.parquet and "):
        load_file(tmp_path / "d")
    (tmp_path / "d/dev.csv").unlink()
    write(tmp_path, numbers_table(label=[-1] * 60), "d/dev.parquet")
    with pytest.raises(DataError) as caught:
        load_file(tmp_path / "d")
    assert str(caught.value) == (
        f"{tmp_path}/d/dev.parquet has no labels: column 'label' holds nothing but -1, which stands for a hidden "
        "label. Nothing can be chosen on it: move it out of the folder, and a validation part is drawn from the "
        "training file, of the share task.split.validation."
    )


def test_a_relative_path_starts_at_the_data_root_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, numbers_table())
    task = Task(
        data=Data(source="data.parquet"),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    rooted = load(task, DataPaths(cache=str(tmp_path / "c"), data_root=str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    assert load(task, DataPaths(cache=str(tmp_path / "c"))).fingerprint == rooted.fingerprint


def test_a_rewritten_file_is_read_again(tmp_path: Path) -> None:
    first = load_file(write(tmp_path, numbers_table()))
    second = load_file(write(tmp_path, numbers_table(b=np.arange(60) % 5)))
    assert first.fingerprint != second.fingerprint


BAD_TABLES: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "no_label": (
        numbers_table().drop_columns("label"),
        {},
        "{path} has no column 'label'. Its columns: a, b. Set data.label and data.features.",
    ),
    "no_feature": (
        numbers_table(),
        {"features": ["z"]},
        "{path} has no column 'z'. Its columns: a, b, label. Set data.label and data.features.",
    ),
    "label_as_feature": (
        numbers_table(),
        {"features": ["a", "label"]},
        "data.label must not be among data.features, got 'label' in both. Remove it there.",
    ),
    "only_label": (
        numbers_table().select(["label"]),
        {},
        "{path} has no column besides the label 'label'. Add the features.",
    ),
    "nan": (
        numbers_table(a=[1.0] * 7 + [float("nan")] + [1.0] * 52),
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 'a', row 7. "
        "Fill it (data.impute: median does), or drop the row or the column.",
    ),
    "null": (
        numbers_table(b=[1] * 9 + [None] + [1] * 50),
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 'b', row 9. "
        "Fill it (data.impute: median does), or drop the row or the column.",
    ),
    "infinite": (
        numbers_table(a=[np.inf] * 60),
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 'a', row 0. "
        "Fill it, or drop the row or the column.",
    ),
    "ragged": (
        numbers_table(a=[[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]] * 54),
        {},
        "lists of column 'a' must have one length, got 2 and 1 (row 5). Cut or drop them.",
    ),
    "no_list": (
        numbers_table(a=[None] + [[1.0, 2.0]] * 59),
        {},
        "lists of column 'a' must have one length, got nothing in row 0. Drop such rows.",
    ),
    "missing_label": (
        numbers_table(label=[0, 1, None] * 20),
        {},
        "column 'label' must have no missing labels, got 20. Drop those rows.",
    ),
    "odd_label": (
        numbers_table(label=pa.array([0] * 60, pa.date32())),
        {},
        "column 'label' must hold numbers or texts, got date32[day]. Name another in data.label.",
    ),
    "no_rows": (numbers_table(0), {}, "{path} has no rows. Give a file with examples, or remove it."),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(tmp_path: Path, case: str) -> None:
    table, data, message = BAD_TABLES[case]
    path = write(tmp_path, table)
    with pytest.raises(DataError) as caught:
        load_file(path, **data)
    assert str(caught.value) == message.format(path=path)


def test_texts_are_no_targets_of_a_regression(tmp_path: Path) -> None:
    path = write(tmp_path, numbers_table(label=["a", "b", "c"] * 20))
    with pytest.raises(DataError) as caught:
        load_file(path, "mse")
    assert str(caught.value) == (
        "labels of a regression must be numbers, got texts in 'label'. Choose a classification metric."
    )


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (pa.string(), pa.large_string(), ("a", "b", "c")),
        (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), ("a", "b", "c")),
        (pa.string_view(), pa.string(), ("a", "b", "c")),
        (pa.int32(), pa.int64(), ("0", "1", "2")),
        (pa.uint8(), pa.int16(), ("0", "1", "2")),
    ],
)
def test_labels_of_types_that_mean_the_same(
    tmp_path: Path, train: pa.DataType, test: pa.DataType, names: tuple[str, ...]
) -> None:
    """As one program writes the training file and another the test file, or one version and the next."""
    values = pa.array([0, 1, 2] * 20 if names[0] == "0" else list(names) * 20)
    for part, kind in (("train", train), ("test", test)):
        made = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
        write(tmp_path, numbers_table(label=made), f"d/{part}.parquet")
    data = load_file(tmp_path / "d")
    assert data.class_names == names
    assert data.test.targets.tolist() == [0, 1, 2] * 20


def test_labels_of_two_types(tmp_path: Path) -> None:
    write(tmp_path, numbers_table(), "d/train.parquet")
    path = write(tmp_path, numbers_table(label=["a", "b", "c"] * 20), "d/test.parquet")
    with pytest.raises(DataError) as caught:
        load_file(tmp_path / "d")
    assert str(caught.value) == (
        f"column 'label' must have one type in all files, got int64 and string in {path}. Write them alike."
    )


def test_an_empty_test_file_is_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    write(tmp_path, numbers_table(), "d/train.parquet")
    path = write(tmp_path, numbers_table(0), "d/test.parquet")
    with pytest.raises(DataError, match=r"has no rows\. Give a file with examples, or remove it\.$") as caught:
        load_file(tmp_path / "d")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, numbers_table())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r" is empty, truncated or not Parquet: .*[^.]\. Write it again\.$") as caught:
        load_file(path)
    assert str(caught.value).startswith(str(path))


def test_damage_inside_a_file_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, numbers_table())
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(DataError, match=r" is empty, truncated or not Parquet: ") as caught:
        load_file(path)
    assert str(caught.value).startswith(str(path))


def test_absent_files_and_folders_without_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError) as absent:
        load_file(tmp_path / "none.parquet")
    assert str(absent.value) == (
        f"data '{tmp_path / 'none.parquet'}' are not there. Give a .parquet, .csv, .tsv or .npz file, or a "
        "folder of such or of pictures; --data-root, in Python DataPaths(data_root=...), is the base of relative paths."
    )
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(DataError) as empty:
        load_file(folder)
    assert str(empty.value) == (
        f"folder {folder} must hold train*.parquet, train*.csv or train*.tsv (and may hold validation* and test* "
        "likewise), or a folder of pictures for each class, got notes.txt."
    )


def test_an_address_is_no_path(tmp_path: Path) -> None:
    task = Task(
        data=Data(source="s3://bucket/x.parquet"),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    with pytest.raises(DataError) as caught:
        load(task, DataPaths(cache=str(tmp_path)))
    assert str(caught.value) == (
        "data.source must be a local path, got 's3://bucket/x.parquet'. Copy it to a folder of every machine."
    )


# --- memory ----------------------------------------------------------------------------------------------------------


def test_reading_needs_the_data_once_and_large_arrays_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy tells tracemalloc of its arrays; Arrow's own pool is counted apart. The data are 24 MB as float32."""
    n = 200_000
    columns = {f"c{i}": RNG.normal(size=n) for i in range(30)}
    path = tmp_path / "large.parquet"
    pq.write_table(pa.table({**columns, "label": np.arange(n) % 2}), path, row_group_size=20_000)
    del columns
    size = n * 30 * 4
    peaks = []
    for limit in (scratch.MEMORY_BYTES, 2**20):
        monkeypatch.setattr(scratch, "MEMORY_BYTES", limit)
        tracemalloc.start()
        raw = read_parquet(path, Data(source=str(path)), "classification", tmp_path / "room")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert raw.inputs.nbytes == size
    assert size < peaks[0] < 1.3 * size
    assert peaks[1] < 0.3 * size
    assert list((tmp_path / "room").iterdir()) == []  # the file has no name: it goes with the process
