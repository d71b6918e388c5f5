"""The average of the weights: its arithmetic, and that it leaves the weights alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import image_task, options, same_bits, two_phases
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after, run
from torch import nn

from subsettune import train
from subsettune.data import load
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.average import WeightAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def stepped(net: nn.Sequential) -> None:
    """Weights and statistics move."""
    net(torch.randn(4, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_it_is_the_recursion_that_is_documented() -> None:
    net, average = network(), WeightAverage(0.5)
    expected: dict[str, torch.Tensor] = {}
    for t in range(12):
        stepped(net)
        average.update(net)
        now = {name: value.double() for name, value in net.state_dict().items() if value.is_floating_point()}
        kept = min(0.5, (1 + t) / (10 + t)) if t else 0.0
        expected = {name: kept * expected.get(name, value) + (1 - kept) * value for name, value in now.items()}
    own = copy.deepcopy(net)
    with average.swapped_in(net):
        for name, value in expected.items():
            torch.testing.assert_close(net.state_dict()[name].double(), value, rtol=1e-5, atol=1e-6)
        assert int(net[1].num_batches_tracked) == 12  # type: ignore[arg-type]
    assert same_bits(net, own)
    average.take(net)
    assert not same_bits(net, own)
    taken = copy.deepcopy(net)
    average.take(net)  # nothing is left to take
    assert same_bits(net, taken)


def ema_task(data: Any, **recipe: Any) -> Task:
    return image_task(data, **{"ema": 0.8, **recipe})


def test_a_run_trains_the_same_weights_and_measures_and_keeps_their_average(tiny_data: Any) -> None:
    plain, averaged = image_task(tiny_data), ema_task(tiny_data)
    policy = Policy(phases=(Phase(passes=3),))
    one, two = (train.run(task, policy, 0, options=options(keep_model=True)) for task in (plain, averaged))
    assert one.ledger == two.ledger  # charged as nothing
    assert [point.loss for point in one.curve] == [point.loss for point in two.curve]
    assert not same_bits(one.model, two.model)
    data = load(averaged)
    outputs, targets = train.predict(two.model, data.validation)
    assert two.metrics["validation"] == float((outputs.argmax(dim=1) == targets).double().mean())


@pytest.mark.parametrize("transition", ["keep", "shrink_perturb"])
def test_an_interrupted_run_ends_with_the_same_average(tiny_data: Any, tmp_path: Path, transition: str) -> None:
    task, policy = ema_task(tiny_data), two_phases(1.0, 2.0, transition=transition)
    whole = run(task, policy, measure_switches=True)
    kept = {"checkpoints": str(tmp_path), "checkpoint_every_s": ALWAYS, "measure_switches": True}
    for number in (3, 8):
        with pytest.raises(InterruptedRunError):
            run(task, policy, report=interrupt_after(number), **kept)
    again = run(task, policy, **kept)
    assert_same(whole, again)
    assert [one.metrics for one in whole.switches] == [one.metrics for one in again.switches]
    assert_same(whole, run(task, policy, **kept))  # the checkpoint of a finished run holds the averaged weights


def test_a_narrower_network_begins_its_average_anew(tiny_data: Any) -> None:
    task, policy = ema_task(tiny_data), two_phases(1.0, 2.0, transition="prune")
    result = train.run(task, policy, 0, options=options(keep_model=True))
    assert result.cause == "finished"
    assert result.model[1].out_features == 4
