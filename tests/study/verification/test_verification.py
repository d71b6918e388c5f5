"""The state machine: what it asks for, what it says, and that it ends alike whatever comes first."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.errors import ConfigError, StudyError
from subsettune.study.results.verdict import Verdict
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import (
    BY_CHOICE,
    PAIRED_ABOVE,
    UNSTEADY,
    Rules,
    allot,
    decide,
    plan,
    sizes,
)
from subsettune.study.verification.power import required_seeds
from subsettune.study.verification.superiority import compare, pair_floor
from subsettune.study.verification.verification import REFERENCE, Verification, most_runs, statement

MARGIN = 0.01
STEP = 1 / 360
WHOLE = 1000  # FLOPs of a conventional training

Metric = Callable[[str, int], float]

# As a study draws it up: the likeliest, a dearer one, the recipe as a last resort, a cheaper one without alpha.
LINE_UP = {
    "first": Entry(cost_flops=400, share=0.4, has_twin=True),
    "second": Entry(cost_flops=600, share=0.3),
    "recipe": Entry(cost_flops=900, share=0.3, is_last_resort=True),
    "cheap": Entry(cost_flops=250, share=0.0),
}


def rules(seeds: int = 5, max_seeds: int = 10, **changes: object) -> Rules:
    given_values = {"margin": MARGIN, "alpha": 0.05, "higher_is_better": True, **changes}
    return Rules(seeds=seeds, max_seeds=max_seeds, **given_values)  # type: ignore[arg-type]


def verification(line_up: Mapping[str, Entry] = LINE_UP, *, spent: float = 0.0, **changes: Any) -> Verification:
    return Verification(line_up, rules(**changes), reference_flops=WHOLE, first_seed=0, spent=spent)


def alone(cost: int = WHOLE, **changes: Any) -> dict[str, Entry]:
    """A line-up of one policy with all of the level."""
    return {"a": Entry(cost_flops=cost, share=1.0, **changes)}


def play(made: Verification, metric: Metric) -> list[set[tuple[str, int]]]:
    """Do what is needed until nothing is; the batches that were asked for."""
    asked = []
    while batch := made.needed():
        asked.append(set(batch))
        for name, seed in batch:
            made.record(name, seed, metric(name, seed))
    return asked


def steady(difference: Mapping[str, float], sigma: float = 0.001) -> Metric:
    """A metric near 0.9 with a little noise, a fixed function of name and seed."""

    def metric(name: str, seed: int) -> float:
        noise = np.random.default_rng([seed, *name.encode()]).standard_normal()
        return float(0.9 + difference.get(name, 0.0) + sigma * noise)

    return metric


def open_at_first(name: str, seed: int) -> float:
    """A policy too scattered to pass with 5 seeds, which is calm with more; the reference is in between."""
    if name == REFERENCE:
        return 0.9 + (0.006, -0.006, 0.006, -0.006, 0.0, 0.003, -0.003, 0.0)[seed % 8]
    return 0.9 + (-0.012, 0.009, -0.008, 0.009, -0.003)[seed] if seed < 5 else 0.9 + 0.001 * (-1) ** seed


def batch(name: str, first: int, past: int) -> set[tuple[str, int]]:
    return {(name, seed) for seed in range(first, past)}


# ---------------------------------------------------------------------------------------------- the test, by itself


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 1.4),
    st.floats(-0.03, 0.02),
)
@settings(max_examples=40, deadline=None)
def test_one_look_agrees_with_scipy(seed: int, ratio: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    own, theirs = 0.9 + shift + ratio * MARGIN * rng.standard_normal(8), 0.9 + MARGIN * rng.standard_normal(8)
    made = verification(alone(), seeds=8, max_seeds=8, usual_spread=1.0)
    for i in range(8):
        made.record(REFERENCE, i, theirs[i])
        made.record("a", i, own[i])
    verdict = made.verdicts["a"]
    is_paired = np.corrcoef(own, theirs)[0, 1] > PAIRED_ABOVE
    times, test = (BY_CHOICE, stats.ttest_rel) if is_paired else (1, partial(stats.ttest_ind, equal_var=False))
    p_value = min(1.0, times * test(own + MARGIN, theirs, alternative="greater").pvalue)
    bound = test(own, theirs, alternative="greater").confidence_interval(1 - allot(0.05) / times).low
    assert verdict.p_value == pytest.approx(p_value, rel=1e-6)
    assert verdict.lower_bound == pytest.approx(bound, rel=1e-6, abs=1e-9)
    assert verdict.passed == (p_value < allot(0.05))
    assert verdict.shortfall == pytest.approx(max(0.0, -MARGIN - verdict.lower_bound))
    assert verdict.mean_difference == pytest.approx(own.mean() - theirs.mean())
    assert (verdict.num_seeds, verdict.num_references) == (8, 8)


@given(st.integers(0, 2**32 - 1), st.sampled_from([100, 250, 600, 1000]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_books_agree_with_the_arithmetic(seed: int, cost: int, is_last_resort: bool) -> None:
    rng = np.random.default_rng(seed)
    made = verification(alone(cost, is_last_resort=is_last_resort), resolution=STEP, usual_spread=0.005)
    looks = plan(allot(0.05), sizes(made.rules, cost / WHOLE, is_last_resort=is_last_resort))
    own = rng.uniform(-1.5, 1) * MARGIN + rng.uniform(0.2, 1.5) * MARGIN * rng.standard_normal(looks[-1].num_seeds)
    theirs = MARGIN * rng.standard_normal(looks[-1].num_references)
    play(made, lambda name, i: float(theirs[i] if name == REFERENCE else own[i]))
    passed, settled_at = decide(own, theirs, made.rules, looks)
    verdict = made.verdicts["a"]
    assert verdict.passed == bool(passed)
    assert (verdict.num_seeds, verdict.num_references) == looks[int(settled_at)].size
    look = looks[int(settled_at)]
    # A look that may only end the test has no bound of its own: that of the last is told.
    assert (verdict.nominal, verdict.alpha_spent) == (look.nominal or looks[-1].nominal, look.alpha_spent)


def test_a_policy_equal_run_by_run_passes() -> None:
    for resolution in (0.0, STEP):
        made = verification(alone(), resolution=resolution)
        play(made, lambda name, seed: 0.9 + 0.001 * (seed % 3))
        assert made.winner == "a"


@given(st.floats(0.02, 1.0), st.floats(1e-6, 0.02), st.booleans(), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_exactly_at_the_margin_without_spread_never_passes(
    metric: float, margin: float, higher: bool, seeds: int
) -> None:
    made = verification(alone(), seeds=seeds, max_seeds=2 * seeds, margin=margin, higher_is_better=higher)
    play(made, lambda name, seed: metric if name == REFERENCE else metric + (-margin if higher else margin))
    assert made.finished
    assert made.winner is None


def test_lower_is_better_mirrors_higher_is_better() -> None:
    metric = steady({"first": -0.002, "cheap": -0.02})
    up, down = verification(), verification(higher_is_better=False)
    play(up, metric)
    play(down, lambda name, seed: -metric(name, seed))
    assert up.verdicts == down.verdicts
    assert up.winner == "first"


# ------------------------------------------------------------------------------------------------- what is tested when


def test_the_first_is_tested_alone_and_then_the_cheaper_ones() -> None:
    made = verification()
    asked = play(made, steady({}))
    assert asked[0] == batch(REFERENCE, 0, 5) | batch("first", 0, 5)
    assert asked[1] == batch("first", 5, 8)  # cheap runs: the first look may only end it
    assert asked[2] == batch("cheap", 0, 5)
    assert asked[3] == batch("cheap", 5, 10)
    assert len(asked) == 4
    assert made.winner == "cheap"
    assert made.finished
    assert [made.verdicts[name].passed for name in made.order] == [True, None, None, True]
    assert made.verdicts["second"].words(MARGIN) == "not tested"


def test_where_the_first_fails_the_second_is_tested_and_where_that_does_the_last_resort() -> None:
    made = verification()
    asked = play(made, steady({"first": -0.05, "second": -0.05}))
    assert [{name for name, _ in each} for each in asked] == [{REFERENCE, "first"}, {"second"}, {"recipe"}]
    assert [made.verdicts[name].passed for name in made.order] == [False, False, True, None]
    assert made.winner == "recipe"
    assert made.verdicts["cheap"].reason == "not tested: no alpha is left for it"


def test_what_passes_leaves_its_alpha_to_the_next_cheaper_one_also_where_that_failed() -> None:
    made = verification()
    play(made, steady({"first": -0.05}))
    assert made.winner == "second"
    assert made.verdicts["first"].passed is False
    assert made.verdicts["first"].level == pytest.approx((0.4 + 0.3) * allot(0.05))
    assert made.verdicts["cheap"].level == 0.0


def test_a_failure_takes_nothing_from_others() -> None:
    made = verification()
    before = {name: made.verdicts[name].level for name in made.order}
    play(made, steady(dict.fromkeys(LINE_UP, -0.05)))
    assert {name: made.verdicts[name].level for name in made.order} == before
    assert made.winner is None
    assert made.finished
    assert [made.verdicts[name].passed for name in made.order] == [False, False, False, None]
    assert made.verdicts["cheap"].reason == "not tested: no alpha is left for it"


def test_alpha_that_moves_on_lets_a_policy_pass_by_the_runs_it_has() -> None:
    """The first misses its own level; when the second passes it is judged at both, and no run is added for it."""
    line_up = {"first": Entry(cost_flops=600, share=0.1), "second": Entry(cost_flops=900, share=0.9)}

    def metric(name: str, seed: int) -> float:
        wave = (0.004, -0.004, 0.002, -0.002, 0.0)[seed]
        return 0.9 + wave if name != "first" else 0.9 - 0.0045 - wave

    made = Verification(line_up, rules(max_seeds=5), reference_flops=WHOLE, first_seed=0)
    asked = []
    for _ in range(2):
        asked.append(set(made.needed()))
        for name, seed in made.needed():
            made.record(name, seed, metric(name, seed))
        if len(asked) == 1:
            assert made.verdicts["first"].passed is False
    assert asked[1] == batch("second", 0, 5)
    assert made.verdicts["second"].passed
    assert made.verdicts["first"].passed
    assert made.verdicts["first"].level == pytest.approx(allot(0.05))
    assert made.winner == "first"
    assert made.needed() == ()


def test_more_runs_are_asked_only_where_the_verdict_is_open() -> None:
    made = verification(alone(250))
    asked = play(made, open_at_first)
    assert asked[0] == batch(REFERENCE, 0, 5) | batch("a", 0, 5)
    assert asked[1] == batch("a", 5, 10)  # more of its own first: the reference's runs are there
    assert made.verdicts["a"].passed
    assert (made.verdicts["a"].num_seeds, made.verdicts["a"].num_references) == (10, 5)


def test_an_open_verdict_says_how_many_seeds_would_do() -> None:
    made = verification(alone(250))
    for name, seed in made.needed():
        made.record(name, seed, open_at_first(name, seed))
    verdict = made.verdicts["a"]
    spreads = tuple(float(np.std([open_at_first(name, i) for i in range(5)], ddof=1)) for name in ("a", REFERENCE))
    assert verdict.passed is None
    assert verdict.words(MARGIN) == "undecided"
    assert verdict.seeds_needed == required_seeds(made.rules, (spreads[0], spreads[1]), allot(0.05))
    assert verdict.reason == "open: a look at so few seeds, 5, may only end the test; up to 16 seeds may be used"
    assert not made.finished


def test_a_failure_says_how_many_seeds_the_next_verification_would_want() -> None:
    made = verification(alone(), max_seeds=5)
    play(made, open_at_first)
    verdict = made.verdicts["a"]
    assert verdict.passed is False
    spreads = tuple(float(np.std([open_at_first(name, i) for i in range(5)], ddof=1)) for name in ("a", REFERENCE))
    assert verdict.seeds_needed == required_seeds(made.rules, (spreads[0], spreads[1]), allot(0.05, made.alpha_spent))
    assert verdict.reason.startswith("missed by 0.00")
    assert verdict.reason.endswith("with 5 seeds")


def test_a_hopeless_policy_is_left_after_its_first_look() -> None:
    made = verification(alone(250))
    asked = play(made, steady({"a": -0.03}))
    assert len(asked) == 1
    assert ", and up to 16 had a chance of " in made.verdicts["a"].reason


def test_a_policy_that_scatters_too_much_is_told_so() -> None:
    def metric(name: str, seed: int) -> float:
        wave = (-1.0, 1.0, 0.5, -0.5, 0.0)[seed % 5]
        return 0.9 + 0.003 * wave if name == REFERENCE else 0.92 + 0.009 * wave

    made = verification(alone(), max_seeds=5)
    play(made, metric)
    assert made.verdicts["a"].passed is False
    assert made.verdicts["a"].lower_bound > -MARGIN
    assert (
        made.verdicts["a"].reason
        == f"scatters 3 times as much as the reference with 5 seeds, and {UNSTEADY:g} are allowed"
    )
    usual = verification(alone(), max_seeds=5, usual_spread=0.004)
    play(usual, metric)
    assert usual.winner == "a"


def test_the_last_resort_alone_may_run_the_reference_as_often_as_max_seeds() -> None:
    metric = {REFERENCE: (0.006, -0.006), "a": (-0.009, 0.004)}  # open at every look

    for is_last_resort, most in ((False, 8), (True, 10)):
        made = verification(alone(is_last_resort=is_last_resort))
        asked = play(made, lambda name, seed: 0.9 + metric[name][seed % 2])
        assert max(seed for name, seed in itertools.chain(*asked) if name == REFERENCE) == most - 1


def test_a_test_that_only_goes_on_makes_no_run_of_the_reference() -> None:
    """The dear one passes at once; what it leaves is used for the cheap one, wherever that lies."""
    most = {True: 0, False: 0}
    for is_extra, offset in itertools.product(most, np.linspace(-0.012, 0.0, 13)):
        cheap = Entry(cost_flops=100, share=0.0, is_extra=is_extra)
        made = verification({"dear": Entry(cost_flops=400, share=1.0), "cheap": cheap}, usual_spread=0.01)
        metric = {REFERENCE: (0.0004, -0.0004), "dear": (0.0003, -0.0003), "cheap": (offset - 0.003, offset + 0.003)}
        asked = play(made, lambda name, seed, metric=metric: 0.9 + metric[name][seed % 2])
        assert made.verdicts["dear"].passed
        seeds = [seed for name, seed in itertools.chain(*asked) if name == REFERENCE]
        most[is_extra] = max(most[is_extra], 1 + max(seeds))
    assert most == {True: 5, False: 8}


def test_reference_runs_already_there_are_not_asked_again() -> None:
    made = verification()
    for seed in range(5):
        made.record(REFERENCE, seed, 0.9)
    assert set(made.needed()) == batch("first", 0, 5)


def test_seeds_begin_where_they_are_told_to() -> None:
    made = Verification(LINE_UP, rules(), reference_flops=WHOLE, first_seed=7)
    assert {seed for _, seed in made.needed()} == set(range(7, 12))


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_recording_does_not_matter(random: Any) -> None:
    metric = steady({"first": -0.006, "cheap": -0.004}, sigma=0.006)
    runs = [(name, seed) for name in (REFERENCE, *LINE_UP) for seed in range(10)]
    straight, shuffled = verification(), verification()
    for name, seed in runs:
        straight.record(name, seed, metric(name, seed))
    random.shuffle(runs)
    for name, seed in runs:
        shuffled.record(name, seed, metric(name, seed))
    assert straight.verdicts == shuffled.verdicts
    assert straight.needed() == shuffled.needed()


def test_an_empty_line_up_is_finished_at_once() -> None:
    made = verification({})
    assert made.finished
    assert made.needed() == ()
    assert made.winner is None


# ----------------------------------------------------------------------------------------- diverged runs and mistakes


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_run_fails_for_good_and_others_go_on(bad: float) -> None:
    made = verification()
    made.record("first", 3, bad)
    verdict = made.verdicts["first"]
    assert verdict.passed is False
    assert verdict.reason == "diverged with seed 3, which counts as a failure"
    assert verdict.lower_bound == -math.inf
    assert {name for name, _ in made.needed()} == {REFERENCE, "second"}
    made.record("first", 3, math.nan)
    with pytest.raises(StudyError, match=r"metric of first with seed 3 must be nan, as recorded before, got 0.9\."):
        made.record("first", 3, 0.9)
    play(made, steady({}))
    assert made.verdicts["first"].passed is False


def test_a_diverged_run_takes_back_a_pass() -> None:
    made = verification(alone())
    play(made, steady({}))
    assert made.winner == "a"
    made.record("a", 9, math.nan)
    assert made.winner is None


def test_a_diverged_reference_lets_nothing_pass() -> None:
    made = verification()
    made.record(REFERENCE, 0, math.nan)
    for name in ("first", "second", "recipe"):
        assert made.verdicts[name].reason == "the reference diverged with seed 0, which counts as a failure"
    assert made.finished
    assert made.winner is None


def test_recording_twice_is_once() -> None:
    made = verification()
    made.record("first", 0, 0.9)
    before = made.to_mapping()
    made.record("first", 0, 0.9)
    assert made.to_mapping() == before
    with pytest.raises(StudyError, match=r"metric of first with seed 0 must be 0.9, as recorded before, got 0.8\. The"):
        made.record("first", 0, 0.8)


def test_unknown_names_and_seeds_are_refused() -> None:
    made = verification()
    with pytest.raises(ConfigError, match=r"name must be one of reference, first, second, recipe, cheap, got 'c'\."):
        made.record("c", 0, 0.9)
    with pytest.raises(ConfigError, match=r"seed must be from 0 to 39, got 40\."):
        made.record("first", most_runs(made.rules), 0.9)
    with pytest.raises(ConfigError, match=r"seed must be from 0 to 39, got -1\."):
        made.record("first", -1, 0.9)


def test_impossible_set_ups_are_refused() -> None:
    with pytest.raises(ConfigError, match="name of a candidate must be another, got 'reference'"):
        verification({REFERENCE: Entry(cost_flops=1, share=0.5)})
    with pytest.raises(ConfigError, match=r"shares of alpha must be 1 at most, all together, got 1\.2"):
        verification({"a": Entry(cost_flops=1, share=0.7), "b": Entry(cost_flops=1, share=0.5)})
    made = verification()
    for name in ("first", REFERENCE):
        with pytest.raises(ConfigError, match=f"name of a control must be no other policy's, got '{name}'"):
            made.add_control(name, "second")
    with pytest.raises(ConfigError, match="twin must be one, of a candidate that has a twin in the line-up, got 'sec"):
        made.add_twin("equal", "second")
    made.add_twin("equal", "first")
    with pytest.raises(ConfigError, match="name of a control must be no other policy's, got 'equal'"):
        made.add_control("equal", "first")


# -------------------------------------------------------------------------------------------------- twin and controls


def with_twin(metric: Metric, **changes: Any) -> tuple[Verification, list[set[tuple[str, int]]]]:
    """A policy that passed, and plain training of equal compute beside it."""
    made = verification(alone(400, has_twin=True), **changes)
    play(made, metric)
    assert made.winner == "a"
    made.add_twin("equal", "a")
    made.add_twin("equal", "a")
    assert not made.finished
    return made, play(made, metric)


def test_a_twin_is_tested_for_a_match_and_against_its_candidate() -> None:
    metric = steady({"equal": -0.02})
    made, asked = with_twin(metric)
    assert made.controls == ("equal",)
    assert asked == [batch("equal", 0, 5)]
    own = most_of(made, "a")
    assert made.finished
    contrast = made.contrasts["equal"]
    assert (contrast.policy, contrast.control, contrast.is_claim, contrast.shown) == ("a", "equal", True, True)
    assert made.verdicts["equal"].passed is False
    assert made.verdicts["equal"].level == pytest.approx(allot(0.05))  # all else has passed
    differences = np.array([metric("a", i) - metric("equal", i) for i in range(5)])
    oracle = compare(differences, (5, own), allot(0.05), pair_floor(0.0, 0.9))
    assert contrast.lower_bound == pytest.approx(oracle.lower_bound)
    assert contrast.level == pytest.approx(oracle.level) == pytest.approx(allot(0.05) * 5 / own)
    assert contrast.words(MARGIN) == "better by 0.0188 (at least 0.0178)"
    assert made.winner == "a"  # a twin is none of the line-up


def test_a_twin_that_matches_is_no_win() -> None:
    made, _ = with_twin(steady({}))
    assert made.verdicts["equal"].passed
    assert made.contrasts["equal"].shown is False
    assert made.contrasts["equal"].words(MARGIN).startswith("not shown to differ (")


def test_a_win_is_oriented() -> None:
    metric = steady({"equal": -0.02})
    up, _ = with_twin(metric)
    down, _ = with_twin(lambda name, seed: -metric(name, seed), higher_is_better=False)
    assert up.contrasts == down.contrasts


def test_a_twin_has_more_pairs_only_as_far_as_the_candidate_has_runs() -> None:
    """The candidate needed more than five; its twin has as many where five leave something open."""

    def metric(name: str, seed: int) -> float:
        return open_at_first("a" if name == "equal" else name, seed) - 0.002 * (name == "equal") * (-1) ** seed

    made, asked = with_twin(metric)
    own = most_of(made, "a")
    assert own == made.verdicts["a"].num_seeds > 5
    assert asked == [batch("equal", 0, 5), batch("equal", 5, own)]
    assert made.contrasts["equal"].num_seeds in (5, own)
    assert made.finished


def most_of(made: Verification, name: str) -> int:
    return sum(run["name"] == name for run in made.to_mapping()["runs"])


def test_a_diverged_twin_shows_nothing() -> None:
    made = verification(alone(400, has_twin=True))
    play(made, steady({}))
    made.add_twin("equal", "a")
    play(made, lambda name, seed: math.nan)
    assert made.contrasts["equal"].shown is False
    assert made.contrasts["equal"].words(MARGIN) == "diverged"
    assert made.verdicts["equal"].passed is False
    assert made.winner == "a"
    assert made.finished


def test_before_its_runs_a_twin_shows_nothing_yet() -> None:
    made = verification(alone(400, has_twin=True))
    play(made, steady({}))
    made.add_twin("equal", "a")
    assert made.contrasts["equal"].shown is None
    assert made.contrasts["equal"].words(MARGIN) == "not compared"


def test_two_policies_with_twins_share_the_error_rate_of_a_win() -> None:
    line_up = {**alone(400, has_twin=True), "b": Entry(cost_flops=800, share=0.0, has_twin=True)}
    made = verification(line_up)
    metric = steady({})
    play(made, metric)
    made.add_twin("equal", "a")
    play(made, metric)
    assert made.contrasts["equal"].level < allot(0.05) / 2


def test_nothing_is_claimed_of_a_control() -> None:
    made = verification(alone())
    play(made, steady({}))
    made.add_control("random", "a")
    made.add_control("random", "a")
    assert made.controls == ("random",)
    assert set(made.needed()) == batch("random", 0, 5)
    play(made, steady({"random": -0.03}))
    contrast = made.contrasts["random"]
    assert (contrast.is_claim, contrast.shown) == (False, None)
    assert contrast.lower_bound > 0
    assert contrast.words(MARGIN).endswith(", nothing is claimed")
    assert "random" not in made.verdicts
    assert made.winner == "a"
    assert made.finished


# ---------------------------------------------------------------------------------------------- resume and extension


def restored(made: Verification) -> Verification:
    return Verification.from_mapping(json.loads(json.dumps(made.to_mapping(), allow_nan=False)))


def halves(made: Verification, metric: Metric) -> Iterator[Verification]:
    """The verification after each single run, restored from JSON each time."""
    while wanted := made.needed():
        name, seed = wanted[0]
        made.record(name, seed, metric(name, seed))
        made = restored(made)
        yield made


def test_a_resumed_verification_ends_like_an_uninterrupted_one() -> None:
    metric = steady({"first": -0.006, "cheap": -0.004}, sigma=0.004)
    straight = verification()
    play(straight, metric)
    *_, resumed = halves(verification(), metric)
    assert dict(resumed.verdicts) == dict(straight.verdicts)
    assert resumed.alpha_spent == straight.alpha_spent


def test_everything_survives_the_round_trip() -> None:
    made = Verification(LINE_UP, rules(), reference_flops=WHOLE, first_seed=10, spent=0.04)
    play(made, lambda name, seed: math.nan if (name, seed) == ("cheap", 12) else 0.9)
    made.add_twin("equal", "first")
    made.add_control("random", "first")
    play(made, lambda name, seed: 0.9)
    again = restored(made)
    assert again.to_mapping() == made.to_mapping()
    assert again.verdicts["cheap"].passed is False
    assert dict(again.contrasts) == dict(made.contrasts)
    assert again.controls == ("equal", "random")
    assert again.line_up == made.line_up


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"version": 1},
            "version of the verification must be 2, got 1. Go on with the version of ",
        ),
        ({"winner": "first"}, "recorded winner must be 'a', as its runs say, got 'first'. Restore a copy."),
        ({"runs": [{"name": "x", "seed": 0, "metric": 1.0}]}, "The recorded verification is damaged: name must be one"),
        ({"rules": {"margin": 1.0}}, "The recorded verification is damaged: "),
        ({"spent": 0.06}, "The recorded verification is damaged: spent must be in"),
        ({"line_up": [{"name": "a"}]}, "The recorded verification is damaged: "),
        ({"twin": ["equal", "a"]}, "The recorded verification is damaged: twin must be one, of a candidate that has"),
    ],
)
def test_damage_is_noticed(change: dict[str, object], text: str) -> None:
    made = verification(alone())
    play(made, steady({}))
    with pytest.raises(StudyError) as caught:
        Verification.from_mapping({**made.to_mapping(), **change})
    assert str(caught.value).startswith(text)


def test_a_missing_part_is_damage() -> None:
    made = verification(alone()).to_mapping()
    for key in set(made) - {"version", "alpha_spent"}:
        with pytest.raises(StudyError, match="The recorded verification is damaged"):
            Verification.from_mapping({k: v for k, v in made.items() if k != key})


def test_an_extension_spends_from_the_same_alpha() -> None:
    first = verification(alone())
    play(first, steady({}))
    extension = verification(alone(), spent=first.alpha_spent)
    play(extension, steady({}))
    assert first.alpha_spent == pytest.approx(0.04)
    assert extension.alpha_spent == pytest.approx(0.048)
    assert extension.verdicts["a"].level == pytest.approx(0.008)


# -------------------------------------------------------------------------------------------------------------- words


def test_the_statement_says_what_is_covered_and_what_not() -> None:
    made = verification()
    play(made, steady({"first": -0.002, "cheap": math.nan}))
    text = statement(made.verdicts["first"], made.rules)
    assert text.startswith("8 runs of first beside 5 conventional runs: its mean test metric is 0.00")
    first = made.verdicts["first"]
    assert first.nominal < first.level
    of_looks = f"level {first.nominal:.3g} (this look's of the {first.level:.3g} of all its looks)"
    assert f"below the reference's, and at one-sided {of_looks} no more than " in text
    assert "covers the noise of training" in text
    assert "not the sampling of the test set" in text
    assert "one that fails badly in a few runs of a hundred is not ruled out" in text
    nothing = statement(made.verdicts["cheap"], made.rules)
    assert nothing == "There is no evidence for cheap: diverged with seed 0, which counts as a failure"


def test_the_statement_follows_the_direction_of_the_metric() -> None:
    made = verification(alone(), higher_is_better=False)
    play(made, steady({"a": 0.002}))
    text = statement(made.verdicts["a"], made.rules)
    assert " above the reference's, and at one-sided level " in text
    assert " above it; 0.01 above it is tolerated." in text


def test_verdict_mapping_has_null_for_what_is_not_finite() -> None:
    verdict = verification().verdicts["first"]
    mapping = verdict.to_mapping()
    assert mapping["lower_bound"] is None
    assert mapping["mean_difference"] is None
    assert set(mapping) == set(Verdict.__slots__)
    json.dumps(mapping, allow_nan=False)


def test_it_needs_no_torch_ray_or_optuna() -> None:
    code = (
        "import sys, subsettune.study.verification.verification as _\n"
        "print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
