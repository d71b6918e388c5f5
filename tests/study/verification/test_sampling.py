"""Bounds with seeds and examples drawn anew: against an oracle, against a bootstrap, and at their level."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from facts import made_up_facts
from numpy.typing import NDArray
from scipy import stats

from subsettune.errors import ConfigError
from subsettune.policy import conventional
from subsettune.study.results.records import RunRecord
from subsettune.study.verification.sampling import (
    class_weights,
    difference_of,
    sampled_difference,
    size_of_test,
    table_of,
    too_few_examples,
    why_not,
)

Array = NDArray[Any]
ALPHA = 0.05


# --- oracles ----------------------------------------------------------------------------------------------------------


def slow_parts(x: Array) -> tuple[float, float, float]:
    """A, B and C of one arm, by sums over its cells."""
    num_runs, num_examples = x.shape
    cells = list(itertools.product(range(num_runs), range(num_examples)))
    overall = math.fsum(x[s, i] for s, i in cells) / len(cells)
    rows = [math.fsum(x[s, i] for i in range(num_examples)) / num_examples for s in range(num_runs)]
    columns = [math.fsum(x[s, i] for s in range(num_runs)) / num_runs for i in range(num_examples)]
    of_rows = math.fsum((row - overall) ** 2 for row in rows) / (num_runs - 1) / num_runs
    of_columns = math.fsum((column - overall) ** 2 for column in columns) / (num_examples - 1) / num_examples
    rest = math.fsum((x[s, i] - rows[s] - columns[i] + overall) ** 2 for s, i in cells)
    return of_rows, of_columns, rest / ((num_runs - 1) * (num_examples - 1)) / len(cells)


def table(rng: np.random.Generator, num_runs: int, num_examples: int, spreads: tuple[float, float, float]) -> Array:
    """Normal crossed data with standard deviations of seeds, examples and interaction."""
    u, e, w = spreads
    rows, columns = rng.normal(size=(num_runs, 1)), rng.normal(size=(1, num_examples))
    return u * rows + e * columns + w * rng.normal(size=(num_runs, num_examples))


def test_paired_variance_is_that_of_sums_over_cells() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = table(rng, 4, 11, (0.5, 1, 1)), table(rng, 4, 11, (0.1, 1, 2))
    found = sampled_difference(ours, theirs, alpha=ALPHA, is_paired=True)
    a, b, c = slow_parts(ours - theirs)
    variance = max(a + b - c, a, b)
    weight = a / variance
    critical, wide = (weight * stats.t.ppf(level, 3) + (1 - weight) * stats.t.ppf(level, 10) for level in (0.95, 0.975))
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.seeds_error == pytest.approx(math.sqrt(a))
    assert found.lower == pytest.approx(found.mean - critical * math.sqrt(variance))
    assert found.interval[0] == pytest.approx(found.mean - wide * math.sqrt(variance))
    assert found.interval[1] - found.mean == pytest.approx(found.mean - found.interval[0])
    assert (found.num_seeds, found.num_examples) == ((4, 4), 11)


def test_two_arms_of_their_own_runs_add_up() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = table(rng, 6, 9, (0.5, 1, 1)), table(rng, 3, 9, (0.3, 1, 1))
    found = sampled_difference(ours, theirs, alpha=ALPHA)
    (a_ours, _, c_ours), (a_theirs, _, c_theirs) = slow_parts(ours), slow_parts(theirs)
    d = [math.fsum(ours[:, i]) / 6 - math.fsum(theirs[:, i]) / 3 for i in range(9)]
    b = math.fsum((each - math.fsum(d) / 9) ** 2 for each in d) / 8 / 9
    variance = max(a_ours + a_theirs + b - c_ours - c_theirs, a_ours + a_theirs, b)
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.num_seeds == (6, 3)
    degrees = (a_ours + a_theirs) ** 2 / (a_ours**2 / 5 + a_theirs**2 / 2)
    weight = (a_ours + a_theirs) / variance
    critical = weight * stats.t.ppf(0.95, degrees) + (1 - weight) * stats.t.ppf(0.95, 8)
    assert found.lower == pytest.approx(found.mean - critical * math.sqrt(variance))


def test_the_pigeonhole_bootstrap_has_the_same_parts_and_the_interaction_three_times() -> None:
    rng = np.random.default_rng(2)
    x = table(rng, 8, 40, (0.3, 1, 3))
    a, b, c = slow_parts(x)
    drawn = [x[np.ix_(rng.integers(8, size=8), rng.integers(40, size=40))].mean() for _ in range(20_000)]
    expected = a * 7 / 8 + b * 39 / 40 + c * (7 / 8) * (39 / 40)  # its variances divide by S and n, as Owen's do
    assert np.var(drawn) == pytest.approx(expected, rel=0.05)
    found = sampled_difference(x, np.zeros((8, 40)), alpha=ALPHA, is_paired=True)
    assert found.standard_error**2 == pytest.approx(a + b - c)
    assert found.standard_error**2 < 0.9 * expected


def test_the_variance_is_unbiased_where_nothing_bounds_it_from_below() -> None:
    rng = np.random.default_rng(3)
    estimates = [
        sampled_difference(table(rng, 10, 60, (1, 5, 2)), np.zeros((10, 60)), alpha=ALPHA, is_paired=True)
        for _ in range(2000)
    ]
    true = 1 / 10 + 25 / 60 + 4 / 600
    assert np.mean([each.standard_error**2 for each in estimates]) == pytest.approx(true, rel=0.03)
    assert np.var([each.mean for each in estimates]) == pytest.approx(true, rel=0.1)


# --- the level --------------------------------------------------------------------------------------------------------


def answers(
    rng: np.random.Generator, shape: tuple[int, int, int], accuracies: tuple[float, float], spreads: tuple[float, ...]
) -> tuple[Array, Array]:
    """Right and wrong of a candidate and a reference whose true accuracies are known, from a probit model.

    An example has a difficulty that both arms share, and one of each arm; a run is better or worse; and each run errs
    on each example by itself. The accuracy over all runs and examples is the normal distribution at the threshold.
    """
    num_ours, num_theirs, n = shape
    shared, own, seeds = spreads
    difficulty = rng.normal(size=n) * math.sqrt(shared)

    def arm(num_runs: int, accuracy: float) -> Array:
        latent = difficulty + rng.normal(size=n) * math.sqrt(own) + rng.normal(size=(num_runs, 1)) * math.sqrt(seeds)
        return (latent + rng.normal(size=(num_runs, n))) < stats.norm.ppf(accuracy) * math.sqrt(sum(spreads) + 1)

    return arm(num_ours, accuracies[0]), arm(num_theirs, accuracies[1])


SHAPES = {(5, 5, 100): 800, (20, 10, 100): 500, (5, 5, 539): 500, (10, 10, 539): 300, (5, 5, 10_000): 60}
SPREADS = ((20.0, 2.0, 0.01), (5.0, 5.0, 0.1), (20.0, 0.0, 0.0))


@pytest.mark.parametrize("spreads", SPREADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_policy_at_the_margin_passes_at_most_as_often_as_alpha_says(
    shape: tuple[int, int, int], spreads: tuple[float, ...]
) -> None:
    rng, repeats = np.random.default_rng(4), SHAPES[shape]
    for accuracy, margin in ((0.95, 0.03), (0.7, 0.03)):
        drawn = [answers(rng, shape, (accuracy - margin, accuracy), spreads) for _ in range(repeats)]
        found = [sampled_difference(*pair, alpha=ALPHA) for pair in drawn]
        passed = np.mean([each.lower > -margin for each in found])
        inside = np.mean([each.interval[0] <= -margin <= each.interval[1] for each in found])
        doubt = 3 * math.sqrt(ALPHA * (1 - ALPHA) / repeats)
        assert passed <= ALPHA + doubt
        assert inside >= 1 - ALPHA - doubt


@pytest.mark.parametrize("spreads", [(1.0, 0.01, 0.1), (1.0, 1.0, 1.0), (0.2, 1.0, 5.0), (0.0, 0.3, 1.0)])
@pytest.mark.parametrize("num_runs", [2, 3, 5])
def test_few_seeds_keep_the_level_whichever_part_prevails(num_runs: int, spreads: tuple[float, float, float]) -> None:
    rng, repeats = np.random.default_rng(11), 3000
    scaled = (spreads[0], spreads[1] * math.sqrt(60), spreads[2])
    found = [
        sampled_difference(table(rng, num_runs, 60, scaled), np.zeros((num_runs, 60)), alpha=ALPHA, is_paired=True)
        for _ in range(repeats)
    ]
    assert np.mean([each.lower > 0 for each in found]) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / repeats)


def test_the_level_of_seeds_alone_is_not_that_of_other_examples() -> None:
    """What the second bound is for: on 539 examples a test over seeds alone is wrong of others far more often."""
    rng, margin = np.random.default_rng(5), 0.03
    wrong = []
    for _ in range(300):
        found = sampled_difference(*answers(rng, (10, 10, 539), (0.92, 0.95), (20, 2, 0.01)), alpha=ALPHA)
        wrong.append(found.mean - stats.t.ppf(1 - ALPHA, 9) * found.seeds_error > -margin)
    assert np.mean(wrong) > 2 * ALPHA


def test_an_equal_policy_is_seen_to_be_so_on_enough_examples() -> None:
    rng, margin = np.random.default_rng(6), 0.03
    found = [
        sampled_difference(*answers(rng, (10, 10, 2000), (0.95, 0.95), (20, 2, 0.01)), alpha=ALPHA) for _ in range(100)
    ]
    assert np.mean([each.lower > -margin for each in found]) > 0.95


def test_runs_that_tie_do_not_show_that_nothing_ever_differs() -> None:
    right = np.ones((5, 100), dtype=bool)
    found = sampled_difference(right, right, alpha=ALPHA, is_paired=True)
    assert found.mean == 0
    assert found.seeds_error == 0
    assert found.standard_error == pytest.approx(1 / math.sqrt(100 * 99))  # one disagreement in a hundred
    assert found.lower == pytest.approx(-stats.t.ppf(0.95, 99) / math.sqrt(100 * 99))
    # Of a policy that fails on 2 % of all examples, 0.98^100 = 13 % of such test sets hold none.
    assert found.lower > -0.02
    assert sampled_difference(right, right, alpha=0.01).lower < -0.02


def test_equal_errors_of_a_regression_are_taken_as_they_are() -> None:
    errors = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (3, 1))
    found = sampled_difference(errors, errors, alpha=ALPHA, is_paired=True)
    assert (found.mean, found.lower, found.standard_error) == (0, 0, 0)


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_lower_errors_are_better() -> None:
    rng = np.random.default_rng(7)
    ours, theirs = rng.exponential(0.9, size=(5, 80)), rng.exponential(1.0, size=(5, 80))
    plain = sampled_difference(ours, theirs, alpha=ALPHA)
    turned = sampled_difference(ours, theirs, alpha=ALPHA, higher_is_better=False)
    assert turned.mean == pytest.approx(-plain.mean)
    assert turned.lower == pytest.approx(-plain.mean - (plain.mean - plain.lower))


def test_class_weights_make_a_mean_the_balanced_accuracy() -> None:
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 1, 3])
    right = np.array([[1, 1, 1, 1, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0, 1, 1, 0]], dtype=bool)
    recalls = [np.mean([row[targets == each].mean() for each in (0, 1, 3)]) for row in right]
    weights = class_weights(targets)
    assert weights.mean() == pytest.approx(1)
    found = sampled_difference(right, np.zeros((2, 9), dtype=bool), alpha=ALPHA, weights=weights)
    assert found.mean == pytest.approx(np.mean(recalls))
    more = math.sqrt(3**2 / (9 * 8))  # an answer of the class with one example counts three times
    tied = sampled_difference(right[[0, 0]], right[[0, 0]], alpha=ALPHA, weights=weights)
    assert tied.standard_error == pytest.approx(more)


def test_as_many_examples_as_are_needed_would_do() -> None:
    rng = np.random.default_rng(8)
    found = sampled_difference(*answers(rng, (10, 10, 539), (0.95, 0.95), (20, 2, 0.01)), alpha=ALPHA)
    margin = 0.01
    needed = found.examples_needed(margin)
    assert needed is not None
    bound = found.mean - 1.6449 * math.sqrt(found.per_seeds + found.per_example / needed)
    assert bound == pytest.approx(-margin, abs=1e-4)
    assert found.examples_needed(-found.mean) is None
    assert found.examples_needed(10) == 2


def test_no_number_of_examples_makes_up_for_seeds_that_vary_too_much() -> None:
    rng = np.random.default_rng(9)
    found = sampled_difference(table(rng, 5, 400, (1, 1, 1)), table(rng, 5, 400, (1, 1, 1)), alpha=ALPHA)
    assert found.per_seeds > 0
    assert found.examples_needed(0.9 * 1.6449 * math.sqrt(found.per_seeds) - found.mean) is None


MISTAKES: dict[str, tuple[tuple[int, int], tuple[int, int], dict[str, Any], str]] = {
    "shape": ((2, 5), (2, 6), {}, "candidate must be measured on 6 examples, as the reference is, got 5."),
    "pairs": ((3, 5), (2, 5), {"is_paired": True}, "candidate must be of 2 runs, as its pairs are, got 3."),
    "one run": ((2, 5), (1, 5), {}, "reference must be runs by examples, two of each at least, got (1, 5)."),
    "alpha": ((2, 5), (2, 5), {"alpha": 0.6}, "alpha must be in (0, 0.5], got 0.6."),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_cannot_be_compared_is_refused(case: str) -> None:
    ours, theirs, changes, message = MISTAKES[case]
    with pytest.raises(ConfigError) as caught:
        sampled_difference(np.zeros(ours), np.zeros(theirs), **{"alpha": ALPHA, **changes})
    assert str(caught.value) == message


def test_a_run_that_diverged_is_refused() -> None:
    with pytest.raises(ConfigError, match="reference must be finite numbers, got 'NaN or infinity'"):
        sampled_difference(np.zeros((2, 2)), np.array([[1, np.nan], [1, 1]]), alpha=ALPHA)


# --- records ----------------------------------------------------------------------------------------------------------


def record(**changes: Any) -> RunRecord:
    policy = conventional(made_up_facts())
    plain = {"name": "a", "role": "verification", "policy": policy, "seed": 0, "cause": "finished", "cost_flops": 1}
    return RunRecord(**{**plain, **changes})


def test_records_give_the_table_that_was_kept() -> None:
    rows = np.array([[1, 0, 1, 1, 0, 0, 1, 0, 1], [0, 0, 1, 1, 1, 0, 1, 0, 0]], dtype=bool)
    kept = [record(num_test=9, test_correct=np.packbits(row).tobytes()) for row in rows]
    assert why_not("accuracy", kept) is None
    assert np.array_equal(table_of(kept), rows)
    assert table_of(kept).dtype == np.bool_
    errors = [record(num_test=2, test_errors=np.array(row, dtype="<f4").tobytes()) for row in ([0.5, 1], [0, 2])]
    assert why_not("mse", errors) is None
    assert table_of(errors).tolist() == [[0.5, 1], [0, 2]]


def test_what_says_nothing_of_other_examples_says_why() -> None:
    kept = record(num_test=8, test_correct=b"a")
    assert why_not("macro_f1", [kept]) == "macro_f1 is no mean over examples"
    lacks = "of some runs it was not kept which examples they got right"
    assert why_not("accuracy", [kept, record()]) == lacks
    other = record(num_test=7, test_correct=b"a")
    assert why_not("accuracy", [kept, other]) == "the runs were not measured on the same examples"


def test_runs_of_two_arms_are_compared_as_their_tables_are() -> None:
    rng = np.random.default_rng(12)
    ours, theirs = answers(rng, (3, 4, 50), (0.8, 0.9), (1, 1, 0))
    arms = [[record(num_test=50, test_correct=np.packbits(row).tobytes()) for row in arm] for arm in (ours, theirs)]
    found = difference_of(arms[0], arms[1], metric="accuracy", alpha=ALPHA)
    assert found == sampled_difference(ours, theirs, alpha=ALPHA)
    targets = np.arange(50) % 3
    balanced = difference_of(arms[0], arms[1], metric="balanced_accuracy", alpha=ALPHA, targets=targets)
    assert balanced == sampled_difference(ours, theirs, alpha=ALPHA, weights=class_weights(targets))
    assert difference_of(arms[0], arms[1], metric="balanced_accuracy", alpha=ALPHA) is None
    assert difference_of(arms[0], arms[1], metric="macro_f1", alpha=ALPHA, targets=targets) is None
    assert difference_of(arms[0][:1], arms[1], metric="accuracy", alpha=ALPHA) is None


# --- before anything has run ------------------------------------------------------------------------------------------


def test_the_size_that_would_do_has_the_power_that_it_says() -> None:
    size, margin = size_of_test(539, 0.01, ALPHA), 0.01
    assert size.standard_error == pytest.approx(math.sqrt(0.02 / 539))
    assert size.enough == math.ceil((1.644854 + 0.841621) ** 2 * 0.02 / 0.01**2) == 1237
    assert not size.is_enough
    assert size_of_test(1237, margin, ALPHA).is_enough
    rng = np.random.default_rng(10)
    d = rng.choice([-1, 0, 1], p=[0.01, 0.98, 0.01], size=(4000, size.enough))
    lower = d.mean(axis=1) - 1.6449 * d.std(axis=1) / math.sqrt(size.enough)
    assert np.mean(lower > -margin) == pytest.approx(0.8, abs=0.03)


def test_the_sentence_names_how_many_would_do() -> None:
    assert too_few_examples(size_of_test(539, 0.01, ALPHA), 0.01) == (
        "539 test examples are few for a tolerance of 0.01: where a policy as good as the reference differs from it on "
        "2 % of them (assumed: twice the tolerance), the choice of the examples moves the difference by 0.0061 "
        "(standard error), however many seeds are run. What is verified then holds for these examples. 1,300 would do "
        "for others, too: give a larger test file or split.test, or a larger tolerance."
    )
    assert "62 would do" in too_few_examples(size_of_test(50, 0.2, ALPHA), 0.2)
