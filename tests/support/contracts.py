"""What every implementation of a family owes: one function a family, which a test calls with options of all kinds.

One section a family, each with what it takes to try one of its members. A contract asserts what the family promises to
callers, not how one member does it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from facts import FULL, made_up_facts
from torch import Tensor, nn

from subsettune.config import FrozenDict
from subsettune.errors import SelectionError
from subsettune.facts import ChainLayer, TaskFacts
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.select.network import ModelView, anatomy
from subsettune.task import Recipe
from subsettune.train.orders import Order, Stream
from subsettune.train.transitions import Transition, TransitionContext, scales

# --- global random state ----------------------------------------------------------------------------------------------


def random_state() -> tuple[object, ...]:
    """A snapshot of the global random states that compares with ==."""
    state: tuple[Any, ...] = np.random.get_state()  # type: ignore[assignment]  # noqa: NPY002
    name, keys, *rest = state
    return torch.get_rng_state().tolist(), (name, keys.tolist(), *rest), random.getstate()


@pytest.fixture
def untouched_random_state() -> Iterator[None]:
    """Fail if the global random state is another one after the test."""
    before = random_state()
    yield
    assert random_state() == before, "the global random state was changed"


# --- selectors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayPart:
    """A training part made of two tensors."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


NUM_EMBEDDING = 4
NUM_HIDDEN = 7


def facts_of(part: ArrayPart) -> TaskFacts:
    """Facts that fit a part and `network_of`; the costs are made up."""
    counts = [] if part.targets.is_floating_point() else torch.bincount(part.targets).tolist()
    parts = anatomy(network_of(part), part.inputs[:2])
    return TaskFacts(
        num_examples=len(part),
        num_outputs=len(counts) or 1,
        num_parameters=100,
        forward_flops=2_000,
        backward_flops=4_000,
        reference_passes=10,
        num_features=part.inputs[0].numel(),
        num_classes=len(counts),
        smallest_class=min(counts, default=0),
        class_counts=tuple(counts),
        head_features=parts.head_features,
        layers=FrozenDict(parts.layers),
        num_embedding=NUM_EMBEDDING,
    )


def network_of(part: ArrayPart, seed: int = 0) -> nn.Sequential:
    """A small network that fits a part, with the same weights whatever the global random state."""
    num_outputs = 1 if part.targets.is_floating_point() else int(part.targets.max()) + 1
    rng = torch.Generator().manual_seed(seed)
    layers = [
        nn.utils.skip_init(nn.Linear, part.inputs[0].numel(), NUM_HIDDEN),
        nn.utils.skip_init(nn.Linear, NUM_HIDDEN, num_outputs),
    ]
    with torch.no_grad():
        for parameter in (p for layer in layers for p in layer.parameters()):
            parameter.normal_(std=0.5, generator=rng)
    return nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])


def models_of(part: ArrayPart, num_models: int = 1) -> tuple[ModelView, ...]:
    """Views of small networks with different weights; how often they forgot is made up from the inputs."""
    sums = part.inputs.flatten(1).double().sum(1)
    is_regression = part.targets.is_floating_point()
    return tuple(
        ModelView(
            network_of(part, seed),
            part,
            target_mean=float(part.targets.mean()) if is_regression else None,
            target_std=float(part.targets.std()) if is_regression else 1.0,
            forgotten=None if is_regression else (sums.abs() * 10 + seed).long() % 5 - 1,
        )
        for seed in range(num_models)
    )


def context_of(part: ArrayPart, features: Tensor | None = None, num_models: int = 1) -> SelectionContext:
    """What a selector may look at, with so many networks, and embeddings that are made up from the inputs."""
    x = part.inputs.flatten(1)
    mix = torch.randn(x.shape[1], NUM_EMBEDDING, generator=torch.Generator().manual_seed(1))
    return SelectionContext(
        part=part,
        facts=facts_of(part),
        features=features,
        models=models_of(part, num_models),
        embeddings=torch.stack([(x * column).sum(1) for column in mix.T], dim=1),
    )


def made_up_part(n: int = 150, seed: int = 0) -> ArrayPart:
    """Images of 1 x 3 x 2 in five classes of unequal size, no two distances alike."""
    rng = torch.Generator().manual_seed(seed)
    targets = torch.cat([torch.arange(5), torch.randint(5, (n - 5,), generator=rng).div(1.5).long()])
    return ArrayPart(torch.randn(n, 1, 3, 2, generator=rng), targets)


def context_for(selector: Selector, part: ArrayPart) -> SelectionContext:
    """What a selector may look at, with as many networks as it asks for."""
    need = selector.model_need
    return context_of(part, num_models=1 if need is None else need.runs)


def choose(selector: Selector, part: ArrayPart, k: int, seed: int = 3) -> Subset:
    """Select with a fresh generator."""
    return selector.select(context_for(selector, part), k, rng=torch.Generator().manual_seed(seed))


def selector_keeps_its_promises(selector: Selector, k: int, seed: int) -> None:
    """Owed by every selector, with any options that can be, for any number of examples."""
    part, before = made_up_part(), random_state()
    _is_a_frozen_value_of_one_line(selector)
    _costs_are_known(selector)
    for wrong in (0, -1, len(part) + 1):
        with pytest.raises(SelectionError, match=f"^k must be .*got {wrong}. Choose .*subset_share"):
            choose(selector, part, wrong, seed)
    why_not = selector.why_not(facts_of(part), k)
    if why_not is not None:
        with pytest.raises(SelectionError) as caught:
            choose(selector, part, k, seed)
        assert str(caught.value) == why_not, "what is refused beforehand is refused in the same words"
        return
    chosen = choose(selector, part, k, seed)
    _is_a_subset(chosen, k, len(part))
    _is_the_same_again(selector, part, chosen, seed)
    _is_a_prefix_if_it_ranks(selector, part, chosen, seed)
    _does_not_mind_the_order_of_examples(selector, part, chosen, seed)
    alike = ArrayPart(torch.ones(150, 1, 3, 2), torch.arange(150) % 5)
    if selector.why_not(facts_of(alike), k) is None:
        _is_a_subset(choose(selector, alike, k, seed), k, len(alike))
    assert random_state() == before, "the global random state was changed"


def _is_a_frozen_value_of_one_line(component: Any) -> None:
    assert component.summary
    assert "\n" not in component.summary
    assert type(component).__doc__
    assert hash(component) == hash(replace(component)), "options are values"
    for name in ("summary", *(field.name for field in fields(component))):
        with pytest.raises((AttributeError, TypeError)):
            setattr(component, name, getattr(component, name))


def _costs_are_known(selector: Selector) -> None:
    facts = facts_of(made_up_part())
    costs = [selector.flops(facts, k) for k in (1, 10, 100, 150)]
    assert all(isinstance(cost, int) and cost >= 0 for cost in costs)
    assert costs == sorted(costs), "a larger subset costs no less"


def _is_a_subset(subset: Subset, k: int, n: int) -> None:
    positions, weights = subset.positions, subset.weights
    assert (positions.dtype, positions.device.type, positions.shape) == (torch.int64, "cpu", (k,))
    assert len(set(positions.tolist())) == k
    assert set(positions.tolist()) <= set(range(n))
    if weights is not None:
        assert (weights.dtype, weights.shape) == (torch.float32, (k,))
        assert bool((weights.isfinite() & (weights >= 0)).all())
        assert float(weights.double().sum()) == pytest.approx(n, rel=1e-5)


def _is_the_same_again(selector: Selector, part: ArrayPart, chosen: Subset, seed: int) -> None:
    """Whatever the global random state."""
    state = torch.get_rng_state()
    torch.manual_seed(12345 + seed)
    again = choose(selector, part, len(chosen), seed)
    torch.set_rng_state(state)
    assert torch.equal(chosen.positions, again.positions)
    _are_the_same_weights(chosen.weights, again.weights)


def _are_the_same_weights(a: Tensor | None, b: Tensor | None) -> None:
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert torch.equal(a, b)


def _is_a_prefix_if_it_ranks(selector: Selector, part: ArrayPart, chosen: Subset, seed: int) -> None:
    if selector.is_ranking:
        _are_the_same_weights(selector.weigh(context_for(selector, part), chosen.positions), chosen.weights)
        price = selector.weigh_flops(context_for(selector, part).facts, len(chosen))
        assert (price > 0) == (chosen.weights is not None), "weights have a price, and nothing else has"
        for more in {min(len(part), len(chosen) + extra) for extra in (1, 17, 150)}:
            if selector.why_not(facts_of(part), more) is None:
                longer = choose(selector, part, more, seed).positions
                assert torch.equal(longer[: len(chosen)], chosen.positions), f"of {more} the first {len(chosen)}"


def _does_not_mind_the_order_of_examples(selector: Selector, part: ArrayPart, chosen: Subset, seed: int) -> None:
    if selector.is_deterministic:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(5))
        permuted = ArrayPart(part.inputs[order], part.targets[order])
        found = order[choose(selector, permuted, len(chosen), seed).positions]
        if selector.model_need is None:
            assert torch.equal(found, chosen.positions)
        else:  # the last bit of what a network makes of an example hangs on its batch: ties fall otherwise
            num_others = len(set(found.tolist()) - set(chosen.positions.tolist()))
            assert num_others <= max(1, len(chosen) // 20)


# --- orders -----------------------------------------------------------------------------------------------------------


POOLS = (None, torch.arange(50), torch.arange(10, 31), torch.tensor([4, 3, 9]), torch.tensor([7]))


def batches_of(stream: Stream, count: int) -> list[list[int]]:
    """So many batches from here on."""
    return [stream.next(0.0).positions.tolist() for _ in range(count)]


def _entered(order: Order, pool: Tensor | None, seed: int) -> Stream:
    """A fresh stream over 50 examples, in batches of 8."""
    stream = order.stream(50, 8, seed)
    stream.enter(pool)
    return stream


def order_keeps_its_promises(order: Order, seed: int, num_batches: int) -> None:
    """Owed by every order, with any options that can be.

    Args:
        order: with its options.
        seed: of the run.
        num_batches: after which the run is interrupted.
    """
    before = random_state()
    _is_a_frozen_value_of_one_line(order)
    _prices_are_known(order)
    for pool in POOLS:
        _batches_come_from_the_pool(order, pool, seed)
        _lengths_are_known(order, pool, seed)
        _goes_on_from_its_state(order, pool, seed, num_batches)
    assert random_state() == before, "the global random state was changed"


def _prices_are_known(order: Order) -> None:
    facts = made_up_facts(FULL, num_examples=50)
    if order.why_not(Recipe(lr=0.1, batch_size=8, epochs=3), facts) is not None:
        return
    prices = [order.update_cost(length, 0.5, facts) for length in (1, 2, 8)]
    assert all(type(flops) is int and flops >= 0 for price in prices for flops in (price.forward, price.backward))
    assert all(price.total > 0 for price in prices)
    assert prices == sorted(prices, key=lambda price: price.total)
    for length in (1, 2, 8):
        assert 1 <= order.min_trained_examples(length, facts) <= length
        for share in (0.0, 0.1, 0.3, 0.5, 0.9, 0.99):
            assert order.max_update_flops(length, facts) >= order.update_cost(length, share, facts).total


def _batches_come_from_the_pool(order: Order, pool: Tensor | None, seed: int) -> None:
    members, stream = set(range(50)) if pool is None else set(pool.tolist()), _entered(order, pool, seed)
    seen: set[int] = set()
    for _ in range(30):
        batch = stream.next(0.0).positions
        assert (batch.dtype, batch.device.type, batch.dim()) == (torch.int64, "cpu", 1)
        assert 1 <= len(batch) <= 8
        seen |= set(batch.tolist())
    assert seen <= members
    for _ in range(3000):  # a round may take a small share of the pool, and draw it with replacement
        if seen == members:
            break
        seen |= set(stream.next(0.0).positions.tolist())
    assert seen == members, "every example comes"


def _lengths_are_known(order: Order, pool: Tensor | None, seed: int) -> None:
    known = order.lengths(50 if pool is None else len(pool), 8)
    assert [len(batch) for batch in batches_of(_entered(order, pool, seed), 2 * len(known))] == [*known, *known]


def _goes_on_from_its_state(order: Order, pool: Tensor | None, seed: int, num_batches: int) -> None:
    """As if nothing had been, whatever the global random state."""
    stream, twin, again = _entered(order, None, seed), _entered(order, None, seed), order.stream(50, 8, seed)
    for one in (stream, twin):
        batches_of(one, num_batches % 4)
        one.enter(pool)
    first = batches_of(stream, num_batches)
    again.load(stream.state(), pool)
    state = torch.get_rng_state()
    torch.manual_seed(seed + 1)
    assert batches_of(twin, num_batches) == first, "the same seed gives the same batches"
    found = batches_of(again, 9)
    torch.set_rng_state(state)
    assert batches_of(stream, 9) == found
    for one in (stream, again):
        one.enter(None)
    assert batches_of(stream, 9) == batches_of(again, 9)


# --- transitions ------------------------------------------------------------------------------------------------------


def network_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network after one step of SGD with momentum."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
    optimizer.step()
    return network, optimizer


def entered(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> TransitionContext:
    """What a transition sees in the middle of a run."""
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    return TransitionContext(
        network=network,
        optimizer=optimizer,
        scales=scales(network),
        rng=torch.Generator().manual_seed(seed),
        part=ArrayPart(inputs, inputs.sum(1)),  # type: ignore[arg-type]
        losses=lambda outputs, targets: (outputs.squeeze(1) - targets).square(),
        facts=entered_facts(),
    )


def entered_facts() -> TaskFacts:
    """Of the network of `network_and_optimizer`."""
    return TaskFacts(
        num_examples=6,
        num_outputs=1,
        num_parameters=29,
        forward_flops=32,
        backward_flops=40,
        reference_passes=3,
        exits=FrozenDict({"0": 24, "1": 24, "2": 32}),
        chain=(
            ChainLayer(name="0", width=4, forward_flops=24, backward_flops=24),
            ChainLayer(name="2", width=1, forward_flops=8, backward_flops=16),
        ),
    )


LAYERS = tuple(layer.name for layer in entered_facts().chain[:-1])  # that can be made narrower


def transition_keeps_its_promises(chosen: Transition, seed: int) -> None:
    """Owed by every transition, with any options that can be."""
    before = random_state()
    _is_a_frozen_value_of_one_line(chosen)
    facts = entered_facts()
    costs = [chosen.flops(facts, size) for size in (1, 3, 6)]
    assert all(type(cost) is int and cost >= 0 for cost in costs)
    assert costs == sorted(costs), "a larger pool costs no less"
    if chosen.why_not(Recipe(lr=0.1, batch_size=3, epochs=3), facts) is not None:
        return
    _changes_nothing_if_neutral(chosen, seed)
    _is_the_same_change_again(chosen, seed)
    _training_goes_on(chosen, seed)
    _facts_are_those_of_the_network(chosen, seed)
    assert random_state() == before, "the global random state was changed"


def _applied(chosen: Transition, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    network, optimizer = network_and_optimizer()
    chosen.apply(entered(network, optimizer, seed))
    return network, optimizer


def _are_the_same(a: tuple[nn.Module, torch.optim.Optimizer], b: tuple[nn.Module, torch.optim.Optimizer]) -> None:
    for i in (0, 1):
        torch.testing.assert_close(a[i].state_dict(), b[i].state_dict(), rtol=0, atol=0)


def _changes_nothing_if_neutral(chosen: Transition, seed: int) -> None:
    if chosen.is_neutral:
        _are_the_same(_applied(chosen, seed), network_and_optimizer())
        assert chosen.facts_after(entered_facts()) == entered_facts()


def _is_the_same_change_again(chosen: Transition, seed: int) -> None:
    first, state = _applied(chosen, seed), torch.get_rng_state()
    torch.manual_seed(seed + 1)
    again = _applied(chosen, seed)
    torch.set_rng_state(state)
    _are_the_same(first, again)


def _training_goes_on(chosen: Transition, seed: int) -> None:
    network, optimizer = network_and_optimizer()
    parameters = list(network.parameters())
    chosen.apply(entered(network, optimizer, seed))
    assert [id(p) for p in network.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad and p.grad_fn is None and bool(p.isfinite().all()) for p in parameters)
    before = [p.detach().clone() for p in parameters]
    network(torch.ones(2, 3) * torch.tensor([[1.0], [2.0]])).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def _facts_are_those_of_the_network(chosen: Transition, seed: int) -> None:
    (network, _), before = _applied(chosen, seed), entered_facts()
    after = chosen.facts_after(before)
    widths = {layer.name: len(network.get_parameter(f"{layer.name}.weight")) for layer in before.chain}
    assert {layer.name: layer.width for layer in after.chain} == widths
    assert after.example_flops <= before.example_flops
    assert (after.num_examples, after.reference_passes) == (before.num_examples, before.reference_passes)
