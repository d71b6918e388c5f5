"""What is wrong with the file of `--policy`: all of it at once, each with the file, its line and the phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_inputs import changed, write

from subsettune.cli import main
from subsettune.cli.policy_file import read_policy, refuse_without_bundle
from subsettune.errors import ConfigError
from subsettune.study.results.folder import StudyFolder
from subsettune.study.spec.definition import parse

WRONG = """\
phases:
  - {share: 0.2, passes: 2, reselect: 1, selector: kcentre}
  - share: 0.4
    passes: 1
    selector: stratified
    selector_options: {by: label}
  - {passes: 2, transition: shrink_perturb, transition_options: {shrink: 3, nois: 0}}
recipe: {lr: -1}
"""


def test_every_mistake_has_its_line_and_the_phase_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        read_policy(str(path), parse(changed({})).task)
    lines = str(caught.value).splitlines()
    assert [line.partition(" must be")[0].partition(" unknown")[0] for line in lines] == [
        f"{path}: line 8, recipe.lr: lr",
        f"{path}: line 2, phases.0.selector: selector",
        f"{path}: line 6, phases.1.selector_options.by:",
        f"{path}: line 7, phases.2.transition_options.nois:",
        f"{path}: line 7, phases.2.transition_options.shrink: shrink",
    ]
    assert lines[3].partition("unknown key. ")[2].startswith("Did you mean 'noise'?")


def test_a_policy_beside_other_keys_and_in_json(tmp_path: Path) -> None:
    phases = [{"passes": 1, "order": "rs2", "order_options": {"shre": 0.5}}]
    end = "unknown key. Did you mean 'share'? Known keys: replacement, share."
    for name, text, place in (
        ("p.yaml", f"seed: 1\npolicy:\n  phases: {json.dumps(phases)}\n", "line 3, "),
        ("p.json", json.dumps({"policy": {"phases": phases}}), ""),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_policy(str(tmp_path / name), parse(changed({})).task)
        assert str(caught.value) == f"{tmp_path / name}: {place}phases.0.order_options.shre: {end}"


@pytest.mark.parametrize("path", ["runs/some/bundle", "runs/some/bundle/", "PLACE/runs/some/bundle"])
@pytest.mark.parametrize("command", ["train", "follow"])
def test_the_bundle_of_a_study_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    study = parse(changed({}))
    StudyFolder("runs", "some").begin(study)
    path = path.replace("PLACE", str(tmp_path))
    arguments = [path] if command == "follow" else [write(tmp_path / "s.yaml"), "--policy", path]
    assert main([command, *arguments, "--cache", str(tmp_path), "--device", "cpu"]) == 2
    assert "error: study 'some' has no bundle: Not finished: the reference has 0 of " in capsys.readouterr().err
    (tmp_path / "runs/some/manifest.json").write_text("{}")
    refuse_without_bundle(path)
    refuse_without_bundle("bundle")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "--policy must be a bundle or a file with a policy, got 'nothing'. Nothing is there."),
        (
            "polices/best",
            "--policy must be a bundle or a file with a policy, got 'polices/best'. Nothing is there.",
        ),
        (
            "policies/bset",
            "--policy must be a bundle or a file with a policy, got 'policies/bset'. Nothing is there. "
            "Did you mean 'best'?",
        ),
        ("policies/best", "policies/best: all phases of a policy must have the same order."),
    ],
)
def test_a_path_that_leads_nowhere_and_phases_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/best").write_text("phases: [{passes: 1, order: rs2}, {passes: 1}]")
    study = write(tmp_path / "s.yaml")
    assert main(["train", study, "--policy", name, "--cache", str(tmp_path), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
