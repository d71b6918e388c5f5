"""Distorted training parts: exact counts, clean validation and test parts, and statistics of what is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_bundle
import numpy as np
import pytest
import torch
from fake_inputs import changed
from fakes import RECIPE, options
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune import Bundle, TuneOptions, config, train, tune
from subsettune.bundle.export import export_policy
from subsettune.data import DataPaths, TaskData, load, split
from subsettune.data.distort import distorted
from subsettune.data.encode import Normalizer
from subsettune.errors import BundleError, DataError
from subsettune.policy import Phase, Policy
from subsettune.task import Corruption, Task

pytestmark = pytest.mark.usefixtures("untouched_random_state")
NAMES = ("a", "b", "c", "d")
ALL_TARGETS = torch.arange(400) % 4
ROWS = torch.arange(0, 400, 2) + (torch.arange(200) % 3 == 0)  # 200 of them, with every class


def make_task(data: dict[str, str], key: str = "images", metric: str = "accuracy", **distortion: Any) -> Task:
    raw = {
        "data": {"source": data[key], "label": "y"},
        "split": {"validation": 0.1, "test": 0.2},
        "model": {"name": "mlp", "hidden": [8]},
        "recipe": RECIPE,
        "metric": metric,
        "tolerance": 0.02,
        "distortion": distortion,
    }
    return config.build(Task, raw)


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(cache=str(tmp_path / "cache"))


def content(data: TaskData, part: str) -> str:
    """Hash of all that a part gives."""
    chosen = getattr(data, part)
    inputs, targets = chosen.batch(torch.arange(len(chosen)))
    return hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()


# --- what is drawn ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    flips=st.integers(0, 199),
    repeats=st.integers(0, 200),
    times=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_counts_are_exact_and_only_the_training_part_is_touched(
    flips: int, repeats: int, times: int, seed: int
) -> None:
    made = Corruption(flip_labels=flips / 200, repeat_share=repeats / 200, repeat_times=times, seed=seed)
    before = ALL_TARGETS.clone()
    targets, rows = distorted(ALL_TARGETS, ROWS, made, NAMES)
    assert torch.equal(before, ALL_TARGETS)
    changed = (targets != ALL_TARGETS).nonzero().flatten()
    assert len(changed) == flips
    assert set(changed.tolist()) <= set(ROWS.tolist())
    assert targets.min() >= 0
    assert targets.max() <= 3
    counts = torch.bincount(rows, minlength=400)
    assert (counts > 0).nonzero().flatten().tolist() == sorted(ROWS.tolist())
    assert int((counts == times).sum()) == (200 if times == 1 else repeats)
    assert len(rows) == 200 + repeats * (times - 1)
    assert torch.equal(rows, rows.sort().values)


def test_shares_are_read_as_they_are_written() -> None:
    """0.29 of 100 is 29, though 0.29 * 100 is 28.999... in binary; and 0.145 of 200 is the same 29."""
    for share, rows in ((0.29, ROWS[:100]), (0.145, ROWS)):
        targets, _ = distorted(ALL_TARGETS, rows, Corruption(flip_labels=share), NAMES)
        assert int((targets != ALL_TARGETS).sum()) == 29


def test_other_classes_are_equally_likely() -> None:
    n = 30_000
    targets, _ = distorted(torch.arange(n) % 4, torch.arange(n), Corruption(flip_labels=0.9), NAMES)
    steps = (targets - torch.arange(n)) % 4
    counts = torch.bincount(steps, minlength=4).tolist()
    assert counts[0] == n // 10
    assert all(abs(count - 9000) < 4 * (27_000 * (1 / 3) * (2 / 3)) ** 0.5 for count in counts[1:])


def test_more_of_it_begins_with_the_same() -> None:
    few, few_rows = distorted(ALL_TARGETS, ROWS, Corruption(flip_labels=0.1, repeat_share=0.1), NAMES)
    many, many_rows = distorted(ALL_TARGETS, ROWS, Corruption(flip_labels=0.3, repeat_share=0.5, repeat_times=4), NAMES)
    flipped = few != ALL_TARGETS
    assert torch.equal(many[flipped], few[flipped])
    counts = [torch.bincount(rows, minlength=400) for rows in (few_rows, many_rows)]
    assert bool((counts[1][counts[0] == 2] == 4).all())


def test_flips_do_not_depend_on_repeats_and_seeds_differ() -> None:
    alone, _ = distorted(ALL_TARGETS, ROWS, Corruption(flip_labels=0.2), NAMES)
    both, _ = distorted(ALL_TARGETS, ROWS, Corruption(flip_labels=0.2, repeat_share=0.3), NAMES)
    assert torch.equal(alone, both)
    other, _ = distorted(ALL_TARGETS, ROWS, Corruption(flip_labels=0.2, seed=1), NAMES)
    assert not torch.equal(alone, other)


def test_one_seed_is_one_distortion_everywhere() -> None:
    """Other draws would be other data: they need another `distort.VERSION`."""
    targets, rows = distorted(
        torch.arange(20) % 4, torch.arange(20), Corruption(flip_labels=0.2, repeat_share=0.1), NAMES
    )
    assert (targets != torch.arange(20) % 4).nonzero().flatten().tolist() == [5, 12, 13, 19]
    assert targets[[5, 12, 13, 19]].tolist() == [2, 3, 3, 0]
    assert [row for row in range(20) if int((rows == row).sum()) == 2] == [1, 3]


def test_a_class_that_loses_all_examples_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        distorted(torch.zeros(2, dtype=torch.int64), torch.arange(2), Corruption(flip_labels=0.9), ("a", "b"))
    assert str(caught.value) == (
        "class 'a' must keep training examples, got none after distortion.flip_labels. Flip fewer, or change "
        "distortion.seed."
    )


# --- the data of a task ----------------------------------------------------------------------------------------------


def test_validation_and_test_part_stay_clean(tiny_data: dict[str, str], places: DataPaths) -> None:
    clean = load(make_task(tiny_data), places)
    flipped = load(make_task(tiny_data, flip_labels=0.3), places)
    repeated = load(make_task(tiny_data, repeat_share=0.5, repeat_times=3), places)
    for data in (flipped, repeated):
        for part in ("validation", "test"):
            assert torch.equal(getattr(data, part).rows, getattr(clean, part).rows)
            assert torch.equal(getattr(data, part).targets, getattr(clean, part).targets)
    assert content(flipped, "test") == content(clean, "test")  # labels are no part of the statistics
    assert int((flipped.train.targets != clean.train.targets).sum()) == round(0.3 * len(clean.train))
    assert len(repeated.train) == 2 * len(clean.train)
    assert len({data.fingerprint for data in (clean, flipped, repeated)}) == 3


def test_copies_share_row_input_and_label(tiny_data: dict[str, str], places: DataPaths) -> None:
    part = load(make_task(tiny_data, flip_labels=0.5, repeat_share=0.2, repeat_times=3), places).train
    inputs, targets = part.batch(torch.arange(len(part)))
    for row in part.rows.unique().tolist():
        mine = part.rows == row
        assert int(mine.sum()) in (1, 3)
        assert bool((inputs[mine] == inputs[mine][0]).all())
        assert bool((targets[mine] == targets[mine][0]).all())


def test_statistics_are_those_of_the_distorted_part(tiny_data: dict[str, str], places: DataPaths) -> None:
    data = load(make_task(tiny_data, "values", "mse", repeat_share=0.4, repeat_times=5), places)
    x, y = np.load(tiny_data["values"])["x"].astype(np.float64), np.load(tiny_data["values"])["y"].astype(np.float64)
    rows = data.train.rows.numpy()
    assert len(rows) == 210 + 84 * 4
    assert isinstance(data.train.encoder, Normalizer)
    np.testing.assert_allclose(data.train.encoder.mean.numpy()[0], x[rows].mean(0), rtol=1e-5)
    assert data.target_mean == pytest.approx(y[rows].mean())
    assert data.target_std == pytest.approx(y[rows].std())
    classes = load(make_task(tiny_data, flip_labels=0.5, repeat_share=0.4), places)
    assert classes.class_counts.tolist() == np.bincount(classes.train.targets.numpy(), minlength=4).tolist()
    assert int(classes.class_counts.sum()) == len(classes.train)


def test_a_neutral_distortion_is_the_task_without_one(tiny_data: dict[str, str], places: DataPaths) -> None:
    plain = make_task(tiny_data)
    neutral = make_task(tiny_data, seed=7, repeat_share=0.5, repeat_times=1)
    assert neutral.key == plain.key
    first, second = load(plain, places), load(neutral, places)
    (cached,) = Path(places.cache_folder, "data").glob("*.arrow")
    assert first.fingerprint == second.fingerprint == config.digest([cached.stem, plain.split, split.VERSION])
    assert all(content(first, part) == content(second, part) for part in ("train", "validation", "test"))


def test_a_run_on_distorted_data(tiny_data: dict[str, str], places: DataPaths) -> None:
    """N grows with the copies, and the compute of a pass with it; the same seed gives the same bits."""
    task = make_task(tiny_data, flip_labels=0.2, repeat_share=0.5, repeat_times=3)
    facts = train.facts(task, places)
    assert facts.num_examples == 210 + 105 * 2
    policy = Policy(phases=(Phase(share=0.3, passes=1.0, selector="stratified"), Phase(passes=1.0)))
    results = [train.run(task, policy, 1, options=options(places=places)) for _ in range(2)]
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics["validation"] > 0.3


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_rows_of_a_bundle_repeat_as_often_as_the_distortion_repeats_them(tmp_path: Path) -> None:
    made, _ = fake_bundle.export(tmp_path)
    index = made.subset().index.copy()
    told = {"facts": made.facts, "fingerprint": made.fingerprint, "seed": made.seed}
    twice = replace(made.task, distortion=Corruption(repeat_share=0.5, repeat_times=2))
    index[1] = index[0]
    subset = replace(made.subset(), index=index)
    export_policy(tmp_path, made.policy, made.evidence, task=twice, subsets=(subset,), **told)
    back = Bundle.load(tmp_path)
    assert back.subset().index.tolist() == index.tolist()
    assert back.task == twice
    with pytest.raises(BundleError) as caught:
        export_policy(tmp_path, made.policy, made.evidence, task=made.task, subsets=(subset,), **told)
    assert str(caught.value) == (
        "phase 1 of the subset table must name each row of the source at most once, with an index of 0 or more."
    )
    index[2] = index[0]
    subset = replace(subset, index=index)
    with pytest.raises(BundleError) as caught:
        export_policy(tmp_path, made.policy, made.evidence, task=twice, subsets=(subset,), **told)
    assert str(caught.value) == (
        "phase 1 of the subset table must name each row of the source at most 2 times, with an index of 0 or more."
    )


def test_the_bundle_of_a_study_on_distorted_data_is_followed(tiny_data: dict[str, str], places: DataPaths) -> None:
    where = TuneOptions(storage=f"{places.cache}/runs", places=places, executor="inline", device="cpu")
    changes = {
        "task.data": {"source": tiny_data["images"]},
        "task.distortion": {"flip_labels": 0.1, "repeat_share": 0.5, "repeat_times": 3},
        "task.tolerance": 0.7,
        "study.trials": 2,
    }
    view = tune(changed(changes), run_id="a", options=where).view
    found = Bundle.load(view.summary.bundle)
    assert found.task.distortion == Corruption(flip_labels=0.1, repeat_share=0.5, repeat_times=3)
    result = train.run(found.task, found.policy, found.seed, options=options(places=places, splits=("test",)))
    assert result.metrics["test"] == {run.seed: run.metric for run in found.evidence.best.runs}[found.seed]
