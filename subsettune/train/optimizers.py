"""Optimizers by name, made from the keys of a recipe, and the step of one that evaluates the loss itself."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, must, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.plugins import call
from subsettune.registry import OPTIMIZERS
from subsettune.task import Recipe
from subsettune.train.randomness import capture, restore


@dataclass(frozen=True, slots=True, kw_only=True)
class LbfgsOptions:
    """`optimizer_options` of lbfgs: those of torch, but with its line search on.

    The learning rate is the length that a line search tries first, 1 as a rule; in the very first step it is divided
    by the sum of the gradient's absolute values, if that exceeds 1. At a minimum an update is one evaluation, which
    moves nothing and is charged like any other. Source: Liu & Nocedal 1989, doi:10.1007/BF01589116.

    Args:
        max_iter: directions tried in one update.
        max_eval: evaluations after which an update ends; null for 5/4 of `max_iter`. Torch makes one more at most.
        history_size: curvature pairs kept, 2 P numbers each.
        tolerance_grad: an update ends where no entry of the gradient is larger.
        tolerance_change: an update ends where weights or loss change by less.
        line_search_fn: `strong_wolfe`, or null for steps of the learning rate's length.
    """

    max_iter: int = setting(20, rule=AT_LEAST_ONE)
    max_eval: int | None = setting(None, rule=AT_LEAST_ONE)
    history_size: int = setting(100, rule=AT_LEAST_ONE)
    tolerance_grad: float = setting(1e-7, rule=NOT_NEGATIVE)
    tolerance_change: float = setting(1e-9, rule=NOT_NEGATIVE)
    line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe"

    def __post_init__(self) -> None:
        config.check(self)


def make(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters of a network.

    A user's `package.module:name`, a class or a function, is called with `params`, the trainable parameters, or with
    `named_parameters`, pairs of a name and one of them, if it has an argument of that name; with `lr`, the options,
    with `momentum` and `nesterov` where the recipe sets them, and with `weight_decay` where it is not 0 or is taken.
    Groups with rates of their own keep their ratio to `lr`, see `Rates`.

    Raises:
        ConfigError: an option that the optimizer does not take, or refuses; or it leaves out trainable parameters, or
            has others than the network's.
    """
    cls = OPTIMIZERS.load(recipe.optimizer)
    asked = {"weight_decay": recipe.weight_decay, "momentum": recipe.momentum, "nesterov": recipe.nesterov or None}
    neutral = {key: value for key, value in asked.items() if value == 0}  # passed where the class takes it
    options = {"lr": recipe.lr, **_own_options(recipe), **{key: value for key, value in asked.items() if value}}
    given = _parameters_for(cls, network)
    try:
        optimizer = call(cls, f"optimizer {recipe.optimizer!r}", {**given, **options}, neutral)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer {recipe.optimizer!r} refuses its options: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer {recipe.optimizer!r} must be a torch.optim.Optimizer, got {type(optimizer).__name__}."
        )
    _check_parameters(optimizer, network, recipe.optimizer)
    return optimizer


def _parameters_for(cls: Any, network: nn.Module) -> dict[str, Any]:
    """What an optimizer is given to train, by the name of the argument."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    with contextlib.suppress(ValueError, TypeError):  # some built-in classes do not tell their arguments
        arguments = inspect.signature(cls).parameters
        if "named_parameters" in arguments:
            also = {"params": [p for _, p in named]} if "params" in arguments else {}
            return {"named_parameters": named, **also}
    return {"params": [p for _, p in named]}


def _check_parameters(optimizer: torch.optim.Optimizer, network: nn.Module, name: str) -> None:
    """Refuse an optimizer that trains other parameters than those of the network that can be trained."""
    theirs = {id(p) for group in optimizer.param_groups for p in group["params"]}
    ours = {id(p): path for path, p in network.named_parameters() if p.requires_grad}
    left_out = [path for key, path in ours.items() if key not in theirs]
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        raise ConfigError(
            f"optimizer {name!r} must have all trainable parameters, got none for {', '.join(left_out[:3])}{more}. "
            "Give them to it, with lr 0 perhaps, or set requires_grad to False where the network is built."
        )
    if theirs - {id(p) for p in network.parameters()}:
        advice = "Make it anew in each call, from the parameters that it is given."
        raise ConfigError(f"optimizer {name!r} must have no parameters but the network's, got others. {advice}")


class Rates:
    """Learning rates of an optimizer's groups, which keep the ratios to the recipe's that they were made with.

    A group that was made with a tenth of the recipe's `lr` always has a tenth of what the schedule says. A group that
    names no number, as of optimizers that find their own, follows the schedule as it is.

    Args:
        optimizer: as `make` gave it, before its first step.
        lr: that of the recipe.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        self._optimizer = optimizer
        self._ratios = [_ratio(group.get("lr"), lr) for group in optimizer.param_groups]

    def set(self, lr: float) -> None:
        """Give each group its rate for the next step.

        Args:
            lr: what the schedule says for the recipe's rate.
        """
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio


def _ratio(own: object, lr: float) -> float:
    rate = float(own) if isinstance(own, int | float | Tensor) else lr
    return 1.0 if rate == lr or not lr else rate / lr


def _own_options(recipe: Recipe) -> dict[str, Any]:
    """`optimizer_options`; those of lbfgs are checked here, for torch looks at them in the middle of a step."""
    if recipe.optimizer != "lbfgs":
        return dict(recipe.optimizer_options)
    try:
        return dict(config.to_plain(config.build(LbfgsOptions, recipe.optimizer_options)))
    except ConfigError as error:
        raise ConfigError(tuple(Mistake(("optimizer_options", *m.path), m.message) for m in error.mistakes)) from error


def check_batch_size(recipe: Recipe, num_examples: int) -> None:
    """Check that a full-batch method gets full batches.

    Raises:
        ConfigError: `batch_size` is below the number of training examples.
    """
    if recipe.optimizer == "lbfgs" and recipe.batch_size < num_examples:
        rule = f"at least {num_examples} with lbfgs, the number of training examples"
        advice = "It is a full-batch method: write a larger number, and every update takes its whole pool."
        raise ConfigError((Mistake(("batch_size",), must("batch_size", rule, recipe.batch_size, advice)),))


def least_evaluations(recipe: Recipe) -> int:
    """Evaluations that an update needs to change the weights: lbfgs looks where it is before it looks where to go."""
    return 2 if recipe.optimizer == "lbfgs" else 1


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` must be given a closure, because the optimizer evaluates the loss itself."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


class _StepCutError(Exception):
    """Thrown through a step that wants another evaluation and may not have it."""


class _Objective:
    """The closure of one step: counts its evaluations, and remembers the weights with the lowest loss.

    Every evaluation draws the same random numbers, so that a line search sees one function, dropout included.
    """

    def __init__(self, loss: Callable[[], Tensor], parameters: list[Tensor], most: int | None) -> None:
        self._loss, self._parameters, self._most = loss, parameters, most
        self._random = capture()
        self.evaluations, self.lowest = 0, math.inf
        self.first: Tensor | None = None
        self._best: list[Tensor] = []

    def evaluate(self) -> Tensor:
        """The loss, with its gradients in the parameters."""
        if self.evaluations == self._most:
            raise _StepCutError
        if self.first is not None:
            restore(self._random)
        with torch.enable_grad():
            loss = self._loss()
        self.evaluations += 1
        value = float(loss)
        if self.first is None:
            self.first = loss
            if not math.isfinite(value):
                raise _StepCutError  # the run ends here, and a search from here would lead nowhere
        if value < self.lowest:
            self.lowest, self._best = value, [p.detach().clone() for p in self._parameters]
        return loss

    def take_best(self) -> None:
        """Put the weights with the lowest loss back."""
        with torch.no_grad():
            for parameter, best in zip(self._parameters, self._best, strict=False):  # no loss was finite: no best
                parameter.copy_(best)


def search_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], most: int | None) -> tuple[Tensor, int]:
    """One step of an optimizer that evaluates the loss itself.

    `most` evaluations are never exceeded. Torch's LBFGS is told of them, and ends its line search at the better end of
    its bracket with its memory intact. Any other optimizer is interrupted before the evaluation that would exceed
    them: the weights with the lowest loss seen in the step are kept, and the optimizer's state, which is half a step
    old, is cleared.

    Args:
        optimizer: `needs_closure`.
        loss: computes the loss and its gradients at the weights as they are.
        most: evaluations allowed, at least 1; None for as many as the optimizer likes.

    Returns:
        The loss before the step, and the number of evaluations.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    objective = _Objective(loss, parameters, most)
    try:
        if isinstance(optimizer, torch.optim.LBFGS):
            with _limited(optimizer, most) as can_move:
                if can_move:
                    optimizer.step(_float(objective))
                else:
                    objective.evaluate()
        else:
            optimizer.step(_float(objective))
    except _StepCutError:
        objective.take_best()
        optimizer.state = defaultdict(dict)
    if objective.first is None:
        raise ConfigError(f"optimizer {type(optimizer).__name__} never called its closure. Call it in every step.")
    return objective.first, objective.evaluations


def _float(objective: _Objective) -> Callable[[], float]:
    return cast("Callable[[], float]", objective.evaluate)  # torch means a tensor, whatever its annotation says


@contextmanager
def _limited(optimizer: torch.optim.LBFGS, most: int | None) -> Iterator[bool]:
    """Let LBFGS make `most` evaluations; tells whether it can move, with two of them and a step of some length.

    Its line search may make one evaluation more than its `max_eval`, and divides by the length of the step.
    """
    group = optimizer.param_groups[0]
    own, spare = group["max_eval"], 0 if group["line_search_fn"] is None else 1
    if most is not None:
        group["max_eval"] = min(own, max(1, most - spare))
    try:
        yield most != 1 and group["lr"] > 0
    finally:
        group["max_eval"] = own


def change_objective(optimizer: torch.optim.Optimizer) -> None:
    """Tell LBFGS that the examples or the weights were changed from outside.

    Its next curvature pair would compare gradients of two different functions. A last step of length 0 makes it leave
    that pair out; the pairs that it has stay, until a transition clears them.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        for state in optimizer.state.values():
            if state.get("d") is not None:
                state["d"] = torch.zeros_like(state["d"])
