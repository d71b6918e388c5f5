"""Where the frontier between feasible and infeasible policies lies, and which trial moves it most.

The cost of a policy is known and only its feasibility is noisy, so the search models the score alone: one Gaussian
process over both arms (`surrogate`), whose points `encoding` places. Scores are scaled by asinh about the target: near
it differences count as they are, far from it by their order of magnitude, so that a run that went wrong does not
flatten the frontier.

A policy is *accepted* when its noise-free score reaches the target with probability `ACCEPT`, it was seen on two seeds
(one, where the metric is free of noise) and their mean reaches the target. The next trial is the one with the largest
product of: the probability that after it the policy would be accepted, and the log of the cost it would save. A repeat
of a policy already tried and a new point compete on this one scale; so a trial is repeated only when that can pay.

    symbol    meaning
    m, s      posterior mean and standard deviation of a policy's noise-free scaled score; 0 is the target
    v         standard deviation of one run's noise, scaled
    s'        s after one more run, s*v/sqrt(s^2 + v^2); the mean then moves by s^2/sqrt(s^2 + v^2) times N(0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from subsettune.config import FrozenDict
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.observations import PolicyObservations, SearchEvidence
from subsettune.study.search.surrogate import Array, Observations, Surrogate, fit
from subsettune.study.spec.coordinate import Coordinate

ACCEPT = 0.9  # probability of being feasible that makes a policy a candidate
_Z = float(ndtri(ACCEPT))
_MAX_POINTS = 150  # policies in the model, the nearest to the frontier; a fit costs their cube
_NEW_POINT = 0.7  # what a new point is worth against a repeat, which needs one trial less to be accepted
_NO_BEST = 0.5  # log cost that a first accepted policy is taken to save, beyond the dearest of the space
_NUM_GLOBAL, _NUM_LOCAL, _NUM_ROUNDS = 768, 512, 4
_NUM_LEADERS, _NUM_NEIGHBOURS = 12, 16  # places kept in each round, and looked at around each of them
_NUM_OFFERED = 8
_COARSE = 0.3  # quantile of |score - target| at which the scaling turns from linear to logarithmic
_VAGUE = 9.0  # variance of a score that was not seen to the end, in units of one run's noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """A policy that was tried, as the model sees it.

    Args:
        tried: the policy and its scores.
        score: estimate of its noise-free score.
        probability: that it reaches the target.
        is_accepted: whether the search would stake a verification on it.
    """

    tried: PolicyObservations
    score: float
    probability: float
    is_accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which proposals are wanted.

    Args:
        arm: to propose for.
        bound: cost below which new points must lie.
        best: cost to beat; infinity if nothing is accepted.
        may_be_new: whether a new point can still be repeated before the trials run out.
    """

    arm: str
    bound: float
    best: float
    may_be_new: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A proposal and what it is worth; `repeats` is the policy it repeats, if any."""

    value: float
    point: FrozenDict
    repeats: PolicyObservations | None = None


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
            score = self._evidence.target + self._scale * math.sinh(m * self._spread)
            accepted = passes and enough and probability >= ACCEPT
            found.append(Assessed(tried=tried, score=score, probability=probability, is_accepted=accepted))
        return tuple(found)

    def accepted(self, arm: str | None = None) -> tuple[Assessed, ...]:
        """The accepted policies, of one arm if given, cheapest first."""
        kept = [a for a in self.assessed if a.is_accepted and arm in (None, a.tried.arm)]
        return tuple(sorted(kept, key=lambda a: (a.tried.cost, -a.probability)))

    def leader(self, arm: str) -> FrozenDict | None:
        """The cheapest accepted policy of an arm, else the most probable one; None before any finished."""
        accepted = self.accepted(arm)
        mine = accepted or tuple(a for a in self.assessed if a.tried.arm == arm)
        best = max(mine, key=lambda a: -a.tried.cost if accepted else a.probability, default=None)
        return best.tried.point if best is not None else None

    def offers(self, request: Request, rng: np.random.Generator) -> Iterator[Offer]:
        """Proposals for an arm, the most valuable first; repeats and new points."""
        model, best = self._believe(request.best)
        found = list(self._repeats(model, request, best))
        if request.may_be_new or not found:
            found += self._new_points(model, request, best, rng)
        yield from sorted(found, key=lambda offer: -offer.value)

    def improvers(self, request: Request, rng: np.random.Generator) -> Iterator[Offer]:
        """New points that may score higher than any known at the budget where the model sees the frontier.

        A higher score there means a lower frontier. Unlike `offers` this does not care whether the run itself will
        pass, so it learns what the other coordinates do instead of shaving the budget of the policy at hand.
        """
        model, _ = self._believe(request.best)
        axes = self._encoding.space.axes(request.arm)
        rivals = self._centres(request.arm)
        place = self._place(model, request, rivals)
        level = _at(rivals, place)
        mean, _ = model.predict(self._encoding.encode(level, request.arm)) if len(level) else (np.zeros(1), None)

        def worth(units: Array) -> Array:
            m, s = model.predict(self._encoding.encode(units, request.arm))
            z = (m - mean.max()) / s
            return np.asarray(s * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))

        pool = _at(rng.random((_NUM_GLOBAL, len(axes))), place)
        if len(rivals):
            picks = rivals[rng.integers(len(rivals), size=_NUM_LOCAL)]
            pool = np.concatenate([pool, _at(_perturb(picks, rng, 1.0), place)])
        yield from self._climb(pool, request.arm, worth, lambda units: _at(_perturb(units, rng, 1.0), place))

    def _place(self, model: Surrogate, request: Request, rivals: Array) -> float:
        """The lowest place on the budget's axis where a known policy would have an even chance; at most the bound's."""
        top = _below(self._encoding.space.axes(request.arm)[0], min(request.bound, request.best))
        if not len(rivals):
            return top
        places = np.linspace(0.0, top, 25)
        grid = np.concatenate([_at(rivals, place) for place in places])
        mean, _ = model.predict(self._encoding.encode(grid, request.arm))
        even = mean.reshape(len(places), len(rivals)).max(axis=1) >= 0
        return float(places[int(np.argmax(even))]) if even.any() else top

    def _believe(self, best: float) -> tuple[Surrogate, float]:
        """The model and the cost to beat once the running trials have come out as expected."""
        if not len(self._running):
            return self._model, best
        mean, sd = self._model.predict(self._running)
        likely = [c for c, p in zip(self._running_costs, ndtr(mean / sd), strict=True) if p >= 0.5]
        return self._model.condition(self._running), min([best, *likely])

    def _repeats(self, model: Surrogate, request: Request, best: float) -> Iterator[Offer]:
        if self._evidence.is_noise_free:
            return
        open_ = [
            a.tried
            for a in self.assessed
            if a.tried.arm == request.arm
            and not a.is_accepted
            and a.tried.cost <= request.best
            and not (a.tried.num_running or a.tried.num_lost or a.tried.optimistic)
        ]
        if open_:
            values = self._value(model, self._rows(open_), np.array([t.cost for t in open_]), best, v=model.noise_sd)
            for tried, value in zip(open_, values, strict=True):
                if value > 0:
                    yield Offer(value=float(value), point=tried.point, repeats=tried)

    def _value(self, model: Surrogate, x: Array, cost: Array, best: float, v: float) -> Array:
        """Probability of being accepted after one more run, times the log cost saved."""
        mean, s = model.predict(x)
        root = np.sqrt(s**2 + v**2)
        accepted = ndtr((mean - _Z * s * v / root) * root / s**2)
        dearest = max(self._encoding.space["budget"].hi, *self._encoding.space["budget"].values, 0.0)
        reference = math.log(best) if math.isfinite(best) else math.log(dearest) + _NO_BEST
        return np.asarray(accepted * np.maximum(reference - np.log(cost), 0.0))

    def _new_points(self, model: Surrogate, request: Request, best: float, rng: np.random.Generator) -> Iterator[Offer]:
        """Random points and neighbours of the best known, then a few rounds of local improvement."""
        axes = self._encoding.space.axes(request.arm)
        top = _below(axes[0], request.bound)
        pool = rng.random((_NUM_GLOBAL, len(axes)))
        pool[:, 0] *= top
        centres = self._centres(request.arm)
        if len(centres):
            picks = centres[rng.integers(len(centres), size=_NUM_LOCAL)]
            pool = np.concatenate([pool, _perturb(picks, rng, top)])

        def worth(units: Array) -> Array:
            return self._worth(model, units, request.arm, best)

        yield from self._climb(pool, request.arm, worth, lambda units: _perturb(units, rng, top))

    def _climb(
        self, pool: Array, arm: str, worth: Callable[[Array], Array], neighbours: Callable[[Array], Array]
    ) -> Iterator[Offer]:
        """The best places of a pool after a few rounds of looking around them."""
        values = worth(pool)
        for _ in range(_NUM_ROUNDS):
            leaders = pool[np.argsort(-values, kind="stable")[:_NUM_LEADERS]]
            pool = np.concatenate([leaders, neighbours(np.repeat(leaders, _NUM_NEIGHBOURS, axis=0))])
            values = worth(pool)
        for row in np.argsort(-values, kind="stable")[:_NUM_OFFERED]:
            yield Offer(value=float(values[row]), point=self._encoding.point(pool[row], arm))

    def _centres(self, arm: str) -> Array:
        """Places of the policies of an arm nearest to being feasible, and of the cheapest accepted ones."""
        mine = [a for a in self.assessed if a.tried.arm == arm]
        close = sorted(mine, key=lambda a: (-min(a.probability, 0.5), a.tried.cost))[:8]
        rows = [self._encoding.units(a.tried.point, arm) for a in close]
        return np.stack(rows) if rows else np.empty((0, 0))

    def _worth(self, model: Surrogate, units: Array, arm: str, best: float) -> Array:
        axis = self._encoding.space.axes(arm)[0]
        cost = np.array([axis.from_unit(unit) for unit in units[:, 0]])
        x = self._encoding.encode(units, arm)
        noise = 0.0 if self._evidence.is_noise_free else model.noise_sd
        values = self._value(model, x, cost, best, v=noise) * (1.0 if self._evidence.is_noise_free else _NEW_POINT)
        if len(self._running):
            values = values * np.prod(1 - model.correlation(x, self._running) ** 2, axis=1)
        return values


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


def _perturb(units: Array, rng: np.random.Generator, top: float) -> Array:
    """Move a random part of the coordinates of each row, by steps of many sizes; stay in [0, 1], the budget below."""
    size = 10 ** rng.uniform(-2.3, -0.5, size=(len(units), 1))
    moved = rng.random(units.shape) < rng.uniform(0.2, 1.0, size=(len(units), 1))
    near = np.where(moved, units + size * rng.standard_normal(units.shape), units)
    near = np.where(rng.random(units.shape) < 0.03, rng.random(units.shape), near)
    near = np.clip(near, 0.0, 1.0)
    near[:, 0] = np.minimum(near[:, 0], top)
    return near


def _at(units: Array, place: float) -> Array:
    """The same points at one place of the budget's axis."""
    moved = units.copy()
    if len(moved):
        moved[:, 0] = place
    return moved


def _below(axis: Coordinate, bound: float) -> float:
    """The highest place on the budget's axis whose cost is below a bound."""
    if axis.kind != "float" or axis.is_single or bound > axis.hi:
        return 1.0
    return max(0.0, axis.to_unit(bound) - 1e-6)
