"""Studies that are begun with earlier ones: what is taken, what is refused, what is told, and what survives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed, write

from subsettune import DataPaths, TuneOptions, cli, tune
from subsettune.errors import ConfigError, StudyError
from subsettune.report.html import page
from subsettune.report.plan_tables import plan_text
from subsettune.report.tables import result_text
from subsettune.study.execute.worker import Worker
from subsettune.study.plan import plan
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.known_before import FILE, KnownBefore, stored
from subsettune.study.results.view import StudyView
from subsettune.study.spec.definition import StudySettings, parse
from subsettune.study.spec.space_check import read_space
from subsettune.study.warm_start import take

EASY = {"task.tolerance": 0.2, "study.trials": 6}
TOLD = {**EASY, "study.warm_start": ["monday"], "study.seed": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study `monday`."""
    folder = tmp_path_factory.mktemp("studies")
    tune(changed(EASY), run_id="monday", options=options_in(folder))
    return folder


def options_in(folder: Path) -> TuneOptions:
    places = DataPaths(cache=str(folder / "cache"))
    return TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu")


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(home, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def told(home: Path) -> StudyView:
    """The study `tuesday`, begun with it."""
    return tune(changed(TOLD), run_id="tuesday", options=options_in(home)).view


def test_a_study_takes_the_finished_trials_of_another(home: Path, told: StudyView) -> None:
    monday = StudyFolder(str(home / "runs"), "monday").open()
    (taken,) = stored(StudyFolder(str(home / "runs"), "tuesday").folder)
    trials = monday.records("trial")
    assert [(one.coordinates, one.metric) for one in taken.trials] == [(t.coordinates, t.metric) for t in trials]
    references = [record.metric for record in monday.records("reference")][:3]
    assert taken.reference == pytest.approx(sum(r for r in references if r is not None) / 3)
    assert (taken.num_references, taken.noise) == (3, monday.manifest.noise)
    spent = sum(trial.ledger.total for trial in trials) / told.reference[0].cost_flops
    assert told.manifest.known_before == (
        KnownBefore(run_id="monday", folder=f"{home}/runs/monday", trials=len(trials), trainings=spent),
    )


def test_what_was_known_is_told_and_not_charged(home: Path, told: StudyView) -> None:
    known = told.summary.known_before[0]
    sentence = (
        f"{known.trials} trials of study 'monday' were known before the first trial; its search had cost as much as "
        f"{known.trainings:.1f} conventional trainings, which are not counted here."
    )
    assert sentence in " ".join(result_text(told).split())
    assert sentence.replace("'", "&#39;") in page(told)
    shown = told.summary.to_mapping()["known_before"]
    assert [one["run_id"] for one in shown] == ["monday"]
    assert json.loads(json.dumps(shown)) == shown
    runs = (*told.reference, *told.trials, *told.verification)
    assert told.summary.tuning.flops == sum(run.ledger.total + run.repeated_flops for run in runs)
    made = plan(parse(changed(TOLD)), DataPaths(cache=str(home / "cache")), storage=str(home / "runs"))
    assert made["known_before"] == shown
    assert sentence in " ".join(plan_text(made).split())


def test_what_was_known_is_neither_a_seed_nor_evidence(home: Path, told: StudyView) -> None:
    monday = {record.seed for record in StudyFolder(str(home / "runs"), "monday").open().records("trial")}
    assert not monday & {run.seed for run in (*told.reference, *told.trials, *told.verification)}
    of_winner = [run for run in told.verification if run.candidate == told.manifest.winner]
    assert told.summary.best is not None
    assert told.summary.best.seeds == len(of_winner) > 1


def test_a_study_by_its_folder_or_from_the_command_line(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "runs" / "monday").rename(own / "elsewhere")
    file = write(own / "study.yaml", EASY)
    places = ["--cache", str(own / "cache"), "--storage", str(own / "runs")]
    assert cli.main(["plan", file, *places, "--warm-start", f"{own}/elsewhere", "--json"]) == 0
    assert [one["run_id"] for one in json.loads(capsys.readouterr().out)["known_before"]] == ["elsewhere"]
    assert cli.main(["plan", file, *places, "--warm-start", "monday"]) == 2
    assert "monday" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reference-seed-1", "trial-0002"])
def test_an_interrupted_study_goes_on_as_it_began_though_the_earlier_one_is_gone(
    own: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    train = Worker.train

    def interrupted(worker: Worker, request: Any, report: Any) -> Any:
        if request.name.startswith(name):
            raise KeyboardInterrupt
        return train(worker, request, report)

    found = []
    for run_id in ("kept", "gone"):
        shutil.rmtree(own / "cache")
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "train", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tune(changed(TOLD), run_id=run_id, options=options_in(own))
        if run_id == "gone":
            shutil.rmtree(own / "runs" / "monday")
        found.append(tune(changed(TOLD), run_id=run_id, options=options_in(own)).view)
    kept, gone = ([(trial.coordinates, trial.seed, trial.metric) for trial in view.trials] for view in found)
    assert kept == gone
    assert [one.run_id for one in found[1].summary.known_before] == ["monday"]


def test_a_study_goes_on_with_no_other_earlier_one_and_not_without(own: Path) -> None:
    tune(changed(TOLD), run_id="wednesday", options=options_in(own))
    with pytest.raises(StudyError, match=r"began with warm_start \[monday\]. Keep that"):
        tune(changed({**TOLD, "study.warm_start": []}), run_id="wednesday", options=options_in(own))
    (own / "runs" / "wednesday" / FILE).unlink()
    with pytest.raises(StudyError, match="the trials that this study was begun with, cannot be read"):
        tune(changed({**TOLD, "study.trials": 8}), run_id="wednesday", options=options_in(own))


def refusal(own: Path, changes: dict[str, Any], names: tuple[str, ...] = ("monday",)) -> str:
    study = parse(changed({**EASY, **changes, "study.warm_start": list(names)}))
    with pytest.raises(ConfigError) as caught:
        take(study, read_space(study.space), str(own / "runs"))
    assert {mistake.path for mistake in caught.value.mistakes} == {("study", "warm_start")}
    return "\n".join(mistake.message for mistake in caught.value.mistakes)


def test_a_study_of_another_metric_or_space_is_refused(home: Path) -> None:
    assert refusal(home, {"task.metric": "balanced_accuracy"}) == (
        "warm_start must be studies of the metric balanced_accuracy, got 'monday'. That one is of accuracy."
    )
    assert refusal(home, {"space.order": {"choice": ["uniform", "rs2"]}}) == (
        "warm_start must be studies with the coordinates of this space, got 'monday'. It lacks order."
    )
    assert refusal(home, {"space.lr": 0.1}) == (
        "warm_start must be studies with the coordinates of this space, got 'monday'. It lacks lr."
    )


def test_values_outside_of_the_space_are_dropped_and_counted(home: Path) -> None:
    trials = StudyFolder(str(home / "runs"), "monday").open().records("trial")
    least = sorted(trial.coordinates["budget"] for trial in trials)[len(trials) // 2]
    study = parse(changed({**TOLD, "space.budget": {"log": [least, 0.8]}}))
    (taken,) = take(study, read_space(study.space), str(home / "runs"))
    outside = sum(trial.coordinates["budget"] < least for trial in trials)
    assert 0 < outside < len(trials)
    assert (taken.known.outside, taken.known.trials) == (outside, len(trials) - outside)
    assert f"({outside} outside of this space left out)" in taken.known.sentence
    assert refusal(home, {"space.budget": {"log": [0.79, 0.8]}}) == (
        "warm_start must be studies with finished trials in this space, got 'monday'. "
        f"{len(trials)} of its trials lie outside of this space, 0 did not finish."
    )


def damaged(change: Callable[[StudyFolder], None], own: Path) -> None:
    folder = StudyFolder(str(own / "runs"), "monday").open()
    change(folder)
    folder.save()


def test_a_study_of_other_batches_or_without_a_reference_is_refused(own: Path) -> None:
    damaged(lambda folder: folder.note(batching=1), own)
    assert refusal(own, {}) == (
        "warm_start must be studies with batches as they are today, got 'monday'. The version that ran it cut phases "
        "into other batches: its runs cannot be compared with new ones."
    )
    damaged(lambda folder: folder.note(batching=2, noise=None), own)
    assert refusal(own, {}).startswith("warm_start must be studies whose reference has run, got 'monday'.")


def test_a_study_that_is_not_there_is_told_with_all_other_mistakes(home: Path) -> None:
    said = refusal(home, {"task.metric": "balanced_accuracy"}, ("mondy", "monday")).splitlines()
    assert len(said) == 2
    assert said[0].startswith(
        "warm_start must be earlier studies that can be read, got 'mondy'. study 'mondy' is not in "
    )
    assert "Did you mean 'monday'?" in said[0]


def test_other_samplers_take_no_warm_start() -> None:
    with pytest.raises(ConfigError) as caught:
        StudySettings(warm_start=("monday",), sampler="tpe")
    assert str(caught.value) == (
        "warm_start: warm_start must be empty, got ['monday']. The sampler tpe learns nothing from other studies: set "
        "sampler to frontier, or remove it."
    )
    with pytest.raises(ConfigError, match="warm_start must be a list of different studies"):
        StudySettings(warm_start=("monday", "monday"))
    assert replace(StudySettings(), warm_start=("monday",)).warm_start == ("monday",)


def test_what_an_earlier_study_was_begun_with_itself_is_told_too(home: Path, told: StudyView) -> None:
    study = parse(changed({**EASY, "study.warm_start": ["monday", "tuesday"]}))
    first, second = (one.known for one in take(study, read_space(study.space), str(home / "runs")))
    own = sum(trial.study_flops for trial in told.trials) / told.reference[0].cost_flops
    assert second.trainings == pytest.approx(own + first.trainings)


def test_a_bundle_s_page_tells_what_was_known_before(told: StudyView) -> None:
    assert told.summary.bundle is not None
    (known,) = told.manifest.known_before
    page_of = (Path(told.summary.bundle) / "README.md").read_text()
    assert known.sentence in " ".join(page_of.split())
