"""Selectors: who chooses a subset of a given size. One file a selector, `kernels.py` for the numbers, and the registry.

A user's own selector is a subclass of `Selector` in an importable module, named `package.module:Class`. Nothing here
imports torch before a subset is chosen, so that the search can ask what a choice costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from subsettune import config
from subsettune.config import must
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.plugins import load_object
from subsettune.policy import Phase, Policy
from subsettune.select.accounting import PhaseSelection, SelectionAccount, why_not_chosen, why_not_paid
from subsettune.select.base import Examples, ModelNeed, SelectionContext, Selector, Subset
from subsettune.select.selectors.el2n import EL2N
from subsettune.select.selectors.facility_location import FacilityLocation
from subsettune.select.selectors.forgetting import Forgetting
from subsettune.select.selectors.glister import Glister
from subsettune.select.selectors.gradmatch import GradMatch
from subsettune.select.selectors.grand import GraNd
from subsettune.select.selectors.herding import Herding
from subsettune.select.selectors.kcenter import KCenter
from subsettune.select.selectors.random import Random
from subsettune.select.selectors.stratified import Stratified

__all__ = [
    "SELECTORS",
    "Examples",
    "ModelNeed",
    "PhaseSelection",
    "SelectionAccount",
    "SelectionContext",
    "Selector",
    "Subset",
    "check",
    "make",
    "names",
    "plan_selections",
    "selection_flops",
]

SELECTORS: dict[str, type[Selector]] = {
    cls.name: cls
    for cls in (Random, Stratified, KCenter, Herding, FacilityLocation, EL2N, GraNd, Forgetting, GradMatch, Glister)
}


def names() -> Mapping[str, str]:
    """Known selectors with one line on each."""
    return {name: cls.summary for name, cls in SELECTORS.items()}


def make(name: str, options: Mapping[str, Any] | None = None) -> Selector:
    """A selector by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no selector.
    """
    if name not in SELECTORS and ":" not in name:
        raise ConfigError(must("selector", f"one of {', '.join(SELECTORS)} or package.module:Class", name))
    cls = SELECTORS[name] if name in SELECTORS else _load(name)
    try:
        return config.build(cls, dict(options or {}))
    except ConfigError as error:
        raise ConfigError(tuple(Mistake(("selector_options", *m.path), m.message) for m in error.mistakes)) from error


def _load(name: str) -> type[Selector]:
    cls = load_object(name, "selector")
    if not (inspect.isclass(cls) and issubclass(cls, Selector)) or inspect.isabstract(cls):
        advice = "Subclass subsettune.select.Selector, with flops and pick."
        raise ConfigError(must("selector", "a concrete subclass of Selector", name, advice))
    if not hasattr(cls, "__dataclass_fields__"):
        advice = "Decorate it with @dataclass(frozen=True, slots=True, kw_only=True)."
        raise ConfigError(must("selector", "a dataclass of its options", name, advice))
    return cls


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
