"""What selectors by gradients of the last layer have in common: the network they look at, its cost and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, setting
from subsettune.errors import SelectionError
from subsettune.facts import TaskFacts
from subsettune.select.base import ModelNeed, ModelSource, Selector
from subsettune.select.examples import SelectionContext
from subsettune.select.families import classes as balance
from subsettune.select.families.classes import Balance

if TYPE_CHECKING:
    from torch import Tensor

    from subsettune.select.network import ModelView


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLayerSelector(Selector):
    """Looks at the gradients of the losses by the last layer of one network. Abstract.

    Symbols: n examples, M outputs, H inputs of the last layer, A = H + 1 parameters of an output.

    Args:
        classes: class counts of the subset: `proportional`, `equal`, or `none`, left to the gradients.
        model: `proxy`, trained for this, or `current`, the run's own as it is when the phase begins.
        proxy_passes: allowance of the proxy, in passes.
        memory_limit_gib: refuse to start where more memory would be needed.
    """

    classes: Balance = "proportional"
    model: ModelSource = "proxy"
    proxy_passes: float = setting(1.0, rule=NOT_NEGATIVE)
    memory_limit_gib: float = setting(4.0, rule=POSITIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def model_need(self) -> ModelNeed:
        """One network."""
        return ModelNeed(source=self.model, passes=self.proxy_passes if self.model == "proxy" else 0.0)

    @property
    def memory_limit_bytes(self) -> int:
        """As the option says."""
        return int(self.memory_limit_gib * 2**30)

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """A linear last layer is needed, and class counts that can be kept."""
        if facts.head_features == 0:
            return f"the last layer of the model must be linear for {self.name}. Use another selector."
        return Selector.why_not(self, facts, k) or balance.why_not(self.name, self.classes, facts, k)

    def gradient_bytes(self, facts: TaskFacts, rows: int) -> int:
        """Memory of float32 gradients of all, put together from batches, and float64 ones of `rows` and products."""
        n, outputs, hidden = facts.num_examples, facts.num_outputs, facts.head_features
        return 8 * n * (hidden + outputs) + 12 * rows * (hidden + 1 + outputs) + 32 * rows * outputs + 64 * n

    def network_of(self, context: SelectionContext) -> ModelView:
        """The network to look at.

        Raises:
            SelectionError: there is none, or there are several.
        """
        if len(context.models) != 1:
            raise SelectionError(f"{self.name} needs 1 network to look at, got {len(context.models)}.")
        return context.models[0]

    def groups_of(self, context: SelectionContext) -> Tensor:
        """(n,) int64 group of each example on the CPU: its class, or 0 where all are looked at together."""
        import torch

        if len(balance.groups(context.facts, self.classes)) > 1:
            return context.targets.cpu()
        return torch.zeros(context.num_examples, dtype=torch.int64)
