"""A study on disk: the resolved input, the manifest, one table a role, the report and the bundle.

Everything is written whole or not at all, and rows are written before anyone acts on them, so a killed driver finds
what is finished when it comes back. Reading a study needs neither torch nor ray.
"""

from __future__ import annotations

import datetime
import io
import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from subsettune import config
from subsettune.errors import ConfigError, StudyError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.storage import Folder, parsed
from subsettune.study.results.records import Role, RunRecord, from_table, to_table
from subsettune.study.results.view import AblationResult, Candidate, StudyView
from subsettune.study.spec.components import Component
from subsettune.study.spec.definition import Study
from subsettune.study.spec.yaml_file import to_yaml

MANIFEST_SCHEMA = 1
TABLES: Mapping[Role, str] = {
    "reference": "reference.parquet",
    "trial": "trials.parquet",
    "verification": "verification.parquet",
    "comparison": "comparison.parquet",
}
PACKAGES = ("subsettune", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy", "scipy")


class StudyFolder:
    """Reads and writes `<storage>/<run id>/`; one driver at a time.

    Args:
        storage: folder or URI that holds studies.
        run_id: name of the study, also that of its Optuna study.
    """

    def __init__(self, storage: str, run_id: str) -> None:
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise ConfigError(config.must("run_id", "a plain folder name", run_id, "Use letters, digits and dashes."))
        self.run_id = run_id
        self.storage = storage
        self.folder = Folder.at(storage) / run_id
        self.manifest: dict[str, Any] = {}
        self._records: dict[Role, list[RunRecord]] = {role: [] for role in TABLES}

    @property
    def exists(self) -> bool:
        """Whether a study of that name has begun."""
        return self.folder.exists("manifest.json")

    def begin(self, study: Study) -> None:
        """Start a new study: write the resolved input and an empty manifest.

        Raises:
            StorageError: the storage cannot be written.
        """
        self.manifest = {
            "schema": MANIFEST_SCHEMA,
            "run_id": self.run_id,
            "status": "reference",
            "task": study.task.key,
            "created": now(),
            "elapsed_s": 0.0,
            "starts": [],
            "rounds": [],
        }
        self.takes(study)
        self.save()

    def takes(self, study: Study) -> None:
        """Put the input, as it is from now on, into its file and the manifest, which the caller saves."""
        self.folder.write("study.yaml", to_yaml(study).encode())
        self.manifest["study"] = config.to_plain(study)

    def open(self) -> StudyFolder:
        """Read an existing study.

        Raises:
            StudyError: it is not there, or a file of it is damaged; the sentence names the file.
        """
        if not self.exists:
            advice = f"See: subsettune list --storage {self.storage}"
            raise StudyError(f"study {self.run_id!r} is not in {self.storage}. {advice}")
        try:
            self.manifest = json.loads(self.folder.read("manifest.json"))
            schema = self.manifest["schema"]
            if schema == MANIFEST_SCHEMA:
                _check_manifest(self.manifest)
        except (ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split()).rstrip(".") if not isinstance(error, KeyError) else f"it lacks {error}"
            raise StudyError(f"{self.folder}/manifest.json is damaged: {why}. Restore it from a copy.") from error
        if schema != MANIFEST_SCHEMA:
            advice = "Use the version of subsettune that wrote it."
            raise StudyError(f"{self.folder}/manifest.json has schema {schema!r}. {advice}")
        for role, name in TABLES.items():
            self._records[role] = self._read_table(name)
        return self

    def _read_table(self, name: str) -> list[RunRecord]:
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
        self.folder.write("manifest.json", json.dumps(self.manifest, indent=1, sort_keys=True).encode())

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
        self.manifest["starts"].append({"at": now(), "command": command})
        self.manifest.setdefault("command", command)
        self.manifest["versions"] = versions()
        self.manifest["hardware"] = hardware(num_gpus, gpu)
        self.save()

    def view(self) -> StudyView:
        """The study as it stands."""
        from subsettune.study.results.summary import summarise

        manifest = self.manifest
        facts = config.build(TaskFacts, manifest["facts"]) if "facts" in manifest else None
        bare = StudyView(
            run_id=self.run_id,
            folder=str(self.folder),
            study=config.build(Study, manifest["study"]),
            manifest=manifest,
            facts=facts,
            target=manifest.get("target"),
            reference=self.records("reference"),
            trials=self.records("trial"),
            verification=self.records("verification"),
            candidates=_candidates(manifest),
            verdicts={name: v for r in _shown(manifest) for name, v in r["verdicts"].items()},
            summary={},
            comparison=self.records("comparison"),
            compared=_compared(manifest),
        )
        return summarise(bare)


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise a KeyError or ValueError unless everything that a view is made of is there and can be read."""
    for key in ("run_id", "status", "task", "created", "elapsed_s", "starts"):
        manifest[key]
    config.build(Study, manifest["study"])
    _candidates(manifest)
    _compared(manifest)
    if "facts" in manifest:
        config.build(TaskFacts, manifest["facts"])


def _candidates(manifest: Mapping[str, Any]) -> dict[str, Candidate]:
    """Candidates of the rounds that are shown, in their order; names are unique across rounds."""
    return {
        name: Candidate(
            name=name,
            policy=Policy.from_mapping(plain["policy"]),
            trials=tuple(plain["trials"]),
            cost_flops=plain["cost_flops"],
        )
        for rounds in _shown(manifest)
        for name, plain in rounds["candidates"].items()
    }


def _compared(manifest: Mapping[str, Any]) -> dict[Component, AblationResult]:
    """The rows of the comparison; none in a study that had no such stage."""
    if "comparison" not in manifest:
        return {}
    _, _, rows = (manifest["comparison"][key] for key in ("trials_asked", "seeds", "rows"))
    return {row.component: row for row in (config.build(AblationResult, plain) for plain in rows)}


def _shown(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The latest round of verification, and before it the one that the winner comes from if that is another."""
    rounds = manifest["rounds"]
    winner = manifest.get("winner")
    won = [plain for plain in rounds[:-1] if winner is not None and winner in plain["candidates"]]
    return [*won, *rounds[-1:]]


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
