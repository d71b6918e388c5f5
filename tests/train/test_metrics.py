"""scikit-learn is the oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from subsettune.task import Task
from subsettune.train import metrics

CLASSES = 4
answers = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60)


def oracle(name: str, truth: list[int], predicted: list[int]) -> float:
    if name == "accuracy":
        return float(sklearn_metrics.accuracy_score(truth, predicted))
    if name == "balanced_accuracy":
        present = sorted(set(truth))  # its own function warns of classes that are only predicted
        return float(sklearn_metrics.recall_score(truth, predicted, labels=present, average="macro", zero_division=0))
    return float(sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1"])
@settings(deadline=None, max_examples=60)
@given(pairs=answers)
def test_classification_metrics_are_scikit_learn_s(name: str, pairs: list[tuple[int, int]]) -> None:
    truth, predicted = ([pair[i] for pair in pairs] for i in (0, 1))
    outputs = functional.one_hot(torch.tensor(predicted), CLASSES).float()
    value = metrics.metric(name, outputs, torch.tensor(truth), CLASSES)
    assert value == pytest.approx(oracle(name, truth, predicted))


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 3)])
def test_errors_are_scikit_learn_s(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    targets, outputs = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    given_outputs = outputs[:, None] if len(shape) == 1 else outputs
    for name, oracle in (("mse", sklearn_metrics.mean_squared_error), ("mae", sklearn_metrics.mean_absolute_error)):
        expected = oracle(targets.numpy(), outputs.numpy())
        assert metrics.metric(name, given_outputs, targets, 1) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "mse", "mae"])
def test_outputs_that_are_not_finite_give_nan(name: str, bad: float) -> None:
    outputs = torch.tensor([[0.0, 1.0], [bad, 0.0]])
    targets = outputs.new_zeros(2, 2) if name in metrics.ERRORS else torch.tensor([1, 0])
    assert math.isnan(metrics.metric(name, outputs, targets, 2))


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("accuracy", torch.tensor([2, 2, 1, 0]), 0.5),
        ("balanced_accuracy", torch.tensor([2, 2, 1, 0]), 1 / 3),
        ("macro_f1", torch.tensor([2, 2, 1, 0]), (2 / 3) / 3),
        ("mse", torch.tensor([1.0, 3.0]), 1.0),
        ("mae", torch.tensor([1.0, 3.0]), 1.0),
        ("mae", torch.tensor([0.0, 1.0, 8.0]), 8 / 3),  # of the mean it would be 10 / 3
        ("mae", torch.tensor([[0.0, 1.0], [1.0, 1.0], [8.0, 1.0]]), 4 / 3),
    ],
)
def test_chance_is_the_best_constant_answer(name: str, targets: torch.Tensor, expected: float) -> None:
    assert metrics.chance(name, targets, 3) == pytest.approx(expected)


def make_task(metric: str) -> Task:
    plain: Any = {"data": {"source": "digits"}, "model": {"name": "mlp"}, "metric": metric, "tolerance": 0.1}
    return Task(**plain, recipe={"lr": 1, "batch_size": 1, "epochs": 1})


def test_losses_are_torch_s() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(6, 3, generator=rng), torch.tensor([0, 1, 2, 0, 1, 2])
    task = make_task("accuracy")
    for smoothing in (0.0, 0.3):
        expected = functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
        assert torch.equal(metrics.loss(task, outputs, targets, smoothing), expected)
        ones = metrics.loss(task, outputs, targets, smoothing, torch.ones(6))
        assert float(ones) == pytest.approx(float(expected), rel=1e-6)
    values = torch.randn(6, generator=rng)
    assert torch.equal(
        metrics.loss(make_task("mse"), outputs[:, :1], values), functional.mse_loss(outputs[:, 0], values)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_multiply_the_losses_of_their_examples(smoothing: float) -> None:
    rng = torch.Generator().manual_seed(1)
    outputs, targets, weights = (
        torch.randn(4, 3, generator=rng),
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([0.0, 1, 3, 0]),
    )
    one_by_one = [functional.cross_entropy(outputs[i], targets[i], label_smoothing=smoothing) for i in range(4)]
    expected = sum(float(w) * float(value) for w, value in zip(weights, one_by_one, strict=True)) / 4
    assert float(metrics.loss(make_task("accuracy"), outputs, targets, smoothing, weights)) == pytest.approx(expected)
    values = torch.randn(4, 2, generator=rng)
    found = metrics.loss(make_task("mse"), outputs[:, :2], values, 0.0, weights)
    expected = float(((outputs[:, :2] - values).square().mean(1) * weights).mean())
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("num_outputs", [1, 2, 3, 10, metrics.SHORT_ROW, metrics.SHORT_ROW + 1, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_many_are_those_of_each_to_within_rounding(num_outputs: int, smoothing: float) -> None:
    task = make_task("accuracy")
    rng = torch.Generator().manual_seed(0)
    outputs = 5 * torch.randn(3000, num_outputs, generator=rng)
    targets = torch.randint(0, num_outputs, (3000,), generator=rng)
    found = metrics.losses_of_many(task, outputs, targets, smoothing)
    expected = functional.cross_entropy(outputs.double(), targets, label_smoothing=smoothing, reduction="none")
    assert found.shape == (3000,)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
