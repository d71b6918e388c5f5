"""A bundle followed with accelerate. Run by `make test-hosts`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs accelerate, and runs by `make test-hosts`", allow_module_level=True)

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from host_bundles import (
    CASES,
    SEED,
    HostCase,
    assert_ranks_train_as_one,
    digits_bundle,
    launch,
    make_case,
    mean_loss,
    run_script,
    vector,
)
from places import ROOT

from subsettune.errors import TrainingFunctionError
from subsettune.integrations.accelerate import AcceleratedPolicy

pytestmark = pytest.mark.filterwarnings("default")  # accelerate's own are not ours to mend
EXAMPLE = ROOT / "examples" / "accelerate_loop.py"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostCase]:
    return {name: make_case(name, tmp_path_factory.mktemp(name)) for name in CASES}


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def follow(
    case: HostCase, *, accumulate: int = 1, go_on: Path | None = None, keep: Path | None = None, **options: Any
) -> tuple[Any, AcceleratedPolicy, list[list[int]]]:
    """The loop of a user; gives network, policy, and the rows of each batch."""
    seen: list[list[int]] = []
    with case.seeded():
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        network = case.network()
        network, optimizer = accelerator.prepare(network, case.optimizer(network))
        given = {"weights": True, "seed": SEED, "labels": False, **options}
        policy = AcceleratedPolicy(accelerator, case.bundle, case.dataset, network, optimizer, **given)
        if go_on is not None:
            accelerator.load_state(str(go_on))
        for rows, inputs, targets, *weights in accelerator.prepare(policy.loader):
            seen.append(rows.tolist())
            with accelerator.accumulate(network):
                accelerator.backward(mean_loss(network(inputs), targets, *weights))
                optimizer.step()
                policy.step()
                optimizer.zero_grad()
            if keep is not None and accelerator.sync_gradients:
                accelerator.save_state(str(keep / str(len(seen))))
    return network, policy, seen


@pytest.mark.parametrize(("name", "num_workers"), [*((name, 0) for name in CASES), ("weighted", 2)])
def test_rows_weights_and_ledger_are_those_of_a_run(cases: dict[str, HostCase], name: str, num_workers: int) -> None:
    case = cases[name]
    network, policy, seen = follow(case, num_workers=num_workers)
    assert seen == case.steps
    assert torch.equal(vector(network), case.weights)
    assert policy.finish() == policy.sampler.promise == case.ledger


@pytest.mark.parametrize("name", ["dropout", "weighted"])
def test_a_state_goes_on_with_the_bits_of_the_undisturbed_run(
    cases: dict[str, HostCase], name: str, tmp_path: Path
) -> None:
    case = cases[name]
    follow(case, keep=tmp_path)
    for step in (1, len(case.steps) // 5, len(case.steps) // 2, len(case.steps) - 1):
        network, policy, seen = follow(case, go_on=tmp_path / str(step))
        assert seen == case.steps[step:]
        assert torch.equal(vector(network), case.weights)
        assert policy.finish() == case.ledger


@pytest.mark.parametrize("name", ["plain", "uneven"])
def test_accumulated_batches_are_slices_of_one(cases: dict[str, HostCase], name: str) -> None:
    case = cases[name]
    network, policy, seen = follow(case, accumulate=2)
    assert len(seen) == 2 * len(case.steps)
    for number, step in enumerate(case.steps):
        assert set(seen[2 * number] + seen[2 * number + 1]) == set(step)
    torch.testing.assert_close(vector(network), case.weights, rtol=1e-4, atol=1e-5)
    assert policy.finish() == case.ledger


@pytest.mark.parametrize("name", ["weighted", "uneven"])
def test_two_processes_train_as_one(cases: dict[str, HostCase], name: str, tmp_path: Path) -> None:
    assert_ranks_train_as_one("accelerate", cases[name], tmp_path, accumulate=2)


def test_weights_that_nobody_heeds_and_steps_that_nobody_counts_are_told(cases: dict[str, HostCase]) -> None:
    case = cases["weighted"]
    with pytest.raises(TrainingFunctionError, match=r"^the policy weighs its examples, .* Ask for weights=True"):
        follow(case, weights=False)
    accelerator, network = Accelerator(cpu=True), cases["plain"].network()
    optimizer = case.optimizer(network)
    policy = AcceleratedPolicy(accelerator, cases["plain"].bundle, case.dataset, network, optimizer, labels=False)
    for _ in policy.loader:
        optimizer.step()
    with pytest.raises(TrainingFunctionError, match=r"updates were counted by sampler.scheduler or sampler.steps, and"):
        policy.finish()


def test_the_example_runs_alone_and_in_two_processes(tmp_path: Path) -> None:
    folder = str(digits_bundle(tmp_path))
    alone = run_script(EXAMPLE, folder)
    assert alone.endswith("FLOP as promised\n")
    assert launch(EXAMPLE, folder) == alone
    assert len(EXAMPLE.read_text().splitlines()) < 40
