"""How far other test examples move a metric: by the bootstrap, where it is no mean over them."""

from __future__ import annotations

import contextlib
import statistics

import torch
from torch import nn

from subsettune.data import TaskData
from subsettune.errors import ConfigError
from subsettune.task import Task
from subsettune.train.learner import predict
from subsettune.train.metrics import metric
from subsettune.train.objective import positive_class
from subsettune.train.randomness import generator

RESAMPLES = 200  # the standard deviation is then known to 5 %


def metric_variance(task: Task, data: TaskData, network: nn.Module) -> float | None:
    """Variance of the test metric of a trained network over draws of as many test examples.

    Source: Efron 1979. Draws that lack a class, where the metric needs it, are left out.

    Args:
        task: whose metric.
        data: of the task.
        network: trained, on the CPU.

    Returns:
        None where the metric means something on less than half of the draws.
    """
    outputs, targets = predict(network, data.test)
    if task.kind == "regression":
        outputs = outputs.reshape(targets.shape).to(targets.dtype) * data.target_std + data.target_mean
    positive = positive_class(task, data.class_names)
    rng, n, found = generator(0, "bootstrap"), len(targets), []
    for _ in range(RESAMPLES):
        drawn = torch.randint(n, (n,), generator=rng)
        with contextlib.suppress(ConfigError):
            found.append(metric(task.metric, outputs[drawn], targets[drawn], data.num_outputs, positive))
    return statistics.variance(found) if len(found) > RESAMPLES // 2 else None
