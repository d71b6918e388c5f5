"""What the selections of a policy cost, and why they cannot be made, without a network: for tests of selectors."""

from __future__ import annotations

from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import PhaseSelection, Selector, make
from subsettune.select.accounting import SelectionAccount, why_not_chosen, why_not_paid


def plan_selections(policy: Policy, facts: TaskFacts) -> tuple[PhaseSelection | None, ...]:
    """How the phases of a policy choose their examples, and what that costs; None where the pool is all of the data.

    For a policy that leaves the network as wide as it is; `train.planning.phases` follows those that do not.

    Raises:
        ConfigError: unknown selector or option.
    """
    account = SelectionAccount(facts)
    return tuple(
        None if phase.is_full else account.plan(index, phase, _made(phase), facts)
        for index, phase in enumerate(policy.phases)
    )


def selection_flops(policy: Policy, phase: int, facts: TaskFacts) -> int:
    """FLOPs charged for choosing the pool of a phase, as `plan_selections` has them.

    Raises:
        ConfigError: unknown selector or option.
    """
    planned = plan_selections(policy, facts)[phase]
    return 0 if planned is None else planned.flops


def check(policy: Policy, facts: TaskFacts) -> str | None:
    """Why the selections of a policy cannot be made, known before it runs; None if they can.

    Returns:
        One sentence with a remedy: an unknown selector or option, data or a network that the selector cannot choose
        by, more memory than it may use, or more FLOPs than the phase is allowed.
    """
    account = SelectionAccount(facts)
    for index, phase in enumerate(policy.phases):
        problem = None if phase.is_full else _check_phase(account, index, phase, facts)
        if problem is not None:
            return problem if len(policy.phases) <= 2 else f"Phase {index + 1}: {problem}"
    return None


def _check_phase(account: SelectionAccount, index: int, phase: Phase, facts: TaskFacts) -> str | None:
    try:
        problem = why_not_chosen(phase, _made, facts, facts)
    except ConfigError as error:
        return str(error)
    return problem or why_not_paid(phase, account.plan(index, phase, _made(phase), facts), facts)


def _made(phase: Phase) -> Selector:
    return make(phase.selector, phase.selector_options)
