"""Which policy each component is compared by, and its baseline: the same policy without the component."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET, Policy
from subsettune.study.ablation.judge import has_result
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.records import RunRecord
from subsettune.study.spec import components
from subsettune.study.spec.components import Component
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space
from subsettune.task import Recipe

Invalid = Callable[[Policy], str | None]
COMPARED = 3  # components: one error rate for more of them would be so thin that few seeds show nothing of any
TOO_FAR = "only the three nearest to the target are compared"
DRAWS = 500  # policies looked at for one that a component can be paid from


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search found.

    Args:
        trials: on record.
        trusted: policies that the search would stake a verification on, cheapest first.
        target: validation metric that counts as matched.
        higher_is_better: direction of the metric.
    """

    trials: tuple[RunRecord, ...]
    trusted: tuple[Policy, ...]
    target: float
    higher_is_better: bool

    def best_first(self, component: Component | None = None) -> list[tuple[RunRecord, ...]]:
        """Policies of the subset arm, each as its trials, the most promising first; with one component if given.

        First those that the search trusts, then those whose mean is at the target, both cheapest first, then the
        others, nearest to the target first. A policy of which any trial ended without a result is left out.
        """
        groups: dict[str, list[RunRecord]] = {}
        for trial in self.trials:
            if trial.policy.arm == SUBSET and (component is None or components.is_at_work(component, trial.policy)):
                groups.setdefault(trial.policy.key, []).append(trial)
        sound = {key: tuple(group) for key, group in groups.items() if all(has_result(trial) for trial in group)}
        trusted = {policy.key for policy in self.trusted}
        return [sound[key] for key in sorted(sound, key=lambda key: self._rank(sound[key], key in trusted))]

    def _rank(self, group: tuple[RunRecord, ...], is_trusted: bool) -> tuple[int, float, int]:
        first, sign = group[0], 1 if self.higher_is_better else -1
        gaps = [sign * (trial.metric - self.target) for trial in group if trial.metric is not None]
        spare = math.fsum(gaps) / len(gaps)
        if is_trusted or spare >= 0:
            return 0 if is_trusted else 1, first.cost_flops, first.number
        return 2, -spare, first.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What policies are made from, and held against.

    Args:
        space: that was searched.
        facts: of the task.
        recipe: of the task.
        invalid: says why a policy cannot run, or None if it can.
    """

    space: Space
    facts: TaskFacts
    recipe: Recipe
    invalid: Invalid


def choose(
    contenders: Iterable[Component], found: Found, ground: Ground, at_most: int = COMPARED
) -> tuple[AblationResult, ...]:
    """For each component the policy that it is compared by, or why it is not compared.

    Compared are those whose policies come first in `Found.best_first`; a policy that the search never finished comes
    after all that it did, and of equals the first of `contenders`.

    Args:
        contenders: components of the space that are not neutral.
        found: by the search.
        ground: the space, and what its policies have to do.
        at_most: components to compare; not negative.

    Returns:
        Rows without a result, in the order of `contenders`.
    """
    rows = [_chosen(component, found, ground) for component in contenders]
    places = {group[0].number: place for place, group in enumerate(found.best_first())}

    def place(row: AblationResult) -> int:
        return places[row.trials[0]] if row.trials else len(places)

    able = sorted((row for row in rows if row.policy is not None), key=place)
    too_far = {row.component for row in able[at_most:]}
    return tuple(_left_out(row.component) if row.component in too_far else row for row in rows)


def num_compared(contenders: Sequence[Component]) -> int:
    """How many components are compared at most."""
    return min(len(contenders), COMPARED)


def _left_out(component: Component) -> AblationResult:
    return AblationResult(kind=component.kind, name=component.name, verdict="not_tried", reason=TOO_FAR)


def _chosen(component: Component, found: Found, ground: Ground) -> AblationResult:
    for group in found.best_first(component):
        if ground.invalid(components.neutralised(group[0].policy, component.kind)) is None:
            return _row(component, group[0].policy, ground, tuple(trial.number for trial in group))
    why_not = ""
    for group in found.best_first():
        try:
            policy = ground.space.policy(_with(component, group[0].coordinates, ground.space), ground.facts)
        except ConfigError as error:
            problem: str | None = str(error)
        else:
            problem = _problem(component, policy, group[0].name, ground.invalid)
        if problem is None:
            return _row(component, policy, ground)
        why_not = why_not or problem
    near = _nearest(component, found, ground)
    if near is not None:
        return _row(component, near, ground)
    reason = why_not or unaffordable(component, ground) or "the search finished no subset policy"
    return AblationResult(kind=component.kind, name=component.name, verdict="not_tried", reason=reason)


def _problem(component: Component, policy: Policy, where: str, invalid: Invalid) -> str | None:
    """Why a policy made from a trial cannot stand for a component; None if it can, and its baseline too."""
    if components.name_in(policy, component.kind) != component.name:
        return f"{component.name!r} is no choice in {where}"
    if not components.is_at_work(component, policy):
        return f"{component.name!r} changes nothing with its usual options in {where}"
    return invalid(policy) or invalid(components.neutralised(policy, component.kind))


def _nearest(component: Component, found: Found, ground: Ground) -> Policy | None:
    """Of some policies with a component that can run, drawn from the space, the one most like the best policy."""
    space, groups, rng = ground.space, found.best_first(), np.random.default_rng(0)
    nearest: Policy | None = None
    least = math.inf
    for _ in range(DRAWS if groups else 0):
        drawn: Mapping[str, Any] = space.sample(rng, SUBSET)
        point = _with(component, drawn, space)
        distance = _distance(point, groups[0][0].coordinates, space, component.kind)
        if distance >= least:
            continue
        try:
            policy = space.policy(point, ground.facts)
        except ConfigError:
            continue
        if _problem(component, policy, "", ground.invalid) is None:
            nearest, least = policy, distance
    return nearest


def _with(component: Component, point: Mapping[str, Any], space: Space) -> Mapping[str, Any]:
    """A point of the subset arm with a component; what the point does not say takes its usual value."""
    wanted = {**point, component.kind: _value(component, point, space)}
    return space.point(SUBSET, lambda axis: wanted.get(axis.name, axis.default))


def _value(component: Component, point: Mapping[str, Any], space: Space) -> Any:
    """What makes a point have a component; a point with a soup keeps its share."""
    return components.chosen(component, space, point)


def _distance(a: Mapping[str, Any], b: Mapping[str, Any], space: Space, without: str) -> float:
    """Sum of squares over the coordinates that both points have but one, each on its own scale from 0 to 1."""
    shared = (axis for axis in space.coordinates if axis.name in a and axis.name in b and axis.name != without)
    return math.fsum((axis.to_unit(a[axis.name]) - axis.to_unit(b[axis.name])) ** 2 for axis in shared)


def unaffordable(component: Component, ground: Ground) -> str | None:
    """Why not even the policy of a space that leaves most for a component can run; None if it can.

    It has the largest budget and switch, and the fewest and smallest choices; options take their usual values.
    """
    most, least = ("budget", "switch", "reselect"), ("subset_share", "q", "steps", "growth")

    def value_of(axis: Coordinate) -> Any:
        if axis.name == component.kind:
            return components.chosen(component, ground.space)
        ends = axis.values or (axis.from_unit(0.0), axis.from_unit(1.0))
        return max(ends) if axis.name in most else min(ends) if axis.name in least else axis.default

    try:
        return ground.invalid(ground.space.policy(ground.space.point(SUBSET, value_of), ground.facts))
    except ConfigError as error:
        return str(error)


def _row(component: Component, policy: Policy, ground: Ground, trials: tuple[int, ...] = ()) -> AblationResult:
    baseline = components.neutralised(policy, component.kind)
    return AblationResult(
        kind=component.kind,
        name=component.name,
        verdict="open",
        policy=policy,
        baseline=baseline,
        trials=trials,
        cost_flops=policy.cost(ground.facts),
        baseline_cost_flops=baseline.cost(ground.facts),
        selection_flops=components.overhead_flops(component.kind, policy, ground.recipe, ground.facts),
    )
