"""Operations against formulas by hand, each between two layers, so that its input needs a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log2, prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from subsettune.errors import ModelError
from subsettune.train import flops

B = 4


@pytest.fixture(autouse=True)
def _forked_random_state() -> Iterator[None]:
    """Networks that are made here draw random numbers."""
    with torch.random.fork_rng(devices=[]):
        yield


class With(nn.Module):
    """Anything on (b, ...) inputs, of which the mean over all but the examples and the first `width` is read out."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], width: int, **parts: Any) -> None:
        super().__init__()
        self.function, self.width = function, width
        self.head = nn.Linear(width, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        out = self.function(self, x).flatten(1)[:, : self.width]
        return self.head(out)  # type: ignore[no-any-return]


def counted(network: nn.Module, shape: tuple[int, ...], batch: int = B) -> tuple[int, int]:
    """FLOPs of an example without those of the head, which has an input that needs a gradient."""
    cost = flops.count(network, flops.Probe(input_shape=shape, batch_size=batch), 3, "m")
    head = 2 * int(network.head.in_features) * 3
    return cost.forward - head, cost.backward - 2 * head


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, dtype=dtype))


# --- convolutions -----------------------------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {  # layer, shape of an example, FLOPs by hand
    "plain": (nn.Conv2d(8, 12, 3), (8, 9, 7), 2 * 9 * 8 * 12 * 7 * 5),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (8, 9, 7), 2 * 9 * 2 * 12 * 7 * 5),
    "depthwise": (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 9, 7), 2 * 25 * 8 * 9 * 7),
    "depthwise with a multiplier": (nn.Conv2d(8, 24, 3, padding=1, groups=8), (8, 9, 7), 2 * 9 * 24 * 9 * 7),
    "stride and dilation": (nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2), (4, 11, 9), 2 * 9 * 2 * 6 * 4 * 3),
    "1d": (nn.Conv1d(6, 9, 4, groups=3), (6, 13), 2 * 4 * 2 * 9 * 10),
    "3d": (nn.Conv3d(4, 6, 2, groups=2), (4, 5, 4, 3), 2 * 8 * 2 * 6 * 4 * 3 * 2),
    "transposed": (nn.ConvTranspose2d(8, 12, 3, stride=2), (8, 5, 4), 2 * 9 * 8 * 12 * 5 * 4),
    "transposed and grouped": (nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4), (8, 5, 4), 2 * 9 * 8 * 3 * 5 * 4),
    "transposed 1d": (nn.ConvTranspose1d(6, 4, 3, groups=2), (6, 7), 2 * 3 * 6 * 2 * 7),
    "transposed 3d": (nn.ConvTranspose3d(4, 2, 2, groups=2), (4, 3, 2, 5), 2 * 8 * 4 * 1 * 3 * 2 * 5),
}


@pytest.mark.parametrize(("layer", "shape", "by_hand"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_cost_twice_as_much_backward_whatever_their_groups(
    layer: nn.Module, shape: tuple[int, ...], by_hand: int
) -> None:
    first = With(lambda net, x: net.layer(x), 2, layer=layer)
    assert counted(first, shape) == (by_hand, by_hand)  # the input of the network needs no gradient
    later = With(lambda net, x: net.layer(x * net.scale), 2, layer=layer, scale=parameter(*shape))
    assert counted(later, shape) == (by_hand, 2 * by_hand)
    layer.weight.requires_grad_(False)
    frozen = With(lambda net, x: net.layer(x * net.scale), 2, layer=layer, scale=parameter(*shape))
    assert counted(frozen, shape) == (by_hand, by_hand)
    layer.weight.requires_grad_(True)


# --- products that are no matrix products to torch's counter ----------------------------------------------------------


def test_products_with_vectors_are_counted() -> None:
    """A (n, d) matrix with a vector: 2 n d, and once more for each factor that needs a gradient."""
    d = 6
    network = With(lambda net, x: (x @ net.vector).unsqueeze(1) * x, d, vector=parameter(d))
    forward, backward = counted(network, (d,))
    assert (forward, backward) == (2 * d, 2 * d)


def test_bilinear_layers_are_counted() -> None:
    """x' A y for each of o outputs: 2 i j and 2 j a product; its inputs need no gradient."""
    i, j, o = 5, 4, 3
    network = With(lambda net, x: net.pairs(x[:, :i], x[:, i:]), o, pairs=nn.Bilinear(i, j, o))
    forward, backward = counted(network, (i + j,))
    assert forward == o * (2 * i * j + 2 * j)
    assert 2 * o * i * j <= backward <= 2 * forward


def test_distances_are_counted() -> None:
    """A subtraction, a power and an addition for each number of each pair; backward again for what needs a gradient."""
    d, k = 4, 5
    network = With(lambda net, x: torch.cdist(x, net.centres), k, centres=parameter(k, d))
    assert counted(network, (d,)) == (3 * k * d, 3 * k * d)


def test_products_by_broadcasting_are_counted_as_the_matrix_products_that_they_are() -> None:
    i, o = 6, 5
    by_hand = With(lambda net, x: (x.unsqueeze(2) * net.matrix).sum(1), o, matrix=parameter(i, o))
    assert counted(by_hand, (i,)) == (2 * i * o, 2 * i * o)
    expanded = With(lambda net, x: (x.unsqueeze(2).expand(-1, i, o) * net.matrix).sum(1), o, matrix=parameter(i, o))
    assert counted(expanded, (i,)) == (2 * i * o, 2 * i * o)


def test_products_of_complex_numbers_take_four_real_ones() -> None:
    modes, i, o = 3, 4, 5

    def spectral(net: nn.Module, x: Tensor) -> Tensor:
        return torch.einsum("bik,iok->bok", torch.complex(x, x), net.weight).real

    network = With(spectral, o, weight=parameter(i, o, modes, dtype=torch.complex64))
    forward, backward = counted(network, (i, modes))
    assert (forward, backward) == (4 * 2 * modes * i * o, 4 * 2 * modes * i * o)


def test_fourier_transforms_are_counted_by_the_usual_rule() -> None:
    n = 16
    network = With(lambda net, x: torch.fft.fft(torch.complex(x, x)).real * net.filter, n, filter=parameter(n))
    assert counted(network, (n,))[0] == 5 * n * log2(n)
    real = With(lambda net, x: torch.fft.irfft(torch.fft.rfft(x) * net.filter), n, filter=parameter(n // 2 + 1))
    forward, backward = counted(real, (n,))
    assert forward == 2 * 5 / 2 * n * log2(n)
    assert backward > 0


def test_grouped_queries_cost_as_many_products_as_there_are_queries() -> None:
    t, d, heads, shared = 5, 8, 4, 2

    def attend(net: nn.Module, x: Tensor) -> Tensor:
        query, key = (x[:, :, :n] for n in (heads * d, shared * d))
        q, k = query.unflatten(2, (heads, d)).transpose(1, 2), key.unflatten(2, (shared, d)).transpose(1, 2)
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        out = functional.scaled_dot_product_attention(q * net.scale, k, k, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2)

    forward, _ = counted(With(attend, heads * d, scale=parameter(1)), (t, heads * d))
    assert forward == 2 * 2 * heads * t * t * d


# --- parameters that meet data element by element ---------------------------------------------------------------------

C, H, W = 4, 3, 5
ELEMENTWISE: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], dict[str, Any]]] = {
    "layer norm over all": (lambda net, x: net.norm(x), {"norm": nn.LayerNorm([C, H, W])}),
    "rms norm over all": (lambda net, x: net.norm(x), {"norm": nn.RMSNorm([C, H, W])}),
    "layer scale": (lambda net, x: net.scale * x + x, {"scale": parameter(C, 1, 1)}),
    "affine": (
        lambda net, x: torch.addcmul(net.shift, net.scale, x),
        {s: parameter(1, C, 1, 1) for s in ("shift", "scale")},
    ),
    "position added": (lambda net, x: x + net.position, {"position": parameter(1, C, H, W)}),
    "position interpolated": (
        lambda net, x: x + functional.interpolate(net.position, (H, W), mode="bicubic"),
        {"position": parameter(1, C, 2, 2)},
    ),
    "tokens put in front": (
        lambda net, x: torch.cat([net.tokens.expand(len(x), -1, -1), x.flatten(2)], dim=1),
        {"tokens": parameter(1, 2, H * W)},
    ),
    "table of biases": (
        lambda net, x: x + net.table[torch.arange(H * W, device=x.device) % 7].T.reshape(C, H, W),
        {"table": parameter(7, C)},
    ),
    "rows by value of the data": (
        lambda net, x: x + net.table[(x[:, 0, 0, 0] > 0).long()].unflatten(1, (C, 1, 1)),
        {"table": parameter(2, C)},
    ),
    "normalised": (lambda net, x: functional.normalize(x, dim=1) * net.scale, {"scale": parameter(C, H, W)}),
    "clamped and where": (
        lambda net, x: torch.where(x > net.low, x, net.low).clamp(max=net.high),
        {"low": parameter(C, H, W), "high": parameter(C, H, W)},
    ),
    "prelu": (lambda net, x: net.act(x), {"act": nn.PReLU(C)}),
    "complex filter": (
        lambda net, x: torch.view_as_real(torch.complex(x, x) * torch.view_as_complex(net.filter))[..., 0],
        {"filter": parameter(C, H, W, 2)},
    ),
}


@pytest.mark.parametrize(("function", "parts"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_parameters_that_meet_data_element_by_element_cost_nothing(
    function: Callable[[nn.Module, Tensor], Tensor], parts: dict[str, Any]
) -> None:
    assert counted(With(function, 8, **parts), (C, H, W)) == (0, 0)


def test_tables_are_free() -> None:
    network = With(lambda net, x: net.bag(x.long()), 4, bag=nn.EmbeddingBag(9, 4, mode="mean"))
    assert counted(network, (3,)) == (0, 0)


def test_weights_that_are_made_of_others_cost_their_products_once_an_update() -> None:
    """Weight norm is element-wise; a step of the power iteration of a (o, i) matrix is three products, 2 o i each."""
    i, o = 6, 5
    normed = With(lambda net, x: net.layer(x), o, layer=parametrizations.weight_norm(nn.Linear(i, o)))
    assert counted(normed, (i,)) == (2 * i * o, 2 * i * o)
    spectral = With(lambda net, x: net.layer(x), o, layer=parametrizations.spectral_norm(nn.Linear(i, o)))
    forward, _ = counted(spectral, (i,))
    assert forward == -(-(B * 2 * i * o + 3 * 2 * i * o + 2 * o) // B)


# --- what runs under another name -------------------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    """A product with a backward pass of its own, which leaves the weight's gradient out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.T, None


def test_an_autograd_function_of_the_users_own_costs_what_it_does() -> None:
    d = 6
    network = With(
        lambda net, x: Doubled.apply(x * net.scale, net.weight), d, weight=parameter(d, d), scale=parameter(d)
    )
    assert counted(network, (d,)) == (2 * d * d, 2 * d * d)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # of the reentrant one, in evaluation
@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_that_are_computed_again_cost_a_forward_pass_more(reentrant: bool) -> None:
    d = 6

    def body(net: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(lambda y: net.second(net.first(y).relu()), x * net.scale, use_reentrant=reentrant)

    network = With(body, d, first=nn.Linear(d, d), second=nn.Linear(d, d), scale=parameter(d))
    again = (2 if reentrant else 1) * 2 * d * d  # else it stops at the last activation that is needed
    assert counted(network, (d,)) == (2 * 2 * d * d, 2 * 2 * 2 * d * d + again)


def test_compiled_layers_are_counted_as_they_are_written() -> None:
    d = 6
    network = With(lambda net, x: net.layer(x), d, layer=torch.compile(nn.Linear(d, d)))
    assert counted(network, (d,)) == (2 * d * d, 2 * d * d)


# --- what is refused --------------------------------------------------------------------------------------------------


@torch.library.custom_op("subsettune_tests::scaled", mutates_args=())
def scaled(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@scaled.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(len(x), weight.shape[1])


REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "solve": (lambda net, x: torch.linalg.solve(net.weight, x.T).T, "aten::_linalg_solve_ex"),
    "exponential": (lambda net, x: x @ torch.linalg.matrix_exp(net.weight), "aten::linalg_matrix_exp"),
    "a convolution of another kind": (
        lambda net, x: torch.conv_tbc(x.unsqueeze(0), net.weight.unsqueeze(0), net.weight[0])[0],
        "aten::conv_tbc",
    ),
    "a kernel of somebody else's": (
        lambda net, x: scaled(x, net.weight.detach()) + x @ net.weight,
        "subsettune_tests::scaled",
    ),
}


@pytest.mark.parametrize(("function", "name"), REFUSED.values(), ids=REFUSED)
def test_what_multiplies_and_has_no_formula_is_refused(
    function: Callable[[nn.Module, Tensor], Tensor], name: str
) -> None:
    network = With(function, 4, weight=parameter(4, 4))
    with pytest.raises(
        ModelError, match=rf"^FLOPs of model 'm' cannot be counted: it uses .*{name}.*\. Build it from lin"
    ):
        counted(network, (4,))


def test_by_hand_formulas_of_this_module_are_those_of_shapes() -> None:
    """The table of convolutions against the definition: products of each weight with each place that it is put to."""
    for layer, shape, by_hand in CONVOLUTIONS.values():
        with torch.no_grad():
            output = layer(torch.zeros(1, *shape))
        places = shape[1:] if layer.transposed else output.shape[2:]
        assert by_hand == 2 * prod(places) * layer.weight.numel()
