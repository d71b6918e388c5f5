"""Which texts and numbers are one class, in files that list or write them differently."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, TaskData, load
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Task

RNG = np.random.default_rng(0)


def load_data(source: Path, metric: str = "accuracy", **data: Any) -> TaskData:
    task = Task(
        data=Data(source=str(source), **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,  # type: ignore[arg-type]
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(source.parent / "cache"), download=False))


def names_of(data: TaskData) -> list[str]:
    """The name of each row's class, in the order of the files."""
    return [data.class_names[int(number)] for number in data.train.all_targets]


def hub(*names: str) -> dict[str, str]:
    """Metadata of the hub that name the classes of a column `label`."""
    return {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}


def table(labels: Any, metadata: dict[str, str] | None = None) -> pa.Table:
    made = pa.table({"a": RNG.normal(size=len(labels)), "label": labels})
    return made.replace_schema_metadata(metadata) if metadata else made


def folder(path: Path, **tables: pa.Table) -> Path:
    path = path / "data"
    path.mkdir()
    for name, made in tables.items():
        pq.write_table(made, path / f"{name.replace('_', '-')}.parquet")
    return path


def tsv(path: Path, labels: list[str]) -> Path:
    lines = "".join(f"word {i}\t{label}\n" for i, label in enumerate(labels))
    (path / "data.tsv").write_text(f"text\tlabel\n{lines}", encoding="utf-8")
    return path / "data.tsv"


# --- classes that files list in another order ---------------------------------------------------------------------


LOW_FIRST, HIGH_FIRST = ("low", "mid", "high"), ("high", "low", "mid")
WANTED = [*np.resize(LOW_FIRST, 30).tolist(), *np.resize(["mid", "high", "low"], 30).tolist()]


@pytest.mark.parametrize("second", ["train_1", "test"])
@pytest.mark.parametrize("key", ["hub", "classes"])
def test_class_numbers_go_by_the_names_of_their_own_file(tmp_path: Path, second: str, key: str) -> None:
    def told(names: tuple[str, ...]) -> dict[str, str]:
        return hub(*names) if key == "hub" else {"classes": json.dumps(names)}

    first = table([LOW_FIRST.index(name) for name in WANTED[:30]], told(LOW_FIRST))
    rest = table([HIGH_FIRST.index(name) for name in WANTED[30:]], told(HIGH_FIRST))
    data = load_data(folder(tmp_path, train_0=first, **{second: rest}))
    assert data.class_names == LOW_FIRST
    if second == "test":
        assert names_of(data) == WANTED
    else:
        assert sorted(names_of(data)) == sorted(WANTED)
        assert names_of(data) == WANTED


def test_a_file_without_names_has_those_of_the_others(tmp_path: Path) -> None:
    numbers = np.resize(np.arange(3), 30)
    data = load_data(folder(tmp_path, train_0=table(numbers), train_1=table(numbers, hub(*LOW_FIRST))))
    assert data.class_names == LOW_FIRST
    assert names_of(data) == 2 * np.resize(LOW_FIRST, 30).tolist()


def test_dictionaries_of_each_file_have_an_order_of_their_own(tmp_path: Path) -> None:
    def stored(names: list[str], order: tuple[str, ...]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array([order.index(n) for n in names], pa.int8()), pa.array(order))

    train, test = (table(stored(WANTED[i : i + 30], o)) for i, o in ((0, LOW_FIRST), (30, HIGH_FIRST)))
    assert names_of(load_data(folder(tmp_path, train=train, test=test))) == WANTED


LISTED: dict[str, tuple[pa.Table, str]] = {
    "unlisted": (
        table([0, 1] * 15),
        "{path}/train-2.parquet must list its classes, as other files list theirs in several orders, got none. Write "
        "the names into its metadata, or write labels as texts.",
    ),
    "twice": (
        table([0, 1] * 15, hub("a", "b", "a")),
        "names of classes must differ, got 'a' twice in {path}/train-2.parquet. Mend its metadata.",
    ),
    "beyond": (
        table([0, 1, 2] * 10, hub("b", "a")),
        "labels must be below 2, the number of class names, got 2 in {path}/train-2.parquet. "
        "Mend the labels or the names.",
    ),
    "no_rows": (
        table([0, 1] * 15, hub("a", "b", "c")),
        "every class that is listed must have rows, got none of 'c'. Take it out.",
    ),
    "unlabelled": (
        table([0, -1] * 15, hub("a", "b")),
        "labels must say which class -1 is, got it in row 61 among classes from 0: it usually marks rows without a "
        "label. Drop these rows, or number the classes 0, 1, 2, ...",
    ),
}


@pytest.mark.parametrize("case", list(LISTED))
def test_lists_of_classes_that_cannot_be_joined(tmp_path: Path, case: str) -> None:
    last, message = LISTED[case]
    first, second = table([0, 1] * 15, hub("a", "b")), table([0, 1] * 15, hub("b", "a"))
    path = folder(tmp_path, train_0=first, train_1=second, train_2=last)
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert str(caught.value) == message.format(path=path)


FOLDERS = """
import torch
class Pets(torch.utils.data.Dataset):
    def __init__(self, classes, names): self.classes, self.names = classes, names
    def __len__(self): return len(self.names)
    def __getitem__(self, i): return torch.tensor([float(i), 1.0]), self.classes.index(self.names[i])
NAMES = ["ant", "cat", "dog"] * 10
def other(): return Pets(["ant", "cat", "dog"], NAMES), Pets(["dog", "ant", "cat"], NAMES)
def same(): return Pets(["ant", "cat", "dog"], NAMES), Pets(["ant", "cat", "dog"], NAMES)
def fewer(): return Pets(["ant", "cat", "dog"], NAMES), Pets(["cat", "dog"], ["cat", "dog"] * 10)
"""


def load_pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> TaskData:
    (tmp_path / "own_pets.py").write_text(FOLDERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = Task(
        data=Data(source=f"own_pets:{function}"),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric="accuracy",
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(tmp_path / "cache"), download=False))


def test_datasets_that_list_their_classes_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_of(load_pets(tmp_path, monkeypatch, "other")) == ["ant", "cat", "dog"] * 20


def test_datasets_that_list_their_classes_alike_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_of(load_pets(tmp_path, monkeypatch, "same")) == ["0", "1", "2"] * 20


def test_a_test_folder_without_a_class_does_not_shift_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="class 'ant' must have examples in the test file, got none"):
        load_pets(tmp_path, monkeypatch, "fewer")


# --- texts that stand for numbers, and numbers that are names ---------------------------------------------------------


WRITTEN: dict[str, tuple[list[str], dict[str, str]]] = {  # as written: the name of its class
    "padded": ([f"{i:02d}" for i in range(1, 13)], {f"{i:02d}": f"{i:02d}" for i in range(1, 13)}),
    "codes": (["007", "12", "5"], {"007": "007", "12": "12", "5": "5"}),
    "hexadecimal": (["0x1F", "0x20", "31"], {"0x1F": "0x1F", "0x20": "0x20", "31": "31"}),
    "points": (["0", "1.0", "1", "2.", "2e0"], {"0": "0", "1.0": "1", "1": "1", "2.": "2", "2e0": "2"}),
    "signs": (["+1", "1", "0"], {"+1": "1", "1": "1", "0": "0"}),
    "spaces": (["0", " 1", "1 "], {"0": "0", " 1": "1", "1 ": "1"}),
    "spaced_names": (["cat", "cat ", " dog", "dog"], {"cat": "cat", "cat ": "cat", " dog": "dog", "dog": "dog"}),
    "accents": (
        ["caf\u00e9", "cafe\u0301", "tea"],
        {"caf\u00e9": "caf\u00e9", "cafe\u0301": "caf\u00e9", "tea": "tea"},
    ),
    "booleans": (["true", "false"], {"true": "true", "false": "false"}),
    "two_signs": (["-1", "1"], {"-1": "-1", "1": "1"}),
    "long": (
        ["12345678901234567890", "12345678901234567891"],
        {f"1234567890123456789{i}": f"1234567890123456789{i}" for i in (0, 1)},
    ),
    "beyond_float64": (
        ["9007199254740992", "9007199254740993"],
        {f"900719925474099{i}": f"900719925474099{i}" for i in (2, 3)},
    ),
}


@pytest.mark.parametrize("case", list(WRITTEN))
def test_labels_as_texts(tmp_path: Path, case: str) -> None:
    written, names = WRITTEN[case]
    labels = written * 10
    data = load_data(tsv(tmp_path, labels))
    assert names_of(data) == [names[label] for label in labels]
    assert not data.notes


REFUSED: dict[str, tuple[list[str], str]] = {
    "two_ways": (
        ["1", "01", "2"],
        "labels must be written in one way, got '1' and '01', which are one number. Write them alike, or give the "
        "classes names if they are two.",
    ),
    "nan": (["1", "0", "nan"], "labels must not be missing, got 'nan' among numbers. Fill it, or drop such rows."),
    "infinite": (["1", "0", "inf"], "labels must not be missing, got 'inf' among numbers. Fill it, or drop such rows."),
    "unlabelled": (
        ["-1", "0", "1"],
        "labels must say which class -1 is, got it in row 0 among classes from 0: it usually marks rows without a "
        "label. Drop these rows, or number the classes 0, 1, 2, ...",
    ),
    "negative": (
        ["-2", "0", "1"],
        "labels must be 0 or more, got -2 in row 0. Number the classes 0, 1, 2, ..., or write them as texts.",
    ),
    "fraction": (
        ["1.5", "2"],
        "labels of a classification must be whole numbers, got 1.5. For numbers choose metric mse.",
    ),
    "single": (
        ["a"] * 30 + ["b"],
        "class 'b' must have at least 3 examples, one for each part (training, test, validation), got 1. Add "
        "examples, or drop the class.",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_labels_as_texts_that_are_refused(tmp_path: Path, case: str) -> None:
    written, message = REFUSED[case]
    with pytest.raises(DataError) as caught:
        load_data(tsv(tmp_path, written if case == "single" else written * 10))
    assert str(caught.value) == message


@pytest.mark.parametrize(("texts", "odd"), [(["0x1F", "1"], "0x1F"), (["true", "1"], "true"), (["1,5", "2"], "1,5")])
def test_values_of_a_regression_are_decimal_numbers(tmp_path: Path, texts: list[str], odd: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(tsv(tmp_path, texts * 15), "mse")
    message = f"labels of a regression must be numbers, got {odd!r}. Choose a classification metric."
    assert str(caught.value) == message


def test_spaces_around_values_of_a_regression(tmp_path: Path) -> None:
    data = load_data(tsv(tmp_path, ["1 ", " 2.5", "+3", "01"] * 10), "mse")
    assert data.train.all_targets.tolist() == [1.0, 2.5, 3.0, 1.0] * 10


# --- labels in other types ----------------------------------------------------------------------------------------


TYPES: dict[str, tuple[Any, list[str]]] = {
    "binary": (pa.array([b"b", b"a"] * 15), ["b", "a"]),
    "view": (pa.array(["b", "a"] * 15).cast(pa.string_view()), ["b", "a"]),
    "spaces": (["a ", "a", "b"] * 10, ["a", "a", "b"]),
    "signs": ([-1, 1] * 15, ["-1", "1"]),
    "half": (pa.array(np.array([1, 0] * 15, np.float16)), ["1", "0"]),
    "boolean": ([True, False] * 15, ["1", "0"]),
}


@pytest.mark.parametrize("case", list(TYPES))
def test_labels_of_parquet(tmp_path: Path, case: str) -> None:
    labels, names = TYPES[case]
    assert names_of(load_data(folder(tmp_path, train=table(labels)))) == np.resize(names, 30).tolist()


BAD_TYPES: dict[str, tuple[Any, str]] = {
    "bytes": (
        pa.array([b"\xff", b"a"] * 15),
        "column 'label' must hold labels in UTF-8, got other bytes. Write them as texts.",
    ),
    "empty": (["", "a"] * 15, "labels must not be empty, got '' in column 'label'. Fill it, or drop such rows."),
    "unsigned": (
        pa.array([2**63 + 5, 0] * 15, pa.uint64()),
        "labels must be class numbers 0, 1, 2, ..., got 9.22337e+18. Number the classes, or write them as texts.",
    ),
    "huge": (
        [1e300, 0.0] * 15,
        "labels must be class numbers 0, 1, 2, ..., got 1e+300. Number the classes, or write them as texts.",
    ),
}


@pytest.mark.parametrize("case", list(BAD_TYPES))
def test_labels_of_parquet_that_are_refused(tmp_path: Path, case: str) -> None:
    labels, message = BAD_TYPES[case]
    with pytest.raises(DataError) as caught:
        load_data(folder(tmp_path, train=table(labels)))
    assert str(caught.value) == message


def save(path: Path, y: np.ndarray, y_test: np.ndarray | None = None) -> Path:
    x = RNG.normal(size=(len(y), 2)).astype(np.float32)
    more = {} if y_test is None else {"x_test": x, "y_test": y_test}
    np.savez(path / "data.npz", x=x, y=y, **more)
    return path / "data.npz"


def test_bytes_of_npz_are_texts(tmp_path: Path) -> None:
    y = np.array(["\u00e9".encode(), b"b"] * 15)
    data = load_data(save(tmp_path, y, np.array(["b", "\u00e9"] * 15)))
    assert names_of(data) == ["\u00e9", "b"] * 15 + ["b", "\u00e9"] * 15


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_minus_one_and_one_are_two_classes(tmp_path: Path, dtype: type) -> None:
    assert names_of(load_data(save(tmp_path, np.array([-1, 1] * 15, dtype)))) == ["-1", "1"] * 15


CALLED: dict[str, tuple[list[Any], str]] = {
    "from_one": ([1, 2], "1 and 2."),
    "quality": ([3.0, 4.0, 5.0], "3, 4 and 5."),
    "gap": ([0, 1, 3], "0, 1 and 3. No example has the label 2: add some, if there is such a class."),
    "opinions": ([-2, -1, 0, 1, 2], "-2, -1, 0, 1 and 2."),
    "codes": ([10**6, 10**15], "1000000 and 1000000000000000."),
}


@pytest.mark.parametrize("case", CALLED)
def test_classes_are_called_by_numbers_that_do_not_start_at_zero(tmp_path: Path, case: str) -> None:
    """Few numbers of several examples each are classes, which the plan says; the model answers with them."""
    numbers, told = CALLED[case]
    data = load_data(save(tmp_path, np.array(numbers * 30)))
    assert names_of(data) == [str(int(number)) for number in numbers * 30]
    assert data.facts is not None
    assert data.facts.sentences == (
        f"labels are taken for classes that are called {told} If they are a quantity, choose metric mse.",
    )


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 1], ["1", "2"], [True, False]])
def test_nothing_is_said_of_classes_that_have_names_or_start_at_zero(tmp_path: Path, labels: list[Any]) -> None:
    data = load_data(folder(tmp_path, train=table(np.resize(labels, 60).tolist())))
    assert data.facts is not None
    assert data.facts.sentences == ()


def test_labels_of_npz_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_data(save(tmp_path, np.array([b"\xe9", b"b"] * 15)))
    assert str(caught.value) == "labels must be texts in UTF-8, got b'\\xe9'. Write them as texts."
    with pytest.raises(DataError) as caught:
        load_data(save(tmp_path, np.array([0.0, 1.0] * 15), np.array(["0", "1"] * 15)))
    assert str(caught.value) == (
        f"labels of {tmp_path / 'data.npz'} must be numbers or texts in training and test, got float64 and <U1. Write "
        "them alike."
    )


# --- what looks wrong, and is only said ----------------------------------------------------------------------------


SAID: dict[str, tuple[list[str], str]] = {
    "case": (["Cat", "cat", "dog"], "classes 'Cat' and 'cat' look like one written twice, and are told apart. "),
    "zeros": (["01", "1", "b"], "classes '01' and '1' look like one written twice, and are told apart. "),
    "width": (["a\uff11", "a1", "b"], "classes 'a1' and 'a\uff11' look like one written twice, and are told apart. "),
    "missing": (["None", "a", "b"], "class 'None' looks like a missing label, and is taken as a class. "),
}


@pytest.mark.parametrize("case", list(SAID))
def test_names_that_look_wrong_are_said_once(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    names, start = SAID[case]
    path = folder(tmp_path, train=table(names * 10))
    with caplog.at_level(logging.WARNING, "subsettune.data"):
        data = load_data(path)
        load_data(path)
    assert names_of(data) == names * 10
    (note,) = data.notes
    assert note.startswith(start)
    assert [record.getMessage() for record in caplog.records] == [note]


def test_categories_that_look_like_one(tmp_path: Path) -> None:
    made = table([0, 1] * 15).append_column("c", pa.array(["Red", "red", "blue"] * 10))
    data = load_data(folder(tmp_path, train=made))
    assert data.notes == (
        "categories 'Red' and 'red' of column 'c' look like one written twice, and are told apart. Write them alike if "
        "they are one.",
    )


def test_numbers_and_booleans_are_no_categories_of_one_column(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        train=table([0, 1] * 15).append_column("c", pa.array([0, 1] * 15)),
        test=table([0, 1] * 15).append_column("c", pa.array([False, True] * 15)),
    )
    with pytest.raises(DataError) as caught:
        load_data(path, categorical=("c",))
    assert str(caught.value) == (
        f"column 'c' must hold one kind of categories in all files, got int64 and bool in {path}/test.parquet. Write "
        "them alike."
    )
