"""The comparison of components: did each selector, order and transition, and the soup, pay for itself?

After verification, the most promising policy with every component in the space meets its *twin*: the same policy with
that component replaced by its neutral kin, a selector by `random`, an order by `uniform`, a transition by `keep`, and
the soup by a longer subset stretch. The compute of a policy includes all that it does, so both cost the same, and the
twin trains for what the component spends. Both are trained with the same seeds, none of which the search has used, and
are judged on the validation split. Runs that verification made of the same policy with the same seed serve again; those
of the search do not, because its policies were chosen by them.

This is for information. It reads nothing of the test split and spends nothing of verification's error rate. The policy
was chosen by its validation metric and its twin was not, which favours the component; and many components are many
tests.

The stage is a list of runs that is written down before the first of them, and its rows are a function of the runs that
are on record, so that a killed driver does none of them twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET, Policy
from subsettune.study.execute.sequence import Pause, RunRequest
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import COMPARISON_LEVEL, AblationResult
from subsettune.study.spec import components
from subsettune.study.spec.components import Component
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space
from subsettune.study.verification.noninferiority import spread_floor
from subsettune.task import Recipe
from subsettune.train.result import CurvePoint

Invalid = Callable[[Policy], str | None]
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
class Rules:
    """How a pair is judged.

    Args:
        facts: of the task.
        seeds: that every policy is trained with; at least 2.
        higher_is_better: direction of the metric.
        resolution: smallest step of the metric on the validation split; 0 where it has none.
    """

    facts: TaskFacts
    seeds: tuple[int, ...]
    higher_is_better: bool
    resolution: float


def has_result(record: RunRecord) -> bool:
    """Whether a run came to its end with a metric."""
    return record.cause == "finished" and record.metric is not None and math.isfinite(record.metric)


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


def choose(contenders: Iterable[Component], found: Found, ground: Ground) -> tuple[AblationResult, ...]:
    """For each component the policy that it is compared by, or why there is none.

    Args:
        contenders: components of the space that are not neutral.
        found: by the search.
        ground: the space, and what its policies have to do.

    Returns:
        Rows without a result, in the order of `contenders`.
    """
    return tuple(_chosen(component, found, ground) for component in contenders)


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
    """Why a policy made from a trial cannot stand for a component; None if it can, and its twin too."""
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
    twin = components.neutralised(policy, component.kind)
    return AblationResult(
        kind=component.kind,
        name=component.name,
        verdict="open",
        policy=policy,
        twin=twin,
        trials=trials,
        cost_flops=policy.cost(ground.facts),
        twin_cost_flops=twin.cost(ground.facts),
        selection_flops=components.overhead_flops(component.kind, policy, ground.recipe, ground.facts),
    )


class ComparisonStage:
    """The runs of a comparison that are not on record yet, and what all of them show.

    Args:
        rows: as `choose` made them, or as they were saved.
        rules: how they are judged.
        records: of comparison and verification; runs of the compared policies with these seeds serve again.
        save: called with each record before it counts, and with None after every change.
    """

    def __init__(
        self,
        rows: Sequence[AblationResult],
        rules: Rules,
        records: Iterable[RunRecord],
        save: Callable[[RunRecord | None], None],
    ) -> None:
        self._rows, self._rules, self._save = tuple(rows), rules, save
        self._runs = {(record.policy.key, record.seed): record for record in records}
        self._waiting = list(self._missing())

    @property
    def num_waiting(self) -> int:
        """Runs that have not begun."""
        return len(self._waiting)

    @property
    def rows(self) -> tuple[AblationResult, ...]:
        """Every component with what its runs show so far."""
        return tuple(judge(row, self._runs, self._rules) for row in self._rows)

    def _missing(self) -> Iterator[RunRequest]:
        """Pair by pair, so that an interruption leaves as many whole pairs as it can; a shared twin runs once."""
        known = set(self._runs)
        for row in self._rows:
            for seed in self._rules.seeds:
                for name, policy in ((row.name, row.policy), (row.component.against, row.twin)):
                    if policy is not None and (policy.key, seed) not in known:
                        known.add((policy.key, seed))
                        yield _request(name, policy, seed)

    def next(self) -> RunRequest | Pause:
        """See `RunSource.next`."""
        return self._waiting.pop(0) if self._waiting else Pause.DONE

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing in a comparison is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Put the run on record, then the rows that it changes."""
        self._save(record)
        self._runs[record.policy.key, record.seed] = record
        self._save(None)

    def to_mapping(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {"seeds": list(self._rules.seeds), "rows": [config.to_plain(row) for row in self.rows]}


def _request(component: str, policy: Policy, seed: int) -> RunRequest:
    """A run named by its policy: a later comparison with another policy of the component must not replace it."""
    word = re.sub(r"[^A-Za-z0-9_]+", "-", component)  # names of runs are names of files
    name = f"compare-{word}-{policy.key[:8]}-seed-{seed}"
    return RunRequest(name=name, role="comparison", candidate=component, policy=policy, seed=seed)


def judge(row: AblationResult, runs: Mapping[tuple[str, int], RunRecord], rules: Rules) -> AblationResult:
    """The row with what its runs show.

    A pair of runs with the same seed gives one difference; positive means that the component is better. The interval is
    Student's, two-sided at `COMPARISON_LEVEL`, so each of the words `paid` and `not_paid` is wrong for at most one in
    twenty policies that equal their twin. The spread has the floor that verification uses, so that a few equal
    differences are not taken for certainty.

    Args:
        row: of one component.
        runs: among them its own and its twin's, by key of the policy and seed.
        rules: how it is judged.
    """
    if row.policy is None or row.twin is None:
        return row
    mine, twins = (
        {seed: runs[key, seed] for seed in rules.seeds if (key, seed) in runs} for key in (row.policy.key, row.twin.key)
    )
    lost = [*_lost(row.name, mine), *_lost(row.component.baseline, twins)]
    if lost:
        return replace(row, verdict="no_result", reason="; ".join(lost))
    done, needed = len(mine) + len(twins), 2 * len(rules.seeds)
    if done < needed:
        return replace(row, verdict="open", reason=f"{done} of {needed} runs are done")
    return _measured(row, [mine[seed] for seed in rules.seeds], [twins[seed] for seed in rules.seeds], rules)


def _lost(who: str, runs: Mapping[int, RunRecord]) -> list[str]:
    """The first run without a result, in words."""
    lost = sorted(seed for seed, record in runs.items() if not has_result(record))
    return [f"{who} {_ended(runs[lost[0]])} with seed {lost[0]}"] if lost else []


def _ended(record: RunRecord) -> str:
    return record.cause if record.cause in ("diverged", "failed") else "gave no metric"


def _measured(
    row: AblationResult, mine: Sequence[RunRecord], twins: Sequence[RunRecord], rules: Rules
) -> AblationResult:
    sign = 1.0 if rules.higher_is_better else -1.0
    metrics = np.array([(a.metric, b.metric) for a, b in zip(mine, twins, strict=True)], dtype=np.float64)
    differences = sign * (metrics[:, 0] - metrics[:, 1])
    floor = spread_floor(rules.resolution, float(np.abs(metrics).max()))
    lower, upper = interval(differences, floor)
    return replace(
        row,
        verdict="paid" if lower > 0 else "not_paid" if upper < 0 else "no_difference",
        reason="",
        differences=tuple(map(float, differences)),
        metric=float(metrics[:, 0].mean()),
        twin_metric=float(metrics[:, 1].mean()),
        difference=float(differences.mean()),
        lower=lower,
        upper=upper,
        select_s=_mean(run.select_s for run in mine),
        seconds=_mean(run.seconds for run in mine),
        twin_seconds=_mean(run.seconds for run in twins),
    )


def interval(differences: np.ndarray[Any, np.dtype[np.float64]], floor: float) -> tuple[float, float]:
    """Student's interval for the mean of differences, two-sided at `COMPARISON_LEVEL`.

    Args:
        differences: (n,) in the metric's units, n >= 2.
        floor: added to their standard deviation in quadrature.
    """
    n = len(differences)
    spread = math.hypot(float(differences.std(ddof=1)), floor)
    half = float(stats.t.ppf((1 + COMPARISON_LEVEL) / 2, n - 1)) * spread / math.sqrt(n)
    return float(differences.mean()) - half, float(differences.mean()) + half


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
