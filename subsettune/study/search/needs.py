"""Which budget each policy needs, and which trial is worth its compute: what is read off the model (`process`).

A policy without its budget is called a *manner* here: all coordinates but one. The model gives, for each manner, the
least budget at which it reaches the target, its *need*, with an error. Two kinds of trials are worth something:

- a *probe* tells what a manner needs. Its gain is the expected improvement of the need over the best manner known,
  times the part of its uncertainty that the run removes; a run at a fraction of the need often removes most of it.
- a *check* runs a policy at a budget where it should pass, so that it may be accepted. Its gain is the probability that
  it is accepted after all the runs that this takes, times the log of the cost that it saves.

Either pays if its gain, the expected log of the cost saved, is at least `PAYS` times the references that it costs: a
study may cost a reference for each `PAYS` by which the policy becomes cheaper. When nothing pays, the search ends.

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
from scipy.special import ndtr, ndtri

from subsettune.config import FrozenDict
from subsettune.policy import FULL
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.problem import Known
from subsettune.study.search.process import Frame, Sightings, fit
from subsettune.study.search.surrogate import Array, distance, matern, on_one_thread
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.point_to_policy import COORDINATES

ACCEPT = 0.9  # probability of being feasible that makes a policy a candidate
SEEDS = 3  # that a candidate was seen on
PAYS = 0.05  # expected log of the cost saved, per reference spent
INTERVAL = (0.1, 0.9)  # quantiles of the least cost that is stated
_Z = float(ndtri(ACCEPT))
_MAX_POINTS = 120  # policies in the model, the nearest to the frontier; a fit costs their cube
_NUM_GLOBAL, _NUM_LOCAL, _NUM_ROUNDS = 192, 160, 2
_NUM_LEADERS, _NUM_NEIGHBOURS = 8, 12  # manners kept in each round, and looked at around each of them
_NUM_CHECKED = 48  # manners near the leaders that a check may be of
_NUM_STEPS = 3  # of Newton's, to where the mean is 0
_FRACTIONS = np.log([0.12, 0.2, 0.33, 0.5, 0.75, 1.0])  # of the need, at which a probe may run
_MARGINS = np.array([0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45])  # above the need, at which a check may run
_NOTHING_YET = 1.5  # log cost that a first accepted policy is taken to save
_LIKELY = 0.7  # probability of being accepted in the end with which a check that was begun is carried on
_OVERHEAD = 0.01  # references that any trial costs beside its compute
_EDGE, _EDGE_PRICE = 0.06, 0.04  # places this near to an end of a hyperparameter's range count as that much dearer
_VAGUE = 9.0  # variance of a score that was not seen to the end, in units of one run's noise
_LOST = 1000.0  # likewise, of a policy whose runs were all lost: that they may be is told by the risk
_PRIOR_RUNS, _PRIOR_WRONG = 5.0, 0.2  # runs like it, and how many of them went wrong, before any was seen
_RISK = 0.08  # share of runs that may go wrong
_WRONG = -4.0  # standard deviations below what the model expects, from which on a run went wrong
_SPREAD_DOF = 4.0  # of the common noise, against a policy's own and its neighbours' residuals
_STRETCH = ("switch", "subset_share", "q", "steps", "growth", "reselect", "soup")  # act together
_STRETCH_SCALE = 1.6  # e-folds of compute before the switch that count as the whole of another coordinate's range
_MAX_SQUARE = 25.0  # of a standardised residual


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """A policy that was tried, as the model sees it.

    Args:
        tried: the policy and its scores.
        score: estimate of its noise-free score.
        standard_error: of that estimate.
        spread: standard deviation of its score from seed to seed, from its own seeds and those of its like.
        probability: that its noise-free score reaches the target.
        is_accepted: whether the search would stake a verification on it.
    """

    tried: PolicyObservations
    score: float
    standard_error: float = 0.0
    spread: float = 0.0
    probability: float
    is_accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected of a policy that need not have been tried.

    Args:
        budget: share of the reference's compute.
        score: estimate of its noise-free score.
        standard_error: of that estimate.
        spread: standard deviation of its score from seed to seed.
        probability: that its noise-free score reaches the target.
    """

    budget: float
    score: float
    standard_error: float
    spread: float
    probability: float


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


class Needs:
    """The model of one moment of the search.

    Args:
        encoding: of the space.
        evidence: what the trials have shown; at least one, or the reference, is known.
        known: before the first trial.
    """

    def __init__(self, encoding: Encoding, evidence: SearchEvidence, known: Known) -> None:
        self._encoding = encoding
        self._space = encoding.space
        self._evidence = evidence
        self._known = _nearest([tried for tried in evidence if _is_known(tried)], evidence)
        self._frame = _frame(encoding, known)
        switches = [(j, axis) for j, axis in enumerate(encoding.columns) if axis.name == "switch"]
        self._switch = switches[0] if switches and not switches[0][1].values else None
        self._known_x = self._rows(self._known)
        self._leaders: dict[str, tuple[Array, Array]] = {}
        self.process = fit(self._sightings(known))
        running = [tried for tried in evidence for _ in range(tried.num_running)]
        self._expected = self.process.condition(self._rows(running)) if running else self.process
        self.assessed = self._assess()

    # Where points are.

    def _rows(self, tried: Sequence[PolicyObservations]) -> Array:
        rows = np.empty((len(tried), len(self._frame.is_category)))
        for arm in self._space.arms:
            mine = [i for i, t in enumerate(tried) if t.arm == arm]
            if mine:
                rows[mine] = self._x(np.stack([self._encoding.units(tried[i].point, arm) for i in mine]), arm)
        return rows

    def _x(self, units: Array, arm: str, t: Array | None = None) -> Array:
        """(m, d) points of the model for places of an arm; at budgets e^t, if given."""
        x = self._encoding.encode(units, arm)
        return self._at(x, _log_budgets(self._space["budget"], units[:, 0]) if t is None else t)

    def _at(self, places: Array, t: Array) -> Array:
        """(m, d) points of the model for (m, d) places, at budgets e^t.

        The switch becomes the log of the compute before it: what a subset teaches is used up after so many updates,
        whatever share of a budget they are.
        """
        moved = places.copy()
        moved[:, self._frame.trend] = t
        if self._switch is not None:
            column, axis = self._switch
            switch = axis.lo + np.clip(places[:, column], 0.0, 1.0) * (axis.hi - axis.lo)
            moved[:, column] = (t + np.log(switch)) / _STRETCH_SCALE
        return moved

    def _place(self, t: Array) -> tuple[Array, Array]:
        """Places on the budget's axis nearest to e^t, and the t that they stand for."""
        axis = self._space["budget"]
        places = np.array([axis.to_unit(nearest_budget(axis, math.exp(v))) for v in t])
        return places, _log_budgets(axis, places)

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = min(self._space["budget"].ends), max(self._space["budget"].ends)
        return math.log(low), math.log(high)

    # What is known.

    def _sightings(self, known: Known) -> Sightings:
        x = self._known_x
        score = np.array([_score(tried, self._evidence) for tried in self._known]) - self._evidence.target
        worth = self._evidence.worth
        runs = np.array([worth(t) or 1 / (_VAGUE if t.optimistic else _LOST) for t in self._known])
        above = float(max(score.max(initial=0.0), 0.0))
        if known.reference is not None:
            dearest = max(self._space["budget"].ends)
            units = self._encoding.units(recipe_point(self._space, known, dearest), FULL)[None, :]
            x = np.concatenate([self._x(units, FULL, np.zeros(1)), x])
            above = max(known.reference - self._evidence.target, 0.0)
            score = np.concatenate([[known.reference - self._evidence.target], score])
            runs = np.concatenate([[known.num_references], runs])
        noise = self._evidence.noise
        unit = abs(self._evidence.target) or 1.0  # of the metric, should all scores lie at the target
        floor = max(float(np.abs(score).max()), 1e-6 * unit) * 0.02
        above = max(above, 2 * noise[0] if noise is not None else 0.0, floor)
        return Sightings(
            frame=self._frame,
            x=x,
            score=score,
            runs=runs.astype(np.float64),
            noise_prior=self._noise_prior(above),
            above=above,
        )

    def _noise_prior(self, above: float) -> tuple[float, float]:
        if self._evidence.is_noise_free:
            return math.log(1e-3 * above), 0.5
        noise = self._evidence.noise
        if noise is None:
            return math.log(0.2 * above), 1.2
        return math.log(max(noise[0], 1e-3 * above)), max(math.sqrt(0.5 / noise[1]), 0.15)

    @property
    def _tried_residuals(self) -> Array:
        """(len(known),) residuals of the policies tried, without that of the reference."""
        return self.process.residual[len(self.process.residual) - len(self._known) :]

    def _likeness(self, x: Array) -> Array:
        """(m, len(known)) how much a run of a known policy tells of how runs at x scatter, in [0, 1]."""
        rows = self._known_x
        squared = np.zeros((len(x), len(rows)))
        for j, weight in enumerate(self.process.kernel.weights[:-1]):
            squared += weight * distance(x[:, j], rows[:, j], bool(self._frame.is_category[j]))
        return np.asarray(matern(squared)[0] ** 2)

    def _risk(self, likeness: Array, more: Array | float = 0.0) -> Array:
        """(m,) share of runs that are expected to go wrong, once so many more have gone well."""
        wrong = [
            t.num_lost + (1.0 if t.scores and r < _WRONG else 0.0)
            for t, r in zip(self._known, self._tried_residuals, strict=True)
        ]
        runs = [t.num_lost + len(t.scores) for t in self._known]
        seen = _PRIOR_RUNS + more + likeness @ np.array(runs)
        return np.asarray((_PRIOR_WRONG + likeness @ np.array(wrong)) / seen)

    def _inflation(self, likeness: Array) -> Array:
        """(m,) standard deviation of a run over that of the common noise."""
        squares = np.minimum(self._tried_residuals**2, _MAX_SQUARE)
        counted = np.array([bool(t.scores) for t in self._known], dtype=np.float64)
        return np.asarray(
            np.sqrt((_SPREAD_DOF + likeness @ (squares * counted)) / (_SPREAD_DOF + likeness @ counted)).clip(0.7)
        )

    def _assess(self) -> tuple[Assessed, ...]:
        if not self._known:
            return ()
        rows = self._known_x
        mean, sd = self.process.predict(rows)
        likeness = self._likeness(rows)
        risk, inflation = self._risk(likeness), self._inflation(likeness)
        found = []
        for i, tried in enumerate(self._known):
            if tried.scores:
                found.append(self._judge(tried, float(mean[i]), float(sd[i]), float(inflation[i]), float(risk[i])))
        return tuple(found)

    def _judge(self, tried: PolicyObservations, m: float, s: float, inflation: float, risk: float) -> Assessed:
        target, process = self._evidence.target, self.process
        passes = tried.mean >= target and not tried.num_lost and not tried.optimistic
        probability = float(ndtr(m / (s * max(1.0, inflation))))
        enough = len(tried.scores) >= SEEDS and risk <= _RISK
        if self._evidence.is_noise_free:
            probability, enough = float(passes), True
        place = np.array([m])
        slope = float(process.law.slope(place)[0, 0])
        own = process.noise_sd * math.exp(-0.3 * min(max(m, -4.0), 0.0)) * inflation
        return Assessed(
            tried=tried,
            score=target + float(process.law.value(place)[0, 0]),
            standard_error=s * slope,
            spread=own,
            probability=probability,
            is_accepted=passes and enough and probability >= ACCEPT,
        )

    def accepted(self, arm: str | None = None) -> tuple[Assessed, ...]:
        """The accepted policies, of one arm if given, cheapest first."""
        kept = [a for a in self.assessed if a.is_accepted and arm in (None, a.tried.arm)]
        return tuple(sorted(kept, key=lambda a: (a.tried.cost, -a.probability)))

    # What manners need.

    def _needs(self, units: Array, arm: str, start: float) -> Array:
        """(m,) log of the budgets at which manners reach the target in the mean, up to an e-fold outside the space."""
        low, high = self._ends
        places, t = self._encoding.encode(units, arm), np.full(len(units), start)
        for _ in range(_NUM_STEPS):
            t = np.clip(t - self._expected.mean(self._at(places, t)), low - 1.0, high + 1.0)
        return t

    def _edge_price(self, units: Array, arm: str) -> Array:
        """(m,) what manners at an end of a hyperparameter's range count as dearer, in log budget."""
        axes = self._space.axes(arm)
        columns = [i for i, axis in enumerate(axes) if _is_hyper(axis)]
        places = units[:, columns]
        return np.asarray(_EDGE_PRICE * ((places < _EDGE) | (places > 1 - _EDGE)).sum(axis=1))

    def leaders(self, arm: str) -> tuple[Array, Array]:
        """Places of the manners tried in an arm that need least, and the log of what they need; cheapest first."""
        if arm not in self._leaders:
            self._leaders[arm] = self._find_leaders(arm)
        return self._leaders[arm]

    def _find_leaders(self, arm: str) -> tuple[Array, Array]:
        mine = [tried for tried in self._known if tried.arm == arm and tried.scores and not tried.num_lost]
        manners: dict[FrozenDict, Array] = {}
        for tried in mine:
            manners.setdefault(_manner(tried.point), self._encoding.units(tried.point, arm))
        if not manners:
            return np.empty((0, len(self._space.axes(arm)))), np.empty(0)
        units = np.stack(list(manners.values()))
        needs = self._needs(units, arm, self._ends[1] - 1.0) + self._edge_price(units, arm)
        order = np.argsort(needs, kind="stable")
        return units[order], needs[order]

    def least(self, arm: str) -> float:
        """The least budget that a manner tried in an arm needs, in the mean; infinity if none was."""
        needs = self.leaders(arm)[1] if arm in self._space.arms else np.empty(0)
        return math.exp(float(needs[0])) if len(needs) else math.inf

    def point(self, units: Array, arm: str) -> FrozenDict:
        """The point at places of an arm."""
        return self._encoding.point(units, arm)

    def need(self, point: FrozenDict, arm: str) -> float:
        """The budget that the manner of a point needs, in the mean; within the space."""
        units = self._encoding.units(point, arm)[None, :]
        low, high = self._ends
        return math.exp(min(max(float(self._needs(units, arm, 0.5 * (low + high))[0]), low), high))

    def _to_beat(self, wish: Wish) -> float:
        """Log of the least need known."""
        arms = self._space.arms if wish.is_rival else (wish.arm,)
        needs = [needs[0] for arm in arms if len(needs := self.leaders(arm)[1])]
        return float(min(needs, default=self._ends[1]))

    # Probes.

    def probes(self, wish: Wish, rng: np.random.Generator) -> list[Offer]:
        """Runs that tell what a manner needs, the best first; those that do not pay are left out unless one must be."""
        best = self._to_beat(wish)
        units, needs, expected = self._promising(wish.arm, best, rng)
        offers = []
        for row, need, gain in zip(units, needs, expected, strict=True):
            offer = self._probe(row, wish, float(need), float(gain))
            if offer.value > 0 or wish.must:
                offers.append(offer)
        return sorted(offers, key=lambda offer: -(offer.rate if wish.must else offer.value))

    def _promising(self, arm: str, best: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """The manners with the largest expected improvement over a need; their needs; the improvement."""
        axes = self._space.axes(arm)
        leaders = self.leaders(arm)[0][:_NUM_LEADERS]
        pool = rng.random((_NUM_GLOBAL, len(axes)))
        if len(leaders):
            pool = np.concatenate([pool, leaders, _perturb(leaders[rng.integers(len(leaders), size=_NUM_LOCAL)], rng)])
        needs, worth = self._improvement(pool, arm, best)
        for _ in range(_NUM_ROUNDS):
            top = np.argsort(-worth, kind="stable")[:_NUM_LEADERS]
            near = _perturb(np.repeat(pool[top], _NUM_NEIGHBOURS, axis=0), rng)
            near_needs, near_worth = self._improvement(near, arm, best)
            pool = np.concatenate([pool[top], near])
            needs, worth = np.concatenate([needs[top], near_needs]), np.concatenate([worth[top], near_worth])
        top = np.argsort(-worth, kind="stable")[:_NUM_LEADERS]
        return pool[top], needs[top], worth[top]

    def _improvement(self, units: Array, arm: str, best: float) -> tuple[Array, Array]:
        """What manners need, and by how much they are expected to need less than the best."""
        needs = self._needs(units, arm, best)
        x = self._x(units, arm, needs)
        s = self._expected.predict(x)[1]
        z = (best - needs - self._edge_price(units, arm)) / s
        worth = s * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
        return needs, worth * self._prudence(x)

    def _prudence(self, x: Array) -> Array:
        """(m,) what is left of a gain where runs are likely to go wrong."""
        if not self._known:
            return np.ones(len(x))
        return np.asarray(np.minimum(1.0, _RISK / self._risk(self._likeness(x))) ** 2)

    def _probe(self, units: Array, wish: Wish, need: float, gain: float) -> Offer:
        """The run of a manner that gains most for what it costs."""
        low, high = self._ends
        places, t = self._place(np.clip(need + _FRACTIONS, low, high))
        rows = np.repeat(units[None, :], len(t), axis=0)
        rows[:, 0] = places
        x, at_need = self._x(rows, wish.arm, t), self._x(units[None, :], wish.arm, np.array([need]))
        mean, sd = self._expected.predict(x)
        total = sd**2 + self._expected.noise(mean) ** 2
        removed = self._expected.covariance(x, at_need)[:, 0] ** 2 / total
        removed = np.clip(removed / self._expected.predict(at_need)[1] ** 2, 0.0, 1.0)
        cost = np.exp(t) + _OVERHEAD - self._done(rows, wish.arm)
        best = int(np.argmax(gain * removed / cost))
        value = float(gain * removed[best] - PAYS * cost[best])
        is_probe = bool(mean[best] < -float(sd[best]))
        rate = float(gain * removed[best] / cost[best])
        return Offer(value=value, point=self._encoding.point(rows[best], wish.arm), is_probe=is_probe, rate=rate)

    # Checks.

    def checks(self, wish: Wish, rng: np.random.Generator) -> list[Offer]:
        """Runs by which a policy may come to be accepted, the best first; those that do not pay are left out."""
        offers = list(self._repeats(wish))
        if wish.may_be_new:
            offers += self._first_checks(replace(wish, best=min(wish.best, self._awaited(wish.arm))), rng)
        return sorted((offer for offer in offers if offer.value > 0), key=lambda offer: -offer.value)

    def _chance(self, x: Array, runs: Array) -> Array:
        """(m,) probability that each of `x` is accepted after `runs` more runs."""
        mean, s = self._expected.predict(x)
        likeness = self._likeness(x)
        v = self._expected.noise(mean) * np.maximum(1.0, self._inflation(likeness))
        after = s * v / np.sqrt(v**2 + runs * s**2)
        moved = np.sqrt(np.maximum(s**2 - after**2, 1e-12))
        return np.asarray(ndtr((mean - _Z * after) / moved) * (self._risk(likeness, runs) <= _RISK))

    def _done(self, units: Array, arm: str, num_runs: int = 1) -> Array:
        """(m,) references, of so many runs at each place of an arm, that other trials have trained."""
        if self._evidence.stems is None:
            return np.zeros(len(units))
        return np.array([self._evidence.done(self._encoding.point(row, arm), num_runs) for row in units])

    def _gain(self, x: Array, runs: Array, done: Array, wish: Wish) -> Array:
        """(m,) net gain of `runs` more runs at each of `x`, of which others have trained so many references."""
        t = x[:, self._frame.trend]
        reference = math.log(wish.best) if math.isfinite(wish.best) else self._to_beat(wish) + _NOTHING_YET
        cost = runs * np.exp(t) + _OVERHEAD - done
        return np.asarray(self._chance(x, runs) * np.maximum(reference - t, 0.0) - PAYS * cost)

    def _repeats(self, wish: Wish) -> Iterator[Offer]:
        if self._evidence.is_noise_free:
            return
        settled = {a.tried.point for a in self.assessed if a.is_accepted}
        open_ = [t for t in self._evidence if t.arm == wish.arm and t.cost < wish.best and t.point not in settled]
        open_ = [t for t in open_ if _may_repeat(t)]
        if open_:
            missing = np.array([max(1, SEEDS - len(tried.scores) - tried.num_running) for tried in open_])
            done = np.array([self._evidence.done(t.point, int(n)) for t, n in zip(open_, missing, strict=True)])
            for tried, value in zip(open_, self._gain(self._rows(open_), missing, done, wish), strict=True):
                yield Offer(value=float(value), point=tried.point, repeats=tried)

    def _awaited(self, arm: str) -> float:
        """Cost of the cheapest policy that is being checked and will probably be accepted; infinity if none is.

        It counts as good as accepted: to begin with another one, a little cheaper, after each run would end nowhere.
        """
        begun = [t for t in self._evidence if t.arm == arm and (t.scores or t.num_running)]
        begun = [t for t in begun if not (t.num_lost or t.optimistic) and len(t.scores) < SEEDS]
        if not begun:
            return math.inf
        missing = np.array([max(0, SEEDS - len(t.scores) - t.num_running) for t in begun])
        chance = self._chance(self._rows(begun), missing)
        likely = [t.cost for t, c in zip(begun, chance, strict=True) if c >= _LIKELY]
        return min(likely, default=math.inf)

    def _first_checks(self, wish: Wish, rng: np.random.Generator) -> Iterator[Offer]:
        """The best manners, and others near them, at budgets about what they need."""
        units = self.leaders(wish.arm)[0][:_NUM_LEADERS]
        if not len(units):
            return
        units = np.concatenate([units, _perturb(np.repeat(units, _NUM_CHECKED // len(units), axis=0), rng)])
        needs = self._needs(units, wish.arm, self._to_beat(wish)) + self._edge_price(units, wish.arm)
        low, high = self._ends
        rows = np.repeat(units, len(_MARGINS), axis=0)
        places, t = self._place(np.clip((needs[:, None] + _MARGINS).ravel(), low, high))
        rows[:, 0] = places
        runs = np.full(len(rows), 1 if self._evidence.is_noise_free else SEEDS)
        done = self._done(rows, wish.arm, int(runs[0]))
        values = self._gain(self._x(rows, wish.arm, t), runs, done, wish)
        for row in np.argsort(-values, kind="stable")[:_NUM_LEADERS]:
            yield Offer(value=float(values[row]), point=self._encoding.point(rows[row], wish.arm))

    # What is said of it.

    def outlook(self, point: Mapping[str, Any], budgets: Sequence[float]) -> tuple[Outlook, ...]:
        """What is expected of a manner at budgets, the nearest that the space has."""
        arm = str(point["arm"])
        rows = np.repeat(self._encoding.units(FrozenDict(point), arm)[None, :], len(budgets), axis=0)
        rows[:, 0], t = self._place(np.log(np.asarray(budgets, dtype=np.float64)))
        x = self._x(rows, arm, t)
        mean, sd = self.process.predict(x)
        inflation = self._inflation(self._likeness(x)) if self._known else np.ones(len(x))
        law, target = self.process.law, self._evidence.target
        return tuple(
            Outlook(
                budget=self._space["budget"].from_unit(float(rows[i, 0])),
                score=target + float(law.value(mean[i : i + 1])[0, 0]),
                standard_error=float(sd[i] * law.slope(mean[i : i + 1])[0, 0]),
                spread=float(self.process.noise_sd * math.exp(-0.3 * min(max(mean[i], -4.0), 0.0)) * inflation[i]),
                probability=float(ndtr(mean[i] / sd[i])),
            )
            for i in range(len(budgets))
        )

    def nearest_trial(self, point: Mapping[str, Any]) -> PolicyObservations:
        """The policy tried whose manner is that of a point, or else the nearest to it in budget of the arm."""
        same = [t for t in self._known if _manner(t.point) == _manner(FrozenDict(point))]
        mine = same or [t for t in self._known if t.arm == point["arm"]] or self._known
        return min(mine, key=lambda t: abs(math.log(t.cost / float(point["budget"]))))

    @on_one_thread
    def interval(self, arm: str, rng: np.random.Generator, num_draws: int = 256) -> tuple[float, float] | None:
        """Quantiles (`INTERVAL`) of the least cost of a policy of an arm; None if no run of the arm finished.

        Drawn jointly from the posterior for the manners that were tried and others near the best, at budgets about
        theirs.
        """
        leaders, needs = self.leaders(arm)
        if not len(leaders):
            return None
        best, leaders = float(needs[0]), leaders[: 2 * _NUM_LEADERS]
        near = _perturb(leaders[rng.integers(min(len(leaders), 4), size=24)], rng)
        manners, (low, high) = np.concatenate([leaders, near]), self._ends
        t = np.clip(best + np.linspace(-0.7, 0.7, 9), low, high)
        x = np.concatenate([self._x(manners, arm, np.full(len(manners), v)) for v in t])
        mean, covariance = self.process.mean(x), self.process.covariance(x, x)
        root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(x)))
        drawn = mean + rng.standard_normal((num_draws, len(x))) @ root.T
        at = drawn.reshape(num_draws, len(t), len(manners)).max(axis=2)  # the best manner at each budget
        cost = np.exp([_crossing(t, row) for row in at])
        return float(np.quantile(cost, INTERVAL[0])), float(np.quantile(cost, INTERVAL[1]))


def recipe_point(space: Any, known: Known, budget: float) -> FrozenDict:
    """The unchanged recipe in the full arm at a budget: the nearest value in the space of each hyperparameter.

    What the recipe does not say has its usual value.
    """

    def value_of(axis: Coordinate) -> Any:
        if axis.name == "budget":
            return budget
        return nearest(axis, known.recipe[axis.name]) if axis.name in known.recipe else axis.default

    point: FrozenDict = space.point(FULL, value_of)
    return point


def nearest(axis: Coordinate, value: Any) -> Any:
    """The value of a coordinate nearest to one that may lie outside of its range; its usual one for no choice of it."""
    if axis.kind in ("fixed", "choice"):
        return value if value in axis.values else axis.default
    return type(axis.from_unit(0.5))(min(max(value, axis.lo), axis.hi))


def nearest_budget(axis: Coordinate, budget: float) -> Any:
    """The budget of the space nearest to one, on a logarithmic scale."""
    if axis.kind == "float":
        return min(max(budget, axis.lo), axis.hi)
    values = axis.values or range(int(axis.lo), int(axis.hi) + 1)
    return min(values, key=lambda value: (abs(math.log(value / budget)), value))


def _crossing(t: Array, u: Array) -> float:
    """Where a line through points first rises above 0; an end of the range if it never does, or always is."""
    above = np.flatnonzero(u >= 0)
    if not len(above):
        return float(t[-1] - u[-1])
    i = int(above[0])
    if i == 0:
        return float(t[0] - u[0])
    return float(t[i - 1] + (t[i] - t[i - 1]) * -u[i - 1] / (u[i] - u[i - 1]))


def _frame(encoding: Encoding, known: Known) -> Frame:
    """Columns of hyperparameters with a scale, and the recipe's place in them."""
    hyper, centre, width = [], [], []
    for column, axis in enumerate(encoding.columns):
        if _is_hyper(axis):
            value = nearest(axis, known.recipe[axis.name]) if axis.name in known.recipe else axis.default
            hyper.append(column)
            centre.append(axis.to_unit(value))
            width.append(math.log(axis.hi / axis.lo) if axis.log else 2.0)
    return Frame(
        is_category=encoding.is_category,
        trend=encoding.trend,
        stretch=tuple(j for j, axis in enumerate(encoding.columns) if axis.name in _STRETCH),
        hyper=tuple(hyper),
        centre=np.array(centre),
        width=np.array(width),
    )


def _is_hyper(axis: Coordinate) -> bool:
    """Whether an axis is a hyperparameter of the recipe that has a scale."""
    return axis.name not in COORDINATES and "." not in axis.name and axis.kind != "choice" and not axis.is_single


def _manner(point: FrozenDict) -> FrozenDict:
    return FrozenDict({key: value for key, value in point.items() if key != "budget"})


def _log_budgets(axis: Coordinate, places: Array) -> Array:
    if axis.kind == "float" and axis.log:
        return np.asarray(math.log(axis.lo) + np.clip(places, 0.0, 1.0) * math.log(axis.hi / axis.lo))
    return np.array([math.log(axis.from_unit(float(place))) for place in places])


def _may_repeat(tried: PolicyObservations) -> bool:
    """Whether another seed of a policy may help: none was lost, and those that run are not enough."""
    if tried.num_lost or tried.optimistic:
        return False
    return not tried.num_running or len(tried.scores) + tried.num_running < SEEDS


def _is_known(tried: PolicyObservations) -> bool:
    return bool(tried.scores or tried.optimistic or tried.num_lost)


def _score(tried: PolicyObservations, evidence: SearchEvidence) -> float:
    """One score for a policy: the mean of its seeds, what it could have reached, or worse than all that were seen."""
    if tried.num_lost and not tried.scores:
        scores = evidence.scores
        worst = min([evidence.target, *scores])
        return worst - 0.1 * (max([evidence.target, *scores]) - worst)
    return tried.mean if tried.scores else max(tried.optimistic)


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


def _perturb(units: Array, rng: np.random.Generator) -> Array:
    """Move a random part of the coordinates of each row, by steps of many sizes; stay in [0, 1]."""
    size = 10 ** rng.uniform(-2.0, -0.5, size=(len(units), 1))
    moved = rng.random(units.shape) < rng.uniform(0.2, 1.0, size=(len(units), 1))
    near = np.where(moved, units + size * rng.standard_normal(units.shape), units)
    near = np.where(rng.random(units.shape) < 0.05, rng.random(units.shape), near)
    return np.clip(near, 0.0, 1.0)
