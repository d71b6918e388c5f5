"""A small Gaussian process for a noisy metric over the coordinates of a search. NumPy and SciPy, no torch.

    symbol    shape    meaning
    x         (n, d)   points; a column is a place in [0, 1], or the number of a category
    y         (n,)     scaled metric, 0 is the target
    t         (n,)     column `trend` of x: the budget, on its own scale
    w         (d,)     inverse squared length scales; two different categories are at distance 1
    K         (n, n)   s2 * matern52(sqrt(sum_j w_j d_j^2)) + H B H^T + diag(v * multiplier)
    H         (n, 2)   [1, t]: accuracy rises with compute, so the prior mean has a slope in t

Why not Optuna's own: the cost is known here, so it needs no model; the noise of a point is known to be smaller when it
was repeated; and the prior that more compute does not hurt is worth several trials. It also fits in about 10 ms where
`GPSampler` took half a second.

Source: Rasmussen & Williams 2006, algorithm 2.1, eq. 2.41 (basis functions with a Gaussian prior) and eq. 5.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

P = ParamSpec("P")
T = TypeVar("T")

_JITTER = 1e-8
_SQRT5 = 5**0.5
_LENGTH = (np.log(0.7), 0.8)  # prior of a log length scale in the unit cube: mean, standard deviation
_SIGNAL = (0.0, 0.7)  # of the log signal variance; y has a spread of about 1
_SLOPE = (1.0, 1.0)  # of the slope in t: upwards, loosely
_OFFSET_SD = 2.0
_MAX_ITERATIONS = 40  # of L-BFGS; the optimum moves little after 25


@cache
def _blas() -> Any:
    return threadpoolctl.ThreadpoolController()


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Run with BLAS on one thread, and give the others back afterwards.

    On these small matrices threads only wait for one another (8 times slower next to a busy core, measured), and their
    number changes the last bits, hence the proposals.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        with _blas().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What the process is fitted to.

    Args:
        x: (n, d) points.
        y: (n,) scaled metrics.
        multiplier: (n,) variance of the noise of a point over that of a single run at the target.
        is_category: (d,) whether a column holds categories.
        trend: the column of the budget.
        noise_prior: mean and standard deviation of the log of the noise's standard deviation, in units of y.
    """

    x: Array
    y: Array
    multiplier: Array
    is_category: NDArray[np.bool_]
    trend: int
    noise_prior: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A fitted process.

    Args:
        data: what it was fitted to.
        weights: (d,) inverse squared length scales.
        signal: signal variance.
        noise_sd: standard deviation of one run's noise at the target, in units of y.
    """

    data: Observations
    weights: Array
    signal: float
    noise_sd: float
    chol: Array
    alpha: Array

    @on_one_thread
    def predict(self, x: Array) -> tuple[Array, Array]:
        """Posterior mean and standard deviation of the noise-free value, each (m,), at points (m, d)."""
        cross = self._prior(x, self.data.x)
        mean = _mean(x, self.data.trend) + cross @ self.alpha
        half = solve_triangular(self.chol, cross.T, lower=True, check_finite=False)
        t = x[:, self.data.trend]
        prior = self.signal + _OFFSET_SD**2 + _SLOPE[1] ** 2 * (t - 0.5) ** 2
        return mean, np.sqrt(np.maximum(prior - np.einsum("ij,ij->j", half, half), 1e-12))

    def correlation(self, a: Array, b: Array) -> Array:
        """(m, k) prior correlation of the values at two sets of points, the trend aside."""
        return matern(self._squared(a, b))[0]

    @on_one_thread
    def condition(self, x: Array) -> Surrogate:
        """The process once one run at each of `x` has come out as expected: the same mean, less uncertainty."""
        mean, _ = self.predict(x)
        data = replace(
            self.data,
            x=np.concatenate([self.data.x, x]),
            y=np.concatenate([self.data.y, mean]),
            multiplier=np.concatenate([self.data.multiplier, np.ones(len(x))]),
        )
        return _condition(data, self.weights, self.signal, self.noise_sd)

    def _prior(self, a: Array, b: Array) -> Array:
        return self.signal * self.correlation(a, b) + _basis(a, b, self.data.trend)

    def _squared(self, a: Array, b: Array) -> Array:
        squared = np.zeros((len(a), len(b)))
        for j, weight in enumerate(self.weights):
            squared += weight * distance(a[:, j], b[:, j], bool(self.data.is_category[j]))
        return squared


@on_one_thread
def fit(data: Observations) -> Surrogate:
    """Fit the hyperparameters by their posterior mode; the same data give the same bits."""
    d = data.x.shape[1]
    pieces = np.stack([distance(c, c, bool(cat)) for c, cat in zip(data.x.T, data.is_category, strict=True)])
    fixed = _basis(data.x, data.x, data.trend)
    residual = data.y - _mean(data.x, data.trend)
    centre = np.concatenate([np.full(d, -2 * _LENGTH[0]), [_SIGNAL[0]], [2 * data.noise_prior[0]]])
    width = np.concatenate([np.full(d, 2 * _LENGTH[1]), [_SIGNAL[1]], [2 * data.noise_prior[1]]])

    def objective(theta: Array) -> tuple[float, Array]:
        value, gradient = _negative_evidence(theta, pieces, fixed, residual, data.multiplier)
        z = (theta - centre) / width
        return value + 0.5 * float(z @ z), gradient + z / width

    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(centre, width, strict=True)]
    options: Any = {"maxiter": _MAX_ITERATIONS}
    theta = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    weights, signal, noise = np.exp(theta[:d]), float(np.exp(theta[d])), float(np.exp(theta[d + 1]))
    return _condition(data, weights, signal, noise**0.5)


def _condition(data: Observations, weights: Array, signal: float, noise_sd: float) -> Surrogate:
    """The process with given hyperparameters."""
    pieces = np.stack([distance(c, c, bool(cat)) for c, cat in zip(data.x.T, data.is_category, strict=True)])
    kernel = signal * matern(np.tensordot(weights, pieces, axes=1))[0] + _basis(data.x, data.x, data.trend)
    chol = factor(kernel, noise_sd**2 * data.multiplier)
    alpha = cho_solve((chol, True), data.y - _mean(data.x, data.trend), check_finite=False)
    return Surrogate(data=data, weights=weights, signal=signal, noise_sd=noise_sd, chol=chol, alpha=alpha)


def _negative_evidence(
    theta: Array, pieces: Array, fixed: Array, residual: Array, multiplier: Array
) -> tuple[float, Array]:
    """Minus the log marginal likelihood and its gradient in (log w, log signal, log noise variance)."""
    weights, signal, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    correlation, slope = matern(np.tensordot(weights, pieces, axes=1))
    chol = factor(signal * correlation + fixed, noise * multiplier)
    alpha = cho_solve((chol, True), residual, check_finite=False)
    inverse = cho_solve((chol, True), np.eye(len(residual)), check_finite=False)
    value = 0.5 * float(residual @ alpha) + float(np.log(np.diag(chol)).sum())
    outer = 0.5 * (inverse - np.outer(alpha, alpha))
    by_weight = weights * np.tensordot(pieces, outer * signal * slope, axes=2)
    by_signal = signal * float((outer * correlation).sum())
    by_noise = noise * float(np.diag(outer) @ multiplier)
    return value, np.concatenate([by_weight, [by_signal], [by_noise]])


def factor(kernel: Array, noise: Array) -> Array:
    """(n, n) lower Cholesky factor of a kernel plus the variance of the noise, (n,)."""
    matrix = kernel + np.diag(noise + _JITTER * (1 + kernel.max()))
    return np.asarray(cholesky(matrix, lower=True, check_finite=False))


def distance(a: Array, b: Array, is_category: bool) -> Array:
    """(m, k) squared differences of two columns, or whether their categories differ."""
    difference = a[:, None] - b[None, :]
    return (difference != 0).astype(np.float64) if is_category else difference**2


def matern(squared: Array) -> tuple[Array, Array]:
    """Matern 5/2 correlation at squared scaled distances, and its derivative in them."""
    r = _SQRT5 * np.sqrt(squared)
    decay = np.exp(-r)
    return (1 + r + r**2 / 3) * decay, -(5 / 6) * (1 + r) * decay


def _basis(a: Array, b: Array, trend: int) -> Array:
    ta, tb = a[:, trend] - 0.5, b[:, trend] - 0.5
    return np.asarray(_OFFSET_SD**2 + _SLOPE[1] ** 2 * np.outer(ta, tb))


def _mean(x: Array, trend: int) -> Array:
    return np.asarray(_SLOPE[0] * (x[:, trend] - 0.5))
