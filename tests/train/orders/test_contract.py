from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from contracts import order_keeps_its_promises
from facts import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from options import components
from torch import Tensor

from subsettune.train import orders
from subsettune.train.orders import Batch, Order, Stream
from subsettune.train.orders.uniform import Shuffled

pytestmark = pytest.mark.usefixtures("untouched_random_state")


class Sequential(Stream):
    """The pool in its order, again and again, in full batches."""

    def __init__(self, num_examples: int, batch_size: int) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size
        self.pool, self.position = torch.arange(num_examples), 0

    def enter(self, pool: Tensor | None) -> None:
        self.pool = torch.arange(self.num_examples) if pool is None else pool.sort().values

    def next(self, share: float) -> Batch:
        chosen = (self.position + torch.arange(min(self.batch_size, len(self.pool)))) % len(self.pool)
        self.position += len(chosen)
        return Batch(positions=self.pool[chosen])

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def load(self, state: dict[str, Any], pool: Tensor | None) -> None:
        self.enter(pool)
        self.position = state["position"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rotating(Order):
    """A user's own."""

    summary: ClassVar[str] = "in turn"

    def lengths(self, pool_size: int, batch_size: int) -> list[int]:
        return [min(pool_size, batch_size)]

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Sequential:
        return Sequential(num_examples, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*orders.ORDERS, "tests.train.orders.test_contract:Rotating"])
@settings(deadline=None, max_examples=20)
@given(data=st.data(), seed=st.integers(0, 99), num_batches=st.integers(0, 20))
def test_every_order_keeps_its_promises(name: str, data: st.DataObject, seed: int, num_batches: int) -> None:
    cls = type(orders.make(name))
    order_keeps_its_promises(data.draw(components(cls, FULL.blocks)), seed, num_batches)


def stream(batches: Stream, num_examples: int) -> list[int]:
    """So many examples in a row, cut off in the middle of a batch."""
    found: list[int] = []
    while len(found) < num_examples:
        found += batches.next(0.0).positions.tolist()
    return found[:num_examples]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 80), batch_size=st.integers(1, 90), seed=st.integers(0, 10), data=st.data())
def test_a_subset_run_sees_a_sub_sequence_of_the_full_run_s_order(
    n: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    pool = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    full, subset = Shuffled(n, batch_size, seed), Shuffled(n, batch_size, seed)
    full.enter(None)
    subset.enter(pool)
    rounds = 3
    expected = [i for i in stream(full, rounds * n) if i in pool.tolist()]
    assert stream(subset, rounds * len(pool)) == expected


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_rounds_and_batches(n: int, batch_size: int) -> None:
    batches = Shuffled(n, batch_size, 0)
    batches.enter(None)
    for _ in range(3):
        sizes: list[int] = []
        seen: list[int] = []
        while sum(sizes) < n:
            batch = batches.next(0.0).positions
            sizes.append(len(batch))
            seen += batch.tolist()
        assert sorted(seen) == list(range(n))
        assert all(size == batch_size for size in sizes[:-1][:-1])
        assert sizes[-1] > 1 or n == 1 or batch_size == 1 or len(sizes) == 1
        assert max(sizes) <= batch_size + 1
    if n > 10:
        assert stream(Shuffled(n, 1000, 0), n) != stream(Shuffled(n, 1000, 1), n)


def test_a_new_pool_begins_a_new_round_and_the_same_one_goes_on() -> None:
    batches, reference = Shuffled(40, 8, 5), Shuffled(40, 8, 5)
    batches.enter(torch.arange(20))
    reference.enter(None)
    batches.next(0.0)
    batches.enter(torch.arange(20))  # the same pool again: the round goes on
    first_round = [*batches.next(0.0).positions.tolist(), *batches.next(0.0).positions.tolist()]
    assert len(first_round) == 12
    batches.next(0.0)
    batches.enter(None)  # in the middle of round 1: round 2 comes next
    assert stream(batches, 40) == stream(reference, 120)[80:]
