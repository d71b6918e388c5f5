"""What is said of other test examples."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from subsettune import config
from subsettune.study.results.sampled import MOST_EXAMPLES, SampledDifference, rounded_up


def sampled(**changes: Any) -> SampledDifference:
    plain = {
        "mean": -0.002,
        "lower": -0.0132,
        "interval": (-0.015, 0.011),
        "alpha": 0.05,
        "standard_error": 0.0068,
        "seeds_error": 0.002,
        "num_examples": 539,
        "num_seeds": (10, 5),
        "per_example": 0.025,
        "per_seeds": 1e-6,
    }
    return SampledDifference(**{**plain, **changes})


def test_it_says_whether_the_bound_is_within_the_tolerance_and_what_would_do() -> None:
    needed = math.ceil(1.6448536**2 * 0.025 / (0.008**2 - 1.6448536**2 * 1e-6))
    assert sampled().examples_needed(0.01) == needed == 1104
    assert sampled().sentence(0.01) == (
        "With other test examples in place of these 539, too, the policy is at most 0.0132 worse than the reference "
        "(one-sided bound at 0.05): more than the 0.01 allowed, so that what was verified holds for these examples "
        "alone. About 1,200 would show it of others, the difference being as measured."
    )
    assert sampled().sentence(0.02) == (
        "With other test examples in place of these 539, too, the policy is at most 0.0132 worse than the reference "
        "(one-sided bound at 0.05), within the 0.02 allowed."
    )
    shared = sampled(alpha=0.05 / 3, num_policies=3).sentence(0.02)
    assert "(one-sided bound at 0.05 shared by the 3 policies tested on them), within the 0.02 allowed." in shared
    assert "the policy is not worse than the reference" in sampled(mean=0.02, lower=0.001).sentence(0.01)


@pytest.mark.parametrize("changes", [{"mean": -0.01}, {"per_seeds": 1e-4}, {"per_example": 1e-4 * MOST_EXAMPLES}])
def test_a_number_of_examples_that_is_no_advice_is_not_named(changes: dict[str, float]) -> None:
    assert sampled(**changes).sentence(0.01).endswith("so that what was verified holds for these examples alone.")


def test_it_comes_back_from_json() -> None:
    one = sampled()
    assert config.build(SampledDifference, json.loads(json.dumps(config.to_plain(one)))) == one


def test_numbers_are_rounded_up_to_two_digits() -> None:
    assert [rounded_up(number) for number in (7, 62, 100, 101, 1237, 9901)] == [7, 62, 100, 110, 1300, 10_000]
