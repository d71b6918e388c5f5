from __future__ import annotations

import functools
import importlib
import logging
import random
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import random_state
from fakes import image_task, options, same_bits, value_task
from torch import Tensor, nn

from subsettune import train
from subsettune.data import load
from subsettune.errors import ModelError
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.planning import own_code
from subsettune.train.result import RunResult

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
Shape = tuple[int, ...]
HERE = "tests.train.planning.test_own_code"


class Net(nn.Module):
    """Two layers: 64 * 8 + 8 + 8 * 4 + 4 = 556 parameters on the made-up images."""

    def __init__(self, input_shape: Shape, num_outputs: int, hidden: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_outputs)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


# --- functions that are not independent ------------------------------------------------------------------------------


@functools.lru_cache
def cached(input_shape: Shape, num_outputs: int) -> nn.Module:
    return Net(input_shape, num_outputs)


_BODIES: dict[str, nn.Module] = {}
_COUNTS = {"built": 0}


def shared_part(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    network.body = _BODIES.setdefault("body", network.body)  # type: ignore[assignment]
    return network


def counting(input_shape: Shape, num_outputs: int) -> nn.Module:
    _COUNTS["built"] += 1
    return Net(input_shape, num_outputs, 8 + _COUNTS["built"])


def drawing_apart(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(np.random.default_rng().normal(size=network.head.weight.shape)))
    return network


def seeding_torch(input_shape: Shape, num_outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return Net(input_shape, num_outputs)


def seeding_numpy(input_shape: Shape, num_outputs: int) -> nn.Module:
    np.random.seed(0)  # noqa: NPY002
    return Net(input_shape, num_outputs)


def seeding_python(input_shape: Shape, num_outputs: int) -> nn.Module:
    random.seed(0)
    return Net(input_shape, num_outputs)


class Counter(Net):
    calls = 0

    def forward(self, x: Tensor) -> Any:
        Counter.calls += 1
        return super().forward(x) * (1 + Counter.calls / 100)


class SeedsInForward(Net):
    def forward(self, x: Tensor) -> Any:
        torch.manual_seed(0)
        return super().forward(x)


_MEAN = torch.zeros(1)


class WritesToShared(Net):
    def __init__(self, input_shape: Shape, num_outputs: int) -> None:
        super().__init__(input_shape, num_outputs)
        self.register_buffer("mean", _MEAN)

    def forward(self, x: Tensor) -> Any:
        if not x.is_meta:
            self.get_buffer("mean").add_(0.0)
        return super().forward(x)


class ReadsShared(Net):
    def __init__(self, input_shape: Shape, num_outputs: int) -> None:
        super().__init__(input_shape, num_outputs)
        self.register_buffer("mean", _MEAN)


DEPENDENT = {
    "cached": r"must be a new network in each call, got body.1.weight of an earlier one: a run would go on from what "
    r"another one trained\. Build it inside the function, or return copy\.deepcopy of it\.$",
    "shared_part": r"must be a new network in each call, got body.1.weight of an earlier one",
    "counting": r"must be the same network in each call, got another build\. Each call must build everything anew",
    "drawing_apart": r"must begin with the same weights for the same seed, got others in head.weight\. Each call must",
    "seeding_torch": r"must leave the random state to the run, got one that seeds torch: all seeds would be alike, and "
    r"their spread too small\. Remove the call, e\.g\. torch\.manual_seed\.$",
    "seeding_numpy": r"must leave the random state to the run, got one that seeds numpy.random",
    "seeding_python": r"must leave the random state to the run, got one that seeds random:",
    "SeedsInForward": r"or optimizer 'sgd' must leave the random state to the run, got one that seeds torch",
    "Counter": r"must train alike with the same seed, got other values in body.1.weight when two updates were made",
    "WritesToShared": r"must belong to one network, got a tensor that all of them write to\. Clone it inside",
}


def run(task: Task, seed: int = 0) -> RunResult:
    policy = Policy(phases=(Phase(passes=2),))
    return train.run(task, policy, seed, options=options(keep_model=True))


def task_of(data: Data, name: str, **recipe: Any) -> Task:
    return image_task(data, {"name": f"{HERE}:{name}"}, **recipe)


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_network_that_ties_runs_together_is_refused_before_any_runs(tiny_data: Data, name: str) -> None:
    before = random_state()
    for ask in (train.facts, run):
        with pytest.raises(ModelError, match=DEPENDENT[name]):
            ask(task_of(tiny_data, name))
    assert random_state() == before


def models_of(data: Data, name: str, *seeds: int) -> list[nn.Module]:
    found = [run(task_of(data, name), seed).model for seed in seeds]
    return [model for model in found if model is not None]


@pytest.mark.parametrize("name", ["Net", "ReadsShared", "loaded"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(tiny_data: Data, name: str) -> None:
    first, again, other = models_of(tiny_data, name, 0, 0, 1)
    assert same_bits(first, again)
    assert not same_bits(first, other)


# --- weights that are loaded -----------------------------------------------------------------------------------------


def loaded(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    rng = torch.Generator().manual_seed(3)
    network.body.load_state_dict(
        {name: torch.randn(values.shape, generator=rng) for name, values in network.body.state_dict().items()}
    )
    return network


def zeros(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    nn.init.zeros_(network.head.weight)
    nn.init.ones_(network.head.bias)
    return network


def test_weights_that_are_loaded_are_told_and_allowed(tiny_data: Data, caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(tiny_data, "loaded", lr=0.011)  # of no other test: a process tells it once
    with caplog.at_level(logging.WARNING, "subsettune"):
        train.facts(task)
        train.facts(task)
    want = (
        f"model '{HERE}:loaded' begins with the same numbers for every seed in 520 of its 556 trainable parameters, "
        "as weights do that are loaded: the spread over seeds leaves out how these are initialised."
    )
    assert caplog.messages == [want]  # 64 * 8 + 8 in the body


def test_weights_that_are_loaded_are_told_once_whatever_the_optimizers(
    tiny_data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of(tiny_data, "loaded", lr=0.014)
    data = load(task)
    with caplog.at_level(logging.WARNING, "subsettune"):
        told = [own_code.check(task, task.recipe.override({"optimizer": n}), data) for n in ("sgd", "adam")]
    assert caplog.messages == list(told[0]) == list(told[1])


class Tired(Net):
    def __init__(self, input_shape: Shape, num_outputs: int) -> None:
        super().__init__(input_shape, num_outputs)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        if self.training and x.device.type != "meta":
            self.steps += 1
            if self.steps > 5:
                raise RuntimeError("too tired")
        return super().forward(x)


def test_a_network_that_fails_some_updates_on_is_told_in_a_sentence(tiny_data: Data) -> None:
    task = task_of(tiny_data, "Tired", lr=0.015)
    data = load(task)
    with pytest.raises(ModelError, match="Tired' fails in training: RuntimeError: too tired"):
        own_code.check(task, task.recipe, data)


@pytest.mark.parametrize("name", ["Net", "zeros"])
def test_fresh_and_constant_weights_are_nothing_to_tell(
    tiny_data: Data, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "subsettune"):
        train.facts(task_of(tiny_data, name, lr=0.012))
    assert caplog.messages == []


# --- outputs ---------------------------------------------------------------------------------------------------------


class MoreInEvaluation(Net):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        return outputs if self.training else torch.cat([outputs, outputs.amax(1, keepdim=True) + 1], dim=1)


class TupleInEvaluation(Net):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        return outputs if self.training else (outputs, outputs)


class TupleInTraining(Net):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        return (outputs, outputs) if self.training else outputs


class Named(Net):
    def forward(self, x: Tensor) -> Any:
        return {"main": super().forward(x), "hidden": x}


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class WithLogits(Net):
    def forward(self, x: Tensor) -> Any:
        return Output(super().forward(x))


class Classes(Net):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        return outputs if self.training else outputs.argmax(1)


class Nothing(Net):
    def forward(self, x: Tensor) -> Any:
        return None


class FailsInEvaluation(Net):
    def forward(self, x: Tensor) -> Any:
        if not self.training:
            raise KeyError("no such key")
        return super().forward(x)


class InPlace(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2))


class LateHead(Net):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        if not hasattr(self, "late"):
            self.late = nn.Linear(outputs.shape[1], outputs.shape[1], device=x.device)
        return self.late(outputs)


def double(input_shape: Shape, num_outputs: int) -> nn.Module:
    return Net(input_shape, num_outputs).double()


def on_meta(input_shape: Shape, num_outputs: int) -> nn.Module:
    return Net(input_shape, num_outputs).to("meta")


def not_a_number(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    nn.init.constant_(network.head.bias, float("nan"))
    return network


def scripted(input_shape: Shape, num_outputs: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), num_outputs)))


UNFIT = {
    "MoreInEvaluation": r"^output of model .* must be \(2, 4\) for 2 examples and 4 classes or targets, got \(2, 5\) "
    r"in evaluation\. Fit its last layer\.$",
    "TupleInEvaluation": r"must return a tensor in evaluation, got tuple\. Wrap it in a module whose forward returns "
    r"the entry with the logits or values, e\.g\. outputs\[0\]\.$",
    "TupleInTraining": r"must return a tensor, got tuple\. Wrap it",
    "Named": r"must return a tensor, got dict\. Name one of main, hidden logits, or wrap it in a module whose forward "
    r"returns that entry\.$",
    "Classes": r"got \(2,\) in evaluation\. Fit",
    "Nothing": r"must return a tensor, got NoneType\. Return the logits or values, \(batch, outputs\)\.$",
    "FailsInEvaluation": r"fails in evaluation on inputs of shape \(2, 1, 8, 8\): KeyError: 'no such key' "
    r"\(test_own_code.py, line \d+\)\.$",
    "InPlace": r"must leave its input as it is, got one that changes it in place\. Begin with x = x\.clone\(\)",
    "LateHead": r"must have all its layers when it is built, got new ones in its first forward pass: no optimizer ",
    "double": r"Its parameters are float64, and its inputs float32: convert one of them\.$",
    "on_meta": r"^body.1.weight of model .* is on the meta device, without values\. Build it on the CPU\.$",
    "not_a_number": r"^head.bias of model .* holds NaN before it is trained\. Initialise all of it\.$",
    "scripted": r"is scripted, which hides its FLOPs\. Return it without torch\.jit\.$",
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_network_that_cannot_be_trained_or_measured_is_one_sentence(tiny_data: Data, name: str) -> None:
    for ask in (train.facts, run):
        with pytest.raises(ModelError, match=UNFIT[name]) as caught:
            ask(task_of(tiny_data, name))
        assert "\n" not in str(caught.value)


def test_an_object_with_logits_trains_as_its_logits_do(tiny_data: Data) -> None:
    plain, rich = (run(task_of(tiny_data, name)) for name in ("Net", "WithLogits"))
    assert plain.metrics == rich.metrics
    assert plain.ledger == rich.ledger


class Probabilities(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(dim=1)


class LogProbabilities(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).log_softmax(dim=1)


def test_probabilities_in_place_of_logits_are_told(tiny_data: Data, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "subsettune"):
        train.facts(task_of(tiny_data, "LogProbabilities", lr=0.013))  # the loss makes nothing of them twice
        assert caplog.messages == []
        train.facts(task_of(tiny_data, "Probabilities", lr=0.013))
    assert caplog.messages == [
        f"outputs of model '{HERE}:Probabilities' look like probabilities: each row sums to 1. The loss takes logits, "
        "and learns badly from them. Leave out the softmax at its end."
    ]


def test_values_of_a_regression_are_never_probabilities(tiny_data: Data, caplog: pytest.LogCaptureFixture) -> None:
    task = value_task(tiny_data)
    with caplog.at_level(logging.WARNING, "subsettune"):
        train.facts(replace(task, model=replace(task.model, name=f"{HERE}:ones", options={})))
    assert caplog.messages == []


class Ones(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * 0 + 1


def ones(input_shape: Shape, num_outputs: int) -> nn.Module:
    return Ones(input_shape, num_outputs)


# --- networks that are unlike others, and work -----------------------------------------------------------------------


def weight_norm(input_shape: Shape, num_outputs: int) -> nn.Module:
    network = Net(input_shape, num_outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(network.head)
    return network


class Locked(Net):
    def __init__(self, input_shape: Shape, num_outputs: int) -> None:
        super().__init__(input_shape, num_outputs)
        self.lock = threading.Lock()


class TrainGivesNone(Net):
    def train(self, mode: bool = True) -> Any:
        super().train(mode)

    def eval(self) -> Any:
        self.train(mode=False)


class OddLayout(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).t().contiguous().t()


@pytest.mark.parametrize("name", ["Locked", "TrainGivesNone", "OddLayout"])
def test_what_changes_no_number_changes_no_bit(tiny_data: Data, name: str) -> None:
    plain, unlike = run(task_of(tiny_data, "Net")), run(task_of(tiny_data, name))
    assert plain.model is not None
    assert unlike.model is not None
    assert same_bits(plain.model, unlike.model)
    assert plain.ledger == unlike.ledger


class Disturbed(Net):
    def forward(self, x: Tensor) -> Any:
        return self.head(nn.functional.dropout(self.body(x)))  # also in evaluation


def test_draws_in_evaluation_are_told_and_do_not_reach_training(
    tiny_data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    task, policy = task_of(tiny_data, "Disturbed"), Policy(phases=(Phase(passes=2),))
    with caplog.at_level(logging.WARNING, "subsettune"):
        rarely, often = (
            train.run(task, policy, 0, options=options(keep_model=True, evaluations=n, measure_switches=n > 1))
            for n in (1, 8)
        )
    assert caplog.messages == [
        f"model '{HERE}:Disturbed' draws random numbers in evaluation, too, and is measured with them, as with "
        "functional.dropout without training=self.training."
    ]
    assert same_bits(rarely.model, often.model)
    assert rarely.metrics == often.metrics


def test_old_weight_norm_trains(tiny_data: Data) -> None:
    first, again, other = models_of(tiny_data, "weight_norm", 0, 0, 1)
    assert same_bits(first, again)
    assert not same_bits(first, other)
    assert run(task_of(tiny_data, "weight_norm")).metrics["validation"] > 0.7  # 0.25 is chance


# --- optimizers ------------------------------------------------------------------------------------------------------


class Remembering(torch.optim.SGD):
    steps = 0

    def step(self, closure: Any = None) -> Any:
        Remembering.steps += 1
        for group in self.param_groups:
            group["lr"] /= Remembering.steps
        return super().step(closure)


def test_an_optimizer_that_keeps_something_between_runs_is_refused(tiny_data: Data) -> None:
    want = rf"^model 'mlp' or optimizer '{HERE}:Remembering' must train alike with the same seed"
    with pytest.raises(ModelError, match=want):
        run(image_task(tiny_data, optimizer=f"{HERE}:Remembering"))


def breaking(params: Any, lr: float, **settings: Any) -> torch.optim.Optimizer:
    class Breaking(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise ZeroDivisionError("by nothing")

    return Breaking(params, lr=lr, **settings)


def test_an_optimizer_that_fails_in_its_step_is_one_sentence(tiny_data: Data) -> None:
    want = r"fails in training: ZeroDivisionError: by nothing \(test_own_code.py, line \d+\)\.$"
    with pytest.raises(ModelError, match=want):
        train.facts(image_task(tiny_data, optimizer=f"{HERE}:breaking"))


def test_a_policy_s_own_optimizer_is_tried_too(tiny_data: Data) -> None:
    policy = Policy(phases=(Phase(passes=2),), recipe={"optimizer": f"{HERE}:breaking"})
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        train.run(image_task(tiny_data), policy, 0, options=options())


def test_what_is_built_in_is_not_tried(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Callable[..., Mapping[str, Any]]:
        raise AssertionError

    monkeypatch.setattr(own_code, "_try_model", never)
    assert train.facts(image_task(tiny_data)).num_parameters == 64 * 8 + 8 + 8 * 4 + 4


def test_a_module_that_is_edited_and_loaded_again_is_tried_again(
    tiny_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = f"import torch\nfrom {HERE} import Net\n\ndef build(input_shape, num_outputs):\n    {{}}\n"
    path = tmp_path / "edited_in_a_notebook.py"
    path.write_text(source.format("return Net(input_shape, num_outputs)"))
    task = image_task(tiny_data, {"name": "edited_in_a_notebook:build"})
    train.facts(task)
    path.write_text(source.format("torch.manual_seed(0); return Net(input_shape, num_outputs)"))
    importlib.reload(sys.modules["edited_in_a_notebook"])
    with pytest.raises(ModelError, match="one that seeds torch"):
        train.facts(task)


def test_losses_and_augmentations_that_make_runs_depend_on_each_other_are_refused(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    counting = replace(task, loss="own_goals:counting")
    with pytest.raises(ModelError, match="or loss 'own_goals:counting' must train alike with the same seed, got other"):
        train.facts(counting)
    with pytest.raises(ModelError, match="or augment 'own_goals:seeding' must leave the random state to the run, got"):
        train.facts(image_task(tiny_data, augment={"function": "own_goals:seeding"}))
    train.facts(replace(task, loss="own_goals:cross_entropies"))
    train.facts(image_task(tiny_data, augment={"function": "own_goals:noisy"}))
