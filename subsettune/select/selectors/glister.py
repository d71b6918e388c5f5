"""GLISTER: examples whose steps lower the loss of examples that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune import config
from subsettune.config import AT_LEAST_ONE, OPEN_FRACTION, POSITIVE, setting
from subsettune.facts import TaskFacts
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.families import classes as balance
from subsettune.select.families.last_layer import LastLayerSelector

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.kernels.gradients import Gradients, HeldOut
    from subsettune.select.network import ModelView


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Glister(LastLayerSelector):
    """Greedy gain on held-out examples: the gradient that agrees best with theirs, after the picks before.

    The held-out examples are a share of the TRAINING part, drawn at random with the classes in proportion. The task's
    validation and test parts are never looked at: they judge the result. Held-out examples are ranked last in their
    class, in the order they were drawn, so that they are chosen only when no other is left; they take no step.

    The last layer takes the step of the picks and the gradient of the held-out examples is computed anew, every
    `refresh` picks: what the picks have taught already is worth less, and copies of a pick lose value. The defaults,
    10 picks a refresh and a step of 0.01, let gains be out of date by a tenth of a step of gradient descent at most,
    and cost 500 looks at 50,000 candidates for 5,000 picks. See `gradients.gain_ranking`.

    Where we depart from the paper: the validation set is a share of the training part, `step` is relative to the scale
    of the features and no learning rate, classes may be balanced, and there is no regulariser.

    When: copies, or examples that teach the same: it looks at what earlier picks have taught already.
    Looks at: one network with a linear last layer. Nested: yes. Order of the examples: the held-out ones are drawn by
    position.
    Cost: charged as n forward passes, 2mMA FLOPs to begin with, 2 (n + 2m) MA + 2nM for each of ceil(k / `refresh`)
    refreshes, with m the held-out examples and n the others, and 2MA for each pick. Memory: float64 gradients of all.
    Source: Killamsetty et al. 2021b, arXiv:2012.10630, algorithm GreedyDSS with its Taylor approximation.

    Args:
        holdout: share of the training part that is held out, in (0, 1).
        step: 1 / `step` picks together move the last layer as one step of gradient descent on their mean loss, at a
            learning rate of 1 / mean |(hidden, 1)|^2.
        refresh: picks between two refreshes.
    """

    name: ClassVar[str] = "glister"
    summary: ClassVar[str] = "gain on held-out training examples, refreshed as it picks; charged a proxy and a look"
    is_ranking: ClassVar[bool] = True
    holdout: float = setting(0.1, rule=OPEN_FRACTION)
    step: float = setting(0.01, rule=POSITIVE)
    refresh: int = setting(10, rule=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        config.check(self)

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Forward passes, refreshes and steps."""
        outputs, a = facts.num_outputs, facts.head_features + 1
        held = self._num_held_out(facts.num_examples)
        candidates = facts.num_examples - held
        refreshed = 2 * (candidates + 2 * held) * outputs * a + 2 * candidates * outputs
        begun = 2 * held * outputs * a  # outputs of the held-out examples before the first step
        return (
            facts.num_examples * facts.forward_flops + begun + -(-k // self.refresh) * refreshed + 2 * k * outputs * a
        )

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """All gradients at once, whatever the classes."""
        return self.gradient_bytes(facts, facts.num_examples)

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Hold out, rank the others, and put the held-out ones behind them, class by class."""
        import torch

        from subsettune.select.kernels.gradients import gain_ranking

        labels, sizes = self.groups_of(context), balance.groups(context.facts, self.classes)
        held = self._hold_out(context, rng)
        is_held = torch.zeros(context.num_examples, dtype=torch.bool).index_fill_(0, held, value=True)
        others = (~is_held).nonzero().flatten()
        others = others[labels[others].argsort(stable=True)]
        held_by_group = held[labels[held].argsort(stable=True)]
        num_held, num_others = (torch.bincount(labels[p], minlength=len(sizes)) for p in (held, others))
        groups, nth = (torch.tensor(v) for v in balance.sequence(sizes, k, self.classes))
        is_last = nth >= num_others[groups]  # only held-out examples of the group are left
        candidates, held_out = _look(self.network_of(context), context, others, held)
        counts = tuple(num_others.tolist())
        picks = gain_ranking(candidates, held_out, groups[~is_last], counts, step=self.step, refresh=self.refresh)
        positions = torch.empty(k, dtype=torch.int64)
        positions[~is_last] = others[picks]
        first = num_held.cumsum(0) - num_held - num_others
        positions[is_last] = held_by_group[(first[groups] + nth)[is_last]]
        return Subset(positions=positions)

    def _num_held_out(self, n: int) -> int:
        """m: at least 1, and never all; a single example is not held out."""
        return min(n - 1, max(1, round(self.holdout * n)))

    def _hold_out(self, context: SelectionContext, rng: torch.Generator) -> Tensor:
        """(m,) positions drawn for holding out, classes in proportion whatever those of the subset are."""
        import torch

        n = context.num_examples
        shuffle = torch.randperm(n, generator=rng)
        count = self._num_held_out(n)
        if context.facts.num_classes == 0 or count == 0:
            return shuffle[:count]
        labels = context.targets.cpu()[shuffle]
        wanted = balance.quotas(context.facts, "proportional", count)
        chosen = [shuffle[labels == c][:some] for c, some in enumerate(wanted)]
        return torch.cat(chosen)


def _look(view: ModelView, context: SelectionContext, others: Tensor, held: Tensor) -> tuple[Gradients, HeldOut]:
    """Gradients of the candidates, and the held-out examples as the last layer sees them, in one look."""
    from subsettune.select.kernels.gradients import Gradients, HeldOut

    residuals, hidden = view.gradients()
    assert view.head is not None, "a network without a linear last layer has no such gradients"
    candidates, kept = (Gradients.of(residuals, hidden, p, bias=view.has_head_bias) for p in (others, held))
    if context.facts.num_classes == 0:
        return candidates, HeldOut.of_distances(kept)
    return candidates, HeldOut.of_classes(kept.inputs, view.head, context.targets[held].to(hidden.device))
