"""Choosing the examples of a run's phases: the networks and features that a selector asks for, and shared rankings."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from subsettune.data import DataPaths
from subsettune.errors import SelectionError
from subsettune.select import ModelNeed, PhaseSelection, SelectionContext, Selector, Subset
from subsettune.select.network import ModelView
from subsettune.train.job import RunJob
from subsettune.train.selection import proxy, ranking_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen examples of a phase.

    Args:
        subset: positions and weights.
        seconds: what choosing takes where nothing was prepared, on this machine.
        only_now: whether only the run itself can tell it: its own network chooses, or a GPU computes, which gives
            other bits than a CPU does, and than it gave before.
        extra_flops: what was done beyond what the policy is charged, for runs to come: a shared ranking is made longer
            than this run asked for.
    """

    subset: Subset
    seconds: float
    only_now: bool = False
    extra_flops: int = 0


class SubsetProvider:
    """Chooses for the phases of one run: the same call gives the same examples.

    Proxies are trained once a run, and a ranking that needs no network once a data set: trials of a study share it
    through the cache of this machine. Both are charged as if this run had done it all.

    Args:
        job: whose phases.
        places: whose cache holds the shared rankings; None shares none.
        clock: in seconds.
    """

    def __init__(
        self, job: RunJob, *, places: DataPaths | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.job, self.clock = job, clock
        self.rankings = None if places is None else ranking_cache.RankingCache(places=places, clock=clock)
        self._selections = [phase.selection for phase in job.resolved.phases]
        self._sizes: dict[Hashable, list[int]] = {}  # of the pools that are taken from each ranking
        for planned in self._selections:
            if planned is not None:
                self._sizes.setdefault(planned.ranking, []).append(planned.size)
        self._proxies: dict[ModelNeed, tuple[ModelView, ...]] = {}
        self._ranked: dict[Hashable, Subset] = {}

    @property
    def needs_run(self) -> bool:
        """Whether only the run itself can tell the examples of a phase; see `Selection.only_now`."""
        return any(self._is_only_now(planned) for planned in self._selections if planned is not None)

    def choose(self, phase: int, network: nn.Module | None = None) -> Selection:
        """The subset of a phase.

        Phases with the same `draw` share one stream of random numbers, so that with a selector that ranks a larger
        pool holds the smaller ones.

        Args:
            phase: its index; of one with a subset.
            network: the run's own, as it is when the phase begins; only selectors that look at it need it.

        Raises:
            SelectionError: the selector cannot choose so many, or by such data.
            ModelDivergedError: the network that it looks at left the finite numbers.
        """
        planned = self._selections[phase]
        assert planned is not None, "nothing is chosen on all data"
        sizes, only_now = self._sizes[planned.ranking], self._is_only_now(planned)
        start = self.clock()
        context = self._context(planned, network)
        seconds, ranked, extra = self.clock() - start, self._ranked.get(planned.ranking), 0
        if ranked is None:
            choice = self._rank(phase, planned, context, max(sizes))
            if len(sizes) == 1:
                return replace(choice, seconds=seconds + choice.seconds, only_now=only_now)
            ranked = self._ranked[planned.ranking] = choice.subset
            seconds, extra = seconds + choice.seconds, choice.extra_flops
        start, whole = self.clock(), len(ranked) == planned.size
        subset = ranked if whole else self._cut(ranked.positions, planned.selector, context, planned.size)
        seconds += self.clock() - start
        return Selection(subset=subset, seconds=seconds, only_now=only_now, extra_flops=extra)

    def _is_only_now(self, planned: PhaseSelection) -> bool:
        if planned.needs_run:
            return True
        selector = planned.selector
        is_free = selector.model_need is None and selector.flops(planned.facts, planned.size) == 0
        return self.job.device.type != "cpu" and not is_free

    def _rank(self, phase: int, planned: PhaseSelection, context: SelectionContext, k: int) -> Selection:
        """Choose `k`: by a ranking that is shared, if it can be."""
        job, selector, start = self.job, planned.selector, self.clock()
        settings = job.policy.phases[phase]
        if self.rankings is not None and ranking_cache.can_share(selector, job.facts, k):
            key = ranking_cache.CacheKey.of(job.data.fingerprint, settings, selector, job.seed, job.device)
            ranking = self.rankings.fetch(key, selector, context, k)
            start = self.clock()  # not the time of the ranking: another run may have made it
            subset = self._cut(ranking.positions, selector, context, k)
            done = ranking.made_flops and ranking.made_flops + selector.weigh_flops(planned.facts, k)
            extra = max(0, done - selector.flops(planned.facts, k))
            return Selection(subset=subset, seconds=ranking.seconds + self.clock() - start, extra_flops=extra)
        subset = selector.select(context, k, rng=ranking_cache.stream(job.seed, settings.draw))
        self._wait()
        return Selection(subset=subset, seconds=self.clock() - start)

    def _cut(self, ranking: Tensor, selector: Selector, context: SelectionContext, k: int) -> Subset:
        """The first `k` of a ranking, with the weights that such a subset has."""
        positions = ranking[:k].clone()
        subset = Subset(positions=positions, weights=selector.weigh(context, positions))
        self._wait()
        return subset

    def _context(self, planned: PhaseSelection, network: nn.Module | None) -> SelectionContext:
        part = self.job.data.train
        return SelectionContext(
            part=part,
            facts=planned.facts,
            device=self.job.device,
            models=self._models(planned.selector, network),
            embeddings=part.embeddings,
        )

    def _models(self, selector: Selector, network: nn.Module | None) -> tuple[ModelView, ...]:
        need = selector.model_need
        if need is None:
            return ()
        if need.source == "current":
            if network is None:
                raise SelectionError(
                    f"{selector.name} looks at the run's own network, which only the run has. Train the policy."
                )
            return (ModelView.of(network, self.job.data, self.job.device),)
        if need not in self._proxies:
            self._proxies[need] = proxy.train_proxies(self.job, need)
        return self._proxies[need]

    def _wait(self) -> None:
        if self.job.device.type == "cuda":
            torch.cuda.synchronize(self.job.device)
