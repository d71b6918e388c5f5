"""How far above or below its least budget each run was: a Gaussian process seen through a common law (`law`).

    symbol    shape    meaning
    x         (n, d)   points; column `trend` is t = ln(budget), the others places in [0, 1] or numbers of categories
    s         (n,)     score minus the target, mean over the seeds of a point
    u         (n,)     latent: ln(budget / least budget of the policy); s = S(u) + noise, S the law
    w         (d+1,)   inverse squared length scales; two different categories are at distance 1
    g         -        groups of columns whose effects add up: the coordinates of the subset stretch are one, each other
                       coordinate is one of its own; w_g is w_t, or for the subset stretch the last of w
    M         -        Matern 5/2 correlation
    K         (n, n)   s2 [ A sum_g M(sum_j w_j D_j + w_g D_t) + (1 - A) M(sum_j w_j D_j + w_t D_t) ] + H B H^T
    H         (n, p)   [1, t - t0, and for each hyperparameter z - z0 and -(z - z0)^2 / 2]
    V         (n,)     variance of s seen as u: v(u)^2 / (runs S'(u)^2), and a small one for what no law describes

Were the law exact and the best rate the same at all budgets, u would be t minus a function of the policy: a run at a
tenth of the compute then tells as much of the frontier as one on it. The prior says so, and w_t how far that is to be
trusted: the effects of all coordinates may drift with the budget, those of the subset stretch sooner, for what a subset
of a size can teach is soon used up. They are mostly sums (A), which few runs can learn.

Noise is larger on small budgets, v(u) = v e^(-G u) below the target; and points far off what all others say (a run that
went wrong) count less, as under Student's t with 4 degrees of freedom.

Source: Rasmussen & Williams 2006, algorithm 2.1, eq. 2.41 and 5.9, 5.12 (leave one out); section 3.4 for Laplace's
approximation, here by Gauss-Newton steps because the likelihood is Gaussian in S(u).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from subsettune.study.search.law import Laws, grid
from subsettune.study.search.surrogate import Array, distance, factor, matern, on_one_thread

_ADDITIVE = 0.8  # A
_LENGTH = (np.log(0.7), 0.7)  # prior of a log length scale in the unit cube: mean, standard deviation
_DRIFT_LENGTH = (np.log(4.0), 0.6)  # of the one in t, in log budget
_STRETCH_LENGTH = (np.log(2.5), 0.5)  # of the same for the subset stretch
_SIGNAL = (np.log(0.25), 0.8)  # of the log signal variance
_OFFSET = (np.log(0.35), 1.0)  # least budget of the recipe's kind of policy: mean of its log, standard deviation
_SLOPE_SD = 0.1  # of the slope in t, about 1
_LINEAR_SD = 0.4  # of the slope in a hyperparameter, per e-fold
_BOWL = (0.4, 0.4)  # curvature about the recipe's value, per e-fold squared: mean, standard deviation
_MISFIT = 0.03  # standard deviation of u, in log budget, that no law accounts for
_NOISE_GROWTH = 0.3  # G
_WRONG = 4.0  # standard deviations below what the others say, from which on a run counts less
_FAR = 8.0  # |u| beyond which a score counts as that far: no e-fold more would be believed
_MAX_BEYOND = 30.0  # log evidence that one score may cost a law that has no place for it: it may be a run gone wrong
_NUM_ROUNDS = 2  # of choosing the law and the kernel in turn
_NUM_STEPS = 3  # of Gauss-Newton
_NUM_ROBUST = 3
_MAX_ITERATIONS = 15  # of L-BFGS, each round


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the columns of x are.

    Args:
        is_category: (d,) whether a column holds categories.
        trend: the column of t.
        stretch: columns of the subset stretch: how long it is, on how much.
        hyper: columns of hyperparameters with a scale.
        centre: (len(hyper),) place of the recipe's value in each.
        width: (len(hyper),) natural units (e-folds, where the scale is logarithmic) from 0 to 1.
    """

    is_category: NDArray[np.bool_]
    trend: int
    stretch: tuple[int, ...]
    hyper: tuple[int, ...]
    centre: Array
    width: Array

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns whose effects add up, the subset stretch first if it is there."""
        rest = (j for j in range(len(self.is_category)) if j != self.trend and j not in self.stretch)
        return (*((self.stretch,) if self.stretch else ()), *((j,) for j in rest))

    def drift(self, group: tuple[int, ...]) -> int:
        """Which weight is that of t in a group."""
        return len(self.is_category) if group == self.stretch else self.trend

    def mean(self, x: Array) -> Array:
        """(n,) prior mean of u."""
        z = (x[:, list(self.hyper)] - self.centre) * self.width
        return np.asarray(x[:, self.trend] - _OFFSET[0] - 0.5 * _BOWL[0] * (z**2).sum(axis=1))

    def basis(self, x: Array) -> Array:
        """(n, p) columns of H, scaled by their prior standard deviation."""
        z = (x[:, list(self.hyper)] - self.centre) * self.width
        ones, t = np.ones((len(x), 1)), x[:, [self.trend]] - _OFFSET[0]
        return np.hstack([_OFFSET[1] * ones, _SLOPE_SD * t, _LINEAR_SD * z, -0.5 * _BOWL[1] * z**2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """What the process is fitted to.

    Args:
        frame: of the columns.
        x: (n, d).
        score: (n,) minus the target.
        runs: (n,) seeds behind a score; below 1 for what is vague.
        noise_prior: mean and standard deviation of the log of the noise's standard deviation, in units of the score.
        above: score of the conventional training minus the target, or the best seen; positive.
    """

    frame: Frame
    x: Array
    score: Array
    runs: Array
    noise_prior: tuple[float, float]
    above: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Hyperparameters: (d + 1,) inverse squared lengths, the signal's variance."""

    weights: Array
    signal: float

    def between(self, frame: Frame, a: Array, b: Array) -> Array:
        """(m, k) prior covariance."""
        pieces = [distance(x, y, bool(c)) for x, y, c in zip(a.T, b.T, frame.is_category, strict=True)]
        return self._matern_part(frame, pieces) + frame.basis(a) @ frame.basis(b).T

    def variance(self, frame: Frame, x: Array) -> Array:
        """(m,) prior variance."""
        parts = _ADDITIVE * len(frame.groups) + 1 - _ADDITIVE
        return np.asarray(self.signal * parts + (frame.basis(x) ** 2).sum(axis=1))

    def _matern_part(self, frame: Frame, pieces: list[Array]) -> Array:
        t = pieces[frame.trend]
        joint, total = self.weights[frame.trend] * t, np.zeros_like(t)
        for group in frame.groups:
            own = np.sum([self.weights[j] * pieces[j] for j in group], axis=0)
            total += _ADDITIVE * matern(own + self.weights[frame.drift(group)] * t)[0]
            joint = joint + own
        return np.asarray(self.signal * (total + (1 - _ADDITIVE) * matern(joint)[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A fitted process.

    Args:
        data: what it was fitted to.
        kernel: its hyperparameters.
        law: the one law of a batch.
        noise_sd: of one run's score at the target.
        y: (n,) the scores, seen as u.
        variance: (n,) V.
        residual: (n,) by how many standard deviations each score is off what the others say.
    """

    data: Sightings
    kernel: Kernel
    law: Laws
    noise_sd: float
    y: Array
    variance: Array
    residual: Array
    chol: Array
    alpha: Array

    @on_one_thread
    def mean(self, x: Array) -> Array:
        """(m,) posterior mean of u."""
        frame = self.data.frame
        return np.asarray(frame.mean(x) + self.kernel.between(frame, x, self.data.x) @ self.alpha)

    @on_one_thread
    def predict(self, x: Array) -> tuple[Array, Array]:
        """(m,) posterior mean and standard deviation of u."""
        frame = self.data.frame
        cross = self.kernel.between(frame, x, self.data.x)
        half = solve_triangular(self.chol, cross.T, lower=True, check_finite=False)
        variance = self.kernel.variance(frame, x) - np.einsum("ij,ij->j", half, half)
        return frame.mean(x) + cross @ self.alpha, np.sqrt(np.maximum(variance, 1e-10))

    @on_one_thread
    def covariance(self, a: Array, b: Array) -> Array:
        """(m, k) posterior covariance of u."""
        frame = self.data.frame
        left, right = (
            solve_triangular(self.chol, self.kernel.between(frame, self.data.x, x), lower=True, check_finite=False)
            for x in (a, b)
        )
        return np.asarray(self.kernel.between(frame, a, b) - left.T @ right)

    def noise(self, u: Array) -> Array:
        """Standard deviation of one run's score, seen as u, at places u."""
        score_sd = self.noise_sd * _growth(u)
        return np.asarray(np.sqrt((score_sd / self.law.slope(u)[0]) ** 2 + _MISFIT**2))

    @on_one_thread
    def condition(self, x: Array) -> Process:
        """The process once one run at each of `x` has come out as expected: the same mean, less uncertainty."""
        mean = self.mean(x)
        data = replace(
            self.data,
            x=np.concatenate([self.data.x, x]),
            score=np.concatenate([self.data.score, self.law.value(mean)[0]]),
            runs=np.concatenate([self.data.runs, np.ones(len(x))]),
        )
        variance = np.concatenate([self.variance, self.noise(mean) ** 2])
        y, residual = np.concatenate([self.y, mean]), np.concatenate([self.residual, np.zeros(len(x))])
        return _settle(data, self.kernel, self.law, self.noise_sd, y, variance, residual)


@on_one_thread
def fit(data: Sightings) -> Process:
    """Fit law, kernel and noise by their posterior mode; the same data give the same bits."""
    centre = np.full(data.x.shape[1] + 1, -2 * _LENGTH[0])
    centre[data.frame.trend], centre[-1] = -2 * _DRIFT_LENGTH[0], -2 * _STRETCH_LENGTH[0]
    kernel, noise_sd = Kernel(weights=np.exp(centre), signal=float(np.exp(_SIGNAL[0]))), np.exp(data.noise_prior[0])
    laws = grid(data.above)
    for place in range(_NUM_ROUNDS):
        prior = kernel.between(data.frame, data.x, data.x)
        law, y, variance = _choose(laws, data, prior, noise_sd)
        if place < _NUM_ROUNDS - 1:
            kernel, noise_sd = _tune(data, y, law, centre)
    inflation, residual = _robust(data, prior, y, variance)
    return _settle(data, kernel, law, float(noise_sd), y, variance * inflation, residual)


def _growth(u: Array) -> Array:
    """Noise of a run against that at the target."""
    return np.asarray(np.exp(-_NOISE_GROWTH * np.clip(u, -4.0, 0.0)))


def _seen(laws: Laws, data: Sightings, u: Array, noise_sd: float, misfit: Array | None = None) -> tuple[Array, ...]:
    """(k, n) scores as u by a tangent at `u`; their variance; the slope there.

    Args:
        laws: k of them.
        data: to see.
        u: (k, n) places of the tangents.
        noise_sd: of one run's score at the target.
        misfit: (n,) what no law accounts for, in units of the score; None is `_MISFIT` of u.
    """
    slope = laws.slope(u)
    tangent = np.clip(u + (data.score - laws.value(u)) / slope, -_FAR, _FAR)
    unexplained = _MISFIT if misfit is None else misfit / slope
    variance = (noise_sd * _growth(u) / slope) ** 2 / data.runs + unexplained**2 / np.minimum(data.runs, 1.0)
    return tangent, variance, slope


def _smoothed(
    laws: Laws, data: Sightings, prior: Array, noise_sd: float, u: Array, misfit: Array | None = None
) -> Array:
    """(k, n) posterior mode of u by Gauss-Newton steps from `u`."""
    mean = data.frame.mean(data.x)
    for _ in range(_NUM_STEPS):
        y, variance, _ = _seen(laws, data, u, noise_sd, misfit)
        matrix = prior + variance[:, :, None] * np.eye(len(mean))
        u = mean + np.linalg.solve(matrix, (y - mean)[..., None])[..., 0] @ prior
    return u


def _choose(laws: Laws, data: Sightings, prior: Array, noise_sd: float) -> tuple[Laws, Array, Array]:
    """The law with the largest posterior, and the scores seen through it.

    To compare laws, what they do not account for is the same in units of the score for all: were it the same in u, a
    law with a smaller slope would seem the more exact for it.
    """
    start, mean = laws.place(data.score), data.frame.mean(data.x)
    misfit = _MISFIT * np.exp(np.log(laws.slope(start)).mean(axis=0))
    u = _smoothed(laws, data, prior, noise_sd, start, misfit)
    y, variance, slope = _seen(laws, data, u, noise_sd, misfit)
    variance = variance * _doubt(prior, variance, y - mean)  # or one run gone wrong would choose the law
    chol = np.linalg.cholesky(prior + variance[:, :, None] * np.eye(len(mean)))
    half = np.linalg.solve(chol, (y - mean)[..., None])[..., 0]
    evidence = laws.log_prior - 0.5 * (half**2).sum(axis=1) - np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(axis=1)
    beyond = np.abs(u + (data.score - laws.value(u)) / slope) - _FAR  # what a law that bends too early hides
    evidence -= np.log(slope).sum(axis=1) + np.clip(beyond, 0.0, _MAX_BEYOND).sum(axis=1)
    best = int(np.argmax(evidence))
    law = laws.pick(best)
    y, variance, _ = _seen(law, data, _smoothed(law, data, prior, noise_sd, u[best : best + 1]), noise_sd)
    return law, y[0], variance[0]


def _doubt(prior: Array, variance: Array, centred: Array) -> Array:
    """(k, n) by how much each variance is to be inflated under each of k laws; see `_robust`."""
    inverse = np.linalg.inv(prior + variance[:, :, None] * np.eye(len(prior)))
    precision = np.diagonal(inverse, axis1=1, axis2=2)
    residual = (inverse @ centred[..., None])[..., 0] / np.sqrt(precision)
    return np.asarray(np.maximum(1.0, np.minimum(residual, 0.0) ** 2 / _WRONG**2))


def _robust(data: Sightings, prior: Array, y: Array, variance: Array) -> tuple[Array, Array]:
    """(n,) by how much each variance is to be inflated, and by how many standard deviations a score is off.

    A point far below what the others say counts less: a run may go wrong, but none does well by mistake.
    """
    inflation, centred = np.ones(len(y)), y - data.frame.mean(data.x)
    for _ in range(_NUM_ROBUST):
        inverse = np.linalg.inv(prior + np.diag(variance * inflation))
        precision = np.diag(inverse)
        spread = 1 / precision - variance * (inflation - 1)
        residual = (inverse @ centred) / precision / np.sqrt(spread)
        inflation = np.maximum(1.0, np.minimum(residual, 0.0) ** 2 / _WRONG**2)
    return inflation, residual


# More than six parameters: what a process is made of, each found by another step of the fit.
def _settle(
    data: Sightings, kernel: Kernel, law: Laws, noise_sd: float, y: Array, variance: Array, residual: Array
) -> Process:
    """The process with given hyperparameters."""
    prior, centred = kernel.between(data.frame, data.x, data.x), y - data.frame.mean(data.x)
    chol = factor(prior, variance)
    return Process(
        data=data,
        kernel=kernel,
        law=law,
        noise_sd=noise_sd,
        y=y,
        variance=variance,
        residual=residual,
        chol=chol,
        alpha=cho_solve((chol, True), centred, check_finite=False),
    )


def _tune(data: Sightings, y: Array, law: Laws, centre: Array) -> tuple[Kernel, float]:
    """Kernel and noise by the mode of their posterior, with the scores seen as they are."""
    frame, d = data.frame, len(centre)  # one more than there are columns
    u = np.clip(law.place(data.score)[0], -4.0, 1.0)
    multiplier = (_growth(u) / law.slope(u)[0]) ** 2 / data.runs
    fixed = np.diag(_MISFIT**2 / np.minimum(data.runs, 1.0))
    fixed += frame.basis(data.x) @ frame.basis(data.x).T
    residual = y - frame.mean(data.x)
    pieces = np.stack([distance(c, c, bool(cat)) for c, cat in zip(data.x.T, frame.is_category, strict=True)])
    middle = np.concatenate([centre, [_SIGNAL[0]], [2 * data.noise_prior[0]]])
    length_sd = np.full(d, 2 * _LENGTH[1])
    length_sd[frame.trend], length_sd[-1] = 2 * _DRIFT_LENGTH[1], 2 * _STRETCH_LENGTH[1]
    width = np.concatenate([length_sd, [_SIGNAL[1]], [2 * data.noise_prior[1]]])

    def objective(theta: Array) -> tuple[float, Array]:
        value, gradient = _negative_evidence(theta, frame, pieces, fixed, residual, multiplier)
        z = (theta - middle) / width
        return value + 0.5 * float(z @ z), gradient + z / width

    bounds = [(m - 3 * s, m + 3 * s) for m, s in zip(middle, width, strict=True)]
    options: Any = {"maxiter": _MAX_ITERATIONS}
    theta = minimize(objective, middle, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Kernel(weights=np.exp(theta[:d]), signal=float(np.exp(theta[d]))), float(np.exp(theta[d + 1] / 2))


def _negative_evidence(
    theta: Array, frame: Frame, pieces: Array, fixed: Array, residual: Array, multiplier: Array
) -> tuple[float, Array]:
    """Minus the log marginal likelihood and its gradient in (log w, log signal, log noise variance)."""
    weights, signal, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    t = pieces[frame.trend]
    joint, joint_slope = matern(np.tensordot(weights[:-1], pieces, axes=1))
    correlation, parts = (1 - _ADDITIVE) * joint, []
    for group in frame.groups:
        own = np.tensordot(weights[list(group)], pieces[list(group)], axes=1) + weights[frame.drift(group)] * t
        value, slope = matern(own)
        correlation = correlation + _ADDITIVE * value
        parts.append((group, _ADDITIVE * slope))
    chol = factor(signal * correlation + fixed, noise * multiplier)
    alpha = cho_solve((chol, True), residual, check_finite=False)
    inverse = cho_solve((chol, True), np.eye(len(residual)), check_finite=False)
    outer = 0.5 * signal * (inverse - np.outer(alpha, alpha))
    by_weight = np.zeros(len(weights))
    by_weight[:-1] = (1 - _ADDITIVE) * np.tensordot(pieces, outer * joint_slope, axes=2)
    for group, slope in parts:
        by_weight[list(group)] += np.tensordot(pieces[list(group)], outer * slope, axes=2)
        by_weight[frame.drift(group)] += float((t * outer * slope).sum())
    by_noise = 0.5 * noise * float(np.diag(inverse - np.outer(alpha, alpha)) @ multiplier)
    gradient = np.concatenate([weights * by_weight, [float((outer * correlation).sum())], [by_noise]])
    return 0.5 * float(residual @ alpha) + float(np.log(np.diag(chol)).sum()), gradient
