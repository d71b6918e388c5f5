"""A bundle followed by other training code: which examples an update takes, at what rate, and what opens a phase.

The arithmetic is that of `subsettune.train.loop`, without the training: compute decides when a phase ends and where the
learning-rate schedule stands. So the rows, weights, rates and transitions are those of `train.run` with the same seed,
one for one. Needs torch, NumPy and pyarrow alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subsettune.bundle.bundle import Bundle
from subsettune.config import must
from subsettune.errors import BundleError
from subsettune.train import transitions
from subsettune.train.follow.batches import Batches, Pool, pool
from subsettune.train.orders.base import is_blind
from subsettune.train.planning.phases import ResolvedPhase, resolve
from subsettune.train.randomness import generator

__all__ = ["Step", "follow", "why_not"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One update.

    Args:
        rows: (b,) int64 rows of the training file, in the order of the batch.
        weights: (b,) float32 factors of the losses before their mean is taken; None where all are 1.
        lr: learning rate.
        phase: index of the phase in the policy.
    """

    rows: Tensor
    weights: Tensor | None
    lr: float
    phase: int


def follow(
    bundle: Bundle,
    rows: Sequence[int] | Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    seed: int | None = None,
) -> Iterator[Step]:
    """The updates of a policy, one after the other; each is to be made before the next is asked for.

    Where a phase opens with a transition, network and optimizer are changed right before its first update is handed
    out. Call it before the first update: a transition may go by the scale of the weights at initialisation.

    Args:
        bundle: to be followed.
        rows: (N,) the rows of the training file that are trained on, in the order of `load(bundle.task).train.rows`.
        network: that is trained.
        optimizer: its optimizer.
        seed: of the order of examples and of what a transition draws; default: the one that chose the bundle's subset.

    Raises:
        BundleError: other code cannot follow this policy by itself (`why_not`), or the rows are not those of the task.
    """
    if problems := why_not(bundle):
        index, reason = next(iter(problems.items()))
        raise BundleError(f"phase {index + 1} {reason}. Follow the policy by subsettune.train.run.")
    found = torch.as_tensor(rows, dtype=torch.int64)
    if len(found) != bundle.facts.num_examples:
        advice = "Give the rows that the task trains on: load(bundle.task).train.rows."
        raise BundleError(must("rows", f"{bundle.facts.num_examples:,} as in the study", len(found), advice))
    chosen = bundle.seed if seed is None else seed
    return _Follower(bundle, found, network, optimizer, chosen).steps()


def why_not(bundle: Bundle) -> dict[int, str]:
    """Phases that other code cannot carry out by itself, by their index, each with the reason; empty if it can all."""
    found: dict[int, str] = {}
    for index, phase in enumerate(resolve(bundle.policy, bundle.recipe, bundle.facts).phases):
        if phase.is_soup:
            found[index] = "trains workers apart and averages them"
        elif not is_blind(phase.order):
            name = phase.phase.order
            found[index] = f"takes its batches in the order `{name}`, which goes by what the network does"
        elif phase.facts != bundle.facts:
            found[index] = "trains a network that was made narrower, unit by unit, by its own activations"
        elif phase.transition_flops:
            found[index] = f"opens with `{phase.phase.transition}`, which looks at the data"
        elif bundle.recipe.optimizer == "lbfgs":
            found[index] = "takes steps of lbfgs, whose line search decides how much compute an update costs"
        elif not bundle.task.distortion.is_off:
            found[index] = "trains on data that were distorted on purpose, as `task.distortion` says"
    return found


class _Follower:
    """Goes through a policy as a run does."""

    def __init__(
        self, bundle: Bundle, rows: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, seed: int
    ) -> None:
        self.bundle, self.rows, self.network, self.optimizer, self.seed = bundle, rows, network, optimizer, seed
        self.resolved = resolve(bundle.policy, bundle.recipe, bundle.facts)
        self.scales = transitions.scales(network)
        self.pools = {i: self._pool(i) for i, phase in enumerate(bundle.policy.phases) if not phase.is_full}
        self.batches = Batches(self.resolved, len(rows), seed, self.pools.__getitem__)

    def steps(self) -> Iterator[Step]:
        """Until the compute is used up."""
        plan, lr = self.batches.plan, self.bundle.recipe.lr
        while (batch := self.batches.next()) is not None:
            if batch.opens is not None:
                self._enter(self.resolved.phases[batch.opens])
            yield Step(
                rows=self.rows[batch.positions],
                weights=batch.weights,
                lr=lr * plan.factors[batch.number],
                phase=plan.phases[batch.number],
            )

    def _enter(self, phase: ResolvedPhase) -> None:
        """Change weights and optimizer as the transition does."""
        context = transitions.TransitionContext(
            network=self.network,
            optimizer=self.optimizer,
            scales=self.scales,
            rng=generator(self.seed, "entry", phase.index),
            pool=self.pools[phase.index].positions if phase.index in self.pools else None,
            facts=phase.facts_before,
        )
        phase.transition.apply(context)

    def _pool(self, phase: int) -> Pool:
        """A phase's examples among the rows, and factors of their losses."""
        index, weight = self.bundle.subset(phase).tensors()
        order = self.rows.argsort()
        place = torch.searchsorted(self.rows[order], index).clamp(max=len(order) - 1)
        positions = order[place]
        missing = index[self.rows[positions] != index]
        if len(missing):
            advice = "Give the rows that the task trains on: load(bundle.task).train.rows."
            raise BundleError(must("rows", f"those of the study, row {int(missing[0])} included", "others", advice))
        return pool(positions, None if bool((weight == 1).all()) else weight, len(self.rows))
