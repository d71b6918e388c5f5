"""What the process is fitted to: the scores of the policies that were tried, and of the conventional training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from subsettune.policy import FULL
from subsettune.study.search.kernel import Array
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.places import Places
from subsettune.study.search.process import Sightings
from subsettune.study.search.recipe_point import recipe_point

MAX_POINTS = 120  # policies in the model, the nearest to the frontier; a fit costs their cube
_VAGUE = 9.0  # variance of a score that was not seen to the end, in units of one run's noise
_LOST = 1000.0  # likewise, of a policy whose runs were all lost: that they may be is told by the risk


def sightings(places: Places, policies: Sequence[PolicyObservations], evidence: SearchEvidence) -> Sightings:
    """The scores of policies, and before them that of the conventional training, where it is known."""
    known, x = places.known, places.rows(policies)
    score = np.array([_score(tried, evidence) for tried in policies]) - evidence.target
    runs = np.array([evidence.worth(t) or 1 / (_VAGUE if t.optimistic else _LOST) for t in policies])
    above = float(max(score.max(initial=0.0), 0.0))
    if known.reference is not None:
        dearest = max(places.space["budget"].ends)
        units = places.units(recipe_point(places.space, known, dearest), FULL)[None, :]
        x = np.concatenate([places.x(units, FULL, np.zeros(1)), x])
        above = max(known.reference - evidence.target, 0.0)
        score = np.concatenate([[known.reference - evidence.target], score])
        runs = np.concatenate([[known.num_references], runs])
    above = max(above, *_least_above(score, evidence))
    return Sightings(
        frame=places.frame,
        x=x,
        score=score,
        runs=runs.astype(np.float64),
        noise_prior=_noise_prior(above, evidence),
        above=above,
    )


def _least_above(score: Array, evidence: SearchEvidence) -> tuple[float, float]:
    """What the conventional training counts as above the target at least, whatever it showed."""
    noise, unit = evidence.noise, abs(evidence.target) or 1.0  # of the metric, should all scores lie at the target
    return 2 * noise[0] if noise is not None else 0.0, max(float(np.abs(score).max()), 1e-6 * unit) * 0.02


def _noise_prior(above: float, evidence: SearchEvidence) -> tuple[float, float]:
    """Mean and standard deviation of the log of one run's noise."""
    if evidence.is_noise_free:
        return math.log(1e-3 * above), 0.5
    noise = evidence.noise
    if noise is None:
        return math.log(0.2 * above), 1.2
    return math.log(max(noise[0], 1e-3 * above)), max(math.sqrt(0.5 / noise[1]), 0.15)


def _score(tried: PolicyObservations, evidence: SearchEvidence) -> float:
    """One score for a policy: the mean of its seeds, what it could have reached, or worse than all that were seen."""
    if tried.num_lost and not tried.scores:
        scores = evidence.scores
        worst = min([evidence.target, *scores])
        return worst - 0.1 * (max([evidence.target, *scores]) - worst)
    return tried.mean if tried.scores else max(tried.optimistic)


def in_the_model(evidence: SearchEvidence, most: int = MAX_POINTS) -> list[PolicyObservations]:
    """Policies that a trial ended of, at most so many: the repeated ones, then those nearest to the frontier's cost."""
    known = [tried for tried in evidence if tried.has_ended]
    if len(known) <= most:
        return known
    passed = [tried.cost for tried in known if len(tried.scores) > 1 and tried.mean >= evidence.target]
    passed = passed or [tried.cost for tried in known if tried.scores and tried.mean >= evidence.target]
    centre = math.log(min(passed, default=max(tried.cost for tried in known)))
    ranked = sorted(known, key=lambda t: (len(t.scores) < 2, abs(math.log(t.cost) - centre)))
    kept = {id(tried) for tried in ranked[:most]}
    return [tried for tried in known if id(tried) in kept]
