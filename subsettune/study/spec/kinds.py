"""Kinds of components that a study chooses from, and all that the layers above need to know of each.

A kind is a coordinate of a space and a part of a policy: which selector, order or transition its phases have, or
whether it begins with a soup. Each has a neutral member, which spends nothing: what the others have to be better than
to pay for themselves. Who lists, checks, compares or prints components loops over `KINDS` and asks them; another kind
is another class here. Nothing here loads torch before a component is made.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from subsettune import config, registry
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.policy import SOUP, Phase, Policy, Soup
from subsettune.registry import Registry
from subsettune.task import Recipe

if TYPE_CHECKING:
    from subsettune.study.spec.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a component of a space is tried with before the first run.

    Args:
        facts: of the task.
        sizes: the smallest and the largest subset of the space; none where it has none.
        recipes: that the space may train with.
    """

    facts: TaskFacts
    sizes: tuple[int, ...]
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(ABC):
    """A kind of component.

    Args:
        name: it in a file: the coordinate of a space, and the field of a phase.
        neutral: the member that spends nothing, which is the usual one.
        baseline: a policy without the component, in a sentence: `its baseline in uniform order`.
        compared_with: what that policy has instead, in a sentence: `the uniform order`.
        members: names and classes; None where there is one member beside the neutral one.
    """

    name: str
    neutral: str
    baseline: str
    compared_with: str
    members: Registry | None = None

    @property
    def plural(self) -> str:
        """Several of them."""
        return f"{self.name}s"

    @property
    def owners(self) -> tuple[str, ...]:
        """Names that options of a space begin with, as `OWNER.OPTION`."""
        return () if self.members is None else self.members.names()

    def words(self, name: str) -> str:
        """A member in a sentence: `order sift`."""
        return f"{self.name} {name}"

    def doing(self, name: str) -> str:
        """What a policy with a member does: `have the order sift`."""
        return f"have the {self.words(name)}"

    def in_space(self, space: Space) -> tuple[str, ...]:
        """Members that a space with subsets holds."""
        return space[self.name].values if self.name in space else (self.neutral,)

    def value_of(self, name: str, point: Mapping[str, Any], space: Space) -> Any:
        """The value of its coordinate with which a point has the member; `point` keeps its own where it has it."""
        return name

    def in_policy(self, policy: Policy) -> str | None:
        """The member that a policy has; the neutral one for none, and None for several."""
        names = {getattr(phase, self.name) for phase in policy.phases} - {self.neutral}
        return (names.pop() if names else self.neutral) if len(names) <= 1 else None

    def is_at_work(self, policy: Policy) -> bool:
        """Whether the member that a policy has does anything, with the options that it has."""
        made = (self._of(phase) for phase in policy.phases)
        return not all(getattr(one, "is_neutral", False) for one in made)

    def _of(self, phase: Phase) -> Any:
        return self.make(getattr(phase, self.name), getattr(phase, f"{self.name}_options"))

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """A member with its options, as they stand in a space.

        Raises:
            ConfigError: unknown name or option, an option out of range, or user code that is none of the kind.
        """
        assert self.members is not None
        return self.members.make(name, options)

    def without(self, policy: Policy) -> Policy:
        """The baseline policy: the neutral member instead, everything else and the compute equal."""
        return Policy(phases=tuple(replace(p, **self._neutral_fields) for p in policy.phases), recipe=policy.recipe)

    @property
    def _neutral_fields(self) -> dict[str, Any]:
        return {self.name: self.neutral, f"{self.name}_options": FrozenDict()}

    @abstractmethod
    def obstacles(self, made: Any, options: Mapping[str, Any], conditions: Conditions) -> Sequence[str | None]:
        """What stands in the way of a member, once for each of the conditions; None where nothing does.

        Args:
            made: the member with its options.
            options: of the member in the space, those included that say where and how long it is at work.
            conditions: that it is tried with.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorKind(Kind):
    """Who chooses the examples of a subset."""

    def doing(self, name: str) -> str:
        """It chooses."""
        return f"choose by {name}"

    def in_space(self, space: Space) -> tuple[str, ...]:
        """None where all data are used at all times."""
        if "subset_share" in space and min(space["subset_share"].ends) == 1:
            return ()
        return Kind.in_space(self, space)

    def in_policy(self, policy: Policy) -> str | None:
        """None where nothing is selected, too: the pool of a soup is drawn at random, whatever the policy."""
        names = {phase.selector for phase in policy.phases if chooses(phase)}
        return names.pop() if len(names) == 1 else None

    def is_at_work(self, policy: Policy) -> bool:
        """Always."""
        return True

    def without(self, policy: Policy) -> Policy:
        """The random control."""
        phases = tuple(p if p.is_full else replace(p, **self._neutral_fields) for p in policy.phases)
        return Policy(phases=phases, recipe=policy.recipe)

    def obstacles(self, made: Any, options: Mapping[str, Any], conditions: Conditions) -> Sequence[str | None]:
        """By size of the subset."""
        return [made.why_not(conditions.facts, size) for size in conditions.sizes]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseKind(Kind):
    """An order or a transition: what phases have, whatever their pool."""

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """A member; what is an option of a space alone, as `prune.between`, is left to the space."""
        assert self.members is not None
        spread = getattr(self.members.load(name), "spread_options", ())
        return self.members.make(name, {option: value for option, value in options.items() if option not in spread})

    def obstacles(self, made: Any, options: Mapping[str, Any], conditions: Conditions) -> Sequence[str | None]:
        """By recipe."""
        return [made.why_not(recipe, conditions.facts) for recipe in conditions.recipes]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SoupKind(Kind):
    """Workers that train apart at the beginning of a policy: its coordinate is a share of the compute."""

    @property
    def plural(self) -> str:
        """There is one."""
        return "the soup"

    @property
    def owners(self) -> tuple[str, ...]:
        """Itself."""
        return (self.name,)

    def words(self, name: str) -> str:
        """With or without: there is one."""
        return name if name == self.name else f"no {self.name}"

    def in_space(self, space: Space) -> tuple[str, ...]:
        """With or without, as shares of it are above 0 or not."""
        shares = space[self.name].ends if self.name in space else (0.0,)
        return tuple(dict.fromkeys(self.name if share > 0 else self.neutral for share in shares))

    def value_of(self, name: str, point: Mapping[str, Any], space: Space) -> Any:
        """The share that the point has; else the usual one of the space."""
        if point.get(self.name, 0) > 0:
            return point[self.name]
        axis = space[self.name]
        return next((value for value in axis.values if value > 0), axis.default)

    def in_policy(self, policy: Policy) -> str | None:
        """With or without."""
        return self.name if any(phase.active_soup is not None for phase in policy.phases) else self.neutral

    def is_at_work(self, policy: Policy) -> bool:
        """Where a phase has one."""
        return self.in_policy(policy) == self.name

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """Its settings, but for its share of the data."""
        known = ("share", *Soup.__dataclass_fields__)
        unknown = [Mistake((option,), config.unknown_key(option, known)) for option in options if option not in known]
        if unknown:
            raise ConfigError(tuple(unknown))
        return config.build(Soup, {option: value for option, value in options.items() if option != "share"})

    def without(self, policy: Policy) -> Policy:
        """The stretch before the switch has the soup's allowance too, each phase in proportion."""
        freed = math.fsum(phase.passes for phase in policy.phases if phase.active_soup is not None)
        others = [phase for phase in policy.phases if phase.active_soup is None]
        keep = TRANSITION.neutral
        starts = (index for index, phase in enumerate(others) if phase.transition != keep)
        switch = next(starts, len(others) - 1)  # the phase after the stretch that the soup was a part of
        own = math.fsum(phase.passes for phase in others[:switch])
        if own == 0:
            longer = others[0].passes + freed
            first = replace(others[0], passes=longer, transition=keep, transition_options=FrozenDict())
            return Policy(phases=(first, *others[1:]), recipe=policy.recipe)
        stretch = [replace(phase, passes=phase.passes * (own + freed) / own) for phase in others[:switch]]
        return Policy(phases=(*stretch, *others[switch:]), recipe=policy.recipe)

    def obstacles(self, made: Any, options: Mapping[str, Any], conditions: Conditions) -> Sequence[str | None]:
        """By size of its pool and by recipe."""
        from subsettune.train.soup import workers  # late: it loads torch

        facts, sizes = conditions.facts, conditions.sizes
        if "share" in options:
            sizes = (min(facts.num_examples, max(1, round(options["share"] * facts.num_examples))),)
        return [workers.why_not(made, k, recipe, facts) for k in sizes for recipe in conditions.recipes]


def chooses(phase: Phase) -> bool:
    """Whether the examples of a phase are chosen by its selector."""
    return not phase.is_full and phase.active_soup is None


SELECTOR = SelectorKind(
    name="selector",
    neutral="random",
    baseline="its random baseline",
    compared_with="a random subset",
    members=registry.SELECTORS,
)
ORDER = PhaseKind(
    name="order",
    neutral="uniform",
    baseline="its baseline in uniform order",
    compared_with="the uniform order",
    members=registry.ORDERS,
)
TRANSITION = PhaseKind(
    name="transition",
    neutral="keep",
    baseline="its baseline without the transition",
    compared_with="keeping on at the switch",
    members=registry.TRANSITIONS,
)
SOUP_KIND = SoupKind(name=SOUP, neutral="none", baseline="its baseline without the soup", compared_with="no soup")
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (SELECTOR, ORDER, TRANSITION, SOUP_KIND)}
OWNING: Mapping[str, Kind] = {name: kind for name, kind in KINDS.items() if kind.members is not None}
