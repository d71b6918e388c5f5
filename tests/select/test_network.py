"""Layers over time, as selectors and early exits see them: averaged over the steps, never over the channels."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_networks import WIDTH, Masked
from torch import Tensor, nn
from torch.nn import functional

from subsettune import train
from subsettune.data import DataPaths, load
from subsettune.select.network import ModelView, anatomy, pooled
from subsettune.task import Data, Model, Recipe, Task
from subsettune.train.learner import Learner
from subsettune.train.orders.sift import Sift, SiftStream, listening
from subsettune.train.randomness import isolated

C, T, W = 2, 16, 8  # channels, steps, width of layers: no two are alike

MODULE = """
from torch import nn

class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inside = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.ReLU())

    def forward(self, x):
        return x + self.inside(x)

def over_time(input_shape, num_outputs):
    c, t = input_shape
    first = [nn.Conv1d(c, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), Residual(8)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, num_outputs))
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    (tmp_path / "own_layers.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", x=rng.normal(size=(80, C, T)).astype(np.float32), y=np.arange(80) % 3)
    yield Task(
        data=Data(source=str(tmp_path / "s.npz"), layout="series"),
        model=Model(name="own_layers:over_time"),
        recipe=Recipe(lr=0.05, batch_size=16, epochs=2),
        tolerance=0.05,
    )
    sys.modules.pop("own_layers", None)


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(cache=str(tmp_path / "cache"))


def test_convolutions_over_time_are_averaged_over_time(task: Task, places: DataPaths) -> None:
    data = load(task, places)
    facts = train.facts(task, places)
    names = ("0", "1", "2", "3", "4.inside.0", "4.inside.1", "4.inside", "4")
    assert {name: facts.layers[name] for name in names} == dict.fromkeys(names, W)
    with isolated(0, 1):
        learner = Learner(task, task.recipe, data, torch.device("cpu"), 0)
    view = ModelView(learner.network, data.train)
    network: nn.Sequential = learner.network.eval()  # type: ignore[assignment]
    x, _ = data.train.batch(torch.arange(len(data.train)))
    with torch.no_grad():
        for end in range(1, 6):
            hidden = network[:end](x)
            slow = torch.stack([hidden[..., t] for t in range(T)]).double().mean(dim=0)
            assert torch.allclose(view.layer(str(end - 1)).double(), slow, atol=1e-5)


def test_an_exit_of_convolutions_over_time_is_averaged_over_time(task: Task, places: DataPaths) -> None:
    data, facts = load(task, places), train.facts(task, places)
    with isolated(0, 1):
        learner = Learner(task, task.recipe, data, torch.device("cpu"), 0)
    order = Sift(keep=0.5, exit="4", head="auxiliary")
    stream = order.stream(facts.num_examples, 16, 0)
    stream.attach(learner)
    stream.enter(None)
    assert isinstance(stream, SiftStream)
    inputs, targets = learner.part.batch(torch.arange(20))
    network: nn.Sequential = learner.network  # type: ignore[assignment]
    with torch.no_grad():
        hidden = network.eval()[:5](inputs).mean(dim=2)
        with listening(network, "4", inputs, is_map=True) as heard:
            network(inputs)
    assert torch.allclose(heard[0], hidden, atol=1e-6)
    losses = stream.losses(learner, inputs, targets, facts)
    linear = stream._of(order.leaves(facts)).linear
    assert linear.in_features == W
    assert torch.allclose(losses, functional.cross_entropy(linear(hidden), targets, reduction="none"), atol=1e-5)


class Steps(nn.Module):
    """Recurrent: (b, c, t) in, (b, t, w) inside."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(C, W, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(W)
        self.act = nn.GELU()
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.rnn(x.transpose(1, 2))[0])
        outputs: Tensor = self.head(self.act(self.norm(hidden))[:, -1])
        return outputs


def test_recurrent_layers_are_averaged_over_time() -> None:
    found = anatomy(Steps(), torch.randn(2, C, T))
    assert {name: found.layers[name] for name in ("drop", "norm", "act", "head")} == {
        **dict.fromkeys(("drop", "norm", "act"), W),
        "head": 3,
    }
    assert not found.maps


def test_padding_alone_gives_zeros() -> None:
    """Own ids may be all 0, where a text has at least a word."""
    ids = torch.tensor([[0, 0, 0], [4, 5, 0]])
    hidden = torch.randn(2, 3, W)
    expected = torch.stack([torch.zeros(W), hidden[1, :2].mean(dim=0)])
    assert torch.allclose(pooled(hidden, ids), expected)


class Texts:
    """Token ids of several lengths, filled up with 0."""

    def __len__(self) -> int:
        return 4

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([[3, 4, 5, 6, 0, 0], [7, 8, 0, 0, 0, 0], [9, 1, 2, 3, 4, 0], [5, 0, 0, 0, 0, 0]])
        return ids[index], index % 3


def test_layers_of_an_encoder_that_is_told_of_padding() -> None:
    """In evaluation torch makes nested tensors of such batches, which have no shape; its slow path is the oracle."""
    network, texts = Masked(), Texts()
    view = ModelView(network, texts)
    ids, _ = texts.batch(torch.arange(4))
    is_padding = ids == 0
    slow = copy.deepcopy(network).eval()
    states = slow.body.layers[0](slow.table(ids), src_key_padding_mask=is_padding)  # with gradients: not the fast path
    means = torch.stack([row[~gone].mean(dim=0) for row, gone in zip(states, is_padding, strict=True)])
    assert torch.allclose(view.layer("body.layers.0"), means, atol=1e-6)
    assert view.layer("body.layers.1").shape == (4, WIDTH)
    assert view.head_features == WIDTH
    assert torch.backends.mha.get_fastpath_enabled()
