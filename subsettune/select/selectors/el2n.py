"""EL2N: how far a network's answer is from the label early in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune.facts import TaskFacts
from subsettune.select.families.scored import ScoredSelector

if TYPE_CHECKING:
    from torch import Tensor

    from subsettune.select.network import ModelView


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EL2N(ScoredSelector):
    """Ranks by the norm of the error, |softmax - onehot|; in a regression, of 2 (output - target) / M, standardised.

    When: many easy examples, or copies. Ruinous where labels are wrong: these come first, and `skip` only limits it.
    Nested: yes. Order of the examples: a permutation of the examples permutes the answer (ties aside).
    Cost: the proxies' training, and n forward passes and 2 M n FLOPs for each. Memory: O(n M).
    Departures from the paper: it averages over 10 networks that were trained for about a tenth of the training, which
    would cost as much as what is to be saved, so the default is one network and one pass; and it ranks all examples
    together, which is `classes: none` here.
    Source: Paul, Ganguli & Dziugaite 2021, arXiv:2107.07075, definition 2.2 and section 3.

    Args: as `ScoredSelector`.
    """

    name: ClassVar[str] = "el2n"
    summary: ClassVar[str] = "largest error of a short proxy first; charged the proxy and a forward pass of all data"

    def look_flops(self, facts: TaskFacts) -> int:
        """A forward pass and the norm of the residual."""
        return facts.forward_flops + 2 * facts.num_outputs

    def score(self, model: ModelView) -> Tensor:
        """Norms of the residuals."""
        from subsettune.select.kernels.scores import error_norms

        return error_norms(model.residuals())
