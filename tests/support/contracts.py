"""What every implementation of a family owes, as classes of tests: a test module subclasses them and gives the cases.

One section a family. A contract asserts what the family promises to callers, not how one member does it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subsettune.config import FrozenDict
from subsettune.errors import SelectionError
from subsettune.facts import ChainLayer, TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import SelectionContext, Selector, Subset, selection_flops
from subsettune.select.network import ModelView, anatomy
from subsettune.train.orders import Order, Stream
from subsettune.train.transitions import Transition, TransitionContext, scales

# --- global random state ----------------------------------------------------------------------------------------------


def random_state() -> tuple[object, ...]:
    """A snapshot of the global random states that compares with ==."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
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


@pytest.mark.usefixtures("untouched_random_state")
class SelectorContract:
    """Owed by every selector. A subclass gives `selector` as a fixture or parameter."""

    @pytest.mark.parametrize("k", [5, 6, 40, 149, 150])
    def test_exactly_k_different_int64_positions(self, selector: Selector, k: int) -> None:
        subset = choose(selector, made_up_part(), k)
        assert subset.positions.dtype == torch.int64
        assert subset.positions.device.type == "cpu"
        assert subset.positions.shape == (k,)
        assert len(set(subset.positions.tolist())) == k
        assert set(subset.positions.tolist()) <= set(range(150))

    @pytest.mark.parametrize("k", [5, 40, 150])
    def test_weights_stand_for_all_examples(self, selector: Selector, k: int) -> None:
        weights = choose(selector, made_up_part(), k).weights
        if weights is not None:
            assert weights.dtype == torch.float32
            assert weights.shape == (k,)
            assert bool((weights.isfinite() & (weights >= 0)).all())
            assert float(weights.double().sum()) == pytest.approx(150, rel=1e-5)

    def test_a_ranking_can_be_weighed_again(self, selector: Selector) -> None:
        if not selector.is_ranking:
            pytest.skip("no ranking")
        subset = choose(selector, made_up_part(), 40)
        again = selector.weigh(context_for(selector, made_up_part()), subset.positions)
        assert (again is None) == (subset.weights is None)
        if again is not None and subset.weights is not None:
            assert torch.equal(again, subset.weights)

    @pytest.mark.parametrize("k", [5, 40, 150])
    def test_identical_examples(self, selector: Selector, k: int) -> None:
        part = ArrayPart(torch.ones(150, 1, 3, 2), torch.arange(150) % 5)
        assert len(set(choose(selector, part, k).positions.tolist())) == k

    def test_same_seed_same_bits(self, selector: Selector) -> None:
        first, second = (choose(selector, made_up_part(), 40, seed=11) for _ in range(2))
        assert torch.equal(first.positions, second.positions)
        assert (first.weights is None) == (second.weights is None)
        if first.weights is not None and second.weights is not None:
            assert torch.equal(first.weights, second.weights)

    def test_global_random_state_is_not_read(self, selector: Selector) -> None:
        before = random_state()
        first = choose(selector, made_up_part(), 40).positions
        state = torch.get_rng_state()
        torch.manual_seed(12345)
        second = choose(selector, made_up_part(), 40).positions
        torch.set_rng_state(state)
        assert torch.equal(first, second)
        assert random_state() == before

    def test_smaller_subsets_are_prefixes(self, selector: Selector) -> None:
        if not selector.is_ranking:
            pytest.skip("no ranking")
        longest = choose(selector, made_up_part(), 150).positions
        for k in range(5, 150, 12):
            assert torch.equal(choose(selector, made_up_part(), k).positions, longest[:k])

    def test_permuted_examples_give_the_permuted_answer(self, selector: Selector) -> None:
        if not selector.is_deterministic:
            pytest.skip("draws positions")
        part = made_up_part()
        order = torch.randperm(150, generator=torch.Generator().manual_seed(5))
        permuted = ArrayPart(part.inputs[order], part.targets[order])
        assert torch.equal(order[choose(selector, permuted, 40).positions], choose(selector, part, 40).positions)

    @pytest.mark.parametrize("k", [0, -1, 151])
    def test_k_out_of_range_is_refused(self, selector: Selector, k: int) -> None:
        with pytest.raises(SelectionError, match=f"^k must be .*got {k}. Choose .*subset_share"):
            choose(selector, made_up_part(), k)

    def test_costs_are_whole_numbers_that_grow_with_k(self, selector: Selector) -> None:
        facts = facts_of(made_up_part())
        costs = [selector.flops(facts, k) for k in (1, 10, 100, 150)]
        assert all(isinstance(cost, int) and cost >= 0 for cost in costs)
        assert costs == sorted(costs)

    def test_share_1_is_charged_nothing(self, selector: Selector) -> None:
        policy = Policy(phases=(Phase(share=1.0, passes=1, selector=selector.name),))
        assert selection_flops(policy, 0, facts_of(made_up_part())) == 0

    def test_settings_cannot_be_changed(self, selector: Selector) -> None:
        with pytest.raises((AttributeError, TypeError)):
            selector.name = "other"  # type: ignore[misc]

    def test_describes_itself_in_one_line(self, selector: Selector) -> None:
        assert selector.summary
        assert "\n" not in selector.summary
        assert type(selector).__doc__


# --- orders -----------------------------------------------------------------------------------------------------------


def stream_of(order: Order, pool: Tensor | None, num_batches: int, seed: int = 0) -> list[list[int]]:
    """So many batches of a fresh order over 50 examples, in batches of 8."""
    stream = order.stream(50, 8, seed)
    stream.enter(pool)
    return [stream.next(0.0).positions.tolist() for _ in range(num_batches)]


def batches_of(stream: Stream, count: int) -> list[list[int]]:
    """So many batches from here on."""
    return [stream.next(0.0).positions.tolist() for _ in range(count)]


@pytest.mark.usefixtures("untouched_random_state")
class OrderContract:
    """Owed by every order. A subclass gives it, with its options, as a parameter."""

    @pytest.mark.parametrize(
        "pool", [None, torch.arange(50), torch.arange(10, 31), torch.tensor([4, 3, 9]), torch.tensor([7])]
    )
    def test_batches_come_from_the_pool_without_repetition(self, order: Order, pool: Tensor | None) -> None:
        members = set(range(50)) if pool is None else set(pool.tolist())
        for batch in stream_of(order, pool, 30):
            assert 1 <= len(batch) <= 9
            assert len(set(batch)) == len(batch)
            assert set(batch) <= members

    def test_every_example_comes_again_and_again(self, order: Order) -> None:
        pool = torch.arange(10, 30)
        seen = [i for batch in stream_of(order, pool, 60) for i in batch]
        assert all(seen.count(i) >= 3 for i in pool.tolist())

    def test_batches_are_int64_on_the_cpu(self, order: Order) -> None:
        stream = order.stream(50, 8, 0)
        stream.enter(None)
        batch = stream.next(0.0).positions
        assert (batch.dtype, batch.device.type, batch.dim()) == (torch.int64, "cpu", 1)

    def test_same_seed_same_batches_whatever_the_global_state(self, order: Order) -> None:
        first, state = stream_of(order, None, 20, seed=3), torch.get_rng_state()
        torch.manual_seed(1)
        second = stream_of(order, None, 20, seed=3)
        torch.set_rng_state(state)
        assert first == second

    @pytest.mark.parametrize("num_batches", [0, 1, 2, 3, 7])
    def test_it_goes_on_from_its_state(self, order: Order, num_batches: int) -> None:
        pool = torch.arange(5, 25)
        stream, again = order.stream(50, 8, 1), order.stream(50, 8, 1)
        stream.enter(pool)
        for _ in range(num_batches):
            stream.next(0.0)
        again.load(stream.state(), pool)
        assert batches_of(stream, 9) == batches_of(again, 9)
        for one in (stream, again):
            one.enter(None)
        assert batches_of(stream, 9) == batches_of(again, 9)

    def test_lengths_are_those_of_the_batches(self, order: Order) -> None:
        for pool in (None, torch.arange(9), torch.arange(17), torch.tensor([7])):
            known = order.lengths(50 if pool is None else len(pool), 8)
            assert [len(batch) for batch in stream_of(order, pool, 2 * len(known))] == [*known, *known]

    def test_prices_grow_with_the_batch(self, order: Order) -> None:
        facts = TaskFacts(
            num_examples=50, num_outputs=2, num_parameters=9, forward_flops=10, backward_flops=20, reference_passes=3
        )
        facts = replace(facts, exits=FrozenDict({"0": 4, "1": 10}), blocks=("0", "1"), layers=FrozenDict({"0": 3}))
        prices = [order.update_cost(length, 0.5, facts) for length in (1, 2, 8)]
        assert all(price.forward >= 0 and price.backward >= 0 and price.total > 0 for price in prices)
        assert prices == sorted(prices, key=lambda price: price.total)
        assert all(type(flops) is int for price in prices for flops in (price.forward, price.backward))
        for share in (0.0, 0.3, 0.5, 0.9):
            assert all(
                order.max_update_flops(length, facts) >= order.update_cost(length, share, facts).total
                for length in (1, 2, 8)
            )

    def test_settings_cannot_be_changed(self, order: Order) -> None:
        with pytest.raises((AttributeError, TypeError)):
            order.summary = "other"  # type: ignore[misc]

    def test_describes_itself_in_one_line(self, order: Order) -> None:
        assert order.summary
        assert "\n" not in order.summary


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


@pytest.mark.usefixtures("untouched_random_state")
class TransitionContract:
    """Owed by every transition. A subclass gives it as a parameter, `chosen`."""

    def test_same_generator_same_bits(self, chosen: Transition) -> None:
        found = []
        for _ in range(2):
            network, optimizer = network_and_optimizer()
            chosen.apply(entered(network, optimizer, 4))
            found.append((network.state_dict(), optimizer.state_dict()))
        assert all(torch.equal(found[0][0][name], found[1][0][name]) for name in found[0][0])
        assert str(found[0][1]) == str(found[1][1])

    def test_training_goes_on(self, chosen: Transition) -> None:
        network, optimizer = network_and_optimizer()
        parameters = list(network.parameters())
        chosen.apply(entered(network, optimizer, 4))
        assert [id(p) for p in network.parameters()] == [id(p) for p in parameters]
        assert all(p.requires_grad and p.grad_fn is None and bool(p.isfinite().all()) for p in parameters)
        before = [p.detach().clone() for p in parameters]
        network(torch.ones(2, 3) * torch.tensor([[1.0], [2.0]])).square().sum().backward()
        optimizer.step()
        assert any(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))

    def test_settings_cannot_be_changed(self, chosen: Transition) -> None:
        with pytest.raises((AttributeError, TypeError)):
            chosen.summary = "other"  # type: ignore[misc]

    def test_describes_itself_in_one_line(self, chosen: Transition) -> None:
        assert chosen.summary
        assert "\n" not in chosen.summary
        assert type(chosen).__doc__
