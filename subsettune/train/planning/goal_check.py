"""Whether a task can be judged and trained as it says: tried on its data before the first step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from subsettune.config import must
from subsettune.data import Part, TaskData
from subsettune.errors import ConfigError
from subsettune.goal import loss_mistakes
from subsettune.registry import METRICS, OWN_METRICS
from subsettune.task import Recipe, Task
from subsettune.text import share_words
from subsettune.train import metrics, objective, own_goal
from subsettune.train.randomness import generator
from subsettune.train.ranking import CURVES, check_labels

TRIED = 8  # examples that a loss of the user's own is tried on
SPLITS = ("validation", "test")


def check(task: Task, data: TaskData) -> objective.Form:
    """Check that the metric and the loss of a task mean something on its data.

    Returns:
        What a loss of the user's own gives: `each` or `mean`; empty for ours.

    Raises:
        ConfigError: they do not, or code of the user's own fails, or gives what it must not.
    """
    objective.class_weights(task.recipe, data)
    objective.positive_class(task, data.class_names)
    if task.metric == "top5" and data.num_classes <= metrics.TOP:
        rule = f"another for {data.num_classes} classes, of which the right one is always among five"
        raise ConfigError(must("metric", rule, task.metric, "Choose accuracy."))
    if task.metric not in METRICS:
        OWN_METRICS.load(task.metric)
    for split in SPLITS:
        _check_split(task, getattr(data, split), split)
    return "" if task.loss is None else _form(task, task.loss, data)


def check_recipe(task: Task, recipe: Recipe) -> None:
    """Check a recipe with a policy's overrides against the loss.

    Raises:
        ConfigError: it sets what the loss has not.
    """
    given = {"label_smoothing": recipe.label_smoothing > 0, "class_weights": recipe.class_weights is not None}
    if any(given.values()) and (mistakes := tuple(loss_mistakes(task.loss, task.kind, given))):
        raise ConfigError(mistakes)


def notes(task: Task, data: TaskData) -> tuple[str, ...]:
    """Sentences on what the goal of a task leaves open."""
    said = []
    if task.metric == "average_precision" and data.num_classes == 2 and task.positive is None:
        other, found = data.class_names
        share = float(data.class_counts[1] / data.class_counts.sum())
        said.append(
            f"average_precision looks for class {found!r}, which {share_words(share)} of the training examples are. "
            f"For {other!r} write positive: {other}."
        )
    if task.metric not in METRICS:
        said.append(
            f"{task.metric} is a metric of your own: nobody knows what a constant answer is worth by it, so that the "
            "recipe is not held against one, and errors are not compared."
        )
    if task.recipe.ema is not None:
        said.append("Averaging the weights (ema) is charged no FLOPs: it is a few operations a weight and update.")
    return tuple(said)


def _check_split(task: Task, part: Part, split: str) -> None:
    """Check that the metric means something on a split.

    Raises:
        ConfigError: it does not.
    """
    targets = part.targets
    try:
        if task.kind == "multilabel" and task.metric in CURVES:
            check_labels(task.metric, targets > 0)
        if task.metric == metrics.R2 or task.metric not in METRICS:
            metrics.metric(task.metric, _made_up(task, targets), targets, 1)
    except ConfigError as error:
        raise ConfigError(f"{error} That is of the {split} part.") from error


def _made_up(task: Task, targets: Tensor) -> Tensor:
    """Outputs at random, as a network would give them for a split."""
    rng = generator(0)
    if task.kind == "classification":
        return torch.randn(len(targets), int(targets.max()) + 1, generator=rng)
    noise = torch.randn(targets.shape, generator=rng)
    if task.kind == "multilabel":
        return noise
    values = targets.double()
    return (values.mean(dim=0) + values.std(dim=0) * noise).to(targets.dtype)


def _form(task: Task, loss: str, data: TaskData) -> objective.Form:
    """Try the loss of the user's own on some examples, forward and backward.

    Raises:
        ConfigError: it fails, is not a finite number, or cannot be differentiated.
    """
    index = torch.arange(TRIED) % len(data.train)
    _, targets = data.train.batch(index)
    if task.kind == "regression":
        targets = ((targets - data.target_mean) / data.target_std).float()
    shape = (TRIED, data.num_outputs) if task.kind == "classification" else tuple(targets.shape)
    outputs = torch.randn(shape, generator=generator(0)).requires_grad_()
    with torch.enable_grad():
        losses = own_goal.losses(loss, outputs, targets)
        mean = losses.mean()
        if not math.isfinite(float(mean.detach())):
            advice = "It was tried on outputs at random, around 0. Mend the function."
            raise ConfigError(must(f"loss {loss!r}", "a finite number", float(mean.detach()), advice))
        if not mean.requires_grad:
            advice = "Compute it with torch from the outputs, without detach or NumPy."
            raise ConfigError(must(f"loss {loss!r}", "differentiable by the outputs", "one without a gradient", advice))
        (slope,) = torch.autograd.grad(mean, outputs)
    if not bool(slope.isfinite().all()):
        advice = "It was tried on outputs at random, around 0. Mend the function."
        raise ConfigError(must(f"gradient of loss {loss!r}", "finite", "NaN or infinity", advice))
    return "mean" if losses.dim() == 0 else "each"
