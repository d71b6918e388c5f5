"""Bundles: a policy with its subset and its evidence, as a folder of JSON and Parquet that other code can follow.

    bundle.json       schema version, size and SHA-256 of the other files; written last
    policy.json       policy, task, facts, data fingerprint, seed of the subset, examples to visit in each phase
    subset.parquet    one row a chosen example: phase, rank, index, weight, label
    evidence.json     every run behind the claim (`subsettune.evidence`)
    README.md         the same for people

Loading needs numpy and pyarrow alone (torch to hand out tensors). A local bundle is written beside its place and then
exchanged with what was there, in one system call where Linux offers it; elsewhere the place is empty for an instant,
but never holds a half. On an object store, which cannot rename, `bundle.json` says "incomplete" until all is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subsettune import config, policy, select
from subsettune.config import FrozenDict
from subsettune.errors import BundleError, ConfigError, StorageError
from subsettune.evidence import Evidence, of_study, page
from subsettune.policy import Policy, TaskFacts
from subsettune.storage import Folder
from subsettune.task import Recipe, Task

if TYPE_CHECKING:
    from torch import Tensor

    from subsettune.data import Part
    from subsettune.study.results import StudyView

T = TypeVar("T")
KIND, SCHEMA = "subsettune bundle", 1
MANIFEST, POLICY, SUBSET, EVIDENCE, README = (
    "bundle.json",
    "policy.json",
    "subset.parquet",
    "evidence.json",
    "README.md",
)
FILES = (POLICY, SUBSET, EVIDENCE, README)
AGAIN = "Copy the bundle anew, or export it again."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseSubset:
    """The chosen examples of one phase, in order of picking.

    Args:
        phase: index of the phase in the policy.
        index: (k,) int64 rows of the source's training file.
        weight: (k,) float32 weights of their losses, 1 where the selector gives none.
        label: (k,) int64 class numbers, or float64 values of a regression.
    """

    phase: int
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    label: NDArray[np.int64] | NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Index and weight as torch tensors."""
        import torch

        return torch.from_numpy(self.index), torch.from_numpy(self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A policy that was shown to match, ready to be followed.

    Args:
        policy: what to do.
        facts: of the task it was found for.
        task: data, split, model, recipe, metric and tolerance.
        fingerprint: of the data.
        seed: of the run that chooses the subset in `table`.
        visits: for each phase, training examples that go through the network, selection taken off its allowance.
        table: chosen examples; empty for a policy of the full arm.
        evidence: the numbers behind it.
        readme: the page for people.

    Raises:
        BundleError: the table does not fit the policy.
    """

    policy: Policy
    facts: TaskFacts
    task: Task
    fingerprint: str
    seed: int
    visits: tuple[int, ...]
    table: pa.Table
    evidence: Evidence
    readme: str = ""

    def __post_init__(self) -> None:
        if len(self.visits) != len(self.policy.phases) or min(self.visits) < 0:
            raise BundleError(
                f"visits must be a count for each of {len(self.policy.phases)} phases, got {self.visits}."
            )
        phases = [i for i, phase in enumerate(self.policy.phases) if not phase.is_full]
        found = sorted(set(self.table["phase"].to_pylist()))
        if found != phases:
            raise BundleError(f"phases of the subset table must be {phases}, as the policy has them, got {found}.")
        for phase in phases:
            _check_subset(self.subset(phase), self.policy.phases[phase].pool_size(self.facts.num_examples))

    @property
    def recipe(self) -> Recipe:
        """The conventional recipe with the policy's own settings; `epochs` is replaced by the policy's passes."""
        return self.task.recipe.override(self.policy.recipe)

    def subset(self, phase: int | None = None, limit: int | None = None) -> PhaseSubset:
        """The chosen examples of a phase.

        Args:
            phase: its index in the policy; may be left out where only one phase has a subset.
            limit: only the first so many in rank; weights stay those of the whole subset.

        Raises:
            BundleError: there is no such subset, or it has fewer examples.
        """
        known = [i for i, p in enumerate(self.policy.phases) if not p.is_full]
        if phase is None and len(known) == 1:
            phase = known[0]
        if phase not in known:
            raise BundleError(config.must("phase", f"one of {known}, the phases with a subset", phase))
        rows = self.table.filter(pa.compute.equal(self.table["phase"], phase)).sort_by("rank")
        if limit is not None and not 1 <= limit <= rows.num_rows:
            raise BundleError(config.must("limit", f"between 1 and {rows.num_rows:,}", limit))
        columns = {name: rows[name].to_numpy()[:limit].copy() for name in ("index", "weight", "label")}
        return PhaseSubset(phase=phase, **columns)

    def check(self, fingerprint: str) -> None:
        """Hold the bundle against the data at hand.

        Raises:
            BundleError: they are not the data that it was made for; both fingerprints are in the sentence.
        """
        if fingerprint != self.fingerprint:
            raise BundleError(
                f"the bundle was made for data with fingerprint {self.fingerprint}, these have {fingerprint}. "
                "Use the original data, or ask for a transfer, which derives the sizes anew and chooses again."
            )

    def transfer(self, facts: TaskFacts) -> tuple[Policy, str]:
        """The policy for other data, and what was changed in words. The subset table does not apply to them.

        Raises:
            ConfigError: the Q of a phase needs more examples than the new data have.
        """
        moved = policy.transfer(self.policy, facts)
        old, new = self.facts.num_examples, facts.num_examples
        sizes = [
            f"phase {i + 1} takes {p.pool_size(new):,} of {new:,} examples, by its "
            f"{'share' if p.q is None else f'Q of {p.q:.4g}'}, instead of {before.pool_size(old):,} of {old:,}"
            for i, (p, before) in enumerate(zip(moved.phases, self.policy.phases, strict=True))
            if not p.is_full
        ]
        what = "; ".join(sizes) if sizes else f"all phases take all {new:,} examples"
        return moved, (
            f"Sizes were derived anew: {what}. Examples are chosen again, and the evidence speaks for the old data only."
        )

    def write(self, target: str | Path) -> None:
        """Write the folder, whole or not at all; a bundle that lies there is replaced.

        Raises:
            BundleError: the folder holds something else.
            StorageError: it cannot be written.
        """
        folder = Folder.at(target)
        _refuse_foreign(folder)
        files = {POLICY: self._policy_json(), SUBSET: _parquet(self), EVIDENCE: _evidence_json(self.evidence)}
        files[README] = self.readme.encode()
        if folder.is_local:
            _exchange_folder(Path(folder.path), {**files, MANIFEST: _manifest(files)})
            return
        folder.write(MANIFEST, _manifest({}, complete=False))
        for name, content in files.items():
            folder.write(name, content)
        folder.write(MANIFEST, _manifest(files))

    @classmethod
    def load(cls, source: str | Path) -> Bundle:
        """Read a bundle and check every byte of it.

        Raises:
            BundleError: it is missing, damaged, or of an unknown version; the file and a remedy are in the sentence.
        """
        files = _read(Folder.at(source))
        plain = _parsed(POLICY, files[POLICY], source)
        table, metadata = _table(files[SUBSET], source)
        if metadata.get("fingerprint") != plain.get("data_fingerprint"):
            raise BundleError(f"{source}: {SUBSET} belongs to other data than {POLICY}. {AGAIN}")
        evidence = _parsed(EVIDENCE, files[EVIDENCE], source)
        try:
            return cls(
                policy=Policy.from_mapping(plain["policy"]),
                facts=config.build(TaskFacts, plain["facts"]),
                task=config.build(Task, plain["task"]),
                fingerprint=plain["data_fingerprint"],
                seed=plain["seed"],
                visits=tuple(plain["visits"]),
                table=table,
                evidence=config.build(Evidence, evidence),
                readme=files[README].decode(),
            )
        except (ConfigError, BundleError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise BundleError(f"{source} does not hold together: {error}. {AGAIN}") from error

    def _policy_json(self) -> bytes:
        return _json(
            {
                "schema": SCHEMA,
                "policy": self.policy.to_mapping(),
                "task": config.to_plain(self.task),
                "facts": config.to_plain(self.facts),
                "data_fingerprint": self.fingerprint,
                "seed": self.seed,
                "visits": list(self.visits),
            }
        )


def export(
    target: str | Path,
    found: Policy,
    task: Task,
    facts: TaskFacts,
    fingerprint: str,
    evidence: Evidence,
    seed: int,
    subsets: Sequence[PhaseSubset] = (),
) -> Bundle:
    """Make a bundle and write it to a folder; see `Bundle` and `Bundle.write`."""
    made = Bundle(
        policy=found,
        facts=facts,
        task=task,
        fingerprint=fingerprint,
        seed=seed,
        visits=_visits(found, facts),
        table=_to_table(subsets, is_classification=task.kind == "classification"),
        evidence=evidence,
    )
    made = replace(made, readme=page(made, str(target)))
    made.write(target)
    return made


def export_study(
    view: StudyView, winner: str, subsets: Sequence[PhaseSubset], *, seed: int, target: str | Path
) -> Bundle:
    """Make the bundle of a study whose verification is over, and write it to a folder.

    Args:
        view: the study.
        winner: name of the candidate to export.
        subsets: what its phases choose with `seed`, from `chosen`.
        seed: of the run that chose them.
        target: a local folder or a URI.
    """
    assert view.facts is not None, "a verified study knows its facts"
    found, fingerprint = view.candidates[winner].policy, view.manifest["data"]["fingerprint"]
    evidence = of_study(view, winner)
    return export(target, found, view.study.task, view.facts, fingerprint, evidence, seed, subsets)


def chosen(phase: int, subset: select.Subset, part: Part) -> PhaseSubset:
    """Rows of the source for a subset's positions in the training part.

    Args:
        phase: index of the phase that chose it.
        subset: k positions and weights.
        part: the training part, with the row of the source of each example.
    """
    positions = subset.positions.cpu().numpy()
    weights = np.ones(len(positions)) if subset.weights is None else subset.weights.cpu().numpy()
    labels = np.asarray(part.targets)[positions]
    return PhaseSubset(
        phase=phase,
        index=np.asarray(part.rows)[positions].astype(np.int64),
        weight=weights.astype(np.float32),
        label=labels.astype(np.int64 if labels.dtype.kind in "iu" else np.float64),
    )


def read_policy(source: str | Path) -> Policy:
    """The policy in a bundle, in the policy.json of one, or in a JSON file of a policy alone.

    Raises:
        BundleError: a bundle is damaged.
        ConfigError: the file cannot be read or holds no policy.
    """
    path = str(source)
    if not path.endswith(".json"):
        return Bundle.load(source).policy
    folder, name = os.path.split(path)
    try:
        plain = json.loads(Folder.at(folder or ".").read(name))
    except (StorageError, ValueError) as error:
        raise ConfigError(f"{path} holds no policy: {error}. Give a bundle or a policy.json.") from error
    inner = plain["policy"] if isinstance(plain, Mapping) and "policy" in plain else plain
    return Policy.from_mapping(inner, source=path)


def _visits(found: Policy, facts: TaskFacts) -> tuple[int, ...]:
    """Examples to train on in each phase: its share of the whole, less what its selection is charged."""
    ends = found.boundaries(facts)
    spent = [select.selection_flops(phase, facts) for phase in found.phases]
    lengths = [end - start for start, end in zip((0, *ends), ends, strict=False)]
    return tuple(max(0, length - s) // facts.example_flops for length, s in zip(lengths, spent, strict=True))


def _check_subset(subset: PhaseSubset, k: int) -> None:
    where = f"phase {subset.phase + 1} of the subset table"
    if len(subset) != k:
        raise BundleError(f"{where} must have {k:,} rows, as the policy says, got {len(subset):,}.")
    if len(np.unique(subset.index)) < k or subset.index.min() < 0:
        raise BundleError(f"{where} must name each row of the source at most once, with an index of 0 or more.")
    if not (np.isfinite(subset.weight).all() and (subset.weight >= 0).all()):
        raise BundleError(f"{where} must have weights that are finite and not negative.")


# --- the files --------------------------------------------------------------------------------------------------------


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _evidence_json(evidence: Evidence) -> bytes:
    return _json({"schema": SCHEMA, **config.to_plain(evidence)})


def _manifest(files: Mapping[str, bytes], *, complete: bool = True) -> bytes:
    listed = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()}
    return _json({"kind": KIND, "schema": SCHEMA, "complete": complete, "files": listed})


def _columns(*, is_classification: bool) -> list[tuple[str, pa.DataType]]:
    label = pa.int64() if is_classification else pa.float64()
    whole = [(name, pa.int64()) for name in ("phase", "rank", "index")]
    return [*whole, ("weight", pa.float32()), ("label", label)]


def _to_table(subsets: Sequence[PhaseSubset], *, is_classification: bool) -> pa.Table:
    schema = pa.schema(_columns(is_classification=is_classification))
    tables = [
        pa.table([np.full(len(s), s.phase), np.arange(len(s)), s.index, s.weight, s.label], names=schema.names).cast(
            schema
        )
        for s in subsets
    ]
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()


def _parquet(bundle: Bundle) -> bytes:
    about = {"schema": SCHEMA, "fingerprint": bundle.fingerprint, "seed": bundle.seed}
    buffer = io.BytesIO()
    pq.write_table(bundle.table.replace_schema_metadata({b"subsettune": json.dumps(about).encode()}), buffer)
    return buffer.getvalue()


def _table(raw: bytes, source: str | Path) -> tuple[pa.Table, Mapping[str, Any]]:
    try:
        table = pq.read_table(pa.BufferReader(raw))
        about = json.loads((table.schema.metadata or {})[b"subsettune"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BundleError(f"{source}: {SUBSET} is damaged: {error}. {AGAIN}") from error
    _check_schema(SUBSET, about.get("schema"), source)
    table = table.replace_schema_metadata(None)
    if table.schema not in [pa.schema(_columns(is_classification=yes)) for yes in (True, False)]:
        raise BundleError(f"{source}: {SUBSET} has other columns than a subset: {table.schema.names}. {AGAIN}")
    return table.combine_chunks(), about


def _parsed(name: str, raw: bytes, source: str | Path) -> dict[str, Any]:
    try:
        plain = json.loads(raw)
        schema = plain.pop("schema")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BundleError(f"{source}: {name} is damaged: {error}. {AGAIN}") from error
    _check_schema(name, schema, source)
    return dict(plain)


def _check_schema(name: str, schema: object, source: str | Path) -> None:
    if schema != SCHEMA:
        advice = "Another version of subsettune wrote it: use that one, or export the bundle again with this one."
        raise BundleError(f"{source}: {config.must(f'schema of {name}', str(SCHEMA), schema, advice)}")


def _read(folder: Folder) -> dict[str, bytes]:
    """The content of all files, held against their hashes."""
    if not folder.exists(MANIFEST):
        raise BundleError(f"{folder} is no bundle: {MANIFEST} is missing. Give the folder that an export wrote.")
    manifest = _parsed(MANIFEST, folder.read(MANIFEST), folder.path)
    if manifest.get("kind") != KIND:
        raise BundleError(f"{folder} is no bundle: its {MANIFEST} is of another kind. Give the folder of an export.")
    if manifest.get("complete") is not True:
        raise BundleError(f"{folder} is incomplete: its export was interrupted. Export it again.")
    return {name: _verified(folder, name, manifest.get("files")) for name in FILES}


def _verified(folder: Folder, name: str, listed: Any) -> bytes:
    try:
        expected = listed[name]["sha256"]
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder}: {MANIFEST} is damaged: it does not list {name}. {AGAIN}") from error
    if not folder.exists(name):
        raise BundleError(f"{folder}: {name} is missing. {AGAIN}")
    raw = folder.read(name)
    if hashlib.sha256(raw).hexdigest() != expected:
        raise BundleError(f"{folder}: {name} is damaged: its content is not what {MANIFEST} says. {AGAIN}")
    return raw


# --- the folder -------------------------------------------------------------------------------------------------------


def _refuse_foreign(folder: Folder) -> None:
    """Never replace what is not a bundle, or more than one."""
    if folder.is_local and Path(folder.path).is_file():
        raise BundleError(f"{folder} is a file. Choose a folder for the bundle.")
    names = folder.names()
    foreign = [name for name in names if name not in (*FILES, MANIFEST)]
    if names and (MANIFEST not in names or foreign):
        found = ", ".join((foreign or names)[:3])
        raise BundleError(f"{folder} holds what is no part of a bundle: {found}. Choose another folder, or empty it.")


def _exchange_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with these files in the place of `target`, which may exist, and remove what was there."""
    try:
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{target.name}.partial-*"):  # of an export that was killed
            shutil.rmtree(leftover)
        partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        try:
            _write_folder(partial, files)
            if target.exists():
                _exchange(partial, target)
            else:
                partial.rename(target)
            _flush(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error}. Choose a folder that can be.") from error


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        with (folder / name).open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    _flush(folder)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders: at once where the system can, else by way of a third name."""
    rename: Callable[..., int] | None = getattr(ctypes.CDLL(None), "renameat2", None)
    arguments = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if rename is not None and rename(*arguments) == 0:
        return
    aside = one.with_name(f"{one.name}-old")  # the name of a leftover, so that it is swept
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
