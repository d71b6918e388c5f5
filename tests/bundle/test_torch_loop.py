"""A loop with torch that follows a bundle: the bits of a run, its loader, hosts that leave out or repeat batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_bundles import CASES, SEED, HostCase, make_case, mean_loss, vector
from torch.utils.data import DataLoader

from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.train.follow.loader import policy_loader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostCase]:
    return {name: make_case(name, tmp_path_factory.mktemp(name)) for name in CASES}


def follow(case: HostCase, num_workers: int = 0, **options: Any) -> tuple[Any, Any, list[list[int]]]:
    """The loop of a user; gives network, sampler, and the rows of each batch."""
    dataset, seen = case.dataset, []
    with case.seeded():
        network = case.network()
        optimizer = case.optimizer(network)
        sampler = case.bundle.batch_sampler(dataset, seed=SEED, labels=False, **options)
        sampler.on_switch(network=network, optimizer=optimizer)
        scheduler = sampler.scheduler(optimizer)
        own = torch.Generator()  # a loader without one draws from torch's own
        for rows, inputs, targets in DataLoader(dataset, batch_sampler=sampler, num_workers=num_workers, generator=own):
            weights = sampler.weights
            seen.append(rows.tolist())
            optimizer.zero_grad()
            mean_loss(network(inputs), targets, None if weights is None else torch.from_numpy(weights)).backward()
            optimizer.step()
            scheduler.step()
    return network, sampler, seen


@pytest.mark.parametrize(("name", "num_workers"), [*((name, 0) for name in CASES), ("shrunk", 2), ("weighted", 2)])
def test_rows_weights_and_ledger_are_those_of_a_run(cases: dict[str, HostCase], name: str, num_workers: int) -> None:
    case = cases[name]
    network, sampler, seen = follow(case, num_workers)
    assert seen == case.steps
    assert torch.equal(vector(network), case.weights)
    assert sampler.finish() == sampler.promise == case.ledger


# --- a loader for hosts -------------------------------------------------------------------------------------------


def test_it_is_known_beforehand_whether_batches_weigh_their_examples(cases: dict[str, HostCase]) -> None:
    number = cases["plain"].data.num_source_examples

    def needs(name: str, **slices: int) -> bool:
        return bool(cases[name].bundle.batch_sampler(number, **slices).needs_weights)

    assert [needs(name) for name in CASES] == [False, False, False, True, False, False]
    assert needs("uneven", world_size=2)
    assert not needs("plain", world_size=2, accumulate=2)
    assert needs("plain", world_size=3)


def test_a_loader_refuses_what_the_policy_decides_and_weights_that_nobody_heeds(cases: dict[str, HostCase]) -> None:
    case = cases["weighted"]
    sampler = case.bundle.batch_sampler(case.dataset, labels=False)
    with pytest.raises(ConfigError, match=r"^shuffle must be left out, since the policy says which batches come, got"):
        policy_loader(sampler, case.dataset, weights=True, shuffle=True)
    with pytest.raises(TrainingFunctionError, match=r"^the policy weighs its examples, .* Ask for weights=True"):
        policy_loader(sampler, case.dataset, weights=False)


def test_a_loader_draws_nothing_from_the_global_generator(cases: dict[str, HostCase]) -> None:
    case = cases["weighted"]
    sampler = case.bundle.batch_sampler(case.dataset, seed=SEED, labels=False)
    before = torch.get_rng_state()
    batch = next(iter(policy_loader(sampler, case.dataset, weights=True, num_workers=1)))
    assert batch[0].tolist() == case.steps[0]
    assert batch[-1].dtype == torch.float32
    assert not bool((batch[-1] == 1).all())
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_is_as_long_as_it_was_for_hosts_that_count_what_was_before(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    sampler = case.bundle.batch_sampler(case.dataset, seed=SEED, epochs=3, accumulate=2, labels=False)
    total, lengths = sampler.total_steps(), []
    network = case.network()
    scheduler = sampler.scheduler(case.optimizer(network))
    for _ in range(3):
        lengths.append((len(sampler), sampler.epoch_length))
        for number, _ in enumerate(sampler):
            assert number or (len(sampler), sampler.epoch_length) == lengths[-1]
    assert [whole for whole, _ in lengths] == [whole for _, whole in lengths]
    assert sum(whole for whole, _ in lengths) == 2 * total
    for _ in range(total // 2):
        scheduler.optimizer.step()
        scheduler.step()
    other = case.bundle.batch_sampler(case.dataset, seed=SEED, epochs=3, accumulate=2, labels=False)
    other.load_state_dict(sampler.state_dict())
    assert other.start == total // 2
    assert other.epoch_length == lengths[1][1]
    assert len(other) == lengths[0][0] + lengths[1][0] - 2 * (total // 2)


# --- hosts that go wrong ------------------------------------------------------------------------------------------


def test_batches_that_are_begun_twice_are_handed_out_once(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    sampler = case.bundle.batch_sampler(case.dataset, seed=SEED, labels=False)
    first, second = iter(sampler), iter(sampler)
    assert next(second) == case.steps[0]
    with pytest.raises(TrainingFunctionError, match=r"^the batches of a policy can be gone through once, not side by"):
        next(first)
    with pytest.raises(TrainingFunctionError, match=r"^the batches of a policy can be gone through once, and 1 of 26"):
        iter(sampler)


@pytest.mark.parametrize(
    ("skips", "trains", "message"),
    [
        ((3,), None, "^25 updates were counted by sampler.scheduler or sampler.steps, and the policy has 26."),
        ((), 20, "^sampler.finish was called after 20 of 26 batches. Train on all of them"),
    ],
)
def test_a_host_that_leaves_out_batches_is_told(
    cases: dict[str, HostCase], skips: tuple[int, ...], trains: int | None, message: str
) -> None:
    case = cases["plain"]
    sampler = case.bundle.batch_sampler(case.dataset, seed=SEED, labels=False)
    optimizer = case.optimizer(case.network())
    scheduler = sampler.scheduler(optimizer)
    for number, _ in enumerate(sampler):
        if number in skips:
            continue
        optimizer.step()
        scheduler.step()
        if number + 1 == trains:
            break
    with pytest.raises(TrainingFunctionError, match=message):
        sampler.finish()


def test_a_host_that_repeats_batches_is_told(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    sampler = case.bundle.batch_sampler(case.dataset, seed=SEED, labels=False)
    optimizer = case.optimizer(case.network())
    scheduler = sampler.scheduler(optimizer)
    next(iter(sampler))
    optimizer.step()
    scheduler.step()
    with pytest.raises(TrainingFunctionError, match=r"was stepped 2 times for 1 batches. Step it once for each batch"):
        scheduler.step()
