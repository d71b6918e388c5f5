"""Parts against a slow float64 twin: which examples come out, how they are normalised, and what moves to a device."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from subsettune.data import encode, parts
from subsettune.data.arrays import Arrays, Meta
from subsettune.data.encode import Normalizer
from subsettune.data.parts import Part, TaskData, assemble

CPU = torch.device("cpu")
ROWS = {"train": torch.arange(0, 80, 2), "validation": torch.arange(1, 80, 2), "test": torch.arange(80, 90)}


def data_of(inputs: Tensor, targets: Tensor | None = None, classes: tuple[str, ...] = ("a", "b", "c")) -> TaskData:
    targets = torch.arange(len(inputs)) % 3 if targets is None else targets
    kind = "classification" if classes else "regression"
    meta = Meta(source="made", kind=kind, shape=tuple(inputs.shape[1:]), num_train=80, classes=classes, fingerprint="f")
    return assemble(Arrays(inputs=inputs, targets=targets, meta=meta), ROWS, "fingerprint")


def made(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, (90, *shape), dtype=np.uint8))
    return torch.from_numpy((rng.normal(size=(90, *shape)) * 3 + 5).astype(dtype))


def slow_normalised(inputs: Tensor, train: Tensor, index: int) -> np.ndarray:
    """One number at a time: subtract the mean and divide by the deviation of its channel, or of its place."""
    x = inputs.numpy().astype(np.float64)
    result = np.empty(x.shape[1:])
    for place in np.ndindex(*x.shape[1:]):
        column = x[train.numpy()][:, place[0]] if x.ndim in (3, 4) else x[train.numpy()][(slice(None), *place)]
        mean = column.mean()
        std = np.sqrt(((column - mean) ** 2).mean())
        result[place] = (x[index][place] - mean) / (std if std > 0 else 1.0)
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 4), (6,), (2, 3), (2, 2, 3, 2)])
def test_batches_are_their_slow_twins(shape: tuple[int, ...], dtype: Any) -> None:
    inputs = made(shape, dtype)
    data = data_of(inputs)
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        index = torch.tensor([3, 0, 3, len(part) - 1])
        x, y = part.batch(index)
        rows = ROWS[name][index]
        assert x.dtype == torch.float32
        assert y.tolist() == (rows % 3).tolist()
        expected = np.stack([slow_normalised(inputs, ROWS["train"], int(row)) for row in rows])
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_what_never_varies_is_zero_and_nothing_is_infinite() -> None:
    inputs = made((5,))
    inputs[:, 1] = 0.1
    inputs[:, 2] = -1e30
    inputs[:, 3] = torch.where(torch.arange(90) < 80, 7.0, 8.0)  # varies in the test part only
    inputs[:, 4] *= 1e-42  # below what float32 can divide by
    data = data_of(inputs)
    x, _ = data.train.batch(torch.arange(40))
    assert torch.equal(x[:, 1:4], torch.zeros(40, 3))
    assert bool(torch.isfinite(x).all())
    assert data.test.batch(torch.arange(10))[0][:, 3].tolist() == [1.0] * 10


def test_small_spread_on_a_large_mean_keeps_its_digits() -> None:
    """E[x^2] - E[x]^2 in float64 would be off by a third here; the numbers are exact in float32."""
    inputs = (2.0**23 + torch.arange(90) % 2).reshape(90, 1)
    rows = torch.arange(80)
    normalizer = Normalizer.fit(inputs, rows)
    torch.testing.assert_close(1 / normalizer.scale, torch.tensor([[0.5]]))
    scaled = Normalizer.fit(made((2,)) * 1e-12, rows)
    torch.testing.assert_close(scaled.scale * 1e-12, Normalizer.fit(made((2,)), rows).scale, rtol=1e-5, atol=0)


def test_statistics_do_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = made((3, 8, 8), np.uint8).repeat(20, 1, 1, 1)
    rows = torch.randperm(1800, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    first = Normalizer.fit(inputs, rows)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(Normalizer.fit(inputs, rows).scale, first.scale)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(encode, "STATISTICS_BYTES", 1)
    again = Normalizer.fit(inputs, rows)
    assert torch.equal(again.mean, first.mean)  # sums of whole numbers are exact
    assert torch.equal(again.scale, first.scale)


def test_batches_are_fresh_and_the_file_is_left_alone() -> None:
    for dtype in (np.uint8, np.float32):
        inputs = made((4,), dtype)
        before = inputs.clone()
        part = data_of(inputs).train
        x, y = part.batch(torch.arange(5))
        x.zero_()
        y.zero_()
        assert torch.equal(inputs, before)
        assert not torch.equal(part.batch(torch.arange(5))[0], x)


def test_facts_of_a_classification() -> None:
    data = data_of(made((3, 4, 4), np.uint8))
    assert (data.num_outputs, data.num_classes, data.num_features, data.num_source_examples) == (3, 3, 48, 80)
    assert data.class_counts.tolist() == np.bincount(ROWS["train"].numpy() % 3).tolist()
    assert (data.target_mean, data.target_std) == (0.0, 1.0)


def test_facts_of_a_regression() -> None:
    values = made((2,), seed=1)
    data = data_of(made((4,)), values, classes=())
    assert (data.num_outputs, data.num_classes, data.kind) == (2, 0, "regression")
    assert data.class_counts.tolist() == []
    train = values[ROWS["train"]].double()
    assert isinstance(data.target_mean, Tensor)
    assert isinstance(data.target_std, Tensor)
    torch.testing.assert_close(data.target_mean, train.mean(0).float())
    torch.testing.assert_close(data.target_std, train.std(0, correction=0).float())
    rare = torch.where(torch.arange(90) == 81, 1.0, 0.1)  # constant in training: a spread of rounding errors is none
    assert data_of(made((4,)), rare, classes=()).target_std == 1.0


# --- devices; `meta` stands in for one: it holds shapes, no numbers ---------------------------------------------------


def test_the_part_of_its_own_device_is_itself() -> None:
    part = data_of(made((4,))).train
    assert part.to(CPU) is part


def test_moving_is_done_once_keeps_the_rows_and_goes_with_the_part() -> None:
    part = data_of(made((4,))).train
    moved = part.to(torch.device("meta"))
    assert moved.device.type == moved.inputs.device.type == moved.targets.device.type == "meta"
    assert moved.inputs.shape == (40, 4)
    assert torch.equal(moved.rows, part.rows)  # still rows of the source
    assert part.to(torch.device("meta")) is moved
    assert moved.batch(torch.arange(3, device="meta"))[0].shape == (3, 4)
    held = len(parts._MOVED)
    del part, moved
    gc.collect()
    assert len(parts._MOVED) == held - 1


def test_a_part_with_its_own_copy_gives_the_same_batches() -> None:
    """What a GPU holds: the part's own inputs, looked up by position."""
    part = data_of(made((3, 4, 4), np.uint8)).validation
    own = Part(part.inputs[part.rows], part.targets, part.rows, part.encoder, CPU, lookup=torch.arange(len(part)))
    index = torch.tensor([7, 0, 39])
    for mine, theirs in zip(own.batch(index), part.batch(index), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(own.targets, part.targets)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [parts.GPU_SHARE, 0.0])
def test_a_gpu_gives_what_the_cpu_gives(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """With the data on the GPU, and with data too large for it."""
    monkeypatch.setattr(parts, "GPU_SHARE", share)
    part = data_of(made((3, 4, 4), np.uint8)).train
    moved = part.to(torch.device("cuda", 0))
    assert moved.inputs.device.type == ("cuda" if share else "cpu")
    index = torch.tensor([7, 0, 39])
    for place in (index, index.cuda()):
        x, y = moved.batch(place)
        assert x.device.type == y.device.type == "cuda"
        torch.testing.assert_close(x.cpu(), part.batch(index)[0])
        assert torch.equal(y.cpu(), part.batch(index)[1])
