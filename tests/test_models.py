from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subsettune import models, task
from subsettune.errors import ConfigError, ModelError
from subsettune.task import Model


@pytest.fixture(autouse=True)
def _forked_random_state() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make(name: str, shape: tuple[int, ...] = (1, 8, 8), outputs: int = 10, **options: Any) -> nn.Module:
    return models.make(Model(name=name, options=options), shape, outputs)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: make("mlp"), 64 * 64 + 64 + 64 * 10 + 10),
        (lambda: make("mlp", hidden=[]), 64 * 10 + 10),
        (lambda: make("mlp", (5,), 1, hidden=[7, 3]), 5 * 7 + 7 + 7 * 3 + 3 + 3 + 1),
        (lambda: make("cnn", channels=[4, 8], hidden=16), 4 * 9 + 4 + 4 * 8 * 9 + 8 + 32 * 16 + 16 + 16 * 10 + 10),
        (lambda: make("resnet18", (3, 32, 32), 100), 11_173_962 + 90 * 513),
    ],
)
def test_number_of_parameters(network: Any, parameters: int) -> None:
    assert models.num_parameters(network()) == parameters


def test_dropout_is_an_option() -> None:
    for name in ("mlp", "cnn"):
        drops = [module.p for module in make(name, dropout=0.25).modules() if isinstance(module, nn.Dropout)]
        assert drops == [0.25]


def test_resnet18_is_torchvision_s_with_another_stem() -> None:
    from torchvision.models import resnet18

    ours, theirs = make("resnet18", (3, 32, 32), 1000), resnet18(weights=None)
    stem = "conv1.weight"
    shapes = [{name: tuple(v.shape) for name, v in net.state_dict().items() if name != stem} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.get_parameter(stem).shape == (64, 3, 3, 3)
    features = nn.Sequential(ours.conv1, ours.bn1, ours.relu, ours.maxpool)(torch.zeros(2, 3, 32, 32))  # type: ignore[arg-type]
    assert features.shape == (2, 64, 32, 32)


def test_initialisation_follows_torch_s_random_state() -> None:
    first = make("mlp").state_dict()
    torch.manual_seed(0)
    second = make("mlp").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- a user's own -----------------------------------------------------------------------------------------------------


def bare() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def sized(num_outputs: int, *, width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_outputs))


def frozen() -> nn.Module:
    return bare().requires_grad_(False)


def lazy() -> nn.Module:
    return nn.LazyLinear(10)


def failing() -> nn.Module:
    raise KeyError("weights.bin")


def nothing() -> None:
    pass


number = 3


def test_a_user_s_function_gets_what_it_takes() -> None:
    assert models.num_parameters(make("test_models:bare")) == 650
    assert models.num_parameters(make("test_models:sized", outputs=4, width=5)) == 65 * 5 + 6 * 4
    assert models.num_parameters(make("test_models:sized", outputs=4, num_outputs=2)) == 65 * 3 + 4 * 2


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "mlp",
            {"hiden": [3]},
            ConfigError,
            "model 'mlp' does not fit its options: got an unexpected keyword argument",
        ),
        (
            "mlp",
            {"hidden": 64},
            ConfigError,
            "hidden must be a list of positive whole numbers, got 64. Write e.g. [64].",
        ),
        ("mlp", {"hidden": [0]}, ConfigError, "hidden must be a list of positive whole numbers, got (0,)."),
        (
            "mlp",
            {"dropout": 2},
            ConfigError,
            "model 'mlp' cannot be built with {'dropout': 2}: dropout probability has",
        ),
        (
            "cnn",
            {"channels": [8] * 4},
            ModelError,
            "cnn halves the image 4 times, which 8x8 pixels do not allow. Use f",
        ),
        ("cnn", {"hidden": 0}, ConfigError, "hidden must be a positive whole number, got 0. Write e.g. 64."),
        ("test_models:sized", {"depth": 1}, ConfigError, "It takes: width."),
        ("test_models:frozen", {}, ModelError, "model 'test_models:frozen' has no trainable parameters. Give it some."),
        ("test_models:lazy", {}, ModelError, "model 'test_models:lazy' has lazy layers, whose size is not known. Give"),
        ("test_models:failing", {}, ConfigError, "model 'test_models:failing' cannot be built with {}: 'weights.bin'."),
        (
            "test_models:nothing",
            {},
            ModelError,
            "model 'test_models:nothing' must return a torch.nn.Module, got NoneType",
        ),
        ("test_models:number", {}, ConfigError, "model 'test_models:number' must be a function or a class, got int."),
        (
            "test_models:absent",
            {},
            ConfigError,
            "model 'test_models:absent' cannot be found: module 'test_models' has no",
        ),
        ("no_such_module:net", {}, ConfigError, "model 'no_such_module:net' cannot be imported: No module named"),
    ],
)
def test_models_that_cannot_be_made(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make(name, **options)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_images_are_needed(name: str) -> None:
    with pytest.raises(ModelError, match=rf"^model '{name}' needs images .*, got inputs of shape \(64,\).$"):
        make(name, (64,))


def test_names() -> None:
    assert tuple(models.BUILDERS) == task.MODELS
    with pytest.raises(
        ConfigError, match=r"name must be a known model or package.module:name, got 'vgg'. Known: cnn, mlp"
    ):
        Model(name="vgg")


@pytest.mark.parametrize(("shape", "num_outputs"), [((2, 3), 3), ((2,), 1), ((2, 1), 1)])
def test_outputs_that_fit(shape: tuple[int, ...], num_outputs: int) -> None:
    models.check_output(torch.zeros(shape), 2, num_outputs, "m")


@pytest.mark.parametrize("output", [torch.zeros(2), torch.zeros(3, 2), torch.zeros(2, 3, 1), [1.0]])
def test_outputs_that_do_not_fit(output: Tensor) -> None:
    with pytest.raises(ModelError, match="model 'm' must "):
        models.check_output(output, 2, 3, "m")


def test_parameters_are_counted_once() -> None:
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight  # type: ignore[assignment]
    assert models.num_parameters(tied) == 9 + 3 + 3
    assert models.num_parameters(nn.BatchNorm1d(5)) == 10  # running statistics are buffers
