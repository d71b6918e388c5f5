"""How the examples of each phase are chosen and what that costs: one pass over a policy, without torch.

What an earlier phase has paid for is not charged again: proxies with the same need, and the part of a ranking that is
there already. The weights of a part depend on where it ends, and are charged for every size. A choice by the run's own
network is always made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from subsettune.config import must
from subsettune.facts import TaskFacts
from subsettune.policy import Phase
from subsettune.select.base import ModelNeed, Selector, share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSelection:
    """How the examples of a phase are chosen.

    Args:
        selector: with its options.
        size: k, the examples to choose.
        facts: of the network that the selector looks at: the run's own, or one as the task has it.
        flops: charged for it.
        draws: equal for phases whose selector draws the same, so that pools of one size are one pool.
        ranking: equal for phases whose pools are the first so many of one ranking.
    """

    selector: Selector
    size: int
    facts: TaskFacts
    flops: int
    draws: Hashable
    ranking: Hashable

    @property
    def needs_run(self) -> bool:
        """Whether the run's own network chooses."""
        return looks_at_run(self.selector)


class SelectionAccount:
    """Plans the selections of a policy phase after phase, and knows what those before have paid for.

    Args:
        facts: of the task.
    """

    def __init__(self, facts: TaskFacts) -> None:
        self._facts = facts
        self._trained: set[ModelNeed] = set()
        self._ranked: dict[Hashable, int] = {}  # FLOPs of the dearest part so far of each ranking
        self._sizes: dict[Hashable, set[int]] = {}  # of the parts so far of each ranking

    def plan(self, index: int, phase: Phase, selector: Selector, own: TaskFacts) -> PhaseSelection:
        """The selection of the next phase with a subset, which can be made: `why_not` says so.

        Args:
            index: of the phase.
            phase: with a subset.
            selector: of the phase.
            own: facts of the run's network when the phase begins.
        """
        need, size = selector.model_need, phase.pool_size(self._facts.num_examples)
        facts = seen(selector, self._facts, own)
        draws: Hashable = (phase.selector, phase.selector_options, 0 if selector.is_deterministic else phase.draw)
        draws = index if looks_at_run(selector) else draws
        ranking = draws if selector.is_ranking else index
        training = 0 if need is None or need in self._trained else need.flops(facts)
        if need is not None:
            self._trained.add(need)
        full, paid = selector.flops(facts, size), self._ranked.get(ranking, 0)
        self._ranked[ranking] = max(full, paid)
        sizes = self._sizes.setdefault(ranking, set())
        weighing = selector.weigh_flops(facts, size) if sizes - {size} and size not in sizes else 0
        sizes.add(size)
        return PhaseSelection(
            selector=selector,
            size=size,
            facts=facts,
            flops=training + max(0, full - paid) + weighing,
            draws=draws,
            ranking=ranking,
        )


def looks_at_run(selector: Selector) -> bool:
    """Whether a selector looks at the run's own network as it is when the phase begins."""
    need = selector.model_need
    return need is not None and need.source == "current"


def seen(selector: Selector, facts: TaskFacts, own: TaskFacts) -> TaskFacts:
    """The facts of the network that a selector looks at: the run's own, or one as the task has it."""
    return own if looks_at_run(selector) else facts


def why_not_chosen(phase: Phase, make: Callable[[Phase], Selector], facts: TaskFacts, own: TaskFacts) -> str | None:
    """Why the examples of a phase cannot be chosen, in one sentence with a remedy; None if they can.

    Args:
        phase: with a subset.
        make: its selector.
        facts: of the task.
        own: of the run's network when the phase begins.

    Raises:
        ConfigError: an unknown selector or option.
    """
    n = facts.num_examples
    if round(phase.share * n) == 0:
        return must("share", f"at least {share_of(1, n)}", phase.share, f"It makes none of the {n:,} examples.")
    selector = make(phase)
    return selector.why_not(seen(selector, facts, own), phase.pool_size(n)) or _why_not_by_loss(phase, selector, facts)


def _why_not_by_loss(phase: Phase, selector: Selector, facts: TaskFacts) -> str | None:
    """Why a selector that knows the losses of ours alone cannot choose; features of a layer depend on none."""
    if facts.own_loss == "mean" and selector.weighs:
        return (
            f"{phase.selector} weighs the losses of examples, and the loss of your own gives their mean alone. Return "
            "the losses, (b,), or use another selector."
        )
    need = selector.model_need
    is_usual = not facts.num_labels and not facts.own_loss
    counts = need is not None and need.events and facts.num_classes > 0
    if is_usual or need is None or counts or str(getattr(selector, "features", "")).startswith("layer:"):
        return None
    what = "several labels an example" if facts.num_labels else "a loss of your own"
    return (
        f"{phase.selector} goes by the cross-entropy of classes or the squared error, and the task has {what}. Use "
        "random, kcenter or herding on the inputs, or features of a layer."
    )


def why_not_paid(phase: Phase, selection: PhaseSelection, facts: TaskFacts) -> str | None:
    """Why a phase cannot pay for its selection, in one sentence with a remedy; None if it can."""
    if selection.flops <= round(phase.passes * facts.pass_flops):
        return None
    passes = selection.flops / facts.pass_flops
    return (
        f"Choosing {selection.size:,} of {facts.num_examples:,} examples with {phase.selector} costs {passes:.3g} "
        f"passes, more than the {phase.passes:.3g} passes of its phase. "
        "Give the phase more compute, choose fewer examples, or use a cheaper selector."
    )
