"""Pruning: its picks against an oracle, the narrower network against what was picked, its price, and runs with it."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from contracts import entered, network_and_optimizer
from fake_inputs import changed
from fakes import image_task, options, same_bits, value_task
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from subsettune import cli, config, models, train
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, ModelDivergedError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select.network import anatomy
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.spec.space_check import read_space
from subsettune.study.spec.yaml_file import read
from subsettune.task import Model, Recipe, Task
from subsettune.train import flops, transitions
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.pruning import effect, forward_selection, surgery
from subsettune.train.pruning import layers as chain
from subsettune.train.transitions.prune import Prune

Data = dict[str, str]
SHAPE, NUM_OUTPUTS = (2, 8, 8), 4
EXACT = effect.PickBudget(candidates="all", repeats=1.5)


# --- networks ---------------------------------------------------------------------------------------------------------


def norms(input_shape: tuple[int, ...], num_outputs: int) -> nn.Sequential:
    """A user's own: batch norms on both sides of a Flatten, and a convolution with odd options."""
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 5, 3, padding=2, dilation=2, padding_mode="circular"), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, 7), nn.BatchNorm1d(7), nn.GELU(), nn.Dropout(0.2)),
        nn.Linear(7, num_outputs),
    )


def nested(input_shape: tuple[int, ...], num_outputs: int) -> nn.Sequential:
    """A user's own: containers inside each other, with names."""
    body = nn.Sequential(nn.Conv2d(input_shape[0], 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    network = nn.Sequential()
    network.add_module("body", body)
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Sequential(nn.Linear(24, 9, bias=False), nn.Sigmoid(), nn.Linear(9, num_outputs)))
    return network


def mlp(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return models.mlp(input_shape, num_outputs, hidden=[12, 10], dropout=0.1)


def cnn(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return models.cnn(input_shape, num_outputs, channels=[5, 6], hidden=8)


NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "norms": norms,
    "nested": nested,
}


def used(build: Callable[..., nn.Module]) -> nn.Sequential:
    """A network whose statistics and biases are not those of the initialisation."""
    network = build(SHAPE, NUM_OUTPUTS)
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(20):
            network(torch.randn(16, *SHAPE) + 0.3)
    return network.eval()


def examples(n: int = 40) -> surgery.Examples:
    inputs, targets = torch.randn(n, *SHAPE), torch.arange(n) % NUM_OUTPUTS
    return surgery.Examples(inputs=inputs, targets=targets, losses=cross_entropy)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def facts_of(network: nn.Module) -> TaskFacts:
    """Facts as a task has them, of a network as it stands."""
    probe = flops.Probe(input_shape=SHAPE)
    cost = flops.count(network, probe, NUM_OUTPUTS)
    parts = anatomy(network, torch.zeros(2, *SHAPE))
    visits = {name: visit for name, visit in flops.visits(network, probe, cost).items() if name in parts.layers}
    return TaskFacts(
        num_examples=100,
        num_outputs=NUM_OUTPUTS,
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


def widths(network: nn.Module) -> dict[str, int]:
    """Units of each weighted layer of a chain, by name, in order."""
    return {name: len(m.weight) for name, m in chain.links(network) or [] if chain.is_weighted(m)}  # type: ignore[arg-type]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- picks ------------------------------------------------------------------------------------------------------------


def junction_of(network: nn.Sequential, number: int, given: surgery.Examples) -> forward_selection.LayerInterface:
    """What is behind the layer of a number among those with weights."""
    values = given.inputs
    with torch.no_grad():
        for _, stretch, following in itertools.islice(surgery.stretches(network), number + 1):
            for module in stretch:
                values = module(values)
            layer, after = following[0], following[1:]
    return forward_selection.LayerInterface(
        activations=surgery.by_unit(stretch, values, layer),
        layer=layer,
        after=after,
        losses=given.losses,
        targets=given.targets,
    )


def flat(network: nn.Sequential) -> nn.Sequential:
    """The same layers without containers inside, as oracles want it; and places as numbers."""
    return nn.Sequential(*(module for _, module in chain.links(network) or []))


CASES = [("mlp", 0), ("mlp", 1), ("cnn", 0), ("cnn", 1), ("cnn", 2), ("norms", 0), ("norms", 1), ("norms", 2)]


@pytest.mark.parametrize("effort", [EXACT, effect.PickBudget(candidates=3, repeats=2.0)], ids=["exact", "sampled"])
@pytest.mark.parametrize(("name", "number"), CASES)
@torch.no_grad()
def test_picks_are_those_of_the_oracle(name: str, number: int, effort: effect.PickBudget) -> None:
    network, given = used(NETWORKS[name]), examples()
    width = list(widths(network).values())[number]
    kept, own = width // 2, rng(5)
    counts = forward_selection.select(junction_of(network, number, given), kept, effort, rng(5))

    def loss(twin: nn.Module) -> float:
        return float(cross_entropy(twin(given.inputs.double()), given.targets).mean())

    def candidates(allowed: list[int]) -> list[int]:
        n = len(allowed) if effort.candidates == "all" else min(effort.candidates, len(allowed))
        return forward_selection.draw(torch.tensor(allowed), n, own).tolist()

    place = [i for i, module in enumerate(flat(network)) if chain.is_weighted(module)][number]
    picked = oracles.greedy_units(flat(network), place, kept, effort.picks(kept), loss, candidates)
    assert counts.tolist() == [picked.count(unit) for unit in range(width)]
    assert (int((counts > 0).sum()), int(counts.sum())) == (kept, effort.picks(kept))


@pytest.mark.parametrize(("name", "number"), [*CASES, ("nested", 0), ("nested", 1)])
@torch.no_grad()
def test_the_narrow_network_is_the_average_over_the_picks(name: str, number: int) -> None:
    """With any counts: really copying units into a wide network gives the same outputs."""
    network, given = used(NETWORKS[name]), examples()
    width = list(widths(network).values())[number]
    counts = torch.randint(0, 4, (width,), generator=rng(1))
    counts[0] = 3
    place = [i for i, module in enumerate(flat(network)) if chain.is_weighted(module)][number]
    units = [unit for unit in range(width) for _ in range(int(counts[unit]))]
    expected = oracles.with_units(flat(network), place, units)(given.inputs.double())
    found = junction_of(network, number, given)
    summed = found.contributions(torch.tensor(units)).sum(0)
    torch.testing.assert_close(found.outputs(summed, len(units)).double(), expected, rtol=1e-4, atol=1e-5)
    _, stretch, following = list(surgery.stretches(network))[number]
    surgery.cut(stretch, following[0], counts)
    torch.testing.assert_close(network(given.inputs).double(), expected, rtol=1e-4, atol=1e-5)
    assert list(widths(network).values())[number] == int((counts > 0).sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_once_is_the_network_as_it_was(name: str) -> None:
    network = used(NETWORKS[name])
    before = copy.deepcopy(network)
    for _, stretch, following in surgery.stretches(network):
        width = surgery.width_of(stretch)
        surgery.cut(stretch, following[0], torch.ones(width, dtype=torch.int64))
    assert same_bits(network, before)
    surgery.cut(stretch, following[0], torch.full((width,), 3))
    given = examples().inputs
    torch.testing.assert_close(network(given), before(given))


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_candidates_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = used(NETWORKS[name]), examples()
    found = []
    for most in (2**24, forward_selection.MOST_NUMBERS["cpu"], 1):
        monkeypatch.setattr(forward_selection, "MOST_NUMBERS", {"cpu": most})
        interface = junction_of(network, 0, given)
        assert (interface.candidates_at_a_time() == 1) == (most == 1)
        with torch.no_grad():
            found.append(forward_selection.select(interface, 3, EXACT, rng()).tolist())
    assert found[0] == found[1]


def test_of_equal_candidates_the_first_is_picked() -> None:
    """Units without any effect."""
    network = used(mlp)
    with torch.no_grad():
        network[-1].weight.zero_()
        counts = forward_selection.select(junction_of(network, 1, examples()), 2, EXACT, rng())
    assert counts.tolist() == [2, 1, *[0] * 8]


def test_infinite_losses_are_told() -> None:
    network = used(mlp)
    with torch.no_grad():
        network[-1].bias.fill_(torch.nan)
        with pytest.raises(ModelDivergedError, match=r"^the network that is pruned left the finite numbers.$"):
            forward_selection.select(junction_of(network, 1, examples()), 2, EXACT, rng())
        network[-1].bias.fill_(3e38)
        overflowing = replace(
            junction_of(network, 1, examples()), losses=lambda outputs, _: outputs.square().mean(dim=1)
        )
        assert overflowing.mean_losses(overflowing.contributions(torch.arange(2)), 1).tolist() == [torch.inf] * 2
        with pytest.raises(ModelDivergedError, match=r"^the network that is pruned left the finite numbers.$"):
            forward_selection.select(overflowing, 2, EXACT, rng())


# --- the narrower network ---------------------------------------------------------------------------------------------


def pruned(name: str, keep: float = 0.5, layers: tuple[str, ...] | None = None) -> tuple[nn.Sequential, dict[str, int]]:
    network = used(NETWORKS[name])
    kept = effect.kept_of(widths(network), keep, layers)
    surgery.prune(network, kept, EXACT, examples(), rng())
    return network, kept


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_really_smaller(name: str) -> None:
    network, kept = pruned(name)
    before = widths(used(NETWORKS[name]))
    assert widths(network) == {**before, **kept}
    assert kept == {layer: round(width / 2) for layer, width in list(before.items())[:-1]}
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in used(NETWORKS[name]).parameters())
    for layer, width in kept.items():
        assert re.search(rf"\b{width}\b", str(network.get_submodule(layer)))  # it says so itself
    network.train()(torch.randn(8, *SHAPE)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())


@torch.no_grad()
def test_picks_are_better_than_random_ones() -> None:
    """Than any of 30 draws, on targets that the network itself gives."""
    network, given = used(mlp), examples(200)
    network[-1].weight.mul_(4)
    told = surgery.Examples(inputs=given.inputs, targets=network(given.inputs).argmax(1), losses=cross_entropy)
    interface = junction_of(network, 1, told)

    def loss(counts: Tensor) -> float:
        units = torch.repeat_interleave(torch.arange(10), counts)
        return float(interface.mean_losses(interface.contributions(units).sum(0, keepdim=True), len(units)))

    draws = [torch.zeros(10, dtype=torch.int64).index_fill(0, torch.randperm(10)[:5], 1) for _ in range(30)]
    assert loss(forward_selection.select(interface, 5, EXACT, rng())) < 0.9 * min(loss(counts) for counts in draws)


@pytest.mark.parametrize("keep", [0.5, 0.01, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_facts_are_those_counted_on_the_pruned_network(name: str, keep: float) -> None:
    dense = facts_of(used(NETWORKS[name]))
    assert len(dense.chain) >= 3
    for layers in (None, (dense.chain[0].name,), (dense.chain[1].name,)):
        network, kept = pruned(name, keep, layers)
        assert effect.pruned_facts(dense, kept) == facts_of(network)


@pytest.mark.parametrize("candidates", ["all", 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_flops_are_those_counted(name: str, candidates: Any) -> None:
    """Two candidates are left for every pick; of all, the last picks have fewer, which only lowers the count."""
    effort = effect.PickBudget(candidates=candidates, repeats=1.5)
    for layers in (None, (list(widths(used(NETWORKS[name])))[1],)):
        network, given = used(NETWORKS[name]), examples(30)
        dense = facts_of(network)
        kept = effect.kept_of(widths(network), 0.5, layers)
        with FlopCounterMode(display=False) as counter:
            surgery.prune(network, kept, effort, given, rng())
        told = effect.flops(dense, kept, effort, 30)
        assert counter.get_total_flops() == told if candidates == 2 else told / 2 < counter.get_total_flops() <= told


def test_shapes_are_fitted_to_weights() -> None:
    for name, build in NETWORKS.items():
        network, _ = pruned(name)
        fresh = build(SHAPE, NUM_OUTPUTS).eval()
        kept = {key: id(p) for key, p in fresh.named_parameters()}
        surgery.fit_shapes(fresh, network.state_dict())
        fresh.load_state_dict(network.state_dict())
        assert same_bits(fresh, network)
        assert str(fresh) == str(network)
        assert {key: id(p) for key, p in fresh.named_parameters()} == kept
        assert torch.equal(fresh(torch.ones(2, *SHAPE)), network(torch.ones(2, *SHAPE)))


def test_shapes_that_no_pruning_makes_stay() -> None:
    network = mlp(SHAPE, NUM_OUTPUTS)
    before = copy.deepcopy(network)
    for other in (models.mlp(SHAPE, NUM_OUTPUTS, hidden=[13, 10]), models.cnn(SHAPE, NUM_OUTPUTS)):
        surgery.fit_shapes(network, other.state_dict())
        assert str(network) == str(before)
    surgery.fit_shapes(network, before.state_dict())
    assert same_bits(network, before)


# --- what is a chain --------------------------------------------------------------------------------------------------


class Own(nn.Sequential):
    """A Sequential that is none."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the output."""
        return 2 * super().forward(x)


def shared() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 6), relu, nn.Linear(6, 6), relu, nn.Linear(6, 4))


def tied() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4))
    network[3].weight = network[2].weight
    return network


NO_CHAINS: dict[str, Callable[..., nn.Module]] = {
    "own forward": lambda: Own(nn.Flatten(), nn.Linear(128, 4), nn.Linear(4, 4)),
    "tied weights": tied,
    "a layer in two places": shared,
    "grouped convolution": lambda: nn.Sequential(nn.Conv2d(2, 4, 8, groups=2), nn.Flatten(), nn.Linear(4, 4)),
    "statistics of the batch": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(128, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 4)
    ),
    "units of places": lambda: nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)),
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.Softmax(1), nn.Linear(4, 4)),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_cannot_be_pruned(name: str) -> None:
    facts = facts_of(NO_CHAINS[name]())
    assert facts.chains == ()
    assert Prune().why_not(Recipe(lr=0.1, epochs=1, batch_size=8), facts) == (
        "transition prune needs a model that is or contains an nn.Sequential of linear or convolution layers, two "
        "at least, "
        "and this one has none. Use e.g. mlp, cnn or transformer, or another transition."
    )


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed_make_no_chain(norm: Callable[[nn.Module], nn.Module]) -> None:
    """Their FLOPs cannot be counted either."""
    assert chain.links(nn.Sequential(nn.Flatten(), norm(nn.Linear(128, 4)), nn.Linear(4, 4))) is None


# --- the transition ---------------------------------------------------------------------------------------------------


def test_options() -> None:
    made = transitions.make("prune", {"keep": 0.25, "layers": ["1"], "candidates": "all", "examples": 9, "repeats": 2})
    assert made == Prune(keep=0.25, layers=("1",), candidates="all", examples=9, repeats=2.0)
    assert transitions.make("prune", {"keep": 1}).is_neutral
    assert not transitions.make("prune", {}).is_neutral


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"keep": 0},
            r"^transition_options.keep: keep must be in \(0, 1\], got 0.0. It is a fraction, not a percentage",
        ),
        ({"layers": []}, r"^transition_options.layers: layers must be not empty, got \(\)."),
        ({"candidates": 0}, "^transition_options.candidates: candidates must be at least 1, or all, got 0."),
        ({"candidates": "some"}, "^transition_options.candidates: candidates must be "),
        ({"examples": 0}, "^transition_options.examples: examples must be at least 1, got 0."),
        ({"repeats": 0.5}, "^transition_options.repeats: repeats must be at least 1, got 0.5."),
        (
            {"share": 0.5},
            "^transition_options.share: unknown key. Known keys: candidates, examples, keep, layers, repeats.",
        ),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transitions.make("prune", wrong)


def test_the_mini_batch_is_of_the_pool() -> None:
    """Losses of examples outside of it would be those of a class of its own."""
    network, optimizer = network_and_optimizer()
    seen: list[Tensor] = []
    given = entered(network, optimizer, 4)
    assert given.part is not None

    class Watched:
        def __len__(self) -> int:
            return 6

        def batch(self, index: Tensor) -> Any:
            seen.append(index)
            assert given.part is not None
            return given.part.batch(index)

    pool = torch.tensor([4, 1, 2])
    Prune(keep=0.9).apply(replace(given, part=Watched(), pool=pool))  # 0.9 of 4 units are 4: nothing to do
    assert seen == []
    assert optimizer.state
    for size, expected in ((2, 2), (512, 3)):
        network, optimizer = network_and_optimizer()
        Prune(examples=size).apply(replace(given, network=network, optimizer=optimizer, part=Watched(), pool=pool))
        index = seen.pop()
        assert len(set(index.tolist())) == len(index) == expected
        assert set(index.tolist()) <= {4, 1, 2}
        assert not optimizer.state


def test_layers_that_are_not_there(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "cnn", "channels": [4, 5], "hidden": 6})
    policy = Policy(
        phases=(Phase(passes=1), Phase(passes=1, transition="prune", transition_options={"layers": ["0", "9"]}))
    )
    message = r"^layers must be some of 0, 3, 7 for the transition prune, got \['0', '9'\].$"
    with pytest.raises(ConfigError, match=message):
        train.run(task, policy, 0, options=options())


def test_models_that_cannot_be_pruned(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "fakes:Noisy"})
    with pytest.raises(
        ConfigError, match=r"^transition prune needs a model that is or contains an nn.Sequential of li"
    ):
        train.run(task, two(), 0, options=options())


# --- coordinates ------------------------------------------------------------------------------------------------------


COORDINATES = {"budget": 0.5, "switch": 0.4, "subset_share": 0.2, "transition": "prune", "prune.keep": 0.25}


def test_one_phase_for_each_layer_that_is_pruned() -> None:
    """Of 2 passes, 0.8 are before the switch; a third of 1.2 is spent between three prunings."""
    facts = replace(facts_of(used(cnn)), reference_passes=4.0)
    policy = from_coordinates({**COORDINATES, "prune.between": 1 / 3}, facts)
    assert [phase.passes for phase in policy.phases] == pytest.approx([0.8, 0.2, 0.2, 0.8])
    assert policy.passes == pytest.approx(2)
    assert [phase.transition for phase in policy.phases] == ["keep", "prune", "prune", "prune"]
    told = [phase.transition_options for phase in policy.phases[1:]]
    assert told == [{"keep": 0.25, "layers": (name,)} for name in ("0", "3", "7")]
    assert policy.switch == pytest.approx(0.4)
    some = from_coordinates({**COORDINATES, "prune.between": 0.5, "prune.layers": ["7", "0"]}, facts)
    assert [phase.passes for phase in some.phases] == pytest.approx([0.8, 0.6, 0.6])
    assert [phase.transition_options["layers"] for phase in some.phases[1:]] == [("0",), ("7",)]


def test_all_layers_at_once() -> None:
    facts = replace(facts_of(used(cnn)), reference_passes=4.0)
    plain = from_coordinates(COORDINATES, facts)
    assert [phase.passes for phase in plain.phases] == pytest.approx([0.8, 1.2])
    assert plain.phases[1].transition_options == {"keep": 0.25}
    assert from_coordinates({**COORDINATES, "prune.between": 0}, facts) == plain
    assert (
        from_coordinates({**COORDINATES, "prune.between": 0.3, "transition": "keep"}, facts).phases[1].transition
        == "keep"
    )
    for layers in (["3"], ["3", "99"]):  # nothing to spread, or for the transition to refuse
        one = from_coordinates({**COORDINATES, "prune.between": 0.3, "prune.layers": layers}, facts)
        assert [phase.passes for phase in one.phases] == pytest.approx([0.8, 1.2])


@pytest.mark.parametrize("wrong", [1, -0.1, True, "0.5"])
def test_what_is_spent_between_prunings_is_a_share(wrong: Any) -> None:
    message = rf"^prune.between must be in \[0, 1\), got {wrong!r}. A share of the compute after the switch.$"
    with pytest.raises(ConfigError, match=message):
        from_coordinates({**COORDINATES, "prune.between": wrong}, facts_of(used(cnn)))


def test_pruning_in_a_space(tmp_path: Path) -> None:
    raw = {
        "budget": 0.5,
        "switch": 0.4,
        "subset_share": 0.2,
        "transition": {"choice": ["keep", "prune"]},
        "prune.keep": {"uniform": [0.25, 1.0]},
        "prune.between": {"choice": [0, 0.5]},
    }
    facts = facts_of(used(cnn))
    space = read_space(raw)
    draws = np.random.default_rng(0)
    policies = [space.policy(space.sample(draws, "subset"), facts) for _ in range(40)]
    assert {len(policy.phases) for policy in policies} == {2, 4}
    assert {policy.phases[-1].transition for policy in policies} == {"keep", "prune"}
    with pytest.raises(
        ConfigError, match=r"prune.between must be in \[0, 1\), got 1. It is a share of the compute aft"
    ):
        read_space({**raw, "prune.between": 1})
    with pytest.raises(ConfigError, match=r"^switch.prior: prior must be left out, got 'threshold'. How much pre-tr"):
        read_space({**raw, "switch": {"uniform": [0.05, 0.9], "prior": "threshold"}})
    with pytest.raises(ConfigError, match=r"^budget.prior: unknown key. Known keys: choice, int, log, uniform, when."):
        read_space({**raw, "budget": {"uniform": [0.05, 0.9], "prior": "threshold"}})
    path = tmp_path / "study.json"
    path.write_text(json.dumps(changed({"space": {**raw, "prune.keep": 2, "prune.share": 0.5}})))
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "space.prune.keep: keep must be in (0, 1], got 2.0." in str(caught.value)
    assert "space.prune.share: unknown key. Known keys: candidates, " in str(caught.value)


# --- runs -------------------------------------------------------------------------------------------------------------

MODELS = {
    "mlp": {"name": "mlp", "hidden": [12, 10]},
    "cnn": {"name": "cnn", "channels": [4, 5], "hidden": 6, "dropout": 0.2},
    "norms": {"name": "tests.train.pruning.test_prune:norms"},
}


def two(first: float = 0.5, second: float = 1.0, share: float = 0.4, **transition_options: Any) -> Policy:
    """A subset phase and a pruned one."""
    given = FrozenDict({"examples": 64, "candidates": 4, **transition_options})
    rest = Phase(passes=second, transition="prune", transition_options=given)
    return Policy(phases=(Phase(share=share, passes=first), rest))


def train_on(task: Task, policy: Policy, **changes: Any) -> train.RunResult:
    return train.run(task, policy, 3, options=options(**{"keep_model": True, "splits": ("test",), **changes}))


def test_keeping_everything_is_the_plain_run(tiny_data: Data) -> None:
    task = image_task(tiny_data, MODELS["mlp"])
    plain = train_on(task, Policy(phases=(Phase(share=0.4, passes=0.5), Phase(passes=1.0))))
    neutral = train_on(task, two(keep=1.0))
    assert_same(plain, neutral)
    assert neutral.ledger.select == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [7, 19, 500])
def test_the_projection_is_the_ledger(tiny_data: Data, name: str, batch_size: int) -> None:
    task = image_task(tiny_data, MODELS[name], batch_size=batch_size)
    first = train.facts(task).chain[0].name
    policies = [
        two(1.3, 2.7),
        two(1.3, 2.7, share=1.0, layers=[first]),
        Policy(phases=(*two(1.3, 2.7).phases, *two(1, 1.9, layers=[first]).phases[1:])),
    ]
    for policy in policies:
        result = train_on(task, policy)
        stretches = project(resolve(policy, task.recipe, train.facts(task)))
        spent = [getattr(result.ledger, purpose) for purpose in ("select", "forward", "backward")]
        assert spent == [sum(getattr(s.ledger, p) for s in stretches) for p in ("select", "forward", "backward")]
        assert result.updates == sum(s.updates for s in stretches)
        assert stretches[1].ledger.select > 0
        assert policy.cost(train.facts(task)) >= result.ledger.spent


ORDERS = {"sift": {"exit": 0.6}, "selective_backprop": {"keep": 0.3}, "rs2": {}}


def ordered(order: str, first: float = 1.3, second: float = 2.7) -> Policy:
    """As `two`, in an order."""
    given = FrozenDict(ORDERS[order])
    return Policy(phases=tuple(replace(p, order=order, order_options=given) for p in two(first, second).phases))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_priced_by_the_network_of_each_phase(tiny_data: Data, name: str, order: str) -> None:
    """An exit of the narrower network costs less."""
    task, policy = image_task(tiny_data, MODELS[name]), ordered(order)
    result = train_on(task, policy)
    stretches = project(resolve(policy, task.recipe, train.facts(task)))
    spent = [getattr(result.ledger, purpose) for purpose in ("select", "forward", "backward")]
    assert spent == [sum(getattr(s.ledger, p) for s in stretches) for p in ("select", "forward", "backward")]
    assert result.updates == sum(s.updates for s in stretches)


def test_the_pruned_phase_makes_more_updates(tiny_data: Data) -> None:
    """And its model is the small one, with which it was measured."""
    task = image_task(tiny_data, MODELS["mlp"])
    dense, small = train_on(task, two(0.5, 5.0, keep=1.0)), train_on(task, two(0.5, 5.0, keep=0.5))
    assert small.updates > 1.7 * dense.updates
    assert abs(small.ledger.spent - dense.ledger.spent) < 16 * train.facts(task).example_flops
    assert small.model is not None
    assert widths(small.model) == {"1": 6, "3": 5, "5": 4}
    evaluated = dense.ledger.evaluate / train.facts(task).forward_flops
    assert small.ledger.evaluate < dense.ledger.evaluate
    assert evaluated == int(evaluated)


def test_a_network_that_diverged_is_not_pruned(tiny_data: Data) -> None:
    task = image_task(tiny_data, MODELS["mlp"], lr=1e12)
    result = train_on(task, two(0.3, 3.0))
    assert result.cause == "diverged"
    assert result.message.startswith("the network that is pruned left the finite numbers.")


def test_regression_can_be_pruned(tiny_data: Data) -> None:
    plain = config.to_plain(value_task(tiny_data, lr=0.02))
    task = config.build(Task, {**plain, "model": {"name": "mlp", "hidden": [16]}})
    result = train_on(task, two(2.0, 4.0, share=1.0))
    assert result.cause == "finished"
    assert result.model is not None
    assert widths(result.model) == {"1": 8, "3": 1}
    assert result.metrics["test"] < 0.5 * 1e4  # the variance of the targets


@pytest.mark.parametrize("optimizer", ["adam", "adadelta", "lbfgs"])
def test_any_optimizer_goes_on(tiny_data: Data, optimizer: str) -> None:
    own: dict[str, Any] = {"adam": {"lr": 0.01}, "adadelta": {"lr": 1.0}, "lbfgs": {"lr": 1.0, "batch_size": 500}}
    task = image_task(tiny_data, MODELS["mlp"], optimizer=optimizer, momentum=None, **own[optimizer])
    result = train_on(task, two(8.0, 12.0))
    assert result.cause == "finished"
    assert {point.phase for point in result.curve} == {0, 1}
    assert result.metrics["test"] > 0.8


@pytest.mark.parametrize("selector", ["gradmatch", "el2n", "kcenter"])
def test_after_a_chosen_subset(tiny_data: Data, selector: str) -> None:
    task = image_task(tiny_data, MODELS["mlp"])
    phases = two(40.0, 2.0).phases
    first = Phase(share=0.4, passes=40.0, selector=selector, selector_options=cheap(selector))
    result = train_on(task, Policy(phases=(first, phases[1])))
    assert result.cause == "finished"
    assert result.ledger.select > train.facts(task).forward_flops


def cheap(selector: str) -> FrozenDict:
    return FrozenDict({} if selector == "kcenter" else {"proxy_passes": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, "mlp in sift"])
def test_interrupted_before_and_after_the_pruning(tiny_data: Data, tmp_path: Path, name: str) -> None:
    task = image_task(tiny_data, MODELS[name.split()[0]], augment={"flip": True})
    policy = ordered("sift", 0.6, 0.8) if "sift" in name else two(0.6, 0.8)
    settings: dict[str, Any] = {"evaluations": 60, "splits": ("test",), "keep_model": True}
    whole = train.run(task, policy, 3, options=options(**settings))
    assert {point.phase for point in whole.curve} == {0, 1}
    for every_s in (ALWAYS, 1e9):
        for number in range(1, len(whole.curve), 4):
            folder = str(tmp_path / f"{every_s}-{number}")
            kept = options(**settings, checkpoints=folder, checkpoint_every_s=every_s)
            with pytest.raises(InterruptedRunError):
                train.run(task, policy, 3, report=interrupt_after(number), options=kept)
            assert_same(train.run(task, policy, 3, options=kept), whole)
    assert_same(train.run(task, policy, 3, options=kept), whole)  # a finished one is only told


def test_the_command_line_saves_a_network_that_can_be_loaded(
    tiny_data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = config.to_plain(image_task(tiny_data, MODELS["mlp"]))
    study = tmp_path / "study.json"
    study.write_text(json.dumps({"task": task, "space": {"arm": "full", "budget": 0.5}, "study": {"trials": 1}}))
    policy, weights = tmp_path / "policy.json", tmp_path / "weights.pt"
    policy.write_text(json.dumps(two().to_mapping()))
    command = ["train", str(study), "--policy", str(policy), "--seed", "3", "--save", str(weights), "--device", "cpu"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "subsettune.train.pruning.surgery.fit_shapes" in said.out
    network = models.make(config.build(Model, MODELS["mlp"]), (1, 8, 8), 4)
    state = torch.load(weights, weights_only=True)
    surgery.fit_shapes(network, state)
    network.load_state_dict(state)
    assert widths(network) == {"1": 6, "3": 5, "5": 4}
