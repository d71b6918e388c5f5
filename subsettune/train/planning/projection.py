"""What a policy will spend, phase by phase, before it runs: the loop's arithmetic without the training."""

from __future__ import annotations

from dataclasses import dataclass

from subsettune.ledger import Ledger
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


class _Projector:
    """Goes through the phases as a run does."""

    def __init__(self, resolved: ResolvedPolicy) -> None:
        self._last, self._total = resolved.phases[-1], resolved.total
        self._spent, self._position = 0, 0
        self._pool: object = None
        self._has_ended = False  # a run ends before the update that would exceed the total, whatever phases come then

    def project(self, phase: ResolvedPhase, end: int) -> PhaseProjection:
        """The next phase."""
        is_last = phase is self._last
        is_over = self._has_ended or (self._spent >= end and not is_last)
        selected = 0 if is_over else phase.flops
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
            self._spent += price.total
            updates, examples = updates + 1, examples + length
            forward, backward = forward + price.forward, backward + price.backward
            at = (at + 1) % len(phase.lengths)
        self._position = self._position if phase.is_soup else at
        ledger = Ledger(select=selected, forward=forward, backward=backward)
        return PhaseProjection(updates=updates, examples=examples, ledger=ledger)
