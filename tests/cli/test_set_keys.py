"""Keys of a study file that are given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_inputs import write

from subsettune.cli import main
from subsettune.cli.set_keys import value_of, with_keys
from subsettune.errors import ConfigError
from subsettune.study.spec.yaml_file import read

FILE: dict[str, Any] = {
    "task": {"tolerance": 0.01, "metric": "accuracy"},
    "space": {"lr": {"log": [0.1, 1]}, "shrink_perturb.shrink": {"uniform": [0.2, 0.8]}},
    "study": {"trials": 30},
}


def test_keys_take_the_place_of_those_of_the_file_and_leave_the_others() -> None:
    given = ["study.trials=8", "study.seeds=3", "task.tolerance=2e-2", "space.lr.log=[0.01, 1]"]
    found = with_keys(FILE, [*given, "space.shrink_perturb.shrink=0.5", "study.trials=9"])
    assert found == {
        "task": {"tolerance": 0.02, "metric": "accuracy"},
        "space": {"lr": {"log": [0.01, 1]}, "shrink_perturb.shrink": 0.5},
        "study": {"trials": 9, "seeds": 3},
    }
    assert FILE["study"] == {"trials": 30}


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("0.02", 0.02), ("true", True), ("null", None), ("", ""), ("latin-1", "latin-1"), ("{a: 1}", {"a": 1}),
     ('"8"', "8"), ("'true'", "true"), ('"null"', "null"), ("don't", "don't")],
)  # fmt: skip
def test_values_are_those_of_a_study_file(text: str, value: Any) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trials=8", "--set must be KEY=VALUE with a key below task, space, study, got 'trials=8'. Write it as --set "
         "study.trials=8."),
        ("study.trials", "--set must be KEY=VALUE with a key below task, space, study, got 'study.trials'."),
        ("task.metric.name=mae", "--set must be a key within a mapping, which task.metric is not, got "
         "'task.metric.name=mae'. It holds no keys in the file: give it whole, as --set 'task.metric={name: VALUE}'."),
    ],
)  # fmt: skip
def test_what_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        with_keys(FILE, [given])
    assert message in str(error.value)


def test_a_key_with_nothing_after_it_is_filled() -> None:
    given = ["study.trials=8", "task.metric.name=f1"]
    found = with_keys({"task": {"metric": None}, "study": None}, given)
    assert found == {"task": {"metric": {"name": "f1"}}, "study": {"trials": 8}}


def test_a_file_without_keys_is_refused_as_without_them(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("- task\n")
    with pytest.raises(ConfigError) as error:
        read(path, lambda raw: with_keys(raw, ["study.trials=8"]))
    assert str(error.value) == f"{path}: the input must be a mapping of keys to values, got ['task']."


@pytest.mark.parametrize("given", ["space.lr=[0.1, 0.2]", "task.model=[1, 2]"])
def test_a_list_may_stand_where_the_file_has_a_mapping(tmp_path: Path, given: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "task:\n  data: digits\n  model:\n    name: mlp\nspace:\n  lr:\n    log: [0.1, 1]\nstudy:\n  trails: 3\n"
    )
    with pytest.raises(ConfigError) as error:  # of what else is wrong, with its line
        read(path, lambda raw: with_keys(raw, [given]))
    assert "trails" in str(error.value)
    assert "line 9" in str(error.value)


def test_a_study_keeps_them_and_does_not_go_on_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(Path("study.yaml"), {"task.recipe.lr": 0.12})
    words = ["tune", path, "--inline", "--quiet", "--device", "cpu", "--run-id", "a", "--set", "task.tolerance=0.5"]
    code = main([*words, "--set", "study.trials=2"])
    kept = read("runs/a/study.yaml")
    assert code in (0, 3)
    assert (kept.study.trials, kept.task.tolerance) == (2, 0.5)
    capsys.readouterr()
    assert main(words[:-2]) == 2
    told = capsys.readouterr().err
    assert (
        "run id 'a' belongs to another task: task.tolerance was 0.5, and is 0.1. To go on with it: subsettune tune"
        in told
    )
    assert "--run-id a --set task.tolerance=0.5 --set study.trials=2 ; or choose another --run-id, or remove " in told
    assert main(["plan", path, "--inline", "--set", "study.trails=2"]) == 2
    message = capsys.readouterr().err
    assert "trails" in message
    assert "trials" in message
