"""The reference: repeated conventional runs that give the accuracy to match and the compute to beat.

Runs are cached by content, so that a second study on the same task does not train them again. The cache keeps a run's
row and its last checkpoint, whose weights verification measures on the test split.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from subsettune import __version__, config
from subsettune.data.parts import Part
from subsettune.errors import ConfigError, LearningError
from subsettune.facts import TaskFacts
from subsettune.policy import BATCHING, conventional
from subsettune.storage import Folder, parsed
from subsettune.study.context import StudyContext
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import FixedRuns, RunSource
from subsettune.study.results.records import RunRecord, from_table, to_table
from subsettune.study.spec.definition import REFERENCE_POINTS
from subsettune.task import Task
from subsettune.text import metric_name
from subsettune.train import metrics
from subsettune.train.loop import user_code_of
from subsettune.train.objective import positive_class


class ReferenceStage:
    """Trains the conventional recipe with its seeds, as far as this machine's cache does not hold them."""

    name = "reference"

    def __init__(self, context: StudyContext) -> None:
        self.context = context

    def source(self) -> RunSource:
        """The runs that are neither on record nor in the cache."""
        context = self.context
        have = {record.seed for record in context.folder.records("reference") if record.cause == "finished"}
        wanted = [seed for seed in context.seeds[: context.settings.seeds] if seed not in have]
        if wanted:
            context.observer.stage(self.name, len(wanted))
        requests = [request(seed, context.facts) for seed in wanted if not self._take_cached(seed)]
        return FixedRuns(requests, self._keep)

    def finish(self) -> None:
        """Note the target, and the spread of the metric over seeds.

        Raises:
            LearningError: the recipe does not learn the task.
        """
        context, records = self.context, self.context.references()
        check_learning(records, context.task, self._chance(context.data.validation))
        target, test_chance = context.task.target(mean(records)), self._chance(context.data.test)
        context.note(target=target, noise=spread(records), test_chance=test_chance)

    def _chance(self, part: Part) -> float | None:
        """The metric of the best constant answer; None where nobody knows it."""
        if not len(part):
            return None
        task, data = self.context.task, self.context.data
        return metrics.chance(task.metric, part.targets, data.num_outputs, positive_class(task, data.class_names))

    @property
    def _is_cached(self) -> bool:
        """Whether references are shared with other studies: what a function reads by itself, its version tells."""
        return not self.context.task.is_own or self.context.task.version is not None

    def _take_cached(self, seed: int) -> bool:
        """Whether the cache holds the run; it is then on record."""
        if not self._is_cached:
            return False
        name = self.context.checkpoint_name(conventional(self.context.facts), seed)
        cached = self._cache().get(seed, name, self.context.checkpoints)
        if cached is not None:
            self.context.keep(cached)
        return cached is not None

    def _keep(self, record: RunRecord) -> None:
        self.context.keep(record)
        if record.cause == "finished" and self._is_cached:
            name = self.context.checkpoint_name(conventional(self.context.facts), record.seed)
            self._cache().put(record, name, self.context.checkpoints)

    def _cache(self) -> ReferenceCache:
        context = self.context
        threads = context.settings.cpus_per_trial
        environment = {
            "subsettune": __version__,
            "torch": torch.__version__,
            "threads": threads,
            "device": context.device_kind(),
            "code": user_code_of(context.task, conventional(context.facts)),
        }
        looks = context.settings.reference_looks
        environment |= {} if looks == REFERENCE_POINTS else {"looks": looks}  # a curve of other points is another run
        cache = context.options.places.cache_folder
        return ReferenceCache.of(cache, context.task, context.data.fingerprint, environment)


def request(seed: int, facts: TaskFacts) -> RunRequest:
    """The conventional run with one seed."""
    return RunRequest(name=f"reference-seed-{seed}", role="reference", policy=conventional(facts), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCache:
    """Finished reference runs of one task, by seed, on this machine.

    Args:
        folder: of all cached references.
        key: content hash of everything that the result of a run depends on.
    """

    folder: Folder
    key: str

    @classmethod
    def of(cls, cache: str, task: Task, fingerprint: str, environment: dict[str, Any]) -> ReferenceCache:
        """The cache of a task; the tolerance does not matter to a run, everything else does.

        Args:
            cache: this machine's cache folder.
            task: what is trained.
            fingerprint: of the data and split.
            environment: what else changes results: the user's code, versions, and the number of threads.
        """
        parts = {name: config.to_plain(value) for name, value in task.run_identity.items()}
        key = config.digest({**parts, "fingerprint": fingerprint, "batching": BATCHING, **environment})
        return cls(folder=Folder.at(cache) / "references" / key[:32], key=key)

    def get(self, seed: int, checkpoint: str, target: Folder) -> RunRecord | None:
        """A cached run, its checkpoint copied to `target`; None if there is none, or it is damaged.

        Args:
            seed: of the run.
            checkpoint: file name of its checkpoint.
            target: the study's folder of checkpoints.
        """
        name = f"seed-{seed}.parquet"
        if not self.folder.exists(name) or not self.folder.exists(checkpoint):
            return None
        try:
            (row,) = from_table(parsed(self.folder.read(name)))
        except (pa.ArrowException, ConfigError, KeyError, ValueError):
            return None  # a damaged cache only costs the run again
        target.write(checkpoint, self.folder.read(checkpoint))
        return replace(row, cached=True, started_s=0.0, finished_s=0.0)

    def put(self, record: RunRecord, checkpoint: str, source: Folder) -> None:
        """Keep a finished run and its last checkpoint."""
        if not source.exists(checkpoint):
            return
        self.folder.write(checkpoint, source.read(checkpoint))
        buffer = io.BytesIO()
        pq.write_table(to_table([record]), buffer)
        self.folder.write(f"seed-{record.seed}.parquet", buffer.getvalue())


def mean(records: Sequence[RunRecord]) -> float:
    """Mean validation metric of the reference."""
    return math.fsum(record.metric for record in records if record.metric is not None) / len(records)


def spread(records: Sequence[RunRecord]) -> float:
    """Standard deviation of the validation metric over seeds."""
    return statistics.stdev(record.metric for record in records if record.metric is not None)


def check_learning(records: Sequence[RunRecord], task: Task, chance: float | None) -> None:
    """Raise unless the recipe learned the task.

    Args:
        records: of the reference.
        task: what is trained.
        chance: metric of the best constant answer on the validation split; None where nobody knows it.

    Raises:
        LearningError: a run diverged or failed, or their mean is no better than a constant answer by the tolerance.
    """
    broken = [record for record in records if record.metric is None]
    if broken:
        first = broken[0]
        reason = first.message or first.cause
        raise LearningError(f"the conventional recipe gives nothing to match: {reason} Mend the recipe first.")
    if chance is None:
        return
    value = mean(records)
    gain = value - chance if task.higher_is_better else chance - value
    if gain <= task.tolerance:
        found = f"its {metric_name(task.metric)} is {value:.4g} over {len(records)} seeds"
        raise LearningError(
            f"the conventional recipe does not learn: {found}, and that of a constant answer {chance:.4g}, no "
            f"further away than the tolerance of {task.tolerance:g}. "
            "Mend the recipe (learning rate, epochs, model), or lower the tolerance, before tuning it."
        )
