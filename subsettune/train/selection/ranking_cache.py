"""Rankings that need no network: made once for a data set on a machine, and shared by all trials of all studies.

<cache>/rankings/<key>.parquet    positions in order of picking, and the seconds that it took
<cache>/rankings/<key>.lock       held while a ranking is made; it goes with the process that holds it
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from subsettune import config, plugins
from subsettune.data.cache import locked
from subsettune.data.places import DataPaths
from subsettune.errors import StorageError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase
from subsettune.registry import SELECTORS
from subsettune.select import SelectionContext, Selector
from subsettune.storage import Folder
from subsettune.train.randomness import generator

VERSION = 1  # raise it when a selector comes to rank otherwise: rankings made before are then passed over
SECONDS, FLOPS = b"seconds", b"flops"


def stream(seed: int, draw: int) -> torch.Generator:
    """What the selector of a phase draws from: phases with one `draw` share the stream."""
    return generator(seed, "select", *([draw] if draw else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """What a ranking depends on.

    Args:
        text: a content hash.
        seed: of the run, for what is drawn.
        draw: number of the stream.
    """

    text: str
    seed: int
    draw: int

    @classmethod
    def of(cls, fingerprint: str, phase: Phase, selector: Selector, seed: int, device: torch.device) -> CacheKey:
        """The key of a phase's ranking; a selector that draws nothing has one for all seeds.

        The number of threads is part of it, as it is of what a run is: sums in another order break ties otherwise.
        """
        drawn = [] if selector.is_deterministic else [seed, phase.draw]
        code = SELECTORS.code_of(phase.selector)
        own = "" if code is None else plugins.source_digest(code, phase.selector_options)
        where = [device.type, torch.get_num_threads()]
        told = [VERSION, fingerprint, phase.selector, phase.selector_options, own, drawn, where]
        return cls(text=config.digest(told)[:32], seed=seed, draw=phase.draw)

    @property
    def rng(self) -> torch.Generator:
        """A fresh stream, the one that an unshared choice draws from."""
        return stream(self.seed, self.draw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The first positions of a ranking.

    Args:
        positions: (m,) int64, best first; at least as many as were asked for.
        seconds: what ranking as many as were asked for takes.
        made_flops: of ranking all that were ranked, by the run that did; 0 where it was there already.
    """

    positions: Tensor
    seconds: float
    made_flops: int = 0


def can_share(selector: Selector, facts: TaskFacts, k: int) -> bool:
    """Whether a selector's ranking is worth keeping: it needs no network, and is not free."""
    return selector.is_ranking and selector.model_need is None and selector.flops(facts, k) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingCache:
    """The rankings kept on a machine.

    Args:
        places: whose cache holds them.
        clock: in seconds.
    """

    places: DataPaths
    clock: Callable[[], float] = time.perf_counter

    def fetch(self, key: CacheKey, selector: Selector, context: SelectionContext, k: int) -> Ranking:
        """The ranking of a data set: read, or made and kept. Several processes may ask at once: one makes it.

        It is made for up to twice as many examples as were asked for, so that trials with shares of all sizes make few;
        the seconds are in proportion to the FLOPs of those that were asked for.

        Raises:
            SelectionError: the selector cannot rank so many.
        """
        path = Path(self.places.cache_folder) / "rankings" / f"{key.text}.parquet"
        found = _read(path, selector, context.facts, k)
        if found is not None:
            return found
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(StorageError):  # a cache that cannot be written keeps nothing, and stops nobody
                stack.enter_context(locked(path.with_suffix(".lock")))
            found = _read(path, selector, context.facts, k)
            return found if found is not None else self._make(path, key, selector, context, k)

    def _make(self, path: Path, key: CacheKey, selector: Selector, context: SelectionContext, k: int) -> Ranking:
        length = _length(selector, context.facts, k)
        start = self.clock()
        positions = selector.select(context, length, rng=key.rng).positions
        seconds, flops = self.clock() - start, selector.flops(context.facts, length)
        table = pa.table({"position": positions.numpy()})
        table = table.replace_schema_metadata({SECONDS: repr(seconds), FLOPS: str(flops)})
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        with contextlib.suppress(StorageError):
            Folder.at(path.parent).write(path.name, buffer.getvalue().to_pybytes())
        return replace(_cut(positions, seconds, flops, selector, context.facts, k), made_flops=flops)


def _length(selector: Selector, facts: TaskFacts, k: int) -> int:
    """The least n / 2^j that is at least k, where the selector can rank so many."""
    length = facts.num_examples
    while length // 2 >= k:
        length //= 2
    return length if selector.why_not(facts, length) is None else k


def _read(path: Path, selector: Selector, facts: TaskFacts, k: int) -> Ranking | None:
    """A kept ranking; None if there is none, it is too short, or not whole: it is then made anew."""
    try:
        table = pq.read_table(path)
        positions = torch.from_numpy(table.column("position").to_numpy().copy())
        seconds, flops = float(table.schema.metadata[SECONDS]), int(table.schema.metadata[FLOPS])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    whole = len(positions) >= k and len(positions.unique()) == len(positions)
    if not whole or int(positions.min()) < 0 or int(positions.max()) >= facts.num_examples:
        return None
    return _cut(positions, seconds, flops, selector, facts, k)


def _cut(positions: Tensor, seconds: float, flops: int, selector: Selector, facts: TaskFacts, k: int) -> Ranking:
    share = selector.flops(facts, k) / flops if flops else 1.0
    return Ranking(positions=positions, seconds=seconds * min(1.0, share))
