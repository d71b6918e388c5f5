"""What a selector may look at, and what it gives. Imports no torch before there are numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.select.limits import BLOCK_BYTES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.network import ModelView


class Examples(Protocol):
    """The training part of a task's data, as far as selectors need it; `subsettune.data.Part` is one."""

    @property
    def targets(self) -> Tensor:
        """(n,) int64 class numbers, or float32 values of a regression."""

    def __len__(self) -> int:
        """Number of examples, n."""

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, ...) float32, normalised, and targets (b,) of some positions (b,) int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Chosen examples.

    Args:
        positions: (k,) int64 positions in the training part, on the CPU, in order of picking; no position twice.
        weights: (k,) float32: how many of the n examples each stands for, not negative, with the sum n; the loss of
            an example counts in proportion. None for equal ones.
    """

    positions: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def loss_weights(self) -> Tensor:
        """(k,) float32 factors of the losses, 1 on average."""
        import torch

        return torch.ones(len(self)) if self.weights is None else self.weights / self.weights.mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionContext:
    """All that a selector may look at: the training part, never the validation or test part.

    Args:
        part: the training examples.
        facts: of the task; where `features` are given, `num_features` follows them.
        device: where heavy selectors compute.
        features: (n, d) numbers to measure distances on; None for the raw inputs, normalised and flattened.
        models: the networks that the selector's `model_need` asks for; else empty.
        embeddings: (n, e) float32 embeddings that the data hold of the examples, or None.

    Raises:
        SelectionError: the number of examples or the shape of the features does not fit.
    """

    part: Examples
    facts: TaskFacts
    device: torch.device | str = "cpu"
    features: Tensor | None = None
    models: tuple[ModelView, ...] = ()
    embeddings: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.part) != self.facts.num_examples:
            raise SelectionError(
                f"facts must describe the {len(self.part):,} training examples, got {self.facts.num_examples:,}."
            )
        if self.features is None:
            return
        shape = tuple(self.features.shape)
        if len(shape) != 2 or shape[0] != len(self.part) or shape[1] < 1:
            raise SelectionError(
                f"features must have the shape ({len(self.part)}, d), got {shape}. Give each example a row."
            )
        object.__setattr__(self, "facts", dataclasses.replace(self.facts, num_features=shape[1]))

    @property
    def num_examples(self) -> int:
        """Training examples, n."""
        return len(self.part)

    @property
    def targets(self) -> Tensor:
        """(n,) targets of the training examples."""
        return self.part.targets

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The raw inputs in order: position of the first row, and (b, d) float32 rows on `device`, normalised, flat."""
        import torch

        rows = max(1, BLOCK_BYTES // (4 * self.facts.num_features))
        for start in range(0, self.num_examples, rows):
            index = torch.arange(start, min(start + rows, self.num_examples))
            inputs, _ = self.part.batch(index)
            yield start, inputs.flatten(1).to(device=self.device, dtype=torch.float32)

    def matrix(self) -> Tensor:
        """The features, or the raw inputs, as one (n, d) float32 matrix on `device`.

        Raises:
            SelectionError: a number in it is NaN or infinite.
        """
        import torch

        if self.features is not None:
            given = self.features.to(device=self.device, dtype=torch.float32)
            rows = max(1, BLOCK_BYTES // (4 * self.facts.num_features))
            for i, block in enumerate(given.split(rows)):
                _refuse_non_finite(block, i * rows)
            return given
        matrix: Tensor | None = None
        for start, block in self.blocks():
            _refuse_non_finite(block, start)
            if matrix is None:
                matrix = block.new_empty(self.num_examples, block.shape[1])
            matrix[start : start + len(block)] = block
        assert matrix is not None
        return matrix


def _refuse_non_finite(block: Tensor, start: int) -> None:
    finite = block.isfinite().all(dim=1)
    if not finite.all():
        row = start + int((~finite).int().argmax())
        raise SelectionError(
            f"features must be finite, got NaN or infinity in training example {row}. Mend or drop such examples."
        )
