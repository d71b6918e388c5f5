"""What a task may be judged by and trained on, in sentences, without data."""

from __future__ import annotations

from typing import Any

import pytest

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.registry import KINDS, METRICS
from subsettune.task import Task
from subsettune.text import metric_name

RECIPE = {"lr": 0.1, "batch_size": 64, "epochs": 30}
OWN = {"name": "own_goals:share_right", "higher_is_better": True}


def task(**changes: Any) -> Task:
    raw = {"data": {"source": "digits"}, "model": {"name": "mlp"}, "recipe": RECIPE, "tolerance": 0.01}
    return config.build(Task, {**raw, **changes})


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"metric": "own_goals:share_right"},
        "metric: metric must say its direction, got 'own_goals:share_right' alone. Write {name: "
        "'own_goals:share_right', higher_is_better: true}, or false.",
    ),
    ({"metric": {"name": "a:b"}}, "metric: key 'higher_is_better' is missing."),
    ({"metric": {"higher_is_better": True}}, "metric: key 'name' is missing."),
    ({"metric": {**OWN, "higher": True}}, "metric.higher: unknown key. Known keys: higher_is_better, name."),
    ({"metric": {**OWN, "higher_is_better": "yes"}}, "higher_is_better must be true or false, got 'yes'."),
    (
        {"metric": {"name": "roc_auc", "higher_is_better": True}},
        "metric: higher_is_better must be left out for roc_auc, whose direction is known. Write its name alone.",
    ),
    ({"metric": {"name": "auc", "higher_is_better": True}}, "got 'auc'. Did you mean 'roc_auc'?"),
    (
        {"metric": "roc_auc", "kind": "regression"},
        "metric: metric must be one of mse, mae, rmse, r2 for a regression, got 'roc_auc'. It is for a classification "
        "or several labels an example: mend it, or kind.",
    ),
    (
        {"metric": "r2", "kind": "multilabel"},
        "one of accuracy, macro_f1, roc_auc, average_precision, log_loss, subset_a",
    ),
    ({"metric": "subset_accuracy", "kind": "classification"}, "It is for several labels an example: mend it, or kind."),
    ({"kind": "ranking"}, "kind must be one of classification, regression, multilabel, got 'ranking'."),
    ({"metric": "roc_auc", "tolerance": 1}, "tolerance: tolerance must be below 1, got 1.0. Write 0.01 for 1 %."),
    ({"loss": "focal"}, "loss: loss must be package.module:function, got 'focal'. Leave it out for the usual one."),
    (
        {"metric": "mse", "recipe": {**RECIPE, "class_weights": "balanced"}},
        "recipe.class_weights: class_weights means nothing to regression.",
    ),
    (
        {"loss": "a:b", "recipe": {**RECIPE, "label_smoothing": 0.1, "class_weights": [1, 2]}},
        "recipe.label_smoothing: label_smoothing means nothing to a loss of your own. Put it into the function.\n"
        "recipe.class_weights: class_weights means nothing to a loss of your own.",
    ),
    (
        {"kind": "multilabel", "recipe": {**RECIPE, "class_weights": "balanced"}},
        "class_weights means nothing to several labels an example, each of which is there or not.",
    ),
    (
        {"recipe": {**RECIPE, "class_weights": [1, -1]}},
        "class_weights must be balanced, or a list of positive numbers, one a class, got (1.0, -1.0).",
    ),
    ({"recipe": {**RECIPE, "class_weights": "even"}}, "positive numbers, one a class, got 'even'."),
    ({"recipe": {**RECIPE, "class_weights": 2}}, "class_weights must be a list, got 2."),
    ({"recipe": {**RECIPE, "ema": 1.0}}, "ema must be in (0, 1), got 1.0. Usual are 0.99 to 0.9999."),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_wrong_goals(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(**changes)
    assert expected in str(caught.value)


def test_what_is_new_changes_no_key_where_it_is_not_given() -> None:
    key = task().key
    assert task(kind="classification", loss=None).key == key
    assert task(recipe={**RECIPE, "class_weights": None, "ema": None}).key == key
    assert task(recipe={**RECIPE, "augment": {"torchvision": [], "function": None}}).key == key
    others = [
        task(metric=OWN),
        task(metric={**OWN, "higher_is_better": False}),
        task(kind="multilabel"),
        task(loss="a:b"),
        task(recipe={**RECIPE, "class_weights": "balanced"}),
        task(recipe={**RECIPE, "class_weights": [1, 2]}),
        task(recipe={**RECIPE, "ema": 0.99}),
        task(recipe={**RECIPE, "augment": {"function": "a:b", "options": {"scale": 1}}}),
        task(recipe={**RECIPE, "augment": {"torchvision": [{"name": "RandomRotation", "degrees": 9}]}}),
    ]
    assert len({key, *(other.key for other in others)}) == 10
    for other in others:
        assert config.build(Task, config.to_plain(other)) == other


def test_a_metric_of_the_user_s_own_is_written_as_it_was_given() -> None:
    made = task(metric=OWN, tolerance=2.5)
    assert (made.metric, made.higher_is_better, made.kind) == ("own_goals:share_right", True, "classification")
    assert config.to_plain(made)["metric"] == OWN
    assert Task(**{name: getattr(made, name) for name in ("data", "model", "recipe", "tolerance")}, metric=OWN) == made  # type: ignore[arg-type]
    down = task(metric={**OWN, "higher_is_better": False}, kind="regression")
    assert (down.higher_is_better, down.kind, down.target(3)) == (False, "regression", 3.01)
    assert metric_name(made.metric) == "share right"
    assert (made.has_error, made.counts_examples) == (False, False)
    assert (made.judged.has_steps, down.judged.has_steps) == (True, False)


def test_kinds_follow_the_metric_unless_they_are_given() -> None:
    kinds = {name: task(metric=name).kind for name in METRICS}
    assert {kinds[name] for name in ("roc_auc", "top5", "log_loss", "accuracy")} == {"classification"}
    assert (kinds["subset_accuracy"], kinds["r2"]) == ("multilabel", "regression")
    assert set(kinds.values()) == set(KINDS)
    for name in METRICS:
        for kind in METRICS[name].tasks:
            assert task(metric=name, kind=kind).kind == kind
