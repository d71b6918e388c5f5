"""Components of a policy that a study may choose from: selectors, orders, transitions and the soup, each of a kind.

What the kinds differ in is in `kinds`; what holds for every component is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config, former_names
from subsettune.config import Rule, setting
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET, Policy
from subsettune.study.spec.kinds import KINDS, SELECTOR, Kind, chooses
from subsettune.study.spec.space import Space
from subsettune.task import Recipe

KIND_RULE = Rule(f"one of {', '.join(KINDS)}", lambda name: name in KINDS, known=lambda: KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One selector, order or transition, or the soup.

    Args:
        kind: name of its kind.
        name: as the study file has it; of the soup `soup`, or `none`.
    """

    kind: str = setting(rule=KIND_RULE)
    name: str

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def of(self) -> Kind:
        """Its kind."""
        return KINDS[self.kind]

    @property
    def against(self) -> str:
        """Name of the neutral member of its kind."""
        return self.of.neutral

    @property
    def is_neutral(self) -> bool:
        """Whether it is that member."""
        return self.name == self.against

    @property
    def words(self) -> str:
        """It in a sentence: `order sift`."""
        return self.of.words(self.name)

    @property
    def doing(self) -> str:
        """What a policy with it does: `have the order sift`."""
        return self.of.doing(self.name)

    @property
    def baseline(self) -> str:
        """What it is compared with, in a sentence: `its baseline in uniform order`."""
        return self.of.baseline


def current_kind(name: str) -> str:
    """Today's name of a kind that version 0.1 may have written."""
    return former_names.KINDS.get(name, name)


def of_space(space: Space) -> tuple[Component, ...]:
    """Components that a space holds, kind by kind in its order; none where it searches shorter schedules alone."""
    if SUBSET not in space.arms:
        return ()
    return tuple(Component(kind=kind.name, name=name) for kind in KINDS.values() for name in kind.in_space(space))


def chosen(component: Component, space: Space, point: Mapping[str, Any] | None = None) -> Any:
    """The value of its coordinate with which a point of the space has the component; the usual one of several."""
    return component.of.value_of(component.name, point or {}, space)


def name_in(policy: Policy, kind: str) -> str | None:
    """The component of a kind that a policy has; its neutral name for none, and None for several.

    A policy that selects nothing has no selector, so that None is for it too.
    """
    return KINDS[kind].in_policy(policy)


def is_at_work(component: Component, policy: Policy) -> bool:
    """Whether a policy has a component, with options that do not make it the neutral one."""
    return name_in(policy, component.kind) == component.name and component.of.is_at_work(policy)


def make(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """A component with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or user code that is none of the kind. The share of
            a soup and what passes between prunings are no options of a phase, and are left to the space.
    """
    return KINDS[kind].make(name, options)


def neutralised(policy: Policy, kind: str) -> Policy:
    """The policy with its component of a kind replaced by the neutral one, everything else and the compute equal.

    Without a soup, the stretch before the switch has the soup's allowance too, each phase in proportion.
    """
    return KINDS[kind].without(policy)


def randomised(policy: Policy) -> Policy:
    """The policy with every selector replaced by `random`, everything else equal: the random control."""
    return SELECTOR.without(policy)


def selects(policy: Policy) -> bool:
    """Whether a policy chooses examples: pools of a soup are drawn at random, whatever the policy."""
    return any(chooses(phase) for phase in policy.phases)


def overhead_flops(kind: str, policy: Policy, recipe: Recipe, facts: TaskFacts) -> int:
    """FLOPs that a policy is charged as selection, beside the updates, for its component of a kind.

    An order is charged in its updates.

    Args:
        kind: of the component.
        policy: that was checked.
        recipe: conventional, of the task.
        facts: of the task.
    """
    from subsettune.train.planning.phases import resolve_phases

    def beside_updates(one: Policy) -> int:
        return sum(phase.flops for phase in resolve_phases(one, recipe.override(one.recipe), facts))

    return beside_updates(policy) - beside_updates(neutralised(policy, kind))
