"""Confirmations as values: their seeds, their sentences, their JSON form."""

from __future__ import annotations

import math
from typing import Any

import pytest

from subsettune.errors import StudyError
from subsettune.study.results.confirmation import FRESH, SEEDS_APART, Confirmation, fresh_seeds
from subsettune.study.results.verdict import Verdict


def verdict(**changes: Any) -> Verdict:
    plain = {
        "name": "candidate-1",
        "passed": True,
        "num_seeds": 5,
        "mean_difference": -0.002,
        "lower_bound": -0.0071,
        "shortfall": 0.0,
        "p_value": 0.01,
        "alpha_spent": 0.02,
        "seeds_needed": None,
        "reason": "because",
        "spread": 0.004,
        "reference_spread": 0.004,
        "num_references": 5,
        "level": 0.04,
        "nominal": 0.02,
    }
    return Verdict(**{**plain, **changes})


def confirmation(**changes: Any) -> Confirmation:
    return Confirmation(
        candidate="candidate-1",
        first_seed=50_000,
        num_seeds=10,
        verdict=verdict(**changes),
        state={"alpha_spent": 0.04},
    )


def test_fresh_seeds_are_those_of_no_run_of_this_study_nor_of_the_next() -> None:
    first = 3 * SEEDS_APART
    seeds = fresh_seeds(first, "a", [], 10)
    assert first + FRESH <= seeds[0] < seeds[-1] < first + SEEDS_APART
    assert seeds == fresh_seeds(first, "a", [], 10)
    again = fresh_seeds(first, "a", seeds, 7)
    assert again == range(seeds[-1] + 1, seeds[-1] + 8)


def test_studies_of_one_seed_are_confirmed_with_seeds_of_their_own() -> None:
    drawn = [fresh_seeds(0, f"study-{number} 2026-11-29", [], 15) for number in range(20)]
    assert len(set().union(*drawn)) == 20 * 15


def test_seeds_that_have_run_out_are_told() -> None:
    last = fresh_seeds(0, "a", [SEEDS_APART - 11], 10)
    assert last[-1] == SEEDS_APART - 1
    with pytest.raises(StudyError) as caught:
        fresh_seeds(0, "a", [SEEDS_APART - 10], 10)
    assert str(caught.value) == "fresh seeds must be 99999 at most, got 100000. Start a new study with a new seed."


def test_it_says_what_it_showed() -> None:
    assert confirmation().sentence(0.01) == (
        "Confirmed with 5 fresh seeds and reference runs of their own: candidate-1 passed again (difference -0.0020, "
        "bound -0.0071, 0.01 worse allowed)."
    )
    assert confirmation(passed=False, lower_bound=-0.0132).sentence(0.01) == (
        "Not confirmed: with 5 fresh seeds and reference runs of their own, candidate-1 did not pass again (difference "
        "-0.0020, bound -0.0132, 0.01 worse allowed). Do not rely on the first verification alone."
    )
    diverged = confirmation(
        passed=False, mean_difference=math.nan, lower_bound=-math.inf, reason="diverged with seed 50003"
    )
    assert "did not pass again (diverged with seed 50003)." in diverged.sentence(0.01)
    assert confirmation(passed=None).sentence(0.01) == (
        "The confirmation of candidate-1 with fresh seeds is not finished: start it again."
    )
    assert [confirmation(passed=passed).is_finished for passed in (True, False, None)] == [True, True, False]


def test_it_comes_back_from_json() -> None:
    one = confirmation()
    assert Confirmation.from_mapping(one.to_mapping()) == one
    assert one.alpha_spent == 0.04
    for lack in ("state", "verdict", "candidate"):
        plain = one.to_mapping()
        del plain[lack]
        with pytest.raises((KeyError, TypeError)):
            Confirmation.from_mapping(plain)
