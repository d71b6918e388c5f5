"""Whether a space fits what it is searched for: the registered components, the recipe and the task.

Every choice, or both ends of every range, is tried on the class that will take it, so that a search cannot come upon a
value that nothing accepts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError, Mistake, did_you_mean
from subsettune.policy import OWN, SOUP
from subsettune.study.spec import components
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.kinds import OWNING
from subsettune.study.spec.space import Space
from subsettune.task import OPTIMIZER_KEYS, RECIPE_KEYS, Recipe, Task

_ANY_RECIPE = Recipe(lr=0.1, batch_size=1, epochs=1)  # to check a space against while the task's own is not readable


def read_space(raw: Mapping[str, Any]) -> Space:
    """Read what stands under `space:`, knowing this package's components and the keys of a recipe.

    Raises:
        ConfigError: with every mistake; paths are relative to `space`.
    """
    known = {name: kind.owners for name, kind in OWNING.items()}
    return Space.from_mapping(raw, recipe_keys=RECIPE_KEYS, known=known)


def mistakes_in_space(raw: Mapping[str, Any], task: Task | None) -> list[Mistake]:
    """What is wrong under `space:`, in itself or for the recipe of the task, if the task is one."""
    try:
        space = read_space(raw)
    except ConfigError as error:
        return [Mistake(("space", *m.path), m.message) for m in error.mistakes]
    found: dict[Mistake, None] = {}  # in order, each once
    for axis in space.coordinates:
        if axis.name in RECIPE_KEYS:
            found |= dict.fromkeys(_mistakes_on_axis(axis, space, task))
        elif axis.name.startswith(f"{OWN}."):
            found |= dict.fromkeys(_mistakes_on_own(axis, task))
        elif "." in axis.name:
            found |= dict.fromkeys(_mistakes_on_option(axis, space))
    return list(found)


def _mistakes_on_own(axis: Coordinate, task: Task | None) -> Iterator[Mistake]:
    """A hyperparameter of the user's own has its usual value in the recipe, which a search needs to begin with."""
    name = axis.name.partition(".")[2]
    if task is not None and name not in task.recipe.own:
        known = task.recipe.own
        advice = f"Write its usual value there. {did_you_mean(name, known)}".rstrip()
        yield Mistake(("space", axis.name), must(axis.name, "one of the keys of task.recipe.own", list(known), advice))


def _mistakes_on_option(axis: Coordinate, space: Space) -> Iterator[Mistake]:
    """Try the choices, or both ends, of an option of a component, beside the first values of its other options."""
    owner = axis.name.rpartition(".")[0]
    in_space = (name for name in OWNING if name in space and owner in space[name].values)
    kind = next(in_space, SOUP)  # the soup is its own owner
    own = [other for other in space.coordinates if other.name.rpartition(".")[0] == owner and "." in other.name]
    names = {other.name: other.name.rpartition(".")[2] for other in own}
    for value in axis.ends:
        try:
            components.make(kind, owner, {names[name]: v for name, v in _setting(axis, value, own).items()})
        except ConfigError as error:
            others = set(names.values()) - {names[axis.name]}  # their own mistakes are told when it is their turn
            mine = [m for m in error.mistakes if not others & set(m.path)]
            yield from (Mistake(("space", axis.name), m.message) for m in mine)


def _setting(axis: Coordinate, value: Any, own: Sequence[Coordinate]) -> dict[str, Any]:
    """A value of one of a component's options, and the first values of the others that can stand beside it."""
    names, point = {other.name for other in own}, {axis.name: value}
    for other in own:  # after those that it depends on
        if other is not axis and all(point.get(k) in ok for k, ok in other.when.items() if k in names):
            point[other.name] = axis.when.get(other.name, other.ends)[0]
    return point


def _mistakes_on_axis(axis: Coordinate, space: Space, task: Task | None) -> Iterator[Mistake]:
    """Try the choices, or both ends, of a recipe key with every setting of the keys that it depends on."""
    for value, others in itertools.product(axis.ends, _contexts(axis, space)):
        changes = {**others, axis.name: value}
        try:
            recipe = (task.recipe if task is not None else _ANY_RECIPE).override(changes)
            if task is not None:
                dataclasses.replace(task, recipe=recipe)
        except ConfigError as error:
            advice = " Write {int: [lo, hi]}." if axis.kind == "float" and "whole number" in str(error) else ""
            advice = advice or "".join(f" Or add when: {{{key}: ...}}." for key in others if key not in axis.when)
            for mistake in error.mistakes:
                if axis.name in mistake.path:
                    yield Mistake(("space", axis.name), mistake.message + advice)


def _contexts(axis: Coordinate, space: Space) -> Iterator[dict[str, Any]]:
    """Settings of the recipe keys that decide whether a value makes sense: its conditions, and the optimizer."""
    keys = {key: allowed for key, allowed in axis.when.items() if key in RECIPE_KEYS}
    if axis.name in OPTIMIZER_KEYS and "optimizer" in space:
        keys.setdefault("optimizer", space["optimizer"].values)
    for values in itertools.product(*keys.values()):
        yield dict(zip(keys, values, strict=True))
