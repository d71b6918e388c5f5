"""Optimizers by name, made from the keys of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from subsettune.errors import ConfigError
from subsettune.plugins import call, load_object
from subsettune.task import Recipe

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adadelta": torch.optim.Adadelta,
}


def make(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters of a network.

    A user's `package.module:Class` is called with the parameters, `lr`, the options, with `momentum` and `nesterov`
    where the recipe sets them, and with `weight_decay` where it is not 0 or the class takes it.

    Raises:
        ConfigError: an option that the optimizer does not take, or refuses; an optimizer that needs a closure.
    """
    cls = OPTIMIZERS.get(recipe.optimizer) or load_object(recipe.optimizer, "optimizer")
    options: dict[str, Any] = {"lr": recipe.lr, **recipe.optimizer_options}
    if recipe.weight_decay:
        options["weight_decay"] = recipe.weight_decay
    if recipe.momentum is not None:
        options["momentum"] = recipe.momentum
    if recipe.nesterov:
        options["nesterov"] = True
    parameters = [p for p in network.parameters() if p.requires_grad]
    try:
        optimizer = call(
            cls, f"optimizer {recipe.optimizer!r}", {"params": parameters, **options}, {"weight_decay": 0.0}
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"optimizer {recipe.optimizer!r} refuses its options: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer {recipe.optimizer!r} must be a torch.optim.Optimizer, got {type(optimizer).__name__}."
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer {recipe.optimizer!r} needs a closure, which training here does not give.")
    return optimizer
