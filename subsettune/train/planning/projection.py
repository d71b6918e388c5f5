"""What a policy will spend, phase by phase, before it runs: the loop's arithmetic without the training."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from subsettune.facts import Price
from subsettune.ledger import Ledger
from subsettune.train import schedule
from subsettune.train.planning.phases import ResolvedPhase, ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseProjection:
    """A phase as it will be carried out.

    Args:
        updates: of the optimizer; of a soup, of every worker.
        examples: that the batches hold, of which an order may leave some out; of a soup, over all workers.
        ledger: of the phase, without evaluation.
    """

    updates: int
    examples: int
    ledger: Ledger


def project(resolved: ResolvedPolicy) -> tuple[PhaseProjection, ...]:
    """The phases of a policy that was checked, as a run of it will go.

    Exact where an update is one evaluation of its batch, and batches are as long as the order says. With a line search
    forward and backward passes are right to within one update for each phase. O(updates).
    """
    projector = _Projector(resolved)
    return tuple(projector.project(phase, end) for phase, end in zip(resolved.phases, resolved.ends, strict=True))


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """Every update of a policy, as a run of it makes them one after the other; exact as `project` is.

    Args:
        phases: index of the phase of each update.
        lengths: examples of its batch.
        shares: of the policy's compute, spent before it.
        factors: of the learning rate, by the schedule.
        prices: FLOPs of the update itself; few different ones, each there once.
        begins: phases that are begun, in order, with the number of updates before; one may have none of its own.
    """

    phases: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    shares: array[float] = field(default_factory=lambda: array("d"))
    factors: array[float] = field(default_factory=lambda: array("d"))
    prices: list[Price] = field(default_factory=list)
    begins: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.phases)


def plan_steps(resolved: ResolvedPolicy) -> StepPlan:
    """The updates of a policy that was checked, where each is one evaluation of its batch. O(updates)."""
    plan = StepPlan()
    projector = _Projector(resolved, plan)
    for phase, end in zip(resolved.phases, resolved.ends, strict=True):
        projector.project(phase, end)
    total, trained = resolved.total - sum(phase.flops for phase in resolved.phases), 0
    factor = schedule.make(resolved.recipe.schedule, resolved.recipe.schedule_options)
    for price in plan.prices:
        plan.factors.append(factor(trained / total))
        trained += price.total
    return plan


class _Projector:
    """Goes through the phases as a run does."""

    def __init__(self, resolved: ResolvedPolicy, plan: StepPlan | None = None) -> None:
        self._plan, self._prices = plan, dict[Price, Price]()
        self._last, self._total = resolved.phases[-1], resolved.total
        self._spent, self._position = 0, 0
        self._pool: object = None
        self._has_ended = False  # a run ends before the update that would exceed the total, whatever phases come then

    def project(self, phase: ResolvedPhase, end: int) -> PhaseProjection:
        """The next phase."""
        is_last = phase is self._last
        is_over = self._has_ended or (self._spent >= end and not is_last)
        selected = 0 if is_over else phase.flops
        if self._plan is not None and not is_over:
            self._plan.begins.append((phase.index, len(self._plan)))
        self._spent += selected
        if not is_over and phase.pool_identity != self._pool:
            self._position, self._pool = 0, phase.pool_identity
        at = 0 if phase.is_soup else self._position  # the order waits while the workers go through their shards
        updates = examples = forward = backward = 0
        while not self._has_ended and (self._spent < end or is_last):
            length = phase.lengths[at]
            price = phase.update_cost(length, self._spent / self._total)
            self._has_ended = self._spent + price.total > self._total
            if self._has_ended:
                break
            if self._plan is not None:
                self._note(self._plan, phase.index, length, price)
            self._spent += price.total
            updates, examples = updates + 1, examples + length
            forward, backward = forward + price.forward, backward + price.backward
            at = (at + 1) % len(phase.lengths)
        self._position = self._position if phase.is_soup else at
        ledger = Ledger(select=selected, forward=forward, backward=backward)
        return PhaseProjection(updates=updates, examples=examples, ledger=ledger)

    def _note(self, plan: StepPlan, phase: int, length: int, price: Price) -> None:
        plan.phases.append(phase)
        plan.lengths.append(length)
        plan.shares.append(self._spent / self._total)
        plan.prices.append(self._prices.setdefault(price, price))
