"""What is believed of each policy: its score free of noise, how runs of it scatter, and whether it is accepted.

A policy is *accepted* when it was seen on `SEEDS` seeds (one, where the metric is free of noise), their mean reaches
the target, none was lost, its noise-free score reaches the target with probability `ACCEPT`, and no more than one run
in twelve like it is expected to go wrong: runs of similar policies that ended far below what the model expected, or
diverged, count by how similar they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from subsettune.config import FrozenDict
from subsettune.study.search.fitting import fit
from subsettune.study.search.kernel import Array, distance, matern
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.places import Places, manner
from subsettune.study.search.process import NOISE_GROWTH, Process
from subsettune.study.search.sightings import MAX_POINTS, in_the_model, sightings

ACCEPT = 0.9  # probability of being feasible that makes a policy a candidate
SEEDS = 3  # that a candidate was seen on
RISK = 0.08  # share of runs that may go wrong
_PRIOR_RUNS, _PRIOR_WRONG = 5.0, 0.2  # runs like it, and how many of them went wrong, before any was seen
_WRONG = -4.0  # standard deviations below what the model expects, from which on a run went wrong
_SPREAD_DOF = 4.0  # of the common noise, against a policy's own and its neighbours' residuals
_LEAST_INFLATION = 0.7
_MAX_SQUARE = 25.0  # of a standardised residual


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is expected of a policy, tried or not.

    Args:
        score: estimate of its noise-free score.
        standard_error: of that estimate.
        spread: standard deviation of its score from seed to seed, from its own seeds and those of its like.
        probability: that its noise-free score reaches the target.
    """

    score: float
    standard_error: float = 0.0
    spread: float = 0.0
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """A policy that was tried, as the model sees it.

    Args:
        tried: the policy and its scores.
        estimate: of its score.
        is_accepted: whether the search would stake a verification on it.
    """

    tried: PolicyObservations
    estimate: Estimate
    is_accepted: bool


class Belief:
    """The process fitted to all trials that ended, and what it says of policies.

    Args:
        places: of the space.
        evidence: what the trials have shown; at least one, or the reference, is known.
        earlier: what was fitted to each earlier study. It moves estimates, and counts neither as a seed of a policy nor
            in how runs go wrong.
        most: policies in the model.
    """

    def __init__(
        self,
        places: Places,
        evidence: SearchEvidence,
        earlier: Sequence[Process] = (),
        *,
        most: int = MAX_POINTS,
    ) -> None:
        self.places, self.evidence = places, evidence
        self.known = in_the_model(evidence, most)
        self._x = places.rows(self.known)
        self.process = fit(sightings(places, self.known, evidence), earlier)
        self._runs = np.array([t.num_lost + evidence.worth(t) for t in self.known])
        self._wrong = np.array(
            [
                t.num_lost + (1.0 if t.scores and r < _WRONG else 0.0)
                for t, r in zip(self.known, self._residuals, strict=True)
            ]
        )
        self.assessed = tuple(self._assess())

    # Runs that go wrong, and how runs scatter.

    def likeness(self, x: Array) -> Array:
        """(m, len(known)) how much a run of a known policy tells of how runs at x scatter, in [0, 1]."""
        squared = np.zeros((len(x), len(self._x)))
        for j, weight in enumerate(self.process.kernel.weights[:-1]):
            squared += weight * distance(x[:, j], self._x[:, j], bool(self.places.frame.is_category[j]))
        return np.asarray(matern(squared)[0] ** 2)

    def risk(self, likeness: Array, more: Array | float = 0.0) -> Array:
        """(m,) share of runs that are expected to go wrong, once so many more have gone well."""
        seen = _PRIOR_RUNS + more + likeness @ self._runs
        return np.asarray((_PRIOR_WRONG + likeness @ self._wrong) / seen)

    def inflation(self, likeness: Array) -> Array:
        """(m,) standard deviation of a run over that of the common noise."""
        squares = np.minimum(self._residuals**2, _MAX_SQUARE)
        counted = np.array([bool(t.scores) for t in self.known], dtype=np.float64)
        ratio = (_SPREAD_DOF + likeness @ (squares * counted)) / (_SPREAD_DOF + likeness @ counted)
        least = _LEAST_INFLATION if self.evidence.stems is None else 1.0  # residuals of common noise are small
        return np.asarray(np.sqrt(ratio).clip(least))

    @property
    def _residuals(self) -> Array:
        """(len(known),) residuals of the policies tried, without that of the reference."""
        return self.process.residual[len(self.process.residual) - len(self.known) :]

    # Policies that were tried.

    def _assess(self) -> Iterator[Assessed]:
        if not self.known:
            return
        mean, sd = self.process.predict(self._x)
        likeness = self.likeness(self._x)
        inflation, risk = self.inflation(likeness), self.risk(likeness)
        for i, tried in enumerate(self.known):
            if tried.scores:
                doubt = max(1.0, float(inflation[i]))
                estimate = self._estimate(float(mean[i]), float(sd[i]), float(inflation[i]), doubt)
                yield self._judge(tried, estimate, float(risk[i]))

    def _judge(self, tried: PolicyObservations, estimate: Estimate, risk: float) -> Assessed:
        passes = tried.mean >= self.evidence.target and not tried.num_lost and not tried.optimistic
        enough = len(tried.scores) >= SEEDS and risk <= RISK
        if self.evidence.is_noise_free:
            estimate, enough = replace(estimate, probability=float(passes)), True
        return Assessed(
            tried=tried, estimate=estimate, is_accepted=passes and enough and estimate.probability >= ACCEPT
        )

    def _estimate(self, u: float, sd: float, inflation: float, doubt: float = 1.0) -> Estimate:
        """What a posterior mean and standard deviation of u mean for the score.

        Args:
            u: the mean.
            sd: the standard deviation.
            inflation: of one run's noise.
            doubt: by how much the standard deviation counts as larger where the target is asked about.
        """
        law, place = self.process.law, np.array([u])
        return Estimate(
            score=self.evidence.target + float(law.value(place)[0, 0]),
            standard_error=sd * float(law.slope(place)[0, 0]),
            spread=self.process.noise_sd * math.exp(-NOISE_GROWTH * min(max(u, -4.0), 0.0)) * inflation,
            probability=float(ndtr(u / (sd * doubt))),
        )

    def accepted(self, arm: str | None = None) -> tuple[Assessed, ...]:
        """The accepted policies, of one arm if given, cheapest first."""
        kept = [a for a in self.assessed if a.is_accepted and arm in (None, a.tried.arm)]
        return tuple(sorted(kept, key=lambda a: (a.tried.cost, -a.estimate.probability)))

    # Policies that need not have been tried.

    def outlook(self, point: Mapping[str, Any], budgets: Sequence[float]) -> tuple[tuple[float, Estimate], ...]:
        """What is expected of a point's policy at budgets: the nearest that the space has, each with its estimate."""
        arm = str(point["arm"])
        rows = np.repeat(self.places.units(FrozenDict(point), arm)[None, :], len(budgets), axis=0)
        rows[:, 0], t = self.places.on_budgets(np.log(np.asarray(budgets, dtype=np.float64)))
        x = self.places.x(rows, arm, t)
        mean, sd = self.process.predict(x)
        inflation = self.inflation(self.likeness(x)) if self.known else np.ones(len(x))
        axis = self.places.space["budget"]
        return tuple(
            (axis.from_unit(float(rows[i, 0])), self._estimate(float(mean[i]), float(sd[i]), float(inflation[i])))
            for i in range(len(budgets))
        )

    def nearest_trial(self, point: Mapping[str, Any]) -> PolicyObservations:
        """A policy tried that differs from a point's in its budget alone, or else the nearest in budget of its arm."""
        same = [t for t in self.known if manner(t.point) == manner(FrozenDict(point))]
        mine = same or [t for t in self.known if t.arm == point["arm"]] or self.known
        return min(mine, key=lambda t: abs(math.log(t.cost / float(point["budget"]))))
