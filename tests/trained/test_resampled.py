"""The bootstrap of a metric: against the closed form of a mean, and of the rank of a fixed network."""

from __future__ import annotations

from pathlib import Path

import in_hand
import pytest
import torch

from subsettune.data import load
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


def test_of_a_rank_it_is_about_that_of_hanley_and_mcneil(tmp_path: Path) -> None:
    task = in_hand.task_of(in_hand.written(tmp_path, in_hand.people(2000)), metric="roc_auc", positive="no")
    data = load(task, in_hand.PLACES)
    _, result = in_hand.trained(task)
    found, area = metric_variance(task, data, result.model), result.metrics["test"]
    one, other = (int((data.test.targets == each).sum()) for each in (0, 1))
    pairs = (one - 1) * (area / (2 - area) - area**2) + (other - 1) * (2 * area**2 / (1 + area) - area**2)
    assert found == pytest.approx((area * (1 - area) + pairs) / (one * other), rel=0.5)
