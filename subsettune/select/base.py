"""What a selector is. Imports no torch: costs are known without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.limits import MEMORY_LIMIT_BYTES, WEIGHT_TOLERANCE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ModelSource = Literal["proxy", "current"]


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
    def weighs(self) -> bool:
        """Whether it gives weights to the examples that it picks, as far as can be known beforehand."""
        return type(self).weigh is not Selector.weigh

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
        """Weights of a subset of a ranking, as in `Subset`, for selectors that give any; `weigh_flops` is its price."""
        return None

    def weigh_flops(self, facts: TaskFacts, k: int) -> int:
        """FLOPs charged for `weigh` of `k` examples, which phases pay that take less than all of one ranking.

        A selector that weighs and says nothing of its price pays for the whole choice again.
        """
        return 0 if type(self).weigh is Selector.weigh else self.flops(facts, k)

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
