"""How the process behind a search (`process`) is fitted: law, kernel and noise in turn, by their posterior mode.

Symbols are those of `process`. What hyperparameters are expected to be lies here; what the scores are, there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from subsettune.study.search.kernel import Array, distance, factor, matern, on_one_thread
from subsettune.study.search.law import Laws, grid
from subsettune.study.search.process import (
    ADDITIVE,
    MISFIT,
    Frame,
    Kernel,
    Points,
    Process,
    Sightings,
    growth,
    posterior,
)

_LENGTH = (np.log(0.7), 0.7)  # prior of a log length scale in the unit cube: mean, standard deviation
_DRIFT_LENGTH = (np.log(4.0), 0.6)  # of the one in t, in log budget
_STRETCH_LENGTH = (np.log(2.5), 0.5)  # of the same for the subset stretch
_SIGNAL = (np.log(0.25), 0.8)  # of the log signal variance
_WRONG = 4.0  # standard deviations below what the others say, from which on a run counts less
_FAR = 8.0  # |u| beyond which a score counts as that far: no e-fold more would be believed
_MAX_BEYOND = 30.0  # log evidence that one score may cost a law that has no place for it: it may be a run gone wrong
_KINSHIP = {0.98: 0.23, 0.93: 0.38, 0.85: 0.21, 0.6: 0.1, 0.0: 0.08}  # r of earlier studies, and its prior
_NUM_ROUNDS = 2  # of choosing the law and the kernel in turn
_NUM_STEPS = 3  # of Gauss-Newton
_NUM_ROBUST = 3
_MAX_ITERATIONS = 15  # of L-BFGS, each round


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Of u at the runs of this study, given those of earlier ones: (n,) mean, (n, n) covariance."""

    mean: Array
    covariance: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """A law, and what is seen through it.

    Args:
        law: one.
        evidence: log of its posterior, up to a constant.
        y: (n,) scores seen as u.
        variance: (n,) theirs.
        prior: of the u.
        points: with the kinship under which the law was chosen.
    """

    law: Laws
    evidence: float
    y: Array
    variance: Array
    prior: Prior
    points: Points


@on_one_thread
def fit(data: Sightings, earlier: Sequence[Process] = ()) -> Process:
    """Fit law, kernel, noise and kinship by their posterior mode; the same data give the same bits.

    Args:
        data: of this study.
        earlier: what was fitted to each of the earlier studies that are known, in the same columns.
    """
    centre = np.full(data.x.shape[1] + 1, -2 * _LENGTH[0])
    centre[data.frame.trend], centre[-1] = -2 * _DRIFT_LENGTH[0], -2 * _STRETCH_LENGTH[0]
    kernel, noise_sd = Kernel(weights=np.exp(centre), signal=float(np.exp(_SIGNAL[0]))), np.exp(data.noise_prior[0])
    laws = grid(data.above, tuple(process.law for process in earlier))
    told = _told(earlier)
    for place in range(_NUM_ROUNDS):
        chosen = _choose_kinship(laws, data, earlier, kernel, noise_sd)
        if place < _NUM_ROUNDS - 1:
            kernel, noise_sd = _tune(data, chosen, told, centre)
    inflation, residual = _robust(chosen.prior, chosen.y, chosen.variance)
    y = np.concatenate([told[0], chosen.y])
    variance = np.concatenate([told[1], chosen.variance * inflation])
    return posterior(chosen.points, kernel, chosen.law, float(noise_sd), y, variance, residual)


def _told(earlier: Sequence[Process]) -> tuple[Array, Array]:
    """(m,) u of all runs of earlier studies, and their variance."""
    y, variance = ([getattr(process, name) for process in earlier] for name in ("y", "variance"))
    return np.concatenate([np.empty(0), *y]), np.concatenate([np.empty(0), *variance])


def _points(data: Sightings, earlier: Sequence[Process], kinship: float) -> Points:
    """Of all runs, those of earlier studies first."""
    rows = [process.points.x for process in earlier]
    study = np.repeat(np.arange(1, len(rows) + 1), [len(x) for x in rows]).astype(np.int64)
    x = np.concatenate([*rows, np.empty((0, data.x.shape[1]))])
    told = Points(frame=data.frame, x=x, study=study, kinship=np.full(len(x), kinship))
    return told.and_this_studys(data.x)


def _given(points: Points, kernel: Kernel, told: tuple[Array, Array]) -> Prior:
    """The prior at the runs of this study, given those of the earlier ones."""
    mean, prior, m = points.frame.mean(points.x), points.prior(kernel), len(told[0])
    if not m:
        return Prior(mean=mean, covariance=prior)
    gain = np.linalg.solve(prior[:m, :m] + np.diag(told[1]), prior[:m, m:])
    return Prior(mean=mean[m:] + (told[0] - mean[:m]) @ gain, covariance=prior[m:, m:] - prior[m:, :m] @ gain)


def _choose_kinship(
    laws: Laws, data: Sightings, earlier: Sequence[Process], kernel: Kernel, noise_sd: float
) -> _Choice:
    """The law, and the kinship of the earlier studies, with the largest posterior."""
    found, told = [], _told(earlier)
    for kinship, chance in _KINSHIP.items() if earlier else ((1.0, 1.0),):
        points = _points(data, earlier, kinship)
        chosen = _choose(laws, data, _given(points, kernel, told), noise_sd, points)
        found.append(replace(chosen, evidence=chosen.evidence + math.log(chance)))
    return max(found, key=lambda one: one.evidence)


def _seen(laws: Laws, data: Sightings, u: Array, noise_sd: float, misfit: Array | None = None) -> tuple[Array, ...]:
    """(k, n) scores as u by a tangent at `u`; their variance; the slope there.

    Args:
        laws: k of them.
        data: to see.
        u: (k, n) places of the tangents.
        noise_sd: of one run's score at the target.
        misfit: (n,) what no law accounts for, in units of the score; None is `MISFIT` of u.
    """
    slope = laws.slope(u)
    tangent = np.clip(u + (data.score - laws.value(u)) / slope, -_FAR, _FAR)
    unexplained = MISFIT if misfit is None else misfit / slope
    variance = (noise_sd * growth(u) / slope) ** 2 / data.runs + unexplained**2 / np.minimum(data.runs, 1.0)
    return tangent, variance, slope


def _smoothed(
    laws: Laws, data: Sightings, prior: Prior, noise_sd: float, u: Array, misfit: Array | None = None
) -> Array:
    """(k, n) posterior mode of u by Gauss-Newton steps from `u`."""
    mean = prior.mean
    for _ in range(_NUM_STEPS):
        y, variance, _ = _seen(laws, data, u, noise_sd, misfit)
        matrix = prior.covariance + variance[:, :, None] * np.eye(len(mean))
        u = mean + np.linalg.solve(matrix, (y - mean)[..., None])[..., 0] @ prior.covariance
    return u


def _choose(laws: Laws, data: Sightings, prior: Prior, noise_sd: float, points: Points) -> _Choice:
    """The law with the largest posterior, and the scores seen through it.

    To compare laws, what they do not account for is the same in units of the score for all: were it the same in u, a
    law with a smaller slope would seem the more exact for it.
    """
    start, mean, covariance = laws.place(data.score), prior.mean, prior.covariance
    misfit = MISFIT * np.exp(np.log(laws.slope(start)).mean(axis=0))
    u = _smoothed(laws, data, prior, noise_sd, start, misfit)
    y, variance, slope = _seen(laws, data, u, noise_sd, misfit)
    variance = variance * _doubt(covariance, variance, y - mean)  # or one run gone wrong would choose the law
    chol = np.linalg.cholesky(covariance + variance[:, :, None] * np.eye(len(mean)))
    half = np.linalg.solve(chol, (y - mean)[..., None])[..., 0]
    evidence = laws.log_prior - 0.5 * (half**2).sum(axis=1) - np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(axis=1)
    beyond = np.abs(u + (data.score - laws.value(u)) / slope) - _FAR  # what a law that bends too early hides
    evidence -= np.log(slope).sum(axis=1) + np.clip(beyond, 0.0, _MAX_BEYOND).sum(axis=1)
    best = int(np.argmax(evidence))
    law = laws.pick(best)
    y, variance, _ = _seen(law, data, _smoothed(law, data, prior, noise_sd, u[best : best + 1]), noise_sd)
    return _Choice(law=law, evidence=float(evidence[best]), y=y[0], variance=variance[0], prior=prior, points=points)


def _doubt(prior: Array, variance: Array, centred: Array) -> Array:
    """(k, n) by how much each variance is to be inflated under each of k laws; see `_robust`."""
    inverse = np.linalg.inv(prior + variance[:, :, None] * np.eye(len(prior)))
    precision = np.diagonal(inverse, axis1=1, axis2=2)
    residual = (inverse @ centred[..., None])[..., 0] / np.sqrt(precision)
    return np.asarray(np.maximum(1.0, np.minimum(residual, 0.0) ** 2 / _WRONG**2))


def _robust(prior: Prior, y: Array, variance: Array) -> tuple[Array, Array]:
    """(n,) by how much each variance is to be inflated, and by how many standard deviations a score is off.

    A point far below what the others say counts less: a run may go wrong, but none does well by mistake.
    """
    inflation, centred = np.ones(len(y)), y - prior.mean
    for _ in range(_NUM_ROBUST):
        inverse = np.linalg.inv(prior.covariance + np.diag(variance * inflation))
        precision = np.diag(inverse)
        spread = 1 / precision - variance * (inflation - 1)
        residual = (inverse @ centred) / precision / np.sqrt(spread)
        inflation = np.maximum(1.0, np.minimum(residual, 0.0) ** 2 / _WRONG**2)
    return inflation, residual


def _tune(data: Sightings, chosen: _Choice, told: tuple[Array, Array], centre: Array) -> tuple[Kernel, float]:
    """Kernel and noise by the mode of their posterior, with the scores seen as they are."""
    frame, x, d = data.frame, chosen.points.x, len(centre)  # one more than there are columns
    u = np.clip(chosen.law.place(data.score)[0], -4.0, 1.0)
    multiplier = (growth(u) / chosen.law.slope(u)[0]) ** 2 / data.runs
    multiplier = np.concatenate([np.zeros(len(told[0])), multiplier])  # of this study's noise
    relation, of_basis = chosen.points.relations
    fixed = np.diag(np.concatenate([told[1], MISFIT**2 / np.minimum(data.runs, 1.0)]))
    fixed += frame.basis(x) @ frame.basis(x).T * of_basis
    residual = np.concatenate([told[0], chosen.y]) - frame.mean(x)
    pieces = np.stack([distance(c, c, bool(cat)) for c, cat in zip(x.T, frame.is_category, strict=True)])
    middle = np.concatenate([centre, [_SIGNAL[0]], [2 * data.noise_prior[0]]])
    length_sd = np.full(d, 2 * _LENGTH[1])
    length_sd[frame.trend], length_sd[-1] = 2 * _DRIFT_LENGTH[1], 2 * _STRETCH_LENGTH[1]
    width = np.concatenate([length_sd, [_SIGNAL[1]], [2 * data.noise_prior[1]]])

    def objective(theta: Array) -> tuple[float, Array]:
        value, gradient = _negative_evidence(theta, frame, pieces, relation, fixed, residual, multiplier)
        z = (theta - middle) / width
        return value + 0.5 * float(z @ z), gradient + z / width

    bounds = [(m - 3 * s, m + 3 * s) for m, s in zip(middle, width, strict=True)]
    options: Any = {"maxiter": _MAX_ITERATIONS}
    theta = minimize(objective, middle, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Kernel(weights=np.exp(theta[:d]), signal=float(np.exp(theta[d]))), float(np.exp(theta[d + 1] / 2))


# More than six parameters: what the evidence is a function of, made once for all steps.
def _negative_evidence(
    theta: Array, frame: Frame, pieces: Array, relation: Array, fixed: Array, residual: Array, multiplier: Array
) -> tuple[float, Array]:
    """Minus the log marginal likelihood and its gradient in (log w, log signal, log noise variance)."""
    weights, signal, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    t = pieces[frame.trend]
    joint, joint_slope = matern(np.tensordot(weights[:-1], pieces, axes=1))
    correlation, parts = (1 - ADDITIVE) * joint, []
    for group in frame.groups:
        own = np.tensordot(weights[list(group)], pieces[list(group)], axes=1) + weights[frame.drift(group)] * t
        value, slope = matern(own)
        correlation = correlation + ADDITIVE * value
        parts.append((group, ADDITIVE * slope))
    chol = factor(signal * correlation * relation + fixed, noise * multiplier)
    alpha = cho_solve((chol, True), residual, check_finite=False)
    inverse = cho_solve((chol, True), np.eye(len(residual)), check_finite=False)
    outer = 0.5 * signal * (inverse - np.outer(alpha, alpha)) * relation
    by_weight = np.zeros(len(weights))
    by_weight[:-1] = (1 - ADDITIVE) * np.tensordot(pieces, outer * joint_slope, axes=2)
    for group, slope in parts:
        by_weight[list(group)] += np.tensordot(pieces[list(group)], outer * slope, axes=2)
        by_weight[frame.drift(group)] += float((t * outer * slope).sum())
    by_noise = 0.5 * noise * float(np.diag(inverse - np.outer(alpha, alpha)) @ multiplier)
    gradient = np.concatenate([weights * by_weight, [float((outer * correlation).sum())], [by_noise]])
    return 0.5 * float(residual @ alpha) + float(np.log(np.diag(chol)).sum()), gradient
