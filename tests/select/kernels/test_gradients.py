"""GradMatch and GLISTER, and the kernels under them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import fakes
import oracles
import pytest
import selections
import torch
from contracts import ArrayPart, choose, context_of, facts_of, made_up_part, network_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from subsettune import select, train
from subsettune.errors import ConfigError, ModelDivergedError, SelectionError
from subsettune.facts import TaskFacts
from subsettune.select import SelectionContext
from subsettune.select.families import classes
from subsettune.select.kernels import gradients as kernels
from subsettune.select.kernels.gradients import Gradients, HeldOut, NonNegativeFit, gain_ranking
from subsettune.select.network import ModelView

NAMES = ["gradmatch", "glister"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up(n: int, num_outputs: int = 3, width: int = 4, seed: int = 0) -> Gradients:
    """Residuals that sum to 0, as those of a softmax do, and inputs that are 0 or more, as those behind a ReLU are."""
    logits = torch.randn(n, num_outputs, generator=rng(seed), dtype=torch.float64)
    targets = torch.randint(num_outputs, (n,), generator=rng(seed + 1))
    hidden = torch.randn(n, width, generator=rng(seed + 2), dtype=torch.float64).relu()
    inputs = torch.cat([hidden, torch.ones(n, 1)], dim=1)
    return Gradients(residuals=logits.softmax(1) - functional.one_hot(targets, num_outputs), inputs=inputs)


def dense(gradients: Gradients) -> Tensor:
    """(n, M, A) gradients written out."""
    return torch.einsum("nm,na->nma", gradients.residuals, gradients.inputs)


def assert_optimal(gradients: Gradients, picks: Tensor, weights: Tensor, lam: float) -> None:
    """The conditions of Karush, Kuhn & Tucker for weights of non-negative least squares with a ridge."""
    atoms = dense(gradients).flatten(1)
    scale = float(atoms.norm(dim=1).max() * atoms.norm(dim=1).sum())
    along = atoms[picks] @ (atoms.sum(0) - weights @ atoms[picks])
    slack = along - lam * atoms.square().sum(1).mean() * weights
    assert bool((weights >= 0).all())
    assert float(slack[weights > 0].abs().max()) < 1e-11 * scale
    assert float(slack.max()) < 1e-11 * scale


# --- products without gradients ---------------------------------------------------------------------------------------


def test_products_are_those_of_the_gradients_written_out() -> None:
    gradients = made_up(20)
    atoms, direction = dense(gradients), torch.randn(3, 5, generator=rng(7), dtype=torch.float64)
    torch.testing.assert_close(gradients.total(), atoms.sum(0))
    torch.testing.assert_close(gradients.norms(), atoms.flatten(1).norm(dim=1))
    torch.testing.assert_close(gradients.along(direction), (atoms * direction).sum((1, 2)))


def test_first_best_is_the_lowest_of_those_that_tie_but_for_noise() -> None:
    values = torch.tensor([0.0, 1.0, 1.0 + 1e-13, 0.5], dtype=torch.float64)
    assert int(kernels.first_best(values, torch.tensor(1e-12))) == 1
    assert int(kernels.first_best(values, torch.tensor(0.0))) == 2


# --- matching pursuit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [1e-3, 0.5, 10.0])
@pytest.mark.parametrize(("num_outputs", "width"), [(1, 1), (3, 4), (5, 30)])
def test_matching_is_the_oracle_at_every_size(num_outputs: int, width: int, lam: float) -> None:
    gradients = made_up(40, num_outputs, width)
    if num_outputs == 1:  # of a regression
        residuals = torch.randn(40, 1, generator=rng(9), dtype=torch.float64)
        gradients = dataclasses.replace(gradients, residuals=residuals)
    expected, weights = oracles.matching_pursuit(dense(gradients).flatten(1), 40, lam)
    picks, _ = kernels.matching_pursuit(gradients, 40, lam=lam)
    assert picks.tolist() == expected
    for k in (1, 2, 3, 7, 20, 33, 39, 40):
        torch.testing.assert_close(
            kernels.matching_weights(gradients, picks[:k], lam=lam), weights[k - 1], rtol=1e-7, atol=1e-8
        )


FEW = st.integers(-2, 2)


@given(
    rows=st.lists(st.tuples(FEW, FEW, FEW, FEW), min_size=1, max_size=9),
    share=st.floats(0, 1),
    lam=st.sampled_from([1e-3, 0.5, 5.0]),
)
@settings(max_examples=150, deadline=None)
def test_matching_is_the_oracle_with_duplicates_zeros_and_opposites(
    rows: list[tuple[int, ...]], share: float, lam: float
) -> None:
    numbers = torch.tensor(rows, dtype=torch.float64)
    gradients = Gradients(residuals=numbers[:, :2], inputs=torch.cat([numbers[:, 2:], torch.ones(len(rows), 1)], dim=1))
    k = max(1, round(share * len(rows)))
    expected, fitted = oracles.matching_pursuit(dense(gradients).flatten(1), k, lam)
    picks, weights = kernels.matching_pursuit(gradients, k, lam=lam)
    assert picks.tolist() == expected
    torch.testing.assert_close(weights, fitted[-1], rtol=1e-6, atol=1e-7)
    assert torch.equal(kernels.matching_weights(gradients, picks, lam=lam), weights)


@pytest.mark.parametrize("width", [2, 30])
def test_smaller_matchings_are_prefixes_with_weights_of_their_own(width: int) -> None:
    gradients = made_up(60, 3, width, seed=4)
    longest, _ = kernels.matching_pursuit(gradients, 60, lam=0.1)
    for k in (1, 2, 7, 30, 59, 60):
        picks, weights = kernels.matching_pursuit(gradients, k, lam=0.1)
        assert torch.equal(picks, longest[:k])
        assert torch.equal(kernels.matching_weights(gradients, picks, lam=0.1), weights)


@pytest.mark.parametrize("lam", [1e-6, 1e-3])
def test_weights_are_optimal_where_many_atoms_leave_and_come_back(monkeypatch: pytest.MonkeyPatch, lam: float) -> None:
    left = []
    leave = NonNegativeFit._leave

    def counted(self: NonNegativeFit, j: int, *values: Tensor) -> tuple[Tensor, Tensor]:
        left.append(j)
        return leave(self, j, *values)

    monkeypatch.setattr(NonNegativeFit, "_leave", counted)
    gradients = made_up(500, 4, 3, seed=2)  # 500 atoms in 16 dimensions, with a mean far from 0
    picks, weights = kernels.matching_pursuit(gradients, 300, lam=lam)
    assert_optimal(gradients, picks, weights, lam)
    assert len(left) > 10


def test_weights_of_any_examples_can_be_fitted_not_only_of_a_ranking() -> None:
    gradients = made_up(80, 3, 3, seed=6)
    some = torch.randperm(80, generator=rng(1))[:50]
    assert_optimal(gradients, some, kernels.matching_weights(gradients, some, lam=0.01), 0.01)


def test_a_worn_inverse_is_noticed_and_mended() -> None:
    gradients = made_up(60, 3, 8)
    fit = NonNegativeFit(gradients, 30, lam=0.5)
    for i in range(30):
        fit.offer(i)
        fit._inverse[: fit._num_active, : fit._num_active] *= 1.01 if i % 2 else -1
    assert_optimal(gradients, torch.arange(30), fit.weights, 0.5)


def test_a_fit_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cholesky_inverse", torch.zeros_like)
    gradients = made_up(60, 3, 8)
    first, second = kernels.matching_pursuit(gradients, 2, lam=0.5)[0].tolist()
    fit = NonNegativeFit(gradients, 2, lam=0.5)
    assert fit.offer(first)
    fit._inverse.zero_()
    with pytest.raises(SelectionError, match=r"^lam must be larger for weights that do not drown in rounding, got 0.5"):
        fit.offer(second)


def test_copies_share_one_weight() -> None:
    one = made_up(1, 3, 4)
    copies = Gradients(residuals=one.residuals.expand(6, -1), inputs=one.inputs.expand(6, -1))
    picks, weights = kernels.matching_pursuit(copies, 4, lam=0.5)
    assert picks.tolist() == [0, 1, 2, 3]
    # by symmetry each has w with (4 w - 6) |g|^2 + 0.5 |g|^2 w = 0
    torch.testing.assert_close(weights, torch.full((4,), 6 / 4.5, dtype=torch.float64))


def test_when_all_is_met_the_rest_has_weight_0_in_the_order_of_its_products() -> None:
    # G = (6, 1); after (5, 0) and (4, 0) nothing but (0, 1), which (-3, 0) and (0, 0) do not point along
    x = torch.tensor([[-3.0, 0], [0, 0], [5, 0], [0, 1], [4, 0]], dtype=torch.float64)
    gradients = Gradients(residuals=torch.ones(5, 1, dtype=torch.float64), inputs=x)
    picks, weights = kernels.matching_pursuit(gradients, 5, lam=0.01)
    assert picks.tolist() == [2, 3, 4, 1, 0]
    assert bool((weights[:3] > 0).all())
    assert weights[3:].tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_lam_does_not_depend_on_the_scale_of_the_loss(scale: float) -> None:
    gradients = made_up(50, 3, 8)
    scaled = dataclasses.replace(gradients, residuals=gradients.residuals * scale)
    (picks, weights), (again, others) = (kernels.matching_pursuit(g, 20, lam=0.5) for g in (gradients, scaled))
    assert torch.equal(picks, again)
    torch.testing.assert_close(weights, others)


def test_a_larger_lam_shrinks_weights_towards_what_each_pick_says_alone() -> None:
    gradients = made_up(200, 3, 8)
    picks, _ = kernels.matching_pursuit(gradients, 20, lam=0.5)
    lams = (1e-4, 0.5, 50.0, 1e9)
    fitted = [kernels.matching_weights(gradients, picks, lam=lam) for lam in lams]
    assert [float(w.norm()) for w in fitted] == sorted((float(w.norm()) for w in fitted), reverse=True)
    alone = gradients.along(gradients.total())[picks].clamp_min(0) / gradients.norms().square().mean()
    torch.testing.assert_close(fitted[-1] * 1e9, alone)


# --- gain on held-out examples ----------------------------------------------------------------------------------------


def made_up_holdout(m: int, width: int = 4, *, regression: bool = False) -> tuple[HeldOut, Tensor, Any]:
    """Held-out examples, the last layer (M, A) that sees them, and its loss on them as a function of it."""
    layer = torch.randn(3, width + 1, generator=rng(11), dtype=torch.float64)
    hidden = torch.randn(m, width, generator=rng(12), dtype=torch.float64).relu()
    inputs = torch.cat([hidden, torch.ones(m, 1)], dim=1)
    if regression:
        targets = torch.randn(m, 3, generator=rng(13), dtype=torch.float64)
        held_out = HeldOut(inputs=inputs, outputs=inputs @ layer.T - targets, classes=None)
        return held_out, layer, lambda moved: functional.mse_loss(inputs @ moved.T, targets)
    labels = torch.randint(3, (m,), generator=rng(14))
    held_out = HeldOut(inputs=inputs, outputs=inputs @ layer.T, classes=labels)
    return held_out, layer, lambda moved: functional.cross_entropy(inputs @ moved.T, labels)


def eta_of(gradients: Gradients, step: float) -> float:
    return step / float(gradients.inputs.square().sum(1).mean())


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("refresh", [1, 3, 100])
@pytest.mark.parametrize("sizes", [(60,), (25, 5, 30)])
def test_gains_are_the_oracle(sizes: tuple[int, ...], refresh: int, regression: bool) -> None:
    gradients = made_up(60)
    held_out, layer, loss = made_up_holdout(15, regression=regression)
    group_of = [c for c, size in enumerate(sizes) for _ in range(size)]
    groups = torch.tensor(classes.sequence(sizes, 60, "proportional")[0])
    expected = oracles.held_out_gains(
        dense(gradients), layer, loss, groups.tolist(), group_of, eta=eta_of(gradients, 0.3), refresh=refresh
    )
    picks = gain_ranking(gradients, held_out, groups, sizes, step=0.3, refresh=refresh)
    assert picks.tolist() == expected
    short = gain_ranking(gradients, held_out, groups[:23], sizes, step=0.3, refresh=refresh)
    assert torch.equal(short, picks[:23])


def test_gains_are_refreshed_and_not_plain_top_k() -> None:
    gradients = made_up(60)
    held_out, layer, loss = made_up_holdout(15)
    groups = torch.zeros(30, dtype=torch.int64)
    top = gradients.along(held_out.gradients().total()).argsort(descending=True)[:30]
    refreshed = gain_ranking(gradients, held_out, groups, (60,), step=0.3, refresh=1)
    stale = gain_ranking(gradients, held_out, groups, (60,), step=0.3, refresh=30)
    assert torch.equal(stale, top)
    assert set(refreshed.tolist()) != set(top.tolist())
    lost = [
        float(loss(layer - eta_of(gradients, 0.3) * dense(gradients)[picks].sum(0))) for picks in (refreshed, stale)
    ]
    assert lost[0] < float(loss(layer)) < lost[1]  # the stale picks overshoot


def test_copies_of_a_pick_lose_value() -> None:
    gradients = made_up(60)
    held_out, _, _ = made_up_holdout(15)
    best = int(gradients.along(held_out.gradients().total()).argmax())
    rows = [best] * 10 + [i for i in range(60) if i != best]
    copied = Gradients(residuals=gradients.residuals[rows], inputs=gradients.inputs[rows])
    groups = torch.zeros(10, dtype=torch.int64)
    assert gain_ranking(copied, held_out, groups, (69,), step=2.0, refresh=10).tolist() == list(range(10))
    refreshed = gain_ranking(copied, held_out, groups, (69,), step=2.0, refresh=1).tolist()
    assert refreshed[0] == 0
    assert sum(pick < 10 for pick in refreshed) < 5


def test_without_held_out_examples_all_gains_are_0() -> None:
    held_out, _, _ = made_up_holdout(0)
    groups = torch.zeros(4, dtype=torch.int64)
    assert gain_ranking(made_up(6), held_out, groups, (6,), step=0.3, refresh=2).tolist() == [0, 1, 2, 3]


# --- the selectors ----------------------------------------------------------------------------------------------------


def written_out(part: ArrayPart, network: nn.Sequential) -> Tensor:
    """(n, D) gradients by the last layer, one backward pass each."""
    if part.targets.is_floating_point():
        mean, std = part.targets.double().mean(), part.targets.double().std()
        standardised = (part.targets.double() - mean) / std
        losses = lambda output, i: (output - standardised[i]).square().mean()  # noqa: E731
    else:
        losses = lambda output, i: functional.cross_entropy(output[None], part.targets[i : i + 1])  # noqa: E731
    return oracles.last_layer_gradients(network, lambda twin: twin[-1], part.inputs, losses)


def with_network(part: ArrayPart, network: nn.Sequential) -> SelectionContext:
    return dataclasses.replace(context_of(part), models=(ModelView(network, part),))


@pytest.mark.parametrize("bias", [True, False])
def test_gradmatch_is_the_oracle_on_the_gradients_of_a_network(bias: bool) -> None:
    part = made_up_part()
    network = network_of(part)
    if not bias:
        network[-1].bias = None
    atoms = written_out(part, network)
    subset = select.make("gradmatch").select(with_network(part, network), 60, rng=rng())
    expected, found = torch.zeros(150, dtype=torch.float64), torch.zeros(150, dtype=torch.float64)
    for c in range(5):
        members = (part.targets == c).nonzero().flatten()
        quota = int((part.targets[subset.positions] == c).sum())
        if quota:
            picks, weights = oracles.matching_pursuit(atoms[members], quota, 0.5)
            assert members[picks].tolist() == [i for i in subset.positions.tolist() if part.targets[i] == c]
            expected[members[picks]] = weights[-1]
    assert subset.weights is not None
    found[subset.positions] = subset.weights.double()
    torch.testing.assert_close(found, expected * (150 / expected.sum()), rtol=1e-4, atol=1e-4)  # a float32 network


def test_gradmatch_matches_all_classes_together_if_told_to() -> None:
    part = made_up_part()
    picks, weights = oracles.matching_pursuit(written_out(part, network_of(part)), 30, 0.5)
    subset = choose(select.make("gradmatch", {"classes": "none"}), part, 30)
    assert subset.positions.tolist() == picks
    assert subset.weights is not None
    torch.testing.assert_close(subset.weights.double(), weights[-1] * (150 / weights[-1].sum()), rtol=1e-4, atol=1e-4)


def values_part(n: int = 120) -> ArrayPart:
    x = torch.randn(n, 1, 3, 2, generator=rng(20))
    return ArrayPart(x, 1000 + 50 * x.flatten(1).sum(1) + torch.randn(n, generator=rng(21)))


def test_gradmatch_of_a_regression() -> None:
    part = values_part()
    picks, weights = oracles.matching_pursuit(written_out(part, network_of(part)), 30, 0.5)
    subset = choose(select.make("gradmatch"), part, 30)
    assert subset.positions.tolist() == picks
    assert subset.weights is not None
    torch.testing.assert_close(subset.weights.double(), weights[-1] * (120 / weights[-1].sum()), rtol=1e-3, atol=1e-3)


def test_gradmatch_points_along_the_whole_gradient_better_than_random() -> None:
    part = made_up_part()
    atoms = written_out(part, network_of(part))
    subset = choose(select.make("gradmatch", {"lam": 1e-3, "classes": "none"}), part, 30)
    drawn = choose(select.make("stratified"), part, 30)
    assert subset.weights is not None
    sums = subset.weights.double() @ atoms[subset.positions], atoms[drawn.positions].sum(0)
    near, far = (float(functional.cosine_similarity(total, atoms.sum(0), dim=0)) for total in sums)
    assert near > 0.999 > far


def test_gradmatch_without_gradients_counts_plainly() -> None:
    part = ArrayPart(torch.randn(40, 1, 3, 2, generator=rng(3)), torch.arange(40) % 2)
    network = network_of(part)
    with torch.no_grad():  # each class is told apart by an input of its own, with a softmax of 0 and 1
        part.inputs[:, 0, 0, 0] = 1 - 2.0 * part.targets
        network[1].weight.zero_()[0, 0] = 1
        network[1].bias.zero_()
        network[3].weight.zero_()[0, 0] = 4000
        network[3].bias.copy_(torch.tensor([-2000.0, 0]))
    assert not written_out(part, network).any()
    subset = select.make("gradmatch").select(with_network(part, network), 10, rng=rng())
    assert subset.positions.tolist() == list(range(10))
    assert subset.weights is not None
    assert subset.weights.tolist() == [4.0] * 10


def test_gradmatch_weights_of_a_prefix_are_fitted_anew() -> None:
    part, selector = made_up_part(), select.make("gradmatch")
    longest = choose(selector, part, 90)
    weights = selector.weigh(context_of(part), longest.positions[:31])
    shorter = choose(selector, part, 31).weights
    assert weights is not None
    assert longest.weights is not None
    assert shorter is not None
    assert torch.equal(weights, shorter)
    assert not torch.equal(weights, longest.weights[:31])


def held_out_of(part: ArrayPart, holdout: float, seed: int = 3) -> set[int]:
    """The examples that glister ranks last."""
    n = len(part)
    positions = choose(select.make("glister", {"holdout": holdout, "classes": "none"}), part, n, seed=seed).positions
    return set(positions[n - round(holdout * n) :].tolist())


def test_glister_is_the_oracle_on_the_gradients_of_a_network() -> None:
    part = made_up_part()
    network = network_of(part)
    held = sorted(held_out_of(part, 0.2))
    others = [i for i in range(150) if i not in held]
    atoms = written_out(part, network)[others]
    layer = torch.cat([network[-1].weight, network[-1].bias[:, None]], dim=1).detach().double()
    hidden = network[:-1](part.inputs).detach().double()
    inputs = torch.cat([hidden, torch.ones(150, 1)], dim=1)
    matrices = torch.cat([atoms[:, :35].reshape(-1, 5, 7), atoms[:, 35:, None]], dim=2)
    expected = oracles.held_out_gains(
        matrices,
        layer,
        lambda moved: functional.cross_entropy(inputs[held] @ moved.T, part.targets[held]),
        [0] * 60,
        [0] * len(others),
        eta=0.5 / float(inputs[others].square().sum(1).mean()),
        refresh=2,
    )
    selector = select.make("glister", {"classes": "none", "holdout": 0.2, "step": 0.5, "refresh": 2})
    assert choose(selector, part, 60).positions.tolist() == [others[i] for i in expected]


def test_glister_of_a_regression() -> None:
    part = values_part()
    held = sorted(held_out_of(part, 0.2))
    others = [i for i in range(120) if i not in held]
    network = network_of(part)
    inputs = torch.cat([network[:-1](part.inputs).detach().double(), torch.ones(120, 1)], dim=1)
    layer = torch.cat([network[-1].weight, network[-1].bias[:, None]], dim=1).detach().double()
    targets = part.targets.double()
    aims = ((targets - targets.mean()) / targets.std())[held, None]
    expected = oracles.held_out_gains(
        written_out(part, network)[others][:, None],
        layer,
        lambda moved: functional.mse_loss(inputs[held] @ moved.T, aims),
        [0] * 40,
        [0] * len(others),
        eta=0.1 / float(inputs[others].square().sum(1).mean()),
        refresh=1,
    )
    selector = select.make("glister", {"holdout": 0.2, "step": 0.1, "refresh": 1})
    assert choose(selector, part, 40).positions.tolist() == [others[i] for i in expected]


def test_glister_holds_out_in_proportion_and_another_part_for_another_seed() -> None:
    part = ArrayPart(torch.randn(200, 1, 3, 2, generator=rng(1)), torch.arange(200) % 20 // 15)  # 150 and 50
    first, second = (held_out_of(part, 0.2, seed=seed) for seed in (0, 1))
    assert first != second
    for held in (first, second):
        assert len(held) == 40
        assert sum(int(part.targets[i]) for i in held) == 10


@pytest.mark.parametrize("balance", ["proportional", "equal"])
def test_glister_keeps_the_classes_and_holds_back_what_it_held_out(balance: str) -> None:
    part = made_up_part()
    selector = select.make("glister", {"holdout": 0.3, "classes": balance})
    k = 5 * int(torch.bincount(part.targets).min()) if balance == "equal" else 120
    positions = choose(selector, part, k).positions
    sizes = torch.bincount(part.targets).tolist()
    groups = torch.tensor(classes.sequence(sizes, k, balance)[0])  # type: ignore[arg-type]
    assert torch.equal(part.targets[positions], groups)
    held = held_out_of(part, 0.3)
    is_held = torch.tensor([i in held for i in positions.tolist()])
    for c in range(5):
        mine = is_held[groups == c]
        assert torch.equal(mine, mine.sort().values), "held-out examples come last in their class"


def test_glister_passes_over_wrong_labels() -> None:
    """Two well separated classes with a fifth of the labels wrong: few of the first half picked are wrong."""
    truth = torch.arange(400) % 2
    x = torch.randn(400, 6, generator=rng(5))
    x[:, 0] += 6.0 * truth - 3
    is_wrong = torch.rand(400, generator=rng(6)) < 0.2
    part = ArrayPart(x, torch.where(is_wrong, 1 - truth, truth))
    network = network_of(part)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        functional.cross_entropy(network(part.inputs), part.targets).backward()
        optimizer.step()
    subset = select.make("glister").select(with_network(part, network), 200, rng=rng())
    assert float(is_wrong[subset.positions].double().mean()) < 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", [made_up_part(150), values_part(120)], ids=["classes", "values"])
def test_one_example_and_all_of_them(name: str, part: ArrayPart) -> None:
    one = ArrayPart(part.inputs[:1], part.targets[:1] * 0)
    facts = dataclasses.replace(facts_of(one))
    view = ModelView(network_of(one), one, target_mean=0.0 if facts.num_classes == 0 else None)
    context = SelectionContext(part=one, facts=facts, models=(view,))
    subset = select.make(name).select(context, 1, rng=rng())
    assert subset.positions.tolist() == [0]
    assert subset.weights is None or subset.weights.tolist() == [1.0]
    everything = choose(select.make(name), part, len(part)).positions
    assert sorted(everything.tolist()) == list(range(len(part)))


@pytest.mark.parametrize("name", NAMES)
def test_one_network_is_looked_at(name: str) -> None:
    part = made_up_part()
    context = dataclasses.replace(context_of(part), models=())
    with pytest.raises(SelectionError, match=f"^{name} needs 1 network to look at, got 0"):
        select.make(name).select(context, 10, rng=rng())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_diverged_is_told(name: str) -> None:
    part = made_up_part()
    part.inputs[3] = torch.nan
    with pytest.raises(ModelDivergedError, match="network that the selector looks at left the finite numbers"):
        choose(select.make(name), part, 10)


# --- limits and costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_a_linear_last_layer_is_refused(name: str) -> None:
    facts = dataclasses.replace(facts_of(made_up_part()), head_features=0)
    expected = f"the last layer of the model must be linear for {name}. Use another selector."
    assert select.make(name).why_not(facts, 10) == expected


@pytest.mark.parametrize("name", NAMES)
def test_equal_classes_need_room(name: str) -> None:
    found = select.make(name, {"classes": "equal"}).why_not(facts_of(made_up_part()), 149)
    assert found is not None
    assert found.startswith("equal classes give each class up to 30 of 149 examples, and the rarest class has")


LARGE = TaskFacts(
    num_examples=50_000,
    num_outputs=10,
    num_parameters=10**6,
    forward_flops=1_000,
    backward_flops=2_000,
    reference_passes=10,
    num_features=3_072,
    num_classes=10,
    smallest_class=5_000,
    class_counts=(5_000,) * 10,
    head_features=512,
)


@pytest.mark.parametrize("options", [{}, {"classes": "none"}])
@pytest.mark.parametrize("name", NAMES)
def test_a_tenth_of_50_000_examples_fits_in_2_gib(name: str, options: Mapping[str, Any]) -> None:
    selector = select.make(name, options)
    assert selector.why_not(LARGE, 5_000) is None
    assert 100 * 2**20 < selector.memory_bytes(LARGE, 5_000) < 1.5 * 2**30


def test_more_memory_than_allowed_is_refused_with_the_numbers() -> None:
    found = select.make("gradmatch", {"classes": "none"}).why_not(LARGE, 40_000)
    assert found is not None
    assert found.startswith("gradmatch needs 36.6 GiB of memory for 50,000 examples of 3,072 numbers, more than the 4")
    small = select.make("glister", {"memory_limit_gib": 0.1}).why_not(LARGE, 10)
    assert small is not None
    assert small.startswith("glister needs 517 MiB of memory for 50,000 examples of 3,072 numbers, more than")
    assert small.endswith("the 102 MiB it may use. Raise its memory_limit_gib, or use another selector.")


@pytest.mark.parametrize("balance", ["proportional", "none"])
def test_gradmatch_is_charged_look_pursuit_and_fit(balance: str) -> None:
    facts = dataclasses.replace(facts_of(made_up_part()), forward_flops=123)
    sizes = facts.class_counts if balance == "proportional" else (150,)
    m, a = 5, 8
    expected = 150 * 123
    for size, q in zip(sizes, classes.quotas(facts, balance, 40), strict=True):  # type: ignore[arg-type]
        expected += 2 * size * (m * a + m + a) if q else 0
        fits = sum(4 * t * m * a + 2 * t * (m + a) + 6 * t * t for t in range(1, q + 1))
        expected += q * 2 * size * (m * a + m) + -(-3 * fits // 2)
    assert select.make("gradmatch", {"classes": balance}).flops(facts, 40) == expected


def test_glister_is_charged_look_refreshes_and_steps() -> None:
    facts = dataclasses.replace(facts_of(made_up_part()), forward_flops=123)
    m, a, held, others = 5, 8, 15, 135
    expected = 150 * 123 + 2 * held * m * a + 6 * (2 * (others + 2 * held) * m * a + 2 * others * m) + 2 * 41 * m * a
    assert select.make("glister", {"refresh": 7}).flops(facts, 41) == expected


@pytest.mark.parametrize("name", NAMES)
def test_needs_one_network(name: str) -> None:
    proxy, current = select.make(name).model_need, select.make(name, {"model": "current", "proxy_passes": 3}).model_need
    assert proxy == select.ModelNeed(source="proxy", passes=1.0)
    assert current == select.ModelNeed(source="current")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradmatch", {"lam": 0}, "lam must be at least 1e-6, got 0.0. It is a multiple of the mean squared norm of"),
        ("glister", {"holdout": 1}, r"holdout must be in \(0, 1\), got 1.0. It is a fraction"),
        ("glister", {"step": 0}, "step must be positive, got 0.0"),
        ("glister", {"refresh": 0}, "refresh must be at least 1, got 0"),
        ("gradmatch", {"proxy_passes": -1}, "proxy_passes must be 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select.make(name, options)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["proxy", "current"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_charged_as_projected(name: str, model: str, tiny_data: dict[str, str]) -> None:
    task = fakes.image_task(tiny_data)
    chosen = {"model": model, "proxy_passes": 0.5} if model == "proxy" else {"model": model}
    policy = fakes.two_phases(3.5, 1.0, selector=name, selector_options=chosen)
    facts = train.facts(task)
    result = train.run(task, policy, 0, options=fakes.ONE_THREAD)
    assert result.cause == "finished"
    assert result.ledger.select == selections.selection_flops(policy, 0, facts) > 0
    again = train.run(task, policy, 0, options=fakes.ONE_THREAD)
    assert again.metrics == result.metrics
