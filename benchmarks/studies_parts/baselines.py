"""What people do by hand instead of a study: a grid, random search, and a sampler with least compute as its objective.

Each gets a `Field`, where policies are run, and returns the one policy that it would go on with, and what it spent.
The target is that of a study, validation accuracy of the recipe minus the tolerance, by as many seeds as a policy gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from studies_parts.tables import Table, can_run
from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.policy import FULL, SUBSET, Phase, Policy, conventional
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space
from subsettune.study.verification.noninferiority import Look, Rules, decide, plan
from subsettune.task import Task

Array = NDArray[np.float64]
SHORT = 1.0  # what an objective adds where the target is missed: more than the dearest policy costs


@dataclass(frozen=True, slots=True)
class Measured:
    """A run: its metrics (NaN: it diverged), and what it spent, in conventional trainings, without evaluation."""

    validation: float
    test: float
    spent: float


class Field(Protocol):
    """Where policies of a task are run."""

    @property
    def task(self) -> Task: ...

    @property
    def facts(self) -> TaskFacts: ...

    @property
    def num_examples(self) -> Any: ...

    def run(self, policy: Policy, seed: int) -> Measured:
        """The run of a policy; seeds count from 0, and are shared by all policies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What a search by hand came to.

    Args:
        policy: that it goes on with; None where nothing reached the target.
        spent: in conventional trainings, those of the recipe and evaluation included.
    """

    policy: Policy | None
    spent: float


class Purse:
    """A field whose runs are paid for, one evaluation on each split that is looked at included."""

    def __init__(self, field: Field) -> None:
        self.field, self.spent = field, 0.0

    def validation(self, policy: Policy, seed: int) -> float:
        """Metric on the validation split; -infinity or infinity, whichever is worse, where the run diverged."""
        return self._paid(policy, seed, ("validation",)).validation

    def test(self, policy: Policy, seed: int) -> float:
        """Metric on the test split; NaN where the run diverged."""
        return self._paid(policy, seed, ("test",)).test

    def _paid(self, policy: Policy, seed: int, splits: Sequence[str]) -> Measured:
        run, facts = self.field.run(policy, seed), self.field.facts
        measured = sum(self.field.num_examples[split] for split in splits) * facts.forward_flops
        self.spent += run.spent + measured / facts.reference_flops
        return run


def reaches(value: float, target: float, task: Task) -> bool:
    """Whether a metric is at the target; NaN is not."""
    return value >= target if task.higher_is_better else value <= target


def cheapest(policies: Sequence[Policy], facts: TaskFacts) -> Policy | None:
    """The one that costs least."""
    return min(policies, key=lambda policy: policy.cost(facts), default=None)


# --- the grid ---------------------------------------------------------------------------------------------------------


def grid_policies(budgets: Sequence[float], rates: Sequence[float], facts: TaskFacts) -> list[Policy]:
    """Plain training for each budget, at each rate."""
    lengths = [budget * facts.reference_passes for budget in budgets]
    return [_plain(length, rate) for length in lengths for rate in rates]


def _plain(passes: float, rate: float) -> Policy:
    return Policy(phases=(Phase(passes=passes),), recipe=FrozenDict({"lr": rate}))


def grid_once(field: Field, policies: Sequence[Policy]) -> Pick:
    """A grid with one seed: the cheapest policy at the target."""
    purse = Purse(field)
    target = field.task.target(purse.validation(conventional(field.facts), 0))
    kept = [policy for policy in policies if reaches(purse.validation(policy, 0), target, field.task)]
    return Pick(policy=cheapest(kept, field.facts), spent=purse.spent)


def grid_tested(field: Field, policies: Sequence[Policy], rules: Rules) -> Pick:
    """A grid with `max_seeds` runs of each policy: the cheapest that the product's test passes, one look at alpha."""
    purse, number = Purse(field), rules.max_seeds
    looks = plan(rules.alpha, ((number, number),))
    reference = tests(purse, conventional(field.facts), number)
    kept = [p for p in policies if bool(passes(tests(purse, p, number), reference, rules, looks))]
    return Pick(policy=cheapest(kept, field.facts), spent=purse.spent)


def tests(purse: Purse, policy: Policy, num_seeds: int) -> Array:
    """(num_seeds,) test metrics of a policy."""
    return np.array([purse.test(policy, seed) for seed in range(num_seeds)])


def passes(candidate: Array, reference: Array, rules: Rules, looks: tuple[Look, ...]) -> NDArray[np.bool_]:
    """Whether the product's test passes a policy; one of which a run diverged does not.

    Args:
        candidate: (..., runs) test metric of its runs, in the order of seeds; at least as many as the last look takes.
        reference: (..., runs) likewise, of the conventional runs with the same seeds, finite.
        rules: of the verification.
        looks: at the policy, with their levels.

    Returns:
        (...) the verdicts.
    """
    sign = 1 if rules.higher_is_better else -1
    is_finite = np.isfinite(candidate[..., : looks[-1].num_seeds]).all(axis=-1)
    passed, _ = decide(sign * np.nan_to_num(candidate), sign * reference, rules, looks)
    return np.asarray(passed & is_finite, dtype=np.bool_)


# --- searches by one number -------------------------------------------------------------------------------------------


def random_search(field: Field, space: Space, trials: int, seed: int) -> Pick:
    """As many points at random, one seed each: the cheapest policy at the target."""
    rng = np.random.default_rng(seed)
    points = [space.sample(rng) for _ in range(trials)]
    purse = Purse(field)
    target = field.task.target(purse.validation(conventional(field.facts), 0))
    policies = [space.policy(point, field.facts) for point in points]
    kept = [policy for policy in policies if reaches(purse.validation(policy, 0), target, field.task)]
    return Pick(policy=cheapest(kept, field.facts), spent=purse.spent)


def objective(validation: float, cost: float, target: float, task: Task) -> float:
    """Least compute with a penalty, as it is written by hand: the cost at the target, else 1 and what is missing."""
    if reaches(validation, target, task):
        return cost
    return SHORT + (abs(target - validation) if math.isfinite(validation) else SHORT)


def suggested(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A point of a space, asked of Optuna coordinate by coordinate."""
    arm = trial.suggest_categorical("arm", [FULL, SUBSET]) if len(space.arms) > 1 else FULL

    def value_of(axis: Coordinate) -> Any:
        if axis.values:
            return trial.suggest_categorical(axis.name, list(axis.values))
        if axis.kind == "int":
            return trial.suggest_int(axis.name, int(axis.lo), int(axis.hi), log=axis.log)
        return trial.suggest_float(axis.name, axis.lo, axis.hi, log=axis.log)

    return dict(space.point(arm, value_of))


def optuna_search(field: Field, space: Space, trials: int, seed: int) -> Pick:
    """Optuna's TPE, which is what Ray Tune's OptunaSearch asks: one seed a trial, and the best trial is believed."""
    purse = Purse(field)
    target = field.task.target(purse.validation(conventional(field.facts), 0))
    found: dict[int, Policy] = {}

    def value(trial: optuna.Trial) -> float:
        policy = found[trial.number] = space.policy(suggested(trial, space), field.facts)
        return objective(purse.validation(policy, 0), _cost(policy, field.facts), target, field.task)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(value, n_trials=trials)
    is_found = study.best_value < SHORT
    return Pick(policy=found[study.best_trial.number] if is_found else None, spent=purse.spent)


def _cost(policy: Policy, facts: TaskFacts) -> float:
    return policy.cost(facts) / facts.reference_flops


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableField:
    """A table, its columns drawn for one repeat.

    Args:
        table: that holds the runs.
        column: of a seed.
    """

    table: Table
    column: Callable[[int], int]

    @property
    def task(self) -> Task:
        return self.table.task

    @property
    def facts(self) -> TaskFacts:
        return self.table.facts

    @property
    def num_examples(self) -> Any:
        return self.table.num_examples

    def run(self, policy: Policy, seed: int) -> Measured:
        """See `Field.run`; what cannot be run is not in the table, and is refused before it costs."""
        if not can_run(self.task, policy, self.facts):
            return Measured(math.nan, math.nan, 0.0)
        column, row = self.column(seed), self.table.row(policy)
        spent = row.ledgers[column].spent / self.facts.reference_flops
        return Measured(float(row.validation[column]), float(row.test[column]), spent)
