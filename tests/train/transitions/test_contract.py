from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from contracts import LAYERS, entered, network_and_optimizer, transition_keeps_its_promises
from hypothesis import given, settings
from hypothesis import strategies as st
from options import components
from torch import nn

from subsettune.errors import ConfigError
from subsettune.train import transitions
from subsettune.train.transitions import Transition, TransitionContext

pytestmark = pytest.mark.usefixtures("untouched_random_state")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Halve(Transition):
    """A user's own: half of every weight."""

    summary: ClassVar[str] = "halve the weights"

    def apply(self, entered: TransitionContext) -> None:
        with torch.no_grad():
            for weight in entered.network.parameters():
                weight.mul_(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*transitions.TRANSITIONS, "tests.train.transitions.test_contract:Halve"])
@settings(deadline=None, max_examples=15)
@given(data=st.data(), seed=st.integers(0, 99))
def test_every_transition_keeps_its_promises(name: str, data: st.DataObject, seed: int) -> None:
    cls = type(transitions.make(name))
    transition_keeps_its_promises(data.draw(components(cls, LAYERS)), seed)


def apply(name: str, **options: Any) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """The network before and after, and the optimizer."""
    network, optimizer = network_and_optimizer()
    before = copy.deepcopy(network)
    transitions.make(name, options).apply(entered(network, optimizer, 7))
    return before, network, optimizer


@pytest.mark.parametrize(
    ("name", "options"), [("keep", {}), ("shrink_perturb", {"shrink": 1, "noise": 0}), ("prune", {"keep": 0.9})]
)
def test_neutral_transitions_change_nothing(name: str, options: dict[str, Any]) -> None:
    before, after, optimizer = apply(name, **options)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert len(optimizer.state) == len(list(after.parameters()))


def test_reset_optimizer_clears_its_state_and_keeps_the_weights() -> None:
    before, after, optimizer = apply("reset_optimizer")
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert not optimizer.state
    assert optimizer.param_groups[0]["momentum"] == 0.9
    after(torch.ones(2, 3)).sum().backward()
    optimizer.step()  # and it can go on
    assert len(optimizer.state) == len(list(after.parameters()))


def test_shrink_perturb_is_its_formula() -> None:
    before, after, _ = apply("shrink_perturb", shrink=0.6, noise=0.01)
    rng = torch.Generator().manual_seed(7)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        if old.dim() < 2:
            assert torch.equal(old, new)  # norms and biases stay
            continue
        noise = torch.randn(old.shape, generator=rng)
        expected = 0.6 * old.double() + 0.01 * transitions.scales(before)[name] * noise.double()
        torch.testing.assert_close(new.double(), expected, rtol=0, atol=1e-7)


def test_shrink_perturb_of_everything() -> None:
    before, after, _ = apply("shrink_perturb", shrink=0.5, noise=0, everything=True)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(new, 0.5 * old)


def test_frozen_weights_stay() -> None:
    network, optimizer = network_and_optimizer()
    network.requires_grad_(False)
    before = copy.deepcopy(network)
    transitions.make("shrink_perturb", {"everything": True}).apply(entered(network, optimizer, 0))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), network.parameters(), strict=True))


def test_scales_are_standard_deviations() -> None:
    network, _ = network_and_optimizer()
    scales = transitions.scales(network)
    assert list(scales) == [name for name, _ in network.named_parameters()]
    assert scales["0.weight"] == pytest.approx(
        float(network.get_parameter("0.weight").detach().double().std(correction=0))
    )
    assert scales["2.bias"] == 0  # a single number has no spread


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "shrink",
            {},
            "^transition must be one of keep, reset_optimizer, shrink_perturb, prune or package.module:Class, got 's",
        ),
        (
            "shrink_perturb",
            {"shrink": 60},
            r"^transition_options.shrink: shrink must be in \[0, 1\], got 60.0. It is a frac",
        ),
        ("shrink_perturb", {"noise": -1}, "^transition_options.noise: noise must be 0 or more, got -1.0"),
        ("keep", {"noise": 1}, "^transition_options.noise: unknown key. Known keys: "),
        (
            "collections:OrderedDict",
            {},
            "^transition must be a concrete subclass of Transition, got 'collections:OrderedDict'",
        ),
        (
            "nowhere.at_all:X",
            {},
            "^transition 'nowhere.at_all:X' cannot be imported: No module named 'nowhere'. Run from",
        ),
        (
            "collections:Nothing",
            {},
            "^transition 'collections:Nothing' cannot be found: .* Check the name after the colon.",
        ),
    ],
)
def test_wrong_transitions(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transitions.make(name, options)
