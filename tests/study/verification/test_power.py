"""Chances to pass and numbers of seeds that would do, against the noncentral t and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subsettune.study.verification.noninferiority import FEW, Rules, decide, plan, sizes, spread_floor
from subsettune.study.verification.power import ENOUGH_POWER, best_chance, pass_probability, required_seeds

MARGIN = 0.01
STEP = 1 / 360
LEVEL = 0.04


def rules(seeds: int = 5, max_seeds: int = 10, **changes: object) -> Rules:
    given_values = {"margin": MARGIN, "alpha": 0.05, "higher_is_better": True, **changes}
    return Rules(seeds=seeds, max_seeds=max_seeds, **given_values)  # type: ignore[arg-type]


@given(st.floats(0.2, 3.0), st.floats(-0.5, 1.0), st.integers(2, 30), st.sampled_from([0.04, 0.01, 0.001]))
@settings(max_examples=60, deadline=None)
def test_with_equal_spreads_it_is_the_noncentral_t(ratio: float, shift: float, n: int, level: float) -> None:
    sigma, excess = ratio * MARGIN, (1 + shift) * MARGIN
    noncentrality = excess / (sigma * math.sqrt(2 / n))
    critical = stats.t.isf(level, n - 1 if n < FEW else 2 * n - 2)
    oracle = float(stats.nct.sf(critical, 2 * n - 2, noncentrality))
    assert pass_probability(level, (n, n), excess, (sigma, sigma)) == pytest.approx(oracle, abs=1e-3)


def test_doubt_is_averaged_over() -> None:
    """Against the mean over what may be true."""
    size, spreads, doubt = (10, 5), (MARGIN, MARGIN), 0.7 * MARGIN
    truths = MARGIN + doubt * stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    oracle = np.mean([pass_probability(LEVEL, size, excess, spreads) for excess in truths[::10]])
    assert pass_probability(LEVEL, size, MARGIN, spreads, doubt) == pytest.approx(oracle, abs=5e-3)


def test_a_policy_at_the_margin_passes_with_the_level() -> None:
    assert pass_probability(LEVEL, (5, 5), 0.0, (MARGIN, MARGIN)) == pytest.approx(LEVEL, abs=1e-3)


def test_the_best_look_is_a_lower_bound_of_passing_at_any() -> None:
    made = rules(usual_spread=MARGIN)
    looks = plan(LEVEL, sizes(made, 0.25))
    rng = np.random.default_rng(0)
    own = MARGIN * rng.standard_normal((20_000, looks[-1].num_seeds))
    theirs = MARGIN * rng.standard_normal((20_000, looks[-1].num_references))
    passed, _ = decide(own, theirs, made, looks, futile_below=0.0)
    bound = best_chance(looks, MARGIN, (MARGIN, MARGIN), 0.0)
    assert bound == max(pass_probability(k.nominal, k.size, MARGIN, (MARGIN, MARGIN)) for k in looks)
    assert bound - 0.02 < passed.mean() < bound + 0.15


@given(st.floats(0.1, 3.0), st.floats(0.3, 2.0), st.sampled_from([0.0, STEP]))
@settings(max_examples=25, deadline=None)
def test_required_seeds_is_the_first_number_that_does(ratio: float, relative: float, resolution: float) -> None:
    made = rules(resolution=resolution)
    spreads = relative * ratio * MARGIN, ratio * MARGIN
    found = required_seeds(made, spreads, LEVEL)
    floor = spread_floor(resolution, MARGIN)
    floored = math.hypot(spreads[0], floor), math.hypot(spreads[1], floor)
    assert found is not None
    assert pass_probability(LEVEL, (found, found), MARGIN, floored) >= ENOUGH_POWER
    assert found == 2 or pass_probability(LEVEL, (found - 1, found - 1), MARGIN, floored) < ENOUGH_POWER


def test_required_seeds_without_an_answer() -> None:
    assert required_seeds(rules(), (100 * MARGIN, MARGIN), LEVEL) is None
    assert required_seeds(rules(), (0.0, 0.0), LEVEL) == 2


@pytest.mark.parametrize("relative", [0.5, 1.0, 1.5])
def test_required_seeds_give_the_power_they_promise(relative: float) -> None:
    n = required_seeds(rules(), (relative * MARGIN, MARGIN), LEVEL)
    assert n is not None
    rng = np.random.default_rng(0)
    own, theirs = relative * MARGIN * rng.standard_normal((20_000, n)), MARGIN * rng.standard_normal((20_000, n))
    reached = (
        stats.ttest_ind(own + MARGIN, theirs, axis=1, equal_var=False, alternative="greater").pvalue < LEVEL
    ).mean()
    assert 0.8 - 0.015 < reached < 0.88
