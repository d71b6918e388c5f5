"""What a policy will spend, phase by phase, before it runs: the loop's arithmetic without the training."""

from __future__ import annotations

from dataclasses import dataclass

from subsettune import select
from subsettune.facts import Price, TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.task import Recipe
from subsettune.train import orders
from subsettune.train.planning import phases


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


def project(policy: Policy, recipe: Recipe, facts: TaskFacts) -> tuple[PhaseProjection, ...]:
    """The phases of a policy that was checked, as a run of it will go.

    Exact where an update is one evaluation of its batch and the batches of a round are known beforehand. Else, with a
    line search or an order that leaves out examples by what it has seen, forward and backward passes are right to
    within one update for each phase. O(updates).

    Args:
        policy: to be run.
        recipe: with the policy's overrides.
        facts: of the task.
    """
    opened = phases.openings(policy, recipe, facts)
    ends, total = policy.boundaries(facts), policy.cost(facts)
    order = orders.of(policy.phases[0])
    stretches, spent, position, pool = [], 0, 0, None
    has_ended = False  # a run ends before the update that would exceed the total, whatever phases come after it
    for index, (opening, end) in enumerate(zip(opened, ends, strict=True)):
        is_last = index == len(ends) - 1
        is_over = has_ended or (spent >= end and not is_last)
        selected = 0 if is_over else opening.flops
        spent += selected
        own = _pool(policy, index, facts)
        if not is_over and own != pool:
            position, pool = 0, own
        at = 0 if opening.is_soup else position  # the order waits while the workers go through their shards
        updates = examples = forward = backward = 0
        while not has_ended and (spent < end or is_last):
            length = opening.lengths[at]
            price: Price = phases.update_cost(opening, order, length, spent / total)
            has_ended = spent + price.total > total
            if has_ended:
                break
            spent += price.total
            updates, examples = updates + 1, examples + length
            forward, backward = forward + price.forward, backward + price.backward
            at = (at + 1) % len(opening.lengths)
        position = position if opening.is_soup else at
        ledger = Ledger(select=selected, forward=forward, backward=backward)
        stretches.append(PhaseProjection(updates=updates, examples=examples, ledger=ledger))
    return tuple(stretches)


def _pool(policy: Policy, index: int, facts: TaskFacts) -> object:
    """Something that is equal for phases on the same pool; a choice by the run's own network is never the same."""
    phase = policy.phases[index]
    if phase.is_full:
        return "all"
    selector = select.selector_of(policy, index)
    if selector.model_need is not None and selector.model_need.source == "current":
        return index
    draw = 0 if selector.is_deterministic else phase.draw
    return phase.pool_size(facts.num_examples), phase.selector, phase.selector_options, draw
