"""Commands with a model in hand, as a user meets them: train --save, predict, follow."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import in_hand
import night
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_inputs import write

from subsettune import Bundle
from subsettune.bundle import readme
from subsettune.cli import main
from subsettune.cli.model_commands import is_model_folder

CPU = ("--device", "cpu")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a fresh folder and gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subsettune.report.patience.PATIENCE_S", 600.0)  # a slow machine is no part of these tests

    def command(*arguments: str) -> Done:
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Done(code, out, err)

    return command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, the same for tonight, one of nonsense, a study file, a model and a bundle."""
    folder = tmp_path_factory.mktemp("made")
    source = in_hand.written(folder, in_hand.people())
    in_hand.written(folder, in_hand.people(300, seed=1), "tonight.parquet")
    table = in_hand.people(2000, seed=2)
    noise = np.random.default_rng(0).permutation(np.array(table["label"].to_pylist()))
    in_hand.written(folder, table.set_column(4, "label", pa.array(noise)), "noise.parquet")
    write(folder / "study.yaml", {"task": in_hand.task_of(source).to_mapping()})
    in_hand.trained(in_hand.task_of(source))[0].save(folder / "model")
    night.make_bundle(folder / "bundle", source)
    return folder


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_saves_a_folder_that_predict_reads(run: Run, made: Path) -> None:
    done = run("train", str(made / "study.yaml"), "--save", "model", *CPU)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == (
        "Saved to model: weights, encoders and classes. Predict with: subsettune predict model FILE"
    )
    test = re.search(r"test (0\.\d{4})", done.out)
    assert test is not None
    found = run("predict", "model", str(made / "people.parquet"), "--output", "out.parquet", "--probabilities")
    assert found.code == 0, found.err
    assert re.fullmatch(
        r"Wrote 200 predictions to out\.parquet\.\naccuracy: 0\.\d{4} over 200 rows with labels\n", found.out
    )
    table = pq.read_table("out.parquet")
    assert table.schema.names == ["prediction", "probability of no", "probability of yes"]
    assert set(table["prediction"].to_pylist()) == {"no", "yes"}


def test_a_run_that_diverges_leaves_no_model(run: Run, made: Path) -> None:
    raw = {"task": {**in_hand.task_of(str(made / "people.parquet")).to_mapping()}}
    raw["task"]["recipe"] = {**in_hand.RECIPE, "lr": 1e30}
    write(Path("study.yaml"), raw)
    done = run("train", "study.yaml", "--save", "model", *CPU)
    assert done.code == 2
    assert done.err.splitlines()[-1].endswith("Lower the learning rate, or set grad_clip. Nothing was saved.")
    assert not Path("model").exists()


def test_which_names_are_those_of_folders(run: Run) -> None:
    Path("there").mkdir()
    Path("file").touch()
    names = {
        "model": True,
        "models/a": True,
        "v1.2/": True,
        "there": True,
        "s3://b/m": True,
        "w.pt": False,
        "file": False,
    }
    assert {name: is_model_folder(name) for name in names} == names
    assert not is_model_folder(None)


# --- predict ----------------------------------------------------------------------------------------------------------


def test_without_an_output_predictions_are_printed(run: Run, made: Path) -> None:
    in_hand.written(Path(), in_hand.people(3, seed=4, cities=("Paris",)).drop_columns(["label"]), "rows.parquet")
    done = run("predict", str(made / "model"), "rows.parquet")
    assert done.code == 0
    assert re.fullmatch(r'"prediction"\n("(no|yes)"\n){3}', done.out)
    assert re.fullmatch(r"warning: column 'city' has categories in 3 of 3 rows that the .*: 'Paris'\. .*\n", done.err)
    with_labels = run("predict", str(made / "model"), str(made / "tonight.parquet"))
    assert re.fullmatch(r"accuracy: 0\.\d{4} over 300 rows with labels\n", with_labels.err)
    assert len(with_labels.out.splitlines()) == 301


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["MADE", "MADE/tonight.parquet"],
            "MADE is no saved model: model.json is missing. Give a folder that `subsettune",
        ),
        (["MADE/model", "none.parquet"], "file 'none.parquet' is not there. Give the path of one that is."),
        (["MADE/model", "less.parquet"], "less.parquet must have the column 'age', which the model was trained on."),
        (["MADE/model", "bad.parquet"], "bad.parquet is empty, truncated or not Parquet: "),
        (
            ["MADE/model", "MADE/tonight.parquet", "--output", "a.txt"],
            "--output must be a .parquet or .csv file, got 'a",
        ),
        (["MADE/model", "a.npz"], "a.npz has arrays, and the model was trained on columns: age, city, where, account."),
    ],
)
def test_predict_refuses(run: Run, made: Path, arguments: list[str], message: str) -> None:
    in_hand.written(Path(), in_hand.people(3).drop_columns(["age"]), "less.parquet")
    Path("bad.parquet").write_bytes(b"PAR1")
    np.savez("a.npz", x=np.eye(2))
    done = run("predict", *(argument.replace("MADE", str(made)) for argument in arguments))
    assert done.code == 2
    assert done.err.startswith(f"error: {message.replace('MADE', str(made))}")
    assert done.out == ""


# --- follow -----------------------------------------------------------------------------------------------------------


def test_follow_trains_saves_and_holds_the_result_against_the_bundle(run: Run, made: Path) -> None:
    data = str(made / "tonight.parquet")
    done = run("follow", str(made / "bundle"), "--data", data, "--save", "tonight", "--seed", "5", *CPU)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("180 examples to train on (the bundle had 120), 60 for validation, 60 held out")
    assert lines[-3].endswith("by the spread of other seeds and other test examples): within that.")
    assert lines[-2].startswith("One run can show that something is badly wrong.")
    assert lines[-1].startswith("Saved to tonight: weights, encoders and classes.")
    assert run("predict", "tonight", data, "--output", "o.csv").code == 0


def test_follow_warns_of_categories_that_are_new_or_gone(run: Run, made: Path, tmp_path: Path) -> None:
    data = in_hand.written(tmp_path, in_hand.people(300, seed=5, cities=("Lima", "Oslo", "Ulm")), "other.parquet")
    words = ("follow", str(made / "bundle"), "--data", data, "--check", *CPU)
    warning = "column 'city': 1 value is new ('Ulm'), 1 value is gone ('Rome')."
    assert f"warning: {warning}" in run(*words).err.splitlines()
    assert json.loads(run(*words, "--json").out)["warnings"] == [warning]


def test_the_commands_and_the_code_on_the_page_of_a_bundle_run_as_they_stand_there(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "bundle", "bundle")
    for name in ("NEW.parquet", "ROWS.parquet"):
        shutil.copy(made / "tonight.parquet", name)
    bundle = Bundle.load("bundle")
    page = readme.page(bundle, str(tmp_path / "bundle"))
    assert not re.search(r"/(tmp|home|root|var)\b", page)
    assert str(made) not in page
    assert readme.how_to_use(bundle, str(tmp_path / "bundle")) in page
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert [command.split()[:2] for command in commands] == [
        *(["subsettune", "follow"], ["subsettune", "predict"], ["subsettune", "follow"]),
    ]
    for command in commands:
        done = run(*shlex.split(command)[1:])
        assert done.code == 0, done.err
    assert Path("predictions.parquet").is_file()
    own_loop, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(own_loop, names)
    assert names["model"].predict(names["model"].read("ROWS.parquet")).shape == (300,)


@pytest.mark.parametrize(
    ("place", "called"),
    [("/a/b/mine", "mine"), ("runs/x/bundle", "bundle"), ("s3://b/runs/x/bundle", "s3://b/runs/x/bundle")],
)
def test_a_page_calls_its_bundle_as_its_reader_does(made: Path, place: str, called: str) -> None:
    told = readme.how_to_use(Bundle.load(made / "bundle"), place)
    assert f"subsettune follow {called} --save model" in told
    assert f"Bundle.load({called!r})" in told
    assert ("the folder that" in told) == ("://" not in place)


def test_follow_only_says_what_it_would_do(run: Run, made: Path) -> None:
    done = run("follow", str(made / "bundle"), "--data", str(made / "tonight.parquet"), "--check", "--save", "m", *CPU)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "Nothing was trained: leave out --check to train."
    assert "one more with another seed is to be expected between" in done.out
    assert not Path("m").exists()
    plain = run("follow", str(made / "bundle"), "--data", str(made / "tonight.parquet"), "--check", "--json", *CPU)
    assert set(json.loads(plain.out)) == {"notes", "warnings", "policy", "task", "promise"}


def test_a_result_clearly_below_the_promise_has_an_exit_code_of_its_own(run: Run, made: Path) -> None:
    done = run("follow", str(made / "bundle"), "--data", str(made / "noise.parquet"), "--json", *CPU)
    assert done.code == 4
    told = json.loads(done.out)
    assert told["outcome"]["is_below"] is True
    assert told["run"]["metrics"]["test"] == told["outcome"]["value"] < told["outcome"]["expected"][0]
    assert "clearly worse than that." in told["outcome"]["sentences"][0]


def test_follow_uses_the_data_of_the_bundle_where_none_are_given(run: Run, made: Path) -> None:
    done = run("follow", str(made / "bundle"), "--check", *CPU)
    assert done.code == 0
    assert "These are the data that the bundle was made for." in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MADE/model"], "MADE/model is no bundle: bundle.json is missing. Give the folder that an export wrote."),
        (["MADE/bundle", "--data", "none.parquet"], "data '"),
        (
            ["MADE/bundle", "--data", "less.parquet"],
            "less.parquet must have the columns that the bundle was made for, go",
        ),
        (["MADE/bundle", "--data", "few.parquet"], "class "),
        (
            ["MADE/bundle", "--save", "weights.pt"],
            "--save must be a folder, got 'weights.pt'. Give a name without a suff",
        ),
        (["MADE/bundle", "--save", "."], "HERE holds what is no part of a saved model: "),
    ],
)
def test_follow_refuses(run: Run, made: Path, arguments: list[str], message: str) -> None:
    in_hand.written(Path(), in_hand.people().drop_columns(["age"]), "less.parquet")
    in_hand.written(Path(), in_hand.people(4), "few.parquet")
    done = run("follow", *(argument.replace("MADE", str(made)) for argument in arguments), *CPU)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(
        f"error: {message.replace('MADE', str(made)).replace('HERE', str(Path.cwd()))}"
    )
    assert done.out == ""
