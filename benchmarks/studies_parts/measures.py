"""What is measured on tables: searches by hand beside studies, false bundles, the level for shapes as they occur."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import completed

from studies_parts import tables
from studies_parts.baselines import (
    Pick,
    TableField,
    grid_once,
    grid_tested,
    optuna_search,
    passes,
    random_search,
)
from studies_parts.simulated import claims_win, draw_of, on_table, spent, stages
from studies_parts.splits import rules_of
from studies_parts.tables import Table
from studies_parts.tasks import Bench, tabled
from subsettune.data import DataPaths
from subsettune.policy import FULL, Policy, conventional
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space import Space
from subsettune.study.verification.noninferiority import Rules, allot, plan, sizes

STUDIES_A_TASK = 5  # of one task, on one test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A repeat on a table, one process's work.

    Args:
        name: of the table.
        seed: of the repeat: of its studies and of its columns.
        kind: `search`, or which policies lie at the margin: `all at margin`, `all but the recipe`.
        places: where this machine keeps data.
        folder: of the tables.
    """

    name: str
    seed: int
    kind: str
    places: DataPaths
    folder: Path = tables.FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search on a table came to.

    Args:
        name: of the search.
        cost: of its policy over the cheapest that is truly within the tolerance; NaN where it found none.
        truth: mean difference of its policy in the whole table, oriented; NaN where it found none.
        spent: in conventional trainings.
        claims_win: of a study: whether a policy of the subset arm is said to be better than plain training of its cost.
        stages: of a study: what each cost, in conventional trainings.
    """

    name: str
    cost: float
    truth: float
    spent: float
    claims_win: bool = False
    stages: Mapping[str, float] = field(default_factory=dict)


@lru_cache(maxsize=4)
def _table(folder: Path, name: str, places: DataPaths) -> Table:
    return tables.read(folder / f"{name}.parquet", places)


def optimum(table: Table) -> float:
    """Cost of the cheapest policy of a table whose mean is within the tolerance; NaN where there is none."""
    margin = table.task.tolerance
    good = [row.policy for row in table.tabled if table.mean_difference(row.policy) >= -margin]
    good = [policy for policy in good if policy.key != conventional(table.facts).key]
    return min((table.cost(policy) for policy in good), default=np.nan)


# --- searches ---------------------------------------------------------------------------------------------------------


def searches(asked: Asked) -> list[Found]:
    """A study, and each search by hand, on columns that the repeat draws."""
    torch.set_num_threads(1)
    bench, table = tabled(asked.name), _table(asked.folder, asked.name, asked.places)
    study = bench.study.with_settings({"seed": asked.seed})
    best = optimum(table)
    return [_of_study(study, table, best), *_by_hand(bench, table, asked.seed, best)]


def _of_study(study: Study, table: Table, best: float) -> Found:
    view = on_table(study, table)
    row = view.summary.best if view.summary.verified else None
    return Found(
        name="study",
        cost=np.nan if row is None else table.cost(row.policy) / best,
        truth=np.nan if row is None else table.mean_difference(row.policy),
        spent=spent(view),
        claims_win=claims_win(view),
        stages=stages(view),
    )


def _by_hand(bench: Bench, table: Table, seed: int, best: float) -> list[Found]:
    settings, space = bench.study.study, Space.from_mapping(bench.study.space)
    shown = TableField(table, draw_of(table, seed).paired)
    grid = [row.policy for row in table.tabled if row.policy.arm == FULL and row.policy.recipe]
    rules = rules_of(bench.study, table.num_examples["test"], table.reference.validation)
    picks: dict[str, Callable[[], Pick]] = {
        "grid, tested": lambda: grid_tested(shown, grid, rules),
        "grid, one seed": lambda: grid_once(shown, grid),
        "random search": lambda: random_search(shown, space, settings.trials, seed),
        "Optuna by hand": lambda: optuna_search(shown, space, settings.trials, seed),
    }
    return [_of_pick(name, pick(), table, best) for name, pick in picks.items()]


def _of_pick(name: str, pick: Pick, table: Table, best: float) -> Found:
    cost, truth = np.nan, np.nan
    if pick.policy is not None:
        cost, truth = table.cost(pick.policy) / best, table.mean_difference(pick.policy)
    return Found(name=name, cost=cost, truth=truth, spent=pick.spent)


# --- false bundles ----------------------------------------------------------------------------------------------------


def false_bundles(asked: Asked) -> list[tuple[bool, bool]]:
    """Of several studies of one task: whether each exports a policy that lies exactly at the margin, and confirms it.

    The test metrics of the policies are shifted, so that the mean difference of the table is minus the tolerance; the
    validation metrics, which the search sees, stay as they are: the worst case, in which nothing that looks good is.
    """
    torch.set_num_threads(1)
    bench, table = tabled(asked.name), _table(asked.folder, asked.name, asked.places)
    spared = {tables.key_of(conventional(table.facts), table.task)}
    spared |= _unchanged(bench, table) if asked.kind == "all but the recipe" else set()
    first = STUDIES_A_TASK * asked.seed

    def shift(policy: Policy) -> float:
        return 0.0 if tables.key_of(policy, table.task) in spared else to_margin(table, policy)

    def is_false(seed: int) -> tuple[bool, bool]:
        view = on_table(bench.study.with_settings({"seed": seed}), table, repeats=True, shift=shift, confirms=True)
        best, confirmation = view.summary.best if view.summary.verified else None, view.manifest.confirmation
        found = best is not None and tables.key_of(best.policy, table.task) not in spared
        return found, found and confirmation is not None and confirmation.verdict.passed is True

    return [is_false(seed) for seed in range(first, first + STUDIES_A_TASK)]


def to_margin(table: Table, policy: Policy) -> float:
    """What has to be added to a policy's test metric so that its mean difference is minus the tolerance."""
    sign = 1 if table.task.higher_is_better else -1
    differences = table.differences(policy)
    return float(sign * (-table.task.tolerance - differences[np.isfinite(differences)].mean()))


def _unchanged(bench: Bench, table: Table) -> set[str]:
    """The recipe as it stands, at the largest budget of the space: what a careful order of tests begins with."""
    budgets = bench.study.space["budget"]["choice"]
    rate = table.task.recipe.lr
    return {
        tables.key_of(row.policy, table.task)
        for row in table.tabled
        if row.policy.arm == FULL
        and row.policy.recipe.get("lr") == rate
        and abs(row.policy.passes - max(budgets) * table.facts.reference_passes) < 1e-6
    }


# --- level ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How often the product's test passes a policy that lies exactly at the margin.

    Args:
        policy: whose runs give the shape.
        count: of simulated verifications that passed it.
        repeats: simulated verifications.
        spread: standard deviation of its differences, over that of two reference runs' difference.
        skew: third standardised moment of its differences.
        correlation: of its runs with the reference's, seed by seed; below 0 the test errs on the wrong side.
    """

    policy: Policy
    count: int
    repeats: int
    spread: float
    skew: float
    correlation: float


def levels(table: Table, rules: Rules, share: float, repeats: int, seed: int) -> list[Level]:
    """Of each policy of a table: its runs, shifted to the margin, drawn with replacement beside their reference's.

    Args:
        table: that holds them.
        rules: of the verification.
        share: of the first verification's level that the policy has; with all of it, it is the last resort.
        repeats: simulated verifications.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    rows = [row for row in table.tabled if row is not table.reference and np.isfinite(row.test).all()]
    return [_level(table, row.policy, rules, share, repeats, rng) for row in rows]


def _level(table: Table, policy: Policy, rules: Rules, share: float, repeats: int, rng: np.random.Generator) -> Level:
    reference, differences = table.reference.test, table.differences(policy)
    candidate = table.row(policy).test + to_margin(table, policy)
    looks = plan(share * allot(rules.alpha), sizes(rules, table.cost(policy), is_last_resort=share == 1))
    drawn = rng.integers(table.num_columns, size=(repeats, looks[-1].num_seeds))
    count = int(passes(candidate[drawn], reference[drawn], rules, looks).sum())
    spread = float(differences.std(ddof=1))
    centred = differences - differences.mean()
    skew = float((centred**3).mean() / max(centred.std() ** 3, 1e-12))
    own = float(np.sqrt(2) * reference.std(ddof=1))
    return Level(
        policy=policy,
        count=count,
        repeats=repeats,
        spread=spread / max(own, 1e-12),
        skew=skew,
        correlation=_correlation(candidate, reference),
    )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two arrays of numbers; 0 where one does not vary."""
    spreads = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spreads) if spreads > 0 else 0.0


# --- all of them ------------------------------------------------------------------------------------------------------


def carried_out(work: Callable[[Asked], Any], asked: Sequence[Asked], processes: int) -> list[Any]:
    """What each repeat came to, in the order in which they are asked for."""
    done = {one.seed: outcome for one, outcome in completed(work, asked, processes)}
    return [done[one.seed] for one in asked]
