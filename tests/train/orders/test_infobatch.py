"""InfoBatch: what a round keeps, its weights, and the annealing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from fakes import image_task, options, same_bits, value_task
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after, noisy_task, run

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.data import load
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train import orders
from subsettune.train.learner import Learner
from subsettune.train.orders import Batch, StepContext
from subsettune.train.orders.base import shuffled
from subsettune.train.orders.infobatch import InfoBatch, InfoBatchStream, thinned
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.randomness import isolated

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]


def policy(passes: float = 3.0, **given: Any) -> Policy:
    """Everything in this order."""
    return Policy(phases=(Phase(passes=passes, order="infobatch", order_options=FrozenDict(given)),))


def a_round(stream: InfoBatchStream, share: float = 0.0) -> list[Batch]:
    """The next round, of which nothing was taken, example by example."""
    assert stream._position == 0
    parts = [stream._take(1, share)]
    while stream._position:
        parts.append(stream._take(1, share))
    return parts


def joined(batches: list[Batch]) -> tuple[list[int], list[float]]:
    positions = torch.cat([batch.positions for batch in batches]).tolist()
    weights = [torch.ones(len(batch)) if batch.weights is None else batch.weights for batch in batches]
    return positions, torch.cat(weights).tolist()


@settings(deadline=None, max_examples=200)
@given(
    losses=st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0, math.nan]), st.floats(0, 9, width=16)), min_size=1),
    prune=st.sampled_from([0.0, 0.1, 0.29, 0.3, 0.5, 0.7, 0.9, 0.99]),
    data=st.data(),
)
def test_a_round_against_the_slow_twin(losses: list[float], prune: float, data: st.DataObject) -> None:
    ranks = data.draw(st.permutations(range(len(losses))))
    kept, weights = thinned(torch.tensor(losses), torch.tensor(ranks), prune)
    expected, factors = oracles.thinned(losses, ranks, prune)
    assert kept.nonzero().squeeze(1).tolist() == expected
    assert weights[kept].tolist() == pytest.approx(factors, rel=1e-7)
    assert float(weights[kept].double().sum()) == pytest.approx(len(losses), rel=1e-6)  # as counted, no rounding left


def test_weights_are_as_counted_and_not_the_inverse_of_the_share_kept() -> None:
    losses = torch.tensor([0.1, 0.2, 0.3, 9.0])
    kept, weights = thinned(losses, torch.tensor([2, 0, 1, 3]), 0.5)  # half of 3, rounded down: 1 goes
    assert kept.tolist() == [True, False, True, True]
    assert weights.tolist() == [1.5, 1.5, 1.5, 1.0]  # where 1 / (1 - 0.5) would be 2


def test_equal_losses_are_not_below_their_mean() -> None:
    for value in (0.1, 1 / 3, 2.7182818):
        kept, weights = thinned(torch.full((1000,), value), torch.arange(1000), 0.5)
        assert bool(kept.all())
        assert bool((weights == 1).all())


def test_rounds_leave_out_by_the_last_loss_in_the_order_of_the_round() -> None:
    stream = InfoBatch(prune=0.5).stream(60, 8, 4)
    pool = torch.arange(10, 60)
    stream.enter(pool)
    assert joined(a_round(stream)) == (shuffled(60, pool, 4, 0).tolist(), [1.0] * 50)  # nobody was seen yet
    seen = torch.arange(15, 60)
    stream.losses[seen] = torch.linspace(0, 1, 45)
    positions, weights = joined(a_round(stream))
    order = shuffled(60, pool, 4, 1).tolist()
    assert positions == [i for i in order if i in positions]
    below = set(seen[torch.linspace(0, 1, 45) < 0.5].tolist())
    assert len(below) == 22
    assert set(range(10, 60)) - below <= set(positions)  # 10 to 14 among them, which were never seen
    assert len(below & set(positions)) == 11
    assert weights == [2.0 if i in below else 1.0 for i in positions]
    again, _ = joined(a_round(stream))
    assert below & set(again) != below & set(positions)  # others are left out in the next round


def test_the_annealing_begins_at_once_and_with_equal_weights() -> None:
    stream = InfoBatch(prune=0.5, anneal=0.2).stream(40, 4, 0)
    stream.enter(None)
    stream.losses.copy_(torch.linspace(0, 1, 40))
    first = stream.next(0.5)
    assert first.weights is not None
    second = stream.next(0.8)  # in the middle of round 0, at whatever share that falls
    assert second.weights is None
    assert second.positions.tolist() == shuffled(40, None, 0, 1)[:4].tolist()
    rest = [stream.next(0.9) for _ in range(9)]
    assert joined([second, *rest]) == (shuffled(40, None, 0, 1).tolist(), [1.0] * 40)  # and not a gap between batches
    assert joined(a_round(stream, 0.99)) == (shuffled(40, None, 0, 2).tolist(), [1.0] * 40)


def test_a_round_of_everything_goes_on_into_the_annealing() -> None:
    stream = InfoBatch(prune=0.5, anneal=0.2).stream(40, 4, 0)
    stream.enter(None)
    batches = [stream.next(share) for share in (0.1, 0.7, 0.8, 0.9)]
    assert joined(batches)[0] == shuffled(40, None, 0, 0)[:16].tolist()


@pytest.mark.parametrize("count", range(14))
def test_it_goes_on_from_its_state_within_a_thinned_round(count: int) -> None:
    order = InfoBatch(prune=0.5, anneal=0.1)
    stream, again = order.stream(50, 4, 1), order.stream(50, 4, 1)
    pool = torch.arange(10, 45)
    for one in (stream, again):
        one.enter(pool)
    losses = torch.rand(50, generator=torch.Generator().manual_seed(0))
    stream.losses.copy_(losses)
    for _ in range(count):
        stream.next(0.5)
    stream.losses.copy_(losses.flip(0))  # other losses since the round began, which do not change it
    again.load(stream.state(), pool)
    for share in (*[0.6] * 25, *[0.95] * 12):
        a, b = stream.next(share), again.next(share)
        assert torch.equal(a.positions, b.positions)
        assert (a.weights is None) == (b.weights is None)
        assert a.weights is None or torch.equal(a.weights, b.weights)


# --- in a run ---------------------------------------------------------------------------------------------------------


def learner_of(task: Task) -> Learner:
    with isolated(0, 1):
        return Learner(task, task.recipe, load(task), torch.device("cpu"), 0)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_last_losses_are_those_of_the_update(tiny_data: Data, kind: str) -> None:
    task = image_task(tiny_data, label_smoothing=0.1) if kind == "classification" else value_task(tiny_data)
    learner, facts = learner_of(task), train.facts(task)
    stream = InfoBatch(prune=0.5).stream(facts.num_examples, 16, 0)
    stream.attach(learner)
    stream.enter(None)
    expected = torch.full((facts.num_examples,), torch.nan)
    for _ in range(20):
        batch = stream.next(0.0)
        with torch.no_grad():  # without dropout and batch norm, training mode predicts as evaluation mode does
            inputs, targets = learner.examples(batch.positions)
            expected[batch.positions] = learner.example_losses(learner.outputs(inputs), targets)
        stream.update(learner, batch, StepContext(lr=0.05, weights=None, most=1, share=0.0, facts=facts))
    assert torch.equal(stream.losses, expected) or torch.allclose(stream.losses, expected, equal_nan=True, rtol=1e-6)
    assert not bool(expected.isnan().any())


def test_the_last_loss_of_an_example_that_is_in_a_batch_twice_is_that_of_its_last_place(
    tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = image_task(tiny_data, {"name": "mlp", "hidden": [64], "dropout": 0.5})
    learner, facts = learner_of(task), train.facts(task)
    stream = InfoBatch().stream(facts.num_examples, 16, 0)
    stream.attach(learner)
    fitted, losses = learner.fit, list[torch.Tensor]()

    def noted(inputs: torch.Tensor, targets: torch.Tensor, *given: Any, **named: Any) -> Any:
        evaluations, outputs = fitted(inputs, targets, *given, **named)
        losses.append(learner.example_losses(outputs, targets))
        return evaluations, outputs

    monkeypatch.setattr(learner, "fit", noted)
    batch = Batch(positions=torch.tensor([3, 9, 3, 4, 9, 3]))
    with isolated(0, 1):
        stream.update(learner, batch, StepContext(lr=0.1, weights=None, most=1, share=0.0, facts=facts))
    (each,) = losses
    assert len(each[[0, 2, 5]].unique()) == 3, "dropout tells the places apart"
    assert stream.losses[[3, 9, 4]].tolist() == each[[5, 4, 3]].tolist()
    assert int(stream.losses.isnan().sum()) == facts.num_examples - 3


def test_a_batch_of_two_rounds_has_the_weights_of_both() -> None:
    stream = InfoBatch(prune=0.5).stream(10, 8, 4)
    first = stream.next(0.0)  # nobody was seen yet
    assert first.weights is None
    stream.losses[first.positions] = torch.arange(8).float()
    order = shuffled(10, None, 4, 1)
    kept, weights = stream.whole_round(1, 0.0).positions, stream.whole_round(1, 0.0).weights
    assert weights is not None
    batch = stream.next(0.0)  # 2 of round 0, whose weights are 1, and 6 of the 8 that round 1 keeps
    assert batch.positions.tolist() == [*shuffled(10, None, 4, 0)[8:].tolist(), *kept[:6].tolist()]
    assert batch.weights is not None
    assert batch.weights.tolist() == [1.0, 1.0, *weights[:6].tolist()]
    assert sorted(set(weights.tolist())) == [1.0, 2.0]
    assert set(kept.tolist()) < set(order.tolist())


def test_weights_of_subset_and_order_multiply(tiny_data: Data) -> None:
    task = image_task(tiny_data, batch_size=10, momentum=None)
    facts, of_subset = train.facts(task), torch.rand(210, generator=torch.Generator().manual_seed(0)) + 0.5
    batch = Batch(positions=torch.arange(10), weights=torch.linspace(1, 2, 10))
    learner, twin = learner_of(task), learner_of(task)
    stream = InfoBatch().stream(210, 10, 0)
    stream.attach(learner)
    stream.update(learner, batch, StepContext(lr=0.1, weights=of_subset, most=1, share=0.0, facts=facts))
    inputs, targets = twin.examples(batch.positions)
    losses = twin.example_losses(twin.outputs(inputs), targets)
    (losses * of_subset[:10] * torch.linspace(1, 2, 10)).mean().backward()
    for after, before in zip(learner.network.parameters(), twin.network.parameters(), strict=True):
        assert before.grad is not None
        assert torch.allclose(after, before - 0.1 * before.grad, atol=1e-6)


@pytest.mark.parametrize("neutral", [{"prune": 0.0}, {"anneal": 1.0}])
def test_neutral_options_are_the_uniform_order_bit_for_bit(tiny_data: Data, neutral: dict[str, float]) -> None:
    task = image_task(tiny_data)
    plain = train.run(task, Policy(phases=(Phase(passes=3),)), 0, options=options(keep_model=True))
    ordered = train.run(task, policy(**neutral), 0, options=options(keep_model=True))
    assert same_bits(plain.model, ordered.model)
    assert plain.ledger == ordered.ledger


def test_it_is_paired_with_the_uniform_order_until_something_was_seen(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    a, b = (
        train.run(task, Policy(phases=(Phase(passes=0.9, order=order),)), 0, options=options(keep_model=True))
        for order in ("uniform", "infobatch")
    )
    assert same_bits(a.model, b.model)


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": [8], "dropout": 0.2}, {"name": "fakes:Noisy"}])
@pytest.mark.parametrize("batch_size", [7, 16, 300])
def test_it_costs_what_is_projected(tiny_data: Data, model: dict[str, Any], batch_size: int) -> None:
    task = image_task(tiny_data, model, batch_size=batch_size)
    chosen = Policy(
        phases=tuple(
            Phase(share=share, passes=passes, order="infobatch", order_options=FrozenDict({"prune": 0.8}))
            for share, passes in ((0.4, 1.7), (1.0, 4.1))
        )
    )
    facts = train.facts(task)
    result = train.run(task, chosen, 3, options=options())
    assert result.updates > 5
    stretches = project(resolve(chosen, task.recipe, facts))
    one = min(batch_size, facts.num_examples)
    for purpose in ("forward", "backward"):  # however many examples each round keeps
        assert getattr(result.ledger, purpose) == sum(getattr(s.ledger, purpose) for s in stretches)
    assert 0 <= chosen.cost(facts) - result.ledger.spent < one * facts.example_flops
    assert result.ledger.select == 0


def test_it_leaves_examples_out_in_a_run_and_not_in_the_annealing(
    tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, bool, int]] = []
    update = InfoBatchStream.update

    def watched(self: Any, learner: Any, batch: Batch, now: StepContext) -> int:
        seen.append((now.share, batch.weights is not None, len(batch)))
        return update(self, learner, batch, now)

    monkeypatch.setattr(InfoBatchStream, "update", watched)
    train.run(image_task(tiny_data, {"name": "fakes:Noisy"}), policy(6.0, anneal=0.3), 0, options=options())
    weighted = [share for share, is_weighted, _ in seen if is_weighted]
    assert len(weighted) > 10
    assert max(weighted) < 0.7
    annealed = [length for share, _, length in seen if share >= 0.7]
    assert 0.3 * 6 * 210 - 2 * 16 < sum(annealed) <= 0.3 * 6 * 210  # it begins and ends at most one batch early or late
    assert {length for _, _, length in seen} == {16}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, {"optimizer": "adam", "momentum": None, "lr": 0.01}])
def test_an_interrupted_run_goes_on_with_the_same_bits(tiny_data: Data, tmp_path: Path, recipe: dict[str, Any]) -> None:
    task = noisy_task(tiny_data, **recipe)
    infobatch = {"order": "infobatch", "order_options": FrozenDict({"prune": 0.7, "anneal": 0.2})}
    chosen = Policy(phases=(Phase(share=0.4, passes=1.5, **infobatch), Phase(passes=2.5, **infobatch)))
    whole = run(task, chosen, evaluations=60)
    for number in range(2, len(whole.curve), 6):
        folder = str(tmp_path / str(number))
        with pytest.raises(InterruptedRunError):
            run(task, chosen, interrupt_after(number), evaluations=60, checkpoints=folder, checkpoint_every_s=ALWAYS)
        assert_same(run(task, chosen, evaluations=60, checkpoints=folder), whole)


def test_mistakes() -> None:
    for given_options, message in (
        ({"prune": 1.0}, "^order_options.prune: prune must be in .0, 1., got 1.0."),
        ({"anneal": 12.5}, "^order_options.anneal: anneal must be in .0, 1., got 12.5. It is a fraction"),
    ):
        with pytest.raises(ConfigError, match=message):
            orders.make("infobatch", given_options)
