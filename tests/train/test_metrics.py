"""scikit-learn is the oracle."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from subsettune.errors import ConfigError
from subsettune.registry import METRICS
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


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("roc_auc", torch.tensor([0, 0, 1, 0]), 0.5),
        ("average_precision", torch.tensor([0, 0, 1, 0]), 0.25),
        ("log_loss", torch.tensor([0, 0, 1, 0]), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))),
        ("r2", torch.tensor([1.0, 3.0]), 0.0),
        ("rmse", torch.tensor([[1.0, 0], [3, 0], [2, 3]]), (math.sqrt(2 / 3) + math.sqrt(2)) / 2),
    ],
)
def test_chance_of_ranks_and_roots(name: str, targets: torch.Tensor, expected: float) -> None:
    assert metrics.chance(name, targets, 2) == pytest.approx(expected)


def test_chance_of_five_places_is_that_of_the_commonest_classes() -> None:
    assert metrics.chance("top5", torch.tensor([0, 1, 2, 3, 4, 5, 6, 6]), 7) == pytest.approx(6 / 8)


LABELS = torch.tensor([[1.0, 0], [1, 0], [1, 1], [0, 0]])
CHANCES = {
    "accuracy": 0.75,
    "subset_accuracy": 0.5,
    "macro_f1": (2 * 0.75 / 1.75 + 2 * 0.25 / 1.25) / 2,
    "roc_auc": 0.5,
    "average_precision": 0.5,
    "log_loss": -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
}


@pytest.mark.parametrize("name", CHANCES)
def test_chance_of_labels_is_beaten_by_no_constant_answer(name: str) -> None:
    found = metrics.chance(name, LABELS, 2)
    assert found == pytest.approx(CHANCES[name])
    sign = 1 if METRICS[name].higher_is_better else -1
    for outputs in torch.cartesian_prod(torch.linspace(-2, 2, 9), torch.linspace(-2, 2, 9)):
        value = metrics.metric(name, outputs.expand(4, -1), LABELS, 2)
        assert sign * value <= sign * CHANCES[name] + 1e-9


def test_nobody_knows_the_chance_of_a_user_s_own() -> None:
    assert metrics.chance("own_goals:share_right", torch.tensor([0, 1]), 2) is None


def test_metrics_of_classes_are_scikit_learn_s_of_probabilities() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(200, 8, generator=rng), torch.randint(0, 8, (200,), generator=rng)
    shares = outputs.double().softmax(dim=1).numpy()
    found = {name: metrics.metric(name, outputs, targets, 8) for name in ("log_loss", "top5", "roc_auc")}
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(targets.numpy(), shares))
    assert found["top5"] == pytest.approx(sklearn_metrics.top_k_accuracy_score(targets.numpy(), shares, k=5))
    assert found["roc_auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(targets.numpy(), shares, multi_class="ovr", average="macro")
    )


def test_metrics_of_labels_are_scikit_learn_s() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(100, 4, generator=rng), (torch.rand(100, 4, generator=rng) < 0.3).float()
    truth, predicted = targets.numpy(), (outputs > 0).numpy()
    expected = {
        "accuracy": (truth == predicted).mean(),
        "subset_accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "macro_f1": sklearn_metrics.f1_score(truth, predicted, average="macro"),
        "average_precision": sklearn_metrics.average_precision_score(truth, outputs.numpy(), average="macro"),
        "log_loss": np.mean(
            [sklearn_metrics.log_loss(truth[:, j], outputs.double().sigmoid().numpy()[:, j]) for j in range(4)]
        ),
    }
    for name, value in expected.items():
        assert metrics.metric(name, outputs, targets, 4) == pytest.approx(value), name


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 3)])
def test_roots_and_explained_shares_are_scikit_learn_s(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(3)
    targets, outputs = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    for name, oracle in (("rmse", sklearn_metrics.root_mean_squared_error), ("r2", sklearn_metrics.r2_score)):
        assert metrics.metric(name, outputs, targets, 1) == pytest.approx(oracle(targets.numpy(), outputs.numpy()))
    with pytest.raises(
        ConfigError, match="r2 must be measured on values that differ in every part, got one value alone"
    ):
        metrics.metric("r2", outputs, torch.ones(shape), 1)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.mean_of == "examples"])
def test_what_examples_add_has_the_metric_as_its_mean(name: str) -> None:
    rng = torch.Generator().manual_seed(5)
    for kind in METRICS[name].tasks:
        outputs = torch.randn(40, 7, generator=rng)
        targets = {
            "classification": torch.randint(0, 7, (40,), generator=rng),
            "multilabel": (torch.rand(40, 7, generator=rng) < 0.5).float(),
            "regression": torch.randn(40, 7, generator=rng),
        }[kind]
        each = metrics.contributions(name, outputs, targets)
        assert each is not None
        assert each.shape == (40,)
        assert float(each.double().mean()) == pytest.approx(metrics.metric(name, outputs, targets, 7), rel=1e-6)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "own_goals:share_right", "rmse", "r2"])
def test_what_is_no_mean_keeps_nothing_of_examples(name: str) -> None:
    targets = torch.tensor([0.0, 1.0]) if name in ("rmse", "r2") else torch.tensor([0, 1])
    assert metrics.contributions(name, torch.tensor([[0.0, 1], [1, 0]])[:, : 3 - targets.dim()], targets) is None


def test_steps() -> None:
    classes, labels = torch.tensor([0, 1, 1, 0]), torch.zeros(4, 3)
    task = make_task("accuracy")
    assert metrics.resolution(task, classes) == 0.25
    several = dataclasses.replace(task, kind="multilabel")
    assert metrics.resolution(several, labels) == 1 / 12
    assert metrics.resolution(dataclasses.replace(several, metric="subset_accuracy"), labels) == 0.25
    assert metrics.resolution(make_task("roc_auc"), classes) == 0
    assert metrics.resolution(make_task("mse"), torch.zeros(4)) == 0


def test_the_loss_of_labels_is_torch_s() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(5, 3, generator=rng), (torch.rand(5, 3, generator=rng) < 0.5).float()
    task = dataclasses.replace(make_task("accuracy"), kind="multilabel")
    expected = functional.binary_cross_entropy_with_logits(outputs, targets)
    assert torch.equal(metrics.loss(task, outputs, targets), expected)
    torch.testing.assert_close(metrics.losses(task, outputs, targets).mean(), expected)


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
