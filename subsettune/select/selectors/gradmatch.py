"""GradMatch: a weighted subset whose gradients add up to those of all examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, final

from subsettune import config
from subsettune.config import Rule, setting
from subsettune.facts import TaskFacts
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.families import classes as balance
from subsettune.select.families.last_layer import LastLayerSelector

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.kernels.gradients import Gradients

REFINED = Fraction(3, 2)  # of the fits as charged: up to 1.36 times them were counted, with the smallest lam
ENOUGH = Rule("at least 1e-6", lambda v: v >= 1e-6, "It is a multiple of the mean squared norm of the gradients.")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GradMatch(LastLayerSelector):
    """Orthogonal matching pursuit on last-layer gradients: least |sum w_i g_i - G|^2 + lambda |w|^2 with w >= 0.

    G is the SUM of the gradients of the examples that are matched together: those of a class, or all of them with
    `classes: none`. Each pick is the example along which most of G is still missing; then all weights of the class are
    fitted anew, so that the last pick may take weight from earlier ones. See `gradients.matching_pursuit`.

    Weights are the fitted ones times one number for all, such that their sum is n: the weighted gradient keeps its
    direction, and classes keep the weights that their gradients ask for. A pick that the fit has no use for has the
    weight 0, and so do those that fill up the subset when G is met; in a class whose gradients add up to 0, each of q
    picks has the n_c / q of plain counting.

    Where we depart from the paper: `lam` is relative, the weights are non-negative by a fit that is optimal after every
    pick and not by clipping, no tolerance ends the pursuit early, and the gradients are of examples, not of batches.

    When: a subset is to stand for the gradient of all data, by weights; with `model: current`, chosen anew at times.
    Looks at: one network with a linear last layer. Nested: yes; weights of a prefix are fitted anew. Order of the
    examples: permuting them permutes the answer, ties aside.
    Cost: charged as n forward passes; then, for a class of n_c examples and q picks, 2 n_c (MA + M + A) FLOPs for G and
    norms, 2 q n_c (MA + M) for looking for picks, and for the t-th fit one and a half times 4tMA + 2t(M + A) + 6t^2, as
    though each pick left the fit once more and every other fit were refined; what is saved when none does is not
    credited, because it is not known beforehand. Memory: float64 gradients of the largest class, and up to 24 q^2 bytes
    for its fit.
    Source: Killamsetty et al. 2021a, arXiv:2103.00123, algorithm OMP.

    Args:
        lam: lambda as a multiple of the mean |g_i|^2 of those matched together; the larger, the smaller the weights
            before scaling, and the nearer in proportion to <g_i, G>, what each pick says alone.
    """

    name: ClassVar[str] = "gradmatch"
    summary: ClassVar[str] = "weighted examples whose gradients add up to those of all; charged a proxy and a look"
    is_ranking: ClassVar[bool] = True
    lam: float = setting(0.5, rule=ENOUGH)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_deterministic(self) -> bool:
        """Nothing is drawn."""
        return True

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Forward passes, and the pursuit in each class."""
        outputs, a = facts.num_outputs, facts.head_features + 1
        quotas = balance.quotas(facts, self.classes, k)
        pairs = sum(size * q for size, q in zip(balance.groups(facts, self.classes), quotas, strict=True))
        return self.weigh_flops(facts, k) + 2 * pairs * (outputs * a + outputs)

    def weigh_flops(self, facts: TaskFacts, k: int) -> int:
        """Forward passes, the gradient to match of each class, and its fits."""
        outputs, a = facts.num_outputs, facts.head_features + 1
        cost = facts.num_examples * facts.forward_flops
        sizes = balance.groups(facts, self.classes)
        for size, q in zip(sizes, balance.quotas(facts, self.classes, k), strict=True):
            fitting = (2 * outputs * a + outputs + a) * q * (q + 1) + q * (q + 1) * (2 * q + 1)
            cost += (2 * size * (outputs * a + outputs + a) + math.ceil(REFINED * fitting)) if q else 0
        return cost

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """Beside the gradients: the fit of the largest class, and what it computes with."""
        most = max(balance.quotas(facts, self.classes, k))
        width = facts.num_outputs + facts.head_features + 1
        rows = max(balance.groups(facts, self.classes))
        return self.gradient_bytes(facts, rows) + 8 * most * (3 * most + 2 * width + 16)

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Pursue class by class."""
        import torch

        from subsettune.select.kernels.gradients import matching_pursuit

        of = self._gradients(context)
        weights = torch.zeros(context.num_examples, dtype=torch.float64)

        def within(members: Tensor, quota: int) -> Tensor:
            picks, fitted = matching_pursuit(of(members), quota, lam=self.lam)
            weights[members[picks]] = _counted(fitted, len(members))
            return picks

        positions = balance.rank(context.targets, context.facts, self.classes, k, within)
        return Subset(positions=positions, weights=_scaled(weights[positions], context.num_examples))

    def weigh(self, context: SelectionContext, positions: Tensor) -> Tensor:
        """Fit the weights of some examples, class by class."""
        import torch

        from subsettune.select.kernels.gradients import matching_weights

        of = self._gradients(context)
        weights = torch.zeros(len(positions), dtype=torch.float64)
        labels = self.groups_of(context)
        for group in labels[positions].unique().tolist():
            members, mine = (labels == group).nonzero().flatten(), labels[positions] == group
            picks = torch.searchsorted(members, positions[mine])
            weights[mine] = _counted(matching_weights(of(members), picks, lam=self.lam), len(members))
        return _scaled(weights, context.num_examples)

    def _gradients(self, context: SelectionContext) -> Callable[[Tensor], Gradients]:
        """Look at the network once; gradients of the examples at some positions."""
        from subsettune.select.kernels.gradients import Gradients

        view = self.network_of(context)
        residuals, hidden = view.gradients()
        return lambda members: Gradients.of(residuals, hidden, members, bias=view.has_head_bias)


def _counted(fitted: Tensor, num_members: int) -> Tensor:
    """The fitted weights (q,) of a class, on the CPU; equal ones where its gradients add up to 0."""
    weights = fitted.cpu()
    return weights if bool(weights.any()) else weights + num_members / len(weights)


def _scaled(weights: Tensor, num_examples: int) -> Tensor:
    """(k,) float32 weights with the sum n."""
    return (weights * (num_examples / weights.sum())).float()
