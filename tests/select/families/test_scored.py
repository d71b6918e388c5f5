from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import oracles
import pytest
import selections
import torch
from contracts import (
    ArrayPart,
    choose,
    context_for,
    context_of,
    facts_of,
    made_up_part,
    models_of,
    network_of,
    untouched_random_state,  # noqa: F401 (a fixture)
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from subsettune import select
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, ModelDivergedError, ModelError, SelectionError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import ModelNeed, SelectionContext
from subsettune.select.families.scored import ScoredSelector
from subsettune.select.kernels import scores as kernels
from subsettune.select.limits import GRADIENT_BYTES
from subsettune.select.network import ModelView

pytestmark = pytest.mark.usefixtures("untouched_random_state")
NAMES = ("el2n", "grand", "forgetting")


def scored(name: str, **options: Any) -> ScoredSelector:
    selector = select.make(name, options)
    assert isinstance(selector, ScoredSelector)
    return selector


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose weights are drawn from a seed, and not from the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def value_part(num_targets: int | None = None) -> ArrayPart:
    """A regression on 40 examples."""
    rng = torch.Generator().manual_seed(2)
    shape = (40,) if num_targets is None else (40, num_targets)
    return ArrayPart(torch.randn(40, 6, generator=rng), 100 + 30 * torch.randn(shape, generator=rng))


# --- scores -----------------------------------------------------------------------------------------------------------


def test_el2n_is_the_oracle_averaged_over_networks() -> None:
    part, selector = made_up_part(), scored("el2n", runs=3)
    wanted = torch.zeros(150, dtype=torch.float64)
    for seed in range(3):
        outputs = network_of(part, seed).double()(part.inputs.double())
        wanted += torch.tensor(oracles.error_norms(outputs, part.targets), dtype=torch.float64) / 3
    torch.testing.assert_close(selector.scores(context_for(selector, part)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", ["last", "full"])
def test_grand_is_the_oracle_averaged_over_networks(gradient: str) -> None:
    part, selector = made_up_part(), scored("grand", gradient=gradient, runs=2)

    def parameters(network: nn.Module) -> list[nn.Parameter]:
        assert isinstance(network, nn.Sequential)
        return list(network[-1].parameters() if gradient == "last" else network.parameters())

    wanted = torch.zeros(150, dtype=torch.float64)
    for seed in range(2):
        norms = oracles.gradient_norms(network_of(part, seed), part.inputs, part.targets, parameters)
        wanted += torch.tensor(norms, dtype=torch.float64) / 2
    torch.testing.assert_close(selector.scores(context_for(selector, part)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_targets", [None, 1, 3])
def test_scores_of_a_regression(num_targets: int | None) -> None:
    part = value_part(num_targets)
    mean, std = part.targets.mean(dim=0), part.targets.std(dim=0)
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, num_targets or 1)))
    view = ModelView(network, part, target_mean=mean, target_std=std)
    standardised = ((part.targets - mean) / std).double()
    errors = network.double()(part.inputs.double()).reshape(standardised.shape) - standardised
    wanted = errors.reshape(40, -1).norm(dim=1) * 2 / (num_targets or 1)
    network.float()
    torch.testing.assert_close(scored("el2n").score(view), wanted.detach(), rtol=1e-4, atol=1e-5)
    for gradient in ("last", "full"):

        def parameters(twin: nn.Module, gradient: str = gradient) -> list[nn.Parameter]:
            assert isinstance(twin, nn.Sequential)
            return list(twin[-1].parameters() if gradient == "last" else twin.parameters())

        norms = torch.tensor(oracles.gradient_norms(network, part.inputs, standardised, parameters)).double()
        torch.testing.assert_close(scored("grand", gradient=gradient).score(view), norms, rtol=1e-4, atol=1e-5)


def test_a_last_layer_without_a_bias() -> None:
    part = made_up_part()
    network = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5, bias=False)))
    view = ModelView(network, part)
    assert not view.has_head_bias
    assert models_of(part)[0].has_head_bias
    norms = oracles.gradient_norms(
        network, part.inputs, part.targets, lambda twin: list(twin.get_submodule("3").parameters())
    )
    torch.testing.assert_close(scored("grand").score(view), torch.tensor(norms).double(), rtol=1e-5, atol=1e-6)


class Tied(nn.Module):
    """Convolution, batch norm, dropout, a tied and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5))
        self.middle, self.frozen = nn.Linear(6, 6), nn.Linear(6, 5).requires_grad_(False)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.middle.weight
        self.first[1].running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.frozen(self.again(self.middle(self.first(x)).tanh()).relu())
        return logits


def test_full_gradients_of_every_kind_of_layer() -> None:
    part = made_up_part()
    network = seeded(Tied).train()
    norms = oracles.gradient_norms(
        network, part.inputs, part.targets, lambda twin: [p for p in twin.parameters() if p.requires_grad]
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    found = scored("grand", gradient="full").score(ModelView(network, part))
    torch.testing.assert_close(found, torch.tensor(norms).double(), rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state), "dropout is off"
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_full_gradients_are_made_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made_up_part()
    whole = models_of(part)[0].gradient_norms()
    num_bytes = 4 * sum(p.numel() for p in network_of(part).parameters())
    assert kernels.rows_at_a_time(network_of(part), 128) == 128
    for limit, rows in ((7 * num_bytes, 7), (num_bytes - 1, 1)):
        monkeypatch.setattr(kernels, "GRADIENT_BYTES", limit)
        assert kernels.rows_at_a_time(network_of(part), 128) == rows
        torch.testing.assert_close(models_of(part)[0].gradient_norms(), whole, rtol=1e-6, atol=0)


class Branching(nn.Module):
    """Looks at values, which `vmap` cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits if bool(x.sum() > 0) else logits * 2


def test_full_gradients_of_a_network_that_looks_at_values_are_refused() -> None:
    view = ModelView(seeded(Branching), made_up_part())
    with pytest.raises(
        ModelError, match=r"^the model cannot be differentiated example by example: .*\. Use gradient: l"
    ):
        scored("grand", gradient="full").score(view)
    assert view.network.training


@pytest.mark.parametrize(
    "selector", [scored("el2n"), scored("grand"), scored("grand", gradient="full"), scored("forgetting")], ids=repr
)
def test_a_network_that_left_the_finite_numbers(selector: ScoredSelector) -> None:
    part = made_up_part()
    network = network_of(part)
    network[1].weight.data[0, 0] = torch.nan
    view = ModelView(network, part, forgotten=torch.zeros(150, dtype=torch.int64))
    context = replace(context_of(part), models=(view,))
    with pytest.raises(ModelDivergedError, match=r"^the network that the selector looks at left the finite numbers\.$"):
        selector.select(context, 5, rng=torch.Generator())


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_forgetting_ranks_by_events_then_by_error() -> None:
    part = made_up_part()
    model = models_of(part)[0]
    assert model.forgotten is not None
    assert set(model.forgotten.tolist()) == {-1, 0, 1, 2, 3}
    errors = oracles.error_norms(network_of(part)(part.inputs), part.targets)
    events = [4 if count < 0 else count for count in model.forgotten.tolist()]
    wanted = sorted(range(150), key=lambda i: (-events[i], -errors[i], i))
    assert choose(scored("forgetting", classes="none"), part, 150).positions.tolist() == wanted


@given(st.lists(st.tuples(st.integers(-1, 9), st.floats(0, 2**0.5)), min_size=1, max_size=30))
def test_forgetting_scores_hold_both_keys(rows: list[tuple[int, float]]) -> None:
    forgotten, errors = (torch.tensor(column) for column in zip(*rows, strict=True))
    scores = kernels.forgetting_scores(forgotten, errors.double())
    most = max(int(forgotten.max()), -1) + 1
    for (count, error), score in zip(rows, scores.tolist(), strict=True):
        events = most if count < 0 else count
        assert events <= score < events + 1
        assert score - events == pytest.approx(torch.tensor(error).item() / 2, abs=1e-12)


def test_forgetting_needs_counts() -> None:
    part = made_up_part()
    context = replace(context_of(part), models=(ModelView(network_of(part), part),))
    with pytest.raises(SelectionError, match=r"^forgetting needs a network that was watched while it was trained, got"):
        scored("forgetting").select(context, 5, rng=torch.Generator())


# --- ranking ----------------------------------------------------------------------------------------------------------


def labelled(scores: list[float], targets: list[int]) -> SelectionContext:
    """Two classes, whose logits make EL2N a growing function of `scores`."""
    margins = torch.tensor(scores)
    labels = torch.tensor(targets)
    inputs = torch.stack([margins, torch.zeros_like(margins)], dim=1)
    inputs = torch.where(labels.unsqueeze(1) == 1, inputs, inputs.flip(1))
    part = ArrayPart(inputs, labels)
    network = nn.utils.skip_init(nn.Linear, 2, 2)
    network.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    return SelectionContext(part=part, facts=facts_of(part), models=(ModelView(network, part),))


SCORES, TARGETS = [3.0, 0.0, 2.0, 2.0, 1.0, -1.0], [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"classes": "none"}, [0, 2, 3, 4, 1, 5]),
        ({"classes": "none", "keep": "easiest"}, [5, 1, 4, 2, 3, 0]),
        ({"classes": "none", "skip": 0.5}, [4, 1, 5, 3, 2, 0]),
        ({"classes": "equal"}, [0, 3, 2, 4, 1, 5]),
        ({"classes": "equal", "keep": "easiest"}, [1, 5, 2, 4, 0, 3]),
        ({"classes": "proportional", "skip": 0.34}, [2, 4, 1, 5, 0, 3]),
    ],
)
def test_rankings_by_hand(options: dict[str, Any], wanted: list[int]) -> None:
    context = labelled(SCORES, TARGETS)
    selector = scored("el2n", **options)
    scores = selector.scores(context)
    assert scores[2] == scores[3]
    assert sorted(range(6), key=lambda i: (-float(scores[i]), i)) == [0, 2, 3, 4, 1, 5]
    assert selector.select(context, 6, rng=torch.Generator()).positions.tolist() == wanted


@pytest.mark.parametrize("keep", ["hardest", "easiest"])
@pytest.mark.parametrize("name", NAMES)
def test_ties_go_to_the_lowest_position(name: str, keep: str) -> None:
    part = ArrayPart(torch.ones(2_000, 6), torch.zeros(2_000, dtype=torch.int64))
    assert choose(scored(name, keep=keep), part, 1_500).positions.tolist() == list(range(1_500))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [5, 40, 149])
def test_classes_keep_their_proportions(name: str, k: int) -> None:
    part = made_up_part()
    counts = torch.bincount(part.targets).tolist()
    picked = choose(scored(name), part, k).positions
    assert oracles.largest_deviation(part.targets[picked].tolist(), counts) < 1


@pytest.mark.parametrize("num_models", [0, 2])
def test_as_many_networks_as_asked_for(num_models: int) -> None:
    with pytest.raises(SelectionError, match=f"^el2n needs 1 network to score by, got {num_models}.$"):
        scored("el2n").select(context_of(made_up_part(), num_models=num_models), 5, rng=torch.Generator())
    with pytest.raises(SelectionError, match=f"^grand needs 3 networks to score by, got {num_models}.$"):
        scored("grand", runs=3).select(context_of(made_up_part(), num_models=num_models), 5, rng=torch.Generator())


# --- options, costs and obstacles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "forgetting",
            {"proxy_passes": 1.5},
            "selector_options.proxy_passes: proxy_passes must be at least 2 for forgetting, got 1.5. "
            "What was seen once cannot be forgotten: write 3.",
        ),
        (
            "forgetting",
            {"model": "current"},
            "selector_options.model: model must be proxy for forgetting, got 'current'. "
            "Only a network that is watched while it is trained tells what it forgot.",
        ),
        (
            "el2n",
            {"model": "current", "runs": 2},
            "selector_options.runs: runs must be 1 with model: current, got 2. A run has one network of its own.",
        ),
        (
            "grand",
            {"keep": "easiest", "skip": 0.1},
            "selector_options.skip: skip must be 0 with keep: easiest, got 0.1. "
            "The hardest examples come last as it is.",
        ),
        (
            "el2n",
            {"skip": 1.0},
            "selector_options.skip: skip must be in [0, 1), got 1.0. It is a fraction, not a percentage: "
            "write 0.1 for 10 %.",
        ),
        ("el2n", {"proxy_passes": -1}, "selector_options.proxy_passes: proxy_passes must be 0 or more, got -1.0."),
        ("grand", {"runs": 0}, "selector_options.runs: runs must be at least 1, got 0."),
    ],
)
def test_options_that_make_no_sense(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select.make(name, options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "need"),
    [
        ("el2n", {}, ModelNeed(source="proxy", passes=1.0)),
        ("el2n", {"model": "current"}, ModelNeed(source="current")),
        ("grand", {"proxy_passes": 0, "runs": 4}, ModelNeed(source="proxy", passes=0.0, runs=4)),
        ("forgetting", {"runs": 2}, ModelNeed(source="proxy", passes=3.0, runs=2, events=True)),
    ],
)
def test_networks_that_are_asked_for(name: str, options: dict[str, Any], need: ModelNeed) -> None:
    assert scored(name, **options).model_need == need


FACTS = facts_of(made_up_part())  # n 150, M 5, H 7, P 100, forward 2,000, backward 4,000


@pytest.mark.parametrize(
    ("name", "options", "flops"),
    [
        ("el2n", {}, 150 * (2_000 + 10)),
        ("el2n", {"runs": 3}, 3 * 150 * (2_000 + 10)),
        ("grand", {}, 150 * (2_000 + 24)),
        ("grand", {"gradient": "full", "runs": 2}, 2 * 150 * (6_000 + 200)),
        ("forgetting", {}, 150 * (2_000 + 10)),
    ],
)
def test_costs_in_closed_form(name: str, options: dict[str, Any], flops: int) -> None:
    selector = scored(name, **options)
    assert {selector.flops(FACTS, k) for k in (1, 75, 150)} == {flops}
    phase = Phase(share=0.5, passes=9, selector=name, selector_options=options)  # type: ignore[arg-type]
    need = selector.model_need
    training = need.runs * round(need.passes * FACTS.pass_flops)
    assert selections.selection_flops(Policy(phases=(phase,)), 0, FACTS) == flops + training
    other = FrozenDict({**options, "classes": "none"})
    later = [replace(phase, share=0.7, draw=1), replace(phase, share=0.7, selector_options=other)]
    charged = [selections.selection_flops(Policy(phases=(phase, again)), 1, FACTS) for again in later]
    assert charged == [0, flops], "the same ranking, and another one by the same networks"


REGRESSION = replace(FACTS, num_classes=0, class_counts=())


@pytest.mark.parametrize(
    ("name", "options", "facts", "message"),
    [
        (
            "forgetting",
            {},
            REGRESSION,
            "forgetting needs classes, and the task is a regression. Use el2n or random.",
        ),
        (
            "grand",
            {},
            replace(FACTS, head_features=0),
            "the last layer of the model must be linear for grand. Use gradient: full, or another selector.",
        ),
        ("grand", {"gradient": "full"}, replace(FACTS, head_features=0), None),
        ("el2n", {}, replace(REGRESSION, head_features=0), None),
        (
            "el2n",
            {"classes": "equal"},
            REGRESSION,
            "classes must be none or proportional for el2n on a regression, got 'equal'. Leave it out.",
        ),
        (
            "grand",
            {"memory_limit_gib": 1e-6},
            FACTS,
            "grand needs 0.0229 MiB of memory for 150 examples of 6 numbers, more than the 0.00102 MiB it may use. "
            "Raise its memory_limit_gib, or use another selector.",
        ),
        (
            "grand",
            {"gradient": "full"},
            replace(FACTS, num_parameters=10**9),
            "grand needs 14.9 GiB of memory for 150 examples of 6 numbers, more than the 4 GiB it may use. "
            "Raise its memory_limit_gib, or use another selector.",
        ),
    ],
)
def test_obstacles(name: str, options: dict[str, Any], facts: TaskFacts, message: str | None) -> None:
    assert scored(name, **options).why_not(facts, 40) == message


def test_equal_classes_need_enough_of_the_rarest() -> None:
    rarest = FACTS.smallest_class
    assert scored("el2n", classes="equal").why_not(FACTS, 5 * rarest) is None
    problem = scored("el2n", classes="equal").why_not(FACTS, 5 * rarest + 1)
    assert problem is not None
    assert problem.startswith(f"equal classes give each class up to {rarest + 1} of {5 * rarest + 1} examples")


def test_the_memory_of_full_gradients_is_bounded_by_blocks() -> None:
    selector = scored("grand", gradient="full")
    assert selector.memory_bytes(FACTS, 5) == 4 * GRADIENT_BYTES + 64 * 150
    assert selector.memory_bytes(replace(FACTS, num_parameters=GRADIENT_BYTES), 5) == 16 * GRADIENT_BYTES + 64 * 150
