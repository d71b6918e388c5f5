"""What the next trial is spent on: which arm it goes to, and the first of that arm's plans that is of any use.

The arm `full` opens and gets at least a third of all trials. Where the sampler ends the search when nothing pays, any
other trial goes to the plan that gains most, and the third of the arm `full` is spent on what tells most for what it
costs; until a policy is accepted the search goes on though nothing pays. For the other samplers the arm `subset` gets
at least another third, and the rest goes where the model expects more. Of an arm's plans, one above the bound is moved
below it, and one that could tell nothing (known and free of noise, running already, not to be run at all) is turned
down; both count as skipped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from subsettune.config import FrozenDict
from subsettune.policy import FULL, SUBSET
from subsettune.study.search.observations import PolicyObservations, SearchEvidence, TrialRecord
from subsettune.study.search.planner import Planner
from subsettune.study.search.problem import SearchProblem
from subsettune.study.search.sources import Plan, SearchState
from subsettune.study.spec.coordinate import Coordinate

_OPENING_PART = 8  # one trial in so many, and two at least, opens the search in the full arm
_NUM_OPENING = 2  # trials of the full arm that open a search which ends when nothing pays
_ROUNDING = 1e-6  # relative; a bound this near to the least budget leaves nothing below it
_MAX_ALTERNATIVES = 64  # plans looked at before an arm counts as having nothing valid left
_AUDIT_EVERY = 4  # trials after which the policy that sets a bound is run again; 4 more each time after that
_THIRD = 3  # the full arm gets at least one trial in so many, and so does the subset arm


class Allocation:
    """Spends trials. Holds no state but which trials were begun, and how many plans were turned down.

    Args:
        problem: what is searched.
        num_trials: of the whole search.
        evidence: shared with the search, which fills it.
        planner: shared with the search, which shows it the trials.
        num_skipped: plans that were turned down before.
    """

    def __init__(
        self,
        problem: SearchProblem,
        num_trials: int,
        evidence: SearchEvidence,
        planner: Planner,
        num_skipped: int,
    ) -> None:
        self._problem = problem
        self._space = problem.space
        self._num_trials = num_trials
        self._evidence = evidence
        self._planner = planner
        self._begun: dict[FrozenDict, int] = {}  # of each policy, how many trials had begun when its last one had
        self._issued = dict.fromkeys((FULL, SUBSET), 0)
        self.num_skipped = num_skipped

    def start(self, record: TrialRecord) -> None:
        """A trial began."""
        self._issued[record.arm] += 1
        self._begun[record.point] = self._num_issued

    @property
    def remaining(self) -> int:
        """Trials left to spend."""
        return self._num_trials - self._num_issued

    def next_plan(self, number: int) -> Plan | None:
        """What to spend trial `number` on; None if nothing would be of use, unless a running trial changes that."""
        audited = self._audit()
        if audited is not None:
            return Plan(point=audited.point, repeats=audited)
        if self._planner.ends:
            return self._paying_plan(number)
        plans = (self._first_useful(state) for state in self._states(number))
        return next((plan for plan in plans if plan is not None), None)

    def _paying_plan(self, number: int) -> Plan | None:
        """The plan that gains most; None if none pays. An arm behind its third comes first while any arm has one."""
        arms = self._space.arms
        plans = {arm: self._first_useful(self._state(arm, number, rival=True)) for arm in arms}
        paying = {arm: plan for arm, plan in plans.items() if plan is not None}
        if not paying:
            is_found = any(math.isfinite(self._planner.bound(arm)) for arm in arms)
            return None if is_found else self._forced_plan(number, (*self._due(), *arms))
        chosen = max(reversed(list(paying)), key=lambda arm: paying[arm].value)
        if chosen != FULL and (FULL in self._due() or self._num_issued < _NUM_OPENING):
            own = paying.get(FULL)
            plan = own if own is not None and own.is_probe else self._forced_plan(number, (FULL,))
            return plan or own or paying[chosen]
        return paying[chosen]

    def _forced_plan(self, number: int, arms: Sequence[str]) -> Plan | None:
        """The plan that tells most for what it costs, of the first arm that has one, though it may not pay."""
        plans = (self._first_useful(self._state(arm, number, rival=True, must=True)) for arm in arms)
        return next((plan for plan in plans if plan is not None), None)

    # Arms.

    @property
    def _num_issued(self) -> int:
        return sum(self._issued.values())

    def _states(self, number: int) -> Iterator[SearchState]:
        """The arms in the order in which they are to be tried: those behind their third, then the more promising."""
        arms = self._space.arms
        if len(arms) == 1 or self._num_issued < max(2, self._num_trials // _OPENING_PART):
            yield self._state(FULL, number)
            return
        due = self._due()
        if due:
            yield self._state(due[0], number)
        rivals = [self._state(arm, number, rival=True) for arm in arms if arm not in due[:1]]
        if len(rivals) > 1:
            values = [self._planner.value(state) for state in rivals]
            rivals = [rivals[i] for i in sorted(range(len(rivals)), key=lambda i: (-values[i], -i))]
        yield from rivals

    def _due(self) -> list[str]:
        """The arms that fall behind their third unless the next trial is theirs."""
        arms = self._space.arms
        return [arm for arm in arms if len(arms) > 1 and _THIRD * self._issued[arm] < self._num_issued + 1]

    def _state(self, arm: str, number: int, *, rival: bool = False, must: bool = False) -> SearchState:
        return SearchState(
            arm=arm,
            num_in_arm=self._issued[arm],
            remaining=self.remaining,
            trials=self._num_trials,
            number=number,
            rival=rival,
            must=must,
        )

    # Repeats of the policy that everything later is built on.

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
            setter = _cheapest(self._evidence.confirmed(arm))
            if setter is None or setter.num_running:
                continue
            begun_since = self._num_issued - self._begun[setter.point]
            if begun_since >= _AUDIT_EVERY * (len(setter.scores) - 1):
                return setter
        return None

    # Plans.

    def _first_useful(self, state: SearchState) -> Plan | None:
        """The first plan that may run; None if the arm has nothing left that could be cheaper."""
        bound = self._planner.bound(state.arm)
        if bound <= _least(self._space["budget"]) * (1 + _ROUNDING):
            return None if state.rival else self._last_resort(state.arm)
        plans = itertools.islice(self._planner.plans(state), _MAX_ALTERNATIVES)
        allowed = (self._allow(plan, bound) for plan in plans)
        return next((plan for plan in allowed if plan is not None), None)

    def _allow(self, plan: Plan, bound: float) -> Plan | None:
        """The plan as it may run, moved below the bound if need be; None if it is no use. Counts what it turns down."""
        if plan.repeats is not None:
            return plan
        point = plan.point
        if point["budget"] >= bound:
            self.num_skipped += 1
            moved = self._planner.below(point, bound)
            if moved is None:
                return None
            point = moved
        known = self._evidence.find(point)
        if self._is_useless(point, known):
            self.num_skipped += 1
            return None
        return replace(plan, point=point, repeats=known)

    def _is_useless(self, point: FrozenDict, known: PolicyObservations | None) -> bool:
        policy = self._problem.policy(point)
        is_known = known is not None and (known.num_running or known.num_lost or self._evidence.is_noise_free)
        is_misplaced = policy.arm != point["arm"]  # a subset of all data and nothing else: the full arm tries it
        return bool(is_known) or is_misplaced or self._problem.why_not(policy) is not None

    def _last_resort(self, arm: str) -> Plan | None:
        """A repeat of an arm's confirmed policy at the least budget there is: all that is left to do in the arm."""
        tried = _cheapest(tried for tried in self._evidence.confirmed(arm) if not tried.num_running)
        return Plan(point=tried.point, repeats=tried) if tried is not None else None


def _cheapest(policies: Iterator[PolicyObservations]) -> PolicyObservations | None:
    return min(policies, key=lambda tried: (tried.cost, tried.first), default=None)


def _least(budget: Coordinate) -> float:
    return float(min(budget.values)) if budget.values else budget.lo
