"""RS2: rounds are parts of a permutation."""

from __future__ import annotations

import itertools

import pytest
import torch
from fakes import image_task, options, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy
from subsettune.train import orders
from subsettune.train.orders.base import shuffled
from subsettune.train.orders.rs2 import Rs2, Rs2Stream

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]


def rounds(stream: Rs2Stream, pool_size: int, count: int) -> list[list[int]]:
    """Examples of so many rounds, from the beginning of one on; the batch that the last one ends in is taken whole."""
    size, found = stream.order.taken(pool_size), list[int]()
    while len(found) < count * size:
        batch = stream.next(0.0).positions.tolist()
        assert len(batch) == min(stream.batch_size, pool_size)
        found += batch
    return [found[i * size : (i + 1) * size] for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 70),
    share=st.floats(0.01, 1.0),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 5),
    pick=st.data(),
)
def test_rounds_cut_a_permutation_of_the_pool(
    n: int, share: float, batch_size: int, seed: int, pick: st.DataObject
) -> None:
    pool = torch.tensor(sorted(pick.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    stream = Rs2(share=share).stream(n, batch_size, seed)
    stream.enter(pool)
    size = max(1, round(share * len(pool)))
    parts = len(pool) // size
    found = rounds(stream, len(pool), 3 * parts)
    for cycle in range(3):
        whole = shuffled(n, pool, seed, cycle).tolist()  # as the uniform order of that round
        ours = found[cycle * parts : (cycle + 1) * parts]
        assert list(itertools.chain(*ours)) == whole[: parts * size]


def test_batches_run_on_over_the_ends_of_rounds() -> None:
    stream = Rs2(share=0.25).stream(40, 8, 3)  # rounds of 10
    stream.enter(None)
    taken = [stream.next(0.0).positions for _ in range(5)]
    assert torch.equal(torch.cat(taken), shuffled(40, None, 3, 0))


def test_with_replacement_each_round_draws_from_the_whole_pool() -> None:
    stream = Rs2(share=0.5, replacement=True).stream(40, 8, 1)
    stream.enter(None)
    found = rounds(stream, 40, 6)
    assert all(len(set(examples)) == 20 for examples in found)
    assert all(set(a) & set(b) for a, b in itertools.pairwise(found))  # 1 in 10^11 by chance
    assert len({tuple(examples) for examples in found}) == 6


def test_a_new_pool_begins_a_new_permutation_and_the_same_one_goes_on() -> None:
    stream = Rs2(share=0.25).stream(40, 5, 2)
    stream.enter(None)
    first = rounds(stream, 40, 2)
    stream.enter(None)  # the same pool: its permutation goes on
    assert sorted(itertools.chain(*first, *rounds(stream, 40, 2))) == list(range(40))
    stream.next(0.0)
    pool = torch.arange(20)
    stream.enter(pool)  # in the middle of round 4
    assert sorted(itertools.chain(*rounds(stream, 20, 4))) == list(range(20))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.62])
@pytest.mark.parametrize("replacement", [False, True])
def test_it_goes_on_from_its_state_in_any_round(share: float, replacement: bool) -> None:
    order = Rs2(share=share, replacement=replacement)
    for count in range(20):
        stream, again = order.stream(50, 4, 1), order.stream(50, 4, 1)
        stream.next(0.0)
        stream.enter(torch.arange(3, 40))
        for _ in range(count):
            stream.next(0.0)
        again.load(stream.state(), torch.arange(3, 40))
        for _ in range(30):
            assert torch.equal(stream.next(0.0).positions, again.next(0.0).positions)


def test_a_whole_pool_is_the_uniform_order_bit_for_bit(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    plain = Policy(phases=(Phase(share=0.4, passes=0.8), Phase(passes=0.6)))
    rs2 = {"order": "rs2", "order_options": FrozenDict({"share": 1.0})}
    ordered = Policy(phases=(Phase(share=0.4, passes=0.8, **rs2), Phase(passes=0.6, **rs2)))
    a, b = (train.run(task, policy, 0, options=options(keep_model=True)) for policy in (plain, ordered))
    assert same_bits(a.model, b.model)
    assert (a.ledger, a.metrics) == (b.ledger, b.metrics)


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"share": 30}, "^order_options.share: share must be in .0, 1., got 30.0. It is a fraction"),
        ({"replacement": 1}, "^order_options.replacement: replacement must be true or false, got 1."),
        ({"portion": 1}, "^order_options.portion: unknown key. Known keys: replacement, share."),
    ],
)
def test_mistakes(given_options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        orders.make("rs2", given_options)


@pytest.mark.parametrize("name", ["rs2", "infobatch", "sift", "selective_backprop"])
def test_a_line_search_is_refused(tiny_data: Data, name: str) -> None:
    task = image_task(tiny_data, optimizer="lbfgs", momentum=None, batch_size=1000)
    with pytest.raises(ConfigError, match=f"^order must be uniform with lbfgs, got '{name}'. Its curvature is that of"):
        train.run(task, Policy(phases=(Phase(passes=9, order=name),)), 0, options=options())
