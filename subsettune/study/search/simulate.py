"""Drive a search with a made-up runner and a virtual clock: no training, no Ray, thousands of trials in seconds.

Time is compute: a worker is busy with a trial for as many units as the trial uses passes. Workers are asynchronous: a
worker that becomes free gets its next trial from what is known at that moment, as in a real study.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, UNIT, FrozenDict, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.policy import FULL, Policy
from subsettune.study.search.earlier import EarlierStudy, EarlierTrial
from subsettune.study.search.observations import Outcome, TrialRecord
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import Counts, Pause, Proposal, Search
from subsettune.study.search.shared_stems import SharedStems
from subsettune.study.search.shortlist import ShortlistedPolicy
from subsettune.study.spec.samplers import SamplerName
from subsettune.study.spec.space import Space
from subsettune.train.planning.stem_places import Prefix

Runner = Callable[[Policy, int], float]

_CURVE_SHARES = tuple(i / 10 for i in range(1, 10))  # of a trial's own budget, at which its curve is looked at
_NUM_REFERENCES = 5  # runs of the made-up conventional training
_FLOPS = 1_000_000  # of one forward pass; any number large enough that costs do not round


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """A made-up task, and how it is searched.

    Args:
        trials: how many to run.
        workers: how many run at once.
        seed: of the search; the same seed gives the same result, bit for bit.
        reference_passes: compute of the conventional recipe.
        target: what a policy must reach, tolerance already taken off.
        sampler: where new points come from.
        jitter: standard deviation of the log of a trial's duration about its compute: machines are not equally fast.
        shuffle: seed of these durations; a search with the same `workers` must end the same for each.
        noise: standard deviation of the metric over seeds, as the reference measured it; None if it did not.
        recipe: values of the conventional recipe for the hyperparameters of the space.
        reference: mean metric of the conventional training, over five runs; None if unknown.
        stable_share: of the compute of every policy, from its beginning, that the rate stays at its peak: as far as
            that, and to the switch, trials begin from stems; 0 if they share nothing.
        num_examples: N; needed with `q`, as are the next two.
        num_parameters: P.
        num_outputs: M.
    """

    trials: int = setting(rule=AT_LEAST_ONE)
    workers: int = setting(1, rule=AT_LEAST_ONE)
    seed: int = 0
    reference_passes: float = setting(rule=POSITIVE)
    target: float
    sampler: SamplerName = "auto"
    jitter: float = setting(0.0, rule=NOT_NEGATIVE)
    shuffle: int = 0
    noise: float | None = setting(None, rule=NOT_NEGATIVE)
    recipe: FrozenDict = FrozenDict()
    reference: float | None = None
    stable_share: float = setting(0.0, rule=UNIT)
    num_examples: int | None = setting(None, rule=AT_LEAST_ONE)
    num_parameters: int | None = setting(None, rule=AT_LEAST_ONE)
    num_outputs: int | None = setting(None, rule=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def sizes(self) -> tuple[int | None, int | None, int | None]:
        """N, P and M, as far as they are given."""
        return self.num_examples, self.num_parameters, self.num_outputs

    @property
    def facts(self) -> TaskFacts:
        """Of the made-up task; a size that is not given is one on which nothing depends."""
        return TaskFacts(
            num_examples=self.num_examples or 10_000,
            num_outputs=self.num_outputs or 10,
            num_parameters=self.num_parameters or 10_000,
            forward_flops=_FLOPS,
            backward_flops=2 * _FLOPS,
            reference_passes=self.reference_passes,
        )

    def prefix(self, policy: Policy) -> Prefix:
        """The beginning that a policy shares with those of the same first phase and recipe."""
        first = policy.phases[0]
        share = min(first.passes / policy.passes, self.stable_share)
        told = [policy.recipe, {name: value for name, value in config.to_plain(first).items() if name != "passes"}]
        return Prefix(key=config.digest(told), end_flops=round(share * policy.cost(self.facts)))

    @property
    def search(self) -> SearchSettings:
        """How it is searched."""
        return SearchSettings(
            trials=self.trials, parallel=self.workers, seed=self.seed, sampler=self.sampler, noise=self.noise
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a simulated search found and spent.

    Args:
        best: the policy that would be verified first, with its `cost` as a share of the reference's compute; None if
            the search would stake a verification on none.
        best_full: the best of the full arm, or None.
        candidates: what would be verified, cheapest first.
        intervals: of the least cost with which a policy of an arm reaches the target, by arm; see `Shortlist.interval`.
        compute: spent by all trials, in references; a stopped run counts up to its stop.
        duration: virtual time from the first start to the last end, in references.
        counts: what became of the proposals.
        trials: every trial, by number.
    """

    best: ShortlistedPolicy | None
    best_full: ShortlistedPolicy | None
    candidates: tuple[ShortlistedPolicy, ...]
    intervals: FrozenDict
    compute: float
    duration: float
    counts: Counts
    trials: tuple[TrialRecord, ...]

    def told(self, settings: SimulationSettings) -> EarlierStudy:
        """What a later search is told of this one, which was made with some settings."""
        assert settings.reference is not None, "differences to it are what a later search is told"
        finished = ((t, t.outcome.metric) for t in self.trials if t.outcome is not None)
        return EarlierStudy(
            reference=settings.reference,
            num_references=_NUM_REFERENCES,
            noise=settings.noise,
            trials=tuple(EarlierTrial(point=t.point, score=m, seed=t.seed) for t, m in finished if m is not None),
        )


def simulate(
    space: Mapping[str, Any],
    runner: Runner,
    settings: SimulationSettings,
    earlier: Sequence[EarlierStudy] = (),
) -> Simulation:
    """Search a space with a made-up runner.

    Args:
        space: the mapping under `space:` of a study file; any name that is no coordinate is a hyperparameter.
        runner: `runner(policy, seed)` gives the metric (higher is better) that the policy ends with, from its `phases`
            (`share`, `passes`, ...) and its `recipe`; the seed is fresh for every run. An exception is a failed trial,
            NaN or infinity a diverged one. It may have `curve(policy, seed, share_used)`, the metric on the way, by
            which trials are stopped early.
        settings: the made-up task, and how it is searched.
        earlier: searches of nearly the same task, of which the search knows the trials; see `Simulation.told`.

    Raises:
        ConfigError: the space is wrong, or `q` is searched without N, P and M.
    """
    read = Space.from_mapping(space)
    if "q" in read and None in settings.sizes:
        message = "q needs num_examples, num_parameters and num_outputs. Give them, or search subset_share."
        raise ConfigError((Mistake(("q",), message),))
    problem = SearchProblem(
        space=read,
        facts=settings.facts,
        target=settings.target,
        prefix=settings.prefix if settings.stable_share else None,
        recipe=settings.recipe,
        reference=settings.reference,
        num_references=_NUM_REFERENCES,
        earlier=tuple(earlier),
    )
    clock = _Clock(Search(problem, settings.search), runner, settings, problem.stems(settings.seed))
    clock.run()
    return clock.result()


class _Clock:
    """Virtual workers and the queue of what happens next."""

    def __init__(self, search: Search, runner: Runner, settings: SimulationSettings, stems: SharedStems | None) -> None:
        self._stems = stems
        self._found: dict[int, float] = {}  # references that a trial found trained, by its number
        self._search = search
        self._runner = runner
        self._curve: Callable[[Policy, int, float], float] | None = getattr(runner, "curve", None)
        self._queue: list[tuple[float, int, int, Proposal]] = []  # time, ticket, place on the curve, proposal
        self._ticket = itertools.count()
        self._jitter, self._shuffle = settings.jitter, settings.shuffle
        self._now = 0.0
        self._compute = 0.0

    def run(self) -> None:
        """Until the search is done and all workers are idle."""
        self._assign()
        while self._queue:
            self._now, _, place, proposal = heapq.heappop(self._queue)
            self._happen(proposal, place)
            self._assign()

    def _assign(self) -> None:
        while not isinstance(proposal := self._search.propose(), Pause):
            self._begin(proposal)
            self._schedule(proposal, 0, self._now)

    def _begin(self, proposal: Proposal) -> None:
        """Note how much of a trial that begins now is trained."""
        found = 0.0 if self._stems is None else self._stems.found(proposal.coordinates, proposal.seed)
        self._found[proposal.number] = found

    def _trained(self, proposal: Proposal, share: float) -> float:
        """References that a trial has trained itself, by a share of its budget."""
        return max(0.0, share * proposal.cost - self._found[proposal.number])

    def _schedule(self, proposal: Proposal, place: int, start: float) -> None:
        """Queue the next thing to happen to a trial: a look at its curve, or its end."""
        if self._curve is None:
            place = len(_CURVE_SHARES)
        share = (*_CURVE_SHARES, 1.0)[place]
        begun = (0.0, *_CURVE_SHARES)[place] if self._curve is not None else 0.0
        length = self._trained(proposal, share) - self._trained(proposal, begun)
        when = start + length * self._slowness(proposal.number)
        heapq.heappush(self._queue, (when, next(self._ticket), place, proposal))

    def _slowness(self, number: int) -> float:
        """How much longer a trial takes than its compute."""
        if self._jitter == 0:
            return 1.0
        return math.exp(self._jitter * float(np.random.default_rng([self._shuffle, number]).standard_normal()))

    def _happen(self, proposal: Proposal, place: int) -> None:
        if place == len(_CURVE_SHARES):
            self._finish(proposal, _run(self._runner, proposal), 1.0)
            return
        share = _CURVE_SHARES[place]
        curve = self._curve
        assert curve is not None
        seen = _run(lambda policy, seed: curve(policy, seed, share), proposal)
        if seen.metric is None:
            self._finish(proposal, seen, share)
        elif self._search.observe(proposal.number, share, seen.metric):
            self._finish(proposal, Outcome(cause="stopped", metric=seen.metric, share_used=share), share)
        else:
            self._schedule(proposal, place + 1, self._now)

    def _finish(self, proposal: Proposal, outcome: Outcome, share: float) -> None:
        self._compute += self._trained(proposal, share)
        if self._stems is not None and outcome.cause == "finished":
            self._stems.leave(proposal.coordinates, proposal.seed)
        self._search.tell(
            proposal.number,
            Outcome(cause=outcome.cause, metric=outcome.metric, share_used=share, message=outcome.message),
        )

    def result(self) -> Simulation:
        """What was found."""
        search, shortlist = self._search, self._search.shortlist
        return Simulation(
            best=shortlist.best(),
            best_full=shortlist.best(arm=FULL),
            candidates=shortlist.candidates(3),
            intervals=FrozenDict({arm: shortlist.interval(arm) for arm in search.arms}),
            compute=self._compute,
            duration=self._now,
            counts=search.counts,
            trials=search.records,
        )


def _run(runner: Callable[[Policy, int], Any], proposal: Proposal) -> Outcome:
    """Run a made-up runner; whatever it raises is the outcome of the trial, as in a real study."""
    try:
        metric = float(cast(float, runner(proposal.policy, proposal.seed)))
    except Exception as error:
        return Outcome(cause="failed", message=f"{type(error).__name__}: {error}")
    return Outcome(cause="finished", metric=metric) if math.isfinite(metric) else Outcome(cause="diverged")
