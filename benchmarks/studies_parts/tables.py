"""Tables that are made once: what each policy of a space comes to with each seed, on validation and test split.

A `Table` stands in for training. Its columns are seeds, the same for all policies, so that runs are paired as they are
in a study. A policy that is not in it, as one with half more compute than any of the space, is trained with all the
seeds of the columns when it is first asked for, and stays in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import completed
from numpy.typing import NDArray

from subsettune import config, train
from subsettune.config import FrozenDict
from subsettune.data import DataPaths
from subsettune.data import load as load_data
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy, conventional
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.spec.space import Space
from subsettune.task import Task
from subsettune.train.result import CurvePoint, RunResult

FOLDER = Path(__file__).parents[1] / "tables"
SPLITS = ("validation", "test")
PASSES_DIGITS = 6  # to which lengths of phases are told apart: sums of parts differ by rounding
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one policy, by column.

    Args:
        policy: that was followed.
        validation: (seeds,) metric on the validation split; NaN where a run diverged.
        test: (seeds,) likewise on the test split.
        curves: (seeds, points) validation metric on the way; NaN where a run did not come that far.
        ledgers: of each run, evaluation left out.
        points: of a run that came to its end, its metric and loss left out.
        updates: of that run.
        seconds: (seconds,) of training and selection.
    """

    policy: Policy
    validation: Array
    test: Array
    curves: Array
    ledgers: tuple[Ledger, ...]
    points: tuple[CurvePoint, ...]
    updates: int
    seconds: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a task without its data.

    Args:
        task: that is trained.
        facts: of it.
        num_examples: of its validation split, and of its test split.
    """

    task: Task
    facts: TaskFacts
    num_examples: FrozenDict

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def of(cls, task: Task, places: DataPaths) -> Known:
        """Read its data."""
        data = load_data(task, places)
        sizes = FrozenDict({"validation": len(data.validation), "test": len(data.test)})
        return cls(task=task, facts=train.facts(task, places), num_examples=sizes)


def key_of(policy: Policy, task: Task) -> str:
    """What two policies have in common if they train alike: an override with the recipe's own value changes nothing."""
    phases = [_plain_phase(phase) for phase in policy.phases]
    return config.digest([phases, config.to_plain(task.recipe.override(policy.recipe))])


def _plain_phase(phase: Phase) -> dict[str, Any]:
    plain = dict(config.to_plain(phase))
    plain["passes"] = round(phase.passes, PASSES_DIGITS)
    return plain if not phase.is_full else {k: v for k, v in plain.items() if not k.startswith("selector")}


class Table:
    """Runs of many policies of one task.

    Args:
        known: of the task.
        rows: of which the conventional policy is one.
        places: where this machine keeps data; for policies that are not in the table.
    """

    def __init__(self, known: Known, rows: Iterable[Row], places: DataPaths) -> None:
        self.task, self.facts, self.num_examples = known.task, known.facts, known.num_examples
        self.places = places
        self.rows = {key_of(row.policy, known.task): row for row in rows}
        self.num_tabled, self._by_policy = len(self.rows), dict[str, Row]()

    @property
    def num_columns(self) -> int:
        """Seeds with which each policy was trained."""
        return len(self.reference.test)

    @property
    def num_trained(self) -> int:
        """Policies that were asked for and not in the table."""
        return len(self.rows) - self.num_tabled

    @property
    def tabled(self) -> list[Row]:
        """The rows that were there from the beginning, that of the reference first."""
        return list(self.rows.values())[: self.num_tabled]

    @property
    def reference(self) -> Row:
        """The conventional runs."""
        return self.row(conventional(self.facts))

    def row(self, policy: Policy) -> Row:
        """The runs of a policy; one that is not in the table is trained."""
        found = self._by_policy.get(policy.key)
        if found is None:
            key = key_of(policy, self.task)
            if key not in self.rows:
                self.rows[key] = trained(Asked(self.task, policy, self.num_columns, self.places))
            found = self._by_policy[policy.key] = self.rows[key]
        return found

    def cost(self, policy: Policy) -> float:
        """Compute of a policy, as a share of the conventional."""
        return policy.cost(self.facts) / self.facts.reference_flops

    def differences(self, policy: Policy) -> Array:
        """(seeds,) test metric of a policy minus that of the reference with the same seed, oriented; NaN: diverged."""
        sign = 1 if self.task.higher_is_better else -1
        return sign * (self.row(policy).test - self.reference.test)

    def mean_difference(self, policy: Policy) -> float:
        """Of the table: the true one where it stands for the distribution. A run that diverged makes it -infinity."""
        differences = self.differences(policy)
        return float(differences.mean()) if np.isfinite(differences).all() else -np.inf

    def result(self, policy: Policy, column: int) -> RunResult:
        """The run of a policy with the seed of a column, as `train.run` would give it, evaluation left out."""
        row = self.row(policy)
        is_finished = bool(np.isfinite(row.validation[column]))
        curve = [replace(point, metric=_finite(m)) for point, m in zip(row.points, row.curves[column], strict=True)]
        spent = row.ledgers[column].spent
        return RunResult(
            policy=policy,
            seed=column,
            cause="finished" if is_finished else "diverged",
            message="" if is_finished else "It diverged.",
            metrics=FrozenDict(
                {"validation": float(row.validation[column]), "test": float(row.test[column])} if is_finished else {}
            ),
            ledger=row.ledgers[column],
            updates=row.updates,
            curve=tuple(point for point in curve if is_finished or point.flops <= spent),
            train_s=float(row.seconds[column]),
        )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# --- made -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A row to be trained."""

    task: Task
    policy: Policy
    num_columns: int
    places: DataPaths


def trained(asked: Asked) -> Row:
    """Train a policy with the seeds 0, 1, ..., on one thread."""
    options = train.RunOptions(splits=SPLITS, num_threads=1, device="cpu", places=asked.places)
    runs = [train.run(asked.task, asked.policy, seed, options=options) for seed in range(asked.num_columns)]
    longest = max(runs, key=lambda run: len(run.curve))
    curves = np.full((len(runs), len(longest.curve)), np.nan)
    for curve, run in zip(curves, runs, strict=True):
        curve[: len(run.curve)] = [np.nan if point.metric is None else point.metric for point in run.curve]
    return Row(
        policy=asked.policy,
        validation=np.array([run.metrics.get("validation", np.nan) for run in runs]),
        test=np.array([run.metrics.get("test", np.nan) for run in runs]),
        curves=curves,
        ledgers=tuple(replace(run.ledger, evaluate=0) for run in runs),
        points=tuple(replace(point, metric=None, loss=None, seconds=0.0) for point in longest.curve),
        updates=longest.updates,
        seconds=np.array([run.seconds for run in runs]),
    )


def policies_of(space: Space, task: Task, facts: TaskFacts) -> list[Policy]:
    """Every policy of a space of lists that can be run, the conventional one first; each once.

    Raises:
        ValueError: a coordinate is a range.
    """
    ranges = [axis.name for axis in space.coordinates if not axis.values]
    if ranges:
        raise ValueError(
            f"a tabled space must have lists alone, got a range of {ranges[0]!r}. Write {{choice: [...]}}."
        )
    found = {key_of(policy, task): policy for policy in (conventional(facts), *_policies(space, facts))}
    return [policy for policy in found.values() if can_run(task, policy, facts)]


def can_run(task: Task, policy: Policy, facts: TaskFacts) -> bool:
    """Whether training takes a policy: one whose selector costs more than its phase is refused."""
    try:
        train.check(task, policy, facts)
    except ConfigError:
        return False
    return True


def _policies(space: Space, facts: TaskFacts) -> Iterable[Policy]:
    points: list[dict[str, Any]] = [{"arm": arm} for arm in space.arms]
    for axis in space.coordinates:
        if axis.name != "arm":
            points = [
                {**point, **chosen}
                for point in points
                for chosen in ([{axis.name: v} for v in axis.values] if axis.is_active(point) else [{}])
            ]
    return [from_coordinates(point, facts) for point in points]


# More than six parameters: what is trained, with how much of the machine, and where it is kept meanwhile.
def make(
    known: Known, policies: Sequence[Policy], num_columns: int, places: DataPaths, *, processes: int, kept: Path
) -> list[Row]:
    """Train every policy with every seed, in the order in which they are given.

    Args:
        known: of the task.
        policies: to be trained.
        num_columns: seeds.
        places: where this machine keeps data.
        processes: at a time.
        kept: folder of the rows that are done, so that the same call goes on where it was interrupted.
    """
    paths = {policy.key: kept / f"{num_columns}-{key_of(policy, known.task)[:32]}.parquet" for policy in policies}
    missing = [policy for policy in policies if not paths[policy.key].exists()]
    asked = [Asked(known.task, policy, num_columns, places) for policy in missing]
    for one, row in completed(trained, asked, processes):
        part = paths[one.policy.key].with_suffix(".part")
        write(part, known, [row])
        part.rename(paths[one.policy.key])
    return [read(paths[policy.key], places).tabled[0] for policy in policies]


# --- on disk ----------------------------------------------------------------------------------------------------------

_LEDGER = ("select", "forward", "backward")
_POINT = ("share", "flops", "phase", "select", "forward")


def write(path: Path, known: Known, rows: Sequence[Row]) -> None:
    """A Parquet file: a line for each policy, with lists over seeds. What is known of the task is in its metadata."""
    columns: dict[str, list[Any]] = {
        "policy": [json.dumps(row.policy.to_mapping(), sort_keys=True) for row in rows],
        **{name: [getattr(row, name).ravel().tolist() for row in rows] for name in ("validation", "test", "curves")},
        **{f"{n}_flops": [[getattr(ledger, n) for ledger in row.ledgers] for row in rows] for n in _LEDGER},
        **{f"point_{n}": [[getattr(point, n) for point in row.points] for row in rows] for n in _POINT},
        "updates": [row.updates for row in rows],
        "seconds": [[round(float(s), 3) for s in row.seconds] for row in rows],
    }
    told = {b"known": config.canonical_json(known).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(told), path, compression="zstd")


def read(path: Path, places: DataPaths) -> Table:
    """Read what `write` wrote."""
    table = pq.read_table(path)
    known = config.build(Known, json.loads(table.schema.metadata[b"known"]))
    return Table(known, [_row(plain) for plain in table.to_pylist()], places)


def _row(plain: dict[str, Any]) -> Row:
    num_seeds = len(plain["test"])
    return Row(
        policy=config.build(Policy, json.loads(plain["policy"])),
        validation=np.array(plain["validation"], dtype=np.float64),
        test=np.array(plain["test"], dtype=np.float64),
        curves=np.array(plain["curves"], dtype=np.float64).reshape(num_seeds, -1),
        ledgers=tuple(Ledger(**{n: plain[f"{n}_flops"][i] for n in _LEDGER}) for i in range(num_seeds)),
        points=tuple(
            CurvePoint(metric=None, loss=None, seconds=0.0, **{n: plain[f"point_{n}"][i] for n in _POINT})
            for i in range(len(plain["point_share"]))
        ),
        updates=plain["updates"],
        seconds=np.array(plain["seconds"], dtype=np.float64),
    )
