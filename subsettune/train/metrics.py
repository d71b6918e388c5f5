"""Metrics and losses of a task, from the outputs of the final weights.

Targets tell what is judged: (n,) int64 classes, (n, M) labels of 0 and 1, or values of a regression. Of two classes the
second is the one that is looked for; of more, what ranks examples is a mean over the classes, each against the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from subsettune.registry import METRICS
from subsettune.task import Task
from subsettune.train import own_goal, ranking

ERRORS: dict[str, Callable[[Tensor], float]] = {  # of a regression, by differences of outputs and targets
    "mse": lambda difference: float(difference.square().mean()),
    "mae": lambda difference: float(difference.abs().mean()),
    "rmse": lambda difference: float(difference.square().mean(dim=0).sqrt().mean()),  # of several outputs their mean
}
R2 = "r2"
MOST_ERRORS = 100_000  # errors of a regression that are kept of a run: 400 kB; 32 times as many bits of right and wrong

TOP = 5
SHORT_ROW = 15  # classes: below the numbers that fit a register of 512 bits; 100 take seven times as long by columns


def loss(
    task: Task, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Mean loss of a batch: cross-entropy for classification, squared error for regression, whatever its metric.

    Of several labels an example it is the mean of the cross-entropies of each, whether it is there.

    Args:
        task: its kind decides.
        outputs: (b, M) logits or values; (b,) where M is 1.
        targets: (b,) int64 classes, or (b,) or (b, M) float values, or (b, M) float 0 and 1 of several labels.
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
    if task.kind == "multilabel":
        labels = targets.to(outputs.dtype)
        return functional.binary_cross_entropy_with_logits(outputs.reshape(labels.shape), labels, reduction=reduction)
    return functional.mse_loss(outputs.reshape(targets.shape), targets, reduction=reduction)


def metric(name: str, outputs: Tensor, targets: Tensor, num_outputs: int, positive: int = 1) -> float:
    """A metric over a whole split.

    Args:
        name: of classes: accuracy, balanced_accuracy (mean recall over the classes present), macro_f1 (mean F1 over all
            classes that are present or predicted), top5, roc_auc, average_precision, log_loss. Of labels: accuracy (of
            all labels), subset_accuracy (of examples whose labels are all right), macro_f1, roc_auc,
            average_precision, log_loss (means over the labels). Of values: mse, mae (mean squared or absolute error
            over all values), rmse (mean over the outputs of the root), r2 (likewise). Or one of the user's own.
        outputs: (n, M) logits or values.
        targets: (n,) int64 classes, (n, M) float labels of 0 and 1, or values like the outputs.
        num_outputs: M.
        positive: which of two classes roc_auc and average_precision look for.

    Returns:
        The metric; NaN if any output is not a finite number.

    Raises:
        ConfigError: it means nothing on this split, or one of the user's own gives something else than a number.
    """
    if not bool(torch.isfinite(outputs).all()):
        return float("nan")
    if name not in METRICS:
        return own_goal.metric(name, outputs, targets)
    if name in ERRORS or name == R2:
        values = targets.double()
        difference = outputs.reshape(targets.shape).double() - values
        return ERRORS[name](difference) if name in ERRORS else _explained(difference, values)
    if targets.dim() == 2:
        return float(_of_labels(name, outputs, targets))
    if name in ranking.CURVES:
        return ranking.over_classes(name, outputs.double(), targets, positive)
    return float(_of_classes(name, outputs, targets, num_outputs))


def _explained(difference: Tensor, values: Tensor) -> float:
    """R^2: the share of the variance of the values that is explained, a mean over several outputs."""
    around = (values - values.mean(dim=0)).square().sum(dim=0)
    if not bool((around > 0).all()):
        raise own_goal.refused(R2, "values that differ in every part", "one value alone")
    return float((1 - difference.square().sum(dim=0) / around).mean())


def _of_classes(name: str, outputs: Tensor, targets: Tensor, num_classes: int) -> Tensor | float:
    if name in ("top5", "log_loss"):
        return _each_of_classes(name, outputs, targets).double().mean()
    predicted = outputs.argmax(dim=1)
    if name == "accuracy":
        return (predicted == targets).double().mean()
    hits = torch.bincount(targets[predicted == targets], minlength=num_classes).double()
    present = torch.bincount(targets, minlength=num_classes).double()
    if name == "balanced_accuracy":
        return (hits / present)[present > 0].mean()
    assert name == "macro_f1", name
    either = present + torch.bincount(predicted, minlength=num_classes)
    return (2 * hits / either)[either > 0].mean()


def _of_labels(name: str, outputs: Tensor, targets: Tensor) -> Tensor | float:
    if name in ranking.CURVES:
        return ranking.over_labels(name, outputs.double(), targets)
    if name != "macro_f1":
        return _each_of_labels(name, outputs, targets).double().mean()
    predicted, present = outputs > 0, targets > 0
    hits = (predicted & present).sum(dim=0).double()
    either = (predicted.sum(dim=0) + present.sum(dim=0)).double()
    return (2 * hits / either)[either > 0].mean() if bool((either > 0).any()) else 0.0


def _each_of_classes(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) of which a metric of classes is the mean, or of accuracies over classes: bool, or float64 losses."""
    if name == "log_loss":
        return functional.cross_entropy(outputs.double(), targets, reduction="none")
    if name == "top5":
        return ranking.places(outputs, targets) < TOP
    return outputs.argmax(dim=1) == targets


def _each_of_labels(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) of which a metric of labels is the mean: bool, or float64."""
    if name == "log_loss":
        values = outputs.double()
        losses = functional.binary_cross_entropy_with_logits(values, targets.double(), reduction="none")
        return losses.mean(dim=1)
    is_right = (outputs > 0) == (targets > 0)
    return is_right.all(dim=1) if name == "subset_accuracy" else is_right.double().mean(dim=1)


def contributions(name: str, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """What each example adds to a metric over a split, so that others can say what other examples would have given.

    Args:
        name: of the metric, as for `metric`.
        outputs: (n, M) finite logits or values.
        targets: as for `metric`.

    Returns:
        On the CPU, (n,) bool: whether the class is right (of top5 among five, of subset_accuracy all labels), whose
        mean is the accuracy, and whose mean over the classes present of their means is the balanced accuracy. Of other
        metrics that are means (n,) float32, whose mean is the metric; None for more than `MOST_ERRORS`, which a study
        would write anew with each of its runs, and of metrics that are no means: ranks, roots, the user's own.
    """
    is_kept = name in METRICS and (bool(METRICS[name].mean_of) or (name == "macro_f1" and targets.dim() == 1))
    if not is_kept:
        return None
    if name in ERRORS:
        difference = (outputs.reshape(targets.shape).double() - targets.double()).reshape(len(targets), -1)
        each = (difference.square() if name == "mse" else difference.abs()).mean(dim=1)
    elif targets.dim() == 2:
        each = _each_of_labels(name, outputs, targets)
    else:
        each = _each_of_classes(name, outputs, targets)
    if each.dtype == torch.bool:
        return each.cpu()
    return each.float().cpu() if len(targets) <= MOST_ERRORS else None


def resolution(task: Task, targets: Tensor) -> float:
    """Smallest step of the task's metric over a split; 0 where it has none.

    A mean over classes moves in steps as small as those of accuracy. A ROC AUC has a step for each pair of a positive
    and a negative, far below any tolerance.
    """
    if not task.judged.has_steps:
        return 0.0
    is_each_label = targets.dim() == 2 and task.metric == "accuracy"
    return 1 / (targets.numel() if is_each_label else len(targets))


def chance(name: str, targets: Tensor, num_outputs: int, positive: int = 1) -> float | None:
    """The metric of the best constant answer, which a recipe that learned anything beats.

    For mse that is the mean, for mae the median; of log loss the frequencies; of ROC AUC it is 0.5, of average
    precision the share of positives, of R^2 0.

    Args:
        name: of the metric.
        targets: of the split, as for `metric`.
        num_outputs: M.
        positive: as for `metric`.

    Returns:
        None of a metric of the user's own: nobody knows which constant answer is its best, or whether it takes one.
    """
    if name not in METRICS:
        return None
    if name in ERRORS or name == R2:
        values = targets.double()
        best = values.median(dim=0).values if name == "mae" else values.mean(dim=0)
        return 0.0 if name == R2 else ERRORS[name](values - best)
    if targets.dim() == 2:
        return metric(name, _constant_labels(name, targets), targets, num_outputs)
    counts = torch.bincount(targets, minlength=num_outputs)
    if name == "log_loss":
        constant = counts.double().log().clamp(min=-1e3).expand(len(targets), -1)
        return metric(name, constant, targets, num_outputs)
    return metric(name, counts.double().expand(len(targets), -1), targets, num_outputs, positive)


def _constant_labels(name: str, targets: Tensor) -> Tensor:
    """(n, M) the same outputs for each example: the best by a metric, among those that do not look at the inputs."""
    shares = targets.double().mean(dim=0)
    if name == "log_loss":
        best = (shares / (1 - shares)).log().clamp(-1e3, 1e3)
    elif name == "macro_f1":
        best = torch.ones_like(shares)  # to name a label everywhere has an F1, to name it nowhere has none
    elif name == "subset_accuracy":
        rows, counts = targets.unique(dim=0, return_counts=True)
        best = rows[counts.argmax()].double() - 0.5
    else:
        best = shares - 0.5
    return best.expand(len(targets), -1)
