"""A study on disk: the resolved input, the manifest, one table a role, the report and the bundle.

A row is added beside its table (`appended`), which is written whole now and then, when a stage ends, and when a study
is interrupted.
Everything is written whole or not at all, and rows are written before anyone acts on them, so a killed driver finds
what is finished when it comes back. Reading a study needs neither torch nor ray.
"""

from __future__ import annotations

import datetime
import io
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from subsettune import config, former_names
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, StorageError, StudyError, did_you_mean
from subsettune.keys import masked, without_keys
from subsettune.storage import Folder, parsed
from subsettune.study import MANIFEST
from subsettune.study.results.appended import ADVICE, AppendedRows
from subsettune.study.results.manifest import Manifest, OtherSchemaError, Start
from subsettune.study.results.records import Role, RunRecord, from_row, from_table, num_added, to_row, to_table
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
JOURNAL = "optuna.journal"  # of the search: a file, on an object store a folder
REFERENCE_ADVICE = "Restore it from a copy, or remove it: its runs are taken from the cache, or trained again."
LEAST_ADDED, MOST_ADDED = 64, 256  # rows beside a table until it is written whole: half as many as it has, within these
PACKAGES = ("subsettune", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy", "scipy")


class StudyFolder:
    """Reads and writes `<storage>/<run id>/`; one driver at a time.

    Args:
        storage: folder or URI that holds studies.
        run_id: name of the study, also that of its Optuna study.
    """

    def __init__(self, storage: str, run_id: str) -> None:
        check_run_id(run_id)
        self.run_id = run_id
        self.storage = without_keys(storage)
        self.folder = Folder.at(self.storage) / run_id
        self._manifest: Manifest | None = None
        self._tables = {role: _Table(self.folder, name) for role, name in TABLES.items()}

    def guard(self, check: Callable[[], None]) -> None:
        """Have something called before each change of what is in the folder; it raises where it must not be changed."""
        self.folder = self.folder.guarded(check)
        for table in self._tables.values():
            table.lie_in(self.folder)

    @property
    def is_open(self) -> bool:
        """Whether the study was begun or opened."""
        return self._manifest is not None

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
        return self.folder.exists(MANIFEST)

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
            self._manifest = Manifest.from_json(self.folder.read(MANIFEST))
        except OtherSchemaError as error:
            advice = "Use the version of subsettune that wrote it."
            raise StudyError(f"{self.folder}/{MANIFEST} has schema {error.schema!r}. {advice}") from error
        except (ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split()).rstrip(".") if not isinstance(error, KeyError) else f"it lacks {error}"
            raise StudyError(f"{self.folder}/{MANIFEST} is damaged: {why}. Restore it from a copy.") from error
        for table in self._tables.values():
            table.read()
        return self

    def save(self) -> None:
        """Write the manifest."""
        self.folder.write(MANIFEST, self.manifest.to_json())

    def records(self, role: Role) -> tuple[RunRecord, ...]:
        """All rows of a role, trials by number."""
        rows = self._tables[role].rows.values()
        return tuple(sorted(rows, key=lambda row: row.number)) if role == "trial" else tuple(rows)

    def add(self, record: RunRecord) -> None:
        """Write a row; a row of the same name is replaced, so nothing is counted twice."""
        self._tables[record.role].add(record)

    def settle(self) -> None:
        """Write the tables whole where rows were added, for whoever reads them with other programs."""
        for table in self._tables.values():
            table.settle()

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


class _Table:
    """One table of a study: a Parquet file, and the rows that were added since it was written.

    Args:
        folder: of the study.
        name: of the file.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._name = name
        self.rows: dict[str, RunRecord] = {}  # by name, in the order in which they came
        self._next = 0  # number of the next row that is added
        self._num_added = 0
        self.lie_in(folder)

    def lie_in(self, folder: Folder) -> None:
        """Take another view of the study's folder."""
        self._folder, self._added = folder, AppendedRows(folder, self._name.removesuffix(".parquet"))

    def read(self) -> None:
        """Read what is on disk: what was added first, for a driver that is at work may write the table meanwhile.

        Raises:
            StudyError: a file of it is damaged, or a row is missing.
        """
        try:
            added = self._added.read()
        except StorageError:  # objects that were taken into the table while they were read
            added = self._added.read()
        self._next = self._read_whole()
        left = [(number, row) for number, row in added if number >= self._next]
        for number, row in left:
            if number != self._next:
                lost = f"row {self._next} of {self._folder}/{self._name} is missing: rows behind it are there"
                raise StudyError(f"{lost}. {ADVICE}")
            try:
                self.put(from_row(row))
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise StudyError(f"row {number} beside {self._folder}/{self._name} is damaged: {error}") from error
            self._next += 1
        self._num_added = len(added)

    def _read_whole(self) -> int:
        """Read the Parquet file; the number of the first row that it does not hold."""
        self.rows = {}
        name, former = self._name, f"{former_names.ABLATION}.parquet"
        if name == TABLES["ablation"] and not self._folder.exists(name) and self._folder.exists(former):
            name = former
        if not self._folder.exists(name):
            return 0
        try:
            table = parsed(self._folder.read(name))
            self.rows = {record.name: record for record in from_table(table)}
            return num_added(table)
        except (pa.ArrowException, ConfigError, KeyError, ValueError) as error:
            why = " ".join(str(error).split()).rstrip(".")
            advice = REFERENCE_ADVICE if name == TABLES["reference"] else ADVICE
            raise StudyError(f"{self._folder}/{name} is damaged: {why}. {advice}") from error

    def put(self, record: RunRecord) -> None:
        """Hold a row, in memory alone; one of the same name is replaced."""
        self.rows.pop(record.name, None)
        self.rows[record.name] = record

    def add(self, record: RunRecord) -> None:
        """Add a row; now and then the table is written whole, so that reading it stays quick."""
        self._added.add(self._next, to_row(record))
        self._next += 1
        self._num_added += 1
        self.put(record)
        if self._num_added >= min(max(LEAST_ADDED, len(self.rows) // 2), MOST_ADDED):
            self.settle()

    def settle(self) -> None:
        """Write the table whole, if rows were added."""
        if self._num_added:
            buffer = io.BytesIO()
            pq.write_table(to_table(list(self.rows.values()), self._next), buffer)
            self._folder.write(self._name, buffer.getvalue())
            self._added.clear()
            self._num_added = 0


def check_run_id(run_id: str) -> None:
    """Refuse a name that no study can have.

    Raises:
        ConfigError: it is no plain folder name.
    """
    if not isinstance(run_id, str) or not run_id or "/" in run_id or run_id.startswith("."):
        raise ConfigError(config.must("run_id", "a plain folder name", run_id, "Use letters, digits and dashes."))


def not_there(storage: str, run_id: str) -> str:
    """The sentence for a study that is not in a storage; it names the one that is most like it."""
    names = [name for name in Folder.at(storage).names() if not name.startswith(".")]
    guess = f"{did_you_mean(run_id, names)} ".lstrip()
    shown = masked(storage)
    return f"study {run_id!r} is not in {shown}. {guess}See: subsettune list --storage {shlex.quote(shown)}"


def last_written(folder: Folder) -> str | None:
    """When a file of the study was last changed; on an object store those that stand for rows are looked at, too."""
    found = folder.infos()
    if not folder.is_local:
        rows = (info.base_name for info in found if info.base_name.endswith((".rows", JOURNAL)))
        found += [info for name in rows for info in folder.infos(name)]
    return _iso(info.mtime_ns for info in found if info.is_file)


def _iso(times_ns: Iterable[int | None]) -> str | None:
    known = [time_ns for time_ns in times_ns if time_ns]
    if not known:
        return None
    return datetime.datetime.fromtimestamp(max(known) / 1e9, datetime.UTC).isoformat(timespec="seconds")


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
