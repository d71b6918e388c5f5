"""The Optuna study of a search, and what dashboards read of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.search.journal import Journal, look_at
from subsettune.study.search.journal_storage import FileJournal, ReadOnlyJournal, SegmentJournal
from subsettune.study.search.observations import Outcome, TrialRecord
from subsettune.study.spec.space_check import read_space

SPACE = read_space({"budget": {"log": [0.1, 0.8]}, "arm": "full"})
POINT = FrozenDict({"arm": "full", "budget": 0.3})
CURVE = ((0.25, 0.5), (0.75, 0.8))
NAME = "journal"


def journal(folder: Path) -> Journal:
    return Journal(FileJournal(folder / NAME), "one", {"space": {}})


def ended(number: int, cause: str = "finished", metric: float | None = 0.9) -> TrialRecord:
    outcome = Outcome(cause=cause, metric=metric)
    return TrialRecord(number=number, point=POINT, seed=1, cost=0.3, curve=CURVE, outcome=outcome)


def begun(made: Journal) -> int:
    return made.begin(SPACE, {"point": POINT, "seed": 1, "cost": 0.3, "confirms": None})


def seen(folder: Path) -> optuna.Study:
    return look_at(ReadOnlyJournal(Folder.at(folder), NAME), "one")


def test_a_dashboard_reads_names_feasibility_and_curves(tmp_path: Path) -> None:
    made = journal(tmp_path)
    made.end(ended(begun(made)), -0.02)
    made.end(ended(begun(made), "stopped", None), 0.1)
    made.end(ended(begun(made), "failed", None), 0.2)
    study = seen(tmp_path)
    assert study.metric_names == ["compute_share"]
    finished, stopped, failed = study.trials
    assert finished.intermediate_values == {250: 0.5, 750: 0.8, 1000: 0.9}
    assert stopped.intermediate_values == failed.intermediate_values == {250: 0.5, 750: 0.8}
    assert [trial.value for trial in study.trials] == [0.3, 0.3, None]
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [t.system_attrs["constraints"] for t in study.trials] == [[-0.02], [0.1], [0.2]]
    assert study.best_trial.number == 0


def test_what_a_trial_leaves_is_taken_up_after_a_crash_between_its_lines(tmp_path: Path) -> None:
    made = journal(tmp_path)
    number = begun(made)
    before = (tmp_path / NAME).read_bytes().count(b"\n")
    made.end(ended(number, "stopped", None), 0.1)
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    whole = seen(tmp_path).trials[0]
    assert len(lines) > before + 4
    for kept in range(before, len(lines)):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / NAME).write_bytes(b"".join(lines[:kept]))
        again = journal(folder)
        assert [is_over for _, is_over in again.trials()] == [False]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again.end(ended(number, "stopped", None), 0.1)
        trial = seen(folder).trials[0]
        assert (trial.state, trial.value, trial.intermediate_values, trial.system_attrs) == (
            whole.state,
            whole.value,
            whole.intermediate_values,
            whole.system_attrs,
        )


def test_the_end_of_a_trial_is_one_object(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "segments")
    made = Journal(SegmentJournal(folder), "one", {"space": {}})
    number = begun(made)
    before = len(folder.names())
    made.end(ended(number), -0.02)
    assert len(folder.names()) == before + 1
    assert len(folder.read(folder.names()[-1]).splitlines()) > 4


def test_a_journal_of_another_name_is_told(tmp_path: Path) -> None:
    journal(tmp_path)
    with pytest.raises(StudyError, match=r"the journal holds no study 'two'. Give its folder the name that it had."):
        look_at(ReadOnlyJournal(Folder.at(tmp_path), NAME), "two")


def test_a_journal_of_before_goes_on_and_gets_its_name(tmp_path: Path) -> None:
    made = journal(tmp_path)
    made.end(ended(begun(made)), -0.02)
    old = [line for line in (tmp_path / NAME).read_text().splitlines() if not _is_new(json.loads(line))]
    assert len(old) < len((tmp_path / NAME).read_text().splitlines())
    (tmp_path / NAME).write_text("".join(f"{line}\n" for line in old))
    again = journal(tmp_path)
    again.end(ended(begun(again)), -0.01)
    study = seen(tmp_path)
    assert study.metric_names == ["compute_share"]
    assert [trial.value for trial in study.trials] == [0.3, 0.3]
    assert [list(trial.constraints.values()) for trial in study.trials] == [[-0.02], [-0.01, -0.01]]


def _is_new(log: dict[str, object]) -> bool:
    """Whether a line is one that earlier versions did not write."""
    attributes = log.get("system_attr") or {}
    return "intermediate_value" in log or bool({"study:metric_names", "constraints"} & set(attributes))
