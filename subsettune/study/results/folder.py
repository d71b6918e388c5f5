"""A study on disk: the resolved input, the manifest, one table a role, the report and the bundle.

Everything is written whole or not at all, and rows are written before anyone acts on them, so a killed driver finds
what is finished when it comes back. Reading a study needs neither torch nor ray.
"""

from __future__ import annotations

import datetime
import io
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from subsettune import config, former_names
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, StudyError, did_you_mean
from subsettune.storage import Folder, parsed
from subsettune.study.results.manifest import Manifest, OtherSchemaError, Start
from subsettune.study.results.records import Role, RunRecord, from_table, to_table
from subsettune.study.results.summarise import summarised
from subsettune.study.results.view import StudyRecords, StudyView
from subsettune.study.spec.definition import Study
from subsettune.study.spec.yaml_file import to_yaml

TABLES: Mapping[Role, str] = {
    "reference": "reference.parquet",
    "trial": "trials.parquet",
    "verification": "verification.parquet",
    "ablation": "ablation.parquet",
    "confirmation": "confirmation.parquet",
}
PACKAGES = ("subsettune", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy", "scipy")


class StudyFolder:
    """Reads and writes `<storage>/<run id>/`; one driver at a time.

    Args:
        storage: folder or URI that holds studies.
        run_id: name of the study, also that of its Optuna study.
    """

    def __init__(self, storage: str, run_id: str) -> None:
        if not isinstance(run_id, str) or not run_id or "/" in run_id or run_id.startswith("."):
            raise ConfigError(config.must("run_id", "a plain folder name", run_id, "Use letters, digits and dashes."))
        self.run_id = run_id
        self.storage = storage
        self.folder = Folder.at(storage) / run_id
        self._manifest: Manifest | None = None
        self._records: dict[Role, list[RunRecord]] = {role: [] for role in TABLES}

    def guard(self, check: Callable[[], None]) -> None:
        """Have something called before each change of what is in the folder; it raises where it must not be changed."""
        self.folder = self.folder.guarded(check)

    @property
    def manifest(self) -> Manifest:
        """What is known beside the tables; `note` changes it, `save` writes it."""
        assert self._manifest is not None, "begin or open comes first"
        return self._manifest

    def note(self, **changes: Any) -> None:
        """Put other values into the manifest, which the caller saves."""
        self._manifest = replace(self.manifest, **changes)

    @property
    def exists(self) -> bool:
        """Whether a study of that name has begun."""
        return self.folder.exists("manifest.json")

    def begin(self, study: Study) -> None:
        """Start a new study: write the resolved input and an empty manifest.

        Raises:
            StorageError: the storage cannot be written.
        """
        task = study.task.key
        self._manifest = Manifest(run_id=self.run_id, status="reference", task=task, created=now(), study=study)
        self.takes(study)
        self.save()

    def takes(self, study: Study) -> None:
        """Put the input, as it is from now on, into its file and the manifest, which the caller saves."""
        self.folder.write("study.yaml", to_yaml(study).encode())
        self.note(study=study)

    def open(self) -> StudyFolder:
        """Read an existing study.

        Raises:
            StudyError: it is not there, or a file of it is damaged; the sentence names the file.
        """
        if not self.exists:
            raise StudyError(not_there(self.storage, self.run_id))
        try:
            self._manifest = Manifest.from_json(self.folder.read("manifest.json"))
        except OtherSchemaError as error:
            advice = "Use the version of subsettune that wrote it."
            raise StudyError(f"{self.folder}/manifest.json has schema {error.schema!r}. {advice}") from error
        except (ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split()).rstrip(".") if not isinstance(error, KeyError) else f"it lacks {error}"
            raise StudyError(f"{self.folder}/manifest.json is damaged: {why}. Restore it from a copy.") from error
        for role, name in TABLES.items():
            self._records[role] = self._read_table(name)
        return self

    def _read_table(self, name: str) -> list[RunRecord]:
        former = f"{former_names.ABLATION}.parquet"
        if name == TABLES["ablation"] and not self.folder.exists(name) and self.folder.exists(former):
            name = former
        if not self.folder.exists(name):
            return []
        try:
            return list(from_table(parsed(self.folder.read(name))))
        except (pa.ArrowException, ConfigError, KeyError, ValueError) as error:
            why = " ".join(str(error).split()).rstrip(".")
            advice = "Restore it from a copy, or remove it: its runs are then trained again."
            raise StudyError(f"{self.folder}/{name} is damaged: {why}. {advice}") from error

    def save(self) -> None:
        """Write the manifest."""
        self.folder.write("manifest.json", self.manifest.to_json())

    def records(self, role: Role) -> tuple[RunRecord, ...]:
        """All rows of a role, trials by number."""
        rows = self._records[role]
        return tuple(sorted(rows, key=lambda row: row.number)) if role == "trial" else tuple(rows)

    def add(self, record: RunRecord) -> None:
        """Write a row; a row of the same name is replaced, so nothing is counted twice."""
        rows = [row for row in self._records[record.role] if row.name != record.name]
        self._records[record.role] = [*rows, record]
        buffer = io.BytesIO()
        pq.write_table(to_table(self._records[record.role]), buffer)
        self.folder.write(TABLES[record.role], buffer.getvalue())

    def started(self, command: str, num_gpus: int = 0, gpu: str = "") -> None:
        """Note a start of the driver: when, how, with which versions, on what hardware."""
        known = self.manifest
        self.note(
            starts=(*known.starts, Start(at=now(), command=command)),
            command=command if known.command is None else known.command,
            versions=FrozenDict(versions()),
            hardware=FrozenDict(hardware(num_gpus, gpu)),
        )
        self.save()

    def view(self) -> StudyView:
        """The study as it stands."""
        manifest = self.manifest
        records = StudyRecords(
            run_id=self.run_id,
            folder=str(self.folder),
            study=manifest.study,
            manifest=manifest,
            facts=manifest.facts,
            target=manifest.target,
            reference=self.records("reference"),
            trials=self.records("trial"),
            verification=self.records("verification"),
            candidates=manifest.candidates,
            verdicts=manifest.verdicts,
            ablation_runs=self.records("ablation"),
            ablation=manifest.ablation_results,
            confirmation_runs=self.records("confirmation"),
        )
        return summarised(records)


def not_there(storage: str, run_id: str) -> str:
    """The sentence for a study that is not in a storage; it names the one that is most like it."""
    names = [name for name in Folder.at(storage).names() if not name.startswith(".")]
    guess = f"{did_you_mean(run_id, names)} ".lstrip()
    return f"study {run_id!r} is not in {storage}. {guess}See: subsettune list --storage {storage}"


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(num_gpus: int = 0, gpu: str = "") -> dict[str, Any]:
    """What this machine is."""
    import os

    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "num_cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1),
        "system": f"{platform.system()} {platform.release()}",
        "num_gpus": num_gpus,
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 (no path of ours)
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
