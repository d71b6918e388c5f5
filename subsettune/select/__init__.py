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
from subsettune.plugins import load_object
from subsettune.policy import Phase, Policy, TaskFacts
from subsettune.select.base import Examples, SelectionContext, Selector, Subset
from subsettune.select.kcenter import KCenter
from subsettune.select.random import Random
from subsettune.select.stratified import Stratified

__all__ = [
    "SELECTORS",
    "Examples",
    "SelectionContext",
    "Selector",
    "Subset",
    "check",
    "make",
    "names",
    "selection_flops",
]

SELECTORS: dict[str, type[Selector]] = {cls.name: cls for cls in (Random, Stratified, KCenter)}


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
    return cls


def selection_flops(phase: Phase, facts: TaskFacts) -> int:
    """FLOPs charged for choosing the pool of a phase; 0 where the pool is all of the data.

    Raises:
        ConfigError: unknown selector or option.
    """
    if phase.is_full:
        return 0
    return make(phase.selector, phase.selector_options).flops(facts, phase.pool_size(facts.num_examples))


def check(policy: Policy, facts: TaskFacts) -> str | None:
    """Why the selections of a policy cannot be made, known before it runs; None if they can.

    Returns:
        One sentence with a remedy: an unknown selector or option, data that the selector cannot choose from, more
        memory than it may use, or more FLOPs than the phase is allowed.
    """
    for number, phase in enumerate(policy.phases, start=1):
        problem = None if phase.is_full else _check_phase(phase, facts)
        if problem is not None:
            return problem if len(policy.phases) <= 2 else f"Phase {number}: {problem}"
    return None


def _check_phase(phase: Phase, facts: TaskFacts) -> str | None:
    k = phase.pool_size(facts.num_examples)
    try:
        selector = make(phase.selector, phase.selector_options)
    except ConfigError as error:
        return str(error)
    obstacle = selector.obstacle(facts, k)
    if obstacle is not None:
        return obstacle
    needed, allowed = selector.flops(facts, k), round(phase.passes * facts.pass_flops)
    if needed <= allowed:
        return None
    passes = needed / facts.pass_flops
    return (
        f"Choosing {k:,} of {facts.num_examples:,} examples with {phase.selector} costs {passes:.3g} passes, "
        f"more than the {phase.passes:.3g} passes of its phase. "
        "Give the phase more compute, choose fewer examples, or use a cheaper selector."
    )
