"""Whole runs, metered: what is really multiplied is in the ledger, whoever chooses, orders, merges or prunes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from facts import made_up_facts
from flop_meter import FlopMeter

from subsettune import config
from subsettune.data import DataPaths
from subsettune.policy import Policy
from subsettune.registry import SELECTORS
from subsettune.select import make
from subsettune.select.kernels.gradients import Gradients, matching_pursuit
from subsettune.select.selectors.gradmatch import GradMatch
from subsettune.task import Task
from subsettune.train import RunOptions, RunResult, facts, run

EXACT = ("random", "stratified", "el2n", "forgetting", "glister", "herding")  # nothing is left out of what is charged
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "kcenter": [{}, {"classes": "proportional"}, {"features": "projection", "dimensions": 8}],
    "facility_location": [{}, {"method": "stochastic"}],
    "gradmatch": [{}, {"lam": 1e-6}],
    "glister": [{}, {"holdout": 0.4}],
    "grand": [{}, {"gradient": "full"}],
}
SELECTIONS = [(name, options) for name in SELECTORS.builtin for options in OPTIONS.get(name, [{}])]
OTHERS: dict[str, list[dict[str, Any]]] = {
    "full": [{"passes": 2}],
    "rs2": [{"passes": 1, "order": "rs2"}],
    "infobatch": [{"share": 0.3, "passes": 2, "order": "infobatch"}, {"passes": 1, "order": "infobatch"}],
    "sift": [{"passes": 2, "order": "sift"}],
    "selective_backprop": [{"passes": 2, "order": "selective_backprop"}],
    "prune": [{"share": 0.3, "passes": 1}, {"passes": 10, "transition": "prune"}],
    "soup": [{"share": 0.3, "passes": 2, "soup": {"workers": 3}}, {"passes": 1}],
    "soup, then the network chooses": [
        {"share": 0.3, "passes": 2, "soup": {"workers": 2}},
        {"share": 0.2, "passes": 2, "selector": "grand", "selector_options": {"model": "current"}},
        {"passes": 1},
    ],
}


@pytest.fixture(scope="module")
def task() -> Task:
    return config.build(
        Task,
        {
            "data": {"source": "digits"},
            "split": {"validation": 0.3, "test": 0.3},
            "model": {"name": "mlp", "hidden": [16, 16]},
            "recipe": {"lr": 0.05, "batch_size": 64, "epochs": 4},
            "tolerance": 0.01,
        },
    )


def _metered(task: Task, phases: list[dict[str, Any]], cache: Path, workers: str = "in_turn") -> tuple[int, RunResult]:
    options = RunOptions(
        num_threads=1,
        evaluations=2,
        splits=("validation", "test"),
        soup_workers=workers,  # type: ignore[arg-type]
        places=DataPaths(cache=str(cache)),
    )
    with FlopMeter() as meter:
        result = run(task, config.build(Policy, {"phases": phases}), 0, options=options)
    return meter.flops, result


def _phase(task: Task, share: float, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A phase that pays for its selection, with little left to train."""
    known, selector = facts(task), make(name, options)
    need = selector.model_need
    price = selector.flops(known, round(share * known.num_examples)) * 2 + (need.flops(known) if need else 0)
    passes = price / known.pass_flops + 0.3
    return {"share": share, "passes": passes, "selector": name, "selector_options": options}


def _update_flops(result: RunResult) -> float:
    return result.ledger.train / result.updates


@pytest.mark.parametrize(("name", "options"), SELECTIONS, ids=lambda v: str(v) if v else "")
def test_a_selection_is_charged_what_it_multiplies(
    name: str, options: dict[str, Any], task: Task, tmp_path: Path
) -> None:
    metered, result = _metered(task, [_phase(task, 0.3, name, options), {"passes": 0.2}], tmp_path)
    charged = result.ledger.total + result.repeated_flops
    assert metered <= charged + _update_flops(result)
    if name in EXACT:
        assert metered >= charged - result.ledger.select * 0.1 - _update_flops(result)


@pytest.mark.parametrize("shares", [(0.1, 0.3), (0.3, 0.1), (0.3, 0.3)], ids=str)
@pytest.mark.parametrize("name", ["gradmatch", "facility_location", "kcenter"])
def test_phases_that_share_a_ranking_pay_for_their_weights(
    name: str, shares: tuple[float, ...], task: Task, tmp_path: Path
) -> None:
    phases = [_phase(task, share, name, {}) for share in shares]
    metered, result = _metered(task, [*phases, {"passes": 0.2}], tmp_path)
    assert metered <= result.ledger.total + result.repeated_flops + _update_flops(result)


def test_a_ranking_made_longer_for_other_runs_is_charged_to_tuning(task: Task, tmp_path: Path) -> None:
    phases = [_phase(task, 0.3, "kcenter", {}), {"passes": 0.2}]
    metered, first = _metered(task, phases, tmp_path)
    again, second = _metered(task, phases, tmp_path)
    assert first.ledger == second.ledger
    assert first.repeated_flops > 0.5 * first.ledger.select  # half of all are ranked, not 0.3
    assert second.repeated_flops == 0
    assert again < metered
    assert metered > first.ledger.total + _update_flops(first), "without it, more is multiplied than anybody is charged"


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, "in_turn") for name in OTHERS), ("soup", "together")], ids=lambda v: str(v)
)
def test_a_run_is_charged_what_it_multiplies(name: str, workers: str, task: Task, tmp_path: Path) -> None:
    metered, result = _metered(task, OTHERS[name], tmp_path, workers)
    assert metered <= result.ledger.total + _update_flops(result)
    if name != "prune":  # which is charged for candidates that ties may leave out
        assert metered >= 0.98 * result.ledger.total


@pytest.mark.parametrize("lam", [1e-6, 1e-4, 0.5])
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["normal", "positive", "copies"])
def test_matching_stays_below_its_price(kind: str, share: float, lam: float) -> None:
    num_examples, num_outputs, hidden = 200, 10, 16
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randn(num_examples, hidden, generator=rng)
    inputs = inputs.clamp_min(0) if kind == "positive" else inputs
    residuals = (3 * torch.randn(num_examples, num_outputs, generator=rng)).softmax(1)
    residuals[torch.arange(num_examples), torch.randint(num_outputs, (num_examples,), generator=rng)] -= 1
    if kind == "copies":
        inputs[100:], residuals[100:] = inputs[:100], residuals[:100]
    k = int(share * num_examples)
    with FlopMeter() as meter:
        gradients = Gradients.of(residuals, inputs, torch.arange(num_examples), bias=True)
        matching_pursuit(gradients, k, lam=lam)
    known = made_up_facts(
        num_examples=num_examples, num_outputs=num_outputs, head_features=hidden, forward_flops=1, class_counts=()
    )
    assert meter.flops <= GradMatch(lam=lam, classes="none").flops(known, k)
