"""Mirrors subsettune/models/copies.py."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from fakes import same_bits
from torch import nn

from subsettune import models
from subsettune.errors import ModelError
from subsettune.models.copies import remember
from subsettune.task import Model

pytestmark = pytest.mark.usefixtures("untouched_random_state")


class Locked(nn.Sequential):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.lock = threading.Lock()


def locked(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Locked(nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4), nn.Linear(4, num_outputs))


def weight_norm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(input_shape[0], num_outputs)))


def made(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return models.make(Model(name=f"tests.test_copies:{name}"), (3,), 2)


@pytest.mark.parametrize("name", ["locked", "weight_norm"])
def test_a_copy_has_the_same_numbers_and_none_in_common(name: str) -> None:
    network = made(name).eval()
    with torch.no_grad():
        for values in models.tensors(network).values():
            values.add_(1)  # not as it was built
    next(iter(network.parameters())).requires_grad_(False)
    for twin in (models.copy_of(network), models.copy_of(models.copy_of(network))):
        assert same_bits(network, twin)
        assert not twin.training
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in network.parameters()]
        places = [{v.data_ptr() for v in models.tensors(one).values()} for one in (network, twin)]
        assert not places[0] & places[1]
        x = torch.ones(2, 3)
        torch.testing.assert_close(twin(x), network(x), rtol=0, atol=0)


def test_a_copy_is_as_narrow_as_its_original() -> None:
    network = made("locked")
    network.get_parameter("0.weight").data = torch.ones(2, 3)
    assert models.copy_of(network).get_parameter("0.weight").shape == (2, 3)


def test_what_cannot_be_copied_says_why() -> None:
    with pytest.raises(
        ModelError, match=r"^the network cannot be copied: cannot pickle '_thread.lock' object\. Remove"
    ):
        models.copy_of(Locked())
    network = remember(Locked(), lambda: locked((3,), 2))
    with pytest.raises(ModelError, match=r"object; and its function builds another one now\.$"):
        models.copy_of(network)
