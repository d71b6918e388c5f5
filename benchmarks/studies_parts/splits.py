"""The 24 splits of the digits, where all runs are carried out: a study, the plain grid, and searches by hand on each.

A split is one process's work. What it has trained is kept in a file of lines, so that the same command goes on.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import kept

from studies_parts.baselines import (
    Array,
    Measured,
    Pick,
    grid_once,
    grid_policies,
    grid_tested,
    optuna_search,
    random_search,
)
from studies_parts.simulated import carry_out, claims_win, outcomes, spent, stages
from studies_parts.tables import SPLITS, Known
from studies_parts.tasks import GRID_BUDGETS, GRID_RATES, digits_study, placebo_study
from subsettune import config, train
from subsettune.data import DataPaths
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy, conventional
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space import Space
from subsettune.study.verification import rules
from subsettune.study.verification.noninferiority import Rules
from subsettune.task import Task

FRESH = 99_000  # first of the seeds that judge what was found; those of studies start at multiples of 100,000
NUM_FRESH = 20
GRID_SEEDS = 10
TRIALS = 40


class Trained:
    """A `Field` whose runs are carried out, each once: lines of JSON say what was trained before.

    Args:
        known: of the task.
        places: where this machine keeps data.
        path: of the lines.
    """

    def __init__(self, known: Known, places: DataPaths, path: Path) -> None:
        self.known, self.places, self.path = known, places, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._runs = {row.pop("key"): Measured(**row) for row in kept(path)}

    @property
    def task(self) -> Task:
        return self.known.task

    @property
    def facts(self) -> TaskFacts:
        return self.known.facts

    @property
    def num_examples(self) -> Mapping[str, int]:
        return self.known.num_examples

    def run(self, policy: Policy, seed: int) -> Measured:
        """See `Field.run`."""
        key = config.digest([self.task, policy, seed])
        if key not in self._runs:
            self._runs[key] = self._train(policy, seed)
            with self.path.open("a") as lines:
                lines.write(json.dumps({"key": key, **asdict(self._runs[key])}) + "\n")
        return self._runs[key]

    def _train(self, policy: Policy, seed: int) -> Measured:
        """A policy that cannot be run, as one whose selector costs more than its phase, is refused before it costs."""
        options = train.RunOptions(splits=SPLITS, evaluations=1, num_threads=1, device="cpu", places=self.places)
        try:
            result = train.run(self.task, policy, seed, options=options)
        except ConfigError:
            return Measured(math.nan, math.nan, 0.0)
        validation, test = (result.metrics.get(split, math.nan) for split in SPLITS)
        return Measured(validation, test, result.ledger.spent / self.facts.reference_flops)

    def fresh(self, policy: Policy) -> Array:
        """(NUM_FRESH,) test metrics with seeds that no search has seen."""
        return np.array([self.run(policy, FRESH + i).test for i in range(NUM_FRESH)])

    def truth(self, policy: Policy) -> float:
        """Mean test metric of a policy minus that of the reference, fresh seeds, oriented; -infinity: one diverged."""
        sign = 1 if self.task.higher_is_better else -1
        differences = sign * (self.fresh(policy) - self.fresh(conventional(self.facts)))
        return float(differences.mean()) if np.isfinite(differences).all() else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """What a study came to.

    Args:
        split: seed of the split.
        seed: of the study.
        policy: that is exported, as a mapping; None for none.
        arm: of it.
        cost: of it, in conventional trainings.
        truth: see `Trained.truth`.
        spent: by the whole study, in conventional trainings.
        claims_win: whether a policy of the subset arm is said to be better than plain training of its compute.
        headline: in words.
        stages: what each cost, in conventional trainings.
        outcomes: of verification, in words, by name, arm and cost of the policy.
        seconds: that the runs took.
    """

    split: int
    seed: int
    policy: dict[str, Any] | None
    arm: str | None
    cost: float | None
    truth: float | None
    spent: float
    claims_win: bool
    headline: str
    stages: dict[str, float]
    outcomes: dict[str, str]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """What a search by hand came to on a split; fields as of `Studied`."""

    split: int
    name: str
    cost: float | None
    truth: float | None
    spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One process's share.

    Args:
        split: seed of the split.
        seed: of the study.
        kind: `study`, `placebo`, or `by hand`.
        out: folder of what is kept.
        placebo: which, of a study of that kind.
        trials: of each search.
    """

    split: int
    seed: int
    kind: str
    out: Path
    placebo: str = ""
    trials: int = TRIALS

    @property
    def path(self) -> Path:
        """Where the outcome is kept."""
        told = "-".join("".join(c if c.isalnum() else " " for c in f"{self.kind} {self.placebo}").split())
        return self.out / f"{told}-split-{self.split}-seed-{self.seed}.json"


def work(asked: Work) -> list[dict[str, Any]]:
    """Do it, unless it is done; the outcomes as plain mappings."""
    if not asked.path.exists():
        torch.set_num_threads(1)
        asked.out.mkdir(parents=True, exist_ok=True)
        done = [asdict(one) for one in KINDS[asked.kind](asked)]
        written = asked.path.with_suffix(".part")
        written.write_text(json.dumps(done))
        written.rename(asked.path)
    return list(json.loads(asked.path.read_text()))


def places_of(out: Path) -> DataPaths:
    return DataPaths(cache=str(out / "cache"))


def _field(asked: Work, task: Task) -> Trained:
    places = places_of(asked.out)
    return Trained(Known.of(task, places), places, asked.out / f"runs-{asked.split}.jsonl")


def _study(asked: Work) -> list[Studied]:
    study = digits_study(asked.split, asked.seed).with_settings({"trials": asked.trials})
    return [_studied(asked, study, with_truth=True)]


def _placebo(asked: Work) -> list[Studied]:
    study = placebo_study(asked.split, asked.seed, asked.placebo).with_settings({"trials": asked.trials})
    return [_studied(asked, study, with_truth=False)]


def _studied(asked: Work, study: Study, *, with_truth: bool) -> Studied:
    view = carry_out(study, places_of(asked.out))
    best = view.summary.best if view.summary.verified else None
    assert view.facts is not None
    return Studied(
        split=asked.split,
        seed=asked.seed,
        policy=None if best is None else best.policy.to_mapping(),
        arm=None if best is None else best.policy.arm,
        cost=None if best is None else best.flops / view.facts.reference_flops,
        truth=None if best is None or not with_truth else _field(asked, study.task).truth(best.policy),
        spent=spent(view),
        claims_win=claims_win(view),
        headline=view.summary.headline,
        stages=stages(view),
        outcomes=outcomes(view),
        seconds=view.summary.tuning.seconds,
    )


def rules_of(study: Study, num_test: int, validation: Array) -> Rules:
    """How a study verifies.

    Args:
        study: settings and tolerance.
        num_test: examples of its test split.
        validation: (runs,) metric of the reference on the validation split.
    """
    resolution = 1 / num_test if study.task.counts_examples else 0.0
    return rules.rules_of(study, resolution=resolution, usual_spread=float(validation.std(ddof=1)))


def _by_hand(asked: Work) -> list[ByHand]:
    study = digits_study(asked.split, asked.seed)
    field = _field(asked, study.task)
    grid = grid_policies(GRID_BUDGETS, GRID_RATES, field.facts)
    of_reference = np.array([field.run(conventional(field.facts), seed).validation for seed in range(GRID_SEEDS)])
    verified, space = rules_of(study, field.num_examples["test"], of_reference), Space.from_mapping(study.space)
    searches: dict[str, Callable[[], Pick]] = {
        "grid, tested": lambda: grid_tested(field, grid, dataclasses.replace(verified, max_seeds=GRID_SEEDS)),
        "grid, one seed": lambda: grid_once(field, grid),
        "random search": lambda: random_search(field, space, asked.trials, asked.seed),
        "Optuna by hand": lambda: optuna_search(field, space, asked.trials, asked.seed),
    }
    return [_judged(asked, field, name, search()) for name, search in searches.items()]


def _judged(asked: Work, field: Trained, name: str, pick: Pick) -> ByHand:
    found = pick.policy
    return ByHand(
        split=asked.split,
        name=name,
        cost=None if found is None else found.cost(field.facts) / field.facts.reference_flops,
        truth=None if found is None else field.truth(found),
        spent=pick.spent,
    )


KINDS: Mapping[str, Callable[[Work], Sequence[Studied] | Sequence[ByHand]]] = {
    "study": _study,
    "placebo": _placebo,
    "by hand": _by_hand,
}
