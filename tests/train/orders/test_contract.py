from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from contracts import order_keeps_its_promises
from facts import FULL, made_up_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from options import components
from torch import Tensor

from subsettune.policy import Phase, Policy
from subsettune.task import Recipe
from subsettune.train import orders
from subsettune.train.orders import Batch, Order, Stream
from subsettune.train.orders.base import joined, last_of_each, shuffled
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project

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
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 5), data=st.data())
def test_batches_have_one_length_and_rounds_follow_without_a_gap(
    n: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    pool = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    batches, length = Shuffled(n, batch_size, seed), min(batch_size, len(pool))
    batches.enter(pool)
    count = -(-3 * len(pool) // length)
    found = [batches.next(0.0).positions for _ in range(count)]
    assert {len(batch) for batch in found} == {length}
    rounds = [shuffled(n, pool, seed, number) for number in range(4)]
    assert torch.equal(torch.cat(found), torch.cat(rounds)[: count * length])
    assert all(sorted(whole.tolist()) == pool.tolist() for whole in rounds)
    if n > 10:
        assert stream(Shuffled(n, 1000, 0), n) != stream(Shuffled(n, 1000, 1), n)


@pytest.mark.parametrize("name", orders.ORDERS)
@pytest.mark.parametrize("share", [0.072, 0.1, 0.333, 0.5, 0.9, 0.998, 1.0])
def test_updates_for_the_same_compute_are_the_same_on_every_share(name: str, share: float) -> None:
    """Of 899 examples in batches of 64, whatever the remainder: 64, 90, 299, 450, 809, 897 and 899 in the pool."""
    facts, recipe = made_up_facts(FULL, num_examples=899), Recipe(lr=0.1, batch_size=64, epochs=9)
    small, whole = (
        project(resolve(Policy(phases=(Phase(share=s, passes=5.0, order=name),)), recipe, facts))[0]
        for s in (share, 1.0)
    )
    assert whole.updates == small.updates
    assert whole.examples == small.examples == 64 * whole.updates
    assert whole.ledger == small.ledger
    assert resolve(Policy(phases=(Phase(share=share, passes=5.0),)), recipe, facts).min_batch == 64


def test_where_a_batch_spans_two_rounds_an_example_may_be_in_it_twice() -> None:
    twice = []
    for seed in range(20):
        batches = Shuffled(10, 8, seed)
        batches.next(0.0)
        batch = batches.next(0.0).positions.tolist()  # 2 of round 0 and 6 of round 1
        assert batch == [*shuffled(10, None, seed, 0)[8:].tolist(), *shuffled(10, None, seed, 1)[:6].tolist()]
        assert max(batch.count(i) for i in batch) <= 2
        twice.append(len(set(batch)) < 8)
    assert 8 <= sum(twice) <= 20  # 13 in 15 at random


def test_the_last_place_of_each_example_in_a_batch() -> None:
    assert last_of_each(torch.tensor([3, 1, 3, 2, 1, 0])).tolist() == [2, 3, 4, 5]
    assert last_of_each(torch.tensor([5, 5, 5])).tolist() == [2]
    assert last_of_each(torch.empty(0, dtype=torch.int64)).tolist() == []
    assert last_of_each(torch.tensor([4, 0, 9])).tolist() == [0, 1, 2]


def test_batches_are_joined_with_weights_of_1_where_there_are_none() -> None:
    plain, weighted = (
        Batch(positions=torch.tensor([1, 2])),
        Batch(positions=torch.tensor([7]), weights=torch.tensor([2.5])),
    )
    both = joined([plain, weighted, plain])
    assert both.positions.tolist() == [1, 2, 7, 1, 2]
    assert both.weights is not None
    assert both.weights.tolist() == [1.0, 1.0, 2.5, 1.0, 1.0]
    assert joined([plain, plain]).weights is None


@pytest.mark.parametrize("count", range(9))
def test_a_stream_goes_on_within_a_round_and_within_a_batch_of_two(count: int) -> None:
    pool = torch.arange(5, 26)
    stream_, again = Shuffled(40, 8, 2), Shuffled(40, 8, 2)  # rounds of 21: they end in the 3rd, 6th and 8th batch
    stream_.enter(pool)
    before = [stream_.next(0.0) for _ in range(count)]
    again.load(stream_.state(), pool)
    assert sum(map(len, before)) == count * 8 == again.state()["round"] * 21 + again.state()["position"]
    for _ in range(9):
        assert torch.equal(stream_.next(0.0).positions, again.next(0.0).positions)


def test_a_new_pool_begins_a_new_round_and_the_same_one_goes_on() -> None:
    batches, pool = Shuffled(40, 8, 5), torch.arange(20)
    batches.enter(pool)
    first = batches.next(0.0).positions.tolist()
    batches.enter(torch.arange(20))  # the same pool again: the round goes on
    first += [*batches.next(0.0).positions.tolist(), *batches.next(0.0).positions.tolist()]
    assert first == [*shuffled(40, pool, 5, 0).tolist(), *shuffled(40, pool, 5, 1)[:4].tolist()]
    batches.enter(None)  # in the middle of round 1: what is left of it is dropped, and round 2 comes next
    assert stream(batches, 80) == [*shuffled(40, None, 5, 2).tolist(), *shuffled(40, None, 5, 3).tolist()]
