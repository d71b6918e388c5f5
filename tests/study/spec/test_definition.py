"""Study files: YAML 1.2, all mistakes at once, each with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import REMOVED, STUDY, changed, write

from subsettune.errors import ConfigError
from subsettune.study.spec.definition import Study, StudySettings, parse
from subsettune.study.spec.samplers import SAMPLERS
from subsettune.study.spec.yaml_file import read, to_yaml

HEAD = """\
task:
  data: {source: digits}
  model: {name: mlp}
  recipe: {lr: 5e-4, batch_size: 64, epochs: 3, weight_decay: 1E-2}
  tolerance: 0.01
"""
SPACE = """\
space:
  budget: {log: [0.1, 0.6]}
  arm: full
"""


def _read(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read(path)


def _messages(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, text)
    prefix = f"{tmp_path / 'study.yaml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def _mistakes(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(changed(changes))
    return [str(mistake) for mistake in caught.value.mistakes]


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    recipe = _read(tmp_path, HEAD + SPACE).task.recipe
    assert (recipe.lr, recipe.weight_decay) == (5e-4, 1e-2)


@pytest.mark.parametrize("word", ["on", "yes", "no", "off"])
def test_yaml_1_1_booleans_are_texts(tmp_path: Path, word: str) -> None:
    (message,) = _messages(tmp_path, HEAD.replace("lr:", f"nesterov: {word}, lr:") + SPACE)
    assert message == f"line 4, task.recipe.nesterov: nesterov must be true or false, got '{word}'."


def test_a_written_study_is_read_back_the_same(tmp_path: Path) -> None:
    study = parse(STUDY)
    assert _read(tmp_path, to_yaml(study)) == study


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = HEAD.replace("lr: 5e-4", "lr: -1, lrr: 2").replace("0.01", "0") + SPACE.replace("[0.1, 0.6]", "[0.1, 60]")
    assert _messages(tmp_path, text + "study: {trials: 0}\nextra: 1\n") == [
        "line 10, extra: unknown key. Known keys: space, study, task.",
        "line 4, task.recipe.lrr: unknown key. Did you mean 'lr'? Known keys: augment, batch_size, class_weights, ema, "
        "epochs, grad_clip, label_smoothing, lr, momentum, nesterov, optimizer, optimizer_options, own, precision, "
        "schedule, schedule_options, weight_decay.",
        "line 4, task.recipe.lr: lr must be positive, got -1.0.",
        "line 5, task.tolerance: tolerance must be positive, got 0.0.",
        "line 9, study.trials: trials must be at least 1, got 0.",
        "line 7, space.budget.log: budget must be in (0, 1], got 60. It is a fraction, not a percentage: write 0.6.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty. Write the keys task, space and study."),
        ("- 1\n", "the input must be a mapping of keys to values, got [1]."),
        ("task:\n\tx: 1\n", "line 2: not valid YAML: a tab stands where spaces must. Indent with spaces."),
        ("task: {}\ntask: {}\n", 'line 2: not valid YAML: key "task" is there twice. Remove one of them.'),
        (
            "task: [1\n",
            "line 2: not valid YAML: expected ',' or ']', but got '<stream end>'. "
            "Check brackets, quotes and indentation there.",
        ),
        (
            "\x00",
            "not valid YAML: unacceptable character #x0000: special characters are not allowed. Save it as plain text.",
        ),
    ],
)
def test_what_is_no_study_file_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert _messages(tmp_path, text) == [message]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "none.yaml")
    expected = f"{tmp_path}/none.yaml cannot be read: No such file or directory. Give the path of a file that is there."
    assert str(caught.value) == expected


PAST_RECIPE: list[tuple[dict[str, Any], str]] = [
    ({"space.lr": {"uniform": [-1, 2]}}, "space.lr: lr must be positive, got -1.0."),
    (
        {"space.batch_size": {"log": [8, 64.5]}},
        "space.batch_size: batch_size must be a whole number, got 8.0. Write {int: [lo, hi]}.",
    ),
    ({"space.momentum": {"choice": [0.9, 2]}}, "space.momentum: momentum must be in [0, 1), got 2.0."),
    (
        {"space.schedule": "cosin"},
        "space.schedule: schedule must be one of constant, step, cosine, one_cycle, warmup_stable_decay, got 'cosin'. "
        "Did you mean 'cosine'?",
    ),
    (
        {"space.optimizer": {"choice": ["sgd", "adam"]}, "space.momentum": {"uniform": [0.5, 0.9]}},
        "space.momentum: momentum means nothing to adam. Leave it out, or use optimizer_options. "
        "Or add when: {optimizer: ...}.",
    ),
    (
        {"task.metric": "mse", "space.label_smoothing": {"uniform": [0, 0.1]}},
        "space.label_smoothing: label_smoothing means nothing to regression.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), PAST_RECIPE)
def test_a_space_is_held_against_the_recipe(changes: dict[str, Any], message: str) -> None:
    assert _mistakes(changes)[0] == message


def test_a_condition_makes_a_key_of_one_optimizer_searchable() -> None:
    momentum = {"uniform": [0.5, 0.9], "when": {"optimizer": "sgd"}}
    parse(changed({"space.optimizer": {"choice": ["sgd", "adam"]}, "space.momentum": momentum}))


def test_a_space_is_checked_beside_a_task_with_mistakes() -> None:
    mistakes = _mistakes({"task.tolerance": REMOVED, "space.lr": {"log": [-1, 2]}, "space.momentum": 3})
    assert mistakes[0] == "task: key 'tolerance' is missing."
    assert "space.momentum: momentum must be in [0, 1), got 3.0." in _mistakes(
        {"task.tolerance": REMOVED, "space.momentum": 3}
    )


def test_a_study_made_in_python_is_checked_too() -> None:
    study = parse(STUDY)
    with pytest.raises(ConfigError, match=r"space\.lr: lr must be positive, got 0\."):
        Study(task=study.task, space={"budget": 0.5, "arm": "full", "lr": 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study.seeds": 1}, "study.seeds: seeds must be at least 2, got 1. One run tells nothing of the spread."),
        ({"study.max_seeds": 2}, "study.max_seeds: max_seeds must be at least seeds (3), got 2."),
        ({"study.alpha": 5}, "study.alpha: alpha must be in (0, 0.5], got 5.0."),
        ({"study.trials": "30"}, "study.trials: trials must be a whole number, got '30'. Write it without quotes."),
        ({"task.tolerance": 5}, "task.tolerance: tolerance must be below 1, got 5.0. Write 0.01 for 1 %."),
        (
            {"task.recipe.optimizer": "adam"},
            "task.recipe.momentum: momentum means nothing to adam. Leave it out, or use optimizer_options.",
        ),
        (
            {"space.epochs": {"log": [1, 2]}},
            "space.epochs: epochs cannot be searched: the budget decides how long a policy trains. Remove it.",
        ),
        (
            {"space.q": {"log": [1, 2]}},
            "space.q: q and subset_share both fix the size of the subset. Remove one of them.",
        ),
    ],
)
def test_one_mistake_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    assert _mistakes(changes) == [message]


def test_settings_are_replaced_and_the_cap_on_seeds_follows() -> None:
    study = parse(STUDY).with_settings({"seeds": 7, "trials": None})
    assert (study.study.seeds, study.study.seed_cap, study.study.trials) == (7, 7, 6)


def test_three_times_the_seeds_are_the_default_cap() -> None:
    assert StudySettings(seeds=4).seed_cap == 12


def test_a_space_of_every_sampler_is_read(tmp_path: Path) -> None:
    for sampler in ("auto", *SAMPLERS):
        assert read(write(tmp_path / "s.yaml", {"study.sampler": sampler})).study.sampler == sampler


def test_an_option_is_tried_beside_options_that_it_can_stand_with() -> None:
    skip = {"uniform": [0.1, 0.3], "when": {"el2n.keep": "hardest"}}
    space = {"selector": "el2n", "el2n.keep": {"choice": ["easiest", "hardest"]}, "el2n.skip": skip}
    raw = changed({})
    parse(raw | {"space": raw["space"] | space})


def test_an_option_that_cannot_stand_beside_the_others_is_told() -> None:
    space = {"selector": "el2n", "el2n.keep": {"choice": ["easiest", "hardest"]}, "el2n.skip": {"uniform": [0, 0.3]}}
    raw = changed({})
    with pytest.raises(ConfigError) as caught:
        parse(raw | {"space": raw["space"] | space})
    assert str(caught.value) == (
        "space.el2n.skip: skip must be 0 with keep: easiest, got 0.3. The hardest examples come last as it is."
    )


@pytest.mark.parametrize("gpus", [1.5, -1, float("inf")])
def test_gpus_are_shared_or_whole(gpus: float) -> None:
    (message,) = _mistakes({"study.gpus_per_trial": gpus})
    assert message.startswith("study.gpus_per_trial: gpus_per_trial must be ")
    for fits in (0, 0.25, 1, 4):
        assert parse(changed({"study.gpus_per_trial": fits})).study.gpus_per_trial == fits


# --- keys of object stores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["s3://KEY:SECRET@bucket/runs/monday", "s3://***@bucket/runs", "s3://bucket/runs?secret_key=SECRET"]
)
def test_earlier_studies_are_named_without_keys(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OURS")
    for made in (
        lambda: read(Path(write(tmp_path / "study.yaml", {"study.warm_start": [uri, "sunday"]}))),
        lambda: parse(changed({})).with_settings({"warm_start": [uri, "sunday"]}),
    ):
        with pytest.raises(
            ConfigError, match=r"warm_start must be without keys, got .*Set AWS_ACCESS_KEY_ID"
        ) as caught:
            made()
        assert "SECRET'" not in str(caught.value)
        assert ":SECRET" not in str(caught.value)
    assert os.environ["AWS_ACCESS_KEY_ID"] == "OURS"
    assert parse(changed({"study.warm_start": ["s3://b/runs/a", "gs://anonymous@b/runs/a", "C:/a"]})).study.warm_start
