"""Counts against closed forms: 2 FLOPs for a multiplication and an addition, per example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subsettune import models
from subsettune.errors import ModelError
from subsettune.task import Model
from subsettune.train import flops


@pytest.fixture(autouse=True)
def _forked_random_state() -> Iterator[None]:
    """Networks that are made here draw random numbers."""
    with torch.random.fork_rng(devices=[]):
        yield


class Sequence(nn.Module):
    """A network on (T, D) inputs: a body that keeps the sequence, then a linear head on the last step."""

    def __init__(self, body: nn.Module, width: int, num_outputs: int = 3) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out = out[0] if isinstance(out, tuple) else out
        result: Tensor = self.head(out[:, -1])
        return result


class Attention(nn.Module):
    """Self-attention on (T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class Function(nn.Module):
    """A head behind any function of a weight matrix."""

    def __init__(self, function: Any, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.weight, self.function, self.head = nn.Parameter(torch.randn(shape)), function, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.function(x, self.weight))
        return out


def test_linear_layers() -> None:
    """Forward 2 * inputs * outputs; backward once more for weights, and for inputs of all layers but the first."""
    network = models.mlp((64,), 10, hidden=(32, 16))
    matrices = (2 * 64 * 32, 2 * 32 * 16, 2 * 16 * 10)
    assert flops.count(network, (64,), 10) == (sum(matrices), sum(matrices) + matrices[1] + matrices[2])


def test_convolutions() -> None:
    """2 * c_in * c_out * kernel area * output pixels."""
    first, second, head = 2 * 1 * 4 * 9 * 64, 2 * 4 * 8 * 9 * 16, 2 * 32 * 10
    network = models.cnn((1, 8, 8), 10, channels=(4, 8), hidden=16)
    hidden = 2 * (8 * 2 * 2) * 16
    head = 2 * 16 * 10
    forward = first + second + hidden + head
    assert flops.count(network, (1, 8, 8), 10) == (forward, 2 * forward - first)


def test_resnet18_for_32x32_images() -> None:
    """The usual 0.56 GFLOPs (He et al. 2016 count multiply-adds), layer by layer."""
    stem = 2 * 3 * 64 * 9 * 32**2
    blocks = 4 * 2 * 64 * 64 * 9 * 32**2
    width, side = 64, 32
    for _ in range(3):
        side //= 2
        blocks += 2 * width * (2 * width) * (9 + 1) * side**2 + 3 * 2 * (2 * width) ** 2 * 9 * side**2
        width *= 2
    forward = stem + blocks + 2 * 512 * 10
    network = models.make(Model(name="resnet18"), (3, 32, 32), 10)
    assert flops.count(network, (3, 32, 32), 10) == (forward, 2 * forward - stem)
    assert 1.0e9 < forward < 1.2e9
    assert models.num_parameters(network) == 11_173_962


def test_attention() -> None:
    """Projections of query, key, value and output, and two products of T x T with D."""
    t, d = 6, 8
    projections, products = 4 * 2 * t * d * d, 2 * 2 * t * t * d
    head = 2 * d * 3
    forward, backward = flops.count(Sequence(Attention(d, 2), d), (t, d), 3)
    assert forward == projections + products + head
    inputs_of_projections = 3 * 2 * t * d * d  # the network's input needs no gradient
    assert backward == 2 * forward - inputs_of_projections


def test_transformer_encoder_with_its_fast_path_in_eval() -> None:
    t, d, hidden = 6, 8, 16
    layer = nn.TransformerEncoderLayer(d, 2, hidden, batch_first=True, dropout=0.0)
    network = Sequence(nn.TransformerEncoder(layer, 1), d).eval()
    forward, backward = flops.count(network, (t, d), 3)
    assert forward == 4 * 2 * t * d * d + 2 * 2 * t * t * d + 2 * 2 * t * d * hidden + 2 * d * 3
    assert backward == 2 * forward - 3 * 2 * t * d * d
    assert torch.backends.mha.get_fastpath_enabled()
    assert not network.training


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(kind: Any, gates: int) -> None:
    t, d, h = 6, 8, 16
    forward, backward = flops.count(Sequence(kind(d, h, batch_first=True), h), (t, d), 3)
    assert forward == 2 * t * gates * h * (d + h) + 2 * h * 3
    assert forward < backward < 2 * forward


def test_recurrent_layers_that_cannot_be_counted_are_refused() -> None:
    """On the CPU the fused kernel hides its FLOPs, and a network that looks at values must be counted there."""

    class Peeking(Sequence):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum().item() < 1 else -x)

    with pytest.raises(ModelError, match=r"^FLOPs of model 'm' cannot be counted: body \(LSTM\) shows none. Build it"):
        flops.count(Peeking(nn.LSTM(8, 16, batch_first=True), 16), (6, 8), 3, "m")


def test_a_network_that_looks_at_values_is_counted_on_the_cpu() -> None:
    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.drop = nn.Linear(5, 3), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(x if float(x.sum()) < 1 else -x))  # type: ignore[no-any-return]

    assert flops.count(Peeking(), (5,), 3) == (30, 30)


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (Function(lambda x, w: torch.cdist(x, w), (5, 4), 5), "it uses aten::_cdist_backward, aten::_cdist_forward"),
        (Function(lambda x, w: torch.linalg.solve(w, x.T).T, (4, 4), 4), "it uses aten::_?linalg_"),
        (Function(lambda x, w: x @ torch.linalg.inv(w), (4, 4), 4), "it uses .*aten::linalg_inv_ex"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Function(lambda x, w: x * w[0], (1, 4), 4)), None),
    ],
    ids=["cdist", "solve", "inverse", "elementwise"],
)
def test_heavy_operations_that_are_not_counted_are_refused(network: nn.Module, what: str | None) -> None:
    if what is None:
        assert flops.count(network, (4,), 3)[0] == 2 * 4 * 4 + 2 * 4 * 3
        return
    with pytest.raises(ModelError, match=f"^FLOPs of model 'm' cannot be counted: {what}.* Build it from linear"):
        flops.count(network, (4,), 3, "m")


def test_bilinear_layers_are_refused() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs, self.head = nn.Bilinear(4, 4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pairs(x, x))  # type: ignore[no-any-return]

    with pytest.raises(ModelError, match=r"^FLOPs of model 'model' cannot be counted: pairs \(Bilinear\) shows none"):
        flops.count(Pairs(), (4,), 3)


def test_embeddings_are_free_and_tied_weights_count_each_use() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x[:, 0].long()))  # type: ignore[no-any-return]

    network = Tied()
    assert models.num_parameters(network) == 40
    assert flops.count(network, (1,), 10) == (80, 160)


def test_frozen_parameters_cost_no_gradient() -> None:
    network = models.mlp((64,), 10, hidden=(32,))
    for parameter in network[1].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    forward = 2 * 64 * 32 + 2 * 32 * 10
    assert flops.count(network, (64,), 10) == (forward, 2 * 32 * 10)
    assert models.num_parameters(network) == 330


def test_a_cost_that_does_not_grow_with_the_batch_is_rounded_up() -> None:
    """Weights that are made by a product: 2 * 5 * 5 * 3 once an update, charged as if the batch were the smallest."""
    network = Function(lambda x, w: x @ (w @ w), (5, 5), 5)
    forward, _ = flops.count(network, (5,), 3)
    assert forward == 2 * 5 * 5 + 2 * 5 * 3 + 2 * 5**3 // 2


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(5, 3), r"^model 'm' fails on inputs of shape \(2, 4\): .*\.$"),
        (
            nn.Linear(4, 2),
            r"^output of model 'm' must be \(2, 3\) for 2 examples and 3 classes or targets, got \(2, 2\)",
        ),
        (nn.Unflatten(1, (2, 2)), r"^output of model 'm' must be \(2, 3\).*, got \(2, 2, 2\). Fit its last layer.$"),
        (nn.RNN(4, 3), r"^model 'm' must return a tensor, got tuple\. Wrap it in a module whose forward returns"),
    ],
)
def test_networks_that_do_not_fit(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        flops.count(network, (4,), 3, "m")


def test_an_output_without_gradient_is_refused() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(
        ModelError, match=r"^output of model 'm' must depend on its trainable parameters. Check what it"
    ):
        flops.count(Detached(4, 3), (4,), 3, "m")


def test_a_network_that_raises_anything_gives_a_sentence() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ModelError, match=r"^model 'm' fails on inputs of shape \(2, 4\): ZeroDivisionError.$"):
        flops.count(Odd(4, 3), (4,), 3, "m")


def test_the_network_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flops.count(network, (4,), 3)
    flops.check_batch(network, (4,), 2)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())
