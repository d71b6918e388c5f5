"""What a run measures where a phase gives way to the next: right numbers, charged apart, and no bit changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import image_task, options, same_bits, two_phases, value_task
from interrupts import ALWAYS, NEVER, InterruptedRunError, assert_same, interrupt_after
from torch import nn
from torch.nn import functional

from subsettune import config, train
from subsettune.data import load
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train import RunResult
from subsettune.train.result import SwitchPoint

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
NOISY = {"name": "fakes:Noisy"}


def run(task: Task, policy: Policy, report: Any = None, **changes: Any) -> RunResult:
    plain = {"keep_model": True, "measure_switches": True, "splits": ("test",), **changes}
    return train.run(task, policy, 3, report=report, options=options(**plain))


def subset(task: Task, policy: Policy) -> torch.Tensor:
    """The pool of the first phase."""
    return train.SubsetProvider(train.RunJob.of(task, policy, 3, load(task))).choose(0).subset.positions


def independent(task: Task, network: nn.Module, pool: torch.Tensor | None) -> tuple[float, float, float]:
    """Loss on the pool, on the training part, and accuracy or squared error on the test part; in float64."""
    data = load(task)
    network.eval()
    found = []
    for part, rows in ((data.train, pool), (data.train, None), (data.test, None)):
        index = torch.arange(len(part)) if rows is None else rows
        total = 0.0
        for i in index.tolist():
            x, y = part.batch(torch.tensor([i]))
            with torch.no_grad():
                outputs = network(x).double()
            if task.kind == "regression":
                scaled = (y.double() - data.target_mean) / data.target_std
                error = float((outputs[0, 0] - scaled) ** 2)
                total += error * float(data.target_std) ** 2 if part is data.test else error
            else:
                right = float(outputs.argmax() == y)
                total += right if part is data.test else float(functional.cross_entropy(outputs, y))
        found.append(total / len(index))
    return found[0], found[1], found[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "values"])
def test_measurements_equal_independent_ones(tiny_data: Data, kind: str) -> None:
    """The first phase alone, as a policy of its own, ends with the weights that the switch was measured on."""
    recipe = {"schedule": "constant", "batch_size": 12}
    if kind == "images":
        task = image_task(tiny_data, NOISY, augment={"flip": True}, label_smoothing=0.2, **recipe)
    else:
        task = value_task(tiny_data, **recipe)
    policy = two_phases(84 / 210, 0.8, share=0.4, transition="shrink_perturb")
    alone = Policy(phases=policy.phases[:1])
    result, half = run(task, policy), run(task, alone)
    switch, end = result.switches
    pool = subset(task, policy)
    facts = train.facts(task)
    assert (switch.phase, switch.pool_size, end.phase, end.pool_size) == (0, 84, 1, 210)
    assert switch.flops == half.ledger.spent == 84 * facts.example_flops
    assert (switch.share, end.share) == (switch.flops / policy.cost(facts), result.ledger.spent / policy.cost(facts))
    assert switch.share == result.switch_shares[0]
    for point, network, rows in ((switch, half.model, pool), (end, result.model, None)):
        pool_loss, train_loss, metric = independent(task, network, rows)
        assert point.pool_loss == pytest.approx(pool_loss, rel=1e-4)
        assert point.train_loss == pytest.approx(train_loss, rel=1e-4)
        assert point.metrics["test"] == pytest.approx(metric, rel=1e-4)
    assert switch.pool_loss != switch.train_loss
    assert end.pool_loss == end.train_loss
    assert end.metrics == result.metrics
    assert set(switch.metrics) == {"validation", "test"}


def test_it_changes_no_bit_and_is_charged_apart(tiny_data: Data) -> None:
    task, policy = (
        image_task(tiny_data, NOISY, augment={"flip": True}),
        two_phases(0.6, 0.8, transition="shrink_perturb"),
    )
    off, on = run(task, policy, measure_switches=False), run(task, policy)
    facts = train.facts(task)
    assert off.switches == ()
    assert same_bits(off.model, on.model)
    assert (off.metrics, off.updates, off.switch_shares) == (on.metrics, on.updates, on.switch_shares)
    assert [(p.metric, p.loss) for p in off.curve] == [(p.metric, p.loss) for p in on.curve]
    assert off.ledger.spent == on.ledger.spent
    measured = (30 + 60 + 210) + 210  # both splits and all training examples at the switch, these alone at the end
    assert on.ledger.evaluate - off.ledger.evaluate == measured * facts.forward_flops


def test_each_phase_that_was_trained_in_has_its_point(tiny_data: Data) -> None:
    task = image_task(tiny_data, batch_size=64)
    phases = (
        Phase(share=0.9, passes=0.5),
        Phase(share=0.5, passes=0.01),  # used up by the excess of the first
        Phase(share=0.2, passes=0.6),
        Phase(passes=0.7),
        Phase(passes=0.01),  # too little for an update
    )
    result = run(task, Policy(phases=phases))
    assert [(p.phase, p.pool_size) for p in result.switches] == [(0, 189), (2, 42), (3, 210)]
    assert [p.share for p in result.switches[:-1]] == list(result.switch_shares)


def test_the_json_form_comes_back(tiny_data: Data) -> None:
    result = run(image_task(tiny_data), two_phases(0.6, 0.8))
    again = config.build(RunResult, json.loads(json.dumps(result.to_mapping())))
    assert again.switches == result.switches
    assert isinstance(again.switches[0], SwitchPoint)


@pytest.mark.slow
@pytest.mark.parametrize(("every_s", "stride"), [(NEVER, 3), (ALWAYS, 5)])
def test_an_interrupted_run_has_the_same_points(tiny_data: Data, tmp_path: Path, every_s: float, stride: int) -> None:
    task, policy = image_task(tiny_data, NOISY), two_phases(1.0, 0.6, share=0.1, transition="shrink_perturb")
    whole = run(task, policy, evaluations=100)
    for number in {*range(1, len(whole.curve), stride), len(whole.curve)}:
        there: dict[str, Any] = {"checkpoints": str(tmp_path / str(number)), "checkpoint_every_s": every_s}
        with pytest.raises(InterruptedRunError):
            run(task, policy, evaluations=100, report=interrupt_after(number), **there)
        again = run(task, policy, evaluations=100, **there)
        assert_same(again, whole)
        assert again.switches == whole.switches
        assert run(task, policy, evaluations=100, **there).switches == whole.switches  # a finished one keeps them


def test_weights_that_are_not_finite_have_no_numbers(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 3}, batch_size=16)
    result = run(task, two_phases(64 / 210, 1.0, share=0.5), evaluations=1)
    assert result.cause == "diverged"
    (point,) = result.switches
    assert (point.phase, point.pool_loss, point.train_loss) == (0, None, None)
    assert point.metrics == {"validation": None, "test": None}
    assert json.loads(json.dumps(result.to_mapping()))["switches"][0]["train_loss"] is None
