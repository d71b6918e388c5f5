"""What happens when a phase begins and what it costs: choosing examples, transition, soup; and the network after it."""

from __future__ import annotations

from dataclasses import dataclass

from subsettune import config, select
from subsettune.errors import ConfigError
from subsettune.facts import Price, TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.task import Recipe
from subsettune.train import optimizers, orders, transitions
from subsettune.train.soup import workers


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPhase:
    """The beginning of a phase.

    Args:
        flops: charged as selection before the first update.
        facts: of the network in the phase, which a transition may have made narrower.
        lengths: of the batches of a round, over all workers of a soup.
        is_soup: whether a batch is that of the workers of a soup, which follow no order.
    """

    flops: int
    facts: TaskFacts
    lengths: tuple[int, ...]
    is_soup: bool


def openings(policy: Policy, recipe: Recipe, facts: TaskFacts) -> tuple[ResolvedPhase, ...]:
    """The beginning of each phase of a policy that was checked.

    Raises:
        ConfigError: unknown components or options.
    """
    found, now = [], facts
    for index, phase in enumerate(policy.phases):
        k = phase.pool_size(facts.num_examples)
        opened, active_soup, order = transitions.of(phase), phase.active_soup, orders.of(phase)
        flops = select.selection_flops(policy, index, facts, now) + opened.flops(now, k)
        now = opened.facts_after(now)
        if active_soup is not None:
            flops += workers.flops(active_soup, k, now)
            rounds = workers.lengths(active_soup, k, recipe.batch_size)
        else:
            rounds = order.lengths(k, recipe.batch_size)
        found.append(ResolvedPhase(flops=flops, facts=now, lengths=tuple(rounds), is_soup=active_soup is not None))
    return tuple(found)


def before(policy: Policy, facts: TaskFacts) -> tuple[TaskFacts, ...]:
    """Facts of the network when each phase of a policy begins, before its transition; of one that was checked."""
    found = [facts]
    for phase in policy.phases[:-1]:
        found.append(transitions.of(phase).facts_after(found[-1]))
    return tuple(found)


def update_cost(opening: ResolvedPhase, order: orders.Order, length: int, share: float) -> Price:
    """FLOPs of an update of a phase on a batch of some length; of a soup, on the batches of all workers."""
    if opening.is_soup:
        forward, backward = opening.facts.forward_flops, opening.facts.backward_flops
        return Price(forward=length * forward, backward=length * backward)
    return order.update_cost(length, share, opening.facts)


def check(policy: Policy, recipe: Recipe, facts: TaskFacts) -> None:
    """Check orders, transitions and soups of a policy against the network, phase by phase.

    Raises:
        ConfigError: an unknown or impossible component.
    """
    now = facts
    for index, phase in enumerate(policy.phases):
        opened = transitions.make(phase.transition, phase.transition_options)
        if index == 0 and phase.transition != "keep":
            raise ConfigError(
                f"transition of the first phase must be keep, got {phase.transition!r}. There is nothing to enter from."
            )
        first = policy.phases[0]
        if (phase.order, phase.order_options) != (first.order, first.order_options):
            raise ConfigError("all phases of a policy must have the same order. Give each phase the same one.")
        problem = None if opened.is_neutral else opened.why_not(recipe, now)
        if problem is None:
            now = transitions.of(phase).facts_after(now)
            problem = _obstacle(phase, recipe, now)
        if problem is not None:
            raise ConfigError(problem if len(policy.phases) <= 2 else f"Phase {index + 1}: {problem}")


def _obstacle(phase: Phase, recipe: Recipe, facts: TaskFacts) -> str | None:
    """Why a phase cannot be trained in its order or as a soup by the network that its transition leaves behind."""
    order, active_soup = orders.of(phase), phase.active_soup
    refused = None if order.is_neutral else order.why_not(recipe, facts)
    if refused is None and active_soup is not None:
        refused = workers.why_not(active_soup, phase.pool_size(facts.num_examples), recipe, facts)
    return refused


def check_compute(policy: Policy, recipe: Recipe, facts: TaskFacts) -> None:
    """Check that every phase can pay for its opening, and the policy for one update.

    A later phase starts up to one update late, and the total is a hard cap. Where an update evaluates its batch several
    times, it is cut short at the end of its phase: one evaluation late.

    Raises:
        ConfigError: a phase or the policy has too little compute.
    """
    opened = openings(policy, recipe, facts)
    order, late = orders.of(policy.phases[0]), 0
    for number, (phase, opening) in enumerate(zip(policy.phases, opened, strict=True), start=1):
        longest = max(opening.lengths, default=0)
        one = 0 if opening.is_soup else order.max_update_flops(longest, opening.facts)
        one = update_cost(opening, order, longest, 0.0).total if opening.is_soup else one
        changes = transitions.of(phase).flops(opened[max(0, number - 2)].facts, phase.pool_size(facts.num_examples)) > 0
        needed = opening.flops + late + (one if changes or opening.is_soup else 0)
        if (opening.is_soup or (number > 1 and opening.flops)) and needed > round(phase.passes * facts.pass_flops):
            raise ConfigError(
                f"phase {number} has {phase.passes:.3g} passes, and {_doing(phase)} "
                f"{needed / facts.pass_flops:.3g}, {_included(number, opening)} included. Give the phase more compute."
            )
        late = max(late, one)
    _check_first_update(policy, recipe, facts, opened)


def _doing(phase: Phase) -> str:
    """What the opening of a phase spends its compute on, with its verb, for messages."""
    done = [] if phase.is_full else [f"choosing its examples with {phase.selector}"]
    done += [] if transitions.of(phase).is_neutral else [f"its transition {phase.transition}"]
    done += [] if phase.active_soup is None else ["its soup"]
    return f"{done[0]} needs" if len(done) == 1 else f"{', '.join(done[:-1])} and {done[-1]} need"


def _included(number: int, opening: ResolvedPhase) -> str:
    """Which updates are part of what the opening of a phase needs, for messages."""
    before = ["the last update before it"] if number > 1 else []
    return " and ".join([*before, *(["one step of every worker"] if opening.is_soup else [])])


def _check_first_update(policy: Policy, recipe: Recipe, facts: TaskFacts, opened: tuple[ResolvedPhase, ...]) -> None:
    order, cost, spent = orders.of(policy.phases[0]), policy.cost(facts), 0
    size, first = 0, 0
    for index, (opening, end) in enumerate(zip(opened, policy.boundaries(facts), strict=True)):
        if spent >= end:
            continue
        spent += opening.flops
        if spent < end:
            _check_entered(policy, facts, index)
            size = opening.lengths[0]
            first = update_cost(opening, order, size, spent / cost).total
            break
    evaluations = optimizers.least_evaluations(recipe)
    if size and spent + evaluations * first <= cost:
        return
    if not size:
        size = min(recipe.batch_size, facts.num_examples)
        first = order.update_cost(size, 0.0, facts).total
    needed = (spent + evaluations * first) / facts.pass_flops
    update = "one update" if evaluations == 1 else f"one update, which is {evaluations} evaluations,"
    advice = "Give the policy more compute" + ("." if evaluations > 1 else ", or use a smaller batch_size.")
    raise ConfigError(
        f"passes must be at least {needed:.3g} for {update} on {size} examples, got {policy.passes:.3g}. {advice}"
    )


def _check_entered(policy: Policy, facts: TaskFacts, first: int) -> None:
    """Check that every transition that is paid for happens: none does before the first update, in phase `first`."""
    for number, phase in enumerate(policy.phases[: first + 1], start=1):
        if transitions.of(phase).flops(facts, phase.pool_size(facts.num_examples)):
            advice = "Give the phases before it compute for an update."
            raise ConfigError(
                config.must(f"transition of phase {number}", "keep before any update", phase.transition, advice)
            )
