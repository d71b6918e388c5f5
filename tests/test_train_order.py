from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts import OrderContract
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subsettune import task
from subsettune.errors import ConfigError
from subsettune.train import order
from subsettune.train.order import Order, Uniform

pytestmark = pytest.mark.usefixtures("untouched_random_state")


@pytest.mark.parametrize("kind", order.ORDERS.values(), ids=list(order.ORDERS))
class TestRegistry(OrderContract):
    pass


class Rotating(Order):
    """A user's own: the pool in its order, again and again, in full batches."""

    summary = "in turn"

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_examples, batch_size, seed)
        self.pool, self.position = torch.arange(num_examples), 0

    def enter(self, pool: Tensor | None) -> None:
        self.pool = torch.arange(self.num_examples) if pool is None else pool.sort().values

    def next(self) -> Tensor:
        chosen = (self.position + torch.arange(min(self.batch_size, len(self.pool)))) % len(self.pool)
        self.position += len(chosen)
        return self.pool[chosen]

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        self.enter(pool)
        self.position = state["position"]


@pytest.mark.parametrize("kind", [Rotating], ids=["rotating"])
class TestUsersOwn(OrderContract):
    pass


def stream(batches: Order, num_examples: int) -> list[int]:
    """So many examples in a row, cut off in the middle of a batch."""
    found: list[int] = []
    while len(found) < num_examples:
        found += batches.next().tolist()
    return found[:num_examples]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 80), batch_size=st.integers(1, 90), seed=st.integers(0, 10), data=st.data())
def test_a_subset_run_sees_a_sub_sequence_of_the_full_run_s_order(
    n: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    pool = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    full, subset = Uniform(n, batch_size, seed), Uniform(n, batch_size, seed)
    full.enter(None)
    subset.enter(pool)
    rounds = 3
    expected = [i for i in stream(full, rounds * n) if i in pool.tolist()]
    assert stream(subset, rounds * len(pool)) == expected


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_rounds_and_batches(n: int, batch_size: int) -> None:
    batches = Uniform(n, batch_size, 0)
    batches.enter(None)
    for _ in range(3):
        sizes: list[int] = []
        seen: list[int] = []
        while sum(sizes) < n:
            batch = batches.next()
            sizes.append(len(batch))
            seen += batch.tolist()
        assert sorted(seen) == list(range(n))
        assert all(size == batch_size for size in sizes[:-1][:-1])
        assert sizes[-1] > 1 or n == 1 or batch_size == 1 or len(sizes) == 1
        assert max(sizes) <= batch_size + 1
    if n > 10:
        assert stream(Uniform(n, 1000, 0), n) != stream(Uniform(n, 1000, 1), n)


def test_a_new_pool_begins_a_new_round_and_the_same_one_goes_on() -> None:
    batches, reference = Uniform(40, 8, 5), Uniform(40, 8, 5)
    batches.enter(torch.arange(20))
    reference.enter(None)
    batches.next()
    batches.enter(torch.arange(20))  # the same pool again: the round goes on
    first_round = [*batches.next().tolist(), *batches.next().tolist()]
    assert len(first_round) == 12
    batches.next()
    batches.enter(None)  # in the middle of round 1: round 2 comes next
    assert stream(batches, 40) == stream(reference, 120)[80:]


def test_names() -> None:
    assert tuple(order.ORDERS) == task.ORDERS
    assert set(order.names()) == set(order.ORDERS)
    assert isinstance(order.make("uniform", 5, 2, 0), Uniform)
    assert isinstance(order.make("test_train_order:Rotating", 5, 2, 0), Order)
    with pytest.raises(ConfigError, match=r"^order must be one of uniform or package.module:Class, got 'rs2'."):
        order.make("rs2", 5, 2, 0)
    with pytest.raises(
        ConfigError,
        match=r"^order must be a concrete subclass of Order, got 'collections:OrderedDict'. Subclass subsettune",
    ):
        order.make("collections:OrderedDict", 5, 2, 0)
