"""The batches of a policy for other training code: ranks, backward passes, epochs, resumption, and hosts that err."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from facts import made_up_facts
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from subsettune import config
from subsettune.errors import BundleError, ConfigError, DataError, TrainingFunctionError
from subsettune.policy import Phase, Policy
from subsettune.task import Recipe
from subsettune.train.follow.batches import Pool
from subsettune.train.follow.sampler import Origin, PolicySampler, Slices
from subsettune.train.follow.weighted import Weighted, WeightedRow
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project

N = 130  # in batches of 13: two ranks get 7 and 6
FACTS = made_up_facts(num_examples=N, num_classes=0, smallest_class=0, class_counts=())
RECIPE = config.build(Recipe, {"lr": 0.1, "momentum": 0.9, "batch_size": 13, "epochs": 4})
ROWS = torch.arange(0, 2 * N, 2)  # every other row of the data
INPUTS = torch.randn(2 * N, 4, generator=torch.Generator().manual_seed(0))
DATASET = TensorDataset(INPUTS, torch.arange(2 * N))
PLAIN = Policy(phases=(Phase(passes=1.5),))


def _two(transition: str = "keep", **both: Any) -> Policy:
    return Policy(phases=(Phase(share=0.5, passes=0.6, **both), Phase(passes=0.9, transition=transition, **both)))


def _pool(weighted: bool) -> Pool:
    positions = torch.arange(65).flip(0)
    weights = torch.ones(N)
    weights[positions] = torch.linspace(0.5, 1.5, 65)
    return Pool(positions=positions, weights=weights if weighted else None)


def _sampler(policy: Policy = PLAIN, *, weighted: bool = False, seed: int = 3, epochs: int = 1, **slices: int) -> Any:
    resolved = resolve(policy, RECIPE, FACTS)
    parts = Slices(**slices)
    made = PolicySampler(resolved, ROWS, lambda _: _pool(weighted), seed=seed, slices=parts, epochs=epochs)
    made.lr_factor_at(0)  # somebody looks at the rates
    return made


def _whole(policy: Policy = PLAIN, weighted: bool = False) -> list[tuple[list[int], list[float]]]:
    """Rows and weights of every batch, as one process sees them."""
    sampler = _sampler(policy, weighted=weighted)
    sampler.on_switch(lambda switch: switch.done())
    return [_plain(rows, weights) for rows, weights in sampler.batches()]


def _plain(rows: NDArray[np.int64], weights: NDArray[np.float32] | None) -> tuple[list[int], list[float]]:
    return rows.tolist(), [1.0] * len(rows) if weights is None else weights.tolist()


def _net() -> tuple[nn.Linear, torch.optim.SGD]:
    torch.manual_seed(0)
    network = nn.Linear(4, 1)
    return network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


# --- what it hands out ------------------------------------------------------------------------------------------------


def test_one_epoch_is_the_whole_policy_and_the_ledger_is_the_promise() -> None:
    policy, sampler = _two(), _sampler(_two())
    projected = project(resolve(policy, RECIPE, FACTS))
    assert len(sampler) == sampler.total_steps() == sum(phase.updates for phase in projected)
    for seen, (rows, weights) in enumerate(sampler.batches()):
        assert weights is None
        assert set(rows.tolist()) <= set(ROWS.tolist())
        phase = 0 if seen < projected[0].updates else 1
        assert (sampler.step, sampler.phase, sampler.phase_at(seen)) == (seen, phase, phase)
        assert sampler.lr_factor == sampler.lr_factor_at(seen)
        assert sampler.ledger().spent == sum(p.total for p in sampler._batches.plan.prices[: seen + 1])
    assert sampler.finish() == sampler.promise == sum((p.ledger for p in projected[1:]), projected[0].ledger)
    assert sampler.is_complete
    assert 0 <= policy.cost(FACTS) - sampler.promise.spent < 13 * FACTS.example_flops


def test_a_batch_is_charged_before_it_is_seen() -> None:
    sampler = _sampler()
    batches = iter(sampler)
    assert sampler.ledger().spent == 0
    next(batches)
    assert sampler.ledger().spent == 13 * FACTS.example_flops


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("slices", [(2, 1), (3, 1), (1, 2), (2, 3), (20, 1), (1, 15)], ids=str)
def test_slices_are_the_batch_and_their_mean_is_its_mean(weighted: bool, slices: tuple[int, int]) -> None:
    world_size, accumulate = slices
    losses = np.random.default_rng(0).normal(size=2 * N)
    ranks = [
        _sampler(_two(), weighted=weighted, rank=r, world_size=world_size, accumulate=accumulate)
        for r in range(world_size)
    ]
    assert {len(sampler) for sampler in ranks} == {accumulate * ranks[0].total_steps()}
    streams: list[Iterator[Any]] = [sampler.batches() for sampler in ranks]
    for rows, weights in _whole(_two(), weighted):
        parts = [_plain(*next(stream)) for stream in streams for _ in range(accumulate)]
        real = [row for own, factors in parts for row, factor in zip(own, factors, strict=True) if factor]
        assert real == rows
        means = [np.mean(losses[own] * factors) for own, factors in parts]
        assert np.mean(means) == pytest.approx(np.mean(losses[rows] * weights), rel=1e-5, abs=1e-6)
        assert all(len(own) for own, _ in parts)  # no process is left without a step
    assert all(next(stream, None) is None for stream in streams)
    assert {sampler.finish() for sampler in ranks} == {_sampler(_two()).promise}  # what is padded is not charged


@given(n=st.integers(1, 90), world_size=st.integers(1, 9), accumulate=st.integers(1, 5))
def test_any_batch_in_any_slices(n: int, world_size: int, accumulate: int) -> None:
    rows, weights = np.arange(n), np.linspace(0.1, 2, n, dtype=np.float32)
    parts = [
        part
        for rank in range(world_size)
        for part in Slices(rank=rank, world_size=world_size, accumulate=accumulate).of(rows, weights)
    ]
    assert len(parts) == world_size * accumulate
    real = [row for own, factors in parts for row, factor in zip(own, factors, strict=True) if factor]  # type: ignore[arg-type]
    assert real == rows.tolist()
    assert np.mean([np.mean(own * factors) for own, factors in parts]) == pytest.approx(np.mean(rows * weights))


def test_65_examples_are_33_and_32() -> None:
    first, second = (Slices(rank=r, world_size=2).of(np.arange(65), None)[0] for r in range(2))
    assert (len(first[0]), len(second[0])) == (33, 32)
    assert first[1] is not None
    assert second[1] is not None
    assert (first[1][0], second[1][0]) == (np.float32(66 / 65), np.float32(64 / 65))
    assert Slices(rank=0, world_size=2).of(np.arange(64), None)[0][1] is None


@pytest.mark.parametrize("epochs", [1, 2, 4, 15])
def test_virtual_epochs_hand_out_the_policy_once(epochs: int) -> None:
    sampler, lengths, seen = _sampler(epochs=epochs), [], []
    for _ in range(epochs):
        lengths.append(len(sampler))
        loaded = list(DataLoader(TensorDataset(torch.arange(2 * N)), batch_sampler=sampler))
        assert len(loaded) == lengths[-1]
        seen += [rows.tolist() for (rows,) in loaded]
    assert seen == [rows for rows, _ in _whole()]
    assert lengths == sorted(lengths, reverse=True)  # never longer than a length that a host has cached
    assert max(lengths) - min(lengths) <= 1
    assert sampler.is_complete
    assert len(sampler) == lengths[-1]  # hosts ask after the end, too


def test_weights_travel_with_their_examples_through_workers() -> None:
    policy, found = _two(), []
    sampler = _sampler(policy, weighted=True)
    data = sampler.weighted(DATASET)
    for _, rows, weights in sampler.steps(DataLoader(data, batch_sampler=sampler, num_workers=2)):
        found.append((rows.tolist(), weights.tolist()))
    assert found == _whole(policy, weighted=True)
    assert sampler.needs_weights
    sampler.finish()


def test_datasets_of_mappings_and_of_single_tensors_take_weights_too() -> None:
    row = WeightedRow(1, 0.25)
    assert Weighted([{"x": 1}, {"x": 2}])[row] == {"x": 2, "weight": np.float32(0.25)}
    assert Weighted([5, 6])[row] == (6, np.float32(0.25))
    assert Weighted([5, 6])[0] == (5, np.float32(1))
    assert Weighted([5, 6]).__getitems__([row, 0]) == [(6, np.float32(0.25)), (5, np.float32(1))]
    with pytest.raises(DataError, match=r"^examples must have no key 'weight' of their own, got weight\. Rename it\."):
        Weighted([{"weight": 1}])[0]


# --- transitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transition", ["reset_optimizer", "shrink_perturb"])
def test_a_transition_asked_for_at_each_step_is_that_of_on_switch(transition: str) -> None:
    weights = []
    for by_hand in (True, False):
        network, optimizer = _net()
        sampler, done = _sampler(_two(transition)), []
        scheduler = sampler.scheduler(optimizer)
        if not by_hand:
            sampler.on_switch(network=network, optimizer=optimizer)
        for step, (inputs, _) in enumerate(DataLoader(DATASET, batch_sampler=sampler)):
            if by_hand:
                done.append(sampler.apply_transition(network, optimizer, step))
            optimizer.zero_grad()
            network(inputs).square().mean().backward()
            optimizer.step()
            scheduler.step()
        assert sum(done) == by_hand
        sampler.finish()
        weights.append(network.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_transition_that_nobody_carries_out_is_refused() -> None:
    sampler = _sampler(_two("reset_optimizer"))
    with pytest.raises(TrainingFunctionError, match=r"^the policy opens phase 2 with 'reset_optimizer', and nobody"):
        for _ in sampler.batches():
            pass
    network, optimizer = _net()
    sampler = _sampler(_two("reset_optimizer"))
    sampler.apply_transition(network, optimizer, 0)
    for _ in sampler.batches():
        pass
    with pytest.raises(TrainingFunctionError, match="the transition 'reset_optimizer' of the policy was not carried"):
        sampler.finish()


# --- interruptions ----------------------------------------------------------------------------------------------------


def _trained(sampler: Any, network: nn.Linear, optimizer: Any, scheduler: Any, most: int, skip: int = 0) -> None:
    for step, (inputs, _) in enumerate(DataLoader(DATASET, batch_sampler=sampler, num_workers=0)):
        if step < skip:
            continue
        optimizer.zero_grad()
        network(inputs).square().mean().backward()
        optimizer.step()
        scheduler.step()
        if step + 1 == most:
            return


def _ready(policy: Policy) -> tuple[Any, nn.Linear, Any, Any]:
    network, optimizer = _net()
    sampler = _sampler(policy)
    sampler.on_switch(network=network, optimizer=optimizer)
    return sampler, network, optimizer, sampler.scheduler(optimizer)


@pytest.mark.parametrize("at", [1, 4, 6, 7, 12])
@pytest.mark.parametrize("host_skips", [False, True])
@pytest.mark.parametrize("transition", ["keep", "shrink_perturb"])
def test_an_interrupted_training_ends_with_the_same_bits(at: int, host_skips: bool, transition: str) -> None:
    policy = _two(transition)
    undisturbed = _ready(policy)
    _trained(*undisturbed, most=10**9)
    first = _ready(policy)
    _trained(*first, most=at)
    kept = [part.state_dict() for part in first]
    later = _ready(policy)
    for part, state in zip(later[1:], kept[1:], strict=True):
        part.load_state_dict(state)
    if not host_skips:
        later[0].load_state_dict(kept[0])
        assert len(later[0]) == later[0].total_steps() - at
    _trained(*later, most=10**9, skip=at if host_skips else 0)
    assert later[0].finish() == later[0].promise
    assert torch.equal(later[1].weight, undisturbed[1].weight)
    assert later[2].param_groups[0]["lr"] == undisturbed[2].param_groups[0]["lr"]


def test_the_state_is_of_what_was_trained_not_of_what_was_fetched() -> None:
    sampler, _, optimizer, scheduler = _ready(PLAIN)
    for number, _ in enumerate(DataLoader(DATASET, batch_sampler=sampler, num_workers=2)):
        optimizer.step()
        scheduler.step()
        if number == 2:
            assert sampler._position.handed > 3
            state = sampler.state_dict()
    assert state["step"] == 3
    later = _sampler()
    later.load_state_dict(state)
    assert [rows for rows, _ in (_plain(*each) for each in later.batches())] == [rows for rows, _ in _whole()][3:]


def test_an_order_that_goes_by_losses_is_resumed_with_them() -> None:
    policy = _two(order="infobatch", order_options=config.FrozenDict({"prune": 0.5}))
    losses = np.random.default_rng(0).random(2 * N)

    def go(sampler: Any, most: int = 10**9) -> list[list[int]]:
        seen = []
        for rows, _ in sampler.batches():
            seen.append(rows.tolist())
            sampler.observe(rows, losses[rows])
            if len(seen) == most:
                break
        return seen

    whole, first = go(_sampler(policy)), _sampler(policy)
    begun = go(first, most=9)
    later = _sampler(policy)
    later.load_state_dict(first.state_dict())
    assert begun + go(later) == whole
    later.finish()
    other = _sampler(policy)
    rows = np.array(next(iter(other)))
    with pytest.raises(TrainingFunctionError, match=r"^sampler\.observe must get the numbers of the batch that was"):
        other.observe(rows + 1, losses[rows])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "the state of a sampler must be of this policy, seed and data, got seed 3 instead of 4."),
        ({"policy": _two()}, "the state of a sampler must be of this policy, seed and data, got policy '"),
    ],
)
def test_the_state_of_another_sampler_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        _sampler(**change).load_state_dict(_sampler().state_dict())


def test_states_that_do_not_belong_together_are_refused() -> None:
    sampler, _, optimizer, _ = _ready(PLAIN)
    sampler.load_state_dict({**sampler.state_dict(), "step": 4})
    with pytest.raises(BundleError, match=r"^the state of a scheduler must be at step 4 as the sampler is, got 7\."):
        sampler.scheduler(optimizer).load_state_dict({"step": 7, "switches": {"told": [], "scales": []}})
    started = _sampler()
    next(iter(started))
    with pytest.raises(
        TrainingFunctionError, match=r"^sampler\.load_state_dict must come before the first batch, and 1"
    ):
        started.load_state_dict(_sampler().state_dict())


# --- hosts that err ---------------------------------------------------------------------------------------------------


def test_a_host_that_repeats_batches_is_told() -> None:
    sampler = _sampler()
    for _ in sampler.batches():
        pass
    message = r"^the batches of a policy can be gone through once, and 15 of 15 have been handed out\."
    with pytest.raises(TrainingFunctionError, match=message):
        iter(sampler)
    twice = _sampler()
    next(iter(twice))
    with pytest.raises(TrainingFunctionError, match="gone through once, and 1 of 15 have been handed out"):
        iter(twice)


def test_a_host_that_skips_batches_is_told() -> None:
    sampler, _, optimizer, scheduler = _ready(PLAIN)
    for number, _ in enumerate(DataLoader(DATASET, batch_sampler=sampler)):
        if number % 2:  # as a host does that deals them out to ranks by itself
            optimizer.step()
            scheduler.step()
    with pytest.raises(TrainingFunctionError, match=r"^7 updates were counted by sampler\.scheduler or sampler\.steps"):
        sampler.finish()
    early = _sampler()
    for number, _ in enumerate(early.batches()):
        if number == 3:
            break
    with pytest.raises(TrainingFunctionError, match=r"^sampler\.finish was called after 4 of 15 batches\."):
        early.finish()
    assert not early.is_complete


def test_a_host_that_steps_the_rates_too_often_is_told() -> None:
    sampler, _, optimizer, scheduler = _ready(PLAIN)
    next(iter(sampler))
    optimizer.step()
    scheduler.step()
    with pytest.raises(TrainingFunctionError, match=r"^a scheduler of sampler\.scheduler was stepped 2 times for 1"):
        scheduler.step()


def test_weights_that_nobody_reads_are_told() -> None:
    sampler = _sampler(_two(), weighted=True)
    for _ in sampler.steps(sampler):
        pass
    with pytest.raises(
        TrainingFunctionError, match=r"^the policy weighs its examples, and nobody read sampler\.weights"
    ):
        sampler.finish()
    uneven = _sampler(rank=1, world_size=2)
    for _ in uneven.steps(uneven):
        pass
    with pytest.raises(TrainingFunctionError, match="nobody read"):
        uneven.finish()


def test_nobody_counts() -> None:
    sampler = _sampler()
    for _ in sampler:
        pass
    with pytest.raises(TrainingFunctionError, match=r"^the batches were handed out, and nobody told that each was"):
        sampler.finish()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank must be between 0 and 1, below world_size, got 2."),
        ({"world_size": 0}, "world_size must be 1 or more, got 0."),
        ({"accumulate": True}, "accumulate must be 1 or more, got True."),
        ({"epochs": 16}, "epochs must be between 1 and the 15 steps of the policy, got 16."),
        ({"policy": _two(order="infobatch"), "world_size": 2}, "must be 1 with the order 'infobatch', got 2 and 1."),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        _sampler(**asked)


def test_steps_and_weights_that_are_not_there() -> None:
    sampler = _sampler(accumulate=2)
    with pytest.raises(ConfigError, match=r"^step must be between 0 and 14, got 15\."):
        sampler.phase_at(15)
    with pytest.raises(TrainingFunctionError, match=r"Take them with the examples: sampler\.weighted\(dataset\)\."):
        _ = sampler.weights
    assert repr(sampler) == "<subsettune.PolicySampler seed 3, step 0 of 15, rank 0 of 1>"


# --- rates that are not those of the policy ---------------------------------------------------------------------------


def _bare(policy: Policy = PLAIN, **origin: Any) -> PolicySampler:
    return PolicySampler(resolve(policy, RECIPE, FACTS), ROWS, lambda _: _pool(False), seed=3, origin=Origin(**origin))


def test_rates_that_nobody_reads_are_told() -> None:
    sampler = _bare()
    for _ in sampler.batches():
        pass
    with pytest.raises(TrainingFunctionError, match=r"^the policy changes the learning rate, and nobody read"):
        sampler.finish()
    constant = dataclasses.replace(RECIPE, schedule="constant")
    sampler = PolicySampler(resolve(PLAIN, constant, FACTS), ROWS, lambda _: _pool(False), seed=3)
    for _ in sampler.batches():
        pass
    sampler.finish()


def test_another_rate_or_another_scheduler_is_told() -> None:
    _, optimizer = _net()
    with pytest.raises(ConfigError, match=r"^lr must be 0\.2, the peak of the policy's rate, got 0\.1\."):
        _bare(lr=0.2).scheduler(optimizer)
    sampler = _bare(lr=0.1)
    scheduler = sampler.scheduler(optimizer)
    batches = iter(sampler)
    next(batches)
    optimizer.param_groups[0]["lr"] *= 0.5
    optimizer.step()
    with pytest.raises(TrainingFunctionError, match=r"^rates must be those of sampler\.scheduler, 0\.1 in step 1"):
        scheduler.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(TrainingFunctionError, match=r"^the optimizer must have the 1 groups of parameters"):
        scheduler.step()


@pytest.mark.parametrize(("every", "is_refused"), [(1, True), (3, True), (10**9, False)])
def test_updates_that_the_optimizer_does_not_make_are_told(every: int, is_refused: bool) -> None:
    policy = Policy(phases=(Phase(passes=3),))
    _, optimizer = _net()
    sampler = _bare(policy)
    scheduler = sampler.scheduler(optimizer)
    for step, _ in enumerate(DataLoader(DATASET, batch_sampler=sampler)):
        if step and step % every:  # the first is left out, as a loss scaler does
            optimizer.step()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            scheduler.step()
    if is_refused:
        with pytest.raises(TrainingFunctionError, match=r"^the optimizer must make each of the 30 updates"):
            sampler.finish()
    else:
        with pytest.warns(UserWarning, match=r"^1 of 30 updates were not made, as a loss scaler leaves them out\."):
            assert sampler.finish() == sampler.promise


def test_a_network_is_watched_once_and_before_the_first_update() -> None:
    sampler, network, optimizer, scheduler = _ready(PLAIN)
    with pytest.raises(TrainingFunctionError, match=r"^sampler\.on_switch was given this network before\."):
        sampler.on_switch(network=network, optimizer=optimizer)
    for _ in DataLoader(DATASET, batch_sampler=sampler):
        optimizer.step()
        scheduler.step()
        break
    with pytest.raises(TrainingFunctionError, match=r"^sampler\.on_switch must come before the first update"):
        sampler.on_switch(network=nn.Linear(1, 1), optimizer=optimizer)


@pytest.mark.parametrize("step", [-1, 16, "3", None, True])
def test_a_damaged_state_is_refused(step: Any) -> None:
    state = {**_sampler().state_dict(), "step": step}
    with pytest.raises(BundleError, match=r"^the state of a sampler is damaged: .* a step between 0 and 15, got "):
        _sampler().load_state_dict(state)
    with pytest.raises(BundleError, match="is damaged"):
        _sampler().load_state_dict({**_sampler().state_dict(), "switches": None})


def test_a_state_of_other_data_is_refused() -> None:
    with pytest.raises(BundleError, match="must be of this policy, seed and data, got data 'a' instead of 'b'"):
        _bare(identity="b").load_state_dict(_bare(identity="a").state_dict())


def test_numbers_of_numpy_are_whole_and_others_are_not() -> None:
    sampler = _sampler(rank=np.int64(1), world_size=np.int64(2), epochs=np.int64(3))
    assert (sampler.slices.rank, sampler.slices.world_size, sampler.epochs) == (1, 2, 3)
    assert sampler.lr_factor_at(np.int64(3)) == sampler.lr_factor_at(3)
    for seed in (True, 1.5, "3", -1):
        with pytest.raises(ConfigError, match=r"^seed must be a whole number, 0 or more, got "):
            _sampler(seed=seed)  # type: ignore[arg-type]
