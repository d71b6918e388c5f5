"""From phase to phase: the pool is chosen, workers of a soup are gathered and merged, and a transition happens."""

from __future__ import annotations

import torch
from torch import Tensor

from subsettune.train import optimizers
from subsettune.train.account import Stopwatch
from subsettune.train.job import RunJob
from subsettune.train.learner import Learner
from subsettune.train.options import RunOptions
from subsettune.train.orders import Stream
from subsettune.train.planning.phases import ResolvedPhase
from subsettune.train.randomness import generator
from subsettune.train.run_state import RunState
from subsettune.train.selection.chooser import SubsetProvider
from subsettune.train.soup import executors
from subsettune.train.soup.executors import WorkerExecutor
from subsettune.train.soup.workers import SoupPhase, Workers
from subsettune.train.transitions import TransitionContext


class PhaseSwitch:
    """Ends the phases of a run and begins them. `workers` are those of the soup that is on; None without one.

    `extra_flops` adds up what choosing did beyond what the policy is charged; see `Selection`.

    Args:
        job: of the run.
        options: where it runs.
        learner: of the run.
        stream: of its batches.
        state: of the run, whose pool, weights and account change.
        watch: to which the time is charged.
    """

    def __init__(
        self,
        job: RunJob,
        options: RunOptions,
        learner: Learner,
        stream: Stream,
        state: RunState,
        watch: Stopwatch,
    ) -> None:
        self.job, self.learner, self.stream, self.state, self.watch = job, learner, stream, state, watch
        self._options = options
        self.workers: Workers | None = None
        self.extra_flops = 0
        has_soup = any(phase.is_soup for phase in job.resolved.phases)  # the mode is tried on the network
        self._mode = executors.execution_mode(options.soup_workers, learner) if has_soup else "in_turn"
        places = options.places if options.keep_rankings else None
        self._provider = SubsetProvider(job, places=places, clock=watch.now)

    @property
    def phase(self) -> ResolvedPhase:
        """The phase that the run is in."""
        return self.job.resolved.phases[self.state.phase]

    def leave(self) -> None:
        """End a phase: the workers of a soup become one network."""
        if self.workers is not None:
            self.state.soups.append(self.workers.merge())
            self.close()
            self.workers = None
            self.learner.restart_average()

    def close(self) -> None:
        """Let go of what the workers of a soup hold in other processes."""
        if self.workers is not None:
            self.workers.close()

    def prepare(self) -> None:
        """Choose the pool of a phase; `enter` follows with the first update."""
        state, phase = self.state, self.phase
        self.watch.lap("train")
        state.pool, state.weights = None, None
        state.account.selected += phase.flops
        assert state.account.spent <= self.job.resolved.total, "check lets no phase through that does not fit"
        if phase.selection is not None:
            self._select()
        self.gather_workers()
        self.stream.enter(state.pool)
        state.entering = state.updates > 0  # before the first update there is nothing to enter from
        self.watch.lap("select")

    def _select(self) -> None:
        state, choice = self.state, self._provider.choose(self.state.phase, self.learner.network)
        self.watch.lap("other")  # what was prepared by another run is charged all the same
        self.watch.seconds["select"] += choice.seconds
        self.extra_flops += choice.extra_flops
        subset = choice.subset
        state.pool = subset.positions
        if choice.only_now:
            state.subsets[state.phase] = subset
        if subset.weights is not None:
            weights = torch.ones(len(self.job.data.train))
            weights[state.pool] = subset.loss_weights
            state.weights = weights.to(self.job.device)

    def gather_workers(self) -> None:
        """Gather the workers of a soup, where the phase is one."""
        phase = self.phase
        if phase.soup is None:
            return
        place = SoupPhase(
            soup=phase.soup,
            seed=self.job.seed,
            phase=phase.index,
            facts=phase.facts,
            pool=self.state.pool,
            weights=self.state.weights,
            mode=self._mode,
            clock=self.watch.now,
            apart=self._apart if self._options.soup_processes else None,
        )
        self.workers = Workers(place, self.learner)

    def _apart(self, place: SoupPhase, learner: Learner, masks: dict[str, Tensor]) -> WorkerExecutor:
        """The workers of a soup in processes of their own."""
        from subsettune.train.soup.apart import Apart, Origin

        return Apart(Origin.of(self.job, self._options), place, learner, masks)

    def enter(self) -> None:
        """Begin a phase: its transition changes weights and optimizer right before its first update."""
        learner, phase = self.learner, self.phase
        context = TransitionContext(
            network=learner.network,
            optimizer=learner.optimizer,
            scales=learner.scales,
            rng=generator(self.job.seed, "entry", phase.index),  # the word seeds the stream, so it stays
            part=learner.part,
            pool=self.state.pool,
            losses=learner.losses_of_many,
            facts=phase.facts_before,
        )
        phase.transition.apply(context)
        if phase.is_soup or not phase.transition.is_neutral:
            learner.restart_average()
        if phase.flops:
            self.watch.lap("select")
        optimizers.change_objective(learner.optimizer)
        self.state.switches.append(self.state.account.spent / self.job.resolved.total)
        self.state.entering = False
