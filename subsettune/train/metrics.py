"""Metrics and losses of a task, from the outputs of the final weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from subsettune.task import Task

ERRORS: dict[str, Callable[[Tensor], float]] = {  # of a regression, by differences of outputs and targets
    "mse": lambda difference: float(difference.square().mean()),
    "mae": lambda difference: float(difference.abs().mean()),
}
MOST_ERRORS = 100_000  # errors of a regression that are kept of a run: 400 kB; 32 times as many bits of right and wrong

SHORT_ROW = 15  # classes: below the numbers that fit a register of 512 bits; 100 take seven times as long by columns


def loss(
    task: Task, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Mean loss of a batch: cross-entropy for classification, squared error for regression, whatever its metric.

    Args:
        task: its kind decides.
        outputs: (b, M) logits or values; (b,) where M is 1.
        targets: (b,) int64 classes, or (b,) or (b, M) float values.
        label_smoothing: of the cross-entropy, in [0, 1).
        weights: (b,) of the examples, 1 on average over the subset they belong to; None for equal weights.
    """
    if weights is None:
        return _losses(task, outputs, targets, label_smoothing, "mean")
    return (losses(task, outputs, targets, label_smoothing) * weights).mean()


def losses(task: Task, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(b,) losses of the examples of a batch, whose mean is `loss`; arguments as there."""
    return _losses(task, outputs, targets, label_smoothing, "none").reshape(len(targets), -1).mean(dim=1)


def losses_of_many(task: Task, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """As `losses`, to within rounding, of so many examples that time counts: 25,600 with 10 classes take an eighth.

    Torch's softmax goes over rows one by one where they are short, but over columns many at a time.
    """
    is_short = task.kind == "classification" and 1 < outputs.shape[1] <= SHORT_ROW and not label_smoothing
    if not is_short:
        return losses(task, outputs, targets, label_smoothing)
    return functional.cross_entropy(outputs.t().unsqueeze(0), targets.unsqueeze(0), reduction="none").squeeze(0)


def _losses(task: Task, outputs: Tensor, targets: Tensor, label_smoothing: float, reduction: str) -> Tensor:
    if task.kind == "classification":
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing, reduction=reduction)
    return functional.mse_loss(outputs.reshape(targets.shape), targets, reduction=reduction)


def metric(name: str, outputs: Tensor, targets: Tensor, num_outputs: int) -> float:
    """A metric over a whole split.

    Args:
        name: accuracy, balanced_accuracy (mean recall over the classes present), macro_f1 (mean F1 over all classes
            that are present or predicted), mse or mae (mean squared or absolute error over all values).
        outputs: (n, M) logits or values.
        targets: (n,) int64 classes, or values like the outputs.
        num_outputs: M.

    Returns:
        The metric; NaN if any output is not a finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        return float("nan")
    if name in ERRORS:
        return ERRORS[name](outputs.reshape(targets.shape).double() - targets.double())
    predicted = outputs.argmax(dim=1)
    if name == "accuracy":
        return float((predicted == targets).double().mean())
    hits = torch.bincount(targets[predicted == targets], minlength=num_outputs).double()
    present = torch.bincount(targets, minlength=num_outputs).double()
    if name == "balanced_accuracy":
        return float((hits / present)[present > 0].mean())
    assert name == "macro_f1", name
    either = present + torch.bincount(predicted, minlength=num_outputs)
    return float((2 * hits / either)[either > 0].mean())


def contributions(name: str, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """What each example adds to a metric over a split, so that others can say what other examples would have given.

    Args:
        name: of the metric, as for `metric`.
        outputs: (n, M) finite logits or values.
        targets: (n,) int64 classes, or values like the outputs.

    Returns:
        On the CPU, (n,) bool: whether the class is right, whose mean is the accuracy, and whose mean over the classes
        present of their means is the balanced accuracy. Of a regression (n,) float32 errors, whose mean is the metric;
        None for more than `MOST_ERRORS`, which a study would write anew with each of its runs.
    """
    if name not in ERRORS:
        return (outputs.argmax(dim=1) == targets).cpu()
    if len(targets) > MOST_ERRORS:
        return None
    difference = (outputs.reshape(targets.shape).double() - targets.double()).reshape(len(targets), -1)
    each = difference.square() if name == "mse" else difference.abs()
    return each.mean(dim=1).float().cpu()


def chance(name: str, targets: Tensor, num_outputs: int) -> float:
    """The metric of the best constant answer, which a recipe that learned anything beats.

    For mse that is the mean, for mae the median.

    Args:
        name: of the metric.
        targets: of the split, as for `metric`.
        num_outputs: M.
    """
    if name in ERRORS:
        values = targets.double()
        best = values.mean(dim=0) if name == "mse" else values.median(dim=0).values
        return ERRORS[name](values - best)
    commonest = int(torch.bincount(targets, minlength=num_outputs).argmax())
    constant = functional.one_hot(torch.full_like(targets, commonest), num_outputs).float()
    return metric(name, constant, targets, num_outputs)
