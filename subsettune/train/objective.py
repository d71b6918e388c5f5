"""What a run minimises: the task's loss with the recipe's class weights and label smoothing, or the user's own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from subsettune.config import must
from subsettune.data import TaskData
from subsettune.errors import ConfigError, Mistake
from subsettune.task import Recipe, Task
from subsettune.train import metrics, own_goal

Form = Literal["", "each", "mean"]  # what a loss of the user's own gives; empty for ours


class Objective:
    """The loss of a run. Targets are those that the network is trained on: of a regression standardised.

    Args:
        task: whose loss.
        recipe: with the policy's overrides.
        data: of the task; classes are weighed by its training part.
        device: of outputs and targets.

    Raises:
        ConfigError: there is not a weight for each class.
    """

    def __init__(self, task: Task, recipe: Recipe, data: TaskData, device: torch.device) -> None:
        self.task, self.smoothing = task, recipe.label_smoothing
        weights = class_weights(recipe, data)
        self.class_weights = None if weights is None else weights.to(device)

    def mean(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """() mean loss of a batch.

        Args:
            outputs: (b, M) float32.
            targets: (b,) or (b, M).
            weights: (b,) of the examples, 1 on average over the pool; None for equal ones.

        Raises:
            ConfigError: a loss of the user's own gives no losses of examples to weigh.
        """
        if self.task.loss is None and self.class_weights is None:
            return metrics.loss(self.task, outputs, targets, self.smoothing, weights)
        if self.task.loss is not None and weights is None:
            return self._own(outputs, targets).mean()
        losses = self.each(outputs, targets)
        return (losses if weights is None else losses * weights).mean()

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) losses of the examples of a batch; arguments and errors as of `mean`."""
        if self.task.loss is not None:
            losses = self._own(outputs, targets)
            if losses.dim() == 0:
                raise ConfigError(only_a_mean(self.task.loss))
            return losses
        return self._weighed(metrics.losses(self.task, outputs, targets, self.smoothing), targets)

    def each_of_many(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `each`, to within rounding, of so many examples that time counts."""
        if self.task.loss is not None:
            return self.each(outputs, targets)
        return self._weighed(metrics.losses_of_many(self.task, outputs, targets, self.smoothing), targets)

    def plain_mean(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean loss with equal weights and without smoothing."""
        if self.task.loss is not None:
            return float(self._own(outputs, targets).mean())
        return float(metrics.loss(self.task, outputs, targets))

    def _own(self, outputs: Tensor, targets: Tensor) -> Tensor:
        assert self.task.loss is not None
        fitted = outputs if self.task.kind == "classification" else outputs.reshape(targets.shape)
        return own_goal.losses(self.task.loss, fitted, targets)

    def _weighed(self, losses: Tensor, targets: Tensor) -> Tensor:
        return losses if self.class_weights is None else losses * self.class_weights[targets]


def class_weights(recipe: Recipe, data: TaskData) -> Tensor | None:
    """(C,) float32 factors of the losses of each class, 1 on average over the training part; None for equal ones.

    `balanced` gives a class n / (C n_c): all classes then count the same.

    Raises:
        ConfigError: there is not a weight for each class.
    """
    asked, counts = recipe.class_weights, data.class_counts.double()
    if asked is None:
        return None
    if asked == "balanced":
        return (counts.sum() / (len(counts) * counts)).float()
    if len(asked) != len(counts):
        names = ", ".join(data.class_names[:5]) + (", ..." if len(counts) > 5 else "")
        advice = f"The classes are {names}."
        message = must("class_weights", f"a list of {len(counts)} numbers, one a class", list(asked), advice)
        raise ConfigError((Mistake(("class_weights",), message),))
    given = torch.tensor(asked, dtype=torch.float64)
    return (given * (counts.sum() / (given * counts).sum())).float()


def positive_class(task: Task, names: tuple[str, ...]) -> int:
    """Which class roc_auc and average_precision look for, of two: the one that the task names, else the second.

    Args:
        task: whose metric it is.
        names: of the classes; empty where there are none.

    Raises:
        ConfigError: the task names none of two.
    """
    if task.positive is None:
        return 1
    if len(names) != 2 or str(task.positive) not in names:
        rule = f"one of two classes, and there are {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
        raise ConfigError(must("positive", rule, task.positive, "Name one of two, or leave it out."))
    return names.index(str(task.positive))


def only_a_mean(loss: str) -> str:
    """The sentence on a loss of the user's own where losses of examples are needed."""
    return (
        f"loss {loss!r} must give a loss for each example, (b,), to be weighed or compared, and gives their mean. "
        "Return the losses without taking their mean, or leave out what needs them."
    )
