"""GraNd: how far one example alone would move a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from subsettune.facts import TaskFacts
from subsettune.select.families.scored import ScoredSelector
from subsettune.select.limits import GRADIENT_BYTES

if TYPE_CHECKING:
    from torch import Tensor

    from subsettune.select.network import ModelView


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GraNd(ScoredSelector):
    """Ranks by the norm of the gradient of an example's loss.

    By the weights and biases of the last layer, for which forward passes do (`scores.last_layer_norms`), or by all
    trainable parameters, example by example. In evaluation mode, without label smoothing and augmentation.

    When: many easy examples, or copies. Ruinous where labels are wrong: these come first, and `skip` only limits it.
    Nested: yes. Order of the examples: a permutation of the examples permutes the answer (ties aside).
    Cost: the proxies' training, and for each n forward passes and 2 (M + H) n FLOPs (`last`), or n forward and backward
    passes and 2 P n FLOPs (`full`). Memory: O(n (M + H)), or O(n) and the gradients of a block of examples.
    Departures from the paper: as for `el2n`; `last` is an approximation that it does not make.
    Source: Paul, Ganguli & Dziugaite 2021, arXiv:2107.07075, definition 2.1 and section 2.2.

    Args: as `ScoredSelector`, and
        gradient: `last` layer, which must be linear, or `full`.
    """

    name: ClassVar[str] = "grand"
    summary: ClassVar[str] = "largest gradient of a short proxy first; charged the proxy and a look at all data"
    gradient: Literal["last", "full"] = "last"

    def look_flops(self, facts: TaskFacts) -> int:
        """A forward pass and the norms of residual and hidden numbers; or both passes and the norm of the gradient."""
        if self.gradient == "full":
            return facts.example_flops + 2 * facts.num_parameters
        return facts.forward_flops + 2 * (facts.num_outputs + facts.head_features)

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """Residuals and hidden numbers in blocks and as matrices, or the gradients of a block; scores and ranking."""
        if self.gradient == "full":
            copies = 4  # as they come, rearranged, and one of them in float64
            return copies * max(GRADIENT_BYTES, 4 * facts.num_parameters) + 64 * facts.num_examples
        return facts.num_examples * (8 * (facts.num_outputs + facts.head_features) + 64)

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """The gradient of the last layer needs a linear one."""
        if self.gradient == "last" and facts.head_features == 0:
            return "the last layer of the model must be linear for grand. Use gradient: full, or another selector."
        return ScoredSelector.why_not(self, facts, k)

    def score(self, model: ModelView) -> Tensor:
        """Norms of the gradients."""
        from subsettune.select.kernels.scores import last_layer_norms

        if self.gradient == "full":
            return model.gradient_norms()
        return last_layer_norms(*model.gradients(), has_bias=model.has_head_bias)
