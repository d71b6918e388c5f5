"""Runs that tell what a manner needs, most of them far below that; see `offers`."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from subsettune.study.search.belief import RISK
from subsettune.study.search.kernel import Array
from subsettune.study.search.needs import Needs
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

_NUM_GLOBAL, _NUM_LOCAL, _NUM_ROUNDS = 192, 160, 2
_NUM_NEIGHBOURS = 12  # looked at around each of the manners kept
_FRACTIONS = np.log([0.12, 0.2, 0.33, 0.5, 0.75, 1.0])  # of the need, at which a probe may run


def probes(needs: Needs, wish: Wish, rng: np.random.Generator) -> list[Offer]:
    """Probes of an arm, the best first; those that do not pay are left out unless one must be."""
    found = []
    for row, need, gain in zip(*_promising(needs, wish.arm, to_beat(needs, wish), rng), strict=True):
        offer = _probe(needs, row, wish.arm, float(need), float(gain))
        if offer.value > 0 or wish.must:
            found.append(offer)
    return sorted(found, key=lambda offer: -(offer.rate if wish.must else offer.value))


def _promising(needs: Needs, arm: str, best: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The manners with the largest expected improvement over a need; their needs; the improvement."""
    leaders = needs.leaders(arm)[0][:NUM_LEADERS]
    pool = rng.random((_NUM_GLOBAL, len(needs.places.space.axes(arm))))
    if len(leaders):
        pool = np.concatenate([pool, leaders, perturb(leaders[rng.integers(len(leaders), size=_NUM_LOCAL)], rng)])
    needed, worth = _improvement(needs, pool, arm, best)
    for _ in range(_NUM_ROUNDS):
        top = np.argsort(-worth, kind="stable")[:NUM_LEADERS]
        near = perturb(np.repeat(pool[top], _NUM_NEIGHBOURS, axis=0), rng)
        near_needed, near_worth = _improvement(needs, near, arm, best)
        pool = np.concatenate([pool[top], near])
        needed, worth = np.concatenate([needed[top], near_needed]), np.concatenate([worth[top], near_worth])
    top = np.argsort(-worth, kind="stable")[:NUM_LEADERS]
    return pool[top], needed[top], worth[top]


def _improvement(needs: Needs, units: Array, arm: str, best: float) -> tuple[Array, Array]:
    """(m,) what manners need, and by how much they are expected to need less than the best."""
    needed = needs.of(units, arm, best)
    x = needs.places.x(units, arm, needed)
    s = needs.expected.predict(x)[1]
    z = (best - needed - needs.places.edge_price(units, arm)) / s
    worth = s * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return needed, worth * _prudence(needs, x)


def _prudence(needs: Needs, x: Array) -> Array:
    """(m,) what is left of a gain where runs are likely to go wrong."""
    belief = needs.belief
    if not belief.known:
        return np.ones(len(x))
    return np.asarray(np.minimum(1.0, RISK / belief.risk(belief.likeness(x))) ** 2)


def _probe(needs: Needs, units: Array, arm: str, need: float, gain: float) -> Offer:
    """The run of a manner that gains most for what it costs."""
    places, process = needs.places, needs.expected
    on_axis, t = places.on_budgets(np.clip(need + _FRACTIONS, *places.ends))
    rows = np.repeat(units[None, :], len(t), axis=0)
    rows[:, 0] = on_axis
    x, at_need = places.x(rows, arm, t), places.x(units[None, :], arm, np.array([need]))
    mean, sd = process.predict(x)
    total = sd**2 + process.noise(mean) ** 2
    removed = process.covariance(x, at_need)[:, 0] ** 2 / total
    removed = np.clip(removed / process.predict(at_need)[1] ** 2, 0.0, 1.0)
    cost = charged(gain * removed, np.exp(t) + OVERHEAD, already_trained(needs, rows, arm))
    best = int(np.argmax(gain * removed / cost))
    return Offer(
        value=float(gain * removed[best] - PAYS * cost[best]),
        point=places.point(rows[best], arm),
        rate=float(gain * removed[best] / cost[best]),
        is_probe=bool(mean[best] < -float(sd[best])),
    )
