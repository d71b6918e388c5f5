"""Components of a policy that a study may choose from: selectors, orders, entries and the soup.

Each kind has a neutral member, which spends nothing: what the others have to be better than to pay for themselves.
Nothing here loads torch before a component is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.policy import PRUNE, SOUP, SUBSET, Phase, Policy, Soup
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space
from subsettune.task import Recipe

Kind = Literal["selector", "order", "entry", "soup"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NEUTRAL: Mapping[str, str] = {"selector": "random", "order": "uniform", "entry": "keep", "soup": "none"}
_TWINS: Mapping[str, str] = {
    "selector": "its random twin",
    "order": "its twin in uniform order",
    "entry": "its twin without the entry",
    "soup": "its twin without the soup",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One selector, order or entry, or the soup.

    Args:
        kind: which of the four.
        name: as the study file has it; of the soup `soup`, or `none`.
    """

    kind: Kind
    name: str

    @property
    def against(self) -> str:
        """Name of the neutral member of its kind."""
        return NEUTRAL[self.kind]

    @property
    def is_neutral(self) -> bool:
        """Whether it is that member."""
        return self.name == self.against

    @property
    def words(self) -> str:
        """It in a sentence: `order sift`."""
        return self.name if self.kind == "soup" else f"{self.kind} {self.name}"

    @property
    def twin_words(self) -> str:
        """What it is compared with, in a sentence: `its twin in uniform order`."""
        return _TWINS[self.kind]


def of_space(space: Space) -> tuple[Component, ...]:
    """Components that a space holds, kind by kind in its order; none where it searches shorter schedules alone."""
    if SUBSET not in space.arms:
        return ()
    return tuple(Component(kind=kind, name=name) for kind in KINDS for name in _names(kind, space))


def _names(kind: Kind, space: Space) -> tuple[str, ...]:
    if kind == "soup":
        values = _values(space[SOUP]) if SOUP in space else (0.0,)
        return tuple(dict.fromkeys(SOUP if value > 0 else NEUTRAL[SOUP] for value in values))
    if kind == "selector" and "subset_share" in space and min(_values(space["subset_share"])) == 1:
        return ()  # all data at all times: nothing is selected
    return space[kind].values if kind in space else (NEUTRAL[kind],)


def _values(axis: Coordinate) -> tuple[Any, ...]:
    return axis.values or (axis.lo, axis.hi)


def chosen(component: Component, space: Space) -> Any:
    """The value of its coordinate with which a point of the space has the component; the usual one of several."""
    if component.kind != "soup":
        return component.name
    axis = space[SOUP]
    return next((value for value in axis.values if value > 0), axis.default)


def name_in(policy: Policy, kind: Kind) -> str | None:
    """The component of a kind that a policy has; its neutral name for none, and None for several.

    A policy that selects nothing has no selector, so that None is for it too.
    """
    if kind == "soup":
        active_soup = any(phase.active_soup is not None for phase in policy.phases)
        return SOUP if active_soup else NEUTRAL[SOUP]
    if kind == "selector":
        names = {phase.selector for phase in policy.phases if not phase.is_full and phase.active_soup is None}
        return names.pop() if len(names) == 1 else None
    neutral = NEUTRAL[kind]
    names = {getattr(phase, kind) for phase in policy.phases} - {neutral}
    return (names.pop() if names else neutral) if len(names) <= 1 else None


def is_at_work(component: Component, policy: Policy) -> bool:
    """Whether a policy has a component, with options that do not make it the neutral one."""
    from subsettune.train import orders
    from subsettune.train.transitions import base

    if name_in(policy, component.kind) != component.name:
        return False
    if component.kind == "order":
        return not all(orders.of(phase).is_neutral for phase in policy.phases)
    return component.kind != "entry" or not all(base.of(phase).is_neutral for phase in policy.phases)


def make(kind: Kind, name: str, options: Mapping[str, Any]) -> Any:
    """A component with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or user code that is none of the kind. The share of
            a soup and what passes between prunings are no options of a phase, and are left to the space.
    """
    if kind == "selector":
        from subsettune import select

        return select.make(name, options)
    if kind == "soup":
        known = ("share", *Soup.__dataclass_fields__)
        unknown = [Mistake((option,), config.unknown_key(option, known)) for option in options if option not in known]
        if unknown:
            raise ConfigError(tuple(unknown))
        return config.build(Soup, {option: value for option, value in options.items() if option != "share"})
    from subsettune.train import orders
    from subsettune.train.transitions import base

    if name == PRUNE:
        options = {option: value for option, value in options.items() if option != "between"}
    return orders.make(name, options) if kind == "order" else base.make(name, options)


def neutralised(policy: Policy, kind: Kind) -> Policy:
    """The policy with its component of a kind replaced by the neutral one, everything else and the compute equal.

    Without a soup, the stretch before the switch has the soup's allowance too, each phase in proportion.
    """
    if kind == "selector":
        return randomised(policy)
    if kind == "soup":
        return _without_soup(policy)
    fields: dict[str, Any] = {kind: NEUTRAL[kind], f"{kind}_options": FrozenDict()}
    return Policy(phases=tuple(replace(phase, **fields) for phase in policy.phases), recipe=policy.recipe)


def randomised(policy: Policy) -> Policy:
    """The policy with every selector replaced by `random`, everything else equal: the random control."""
    fields: dict[str, Any] = {"selector": NEUTRAL["selector"], "selector_options": FrozenDict()}
    phases = tuple(phase if phase.is_full else replace(phase, **fields) for phase in policy.phases)
    return Policy(phases=phases, recipe=policy.recipe)


def _without_soup(policy: Policy) -> Policy:
    freed = math.fsum(phase.passes for phase in policy.phases if phase.active_soup is not None)
    others = [phase for phase in policy.phases if phase.active_soup is None]
    entered = (index for index, phase in enumerate(others) if phase.entry != NEUTRAL["entry"])
    switch = next(entered, len(others) - 1)  # the phase after the stretch that the soup was a part of
    own = math.fsum(phase.passes for phase in others[:switch])
    if own == 0:
        first = replace(others[0], passes=others[0].passes + freed, entry=NEUTRAL["entry"], entry_options=FrozenDict())
        return Policy(phases=(first, *others[1:]), recipe=policy.recipe)
    longer = [replace(phase, passes=phase.passes * (own + freed) / own) for phase in others[:switch]]
    return Policy(phases=(*longer, *others[switch:]), recipe=policy.recipe)


def selects(policy: Policy) -> bool:
    """Whether a policy chooses examples: pools of a soup are drawn at random, whatever the policy."""
    return any(_chooses(phase) for phase in policy.phases)


def _chooses(phase: Phase) -> bool:
    return not phase.is_full and phase.active_soup is None


def overhead_flops(kind: Kind, policy: Policy, recipe: Recipe, facts: TaskFacts) -> int:
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
