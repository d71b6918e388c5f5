"""Proxies against a plain loop, their account, and the selectors that need them from end to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import oracles
import pytest
import selections
import torch
from fakes import image_task, options, same_bits, two_phases, value_task
from torch import Tensor, nn
from torch.nn import functional

from subsettune import models, train
from subsettune.data import DataPaths, TaskData, load
from subsettune.errors import ModelDivergedError, ModelError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, conventional
from subsettune.select import ModelNeed
from subsettune.select.network import ModelView
from subsettune.task import Corruption, Task
from subsettune.train.learner import Learner
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.randomness import derive, isolated
from subsettune.train.selection.proxy import Forgetting, train_proxies

pytestmark = pytest.mark.usefixtures("untouched_random_state")
CPU = torch.device("cpu")
Given = dict[str, str]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A thread as in the runs here: networks so small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def proxies(task: Task, seed: int = 3, **need: Any) -> tuple[ModelView, ...]:
    data = load(task, DataPaths())
    wanted = ModelNeed(source="proxy", **need)
    job = train.RunJob.of(task, conventional(train.facts(task)), seed, data)
    return train_proxies(job, wanted)


# --- training ---------------------------------------------------------------------------------------------------------


def plainly_trained(
    task: Task, data: TaskData, passes: float, seed: int
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """The same by hand, for SGD with momentum and a cosine; and what was predicted right, batch by batch."""
    network = models.make(task.model, data.input_shape, data.num_outputs)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9)
    batches = Shuffled(len(data.train), task.recipe.batch_size, seed)
    seen, history = 0, []
    while True:
        batch = batches.next(0.0).positions
        if seen + len(batch) > passes * len(data.train):
            return network, history
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * seen / (passes * len(data.train)))) / 2
        inputs, targets = data.train.batch(batch)
        outputs = network(inputs)
        optimizer.zero_grad()
        functional.cross_entropy(outputs, targets).backward()
        optimizer.step()
        history.append((batch, outputs.argmax(1) == targets))
        seen += len(batch)


@pytest.mark.parametrize("passes", [0.5, 1.0, 3.1])
def test_a_proxy_is_a_plain_training_on_all_examples(tiny_data: Given, passes: float) -> None:
    task = image_task(tiny_data)
    data = load(task, DataPaths())
    for run, view in enumerate(proxies(task, passes=passes, runs=2)):
        own = derive(3, "proxy", run)
        with isolated(own, torch.get_num_threads()):
            network, _ = plainly_trained(task, data, passes, own)
        ours, theirs = view.network.state_dict(), network.state_dict()
        assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6) for name in theirs)
        assert view.forgotten is None


def test_events_are_those_of_a_replay(tiny_data: Given) -> None:
    task = replace(image_task(tiny_data, batch_size=8), distortion=Corruption(flip_labels=0.4))  # hard to remember
    data = load(task, DataPaths())
    (view,) = proxies(task, passes=6.0, events=True)
    own = derive(3, "proxy", 0)
    with isolated(own, torch.get_num_threads()):
        _, batches = plainly_trained(task, data, 6.0, own)
    lives: list[list[bool]] = [[] for _ in range(len(data.train))]
    for batch, is_right in batches:
        seen = dict(zip(batch.tolist(), is_right.tolist(), strict=True))  # the last place of one that is in it twice
        for i, right in seen.items():
            lives[i].append(right)
    assert {len(life) for life in lives} == {5, 6}
    assert view.forgotten is not None
    assert view.forgotten.tolist() == [oracles.forgetting_events(life) for life in lives]
    assert len(view.forgotten.unique()) >= 3, "a test on equal counts would show little"


def test_events_by_hand() -> None:
    forgetting = Forgetting(4, CPU)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    rounds = [(right, right, wrong, wrong), (wrong, right, wrong, right), (right, right, wrong, wrong)]
    for answers in (*rounds, (wrong, right, wrong, wrong)):
        for batch in (torch.tensor([2, 0]), torch.tensor([1, 3])):
            outputs = torch.tensor([answers[i] for i in batch.tolist()])
            forgetting.watch(batch, outputs, torch.zeros(2, dtype=torch.int64))
    assert forgetting.counts.tolist() == [2, 0, -1, 1]


def test_an_example_that_is_in_a_batch_twice_is_seen_once_at_its_last_place() -> None:
    forgetting = Forgetting(2, CPU)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    for answers in ([right, right, wrong], [right, wrong, right], [wrong, right, wrong]):
        forgetting.watch(torch.tensor([0, 1, 0]), torch.tensor(answers), torch.zeros(3, dtype=torch.int64))
    assert forgetting.counts.tolist() == [1, 1]  # 0: wrong, right, wrong; 1: right, wrong, right


def test_counting_changes_no_bit(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:Noisy"})
    (plain,), (watched,) = (proxies(task, passes=2.0, events=events) for events in (False, True))
    assert same_bits(plain.network, watched.network)


def test_without_passes_it_is_as_initialised(tiny_data: Given) -> None:
    task = image_task(tiny_data)
    data = load(task, DataPaths())
    first, second = proxies(task, passes=0.0, runs=2)
    with isolated(derive(3, "proxy", 0), 1):
        wanted = models.make(task.model, data.input_shape, data.num_outputs)
    assert same_bits(first.network, wanted)
    assert not same_bits(first.network, second.network)


def test_same_seed_same_bits_whatever_the_global_state(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:Noisy"}, augment={"flip": True, "crop_padding": 1})
    (first,) = proxies(task, passes=1.0)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again, other = proxies(task, passes=1.0, runs=2)
    torch.set_rng_state(state)
    assert same_bits(first.network, again.network), "it does not depend on how many there are"
    assert not same_bits(first.network, other.network)
    assert not same_bits(first.network, proxies(task, seed=4, passes=1.0)[0].network)


def test_the_number_of_threads_comes_back(tiny_data: Given) -> None:
    torch.set_num_threads(2)
    proxies(image_task(tiny_data), passes=0.5)
    assert torch.get_num_threads() == 2


def test_a_proxy_of_a_regression(tiny_data: Given) -> None:
    task = value_task(tiny_data)
    data = load(task, DataPaths())
    (view,) = proxies(task, passes=10.0)
    inputs, targets = data.train.batch(torch.arange(len(data.train)))
    standardised = (targets - data.target_mean) / data.target_std
    with torch.no_grad():
        errors = view.network(inputs).flatten() - standardised
    torch.testing.assert_close(view.residuals().flatten(), 2 * errors, rtol=1e-4, atol=1e-5)
    assert float(errors.square().mean()) < 0.1, "it learned"


# --- account ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> Callable[[TaskFacts], list[int]]:
    """FLOPs of each update since, as the network itself saw them."""
    batches: list[int] = []
    plain = Learner._forward

    def forward(self: Learner, inputs: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        batches.append(len(inputs))
        return plain(self, inputs, *rest)

    monkeypatch.setattr(Learner, "_forward", forward)
    return lambda facts: [size * facts.example_flops for size in batches]


@pytest.mark.parametrize("passes", [0.01, 0.5, 1.0, 1.37, 2.999])
def test_never_more_than_charged_and_short_of_it_by_less_than_an_update(
    tiny_data: Given, spent: Callable[[TaskFacts], list[int]], passes: float
) -> None:
    task = image_task(tiny_data)
    facts, need = train.facts(task), ModelNeed(source="proxy", passes=passes)
    proxies(task, passes=passes)
    used = sum(spent(facts))
    assert used <= need.flops(facts) < used + (task.recipe.batch_size + 1) * facts.example_flops


def test_every_evaluation_of_a_line_search_is_paid(tiny_data: Given, spent: Callable[[TaskFacts], list[int]]) -> None:
    task = image_task(tiny_data, optimizer="lbfgs", momentum=None, batch_size=10_000, lr=1.0)
    facts, need = train.facts(task), ModelNeed(source="proxy", passes=7.5)
    proxies(task, passes=7.5)
    used = sum(spent(facts))
    assert used <= need.flops(facts) < used + facts.pass_flops


def test_a_proxy_that_diverges_is_told_with_its_learning_rate(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 7})
    threads = torch.get_num_threads()
    with pytest.raises(ModelDivergedError) as caught:
        proxies(task, passes=3.0)
    assert str(caught.value) == (
        "A proxy left the finite numbers after 25 updates, at learning rate 0.1. "
        "Lower lr, or use a selector that needs no proxy."
    )
    assert torch.get_num_threads() == threads


def test_weights_that_diverge_in_the_last_update_are_seen(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 3})
    num_examples = train.facts(task).num_examples
    with pytest.raises(ModelDivergedError, match=r"^A proxy left the finite numbers after 4 updates, at learning rate"):
        proxies(task, passes=4 * 16 / num_examples)


def test_batches_of_one_are_refused_where_the_network_refuses_them(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:flat_norm"}, batch_size=1)
    with pytest.raises(ModelError, match=r"Choose subsets and a batch_size of more than 1\.$"):
        proxies(task, passes=0.5)


# --- from end to end --------------------------------------------------------------------------------------------------

CHOICES: list[tuple[str, dict[str, Any], float]] = [
    ("el2n", {"runs": 2}, 3.4),
    ("el2n", {"model": "current"}, 1.0),
    ("grand", {"gradient": "last", "skip": 0.1}, 2.4),
    ("grand", {"gradient": "full", "proxy_passes": 0}, 1.9),
    ("forgetting", {"classes": "equal"}, 4.4),
]


def paid(result: train.RunResult) -> tuple[int, int, int]:
    """FLOPs of selection, forward and backward passes."""
    return result.ledger.select, result.ledger.forward, result.ledger.backward


@pytest.mark.parametrize(("name", "chosen", "passes"), CHOICES, ids=str)
def test_the_projected_cost_is_the_ledgers(tiny_data: Given, name: str, chosen: dict[str, Any], passes: float) -> None:
    task = image_task(tiny_data)
    facts = train.facts(task)
    policy = two_phases(passes, 0.5, share=0.3, selector=name, selector_options=chosen)
    projected = selections.selection_flops(policy, 0, facts)
    result = train.run(task, policy, 3, options=options())
    assert result.cause == "finished"
    assert result.ledger.select == projected > 0
    used = sum(paid(result))
    assert used <= policy.cost(facts) < used + (task.recipe.batch_size + 1) * facts.example_flops


@pytest.mark.parametrize(("name", "chosen"), [("el2n", {}), ("grand", {"gradient": "full"}), ("grand", {})], ids=str)
def test_a_regression_from_end_to_end(tiny_data: Given, name: str, chosen: dict[str, Any]) -> None:
    task, facts = value_task(tiny_data), train.facts(value_task(tiny_data))
    policy = two_phases(2.9, 0.5, share=0.3, selector=name, selector_options=chosen)
    result = train.run(task, policy, 3, options=options())
    assert result.cause == "finished"
    assert result.ledger.select == selections.selection_flops(policy, 0, facts)


@pytest.mark.parametrize(("name", "chosen", "passes"), CHOICES, ids=str)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    tiny_data: Given, tmp_path: Path, name: str, chosen: dict[str, Any], passes: float
) -> None:
    task = image_task(tiny_data, {"name": "fakes:Noisy"})
    phase = Phase(share=0.3, passes=passes, selector=name, selector_options=chosen)  # type: ignore[arg-type]
    policy = Policy(phases=(phase, replace(phase, share=0.5, draw=1)))
    keep = {"keep_model": True, "evaluations": 40}
    whole = train.run(task, policy, 3, options=options(**keep))

    def kill(point: train.CurvePoint) -> bool:
        if point.share > 0.8:
            raise KeyboardInterrupt
        return False

    kept = options(**keep, checkpoints=str(tmp_path), checkpoint_every_s=1e9)
    with pytest.raises(KeyboardInterrupt):
        train.run(task, policy, 3, report=kill, options=kept)
    again = train.run(task, policy, 3, options=kept)
    assert same_bits(whole.model, again.model)
    assert (whole.metrics, whole.updates, whole.ledger) == (again.metrics, again.updates, again.ledger)
    assert [(p.share, p.flops, p.metric) for p in again.curve] == [(p.share, p.flops, p.metric) for p in whole.curve]
    assert again.repeated_flops > 0


def test_a_proxy_that_diverges_ends_the_run(tiny_data: Given) -> None:
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 7})
    result = train.run(task, two_phases(2.0, 0.5, selector="el2n"), 3, options=options())
    assert result.cause == "diverged"
    assert result.message.startswith("A proxy left the finite numbers after ")
    assert result.updates == 0


def test_a_proxy_that_does_not_fit_its_phase_is_refused_before_it_is_trained(tiny_data: Given) -> None:
    task = image_task(tiny_data)
    facts = train.facts(task)
    problem = selections.check(two_phases(3.0, 1.0, selector="forgetting"), facts)
    assert problem is not None
    assert "examples with forgetting costs 3.49 passes, more than the 3 passes of its phase." in problem
