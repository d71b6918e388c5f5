"""Pruning of chains inside a network, such as the feed-forward layers of a transformer."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from fakes import image_task, options, same_bits
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from subsettune import cli, config, models, train
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, ModelDivergedError
from subsettune.facts import ChainLayer, TaskFacts
from subsettune.models.transformer import transformer as make_transformer
from subsettune.policy import Phase, Policy
from subsettune.select.network import anatomy
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.task import Model, Recipe, Task
from subsettune.train import flops
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.pruning import effect, forward_selection, surgery
from subsettune.train.pruning import layers as chain
from subsettune.train.transitions.prune import Prune

NUM_OUTPUTS = 4
IMAGE = (2, 8, 8)
PLACES, VOCABULARY = 7, 11
EXACT = effect.PickBudget(candidates="all", repeats=1.5)


# --- networks ---------------------------------------------------------------------------------------------------------


class Columns(nn.Module):
    """Feed-forward layers with a norm before and dropout behind, on the columns of an image, added to what comes in.

    Args:
        layout: of what the layers get: examples first, columns first, or one row for each column of each example.
    """

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.mix = nn.Sequential(
            *(nn.LayerNorm(16), nn.Linear(16, 9), nn.GELU(), nn.Dropout(0.3), nn.Linear(9, 6, bias=False), nn.Tanh()),
            *(nn.Linear(6, 16), nn.Dropout(0.3)),
        )
        self.head = nn.Linear(16, NUM_OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        columns = x.permute(0, 3, 1, 2).flatten(2)
        if self.layout == "examples first":
            mixed = self.mix(columns)
        elif self.layout == "columns first":
            mixed = self.mix(columns.transpose(0, 1)).transpose(0, 1)
        else:
            mixed = self.mix(columns.reshape(-1, 16)).reshape(columns.shape)
        logits: Tensor = self.head((columns + mixed).mean(dim=1))
        return logits


class Stages(nn.Module):
    """Convolutions and a classifier apart, and a shortcut around the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 6, 3, stride=2, padding=1, padding_mode="circular"), nn.BatchNorm2d(6), nn.ReLU()),
        )
        self.shortcut = nn.Linear(24, NUM_OUTPUTS, bias=False)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, NUM_OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = self.features(x)
        logits: Tensor = self.shortcut(features.flatten(1)) + self.classifier(features)
        return logits


class Ends(nn.Module):
    """A classifier in a `nn.Sequential` inside one, so that its last layer is that of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, stride=2)
        body = nn.Sequential(nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.ELU())
        self.rest = nn.Sequential(body, nn.Flatten(), nn.Linear(24, 7), nn.Sigmoid(), nn.Linear(7, NUM_OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.rest(self.stem(x).sin())
        return logits


def transformer(dropout: float = 0.3) -> nn.Module:
    return make_transformer(
        (PLACES,), NUM_OUTPUTS, VOCABULARY, width=8, depth=2, heads=2, feedforward=10, dropout=dropout
    )


def wrapped() -> nn.Module:
    """What is in front of the chain and behind it are the user's own."""
    return nn.Sequential(Columns("examples first"), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), nn.LogSoftmax(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "transformer": transformer,
    "examples first": lambda: Columns("examples first"),
    "columns first": lambda: Columns("columns first"),
    "folded": lambda: Columns("folded"),
    "stages": Stages,
    "ends": Ends,
    "wrapped": wrapped,
}
PRUNED = {
    "transformer": ("blocks.0.feedforward.0", "blocks.1.feedforward.0"),
    **dict.fromkeys(("examples first", "columns first", "folded"), ("mix.1", "mix.4")),
    "stages": ("features.0", "classifier.1"),
    "ends": ("rest.0.0", "rest.2"),
    "wrapped": ("1", "0.mix.1", "0.mix.4"),
}
CASES = [(name, layer) for name, layers in PRUNED.items() for layer in layers]


def shape_of(name: str) -> tuple[int, ...]:
    return (PLACES,) if name == "transformer" else IMAGE


def dtype_of(name: str) -> torch.dtype:
    return models.input_dtype(VOCABULARY if name == "transformer" else 0)


def inputs_for(name: str, n: int = 24) -> Tensor:
    """Images; or texts of 1 to all places, with padding behind."""
    if name != "transformer":
        return torch.randn(n, *IMAGE) + 0.3
    ids = torch.randint(1, VOCABULARY, (n, PLACES))
    return ids * (torch.arange(PLACES) <= torch.arange(n)[:, None] % PLACES)


def used(name: str) -> nn.Module:
    """A network whose weights are large and whose statistics are not those of the initialisation."""
    network = NETWORKS[name]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.4)
        for _ in range(20):
            network(inputs_for(name))
    return network.eval()


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def examples_for(name: str, n: int = 24) -> surgery.Examples:
    return surgery.Examples(inputs=inputs_for(name, n), targets=torch.arange(n) % NUM_OUTPUTS, losses=cross_entropy)


def facts_of(
    network: nn.Module, shape: tuple[int, ...] = IMAGE, dtype: torch.dtype = torch.float32, outputs: int = NUM_OUTPUTS
) -> TaskFacts:
    """Facts as a task has them, of a network as it stands."""
    probe = flops.Probe(input_shape=shape, dtype=dtype)
    cost = flops.count(network, probe, outputs)
    parts = anatomy(network, torch.zeros(2, *shape, dtype=dtype))
    visits = {name: v for name, v in flops.visits(network, probe, cost).items() if name in parts.layers}
    return TaskFacts(
        num_examples=100,
        num_outputs=outputs,
        num_parameters=1000,
        forward_flops=cost.forward,
        backward_flops=cost.backward,
        reference_passes=4,
        exits=FrozenDict({name: visit.end for name, visit in visits.items()}),
        layers=FrozenDict(parts.layers),
        head_features=parts.head_features,
        chain=chain.chain(network, visits, cost.forward, cost.backward),
        inner=chain.inner(network, visits),
    )


def facts_named(name: str, network: nn.Module) -> TaskFacts:
    return facts_of(network, shape_of(name), dtype_of(name))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(facts: TaskFacts, keep: float = 0.5, layers: Sequence[str] | None = None) -> dict[str, int]:
    """Units that stay, of each layer that gets narrower."""
    widths = ({layer.name: layer.width for layer in one} for one in facts.chains)
    return {name: k for own in widths for name, k in effect.kept_of(own, keep, layers).items()}


def weight_of(network: nn.Module, layer: str) -> Tensor:
    return network.get_parameter(f"{layer}.weight")


# --- facts ------------------------------------------------------------------------------------------------------------


def test_the_chains_of_a_transformer() -> None:
    """2 * 7 * 8 * 10 FLOPs of each linear layer, and twice as many backward: what goes in needs a gradient."""
    facts = facts_named("transformer", transformer())
    assert facts.chain == ()
    assert facts.inner == tuple(
        (
            ChainLayer(name=f"blocks.{i}.feedforward.0", width=10, forward_flops=1120, backward_flops=2240),
            ChainLayer(name=f"blocks.{i}.feedforward.2", width=8, forward_flops=1120, backward_flops=2240),
        )
        for i in (0, 1)
    )
    assert config.build(TaskFacts, config.to_plain(facts)) == facts


@pytest.mark.parametrize("name", NETWORKS)
def test_what_can_be_pruned(name: str) -> None:
    assert facts_named(name, used(name)).prunable == PRUNED[name]


def test_a_first_layer_sends_no_gradient_to_the_inputs() -> None:
    facts = facts_of(Stages())
    (first, second), _ = facts.inner
    assert (first.forward_flops, first.backward_flops) == (2 * 64 * 5 * 18, 2 * 64 * 5 * 18)
    assert (second.forward_flops, second.backward_flops) == (2 * 4 * 6 * 45, 2 * 2 * 4 * 6 * 45)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.5, 0.01, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_facts_are_those_counted_on_the_pruned_network(name: str, keep: float) -> None:
    cheap = effect.PickBudget(candidates=1, repeats=1)
    for layers in (None, *((layer,) for layer in PRUNED[name])):
        network = used(name)
        dense = facts_named(name, network)
        kept = halves(dense, keep, layers)
        assert set(kept) == set(layers or PRUNED[name])
        surgery.prune(network, kept, cheap, examples_for(name), rng())
        assert effect.pruned_facts(dense, kept) == facts_named(name, network)
        assert {layer: len(weight_of(network, layer)) for layer in kept} == kept


def test_layers_one_after_the_other_are_all_at_once() -> None:
    for name in NETWORKS:
        dense = facts_named(name, used(name))
        now = dense
        for layer, k in halves(dense).items():
            now = effect.pruned_facts(now, {layer: k})
        assert now == effect.pruned_facts(dense, halves(dense))


# --- networks that stay as they are -----------------------------------------------------------------------------------


class Around(nn.Module):
    """A chain that a network uses in its own way, on images of 2x8x8.

    Args:
        layers: of the chain, on rows of 8 numbers.
        use: what comes of a row.
    """

    def __init__(self, layers: Sequence[nn.Module], use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers, self.use = nn.Sequential(*layers), use
        self.head = nn.LazyLinear(NUM_OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.use(self, x).flatten(1))
        return logits


def around(*layers: nn.Module, use: Callable[[Any, Tensor], Tensor] = lambda own, x: own.layers(x)) -> nn.Module:
    network = Around(layers, use)
    network(torch.zeros(2, *IMAGE))
    return network


def two() -> tuple[nn.Module, ...]:
    return nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)


class Tied(nn.Module):
    """A layer outside of the chain has its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*two())
        self.other = nn.Linear(8, 6)
        self.other.weight = self.layers[0].weight  # type: ignore[assignment]
        self.head = nn.Linear(16 * 14, NUM_OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(torch.cat([self.layers(x), self.other(x)], dim=3).flatten(1))
        return logits


def frozen() -> nn.Module:
    network = around(*two())
    network.layers[0].weight.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    return network


def shared() -> nn.Module:
    relu = nn.ReLU()
    return around(nn.Linear(8, 6), relu, nn.Linear(6, 6), relu, nn.Linear(6, 8))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "called twice": lambda: around(*two(), use=lambda own, x: own.layers(own.layers(x))),
    "called layer by layer": lambda: around(
        *two(), use=lambda own, x: own.layers[2](own.layers[0](x)) + own.layers[0](x).mean()
    ),
    "each layer once, outputs used apart": lambda: around(
        *two(), use=lambda own, x: torch.cat([h := own.layers[0](x), own.layers[2](h.relu())], dim=3)
    ),
    "never called": lambda: around(*two(), use=lambda own, x: x),
    "weights tied": Tied,
    "a layer in two places": shared,
    "frozen": frozen,
    "places flattened": lambda: around(nn.Linear(8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 8)),
    "batch norm of places": lambda: around(
        nn.Linear(8, 6), nn.BatchNorm1d(8), nn.Linear(6, 8), use=lambda own, x: own.layers(x[:, 0])
    ),
    "pooling over places": lambda: around(nn.Linear(8, 6), nn.MaxPool2d(2), nn.Linear(3, 8)),
    "softmax": lambda: around(nn.Linear(8, 6), nn.Softmax(3), nn.Linear(6, 8)),
    "linear before convolution": lambda: around(nn.Linear(8, 6), nn.ReLU(), nn.Conv2d(2, 3, 3)),
    "linear on rows of maps": lambda: around(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Linear(6, 8)),
    "grouped convolution": lambda: around(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)),
    "channels made examples": lambda: around(
        *(nn.Conv2d(2, 4, 8), nn.Flatten(0, 1), nn.Flatten(), nn.Linear(1, 3)),
        use=lambda own, x: own.layers(x).unflatten(0, (-1, 4)),
    ),
    "resnet18": lambda: models.resnet18((3, 8, 8), NUM_OUTPUTS),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pruned(name: str) -> None:
    facts = facts_of(REFUSED[name](), (3, 8, 8) if name == "resnet18" else IMAGE)
    assert facts.chains == ()
    assert Prune().why_not(Recipe(lr=0.1, epochs=1, batch_size=8), facts) == (
        "transition prune needs a model that is or contains an nn.Sequential of linear or convolution layers, two "
        "at least, "
        "and this one has none. Use e.g. mlp, cnn or transformer, or another transition."
    )


def test_the_same_around_a_plain_chain_can_be_pruned() -> None:
    """So that what is refused above is refused for its own reason."""
    assert facts_of(around(*two())).prunable == ("layers.0",)
    flat = around(nn.Flatten(), nn.Linear(128, 6), nn.BatchNorm1d(6), nn.Flatten(), nn.Linear(6, 8))
    assert facts_of(flat).prunable == ("layers.1",)
    maps = around(nn.Conv2d(2, 4, 8), nn.Flatten(), nn.Linear(4, 3))
    assert facts_of(maps).prunable == ("layers.0",)


# --- picks ------------------------------------------------------------------------------------------------------------


def home_of(network: nn.Module, layer: str) -> tuple[str, nn.Sequential, int]:
    """The `nn.Sequential` with the chain of a layer: its name, itself without containers inside, the layer's place."""
    [home] = [name for name, leaves in chain.inner_links(network).items() if layer in dict(leaves)]
    module, target = network.get_submodule(home), network.get_submodule(layer)
    flat = nn.Sequential(*(module.get_submodule(name) for name in chain.blocks(module)))
    return home, flat, next(i for i, leaf in enumerate(flat) if leaf is target)


def with_home(network: nn.Module, home: str, inside: nn.Sequential) -> nn.Module:
    """A network in float64 with another `nn.Sequential` in the place of its own."""
    if not home:
        return inside
    twin = copy.deepcopy(network).double().eval()
    parent, _, name = home.rpartition(".")
    setattr(twin.get_submodule(parent), name, inside)
    return twin


def exact_inputs(given: surgery.Examples) -> Tensor:
    return given.inputs.double() if given.inputs.is_floating_point() else given.inputs


@pytest.mark.parametrize("effort", [EXACT, effect.PickBudget(candidates=3, repeats=2.0)], ids=["exact", "sampled"])
@pytest.mark.parametrize(("name", "layer"), CASES)
@torch.no_grad()
def test_picks_and_the_narrow_network_are_those_of_the_oracle(name: str, layer: str, effort: effect.PickBudget) -> None:
    """Which evaluates a network built anew for every candidate; and the average over the picks, in one of copies."""
    network, given, own = used(name), examples_for(name), rng(5)
    before = copy.deepcopy(network)
    home, flat, place = home_of(before, layer)
    kept = len(weight_of(network, layer)) // 2
    surgery.prune(network, {layer: kept}, effort, given, rng(5))

    def loss(twin: nn.Module) -> float:
        assert isinstance(twin, nn.Sequential)
        outputs = with_home(before, home, twin)(exact_inputs(given))
        return float(cross_entropy(outputs, given.targets).mean())

    def candidates(allowed: list[int]) -> list[int]:
        n = len(allowed) if effort.candidates == "all" else min(effort.candidates, len(allowed))
        return forward_selection.draw(torch.tensor(allowed), n, own).tolist()

    picked = oracles.greedy_units(flat, place, kept, effort.picks(kept), loss, candidates)
    stay = sorted(set(picked))
    assert torch.equal(weight_of(network, layer), weight_of(before, layer)[stay])
    expected = with_home(before, home, oracles.with_units(flat, place, picked))(exact_inputs(given))
    torch.testing.assert_close(network(given.inputs).double(), expected, rtol=1e-4, atol=1e-4)
    assert float((expected - before.double()(exact_inputs(given))).abs().max()) > 1e-2  # it is another network


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_unit_once_is_the_network_as_it_was(name: str) -> None:
    """As the losses of candidates have it: all units of a layer together give the network's own outputs."""
    network, given = used(name), examples_for(name)
    for leaves in chain.inner_links(network).values():
        modules = [module for _, module in leaves]
        places = [i for i, module in enumerate(modules) if chain.is_weighted(module)]
        for here, there in itertools.pairwise(places):
            layer: Any = modules[there]
            rest = forward_selection.RemainingForward(network, layer, given.inputs)
            interface = forward_selection.LayerInterface(
                activations=surgery.by_unit(modules[here:there], rest.activations(), layer),
                layer=layer,
                after=(rest,),
                losses=cross_entropy,
                targets=given.targets,
                most_candidates=1,
            )
            units = torch.arange(interface.width)
            summed = interface.contributions(units).sum(0)
            torch.testing.assert_close(interface.outputs(summed, len(units)), network(given.inputs))
            expected = cross_entropy(network(given.inputs), given.targets).double().mean()
            torch.testing.assert_close(interface.mean_losses(summed[None], len(units)), expected[None])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_flops_are_those_counted(name: str) -> None:
    effort = effect.PickBudget(candidates=2, repeats=1.5)
    for layers in (None, PRUNED[name][1:2]):
        network = used(name)
        dense = facts_named(name, network)
        kept = halves(dense, layers=layers)
        with FlopCounterMode(display=False) as counter:
            surgery.prune(network, kept, effort, examples_for(name, 20), rng())
        assert counter.get_total_flops() == effect.flops(dense, kept, effort, 20)


def test_the_price_of_a_transformer() -> None:
    """Each of 2 layers: a pass, and 5 candidates of 8 picks; the second in the network with 5 units fewer."""
    dense = facts_named("transformer", transformer())
    own, forward = 2 * 7 * 8, dense.forward_flops
    kept = halves(dense)
    told = effect.flops(dense, kept, effect.PickBudget(candidates=5, repeats=1.5), 3)
    assert told == 3 * (forward + 8 * 5 * (own + forward) + (narrow := forward - 10 * own) + 8 * 5 * (own + narrow))


def test_places_of_padding_do_not_count() -> None:
    """What the network has for the token of padding changes neither picks nor weights."""
    found = []
    for shift in (0.0, 5.0):
        torch.manual_seed(3)
        network, given = used("transformer"), examples_for("transformer")
        assert bool((given.inputs == 0).any())
        with torch.no_grad():
            network.tokens.weight[0] += shift  # type: ignore[operator, union-attr, index]
        surgery.prune(network, dict.fromkeys(PRUNED["transformer"], 5), EXACT, given, rng())
        found.append({name: p for name, p in network.named_parameters() if name != "tokens.weight"})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", ["transformer", "examples first", "stages"])
def test_losses_are_those_of_evaluation_and_the_mode_comes_back(name: str) -> None:
    """Dropout and the statistics of a batch change nothing; no hook is left behind."""
    found = []
    for training in (True, False):
        torch.manual_seed(3)
        network, given = used(name), examples_for(name)
        parameters = dict(network.named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        torch.manual_seed(int(training))
        kept = dict.fromkeys(PRUNED[name], 3)
        surgery.prune(network.train(training), kept, effect.PickBudget(candidates=4, repeats=1.5), given, rng())
        assert all(module.training == training for module in network.modules())
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
        assert all(p is parameters[key] and p.grad is None for key, p in network.named_parameters())
        found.append(network)
    assert same_bits(*found)


def test_a_hook_is_not_left_behind_by_an_error() -> None:
    network, given = used("transformer"), examples_for("transformer")
    with torch.no_grad():
        network.head.output.bias.fill_(torch.nan)  # type: ignore[operator, union-attr]
    with pytest.raises(ModelDivergedError, match=r"^the network that is pruned left the finite numbers.$"):
        surgery.prune(network.train(), {PRUNED["transformer"][0]: 2}, EXACT, given, rng())
    assert network.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_fitted_to_weights(name: str) -> None:
    network, given = used(name), examples_for(name)
    surgery.prune(network, dict.fromkeys(PRUNED[name], 3), effect.PickBudget(candidates=1, repeats=1), given, rng())
    fresh = NETWORKS[name]().eval()
    kept = {key: id(p) for key, p in fresh.named_parameters()}
    surgery.fit_shapes(fresh, network.state_dict())
    fresh.load_state_dict(network.state_dict())
    assert same_bits(fresh, network)
    assert str(fresh) == str(network)
    assert {key: id(p) for key, p in fresh.named_parameters()} == kept
    assert torch.equal(fresh(given.inputs), network(given.inputs))


# --- policies and runs ------------------------------------------------------------------------------------------------

FEEDFORWARD = PRUNED["transformer"]


def test_one_phase_for_each_layer_that_is_pruned() -> None:
    facts = replace(facts_named("transformer", transformer()), reference_passes=4.0)
    given = {"budget": 0.5, "switch": 0.4, "subset_share": 0.2, "transition": "prune", "prune.keep": 0.25}
    policy = from_coordinates({**given, "prune.between": 0.5}, facts)
    assert [phase.passes for phase in policy.phases] == pytest.approx([0.8, 0.6, 0.6])
    assert [phase.transition_options for phase in policy.phases[1:]] == [
        {"keep": 0.25, "layers": (name,)} for name in FEEDFORWARD
    ]


TRANSFORMER = {"name": "transformer", "width": 8, "depth": 2, "heads": 2, "feedforward": 16, "dropout": 0.1}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Phrases of 3 to 6 words, by whether one of them is warm or cold, and a transformer of two blocks."""
    path = tmp_path_factory.mktemp("texts") / "phrases.tsv"
    words = ("a", "day", "of", "sun", "rain", "wind")
    rows = [
        " ".join([*(words[(i * k) % 6] for k in range(1, 3 + i % 4)), ("cold", "warm")[i % 2]]) + f"\t{i % 2}"
        for i in range(150)
    ]
    path.write_text("\n".join(["sentence\tlabel", *rows, ""]))
    raw = {
        "data": {"source": str(path), "text": "sentence", "label": "label", "max_tokens": 6},
        "split": {"validation": 0.1, "test": 0.2},
        "model": TRANSFORMER,
        "recipe": {"optimizer": "adamw", "lr": 0.01, "batch_size": 16, "epochs": 6},
        "metric": "accuracy",
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


ORDERS = {
    "uniform": {},
    "sift": {"exit": "blocks.0", "keep": 0.5},
    "selective_backprop": {"keep": 0.3},
    "rs2": {},
}


def policy_of(first: float, second: float, order: str = "uniform", **transition_options: Any) -> Policy:
    """A subset phase and a pruned one."""
    given = FrozenDict({"examples": 24, "candidates": 2, **transition_options})
    phases = Phase(share=0.4, passes=first), Phase(passes=second, transition="prune", transition_options=given)
    return Policy(phases=tuple(replace(p, order=order, order_options=FrozenDict(ORDERS[order])) for p in phases))


def run(task: Task, policy: Policy, report: Any = None, **changes: Any) -> train.RunResult:
    plain = {"keep_model": True, "splits": ("test",), **changes}
    return train.run(task, policy, 3, report=report, options=options(**plain))


@dataclass(frozen=True)
class Spent:
    """What a ledger and a projection are compared by."""

    select: int
    forward: int
    backward: int
    updates: int


def assert_projected(task: Task, policy: Policy, result: train.RunResult) -> None:
    stretches = project(resolve(policy, task.recipe, train.facts(task)))
    told = {name: sum(getattr(s.ledger, name) for s in stretches) for name in ("select", "forward", "backward")}
    own = {name: getattr(result.ledger, name) for name in told}
    assert Spent(**own, updates=result.updates) == Spent(**told, updates=sum(s.updates for s in stretches))
    assert policy.cost(train.facts(task)) >= result.ledger.spent
    assert stretches[-1].ledger.select > 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_projection_is_the_ledger(texts: Task, order: str) -> None:
    last = policy_of(1.3, 6.0, order).phases[1]
    policies = (
        policy_of(1.3, 6.0, order),
        policy_of(1.3, 6.0, order, layers=[FEEDFORWARD[1]]),
        Policy(phases=(*policy_of(1.3, 6.0, order).phases, replace(last, passes=3.0))),
    )
    for policy in policies:
        result = run(texts, policy)
        assert result.cause == "finished"
        assert_projected(texts, policy, result)


def test_the_pruned_network_is_smaller_and_learns(texts: Task) -> None:
    result = run(texts, policy_of(1.0, 25.0, keep=0.25))
    assert result.metrics["test"] > 0.9
    assert result.model is not None
    assert [tuple(weight_of(result.model, name).shape) for name in FEEDFORWARD] == [(4, 8), (4, 8)]
    assert tuple(weight_of(result.model, "blocks.1.feedforward.2").shape) == (8, 4)


def test_keeping_everything_is_the_plain_run(texts: Task) -> None:
    plain = run(texts, Policy(phases=(Phase(share=0.4, passes=0.5), Phase(passes=1.0))))
    neutral = run(texts, policy_of(0.5, 1.0, keep=1.0))
    assert_same(plain, neutral)
    assert neutral.ledger.select == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["uniform", "sift"])
def test_interrupted_before_and_after_the_pruning(texts: Task, tmp_path: Path, order: str) -> None:
    policy, settings = policy_of(0.8, 5.5, order), {"evaluations": 40}
    whole = run(texts, policy, **settings)
    assert [point.phase for point in whole.curve].count(0) >= 3
    assert [point.phase for point in whole.curve].count(1) >= 3
    for every_s in (ALWAYS, 1e9):
        for number in range(1, len(whole.curve), 4):
            kept = {**settings, "checkpoints": str(tmp_path / f"{every_s}-{number}"), "checkpoint_every_s": every_s}
            with pytest.raises(InterruptedRunError):
                run(texts, policy, interrupt_after(number), **kept)
            assert_same(run(texts, policy, **kept), whole)


def test_too_little_compute_is_told_before_the_run(texts: Task) -> None:
    """The defaults cost more than a short phase has."""
    policy = Policy(phases=(Phase(share=0.4, passes=1.0), Phase(passes=2.0, transition="prune")))
    message = (
        r"^phase 2 has 2 passes, and its transition prune needs \d+, the last update before it included. Give the "
    )
    with pytest.raises(ConfigError, match=message):
        run(texts, policy)


def test_layers_that_are_not_there(texts: Task) -> None:
    message = (
        r"^layers must be some of blocks.0.feedforward.0, blocks.1.feedforward.0 for the transition prune, got "
        r"\['blocks.0.feedforward.2'\].$"
    )
    with pytest.raises(ConfigError, match=message):
        run(texts, policy_of(1, 20, layers=["blocks.0.feedforward.2"]))


def test_images_and_batch_norm_inside(tiny_data: dict[str, str]) -> None:
    task = image_task(tiny_data, {"name": "tests.train.pruning.test_prune_inner:on_images"})
    for order in ("uniform", "selective_backprop"):
        policy = policy_of(1.3, 6.0, order)
        result = run(task, policy)
        assert result.model is not None
        assert len(weight_of(result.model, "features.0")) == 2
        assert_projected(task, policy, result)


def on_images(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    network = Stages()
    network.features[0] = nn.Conv2d(input_shape[0], 5, 3, padding=1, bias=False)
    return network


def test_the_command_line_saves_a_network_that_can_be_loaded(
    texts: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.json"
    plain = config.to_plain(texts)
    study.write_text(json.dumps({"task": plain, "space": {"arm": "full", "budget": 0.5}, "study": {"trials": 1}}))
    policy, weights = tmp_path / "policy.json", tmp_path / "weights.pt"
    policy.write_text(json.dumps(policy_of(1.0, 16.0).to_mapping()))
    command = ["train", str(study), "--policy", str(policy), "--seed", "3", "--save", str(weights), "--device", "cpu"]
    assert cli.main(command) == 0
    assert "subsettune.train.pruning.surgery.fit_shapes" in capsys.readouterr().out
    state = torch.load(weights, weights_only=True)
    tokens = len(state["tokens.weight"])
    network = models.make(config.build(Model, TRANSFORMER), (6,), 2, tokens)
    surgery.fit_shapes(network, state)
    network.load_state_dict(state)
    assert [tuple(weight_of(network, name).shape) for name in FEEDFORWARD] == [(8, 8), (8, 8)]
