"""The bootstrap of a metric: against the closed form of a mean, and of the rank of a fixed network."""

from __future__ import annotations

from pathlib import Path

import in_hand
import pytest
import torch

from subsettune.data import load
from subsettune.train.learner import predict
from subsettune.trained.resampled import metric_variance


def test_of_a_mean_it_is_the_variance_of_what_one_adds(tmp_path: Path) -> None:
    task = in_hand.task_of(in_hand.written(tmp_path, in_hand.people(2000)))
    data = load(task, in_hand.PLACES)
    _, result = in_hand.trained(task)
    share = result.metrics["test"]
    found = metric_variance(task, data, result.model)
    assert found == pytest.approx(share * (1 - share) / len(data.test), rel=0.4)  # 200 draws know it to 10 %
    again = metric_variance(task, data, result.model)
    assert again == found  # drawn by a seed of its own
    assert isinstance(result.model, torch.nn.Module)


def test_of_a_rank_it_is_that_of_delong(tmp_path: Path) -> None:
    """DeLong et al. 1988: the variance of the share of pairs that are in order, by both of their ends."""
    task = in_hand.task_of(in_hand.written(tmp_path, in_hand.people(2000)), metric="roc_auc", positive="no")
    data = load(task, in_hand.PLACES)
    _, result = in_hand.trained(task)
    outputs, targets = predict(result.model, data.test)
    scores = (outputs[:, 0] - outputs[:, 1]).double()
    looked_for = targets == data.class_names.index("no")
    ones, others = scores[looked_for], scores[~looked_for]
    ones, others = (-ones, -others) if data.class_names.index("no") else (ones, others)
    in_order = (ones[:, None] > others[None]).double() + 0.5 * (ones[:, None] == others[None]).double()
    assert float(in_order.mean()) == pytest.approx(result.metrics["test"])
    expected = in_order.mean(dim=1).var() / len(ones) + in_order.mean(dim=0).var() / len(others)
    assert metric_variance(task, data, result.model) == pytest.approx(float(expected), rel=0.4)
