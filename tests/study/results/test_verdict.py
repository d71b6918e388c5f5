"""Verdicts and contrasts as they are written and read, those of version 0.1 included."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from subsettune.study.results.contrast import Contrast
from subsettune.study.results.verdict import Verdict

PASSED = Verdict(
    name="candidate-1",
    passed=True,
    num_seeds=10,
    num_references=5,
    mean_difference=-0.001,
    lower_bound=-0.006,
    shortfall=0.0,
    p_value=0.002,
    level=0.016,
    alpha_spent=0.01,
    seeds_needed=None,
    reason="passed",
    spread=0.004,
    reference_spread=0.005,
    nominal=0.009,
)
OLD = {  # as version 0.1 wrote it: pairs, one number of seeds, no spread of the reference
    "name": "shorter",
    "passed": True,
    "num_seeds": 5,
    "mean_difference": -0.002,
    "lower_bound": -0.006,
    "shortfall": 0.0,
    "p_value": 0.003,
    "alpha_spent": 0.02,
    "seeds_needed": None,
    "reason": "passed with 5 seeds",
    "spread": 0.003,
    "nominal": 0.02,
}
SHOWN = Contrast(
    policy="candidate-1",
    control="equal",
    num_seeds=5,
    mean_difference=0.0042,
    lower_bound=0.0011,
    level=0.04,
    is_claim=True,
    shown=True,
)


def test_a_verdict_survives_the_round_trip() -> None:
    for one in (PASSED, replace(PASSED, mean_difference=math.nan, lower_bound=-math.inf, shortfall=math.inf)):
        text = json.dumps(one.to_mapping(), allow_nan=False)
        assert repr(Verdict.from_mapping(json.loads(text))) == repr(one)


def test_a_verdict_of_version_0_1_is_read() -> None:
    """It compared pairs: as many of the reference as of the policy, whose spread alone nobody wrote down."""
    found = Verdict.from_mapping(OLD)
    assert (found.num_seeds, found.num_references) == (5, 5)
    assert found.reference_spread is None
    assert found.level == found.alpha_spent == 0.02
    assert (found.passed, found.words(0.01)) == (True, "passed")
    assert repr(Verdict.from_mapping(found.to_mapping())) == repr(found)


@pytest.mark.parametrize("key", ["num_references", "level", "spread"])
def test_a_verdict_that_lacks_a_part_is_damaged(key: str) -> None:
    plain = {k: v for k, v in PASSED.to_mapping().items() if k != key}
    with pytest.raises((KeyError, TypeError)):
        Verdict.from_mapping(plain)


def test_words_of_a_verdict() -> None:
    assert PASSED.words(0.01) == "passed"
    assert replace(PASSED, passed=False, shortfall=0.0021).words(0.01) == "missed by 0.0021"
    assert replace(PASSED, passed=False, shortfall=math.inf).words(0.01) == "missed"
    assert replace(PASSED, passed=None).words(0.01) == "undecided"
    assert replace(PASSED, passed=None, num_seeds=0).words(0.01) == "not tested"


def test_a_contrast_survives_the_round_trip() -> None:
    empty = replace(SHOWN, num_seeds=0, mean_difference=math.nan, lower_bound=-math.inf, shown=None)
    for one in (SHOWN, empty):
        text = json.dumps(one.to_mapping(), allow_nan=False)
        assert repr(Contrast.from_mapping(json.loads(text))) == repr(one)
    with pytest.raises((KeyError, TypeError)):
        Contrast.from_mapping({"policy": "a"})


def test_words_of_a_contrast() -> None:
    assert SHOWN.words(0.01) == "better by 0.0042 (at least 0.0011)"
    missed = replace(SHOWN, mean_difference=0.0012, lower_bound=-0.002, shown=False)
    assert missed.words(0.01) == "not shown to differ (better by 0.0012)"
    assert replace(missed, shown=None).words(0.01) == "not shown to differ (better by 0.0012)"
    assert replace(missed, is_claim=False, shown=None).words(0.01) == "better by 0.0012, nothing is claimed"
    none = replace(SHOWN, mean_difference=math.nan, shown=None)
    assert replace(none, num_seeds=0).words(0.01) == "not compared"
    assert none.words(0.01) == "diverged"
