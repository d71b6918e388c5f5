"""The conventional recipe as a point of the space, and the values of a space nearest to others."""

from __future__ import annotations

import math
from typing import Any

from subsettune.config import FrozenDict
from subsettune.policy import FULL
from subsettune.study.search.problem import Known
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space


def recipe_point(space: Space, known: Known, budget: float) -> FrozenDict:
    """The unchanged recipe in the full arm at a budget: the nearest value in the space of each hyperparameter.

    What the recipe does not say has its usual value.
    """

    def value_of(axis: Coordinate) -> Any:
        return budget if axis.name == "budget" else recipe_value(axis, known)

    return space.point(FULL, value_of)


def recipe_value(axis: Coordinate, known: Known) -> Any:
    """The recipe's value of a coordinate, or the nearest one in the space; the usual one where it says none."""
    return nearest(axis, known.recipe[axis.name]) if axis.name in known.recipe else axis.default


def nearest(axis: Coordinate, value: Any) -> Any:
    """The value of a coordinate nearest to one that may lie outside of its range; its usual one for no choice of it."""
    if axis.kind in ("fixed", "choice"):
        return value if value in axis.values else axis.default
    return type(axis.from_unit(0.5))(min(max(value, axis.lo), axis.hi))


def nearest_budget(axis: Coordinate, budget: float) -> Any:
    """The budget of the space nearest to one, on a logarithmic scale."""
    if axis.kind == "float":
        return min(max(budget, axis.lo), axis.hi)
    values = axis.values or range(int(axis.lo), int(axis.hi) + 1)
    return min(values, key=lambda value: (abs(math.log(value / budget)), value))
