"""What the selections of a policy cost, and why they cannot be made; both known before it runs, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.registry import SELECTORS
from subsettune.select.base import Selector, share_of


def make(name: str, options: Mapping[str, Any] | None = None) -> Selector:
    """A selector by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no selector.
    """
    made: Selector = SELECTORS.make(name, options)
    return made


def names() -> Mapping[str, str]:
    """Known selectors with one line on each."""
    return SELECTORS.summaries()


def selection_flops(policy: Policy, phase: int, facts: TaskFacts, own: TaskFacts | None = None) -> int:
    """FLOPs charged for choosing the pool of a phase; 0 where the pool is all of the data.

    What an earlier phase has paid for is not charged again: proxies with the same need, and the part of a ranking that
    is there already. A choice by the run's own network is always made anew.

    Args:
        policy: that the phase belongs to.
        phase: its index.
        facts: of the task.
        own: of the run's network when the phase begins, which a transition may have made narrower; default: `facts`.

    Raises:
        ConfigError: unknown selector or option.
    """
    if policy.phases[phase].is_full:
        return 0
    selector = selector_of(policy, phase)
    facts = seen(selector, facts, own)
    need = selector.model_need
    earlier = dict.fromkeys((p.selector, p.selector_options) for p in policy.phases[:phase] if not p.is_full)
    is_paid = need is None or any(make(*chosen).model_need == need for chosen in earlier)
    training = 0 if is_paid or need is None else need.flops(facts)
    sizes = {policy.phases[p].pool_size(facts.num_examples) for p in same_ranking(policy, phase) if p < phase}
    spent = max((selector.flops(facts, k) for k in sizes), default=0)
    return training + max(0, selector.flops(facts, policy.phases[phase].pool_size(facts.num_examples)) - spent)


def same_ranking(policy: Policy, phase: int) -> tuple[int, ...]:
    """Phases of a policy whose pools are the first so many of one ranking, this one included.

    A ranking that draws nothing is the same whatever the `draw` of the phase.

    Args:
        policy: that the phase belongs to.
        phase: index of a phase with a subset.
    """
    selector, mine = selector_of(policy, phase), policy.phases[phase]
    need = selector.model_need
    if not selector.is_ranking or (need is not None and need.source == "current"):
        return (phase,)
    draws = {mine.draw} if not selector.is_deterministic else {p.draw for p in policy.phases}
    key = (mine.selector, mine.selector_options)
    subsets = ((i, p) for i, p in enumerate(policy.phases) if not p.is_full)
    return tuple(i for i, p in subsets if (p.selector, p.selector_options) == key and p.draw in draws)


def selector_of(policy: Policy, phase: int) -> Selector:
    """The selector of a phase, with its options."""
    return make(policy.phases[phase].selector, policy.phases[phase].selector_options)


def seen(selector: Selector, facts: TaskFacts, own: TaskFacts | None) -> TaskFacts:
    """The facts of the network that a selector looks at: the run's own, or one as the task has it."""
    need = selector.model_need
    return facts if own is None or need is None or need.source != "current" else own


def check(policy: Policy, facts: TaskFacts, own: Sequence[TaskFacts] | None = None) -> str | None:
    """Why the selections of a policy cannot be made, known before it runs; None if they can.

    Args:
        policy: whose phases choose.
        facts: of the task.
        own: of the run's network, when each phase begins; default: `facts` throughout.

    Returns:
        One sentence with a remedy: an unknown selector or option, data or a network that the selector cannot choose
        by, more memory than it may use, or more FLOPs than the phase is allowed.
    """
    for index, phase in enumerate(policy.phases):
        problem = None if phase.is_full else _check_phase(policy, index, facts, facts if own is None else own[index])
        if problem is not None:
            return problem if len(policy.phases) <= 2 else f"Phase {index + 1}: {problem}"
    return None


def _check_phase(policy: Policy, index: int, facts: TaskFacts, own: TaskFacts) -> str | None:
    phase = policy.phases[index]
    n = facts.num_examples
    if round(phase.share * n) == 0:
        return must("share", f"at least {share_of(1, n)}", phase.share, f"It makes none of the {n:,} examples.")
    k = phase.pool_size(n)
    try:
        selector = make(phase.selector, phase.selector_options)
    except ConfigError as error:
        return str(error)
    why_not = selector.why_not(seen(selector, facts, own), k)
    if why_not is not None:
        return why_not
    needed, allowed = selection_flops(policy, index, facts, own), round(phase.passes * facts.pass_flops)
    if needed <= allowed:
        return None
    passes = needed / facts.pass_flops
    return (
        f"Choosing {k:,} of {facts.num_examples:,} examples with {phase.selector} costs {passes:.3g} passes, "
        f"more than the {phase.passes:.3g} passes of its phase. "
        "Give the phase more compute, choose fewer examples, or use a cheaper selector."
    )
