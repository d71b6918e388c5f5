"""The search: which policy to run next, when to stop it, and which policies to verify. Knows no Ray.

The cost of a policy is known before it runs and its accuracy is noisy, so the search minimises a known cost under a
noisy constraint. It is asked (`propose`), watches (`observe`) and is told (`tell`). All trials live in one Optuna
study, whose journal alone is enough to rebuild a `Search` that goes on as the first would have.

1. The `full` arm opens, and gets at least a third of all trials.
2. New points come from the sampler. `frontier` (the default up to about 100 trials) is this package's own: it opens
   with the unchanged recipe at two small budgets and a cheap design in each arm, models the budget that each policy
   needs (`needs`), and spends a trial on what saves most for what it costs. It ends by itself when nothing pays;
   `trials` is a cap. `gp` and `tpe` are Optuna's, with the log of the cost as objective and the accuracy as constraint;
   `random` draws evenly. These three spend all trials. `benchmarks/search.py` compares them.
3. A policy that passed is repeated with other seeds when that can make it the best. For `frontier` only one that is
   accepted on three seeds sets the *bound*, for the others one feasible on two; further proposals of its arm lie below
   it. One above it is counted as skipped and moved to the same place of the range that is still useful.
4. Proposals depend on what was told *in the order of asking*: number n is chosen by what numbers up to n - parallel
   showed, and waits for them, so that a search ends the same whichever of its trials finishes first. (Where these leave
   nothing of use it waits for the next one, too.) Stopping a trial early depends on what its own proposal knew.
5. What it would stake a verification on is its short list (`shortlist`).
6. A search may be told of earlier ones (`earlier`): their trials move what `frontier` expects and shorten its opening,
   and count as no seed of any policy.
7. A trial that was cut off keeps its number, and with it its seed. It is written down which trials a proposal knew, and
   a journal is taken up in that order: a search that was interrupted goes on as if it had not been.

The value told to Optuna is the cost of the whole policy. FLOPs, passes and projected seconds are proportional to one
another for a given task, so the order of costs is the same in each.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend

from subsettune.config import FrozenDict
from subsettune.policy import Policy
from subsettune.study.search.allocation import Allocation
from subsettune.study.search.belief import SEEDS
from subsettune.study.search.early_stopping import GainRule, is_stop_audit
from subsettune.study.search.ended import AllEnded, is_telling, put, score_of, violation
from subsettune.study.search.journal import Journal
from subsettune.study.search.observations import Outcome, TrialRecord
from subsettune.study.search.planner import Planner
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.shortlist import Shortlist
from subsettune.study.search.sources import Plan

__all__ = ["DONE", "WAIT", "Counts", "Outcome", "Pause", "Proposal", "Search", "SearchProblem", "SearchSettings"]


class Pause(enum.Enum):
    """Why there is no proposal: `WAIT` until a running trial ends, or `DONE`: there will be none."""

    WAIT = "wait"
    DONE = "done"


WAIT, DONE = Pause.WAIT, Pause.DONE


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
    """

    number: int
    policy: Policy
    coordinates: FrozenDict
    seed: int
    cost: float
    confirms: int | None = None


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
        problem: what is searched, and what counts as found.
        settings: how to search.
        storage: an Optuna storage or journal backend; None keeps the study in memory.
        name: of the Optuna study: the run id.

    Raises:
        StudyError: the journal is damaged, or belongs to another study.
    """

    def __init__(
        self,
        problem: SearchProblem,
        settings: SearchSettings,
        *,
        storage: BaseStorage | BaseJournalBackend | None = None,
        name: str = "search",
    ) -> None:
        self.settings = settings
        self._problem = problem
        self._evidence = problem.evidence(settings.noise, settings.seed)
        self._planner = Planner(problem.space, self._evidence, settings.source, settings.seed, problem.known)
        identity = problem.identity | {"seed": settings.seed}
        self._journal = Journal(storage, name, identity, self._planner.proposals)
        self._allocation = Allocation(
            problem, settings.trials, self._evidence, self._planner, self._journal.num_skipped
        )
        self._rule = GainRule(problem.target_score)
        self._records: dict[int, TrialRecord] = {}
        self._restarts: deque[Proposal] = deque()
        self._next_number = 0
        self._running: dict[int, TrialRecord] = {}
        self._set_aside: set[int] = set()  # of the running: they have ended, and how is told later
        self._held: dict[int, TrialRecord] = {}  # ended, and not yet shown to what proposes
        self._all_ended: AllEnded | None = None
        self._basis: dict[int, tuple[int, float | None]] = {}  # of stopping a running trial; see `_begin`
        self._refused: tuple[int, int] | None = None  # number and trials shown at which there was no plan
        self._num_shown = 0
        self._tally: Counter[str] = Counter()
        self._num_finished: Counter[FrozenDict] = Counter()  # runs of each policy
        self._leftovers: list[TrialRecord] = []
        self._load()
        if self._allocation.remaining > 0:
            self._journal.refuse_other_proposals()

    def _load(self) -> None:
        """Take up the trials that the journal holds, each when as many others were shown as when it was proposed."""
        for record, is_over in self._journal.trials():
            self._next_number = record.number + 1
            if record.point and record.num_shown is not None:
                self._show_first(record.num_shown)
            if record.outcome is not None:
                self._begin(record)
                self._end(record)
                if not is_over:  # the driver died between writing the outcome and closing the trial
                    self._journal.end(record, self._violation(record))
            elif not is_over and record.point:
                self._begin(record)
                self._leftovers.append(record)
            elif not is_over:  # the driver died before the trial was a proposal, which is made again
                self._next_number = record.number

    def propose(self) -> Proposal | Pause:
        """The next run; `WAIT` while as many run as may or one of them has to end first; `DONE` if there is none."""
        self._restarts.extend(self.recover())
        if self._restarts:
            return self._restarts.popleft()
        if self._allocation.remaining <= 0:
            return DONE
        number = self._next_number
        if len(self._awaited_now) >= self.settings.parallel or not self._show(number - self.settings.parallel):
            return WAIT
        while (plan := self._plan(number)) is None:
            following = min((*self._held, *self._awaited_now), default=None)
            if following is None:
                return DONE
            if not self._show(following):
                return WAIT
        return self._issue(plan.point, self._seed(plan.point, number), plan.confirms, is_probe=plan.is_probe)

    def _seed(self, point: FrozenDict, number: int) -> int:
        """Of a run; trials that may begin alike have the same, but none has that of another run of its policy."""
        known, stems = self._evidence.find(point), self._evidence.stems
        own = None if stems is None else stems.seed(point, 0 if known is None else known.num_begun)
        return _run_seed(self._problem.seed_of_runs(self.settings.seed), number) if own is None else own

    def _plan(self, number: int) -> Plan | None:
        """What to spend a trial on; None if what was shown so far leaves nothing of use."""
        moment = (number, self._num_shown)
        if self._refused == moment:
            return None
        plan = self._allocation.next_plan(number)
        self._refused = moment if plan is None else None
        return plan

    def _show(self, last: int) -> bool:
        """Show what proposes the trials up to a number, in order; False if one of them has not ended."""
        if min(self._awaited_now, default=last + 1) <= last:
            return False
        self._show_these(sorted(number for number in self._held if number <= last))
        return True

    def _show_first(self, num_shown: int) -> None:
        """Show trials that ended, in order, until as many are shown."""
        self._show_these(sorted(self._held)[: max(0, num_shown - self._num_shown)])

    def _show_these(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            record = self._held.pop(number)
            self._num_shown += 1
            put(record, self._problem, self._evidence)
            if record.curve and record.outcome is not None and record.outcome.cause == "finished":
                final = score_of(record, self._problem)
                assert final is not None
                self._rule.add([(share, self._problem.score(metric)) for share, metric in record.curve], final)
            self._planner.end(record, self._violation(record) if is_telling(record) else None)

    def _issue(self, point: FrozenDict, seed: int, confirms: int | None, *, is_probe: bool = False) -> Proposal:
        """Write a trial down and hand it out."""
        cost = float(point["budget"])
        proposal = {"point": point, "seed": seed, "cost": cost, "confirms": confirms, "num_shown": self._num_shown}
        proposal |= {"is_probe": True} if is_probe else {}
        number = self._journal.begin(self._problem.space, proposal, self._allocation.num_skipped)
        self._next_number = number + 1
        record = TrialRecord(
            number=number,
            point=point,
            seed=seed,
            cost=cost,
            confirms=confirms,
            is_probe=is_probe,
            num_shown=self._num_shown,
        )
        self._begin(record)
        return self._proposal(record)

    def _proposal(self, record: TrialRecord) -> Proposal:
        return Proposal(
            number=record.number,
            policy=self._problem.policy(record.point),
            coordinates=record.point,
            seed=record.seed,
            cost=record.cost,
            confirms=record.confirms,
        )

    def _begin(self, record: TrialRecord) -> None:
        noise = self._evidence.noise
        self._basis[record.number] = (self._rule.num_finished, None if noise is None else noise[0])
        self._running[record.number] = record
        self._records[record.number] = record
        self._evidence.start(record)
        self._planner.start(record)
        self._allocation.start(record)
        if self._all_ended is not None:
            self._all_ended.start(record)

    # Watching and being told.

    def observe(self, number: int, share_used: float, metric: float) -> bool:
        """Note a point of a learning curve; True asks the caller to stop the run and `tell` it as stopped.

        Args:
            number: of the trial.
            share_used: of the trial's own budget; a run that went on from before it tells it again.
            metric: at that point; NaN is left to `tell`.
        """
        record = self._awaited(number)
        if not math.isfinite(metric):
            return False
        before = (point for point in record.curve if point[0] < share_used)
        record = replace(record, curve=(*before, (float(share_used), float(metric))))
        score, (num_finished, noise) = self._problem.score(metric), self._basis[number]
        may_stop = noise is not None and share_used < 1 and not record.is_probe
        projection = self._rule.projection(share_used, score, noise or 0.0, num_finished) if may_stop else None
        is_hopeless = projection is not None and projection < self._problem.target_score
        if is_hopeless and not record.is_stop_audit:
            if is_stop_audit(self.settings.seed, number, self.settings.check_stops):
                record = replace(record, is_stop_audit=True)
            else:
                record = replace(record, projection=projection)
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

    def set_aside(self, number: int) -> None:
        """A running trial has ended, and `tell` comes later, or never: until then nobody waits for it."""
        self._set_aside.add(self._awaited(number).number)

    @property
    def _awaited_now(self) -> list[int]:
        return [number for number in self._running if number not in self._set_aside]

    def _awaited(self, number: int) -> TrialRecord:
        if number not in self._running:
            running = ", ".join(map(str, sorted(self._running))) or "none"
            raise ValueError(f"trial must be one that runs, got {number}. Running: {running}.")
        return self._running[number]

    def _end(self, record: TrialRecord) -> None:
        assert record.outcome is not None
        self._running.pop(record.number)
        self._set_aside.discard(record.number)
        self._basis.pop(record.number)
        self._records[record.number] = self._held[record.number] = record
        self._all_ended = None
        outcome = record.outcome
        self._tally[outcome.cause] += 1
        if outcome.cause == "finished" and outcome.metric is not None:
            self._num_finished[record.point] += 1
            self._tally["checked"] += record.is_stop_audit
            reached = self._problem.score(outcome.metric) >= self._problem.target_score
            self._tally["false_stops"] += record.is_stop_audit and reached

    def _violation(self, record: TrialRecord) -> float:
        return violation(record, self._problem, self._evidence)

    def observe_all(self, number: int, curve: Iterable[tuple[float, float]]) -> None:
        """Note the whole learning curve of a trial that has ended, of which an earlier driver may have seen a part.

        Args:
            number: of the trial.
            curve: (share of its own budget used, metric), in order, the end left out.
        """
        curve = tuple(curve)
        if curve != self._awaited(number).curve:
            self._running[number] = replace(self._running[number], curve=())
            for share_used, metric in curve:
                self.observe(number, share_used, metric)

    @property
    def leftovers(self) -> tuple[int, ...]:
        """Numbers of the trials that a killed driver left running, and that were not told since."""
        return tuple(record.number for record in self._leftovers if record.number in self._running)

    def recover(self) -> tuple[Proposal, ...]:
        """Hand out the trials again that a killed driver left running: the same numbers, policies and seeds.

        Their runs go on from their checkpoints. Those of which the outcome is on record are told beforehand.
        """
        left, self._leftovers = self._leftovers, []
        return tuple(self._proposal(record) for record in left if record.number in self._running)

    # Results.

    @property
    def counts(self) -> Counts:
        """What became of the proposals so far."""
        tally = self._tally
        return Counts(
            finished=tally["finished"],
            stopped=tally["stopped"],
            skipped=self._allocation.num_skipped,
            failed=tally["failed"] + tally["diverged"],
            diverged=tally["diverged"],
            running=len(self._running),
            checked=tally["checked"],
            false_stops=tally["false_stops"],
        )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are searched."""
        return self._problem.space.arms

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All trials, by number."""
        return tuple(self._records[number] for number in sorted(self._records))

    def is_audit(self, number: int) -> bool:
        """Whether a trial would have been stopped and was run out to see if that had been right."""
        return self._records[number].is_stop_audit

    def may_lead(self, number: int) -> bool:
        """Whether the policy of a trial was run often enough to come first in the short list."""
        needed = 1 if self._evidence.is_noise_free else SEEDS
        return self._num_finished[self._records[number].point] >= needed

    @property
    def shortlist(self) -> Shortlist:
        """What the search would hand on as it stands."""
        if not self._held:
            return Shortlist(self._problem, self._evidence, self._planner.needs())
        if self._all_ended is None:
            unseen = self._problem.evidence(self.settings.noise, self.settings.seed)
            self._all_ended = AllEnded(self._problem, unseen, self._planner, self.records)
        return self._all_ended.shortlist()


def _run_seed(seed: int, number: int) -> int:
    """The seed of a run: different for every trial of a search, and for the trials of different searches."""
    start = int.from_bytes(hashlib.sha256(f"runs:{seed}".encode()).digest()[:4], "big") % 2**30
    return start + number
