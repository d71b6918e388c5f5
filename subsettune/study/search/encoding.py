"""Where a point of a space lies in the columns of the model (`process`).

A column is a place in [0, 1] on a coordinate's own scale, or the number of a category. Both arms share the columns: the
full arm is placed at the edge of the subset coordinates (switch 0, share 1), with a column of its own for whatever
still differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subsettune.config import FrozenDict
from subsettune.policy import FULL
from subsettune.study.search.kernel import Array
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space

_EDGE = {"switch": 0.0, "subset_share": 1.0, "q": 1.0}  # the full arm selects everything and switches at once


class Encoding:
    """Places points of a space in the columns of the model."""

    def __init__(self, space: Space) -> None:
        self.space = space
        axes = [axis for axis in space.coordinates if not axis.is_single or axis.name == "budget"]
        self.columns = [axis for axis in axes if axis.name != "arm"]
        self._has_arm = len(space.arms) > 1
        self.trend = [axis.name for axis in self.columns].index("budget")
        flags = [not _is_ordered(axis) for axis in self.columns] + [True] * self._has_arm
        self.is_category = np.array(flags, dtype=np.bool_)

    def units(self, point: FrozenDict, arm: str) -> Array:
        """Places of a point on the axes of its arm, in their order; 0.5 where inactive."""
        axes = self.space.axes(arm)
        return np.array([axis.to_unit(point[axis.name]) if axis.name in point else 0.5 for axis in axes])

    def point(self, units: Array, arm: str) -> FrozenDict:
        """The point at places on the axes of an arm."""
        places = dict(zip((axis.name for axis in self.space.axes(arm)), units, strict=True))
        return self.space.point(arm, lambda axis: axis.from_unit(float(places[axis.name])))

    def encode(self, units: Array, arm: str) -> Array:
        """(m, d) columns of the model for (m, axes of the arm) places."""
        axes = self.space.axes(arm)
        places = {axis.name: units[:, i] for i, axis in enumerate(axes)}
        active = self._active(axes, places, arm)
        columns = []
        for axis in self.columns:
            if axis.name in places:
                seen = places[axis.name] if _is_ordered(axis) else _category(axis, places[axis.name])
                columns.append(np.where(active[axis.name], seen, _absent(axis)))
            else:
                columns.append(np.full(len(units), _absent(axis)))
        if self._has_arm:
            columns.append(np.full(len(units), float(arm != FULL)))
        return np.column_stack(columns)

    def _active(self, axes: Sequence[Coordinate], places: dict[str, Array], arm: str) -> dict[str, NDArray[np.bool_]]:
        """For each axis, in which rows it exists."""
        active: dict[str, NDArray[np.bool_]] = {}
        for axis in axes:
            rows = np.ones(len(places["budget"]), dtype=np.bool_)
            for key, allowed in axis.when.items():
                if key == "arm":
                    rows &= arm in allowed
                    continue
                parent = self.space[key]
                wanted = [i for i, value in enumerate(parent.values) if value in allowed]
                rows &= active[key] & np.isin(_category(parent, places[key]), wanted)
            active[axis.name] = rows
        return active


def _is_ordered(axis: Coordinate) -> bool:
    """Whether neighbouring places are neighbouring values."""
    if axis.kind in ("float", "int"):
        return True
    numbers = [v for v in axis.values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(axis.values) and numbers in (sorted(numbers), sorted(numbers, reverse=True))


def _category(axis: Coordinate, places: Array) -> Array:
    return np.minimum(np.floor(places * len(axis.values)), len(axis.values) - 1)


def _absent(axis: Coordinate) -> float:
    """The column of a coordinate that a point does not have."""
    if not _is_ordered(axis):
        return -1.0
    return _EDGE.get(axis.name, 0.5)
