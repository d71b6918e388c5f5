"""Runs by which a policy may come to be accepted: repeats of one that was tried, or the first run of a new one.

See `offers` for what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import ndtr, ndtri

from subsettune.study.search.belief import ACCEPT, RISK, SEEDS
from subsettune.study.search.kernel import Array
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import PolicyObservations
from subsettune.study.search.offers import (
    NUM_LEADERS,
    OVERHEAD,
    PAYS,
    Offer,
    Wish,
    already_trained,
    charged,
    perturb,
    to_beat,
)

_Z = float(ndtri(ACCEPT))
_NUM_CHECKED = 48  # manners near the leaders that a check may be of
_MARGINS = np.array([0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45])  # above the need, at which a check may run
_NOTHING_YET = 1.5  # log cost that a first accepted policy is taken to save
_LIKELY = 0.7  # probability of being accepted in the end with which a check that was begun is carried on


def checks(needs: Needs, wish: Wish, rng: np.random.Generator) -> list[Offer]:
    """Checks of an arm, the best first; those that do not pay are left out."""
    offers = list(_repeats(needs, wish))
    if wish.may_be_new:
        offers += _first_checks(needs, replace(wish, best=min(wish.best, _awaited(needs, wish.arm))), rng)
    return _paying(offers)


def repeats(needs: Needs, wish: Wish) -> list[Offer]:
    """Of the checks of an arm those that repeat a policy, the best first; those that do not pay are left out."""
    return _paying(list(_repeats(needs, wish)))


def _paying(offers: list[Offer]) -> list[Offer]:
    return sorted((offer for offer in offers if offer.value > 0), key=lambda offer: -offer.value)


def _chance(needs: Needs, x: Array, runs: Array) -> Array:
    """(m,) probability that each of `x` is accepted after `runs` more runs."""
    belief, process = needs.belief, needs.expected
    mean, s = process.predict(x)
    likeness = belief.likeness(x)
    v = process.noise(mean) * np.maximum(1.0, belief.inflation(likeness))
    after = s * v / np.sqrt(v**2 + runs * s**2)
    moved = np.sqrt(np.maximum(s**2 - after**2, 1e-12))
    return np.asarray(ndtr((mean - _Z * after) / moved) * (belief.risk(likeness, runs) <= RISK))


def _gain(needs: Needs, x: Array, runs: Array, done: Array, wish: Wish) -> Array:
    """(m,) net gain of `runs` more runs at each of `x`, of which others have trained `done` references."""
    t = x[:, needs.places.frame.trend]
    reference = math.log(wish.best) if math.isfinite(wish.best) else to_beat(needs, wish) + _NOTHING_YET
    gain = _chance(needs, x, runs) * np.maximum(reference - t, 0.0)
    return np.asarray(gain - PAYS * charged(gain, runs * np.exp(t) + OVERHEAD, done))


def _repeats(needs: Needs, wish: Wish) -> Iterator[Offer]:
    if needs.evidence.is_noise_free:
        return
    settled = {a.tried.point for a in needs.belief.assessed if a.is_accepted}
    open_ = [t for t in needs.evidence if t.arm == wish.arm and t.cost < wish.best and t.point not in settled]
    open_ = [t for t in open_ if _may_repeat(t)]
    if open_:
        missing = np.array([max(1, SEEDS - len(tried.scores) - tried.num_running) for tried in open_])
        done = np.array([needs.evidence.done(t.point, int(n)) for t, n in zip(open_, missing, strict=True)])
        for tried, value in zip(open_, _gain(needs, needs.places.rows(open_), missing, done, wish), strict=True):
            yield Offer(value=float(value), point=tried.point, repeats=tried)


def _may_repeat(tried: PolicyObservations) -> bool:
    """Whether another seed of a policy may help: none was lost, and those that run are not enough."""
    if tried.num_lost or tried.optimistic:
        return False
    return not tried.num_running or len(tried.scores) + tried.num_running < SEEDS


def _awaited(needs: Needs, arm: str) -> float:
    """Cost of the cheapest policy that is being checked and will probably be accepted; infinity if none is.

    It counts as good as accepted: to begin with another one, a little cheaper, after each run would end nowhere.
    """
    begun = [t for t in needs.evidence if t.arm == arm and (t.scores or t.num_running)]
    begun = [t for t in begun if not (t.num_lost or t.optimistic) and len(t.scores) < SEEDS]
    if not begun:
        return math.inf
    missing = np.array([max(0, SEEDS - len(t.scores) - t.num_running) for t in begun])
    chance = _chance(needs, needs.places.rows(begun), missing)
    likely = [t.cost for t, c in zip(begun, chance, strict=True) if c >= _LIKELY]
    return min(likely, default=math.inf)


def _first_checks(needs: Needs, wish: Wish, rng: np.random.Generator) -> Iterator[Offer]:
    """The best manners, and others near them, at budgets about what they need."""
    places, arm = needs.places, wish.arm
    units = needs.leaders(arm)[0][:NUM_LEADERS]
    if not len(units):
        return
    units = np.concatenate([units, perturb(np.repeat(units, _NUM_CHECKED // len(units), axis=0), rng)])
    needed = needs.of(units, arm, to_beat(needs, wish)) + places.edge_price(units, arm)
    rows = np.repeat(units, len(_MARGINS), axis=0)
    rows[:, 0], t = places.on_budgets(np.clip((needed[:, None] + _MARGINS).ravel(), *places.ends))
    runs = np.full(len(rows), 1 if needs.evidence.is_noise_free else SEEDS)
    done = already_trained(needs, rows, arm, int(runs[0]))
    values = _gain(needs, places.x(rows, arm, t), runs, done, wish)
    for row in np.argsort(-values, kind="stable")[:NUM_LEADERS]:
        yield Offer(value=float(values[row]), point=places.point(rows[row], arm))
