"""Whether the compute of a policy suffices: for what each phase begins with, and for one update at least."""

from __future__ import annotations

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.select.accounting import why_not_paid
from subsettune.train import optimizers
from subsettune.train.planning.phases import ResolvedPhase, ResolvedPolicy, in_phase


def check_selections(resolved: ResolvedPolicy) -> None:
    """Check that no selection costs more than its phase may spend.

    Raises:
        ConfigError: one does.
    """
    for one in resolved.phases:
        problem = None if one.selection is None else why_not_paid(one.phase, one.selection, resolved.facts)
        if problem is not None:
            raise ConfigError(in_phase(resolved.policy, one.index, problem))


def check(resolved: ResolvedPolicy) -> None:
    """Check that every phase can pay for its beginning, and the policy for one update.

    A later phase starts up to one update late, and the total is a hard cap. Where an update evaluates its batch several
    times, it is cut short at the end of its phase: one evaluation late.

    Raises:
        ConfigError: a phase or the policy has too little compute.
    """
    facts, late = resolved.facts, 0
    for one in resolved.phases:
        is_first, passes, dearest = one.index == 0, one.phase.passes, one.max_update_flops
        needed = one.flops + late + (dearest if one.transition_flops or one.is_soup else 0)
        is_at_risk = one.is_soup or (one.flops and not is_first)
        if is_at_risk and needed > round(passes * facts.pass_flops):
            raise ConfigError(
                f"phase {one.index + 1} has {passes:.3g} passes, and {_doing(one)} "
                f"{needed / facts.pass_flops:.3g}, {_included(one)} included. Give the phase more compute."
            )
        late = max(late, dearest)
    _check_first_update(resolved)


def _doing(one: ResolvedPhase) -> str:
    """What the beginning of a phase spends its compute on, with its verb, for messages."""
    done = [] if one.selection is None else [f"choosing its examples with {one.phase.selector}"]
    done += [] if one.transition.is_neutral else [f"its transition {one.phase.transition}"]
    done += ["its soup"] if one.is_soup else []
    return f"{done[0]} needs" if len(done) == 1 else f"{', '.join(done[:-1])} and {done[-1]} need"


def _included(one: ResolvedPhase) -> str:
    """Which updates are part of what the beginning of a phase needs, for messages."""
    before = ["the last update before it"] if one.index else []
    return " and ".join([*before, *(["one step of every worker"] if one.is_soup else [])])


def _check_first_update(resolved: ResolvedPolicy) -> None:
    """Check that the policy pays for one update, in the first phase of which compute is left after its beginning."""
    recipe, facts, cost, spent = resolved.recipe, resolved.facts, resolved.total, 0
    size, first = 0, 0
    for one, end in zip(resolved.phases, resolved.ends, strict=True):
        if spent >= end:
            continue
        spent += one.flops
        if spent < end:
            _check_no_transition(resolved, one.index)
            size = one.lengths[0]
            first = one.update_cost(size, spent / cost).total
            break
    evaluations = optimizers.least_evaluations(recipe)
    if size and spent + evaluations * first <= cost:
        return
    if not size:
        size = min(recipe.batch_size, facts.num_examples)
        first = resolved.order.update_cost(size, 0.0, facts).total
    needed = (spent + evaluations * first) / facts.pass_flops
    update = "one update" if evaluations == 1 else f"one update, which is {evaluations} evaluations,"
    advice = "Give the policy more compute" + ("." if evaluations > 1 else ", or use a smaller batch_size.")
    raise ConfigError(
        f"passes must be at least {needed:.3g} for {update} on {size} examples, got {resolved.policy.passes:.3g}. "
        f"{advice}"
    )


def _check_no_transition(resolved: ResolvedPolicy, first: int) -> None:
    """Check that no transition is paid for that does not happen: none does before the first update, in `first`."""
    for one in resolved.phases[: first + 1]:
        if one.transition_flops:
            name, advice = f"transition of phase {one.index + 1}", "Give the phases before it compute for an update."
            raise ConfigError(config.must(name, "keep before any update", one.phase.transition, advice))
