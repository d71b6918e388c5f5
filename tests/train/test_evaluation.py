"""What is kept of the test examples says exactly what the metric says, and costs nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import image_task, options, value_task

from subsettune import config, train
from subsettune.data import load
from subsettune.policy import Phase, Policy
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train import RunResult, metrics
from subsettune.train.checkpoint import Checkpoints
from subsettune.train.learner import predict
from subsettune.train.loop import run_key

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
POLICY = Policy(phases=(Phase(passes=1.5),))


def run(task: Task, **changes: Any) -> RunResult:
    return train.run(task, POLICY, 3, options=options(**{"keep_model": True, "splits": ("test",), **changes}))


def right(result: RunResult) -> np.ndarray:
    assert result.test_correct is not None
    return np.unpackbits(np.frombuffer(result.test_correct, dtype=np.uint8), count=result.num_test).astype(bool)


def test_bits_are_those_of_the_trained_network_and_their_mean_is_the_accuracy(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    result = run(task)
    part = load(task).test
    outputs, targets = predict(result.model, part)
    assert result.num_test == len(part)
    assert np.array_equal(right(result), (outputs.argmax(dim=1) == targets).numpy())
    assert 0 < right(result).mean() < 1
    assert right(result).mean() == result.metrics["test"]
    assert len(result.test_correct or b"") == -(-len(part) // 8)
    assert result.test_errors is None


def test_balanced_accuracy_is_the_mean_of_the_bits_with_class_weights(tiny_data: Data) -> None:
    task = dataclasses.replace(image_task(tiny_data), metric="balanced_accuracy")
    result, targets = run(task), load(task).test.targets.numpy()
    recalls = [right(result)[targets == each].mean() for each in np.unique(targets)]
    assert np.mean(recalls) == pytest.approx(result.metrics["test"], abs=1e-12)


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_errors_of_a_regression_are_in_the_units_of_its_data_and_their_mean_is_the_metric(
    tiny_data: Data, metric: str
) -> None:
    task = dataclasses.replace(value_task(tiny_data), metric=metric)
    result = run(task)
    errors = np.frombuffer(result.test_errors or b"", dtype="<f4")
    assert result.test_correct is None
    assert len(errors) == result.num_test == len(load(task).test)
    assert errors.min() >= 0
    assert errors.mean(dtype=float) == pytest.approx(result.metrics["test"], rel=1e-6)


def test_errors_of_several_values_an_example_are_means_over_them() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [2.0, 1.0]])
    found = metrics.contributions("mse", outputs, targets)
    assert found is not None
    assert found.tolist() == [0.5, 6.5]
    assert found.mean() == metrics.metric("mse", outputs, targets, 2)


def test_of_too_many_errors_nothing_is_kept_and_bits_are(monkeypatch: pytest.MonkeyPatch, tiny_data: Data) -> None:
    monkeypatch.setattr(metrics, "MOST_ERRORS", 10)
    result = run(value_task(tiny_data))
    assert (result.num_test, result.test_errors, result.test_correct) == (0, None, None)
    assert run(image_task(tiny_data)).num_test > 10


def test_where_the_test_split_is_not_asked_for_nothing_of_it_is_told(tiny_data: Data) -> None:
    result = run(image_task(tiny_data), splits=("validation",))
    assert (result.num_test, result.test_correct) == (0, None)
    measured = run(image_task(tiny_data))
    examples = load(image_task(tiny_data))
    assert measured.ledger.spent == result.ledger.spent
    per_example = result.ledger.evaluate // (10 * len(examples.validation))
    assert measured.ledger.evaluate - result.ledger.evaluate == per_example * len(examples.test)


def test_weights_that_were_finished_without_the_test_split_are_measured_on_it_later(
    tiny_data: Data, tmp_path: Path
) -> None:
    task, where = image_task(tiny_data), {"checkpoints": str(tmp_path)}
    assert run(task, splits=("validation",), **where).test_correct is None
    again = run(task, **where)
    assert again.test_correct == run(task).test_correct
    assert run(task, **where).test_correct == again.test_correct  # measured already: from the checkpoint
    assert run(task, splits=("validation",), **where).test_correct is None


def test_a_checkpoint_of_a_version_that_kept_no_examples_tells_of_none(tiny_data: Data, tmp_path: Path) -> None:
    task = image_task(tiny_data)
    run(task, checkpoints=str(tmp_path))
    kept = Checkpoints(Folder.at(tmp_path), run_key(task, load(task).fingerprint, POLICY, 3))
    state = kept.load()
    assert state is not None
    del state["test_examples"]
    kept.save(state)
    again = run(task, checkpoints=str(tmp_path))
    assert again.metrics["test"] > 0
    assert (again.num_test, again.test_correct) == (0, None)


def test_bits_survive_json(tiny_data: Data) -> None:
    for task in (image_task(tiny_data), value_task(tiny_data)):
        result = run(task, keep_model=False)
        again = config.build(RunResult, json.loads(json.dumps(result.to_mapping())))
        assert (again.num_test, again.test_correct) == (result.num_test, result.test_correct)
        assert again.test_errors == result.test_errors
