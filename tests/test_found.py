from __future__ import annotations

import pickle
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from fake_inputs import changed
from fake_study import STATES, make_view

from subsettune import DataPaths, Found, TuneOptions, load_study, tune
from subsettune.errors import MissingPackageError, StudyError
from subsettune.study.results.view import StudyView

FINISHED = Found(make_view("subset_wins"))
PASSES = {"task.tolerance": 0.3, "study.trials": 4, "study.seeds": 2, "study.max_seeds": 2}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a finished study, `one`."""
    folder = tmp_path_factory.mktemp("found")
    where = TuneOptions(
        storage=str(folder / "runs"), places=DataPaths(cache=str(folder)), executor="inline", device="cpu"
    )
    tune(changed(PASSES), run_id="one", options=where, quiet=True)
    return folder / "runs"


@pytest.mark.parametrize("state", STATES)
def test_three_lines_in_every_state(state: str) -> None:
    found = Found(make_view(state))
    first, second, third = repr(found).splitlines()
    assert first == f"Study {found.run_id!r}: {found.summary.headline}"
    assert second.startswith("Saving: ")
    assert third == f"Bundle: {found.summary.bundle or 'none'}"
    assert (second.startswith("Saving: none is shown.")) == (not found.summary.verified)


def test_a_saving_is_told_with_what_it_cost() -> None:
    tuning, reference = FINISHED.summary.tuning, FINISHED.summary.reference
    assert repr(FINISHED).splitlines()[1] == (
        f"Saving: {round(100 * FINISHED.summary.best.saving)} % of the compute of each training. Tuning cost "
        f"{tuning.flops / reference.flops:.1f} trainings, repaid after {tuning.break_even} trainings."
    )


def test_it_has_all_that_a_view_has() -> None:
    for field in fields(StudyView):
        assert field.name in dir(FINISHED)
        if field.name != "trials":
            assert getattr(FINISHED, field.name) is getattr(FINISHED.view, field.name)
    assert FINISHED.reaches(0.99)
    with pytest.raises(AttributeError, match=r"^'Found' object has no attribute 'trails'. Did you mean 'trials'\?$"):
        _ = FINISHED.trails
    assert repr(pickle.loads(pickle.dumps(FINISHED))) == repr(FINISHED)


def test_trials_are_a_frame_with_the_coordinates_of_the_space() -> None:
    frame, records = FINISHED.trials, FINISHED.view.trials
    assert list(frame.index) == [run.number for run in records]
    assert list(frame["metric"].dropna()) == [run.metric for run in records if run.metric is not None]
    assert list(frame["matched"]) == [run.cause == "finished" and FINISHED.reaches(run.metric) for run in records]
    shares = [run.cost_flops / FINISHED.facts.reference_flops for run in records]
    assert list(frame["compute_share"]) == pytest.approx(shares)
    for name in ("budget", "lr"):
        assert list(frame[name]) == [run.coordinates[name] for run in records]
    is_full = [run.coordinates["arm"] == "full" for run in records]
    assert list(frame["subset_share"].isna()) == is_full
    assert frame["policy"].str.len().min() > 0


def test_a_coordinate_that_is_called_like_another_column_is_told_apart() -> None:
    trials = tuple(
        replace(run, coordinates=type(run.coordinates)({**run.coordinates, "passes": 3}))
        for run in FINISHED.view.trials
    )
    frame = Found(replace(FINISHED.view, trials=trials)).trials
    assert set(frame["space.passes"]) == {3}
    assert list(frame["passes"]) == list(FINISHED.trials["passes"])


def test_runs_are_those_of_all_roles() -> None:
    frame, table, view = FINISHED.runs, FINISHED.runs_table, FINISHED.view
    groups = (view.reference, view.trials, view.verification, view.ablation_runs, view.confirmation_runs)
    assert len(frame) == table.num_rows == sum(map(len, groups))
    assert set(frame["role"]) == {"reference", "trial", "verification", "ablation"}
    assert frame.index.tolist() == table["name"].to_pylist()
    assert frame.loc["reference-seed-0", "passes"] == 30
    assert table.schema.field("curve").type is not None


def test_a_reference_that_was_only_measured_again_has_no_seconds_of_training(storage: Path) -> None:
    frame = load_study("one", storage=storage).runs
    again = (frame["role"] == "verification") & (frame["candidate"] == "reference")
    assert again.any()
    assert frame["seconds"].isna().equals(again)
    assert frame["seconds"][~again].min() > 0


def test_a_study_without_trials_has_empty_frames() -> None:
    found = Found(make_view("empty"))
    assert (len(found.trials), len(found.runs), found.runs_table.num_rows) == (0, 0, 0)
    assert found.bundle is None


def test_without_pandas_the_table_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    advice = 'Install it: pip install "subsettune\\[tune\\]"'
    for name in ("trials", "runs"):
        with pytest.raises(MissingPackageError, match=f"^found.{name} needs pandas, which is not installed. {advice}"):
            getattr(FINISHED, name)
    assert FINISHED.runs_table.num_rows > 0


def test_a_study_on_disk_is_what_tune_gave(storage: Path) -> None:
    found = load_study("one", storage=storage)
    assert found.summary.verified
    assert found.bundle.policy == found.candidates[found.manifest.winner].policy
    study = found.optuna_study
    assert study.study_name == "one"
    assert [trial.value for trial in study.trials] == [run.coordinates["budget"] for run in found.view.trials]
    feasible = [max(trial.constraints.values()) <= 0 for trial in study.trials]
    assert feasible == list(found.trials["matched"])
    before = (storage / "one" / "optuna.journal").read_bytes()
    with pytest.raises(StudyError, match=r"optuna.journal is only looked at: a trial added here would be none"):
        study.ask()
    assert (storage / "one" / "optuna.journal").read_bytes() == before


def test_a_study_that_is_not_there_is_told_with_the_one_that_is_most_like_it(storage: Path) -> None:
    with pytest.raises(StudyError, match=r"^study 'onne' is not in .*runs. Did you mean 'one'\? See: subsettune list"):
        load_study("onne", storage=storage)
