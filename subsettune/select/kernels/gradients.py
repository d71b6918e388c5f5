"""The numeric core of selection by gradients of the last layer: pure functions of tensors, all in float64.

| symbol | shape | meaning |
|---|---|---|
| n, M, H | int | examples, outputs, inputs of the last layer |
| A | int | parameters of an output: H + 1 with a bias, H without |
| k, t | int | picks, and picks so far |
| r_i | (M,) | residual: gradient of the loss of example i by its outputs |
| a_i | (A,) | (hidden, 1), the inputs of the last layer and of its bias |
| g_i | (M, A) | gradient of the loss by the last layer, r_i a_i^T; never formed |
| G | (M, A) | the gradient to match, the sum of all g_i |
| D | (M, A) | the remainder of it, G - sum_i w_i g_i |
| w_i | float | weight of a pick, 0 or more |
| lambda | float | ridge |

Products need no gradient: <g_i, g_j> = (r_i . r_j) (a_i . a_j), and <g_i, D> = r_i^T D a_i for all i is one product of
(n, A) and (A, M). Products that differ by less than `NOISE` of the largest that the sums could hold are equal, so that
duplicates tie, and among equals the lowest index wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from subsettune.errors import SelectionError

NOISE = 1e-12  # some 1,000 times the rounding of a sum of 50,000 float64 products


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Gradients of n examples by the last layer.

    Args:
        residuals: (n, M) float64.
        inputs: (n, A) float64.
    """

    residuals: Tensor
    inputs: Tensor

    @classmethod
    def of(cls, residuals: Tensor, hidden: Tensor, members: Tensor, *, bias: bool) -> Gradients:
        """Those of some rows (b,) int64 of (n, M) residuals and (n, H) inputs of the last layer."""
        members = members.to(hidden.device)
        width = hidden.shape[1]
        inputs = hidden.new_ones(len(members), width + bias, dtype=torch.float64)
        inputs[:, :width] = hidden[members]
        return cls(residuals=residuals[members].double(), inputs=inputs)

    def __len__(self) -> int:
        return len(self.residuals)

    def norms(self) -> Tensor:
        """(n,) Euclidean norms."""
        norms: Tensor = self.residuals.norm(dim=1) * self.inputs.norm(dim=1)
        return norms

    def total(self) -> Tensor:
        """(M, A) sum of all. Cost: 2nMA FLOPs."""
        return self.residuals.T @ self.inputs

    def along(self, direction: Tensor) -> Tensor:
        """(n,) products of each with a direction (M, A). Cost: 2nMA + 2nM FLOPs."""
        return ((self.inputs @ direction.T) * self.residuals).sum(1)


def first_best(values: Tensor, noise: Tensor) -> Tensor:
    """The lowest index of the values that are the largest but for noise, as a tensor without dimensions."""
    return (values >= values.max() - noise).int().argmax()


# --- matching ---------------------------------------------------------------------------------------------------------


def matching_pursuit(gradients: Gradients, k: int, *, lam: float) -> tuple[Tensor, Tensor]:
    """Pick `k` gradients whose weighted sum comes near the sum G of all: orthogonal matching pursuit, weights >= 0.

    Each pick is the one along which the remainder D is largest, <g_i, D>; then all weights are fitted anew, to the
    least |G - sum w_i g_i|^2 + lambda |w|^2 with w >= 0. A pick whose weight falls to 0 keeps its place and comes back
    when the fit wants it. When no gradient is left along D, the weights are the best of all subsets; the remaining
    picks are then taken in the order of <g_i, D>, the largest first, and have the weight 0.

    Cost: k (2nMA + 2nM) FLOPs for looking for picks, and those of `NonNegativeFit`; float64.

    Args:
        gradients: of n examples; G is the sum of all.
        k: number of picks, 1 <= k <= n.
        lam: lambda as a multiple of the mean |g_i|^2, so that it does not depend on the scale of loss or features.

    Returns:
        (k,) int64 indices in order of picking, no index twice, and (k,) float64 weights; all 0 where G is 0. The first
        j picks are the answer for every j <= k, with the weights of `matching_weights`.

    Raises:
        SelectionError: `lam` is too small for the fit to converge.

    Source: Killamsetty et al. 2021a, arXiv:2103.00123, algorithm OMP.
    """
    fit = NonNegativeFit(gradients, k, lam=lam)
    taken = torch.zeros(len(gradients), dtype=torch.bool, device=gradients.inputs.device)
    picks: list[int] = []
    while len(picks) < k:
        along = gradients.along(fit.remainder).masked_fill(taken, -math.inf)
        picks.append(int(first_best(along, fit.noise)))
        taken[picks[-1]] = True
        if not fit.offer(picks[-1]):
            rest = along.masked_fill(taken, -math.inf).sort(descending=True, stable=True).indices
            for pick in rest[: k - len(picks)].tolist():
                picks.append(pick)
                fit.offer(pick)
    return torch.tensor(picks), fit.weights[:k]


def matching_weights(gradients: Gradients, picks: Tensor, *, lam: float) -> Tensor:
    """(k,) float64 weights >= 0 with which some gradients come nearest to the sum of all; see `matching_pursuit`.

    Args:
        gradients: of n examples.
        picks: (k,) int64 different indices; for those of `matching_pursuit`, in its order, the weights are its own, bit
            for bit.
        lam: as there.

    Raises:
        SelectionError: `lam` is too small for the fit to converge.
    """
    fit = NonNegativeFit(gradients, len(picks), lam=lam)
    for pick in picks.tolist():
        fit.offer(pick)
    return fit.weights


class NonNegativeFit:
    """Least |G - sum w_i g_i|^2 + lambda |w|^2 with w >= 0 over atoms that are offered one by one.

    The active set of Lawson & Hanson, kept from one atom to the next, with the inverse of (<g_i, g_j> + lambda 1) over
    the atoms of positive weight: an atom that enters or leaves changes it by a matrix of rank 1. After each change the
    optimality conditions are checked on the gradients themselves: <g_i, D> = lambda w_i where w_i > 0, and
    <g_i, D> <= 0 where w_i = 0, within `noise`. Where rounding has added up to more, the weights are refined, and the
    inverse is made anew if that does not help.

    Cost of the t-th atom, when none leaves: 4t^2 + 4tMA + 2t(M + A) FLOPs; 2t^2 more for each that leaves. Memory:
    8k^2 bytes for the inverse, thrice that while it is made anew, and 8k(M + A) for the atoms.

    Args:
        gradients: that atoms are taken from; their sum is matched.
        capacity: most atoms that may be offered, k.
        lam: lambda as a multiple of the mean |g_i|^2.

    Attributes:
        weights: (k,) float64 in the order of offers; 0 where none was made.
        remainder: (M, A) D.
        noise: what a product of a gradient and D may be off by; no dimensions.

    Source: Lawson & Hanson 1974, Solving Least Squares Problems, ch. 23.
    """

    def __init__(self, gradients: Gradients, capacity: int, *, lam: float) -> None:
        self.gradients, self.lam = gradients, lam
        norms = gradients.norms()
        self.noise = NOISE * norms.max() * norms.sum()
        self.ridge = lam * norms.square().mean()
        self.goal = gradients.total()
        self.remainder = self.goal.clone()
        new = gradients.inputs.new_zeros
        self._atoms = Gradients(
            residuals=new(capacity, gradients.residuals.shape[1]), inputs=new(capacity, gradients.inputs.shape[1])
        )
        self.weights = new(capacity)
        self._num_offers = 0
        self._is_active = new(capacity, dtype=torch.bool)
        self._active = new(capacity, dtype=torch.int64)  # offers in the order of the inverse
        self._num_active = 0
        self._inverse = new(capacity, capacity)

    def offer(self, index: int) -> bool:
        """Let a gradient, not offered before, take part in the fit; whether it was given a weight at once."""
        slot = self._num_offers
        self._atoms.residuals[slot] = self.gradients.residuals[index]
        self._atoms.inputs[slot] = self.gradients.inputs[index]
        self._num_offers += 1
        along = self._atoms.residuals[slot] @ self.remainder @ self._atoms.inputs[slot]
        if not bool(along > self.noise):
            return False
        self._enter(slot, along)
        self._settle()
        return True

    def _settle(self) -> None:
        """Refine, and let atoms enter, until the weights are optimal."""
        before = math.inf
        for _ in range(10 * self._num_offers + 100):  # some 1 to 3 are usual
            atoms = self._offered()
            weights = self.weights[: self._num_offers]
            self.remainder = self.goal - (atoms.residuals * weights[:, None]).T @ atoms.inputs
            along, active = atoms.along(self.remainder), self._is_active[: self._num_offers]
            errors = torch.where(active, along - self.ridge * weights, 0.0)
            wanted, slot = torch.where(active, -math.inf, along).max(dim=0)
            error, noise, excess, place = torch.stack(
                [errors.abs().max(), self.noise, wanted, slot.to(wanted)]
            ).tolist()
            if error > noise:
                if error > 0.1 * before:
                    self._invert()
                before = error
                active_slots = self._active[: self._num_active]
                self._move(weights[active_slots] + self._inverted() @ errors[active_slots])
            elif excess > noise:
                before = math.inf
                self._enter(int(place), wanted)
            else:
                return
        raise SelectionError(f"lam must be larger for weights that do not drown in rounding, got {self.lam!r}.")

    def _offered(self) -> Gradients:
        return Gradients(
            residuals=self._atoms.residuals[: self._num_offers], inputs=self._atoms.inputs[: self._num_offers]
        )

    def _inverted(self) -> Tensor:
        return self._inverse[: self._num_active, : self._num_active]

    def _enter(self, slot: int, along: Tensor) -> None:
        """Border the inverse by an atom of weight 0, and move to the new optimum."""
        t, atoms = self._num_active, self._offered()
        active = self._active[:t]
        residual, inputs = atoms.residuals[slot], atoms.inputs[slot]
        column = ((atoms.residuals @ residual) * (atoms.inputs @ inputs))[active]
        share = self._inverted() @ column
        own = residual.square().sum() * inputs.square().sum() + self.ridge
        # what no other atom explains is never less than the ridge, but for rounding
        pivot = torch.maximum(own - column @ share, self.ridge)
        self._inverted().addr_(share / pivot, share)
        self._inverse[t, :t] = self._inverse[:t, t] = -share / pivot
        self._inverse[t, t] = 1 / pivot
        self._active[t], self._is_active[slot] = slot, True
        self._num_active += 1
        weight = along / pivot
        self._move(torch.cat([self.weights[active] - share * weight, weight[None]]))

    def _move(self, aim: Tensor) -> None:
        """Go from the weights towards (t,) `aim`, the optimum of the active atoms, and drop those that reach 0 first.

        The aim moves with each atom that leaves: it stays the optimum of those that are left.
        """
        weights = self.weights[self._active[: self._num_active]]
        while bool((aim <= 0).any()):
            ways = (weights - aim).clamp_min(torch.finfo(torch.float64).tiny)
            reach, j = torch.where(aim <= 0, weights / ways, math.inf).min(dim=0)
            weights = (weights + reach * (aim - weights)).clamp_min(0)
            weights, aim = self._leave(int(j), weights, aim)
        self.weights[self._active[: self._num_active]] = aim

    def _leave(self, j: int, weights: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """Take the j-th active atom out of the inverse, of weights and aim; the last one takes its place."""
        last = self._num_active - 1
        column = self._inverted()[:, j].clone()
        aim = aim - column * (aim[j] / column[j])
        self._inverted().addr_(column / column[j], column, alpha=-1)
        slot = self._active[j].clone()
        self._is_active[slot], self.weights[slot] = False, 0.0
        self._active[j] = self._active[last]
        self._inverse[j, : last + 1] = self._inverse[last, : last + 1].clone()
        self._inverse[: last + 1, j] = self._inverse[: last + 1, last].clone()
        weights, aim = weights.clone(), aim.clone()
        weights[j], aim[j] = weights[last].clone(), aim[last].clone()
        self._num_active = last
        return weights[:last], aim[:last]

    def _invert(self) -> None:
        """Make the inverse anew. Cost: O(t^3) FLOPs, two more matrices of its size."""
        active = self._active[: self._num_active]
        residuals, inputs = self._atoms.residuals[active], self._atoms.inputs[active]
        products = inputs @ inputs.T
        products *= residuals @ residuals.T
        products.diagonal().add_(self.ridge)
        products = torch.linalg.cholesky(products)
        self._inverted().copy_(torch.cholesky_inverse(products))


# --- gain on held-out examples ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Held-out examples, as the last layer sees them.

    Args:
        inputs: (m, A) float64.
        outputs: (m, M) float64 of the last layer; of a regression, less the targets.
        classes: (m,) int64; None for a regression.
    """

    inputs: Tensor
    outputs: Tensor
    classes: Tensor | None

    @classmethod
    def of_classes(cls, inputs: Tensor, head: nn.Linear, classes: Tensor) -> HeldOut:
        """Those of a classification, from (m, A) inputs of the last layer and (m,) classes."""
        parameters = [head.weight.detach().double()]
        if head.bias is not None:
            parameters.append(head.bias.detach().double()[:, None])
        return cls(inputs=inputs, outputs=inputs @ torch.cat(parameters, dim=1).T, classes=classes)

    @classmethod
    def of_distances(cls, gradients: Gradients) -> HeldOut:
        """Those of a regression, whose residuals are 2 (output - target) / M."""
        distances = gradients.residuals * (gradients.residuals.shape[1] / 2)
        return cls(inputs=gradients.inputs, outputs=distances, classes=None)

    def gradients(self) -> Gradients:
        """Of the losses by the last layer: residuals are softmax - onehot, or 2 (output - target) / M."""
        num_outputs = self.outputs.shape[1]
        if self.classes is None:
            residuals = 2 * self.outputs / num_outputs
        else:
            residuals = self.outputs.softmax(dim=1) - functional.one_hot(self.classes, num_outputs)
        return Gradients(residuals=residuals, inputs=self.inputs)

    def moved(self, step: Tensor) -> HeldOut:
        """The same after a step (M, A) of the last layer. Cost: 2mMA FLOPs."""
        return HeldOut(inputs=self.inputs, outputs=self.outputs + self.inputs @ step.T, classes=self.classes)


def gain_ranking(
    gradients: Gradients, held_out: HeldOut, groups: Tensor, sizes: tuple[int, ...], *, step: float, refresh: int
) -> Tensor:
    """Rank candidates by how much a step along each lowers the loss of the held-out examples, given the picks before.

    The gain of candidate i is <g_i, g>, with g the mean gradient of the held-out examples after the last layer took
    the steps of the picks: minus eta g_i for each, with g_i as it was before all picks. g is refreshed after every
    `refresh` picks; between two refreshes, gains are those of the last one.

    Cost: 2(n + 2m)MA + 2nM FLOPs for each refresh and 2MA for each pick; float64.

    Args:
        gradients: of n candidates, group after group.
        held_out: m examples; with none, all gains are 0.
        groups: (k,) int64 group of each pick, on the CPU: the pick is the best candidate of it that is left.
        sizes: candidates of each group; none is asked for more.
        step: eta as a multiple of 1 / mean |a_i|^2: the step of so many picks as 1 / `step` is that of gradient descent
            on their mean loss at a learning rate of 1 / mean |a_i|^2, at which neither loss can rise, whatever the
            scale of the features.
        refresh: picks between two refreshes, at least 1.

    Returns:
        (k,) int64 indices on the CPU: the first j are the answer for every j <= k.

    Source: Killamsetty et al. 2021b, arXiv:2012.10630, algorithm GreedyDSS with its Taylor approximation.
    """
    bounds = torch.tensor([0, *sizes]).cumsum(0).tolist()
    eta = step / gradients.inputs.square().sum(1).mean()
    largest = gradients.norms().max()
    picks = torch.empty(len(groups), dtype=torch.int64, device=gradients.inputs.device)
    taken = torch.zeros(len(gradients), dtype=torch.bool, device=gradients.inputs.device)
    for start in range(0, len(groups), refresh):
        held = held_out.gradients()
        share = 1 / max(1, len(held))
        gains = gradients.along(held.total() * share).masked_fill(taken, -math.inf)
        noise = NOISE * largest * held.norms().sum() * share
        for t, group in enumerate(groups[start : start + refresh].tolist(), start):
            low = bounds[group]
            picks[t] = low + first_best(gains[low : bounds[group + 1]], noise)
            gains[picks[t]] = -math.inf
        new = picks[start : start + refresh]
        taken[new] = True
        summed = Gradients(residuals=gradients.residuals[new], inputs=gradients.inputs[new]).total()
        held_out = held_out.moved(-eta * summed)
    return picks.cpu()
