"""Confirmations of real studies: fresh seeds, references of their own, once a policy, and told wherever it counts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_inputs import changed, write
from pages import unlinked

from subsettune import Bundle, DataPaths, TuneOptions, cli, tune
from subsettune.errors import ConfigError, StudyError
from subsettune.report.html import page
from subsettune.report.tables import result_text
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.worker import Worker
from subsettune.study.results.confirmation import FRESH
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.view import StudyView
from subsettune.train.result import RunResult

PASSES = {"task.tolerance": 0.5}  # so wide that every policy passes
Spoil = Callable[[RunRequest], bool]


def options_at(folder: Path) -> TuneOptions:
    places = DataPaths(cache=str(folder / "cache"))
    return TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a study lies in which a policy passed."""
    folder = tmp_path_factory.mktemp("finished")
    tune(changed(PASSES), run_id="a", options=options_at(folder))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def confirm(folder: Path, changes: dict[str, Any] | None = None) -> StudyView:
    return tune(
        changed({**PASSES, **(changes or {})}), run_id="a", options=replace(options_at(folder), fresh_seeds=True)
    ).view


def spoil(monkeypatch: pytest.MonkeyPatch, is_spoilt: Spoil) -> list[str]:
    """Give chosen runs a hopeless test metric; returns the names of all runs as they come."""
    train, names = Worker.train, []

    def spoilt(worker: Worker, request: RunRequest, report: Any) -> Any:
        names.append(request.name)
        result = train(worker, request, report)
        if not is_spoilt(request):
            return result
        assert isinstance(result, RunResult)
        return replace(result, metrics={**result.metrics, "test": 0.0}, test_correct=None, num_test=0)

    monkeypatch.setattr(Worker, "train", spoilt)
    return names


def test_it_trains_policy_and_reference_with_seeds_of_no_other_run(folder: Path) -> None:
    before = StudyFolder(str(folder / "runs"), "a").open().view()
    view = confirm(folder)
    runs = view.confirmation_runs
    names = {"reference", before.manifest.winner}
    assert {run.candidate for run in runs} == names
    first = min(run.seed for run in runs)
    assert first >= FRESH
    assert sorted((run.candidate, run.seed) for run in runs) == sorted(
        (name, first + number) for name in names for number in range(3)
    )
    others = {run.seed for run in (*view.reference, *view.verification, *view.trials)}
    assert not others & {run.seed for run in runs}
    assert all(run.num_test == 539 and run.test_correct is not None for run in runs)
    policies = {run.candidate: run.policy for run in runs}
    assert policies["reference"].key == before.reference[0].policy.key
    assert before.summary.best is not None
    assert policies[before.manifest.winner or ""].key == before.summary.best.policy.key


def test_what_was_verified_stays_and_its_cost_is_added(folder: Path) -> None:
    before = StudyFolder(str(folder / "runs"), "a").open().view()
    view = confirm(folder)
    assert (view.verification, view.verdicts, view.manifest.rounds) == (
        before.verification,
        before.verdicts,
        before.manifest.rounds,
    )
    assert view.summary.best == before.summary.best
    assert view.summary.status == "finished"
    assert view.manifest.command == before.manifest.command
    added = sum(run.ledger.total for run in view.confirmation_runs)
    assert view.summary.tuning.flops == before.summary.tuning.flops + added
    assert not (folder / "runs" / "a" / "tune" / "checkpoints").exists()


def test_it_is_told_in_tables_report_and_bundle(folder: Path) -> None:
    view = confirm(folder)
    assert view.manifest.confirmation is not None
    told = view.manifest.confirmation.sentence(0.5)
    assert told.startswith("Confirmed with 3 fresh seeds")
    assert told in " ".join(result_text(view).split())
    assert told in unlinked(page(view))
    bundle = Bundle.load(folder / "runs" / "a" / "bundle")
    found = bundle.evidence.confirmation
    assert found is not None
    assert (found.passed, found.said) == (True, told)
    assert told in bundle.readme
    seeds = [run.seed for run in found.runs]
    assert seeds == [run.seed for run in found.reference] == list(range(seeds[0], seeds[0] + 3))
    assert seeds[0] >= FRESH
    tested = {run.seed: run.test_metric for run in view.confirmation_runs if run.candidate == "reference"}
    assert {run.seed: run.metric for run in found.reference} == tested


def test_a_policy_is_confirmed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = confirm(folder)
    names = spoil(monkeypatch, lambda request: True)
    again = confirm(folder)
    assert names == []
    assert again.manifest.confirmations == first.manifest.confirmations
    assert again.summary.status == "finished"


def test_one_that_does_not_pass_again_is_told_and_stays_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda request: request.candidate not in ("reference", ""))
    view = confirm(folder)
    assert view.manifest.confirmation is not None
    assert view.manifest.confirmation.verdict.passed is False
    assert "Not confirmed: with 3 fresh seeds" in " ".join(result_text(view).split())
    bundle = Bundle.load(folder / "runs" / "a" / "bundle")
    assert bundle.evidence.confirmation is not None
    assert not bundle.evidence.confirmation.passed
    file = write(folder / "study.yaml", PASSES)
    where = ["--storage", str(folder / "runs"), "--cache", str(folder / "cache"), "--inline", "--quiet"]
    monkeypatch.undo()
    assert cli.main(["tune", file, "--run-id", "a", "--fresh-seeds", *where]) == 3
    assert cli.main(["tune", file, "--run-id", "a", *where]) == 3


def test_one_that_was_interrupted_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, names = Worker.train, []

    def interrupted(worker: Worker, request: RunRequest, report: Any) -> Any:
        if len(names) == 3:
            raise KeyboardInterrupt
        names.append(request.name)
        return train(worker, request, report)

    monkeypatch.setattr(Worker, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        confirm(folder)
    monkeypatch.undo()
    stopped = StudyFolder(str(folder / "runs"), "a").open().view()
    assert stopped.manifest.confirmation is not None
    assert not stopped.manifest.confirmation.is_finished
    assert "is not finished: start it again." in " ".join(result_text(stopped).split())
    more = spoil(monkeypatch, lambda request: False)
    view = confirm(folder)
    assert len(more) == 3
    assert not set(more) & set(names)
    assert view.manifest.confirmation is not None
    assert view.manifest.confirmation.verdict.passed
    assert len(view.confirmation_runs) == 6


def test_a_run_on_record_that_the_manifest_does_not_know_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm(folder)
    study = StudyFolder(str(folder / "runs"), "a").open()
    study.note(confirmations=())  # as if the driver had died between the two files
    study.save()
    names = spoil(monkeypatch, lambda request: True)
    view = confirm(folder)
    assert names == []
    assert view.manifest.confirmation is not None
    assert view.manifest.confirmation.verdict.passed


def test_a_bundle_that_was_moved_away_is_exported_anew(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "a" / "bundle")
    confirm(folder)
    assert Bundle.load(folder / "runs" / "a" / "bundle").evidence.confirmation is not None


def test_what_cannot_be_confirmed_is_refused_and_leaves_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="run_id must be the name of a finished study with fresh_seeds, got None"):
        tune(changed(PASSES), options=replace(options_at(folder), fresh_seeds=True))
    with pytest.raises(StudyError, match="study 'b' is not in "):
        tune(changed(PASSES), run_id="b", options=replace(options_at(folder), fresh_seeds=True))
    assert [path.name for path in (folder / "runs").iterdir()] == ["a"]
    names = spoil(monkeypatch, lambda request: False)
    with pytest.raises(StudyError) as caught:
        confirm(folder, {"study.trials": 9})
    assert str(caught.value) == ("study 'a' has 6 trials, and 9 are asked for. Run it without --fresh-seeds first.")
    study = StudyFolder(str(folder / "runs"), "a").open()
    study.note(status="search")
    study.save()
    with pytest.raises(StudyError, match=r"study 'a' is not finished, it is in its search\. Run it without"):
        confirm(folder)
    study.note(status="finished", winner=None)
    study.save()
    with pytest.raises(StudyError, match=r"study 'a' exported no policy: there is nothing to confirm\."):
        confirm(folder)
    assert names == []


def test_the_command_line_asks_for_the_name_of_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", write(tmp_path / "study.yaml"), "--inline", "--fresh-seeds"]) == 2
    assert "--fresh-seeds needs a finished study to confirm. Give its name as --run-id." in capsys.readouterr().err


def test_an_extension_with_another_winner_is_confirmed_at_what_is_left_of_its_alpha(folder: Path) -> None:
    first = confirm(folder).manifest.confirmation
    assert first is not None
    study = StudyFolder(str(folder / "runs"), "a").open()
    other = next(name for name in study.manifest.candidates if name != study.manifest.winner)
    study.note(winner=other)
    study.save()
    view = confirm(folder)
    assert [one.candidate for one in view.manifest.confirmations] == [first.candidate, other]
    second = view.manifest.confirmation
    assert second is not None
    assert second.first_seed == first.first_seed + first.num_seeds
    assert first.alpha_spent == pytest.approx(0.8 * 0.05)
    assert second.alpha_spent == pytest.approx(0.04 + 0.8 * 0.01)


def test_what_other_test_examples_would_say_is_told_of_every_policy_that_ran(finished: Path) -> None:
    view = StudyFolder(str(finished / "runs"), "a").open().view()
    assert view.manifest.winner in view.manifest.sampled
    for name, one in view.manifest.sampled.items():
        runs = {who: [r.test_metric for r in view.verification if r.candidate == who] for who in (name, "reference")}
        ours, theirs = (np.array(values, dtype=float) for values in runs.values())
        assert one.num_seeds == (len(ours), len(theirs))
        assert one.mean == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
        assert one.seeds_error == pytest.approx(
            math.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
        )
        assert one.num_examples == 539
    told = view.manifest.sampled[view.manifest.winner or ""].sentence(0.5)
    assert told in " ".join(result_text(view).split())
    assert told in unlinked(page(view))
    bundle = Bundle.load(finished / "runs" / "a" / "bundle")
    assert bundle.evidence.sampled == view.manifest.sampled[view.manifest.winner or ""]
    assert told in bundle.readme


def test_studies_of_one_test_split_are_numbered_and_say_so(tmp_path: Path) -> None:
    options = options_at(tmp_path)
    first = tune(changed(PASSES), run_id="a", options=options).view
    second = tune(changed({**PASSES, "study.seed": 1}), run_id="b", options=options).view
    again = tune(changed(PASSES), run_id="a", options=options).view
    assert (first.manifest.place, second.manifest.place, again.manifest.place) == (1, 2, 1)
    told = "This is the second study on this test split on this machine"
    assert told in " ".join(result_text(second).split())
    assert "on this test split" not in result_text(first)
    bundle = Bundle.load(tmp_path / "runs" / "b" / "bundle")
    assert bundle.evidence.place == 2
    assert (
        f"{told}: that any of 2 passes a policy that does not match has a probability of at most 0.1," in bundle.readme
    )
    assert "Confirm what you keep with --fresh-seeds." in bundle.readme
    confirmed = tune(changed({**PASSES, "study.seed": 1}), run_id="b", options=replace(options, fresh_seeds=True)).view
    assert "Confirm what you keep" not in result_text(confirmed)
