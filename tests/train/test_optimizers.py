from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from subsettune.errors import ConfigError
from subsettune.task import Recipe
from subsettune.train import optimizers


def make(**recipe: Any) -> torch.optim.Optimizer:
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    return optimizers.make(Recipe(**{"lr": 0.5, "batch_size": 8, "epochs": 1, **recipe}), network)


class Own(torch.optim.SGD):
    """A user's own, which takes neither weight decay nor momentum."""

    def __init__(self, params: Any, lr: float, *, strength: float = 1.0) -> None:
        super().__init__(params, lr=lr * strength)


@pytest.mark.parametrize(
    ("recipe", "kind", "settings"),
    [
        (
            {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            torch.optim.SGD,
            {"lr": 0.5, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        ),
        ({}, torch.optim.SGD, {"momentum": 0, "weight_decay": 0}),
        ({"optimizer": "adam", "optimizer_options": {"betas": [0.8, 0.95]}}, torch.optim.Adam, {"betas": (0.8, 0.95)}),
        ({"optimizer": "adam", "momentum": 0}, torch.optim.Adam, {"weight_decay": 0}),
        ({"optimizer": "adamw"}, torch.optim.AdamW, {"weight_decay": 0}),
        ({"optimizer": "adadelta", "weight_decay": 0.1}, torch.optim.Adadelta, {"weight_decay": 0.1}),
        ({"optimizer": "torch.optim:RMSprop", "momentum": 0.5}, torch.optim.RMSprop, {"momentum": 0.5}),
        ({"optimizer": "torch.optim:Rprop", "momentum": 0}, torch.optim.Rprop, {"lr": 0.5}),
        (
            {"optimizer": "tests.train.test_optimizers:Own", "optimizer_options": {"strength": 4}},
            torch.optim.SGD,
            {"lr": 2.0},
        ),
        (
            {"optimizer": "lbfgs"},
            torch.optim.LBFGS,
            {"lr": 0.5, "line_search_fn": "strong_wolfe", "max_iter": 20, "max_eval": 25, "history_size": 100},
        ),
        (
            {"optimizer": "lbfgs", "optimizer_options": {"line_search_fn": None, "max_iter": 8, "tolerance_grad": 0}},
            torch.optim.LBFGS,
            {"line_search_fn": None, "max_iter": 8, "max_eval": 10, "tolerance_grad": 0.0, "tolerance_change": 1e-9},
        ),
    ],
)
def test_settings_reach_the_optimizer(recipe: dict[str, Any], kind: type, settings: dict[str, Any]) -> None:
    optimizer = make(**recipe)
    assert isinstance(optimizer, kind)
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in settings} == settings
    assert [tuple(p.shape) for p in group["params"]] == [(2, 3), (2,)]  # frozen ones are left out


@pytest.mark.parametrize(
    ("name", "needs"),
    [("sgd", False), ("adam", False), ("lbfgs", True), ("torch.optim:LBFGS", True), ("torch.optim:RMSprop", False)],
)
def test_who_needs_a_closure(name: str, needs: bool) -> None:
    assert optimizers.needs_closure(make(optimizer=name)) is needs


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"weight_decay": 1e-4},
            "^weight_decay: weight_decay does not fit lbfgs, which searches along the gradient of the loss itself. "
            "Write 0.$",
        ),
        (
            {"grad_clip": 1.0},
            "^grad_clip: grad_clip does not fit lbfgs, which searches along the gradient of the loss itself. "
            "Write null.$",
        ),
        ({"momentum": 0.9}, "^momentum: momentum means nothing to lbfgs. Leave it out, or use optimizer_options.$"),
    ],
)
def test_what_does_not_fit_lbfgs(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(optimizer="lbfgs", lr=1, batch_size=10, epochs=1, **recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"optimizer_options": {"beta": 1}},
            "^optimizer 'sgd' does not fit its options: got an unexpected keyword argument 'beta'. It takes: params",
        ),
        (
            {"optimizer": "adam", "optimizer_options": {"betas": [2, 2]}},
            "^optimizer 'adam' refuses its options: Invalid beta parameter at index 0: 2",
        ),
        (
            {"optimizer": "tests.train.test_optimizers:Own", "momentum": 0.9},
            "^optimizer 'tests.train.test_optimizers:Own' does not fit its options: got an unexpected keyword argument",
        ),
        (
            {"optimizer": "torch.optim:LBFGSs"},
            "^optimizer 'torch.optim:LBFGSs' cannot be found: .* Check the name after",
        ),
        (
            {"optimizer": "lbfgs", "batch_size": 10**6, "optimizer_options": {"max_iters": 3}},
            "^optimizer_options.max_iters: unknown key. Did you mean 'max_iter'[?] Known keys: history_size, line_",
        ),
        (
            {"optimizer": "lbfgs", "batch_size": 10**6, "optimizer_options": {"line_search_fn": "armijo"}},
            "^optimizer_options.line_search_fn: line_search_fn must be one of strong_wolfe, got 'armijo'",
        ),
        (
            {"optimizer": "lbfgs", "batch_size": 10**6, "optimizer_options": {"max_eval": 0}},
            "^optimizer_options.max_eval: max_eval must be at least 1, got 0.$",
        ),
        (
            {"optimizer": "builtins:dict"},
            "^optimizer 'builtins:dict' must be a torch.optim.Optimizer, got dict.$",
        ),
    ],
)
def test_wrong_optimizers(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**recipe)
