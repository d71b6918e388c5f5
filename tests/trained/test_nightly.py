"""A bundle's policy on other data: what is derived anew and said, what is refused, and how the result is judged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import in_hand
import night
import numpy as np
import pyarrow as pa
import pytest

from subsettune import Bundle, Policy
from subsettune.errors import ConfigError, DataError
from subsettune.train import RunOptions
from subsettune.trained.nightly import NOT_NAMED, Followed, follow_on

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


def test_a_bundle_is_followed_from_any_folder(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(bundle.task.data.source).parent
    monkeypatch.chdir(folder)
    made = night.make_bundle(tmp_path / "bundle", "people.parquet")
    assert made.task.data.source == str(folder / "people.parquet")
    monkeypatch.chdir(tmp_path)
    assert follow_on(Bundle.load(tmp_path / "bundle"), options=OPTIONS).is_same


def test_columns_that_the_bundle_does_not_know_are_not_read(bundle: Bundle, tmp_path: Path) -> None:
    table = in_hand.people(seed=5)
    more = table.append_column("more", pa.array(np.random.default_rng(0).normal(size=200)))
    ready = follow(bundle, tmp_path, more)
    assert ready.sentences[0] == "Not read, as the bundle does not know it: 'more'."
    assert ready.facts.num_features == bundle.facts.num_features
    alone = follow(bundle, tmp_path, table)
    assert ready.train(0)[0].metrics == alone.train(0)[0].metrics


def test_other_categories_make_another_input_and_are_said(bundle: Bundle, tmp_path: Path) -> None:
    ready = follow(bundle, tmp_path, in_hand.people(200, cities=("Lima", "Oslo", "Rome", "Bonn")))
    assert ready.sentences[-1].startswith("An example is 8 numbers for the network (the bundle's 7), which has ")


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
        (lambda t: _drop(t, "label"), "has no column 'label'."),
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
