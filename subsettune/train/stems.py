"""Stems: states of runs at their peak rate, from which other runs of the same beginning branch off, bit for bit.

A stem is a checkpoint under another name: of all that decides the state after so many FLOPs, and nothing of how long
the run that left it goes on. Runs read the longest one that lies within their own prefix (`planning.prefix`). Whoever
trained to a stem has paid for it; the ledger of a run that began from one holds it all the same, as cost of its policy,
and `RunResult.shared_flops` says how much of it nobody has to pay again.

Two runs that are under way at once with the same beginning may both leave a stem: the same bytes, each paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from subsettune import config
from subsettune.errors import CheckpointError, StorageError
from subsettune.policy import BATCHING, Policy
from subsettune.storage import Folder
from subsettune.train.checkpoint import Checkpoints
from subsettune.train.job import RunJob
from subsettune.train.options import RunOptions
from subsettune.train.planning.check import user_code_of
from subsettune.train.planning.prefix import prefix_of
from subsettune.train.planning.stem_places import next_stem_flops

SUFFIX = ".checkpoint"
DIGITS = 20  # of the FLOPs in a name, so that names sort by them


@dataclass(slots=True, kw_only=True)
class Stems:
    """The stems that a run reads and leaves.

    Args:
        folder: shared by the runs of a study; None for no stems.
        key: of the run's beginning: equal for runs that are the same as far as their prefixes go.
        end_flops: up to which the run is that beginning, and has told no point of its curve.
        pass_flops: of a pass.
        due_flops: where the next stem is due.
    """

    folder: Folder | None = None
    key: str = ""
    end_flops: int = 0
    pass_flops: int = 1
    due_flops: float = math.inf

    @classmethod
    def of(cls, job: RunJob, options: RunOptions) -> Stems:
        """Those of a run; none where its policy allows none."""
        prefix = None if options.stems is None else prefix_of(job.resolved)
        if options.stems is None or prefix is None:
            return cls()
        first_point = -(-job.resolved.total // options.evaluations)
        end = prefix.end_flops if options.evaluations == 1 else min(prefix.end_flops, first_point - 1)
        folder, pass_flops = Folder.at(options.stems), job.facts.pass_flops
        return cls(folder=folder, key=_key(job, prefix.key), end_flops=end, pass_flops=pass_flops)

    def longest(self) -> tuple[Checkpoints, dict[str, Any]] | None:
        """Where the longest stem lies that the run may begin from, and what it holds; None if there is none.

        One that is damaged, or is removed meanwhile, is passed over: it costs no more than the training that it saves.
        """
        for flops in sorted(self._kept(), reverse=True):
            kept = self._at(flops)
            state = self._read(kept)
            if state is not None:
                return kept, state
        return None

    def _read(self, kept: Checkpoints) -> dict[str, Any] | None:
        """What a stem holds; None of one that is damaged, or was removed just now."""
        try:
            return kept.load()
        except CheckpointError:
            return None
        except StorageError:
            if kept.exists:
                raise
            return None

    def is_due(self, spent_flops: int, update_flops: int) -> bool:
        """Whether the state is to be left for others: after a place of the grid, or as the last one of the prefix.

        Args:
            spent_flops: by the run so far.
            update_flops: of its next update.
        """
        if not self.folder or spent_flops > self.end_flops:
            return False
        return spent_flops >= self.due_flops or spent_flops + update_flops > self.end_flops

    def save(self, state: dict[str, Any], spent_flops: int) -> None:
        """Leave a stem, unless another run has.

        Raises:
            StorageError: it cannot be written.
        """
        self.plan(spent_flops)
        if spent_flops not in self._kept():
            self._at(spent_flops).save(state)

    def plan(self, spent_flops: int) -> None:
        """Plan the next stem of a run that has spent so much."""
        self.due_flops = next_stem_flops(spent_flops, self.end_flops, self.pass_flops)

    def _kept(self) -> list[int]:
        """FLOPs of the stems there are, as far as the run is the same."""
        names = [] if self.folder is None else self.folder.names()
        own = [name for name in names if name.startswith(self.key) and name.endswith(SUFFIX)]
        return [f for name in own if (f := int(name[len(self.key) + 1 : -len(SUFFIX)])) <= self.end_flops]

    def _at(self, flops: int) -> Checkpoints:
        assert self.folder is not None
        return Checkpoints(self.folder, f"{self.key}-{flops:0{DIGITS}}")


def _key(job: RunJob, prefix: str) -> str:
    """Content hash of all that the state of a run depends on within its prefix, but for how far it is."""
    first = Policy(phases=job.policy.phases[:1], recipe=job.policy.recipe)
    told = job.task.run_identity
    told |= {"prefix": prefix, "fingerprint": job.data.fingerprint, "seed": job.seed, "batching": BATCHING}
    told |= {"code": user_code_of(job.task, first), "price": job.price, "torch": torch.__version__}
    told |= {"threads": torch.get_num_threads(), "device": job.device.type}
    return config.digest(told)
