"""Counts against closed forms: 2 FLOPs for a multiplication and an addition, per example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from odd_networks import OUTPUTS, WIDTH, Cropped, Experts, LayerDrop, Packed, TwoHeads
from torch import Tensor, nn

from subsettune import models
from subsettune.errors import ModelError
from subsettune.task import Model
from subsettune.text import flops_words
from subsettune.train import flops


@pytest.fixture(autouse=True)
def _forked_random_state() -> Iterator[None]:
    """Networks that are made here draw random numbers."""
    with torch.random.fork_rng(devices=[]):
        yield


def count(network: nn.Module, shape: tuple[int, ...], num_outputs: int, name: str = "model") -> tuple[int, int]:
    """(forward, backward) FLOPs per example, on zeros."""
    cost = flops.count(network, flops.Probe(input_shape=shape), num_outputs, name)
    return cost.forward, cost.backward


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
    assert count(network, (64,), 10) == (sum(matrices), sum(matrices) + matrices[1] + matrices[2])


def test_convolutions() -> None:
    """2 * c_in * c_out * kernel area * output pixels."""
    first, second, head = 2 * 1 * 4 * 9 * 64, 2 * 4 * 8 * 9 * 16, 2 * 32 * 10
    network = models.cnn((1, 8, 8), 10, channels=(4, 8), hidden=16)
    hidden = 2 * (8 * 2 * 2) * 16
    head = 2 * 16 * 10
    forward = first + second + hidden + head
    assert count(network, (1, 8, 8), 10) == (forward, 2 * forward - first)


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
    assert count(network, (3, 32, 32), 10) == (forward, 2 * forward - stem)
    assert 1.0e9 < forward < 1.2e9
    assert models.num_parameters(network) == 11_173_962


def test_attention() -> None:
    """Projections of query, key, value and output, and two products of T x T with D."""
    t, d = 6, 8
    projections, products = 4 * 2 * t * d * d, 2 * 2 * t * t * d
    head = 2 * d * 3
    forward, backward = count(Sequence(Attention(d, 2), d), (t, d), 3)
    assert forward == projections + products + head
    inputs_of_projections = 3 * 2 * t * d * d  # the network's input needs no gradient
    assert backward == 2 * forward - inputs_of_projections


def test_transformer_encoder_with_its_fast_path_in_eval() -> None:
    t, d, hidden = 6, 8, 16
    layer = nn.TransformerEncoderLayer(d, 2, hidden, batch_first=True, dropout=0.0)
    network = Sequence(nn.TransformerEncoder(layer, 1), d).eval()
    forward, backward = count(network, (t, d), 3)
    assert forward == 4 * 2 * t * d * d + 2 * 2 * t * t * d + 2 * 2 * t * d * hidden + 2 * d * 3
    assert backward == 2 * forward - 3 * 2 * t * d * d
    assert torch.backends.mha.get_fastpath_enabled()
    assert not network.training


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(kind: Any, gates: int) -> None:
    t, d, h = 6, 8, 16
    forward, backward = count(Sequence(kind(d, h, batch_first=True), h), (t, d), 3)
    assert forward == 2 * t * gates * h * (d + h) + 2 * h * 3
    assert forward < backward < 2 * forward


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_cost_on_the_cpu_what_they_cost_without_values(kind: Any) -> None:
    """The fused kernel of the CPU would hide the FLOPs of an LSTM that looks at values first."""

    class Peeking(Sequence):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum().item() < 1 else -x)

    layer = kind(8, 16, batch_first=True)
    assert count(Peeking(layer, 16), (6, 8), 3) == count(Sequence(layer, 16), (6, 8), 3)
    assert torch.backends.mkldnn.enabled


def test_a_network_that_looks_at_values_is_counted_on_the_cpu() -> None:
    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.drop = nn.Linear(5, 3), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(x if float(x.sum()) < 1 else -x))  # type: ignore[no-any-return]

    assert count(Peeking(), (5,), 3) == (30, 30)


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (Function(lambda x, w: torch.linalg.solve(w, x.T).T, (4, 4), 4), "it uses aten::_?linalg_"),
        (Function(lambda x, w: x @ torch.linalg.inv(w), (4, 4), 4), "it uses .*aten::linalg_inv_ex"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Function(lambda x, w: x * w[0], (1, 4), 4)), None),
    ],
    ids=["solve", "inverse", "elementwise"],
)
def test_heavy_operations_that_are_not_counted_are_refused(network: nn.Module, what: str | None) -> None:
    if what is None:
        assert count(network, (4,), 3)[0] == 2 * 4 * 4 + 2 * 4 * 3
        return
    with pytest.raises(ModelError, match=f"^FLOPs of model 'm' cannot be counted: {what}.* Build it from linear"):
        count(network, (4,), 3, "m")


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
    assert count(network, (1,), 10) == (80, 160)


def test_frozen_parameters_cost_no_gradient() -> None:
    network = models.mlp((64,), 10, hidden=(32,))
    for parameter in network[1].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    forward = 2 * 64 * 32 + 2 * 32 * 10
    assert count(network, (64,), 10) == (forward, 2 * 32 * 10)
    assert models.num_parameters(network) == 330


def test_a_cost_that_does_not_grow_with_the_batch_is_rounded_up() -> None:
    """Weights that are made by a product: 2 * 5 * 5 * 3 once an update, charged as if the batch were the smallest."""
    network = Function(lambda x, w: x @ (w @ w), (5, 5), 5)
    forward, _ = count(network, (5,), 3)
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
        count(network, (4,), 3, "m")


def test_a_network_that_multiplies_nothing_is_refused() -> None:
    """Compute is the unit of everything here, and such a network has none."""
    with pytest.raises(ModelError, match=r"^model 'm' must multiply by its parameters, and shows no FLOPs. Build it"):
        count(nn.LayerNorm(3), (3,), 3, "m")


def test_an_output_without_gradient_is_refused() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(
        ModelError, match=r"^output of model 'm' must depend on its trainable parameters. Check what it"
    ):
        count(Detached(4, 3), (4,), 3, "m")


def test_a_network_that_raises_anything_gives_a_sentence() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ModelError, match=r"^model 'm' fails on inputs of shape \(2, 4\): ZeroDivisionError.$"):
        count(Odd(4, 3), (4,), 3, "m")


def test_the_network_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, (4,), 3)
    flops.check_batch(network, flops.Probe(input_shape=(4,)), 2)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())


# --- networks whose cost depends on more than shapes ------------------------------------------------------------------


def texts(n: int, t: int) -> Tensor:
    """(n, t) int64 token ids with padding: the lengths go from 1 to t and come again."""
    lengths = 1 + torch.arange(n) % t
    return torch.where(torch.arange(t) < lengths.unsqueeze(1), 7, 0)


def reading(inputs: Tensor, batch_size: int) -> flops.Probe:
    """A probe on these examples."""
    return flops.Probe(
        input_shape=tuple(inputs.shape[1:]),
        dtype=inputs.dtype,
        batch_size=batch_size,
        read=lambda positions: inputs[positions],
        num_examples=len(inputs),
    )


def test_packed_sequences_cost_what_real_texts_cost() -> None:
    """Zeros, of which all is padding, would be refused; the charge is the mean over the sample, here all texts."""
    n, t = 256, 16
    inputs = texts(n, t)
    cost = flops.count(Packed(), reading(inputs, 32), 3, "m")
    mean = sum(Packed.flops(int(length)) for length in (inputs != 0).sum(1)) / n
    assert cost.forward == -(-int(mean) // 1)
    assert (cost.device, cost.batches) == ("cpu", (32,) * 8)
    assert re.fullmatch(
        r"The FLOPs of model 'm' depend on the values of its inputs or on random draws: in 8 batches of 32 they were "
        r"[\d.]+ kFLOP to [\d.]+ kFLOP an example. Every example is charged the mean of these batches, [\d.]+ kFLOP.",
        cost.varies,
    )
    assert cost.notes == ()
    assert flops.count(Packed(), reading(inputs, 32), 3, "m") == cost  # whatever the draws before


def test_lengths_that_are_all_equal_are_no_reason_for_a_warning() -> None:
    inputs = torch.full((40, 5), 7)
    cost = flops.count(Packed(), reading(inputs, 8), 3, "m")
    assert cost.forward == Packed.flops(5)
    assert (cost.varies, cost.notes) == ("", ())


def test_the_layers_of_a_network_that_varies_are_visited_at_their_mean() -> None:
    network, probe = Packed(), reading(texts(256, 16), 32)
    cost = flops.count(network, probe, 3, "m")
    visits = flops.visits(network, probe, cost)
    assert visits["head"].end == cost.forward
    assert visits["body"].end == visits["head"].start == cost.forward - 2 * WIDTH * OUTPUTS


def test_batches_are_as_large_as_in_training_where_the_longest_text_decides() -> None:
    """Texts of 1 to 16 tokens, cropped to the longest of the batch: nearly always 16 of 32, and 11 of 2 on average."""
    inputs, per_token = texts(256, 16), 2 * WIDTH * WIDTH
    large, small = (flops.count(Cropped(), reading(inputs, size), 3, "m") for size in (32, 2))
    head = 2 * WIDTH * OUTPUTS
    assert 15.5 * per_token < large.forward - head <= 16 * per_token
    assert 10 * per_token < small.forward - head < 13 * per_token


def test_a_batch_of_one_is_tried_on_a_real_example() -> None:
    flops.check_batch(Packed(), reading(texts(9, 4), 2), 1, "m")
    with pytest.raises(ModelError, match=r"^model 'm' fails on inputs of shape \(1, 4\): .* has to be greater than 0"):
        flops.check_batch(Packed(), reading(texts(9, 4) * 0, 2), 1, "m")


def test_experts_cost_what_the_examples_ask_for_and_one_that_none_asks_for_is_told() -> None:
    n, small, large = 128, 2 * WIDTH * OUTPUTS, 2 * WIDTH * 64 + 2 * 64 * OUTPUTS
    inputs = torch.ones(n, WIDTH)
    inputs[: n // 4, 0] = -1
    cost = flops.count(Experts(), reading(inputs, 32), 3, "m")
    assert cost.forward == (small + 3 * large) // 4  # all 128 examples, once
    assert cost.varies
    assert (
        cost.notes[0]
        == "Not used where FLOPs were counted, and charged nothing if training uses it all the same: never."
    )


def test_layers_that_are_left_out_at_random_are_charged_the_mean_and_told() -> None:
    layer, head = 2 * WIDTH * WIDTH, 2 * WIDTH * OUTPUTS
    cost = flops.count(LayerDrop(), flops.Probe(input_shape=(WIDTH,), batch_size=4), 3, "m")
    assert cost.forward == pytest.approx(head + 2 * layer, rel=0.05)  # half of four; 256 draws err by 3 %
    assert cost.batches == (4,) * 256
    assert cost.varies.startswith(
        "The FLOPs of model 'm' depend on the values of its inputs or on random draws: in 256 "
    )
    in_evaluation = flops_words(head + 4 * layer)
    assert any(note.startswith(f"The forward pass of an example takes {in_evaluation} in eval") for note in cost.notes)
    again = flops.count(LayerDrop(), flops.Probe(input_shape=(WIDTH,), batch_size=4), 3, "m")
    assert again == cost


def test_a_head_for_evaluation_alone_is_told() -> None:
    cost = flops.count(TwoHeads(), flops.Probe(input_shape=(WIDTH,), batch_size=4), 3, "m")
    head, large = 2 * WIDTH * OUTPUTS, 2 * WIDTH * 64 + 2 * 64 * OUTPUTS
    assert (cost.forward, cost.varies) == (head, "")
    assert cost.notes == (
        "Not used where FLOPs were counted, and charged nothing if training uses it all the same: large_head.0, "
        "large_head.1.",
        f"The forward pass of an example takes {flops_words(large)} in evaluation and {flops_words(head)} in training. "
        "Evaluation and selection are charged as in training.",
    )


def test_a_network_that_fails_in_evaluation_is_told_before_training() -> None:
    class Failing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert self.training, "not meant for it"
            return super().forward(x)

    with pytest.raises(ModelError, match=r"^model 'm' in evaluation mode fails on inputs of shape \(2, 4\): not meant"):
        count(Failing(4, 3), (4,), 3, "m")


def test_what_an_update_costs_beside_its_examples_is_spread_over_those_of_a_batch() -> None:
    network = Function(lambda x, w: x @ (w @ w), (5, 5), 5)
    cost = flops.count(network, flops.Probe(input_shape=(5,), batch_size=50), 3, "m")
    assert cost.forward == 2 * 5 * 5 + 2 * 5 * 3 + 2 * 5**3 // 50
    own, beside = 2 * 2 * 5 * 5 + 3 * 2 * 5 * 3, 3 * 2 * 5**3  # the input needs no gradient; both factors of w @ w do
    assert (own + beside // 50, own + beside // 2) == (205, 565)
    assert cost.notes == (
        "The FLOPs of a batch are not proportional to its size: an example takes 205 FLOP in batches of 50, which is "
        "charged, and 565 FLOP in batches of 2.",
    )


def test_a_step_counter_that_changes_the_cost_is_seen() -> None:
    """Costs that change from pass to pass without a draw or a value: the second pass of the count shows it."""

    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.body, self.head = 0, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, OUTPUTS)

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            return self.head(x if self.steps % 2 else self.body(x))  # type: ignore[no-any-return]

    cost = flops.count(Alternating(), flops.Probe(input_shape=(WIDTH,), batch_size=4), 3, "m")
    assert cost.varies


class InNumPy(torch.autograd.Function):
    """A product whose forward pass torch does not see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.from_numpy(x.detach().numpy() @ weight.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight.T, x.T @ gradient


def test_a_forward_pass_of_which_a_part_is_hidden_is_told() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 16))
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(InNumPy.apply(self.first(x), self.weight))

    cost = flops.count(Hidden(), flops.Probe(input_shape=(8,)), 3, "m")
    seen, hidden, head = 2 * 8 * 4, 2 * 4 * 16, 2 * 16 * 3
    assert (cost.forward, cost.backward) == (seen + head, seen + 2 * hidden + 2 * head)
    assert cost.notes == ()  # 3.2 times: it could be activations that are computed again
    wide = Hidden()
    wide.first, wide.weight = nn.Linear(8, 64), nn.Parameter(torch.randn(64, 16))
    cost = flops.count(wide, flops.Probe(input_shape=(8,)), 3, "m")
    seen, hidden = 2 * 8 * 64, 2 * 64 * 16
    times = (seen + 2 * hidden + 2 * head) / (seen + head)
    assert times > 4
    assert cost.notes == (
        f"The backward pass takes {times:.1f} times the FLOPs of the forward pass, where 2 are usual, and 3 where "
        "activations are computed again: a part of the forward pass may run where FLOPs cannot be seen, e.g. in NumPy.",
    )
