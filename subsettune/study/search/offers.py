"""Which trial is worth its compute: what the two kinds of trials, probes and checks, have in common.

- a *probe* (`probes`) tells what a manner needs. Its gain is the expected improvement of the need over the best manner
  known, times the part of its uncertainty that the run removes; a run at a fraction of the need often removes most.
- a *check* (`checks`) runs a policy at a budget where it should pass, so that it may be accepted. Its gain is the
  probability that it is accepted after all the runs that this takes, times the log of the cost that it saves.

Either pays if its gain, the expected log of the cost saved, is at least `PAYS` times the references that it costs: a
study may cost a reference for each `PAYS` by which the policy becomes cheaper. When nothing pays, the search ends. Of
those that pay, the one that gains most comes first, and what other trials have trained of it is not charged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subsettune.config import FrozenDict
from subsettune.study.search.kernel import Array
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import PolicyObservations

PAYS = 0.05  # expected log of the cost saved, per reference spent
OVERHEAD = 0.01  # references that any trial costs beside its compute
NUM_LEADERS = 8  # manners kept in each round of looking for better ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which trials are wanted.

    Args:
        arm: to propose for.
        best: cost to beat, of an accepted policy; infinity if there is none.
        is_rival: whether manners of the other arm are to be beaten, too.
        may_be_new: whether trials enough are left to accept a new point.
        must: whether the arm gets a trial even if none pays.
    """

    arm: str
    best: float
    is_rival: bool = False
    may_be_new: bool = True
    must: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A proposal.

    Args:
        value: its gain less what it costs.
        point: of the space.
        rate: its gain over what it costs.
        repeats: the policy that it repeats, if any.
        is_probe: whether it is not expected to reach the target.
    """

    value: float
    point: FrozenDict
    rate: float = 0.0
    repeats: PolicyObservations | None = None
    is_probe: bool = False


def to_beat(needs: Needs, wish: Wish) -> float:
    """Log of the least need known."""
    arms = needs.places.space.arms if wish.is_rival else (wish.arm,)
    least = [found[0] for arm in arms if len(found := needs.leaders(arm)[1])]
    return float(min(least, default=needs.places.ends[1]))


def already_trained(needs: Needs, units: Array, arm: str, num_runs: int = 1) -> Array:
    """(m,) references, of so many more runs at each place of an arm, that other trials have trained."""
    if needs.evidence.stems is None:
        return np.zeros(len(units))
    return np.array([needs.evidence.done(needs.places.point(row, arm), num_runs) for row in units])


def charged(gain: Array, cost: Array, done: Array) -> Array:
    """(m,) references that runs are charged with: without what is done, if they would pay with it.

    What is left of a run may cost next to nothing. To run it for that alone made searches spend 44 % more, for policies
    that were 9 % cheaper (`rate` over budgets alone, `benchmarks/shared_prefixes.py`, n = 12), which is less than
    `PAYS`: so it only counts in what comes first of that which pays anyhow.

    Args:
        gain: (m,) expected log of the cost saved.
        cost: (m,) references of the whole runs.
        done: (m,) of them, those that other trials have trained.
    """
    return np.where(gain > PAYS * cost, cost - done, cost)


def perturb(units: Array, rng: np.random.Generator) -> Array:
    """Move a random part of the coordinates of each row, by steps of many sizes; stay in [0, 1]."""
    size = 10 ** rng.uniform(-2.0, -0.5, size=(len(units), 1))
    moved = rng.random(units.shape) < rng.uniform(0.2, 1.0, size=(len(units), 1))
    near = np.where(moved, units + size * rng.standard_normal(units.shape), units)
    near = np.where(rng.random(units.shape) < 0.05, rng.random(units.shape), near)
    return np.clip(near, 0.0, 1.0)
