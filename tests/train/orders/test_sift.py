"""SIFT and selective backprop: what is kept, what it costs, and what it leaves alone."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from contracts import random_state
from fakes import image_task, options, same_bits, value_task
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after, noisy_task, run
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from subsettune import config, train
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, ModelDivergedError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select.network import ModelView
from subsettune.task import Task
from subsettune.train import orders
from subsettune.train.learner import Learner
from subsettune.train.orders.base import StepContext
from subsettune.train.orders.selective_backprop import SelectiveBackprop
from subsettune.train.orders.sift import Exit, Head, Sift, SiftStream, listening
from subsettune.train.orders.top_loss import HardestStream, TopLoss, hardest, looking, set_mode
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.pruning import effect
from subsettune.train.randomness import isolated

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
WIDE = {"name": "mlp", "hidden": [8, 8]}


def maps(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A user's network: convolutions with batch norm, the second in place, and a linear end."""
    first = [nn.Conv2d(input_shape[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(6, num_outputs))


def in_place(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network whose first layer's output is changed by the second."""
    width = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 5), nn.ReLU(inplace=True), nn.Linear(5, num_outputs))


def soft(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network that does not end in a linear layer."""
    layers = [nn.Flatten(), nn.Linear(math.prod(input_shape), 5), nn.Tanh(), nn.Linear(5, num_outputs)]
    return nn.Sequential(*layers, nn.LogSoftmax(dim=1))


def straight(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A linear network in three layers, which a high learning rate blows up."""
    return nn.Sequential(nn.Linear(input_shape[0], 6), nn.Linear(6, 6), nn.Linear(6, num_outputs))


def values(data: Data, model: Any = None, **recipe: Any) -> Task:
    """The made-up regression, by a network with layers to leave."""
    plain = config.to_plain(value_task(data, **recipe))
    return config.build(Task, {**plain, "model": model or {"name": "mlp", "hidden": [6, 6]}})


def learner_of(task: Task, seed: int = 0) -> Learner:
    with isolated(seed, 1):
        return Learner(task, task.recipe, load(task), torch.device("cpu"), seed)


def stream_of(order: TopLoss, task: Task, learner: Learner) -> HardestStream:
    stream = order.stream(train.facts(task).num_examples, task.recipe.batch_size, 0)
    stream.attach(learner)
    stream.enter(None)
    assert isinstance(stream, HardestStream)
    return stream


def ordered(order: str, *passes: float, share: float = 0.4, **given: Any) -> Policy:
    """One phase on everything, or a subset phase before it."""
    what = {"order": order, "order_options": FrozenDict(given)}
    first = [Phase(share=share, passes=p, **what) for p in passes[:-1]]
    return Policy(phases=(*first, Phase(passes=passes[-1], **what)))


# --- what is kept -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(losses=st.lists(st.sampled_from([0.0, 0.5, 0.5000001, 1.0, 7.0]), min_size=1, max_size=40), data=st.data())
def test_the_hardest_against_the_slow_twin(losses: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(losses)))
    assert hardest(torch.tensor(losses), count).tolist() == oracles.hardest(torch.tensor(losses).tolist(), count)


@pytest.mark.parametrize(
    ("keep", "num_examples", "kept"),
    [(0.5, 16, 8), (0.5, 17, 9), (0.1, 3, 1), (0.07, 100, 7), (0.3, 10, 3), (0.01, 1, 1), (0.999, 10, 10)],
)
def test_how_many_are_kept(keep: float, num_examples: int, kept: int) -> None:
    facts = TaskFacts(
        num_examples=9, num_outputs=2, num_parameters=9, forward_flops=10, backward_flops=20, reference_passes=3
    )
    order = SelectiveBackprop(keep=keep)
    assert order.min_trained_examples(num_examples, facts) == kept
    assert order.min_trained_examples(num_examples, replace(facts, has_batch_norm=True)) == max(
        kept, min(2, num_examples)
    )


TWINS: dict[str, tuple[Any, dict[str, Any], int]] = {  # a network, options, and how many of its layers are run through
    "own head": (WIDE, {"exit": "2", "head": "own"}, 3),
    "own head, found": (WIDE, {"exit": 0.9}, 3),
    "auxiliary head": (WIDE, {"exit": "2", "head": "auxiliary"}, 3),
    "head on the inputs": (WIDE, {"exit": "0"}, 1),
    "own head on maps": ({"name": "tests.train.orders.test_sift:maps"}, {"exit": "3"}, 4),
    "auxiliary head on maps": ({"name": "tests.train.orders.test_sift:maps"}, {"exit": "3", "head": "auxiliary"}, 4),
    "changed in place": ({"name": "tests.train.orders.test_sift:in_place"}, {"exit": "1", "head": "auxiliary"}, 2),
    "not linear at the end": ({"name": "tests.train.orders.test_sift:soft"}, {"exit": 0.5}, 3),
}


class Twin:
    """Plain SGD in float64 on the hardest of each batch, the estimates made one example at a time."""

    def __init__(self, learner: Learner, num_layers: int, head: nn.Linear | None) -> None:
        self.learner, self.num_layers = learner, num_layers
        self.network = copy.deepcopy(learner.network).double()
        self.head = None if head is None else copy.deepcopy(head).double()
        self.kept: list[list[int]] = []

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return (outputs.squeeze(1) - targets).square()
        return functional.cross_entropy(outputs, targets, reduction="none")

    def update(self, positions: Tensor, keep: float, lr: float, weights: Tensor | None) -> None:
        inputs, targets = self.learner.part.batch(positions)
        if targets.is_floating_point():
            targets = ((targets - self.learner.data.target_mean) / self.learner.data.target_std).double()
        assert isinstance(self.network, nn.Sequential)
        last = self.network[-1] if self.head is None else self.head
        assert isinstance(last, nn.Linear)
        scores = oracles.early_losses(self.network, self.num_layers, last, inputs, targets)
        has_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in self.network)
        kept = oracles.hardest(scores, max(min(2, len(positions)) if has_norm else 1, math.ceil(keep * len(positions))))
        self.kept.append(positions[kept].tolist())
        factors = torch.ones(len(kept)) if weights is None else weights[positions[kept]]
        self.network.train()
        heard = inputs[kept].double()
        for layer in list(self.network)[: self.num_layers]:
            heard = copy.deepcopy(layer)(heard)  # a copy: running statistics are those of the one pass below
        heard = torch.stack([oracles.place_mean(row) for row in heard.detach()])
        steps = [(self.network, self.network(inputs[kept].double()))]
        steps += [] if self.head is None else [(self.head, self.head(heard))]
        for module, outputs in steps:
            loss = (self.losses(outputs, targets[kept]) * factors).mean()
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                    parameter -= lr * gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TWINS, "regression", "regression, auxiliary head"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_updates_against_the_slow_twin(
    tiny_data: Data, name: str, is_weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given_options, num_layers = TWINS.get(name, (None, {"exit": "2"}, 3))
    task = image_task(tiny_data, model, momentum=None) if model else values(tiny_data, momentum=None)
    if name == "regression, auxiliary head":
        given_options = {"exit": "2", "head": "auxiliary"}
    learner, facts = learner_of(task), train.facts(task)
    order = Sift(keep=0.4, **given_options)
    stream = stream_of(order, task, learner)
    assert isinstance(stream, SiftStream)
    left = order.leaves(facts)
    twin = Twin(
        learner, num_layers, Head(learner, left.layer, left.width, 0).linear if left.head == "auxiliary" else None
    )
    kept: list[Tensor] = []
    fit = Learner.fit
    monkeypatch.setattr(Learner, "fit", lambda self, inputs, *rest: (kept.append(inputs), fit(self, inputs, *rest))[1])
    weights = torch.rand(len(learner.part), generator=torch.Generator().manual_seed(1)) * 2 if is_weighted else None
    for _ in range(15):
        batch = stream.next(0.5)
        twin.update(batch.positions, 0.4, 0.05, weights)
        stream.update(learner, batch, StepContext(lr=0.05, weights=weights, most=1, share=0.5, facts=facts))
        assert torch.equal(kept[-1], learner.part.batch(torch.tensor(twin.kept[-1]))[0])
    for parameter, expected in zip(learner.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.allclose(parameter.double(), expected, atol=2e-5)
    if twin.head is not None:
        assert stream._head is not None
        assert torch.allclose(stream._head.linear.weight.double(), twin.head.weight, atol=2e-5)


def test_the_exact_loss_keeps_exactly_the_hardest(tiny_data: Data) -> None:
    """Dropout, batch norm and label smoothing: as the network predicts, and as it is trained."""
    task = noisy_task(tiny_data, label_smoothing=0.1)
    learner, facts = learner_of(task), train.facts(task)
    learner._augment = None  # so that inputs can be read again
    for order in (SelectiveBackprop(), Sift(exit=1.0)):
        stream = stream_of(order, task, learner)
        batch = stream.next(0.0)
        inputs, targets = learner.examples(batch.positions)
        twin = copy.deepcopy(learner.network).eval()
        expected = functional.cross_entropy(twin(inputs), targets, label_smoothing=0.1, reduction="none")
        assert torch.equal(stream.losses(learner, inputs, targets, facts), expected)


def test_an_early_exit_of_the_whole_network_is_selective_backprop(tiny_data: Data) -> None:
    task = noisy_task(tiny_data)
    by_sift = run(task, ordered("sift", 1.0, 1.0, exit=1.0, keep=0.3))
    by_loss = run(task, ordered("selective_backprop", 1.0, 1.0, keep=0.3))
    assert_same(by_sift, by_loss)
    behind = run(task, ordered("sift", 1.0, 1.0, exit="head.2", keep=0.3))  # its last layer, by name
    assert_same(behind, by_loss)


@pytest.mark.parametrize(("order", "given_options"), [("sift", {"exit": "features"}), ("selective_backprop", {})])
def test_keeping_everything_is_the_uniform_order_bit_for_bit(
    tiny_data: Data, order: str, given_options: dict[str, Any]
) -> None:
    task = noisy_task(tiny_data)
    assert_same(run(task, ordered(order, 0.5, 0.5, keep=1.0, **given_options)), run(task, ordered("uniform", 0.5, 0.5)))


def test_outside_of_its_stretch_updates_are_plain(tiny_data: Data) -> None:
    """Until it starts, the network is that of the uniform order, whatever the auxiliary head learns beside it."""
    task = noisy_task(tiny_data)
    facts = train.facts(task)
    networks = []
    for order in (orders.make("uniform"), Sift(keep=0.2, exit="features", start=0.4, stop=0.6)):
        learner = learner_of(task)
        with isolated(0, 1):
            stream = order.stream(facts.num_examples, 16, 0)
            stream.attach(learner)
            stream.enter(None)
            for _ in range(10):
                batch = stream.next(0.3)
                stream.update(learner, batch, StepContext(lr=0.1, weights=None, most=1, share=0.3, facts=facts))
            if isinstance(stream, SiftStream):
                assert stream._head is not None
                before = stream._head.linear.weight.clone()
                stream.update(
                    learner, stream.next(0.6), StepContext(lr=0.0, weights=None, most=1, share=0.6, facts=facts)
                )
                assert torch.equal(before, stream._head.linear.weight)
        networks.append(learner.network)
        if len(networks) == 1:
            networks[0] = copy.deepcopy(networks[0])
    plain, sifted = (dict(network.named_parameters()) for network in networks)
    assert all(torch.equal(plain[name], sifted[name]) for name in plain)


# --- what it leaves alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [Sift(exit="features"), Sift(exit=1.0), SelectiveBackprop()])
def test_looking_changes_nothing(tiny_data: Data, order: TopLoss) -> None:
    task = noisy_task(tiny_data)
    learner, facts = learner_of(task), train.facts(task)
    stream = stream_of(order, task, learner)
    inputs, targets = learner.examples(torch.arange(16))
    before, state = copy.deepcopy(learner.network.state_dict()), random_state()
    hooks = [dict(module._forward_hooks) for module in learner.network.modules()]  # that which takes logits out
    losses = stream.losses(learner, inputs, targets, facts)
    after = learner.network.state_dict()
    assert not losses.requires_grad
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training for module in learner.network.modules())
    assert [dict(module._forward_hooks) for module in learner.network.modules()] == hooks
    assert random_state() == state


class Careless(nn.Module):
    """Draws random numbers as it predicts, swallows exceptions, and calls a layer twice."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), 4)
        self.again = nn.Linear(4, 4)
        self.last = nn.Linear(4, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.flatten(1))
        if not hidden.is_meta:
            hidden = hidden + 0 * torch.rand(())
        try:
            hidden = self.again(torch.relu(self.again(hidden)))
        except Exception:  # on purpose
            hidden = hidden * 0
        logits: Tensor = self.last(hidden)
        return logits


def test_it_leaves_a_careless_network_at_the_first_output(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "tests.train.orders.test_sift:Careless"})
    learner, facts = learner_of(task), train.facts(task)
    network = learner.network
    assert isinstance(network, Careless)
    stream, state = stream_of(Sift(exit="again"), task, learner), random_state()
    inputs, targets = learner.examples(torch.arange(9))
    found = stream.losses(learner, inputs, targets, facts)
    assert random_state() == state
    with torch.no_grad():
        hidden = network.again(network.first(inputs.flatten(1)))
        assert torch.allclose(found, functional.cross_entropy(network.last(hidden), targets, reduction="none"))


def test_an_error_in_the_network_is_told(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    learner, facts = learner_of(task), train.facts(task)
    stream = stream_of(Sift(exit="1"), task, learner)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        stream.losses(learner, torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), facts)
    assert learner.network.training


# --- what it costs ----------------------------------------------------------------------------------------------------

MODELS: dict[str, Any] = {
    "mlp": {"name": "mlp", "hidden": [8, 6], "dropout": 0.2},
    "cnn": {"name": "cnn", "channels": [4, 4], "hidden": 8, "dropout": 0.1},
    "noisy": {"name": "fakes:Noisy"},
    "maps": {"name": "tests.train.orders.test_sift:maps"},
    "resnet18": {"name": "resnet18"},
}
SHARES = {"first": 0.01, "half": 0.5, "late": 0.98, "end": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("depth", SHARES.values(), ids=list(SHARES))
@pytest.mark.parametrize("head", ["auto", "auxiliary"])
def test_an_update_costs_its_price(tiny_data: Data, model: str, depth: float, head: str) -> None:
    """Counted while it happens."""
    task = image_task(tiny_data, MODELS[model])
    learner, facts = learner_of(task), train.facts(task)
    order = Sift(keep=0.3, exit=depth, head=head, start=0.2, stop=0.8)  # type: ignore[arg-type]
    stream = stream_of(order, task, learner)
    with isolated(0, 1):
        for share in (0.0, 0.3, 0.8):
            batch = stream.next(share)
            with FlopCounterMode(display=False) as counter:
                stream.update(learner, batch, StepContext(lr=0.01, weights=None, most=1, share=share, facts=facts))
            assert counter.get_total_flops() == order.update_cost(len(batch), share, facts).total
    begins = [order.update_cost(16, share, facts).total for share in (0.0, 0.3, 0.8)]
    assert order.max_update_flops(16, facts) == max(begins)


def test_the_price_is_that_of_the_formula(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data, WIDE))  # 64 - 8 - 8 - 4
    forward = 2 * (64 * 8 + 8 * 8 + 8 * 4)
    backward = 2 * forward - 2 * 64 * 8
    assert (facts.forward_flops, facts.backward_flops) == (forward, backward)
    to_exit, head = 2 * 64 * 8, 2 * 8 * 4
    own, auxiliary = Sift(exit="2"), Sift(exit="2", head="auxiliary", start=0.1, stop=0.9)
    price = own.update_cost(16, 0.5, facts)
    assert (price.forward, price.backward) == (16 * (to_exit + head) + 8 * forward, 8 * backward)
    price = auxiliary.update_cost(15, 0.5, facts)
    assert (price.forward, price.backward) == (15 * (to_exit + head) + 8 * (forward + head), 8 * (backward + head))
    price = auxiliary.update_cost(15, 0.05, facts)
    assert (price.forward, price.backward) == (15 * (forward + head), 15 * (backward + head))
    price = auxiliary.update_cost(15, 0.9, facts)
    assert (price.forward, price.backward) == (15 * forward, 15 * backward)
    exact = SelectiveBackprop().update_cost(15, 0.5, facts)
    assert (exact.forward, exact.backward) == ((15 + 8) * forward, 8 * backward)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("order", "given_options"),
    [
        ("sift", {"keep": 0.3, "exit": 0.5}),
        ("sift", {"keep": 0.6, "exit": 0.9, "head": "auxiliary", "start": 0.25, "stop": 0.8}),
        ("selective_backprop", {"keep": 0.2, "start": 0.1}),
        ("rs2", {"share": 0.3}),
    ],
    ids=["sift", "sift, auxiliary, for a while", "selective backprop", "rs2"],
)
def test_the_projection_is_the_ledger(tiny_data: Data, model: str, order: str, given_options: dict[str, Any]) -> None:
    task = image_task(tiny_data, MODELS[model], batch_size=19)
    passes = (0.15, 0.3) if model == "resnet18" else (0.45, 0.6)
    policy = ordered(order, *passes, **given_options)
    result = train.run(task, policy, 3, options=options())
    facts = train.facts(task)
    stretches = project(resolve(policy, task.recipe, facts))
    for purpose in ("select", "forward", "backward"):
        assert getattr(result.ledger, purpose) == sum(getattr(s.ledger, purpose) for s in stretches)
    assert result.updates == sum(s.updates for s in stretches)
    assert 0 <= policy.cost(facts) - result.ledger.spent < orders.make(order, given_options).max_update_flops(20, facts)


# --- where it leaves --------------------------------------------------------------------------------------------------


def test_shares_of_the_depth(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data, {"name": "cnn", "channels": [4, 8], "hidden": 16}))
    # 0 conv, 1 relu, 2 pool, 3 conv, 4 relu, 5 pool, 6 flatten, 7 linear, 8 relu, 9 linear
    first, second, third = 2 * 64 * 9 * 4, 2 * 16 * 36 * 8, 2 * 32 * 16
    total = first + second + third + 2 * 16 * 4
    assert facts.forward_flops == total
    named = {"2": first, "6": first + second, "8": first + second + third}
    for share, layer in ((0.01, "2"), ((first + 0.5) / total, "2"), ((first + second - 1) / total, "2")):
        assert Sift(exit=share).leaves(facts) == Exit(layer=layer, flops=named[layer], width=4, head="auxiliary")
    behind = (first + second + 0.5) / total
    assert Sift(exit=behind).leaves(facts) == Exit(layer="6", flops=named["6"], width=32, head="auxiliary")
    assert Sift(exit=0.999).leaves(facts) == Exit(layer="8", flops=named["8"], width=16, head="own")
    assert Sift(exit="7").leaves(facts) == Exit(layer="7", flops=named["8"], width=16, head="own")
    assert Sift(exit="8", head="auxiliary").leaves(facts).head == "auxiliary"
    for end in (1.0, "9"):
        assert Sift(exit=end).leaves(facts) == Exit(flops=total)


def test_stages_of_a_residual_network(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data, {"name": "resnet18"}))
    half = Sift(exit=0.5).leaves(facts)
    assert half.layer == "layer2.0"
    assert half.width == 128
    assert 0.3 < half.flops / facts.forward_flops <= 0.5
    assert Sift(exit=0.99999).leaves(facts) == Exit(
        layer="avgpool", flops=facts.exits["avgpool"], width=512, head="own"
    )
    assert Sift(exit="layer4").leaves(facts).head == "own"
    assert Sift(exit="layer3.0.conv1").leaves(facts).width == 256


def test_a_single_layer_has_the_exact_loss(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data, {"name": "mlp", "hidden": []}))
    assert Sift(exit=0.5).leaves(facts) == Exit(flops=facts.forward_flops)
    assert Sift(exit=0.5).why_not(image_task(tiny_data).recipe, facts) is None


class Alone(nn.Module):
    """A network without layers."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(math.prod(input_shape), num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Open(nn.Module):
    """A network that goes on behind its last layer."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(input_shape), 3)
        self.weight = nn.Parameter(torch.zeros(3, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x.flatten(1))) @ self.weight


def test_the_end_is_behind_the_last_layer(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data, {"name": "tests.train.orders.test_sift:Open"}))
    assert Sift(exit=1.0).leaves(facts) == Exit(flops=facts.forward_flops)
    assert Sift(exit=0.999).leaves(facts) == Exit(layer="layer", flops=2 * 64 * 3, width=3, head="auxiliary")


@pytest.mark.parametrize(
    ("model", "given_options", "message"),
    [
        (
            WIDE,
            {"exit": "layer2"},
            "^exit must be a layer of the model or a share of its depth, got 'layer2'. Layers at the top of this "
            "model: 0, 1, 2, 3, 4, 5.$",
        ),
        (
            {"name": "mlp", "hidden": [8, 6]},
            {"exit": "2", "head": "own"},
            "^head must be auto or auxiliary for exit '2', got 'own'. The last layer takes 6 numbers, and 2 gives 8. "
            "Layers that fit: 3, 4.$",
        ),
        (
            {"name": "tests.train.orders.test_sift:soft"},
            {"exit": 0.5, "head": "own"},
            "^head must be auto or auxiliary for exit 0.5, got 'own'. The model does not end in a linear layer.$",
        ),
        (
            WIDE,
            {"exit": 1.0, "head": "auxiliary"},
            "^head must be auto or own, got 'auxiliary'. Nothing but the end of the model is left at 1.0, where the "
            "loss is exact.$",
        ),
        (
            {"name": "tests.train.orders.test_sift:Alone"},
            {"exit": 0.5},
            "^exit must be 1 for a model without layers of its own at its top, got 0.5. Or use uniform.$",
        ),
    ],
)
def test_what_does_not_fit_the_network(
    tiny_data: Data, model: Any, given_options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train.run(image_task(tiny_data, model), ordered("sift", 1.0, **given_options), 0, options=options())


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"keep": 50}, "^order_options.keep: keep must be in .0, 1., got 50.0. It is a fraction, not a percentage"),
        (
            {"exit": 6},
            "^order_options.exit: exit must be the name of a layer or in .0, 1., got 6.0. A number is a share",
        ),
        ({"head": "mine"}, "^order_options.head: head must be one of auto, own, auxiliary, got 'mine'."),
        ({"start": 1.0}, "^order_options.start: start must be in .0, 1., got 1.0."),
        ({"start": 0.5, "stop": 0.5}, "^order_options.stop: stop must be above start 0.5, got 0.5. Both are shares of"),
    ],
)
def test_mistakes(given_options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        orders.make("sift", given_options)


class Searching(torch.optim.SGD):
    """An optimizer that evaluates the loss itself."""

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return super().step(closure)


def test_a_user_s_optimizer_with_a_closure_is_refused(tiny_data: Data) -> None:
    task = image_task(tiny_data, optimizer="tests.train.orders.test_sift:Searching")
    with pytest.raises(
        ConfigError, match=r"^order must be uniform with optimizer 'tests.train.orders.test_sift:Searching', which ta"
    ):
        train.run(task, ordered("sift", 1.0), 0, options=options())


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given_options", "recipe"),
    [
        ({"exit": "features", "start": 0.3, "stop": 0.9}, {}),
        ({"exit": "features"}, {"optimizer": "adam", "momentum": None, "lr": 0.01}),
    ],
    ids=["for a while, momentum", "always, adam"],
)
def test_an_interrupted_run_goes_on_with_the_same_bits(
    tiny_data: Data, tmp_path: Path, given_options: dict[str, Any], recipe: dict[str, Any]
) -> None:
    task = noisy_task(tiny_data, **recipe)
    policy = ordered("sift", 0.6, 0.9, keep=0.4, **given_options)
    assert Sift(**given_options).leaves(train.facts(task)).head == "auxiliary"
    whole = run(task, policy, evaluations=60)
    for number in range(2, len(whole.curve), 7):
        folder = str(tmp_path / str(number))
        with pytest.raises(InterruptedRunError):
            run(task, policy, interrupt_after(number), evaluations=60, checkpoints=folder, checkpoint_every_s=ALWAYS)
        assert_same(run(task, policy, evaluations=60, checkpoints=folder), whole)


@pytest.mark.parametrize(("order", "given_options"), [("sift", {"exit": "0"}), ("selective_backprop", {})])
def test_too_hard_a_choice_early_at_a_high_rate_is_recorded_as_diverged(
    tiny_data: Data, order: str, given_options: dict[str, Any]
) -> None:
    task = values(tiny_data, lr=3.0, schedule="constant", model={"name": "tests.train.orders.test_sift:straight"})
    result = train.run(task, ordered(order, 3.0, keep=0.2, **given_options), 0, options=options())
    assert result.cause == "diverged"
    assert "at learning rate 3." in result.message
    assert not result.metrics


def test_a_head_that_diverges_alone_is_told(tiny_data: Data) -> None:
    task = image_task(tiny_data, WIDE, lr=0.01)
    learner, facts = learner_of(task), train.facts(task)
    stream = stream_of(Sift(exit="2", head="auxiliary"), task, learner)
    assert isinstance(stream, SiftStream)
    stream.update(learner, stream.next(0.0), StepContext(lr=0.01, weights=None, most=1, share=0.0, facts=facts))
    assert stream._head is not None
    with torch.no_grad():
        stream._head.linear.weight.fill_(math.inf)
    with pytest.raises(
        ModelDivergedError,
        match=r"^the losses at exit '2' left the finite numbers, at lear",
    ):
        stream.update(learner, stream.next(0.0), StepContext(lr=0.01, weights=None, most=1, share=0.0, facts=facts))


def test_the_network_that_comes_back_has_no_head_of_ours(tiny_data: Data) -> None:
    task = image_task(tiny_data, WIDE)
    a, b = (train.run(task, ordered(name, 1.0), 0, options=options(keep_model=True)) for name in ("uniform", "sift"))
    assert list(a.model.state_dict()) == list(b.model.state_dict())
    assert not same_bits(a.model, b.model)


def test_a_head_begins_anew_where_the_exit_changes_its_width(tiny_data: Data) -> None:
    task = image_task(tiny_data, WIDE)
    learner, facts = learner_of(task), train.facts(task)
    stream = stream_of(Sift(exit="2", head="auxiliary"), task, learner)
    assert isinstance(stream, SiftStream)
    stream.update(learner, stream.next(0.0), StepContext(lr=0.1, weights=None, most=1, share=0.0, facts=facts))
    first, second = learner.network.get_submodule("1"), learner.network.get_submodule("3")
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.data = parameter.data[:5].clone()
        second.weight.data = second.weight.data[:, :5].clone()
    learner.optimizer.state.clear()
    narrow = replace(facts, layers=FrozenDict({**facts.layers, "1": 5, "2": 5}))
    stream.update(learner, stream.next(0.0), StepContext(lr=0.1, weights=None, most=1, share=0.0, facts=narrow))
    assert stream._head is not None
    assert stream._head.linear.in_features == 5


def test_a_head_begins_anew_where_the_exit_moves_to_another_layer(tiny_data: Data) -> None:
    """The prune makes the first layer cheap, so that half of the depth ends one layer later, as wide as before."""
    task = image_task(tiny_data, {"name": "mlp", "hidden": [16, 16, 16, 16]})
    learner, facts = learner_of(task), train.facts(task)
    order = Sift(exit=0.5, head="auxiliary")
    stream = stream_of(order, task, learner)
    assert isinstance(stream, SiftStream)
    pruned = effect.pruned_facts(facts, {"1": 3})
    left, later = order.leaves(facts), order.leaves(pruned)
    assert (left.layer != later.layer, left.width) == (True, later.width)
    head = stream._of(left)
    assert stream._of(left) is head
    assert stream._of(later) is not head
    state = stream.state()
    again = stream_of(order, task, learner)
    assert isinstance(again, SiftStream)
    again.load(state, None)
    assert again._head is not None
    assert again._of(later) is again._head


def test_a_head_that_an_entry_makes_unfit_is_refused(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "mlp", "hidden": [8, 8]})
    settings = FrozenDict(exit="2", head="own")
    prune = FrozenDict(layers=("1",), candidates=2, examples=16)
    phases = [
        Phase(passes=1.0, order="sift", order_options=settings),
        Phase(passes=6.0, order="sift", order_options=settings, transition="prune", transition_options=prune),
    ]
    assert train.run(task, Policy(phases=tuple(phases[:1])), 0, options=options()).cause == "finished"
    with pytest.raises(
        ConfigError,
        match=r"^head must be auto or auxiliary for exit '2', got 'own'\. The last layer takes 8 numbers, and 2 "
        r"gives 4\. Layers that fit: 3, 4\.$",
    ):
        train.run(task, Policy(phases=tuple(phases)), 0, options=options())


@pytest.mark.parametrize("selector", ["gradmatch", "kcenter"])
def test_it_trains_on_weighted_and_plain_subsets(tiny_data: Data, selector: str) -> None:
    task = image_task(tiny_data, WIDE)
    what = {"order": "sift", "order_options": FrozenDict({"exit": "2"})}
    policy = Policy(phases=(Phase(share=0.3, passes=4.0, selector=selector, **what), Phase(passes=2.0, **what)))
    result = train.run(task, policy, 0, options=options(splits=("test",)))
    assert result.cause == "finished"
    assert result.metrics["test"] > 0.6  # of 4 classes


# --- texts ------------------------------------------------------------------------------------------------------------

WORDS = ("dull", "flat", "slow", "gray", "warm", "bright", "quick", "sharp", "the", "a")
PHRASES = [" ".join(WORDS[(i * i + j * (3 + i)) % 10] for j in range(1 + i % 9)) for i in range(300)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Phrases of up to 9 words, cut at 8, by whether they say "warm" or "bright", and a transformer of three blocks."""
    path = tmp_path_factory.mktemp("texts") / "phrases.tsv"
    rows = [f"{phrase}\t{int('warm' in phrase or 'bright' in phrase)}" for phrase in PHRASES]
    path.write_text("\n".join(["sentence\tlabel", *rows, ""]))
    model = {"name": "transformer", "width": 8, "depth": 3, "heads": 2, "feedforward": 16, "dropout": 0.1}
    raw = {
        "data": {"source": str(path), "text": "sentence", "label": "label", "max_tokens": 8},
        "split": {"validation": 0.1, "test": 0.2},
        "model": model,
        "recipe": {"optimizer": "adamw", "lr": 0.01, "batch_size": 16, "epochs": 4},
        "metric": "accuracy",
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


def test_a_transformer_reads_out_at_its_blocks(texts: Task) -> None:
    learner, facts = learner_of(texts), train.facts(texts)
    inputs, targets = learner.examples(torch.arange(20))
    assert bool((inputs == 0).any())  # padding, which the average over places leaves out
    network: Any = copy.deepcopy(learner.network).eval()
    hidden = network.tokens(inputs) + network.positions
    for share, number in ((0.34, 0), (0.7, 1)):
        order = Sift(exit=share)
        assert order.leaves(facts).layer == f"blocks.{number}"
        assert order.leaves(facts).head == "own"
        hidden = network.blocks[number](hidden, inputs != 0)
        expected = functional.cross_entropy(network.read_out(hidden, inputs), targets, reduction="none")
        found = stream_of(order, texts, learner).losses(learner, inputs, targets, facts)
        assert torch.allclose(found, expected, atol=1e-6)


def test_padding_is_left_out_of_averages(texts: Task) -> None:
    """Of what a selector looks at, and of what an auxiliary head gets, as one text after the other tells."""
    learner = learner_of(texts)
    inputs, targets = learner.part.batch(torch.arange(len(learner.part)))
    lengths = (inputs != 0).sum(dim=1)
    assert len(lengths.unique()) > 3
    network: Any = copy.deepcopy(learner.network).eval()
    with torch.no_grad():
        hidden = network.blocks[0](network.tokens(inputs) + network.positions, inputs != 0)
    slow = torch.stack([states[:length].double().mean(dim=0) for states, length in zip(hidden, lengths, strict=True)])
    found = ModelView(network, learner.part).layer("blocks.0")
    assert torch.allclose(found.double(), slow, atol=1e-6)
    assert not torch.allclose(hidden.mean(dim=1).double(), slow, atol=1e-2)

    stream = stream_of(Sift(exit="blocks.0", head="auxiliary"), texts, learner)
    assert isinstance(stream, SiftStream)
    facts = train.facts(texts)
    losses = stream.losses(learner, inputs, targets, facts)
    linear = stream._of(Sift(exit="blocks.0", head="auxiliary").leaves(facts)).linear
    expected = functional.cross_entropy(linear(slow.float()), targets, reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)
    with listening(network, "blocks.0", inputs) as heard, torch.no_grad():
        network(inputs)
    assert torch.allclose(heard[0].double(), slow, atol=1e-6)


@pytest.mark.parametrize("head", ["own", "auxiliary"])
@pytest.mark.parametrize("layer", ["tokens", "blocks.0", "blocks.1.attention", "blocks.2"])
def test_an_update_of_a_transformer_costs_its_price(texts: Task, head: str, layer: str) -> None:
    learner, facts = learner_of(texts), train.facts(texts)
    order = Sift(keep=0.3, exit=layer, head=head)  # type: ignore[arg-type]
    stream = stream_of(order, texts, learner)
    batch = stream.next(0.0)
    with isolated(0, 1), FlopCounterMode(display=False) as counter:
        stream.update(learner, batch, StepContext(lr=0.01, weights=None, most=1, share=0.0, facts=facts))
    assert counter.get_total_flops() == order.update_cost(len(batch), 0.0, facts).total


def test_the_last_block_of_a_transformer_gives_the_exact_loss(texts: Task) -> None:
    learner, facts = learner_of(texts), train.facts(texts)
    inputs, targets = learner.examples(torch.arange(20))
    last, whole = (
        stream_of(order, texts, learner).losses(learner, inputs, targets, facts)
        for order in (Sift(exit="blocks.2"), SelectiveBackprop())
    )
    assert torch.allclose(last, whole, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("given_options", [{"exit": 0.5}, {"exit": 0.5, "head": "auxiliary", "stop": 0.8}])
def test_texts_end_to_end(texts: Task, tmp_path: Path, given_options: dict[str, Any]) -> None:
    policy = ordered("sift", 1.0, 2.0, keep=0.4, **given_options)
    whole = run(texts, policy, evaluations=40)
    assert whole.ledger.select == 0
    stretches = project(resolve(policy, texts.recipe, train.facts(texts)))
    for purpose in ("forward", "backward"):
        assert getattr(whole.ledger, purpose) == sum(getattr(s.ledger, purpose) for s in stretches)
    with pytest.raises(InterruptedRunError):
        run(texts, policy, interrupt_after(20), evaluations=40, checkpoints=str(tmp_path), checkpoint_every_s=ALWAYS)
    assert_same(run(texts, policy, evaluations=40, checkpoints=str(tmp_path)), whole)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")  # of torch, in evaluation
def test_an_exit_inside_an_encoder_that_is_told_of_padding(tmp_path: Path) -> None:
    """Torch makes nested tensors inside of it in evaluation; they have no shape."""
    rows = "".join(f"{' '.join([['good', 'bad'][i % 2]] * (1 + i % 6))}\t{i % 2}\n" for i in range(60))
    (tmp_path / "texts.tsv").write_text(f"text\tlabel\n{rows}")
    task = Task(
        data={"source": str(tmp_path / "texts.tsv"), "text": "text", "label": "label", "tokens": "words"},
        model={"name": "odd_networks:masked"},
        recipe={"lr": 0.1, "batch_size": 8, "epochs": 2},
        tolerance=0.1,
    )
    places = DataPaths(cache=str(tmp_path / "cache"), download=False)
    phase = Phase(passes=1, order="sift", order_options={"exit": "body.layers.0"})
    result = train.run(task, Policy(phases=(phase,)), 0, options=options(places=places))
    assert result.cause == "finished"
    assert result.metrics["validation"] > 0.9  # the word is the class


# --- looking at a network ---------------------------------------------------------------------------------------------


class Frozen(nn.Module):
    """A module of a user's with its own idea of modes: its normalisation never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout()

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self


def modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


@pytest.mark.parametrize("is_training", [True, False])
def test_modes_are_set_as_torch_sets_them(is_training: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Dropout(), Frozen()), nn.ModuleList([nn.ReLU()]))
    network.register_module("left_out", None)
    twin = copy.deepcopy(network)
    for module in network.modules():
        module.training = not is_training
    set_mode(network, is_training=is_training)
    assert modes(network) == modes(twin.train(is_training))
    assert modes(network)["1.1.norm"] is False


def test_looking_leaves_modes_and_random_state_as_they_were() -> None:
    class Looked:
        network, device = nn.Sequential(nn.Dropout(), nn.Flatten()), torch.device("cpu")

    before = random_state()
    with looking(Looked()):  # type: ignore[arg-type] # all that it looks at
        assert not any(modes(Looked.network).values())
        assert not torch.is_grad_enabled()
        torch.rand(3)
        assert before != random_state()
    assert all(modes(Looked.network).values())
    assert torch.is_grad_enabled()
    assert before == random_state()
