"""`tune` as it is called from Python: what it shows, whom it tells, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed

from subsettune import Found, TuneOptions, load_study, tune
from subsettune.cli import main
from subsettune.errors import ArgumentError, ConfigError, LearningError
from subsettune.report.progress import SilentProgress

TINY = {"task.tolerance": 0.3, "study.trials": 2, "study.seeds": 2, "study.max_seeds": 2}
KNOWN = "Known: run_id, observer, options, callbacks, quiet."


@pytest.fixture
def options(tmp_path: Path) -> TuneOptions:
    return TuneOptions(storage=str(tmp_path / "runs"), executor="inline", device="cpu")


class Told:
    def __init__(self) -> None:
        self.starts: list[int] = []
        self.trials: list[str] = []
        self.found: list[Found] = []
        self.errors: list[BaseException] = []

    def on_start(self, study: Found) -> None:
        self.starts.append(len(study.view.trials))

    def on_trial(self, run: Any) -> None:
        self.trials.append(run.name)

    def on_finish(self, study: Found) -> None:
        assert study.bundle is not None
        assert Path(study.folder, "report.html").exists()
        self.found.append(study)

    def on_failure(self, error: BaseException) -> None:
        self.errors.append(error)


def test_a_study_tells_its_callbacks_and_goes_on_with_new_runs_alone(
    options: TuneOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    found = tune(changed(TINY), run_id="one", options=options, callbacks=[told])
    first, last = (line for line in capsys.readouterr().err.splitlines() if not line.endswith("reading data"))
    assert first.partition("] ")[2] == f"Study 'one' in {options.storage}; tune with run_id='one' goes on with it."
    assert last.partition("] ")[2] == found.summary.headline
    more = tune(changed({**TINY, "study.trials": 3}), run_id="one", options=options, callbacks=[told], quiet=True)
    assert capsys.readouterr().err == ""
    assert told.starts == [0, 2]
    assert told.trials == ["trial-0000", "trial-0001", "trial-0002"]
    assert told.found == [found, more]
    assert told.errors == []
    assert load_study("one", storage=options.storage) == more


def test_a_callback_that_raises_does_not_cost_the_study(options: TuneOptions, caplog: pytest.LogCaptureFixture) -> None:
    class Breaks:
        def on_trial(self, run: Any) -> None:
            raise RuntimeError("no connection")

    found = tune(changed(TINY), run_id="one", options=options, callbacks=[Breaks()], quiet=True)
    assert found.summary.status == "finished"
    assert [record.getMessage() for record in caplog.records if record.name == "subsettune.callbacks"] == [
        "callback Breaks raised in on_trial: RuntimeError: no connection. It is told no more; the study goes on."
    ]


def test_an_interrupted_study_is_told_and_goes_on(options: TuneOptions) -> None:
    class Stops(Told):
        def on_trial(self, run: Any) -> None:
            raise KeyboardInterrupt

    told = Stops()
    with pytest.raises(KeyboardInterrupt):
        tune(changed(TINY), run_id="one", options=options, callbacks=[told], quiet=True)
    assert [type(error) for error in told.errors] == [KeyboardInterrupt]
    assert load_study("one", storage=options.storage).summary.status == "interrupted"
    after = Told()
    tune(changed(TINY), run_id="one", options=options, callbacks=[after], quiet=True)
    assert (after.starts, after.trials) == ([1], ["trial-0001"])


def test_an_error_is_told_too(options: TuneOptions) -> None:
    told = Told()
    with pytest.raises(LearningError):
        tune(changed({**TINY, "task.recipe.lr": 1e8}), run_id="one", options=options, callbacks=[told], quiet=True)
    assert [type(error) for error in told.errors] == [LearningError]
    assert told.found == []


def test_an_observer_of_ones_own_takes_the_place_of_the_display(
    options: TuneOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []

    class Mine(SilentProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    tune(changed(TINY), run_id="one", options=options, observer=Mine())
    assert capsys.readouterr() == ("", "")


UNKNOWN = {
    "trials": (3, 'It belongs into the study: {"study": {"trials": 3}}.'),
    "storage": ("x", "It belongs into options=TuneOptions(storage='x')."),
    "callback": ([], "Did you mean 'callbacks'?"),
    "zebra": (1, ""),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_keyword_that_is_none_is_told_with_its_place(name: str) -> None:
    value, advice = UNKNOWN[name]
    with pytest.raises(ArgumentError) as caught:
        tune({}, **{name: value})
    assert str(caught.value) == " ".join(f"tune has no keyword {name!r}. {advice} {KNOWN}".split())
    assert isinstance(caught.value, TypeError)


WRONG = {
    "options": (
        {"executor": "inline"},
        "options must be a TuneOptions, got {'executor': 'inline'}. Write options=TuneOp",
    ),
    "quiet": ("no", "quiet must be True or False, got 'no'."),
    "observer": (print, "observer must be an object with the methods of an Observer, got <"),
    "run_id": (3, "run_id must be a plain folder name, got 3. Use letters, digits and dashes."),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_such_thing_is_refused(name: str, options: TuneOptions) -> None:
    given, message = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        tune(changed(TINY), **{"options": options, name: given})
    assert str(caught.value).startswith(message)


def test_an_unknown_key_has_the_sentence_of_the_command_line(
    tmp_path: Path, options: TuneOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = changed({"study.trails": 3})
    with pytest.raises(ConfigError) as caught:
        tune(raw, options=options)
    path = tmp_path / "mine.yaml"
    path.write_text(str(raw))  # flow style
    assert main(["plan", str(path)]) == 2
    (sentence,) = str(caught.value).splitlines()
    assert sentence.startswith("study.trails: unknown key. Did you mean 'trials'? Known keys: ")
    assert sentence in capsys.readouterr().err


def test_a_mistaken_callback_is_told_before_anything_runs(options: TuneOptions) -> None:
    with pytest.raises(
        ConfigError, match=r"^callbacks\[0\] must be an object with one of the methods of subsettune.Ca"
    ):
        tune(changed(TINY), run_id="one", options=options, callbacks=[object()])
    assert not Path(options.storage).exists()
