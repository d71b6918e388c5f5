"""Where policies lie in the columns of the process (`process`): budgets on a log scale, and the switch as compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from subsettune.config import FrozenDict
from subsettune.policy import OWN
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.kernel import Array
from subsettune.study.search.observations import PolicyObservations
from subsettune.study.search.problem import Known
from subsettune.study.search.process import Frame
from subsettune.study.search.recipe_point import nearest_budget, recipe_value
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.point_to_policy import COORDINATES

_STRETCH = ("switch", "subset_share", "q", "steps", "growth", "reselect", "soup")  # act together
_STRETCH_SCALE = 1.6  # e-folds of compute before the switch that count as the whole of another coordinate's range
_EDGE, _EDGE_PRICE = 0.06, 0.04  # places this near to an end of a hyperparameter's range count as that much dearer


class Places:
    """Places policies of a space in the columns of the process.

    A row of *units* has the places in [0, 1] of a point on the axes of its arm, the budget first.

    Args:
        encoding: of the space.
        known: before the first trial; the recipe's place is the centre of the prior.
    """

    def __init__(self, encoding: Encoding, known: Known) -> None:
        self.space = encoding.space
        self.frame = _frame(encoding, known)
        self.known = known
        self._encoding = encoding
        switches = [(j, axis) for j, axis in enumerate(encoding.columns) if axis.name == "switch"]
        self._switch = switches[0] if switches and not switches[0][1].values else None

    def rows(self, tried: Sequence[PolicyObservations]) -> Array:
        """(n, d) points of the process for policies that were tried."""
        rows = np.empty((len(tried), len(self.frame.is_category)))
        for arm in self.space.arms:
            mine = [i for i, t in enumerate(tried) if t.arm == arm]
            if mine:
                rows[mine] = self.x(np.stack([self.units(tried[i].point, arm) for i in mine]), arm)
        return rows

    def units(self, point: FrozenDict, arm: str) -> Array:
        """(axes of the arm,) places of a point; 0.5 where a coordinate is inactive."""
        return self._encoding.units(point, arm)

    def point(self, units: Array, arm: str) -> FrozenDict:
        """The point at (axes of the arm,) places."""
        return self._encoding.point(units, arm)

    def encode(self, units: Array, arm: str) -> Array:
        """(m, d) columns for (m, axes of the arm) places, each place on the scale of its coordinate."""
        return self._encoding.encode(units, arm)

    def x(self, units: Array, arm: str, t: Array | None = None) -> Array:
        """(m, d) points of the process for (m, axes of the arm) places; at budgets e^t, (m,), if given."""
        x = self.encode(units, arm)
        return self.at(x, _log_budgets(self.space["budget"], units[:, 0]) if t is None else t)

    def at(self, columns: Array, t: Array) -> Array:
        """(m, d) points of the process for (m, d) columns, at budgets e^t.

        The switch becomes the log of the compute before it: what a subset teaches is used up after so many updates,
        whatever share of a budget they are.
        """
        moved = columns.copy()
        moved[:, self.frame.trend] = t
        if self._switch is not None:
            column, axis = self._switch
            switch = axis.lo + np.clip(columns[:, column], 0.0, 1.0) * (axis.hi - axis.lo)
            moved[:, column] = (t + np.log(switch)) / _STRETCH_SCALE
        return moved

    def on_budgets(self, t: Array) -> tuple[Array, Array]:
        """(m,) places on the budget's axis nearest to e^t, and the t that they stand for."""
        axis = self.space["budget"]
        places = np.array([axis.to_unit(nearest_budget(axis, math.exp(v))) for v in t])
        return places, _log_budgets(axis, places)

    @property
    def ends(self) -> tuple[float, float]:
        """Logs of the least and the largest budget of the space."""
        low, high = min(self.space["budget"].ends), max(self.space["budget"].ends)
        return math.log(low), math.log(high)

    def edge_price(self, units: Array, arm: str) -> Array:
        """(m,) what policies at an end of a hyperparameter's range count as dearer, in log budget."""
        axes = self.space.axes(arm)
        columns = [i for i, axis in enumerate(axes) if _is_hyper(axis)]
        places = units[:, columns]
        return np.asarray(_EDGE_PRICE * ((places < _EDGE) | (places > 1 - _EDGE)).sum(axis=1))


def manner(point: FrozenDict) -> FrozenDict:
    """A point without its budget."""
    return FrozenDict({key: value for key, value in point.items() if key != "budget"})


def _frame(encoding: Encoding, known: Known) -> Frame:
    """Columns of hyperparameters with a scale, and the recipe's place in them."""
    hyper = [(column, axis) for column, axis in enumerate(encoding.columns) if _is_hyper(axis)]
    return Frame(
        is_category=encoding.is_category,
        trend=encoding.trend,
        stretch=tuple(j for j, axis in enumerate(encoding.columns) if axis.name in _STRETCH),
        hyper=tuple(column for column, _ in hyper),
        centre=np.array([axis.to_unit(recipe_value(axis, known)) for _, axis in hyper]),
        width=np.array([math.log(axis.hi / axis.lo) if axis.log else 2.0 for _, axis in hyper]),
    )


def _is_hyper(axis: Coordinate) -> bool:
    """Whether an axis is a hyperparameter of the recipe that has a scale."""
    is_of_recipe = axis.name not in COORDINATES and ("." not in axis.name or axis.name.startswith(f"{OWN}."))
    return is_of_recipe and axis.kind != "choice" and not axis.is_single


def _log_budgets(axis: Coordinate, places: Array) -> Array:
    if axis.kind == "float" and axis.log:
        return np.asarray(math.log(axis.lo) + np.clip(places, 0.0, 1.0) * math.log(axis.hi / axis.lo))
    return np.array([math.log(axis.from_unit(float(place))) for place in places])
