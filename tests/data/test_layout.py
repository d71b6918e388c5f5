"""What an example is: `data.layout` in every kind of source, what is guessed without it, and what networks get.

Numbers are those of NumPy on the arrays that the files were made of.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from subsettune import data as data_module
from subsettune.data import DataPaths, TaskData, load
from subsettune.data.example import describe_example
from subsettune.data.layout import taken_for
from subsettune.errors import ConfigError, DataError, ModelError
from subsettune.policy import conventional
from subsettune.task import Data, Model, Recipe, Task
from subsettune.train import RunOptions, facts, run

N, C, T = 60, 2, 16
RNG = np.random.default_rng(0)
Y = np.arange(N) % 3
# Two sensors in units of their own: one mean for both would drown the first.
SERIES = (RNG.normal(size=(N, C, T)) * [[1.0], [100.0]] + [[0.0], [1000.0]]).astype(np.float32)
IDS = RNG.integers(1, 50, (N, 12))
PHOTOS = RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)

MODULE = """
import numpy as np, torch
from PIL import Image
from torch import nn

def rows(path):
    file = np.load(path)
    return [(x, int(y)) for x, y in zip(file["x"], file["y"])]

def tensors(path):
    return [(torch.tensor(x), y) for x, y in rows(path)]

def pictures(path):
    return [(Image.fromarray(x), y) for x, y in rows(path)]

def conv(input_shape, num_outputs):
    c, t = input_shape
    head = nn.Linear(4, num_outputs)
    return nn.Sequential(nn.Conv1d(c, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), head)

class Recurrent(nn.Module):
    def __init__(self, channels, num_outputs):
        super().__init__()
        self.rnn, self.head = nn.LSTM(channels, 5, batch_first=True), nn.Linear(5, num_outputs)

    def forward(self, x):
        return self.head(self.rnn(x.transpose(1, 2))[0][:, -1])

def lstm(input_shape, num_outputs):
    return Recurrent(input_shape[0], num_outputs)

class Bag(nn.Module):
    def __init__(self, num_tokens, num_outputs):
        super().__init__()
        self.table, self.head = nn.Embedding(num_tokens, 6), nn.Linear(6, num_outputs)

    def forward(self, ids):
        return self.head(self.table(ids).mean(dim=1))

def bag(input_shape, num_outputs, num_tokens):
    return Bag(num_tokens, num_outputs)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_shapes.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("own_shapes", None)
    yield
    sys.modules.pop("own_shapes", None)


def task_of(model: str = "mlp", **data: Any) -> Task:
    return Task(
        data=Data(**data), model=Model(name=model), recipe=Recipe(lr=0.1, batch_size=8, epochs=2), tolerance=0.01
    )


def npz(tmp_path: Path, x: np.ndarray, **data: Any) -> dict[str, Any]:
    np.savez(tmp_path / "data.npz", x=x, y=Y[: len(x)])
    return {"source": str(tmp_path / "data.npz"), **data}


def dataset(tmp_path: Path, x: np.ndarray, name: str = "rows", **data: Any) -> dict[str, Any]:
    np.savez(tmp_path / "rows.npz", x=x, y=Y[: len(x)])
    return {"source": f"own_shapes:{name}", "options": {"path": str(tmp_path / "rows.npz")}, **data}


def tensors(tmp_path: Path, x: np.ndarray, **data: Any) -> dict[str, Any]:
    return dataset(tmp_path, x, "tensors", **data)


def column(tmp_path: Path, values: pa.Array, **data: Any) -> dict[str, Any]:
    pq.write_table(pa.table({"x": values, "label": Y[: len(values)]}), tmp_path / "data.parquet")
    return {"source": str(tmp_path / "data.parquet"), **data}


def lists(tmp_path: Path, x: np.ndarray, **data: Any) -> dict[str, Any]:
    kind = pa.from_numpy_dtype(x.dtype)
    for _ in x.shape[1:]:
        kind = pa.list_(kind)
    return column(tmp_path, pa.array(x.tolist(), kind), **data)


def fixed_lists(tmp_path: Path, x: np.ndarray, **data: Any) -> dict[str, Any]:
    kind = pa.from_numpy_dtype(x.dtype)
    for size in reversed(x.shape[1:]):
        kind = pa.list_(kind, size)
    return column(tmp_path, pa.array(x.tolist(), kind), **data)


def tensor_column(tmp_path: Path, x: np.ndarray, **data: Any) -> dict[str, Any]:
    return column(tmp_path, pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x)), **data)


Maker = Callable[..., dict[str, Any]]
MAKERS: list[Maker] = [npz, dataset, tensors, lists, fixed_lists, tensor_column]


def loaded(tmp_path: Path, data: dict[str, Any]) -> TaskData:
    data_module._LOADED.clear()  # as in a fresh process
    return load(task_of(**data), DataPaths(cache=str(tmp_path / "cache")))


def all_of(data: TaskData) -> np.ndarray:
    """The training part as networks get it."""
    return data.train.batch(torch.arange(len(data.train)))[0].numpy()


def standardised(x: np.ndarray, data: TaskData, axes: tuple[int, ...]) -> np.ndarray:
    """The training part of x with means and spreads of it over some axes, in float64."""
    own = x[data.train.rows.numpy()].astype(np.float64)
    return (own - own.mean(axis=axes, keepdims=True)) / own.std(axis=axes, keepdims=True)


# --- each layout, in each source ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_a_series_is_standardised_by_channel_and_gets_no_axis(tmp_path: Path, make: Maker) -> None:
    data = loaded(tmp_path, make(tmp_path, SERIES, layout="series"))
    assert data.input_shape == (C, T)
    np.testing.assert_allclose(all_of(data), standardised(SERIES, data, (0, 2)), atol=1e-4)
    means = all_of(data).mean(axis=(0, 2))
    np.testing.assert_allclose(means, 0, atol=1e-4)  # of both sensors, where one mean for all leaves -1 and 1


@pytest.mark.parametrize("make", MAKERS)
def test_one_dimension_is_a_series_of_one_channel(tmp_path: Path, make: Maker) -> None:
    data = loaded(tmp_path, make(tmp_path, SERIES[:, 0], layout="series"))
    assert data.input_shape == (1, T)
    np.testing.assert_allclose(all_of(data), standardised(SERIES[:, :1], data, (0, 2)), atol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
def test_token_ids_stay_what_they_are(tmp_path: Path, make: Maker) -> None:
    data = loaded(tmp_path, make(tmp_path, IDS, layout="tokens"))
    batch, _ = data.train.batch(torch.arange(len(data.train)))
    assert batch.dtype == torch.int64
    assert np.array_equal(batch.numpy(), IDS[data.train.rows.numpy()])
    assert (data.input_shape, data.num_tokens) == ((12,), IDS.max() + 1)
    assert data.train.inputs.dtype == torch.int32


@pytest.mark.parametrize("make", MAKERS)
def test_flat_numbers_are_standardised_each(tmp_path: Path, make: Maker) -> None:
    data = loaded(tmp_path, make(tmp_path, SERIES, layout="flat"))
    assert data.input_shape == (C * T,)
    np.testing.assert_allclose(all_of(data), standardised(SERIES.reshape(N, -1), data, (0,)), atol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_images_are_standardised_by_channel(tmp_path: Path, make: Maker) -> None:
    for x in (PHOTOS, PHOTOS.transpose(0, 3, 1, 2)):
        data = loaded(tmp_path, make(tmp_path, x, layout="image"))
        assert data.input_shape == (3, 8, 8)
        assert data.train.inputs.dtype == torch.uint8
        first = PHOTOS.transpose(0, 3, 1, 2)
        assert np.array_equal(data.train.inputs.numpy(), first)
        np.testing.assert_allclose(all_of(data), standardised(first, data, (0, 2, 3)), atol=1e-5)
    grey = loaded(tmp_path, make(tmp_path, SERIES, layout="image"))
    assert grey.input_shape == (1, C, T)
    np.testing.assert_allclose(all_of(grey), standardised(SERIES[:, None], grey, (0, 2, 3)), atol=1e-4)


def test_images_of_a_dataset_are_known(tmp_path: Path) -> None:
    assert loaded(tmp_path, dataset(tmp_path, PHOTOS, "pictures", layout="image")).input_shape == (3, 8, 8)
    assert loaded(tmp_path, dataset(tmp_path, PHOTOS, "pictures", layout="flat")).input_shape == (192,)
    with pytest.raises(DataError, match=r"^data.layout of images must be image or flat, got 'tokens' \(example"):
        loaded(tmp_path, dataset(tmp_path, PHOTOS, "pictures", layout="tokens"))


def test_training_and_test_are_laid_out_alike(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", x=SERIES, y=Y, x_test=SERIES[:30] + 1, y_test=Y[:30])
    data = loaded(tmp_path, {"source": str(tmp_path / "two.npz"), "layout": "series"})
    assert data.test.inputs.shape == (90, C, T)
    np.savez(tmp_path / "ids.npz", x=IDS, y=Y, x_test=IDS[:30] * 2, y_test=Y[:30])
    data = loaded(tmp_path, {"source": str(tmp_path / "ids.npz"), "layout": "tokens"})
    assert data.num_tokens == 2 * IDS[:30].max() + 1  # an id of the test file alone has a place in the table too


def test_lists_of_ids_of_several_lengths_are_filled_up_with_0(tmp_path: Path) -> None:
    ragged = [row[: 3 + i % 5].tolist() for i, row in enumerate(IDS)]
    data = loaded(tmp_path, column(tmp_path, pa.array(ragged), layout="tokens"))
    assert data.input_shape == (7,)
    for place, row in zip(data.train.inputs.tolist(), ragged, strict=True):
        assert place == row + [0] * (7 - len(row))


def test_large_ids_are_a_guess_too(tmp_path: Path) -> None:
    """Less a shift, as they are stored, some of them are below 0."""
    large = IDS + 10**9
    assert loaded(tmp_path, npz(tmp_path, large)).taken == "numbers"
    assert loaded(tmp_path, npz(tmp_path, large - 10**10)).taken == ""


# --- without a layout --------------------------------------------------------------------------------------------

GREY = (
    "image (1, 2, 16): 1 channel of 2 x 16 pixels, standardised by channel (taken for an image because it has two "
    "dimensions: set data.layout to series for sensors or channels by time, to flat for numbers that stand for "
    "themselves)"
)
WHOLE = (
    "12 numbers, each standardised on its own (taken for numbers, though they are whole: for ids that a network embeds "
    "set data.layout to tokens)"
)


@pytest.mark.parametrize("make", [npz, dataset, tensors])
def test_guesses_are_told(tmp_path: Path, make: Maker) -> None:
    def told(x: np.ndarray, **data: Any) -> str:
        made = make(tmp_path, x, **data)
        return describe_example(loaded(tmp_path, made), Data(**made))

    assert told(SERIES) == GREY
    assert told(SERIES, layout="image") == GREY.partition(" (taken")[0]
    assert told(SERIES, layout="series") == "series (2, 16): 2 channels of 16 steps, standardised by channel"
    assert told(SERIES, layout="flat") == "32 numbers, each standardised on its own"
    assert told(IDS) == WHOLE
    assert told(IDS, layout="flat") == told(IDS - 30) == WHOLE.partition(" (taken")[0]  # no ids are below 0
    assert told(IDS, layout="tokens") == "tokens (12,): 12 places, 50 ids (ids as they are, 0 the padding)"
    assert told(SERIES[:, 0]) == "16 numbers, each standardised on its own"
    assert told(SERIES[:, 0, 0]) == "1 number, each standardised on its own"
    assert (
        told(PHOTOS)
        == told(PHOTOS.transpose(0, 3, 1, 2))
        == "image (3, 8, 8): 3 channels of 8 x 8 pixels, standardised by channel"
    )
    assert told(PHOTOS / 255) == (
        "image (3, 8, 8): 3 channels of 8 x 8 pixels, standardised by channel (taken for channels last, and turned "
        "round: where the last axis holds no channels, transpose the arrays)"
    )
    assert told(np.concatenate([PHOTOS] * 2, axis=3)) == (
        "image (8, 8, 6): 8 channels of 8 x 6 pixels, standardised by channel (taken for channels first: where the "
        "channels are last, move them to the front)"
    )
    volumes = "512 numbers (1, 8, 8, 8), each standardised on its own"
    assert told(RNG.normal(size=(N, 1, 8, 8, 8))) == volumes


def test_a_series_of_more_channels_than_steps_may_be_the_wrong_way_round(tmp_path: Path) -> None:
    made = npz(tmp_path, SERIES.transpose(0, 2, 1), layout="series")
    assert describe_example(loaded(tmp_path, made), Data(**made)) == (
        "series (16, 2): 16 channels of 2 steps, standardised by channel (taken for 16 channels of 2 steps: where time "
        "comes first, transpose the arrays)"
    )


def test_guesses_of_lists_are_told(tmp_path: Path) -> None:
    made = lists(tmp_path, IDS)
    assert describe_example(loaded(tmp_path, made), Data(**made)) == WHOLE
    made = lists(tmp_path, SERIES[:, 0])
    assert describe_example(loaded(tmp_path, made), Data(**made)) == "16 numbers, each standardised on its own"
    pq.write_table(
        pa.table({"a": np.arange(N) % 7 + 0.5, "b": np.arange(N) // 5, "label": Y}), tmp_path / "table.parquet"
    )
    made = {"source": str(tmp_path / "table.parquet")}
    assert describe_example(loaded(tmp_path, made), Data(**made)) == "2 numbers, each standardised on its own"
    made |= {"categorical": ["b"]}
    words = describe_example(loaded(tmp_path, made), Data(**made))
    assert re.fullmatch(r"\d\d numbers, each standardised on its own, categories one-hot", words)


@pytest.mark.parametrize("make", [lists, fixed_lists, tensor_column])
def test_lists_of_lists_need_a_layout(tmp_path: Path, make: Maker) -> None:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, make(tmp_path, SERIES))
    assert str(caught.value) == (
        "column 'x' has examples of shape (2, 16), and nothing says what they are. Set data.layout to image, series "
        "(channels, then time) or flat."
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        *(((), np.int64, ""), ((1,), np.int64, ""), ((2,), np.uint8, "numbers"), ((2,), np.float64, "")),
        *(((2, 2), np.float32, "grey"), ((3, 8, 8), np.uint8, ""), ((8, 8, 3), np.uint8, "")),
        *(((3, 8, 3), np.uint8, "channels_first"), ((1, 8, 3), np.uint8, "channels_first")),
        *(
            ((8, 8, 2), np.float32, "channels_first"),
            ((1, 8, 8), np.float32, ""),
            ((8, 8, 3), np.float64, "channels_last"),
            ((2, 3, 4, 5), np.float32, ""),
        ),
    ],
)
def test_what_shapes_leave_open(shape: tuple[int, ...], dtype: Any, expected: str) -> None:
    assert taken_for(shape, np.dtype(dtype)) == expected


# --- refused -----------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "image": (
        lambda tmp: npz(tmp, IDS, layout="image"),
        "examples of data.layout image must be (height, width), (channels, height, width) or (height, width, channels"
        "), got (12,) (array 'x' of {tmp}/data.npz). Reshape them.",
    ),
    "series": (
        lambda tmp: dataset(tmp, PHOTOS, layout="series"),
        "examples of data.layout series must be (channels, time) or (time,), got (8, 8, 3) (example 5 of "
        "'own_shapes:rows'). Reshape them.",
    ),
    "tokens": (
        lambda tmp: lists(tmp, SERIES.astype(int), layout="tokens"),
        "token ids must be in [0, 16,777,216), got -1 (column 'x'). Number the ids 0, 1, 2, ..., or set data.layout to "
        "flat.",
    ),
    "token dimensions": (
        lambda tmp: npz(tmp, PHOTOS, layout="tokens"),
        "examples of data.layout tokens must be (time,), got (8, 8, 3) (array 'x' of {tmp}/data.npz). Reshape them.",
    ),
    "no ids": (
        lambda tmp: npz(tmp, SERIES[:, 0], layout="tokens"),
        "token ids must be whole numbers, got float32 (array 'x' of {tmp}/data.npz). Number the ids 0, 1, 2, ..., or "
        "set data.layout to flat.",
    ),
    "large ids": (
        lambda tmp: npz(tmp, IDS + 2**40, layout="tokens"),
        f"token ids must be in [0, 16,777,216), got {IDS.max() + 2**40} (array 'x' of {{tmp}}/data.npz). Number the "
        "ids 0, 1, 2, ..., or set data.layout to flat.",
    ),
    "padding": (
        lambda tmp: column(tmp, pa.array([[1, 2], [0, 3, 4], *[[5, 6]] * 58]), layout="tokens"),
        "lists of column 'x' have several lengths, and shorter ones are filled up with 0, an id in row 1. Add 1 to all "
        "ids, or fill the lists up beforehand.",
    ),
    "empty": (
        lambda tmp: column(tmp, pa.array([[1, 2], [], *[[5, 6]] * 58]), layout="tokens"),
        "lists of column 'x' must hold numbers, got none (row 1). Drop such rows.",
    ),
    "missing": (
        lambda tmp: column(tmp, pa.array([[1, 2], None, *[[5, 6]] * 58]), layout="series"),
        "lists of column 'x' must be whole, got nothing in row 1. Drop such rows.",
    ),
    "missing id": (
        lambda tmp: column(tmp, pa.array([[1, 2], [3, None], *[[5, 6]] * 58]), layout="tokens"),
        "lists of column 'x' must be whole, got nothing in row 1. Drop such rows.",
    ),
    "missing id of several lengths": (
        lambda tmp: column(tmp, pa.array([[1, 2, 3], [3, None], *[[5, 6]] * 58]), layout="tokens"),
        "lists of column 'x' must hold numbers, got nothing in row 1. Drop such rows.",
    ),
    "ragged": (
        lambda tmp: column(tmp, pa.array([[[1.0, 2.0]], [[1.0]], *[[[5.0, 6.0]]] * 58]), layout="series"),
        "lists of column 'x' must have one length, got 2 and 1 (row 1). Fill them up or cut them.",
    ),
    "table": (
        lambda tmp: column(tmp, pa.array(np.arange(60)), layout="series"),
        "data.layout series needs one column of lists, got numbers in 'x'. Name one in data.features, or remove the "
        "key.",
    ),
    "named": (
        lambda _: {"source": "digits", "layout": "flat"},
        "data.layout means nothing to 'digits': its input and label are known. Remove the key.",
    ),
    "nan": (
        lambda tmp: npz(
            tmp, np.where(np.arange(N * C * T).reshape(SERIES.shape) == 7 * 32 + 19, np.nan, SERIES), layout="series"
        ),
        "features must be finite float32 numbers, got NaN, infinity or nothing in place (1, 3) of an example (2, 16), "
        "row 7. Fill it, or drop the row or the column.",
    ),
    "no size": (
        lambda tmp: npz(tmp, SERIES[:, :, :0], layout="series"),
        "inputs must hold numbers, got the shape (60, 2, 0). Give each example a feature.",
    ),
    "equal": (
        lambda tmp: npz(tmp, np.tile(SERIES[:1], (N, 1, 1))),
        "inputs must vary, got the same example 60 times. There is nothing to learn. Mend the data.",
    ),
    "equal ids": (
        lambda tmp: dataset(tmp, np.tile(IDS[:1], (N, 1)), layout="tokens"),
        "inputs must vary, got the same example 60 times. There is nothing to learn. Mend the data.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    made = make(tmp_path)
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, made)
    found = re.sub(r"example \d+ of", "example 5 of", str(caught.value))  # the first of a drawn sample
    assert found.replace("got -3", "got -1").replace(str(tmp_path), "{tmp}") == message


def test_a_layout_beside_what_says_it_already_is_refused(tmp_path: Path) -> None:
    for key, value in (("text", "a"), ("categorical", ["a"])):
        with pytest.raises(ConfigError, match=rf"^layout: layout must be left out beside {key}, which says what an"):
            Data(source="a.parquet", layout="flat", **{key: value})
    pq.write_table(pa.table({"text": ["a b", "c"] * 30, "label": Y}), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="layout must be left out beside text"):
        loaded(tmp_path, {"source": str(tmp_path / "t.parquet"), "layout": "tokens"})
    (tmp_path / "t.tsv").write_text("text\tlabel\na b\t0\nc\t1\n")
    with pytest.raises(DataError, match=r"^data.layout means nothing to .tsv files"):
        loaded(tmp_path, {"source": str(tmp_path / "t.tsv"), "layout": "tokens"})


def test_a_layout_is_a_key_only_where_it_is_given() -> None:
    assert Data(source="a.npz").to_mapping() == {"source": "a.npz", "label": "label", "features": None, "options": {}}
    assert Data(source="a.npz", layout="series").to_mapping()["layout"] == "series"
    with pytest.raises(ConfigError, match="layout must be one of image, series, tokens, flat, got 'serie'"):
        Data(source="a.npz", layout="serie")  # type: ignore[arg-type]


def test_another_layout_is_other_data(tmp_path: Path) -> None:
    layouts = ("image", "series", "flat", None)
    found = [loaded(tmp_path, npz(tmp_path, SERIES, layout=layout)).fingerprint for layout in layouts]
    assert len(set(found)) == 3
    assert found[0] == found[3]  # what was guessed is an image


# --- networks ----------------------------------------------------------------------------------------------------

NO_IMAGES = "needs images (channels, height, width), got inputs of shape (2, 16). Use mlp, or a network of your own."
NO_IDS = "needs numbers, got texts or other token ids. Use transformer, or a network of your own."
FITS: dict[tuple[str, str], str] = {
    ("mlp", "series"): "",
    ("cnn", "series"): f"model 'cnn' {NO_IMAGES}",
    ("resnet18", "series"): f"model 'resnet18' {NO_IMAGES}",
    ("transformer", "series"): "model 'transformer' needs texts (a row of token ids for each example), got numbers of "
    "shape (2, 16). Set data.text, or data.layout to tokens, or use another model.",
    ("own_shapes:conv", "series"): "",
    ("own_shapes:lstm", "series"): "",
    ("mlp", "tokens"): f"model 'mlp' {NO_IDS}",
    ("cnn", "tokens"): f"model 'cnn' {NO_IDS}",
    ("transformer", "tokens"): "",
    ("own_shapes:bag", "tokens"): "",
    ("mlp", "flat"): "",
    ("own_shapes:bag", "flat"): "model 'own_shapes:bag' needs token ids (num_tokens), got numbers of shape (12,). Set "
    "data.layout to tokens, or data.text.",
}


@pytest.mark.parametrize(("model", "layout"), FITS)
def test_networks_and_layouts(tmp_path: Path, model: str, layout: str) -> None:
    made = npz(tmp_path, SERIES if layout == "series" else IDS, layout=layout)
    task, places = task_of(model, **made), DataPaths(cache=str(tmp_path / "cache"))
    if FITS[model, layout]:
        with pytest.raises(ModelError) as caught:
            facts(task, places)
        assert str(caught.value) == FITS[model, layout]
        return
    known = facts(task, places)
    result = run(task, conventional(known), 0, options=RunOptions(num_threads=1, device="cpu", places=places))
    assert result.cause == "finished"


def test_a_network_that_does_not_fit_a_guess_is_told_the_guess(tmp_path: Path) -> None:
    places = DataPaths(cache=str(tmp_path / "cache"))
    with pytest.raises(ModelError) as caught:
        facts(task_of("own_shapes:lstm", **npz(tmp_path, SERIES)), places)
    assert "fails on inputs of shape (2, 1, 2, 16)" in str(caught.value)
    assert str(caught.value).endswith(f" An example was {GREY.partition(' (')[2].partition(' (')[2][:-1]}.")
    with pytest.raises(ModelError, match="An example was taken for numbers, though they are whole: for ids that"):
        facts(task_of("own_shapes:bag", **npz(tmp_path, IDS)), places)


def test_an_lstm_counts_what_it_does(tmp_path: Path) -> None:
    places = DataPaths(cache=str(tmp_path / "cache"))
    known = facts(task_of("own_shapes:lstm", **npz(tmp_path, SERIES, layout="series")), places)
    assert known.forward_flops == 2 * (T * 4 * 5 * (C + 5) + 5 * 3)  # four gates of five units, then the head


def test_the_transformer_refuses_a_0_between_ids(tmp_path: Path) -> None:
    """It would take it for padding, and look at the others alone."""
    ids, places = IDS.copy(), DataPaths(cache=str(tmp_path / "cache"))
    ids[4, 6:] = 0
    ids[5, :6] = 0
    facts(task_of("transformer", **npz(tmp_path, ids, layout="tokens")), places)  # behind or before all others
    ids[7, 6] = 0
    made = npz(tmp_path, ids, layout="tokens")
    with pytest.raises(ModelError) as caught:
        facts(task_of("transformer", **made), places)
    assert str(caught.value) == (
        "model 'transformer' takes id 0 for padding, and in example 7 it stands between other ids. Add 1 to all ids, "
        "or use a network of your own."
    )
    facts(task_of("own_shapes:bag", **made), places)
