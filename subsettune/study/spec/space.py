"""The space of policies a study searches: what is under `space:` in the study file.

Each key is a coordinate of a policy (`point_to_policy.COORDINATES`) or a key of the recipe. Each value is one of

    0.1                                     fixed (a text, a number, true or false)
    {log: [0.02, 0.6]}                      a number, even on a logarithmic scale
    {uniform: [0.05, 0.9]}                  a number, even on a linear scale
    {int: [16, 256]}, {int: [...], log: true}   a whole number, both ends included
    {choice: [random, kcenter]}             one of a list; the first is tried first, so put the usual one there

and each mapping may have `when: {other_key: value or [values]}`: the coordinate exists only then. Some conditions are
implied: `switch`, `subset_share`, `q`, `steps`, `growth`, `reselect`, `selector`, `order`, `transition` and `soup`
belong to the arm `subset`, and any other option, written OWNER.OPTION, to its owner: `el2n.proxy_passes` to a selector,
`sift.keep` to an order, `prune.keep` to a transition, and `soup.workers`, `soup.density`, `soup.share`, `soup.masks`,
`soup.uncovered` and `soup.rand_augment` to a soup above 0. With `prune.between`, layers are pruned one after the other:
it is the share of the compute after the switch that is spent before the last of them, of which there have to be two or
more.

The arm `full` is part of every space: plain training on all data, the control that every saving is stated against. So
`arm: subset` still searches both arms. `arm: full` searches the shorter schedule alone. In the arm `subset` a
`subset_share` of 1 is all data too, there to try an order, a transition or a soup without a subset: `selector`,
`steps`, `growth` and `reselect` then do not exist, and points that leave nothing but plain training are skipped.

A point of the space is a mapping from the *active* coordinates to values. Every coordinate also has a place in
[0, 1], even on its own scale; models and samplers see those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune import former_names
from subsettune.config import FrozenDict, must
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import NO_Q, TaskFacts
from subsettune.policy import MOST_CHOICES, SOUP, SUBSET, Policy
from subsettune.study.spec import space_reader
from subsettune.study.spec.coordinate import Coordinate, implied
from subsettune.study.spec.point_to_policy import from_coordinates

_LENGTHS = ("budget", "switch", "reselect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All policies that a study may try; read it with `Space.from_mapping`.

    Args:
        coordinates: in an order in which every coordinate comes after those it depends on; `arm` and `budget` first.
    """

    coordinates: tuple[Coordinate, ...]

    @classmethod
    def from_mapping(
        cls, raw: object, *, recipe_keys: Iterable[str] | None = None, known: Mapping[str, Iterable[str]] | None = None
    ) -> Space:
        """Read what is written under `space:`.

        Args:
            raw: the mapping, as parsed from YAML 1.2.
            recipe_keys: hyperparameters that the recipe has (`epochs` is not one: the budget decides). None accepts
                any name that is not a misspelt coordinate.
            known: registered names by coordinate, e.g. `{"selector": SELECTORS}`; names with ":" are the user's code
                and accepted.

        Raises:
            ConfigError: with every mistake found; paths are relative to `space`.
        """
        if not isinstance(raw, Mapping):
            raise ConfigError(must("space", "a mapping of coordinates to values or ranges", raw))
        names = None if recipe_keys is None else tuple(recipe_keys)
        return cls(coordinates=space_reader.read(former_names.current_space(raw), names, known or {}))

    def __getitem__(self, name: str) -> Coordinate:
        return next(axis for axis in self.coordinates if axis.name == name)

    def __contains__(self, name: str) -> bool:
        return any(axis.name == name for axis in self.coordinates)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms to search: `full` always, first."""
        return self["arm"].values

    @property
    def cardinality(self) -> float:
        """Number of points, conditions disregarded; infinity if any coordinate is a float range."""
        return math.prod(axis.cardinality for axis in self.coordinates)

    def axes(self, arm: str) -> tuple[Coordinate, ...]:
        """The coordinates, other than the arm itself, that can be active in an arm."""
        kept = (axis for axis in self.coordinates if axis.name != "arm")
        return tuple(axis for axis in kept if arm in axis.when.get("arm", (arm,)) and self._reachable(axis, arm))

    def _reachable(self, axis: Coordinate, arm: str) -> bool:
        """Whether all that an axis depends on can be active in an arm."""
        parents = (self[key] for key in axis.when if key != "arm")
        return all(arm in parent.when.get("arm", (arm,)) and self._reachable(parent, arm) for parent in parents)

    def point(self, arm: str, value_of: Callable[[Coordinate], Any]) -> FrozenDict:
        """A point of an arm: `value_of` is asked for each coordinate that turns out to be active."""
        point: dict[str, Any] = {"arm": arm}
        for axis in self.axes(arm):
            if axis.is_active(point):
                point[axis.name] = axis.values[0] if axis.kind == "fixed" else value_of(axis)
        return FrozenDict(point)

    def sample(self, rng: np.random.Generator, arm: str | None = None) -> FrozenDict:
        """A random point, even on each coordinate's own scale; of one arm if given."""
        arm = arm if arm is not None else self.arms[int(rng.integers(len(self.arms)))]
        return self.point(arm, lambda axis: axis.from_unit(float(rng.random())))

    def policy(self, point: Mapping[str, Any], facts: TaskFacts) -> Policy:
        """The policy at a point.

        Raises:
            ConfigError: the point lacks a coordinate, or does not fit the task.
        """
        return from_coordinates(point, facts)

    def resolve(self, facts: TaskFacts) -> Space:
        """Check the space against a task, and return it.

        Raises:
            ConfigError: a range of `q` needs more examples than there are, a subset would have no example, or it would
                be chosen anew too often.
        """
        mistakes: list[Mistake] = []
        for name in ("subset_share", "q"):
            if name in self and SUBSET in self.arms:
                _check_sizes(self[name], facts, mistakes)
        if "reselect" in self and SUBSET in self.arms:
            _check_choices(self, facts, mistakes)
        if mistakes:
            raise ConfigError(tuple(mistakes))
        return self

    def to_mapping(self) -> dict[str, Any]:
        """As it is written in a study file; `from_mapping` reads it."""
        axes = {axis.name: axis for axis in self.coordinates}
        return {name: axis.to_plain(implied(name, axes)) for name, axis in axes.items()}


def _check_sizes(axis: Coordinate, facts: TaskFacts, mistakes: list[Mistake]) -> None:
    if axis.name == "q" and not facts.has_q:
        mistakes.append(Mistake((axis.name,), NO_Q))
        return
    values = axis.values or (axis.lo, axis.hi)
    least, greatest = min(values), max(values)
    n = facts.num_examples
    least_share = facts.share_of_q(least) if axis.name == "q" else least
    if least_share * n < 1:
        smallest = facts.q(1) if axis.name == "q" else 1 / n
        advice = f"{least:g} of {n:,} examples is less than one example. Raise the lower end."
        mistakes.append(Mistake((axis.name,), must(axis.name, f"at least {smallest:.4g}", least, advice)))
    if axis.name == "q" and facts.share_of_q(greatest) > 1:
        needed = facts.share_of_q(greatest) * n
        advice = (
            f"It needs {needed:,.0f} examples and there are {n:,}. Lower the upper end, "
            "use a smaller network, or search subset_share instead."
        )
        mistakes.append(Mistake((axis.name,), must(axis.name, f"at most {facts.q():.4g}", greatest, advice)))


def _check_choices(space: Space, facts: TaskFacts, mistakes: list[Mistake]) -> None:
    """Refuse what `from_coordinates` would: more choices of a subset than a policy may have.

    With steps or a soup the choices are divided among phases: points that have too many are left to the search.
    """
    if SOUP in space or ("steps" in space and min(space["steps"].ends) > 1):
        return
    budget, switch, reselect = (axis.values or (axis.lo, axis.hi) for axis in map(space.__getitem__, _LENGTHS))
    longest = max(budget) * max(switch) * facts.reference_passes
    if longest > MOST_CHOICES * min(reselect):
        advice = f"Subsets take up to {longest:.3g} passes, and {MOST_CHOICES:,} choices are the most."
        rule = f"at least {longest / MOST_CHOICES:.3g}"
        mistakes.append(Mistake(("reselect",), must("reselect", rule, min(reselect), advice)))
