"""Max pooling of the built-in network: torch's bits, forward and backward, wherever it stands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from subsettune.models import make
from subsettune.models.pooling import MaxPool2x2
from subsettune.task import Model
from subsettune.train.pruning.layers import links

SHAPES = ((2, 3, 4, 6), (1, 1, 2, 2), (3, 2, 5, 7), (2, 1, 9, 2), (3, 8, 8), (4, 16, 28, 28))


def tied(shape: tuple[int, ...]) -> Tensor:
    """Numbers with many equal ones in a window, zeros of both signs among them."""
    values = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(0)).float()
    return values * torch.where(values == 0, -1.0, 1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_largest_values_are_torchs(shape: tuple[int, ...]) -> None:
    maps = tied(shape)
    assert torch.equal(MaxPool2x2()(maps), nn.MaxPool2d(2)(maps))
    assert torch.equal(MaxPool2x2()(maps.transpose(-1, -2)), nn.MaxPool2d(2)(maps.transpose(-1, -2)))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_torchs_also_where_values_are_equal(shape: tuple[int, ...]) -> None:
    found = []
    for pool in (MaxPool2x2(), nn.MaxPool2d(2)):
        maps = tied(shape).requires_grad_()
        out = pool(maps)
        out.backward(torch.arange(out.numel()).float().view_as(out))
        found.append(maps.grad)
    assert torch.equal(*found)


def test_what_is_no_number_shows() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, 1], maps[0, 0, 2, 2], maps[0, 0, 3, 1] = torch.nan, torch.inf, -torch.inf
    assert MaxPool2x2()(maps).isnan().tolist() == [[[[True, False], [False, False]]]]
    assert MaxPool2x2()(maps)[0, 0, 1].tolist() == [0.0, torch.inf]


def test_a_map_that_is_too_small_is_refused_as_torch_does() -> None:
    with pytest.raises(RuntimeError, match="too small"):
        MaxPool2x2()(torch.zeros(1, 1, 1, 4))


def test_gradients_of_single_examples_are_those_of_torchs_layer() -> None:
    """Under the transforms of `torch.func` the layer knows whether a gradient is wanted."""
    inputs = tied((3, 1, 8, 8))
    found = []
    for pool in (MaxPool2x2(), nn.MaxPool2d(2)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), pool, nn.Flatten(), nn.Linear(32, 1))
        parameters = {name: p.detach() for name, p in network.named_parameters()}

        def output(given: dict[str, Tensor], one: Tensor, network: nn.Module = network) -> Tensor:
            outputs: Tensor = functional_call(network, given, (one[None],))
            return outputs.sum()

        found.append(vmap(grad(output), (None, 0))(parameters, inputs))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(bool(g.any()) for g in found[0].values())


def test_the_built_in_network_has_it_and_is_a_chain_still() -> None:
    network = make(Model(name="cnn"), (1, 8, 8), 10)
    assert [type(module) for module in network.children()].count(MaxPool2x2) == 2
    assert links(network) is not None
