"""Choosing the examples of a run's phases: the networks and features that a selector asks for, and shared rankings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from subsettune import select
from subsettune.data import DataPaths, TaskData
from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.select import ModelNeed, SelectionContext, Selector, Subset
from subsettune.select.network import ModelView
from subsettune.task import Task
from subsettune.train.planning import phases
from subsettune.train.selection import proxy, ranking_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen examples of a phase.

    Args:
        subset: positions and weights.
        seconds: what choosing takes where nothing was prepared, on this machine.
        only_now: whether only the run itself can tell it: its own network chooses, or a GPU computes, which gives
            other bits than a CPU does, and than it gave before.
    """

    subset: Subset
    seconds: float
    only_now: bool = False


class SubsetProvider:
    """Chooses for the phases of one run: the same call gives the same examples.

    Proxies are trained once a run, and a ranking that needs no network once a data set: trials of a study share it
    through the cache of this machine. Both are charged as if this run had done it all.

    Args:
        task: what is trained.
        policy: whose phases.
        seed: of the run.
        data: of the task.
        facts: of the task.
        device: where heavy selectors compute.
        places: whose cache holds the shared rankings; None shares none.
        clock: in seconds.
    """

    def __init__(
        self,
        task: Task,
        policy: Policy,
        seed: int,
        data: TaskData,
        facts: TaskFacts,
        *,
        device: torch.device | str = "cpu",
        places: DataPaths | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.task, self.policy, self.seed, self.data, self.facts = task, policy, seed, data, facts
        self._own = phases.before(policy, facts)
        self.device, self.clock = torch.device(device), clock
        self.rankings = None if places is None else ranking_cache.RankingCache(places=places, clock=clock)
        self._proxies: dict[ModelNeed, tuple[ModelView, ...]] = {}
        self._ranked: dict[int, Subset] = {}  # by the first phase that takes its examples from a ranking

    @property
    def needs_run(self) -> bool:
        """Whether only the run itself can tell the examples of a phase; see `Choice.only_now`."""
        return any(self._is_only_now(i) for i, phase in enumerate(self.policy.phases) if not phase.is_full)

    def choose(self, phase: int, network: nn.Module | None = None) -> Selection:
        """The subset of a phase.

        Phases with the same `draw` share one stream of random numbers, so that with a selector that ranks a larger
        pool holds the smaller ones.

        Args:
            phase: its index.
            network: the run's own, as it is when the phase begins; only selectors that look at it need it.

        Raises:
            SelectionError: the selector cannot choose so many, or by such data.
            ModelDivergedError: the network that it looks at left the finite numbers.
        """
        selector = select.selector_of(self.policy, phase)
        k = self._size(phase)
        together = select.same_ranking(self.policy, phase)
        longest = max(self._size(p) for p in together)
        start = self.clock()
        context = self._context(phase, network)
        seconds, ranked = self.clock() - start, self._ranked.get(together[0])
        if ranked is None:
            choice = self._rank(phase, selector, context, longest)
            if k == longest and len(together) == 1:
                return replace(choice, seconds=seconds + choice.seconds, only_now=self._is_only_now(phase))
            ranked = self._ranked[together[0]] = choice.subset
            seconds += choice.seconds
        start = self.clock()
        subset = self._cut(ranked.positions, selector, context, k)
        return Selection(subset=subset, seconds=seconds + self.clock() - start, only_now=self._is_only_now(phase))

    def _is_only_now(self, phase: int) -> bool:
        selector = select.selector_of(self.policy, phase)
        need = selector.model_need
        if need is not None and need.source == "current":
            return True
        is_free = need is None and selector.flops(self.facts, self._size(phase)) == 0
        return self.device.type != "cpu" and not is_free

    def _size(self, phase: int) -> int:
        return self.policy.phases[phase].pool_size(self.facts.num_examples)

    def _rank(self, phase: int, selector: Selector, context: SelectionContext, k: int) -> Selection:
        """Choose `k`: by a ranking that is shared, if it can be."""
        settings, start = self.policy.phases[phase], self.clock()
        if self.rankings is not None and ranking_cache.can_share(selector, self.facts, k):
            key = ranking_cache.CacheKey.of(self.data.fingerprint, settings, selector, self.seed, self.device)
            ranking = self.rankings.fetch(key, selector, context, k)
            start = self.clock()  # not the time of the ranking: another run may have made it
            subset = self._cut(ranking.positions, selector, context, k)
            return Selection(subset=subset, seconds=ranking.seconds + self.clock() - start)
        subset = selector.select(context, k, rng=ranking_cache.stream(self.seed, settings.draw))
        self._wait()
        return Selection(subset=subset, seconds=self.clock() - start)

    def _cut(self, ranking: Tensor, selector: Selector, context: SelectionContext, k: int) -> Subset:
        """The first `k` of a ranking, with the weights that such a subset has."""
        positions = ranking[:k].clone()
        subset = Subset(positions=positions, weights=selector.weigh(context, positions))
        self._wait()
        return subset

    def _context(self, phase: int, network: nn.Module | None) -> SelectionContext:
        selector = select.selector_of(self.policy, phase)
        return SelectionContext(
            part=self.data.train,
            facts=select.seen(selector, self.facts, self._own[phase]),
            device=self.device,
            models=self._models(selector, network),
            embeddings=self.data.train.embeddings,
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
            return (ModelView.of(network, self.data, self.device),)
        if need not in self._proxies:
            recipe = self.task.recipe.override(self.policy.recipe)
            self._proxies[need] = proxy.train_proxies(
                self.task, recipe, self.data, self.facts, need, self.seed, self.device
            )
        return self._proxies[need]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
