"""`init`: drafts that run as they are, each guess with its reason, and refusals that say what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import in_hand
import numpy as np
import pytest
from PIL import Image
from places import ROOT
from tables import csv_text

from subsettune.cli import drafts, main
from subsettune.cli.init_study import examples
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
    assert task.tolerance == pytest.approx(0.01 * PRICE.var(), rel=0.35)
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
    assert told_updates("mine.yaml") == pytest.approx(updates, rel=0.01)


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


def test_large_numbers_are_judged_by_their_absolute_error(init: Init) -> None:
    """Nobody reads the ten digits of a price's squared error."""
    Path("p.csv").write_text(
        csv_text("a;price", lambda i: f"{X[i, 0]};{200_000 + 1000 * X[i, 0] + 900 * (i % 7):.2f}", N)
    )
    task = drafted(init, "p.csv", "--label", "price", output="p.yaml").task
    price = [200_000 + 1000 * X[i, 0] + 900 * (i % 7) for i in range(N)]
    assert task.metric == "mae"
    assert task.tolerance == pytest.approx(0.005 * np.std(price), rel=0.35)
    assert (
        "mean absolute error, lower is better; the mse of numbers so large has too many" in Path("p.yaml").read_text()
    )


def test_numbers_that_are_a_quantity(init: Init) -> None:
    Path("q.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{i % 50}", N))
    assert drafted(init, "q.csv", output="q.yaml").task.metric == "mse"
    assert (
        "50 numbers are taken for a quantity (for classes write accuracy): mean squared error, lower"
        in Path("q.yaml").read_text()
    )


COUNTED = {
    "ages": (
        lambda i: i % 40,
        "40 numbers are taken for a quantity (for classes write accuracy): mean squared error, lower",
    ),
    "rare": (
        lambda i: 9 if i == 7 else i % 5,
        "the labels are 6 different whole numbers, and are taken for a quantity",
    ),
    "old": (lambda i: i // 2, "the labels are 200 different whole numbers, and are taken for a quantity"),
}


@pytest.mark.parametrize("case", COUNTED)
def test_whole_numbers_that_make_no_classes_are_a_quantity(init: Init, case: str) -> None:
    count, why = COUNTED[case]
    Path("q.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{count(i)}", N))
    assert drafted(init, "q.csv", output="q.yaml").task.metric == "mse"
    assert why in Path("q.yaml").read_text()


def test_classes_that_are_called_by_numbers(init: Init) -> None:
    Path("q.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{3 + i % 3}", N))
    assert drafted(init, "q.csv", output="q.yaml").task.metric == "accuracy"
    assert "the numbers 3, 4, 5 are taken for classes; for a quantity write mse" in Path("q.yaml").read_text()


METRICS = {"accuracy": 0.05, "log_loss": 0.02, "mse": 0.007, "mae": 0.004, "rmse": 0.004, "r2": 0.01}


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_that_is_given(init: Init, metric: str) -> None:
    """Of a quantity the tolerance is in the units of the metric: the labels have a variance of 2 / 3."""
    Path("q.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{i % 3}", N))
    task = drafted(init, "q.csv", "--metric", metric, output="q.yaml").task
    assert (task.metric, task.tolerance) == (metric, METRICS[metric])


def test_keys_that_are_given(init: Init) -> None:
    """What a refusal names, and what it says of this command, lead to a draft; keys may be whole or with dots."""
    text = csv_text("a;when;note;label", lambda i: f"{X[i, 0]};{1 + i % 12}/{1 + i % 12}/2024;ü{i};{i % 2}", N)
    Path("d.csv").write_bytes(text.encode("latin-1"))
    given = []
    for option, hint in (
        ("data.csv={encoding: cp1252}", "Here: --set 'data.csv={encoding: cp1252}'."),
        ("data.date_formats={when: '%d/%m/%Y'}", """Here: --set "data.date_formats={when: '%d/%m/%Y'}"."""),
        ("data.exclude=[note]", "Here: --set 'data.exclude=[note]'."),
    ):
        code, _, err = init("d.csv", *given)
        assert (code, err.rstrip().endswith(hint)) == (2, True), err
        given += ["--set", option]
    also = init("d.csv", *given[:2], "--set", "data.exclude=[when]")[2]
    assert also.rstrip().endswith("--set 'data.exclude=[when, note]'.")
    data = drafted(init, "d.csv", *given, output="d.yaml").task.data
    assert (data.csv.encoding, data.date_formats, data.exclude) == ("cp1252", {"when": "%d/%m/%Y"}, ("note",))
    given[1], given[3] = "data.csv.encoding=cp1252", "data.date_formats.when=%d/%m/%Y"
    assert drafted(init, "d.csv", *given, "--output", "e.yaml", output="e.yaml").task.data == data


def test_slips_among_prices_are_named_with_their_line(init: Init) -> None:
    Path("data.csv").write_text(
        csv_text(
            "area;price", lambda i: f"{X[i, 0]};{'1.000052,75' if i == 9 else f'{1 + i % 9}21.631,{10 + i % 80}'}", N
        )
    )
    code, _, err = init("data.csv", "--label", "price")
    told = (
        "column 'price' must hold numbers, got '1.000052,75' in line 11 of data.csv. Mend or drop that row, or choose"
    )
    assert (code, told in err, "Here:" in err) == (2, True, False), err


def test_the_lines_that_mend_prices_do(init: Init) -> None:
    text = csv_text("area;price", lambda i: f"{i % 7};{1 + i % 9}21.631,{10 + i % 80} €", N)
    Path("a.csv").write_bytes(text.encode("cp1252"))
    given = ("--label", "price", "--set", "data.csv.encoding=cp1252")
    lines = init("a.csv", *given)[2].partition("as these lines do: ")[2]
    exec(lines, {})
    assert "121631,10" in Path("plain.csv").read_text()
    assert init("plain.csv", "--label", "price")[0] == 0


@pytest.mark.parametrize("name", ["true", "null"])
def test_a_column_may_be_called_like_a_value(init: Init, name: str) -> None:
    Path("d.csv").write_text(csv_text(f"a,{name},label", lambda i: f"{X[i, 0]},{i},{i % 2}", N))
    data = drafted(init, "d.csv", "--set", f"data.exclude={name}", output="d.yaml").task.data
    assert data.exclude == (name,)


def test_the_text_of_a_tsv_file_is_the_column_beside_the_label(init: Init) -> None:
    Path("t.tsv").write_text(csv_text("label\tsentence", lambda i: f"{i % 2}\tgood film {i % 9}", N))
    data = drafted(init, "t.tsv", output="t.yaml").task.data
    assert (data.label, data.text) == ("label", "sentence")


def told_updates(file: str) -> int:
    found = re.search(r"about ([\d,]+) updates", Path(file).read_text())
    assert found is not None
    return int(found[1].replace(",", ""))


def test_a_small_table(init: Init) -> None:
    """The smallest subset of the space has an example of each class, and two numbers are classes in few rows too."""
    Path("t.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{i % 2}", 12))
    study = drafted(init, "t.csv", output="t.yaml")
    recipe = study.task.recipe
    assert study.task.metric == "accuracy"
    assert "  subset_share: {log: [0.25, 0.9]}" in Path("t.yaml").read_text()
    assert told_updates("t.yaml") == round(recipe.epochs * 8 / recipe.batch_size)


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


SHIPPED = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))


def test_every_study_that_is_shipped_can_be_written(init: Init) -> None:
    assert sorted(examples()) == SHIPPED
    assert examples()[0] == "digits"
    for name in SHIPPED:
        assert init("--example", name)[0] == 0
        Path("shipped.yaml").write_text((ROOT / f"search_spaces/{name}.yaml").read_text().replace("search_spaces/", ""))
        assert read(f"{name}.yaml") == read("shipped.yaml")
        assert f"subsettune tune {name}.yaml" in Path(f"{name}.yaml").read_text()
        assert "search_spaces/" not in Path(f"{name}.yaml").read_text()
    assert Path("program.py").read_text() == (ROOT / "search_spaces/program.py").read_text()


def test_an_example_that_cannot_be_written_leaves_nothing_behind(init: Init) -> None:
    before = sorted(Path().iterdir())
    assert init("--example", "program", "--output", "no/where.yaml")[0] == 2
    assert sorted(Path().iterdir()) == before
    Path("program.py").touch()
    assert init("--example", "program")[0] == 2
    assert not Path("program.yaml").exists()


def test_commands_in_an_example_can_be_pasted(init: Init) -> None:
    assert init("--example", "program", "--output", "my own.yaml")[0] == 0
    assert "# subsettune run 'my own.yaml' -- python program.py " in Path("my own.yaml").read_text()


def test_what_to_do_next_is_told_of_an_example(init: Init) -> None:
    _, told, _ = init("--example", "digits", "--output", "mine.yaml")
    assert (
        told == "Wrote mine.yaml. See what it would do: subsettune plan mine.yaml; run it: subsettune tune mine.yaml\n"
    )
    assert "# subsettune tune mine.yaml" in Path("mine.yaml").read_text()
    _, told, _ = init("--example", "adult")
    assert told.startswith("Its first lines say where the data come from; DIR is the folder that you keep them in.\n")
    assert told.endswith("run it: subsettune tune adult.yaml --data-root DIR\n")
    _, told, _ = init("--example", "trec", "--data-root", "mine")
    assert told.endswith("run it: subsettune tune trec.yaml --data-root mine\n")


REFUSED = {
    "label": (
        ("houses.csv",),
        "the label of houses.csv must be named, got none. Its columns: area, rooms, city, price. Did you mean 'price', "
        "the last one? Give --label NAME.",
    ),
    "mistyped": (("houses.csv", "--label", "prise"), "houses.csv has no column 'prise'. Did you mean 'price'? Its col"),
    "metric": (
        ("house.csv", "--metric", "acuracy"),
        "r2, got 'acuracy'. Did you mean 'accuracy'?",
    ),
    "metric_of_an_example": (("--example", "digits", "--metric", "acuracy"), "Did you mean 'accuracy'?"),
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
    "signs": (
        ("signs.csv",),
        "labels must say which class -1 is, got it in row 0 among classes from 0: it usually marks rows without a "
        "label. Drop these rows, or number the classes 0, 1, 2, ... If they are a quantity, give --metric mse.",
    ),
    "no_key": (
        ("houses.csv", "--set", "data.cvs.encoding=latin-1"),
        "--set must be KEY=VALUE with a key of data, got 'data.cvs.encoding=latin-1'. Write it as --set data.csv.enc",
    ),
    "no_value": (("houses.csv", "--set", "data.exclude"), "--set must be KEY=VALUE with a key of data, got "),
    "two_values": (("houses.csv", "--set", "data.csv=5", "--set", "data.csv.decimal=."), "--set must be KEY=VALUE"),
    "no_folder": (
        ("houses.csv", "--label", "price", "--output", "no/where.yaml"),
        "no/where.yaml cannot be written: No such file or directory. Give --output another place.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(init: Init, case: str) -> None:
    Path("houses.csv").write_text(HOUSES)
    Path("signs.csv").write_text(csv_text("a,label", lambda i: f"{X[i, 0]},{i % 3 - 1}", N))
    arguments, message = REFUSED[case]
    code, out, err = init(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert sorted(path.name for path in Path().glob("*.yaml")) == []
