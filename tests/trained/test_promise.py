"""What a bundle's runs let expect of one more: Student's law against scipy, the interval against simulated nights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import fake_bundle
import numpy as np
import pytest
from scipy import stats

from subsettune.bundle import Bundle
from subsettune.bundle.evidence import ConfirmationEvidence
from subsettune.errors import BundleError
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.train.result import RunResult
from subsettune.trained.promise import LEVEL, Outcome, Promise, student_quantile


def promise(**changes: object) -> Promise:
    plain = {
        "metric": "accuracy",
        "higher_is_better": True,
        "margin": 0.01,
        "values": (0.90, 0.91, 0.92),
        "num_test": 500,
    }
    return Promise(**{**plain, **changes})  # type: ignore[arg-type]


def result(value: float | None, **changes: object) -> RunResult:
    plain = {
        "policy": Policy(phases=[{"passes": 1}]),
        "seed": 0,
        "cause": "diverged" if value is None else "finished",
        "metrics": {} if value is None else {"test": value},
        "ledger": Ledger(),
        "updates": 1,
        "train_s": 1.0,
    }
    return RunResult(**{**plain, **changes})  # type: ignore[arg-type]


def bits(share: float, number: int) -> bytes:
    return np.packbits(np.arange(number) < share * number).tobytes()


def test_quantiles_of_students_law() -> None:
    for degrees in (1, 2, 3, 4, 5, 8, 16, 17, 99, 500):
        for share in (0.6, 0.9, 0.975, 0.995, 0.9995):
            assert math.isclose(student_quantile(share, degrees), stats.t.ppf(share, degrees), rel_tol=1e-9)


def test_the_interval_is_that_of_one_more_run() -> None:
    low, high = promise(values=(0.50, 0.51, 0.52)).interval()
    half = stats.t.ppf((1 + LEVEL) / 2, 2) * 0.01 * math.sqrt(1 + 1 / 3)
    assert (low, high) == (pytest.approx(0.51 - half), pytest.approx(0.51 + half))


def test_other_examples_widen_it_and_count_as_well_known() -> None:
    seeds, sampling = 0.01**2 * (1 + 1 / 3), 0.019**2
    degrees = int(2 * ((seeds + sampling) / seeds) ** 2)
    half = stats.t.ppf((1 + LEVEL) / 2, degrees) * math.sqrt(seeds + sampling)
    assert promise().interval(sampling) == (pytest.approx(0.91 - half), pytest.approx(0.91 + half))


def test_runs_that_are_equal_by_chance_still_spread() -> None:
    low, high = promise(values=(0.9, 0.9, 0.9)).interval(resolution=0.01)
    assert low < 0.9 - 0.01 < 0.9 + 0.01 < high
    assert promise(values=(0.9, 0.9)).interval() == (0.9, 0.9)


def test_an_interval_ends_where_the_metric_does() -> None:
    assert promise(values=(0.5, 0.99)).interval() == (0.0, 1.0)
    assert promise(metric="mse", higher_is_better=False, values=(0.1, 0.5)).interval()[0] == 0.0


def test_one_night_in_a_hundred_or_two_is_a_false_alarm() -> None:
    rng, below, share, new, old = np.random.default_rng(0), 0, 0.9, 200, 400
    for _ in range(1000):
        before, now = rng.binomial(old, share) / old, rng.binomial(new, share) / new
        values = tuple(before + rng.normal(0, 0.01, 5))
        one = result(now + rng.normal(0, 0.01), num_test=new, test_correct=bits(share, new))
        below += Outcome.of(promise(values=values, num_test=old), one, new).is_below
    assert 0.001 < below / 1000 < 0.015


def test_a_run_within_what_was_to_be_expected() -> None:
    outcome = Outcome.of(promise(), result(0.90, num_test=100, test_correct=bits(0.9, 100)), 100)
    assert not outcome.is_below
    assert outcome.sentences[0].startswith(
        "Test accuracy 0.9000 on 100 examples that were held out. The bundle's 3 runs"
    )
    assert outcome.sentences[0].endswith("(99 %, by the spread of other seeds and other test examples): within that.")
    assert outcome.sentences[1].startswith("One run can show that something is badly wrong. It cannot show that the")
    assert outcome.to_mapping()["is_below"] is False


def test_a_run_that_is_clearly_worse_or_better() -> None:
    many = {"num_test": 10_000, "test_correct": bits(0.5, 10_000)}
    worse = Outcome.of(promise(), result(0.5, **many), 10_000)
    assert worse.is_below
    assert "clearly worse than that." in worse.sentences[0]
    better = Outcome.of(promise(values=(0.4, 0.41, 0.42)), result(0.9, **many), 10_000)
    assert better.is_above
    assert not better.is_below
    assert "better than that." in better.sentences[0]


def test_errors_are_worse_above() -> None:
    errors = np.full(50, 4.0, "<f4").tobytes()
    one = promise(metric="mse", higher_is_better=False, values=(1.0, 1.1, 1.2))
    outcome = Outcome.of(one, result(4.0, num_test=50, test_errors=errors), 50)
    assert outcome.is_below
    assert not Outcome.of(one, result(1.3, num_test=50, test_errors=errors), 50).is_below


def test_a_run_that_diverged_is_below() -> None:
    outcome = Outcome.of(promise(), result(None), 50)
    assert outcome.is_below
    assert outcome.sentences == ("The run did not finish, where the bundle's had a test accuracy of 0.9100.",)


def test_so_few_examples_that_nothing_could_be_worse_are_told() -> None:
    outcome = Outcome.of(promise(values=(0.6, 0.9)), result(0.0, num_test=2, test_correct=bits(0, 2)), 2)
    assert "so wide that nothing could be worse." in outcome.sentences[0]


def test_the_same_test_examples_and_metrics_of_no_single_example_bring_no_sampling() -> None:
    one = result(0.9, num_test=100, test_correct=bits(0.9, 100))
    same = Outcome.of(promise(), one, 100, is_same_test=True)
    assert same.interval == promise().interval(resolution=0.01)
    assert "by the spread of other seeds, on the same test examples): within that." in same.sentences[0]
    f1 = Outcome.of(promise(metric="macro_f1"), one, 100)
    assert f1.interval == same.interval
    assert "other seeds, not of other test examples): how far other test examples move it" in f1.sentences[0]


def test_nothing_is_clearly_below_where_nothing_is_known_of_test_examples() -> None:
    far = result(0.2)
    assert not Outcome.of(promise(metric="macro_f1"), far, 100).is_below
    assert Outcome.of(promise(metric="macro_f1"), far, 100, variance=0.001).is_below
    assert not Outcome.of(promise(metric="macro_f1"), far, 100, variance=0.1).is_below


def test_the_promise_of_a_bundle(tmp_path: Path) -> None:
    bundle, _ = fake_bundle.export(tmp_path / "bundle")
    made = Promise.of(bundle)
    assert made.values == tuple(run.metric for run in bundle.evidence.best.runs)
    assert made.sentence.startswith(f"The bundle's {len(made.values)} runs had a test accuracy of ")
    fresh = ConfirmationEvidence(
        said="again", passed=True, verdict={}, runs=bundle.evidence.best.runs[:2], reference=()
    )
    confirmed = dataclasses.replace(bundle, evidence=dataclasses.replace(bundle.evidence, confirmation=fresh))
    assert len(Promise.of(confirmed).values) == len(made.values) + 2
    with pytest.raises(
        BundleError, match=r"runs of the bundle's policy must be two at least, got 1. Export a bundle of a"
    ):
        Promise.of(_with_runs(bundle, 1))


def _with_runs(bundle: Bundle, number: int) -> Bundle:
    best = dataclasses.replace(bundle.evidence.best, runs=bundle.evidence.best.runs[:number])
    others = [best if one.name == best.name else one for one in bundle.evidence.candidates]
    return dataclasses.replace(bundle, evidence=dataclasses.replace(bundle.evidence, candidates=tuple(others)))
