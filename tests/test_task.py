from __future__ import annotations

from typing import Any

import pytest

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.task import RECIPE_KEYS, Model, Recipe, Task

RECIPE = {"lr": 0.1, "batch_size": 64, "epochs": 30}
RAW: dict[str, Any] = {
    "data": {"source": "digits"},
    "split": {"validation": 0.1, "test": 0.2, "seed": 0},
    "model": {"name": "mlp", "hidden": [64]},
    "recipe": {**RECIPE, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"},
    "metric": "accuracy",
    "tolerance": 0.01,
}


def task(**changes: Any) -> Task:
    return config.build(Task, {**RAW, **changes})


def test_plain_form_comes_back() -> None:
    made = task()
    plain = config.to_plain(made)
    assert plain["model"] == {"name": "mlp", "hidden": [64]}
    assert config.build(Task, plain) == made
    assert config.build(Task, plain).key == made.key
    assert task(tolerance=0.02).key != made.key


def test_what_changes_nothing_is_in_no_key() -> None:
    """Keys name caches and checkpoints on disk: this one is that of the task before it could hold any of these."""
    key = "9ecd74e95fbc18c23c8e9bf1290397bc856e25db3138c19a0f4d16b575ecb0b5"
    assert task().key == key
    for neutral in ({}, {"seed": 3}, {"repeat_share": 0.5, "repeat_times": 1}, {"repeat_times": 9}):
        assert task(distortion=neutral).key == key
    assert task(data={"source": "digits", "categorical": [], "embeddings": None}).key == key
    others = [
        task(distortion={"flip_labels": 0.1}),
        task(distortion={"flip_labels": 0.1, "seed": 1}),
        task(distortion={"repeat_share": 0.1}),
        task(data={"source": "a.parquet"}),
        task(data={"source": "a.parquet", "categorical": ["a"]}),
        task(data={"source": "a.parquet", "embeddings": "a"}),
    ]
    assert len({key, *(other.key for other in others)}) == 7
    for other in others:
        assert config.build(Task, config.to_plain(other)) == other


def test_targets_follow_the_direction_of_the_metric() -> None:
    accuracy = task()
    assert (accuracy.kind, accuracy.higher_is_better, accuracy.target(0.9)) == ("classification", True, 0.89)
    for metric in ("mse", "mae"):
        error = task(metric=metric, tolerance=2.0)
        assert (error.kind, error.higher_is_better, error.target(5)) == ("regression", False, 7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tolerance": 1}, "tolerance: tolerance must be below 1, got 1.0. Write 0.01 for 1 %."),
        ({"tolerance": 0}, "tolerance: tolerance must be positive, got 0.0."),
        (
            {"metric": "auc"},
            "mse, mae, rmse, r2 or package.module:function, got 'auc'. Did you mean 'roc_auc'?",
        ),
        (
            {"split": {"validation": 0.5, "test": 0.5}},
            "split: validation + test must be below 1. Leave some examples to",
        ),
        ({"split": {"validation": 10}}, "split.validation: validation must be in (0, 1), got 10.0. It is a fraction"),
        ({"data": {"source": "minst"}}, "data.source: source must be a data set, a path"),
        ({"data": {"source": "minst"}}, "Known data sets: digits, mnist, fashion_mnist, cifar10, cifar100."),
        ({"model": {"hidden": [3]}}, "model: key 'name' is missing."),
        (
            {"metric": "mse", "recipe": {**RECIPE, "label_smoothing": 0.1}},
            "recipe.label_smoothing: label_smoothing means nothing to regression.",
        ),
        (
            {"recipe": {**RECIPE, "optimizer": "adam", "momentum": 0.9, "nesterov": True}},
            "recipe.momentum: momentum means nothing to adam. Leave it out, or use optimizer_options.\n"
            "recipe.nesterov: nesterov means nothing to adam.",
        ),
        (
            {"metric": "mae", "distortion": {"flip_labels": 0.1}},
            "distortion.flip_labels: flip_labels means nothing to regression, which has no classes. Remove the key.",
        ),
        ({"distortion": {"flip_labels": 1}}, "distortion.flip_labels: flip_labels must be in [0, 1), got 1.0."),
        (
            {"distortion": {"repeat_share": 2}},
            "distortion.repeat_share: repeat_share must be in [0, 1], got 2.0. It is",
        ),
        ({"distortion": {"repeat_times": 0}}, "distortion.repeat_times: repeat_times must be at least 1, got 0."),
        ({"distortion": {"flips": 0.1}}, "distortion.flips: unknown key. Did you mean 'flip_labels'? Known keys: "),
        ({"recipe": {**RECIPE, "nesterov": True}}, "recipe.nesterov: nesterov needs momentum. Set momentum, e.g. 0.9."),
        ({"recipe": {**RECIPE, "momentum": 1}}, "recipe.momentum: momentum must be in [0, 1), got 1.0."),
        (
            {"recipe": {**RECIPE, "schedule": "linear"}},
            "recipe.schedule: schedule must be one of constant, step, cosine",
        ),
        ({"recipe": {**RECIPE, "optimizer": "lion"}}, "Known: adadelta, adam, adamw, lbfgs, sgd."),
        (
            {"recipe": {**RECIPE, "precision": "float16"}},
            "precision must be one of float32, bfloat16, auto, got 'float16'",
        ),
        ({"recipe": {**RECIPE, "momentun": 1}}, "recipe.momentun: unknown key. Did you mean 'momentum'?"),
        (
            {"recipe": {"lr": -1, "batch_size": 0, "epochs": 0}},
            "recipe.lr: lr must be positive, got -1.0.\nrecipe.batch_s",
        ),
    ],
)
def test_wrong_tasks(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(**changes)
    assert expected in str(caught.value)


def test_recipes_are_overridden_key_by_key() -> None:
    recipe = Recipe(**RECIPE, momentum=0.9, nesterov=True, weight_decay=0.1)
    changed = recipe.override({"lr": 1, "augment": {"flip": True}})
    assert (changed.lr, changed.augment.flip, changed.momentum, changed.weight_decay) == (1.0, True, 0.9, 0.1)
    assert recipe.override({}) == recipe
    assert "epochs" not in RECIPE_KEYS


def test_another_optimizer_drops_what_only_the_old_one_understood() -> None:
    recipe = Recipe(**RECIPE, momentum=0.9, nesterov=True, optimizer_options={"dampening": 0})
    adam = recipe.override({"optimizer": "adam"})
    assert (adam.momentum, adam.nesterov, adam.optimizer_options) == (None, False, {})
    assert recipe.override({"optimizer": "sgd"}) == recipe


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 3}, "epochs: epochs cannot be overridden: the budget of a policy replaces it."),
        ({"warmup": 3}, "warmup: unknown key. Known keys: augment, batch_size"),
        ({"lr": 0}, "lr: lr must be positive, got 0."),
    ],
)
def test_wrong_overrides(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe(**RECIPE).override(changes)
    assert expected in str(caught.value)


def test_options_of_a_model_may_be_given_either_way() -> None:
    assert config.build(Model, {"name": "mlp", "hidden": [3]}) == Model(name="mlp", options={"hidden": [3]})
    assert config.build(Model, {"name": "mlp", "options": {"hidden": [3]}}) == Model(
        name="mlp", options={"hidden": [3]}
    )


def own_loss(outputs: object, targets: object) -> object:
    """Handed over in Python."""
    raise NotImplementedError


def test_functions_are_handed_over_in_python() -> None:
    name = f"{__name__}:own_loss"
    raw = {"data": {"source": "digits"}, "model": {"name": "mlp"}, "tolerance": 0.01}
    raw["recipe"] = {"lr": 0.1, "batch_size": 8, "epochs": 1}
    given = Task.from_mapping({**raw, "loss": own_loss, "metric": {"name": own_loss, "higher_is_better": False}})
    written = Task.from_mapping({**raw, "loss": name, "metric": {"name": name, "higher_is_better": False}})
    assert (
        given == written == Task(**{**raw, "loss": own_loss, "metric": {"name": own_loss, "higher_is_better": False}})
    )
    with pytest.raises(ConfigError, match=r"^metric: metric must be a name, or {name: FUNCTION, higher_is_better:"):
        Task.from_mapping({**raw, "metric": own_loss})
    with pytest.raises(ConfigError, match="loss must be importable by its name, got "):
        Task.from_mapping({**raw, "loss": lambda outputs, targets: None})
    trains = Task.from_mapping({"train": own_loss, "examples": 8, "recipe": raw["recipe"], "tolerance": 0.01})
    assert trains.train == name
