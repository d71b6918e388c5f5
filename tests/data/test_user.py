"""The user's own Dataset, from a real module: what is accepted, what is refused, and when it is read again."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subsettune import data as data_module
from subsettune.data import DataPaths, TaskData, load
from subsettune.errors import ConfigError, DataError
from subsettune.task import Data, Model, Recipe, Task

MODULE = '''
import random
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

class Points(Dataset):
    """Rows that depend on nothing but their number."""

    def __init__(self, n=60, change=None):
        self.n, self.change = n, change

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        pair = (torch.tensor([i, i % 7, 0.5]), i % 3)
        return pair if self.change is None else self.change(i, *pair)

class Stream(IterableDataset):
    def __iter__(self):
        yield 0, 0

def points(n=60): return Points(n)
def pair(): return Points(60), Points(9)
def as_list(): return [Points(60)[i] for i in range(60)]
def changed(change): return lambda: Points(60, change)

half = changed(lambda i, x, y: (x.bfloat16(), torch.tensor(y)))
arrays = changed(lambda i, x, y: (x.numpy().astype(np.float64), np.int64(y)))
lists = changed(lambda i, x, y: ([float(i), 2.0], y))
scalars = changed(lambda i, x, y: (float(i), y))
grad = changed(lambda i, x, y: (x.clone().requires_grad_(), y))
pil = changed(lambda i, x, y: (Image.new("L", (5, 4), i), y))
palette = changed(lambda i, x, y: (Image.new("RGB", (5, 4), (i, 0, 9)).convert("P"), y))
hwc = changed(lambda i, x, y: (np.full((4, 5, 3), i, dtype=np.uint8), y))
texts = changed(lambda i, x, y: (x, "abc"[y]))
vectors = changed(lambda i, x, y: (x, x[:2] * 2.0))

random_torch = changed(lambda i, x, y: (x + torch.rand(3), y))
random_numpy = changed(lambda i, x, y: (x + np.random.rand(), y))
random_label = changed(lambda i, x, y: (x, random.randrange(1000)))
random_flip = changed(lambda i, x, y: (x if random.random() < 0.5 else x.flip(0), y))

masked = changed(lambda i, x, y: (np.ma.masked_array([1.0 * i, 2.0], mask=[False, i == 5]), y))
sparse = changed(lambda i, x, y: (x.to_sparse(), y))
complex_numbers = changed(lambda i, x, y: (x + 1j, y))
objects = changed(lambda i, x, y: (np.array([i, "a"], dtype=object), y))
beyond = changed(lambda i, x, y: ([10**30 + i, 1], y))
ragged_input = changed(lambda i, x, y: ([[1.0], [1.0, i]], y))
not_pairs = changed(lambda i, x, y: {"x": x, "y": y})
triples = changed(lambda i, x, y: (x, y, i))
words = changed(lambda i, x, y: ("word", y))
ragged = changed(lambda i, x, y: (x[:2] if i == 7 else x, y))
mixed = changed(lambda i, x, y: (x.to(torch.uint8) if i == 0 else x, y))
fails = changed(lambda i, x, y: (x, y) if i < 9 else open("/no/such/file"))
ragged_labels = changed(lambda i, x, y: (x, [1.0] * (1 + i % 2)))
mixed_labels = changed(lambda i, x, y: (x, "a" if i == 3 else y))
no_label = changed(lambda i, x, y: (x, None))
nan = changed(lambda i, x, y: (x / 0.0 if i == 4 else x, y))

def stream(): return Stream()
def number(): return 3
def three(): return Points(), Points(), Points()
def empty(): return Points(0)
def empty_test(): return Points(60), Points(0)
def breaks(): raise FileNotFoundError("rows.csv")

def from_file(path):
    rows = [tuple(map(float, line.split())) for line in Path(path).read_text().splitlines()]
    return [(torch.tensor(row[:-1]), int(row[-1])) for row in rows]
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("own_data", None)
    yield
    sys.modules.pop("own_data", None)


def load_function(tmp_path: Path, name: str, metric: str = "accuracy", **data: Any) -> TaskData:
    task = Task(
        data=Data(source=f"own_data:{name}", **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        metric=metric,  # type: ignore[arg-type]
        tolerance=0.01,
    )
    data_module._LOADED.clear()  # as in a fresh process
    return load(task, DataPaths(cache=str(tmp_path / "cache")))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("points", (3,)), ("as_list", (3,)), ("half", (3,)), ("arrays", (3,)), ("lists", (2,)), ("grad", (3,))),
        *(("scalars", (1,)), ("pil", (1, 4, 5)), ("palette", (3, 4, 5)), ("hwc", (3, 4, 5)), ("texts", (3,))),
    ],
)
def test_what_a_map_style_dataset_may_give(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data = load_function(tmp_path, name)
    assert data.input_shape == shape
    assert data.num_classes == 3
    assert data.train.all_targets.tolist() == [i % 3 for i in range(60)]
    images = len(shape) == 3
    assert data.train.inputs.dtype == (torch.uint8 if images else torch.float32)
    if name not in ("palette", "half"):
        first = data.train.inputs.flatten(1)[:, 0]
        assert first.tolist() == list(range(60))


def test_options_reach_the_function(tmp_path: Path) -> None:
    assert load_function(tmp_path, "points", options={"n": 30}).num_source_examples == 30


def test_a_pair_has_a_test_set_of_its_own(tmp_path: Path) -> None:
    data = load_function(tmp_path, "pair")
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 9)
    assert data.test.rows.tolist() == list(range(60, 69))
    assert data.test.inputs[60:].tolist() == data.train.inputs[:9].tolist()


def test_vectors_are_targets_of_a_regression(tmp_path: Path) -> None:
    data = load_function(tmp_path, "vectors", "mse")
    assert data.num_outputs == 2
    assert data.train.all_targets[5].tolist() == [10.0, 10.0]


@pytest.mark.parametrize("name", ["random_torch", "random_numpy", "random_label", "random_flip"])
def test_a_random_transform_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load_function(tmp_path, name, "mse")
    start, _, rest = str(caught.value).partition(" give example ")
    assert start == f"data 'own_data:{name}'"
    assert rest.split(" ", 1)[1] == (
        "differently each time: there is a random transform inside. "
        "Return the plain examples, and set recipe.augment for random flips and crops."
    )


def test_the_random_state_stays_although_the_dataset_draws(tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index, union-attr] # noqa: NPY002
    for name in ("random_torch", "random_numpy", "random_label"):
        with pytest.raises(DataError):
            load_function(tmp_path, name, "mse")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index, union-attr] # noqa: NPY002
    assert random.getstate() == before[2]


WHERE = "example 0 of 'own_data:{name}'"
BAD_DATASETS = {
    "not_pairs": f"examples must be pairs (input, label), got dict ({WHERE}). Return pairs.",
    "masked": "inputs must be tensors, arrays or images, got an array with masked numbers (example 5 of "
    "'own_data:{name}'). Convert them.",
    "sparse": f"inputs must be tensors, arrays or images, got a sparse array of torch.float32 ({WHERE}). Convert them.",
    "complex_numbers": f"inputs must be tensors, arrays or images, got an array of torch.complex64 ({WHERE}). Convert "
    "them.",
    "objects": f"inputs must be tensors, arrays or images, got an array of object ({WHERE}). Convert them.",
    "beyond": f"inputs must be tensors, arrays or images, got list ({WHERE}). Convert them.",
    "ragged_input": f"inputs must be tensors, arrays or images, got list ({WHERE}). Convert them.",
    "triples": f"examples must be pairs (input, label), got tuple of 3 ({WHERE}). Return pairs.",
    "words": f"inputs must be tensors, arrays or images, got str ({WHERE}). Convert them.",
    "ragged": "inputs must have one shape, got (3,) and (2,) (example 7 of 'own_data:{name}'). Resize them beforehand.",
    "mixed": "inputs of 'own_data:{name}' must have one type, got uint8 and float32 (example 1). Convert them alike.",
    "fails": "example 9 of 'own_data:{name}' cannot be read: FileNotFoundError: [Errno 2] No such file or directory: "
    "'/no/such/file'. Mend the Dataset.",
    "mixed_labels": "labels of 'own_data:{name}' must be all numbers or all texts. Mend the Dataset.",
    "no_label": "labels must be all class numbers or all texts, got None among them. Mend the labels.",
    "nan": "features must be finite float32 numbers, got NaN, infinity or nothing in column 0, row 4. "
    "Fill it, or drop the row or the column.",
    "stream": "data 'own_data:{name}' must return a map-style Dataset, or (training, test), got Stream. "
    "It needs __getitem__ and __len__.",
    "number": "data 'own_data:{name}' must return a map-style Dataset, or (training, test), got int. "
    "It needs __getitem__ and __len__.",
    "three": "data 'own_data:{name}' must return a map-style Dataset, or (training, test), got 3 of them. "
    "Return one, or a pair.",
    "empty": "training set of 'own_data:{name}' is empty. Return a Dataset with examples.",
    "empty_test": "test set of 'own_data:{name}' is empty. Return a Dataset with examples.",
    "breaks": "data 'own_data:{name}' failed: FileNotFoundError: rows.csv. Mend the function.",
}


@pytest.mark.parametrize("name", BAD_DATASETS)
def test_bad_datasets(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load_function(tmp_path, name)
    message = str(caught.value)
    if name == "fails":  # the sample that tells whether the data have changed may find it at a later example
        message = message.replace(message.split(" ")[1], "9", 1)
    assert message == BAD_DATASETS[name].replace("{name}", name)


def test_labels_of_several_lengths(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^labels of 'own_data:ragged_labels' must have one shape: .*Mend the Dataset\.$"
    ):
        load_function(tmp_path, "ragged_labels", "mse")


def test_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data 'own_data:nothing' cannot be found: "):
        load_function(tmp_path, "nothing")
    with pytest.raises(ConfigError, match=r"^data 'own_data:points' does not fit its options: .* It takes: n\.$"):
        load_function(tmp_path, "points", options={"m": 3})
    with pytest.raises(DataError) as caught:
        load_function(tmp_path, "points", label="kind")
    assert str(caught.value) == (
        "data.label means nothing to 'own_data:points': its input and label are known. Remove the key."
    )


def test_changed_files_behind_unchanged_code_are_noticed(tmp_path: Path) -> None:
    """The cache goes by code, options and a sample of the examples."""
    rows = tmp_path / "rows.txt"

    def contents(factor: float) -> str:
        return "".join(f"{i * factor} {i % 2}\n" for i in range(40))

    options = {"path": str(rows)}
    rows.write_text(contents(1.0))
    first = load_function(tmp_path, "from_file", options=options)
    assert load_function(tmp_path, "from_file", options=options).fingerprint == first.fingerprint
    rows.write_text(contents(2.0))
    assert load_function(tmp_path, "from_file", options=options).fingerprint != first.fingerprint
    rows.write_text(contents(1.0))
    assert load_function(tmp_path, "from_file", options=options).fingerprint == first.fingerprint


def test_a_worker_that_has_the_data_needs_no_function(tmp_path: Path) -> None:
    data = load_function(tmp_path, "points")
    sys.modules.pop("own_data")
    (tmp_path / "own_data.py").unlink()
    data_module._LOADED.clear()
    task = Task(
        data=Data(source="own_data:points"),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    again = load(task, DataPaths(cache=str(tmp_path / "cache")), fingerprint=data.fingerprint)
    assert again.fingerprint == data.fingerprint
