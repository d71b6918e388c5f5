"""One axis of a space of policies, and the conditions that it has by its name.

What a study file writes is in `space`, how it is read in `space_reader`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.policy import SOUP, SUBSET
from subsettune.study.spec.kinds import KINDS, OWNING

Scale = Literal["fixed", "float", "int", "choice"]
SELECTION_ONLY = ("selector", "steps", "growth", "reselect")  # mean nothing where the subset is all data
_SUBSET_ONLY = ("switch", "subset_share", "q", "steps", "growth", "reselect", *KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinate:
    """One axis of the space.

    Args:
        name: of the coordinate or recipe key.
        kind: fixed, float, int or choice.
        lo: least value (float, int).
        hi: greatest value (float, int).
        log: whether the scale is logarithmic.
        values: the choices, or the one fixed value.
        when: other coordinates and the values of theirs with which this one exists.
    """

    name: str
    kind: Scale
    lo: float = 0.0
    hi: float = 0.0
    log: bool = False
    values: tuple[Any, ...] = ()
    when: FrozenDict = FrozenDict()

    @property
    def is_single(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.values) == 1 if self.kind in ("fixed", "choice") else self.lo == self.hi

    @property
    def cardinality(self) -> float:
        """Number of values; infinity for a float."""
        if self.kind in ("fixed", "choice"):
            return len(self.values)
        if self.lo == self.hi:
            return 1
        return math.inf if self.kind == "float" else self.hi - self.lo + 1

    @property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or both ends of the range."""
        return self.values or ((int(self.lo), int(self.hi)) if self.kind == "int" else (self.lo, self.hi))

    @property
    def default(self) -> Any:
        """The usual value: the first choice, or the middle of the range on its own scale."""
        return self.values[0] if self.values else self.from_unit(0.5)

    def from_unit(self, unit: float) -> Any:
        """The value at a place in [0, 1]; choices share it in equal parts."""
        if self.kind in ("fixed", "choice"):
            return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]
        if self.kind == "int":
            # Half a step is added at both ends, so that each whole number has an equal part of a linear scale.
            lo, hi = self.lo - 0.5, self.hi + 0.5
            value = math.exp(math.log(lo) + unit * math.log(hi / lo)) if self.log else lo + unit * (hi - lo)
            return int(min(max(round(value), self.lo), self.hi))
        value = self.lo * (self.hi / self.lo) ** unit if self.log else self.lo + unit * (self.hi - self.lo)
        return float(min(max(value, self.lo), self.hi))

    def to_unit(self, value: Any) -> float:
        """The place of a value in [0, 1]: the inverse of `from_unit`, to the middle of a part of a choice."""
        if self.kind in ("fixed", "choice"):
            return (self.values.index(value) + 0.5) / len(self.values)
        lo, hi = (self.lo - 0.5, self.hi + 0.5) if self.kind == "int" else (self.lo, self.hi)
        if lo == hi:
            return 0.5
        return math.log(value / lo) / math.log(hi / lo) if self.log else (value - lo) / (hi - lo)

    def is_active(self, point: Mapping[str, Any]) -> bool:
        """Whether the coordinate exists at a point that holds the coordinates it depends on."""
        return all(key in point and point[key] in allowed for key, allowed in self.when.items())

    def to_plain(self, implied: Mapping[str, tuple[Any, ...]]) -> Any:
        """As it is written under `space:`, without the conditions that are implied."""
        when = {k: list(config.to_plain(v)) for k, v in self.when.items() if implied.get(k) != tuple(v)}
        if self.kind == "fixed":
            plain = config.to_plain(self.values[0])
            return {"choice": [plain], "when": when} if when else plain
        body: dict[str, Any]
        if self.kind == "choice":
            body = {"choice": list(config.to_plain(self.values))}
        elif self.kind == "int":
            body = {"int": [int(self.lo), int(self.hi)]} | ({"log": True} if self.log else {})
        else:
            body = {"log" if self.log else "uniform": [self.lo, self.hi]}
        return body | ({"when": when} if when else {})


def implied(name: str, axes: Mapping[str, Coordinate]) -> dict[str, tuple[Any, ...]]:
    """The conditions that a coordinate has without being told, beside the others of its space."""
    if name in _SUBSET_ONLY:
        return {"arm": (SUBSET,)} | (_where_selecting(axes) if name in SELECTION_ONLY else {})
    owner, dot, _ = name.rpartition(".")
    if dot and owner == SOUP:
        return _where_stirred(axes)
    kind = kind_of(owner, axes) if dot else None
    return {kind: (owner,)} if kind is not None else {}


def kind_of(owner: str, axes: Mapping[str, Coordinate]) -> str | None:
    """The coordinate that has `owner` among its values."""
    return next((kind for kind in OWNING if kind in axes and owner in axes[kind].values), None)


def _where_selecting(axes: Mapping[str, Coordinate]) -> dict[str, tuple[Any, ...]]:
    """The choices of the subset's share that leave something to select, where all data are among them."""
    shares = axes["subset_share"].values if "subset_share" in axes else ()
    return {"subset_share": tuple(share for share in shares if share != 1)} if 1 in shares else {}


def _where_stirred(axes: Mapping[str, Coordinate]) -> dict[str, tuple[Any, ...]]:
    """The conditions of the soup, and the choices of its share that are above 0."""
    if SOUP not in axes:
        return {}
    soup = axes[SOUP]
    active_soup = {SOUP: tuple(value for value in soup.values if value > 0)} if 0 in soup.values else {}
    return {"arm": (SUBSET,), **soup.when, **active_soup}
