"""Which policy that was tried is to be run again: for the samplers that know nothing of repeats.

The cost of a policy is known and only its feasibility is noisy, so this models the score alone: one Gaussian process
over both arms (`surrogate`), whose points `encoding` places. Scores are scaled by asinh about the target: near it
differences count as they are, far from it by their order of magnitude, so that a run that went wrong does not flatten
the frontier.

A policy needs no repeat when its noise-free score reaches the target with probability `ACCEPT`, it was seen on two
seeds and their mean reaches the target. The next repeat is the one with the largest product of: the probability that
after it the policy needs none, and the log of the cost it would save. Proposals of these samplers are those of version
0.1; what a search hands on, whatever its sampler, is judged by `needs`.

    symbol    meaning
    m, s      posterior mean and standard deviation of a policy's noise-free scaled score; 0 is the target
    v         standard deviation of one run's noise, scaled
    s'        s after one more run, s*v/sqrt(s^2 + v^2); the mean then moves by s^2/sqrt(s^2 + v^2) times N(0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from subsettune.study.search.encoding import Encoding
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.surrogate import Array, Observations, Surrogate, fit

ACCEPT = 0.9  # probability of being feasible that makes a policy a candidate
_Z = float(ndtri(ACCEPT))
_MAX_POINTS = 150  # policies in the model, the nearest to the frontier; a fit costs their cube
_NO_BEST = 0.5  # log cost that a first accepted policy is taken to save, beyond the dearest of the space
_COARSE = 0.3  # quantile of |score - target| at which the scaling turns from linear to logarithmic
_VAGUE = 9.0  # variance of a score that was not seen to the end, in units of one run's noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """A policy that was tried, as this model sees it.

    Args:
        tried: the policy and its scores.
        is_accepted: whether a repeat would tell nothing new.
    """

    tried: PolicyObservations
    is_accepted: bool


class Frontier:
    """The model of one moment of the search.

    Args:
        encoding: of the space.
        evidence: at least one finished trial.
    """

    def __init__(self, encoding: Encoding, evidence: SearchEvidence) -> None:
        self._encoding = encoding
        self._evidence = evidence
        self._known = _nearest([tried for tried in evidence if _is_known(tried)], evidence)
        scores = np.array([_score(tried, evidence) for tried in self._known]) - evidence.target
        self._scale = _scale(scores, evidence)
        y = np.arcsinh(scores / self._scale)
        self._spread = max(float(y.std()), 0.5)
        self._model = fit(self._observations(scores, y / self._spread))
        running = [tried for tried in evidence if tried.num_running]
        self._running = self._rows(running)
        self._running_costs = [tried.cost for tried in running]
        self.assessed = self._assess()

    def _rows(self, tried: Sequence[PolicyObservations]) -> Array:
        rows = [self._encoding.encode(self._encoding.units(t.point, t.arm)[None, :], t.arm) for t in tried]
        return np.concatenate(rows) if rows else np.empty((0, len(self._encoding.is_category)))

    def _observations(self, scores: Array, y: Array) -> Observations:
        # The slope of asinh carries the noise over; a floor, because runs far off target are the noisier ones.
        slope = np.maximum(1 / np.sqrt(1 + (scores / self._scale) ** 2), 0.3)
        runs = np.array([len(tried.scores) or 1 / _VAGUE for tried in self._known])
        return Observations(
            x=self._rows(self._known),
            y=y,
            multiplier=slope**2 / runs,
            is_category=self._encoding.is_category,
            trend=self._encoding.trend,
            noise_prior=self._noise_prior(),
        )

    def _noise_prior(self) -> tuple[float, float]:
        if self._evidence.is_noise_free:
            return math.log(1e-3), 0.5
        known = self._evidence.noise
        if known is None:
            return math.log(0.15), 1.2
        noise, dof = known
        scaled = max(noise / (self._scale * self._spread), 2e-3)
        return math.log(scaled), max(math.sqrt(0.5 / dof), 0.15)

    def _assess(self) -> tuple[Assessed, ...]:
        mean, sd = self._model.predict(self._model.data.x)
        found = []
        for tried, m, s in zip(self._known, mean, sd, strict=True):
            if not tried.scores:
                continue
            probability = float(ndtr(m / s))
            passes = tried.mean >= self._evidence.target and not tried.num_lost and not tried.optimistic
            if self._evidence.is_noise_free:
                probability, enough = float(passes), True
            else:
                enough = tried.num_feasible(self._evidence.target) >= 2
            accepted = passes and enough and probability >= ACCEPT
            found.append(Assessed(tried=tried, is_accepted=accepted))
        return tuple(found)

    def accepted(self, arm: str | None = None) -> tuple[Assessed, ...]:
        """The accepted policies, of one arm if given, cheapest first."""
        kept = [a for a in self.assessed if a.is_accepted and arm in (None, a.tried.arm)]
        return tuple(sorted(kept, key=lambda a: a.tried.cost))

    def num_assessed(self, arm: str) -> int:
        """Policies of an arm of which a run finished."""
        return sum(a.tried.arm == arm for a in self.assessed)

    def repeats(self, arm: str, best: float) -> Iterator[PolicyObservations]:
        """Policies of an arm to run again, the most valuable first; `best` is the cost to beat."""
        model, best_believed = self._believe(best)
        open_ = [
            a.tried
            for a in self.assessed
            if a.tried.arm == arm
            and not a.is_accepted
            and a.tried.cost <= best
            and not (a.tried.num_running or a.tried.num_lost or a.tried.optimistic)
        ]
        if not open_ or self._evidence.is_noise_free:
            return
        values = self._value(model, self._rows(open_), np.array([t.cost for t in open_]), best_believed)
        for i in np.argsort(-values, kind="stable"):
            if values[i] > 0:
                yield open_[int(i)]

    def _believe(self, best: float) -> tuple[Surrogate, float]:
        """The model and the cost to beat once the running trials have come out as expected."""
        if not len(self._running):
            return self._model, best
        mean, sd = self._model.predict(self._running)
        likely = [c for c, p in zip(self._running_costs, ndtr(mean / sd), strict=True) if p >= 0.5]
        return self._model.condition(self._running), min([best, *likely])

    def _value(self, model: Surrogate, x: Array, cost: Array, best: float) -> Array:
        """Probability of being accepted after one more run, times the log cost saved."""
        v = model.noise_sd
        mean, s = model.predict(x)
        root = np.sqrt(s**2 + v**2)
        accepted = ndtr((mean - _Z * s * v / root) * root / s**2)
        dearest = max(self._encoding.space["budget"].hi, *self._encoding.space["budget"].values, 0.0)
        reference = math.log(best) if math.isfinite(best) else math.log(dearest) + _NO_BEST
        return np.asarray(accepted * np.maximum(reference - np.log(cost), 0.0))


def _is_known(tried: PolicyObservations) -> bool:
    return bool(tried.scores or tried.optimistic or tried.num_lost)


def _score(tried: PolicyObservations, evidence: SearchEvidence) -> float:
    """One score for a policy: the mean of its seeds, what it could have reached, or worse than all that were seen."""
    if tried.num_lost and not tried.scores:
        scores = evidence.scores
        worst = min([evidence.target, *scores])
        return worst - 0.1 * (max([evidence.target, *scores]) - worst)
    return tried.mean if tried.scores else max(tried.optimistic)


def _scale(scores: Array, evidence: SearchEvidence) -> float:
    noise = evidence.noise
    floor = 2 * noise[0] if noise is not None else 0.0
    scale = max(float(np.quantile(np.abs(scores), _COARSE)), floor)
    return scale if scale > 0 else max(float(np.abs(scores).max()), 1e-9)


def _nearest(known: list[PolicyObservations], evidence: SearchEvidence) -> list[PolicyObservations]:
    """At most `_MAX_POINTS` policies: the repeated ones, then those whose cost is nearest to the frontier's."""
    if len(known) <= _MAX_POINTS:
        return known
    passed = [tried.cost for tried in known if len(tried.scores) > 1 and tried.mean >= evidence.target]
    passed = passed or [tried.cost for tried in known if tried.scores and tried.mean >= evidence.target]
    centre = math.log(min(passed, default=max(tried.cost for tried in known)))
    ranked = sorted(known, key=lambda t: (len(t.scores) < 2, abs(math.log(t.cost) - centre)))
    kept = {id(tried) for tried in ranked[:_MAX_POINTS]}
    return [tried for tried in known if id(tried) in kept]
