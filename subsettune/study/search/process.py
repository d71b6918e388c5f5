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

Runs of earlier studies are seen through the laws of their own tasks. Their u and this study's are draws of one process,
correlated by r: K is multiplied by r between the two, and by r r' between two earlier studies; of its part H B H^T,
by r^3. That is coregionalisation (Bonilla et al. 2008, NIPS 20). However many runs they have, they leave open 1 - r^2
of the prior variance of this study's u; at r = 0 they tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from subsettune.study.search.kernel import Array, distance, factor, matern, on_one_thread
from subsettune.study.search.law import Laws

ADDITIVE = 0.8  # A
_OFFSET = (np.log(0.35), 1.0)  # least budget of the recipe's kind of policy: mean of its log, standard deviation
_SLOPE_SD = 0.1  # of the slope in t, about 1
_LINEAR_SD = 0.4  # of the slope in a hyperparameter, per e-fold
_BOWL = (0.4, 0.4)  # curvature about the recipe's value, per e-fold squared: mean, standard deviation
MISFIT = 0.03  # standard deviation of u, in log budget, that no law accounts for
NOISE_GROWTH = 0.3  # G
_BASIS_POWER = 3  # r to this power for H: the best rate moves more from task to task than the merits of categories


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

    def between(
        self, frame: Frame, a: Array, b: Array, smooth: Array | float = 1.0, basis: Array | float = 1.0
    ) -> Array:
        """(m, k) prior covariance; its two parts, the Materns and H B H^T, each times a factor that fits its shape."""
        pieces = [distance(x, y, bool(c)) for x, y, c in zip(a.T, b.T, frame.is_category, strict=True)]
        return np.asarray(self._matern_part(frame, pieces) * smooth + frame.basis(a) @ frame.basis(b).T * basis)

    def variance(self, frame: Frame, x: Array) -> Array:
        """(m,) prior variance."""
        parts = ADDITIVE * len(frame.groups) + 1 - ADDITIVE
        return np.asarray(self.signal * parts + (frame.basis(x) ** 2).sum(axis=1))

    def _matern_part(self, frame: Frame, pieces: list[Array]) -> Array:
        t = pieces[frame.trend]
        joint, total = self.weights[frame.trend] * t, np.zeros_like(t)
        for group in frame.groups:
            own = np.sum([self.weights[j] * pieces[j] for j in group], axis=0)
            total += ADDITIVE * matern(own + self.weights[frame.drift(group)] * t)[0]
            joint = joint + own
        return np.asarray(self.signal * (total + (1 - ADDITIVE) * matern(joint)[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Where the runs were, those of earlier studies first.

    Args:
        frame: of the columns.
        x: (n, d).
        study: (n,) which study a run is of; 0 is this one.
        kinship: (n,) r of that study, in [0, 1]; 1 for this one.
    """

    frame: Frame
    x: Array
    study: NDArray[np.int64]
    kinship: Array

    @property
    def relations(self) -> tuple[Array, Array]:
        """(n, n) each: by what the Materns of a covariance within one study are multiplied, and by what H B H^T is."""
        is_same = self.study[:, None] == self.study[None, :]
        smooth, basis = (np.where(is_same, 1.0, r[:, None] * r[None, :]) for r in self._kinships)
        return smooth, basis

    @property
    def _kinships(self) -> tuple[Array, Array]:
        return self.kinship, self.kinship**_BASIS_POWER

    def prior(self, kernel: Kernel) -> Array:
        """(n, n) prior covariance of u at the points, each of its own study."""
        return kernel.between(self.frame, self.x, self.x, *self.relations)

    def cross(self, kernel: Kernel, x: Array) -> Array:
        """(n, m) prior covariance of u at the points with this study's at (m, d) others."""
        smooth, basis = (r[:, None] for r in self._kinships)
        return kernel.between(self.frame, self.x, x, smooth, basis)

    def cross_from(self, kernel: Kernel, x: Array) -> Array:
        """(m, n) the same, transposed: to the last bit it depends on which side comes first."""
        return kernel.between(self.frame, x, self.x, *self._kinships)

    def and_this_studys(self, x: Array) -> Points:
        """These and further ones, (m, d), of this study."""
        return Points(
            frame=self.frame,
            x=np.concatenate([self.x, x]),
            study=np.concatenate([self.study, np.zeros(len(x), dtype=np.int64)]),
            kinship=np.concatenate([self.kinship, np.ones(len(x))]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A fitted process.

    Args:
        points: where the runs were that it was fitted to.
        kernel: its hyperparameters.
        law: the one law of a batch, of this study.
        noise_sd: of one run's score at the target.
        y: (n,) the scores, seen as u.
        variance: (n,) V.
        residual: (runs of this study,) by how many standard deviations each score is off what the others say.
    """

    points: Points
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
        return np.asarray(self.points.frame.mean(x) + self.points.cross_from(self.kernel, x) @ self.alpha)

    @on_one_thread
    def predict(self, x: Array) -> tuple[Array, Array]:
        """(m,) posterior mean and standard deviation of u."""
        frame, cross = self.points.frame, self.points.cross_from(self.kernel, x)
        half = solve_triangular(self.chol, cross.T, lower=True, check_finite=False)
        variance = self.kernel.variance(frame, x) - np.einsum("ij,ij->j", half, half)
        return frame.mean(x) + cross @ self.alpha, np.sqrt(np.maximum(variance, 1e-10))

    @on_one_thread
    def covariance(self, a: Array, b: Array) -> Array:
        """(m, k) posterior covariance of u."""
        crosses = (self.points.cross(self.kernel, x) for x in (a, b))
        left, right = (solve_triangular(self.chol, cross, lower=True, check_finite=False) for cross in crosses)
        return np.asarray(self.kernel.between(self.points.frame, a, b) - left.T @ right)

    def noise(self, u: Array) -> Array:
        """Standard deviation of one run's score, seen as u, at places u."""
        score_sd = self.noise_sd * growth(u)
        return np.asarray(np.sqrt((score_sd / self.law.slope(u)[0]) ** 2 + MISFIT**2))

    @on_one_thread
    def condition(self, x: Array) -> Process:
        """The process once one run at each of `x` has come out as expected: the same mean, less uncertainty."""
        mean = self.mean(x)
        y, variance = np.concatenate([self.y, mean]), np.concatenate([self.variance, self.noise(mean) ** 2])
        points = self.points.and_this_studys(x)
        return posterior(points, self.kernel, self.law, self.noise_sd, y, variance, self.residual)


def growth(u: Array) -> Array:
    """Noise of a run at places u, any shape, over that at the target."""
    return np.asarray(np.exp(-NOISE_GROWTH * np.clip(u, -4.0, 0.0)))


# More than six parameters: what a process is made of, each found by another step of the fit.
def posterior(
    points: Points, kernel: Kernel, law: Laws, noise_sd: float, y: Array, variance: Array, residual: Array
) -> Process:
    """The process with given hyperparameters; see `Process` for what they are."""
    chol, centred = factor(points.prior(kernel), variance), y - points.frame.mean(points.x)
    return Process(
        points=points,
        kernel=kernel,
        law=law,
        noise_sd=noise_sd,
        y=y,
        variance=variance,
        residual=residual,
        chol=chol,
        alpha=cho_solve((chol, True), centred, check_finite=False),
    )
