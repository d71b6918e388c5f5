"""Arrays in .npz files, and the checks of inputs and labels that every source goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subsettune.data import DataPaths, TaskData, load, scratch
from subsettune.errors import DataError, StorageError
from subsettune.task import Data, Model, Recipe, Task

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3


def load_arrays(
    tmp_path: Path, metric: str = "accuracy", data: dict[str, Any] | None = None, **arrays: Any
) -> TaskData:
    path = tmp_path / "data.npz"
    if arrays:
        np.savez(path, **arrays)
    return load_path(path, metric, data)


def load_path(path: Path, metric: str = "accuracy", data: dict[str, Any] | None = None) -> TaskData:
    task = Task(
        data=Data(source=str(path), **(data or {})),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,  # type: ignore[arg-type]
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(path.parent / "cache")))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_, np.uint8])
def test_numbers_of_every_type(tmp_path: Path, dtype: Any) -> None:
    x = RNG.integers(0, 2, (N, 4)).astype(dtype)
    data = load_arrays(tmp_path, x=x, y=Y)
    assert data.train.inputs.numpy().dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(data.train.inputs.numpy(), x.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1,)),
        ((5,), (5,)),
        ((6, 5), (1, 6, 5)),
        ((6, 5, 3), (3, 6, 5)),
        ((6, 5, 4), (4, 6, 5)),
        ((6, 5, 1), (1, 6, 5)),
        ((3, 6, 5), (3, 6, 5)),
        ((1, 6, 5), (1, 6, 5)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
    ],
)
def test_images_come_out_channels_first(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = RNG.integers(0, 256, (N, *shape), dtype=np.uint8)
    data = load_arrays(tmp_path, x=x, y=Y)
    assert data.input_shape == expected
    turned = len(shape) == 3 and shape != expected
    back = data.train.inputs.numpy()
    np.testing.assert_array_equal(np.moveaxis(back, 1, -1) if turned else back.reshape(x.shape), x)


@pytest.mark.parametrize("limit", [scratch.MEMORY_BYTES, 64])
def test_a_test_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(scratch, "MEMORY_BYTES", limit)
    data = load_arrays(tmp_path, x=X.astype(np.float64), y=Y, x_test=X[:9], y_test=Y[:9])
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 9)
    np.testing.assert_array_equal(data.train.inputs.numpy(), np.concatenate([X, X[:9]]))
    assert not list((tmp_path / "cache").rglob("array-*"))


def test_arrays_of_other_names(tmp_path: Path) -> None:
    named = {"features": ["points"], "label": "kind"}
    assert load_arrays(tmp_path, data=named, points=X, kind=Y, x=X[:1], y=Y[:1]).input_shape == (4,)


def test_texts_are_classes(tmp_path: Path) -> None:
    assert load_arrays(tmp_path, x=X, y=np.array(["b", "a", "c"] * 20)).class_names == ("a", "b", "c")


def test_columns_of_targets(tmp_path: Path) -> None:
    data = load_arrays(tmp_path, "mse", x=X, y=X[:, :3].astype(np.float64))
    assert data.num_outputs == 3
    np.testing.assert_array_equal(data.train.all_targets.numpy(), X[:, :3])


BAD_ARRAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no_inputs": (
        {"z": X, "y": Y},
        {},
        "{path} must hold inputs as x, features, inputs, images, x_train, train_x, X, X_train, train_X, data, image or "
        "train_images, got z, y. "
        "Set data.features to the array's name.",
    ),
    "no_labels": (
        {"x": X},
        {},
        "{path} must hold labels as label, y, labels, targets, y_train, train_y, Y, target, Y_train, train_Y or "
        "train_labels, got x. Set data.label to the array's name.",
    ),
    "label_of_that_name": (  # y is there, but another was asked for
        {"x": X, "y": Y},
        {"label": "kind"},
        "{path} must hold labels as kind, got x, y. Set data.label to the array's name.",
    ),
    "two_inputs": (
        {"x": X, "y": Y},
        {"features": ["x", "y"]},
        "data.features of an .npz file must be one array, got ['x', 'y']. Join the arrays beforehand.",
    ),
    "label_as_feature": (
        {"x": X, "y": Y},
        {"features": ["y"], "label": "y"},
        "data.label must not be among data.features, got 'y' for both. Name two arrays.",
    ),
    "half_a_test_set": (
        {"x": X, "y": Y, "x_test": X},
        {},
        "{path} holds x_test but no y_test. Add it, or leave both out.",
    ),
    "other_test_shape": (
        {"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y},
        {},
        "inputs of {path} must have one type and shape in training and test, got float32 (4,) and float32 (2,). "
        "Mend them.",
    ),
    "other_test_type": (
        {"x": X, "y": Y, "x_test": X.astype(np.uint8), "y_test": Y},
        {},
        "inputs of {path} must have one type and shape in training and test, got float32 (4,) and uint8 (4,). "
        "Mend them.",
    ),
    "fewer_labels": (
        {"x": X, "y": Y[:-1]},
        {},
        "inputs and labels must be as many, got 60 in 'x' and 59 in 'y'. Mend the data.",
    ),
    "fewer_test_labels": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y[:-1]},
        {},
        "inputs and labels must be as many, got 60 in 'x_test' and 59 in 'y_test'. Mend the data.",
    ),
    "texts": ({"x": X.astype(str), "y": Y}, {}, "array 'x' of {path} must hold numbers, got <U32. Encode them."),
    "single_value": (
        {"x": np.float32(1), "y": Y},
        {},
        "array 'x' of {path} must have a row for each example, got a single value. Write it again.",
    ),
    "no_test_rows": (
        {"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]},
        {},
        "array 'y_test' of {path} must have a row for each example, got none. Give a test set with examples, or leave "
        "it out: a test part is then drawn from the training set.",
    ),
    "no_test_inputs": (
        {"x": X, "y": Y, "x_test": X[:0], "y_test": Y},
        {},
        "array 'x_test' of {path} must have a row for each example, got none. Give a test set with examples, or leave "
        "it out: a test part is then drawn from the training set.",
    ),
    "no_rows": ({"x": X[:0], "y": Y[:0]}, {}, "data must have at least 2 examples to train on, got 0. Add examples."),
    "no_columns": (
        {"x": X[:, :0], "y": Y},
        {},
        "inputs must hold numbers, got the shape (60, 0). Give each example a feature.",
    ),
    "infinity": (
        {"x": np.where(np.arange(N)[:, None] == 5, np.inf, X), "y": Y},
        {},
        "features must be finite float32 numbers, got NaN, infinity or nothing in column 0, row 5. "
        "Fill it, or drop the row or the column.",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path: Path, case: str) -> None:
    arrays, data, message = BAD_ARRAYS[case]
    with pytest.raises(DataError) as caught:
        load_arrays(tmp_path, data=data, **arrays)
    assert str(caught.value) == message.format(path=tmp_path / "data.npz")


def _labels(*values: Any) -> np.ndarray:
    return np.resize(np.array(values), N)


BAD_LABELS: dict[str, tuple[np.ndarray, str, str]] = {
    "gap": (
        np.append(_labels(0, 1)[:-4], [3] * 4),
        "accuracy",
        "labels must use every class from 0 to 3, got none of 2. Renumber them.",
    ),
    "far": (
        np.append(_labels(0, 1)[:-4], [10**15] * 4),
        "accuracy",
        "labels must use every class from 0 to 1000000000000000, got none of 2. Renumber them, or choose metric mse "
        "for a quantity.",
    ),
    "counts": (
        np.arange(N) % 21 + 1,
        "accuracy",
        "labels must use every class from 0 to 21, got none of 0. Renumber them, or choose metric mse for a quantity.",
    ),
    "one_class": (
        _labels(0),
        "macro_f1",
        "labels must have at least 2 classes, got only 0. There is nothing to tell apart.",
    ),
    "one_text": (
        _labels("cat"),
        "accuracy",
        "labels must have at least 2 classes, got only cat. There is nothing to tell apart.",
    ),
    "negative": (
        _labels(0, 1, -1),
        "accuracy",
        "labels must say which class -1 is, got it in row 2 among classes from 0: it usually marks rows without a "
        "label. Drop these rows, or number the classes 0, 1, 2, ...",
    ),
    "fraction": (
        _labels(0.0, 1.5),
        "accuracy",
        "labels of a classification must be whole numbers, got 1.5. For numbers choose metric mse.",
    ),
    "nan_class": (
        _labels(0.0, 1.0, np.nan),
        "balanced_accuracy",
        "labels of a classification must be whole numbers, got nan. For numbers choose metric mse.",
    ),
    "infinite_class": (
        _labels(0.0, 1.0, np.inf),
        "accuracy",
        "labels of a classification must be whole numbers, got inf. For numbers choose metric mse.",
    ),
    "columns": (
        X,
        "accuracy",
        "labels of a classification must be one per example, got shape (60, 4). Use class numbers.",
    ),
    "dates": (
        _labels(0, 1).astype("datetime64[s]"),
        "accuracy",
        "labels must be class numbers or texts, got datetime64[s]. Number the classes 0, 1, 2, ...",
    ),
    "few": (
        np.array([0, 1] * 29 + [0, 2]),
        "accuracy",
        "class '2' must have at least 3 examples, one for each part (training, test, validation), got 1. "
        "Add examples, or drop the class.",
    ),
    "nan_value": (
        _labels(0.5, np.nan),
        "mse",
        "labels must be finite, got NaN or infinity in row 1. Drop such rows.",
    ),
    "text_value": (
        _labels("a", "b"),
        "mse",
        "labels of a regression must be numbers, got <U1. Choose a classification metric.",
    ),
    "constant": (_labels(2.5), "mse", "labels must vary, got only 2.5. There is nothing to learn."),
    "constant_column": (
        np.stack([X[:, 0], np.full(N, 0.1)], axis=1),
        "mse",
        "labels must vary, got only 0.1 in target 1. There is nothing to learn.",
    ),
    "cube": (
        np.zeros((N, 2, 2)),
        "mse",
        "labels of a regression must be (n,) or (n, m), got shape (60, 2, 2). Reshape them.",
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(tmp_path: Path, case: str) -> None:
    labels, metric, message = BAD_LABELS[case]
    with pytest.raises(DataError) as caught:
        load_arrays(tmp_path, metric, x=X, y=labels)
    assert str(caught.value) == message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_files_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r" is empty, truncated or no \.npz file\. Write it again\.$") as caught:
        load_path(path)
    assert str(caught.value).startswith(str(path))


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r" is empty, truncated or no \.npz file\. Write it again\.$"):
        load_path(path)


def test_damage_inside_an_archive_names_the_array(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[300:310] = b"0123456789"  # inside x: its checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_path(path)
    assert str(caught.value) == (
        f"array 'x' of {path} is damaged, or holds objects instead of numbers. Write it again."
    )
    assert "Bad CRC" in str(caught.value.__cause__)


def test_no_advice_to_unpickle_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"garbage " * 50)
    with pytest.raises(DataError) as caught:
        load_path(path)
    assert str(caught.value) == f"{path} is empty, truncated or no .npz file. Write it again."


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=np.array([{"a": 1}] * N, dtype=object))
    with pytest.raises(DataError) as caught:
        load_path(path)
    assert str(caught.value) == (
        f"array 'y' of {path} is damaged, or holds objects instead of numbers. Write it again."
    )
    assert "Object arr" in str(caught.value.__cause__)


def test_a_single_array_under_a_wrong_name(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError) as caught:
        load_path(path)
    assert str(caught.value) == (
        f"{path} must be an .npz file, got a single array. Write it with numpy.savez(path, x=..., y=...)."
    )


def test_no_room_for_a_large_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "MEMORY_BYTES", 64)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(
        StorageError, match=r"^cache .* cannot take 0 MiB: .*No space left on device\. Give --cache a fol"
    ):
        load_arrays(tmp_path, x=X.astype(np.float64), y=Y)
    assert not list((tmp_path / "cache").rglob("array-*"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"options": {"n": 3}},
            "data.options mean nothing to 'digits': they are arguments of a function. Remove them.",
        ),
        (
            {"features": ["a"]},
            "data.features means nothing to 'digits': its input and label are known. Remove the key.",
        ),
        ({"label": "a"}, "data.label means nothing to 'digits': its input and label are known. Remove the key."),
    ],
)
def test_keys_that_nobody_would_read(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    task = Task(
        data=Data(source="digits", **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    with pytest.raises(DataError) as caught:
        load(task, DataPaths(cache=str(tmp_path)))
    assert str(caught.value) == message


def test_a_test_set_by_another_name_is_not_read_and_told(tmp_path: Path) -> None:
    names = {"a": X, "b": Y, "x_test": X, "y_test": Y}
    data = load_arrays(tmp_path, data={"features": ["a"], "label": "b"}, **names)
    assert data.facts is not None
    assert (data.facts.files, data.facts.left_alone) == (("a", "b"), ("x_test", "y_test"))
    assert data.facts.sentences == (
        "array 'x_test' is not read: a test set must be called 'a_test' and 'b_test', or the test part is drawn from "
        "the training set. Rename the arrays, or leave them out.",
    )


@pytest.mark.parametrize(("training", "test"), [("x_train", "x_test"), ("train_x", "test_x"), ("X", "X_test")])
@pytest.mark.parametrize("is_named", [False, True])
def test_a_training_array_has_a_test_array(tmp_path: Path, training: str, test: str, is_named: bool) -> None:
    """As Keras publishes MNIST. Where the names were given, the test part was drawn from the training set."""
    labels = training.replace("x", "y").replace("X", "y"), test.replace("x", "y").replace("X", "y")
    given = {"features": [training], "label": labels[0], "embeddings": "train_v"} if is_named else {}
    arrays = {training: X, labels[0]: Y, test: X + 1, labels[1]: Y[::-1], "train_v": X, "test_v": X + 2}
    arrays |= {"train_v_test": X + 2} if training == "X" else {}
    data = load_arrays(tmp_path, data=given, **arrays)
    np.testing.assert_array_equal(data.test.inputs[data.test.rows].numpy(), X + 1)
    np.testing.assert_array_equal(data.test.targets.numpy(), Y[::-1])
    assert data.facts is not None
    assert (data.facts.test_files, data.facts.sentences) == ((test, labels[1]), ())
    if is_named:
        assert data.test.embeddings is not None
        np.testing.assert_array_equal(data.test.embeddings.numpy(), X + 2)


@pytest.mark.parametrize(
    ("inputs", "labels"), [("X", "y"), ("data", "target"), ("image", "label"), ("train_images", "train_labels")]
)
def test_arrays_are_known_by_the_names_that_others_give_them(tmp_path: Path, inputs: str, labels: str) -> None:
    np.savez(tmp_path / "data.npz", **{inputs: X, labels: Y})
    data = load_path(tmp_path / "data.npz")
    assert data.facts is not None
    assert data.facts.files == (inputs, labels)


def test_of_two_arrays_that_may_be_meant_the_other_is_told(tmp_path: Path) -> None:
    data = load_arrays(tmp_path, x=X, images=X + 1, y=Y, targets=Y[::-1])
    assert data.facts is not None
    assert data.facts.sentences == (
        "array 'images' is not read, as 'x' is. Name the one that is meant in data.features.",
        "array 'targets' is not read, as 'y' is. Name the one that is meant in data.label.",
    )


def test_all_arrays_that_are_read_are_told(tmp_path: Path) -> None:
    given = {"embeddings": "v"}
    arrays = {"x": X, "y": Y, "x_test": X + 1, "y_test": Y, "v": X, "v_test": X, "notes": Y}
    data = load_arrays(tmp_path, data=given, **arrays)
    assert data.facts is not None
    assert (data.facts.test_files, data.facts.left_alone) == (("x_test", "y_test"), ("notes",))
    assert data.facts.sentences == ()
    inputs, label, vectors = data.facts.columns
    assert (inputs.name, inputs.role, inputs.width) == ("x", "feature", 4)
    assert (inputs.least, inputs.most) == (float(X.min()), float((X + 1).max()))
    assert (label.distinct, vectors.role) == (3, "embeddings")
