"""The batches of a policy, one after the other, as `subsettune.train.loop` takes them.

Compute decides when a phase ends, and all of it is known beforehand, so which examples an update takes follows from the
policy, the seed and the number of the step alone; with an order that goes by losses, also from what it observed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsettune.errors import TrainingFunctionError
from subsettune.train.orders.base import combined, is_blind
from subsettune.train.planning.phases import ResolvedPolicy
from subsettune.train.planning.projection import plan_steps

AHEAD = 4096  # batches that a loader may fetch before their weights are asked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """The examples of a phase.

    Args:
        positions: (k,) int64 in the training part; None for all.
        weights: (N,) float32 factors of the losses; None where all are 1.
    """

    positions: Tensor | None = None
    weights: Tensor | None = None


ALL = Pool()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepBatch:
    """The examples of one update.

    Args:
        number: of the update, from 0.
        positions: (b,) int64 in the training part.
        weights: (b,) float32 factors of the losses, by subset and order; None where all are 1.
        opens: index of the phase whose transition comes right before this update; None for none.
    """

    number: int
    positions: Tensor
    weights: Tensor | None
    opens: int | None = None


class Batches:
    """Hands out the batches of a policy.

    Args:
        resolved: the policy, checked.
        num_examples: N.
        seed: of the run.
        pool_of: gives the examples of a phase when it begins; not asked for phases on all data.
        said: what people call it that hands the batches out, for messages.
    """

    def __init__(
        self,
        resolved: ResolvedPolicy,
        num_examples: int,
        seed: int,
        pool_of: Callable[[int], Pool],
        *,
        said: str = "run",
    ) -> None:
        self.resolved, self.plan = resolved, plan_steps(resolved)
        self.weights: dict[int, NDArray[np.float32] | None] = {}  # of the last batches, by the number of the update
        self.has_weights = False
        self.is_blind = is_blind(resolved.order)
        self._said = said
        self.unseen: Tensor | None = None  # positions of the batch whose losses an order waits for
        self._stream = resolved.order.stream(num_examples, resolved.recipe.batch_size, seed)
        self._pool_of, self._pool = pool_of, ALL
        self._begins = list(self.plan.begins)
        self._opens: int | None = None
        self.number = 0  # of the next batch

    def __len__(self) -> int:
        return len(self.plan)

    def next(self) -> StepBatch | None:
        """The next batch; None when the compute is used up.

        Raises:
            TrainingFunctionError: the order goes by losses, and nobody told those of the last batch.
        """
        self.refuse_unobserved()
        if self.number == len(self.plan):
            return None
        self._begin_phases()
        batch = self._stream.next(self.plan.shares[self.number])
        expected = self.plan.lengths[self.number]
        assert len(batch) == expected, f"an order gave {len(batch)} examples where it had said {expected}"
        opens, self._opens = self._opens, None
        self.number += 1
        weights = combined(batch, self._pool.weights)
        self.weights[self.number - 1] = None if weights is None else weights.numpy()
        self.weights.pop(self.number - 1 - AHEAD, None)
        self.has_weights |= weights is not None
        self.unseen = None if self.is_blind else batch.positions
        return StepBatch(number=self.number - 1, positions=batch.positions, weights=weights, opens=opens)

    def observe(self, positions: Any, losses: Any) -> None:
        """Hand the losses of the batch that was just trained to an order that goes by them.

        Args:
            positions: (b,) of the batch that `next` gave last.
            losses: (b,) of them; those of a run that diverges are not looked at.

        Raises:
            TrainingFunctionError: they are of another batch.
        """
        if self.is_blind:
            return
        index = torch.as_tensor(array_of(positions), dtype=torch.int64).reshape(-1)
        values = torch.as_tensor(array_of(losses))
        if self.unseen is None or not torch.equal(index, self.unseen) or values.shape != index.shape:
            raise TrainingFunctionError(
                f"{self._said}.observe must get the numbers of the batch that was handed out last, in its order, and "
                f"one loss for each, got {len(index)} numbers and losses of shape {tuple(values.shape)}. Call it once "
                "in each step."
            )
        if bool(values.isfinite().all()):  # of a run that diverges the metric tells
            self._stream.observe(index, values.float())
        self.unseen = None

    def refuse_unobserved(self) -> None:
        """Refuse to go on where an order still waits for the losses of a batch."""
        if self.unseen is not None:
            name = self.resolved.policy.phases[0].order
            raise TrainingFunctionError(
                f"the order {name!r} goes by the losses of each batch before the next. Call "
                f"{self._said}.observe(index, losses) in each step, and let the loader fetch nothing ahead "
                "(num_workers=0)."
            )

    def skip(self, steps: int) -> None:
        """Leave out the first so many batches of a blind order, which were trained on before."""
        while self.number < steps:
            self.next()

    def state(self) -> dict[str, Any]:
        """What `load` needs of an order that goes by losses, with the number of the next batch."""
        return {"number": self.number, "order": self._stream.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        while self._begins and self._begins[0][1] < state["number"]:
            self._enter(self._begins.pop(0)[0])
        self.number = state["number"]
        self._stream.load(state["order"], self._pool.positions)

    def _begin_phases(self) -> None:
        while self._begins and self._begins[0][1] == self.number:
            phase = self._begins.pop(0)[0]
            self._enter(phase)
            self._opens = phase if self.number else None

    def _enter(self, phase: int) -> None:
        self._pool = ALL if self.resolved.phases[phase].selection is None else self._pool_of(phase)
        self._stream.enter(self._pool.positions)


def array_of(value: Any) -> NDArray[Any]:
    """Numbers of whatever kind as an array: tensors of any device and type, lists, numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    return np.asarray(value)


def pool(positions: Tensor, factors: Tensor | None, num_examples: int) -> Pool:
    """The pool of chosen examples.

    Args:
        positions: (k,) int64 of them.
        factors: (k,) float32 of their losses, 1 on average; None where all are 1.
        num_examples: N.
    """
    if factors is None:
        return Pool(positions=positions)
    weights = torch.ones(num_examples)
    weights[positions] = factors
    return Pool(positions=positions, weights=weights)
