"""The process behind a search: its gradient, and what it learns from made-up runs whose law is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from subsettune.study.search import fitting
from subsettune.study.search.fitting import fit
from subsettune.study.search.kernel import Array, distance
from subsettune.study.search.process import Frame, Points, Sightings

FRAME = Frame(
    is_category=np.array([False, False, False, True, False]),
    trend=0,
    stretch=(1, 2),
    hyper=(4,),
    centre=np.array([0.4]),
    width=np.array([3.0]),
)


def points(rng: np.random.Generator, n: int) -> Array:
    x = rng.random((n, 5))
    x[:, 0] = np.log(rng.uniform(0.03, 0.9, n))
    x[:, 3] = rng.integers(0, 3, n)
    return x


def needs(x: Array) -> Array:
    """Log budget needed: the second category is worth 0.3, and the rate is best at 0.5."""
    return np.asarray(np.log(0.3) - 0.3 * (x[:, 3] == 1) + 2.0 * (x[:, 4] - 0.5) ** 2)


def sightings(x: Array, noise: float, rng: np.random.Generator) -> Sightings:
    u = x[:, 0] - needs(x)
    score = 0.01 * (1 - np.exp(-4.0 * (np.exp(u) - 1))) + noise * rng.standard_normal(len(x))
    return Sightings(
        frame=FRAME, x=x, score=score, runs=np.ones(len(x)), noise_prior=(np.log(max(noise, 1e-5)), 0.4), above=0.01
    )


def test_the_gradient_is_the_derivative_of_the_evidence() -> None:
    rng = np.random.default_rng(0)
    x = points(rng, 12)
    pieces = np.stack([distance(c, c, bool(k)) for c, k in zip(x.T, FRAME.is_category, strict=True)])
    two = Points(frame=FRAME, x=x, study=np.repeat([1, 0], 6), kinship=np.repeat([0.8, 1.0], 6))
    relation, of_basis = two.relations
    fixed = FRAME.basis(x) @ FRAME.basis(x).T * of_basis
    given = (FRAME, pieces, relation, fixed, rng.standard_normal(12), rng.uniform(0.5, 2.0, 12))
    for _ in range(5):
        theta = 0.4 * rng.standard_normal(8)
        value, gradient = (lambda t, i=i: fitting._negative_evidence(t, *given)[i] for i in (0, 1))
        assert check_grad(value, gradient, theta) < 1e-4


@pytest.mark.parametrize("noise", [0.001, 0.002])
def test_cheap_runs_tell_where_the_frontier_is(noise: float) -> None:
    rng = np.random.default_rng(1)
    x = points(rng, 30)
    x[:, 0] = needs(x) - rng.uniform(0.3, 2.0, len(x))  # not one of them reaches the target
    x[0, 0] = 0.0  # but one, as the conventional training does
    model = fit(sightings(x, noise, rng))
    at = points(rng, 40)
    at[:, 0] = needs(at)
    mean, sd = model.predict(at)
    assert np.abs(mean).mean() < 0.12
    assert (np.abs(mean) < 3 * sd).mean() > 0.9


def test_conditioning_on_what_is_expected_moves_no_mean_and_takes_uncertainty_away() -> None:
    rng = np.random.default_rng(2)
    model = fit(sightings(points(rng, 15), 0.002, rng))
    at = points(rng, 6)
    after = model.condition(at)
    assert after.mean(at) == pytest.approx(model.mean(at), abs=0.02)
    assert (after.predict(at)[1] < model.predict(at)[1]).all()


def test_the_covariance_is_that_of_the_standard_deviations() -> None:
    rng = np.random.default_rng(3)
    model = fit(sightings(points(rng, 15), 0.002, rng))
    at = points(rng, 6)
    assert np.sqrt(np.diag(model.covariance(at, at))) == pytest.approx(model.predict(at)[1], rel=1e-3)


def test_a_run_gone_wrong_counts_less_and_one_that_does_well_does_not() -> None:
    prior, variance = np.full((6, 6), 0.5) + 0.1 * np.eye(6), np.full(6, 0.01)
    x = points(np.random.default_rng(4), 6)
    given = fitting.Prior(mean=FRAME.mean(x), covariance=prior)
    low = FRAME.mean(x) + np.array([0.1, -0.1, 0.0, -6.0, 0.1, 0.0])
    inflation, residual = fitting._robust(given, low, variance)
    assert residual[3] < -4
    assert inflation[3] > 10
    assert np.delete(inflation, 3) == pytest.approx(np.ones(5))
    inflation, residual = fitting._robust(given, 2 * FRAME.mean(x) - low, variance)
    assert residual[3] > 4
    assert inflation[3] == 1


def test_a_run_far_below_its_like_stands_out() -> None:
    rng = np.random.default_rng(4)
    x = points(rng, 25)
    x[3, 0] = needs(x[[3]])[0] - 0.5
    x[7:11] = x[3]  # all of one policy
    good = sightings(x, 0.001, rng)
    score = good.score.copy()
    score[7] -= 0.25
    wrong = fit(replace(good, score=score))
    assert np.argmin(wrong.residual) == 7
    assert wrong.residual[7] < -2
    assert np.abs(wrong.mean(x[[3]]) - fit(good).mean(x[[3]])) < 0.3
