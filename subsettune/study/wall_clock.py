"""How long a study will take as its machine sees it, stage by stage: what is expected, and what is the most.

A stage's runs go side by side in so many slots, each as slow as it is beside the others; on top of its training, a run
measures the validation split at the points of its curve that `execute.looks` allows, and the driver takes its time for
it. What is expected rests on assumptions that the search may well break, and the most on none but that a pass takes
what it took when it was timed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET
from subsettune.study.ablation.choose import num_compared
from subsettune.study.execute.looks import Looks
from subsettune.study.results.records import Role
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.definition import REFERENCE_POINTS, Study
from subsettune.study.spec.space import Space
from subsettune.study.timing import Timing
from subsettune.study.verification.candidates import MOST_BUDGET
from subsettune.study.verification.noninferiority import sizes
from subsettune.study.verification.rules import rules_of

# Of Ray and Tune's import, the cluster's start and its end, on 2 cores of a Xeon. The workers' start is timed.
CLUSTER_START_S = 8.0
# Of the driver for each run: `benchmarks/trial_overhead.py` finds 0.07 s at one at a time, 0.19 s at two, on 2 cores.
RUN_OVERHEAD_S = 0.1
MORE_SEEDS = "more seeds of the reference"
EXPECTED_TESTS = 2  # policies that a verification runs: the first passes and a cheaper one is tried, or another one is
ROLES: Mapping[str, Role] = {
    **{"reference": "reference", "search": "trial", "verification": "verification"},
    **{MORE_SEEDS: "verification", "ablation": "ablation"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs of one kind.

    Args:
        expected: how many there will be.
        most: how many there may be.
        expected_passes: compute of one, as expected.
        most_passes: compute of one, where all of them together cost the most.
    """

    expected: float
    most: int
    expected_passes: float
    most_passes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Wall-clock seconds of a stage."""

    expected: float
    most: float


def count_runs(study: Study, space: Space, facts: TaskFacts) -> dict[str, Runs]:
    """How many runs of each kind there are, and what they cost.

    Expected are: budgets of trials as the space draws them; candidates and ablation at the middle of its range, because
    what matches lies above what the search tries; of verification see `_verification`.
    """
    settings, passes = study.study, facts.reference_passes
    low, high = budget_ends(space["budget"])
    middle, dearest = 0.5 * (low + high) * passes, high * passes
    more = settings.seed_cap - settings.seeds
    found = {
        "reference": Runs(expected=settings.seeds, most=settings.seeds, expected_passes=passes, most_passes=passes),
        "search": Runs(
            expected=settings.trials,
            most=settings.trials,
            expected_passes=mean_budget(space["budget"]) * passes,
            most_passes=dearest,
        ),
        "verification": _verification(study, space, passes),
        MORE_SEEDS: Runs(
            expected=0.5 * (rules_of(study).middle_seeds - settings.seeds),
            most=more,
            expected_passes=passes,
            most_passes=passes,
        ),
    }
    compared = 2 * num_compared(study.contenders) * settings.ablation_seeds  # each with its baseline
    if compared:
        found["ablation"] = Runs(expected=compared, most=compared, expected_passes=middle, most_passes=dearest)
    return found


def _verification(study: Study, space: Space, passes: float) -> Runs:
    """Runs of the policies that are tested, those of the reference apart.

    Expected are `EXPECTED_TESTS` policies at the middle of the budgets, each with half of what its last look adds to
    its first, and the first look of a plain twin where there are subsets. At most there are all candidates of the
    search, two plain controls of one, the recipe at its last look, and a random control. A cheap policy has more runs,
    a dear one dearer ones: the number is that of the cheapest, the compute that of the dearest.
    """
    settings, has_subset = study.study, SUBSET in space.arms
    low, high = budget_ends(space["budget"])
    middle, last_resort = 0.5 * (low + high), min(high, MOST_BUDGET)
    expected = EXPECTED_TESTS * 0.5 * (settings.seeds + _last_runs(study, middle)) + has_subset * settings.seeds
    tested, control = settings.candidates + 2 * has_subset, has_subset * settings.seeds
    recipe = sizes(rules_of(study), last_resort, is_last_resort=True)[-1][0]
    cost = tested * max(_last_runs(study, share) * share for share in (low, high)) + recipe * last_resort
    most = tested * max(_last_runs(study, share) for share in (low, high)) + recipe + control
    total = (cost + control * high) * passes
    return Runs(expected=expected, most=most, expected_passes=middle * passes, most_passes=total / most)


def _last_runs(study: Study, share: float) -> int:
    """Runs of a candidate at its last look, by its share of the reference's compute."""
    return sizes(rules_of(study), share)[-1][0]


def mean_budget(axis: Coordinate) -> float:
    """Mean of a budget as the space draws it: of its choices, or of a uniform or log-uniform range."""
    if axis.values:
        return math.fsum(float(value) for value in axis.values) / len(axis.values)
    low, high = float(axis.lo), float(axis.hi)
    return (high - low) / math.log(high / low) if axis.log and high > low else 0.5 * (low + high)


def budget_ends(axis: Coordinate) -> tuple[float, float]:
    """The smallest and the largest budget."""
    values = axis.values or (axis.lo, axis.hi)
    return float(min(values)), float(max(values))


# More than six parameters: the last two are settings of a study that few change.
def project(
    runs: Mapping[str, Runs],
    timing: Timing,
    facts: TaskFacts,
    parts: Mapping[str, int],
    slots: int,
    *,
    share_prefixes: bool = False,
    reference_looks: int = REFERENCE_POINTS,
) -> dict[str, Seconds]:
    """Seconds of each stage; those of reference runs that verification adds are part of verification.

    Args:
        runs: of each kind.
        timing: of this machine.
        facts: of the task.
        parts: examples of `validation` and `test`.
        slots: runs at a time.
        share_prefixes: whether trials share beginnings, which saves looks at them; what it saves beyond that nobody
            knows before they are proposed.
        reference_looks: points of the curve of a run of the reference.
    """
    pass_s, validation_s = facts.num_examples * timing.example_s, parts["validation"] * timing.measured_s
    looks = Looks(
        facts=facts,
        num_validation=parts["validation"],
        share_prefixes=share_prefixes,
        reference_looks=reference_looks,
    )

    def of(role: Role, kind: Runs, extra_s: float) -> Seconds:
        lengths = (kind.expected_passes, kind.most_passes)
        points = [looks.points_of(role, round(passes * facts.pass_flops)) for passes in lengths]
        each = [p * pass_s + n * validation_s + extra_s for p, n in zip(lengths, points, strict=True)]
        counts = (kind.expected, kind.most)
        walls = [
            math.ceil(count / slots) * run_s + count * RUN_OVERHEAD_S for count, run_s in zip(counts, each, strict=True)
        ]
        return Seconds(expected=walls[0], most=walls[1])

    test_s = parts["test"] * timing.measured_s
    tested = {kind: test_s if ROLES[kind] == "verification" else 0.0 for kind in runs}
    found = {kind: of(ROLES[kind], one, tested[kind]) for kind, one in runs.items()}
    more = found.pop(MORE_SEEDS)
    verified = found["verification"]
    found["verification"] = Seconds(expected=verified.expected + more.expected, most=verified.most + more.most)
    start_s = CLUSTER_START_S + timing.start_s
    return {"start-up": Seconds(expected=start_s, most=start_s), **found}


def limited(search: Seconds, limit_s: float, trials: int, slots: int) -> Seconds:
    """Seconds of a search after whose limit no trial starts: those that are under way end."""
    rounds = math.ceil(trials / slots)
    return Seconds(
        expected=min(search.expected, limit_s + search.expected / rounds),
        most=min(search.most, limit_s + search.most / rounds),
    )


def to_plain(seconds: Mapping[str, Seconds]) -> dict[str, Any]:
    """The seconds of stages for JSON."""
    return {stage: {"expected": one.expected, "at_most": one.most} for stage, one in seconds.items()}
