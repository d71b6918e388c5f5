"""What the stages of a study share: its input, what is known of its task, its folder, and how its runs are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from subsettune.data import DataPaths, TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.storage import Folder, absolute, inside
from subsettune.study.observer import Observer
from subsettune.study.options import TuneOptions
from subsettune.study.results.folder import StudyFolder, now
from subsettune.study.results.known_before import TakenStudy
from subsettune.study.results.records import RunRecord
from subsettune.study.results.verified_before import VerifiedStudies
from subsettune.study.spec.definition import Study, StudySettings
from subsettune.study.spec.space import Space
from subsettune.task import Task
from subsettune.train import metrics
from subsettune.train.loop import RunOptions, check, run_key
from subsettune.train.planning.check import resolve_checked
from subsettune.train.planning.prefix import prefix_of
from subsettune.train.planning.stem_places import Prefix

STEMS = "tune/stems"
STEMS_BYTES = 2**31  # of them at most, the oldest go first; a state of ResNet-18 with momentum takes 0.09 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContext:
    """A study that is being driven; everything in it that changes is in its folder, too.

    Args:
        study: the resolved input.
        folder: of the study, open.
        observer: told how it goes.
        options: where and how it runs.
        device: what runs train on: `auto`, `cpu`, `cuda`.
        data: of the task, loaded.
        facts: of the task.
        space: that is searched.
        seeds: of the reference and of verification, as many as it may come to; trials have their own.
        clock: seconds that the driver has run, over all starts.
        known_before: what was taken of earlier studies.
    """

    study: Study
    folder: StudyFolder
    observer: Observer
    options: TuneOptions
    device: str
    data: TaskData
    facts: TaskFacts
    space: Space
    seeds: tuple[int, ...]
    clock: Callable[[], float]
    known_before: tuple[TakenStudy, ...] = ()

    @property
    def task(self) -> Task:
        """What is trained."""
        return self.study.task

    @property
    def settings(self) -> StudySettings:
        """What the study may spend, and how it tests."""
        return self.study.study

    @property
    def checkpoints(self) -> Folder:
        """Where runs keep their checkpoints."""
        return self.folder.folder / "tune" / "checkpoints"

    @property
    def stems(self) -> Folder:
        """Where trials leave what others of the same beginning begin from."""
        return self.folder.folder / STEMS

    def note(self, **changes: Any) -> None:
        """Put other values into the manifest, with the time so far, and write it."""
        self.folder.note(**changes, elapsed_s=self.clock())
        self.folder.save()

    def set_status(self, status: str) -> None:
        """Write down which stage the study is in, and the tables whole."""
        self.folder.settle()
        self.note(status=status, interrupted=False, failure="")

    def keep(self, record: RunRecord) -> None:
        """Put a run on record, then tell the observer."""
        self.folder.add(record)
        self.note()
        self.observer.run_finished(record)

    def note_verified(self) -> None:
        """Note, for later studies on this machine, that this one measures policies on its test split."""
        known, cache = self.folder.manifest, self.options.places.cache_folder
        noted = VerifiedStudies.of(cache, self.task.test_identity(self.data.fingerprint))
        noted.note(known.run_id, known.created, at=now())
        self.note(place=noted.place(known.run_id, known.created))

    def references(self) -> tuple[RunRecord, ...]:
        """The conventional runs that the target rests on; verification may have added others."""
        first = set(self.seeds[: self.settings.seeds])
        return tuple(record for record in self.folder.records("reference") if record.seed in first)

    def target(self) -> float:
        """The worst validation metric that still counts as matched; known once the reference is."""
        target = self.folder.manifest.target
        assert target is not None, "the stage of the reference notes it"
        return target

    @property
    def num_validation(self) -> int:
        """Validation examples; 0 where nobody knows."""
        return len(self.data.validation) or self.task.validation_examples or 0

    @property
    def num_test(self) -> int:
        """Test examples; 0 where nobody knows."""
        return len(self.data.test) or self.task.test_examples or 0

    def resolution(self, split: Literal["validation", "test"]) -> float:
        """Smallest step of the metric on a split; 0 where it has none, or nobody knows how many examples there are."""
        if not self.task.is_own:
            return metrics.resolution(self.task, getattr(self.data, split).targets)
        known = {"validation": self.num_validation, "test": self.num_test}[split]
        return 1 / known if known and self.task.judged.has_steps else 0.0

    def why_not(self, policy: Policy) -> str | None:
        """Why a policy cannot be run, in one sentence; None if it can."""
        try:
            check(self.task, policy, self.facts)
        except ConfigError as error:
            return str(error)
        return None

    def prefix(self, policy: Policy) -> Prefix | None:
        """The beginning that a policy may share with others; None if there is none, or it cannot be run."""
        try:
            return prefix_of(resolve_checked(self.task, policy, self.facts))
        except ConfigError:
            return None

    def uri(self, name: str) -> str:
        """A place in the study's folder, for other processes."""
        return inside(self.options.storage, f"{self.folder.run_id}/{name}")

    def checkpoint_name(self, policy: Policy, seed: int) -> str:
        """File name of the checkpoint of a run."""
        return f"{run_key(self.task, self.data.fingerprint, policy, seed)}.checkpoint"

    def drop_checkpoint(self, record: RunRecord) -> None:
        """Remove the checkpoint of a run that nobody asks for again."""
        name = self.checkpoint_name(record.policy, record.seed)
        self.checkpoints.remove(name)
        self.checkpoints.remove(name.replace(".checkpoint", ".mark"))

    def device_kind(self) -> str:
        """What runs train on, as far as can be told here: workers may have the GPU that this machine lacks."""
        has_gpu = torch.cuda.is_available() or self.settings.gpus_per_trial > 0
        return "cuda" if has_gpu and self.device != "cpu" else "cpu"

    def run_options(self) -> RunOptions:
        """Options of a run, which may be in another process."""
        return RunOptions(
            device=self.device,
            num_threads=self.settings.cpus_per_trial,
            checkpoints=self.uri("tune/checkpoints"),
            stems=self.uri(STEMS) if self.settings.share_prefixes else None,
            checkpoint_every_s=self.settings.checkpoint_every_s,
            soup_processes=self.settings.soup_processes if self.options.executor == "ray" else 0,
            places=self._absolute_places(),
            fingerprint=self.data.fingerprint,
        )

    def _absolute_places(self) -> DataPaths:
        """Data paths as a worker in another folder finds them."""
        places = self.options.places
        root = places.data_root
        whole = str(absolute(root)) if root is not None else None
        return DataPaths(data_root=whole, cache=places.cache_folder, download=places.download)
