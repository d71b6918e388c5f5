"""How alpha is shared and passed on: never more than there is, never less for those that are left, in any line-up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.study.verification.lineup import Entry, Hypothesis, levels

LEVEL = 0.04
NAMES = ("a", "b", "c", "d")


@st.composite
def line_ups(draw: st.DrawFn) -> dict[str, Entry]:
    """Line-ups of up to four policies, of any cost, with shares that add up to 1 at most."""
    names = NAMES[: draw(st.integers(1, 4))]
    weights = [draw(st.integers(0, 5)) for _ in names]
    total = max(1, sum(weights)) * draw(st.sampled_from([1.0, 1.25]))
    return {
        name: Entry(cost_flops=draw(st.integers(1, 5)), share=weight / total, has_twin=draw(st.booleans()))
        for name, weight in zip(names, weights, strict=True)
    }


def everything(entries: Mapping[str, Entry]) -> list[Hypothesis]:
    twins = [Hypothesis(name, is_twin=True) for name, entry in entries.items() if entry.has_twin]
    return [*map(Hypothesis, entries), *twins]


def subsets(entries: Mapping[str, Entry]) -> list[frozenset[Hypothesis]]:
    every = everything(entries)
    return [frozenset(some) for n in range(len(every) + 1) for some in itertools.combinations(every, n)]


@given(line_ups())
@settings(max_examples=60, deadline=None)
def test_there_is_never_more_than_the_level_whatever_has_passed(entries: dict[str, Entry]) -> None:
    for passed in subsets(entries):
        found = levels(entries, LEVEL, passed)
        assert math.fsum(found.values()) <= LEVEL * (1 + 1e-12)
        assert not passed & set(found)
        assert set(found) <= set(everything(entries))
        assert all(level >= 0 for level in found.values())


@given(line_ups())
@settings(max_examples=60, deadline=None)
def test_what_passes_takes_nothing_from_those_that_are_left(entries: dict[str, Entry]) -> None:
    """Of all sets of passed ones, one more never lowers a level: by chains, in any order."""
    for passed in subsets(entries):
        before = levels(entries, LEVEL, passed)
        for one in set(everything(entries)) - passed:
            after = levels(entries, LEVEL, passed | {one})
            rest = set(everything(entries)) - passed - {one}
            assert all(after.get(h, 0.0) >= before.get(h, 0.0) - 1e-15 for h in rest)


@given(line_ups(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_it_is_the_closed_test_of_its_shares(entries: dict[str, Entry], seed: int) -> None:
    """A policy passes one by one as it does where every set of hypotheses that holds it is rejected as a whole.

    A set is rejected where one of its members is, at the level that it has when all others have passed.
    """
    every = everything(entries)
    p = dict(zip(every, np.random.default_rng(seed).random(len(every)) ** 4, strict=True))

    def is_rejected(kept: frozenset[Hypothesis]) -> bool:
        having = levels(entries, LEVEL, set(every) - kept)
        return any(p[one] < having.get(one, 0.0) for one in kept)

    closed = {one for one in every if all(is_rejected(some) for some in subsets(entries) if one in some)}
    assert step_by_step(entries, p) == closed


def step_by_step(entries: Mapping[str, Entry], p: Mapping[Hypothesis, float]) -> set[Hypothesis]:
    """What passes, level by level."""
    passed: set[Hypothesis] = set()
    while fresh := {one for one, having in levels(entries, LEVEL, passed).items() if p[one] < having}:
        passed |= fresh
    return passed


LINE_UP = {
    "first": Entry(cost_flops=40, share=0.4, has_twin=True),
    "second": Entry(cost_flops=60, share=0.3),
    "recipe": Entry(cost_flops=90, share=0.3, is_last_resort=True),
    "cheap": Entry(cost_flops=25, share=0.0, has_twin=True),
}


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_error_rate_is_the_level_for_every_set_of_true_hypotheses(correlation: float) -> None:
    """By simulated p-values: uniform where a hypothesis is true, tiny where it is not."""
    every, num_repeats = everything(LINE_UP), 20_000
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((num_repeats, 1)), rng.standard_normal((num_repeats, len(every)))
    uniform = stats.norm.sf(math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)
    for true in subsets(LINE_UP)[1:]:
        # A first mistake is made where at most all that is false has passed: no level is higher then.
        having = levels(LINE_UP, LEVEL, set(every) - true)
        wrong = [uniform[:, i] < having.get(one, 0.0) for i, one in enumerate(every) if one in true]
        assert np.any(wrong, axis=0).sum() <= stats.binom.isf(1e-6, num_repeats, LEVEL), true


def test_a_share_goes_to_the_cheaper_ones_dearest_first() -> None:
    entries = {name: Entry(cost_flops=e.cost_flops, share=e.share) for name, e in LINE_UP.items()}

    def having(*passed: str) -> dict[str, float]:
        found = levels(entries, 1.0, {Hypothesis(name) for name in passed})
        return {one.name: pytest.approx(level) for one, level in found.items() if level > 0}

    assert having() == {"first": 0.4, "second": 0.3, "recipe": 0.3}
    assert having("first") == {"cheap": 0.4, "second": 0.3, "recipe": 0.3}
    assert having("second") == {"first": 0.7, "recipe": 0.3}
    assert having("recipe") == {"first": 0.4, "second": 0.6}
    assert having("first", "cheap") == {"second": 0.3, "recipe": 0.3}  # dearer ones are not tested any more
    assert having("second", "first") == {"cheap": 0.7, "recipe": 0.3}
    assert having("first", "cheap", "second", "recipe") == {}


def of_twins(*passed: str) -> dict[str, float]:
    """The levels of the twins where policies of some names, and the twins of some, have passed."""
    found = levels(LINE_UP, 1.0, {Hypothesis(name.removesuffix("'"), is_twin=name[-1] == "'") for name in passed})
    return {one.name: pytest.approx(level) for one, level in found.items() if level > 0 and one.is_twin}


def test_half_of_a_share_is_kept_for_the_twin_of_what_passed_and_half_goes_on() -> None:
    assert of_twins("first") == {"first": 0.2}
    assert levels(LINE_UP, 1.0, {Hypothesis("first")})[Hypothesis("cheap")] == pytest.approx(0.2)


def test_the_twin_of_the_cheapest_that_passed_has_alpha() -> None:
    """That of a dearer one, which is not tested then, doesn't keep it from it."""
    assert of_twins("first", "cheap") == {"first": 0.2, "cheap": 0.2}
    assert of_twins("second", "first", "cheap") == {"first": 0.35, "cheap": 0.35}


def test_a_twin_has_nothing_before_its_candidate_passed() -> None:
    assert of_twins() == {}
    assert of_twins("second", "recipe") == {}


@given(line_ups())
@settings(max_examples=60, deadline=None)
def test_what_a_twin_leaves_changes_no_other_policy(entries: dict[str, Entry]) -> None:
    """A winner is the winner for good once its twin is tested."""
    twins = [one for one in everything(entries) if one.is_twin]
    for passed in subsets(entries):
        before = levels(entries, LEVEL, passed - set(twins))
        after = levels(entries, LEVEL, passed)
        policies = [one for one in everything(entries) if not one.is_twin and one not in passed]
        assert all(after.get(one, 0.0) == before.get(one, 0.0) for one in policies)
