"""A policy resolved: one forward pass makes the components of each phase, and tells what they do and cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from subsettune import select
from subsettune.errors import ConfigError
from subsettune.facts import Price, TaskFacts
from subsettune.policy import Phase, Policy, Soup
from subsettune.select.accounting import PhaseSelection, SelectionAccount, why_not_chosen
from subsettune.task import Recipe
from subsettune.train import orders, transitions
from subsettune.train.soup import costs


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPhase:
    """A phase with its components made and its arithmetic done. Loop, projection and bundle read it.

    Args:
        index: of the phase.
        phase: as the policy has it.
        pool_size: K, examples of its pool.
        selection: how they are chosen; None where the pool is all of the data.
        order: the uniform one where the options of the phase's own make it that.
        transition: `keep` where the options of the phase's own change nothing.
        soup: None for ordinary training.
        facts_before: of the network when the phase begins.
        facts: of the network in the phase, which the transition may have made narrower.
        transition_flops: of `flops`, those of the transition.
        flops: charged as selection before the first update: choosing, transition and what a soup prepares.
        lengths: of the batches in turn, as `Order.lengths` gives them; of a soup's steps one, over all workers.
    """

    index: int
    phase: Phase
    pool_size: int
    selection: PhaseSelection | None
    order: orders.Order
    transition: transitions.Transition
    soup: Soup | None
    facts_before: TaskFacts
    facts: TaskFacts
    transition_flops: int
    flops: int
    lengths: tuple[int, ...]

    @property
    def is_soup(self) -> bool:
        """Whether a batch is that of the workers of a soup, which follow no order."""
        return self.soup is not None

    @property
    def pool_identity(self) -> Hashable:
        """Equal for phases on the same pool; a choice by the run's own network is never the same."""
        return "all" if self.selection is None else (self.pool_size, self.selection.draws)

    @property
    def max_update_flops(self) -> int:
        """FLOPs of the dearest update that the phase may make."""
        longest = max(self.lengths, default=0)
        if self.is_soup:
            return self.update_cost(longest, 0.0).total
        return self.order.max_update_flops(longest, self.facts)

    def update_cost(self, length: int, share: float) -> Price:
        """FLOPs of an update on a batch of some length; of a soup, on the batches of all workers.

        Args:
            length: of the batch.
            share: of the policy's compute spent before it.
        """
        if self.soup is None:
            return self.order.update_cost(length, share, self.facts)
        return Price(forward=length * self.facts.forward_flops, backward=length * self.facts.backward_flops)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPolicy:
    """A policy whose components were made, for one task. Compute in FLOPs.

    Args:
        policy: as it was given.
        recipe: with the policy's overrides.
        facts: of the task.
        phases: in order.
        ends: what is spent when each phase is over.
    """

    policy: Policy
    recipe: Recipe
    facts: TaskFacts
    phases: tuple[ResolvedPhase, ...]
    ends: tuple[int, ...]

    @property
    def total(self) -> int:
        """What a run may spend."""
        return self.ends[-1]

    @property
    def order(self) -> orders.Order:
        """That of all phases."""
        return self.phases[0].order

    @property
    def min_batch(self) -> int:
        """Examples of the shortest batch; of a soup's, over all workers."""
        return min(length for phase in self.phases for length in phase.lengths)

    @property
    def min_trained_examples(self) -> int:
        """Examples that are trained on at least of any batch outside soups; the whole batch size without one."""
        plain = [phase for phase in self.phases if not phase.is_soup]
        trained = (self.order.min_trained_examples(n, phase.facts) for phase in plain for n in phase.lengths)
        return min(trained, default=self.recipe.batch_size)


def resolve(policy: Policy, recipe: Recipe, facts: TaskFacts) -> ResolvedPolicy:
    """The policy with its phases resolved, and where each ends; arguments and errors as of `resolve_phases`."""
    phases = resolve_phases(policy, recipe, facts)
    return ResolvedPolicy(policy=policy, recipe=recipe, facts=facts, phases=phases, ends=policy.boundaries(facts))


def resolve_phases(policy: Policy, recipe: Recipe, facts: TaskFacts) -> tuple[ResolvedPhase, ...]:
    """Make the components of each phase, once for equal settings, and check them against the network as it then is.

    Whether the compute suffices is for `check`. O(phases).

    Args:
        policy: to be run.
        recipe: with the policy's overrides.
        facts: of the task.

    Raises:
        ConfigError: an unknown or impossible component.
    """
    resolver = _Resolver(policy, recipe, facts)
    return tuple(resolver.resolve(index, phase) for index, phase in enumerate(policy.phases))


class _Resolver:
    """Goes through the phases of a policy, with what the next one needs to know of those before."""

    def __init__(self, policy: Policy, recipe: Recipe, facts: TaskFacts) -> None:
        self.policy, self.recipe, self.facts = policy, recipe, facts
        self._now = facts  # of the network as the phases so far leave it
        self._selections = SelectionAccount(facts)
        self._made: dict[Hashable, Any] = {}

    def resolve(self, index: int, phase: Phase) -> ResolvedPhase:
        """The next phase."""
        before, k = self._now, phase.pool_size(self.facts.num_examples)
        order, transition = self._order(phase), self._transition(phase)
        self._refuse_places(index, phase)
        self._refuse(index, transition.why_not(self.recipe, before))
        self._now = now = transition.facts_after(before)
        self._refuse(index, self._why_not_trained(phase, order, now))
        selection = self._selection(index, phase, before)
        transition_flops = transition.flops(before, k)
        soup, batch_size = phase.active_soup, self.recipe.batch_size
        lengths = order.lengths(k, batch_size) if soup is None else (costs.step_length(soup, k, batch_size),)
        prepared = 0 if soup is None else costs.flops(soup, k, now)
        return ResolvedPhase(
            index=index,
            phase=phase,
            pool_size=k,
            selection=selection,
            order=order,
            transition=transition,
            soup=soup,
            facts_before=before,
            facts=now,
            transition_flops=transition_flops,
            flops=(0 if selection is None else selection.flops) + transition_flops + prepared,
            lengths=tuple(lengths),
        )

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _order(self, phase: Phase) -> orders.Order:
        made: orders.Order = self._once(("order", phase.order, phase.order_options), lambda: orders.of(phase))
        return made

    def _transition(self, phase: Phase) -> transitions.Transition:
        made: transitions.Transition = self._once(
            ("transition", phase.transition, phase.transition_options), lambda: transitions.of(phase)
        )
        return made

    def _selector(self, phase: Phase) -> select.Selector:
        name, options = phase.selector, phase.selector_options
        made: select.Selector = self._once(("selector", name, options), lambda: select.make(name, options))
        return made

    def _selection(self, index: int, phase: Phase, own: TaskFacts) -> PhaseSelection | None:
        if phase.is_full:
            return None
        try:
            problem = why_not_chosen(phase, self._selector, self.facts, own)
        except ConfigError as error:
            problem = str(error)
        self._refuse(index, problem)
        return self._selections.plan(index, phase, self._selector(phase), own)

    def _refuse_places(self, index: int, phase: Phase) -> None:
        """Refuse a transition into the first phase, and an order that is not that of the first phase."""
        if index == 0 and phase.transition != "keep":
            raise ConfigError(
                f"transition of the first phase must be keep, got {phase.transition!r}. There is nothing to enter from."
            )
        first = self.policy.phases[0]
        if (phase.order, phase.order_options) != (first.order, first.order_options):
            raise ConfigError("all phases of a policy must have the same order. Give each phase the same one.")

    def _why_not_trained(self, phase: Phase, order: orders.Order, facts: TaskFacts) -> str | None:
        """Why a phase cannot be trained in its order or as a soup by the network that its transition leaves behind."""
        problem = order.why_not(self.recipe, facts) or self._why_not_by_mean(phase, order)
        if problem is None and phase.active_soup is not None:
            pool_size = phase.pool_size(facts.num_examples)
            problem = costs.why_not(phase.active_soup, pool_size, self.recipe, facts)
        return problem

    def _why_not_by_mean(self, phase: Phase, order: orders.Order) -> str | None:
        """Why a phase cannot be trained with a loss of the user's own that gives no losses of examples."""
        if self.facts.own_loss != "mean":
            return None
        names = {"order": order.needs_losses, "soup": phase.active_soup is not None}
        names["transition"] = self._transition(phase).needs_losses
        told = {"order": phase.order, "soup": "soup", "transition": phase.transition}
        found = next((told[kind] for kind, is_needed in names.items() if is_needed), None)
        if found is None:
            return None
        return (
            f"{found} needs the losses of examples, and the loss of your own gives their mean alone. Return the "
            f"losses, (b,), or leave out {found}."
        )

    def _refuse(self, index: int, problem: str | None) -> None:
        if problem is not None:
            raise ConfigError(in_phase(self.policy, index, problem))


def in_phase(policy: Policy, index: int, problem: str) -> str:
    """A sentence on a phase, which says on which one where it is not plain to see."""
    return problem if len(policy.phases) <= 2 else f"Phase {index + 1}: {problem}"
