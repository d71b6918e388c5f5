"""What a selector is, what it may look at, and what it gives. Imports no torch: costs are known without it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, final

from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.network import ModelView

MEMORY_LIMIT_BYTES = 4 * 2**30  # the same on every machine, so that a study proposes the same policies everywhere
BLOCK_BYTES = 16 * 2**20  # of inputs read at a time: large against the cost of a call, small against the matrix
BLOCK_ROWS = 256  # kcenter on one core, 50,000 x 512, k = 5,000: 64 rows 9.1 s, 256 rows 7.0 s, 1,024 rows 9.7 s
GRADIENT_BYTES = 64 * 2**20  # of gradients by all parameters, example by example, of a block of examples
MOST_ROWS, BLOCK_NUMBERS = 4096, 2**24  # cast to float64 at a time, at most: 128 MiB
PENDING_PICKS = 1024  # picks that a block is measured against at a time: bounds the memory of the product
WEIGHT_TOLERANCE = 1e-3  # relative, of the sum of weights: float32 sums of 50,000 numbers are off by some 1e-5

ModelSource = Literal["proxy", "current"]


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
class ModelNeed:
    """The network that a selector has to look at.

    Args:
        source: `proxy`, trained from scratch on all training data with the policy's recipe, and charged; or `current`,
            the run's own network as it is when the phase begins.
        passes: allowance of each proxy; 0 leaves it as it was initialised.
        runs: proxies, each from another initialisation.
        events: whether each proxy must count how often it forgot an example.
    """

    source: ModelSource
    passes: float = 0.0
    runs: int = 1
    events: bool = False

    def flops(self, facts: TaskFacts) -> int:
        """FLOPs charged for the network itself; a current one is paid for already."""
        return 0 if self.source == "current" else self.runs * round(self.passes * facts.pass_flops)


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


class Selector(ABC):
    """Chooses a subset of a given size. A concrete selector is a final frozen dataclass of its options.

    It takes randomness from the generator that it is handed, leaves the global random state alone, and gives the same
    bits for the same generator state on a CPU. Where it ranks the examples, a smaller subset is a prefix of a larger.

    Attributes:
        name: in YAML.
        summary: one line for `subsettune selectors`.
        is_ranking: whether the positions chosen for k are the first k of those chosen for more.
    """

    __slots__ = ()
    name: ClassVar[str]
    summary: ClassVar[str]
    is_ranking: ClassVar[bool] = False

    @property
    def model_need(self) -> ModelNeed | None:
        """The network that it looks at; None where it looks at the data alone."""
        return None

    @property
    def is_deterministic(self) -> bool:
        """Whether the choice depends on the examples alone, and nothing is drawn."""
        return False

    @property
    def memory_limit_bytes(self) -> int:
        """What `memory_bytes` must not exceed; selectors that need memory have an option `memory_limit_gib`."""
        return MEMORY_LIMIT_BYTES

    @abstractmethod
    def flops(self, facts: TaskFacts, k: int) -> int:
        """FLOPs charged for choosing `k` examples, known before it is done; a multiplication and an addition are 2.

        Looking at a network (forward passes) is included, training a proxy is not: `model_need` tells that.
        """

    @abstractmethod
    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Choose `k` examples; `select` has checked that it can be done and checks what comes back."""

    def weigh(self, context: SelectionContext, positions: Tensor) -> Tensor | None:
        """Weights of a subset of a ranking, as in `Subset`, for selectors that give any."""
        return None

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """Upper bound of the memory that choosing `k` examples takes beside the data."""
        return 0

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """Why this selector cannot choose `k` examples of such data, in one sentence with a remedy; None if it can."""
        n = facts.num_examples
        if not 1 <= k <= n:
            return f"k must be between 1 and the {n:,} training examples, got {k:,}. Choose another subset_share."
        needed, limit = self.memory_bytes(facts, k), self.memory_limit_bytes
        if needed > limit:
            return (
                f"{self.name} needs {_size(needed)} of memory for {n:,} examples of {facts.num_features:,} numbers, "
                f"more than the {_size(limit)} it may use. Raise its memory_limit_gib, or use another selector."
            )
        return None

    @final
    def select(self, context: SelectionContext, k: int, *, rng: torch.Generator) -> Subset:
        """Choose `k` examples.

        Args:
            context: what may be looked at.
            k: size of the subset, 1 <= k <= n.
            rng: all randomness, on the CPU.

        Returns:
            `k` different positions in order of picking, and their weights where the selector gives any.

        Raises:
            SelectionError: it cannot be done, or a selector of the user's own broke the contract.
        """
        why_not = self.why_not(context.facts, k)
        if why_not is not None:
            raise SelectionError(why_not)
        subset = self.pick(context, k, rng)
        _hold_to_contract(subset, k, context.num_examples, type(self).__name__)
        return subset


def share_of(k: int, n: int) -> str:
    """The share of `n` examples that makes `k` of them, in as few digits as do: for advice that holds when followed."""
    digits = 2
    while round(float(f"{k / n:.{digits}g}") * n) != k:
        digits += 1
    return f"{k / n:.{digits}g}"


def _hold_to_contract(subset: object, k: int, n: int, who: str) -> None:
    import torch

    if not isinstance(subset, Subset):
        got = type(subset).__name__
        raise SelectionError(f"{who} must give a Subset, got a {got}. Return Subset(positions=..., weights=...).")
    positions, weights = subset.positions, subset.weights
    if positions.dtype != torch.int64 or positions.device.type != "cpu" or positions.shape != (k,):
        got = f"{positions.dtype} {tuple(positions.shape)} on {positions.device}"
        raise SelectionError(f"{who} must give ({k},) int64 positions on the CPU, got {got}.")
    if int(positions.min()) < 0 or int(positions.max()) >= n or len(positions.unique()) < k:
        raise SelectionError(f"{who} must give {k} different positions in [0, {n}).")
    if weights is None:
        return
    if weights.dtype != torch.float32 or weights.shape != (k,) or not bool((weights.isfinite() & (weights >= 0)).all()):
        raise SelectionError(f"{who} must give ({k},) float32 weights, finite and not negative.")
    total = float(weights.double().sum())
    if abs(total - n) > WEIGHT_TOLERANCE * n:
        raise SelectionError(
            f"{who} must give weights that sum to the {n:,} examples they stand for, got {total:.6g}. "
            "Multiply them by what is missing."
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.3g} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.3g} MiB"
