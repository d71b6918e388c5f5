"""A bundle followed in Ray Train on one worker and two: rows, weights, ledger of the promise. By `make test-hosts`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs Ray Train, and runs by `make test-hosts`", allow_module_level=True)

import numpy as np
import ray
import ray_train_loops
import torch
from places import ROOT, SUPPORT
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from small_bundles import SWITCHING, Followed, digits_bundle, promised, run_example
from torch.utils.data import DataLoader, TensorDataset

from subsettune.errors import TrainingFunctionError
from subsettune.integrations import ray_train
from subsettune.policy import Phase, Policy

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend
# Its first batches have one example, so that the second of two workers has none.
LONELY = Policy(phases=(Phase(share=0.0012, passes=0.004), Phase(passes=0.4)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"  # how soon a report is taken, and the next can be made
    found = {"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, (SUPPORT, ROOT)))}}
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env=found)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return digits_bundle(tmp_path_factory.mktemp("switching"), SWITCHING)


def _fit(
    made: Followed,
    folder: Path,
    workers: int,
    *,
    train: Callable[[dict[str, Any]], None] = ray_train_loops.train,
    max_failures: int = 1,
    **config: Any,
) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """What each worker noted, and the weights of the first."""
    folder.mkdir(exist_ok=True)
    torch.save((made.inputs, made.targets), folder / "data.pt")
    TorchTrainer(
        train,
        train_loop_config={"bundle": str(made.folder), "folder": str(folder), **config},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="run", storage_path=str(folder / "storage"), failure_config=FailureConfig(max_failures=max_failures)
        ),
    ).fit()
    notes = [json.loads((folder / f"notes-{rank}-of-{workers}.json").read_text()) for rank in range(workers)]
    return notes, torch.load(folder / "weights.pt")


def _assert_the_promise(made: Followed, notes: list[dict[str, Any]], begin: int = 0) -> None:
    """The slices of all workers are the batches, and their weighted means have the mean of the batch."""
    batches = promised(made.bundle)[begin:]
    for step, (rows, weights) in enumerate(batches):
        found = [(worker["rows"][step], worker["weights"][step]) for worker in notes]
        trained = [(own, [1.0] * len(own) if given is None else given) for own, given in found]
        real = [(row, weight) for own, given in trained for row, weight in zip(own, given, strict=True) if weight]
        assert [row for row, _ in real] == rows.tolist()
        factors = np.ones(len(rows)) if weights is None else weights
        each = np.concatenate([np.asarray(given) / len(given) / len(notes) for _, given in trained])
        assert each[each > 0] == pytest.approx(factors / len(rows))  # what an example's loss counts in the mean
    assert all(len(worker["rows"]) == len(batches) for worker in notes)
    promise = made.bundle.batch_sampler(len(made.inputs)).promise
    assert all((n["trained"], n["select"]) == (promise.forward + promise.backward, promise.select) for n in notes)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_worker_has_the_bits_of_a_run(followed: Followed, tmp_path: Path, num_workers: int) -> None:
    notes, weights = _fit(followed, tmp_path, 1, num_workers=num_workers)
    _assert_the_promise(followed, notes)
    assert notes[0]["trained"] == followed.ledger.forward + followed.ledger.backward
    assert torch.equal(weights, followed.weights)


@pytest.mark.usefixtures("cluster")
def test_two_workers_take_the_rows_of_one_and_go_on_when_one_is_killed(followed: Followed, tmp_path: Path) -> None:
    whole, weights = _fit(followed, tmp_path / "whole", 2)
    _assert_the_promise(followed, whole)
    lengths = {(len(a), len(b)) for a, b in zip(whole[0]["rows"], whole[1]["rows"], strict=True)}
    assert lengths == {(33, 32)}
    assert torch.allclose(weights, followed.weights, atol=1e-5)

    killed, again = _fit(followed, tmp_path / "killed", 2, kill_at=26)  # in the third phase, behind both switches
    begin = killed[0]["begin"]
    assert begin in (16, 24)  # the last report may be lost with the worker
    assert [(worker["is_resumed"], worker["begin"]) for worker in killed] == [(True, begin)] * 2
    _assert_the_promise(followed, killed, begin)
    assert torch.equal(again, weights)


@pytest.mark.usefixtures("cluster")
def test_fewer_workers_go_on_in_a_later_run(followed: Followed, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Training failed"):
        _fit(followed, tmp_path, 2, kill_at=26, max_failures=0)
    notes, weights = _fit(followed, tmp_path, 1)  # of the same name and storage
    assert notes[0]["begin"] in (16, 24)
    _assert_the_promise(followed, notes, notes[0]["begin"])
    assert torch.allclose(weights, followed.weights, atol=1e-5)


@pytest.mark.usefixtures("cluster")
def test_a_worker_without_examples_makes_the_steps_all_the_same(tmp_path: Path) -> None:
    made = digits_bundle(tmp_path, LONELY)
    notes, weights = _fit(made, tmp_path / "run", 2)
    _assert_the_promise(made, notes)
    assert notes[1]["weights"][0] == [0.0]
    assert torch.allclose(weights, made.weights, atol=1e-5)


@pytest.mark.usefixtures("cluster")
def test_batches_that_ray_drops_are_told(followed: Followed, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="was stepped 1 times for 0 batches"):
        _fit(followed, tmp_path, 2, train=ray_train_loops.train_on_what_ray_gives, max_failures=0)


def test_a_loader_of_other_batches_is_refused() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(4)), batch_size=2)
    with pytest.raises(TrainingFunctionError, match=r"^batch_sampler of the loader must be that of the policy, got Ba"):
        ray_train.prepare_loader(loader)


def test_the_example_spends_the_promise(followed: Followed, tmp_path: Path) -> None:
    promise = followed.bundle.batch_sampler(len(followed.inputs)).promise
    assert run_example("ray_train_loop", followed.folder, tmp_path).count(str(promise)) >= 2  # of each worker
