"""What a mistyped name was meant to be: said once, wherever names are read, beside the list of the known ones."""

from __future__ import annotations

from typing import Any

import pytest
from fake_inputs import REMOVED, changed

from subsettune import registry
from subsettune.errors import ConfigError, did_you_mean
from subsettune.policy import Policy
from subsettune.study.spec.definition import parse


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("batch_sise", "Did you mean 'batch_size'?"),
        ("batch-size", "Did you mean 'batch_size'?"),
        ("Batch_Size", "Did you mean 'batch_size'?"),
        ("lrr", "Did you mean 'lr'?"),
        ("zzz", ""),
        (3, ""),
    ],
)
def test_the_nearest_name(word: object, expected: str) -> None:
    assert did_you_mean(word, ("lr", "batch_size", "momentum")) == expected
    assert did_you_mean(word, ()) == ""


def _mistakes(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(changed(changes))
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("changes", "begin", "end"),
    [
        (
            {"task.tolerance": REMOVED, "task.tolerence": 0.1},
            "task.tolerence: unknown key. Did you mean 'tolerance'?",
            "",
        ),
        ({"space.budget": REMOVED, "space.budjet": 0.5}, "space.budjet: unknown key. Did you mean 'budget'?", ""),
        ({"space.switch": REMOVED, "space.swich": 0.5}, "space.swich: unknown key. Did you mean 'switch'?", ""),
        (
            {"space.subset_share": REMOVED, "space.subset_shar": 0.5},
            "space.subset_shar: unknown key. Did you mean ",
            "",
        ),
        ({"study.trails": 3}, "study.trails: unknown key. Did you mean 'trials'? Known keys: ", ""),
        ({"task.model": {"name": "mlpp"}}, "task.model.name: name must be a known model", "Did you mean 'mlp'?"),
        ({"task.metric": "acuracy"}, "task.metric: metric must be one of accuracy, ", "Did you mean 'accuracy'?"),
        ({"task.data": {"source": "mnits"}}, "task.data.source: source must be a data set", "Did you mean 'mnist'?"),
        ({"task.recipe.optimizer": "sdg"}, "task.recipe.optimizer: optimizer must be a known", "Did you mean 'sgd'?"),
        ({"task.recipe.schedule": "cosin"}, "task.recipe.schedule: schedule must be one of", "Did you mean 'cosine'?"),
        ({"task.recipe.precision": "bfloat"}, "task.recipe.precision: precision must be", "Did you mean 'bfloat16'?"),
        ({"study.sampler": "tpee"}, "study.sampler: sampler must be one of auto, ", "Did you mean 'tpe'?"),
        ({"space.selector": "stratifed"}, "space.selector: selector must be a known", "Did you mean 'stratified'?"),
        (
            {"space.lr": {"log": [0.1, 0.2], "when": {"selectr": "random"}}},
            "space.lr.when.selectr: unknown key. Did you mean 'selector'? Keys of this space: ",
            "",
        ),
        (
            {"space.lr": {"log": [0.1, 0.2], "when": {"selector": "randm"}}},
            "space.lr.when.selector: selector in when of lr must be one of random, stratified, got 'randm'.",
            "Did you mean 'random'?",
        ),
    ],
)
def test_a_mistyped_name_in_a_study_is_one_sentence(changes: dict[str, Any], begin: str, end: str) -> None:
    """Not a second one about the key that is missing because of it."""
    (mistake,) = _mistakes(changes)
    assert mistake.startswith(begin)
    assert mistake.endswith(end)


def test_a_key_that_is_like_none_leaves_the_missing_one_to_be_told() -> None:
    said = _mistakes({"task.tolerance": REMOVED, "task.zzz": 0.1})
    assert [sentence.partition(".")[0] for sentence in said] == ["task", "task: key 'tolerance' is missing"]


@pytest.mark.parametrize("known", [registry.SELECTORS, registry.ORDERS, registry.TRANSITIONS], ids=lambda r: r.what)
def test_a_mistyped_component(known: registry.Registry) -> None:
    first = next(iter(known))
    with pytest.raises(ConfigError) as caught:
        known.load(f"{first}x")
    assert str(caught.value).endswith(f", got '{first}x'. Did you mean {first!r}?")


def test_a_mistyped_key_of_a_phase() -> None:
    with pytest.raises(ConfigError) as caught:
        Policy.from_mapping({"phases": [{"pases": 1}]})
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith("phases.0.pases: unknown key. Did you mean 'passes'? Known keys: draw, order, ")
