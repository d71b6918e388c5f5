"""How far a study is, as its storage tells it: while it runs, interrupted, ended by an error, killed, finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import s3_server

from subsettune import Callback, cli, config
from subsettune.api import tune
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.options import TuneOptions
from subsettune.study.stages.search import SearchStage
from subsettune.study.status import State, StudyStatus, read_status

pytestmark = s3_server.MARKS
COMMAND = "subsettune tune s.yaml --run-id one"


@pytest.fixture(scope="module", params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder for studies, of this machine and on a real server that speaks S3."""
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("runs"))
        return
    with s3_server.bucket() as (uri, _):
        yield uri


def mapping(data: dict[str, str], **settings: Any) -> dict[str, Any]:
    task = fakes.image_task(data)
    return {
        "task": {**config.to_plain(task), "tolerance": 0.5, "recipe": {**config.to_plain(task.recipe), "epochs": 2}},
        "space": {"arm": "full", "budget": {"log": [0.3, 0.9]}},
        "study": {"trials": 3, "seeds": 2, "max_seeds": 2, "candidates": 1, "sampler": "random", **settings},
    }


def drive(storage: str, run_id: str, study: dict[str, Any], *callbacks: Callback) -> None:
    options = TuneOptions(storage=storage, executor="inline", device="cpu", command=COMMAND)
    tune(study, run_id=run_id, options=options, quiet=True, callbacks=callbacks)


class At(Callback):
    """Does something when the first trial has ended."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.is_done = act, False

    def on_trial(self, run: Any) -> None:
        if not self.is_done:
            self.is_done = True
            self.act()


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


def shown(storage: str, run_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["status", run_id, "--storage", storage]) == 0
    return capsys.readouterr().out


def test_a_study_is_looked_at_from_its_beginning_to_its_end(
    storage: str, tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[StudyStatus] = []
    drive(storage, "one", mapping(tiny_data), At(lambda: seen.append(read_status(storage, "one"))))
    (running,) = seen
    assert (running.state, running.stage, running.goes_on) == ("running", "search", True)
    assert running.driver is not None
    assert running.driver.pid == os.getpid()
    assert running.trials is not None
    assert (running.trials.asked, running.trials.ended, running.trials.finished) == (3, 1, 1)
    assert (running.references, running.references_asked) == (2, 2)
    assert running.trainings is not None
    assert running.trainings > 2
    assert running.best is not None
    assert not running.best.is_verified
    assert running.best.gap == pytest.approx(running.best.metric - running.best.reference_metric)

    ended = read_status(storage, "one")
    assert (ended.state, ended.stage, ended.driver) == ("finished", "finished", None)
    assert ended.trials is not None
    assert (ended.trials.ended, ended.trials.running) == (3, 0)
    assert ended.verified
    assert ended.verification["reference"] >= 2
    assert set(ended.verification) > {"reference"}
    text = shown(storage, "one", capsys)
    assert text.startswith("Study one: finished.\n")
    assert "trials        3 of 3: 3 finished\n" in text
    assert "(verified)" in " ".join(text.split())
    assert " ".join(text.split()).endswith(" ".join(ended.headline.split()))


def test_who_looks_neither_stops_a_driver_nor_writes(storage: str, tiny_data: dict[str, str]) -> None:
    folder = Folder.at(storage) / "looked"
    seen: list[object] = []  # asserted afterwards: what a callback raises does not end a study

    def listed() -> list[tuple[str, int]]:
        return [(info.base_name, info.mtime_ns or 0) for info in folder.infos() if info.base_name != ".drivers"]

    def look() -> None:
        seen.append(listed())
        seen.extend(read_status(storage, "looked").state for _ in range(3))
        seen.append(listed())

    drive(storage, "looked", mapping(tiny_data), At(look))
    before, *states, after = seen
    assert states == ["running"] * 3
    assert before
    assert before == after


def test_an_interrupted_study_says_how_to_go_on(
    storage: str, tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(storage, "two", mapping(tiny_data), At(raising(KeyboardInterrupt())))
    status = read_status(storage, "two")
    assert (status.state, status.stage, status.driver) == ("interrupted", "search", None)
    text = shown(storage, "two", capsys)
    assert text.startswith("Study two: interrupted, in stage search.\n")
    assert text.endswith(f"\n\nTo go on: {COMMAND}\n")
    drive(storage, "two", mapping(tiny_data))
    assert read_status(storage, "two").state == "finished"


def test_an_error_that_ended_a_study_is_told_until_it_goes_on(
    storage: str,
    tiny_data: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SearchStage, "finish", lambda _: raising(StudyError("the moon fell. Put it back."))())
        with pytest.raises(StudyError):
            drive(storage, "three", mapping(tiny_data))
    status = read_status(storage, "three")
    assert (status.state, status.failure) == ("failed", "the moon fell. Put it back.")
    assert "\nIt ended with: the moon fell. Put it back.\n" in shown(storage, "three", capsys)
    drive(storage, "three", mapping(tiny_data))
    assert (read_status(storage, "three").state, read_status(storage, "three").failure) == ("finished", "")


class Killed(BaseException):
    """What no driver expects, so that it notes nothing on its way out."""


def test_a_study_whose_driver_was_killed_does_not_run(
    storage: str, tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Killed):
        drive(storage, "four", mapping(tiny_data), At(raising(Killed())))
    status = read_status(storage, "four")
    assert (status.state, status.stage, status.driver) == ("killed", "search", None)
    assert status.trials is not None
    assert (status.trials.ended, status.trials.running) == (1, 0)
    assert shown(storage, "four", capsys).startswith("Study four: not running: its driver has ended without a word")


def test_programs_read_one_object_or_one_a_line(
    storage: str, tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    drive(storage, "five", mapping(tiny_data))
    capsys.readouterr()
    assert cli.main(["status", "five", "--storage", storage, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["trials"]["finished"], told["driver"]) == ("finished", 3, None)
    assert told["best"]["policy"]["phases"]
    assert cli.main(["status", "five", "--storage", storage, "--json", "--watch", "0.1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == told


def test_a_study_that_is_not_there_is_told(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "zzz", "--storage", storage]) == 2
    assert capsys.readouterr().err.startswith("error: study 'zzz' is not in ")


def test_a_study_that_is_watched_is_waited_for(
    tiny_data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        drive(str(tmp_path), "six", mapping(tiny_data))

    monkeypatch.setattr("subsettune.cli.status_command.sleep", nap)
    assert cli.main(["status", "six", "--storage", str(tmp_path), "--watch", "7"]) == 0
    assert naps == [7.0]
    told = capsys.readouterr()
    assert "study 'six' is not in" in told.err
    assert "Waiting for it." in told.err
    assert "Study six: finished." in told.out


def test_a_watched_study_that_has_begun_is_read_once_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[State] = ["running", "running", "finished"]
    begun = [False, True]
    monkeypatch.setattr("subsettune.study.status.has_begun", lambda *_: begun.pop(0))
    monkeypatch.setattr(
        "subsettune.study.status.read_status",
        lambda storage, run_id: StudyStatus(run_id=run_id, folder=storage, state=states.pop(0)),
    )
    monkeypatch.setattr("subsettune.cli.status_command.sleep", lambda _: None)
    assert cli.main(["status", "seven", "--storage", "no_such_folder", "--watch", "7"]) == 0
    assert (states, begun) == ([], [])
