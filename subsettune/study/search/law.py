"""The common law by which a score rises with compute, whatever the policy. NumPy alone.

    symbol    shape    meaning
    u         any      ln of a run's budget over the least one with which its policy reaches the target
    S         any      score minus the target, free of noise
    h, a, b   (k, 1)   headroom above the target; slope of ln(h - S) at 0, downwards; bend: 0 a power law of the
                       compute, 1 an exponential one

    S(u) = h (1 - exp(-a (e^(b u) - 1) / b)) + e a h u

With b = 0 it is h (1 - c^-a) in c = e^u, the power law of learning curves (Hestness et al. 2017, arXiv:1712.00409);
with b = 1 it is h (1 - exp(-a (c - 1))), the approach of gradient flow on one mode. The last term, ours, keeps a small
slope on the plateau and before training has begun: without it a score there would stand for any budget at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subsettune.study.search.kernel import Array

_PLATEAU_SLOPE = 0.05  # e: of the slope at the target
_REACH = 7.0  # |u| up to which a score is looked up; beyond, the end of the table stands for it
_TABLE = np.linspace(-_REACH, _REACH, 281)

_HEADROOMS = np.array([1.05, 1.5, 2.5, 5.0])  # times what the conventional training reaches above the target
_POWERS = np.array([0.4, 0.8, 1.4, 2.4, 4.0, 6.5])
_BENDS = np.array([0.0, 0.5, 1.0])
_LOG_HEADROOM = (np.log(1.3), 0.6)  # prior: mean, standard deviation
_LOG_POWER = (np.log(1.6), 0.9)
_LIKE_HEADROOM, _LIKE_POWER, _LIKE_BEND = 0.3, 0.3, 0.3  # standard deviations about the law of an earlier study


@dataclass(frozen=True, slots=True, kw_only=True)
class Laws:
    """A batch of k laws.

    Args:
        headroom: (k, 1), in units of the score.
        power: (k, 1).
        bend: (k, 1), in [0, 1].
        log_prior: (k,) up to a constant.
    """

    headroom: Array
    power: Array
    bend: Array
    log_prior: Array

    def __len__(self) -> int:
        return len(self.headroom)

    def pick(self, index: int) -> Laws:
        """One of them."""
        return Laws(
            headroom=self.headroom[index : index + 1],
            power=self.power[index : index + 1],
            bend=self.bend[index : index + 1],
            log_prior=self.log_prior[index : index + 1],
        )

    def value(self, u: Array) -> Array:
        """(k, n) scores minus the target at (k, n) or (n,) places."""
        slope = _PLATEAU_SLOPE * self.power * self.headroom
        return np.asarray(self.headroom * -np.expm1(-self._exponent(u)) + slope * u)

    def slope(self, u: Array) -> Array:
        """(k, n) derivatives of `value`, in units of the score per unit of log budget."""
        steep = np.exp(self.bend * np.clip(u, -_REACH, _REACH) - self._exponent(u))
        return np.asarray(self.power * self.headroom * (steep + _PLATEAU_SLOPE))

    def place(self, score: Array) -> Array:
        """(k, n) places u at which scores minus the target, (n,), are reached; at most `_REACH` from 0."""
        table = self.value(_TABLE)
        return np.stack([np.interp(score, row, _TABLE) for row in table])

    def _exponent(self, u: Array) -> Array:
        bend = np.maximum(self.bend, 1e-9)  # the limit of expm1(b u) / b is u
        return np.asarray(self.power * np.expm1(bend * np.clip(u, -_REACH, _REACH)) / bend)


def grid(above: float, like: Sequence[Laws] = ()) -> Laws:
    """The laws that are looked through, with their prior.

    Args:
        above: by how much the score of the conventional training, or the best one seen, is above the target.
        like: laws of earlier studies, one each: half of the prior lies about them.
    """
    h, a, b = (axis.ravel()[:, None] for axis in np.meshgrid(_HEADROOMS, _POWERS, _BENDS, indexing="ij"))
    z = ((np.log(h) - _LOG_HEADROOM[0]) / _LOG_HEADROOM[1]) ** 2 + ((np.log(a) - _LOG_POWER[0]) / _LOG_POWER[1]) ** 2
    log_prior = -0.5 * z.ravel()
    if like:
        about = [_about(one, above * h, a, b) for one in like]
        log_prior = np.log(0.5 * _normal(log_prior) + 0.5 * np.mean(about, axis=0))
    return Laws(headroom=above * h, power=a, bend=b, log_prior=log_prior)


def _about(law: Laws, headroom: Array, power: Array, bend: Array) -> Array:
    """(k,) prior of laws that are like another one; sums to 1."""
    z = (np.log(headroom / law.headroom) / _LIKE_HEADROOM) ** 2 + (np.log(power / law.power) / _LIKE_POWER) ** 2
    return _normal(-0.5 * (z + ((bend - law.bend) / _LIKE_BEND) ** 2).ravel())


def _normal(log_weights: Array) -> Array:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())
