"""A bundle as a value: written to a folder, read back, held against data, moved to other data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from subsettune import config, former_names, policy
from subsettune.bundle import files
from subsettune.bundle.evidence import Evidence
from subsettune.bundle.known import KnownData
from subsettune.bundle.rows import TrainingRows
from subsettune.errors import BundleError, ConfigError, StorageError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.storage import Folder
from subsettune.task import Recipe, Task
from subsettune.text import passes_words

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subsettune.bundle.moved import Moved
    from subsettune.train.follow.sampler import PolicySampler

Place = str | Path | Folder
_DTYPES: dict[str, type[np.generic]] = {"index": np.int64, "weight": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseSubset:
    """The chosen examples of one phase, in order of picking.

    Args:
        phase: index of the phase in the policy.
        index: (k,) int64 rows of the source's training file; only copies of a distorted task share one.
        weight: (k,) float32 factors of their losses, 1 on average, and 1 where the selector gives none.
        label: (k,) int64 class numbers; (k,) or (k, m) float64 values of a regression.
    """

    phase: int
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    label: NDArray[np.int64] | NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Index and weight as torch tensors."""
        import torch  # a bundle is read without it

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
        visits: for each phase, training examples in its batches, of which an order may leave some out.
        table: chosen examples; empty for a policy of the full arm.
        evidence: the numbers behind it.
        known: names of the data; null in a bundle of before these were noted.
        rows: of the training part; null in a bundle of before, and of data that were distorted on purpose.
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
    known: KnownData | None = None
    rows: TrainingRows | None = None
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
            k = self.policy.phases[phase].pool_size(self.facts.num_examples)
            _check_subset(self.subset(phase), k, self.task.distortion.most_copies)
        if self.rows is not None:
            self._check_rows(self.rows, phases)

    def _check_rows(self, rows: TrainingRows, phases: Sequence[int]) -> None:
        if len(rows.index) != self.facts.num_examples:
            rule = f"those of {self.facts.num_examples:,} examples, as in the study"
            raise BundleError(config.must("rows of the training part", rule, len(rows.index)))
        for phase in phases:
            if not np.isin(self.subset(phase).index, rows.index).all():
                raise BundleError(f"phase {phase + 1} of the subset table must name rows of the training part alone.")

    def __repr__(self) -> str:
        evidence, n = self.evidence, self.facts.num_examples
        told = "" if evidence.best.metric is None else f", test {evidence.metric} {evidence.best.metric:.4g}"
        sizes = ", then ".join("all" if p.is_full else f"{p.pool_size(n):,}" for p in self.policy.phases)
        passes = passes_words(self.policy.passes)
        return (
            f"<subsettune.Bundle of {evidence.run_id}: {passes} passes on {sizes} of {n:,} examples, "
            f"{evidence.saving_recipe:.0%} less compute than the recipe{told}>"
        )

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
        rows = self.table.filter(pc.equal(self.table["phase"], phase)).sort_by("rank")
        if limit is not None and not 1 <= limit <= rows.num_rows:
            raise BundleError(config.must("limit", f"between 1 and {rows.num_rows:,}", limit))
        rows = rows.slice(0, limit)
        columns = {name: np.array(rows[name].to_pylist(), dtype) for name, dtype in _DTYPES.items()}
        label = np.array(rows["label"].to_pylist())
        return PhaseSubset(phase=phase, label=label, **columns)

    def check(self, fingerprint: str) -> None:
        """Hold the bundle against the data at hand.

        Raises:
            BundleError: they are not the data that it was made for; both fingerprints are in the sentence.
        """
        if fingerprint != self.fingerprint:
            raise BundleError(
                f"the bundle was made for data with fingerprint {self.fingerprint}, these have {fingerprint}. "
                "Use the original data. On others `subsettune follow BUNDLE --data PATH` derives the sizes anew and "
                "chooses again, and so does `subsettune train` with --transfer."
            )

    # More than six parameters: the data in three ways, and what a host says about itself.
    def batch_sampler(
        self,
        data: Any,
        batch_size: int | None = None,
        seed: int | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        epochs: int = 1,
        labels: Any = None,
        fingerprint: str | None = None,
        rows: Sequence[int] | Tensor | None = None,
    ) -> PolicySampler:
        """The batches of the whole policy, for other training code on the bundle's own data.

        `DataLoader(dataset, batch_sampler=bundle.batch_sampler(dataset))`: lists of rows of the study's training file,
        in one epoch. The first call of `finish` on it says whether the host trained on what it was given.

        Args:
            data: all rows of the training file, those included that the study held out: a map-style Dataset, an array,
                a table, a pair (x, y), or their number.
            batch_size: as a check: that of the study, and no other.
            seed: of the order of examples, and of what a transition draws; default: the one that chose the subset.
            rank: of this process.
            world_size: processes that average their gradients: each gets its slice of every batch.
            accumulate: backward passes for one update: each gets its slice of every batch.
            epochs: that the whole policy is handed out in.
            labels: (num rows,) of the data, held against the bundle; default: looked for in `data`; False: not at all.
            fingerprint: of the data, held against the bundle: see `fingerprint_of`.
            rows: (N,) to train on, for bundles of before, which do not know them.

        Raises:
            BundleError: the data are others, or other code cannot follow this policy.
            ConfigError: a number is out of range.
        """
        from subsettune.bundle.follow import batch_sampler
        from subsettune.train.follow.sampler import Slices

        return batch_sampler(
            self,
            data,
            batch_size=batch_size,
            labels=labels,
            fingerprint=fingerprint,
            rows=rows,
            seed=seed,
            slices=Slices(rank=rank, world_size=world_size, accumulate=accumulate),
            epochs=epochs,
        )

    def transfer(
        self, data: Any, model: nn.Module | None = None, *, seed: int | None = None, batch_size: int | None = None
    ) -> Moved:
        """The policy for other data: sizes derived anew, subsets chosen anew, and how far the evidence reaches.

        Args:
            data: labels (n,), a pair (x, y) of arrays, a Dataset with `targets`, or of a regression their number: all
                that is to be trained on. Selectors that measure the inputs need the pair.
            model: that is trained, where it is another: its parameters decide sizes that were found by Q.
            seed: that chooses the subsets; default: the one that chose those of the bundle.
            batch_size: where it is to be another than the study's.

        Raises:
            BundleError: the policy needs what was not handed over, or other code cannot follow it.
            ConfigError: the policy does not fit so many examples.
        """
        from subsettune.bundle.moved import move

        return move(self, data, model, seed=seed, batch_size=batch_size)

    def fingerprint_of(self, data: Any) -> str:
        """The fingerprint of data in hand, read as the study read its own: for `check`, and for `batch_sampler`.

        Args:
            data: as for `tune`: a table, a pair (x, y) of arrays, a pair of such pairs (training, test), a Dataset, or
                the name of a file.

        Raises:
            DataError, ConfigError: they cannot be read so.
        """
        from subsettune.bundle.fingerprint import fingerprint_of

        return fingerprint_of(self.task, data)

    def derive(self, facts: TaskFacts) -> tuple[Policy, str]:
        """The policy for other data, and what was changed in words. The subset table does not apply to them.

        Raises:
            ConfigError: the Q of a phase needs more examples than the new data have.
        """
        moved = policy.transfer(self.policy, facts)
        old, new = self.facts.num_examples, facts.num_examples
        subsets = [
            (i, p, before)
            for i, (p, before) in enumerate(zip(moved.phases, self.policy.phases, strict=True))
            if not p.is_full
        ]
        sizes = [
            f"phase {i + 1} takes {p.pool_size(new):,} of {new:,} examples, by its "
            f"{'share' if p.q is None else f'Q of {p.q:.4g}'}, instead of {before.pool_size(old):,} of {old:,}"
            for i, p, before in subsets
            if (p.pool_size(new), new) != (before.pool_size(old), old)
        ]
        chosen = "Examples are chosen again, and the" if subsets else "The"
        what = "; ".join(sizes) if sizes else f"all phases take all {new:,} examples"
        what = f"Sizes were derived anew: {what}" if sizes or not subsets else "Sizes are as they were"
        return moved, f"{what}. {chosen} evidence speaks for the old data only."

    def write(self, target: Place) -> None:
        """Write the folder, whole or not at all; a bundle that lies there is replaced.

        Raises:
            BundleError: the folder holds something else.
            StorageError: it cannot be written.
        """
        header = {name: config.to_plain(getattr(self, name)) for name in _Header.__dataclass_fields__}
        header = {name: value for name, value in header.items() if name != "known" or value is not None}
        contents = {
            files.POLICY: files.to_json(header),
            files.SUBSET: files.to_parquet(self.table, self.fingerprint, self.seed),
            files.EVIDENCE: files.to_json(config.to_plain(self.evidence)),
            files.README: self.readme.encode(),
        }
        if self.rows is not None:
            contents[files.ROWS] = self.rows.to_parquet()
        files.write(_folder(target), contents)

    @classmethod
    def load(cls, source: Place) -> Bundle:
        """Read a bundle and check all of it.

        Raises:
            BundleError: it is missing, damaged, or of an unknown version; the file and a remedy are in the sentence.
        """
        folder = _folder(source)
        contents = files.read(folder)
        header = files.from_json(folder, files.POLICY, contents[files.POLICY])
        table, about = files.from_parquet(folder, contents[files.SUBSET])
        evidence = files.from_json(folder, files.EVIDENCE, contents[files.EVIDENCE])
        try:
            known = config.build(_Header, header)
            if (about.get("fingerprint"), about.get("seed")) != (known.fingerprint, known.seed):
                raise BundleError(f"{files.SUBSET} belongs to other data or another seed than {files.POLICY}")
            return cls(
                **{name: getattr(known, name) for name in _Header.__dataclass_fields__},
                table=table,
                evidence=config.build(Evidence, evidence),
                rows=TrainingRows.from_parquet(folder, contents[files.ROWS]) if files.ROWS in contents else None,
                readme=contents[files.README].decode(),
            )
        except (ConfigError, BundleError, UnicodeDecodeError) as error:
            raise BundleError(f"{folder} does not hold together: {error} {files.AGAIN}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What policy.json holds, besides the schema number; fields as in `Bundle`."""

    policy: Policy
    facts: TaskFacts
    task: Task
    fingerprint: str
    seed: int
    visits: tuple[int, ...]
    known: KnownData | None = None

    def __post_init__(self) -> None:
        config.check(self)


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
        reason = str(error).rstrip(".")
        raise ConfigError(f"{path} holds no policy: {reason}. Give a bundle or a policy.json.") from error
    inner = plain["policy"] if isinstance(plain, Mapping) and "policy" in plain else plain
    former_names.say(inner, path)
    return Policy.from_mapping(inner, source=path)


def _check_subset(subset: PhaseSubset, k: int, most_copies: int) -> None:
    """A row of the source stands in a subset once, or as often as the task's distortion puts it into the data."""
    where = f"phase {subset.phase + 1} of the subset table"
    if len(subset) != k:
        raise BundleError(f"{where} must have {k:,} rows, as the policy says, got {len(subset):,}.")
    if np.unique(subset.index, return_counts=True)[1].max() > most_copies or subset.index.min() < 0:
        times = "once" if most_copies == 1 else f"{most_copies} times"
        raise BundleError(f"{where} must name each row of the source at most {times}, with an index of 0 or more.")
    if not (np.isfinite(subset.weight).all() and (subset.weight >= 0).all()):
        raise BundleError(f"{where} must have weights that are finite and not negative.")


def _folder(place: Place) -> Folder:
    return place if isinstance(place, Folder) else Folder.at(place)
