from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import image_task, options, same_bits, two_phases
from torch import nn

from subsettune import train
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy, Soup
from subsettune.task import Recipe
from subsettune.train import optimizers
from subsettune.train.result import RunResult


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


# --- groups ----------------------------------------------------------------------------------------------------------

HERE = "tests.train.test_optimizers"
SEEN: list[tuple[float, ...]] = []  # rates of the groups at each step; no number of a run depends on it


def two_rates(named_parameters: list[tuple[str, nn.Parameter]], lr: float, *, ratio: float = 0.1) -> Any:
    """The first layer at a share of the rate, and without momentum."""
    first = [p for name, p in named_parameters if name.startswith(("0.", "1."))]
    rest = [p for name, p in named_parameters if not name.startswith(("0.", "1."))]
    groups = [{"params": first, "lr": lr * ratio, "weight_decay": 0.5}, {"params": rest, "momentum": 0.9}]
    return Watched([group for group in groups if group["params"]], lr=lr)


class Watched(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        SEEN.append(tuple(group["lr"] for group in self.param_groups))
        return super().step(closure)


def equal_groups(params: Any, lr: float, **settings: Any) -> torch.optim.Optimizer:
    """SGD in two groups that differ in nothing."""
    params = list(params)
    return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:]}], lr=lr, **settings)


def both_arguments(params: Any, named_parameters: Any, lr: float) -> torch.optim.Optimizer:
    assert [p for _, p in named_parameters] == list(params)
    return torch.optim.SGD(params, lr=lr)


def without_first(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(params)[1:], lr=lr)


def with_another_s(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([*params, nn.Parameter(torch.zeros(1))], lr=lr)


@pytest.mark.parametrize("rate", [0.5, 0.03])
def test_rates_keep_their_ratio_to_the_recipe_s(rate: float) -> None:
    optimizer = make(optimizer=f"{HERE}:two_rates", lr=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05]  # the second layer is frozen
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 1.0})
    rates = optimizers.Rates(optimizer, 0.5)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    rates.set(rate)
    assert [g["lr"] for g in optimizer.param_groups] == [pytest.approx(0.1 * rate), 2 * rate]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
        group["weight_decay"] = 0.0
    optimizer.step()
    after = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    for old, new, factor in zip(before, after, [0.1, 0.1, 2.0], strict=True):
        torch.testing.assert_close(new, old - factor * rate)  # a step of SGD on a gradient of ones


@pytest.mark.parametrize("own", [0.5, torch.tensor(0.5), None])
def test_a_group_at_the_recipe_s_rate_or_at_none_follows_the_schedule_to_the_bit(own: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0]["lr"] = own
    rates = optimizers.Rates(optimizer, 0.5)
    for rate in (0.1, 1 / 3, 7e-5):
        rates.set(rate)
        assert optimizer.param_groups[0]["lr"] == rate


def test_functions_may_take_both() -> None:
    assert len(make(optimizer=f"{HERE}:both_arguments").param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "without_first",
            r"must have all trainable parameters, got none for 0\.weight\. Give them to it, with lr 0 perhaps, or set "
            r"requires_grad to False where the network is built\.$",
        ),
        ("with_another_s", r"must have no parameters but the network's, got others\. Make it anew in each call"),
    ],
)
def test_groups_hold_all_that_is_trained_and_nothing_else(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(optimizer=f"{HERE}:{name}")


def mlp_run(data: dict[str, str], policy: Policy, optimizer: str, **changes: Any) -> RunResult:
    task = image_task(data, {"name": "mlp", "hidden": [8]}, optimizer=optimizer, momentum=None, schedule="cosine")
    return train.run(task, policy, 0, options=options(keep_model=True, **changes))


TRANSITIONS: list[Any] = ["keep", "reset_optimizer", "shrink_perturb", "prune"]


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_groups_keep_their_ratio_through_a_transition(tiny_data: dict[str, str], transition: str) -> None:
    SEEN.clear()
    result = mlp_run(tiny_data, two_phases(1, 2, transition=transition), f"{HERE}:two_rates")
    assert result.cause == "finished"
    seen = SEEN[-result.updates :]  # before them stand the steps of the trial
    assert len({rate for _, rate in seen}) > 10, "the schedule moves"
    for first, rest in seen:
        assert first == pytest.approx(0.1 * rest)


def test_equal_groups_are_the_bits_of_one(tiny_data: dict[str, str]) -> None:
    policy = two_phases(1, 1, transition="shrink_perturb")
    one, two = (mlp_run(tiny_data, policy, name) for name in ("sgd", f"{HERE}:equal_groups"))
    assert one.model is not None
    assert two.model is not None
    assert same_bits(one.model, two.model)


def test_groups_are_the_same_after_a_resume(tiny_data: dict[str, str], tmp_path: Path) -> None:
    """Stopped at the middle of the curve, and gone on with: the bits of the run that was never stopped."""
    task = image_task(tiny_data, optimizer=f"{HERE}:two_rates", momentum=None, schedule="cosine")
    policy, settings = two_phases(1, 1), options(keep_model=True, checkpoints=str(tmp_path))
    whole = train.run(task, policy, 0, options=options(keep_model=True)).model
    assert train.run(task, policy, 0, report=lambda p: p.share > 0.4, options=settings).cause == "stopped"
    rest = train.run(task, policy, 0, options=settings)
    assert whole is not None
    assert rest.model is not None
    assert same_bits(whole, rest.model)


def test_workers_of_a_soup_keep_the_ratio(tiny_data: dict[str, str]) -> None:
    SEEN.clear()
    policy = Policy(phases=(Phase(passes=1, soup=Soup(workers=2)), Phase(passes=1)))
    assert mlp_run(tiny_data, policy, f"{HERE}:two_rates").cause == "finished"
    assert len(SEEN) > 4
    for first, rest in SEEN:
        assert first == pytest.approx(0.1 * rest)
