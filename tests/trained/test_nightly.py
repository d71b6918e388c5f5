"""A bundle's policy on other data: what is derived anew and said, what is refused, and how the result is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import in_hand
import night
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from subsettune import Bundle, Policy
from subsettune.bundle.known import KnownColumn, KnownData
from subsettune.data import TaskData
from subsettune.errors import ConfigError, DataError
from subsettune.train import RunOptions
from subsettune.trained.nightly import NOT_NAMED, Followed, follow_on, other_categories

OPTIONS = RunOptions(device="cpu", num_threads=1, places=in_hand.PLACES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("night")
    return night.make_bundle(folder / "bundle", in_hand.written(folder, in_hand.people()))


def follow(bundle: Bundle, folder: Path, table: pa.Table) -> Followed:
    return follow_on(bundle, in_hand.written(folder, table, "tonight.parquet"), OPTIONS)


def test_sizes_are_derived_anew_and_the_result_is_held_against_the_promise(bundle: Bundle, tmp_path: Path) -> None:
    ready = follow(bundle, tmp_path, in_hand.people(400, seed=5))
    assert ready.sentences[0] == (
        "240 examples to train on (the bundle had 120), 80 for validation, 80 held out for the test."
    )
    assert ready.sentences[1].startswith(
        "Sizes were derived anew: phase 1 takes 120 of 240 examples, by its share, instead of 60 of 120. Examples are "
    )
    assert ready.sentences[2].startswith("One training costs ")
    assert len(ready.sentences) == 3
    result, outcome = ready.train(seed=3)
    assert result.model is not None
    assert result.policy.phases[0].pool_size(240) == 120
    assert outcome.value == result.metrics["test"]
    assert not outcome.is_below
    assert outcome.num_test == 80
    assert outcome.has_sampling


def test_labels_that_mean_nothing_fall_clearly_below(bundle: Bundle, tmp_path: Path) -> None:
    table = in_hand.people(2000, seed=5)
    noise = pa.array(np.random.default_rng(0).permutation(np.array(table["label"].to_pylist())))
    _, outcome = follow(bundle, tmp_path, table.set_column(4, "label", noise)).train(seed=0)
    assert outcome.is_below


def test_the_data_of_the_bundle_are_followed_bit_for_bit(bundle: Bundle) -> None:
    ready = follow_on(bundle, options=OPTIONS)
    assert ready.is_same
    assert "These are the data that the bundle was made for." in ready.sentences
    assert ready.task == bundle.task
    for run in bundle.evidence.best.runs[:2]:
        result, outcome = ready.train(run.seed)
        assert result.metrics["test"] == run.metric
        assert outcome.interval == ready.promise.interval(resolution=1 / 40)
        assert "by the spread of other seeds, on the same test examples)" in outcome.sentences[0]


def test_a_bundle_is_followed_from_any_folder(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(bundle.task.data.source).parent
    monkeypatch.chdir(folder)
    made = night.make_bundle(tmp_path / "bundle", "people.parquet")
    assert made.task.data.source == str(folder / "people.parquet")
    monkeypatch.chdir(tmp_path)
    assert follow_on(Bundle.load(tmp_path / "bundle"), options=OPTIONS).is_same


def test_categories_that_are_new_or_gone_are_told(bundle: Bundle, tmp_path: Path) -> None:
    assert follow(bundle, tmp_path, in_hand.people(seed=5)).warnings == ()
    assert follow_on(bundle, options=OPTIONS).warnings == ()
    cities = ("Lima", "Rome", "Ulm", "Hof", "Bonn", "Kiel")
    ready = follow(bundle, tmp_path, in_hand.people(seed=5, cities=cities))
    assert ready.warnings == (
        "column 'city': 4 values are new ('Bonn', 'Hof', 'Kiel', ...), 1 value is gone ('Oslo').",
    )
    assert ready.train(0)[0].cause == "finished"


def test_a_bundle_of_before_categories_were_noted_says_nothing_of_them(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.known is not None
    columns = tuple(dataclasses.replace(column, categories=None) for column in bundle.known.columns)
    old = dataclasses.replace(bundle, known=dataclasses.replace(bundle.known, columns=columns))
    assert follow(old, tmp_path, in_hand.people(seed=5, cities=("Ulm", "Oslo"))).warnings == ()


def test_of_many_columns_a_few_are_told() -> None:
    known = KnownData(columns=tuple(KnownColumn(name=f"c{i}", role="categories", categories=("a",)) for i in range(7)))
    now = SimpleNamespace(columns=[f"c{i}" for i in range(7)], categories=[("a", None)] * 7)
    told = other_categories(known, cast(TaskData, SimpleNamespace(meta=now)))
    assert len(told) == 6
    assert told[0] == "column 'c0': 1 value is new (nothing)."
    assert told[-1] == "So it is with 2 more columns of categories."


def test_many_categories_are_compared_at_once() -> None:
    class Counted(tuple[str, ...]):
        walks = 0

        def __iter__(self) -> Iterator[str]:
            Counted.walks += 1
            return super().__iter__()

    before, after = (Counted(f"{i}" for i in range(first, first + 100)) for first in (0, 1))
    known = KnownData(columns=(KnownColumn(name="c", role="categories", categories=before),))
    now = SimpleNamespace(columns=["c"], categories=[after])
    told = other_categories(known, cast(TaskData, SimpleNamespace(meta=now)))
    assert told == ("column 'c': 1 value is new ('100'), 1 value is gone ('0').",)
    assert Counted.walks <= 4


def test_columns_that_the_bundle_does_not_know_are_not_read(bundle: Bundle, tmp_path: Path) -> None:
    table = in_hand.people(seed=5)
    more = table.append_column("more", pa.array(np.random.default_rng(0).normal(size=200)))
    ready = follow(bundle, tmp_path, more)
    assert ready.sentences[0] == "Not read, as the bundle does not know it: 'more'."
    assert ready.facts.num_features == bundle.facts.num_features
    alone = follow(bundle, tmp_path, table)
    assert alone.sentences[0].startswith("120 examples to train on (as many as the bundle had), 40 for validation")
    assert alone.sentences[1].startswith("Sizes are as they were. Examples are chosen again")
    assert ready.train(0)[0].metrics == alone.train(0)[0].metrics


def test_other_categories_make_another_input_and_are_said(bundle: Bundle, tmp_path: Path) -> None:
    ready = follow(bundle, tmp_path, in_hand.people(200, cities=("Lima", "Oslo", "Rome", "Bonn")))
    assert ready.sentences[-2].startswith("An example is 8 numbers for the network (the bundle's 7), which has ")


def _drop(table: pa.Table, name: str) -> pa.Table:
    return table.drop_columns([name])


def _as_texts(table: pa.Table) -> pa.Table:
    return table.set_column(0, "age", pa.array(["old" if age > 50 else "new" for age in table["age"].to_pylist()]))


def _as_numbers(table: pa.Table) -> pa.Table:
    return table.set_column(1, "city", pa.array(np.random.default_rng(0).normal(size=len(table))))


def _third(table: pa.Table) -> pa.Table:
    labels = ["maybe" if i % 3 == 0 else label for i, label in enumerate(table["label"].to_pylist())]
    return table.set_column(4, "label", pa.array(labels))


def _others(table: pa.Table) -> pa.Table:
    return table.set_column(4, "label", pa.array([f"{label}!" for label in table["label"].to_pylist()]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: _drop(t, "city"),
            "must have the columns that the bundle was made for, got no 'city' among its inputs ",
        ),
        (
            lambda t: _drop(t, "label"),
            "must be like the data that the bundle was made for, a table with the label 'label' and the columns ",
        ),
        (lambda t: _drop(t, "label"), "has no column 'label'. Its columns: age, city, where, account. Mend the data"),
        (_as_texts, "must be read as numbers, as in the bundle (int64), got categories (string). Convert it."),
        (_as_numbers, "must be read as categories, as in the bundle (string), got numbers (double). Convert it."),
        (_third, "classes must be those that the bundle was made for: new are 'maybe'. With others it is another task"),
        (_others, "new are 'no!', 'yes!'; gone are 'no', 'yes'. With others it is another task, of which its evidence"),
        (lambda t: t.slice(0, 4), "at least 3 examples, one for each part (training, test, validation), got "),
    ],
)
def test_other_data_are_refused(bundle: Bundle, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        follow(bundle, tmp_path, change(in_hand.people(seed=5)))
    assert message in str(caught.value)


def test_fewer_examples_than_a_policy_was_shown_for_are_said(bundle: Bundle, tmp_path: Path) -> None:
    ready = follow(bundle, tmp_path, in_hand.people(40, seed=5))
    assert (
        "They are fewer than one in 4 of the bundle's, and its evidence says nothing of how the policy does on so few."
        in ready.sentences
    )


def test_a_policy_that_the_data_cannot_pay_for_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    poor = Policy(phases=[{"passes": 0.3}])
    small = dataclasses.replace(bundle, policy=poor, visits=(32,), table=bundle.table.slice(0, 0))
    with pytest.raises(ConfigError) as caught:
        follow(small, tmp_path, in_hand.people(40, seed=5))
    assert str(caught.value).startswith(
        "the bundle's policy cannot be followed on these data, 24 examples to train on, where the bundle had 120: "
    )
    by_q = Policy(phases=[{"share": 0.5, "q": 0.8, "passes": 2}, {"passes": 3}])
    with pytest.raises(
        ConfigError, match=r"q must be at most .* It needs .* examples and there are 24. Give more rows, or"
    ):
        follow(dataclasses.replace(bundle, policy=by_q), tmp_path, in_hand.people(40, seed=5))


def test_a_bundle_of_before_names_nothing(bundle: Bundle, tmp_path: Path) -> None:
    nameless = dataclasses.replace(bundle, known=None)
    ready = follow(nameless, tmp_path, in_hand.people(seed=5))
    assert ready.sentences[0] == NOT_NAMED
    with pytest.raises(
        DataError, match=r"data must have the 2 classes that the bundle was made for, got 3. Mend the lab"
    ):
        follow(nameless, tmp_path, _third(in_hand.people(seed=5)))


def test_arrays_must_have_as_many_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, width in (("a.npz", 4), ("b.npz", 5)):
        np.savez(tmp_path / name, x=rng.normal(size=(200, width)), y=np.arange(200) % 2)
    made = night.make_bundle(tmp_path / "bundle", str(tmp_path / "a.npz"))
    with pytest.raises(
        DataError, match=r"examples must have the 4 numbers that the bundle was made for, got 5 each in"
    ):
        follow_on(made, str(tmp_path / "b.npz"), OPTIONS)


def test_code_that_is_not_here_is_told(bundle: Bundle) -> None:
    task = dataclasses.replace(bundle.task, model={"name": "gone_module:make"})
    with pytest.raises(
        ConfigError, match=r"model 'gone_module:make' cannot be imported: No module named 'gone_module'. Run"
    ):
        follow_on(dataclasses.replace(bundle, task=task), options=OPTIONS)


# --- .csv files, and splits by a column -------------------------------------------------------------------------------

VISITS = {"label": "came", "impute": "median", "dates": "cyclic"}


def csv_bundle(folder: Path, split: dict[str, Any], **data: Any) -> Bundle:
    (folder / "a.csv").write_text(in_hand.visits(has_gaps="time" not in split))
    source = str(folder / "a.csv")
    shares = {} if "column" in split else {"validation": 0.2, "test": 0.2}
    return night.make_bundle(folder / "bundle", source, data={"source": source, **VISITS, **data}, split=shares | split)


@pytest.mark.parametrize("split", [{}, {"by": "group"}, {"time": "when"}], ids=str)
def test_a_bundle_of_a_csv_file_is_followed_on_another(tmp_path: Path, split: dict[str, Any]) -> None:
    bundle = csv_bundle(tmp_path, split, date_formats={"when": "%d.%m.%Y"})
    assert follow_on(bundle, options=OPTIONS).is_same
    (tmp_path / "b.csv").write_text(in_hand.visits(360, seed=7, has_gaps="time" not in split))
    ready = follow_on(bundle, str(tmp_path / "b.csv"), OPTIONS)
    assert ready.sentences[0].startswith(f"{ready.facts.num_examples:,} examples to train on (the bundle had ")
    result, outcome = ready.train(0)
    assert outcome.value == result.metrics["test"]
    assert not outcome.is_below


def test_a_split_that_the_column_names_is_that_of_the_new_file(tmp_path: Path) -> None:
    def parts(text: str) -> str:
        lines = text.splitlines()
        named = (f"{line},{('train', 'train', 'train', 'val', 'test')[i % 5]}" for i, line in enumerate(lines[1:]))
        return "\n".join([f"{lines[0]},part", *named]) + "\n"

    (tmp_path / "a.csv").write_text(parts(in_hand.visits()))
    data = {"source": str(tmp_path / "a.csv"), **VISITS, "exclude": ["group"]}
    bundle = night.make_bundle(tmp_path / "bundle", data["source"], data=data, split={"column": "part"})
    (tmp_path / "b.csv").write_text(parts(in_hand.visits(300, seed=4)))
    ready = follow_on(bundle, str(tmp_path / "b.csv"), OPTIONS)
    assert (ready.facts.num_examples, ready.num_test) == (180, 60)
    (tmp_path / "c.csv").write_text(in_hand.visits(300, seed=4))
    with pytest.raises(DataError, match=r"c\.csv has no column 'part'\. .* Mend the data, or"):
        follow_on(bundle, str(tmp_path / "c.csv"), OPTIONS)


def test_dates_that_are_numbers_tonight_are_refused(tmp_path: Path) -> None:
    bundle = csv_bundle(tmp_path, {}, exclude=["group"])
    lines = in_hand.visits().splitlines()
    numbers = [lines[0], *(f"{i},{line.split(',', 1)[1]}" for i, line in enumerate(lines[1:]))]
    (tmp_path / "b.csv").write_text("\n".join(numbers))
    with pytest.raises(DataError) as caught:
        follow_on(bundle, str(tmp_path / "b.csv"), OPTIONS)
    assert "must be read as dates, as in the bundle (timestamp[us]), got numbers (int64). Convert it." in str(
        caught.value
    )


def test_gaps_that_are_new_make_another_input_and_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(in_hand.visits(has_gaps=False))
    data = {"source": str(tmp_path / "a.csv"), **VISITS, "features": ["age"]}
    bundle = night.make_bundle(tmp_path / "bundle", data["source"], data=data)
    (tmp_path / "b.csv").write_text(in_hand.visits(seed=3))
    ready = follow_on(bundle, str(tmp_path / "b.csv"), OPTIONS)
    assert ready.sentences[-2].startswith("An example is 2 numbers for the network (the bundle's 1), which has ")


def test_a_bundle_of_a_table_that_was_handed_over_follows_files(tmp_path: Path) -> None:
    table = in_hand.people()
    data = {"source": table}
    bundle = night.make_bundle(tmp_path / "bundle", "", data=data)
    assert bundle.task.data.source.startswith("python://table/")
    ready = follow(Bundle.load(tmp_path / "bundle"), tmp_path, in_hand.people(300, seed=5))
    assert not ready.train(0)[1].is_below


def test_pictures_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def photos(name: str, height: int) -> str:
        for label, level in (("cat", 60), ("dog", 180)):
            for i in range(40):
                path = tmp_path / name / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(rng.normal(level, 30, (height, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path)
        return str(tmp_path / name)

    data = {"source": photos("a", 8), "resize": [8, 8]}
    model = {"name": "cnn", "channels": [4]}
    bundle = night.make_bundle(tmp_path / "bundle", "", data=data, model=model)
    table = tmp_path / "a.csv"
    table.write_text("x;label\n1;cat\n2;dog\n")
    with pytest.raises(DataError) as caught:
        follow_on(bundle, str(table), OPTIONS)
    assert str(caught.value) == (
        f"{table} must be like the data that the bundle was made for, a folder of pictures: data.resize means nothing "
        "to .csv files. Mend the data, or tune anew on them."
    )
    photos("b", 10)
    monkeypatch.chdir(tmp_path)
    ready = follow_on(bundle, "b", OPTIONS)
    assert ready.task.data.source == "./b"
    assert not ready.train(0)[1].is_below
