"""`init`: drafts that run as they are, each guess with its reason, and refusals that say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import in_hand
import numpy as np
import pytest
from PIL import Image
from places import ROOT
from tables import csv_text

from subsettune.cli import drafts, main
from subsettune.cli.drafts import EXAMPLES
from subsettune.study.spec.definition import Study
from subsettune.study.spec.yaml_file import read

RNG = np.random.default_rng(0)
N = 400
X = RNG.normal(size=(N, 2)).round(3)
CITY = RNG.choice(["Rome", "Oslo"], N)
PRICE = (100 + 20 * X[:, 0] + 10 * (CITY == "Rome") + RNG.normal(size=N)).round(2)
HOUSES = csv_text("area,rooms,city,price", lambda i: f"{X[i, 0]},{X[i, 1]},{CITY[i]},{PRICE[i]}", N)
TARGETS = csv_text("area,rooms,target", lambda i: f"{X[i, 0]},{X[i, 1]},{'dear' if PRICE[i] > 105 else 'cheap'}", N)

Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def init(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUBSETTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subsettune.report.patience.PATIENCE_S", 600.0)

    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["init", *arguments])
        return (code, *capfd.readouterr())

    return command


def drafted(init: Init, *arguments: str, output: str) -> Study:
    code, out, err = init(*arguments)
    assert code == 0, err
    assert out.endswith(
        f"Wrote {output}. See what it would do: subsettune plan {output}; run it: subsettune tune {output}\n"
    )
    return read(output)


def test_a_regression(init: Init) -> None:
    Path("houses.csv").write_text(HOUSES)
    task = drafted(init, "houses.csv", "--label", "price", output="houses.yaml").task
    assert (task.data.source, task.data.label, task.metric) == ("houses.csv", "price", "mse")
    assert task.tolerance == pytest.approx(0.05 * PRICE.var(), rel=0.35)
    text = Path("houses.yaml").read_text()
    assert "  metric: mse    # the labels are numbers of which no classes can be made" in text
    assert "by: COLUMN; in time: time: COLUMN" in text


def test_classes_with_a_label_that_is_called_so_and_missing_numbers(init: Init) -> None:
    Path("pets.csv").write_text(TARGETS + ",1,cheap\n")
    code, out, _ = init("pets.csv", "--output", "mine.yaml")
    assert (code, out.splitlines()[:2]) == (
        0,
        [
            "label: target (the only column that is called like one; the others: area, rooms)",
            "impute: median (numbers are missing: the median of the training part, and a column that says where)",
        ],
    )
    task = read("mine.yaml").task
    assert (task.data.label, task.data.impute, task.metric, task.model.name) == ("target", "median", "accuracy", "mlp")
    updates = task.recipe.epochs * N * 0.6 / task.recipe.batch_size
    assert 800 < updates < 1200


def test_a_draft_runs_as_it_is(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "UPDATES", 100)
    Path("t.csv").write_text("".join(TARGETS.splitlines(keepends=True)[:121]))
    drafted(init, "t.csv", output="t.yaml")
    quiet = ["--inline", "--quiet", "--trials", "1", "--seeds", "2"]
    assert main(["tune", "t.yaml", *quiet, "--run-id", "t"]) in (0, 3)  # a policy passed, or none did
    assert Path("runs/t/report.html").is_file()


def test_a_draft_trains_a_model_that_predicts(init: Init, capfd: pytest.CaptureFixture[str]) -> None:
    """A table with texts, dates and gaps, and a folder of pictures of several sizes, from the command line alone."""
    Path("visits.csv").write_text(in_hand.visits())
    for name, level in (("cat", 60), ("dog", 180)):
        for i in range(20):
            path = Path(f"photos/{name}/{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(RNG.normal(level, 30, (16 + i % 2 * 8, 16)), 0, 255).astype(np.uint8)).save(path)
    for source, more, first in (
        ("visits.csv", ("--label", "came"), '"prediction"'),
        ("photos", (), '"picture","prediction"'),
    ):
        drafted(init, source, *more, output=f"{Path(source).stem}.yaml")
        assert main(["train", f"{Path(source).stem}.yaml", "--save", "model/", "--device", "cpu"]) == 0
        capfd.readouterr()
        assert main(["predict", "model", source]) == 0
        out, err = capfd.readouterr()
        assert out.splitlines()[0] == first
        assert float(err.partition("accuracy: ")[2].split()[0]) > 0.8


def test_a_rare_class_is_judged_by_how_well_it_is_told_apart(init: Init) -> None:
    Path("r.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{'fraud' if i % 12 == 0 else 'fine'}", N))
    task = drafted(init, "r.csv", output="r.yaml").task
    assert (task.metric, task.tolerance) == ("roc_auc", 0.05)
    assert " % are of one class: how well the two are told apart" in Path("r.yaml").read_text()
    assert " of 80 test examples are of the rarer class" in Path("r.yaml").read_text()


def test_rare_classes_of_several_are_judged_by_their_mean(init: Init) -> None:
    names = {0: "rare", 10: "odd"}
    Path("r.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{names.get(i % 20, 'usual')}", N))
    assert drafted(init, "r.csv", output="r.yaml").task.metric == "balanced_accuracy"
    assert "90 % are of one class" in Path("r.yaml").read_text()


def test_numbers_that_are_a_quantity(init: Init) -> None:
    Path("q.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{i % 50}", N))
    assert drafted(init, "q.csv", output="q.yaml").task.metric == "mse"
    assert "50 numbers are taken for a quantity; for classes write accuracy" in Path("q.yaml").read_text()


def test_pictures_of_several_sizes(init: Init) -> None:
    for name, level in (("cat", 60), ("dog", 180)):
        for i in range(20):
            path = Path(f"photos/{name}/{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(RNG.normal(level, 30, (16 + i % 2 * 16, 16, 3)), 0, 255).astype(np.uint8)).save(
                path
            )
    task = drafted(init, "photos", output="photos.yaml").task
    assert (task.data.source, task.data.resize, task.model.name) == ("./photos", (24, 16), "cnn")


def test_parts_from_files_need_no_shares(init: Init) -> None:
    Path("d").mkdir()
    for part in ("train", "validation", "test"):
        Path(f"d/{part}.csv").write_text(TARGETS)
    drafted(init, "d", output="d.yaml")
    assert "# validation and test part are the files of these names" in Path("d.yaml").read_text()


def test_the_example_is_the_study_of_the_digits(init: Init) -> None:
    assert "\n".join(EXAMPLES["digits"].splitlines()[2:]) in (ROOT / "search_spaces/digits.yaml").read_text()
    assert drafted(init, "--example", "digits", output="digits.yaml") == read(ROOT / "search_spaces/digits.yaml")


REFUSED = {
    "label": (
        ("houses.csv",),
        "the label of houses.csv must be named, got none. Its columns: area, rooms, city, price. Did you mean 'price', "
        "the last one? Give --label NAME.",
    ),
    "mistyped": (("houses.csv", "--label", "prise"), "houses.csv has no column 'prise'. Did you mean 'price'? Its col"),
    "absent": (
        ("house.csv",),
        "house.csv' are not there. Did you mean 'houses.csv'? Give the path of a file or folder",
    ),
    "nothing": ((), "init needs a file or folder of data, or --example digits. Give one of them."),
    "both": (("houses.csv", "--example", "digits"), "init needs a file or folder of data, or --example digits."),
    "there": (
        ("houses.csv", "--label", "price", "--output", "houses.csv"),
        "--output must be a file that is not there yet, got 'houses.csv'. Give --output another name, or remove the",
    ),
    "no_folder": (
        ("houses.csv", "--label", "price", "--output", "no/where.yaml"),
        "no/where.yaml cannot be written: No such file or directory. Give --output another place.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(init: Init, case: str) -> None:
    Path("houses.csv").write_text(HOUSES)
    arguments, message = REFUSED[case]
    code, out, err = init(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert sorted(path.name for path in Path().glob("*.yaml")) == []
