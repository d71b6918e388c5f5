"""Whole studies of training functions of the user's own: inline, on Ray with a run that is killed, by its bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT, SUPPORT
from ray_marks import starts_ray

from subsettune import Bundle, TrainedModel, TuneOptions, load_study, train, tune
from subsettune.cli import main
from subsettune.data import DataPaths
from subsettune.errors import ConfigError, ModelError
from subsettune.integrations.tracking import study_metrics, study_params
from subsettune.study.plan import plan
from subsettune.study.preflight import resolve_study
from subsettune.study.spec.definition import parse
from subsettune.text import describe

SPACE = {
    "budget": {"log": [0.1, 0.9]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.2, 0.8]},
    "subset_share": {"log": [0.2, 0.6]},
    "lr": {"log": [0.05, 0.3]},
}


def _study(train: str = "own_functions:made_up", space: Any = SPACE, **changes: Any) -> dict[str, Any]:
    recipe = {"lr": 0.1, "batch_size": 16, "epochs": 20}
    task = {"train": train, "examples": 120, "recipe": recipe, "tolerance": 0.02, **changes}
    return {"task": task, "space": space, "study": {"trials": 12, "seeds": 3}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of a function of which nothing is known but its number of examples."""
    folder = tmp_path_factory.mktemp("own")
    options = TuneOptions(storage=str(folder), executor="inline", places=DataPaths(cache=str(folder / "cache")))
    found = tune(_study(), run_id="own", options=options)
    assert found.summary.verified, found.summary.headline
    return folder


def test_costs_are_in_examples(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "own", "--storage", str(done)]) == 0
    shown = capsys.readouterr().out
    assert " ex, " in shown
    assert "FLOP" not in shown.replace("s/TFLOP", "")
    page = (done / "own" / "report.html").read_text()
    assert "MFLOP" not in page
    summary = json.loads(_json(capsys, ["show", "own", "--json", "--storage", str(done)]))
    assert summary["reference"]["flops"] == 2400
    assert summary["reference"]["passes"] == 20


NOTE = "With task.flops_per_example it is counted in FLOPs."


def test_nothing_of_it_is_called_a_flop(done: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither where it is told in Python and notebooks, nor on the page, in the bundle, or by trackers."""
    found = load_study("own", storage=str(done))
    assert found.unit == "example"
    assert found.bundle is not None
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(_study()))
    capsys.readouterr()
    assert main(["plan", str(file), "--cache", str(tmp_path)]) == 0
    planned = " ".join(capsys.readouterr().out.split())
    assert "pass 120 ex all training examples once" in planned
    page = (done / "own" / "report.html").read_text()
    told = {
        "repr": repr(found),
        "cell": found._repr_html_(),
        "tables": f"{found.trials.to_string()} {found.runs.to_string()}",
        "figures": " ".join(figure.to_json() for figure in found.figures.values()),
        "page": re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL),
        "bundle": " ".join(found.bundle.readme.split()),
        "trackers": " ".join([*study_metrics(found), *study_params(found)]),
        "plan": planned,
    }
    said = {name: re.findall(r"\w*flop\w*", text.replace(NOTE, ""), re.IGNORECASE) for name, text in told.items()}
    assert said == {name: [] for name in told}


def test_its_model_is_asked_about_nothing(done: Path) -> None:
    bundle = Bundle.load(done / "own" / "bundle")
    assert "--save weights.pt" in bundle.readme
    assert "subsettune follow" not in bundle.readme
    assert "TrainedModel" not in bundle.readme
    result = train.run(bundle.task, bundle.policy, seed=0, final=True)
    with pytest.raises(ModelError, match=r"a model of task.train cannot be asked about rows: what they mean own_func"):
        TrainedModel.of(dataclasses.replace(result, model=torch.nn.Linear(1, 1)), bundle.task)


def _json(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out


def test_its_bundle_is_followed_by_the_function(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.load(done / "own" / "bundle")
    result = train.run(bundle.task, bundle.policy, seed=bundle.seed)
    assert result.ledger.spent <= bundle.policy.cost(bundle.facts) < bundle.facts.reference_flops
    page = (done / "own" / "bundle" / "README.md").read_text()
    assert "It was made for `own_functions:made_up`, a training function with 120 examples of its own." in page
    assert "| passes | examples | seconds |" in page
    file = done / "study.yaml"
    file.write_text(json.dumps(_study()))
    told = json.loads(_json(capsys, ["train", str(file), "--policy", str(done / "own" / "bundle"), "--json"]))
    assert told["cause"] == "finished"
    assert told["metrics"].keys() == {"validation", "test"}


def test_a_program_in_its_place(done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it prints is seen, its weights are kept, and a bundle of the function is followed by it."""
    file, program = tmp_path / "study.yaml", tmp_path / "program.py"
    file.write_text(json.dumps(_study()))
    program.write_text(
        f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
        "import subsettune\nrun = subsettune.session()\nprint('told', run.recipe.batch_size, *sys.argv[1:])\n"
        "numbers = [len(index) for index, _ in run.batches()]\n"
        "open('weights.bin', 'w').write(str(sum(numbers)))\n"
        "run.finish(validation=0.5, test=0.4, model='weights.bin')\n"
    )
    bundle, kept = str(done / "own" / "bundle"), tmp_path / "kept.bin"
    command = ["run", str(file), "--policy", bundle, "--save", str(kept), "--", "python", str(program), "--mine", "3"]
    with contextlib.chdir(tmp_path):
        assert main(command) == 0
    told = capfd.readouterr().out
    assert "told 16 --mine 3" in told
    assert "accuracy: validation 0.5000, test 0.4000" in told
    spent = int(kept.read_text())
    known = Bundle.load(bundle)
    assert 0 <= known.policy.cost(known.facts) - spent < 16
    assert main(["run", str(ROOT / "search_spaces/digits.yaml"), "--", "python", str(program)]) == 2
    assert "the study file must be of training code of your own to run a program" in capfd.readouterr().err


def test_no_network_to_save(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(_study()))
    assert main(["train", str(file), "--save", str(tmp_path / "weights.pt")]) == 2
    assert "--save needs a network, and the training function gave none" in capsys.readouterr().err


def test_references_are_shared_only_with_a_version(done: Path, tmp_path: Path) -> None:
    assert (done / "cache").is_dir()
    assert not list((done / "cache").glob("references/*"))
    options = TuneOptions(storage=str(tmp_path), executor="inline", places=DataPaths(cache=str(tmp_path / "cache")))
    for run_id in ("first", "second"):
        found = tune(_study(version="2026-11"), run_id=run_id, options=options)
    assert [record.cached for record in found.reference] == [True] * 3
    assert list((tmp_path / "cache").glob("references/*"))


def test_the_plan(tmp_path: Path) -> None:
    planned = plan(parse(_study(validation_examples=500, test_examples=100)), DataPaths(cache=str(tmp_path)))
    assert planned["task"] == "own_functions:made_up, accuracy within 0.02"
    assert (planned["num_validation"], planned["num_test"], planned["q"]) == (500, 100, None)
    assert planned["stages"] == {}
    assert planned["expectations"][0].startswith("How long a run of own_functions:made_up takes shows when it has run")
    assert any("100 test examples are few for a tolerance of 0.02" in note for note in planned["test_notes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": None}, "task: key 'examples' is missing: how many training examples the function has."),
        ({"model": {"name": "mlp"}}, "task.model: model must be left out beside train: the function has its own."),
        (
            {"train": "mine"},
            "train must be package.module:function, or a command line such as python train.py, got 'mine'",
        ),
        (
            {"train": None, "data": {"source": "digits"}, "model": {"name": "mlp"}},
            "examples means nothing without train.",
        ),
    ],
)
def test_tasks_that_are_none(changes: dict[str, Any], message: str) -> None:
    raw = _study(**changes)
    raw["task"] = {key: value for key, value in raw["task"].items() if value is not None}
    with pytest.raises(ConfigError) as found:
        parse(raw)
    assert message in str(found.value)


def test_what_a_function_cannot_follow_is_told_before(tmp_path: Path) -> None:
    space = {
        **SPACE,
        "selector": {"choice": ["random", "el2n"]},
        "order": {"choice": ["uniform", "sift"]},
        "transition": {"choice": ["keep", "prune"]},
        "soup": {"choice": [0, 0.3]},
    }
    with pytest.raises(ConfigError) as found:
        resolve_study(parse(_study(space=space)), DataPaths(cache=str(tmp_path)))
    told = {".".join(mistake.path): mistake.message for mistake in found.value.mistakes}
    assert told["space.selector"].startswith("selector 'el2n' looks at a network, and that of task.train is its own.")
    assert told["space.order"].startswith("order must be uniform, rs2 or infobatch with task.train, got 'sift'")
    assert told["space.transition"].startswith("transition must be keep, reset_optimizer or shrink_perturb with")
    assert told["space.soup"].startswith(
        "soup must be 0 with task.train: it averages networks that our own loop trains."
    )


def test_hyperparameters_of_its_own_are_searched(tmp_path: Path) -> None:
    space = {**SPACE, "own.dropout": {"uniform": [0.0, 0.5]}}
    study = _study(space=space)
    study["task"]["recipe"] |= {"own": {"dropout": 0.2, "width": 64}}
    options = TuneOptions(storage=str(tmp_path), executor="inline", places=DataPaths(cache=str(tmp_path / "cache")))
    found = tune(study, run_id="own", options=options)
    tried = [trial.coordinates["own.dropout"] for trial in found.view.trials]
    assert 0.2 in tried  # the recipe itself is tried
    assert len(set(tried)) > 3
    trial = found.view.trials[-1]
    assert trial.policy.recipe["own"] == {"dropout": trial.coordinates["own.dropout"]}
    assert found.study.task.recipe.override(trial.policy.recipe).own["width"] == 64
    if found.summary.verified:
        assert "dropout" in describe(found.bundle.policy)


def test_mistakes_in_hyperparameters_of_its_own() -> None:
    study = _study(space={**SPACE, "own.dropuot": {"uniform": [0.0, 0.5]}})
    study["task"]["recipe"] |= {"own": {"dropout": 0.2}}
    message = (
        "own.dropuot must be one of the keys of task.recipe.own, got ['dropout']. Write its usual value there. Did"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(study)
    recipe = {"lr": 0.1, "batch_size": 16, "epochs": 20, "own": {"width": 1}}
    task = {"data": {"source": "digits"}, "model": {"name": "mlp"}, "recipe": recipe, "tolerance": 0.1}
    with pytest.raises(ConfigError, match=r"own means nothing without task\.train, whose function reads it"):
        parse({"task": task, "space": SPACE})


def test_prefixes_are_not_shared(tmp_path: Path) -> None:
    study = _study()
    study["study"]["share_prefixes"] = True
    with pytest.raises(ConfigError, match=r"share_prefixes must be false with task\.train, got True"):
        resolve_study(parse(study), DataPaths(cache=str(tmp_path)))


def test_a_metric_under_a_name_of_its_own(tmp_path: Path) -> None:
    metric = {"name": "bleu", "higher_is_better": True}
    options = TuneOptions(storage=str(tmp_path), executor="inline", places=DataPaths(cache=str(tmp_path / "cache")))
    found = tune(_study(metric=metric), run_id="bleu", options=options)
    assert "bleu" in found.summary.headline
    assert json.loads((tmp_path / "bleu" / "manifest.json").read_text())["study"]["task"]["metric"] == metric
    assert load_study("bleu", storage=str(tmp_path)).study == found.study


def test_q_needs_what_it_is_made_of(tmp_path: Path) -> None:
    space = {**{key: value for key, value in SPACE.items() if key != "subset_share"}, "q": {"log": [1, 3]}}
    with pytest.raises(ConfigError, match=r"q is K\*M/P, and M or P of this task is not known"):
        resolve_study(parse(_study(space=space)), DataPaths(cache=str(tmp_path)))
    known = resolve_study(parse(_study(space=space, outputs=2, parameters=60)), DataPaths(cache=str(tmp_path)))
    assert known.facts.q() == 4


@starts_ray
def test_killed_and_resumed_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real cluster, for a killed process is Ray's to notice; the run goes on from what the function kept."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (SUPPORT, ROOT))))
    study = _study(
        "own_functions:by_hand",
        train_options={"folder": str(tmp_path), "dies_at": 12, "is_killed": True},
        flops_per_example={"forward": 100, "backward": 200},
    )
    study["study"] |= {"trials": 2, "seeds": 2, "max_seeds": 2, "candidates": 1}
    study["task"]["tolerance"] = 0.3
    options = TuneOptions(storage=str(tmp_path / "runs"), places=DataPaths(cache=str(tmp_path / "cache")))
    found = tune(study, run_id="killed", options=options)
    assert (tmp_path / "was-cut-off").exists()
    assert [record.cause for record in (*found.reference, *found.view.trials)] == ["finished"] * 4
    assert (tmp_path / "went-on").exists()
    assert {record.ledger.spent for record in found.reference} == {20 * 120 * 300}
