"""Optimizers by name, made from the keys of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

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
    asked = {"weight_decay": recipe.weight_decay, "momentum": recipe.momentum, "nesterov": recipe.nesterov or None}
    neutral = {key: value for key, value in asked.items() if value == 0}  # passed where the class takes it
    options = {"lr": recipe.lr, **recipe.optimizer_options, **{key: value for key, value in asked.items() if value}}
    parameters = [p for p in network.parameters() if p.requires_grad]
    try:
        optimizer = call(cls, f"optimizer {recipe.optimizer!r}", {"params": parameters, **options}, neutral)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer {recipe.optimizer!r} refuses its options: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer {recipe.optimizer!r} must be a torch.optim.Optimizer, got {type(optimizer).__name__}."
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer {recipe.optimizer!r} needs a closure, which training here does not give.")
    return optimizer
