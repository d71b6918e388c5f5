"""What hosts ask of a sampler, whatever they are called: loaders that begin twice, own counts, odd parameters."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from small_bundles import Followed, digits_bundle, promised
from torch.utils.data import DataLoader, TensorDataset

from subsettune.errors import TrainingFunctionError
from subsettune.train import transitions
from subsettune.train.follow.sampler import PolicySampler


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return digits_bundle(tmp_path_factory.mktemp("switching"))


def _sampler(made: Followed) -> PolicySampler:
    sampler = made.bundle.batch_sampler(len(made.inputs))
    sampler.on_switch(lambda switch: switch.done())
    return sampler


def test_the_rows_of_a_bundle_are_read_without_a_warning(followed: Followed) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _sampler(followed).total_steps() == 31


def test_a_loader_with_workers_begins_twice_and_takes_each_batch_once(followed: Followed) -> None:
    sampler = _sampler(followed)
    count, seen = sampler.counter(), []
    for (rows,) in DataLoader(TensorDataset(torch.arange(len(followed.inputs))), batch_sampler=sampler, num_workers=2):
        seen.append(rows.tolist())
        count(len(seen))
    assert seen == [rows.tolist() for rows, _ in promised(followed.bundle)]


def test_a_sampler_is_not_gone_through_again_once_a_batch_was_taken(followed: Followed) -> None:
    sampler = _sampler(followed)
    iter(sampler)
    next(iter(sampler))
    with pytest.raises(TrainingFunctionError, match="can be gone through once, and 1 of 31 have been handed out"):
        iter(sampler)


def test_a_run_that_was_interrupted_behind_its_last_step_goes_on_with_none(followed: Followed) -> None:
    first = _sampler(followed)
    for _ in first.batches():
        pass
    second = _sampler(followed)
    second.load_state_dict(first.state_dict())
    assert len(second) == 0
    assert list(DataLoader(TensorDataset(followed.inputs), batch_sampler=second)) == []
    second.weighted(followed.inputs)
    assert second.finish() == second.promise


def test_a_host_counts_by_itself(followed: Followed) -> None:
    sampler = _sampler(followed)
    told: list[int] = []
    sampler.on_switch(lambda switch: told.append(switch.step))
    phases, count = [sampler.phase_at(step) for step in range(31)], sampler.counter()
    for step, _ in enumerate(sampler):
        assert sampler.step == step
        assert sampler.lr_factor == sampler.lr_factor_at(step)
        assert told == [at for at in range(1, step + 1) if phases[at] != phases[at - 1]]
        count(step + 1)
    assert len(told) == 2
    sampler.weighted(followed.inputs)  # else the weights are neglected, which is told
    assert sampler.finish() == sampler.promise


def test_a_host_that_counts_too_few_or_too_many_is_told(followed: Followed) -> None:
    sampler = _sampler(followed)
    count, batches = sampler.counter(), iter(sampler)
    with pytest.raises(TrainingFunctionError, match="was stepped 1 times for 0 batches"):
        count(1)
    for step, _ in enumerate(batches):
        count(step)  # one behind
    with pytest.raises(TrainingFunctionError, match="30 updates were counted"):
        sampler.finish()


def test_parameters_of_whole_numbers_have_no_scale(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    network.state = torch.nn.Parameter(torch.tensor([1, 2]), requires_grad=False)  # as Keras keeps its generators
    assert sorted(transitions.scales(network)) == ["bias", "weight"]
