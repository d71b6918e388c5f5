"""Soups: shards, the two ways to carry workers out, averaging, accounts, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from fakes import image_task, options, same_bits, value_task
from torch import Tensor, nn
from torch.nn import functional

from subsettune import config, train
from subsettune.data import load
from subsettune.data.rand_augment import GROUP, rand_augment
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, Soup
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.task import Task
from subsettune.train import RunOptions, RunResult, transitions
from subsettune.train.learner import Learner
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.randomness import generator, isolated
from subsettune.train.soup import costs as soup
from subsettune.train.soup import executors, statistics
from subsettune.train.soup.workers import SoupPhase, Workers

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
SEED = 3
MODES: tuple[executors.ExecutionMode, ...] = ("in_turn", "together")
NOISY = {"name": "fakes:Noisy"}
NORMED = {"name": "tests.train.soup.test_workers:normed"}
EVERYTHING = Soup(workers=3, density=0.3, masks="data", rand_augment=9)


def normed(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Convolution and batch norm: running statistics, and nothing random."""
    features = (nn.Conv2d(input_shape[0], 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(4 * 64, num_outputs))


class Branching(nn.Module):
    """Looks at values, which `torch.vmap` cannot follow."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        rows = x.flatten(1)
        logits: Tensor = self.layer(rows if x.is_meta or float(rows.sum()) > 0 else -rows)
        return logits


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.Linear(64, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.second(self.first(x.flatten(1)).tanh()).tanh())
        return logits


class Plain(torch.optim.SGD):
    """A user's own optimizer."""


def policy(active_soup: Soup | None, share: float = 0.6, passes: float = 1.0, **rest: Any) -> Policy:
    """A soup phase and nothing else."""
    return Policy(phases=(Phase(share=share, passes=passes, soup=active_soup, **rest),))


def run(task: Task, followed: Policy, **changes: Any) -> RunResult:
    return train.run(task, followed, SEED, options=options(**{"keep_model": True, **changes}))


def learner_of(task: Task) -> Learner:
    return Learner(task, task.recipe, load(task), torch.device("cpu"), SEED)


def workers_of(
    task: Task,
    active_soup: Soup,
    *,
    mode: executors.ExecutionMode = "in_turn",
    pool: Tensor | None = None,
    weights: Tensor | None = None,
) -> Workers:
    """The workers of a phase, with the network of a run that is about to begin."""
    place = SoupPhase(
        soup=active_soup,
        seed=SEED,
        phase=0,
        facts=train.facts(task),
        pool=pool,
        weights=weights,
        mode=mode,
        clock=fakes.FakeClock(),
    )
    return Workers(place, learner_of(task))


@pytest.fixture
def seeded(untouched_random_state: None) -> Iterator[None]:
    """The global random state of a run, given back afterwards."""
    with isolated(SEED, 1):
        yield


def networks(workers: Workers) -> dict[str, Tensor]:
    """(W, ...) parameters and buffers of the workers."""
    assert workers._executor is not None
    return {name: values.clone() for name, values in workers._executor.tensors().items()}


def kept(workers: Workers) -> Mapping[str, Tensor]:
    assert workers._executor is not None
    return workers._executor.masks


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(("count", "size"), [(2, 25), (3, 16), (7, 7), (25, 2)])
def test_shards_are_equal_disjoint_and_of_the_pool(tiny_data: Data, count: int, size: int) -> None:
    pool = torch.arange(0, 200, 4)
    shards = workers_of(image_task(tiny_data), Soup(workers=count), pool=pool).shards
    drawn = shards.flatten().tolist()
    assert shards.shape == (count, size)
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(pool.tolist())
    assert drawn != sorted(drawn)


@pytest.mark.usefixtures("seeded")
def test_a_worker_goes_through_its_shard_in_shuffled_rounds(tiny_data: Data) -> None:
    workers = workers_of(image_task(tiny_data, batch_size=8), Soup(workers=3, density=1.0), pool=torch.arange(80))
    read: list[list[Tensor]] = [[], [], []]
    read_one = workers._read

    def noted(worker: int) -> executors.Examples:
        read[worker].append(workers._batches[worker])
        return read_one(worker)

    workers._read = noted  # type: ignore[method-assign]
    workers.begin()
    lengths = []
    for _ in range(7):  # 26 examples each, in batches of 8 without a gap between the rounds
        lengths.append(workers.next_length())
        workers.update(0.1)
    assert lengths == [24] * 7
    for worker, batches in enumerate(read):
        assert {len(batch) for batch in batches} == {8}
        first, second = torch.cat(batches)[:26].tolist(), torch.cat(batches)[26:52].tolist()
        assert sorted(first) == sorted(second) == sorted(workers.shards[worker].tolist())
        assert first != second


# --- against plain training -------------------------------------------------------------------------------------------


def twin(task: Task, workers: Workers, steps: int, weights: Tensor | None) -> dict[str, Tensor]:
    """Plain training on each shard, one by one, and the average of the weights: the obvious way, in float64."""
    data, recipe = workers.learner.data, task.recipe
    finals = []
    for worker, shard in enumerate(workers.shards):
        network = copy.deepcopy(workers.learner.network).double().train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=recipe.weight_decay)
        done, number = 0, 0
        stream, length = shard[:0], min(len(shard), recipe.batch_size)
        while done < steps:
            rng = generator(SEED, "soup", 0, "order", worker, number)
            stream = torch.cat([stream, shard[torch.randperm(len(shard), generator=rng)]])
            while len(stream) >= length and done < steps:
                positions, stream = stream[:length], stream[length:]
                inputs, targets = data.train.batch(positions)
                losses = functional.cross_entropy(network(inputs.double()), targets, reduction="none")
                if weights is not None:
                    losses = losses * weights[positions].double()
                optimizer.zero_grad()
                losses.mean().backward()
                if recipe.grad_clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
                optimizer.step()
                done += 1
            number += 1
        finals.append(network.state_dict())
    return {name: torch.stack([final[name] for final in finals]).mean(0) for name in finals[0]}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grad_clip", [None, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_workers_that_keep_everything_are_plain_runs_whose_weights_are_averaged(
    tiny_data: Data, mode: executors.ExecutionMode, grad_clip: float | None, weighted: bool
) -> None:
    task = image_task(tiny_data, weight_decay=0.01, grad_clip=grad_clip)
    weights = torch.linspace(0, 2, 210) if weighted else None
    pool = torch.arange(100, 196)  # 32 examples each: two batches
    workers = workers_of(task, Soup(workers=3, density=1.0), mode=mode, pool=pool, weights=weights)
    expected = twin(task, workers, 7, weights)
    workers.begin()
    for _ in range(7):
        workers.update(0.05)
    point = workers.merge()
    assert point.coverage == 1.0
    for name, value in workers.learner.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("neutral", [Soup(workers=1, density=1.0), Soup(workers=1, density=1.0, uncovered="zero")])
def test_one_worker_that_keeps_everything_is_plain_training(tiny_data: Data, neutral: Soup) -> None:
    task = image_task(tiny_data, NOISY, augment={"flip": True})
    phases = [Phase(share=0.6, passes=0.7, soup=active_soup) for active_soup in (neutral, None)]
    active_soup, plain = (run(task, Policy(phases=(phase, Phase(passes=0.5)))) for phase in phases)
    assert same_bits(active_soup.model, plain.model)
    assert (active_soup.ledger, active_soup.metrics, active_soup.updates) == (
        plain.ledger,
        plain.metrics,
        plain.updates,
    )
    assert active_soup.soups == ()


# --- masks ------------------------------------------------------------------------------------------------------------

CALM = {"optimizer_options": {"eps": 1e-3}}  # a gradient of rounding errors moves nothing
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"nesterov": True, "weight_decay": 0.01},
    "adam": {"momentum": None, "lr": 0.01, "weight_decay": 0.01, **CALM},
    "adamw": {"momentum": None, "lr": 0.01, "weight_decay": 0.1, **CALM},
    "adadelta": {"momentum": None, "lr": 1.0},
}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("drawn_by", ["erk", "data"])
def test_what_a_mask_leaves_out_is_0_and_stays_so(
    tiny_data: Data, mode: executors.ExecutionMode, optimizer: str, drawn_by: Any
) -> None:
    task = image_task(tiny_data, NORMED, optimizer=optimizer, **OPTIMIZERS[optimizer])
    workers = workers_of(task, Soup(workers=3, density=0.3, masks=drawn_by), mode=mode, pool=torch.arange(90))
    workers.begin()
    masks = {name: mask.clone() for name, mask in kept(workers).items()}
    assert set(masks) == {"0.weight", "4.weight"}
    total = sum(int(mask.sum()) for mask in masks.values())
    assert abs(total - 3 * 0.3 * (36 + 1024)) <= 3  # rounded layer by layer
    before = networks(workers)
    for _ in range(6):
        for name, mask in masks.items():
            assert not networks(workers)[name][~mask].any()
        workers.update(0.05)
    after = networks(workers)
    for name, mask in masks.items():
        assert not after[name][~mask].any()
        assert (after[name] != before[name])[mask].double().mean() > 0.9
        assert not torch.equal(mask[0], mask[1])
    assert (after["1.weight"] != before["1.weight"]).all()


@pytest.mark.usefixtures("seeded")
def test_data_driven_masks_keep_the_entries_that_the_loss_feels_most(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "mlp", "hidden": [8]})
    workers = workers_of(task, Soup(workers=2, density=0.25, masks="data"))
    weights = dict(workers.learner.network.named_parameters())
    workers.begin()
    for worker, shard in enumerate(workers.shards):
        inputs, targets = workers.learner.part.batch(shard[: soup.MASK_EXAMPLES])
        network = copy.deepcopy(workers.learner.network).double()
        functional.cross_entropy(network(inputs.double()), targets).backward()
        for name, masks in kept(workers).items():
            scores = (weights[name].detach().double() * network.get_parameter(name).grad).abs()
            mask = masks[worker]
            assert float(scores[mask].min()) >= float(scores[~mask].max()) - 1e-9


@pytest.mark.parametrize("uncovered", ["init", "zero"])
@pytest.mark.usefixtures("seeded")
def test_what_nobody_kept_becomes_what_was_asked(tiny_data: Data, uncovered: Any) -> None:
    workers = workers_of(image_task(tiny_data), Soup(workers=2, density=0.1, uncovered=uncovered))
    start = copy.deepcopy(workers.learner.network.state_dict())
    workers.begin()
    for _ in range(3):
        workers.update(0.1)
    point = workers.merge()
    nobodys = {name: ~mask.any(0) for name, mask in kept(workers).items()}
    total = sum(mask.numel() for mask in nobodys.values())
    assert point.coverage == pytest.approx(1 - sum(int(mask.sum()) for mask in nobodys.values()) / total)
    assert 0 < point.coverage < 0.25
    for name, mask in nobodys.items():
        left = workers.learner.network.get_parameter(name)[mask]
        assert torch.equal(left, start[name][mask] if uncovered == "init" else torch.zeros_like(left))
        assert not torch.equal(workers.learner.network.get_parameter(name)[~mask], start[name][~mask])


# --- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("active_soup", [EVERYTHING, Soup(workers=4, density=1.0)], ids=["masked", "dense"])
def test_both_modes_agree(tiny_data: Data, optimizer: str, active_soup: Soup) -> None:
    changes = {**OPTIMIZERS[optimizer], "augment": {"flip": True, "crop_padding": 1}, "grad_clip": 1.0}
    both_modes(image_task(tiny_data, NORMED, optimizer=optimizer, label_smoothing=0.1, **changes), active_soup)


@pytest.mark.usefixtures("seeded")
def test_both_modes_agree_on_tied_weights_and_a_regression(tiny_data: Data) -> None:
    both_modes(image_task(tiny_data, {"name": "tests.train.soup.test_workers:Tied"}), Soup(workers=3, density=0.4))
    both_modes(value_task(tiny_data), Soup(workers=3, density=0.4))


def both_modes(task: Task, active_soup: Soup) -> None:
    """Train in both ways from the same weights, and compare the workers, their average and their losses."""
    ends: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    losses = []
    start: dict[str, Tensor] = {}
    for mode in MODES:
        workers = workers_of(task, active_soup, mode=mode, pool=torch.arange(100))
        start = start or copy.deepcopy(workers.learner.network.state_dict())
        workers.learner.network.load_state_dict(start)
        workers.begin()
        for _ in range(5):
            workers.update(task.recipe.lr / 2)
        after = networks(workers)
        workers.merge()
        ends.append((after, workers.learner.network.state_dict()))
        losses.append(workers.learner.take_loss())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for i in (0, 1):
        for name, values in ends[0][i].items():
            torch.testing.assert_close(values, ends[1][i][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_gives_the_same_bits(tiny_data: Data, mode: executors.ExecutionMode) -> None:
    task = image_task(tiny_data, NOISY, augment={"flip": True})
    followed = policy(EVERYTHING, passes=2.0)
    first, second = (run(task, followed, soup_workers=mode) for _ in range(2))
    assert same_bits(first.model, second.model)
    other = train.run(task, followed, SEED + 1, options=options(keep_model=True, soup_workers=mode))
    assert not same_bits(first.model, other.model)


def test_only_turns_have_times(tiny_data: Data) -> None:
    for mode in MODES:
        result = train.run(
            image_task(tiny_data), policy(EVERYTHING), SEED, options=options(soup_workers=mode), clock=fakes.FakeClock()
        )
        (point,) = result.soups
        updates = result.updates
        assert point.longest_s == (updates if mode == "in_turn" else None)  # a reading each
        assert point.seconds >= (3 * updates if mode == "in_turn" else updates)


@pytest.mark.usefixtures("seeded")
def test_which_way_is_chosen(tiny_data: Data) -> None:
    usual = learner_of(image_task(tiny_data, NOISY))
    state = torch.get_rng_state()
    before = copy.deepcopy(usual.state())
    assert executors.execution_mode("auto", usual) == "in_turn"  # on a CPU
    assert executors.execution_mode("in_turn", usual) == "in_turn"
    assert executors.execution_mode("together", usual) == "together"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before["network"][name], value) for name, value in usual.state()["network"].items())
    assert torch.equal(before["augment"], usual.state()["augment"])


@pytest.mark.usefixtures("seeded")
def test_at_once_is_refused_where_it_does_not_work(tiny_data: Data) -> None:
    branching = image_task(tiny_data, {"name": "tests.train.soup.test_workers:Branching"})
    own = image_task(tiny_data, optimizer="tests.train.soup.test_workers:Plain")
    message = "^soup_workers must be auto or in_turn here, got 'together'. "
    with pytest.raises(ConfigError, match=message + "torch.vmap does not run the network: .*item"):
        executors.execution_mode("together", learner_of(branching))
    with pytest.raises(ConfigError, match=message + "Workers train at once with sgd, adam, adamw, adadelta only.$"):
        executors.execution_mode("together", learner_of(own))
    with pytest.raises(ConfigError, match=message):
        run(own, policy(EVERYTHING), soup_workers="together")
    for task in (branching, own):
        assert run(task, policy(EVERYTHING)).cause == "finished"


# --- averages, running statistics, optimizer --------------------------------------------------------------------------


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("mode", MODES)
def test_running_statistics_are_those_of_the_averaged_weights(tiny_data: Data, mode: executors.ExecutionMode) -> None:
    task = image_task(tiny_data, NORMED)
    pool = torch.arange(120)
    workers = workers_of(task, Soup(workers=2, density=0.5), mode=mode, pool=pool)
    workers.begin()
    for _ in range(4):
        workers.update(0.1)
    workers.merge()
    network = workers.learner.network
    inputs, _ = workers.learner.part.batch(pool)
    maps = network.get_submodule("0").double()(inputs.double()).transpose(0, 1).flatten(1)
    norm = network.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean.double(), maps.mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), maps.var(1), rtol=1e-4, atol=1e-6)
    assert (norm.momentum, int(norm.get_buffer("num_batches_tracked"))) == (0.1, 0)  # as at the start
    assert network.training
    assert norm.training


@pytest.mark.usefixtures("seeded")
def test_running_statistics_are_averages_over_pieces_of_equal_size(
    tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "STATISTICS_BATCH", 32)
    monkeypatch.setattr(soup, "STATISTICS_EXAMPLES", 96)
    task = image_task(tiny_data, NORMED)
    workers = workers_of(task, Soup(workers=2), pool=torch.arange(200))
    seen: list[Tensor] = []
    outputs = workers.learner.outputs

    def noted(inputs: Tensor, network: Any = None) -> Tensor:
        if network is None:
            seen.append(inputs)
        return outputs(inputs, network)

    monkeypatch.setattr(workers.learner, "outputs", noted)
    workers.begin()
    workers.update(0.1)
    workers.merge()
    assert [len(inputs) for inputs in seen] == [32, 32, 32]
    first = workers.learner.network.get_submodule("0")
    maps = [first(inputs).transpose(0, 1).flatten(1).double() for inputs in seen]
    norm = workers.learner.network.get_submodule("1")
    mean, variance = (norm.get_buffer(f"running_{name}").double() for name in ("mean", "var"))
    torch.testing.assert_close(mean, torch.stack([m.mean(1) for m in maps]).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(variance, torch.stack([m.var(1) for m in maps]).mean(0), rtol=1e-4, atol=1e-6)


def test_the_state_of_the_optimizer_is_cleared(tiny_data: Data) -> None:
    """A run whose momentum went on through the soup would end elsewhere."""
    task = image_task(tiny_data)
    first, rest = Phase(passes=0.5), Phase(passes=0.3)
    active_soup = Phase(share=0.6, passes=0.5, soup=Soup(workers=2, density=0.5))
    ends = []
    for name in ("keep", "reset_optimizer"):
        last = Phase(passes=rest.passes, transition=name)
        ends.append(run(task, Policy(phases=(first, active_soup, last))).model)
    assert same_bits(ends[0], ends[1])


def test_points_of_the_curve_are_of_the_averaged_weights(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    followed = policy(Soup(workers=3, density=0.5), passes=2.0)
    result = train.run(
        task, followed, SEED, report=lambda point: point.share >= 0.5, options=options(keep_model=True, evaluations=4)
    )
    assert result.cause == "stopped"
    data = load(task)
    inputs, targets = data.validation.batch(torch.arange(len(data.validation)))
    accuracy = float((result.model.eval()(inputs).argmax(1) == targets).double().mean())
    assert [point.metric for point in result.curve][-1] == accuracy
    assert result.soups == ()


# --- account ----------------------------------------------------------------------------------------------------------

FULL = Phase(passes=0.6)
FIRST = Phase(share=0.3, passes=0.2)
POLICIES: dict[str, tuple[Phase, ...]] = {
    "soup": policy(Soup(workers=3)).phases,
    "soup, full": (*policy(EVERYTHING, passes=1.5).phases, FULL),
    "the order waits": (FIRST, Phase(share=0.3, passes=0.5, soup=Soup(workers=3)), FIRST, FULL),
    "two soups": (*policy(Soup(workers=2), passes=0.7).phases, *policy(Soup(workers=5), passes=0.7).phases, FULL),
    "on all": (Phase(passes=0.7, soup=Soup(workers=4, masks="data")), FULL),
    "after pruning": (
        Phase(passes=0.5),
        Phase(share=0.5, passes=0.7, transition="prune", soup=Soup(workers=4, masks="data")),
        FULL,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("batch_size", [7, 16, 500])
@pytest.mark.parametrize("model", [None, NORMED], ids=["mlp", "batch norm"])
def test_the_projection_is_the_ledger(tiny_data: Data, name: str, batch_size: int, model: Any) -> None:
    followed = Policy(phases=tuple(_longer(phase) for phase in POLICIES[name]))
    task = image_task(tiny_data, model, batch_size=batch_size)
    result, stretches = run(task, followed), project(resolve(followed, task.recipe, train.facts(task)))
    spent = [getattr(result.ledger, purpose) for purpose in ("select", "forward", "backward")]
    assert spent == [sum(getattr(s.ledger, p) for s in stretches) for p in ("select", "forward", "backward")]
    assert result.updates == sum(s.updates for s in stretches)
    active_soup = [i for i, phase in enumerate(followed.phases) if phase.soup is not None]
    assert [point.phase for point in result.soups] == active_soup
    pruned = [transitions.of(p).flops(train.facts(task), p.pool_size(210)) for p in followed.phases]
    assert [point.flops for point in result.soups] == [stretches[i].ledger.spent - pruned[i] for i in active_soup]


def _longer(phase: Phase) -> Phase:
    """A soup with so much compute that the whole pool as a batch fits, twice."""
    plain = {name: getattr(phase, name) for name in Phase.__dataclass_fields__}
    return Phase(**{**plain, "passes": phase.passes + 2}) if phase.soup else phase


def test_only_images_of_bytes_have_channels(tiny_data: Data) -> None:
    assert train.facts(image_task(tiny_data)).image_channels == 1
    assert train.facts(value_task(tiny_data)).image_channels == 0


def test_what_a_soup_takes_by_hand(tiny_data: Data) -> None:
    task = image_task(tiny_data, NORMED)  # 210 training examples, batches of 16
    facts = train.facts(task)
    followed = policy(Soup(workers=4, density=0.5, masks="data"), share=0.5, passes=2.0)  # pool 105, shards 26
    result = run(task, followed)
    (point,) = result.soups
    masks, statistics = 4 * 26 * facts.example_flops, 105 * facts.forward_flops
    assert result.ledger.select == masks + statistics
    steps = [4 * 16] * 20
    left = followed.cost(facts) - masks - statistics
    while sum(steps) * facts.example_flops > left:
        steps.pop()
    assert result.updates == len(steps) > 2
    assert result.ledger.train == sum(steps) * facts.example_flops
    assert point.workers == 4
    assert point.flops == result.ledger.spent
    assert point.longest_flops == (sum(steps) // 4 + 26) * facts.example_flops + statistics


def test_drawn_masks_and_plain_networks_cost_nothing_beside_the_updates(tiny_data: Data) -> None:
    facts = train.facts(image_task(tiny_data))
    assert soup.flops(Soup(workers=5), 105, facts) == 0
    assert soup.flops(Soup(workers=5, density=1.0, masks="data"), 105, facts) == 0
    assert soup.flops(Soup(workers=5, masks="data"), 105, facts) == 105 * facts.example_flops
    assert soup.flops(Soup(workers=5, masks="data"), 5000, facts) == 5 * soup.MASK_EXAMPLES * facts.example_flops


# --- whole policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", ["gradmatch", "grand"])
@pytest.mark.parametrize("mode", MODES)
def test_lipt_from_end_to_end(tiny_data: Data, selector: str, mode: executors.ExecutionMode) -> None:
    task = image_task(tiny_data, {"name": "mlp", "hidden": [16]})
    chosen = Phase(share=0.3, passes=3.0, selector=selector, selector_options=config.FrozenDict(model="current"))
    before = Phase(share=0.8, passes=2.0, soup=Soup(workers=4, density=0.5))
    result = run(task, Policy(phases=(before, chosen, Phase(passes=2.0))), soup_workers=mode, splits=("test",))
    assert result.cause == "finished"
    assert result.metrics["test"] > 0.7
    assert set(result.subsets) == {1}  # only the run can tell what its own network chooses
    assert len(result.subsets[1].positions) == 63
    plain = run(task, Policy(phases=(Phase(share=0.8, passes=2.0), chosen, Phase(passes=2.0))))
    assert set(result.subsets[1].positions.tolist()) != set(plain.subsets[1].positions.tolist())


@pytest.mark.parametrize("mode", MODES)
def test_a_regression_can_be_made_a_soup(tiny_data: Data, mode: executors.ExecutionMode) -> None:
    task = value_task(tiny_data)
    dense = policy(Soup(workers=4, density=1.0), share=1.0, passes=32.0)
    result = run(task, dense, soup_workers=mode)
    assert result.metrics["validation"] < 60  # the noise has 25; the targets vary by 35,000


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_whose_loss_leaves_the_finite_numbers(tiny_data: Data, mode: executors.ExecutionMode) -> None:
    task = image_task(tiny_data, lr=1e30)
    followed = Policy(phases=(*policy(Soup(workers=3), passes=1.0).phases, Phase(passes=1.0)))
    result = run(task, followed, soup_workers=mode)
    assert result.cause == "diverged"
    assert result.message.startswith("The loss left the finite numbers after ")


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_the_pool_are_those_of_the_losses(tiny_data: Data, mode: executors.ExecutionMode) -> None:
    task = image_task(tiny_data)
    ends = []
    for weighted in (True, False):
        chosen = {"selector": "fakes:Weighted", "selector_options": config.FrozenDict(weighted=weighted)}
        ends.append(run(task, policy(Soup(workers=3), **chosen), soup_workers=mode).model)
    assert not same_bits(*ends)


def test_a_user_s_optimizer_takes_turns(tiny_data: Data) -> None:
    own, torch_s = (
        run(image_task(tiny_data, optimizer=name), policy(Soup(workers=3)))
        for name in ("tests.train.soup.test_workers:Plain", "sgd")
    )
    assert same_bits(own.model, torch_s.model)


# --- resume -----------------------------------------------------------------------------------------------------------

INTERRUPTED = Policy(
    phases=(Phase(share=0.6, passes=3.5, soup=EVERYTHING), Phase(share=0.3, passes=0.4), Phase(passes=0.4))
)


class InterruptedRunError(Exception):
    """Raised from `report`."""


def interrupt_after(num_points: int) -> Any:
    """A report that raises at the point of that number, counted from 1."""
    seen: list[object] = []

    def report(point: object) -> bool:
        seen.append(point)
        if len(seen) == num_points:
            raise InterruptedRunError
        return False

    return report


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("recipe", "every_s"),
    [({}, 1e9), ({"optimizer": "adam", "momentum": None, "lr": 0.01}, 1e-9)],
    ids=["sgd, from the beginning of a phase", "adam, from the last update"],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    tiny_data: Data, tmp_path: Path, mode: executors.ExecutionMode, recipe: dict[str, Any], every_s: float
) -> None:
    task = image_task(tiny_data, NOISY, augment={"flip": True, "crop_padding": 1}, **recipe)
    other: executors.ExecutionMode = "in_turn" if mode == "together" else "together"
    whole = run(task, INTERRUPTED, soup_workers=mode, evaluations=200)
    assert whole.soups[0].coverage < 1
    in_soup = [point for point in whole.curve if point.phase == 0]
    assert len(in_soup) > 4
    for number in (*range(1, len(in_soup) + 1, 2), len(whole.curve)):
        settings: dict[str, Any] = {"checkpoints": str(tmp_path / str(number)), "checkpoint_every_s": every_s}
        with pytest.raises(InterruptedRunError):
            train.run(
                task,
                INTERRUPTED,
                SEED,
                report=interrupt_after(number),
                options=options(soup_workers=mode, evaluations=200, **settings),
            )
        again = run(task, INTERRUPTED, soup_workers=other, evaluations=200, **settings)  # and keeps its way
        assert again.repeated_flops > 0
        assert same_bits(again.model, whole.model)
        assert (again.ledger, again.metrics, again.updates) == (whole.ledger, whole.metrics, whole.updates)
        assert [(p.share, p.metric, p.loss) for p in again.curve] == [(p.share, p.metric, p.loss) for p in whole.curve]
        plain = [(p.coverage, p.flops, p.longest_flops, p.longest_s is None) for r in (again, whole) for p in r.soups]
        assert plain[0] == plain[1]


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(task: Task, followed: Policy, message: str, **changes: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        train.run(task, followed, SEED, options=options(**changes))
    assert str(caught.value) == message


def test_impossible_soups_are_refused(tiny_data: Data) -> None:
    images, values = image_task(tiny_data), value_task(tiny_data)
    refused(
        images,
        policy(Soup(workers=12), share=0.1),
        "soup.workers must be at most 10 for 21 examples, got 12. Each needs a shard of 2 or more.",
    )
    refused(
        images,
        policy(Soup(workers=2), share=0.005),
        "share of a soup must be such that it has 2 examples, got 1. Give it a larger one.",
    )
    refused(
        image_task(tiny_data, optimizer="lbfgs", lr=1, batch_size=300, momentum=None),
        policy(Soup(workers=2)),
        "optimizer must be one that takes a gradient, with a soup, got 'lbfgs'. The workers have no line search: take "
        "e.g. sgd, or leave out the soup.",
    )
    refused(
        values,
        policy(Soup(workers=2, rand_augment=5)),
        "soup.rand_augment must be 0 here, got 5. It changes images of bytes with 1 or 3 channels, and these inputs "
        "are none.",
    )
    refused(
        images,
        policy(Soup(workers=2, rand_augment=31)),
        "soup.rand_augment must be below 31, got 31. The paper on LiPT has 5.",
    )


def test_a_soup_must_be_able_to_pay_for_a_step(tiny_data: Data) -> None:
    task = image_task(tiny_data)  # a step of 4 workers takes 64 of 210 examples
    refused(
        task,
        Policy(phases=(Phase(passes=0.3, soup=Soup(workers=4)), Phase(passes=1.0))),
        "phase 1 has 0.3 passes, and its soup needs 0.305, one step of every worker included. Give the phase more "
        "compute.",
    )
    second = Phase(share=0.6, passes=0.35, soup=Soup(workers=4))
    refused(
        task,
        Policy(phases=(Phase(passes=0.3), second, Phase(passes=1.0))),
        "phase 2 has 0.35 passes, and choosing its examples with random and its soup need 0.381, the last update "
        "before it and one step of every worker included. Give the phase more compute.",
    )
    enough = Policy(phases=(Phase(passes=64 / 210, soup=Soup(workers=4)), Phase(passes=1.0)))
    (point,) = run(task, enough).soups
    assert point.longest_flops == 16 * train.facts(task).example_flops


def test_a_batch_of_one_example_is_refused_where_batch_norm_is(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "fakes:flat_norm"}, batch_size=1)
    with pytest.raises(ValueError, match=r"Choose subsets and a batch_size of more than 1\."):
        run(task, policy(Soup(workers=3)))


def test_settings_out_of_range_read_well_from_files_and_coordinates(tiny_data: Data) -> None:
    rule = "must be in (0, 1], got 5.0. It is a fraction, not a percentage: write 0.4 for 40 %."
    raw = {"phases": [{"passes": 1, "soup": {"density": 5}}]}
    with pytest.raises(ConfigError) as caught:
        Policy.from_mapping(raw)
    assert str(caught.value) == f"phases.0.soup.density: density {rule}"
    facts = TaskFacts(
        num_examples=100, num_outputs=2, num_parameters=10, forward_flops=1, backward_flops=2, reference_passes=5
    )
    coordinates = {"arm": "subset", "budget": 0.5, "switch": 0.5, "subset_share": 0.2, "soup": 0.3, "soup.density": 5}
    with pytest.raises(ConfigError) as caught:
        from_coordinates(coordinates, facts)
    assert str(caught.value) == f"soup.density: density {rule}"


def test_options_know_three_ways() -> None:
    assert RunOptions().soup_workers == "auto"
    with pytest.raises(ConfigError, match="soup_workers must be one of auto, together, in_turn, got 'ray'"):
        RunOptions(soup_workers="ray")  # type: ignore[arg-type]


# --- RandAugment ------------------------------------------------------------------------------------------------------


def test_images_change_by_groups_and_draw_from_the_generator_alone() -> None:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (GROUP * 20 + 3, 1, 8, 8), generator=rng, dtype=torch.uint8)
    same = images[:1].expand_as(images)
    before = same.clone()
    changed = rand_augment(same, 9, torch.Generator().manual_seed(5))
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(same, before)
    groups = changed.split(GROUP)
    assert all(bool((group == group[0]).all()) for group in groups)
    assert len({tuple(group[0].flatten().tolist()) for group in groups}) > 5
    assert torch.equal(rand_augment(same, 9, torch.Generator().manual_seed(5)), changed)
    assert not torch.equal(rand_augment(same, 9, torch.Generator().manual_seed(6)), changed)


@pytest.mark.usefixtures("seeded")
def test_each_worker_changes_its_images_in_its_own_way(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    plain, changed = (workers_of(task, Soup(workers=2, rand_augment=m), pool=torch.arange(40)) for m in (0, 9))
    for workers in (plain, changed):
        workers._batches = workers.shards[[0, 0]]  # the same examples, to compare
    first, second = (changed._read(worker)[0] for worker in range(2))
    assert torch.equal(plain._read(0)[0], plain._read(1)[0])
    assert not torch.equal(first, plain._read(0)[0])
    assert not torch.equal(first, second)
