"""The search: which policy to run next, when to stop it, and which policies to verify. Knows no Ray.

The cost of a policy is known before it runs and its accuracy is noisy, so the search minimises a known cost under a
noisy constraint. It is asked (`propose`), watches (`observe`) and is told (`tell`). All trials live in one Optuna
study, whose journal alone is enough to rebuild a `Search` that goes on as the first would have.

1. The `full` arm opens: the middle of the space, then up or down in budget. It gets at least a third of all trials, the
   subset arm at least another third, the rest goes where the model expects more.
2. New points come from the sampler. `frontier` (see there; the default up to about 100 trials) models the score alone,
   because the cost is known; `gp` and `tpe` are Optuna's, with the log of the cost as objective and the accuracy as
   constraint; `random` draws evenly. `benchmarks/search.py` compares them.
3. A policy that passed is repeated with another seed when that can make it the best, and the one that sets a bound
   every few trials. Only a policy feasible on two
   seeds sets the *bound*: further proposals of its arm lie below it. One above it is counted as skipped and moved
   to the same place of the range that is still useful, without asking the sampler again.
4. When the least budget of the space is confirmed in every arm, nothing can be cheaper and the search is done.

The value told to Optuna is the cost of the whole policy. FLOPs, passes and projected seconds are proportional to one
another for a given task, so the order of costs is the same in each.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, UNIT, FrozenDict, setting
from subsettune.facts import TaskFacts
from subsettune.policy import FULL, SUBSET, Policy
from subsettune.study.search.early_stopping import GainRule, is_stop_audit
from subsettune.study.search.frontier import Assessed
from subsettune.study.search.journal import Journal
from subsettune.study.search.observations import Evidence, Outcome, PolicyObservations, TrialRecord
from subsettune.study.search.planner import Plan, Planner, SearchState, Source
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space

__all__ = ["DONE", "WAIT", "Candidate", "Counts", "Outcome", "Pause", "Proposal", "Search", "SearchSettings"]

SamplerName = Literal["auto", "frontier", "gp", "tpe", "random"]
_OPENING_PART = 8  # one trial in so many, and two at least, opens the search in the full arm
_ROUNDING = 1e-6  # relative; a bound this near to the least budget leaves nothing below it
_FRONTIER_TRIALS = 100  # above this many trials `auto` takes TPE, whose time an ask does not grow with their cube
_MAX_ALTERNATIVES = 64  # plans looked at before an arm counts as having nothing valid left
_AUDIT_EVERY = 4  # trials after which the policy that sets a bound is run again; 4 more each time after that
_THIRD = 3  # the full arm gets at least one trial in so many, and so does the subset arm


class Pause(enum.Enum):
    """Why there is no proposal: `WAIT` until a running trial ends, or `DONE`: there will be none."""

    WAIT = "wait"
    DONE = "done"


WAIT, DONE = Pause.WAIT, Pause.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search.

    Args:
        trials: how many to run; failed ones count, skipped proposals do not.
        parallel: how many may run at once.
        seed: of the search; the seeds of runs derive from it.
        sampler: where new points come from; `auto` is `frontier` up to 100 trials, `tpe` above.
        objective: what is minimised; the three are proportional for a given task, so it names the unit of reports.
        noise: standard deviation of the metric over seeds, from the reference; None: estimated from repeats.
        check_stops: share of the trials to be stopped that are run out, to measure false stops.
    """

    trials: int = setting(rule=AT_LEAST_ONE)
    parallel: int = setting(1, rule=AT_LEAST_ONE)
    seed: int = 0
    sampler: SamplerName = "auto"
    objective: Literal["flops", "passes", "seconds"] = "flops"
    noise: float | None = setting(None, rule=NOT_NEGATIVE)
    check_stops: float = setting(0.1, rule=UNIT)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def source(self) -> Source:
        """The sampler that `auto` stands for."""
        if self.sampler != "auto":
            return self.sampler
        return "frontier" if self.trials <= _FRONTIER_TRIALS else "tpe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A run that the search wants.

    Args:
        number: of the trial; `observe` and `tell` take it.
        policy: to train with.
        coordinates: the point of the space it comes from.
        seed: of the run.
        cost: share of the reference's compute it may spend.
        confirms: number of the trial whose policy it repeats with another seed.
        continues: number of the lost trial that it takes up, with the same policy and seed.
    """

    number: int
    policy: Policy
    coordinates: FrozenDict
    seed: int
    cost: float
    confirms: int | None = None
    continues: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy that the search would stake a verification on.

    Args:
        policy: to verify.
        coordinates: the point of the space it comes from.
        cost: share of the reference's compute.
        metric: estimate of its noise-free metric, from its seeds and its neighbours; not the luckiest seed.
        probability: that its noise-free metric reaches the target.
        num_seeds: seeds it was seen on.
        number: of the first trial that had this policy.
    """

    policy: Policy
    coordinates: FrozenDict
    cost: float
    metric: float
    probability: float
    num_seeds: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the proposals.

    Args:
        finished: ran to the end.
        stopped: stopped early.
        skipped: proposals that were moved or replaced before they cost anything.
        failed: ended with an error, NaN or infinity; `diverged` of them with NaN or infinity.
        running: have no outcome yet.
        checked: would have been stopped and were run out instead.
        false_stops: of these, the ones that reached the target.
    """

    finished: int
    stopped: int
    skipped: int
    failed: int
    diverged: int
    running: int
    checked: int
    false_stops: int


class Search:
    """Proposes runs, watches them, and keeps what they showed.

    Args:
        space: to search.
        facts: of the task.
        settings: how to search.
        target: metric that a policy must reach, tolerance already taken off.
        higher_is_better: direction of the metric.
        storage: an Optuna storage or journal backend; None keeps the study in memory.
        name: of the Optuna study: the run id.
        invalid: says why a policy cannot run (its selection costs more than its subset stretch), or None if it can.

    Raises:
        ConfigError: the space does not fit the task.
        StudyError: the journal is damaged, or belongs to another study.
    """

    def __init__(
        self,
        space: Space,
        facts: TaskFacts,
        settings: SearchSettings,
        *,
        target: float,
        higher_is_better: bool = True,
        storage: BaseStorage | BaseJournalBackend | None = None,
        name: str = "search",
        invalid: Callable[[Policy], str | None] | None = None,
    ) -> None:
        self._space = space.resolve(facts)
        self._facts = facts
        self.settings = settings
        self._sign = 1.0 if higher_is_better else -1.0
        self._target = self._sign * target
        self._invalid = invalid
        self._evidence = Evidence(self._target, settings.noise)
        self._planner = Planner(space, self._evidence, settings.source, settings.seed)
        self._rule = GainRule(self._target)
        self._records: dict[int, TrialRecord] = {}
        self._restarts: deque[Proposal] = deque()
        self._next_number = 0
        self._running: dict[int, TrialRecord] = {}
        self._issued = dict.fromkeys((FULL, SUBSET), 0)
        self._tally: Counter[str] = Counter()
        self._leftovers: list[TrialRecord] = []
        identity = {"space": space.to_mapping(), "target": target, "higher_is_better": higher_is_better}
        self._journal = Journal(storage, name, identity | {"seed": settings.seed})
        self._load()

    def _load(self) -> None:
        """Take up the trials that the journal holds."""
        self._tally["skipped"] = self._journal.num_skipped
        for record, is_over in self._journal.trials():
            self._next_number = record.number + 1
            if record.outcome is not None:
                self._begin(record)
                self._end(record)
                if not is_over:  # the driver died between writing the outcome and closing the trial
                    self._journal.end(record, self._violation(record))
            elif not is_over and record.point:
                self._begin(record)
                self._leftovers.append(record)
            elif not is_over:  # the driver died before the trial was a proposal
                self._journal.sweep(record.number, self._least_violation())

    def propose(self) -> Proposal | Pause:
        """The next run; `WAIT` while as many run as may or one of them has to end first; `DONE` if there is none."""
        self._restarts.extend(self.recover({}) if self._leftovers else ())
        if self._restarts:
            return self._restarts.popleft()
        if self._num_issued >= self.settings.trials:
            return DONE
        if len(self._running) >= self.settings.parallel:
            return WAIT
        audit = self._audit()
        if audit is not None:
            return self._issue(audit.point, _run_seed(self.settings.seed, self._next_number), audit.first)
        for moment in self._moments():
            plan = self._next_plan(moment)
            if plan is not None:
                confirms = plan.repeats.first if plan.repeats is not None else None
                return self._issue(plan.point, _run_seed(self.settings.seed, self._next_number), confirms)
        return WAIT if self._running else DONE

    def _audit(self) -> PolicyObservations | None:
        """The policy that sets a bound, or leads, when it is due another seed.

        Everything later is built on it, and a small budget is noisier than the reference let expect: a policy that was
        lucky on two seeds would otherwise keep the search below the true optimum to the end. After SMAC's
        intensification, which runs the incumbent again as challengers come (Hutter et al. 2011, LION 5).
        """
        if self._evidence.is_noise_free:
            return None
        due = self._due()
        for arm in due[:1] or self._space.arms:
            setters = sorted(self._evidence.confirmed(arm), key=lambda tried: (tried.cost, tried.first))
            for tried in setters[:1]:
                if not tried.num_running and self._trials_since(tried) >= _AUDIT_EVERY * (len(tried.scores) - 1):
                    return tried
        return None

    def _trials_since(self, tried: PolicyObservations) -> int:
        """Trials begun after the last one of a policy."""
        last = max(number for number, record in self._records.items() if record.point == tried.point)
        return sum(number > last for number in self._records)

    @property
    def _num_issued(self) -> int:
        return sum(self._issued.values())

    def _moments(self) -> Iterator[SearchState]:
        """The arms in the order in which they are to be tried: those behind their third, then the more promising."""
        arms = self._space.arms
        if len(arms) == 1 or self._num_issued < max(2, self.settings.trials // _OPENING_PART):
            yield self._moment(FULL)
            return
        due = self._due()
        if due:
            yield self._moment(due[0])
        rivals = [self._moment(arm, rival=True) for arm in arms if arm not in due[:1]]
        if len(rivals) > 1:
            values = [self._planner.value(moment) for moment in rivals]
            rivals = [rivals[i] for i in sorted(range(len(rivals)), key=lambda i: (-values[i], -i))]
        yield from rivals

    def _due(self) -> list[str]:
        """The arms that fall behind their third unless the next trial is theirs."""
        arms = self._space.arms
        return [arm for arm in arms if len(arms) > 1 and _THIRD * self._issued[arm] < self._num_issued + 1]

    def _moment(self, arm: str, *, rival: bool = False) -> SearchState:
        return SearchState(
            arm=arm,
            num_in_arm=self._issued[arm],
            remaining=self.settings.trials - self._num_issued,
            trials=self.settings.trials,
            number=self._next_number,
            rival=rival,
        )

    def _next_plan(self, moment: SearchState) -> Plan | None:
        """The first plan that may run; None if the arm has nothing left that could be cheaper."""
        bound = self._evidence.bound(moment.arm)
        if bound <= _least(self._space["budget"]) * (1 + _ROUNDING):
            return None if moment.rival else self._cheapest(moment.arm)
        for plan in itertools.islice(self._planner.plans(moment), _MAX_ALTERNATIVES):
            allowed = self._allow(plan, bound)
            if allowed is not None:
                return allowed
        return None

    def _allow(self, plan: Plan, bound: float) -> Plan | None:
        """The plan as it may run, moved below the bound if need be; None if it is no use. Counts what it turns down."""
        if plan.repeats is not None:
            return plan
        point = plan.point
        if point["budget"] >= bound:
            self._tally["skipped"] += 1
            moved = self._planner.below(point, bound)
            if moved is None:
                return None
            point = moved
        known, policy = self._evidence.find(point), self._policy(point)
        is_pointless = known is not None and (known.num_running or known.num_lost or self._evidence.is_noise_free)
        is_misplaced = policy.arm != point["arm"]  # a subset of all data and nothing else: the full arm tries it
        if is_pointless or is_misplaced or (self._invalid is not None and self._invalid(policy) is not None):
            self._tally["skipped"] += 1
            return None
        return Plan(point=point, repeats=known)

    def _cheapest(self, arm: str) -> Plan | None:
        """A repeat of an arm's confirmed policy at the least budget there is: all that is left to do in the arm."""
        done = [tried for tried in self._evidence.confirmed(arm) if not tried.num_running]
        tried = min(done, key=lambda tried: (tried.cost, tried.first), default=None)
        return Plan(point=tried.point, repeats=tried) if tried is not None else None

    def _policy(self, point: Mapping[str, Any]) -> Policy:
        return self._space.policy(point, self._facts)

    def _issue(self, point: FrozenDict, seed: int, confirms: int | None, continues: int | None = None) -> Proposal:
        """Write a trial down and hand it out."""
        policy = self._policy(point)
        cost = float(point["budget"])
        proposal = {"point": point, "seed": seed, "cost": cost, "confirms": confirms, "continues": continues}
        self._journal.num_skipped = self._tally["skipped"]
        number = self._journal.begin(self._space, proposal)
        self._next_number = number + 1
        self._begin(TrialRecord(number=number, point=point, seed=seed, cost=cost, confirms=confirms))
        return Proposal(policy=policy, coordinates=point, number=number, **_without(proposal, "point"))

    def _begin(self, record: TrialRecord) -> None:
        self._issued[record.arm] += 1
        self._running[record.number] = record
        self._records[record.number] = record
        self._evidence.start(record)
        self._planner.start(record)

    # Watching and being told.

    def observe(self, number: int, share_used: float, metric: float) -> bool:
        """Note a point of a learning curve; True asks the caller to stop the run and `tell` it as stopped.

        Args:
            number: of the trial.
            share_used: of the trial's own budget.
            metric: at that point; NaN is left to `tell`.
        """
        record = self._awaited(number)
        if not math.isfinite(metric):
            return False
        record = replace(record, curve=(*record.curve, (float(share_used), float(metric))))
        noise = self._evidence.noise
        is_hopeless = (
            noise is not None and share_used < 1 and self._rule.is_hopeless(share_used, self._sign * metric, noise[0])
        )
        if is_hopeless and not record.is_stop_audit:
            assert noise is not None
            if is_stop_audit(self.settings.seed, number, self.settings.check_stops):
                record = replace(record, is_stop_audit=True)
            else:
                best = self._rule.projection(share_used, self._sign * metric, noise[0])
                record = replace(record, projection=best)
        self._running[number] = self._records[number] = record
        return is_hopeless and not record.is_stop_audit

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how a trial ended. A metric that is not finite is a divergence, whatever the cause given.

        Raises:
            ValueError: the trial is not awaited, or finished without a metric.
        """
        record = self._awaited(number)
        if outcome.cause == "finished" and outcome.metric is None:
            raise ValueError(f"metric must be given for the finished trial {number}, got None.")
        if outcome.metric is not None and not math.isfinite(outcome.metric):
            cause = "diverged" if outcome.cause == "finished" else outcome.cause
            outcome = replace(outcome, cause=cause, metric=None)
        record = replace(record, outcome=outcome)
        violation = self._violation(record)
        self._journal.end(record, violation)
        self._end(record)

    def _awaited(self, number: int) -> TrialRecord:
        if number not in self._running:
            running = ", ".join(map(str, sorted(self._running))) or "none"
            raise ValueError(f"trial must be one that runs, got {number}. Running: {running}.")
        return self._running[number]

    def _end(self, record: TrialRecord) -> None:
        assert record.outcome is not None
        self._running.pop(record.number)
        self._records[record.number] = record
        outcome = record.outcome
        self._tally[outcome.cause] += 1
        score = None
        if outcome.cause == "finished" and outcome.metric is not None:
            score = self._sign * outcome.metric
            self._rule.add([(share, self._sign * metric) for share, metric in record.curve], score)
            self._tally["checked"] += record.is_stop_audit
            self._tally["false_stops"] += record.is_stop_audit and score >= self._target
        elif outcome.cause == "stopped":
            score = record.projection
        if outcome.cause == "stopped" and score is None:  # stopped by the caller: it shows nothing
            self._evidence.drop(record)
        else:
            self._evidence.end(record, score)
        known = outcome.cause != "failed" and not (outcome.cause == "stopped" and score is None)
        self._planner.end(record, self._violation(record) if known else None)

    def _violation(self, record: TrialRecord) -> float:
        """Target minus score, in the metric's units; positive for whatever did not finish."""
        assert record.outcome is not None
        if record.outcome.cause == "finished" and record.outcome.metric is not None:
            return self._target - self._sign * record.outcome.metric
        if record.projection is not None:
            return max(self._target - record.projection, math.ulp(1.0))
        return self._least_violation()

    def _least_violation(self) -> float:
        """What a run that shows nothing is charged with: as bad as the worst seen."""
        worst = min(self._evidence.scores, default=self._target - 1.0)
        return max(self._target - worst, math.ulp(1.0))

    def recover(self, known: Mapping[int, Outcome]) -> tuple[Proposal, ...]:
        """Settle the trials that a killed driver left running.

        Args:
            known: the outcomes that are on record elsewhere, by trial number.

        Returns:
            The others, each under a new number with the same policy and seed, so that its run goes on from its
            checkpoint. Each counts once; the number it had is closed.
        """
        left, self._leftovers = self._leftovers, []
        proposals = []
        for record in left:
            if record.number in known:
                self.tell(record.number, known[record.number])
                continue
            self._journal.sweep(record.number, self._least_violation())
            self._running.pop(record.number)
            self._records.pop(record.number)
            self._issued[record.arm] -= 1
            self._evidence.drop(record)
            self._planner.end(record, None)
            proposals.append(self._issue(record.point, record.seed, record.confirms, record.number))
        return tuple(proposals)

    # Results.

    @property
    def counts(self) -> Counts:
        """What became of the proposals so far."""
        tally = self._tally
        return Counts(
            finished=tally["finished"],
            stopped=tally["stopped"],
            skipped=tally["skipped"],
            failed=tally["failed"] + tally["diverged"],
            diverged=tally["diverged"],
            running=len(self._running),
            checked=tally["checked"],
            false_stops=tally["false_stops"],
        )

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All trials, by number."""
        return tuple(self._records[number] for number in sorted(self._records))

    @property
    def best(self) -> Candidate | None:
        """The policy to verify first: the cheapest that is feasible beyond the luck of its seeds; None if none is."""
        return next(iter(self.candidates(1)), None)

    def best_full(self) -> Candidate | None:
        """The best of the full arm: the shorter schedule."""
        return next(iter(self.candidates(1, arm=FULL)), None)

    def candidates(self, count: int, *, arm: str | None = None) -> tuple[Candidate, ...]:
        """Up to `count` policies for verification, cheapest first.

        The first is the cheapest that is feasible; each further one is the cheapest that clears the target by one
        more standard deviation of a single run, because a test on a few seeds will rarely pass a policy that is
        feasible by a hair.
        """
        frontier = self._planner.frontier()
        if frontier is None:
            return ()
        accepted = list(frontier.accepted(arm))
        noise = self._evidence.noise
        step = noise[0] if noise is not None else 0.0
        chosen: list[Assessed] = []
        for place in range(count):
            clear = [a for a in accepted if a not in chosen and a.score >= self._target + place * step]
            chosen += clear[:1]
        chosen += [a for a in accepted if a not in chosen][: count - len(chosen)]
        return tuple(self._candidate(a) for a in sorted(chosen, key=lambda a: a.tried.cost))

    def accepted(self, *, arm: str | None = None) -> tuple[Candidate, ...]:
        """Every policy that the search would stake a verification on, cheapest first; of one arm if given."""
        frontier = self._planner.frontier()
        return tuple(self._candidate(a) for a in frontier.accepted(arm)) if frontier is not None else ()

    def likeliest(self, *, arm: str | None = None) -> Candidate | None:
        """The policy that most probably reaches the target, accepted or not; of one arm if given.

        For a search that trusts nothing: a verification of this policy tells by how much it missed.
        """
        frontier = self._planner.frontier()
        tried = [a for a in frontier.assessed if arm in (None, a.tried.arm)] if frontier is not None else []
        if not tried:
            return None
        return self._candidate(max(tried, key=lambda a: (a.probability, a.score, -a.tried.cost)))

    def _candidate(self, assessed: Assessed) -> Candidate:
        tried = assessed.tried
        return Candidate(
            policy=self._policy(tried.point),
            coordinates=tried.point,
            cost=tried.cost,
            metric=self._sign * assessed.score,
            probability=assessed.probability,
            num_seeds=len(tried.scores),
            number=tried.first,
        )


def _run_seed(seed: int, number: int) -> int:
    """The seed of a run: different for every trial of a search, and for the trials of different searches."""
    start = int.from_bytes(hashlib.sha256(f"runs:{seed}".encode()).digest()[:4], "big") % 2**30
    return start + number


def _least(axis: Coordinate) -> float:
    return float(min(axis.values)) if axis.values else axis.lo


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
