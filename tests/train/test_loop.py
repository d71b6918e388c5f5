from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import selections
import torch
from contracts import random_state
from fakes import FakeClock, image_task, options, same_bits, two_phases, value_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, ModelError
from subsettune.models import make
from subsettune.policy import Phase, Policy, conventional
from subsettune.task import Task
from subsettune.train import CurvePoint, RunResult, loop, metrics, schedule
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.randomness import isolated

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]


def run(task: Task, policy: Policy, seed: int = 3, report: Any = None, **changes: Any) -> RunResult:
    return train.run(task, policy, seed, report=report, options=options(keep_model=True, **changes))


def full(passes: float) -> Policy:
    return Policy(phases=(Phase(passes=passes),))


def same(a: RunResult, b: RunResult) -> bool:
    """The same bits, account and curve; seconds aside."""
    curves = [[(p.share, p.flops, p.phase, p.metric, p.loss) for p in r.curve] for r in (a, b)]
    return same_bits(a.model, b.model) and curves[0] == curves[1] and a.ledger == b.ledger and a.metrics == b.metrics


# --- the account ------------------------------------------------------------------------------------------------------


phases = st.builds(
    lambda share, passes, selector, transition: (share, passes, selector, transition),
    st.one_of(st.just(1.0), st.floats(0.005, 1.0)),
    st.one_of(st.just(0.0), st.floats(0.01, 1.5)),
    st.sampled_from(["random", "stratified", "kcenter"]),
    st.sampled_from(["keep", "reset_optimizer", "shrink_perturb"]),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(phases, min_size=1, max_size=3), batch_size=st.integers(1, 250))
def test_ledger_is_at_most_the_cost_and_within_one_update(
    tiny_data: Data, drawn: list[tuple[float, float, str, str]], batch_size: int
) -> None:
    task = image_task(tiny_data, batch_size=batch_size)
    known = train.facts(task)
    settings = [
        {"share": share, "passes": passes, "selector": selector, "transition": transition if index else "keep"}
        for index, (share, passes, selector, transition) in enumerate(drawn)
    ]
    try:
        policy = Policy(phases=tuple(Phase(**plain) for plain in settings))
        train.check(task, policy, known)
    except ConfigError:
        return  # too little compute for its selections or for one update, and told before the run
    result = run(task, policy, evaluations=2)
    largest = (batch_size + 1) * known.example_flops
    assert policy.cost(known) - largest < result.ledger.spent <= policy.cost(known)
    assert result.updates >= 1
    assert result.cause == "finished"
    assert result.ledger.forward * known.backward_flops == result.ledger.backward * known.forward_flops
    allowed = {selections.selection_flops(policy, i, known) for i in range(len(policy.phases))} | {0}
    assert result.ledger.select <= sum(allowed) * len(policy.phases)


def test_conventional_run_is_charged_its_epochs_in_whole_batches(tiny_data: Data) -> None:
    task = image_task(tiny_data, epochs=2)
    known = train.facts(task)
    result = run(task, conventional(known), evaluations=4)
    assert known.num_examples == 210
    assert conventional(known).cost(known) == 2 * 210 * known.example_flops
    assert result.ledger.spent == 26 * 16 * known.example_flops  # 2 * 210 = 26 * 16 + 4, on which there is no update
    assert result.ledger.evaluate == 4 * 30 * known.forward_flops  # 4 points on 30 validation examples
    assert result.updates == 26
    assert [p.share for p in result.curve] == [0.25, 0.5, 0.75, 1.0]
    assert [p.flops for p in result.curve] == [n * 16 * known.example_flops for n in (7, 14, 20, 26)]


def test_evaluation_of_more_splits_is_ledgered_apart(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    one = run(task, full(1), evaluations=1)
    three = run(task, full(1), evaluations=1, splits=("test", "train"))
    known = train.facts(task)
    assert three.ledger.evaluate - one.ledger.evaluate == (60 + 210) * known.forward_flops
    assert three.ledger.spent == one.ledger.spent
    assert set(three.metrics) == {"validation", "test", "train"}
    assert set(one.metrics) == {"validation"}


def test_phase_ends_at_the_first_update_boundary_at_or_after_its_allowance(tiny_data: Data) -> None:
    task = image_task(tiny_data, batch_size=50)
    known = train.facts(task)
    policy = two_phases(120 / 210, 1.0, share=100 / 210)  # 2 batches of 50, then one more that exceeds 120 by 30
    result = run(task, policy)
    assert result.switch_shares == (150 * known.example_flops / policy.cost(known),)
    assert 330 - 50 < result.ledger.spent / known.example_flops <= 330


def test_a_phase_that_excess_used_up_is_passed_over(tiny_data: Data) -> None:
    task = image_task(tiny_data, batch_size=64)
    policy = Policy(
        phases=(
            Phase(share=0.9, passes=0.5),
            Phase(share=0.5, passes=0.01, transition="shrink_perturb"),
            Phase(passes=0.5, transition="keep"),
        )
    )
    result = run(task, policy)
    assert len(result.switch_shares) == 1


def test_entry_of_a_last_phase_without_an_update_does_not_happen(tiny_data: Data) -> None:
    task = image_task(tiny_data, batch_size=16)
    drop = {"shrink": 0.0, "noise": 0.0}  # would leave nothing of the weights
    one = Phase(passes=1.0)
    two = Phase(passes=0.01, transition="shrink_perturb", transition_options=drop)
    alone, both = run(task, Policy(phases=(one,))), run(task, Policy(phases=(one, two)))
    assert both.switch_shares == ()
    assert alone.updates == both.updates
    weights = [p.abs().max() for p in both.model.parameters()]
    assert min(weights) > 0


def test_a_phase_without_allowance_is_as_if_it_were_not_there(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    with_empty = two_phases(0.0, 1.0, transition="shrink_perturb", selector="stratified")
    empty, alone = run(task, with_empty), run(task, full(1.0))
    assert same_bits(empty.model, alone.model)
    assert empty.ledger == alone.ledger
    assert empty.switch_shares == ()


def test_selection_that_takes_the_whole_allowance_is_paid_and_nothing_is_trained_on_it(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    known = train.facts(task)
    kcenter = Phase(share=0.02, passes=1.0, selector="kcenter")
    cost = selections.selection_flops(Policy(phases=(kcenter,)), 0, known)
    exact = cost / known.pass_flops
    policy = two_phases(exact, 1.0, share=0.02, selector="kcenter", transition="shrink_perturb")
    result = run(task, policy)
    assert result.ledger.select == cost
    assert result.switch_shares == ()
    assert same_bits(result.model, run(task, full(1.0)).model)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            full(0.01),
            r"^passes must be at least 0.0762 for one update on 16 examples, got 0.01. Give the policy more compute, "
            "or use a smaller batch_size.$",
        ),
        (two_phases(1.0, 1.0, share=0.9, selector="kcenter"), "^Choosing 189 of 210 examples with kcenter costs"),
        (
            Policy(phases=(Phase(passes=1.0), Phase(share=0.02, passes=0.9, selector="kcenter"))),
            r"^phase 2 has 0.9 passes, and choosing its examples with kcenter needs 0.9\d*, the last update before it "
            "included. Give the phase more compute.$",
        ),
        (
            Policy(phases=(Phase(passes=1.0, transition="reset_optimizer"),)),
            "^transition of the first phase must be keep, got 'reset_optimizer'. There is nothing to enter from.$",
        ),
        (
            Policy(phases=(Phase(passes=0.0), Phase(passes=9.0, transition="prune"))),
            "^transition of phase 2 must be keep before any update, got 'prune'. Give the phases before it compute "
            "for an update.$",
        ),
        (
            Policy(phases=(Phase(passes=1.0, order="rs3"),)),
            "^order must be one of uniform, rs2, .* or package.module:Class, got 'rs3'.",
        ),
        (
            Policy(phases=(Phase(passes=1.0),), recipe={"schedule_options": {"warm": 1}}),
            "schedule_options.warm: unknown key. Did you mean 'warmup'",
        ),
        (Policy(phases=(Phase(passes=1.0),), recipe={"epochs": 3}), "epochs cannot be overridden: the budget"),
    ],
)
def test_an_impossible_policy_is_told_before_the_first_step(tiny_data: Data, policy: Policy, message: str) -> None:
    task = image_task(tiny_data)
    if "phase 2 has" in message:
        known = train.facts(task)
        cost = selections.selection_flops(policy, 1, known) / known.pass_flops
        policy = Policy(phases=(policy.phases[0], Phase(share=0.02, passes=cost + 0.01, selector="kcenter")))
        message = "^phase 2 has .* passes, and choosing its examples with kcenter needs .*, the last update before it"
    with pytest.raises(ConfigError, match=message):
        run(task, policy)


# --- neutral settings, bit for bit ------------------------------------------------------------------------------------


NOISY = {"name": "fakes:Noisy"}


@pytest.mark.parametrize(
    "policy",
    [
        Policy(phases=(Phase(passes=0.7), Phase(passes=1.3))),
        Policy(phases=(Phase(passes=0.7, selector="kcenter"), Phase(passes=1.3, selector="stratified"))),
        Policy(
            phases=(
                Phase(passes=0.7),
                Phase(passes=1.3, transition="shrink_perturb", transition_options={"shrink": 1, "noise": 0}),
            )
        ),
    ],
    ids=["two phases", "unused selectors", "shrink 1, noise 0"],
)
def test_neutral_settings_change_no_bit(tiny_data: Data, policy: Policy) -> None:
    task = image_task(tiny_data, NOISY, augment={"flip": True, "crop_padding": 1})
    plain = run(task, full(2.0))
    result = run(task, policy)
    assert result.ledger.select == 0
    assert same_bits(result.model, plain.model)
    assert result.ledger == plain.ledger
    assert result.metrics == plain.metrics


def test_shrink_1_without_noise_is_keep_at_a_switch(tiny_data: Data) -> None:
    task = image_task(tiny_data, NOISY)
    keep = two_phases(0.6, 0.8)
    neutral = Policy(
        phases=(
            keep.phases[0],
            Phase(
                passes=0.8,
                transition="shrink_perturb",
                transition_options={"shrink": 1, "noise": 0, "everything": True},
            ),
        )
    )
    assert same(run(task, keep), run(task, neutral))


def test_two_phases_on_the_same_subset_are_one(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    split = Policy(phases=(Phase(share=0.3, passes=0.5), Phase(share=0.3, passes=0.5)))
    whole = Policy(phases=(Phase(share=0.3, passes=1.0),))
    assert same_bits(run(task, split).model, run(task, whole).model)


@pytest.mark.parametrize("transition", ["reset_optimizer", "shrink_perturb"])
def test_other_entries_do_change_the_run(tiny_data: Data, transition: str) -> None:
    task = image_task(tiny_data)
    keep, other = run(task, two_phases(0.6, 0.8)), run(task, two_phases(0.6, 0.8, transition=transition))
    assert not same_bits(keep.model, other.model)
    assert keep.ledger == other.ledger


def test_a_larger_pool_of_a_run_holds_the_smaller_one(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    policy = Policy(phases=(Phase(share=0.2, passes=1), Phase(share=0.5, passes=1)))
    data = load(task)
    small, large = (
        train.SubsetProvider(train.RunJob.of(task, policy, 3, data)).choose(phase).subset.positions for phase in (0, 1)
    )
    assert torch.equal(small, large[: len(small)])


# --- against a bare loop ----------------------------------------------------------------------------------------------


def bare_loop(task: Task, policy: Policy, seed: int) -> nn.Module:
    """The slow, obvious twin: one full phase or a subset phase and a full one, transition keep, no checkpoints."""
    data, known, recipe = load(task), train.facts(task), task.recipe.override(policy.recipe)
    threads = torch.get_num_threads()
    with isolated(seed, 1):
        network = make(task.model, data.input_shape, data.num_outputs).train()
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        extra = {"momentum": recipe.momentum} if recipe.momentum is not None else {}
        optimizer = kinds[recipe.optimizer](network.parameters(), lr=1.0, weight_decay=recipe.weight_decay, **extra)
        factor = schedule.make(recipe.schedule, recipe.schedule_options)
        batches, spent, total = Shuffled(210, recipe.batch_size, seed), 0, policy.cost(known)
        weights = None
        for phase, end in zip(policy.phases, policy.boundaries(known), strict=True):
            pool = (
                None
                if phase.is_full
                else train.SubsetProvider(train.RunJob.of(task, policy, seed, data)).choose(0).subset
            )
            weights = None
            if pool is not None and pool.weights is not None:
                weights = torch.zeros(210)
                weights[pool.positions] = pool.weights / pool.weights.mean()
            batches.enter(None if pool is None else pool.positions)
            while spent < end:
                index = batches.next(0.0).positions
                if spent + len(index) * known.example_flops > total:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * factor(spent / total)
                x, y = data.train.batch(index)
                if task.kind == "regression":
                    y = (y - data.target_mean) / data.target_std
                given = None if weights is None else weights[index]
                loss = metrics.loss(task, network(x), y, recipe.label_smoothing, given)
                optimizer.zero_grad()
                loss.backward()
                if recipe.grad_clip:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
                optimizer.step()
                spent += len(index) * known.example_flops
    torch.set_num_threads(threads)
    return network


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"optimizer": "adam", "momentum": None, "lr": 0.01, "schedule": "one_cycle"},
        {"grad_clip": 0.1, "schedule": "warmup_stable_decay"},
        {"label_smoothing": 0.2, "schedule": "step", "batch_size": 13},
        {"weight_decay": 0.01, "schedule": "constant"},
    ],
    ids=["sgd", "adam", "clipped", "smoothed", "decayed"],
)
@pytest.mark.parametrize("policy", [full(1.5), two_phases(0.5, 0.9, selector="stratified")], ids=["full", "subset"])
def test_same_bits_as_a_bare_loop(tiny_data: Data, recipe: dict[str, Any], policy: Policy) -> None:
    task = image_task(tiny_data, **recipe)
    assert same_bits(run(task, policy).model, bare_loop(task, policy, 3))


def test_weights_of_a_subset_weight_the_loss(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    policy = two_phases(1.0, 0.5, selector="fakes:Weighted")
    unweighted = two_phases(1.0, 0.5, selector="fakes:Weighted", selector_options={"weighted": False})
    result = run(task, policy)
    assert same_bits(result.model, bare_loop(task, policy, 3))
    assert not same_bits(result.model, run(task, unweighted).model)


def test_regression_trains_on_standardised_targets_and_measures_in_their_units(tiny_data: Data) -> None:
    task = value_task(tiny_data)
    result = run(task, full(20), splits=("test",))
    assert same_bits(result.model, bare_loop(task, full(20), 3))
    data = load(task)
    x, y = data.test.batch(torch.arange(len(data.test)))
    with torch.no_grad():
        predicted = result.model(x)[:, 0].double() * data.target_std + data.target_mean
    assert result.metrics["test"] == pytest.approx(float((predicted - y).square().mean()), rel=1e-4)
    assert 15 < result.metrics["test"] < 60  # the noise has the variance 25, the targets about 35,000


# --- looking, stopping, diverging -------------------------------------------------------------------------------------


def test_report_stops_a_run(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    points: list[CurvePoint] = []

    def report(point: CurvePoint) -> bool:
        points.append(point)
        return len(points) == 3

    result = run(task, full(2), report=report)
    assert (result.cause, result.message) == ("stopped", "Stopped by the caller.")
    assert result.metrics == {}
    assert result.curve == tuple(points)
    assert result.ledger.spent == points[-1].flops < full(2).cost(train.facts(task))
    assert [p.share for p in points] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("evaluations", [1, 10, 1000])
def test_a_loss_that_is_not_finite_ends_the_run(tiny_data: Data, evaluations: int) -> None:
    task = image_task(tiny_data, lr=1e30)
    result = run(task, full(3), evaluations=evaluations)
    known = train.facts(task)
    assert result.cause == "diverged"
    assert result.message == (
        f"The loss left the finite numbers after {result.updates} updates, at learning rate 1e+30."
    )
    assert result.metrics == {}
    assert result.updates <= 25
    assert 0 < result.ledger.spent <= result.updates * 16 * known.example_flops
    assert all(point.metric is not None and math.isfinite(point.metric) for point in result.curve)


def test_a_loss_that_is_not_finite_between_the_last_check_and_the_end(tiny_data: Data) -> None:
    result = run(image_task(tiny_data, lr=1e30), full(112 / 210), evaluations=1)  # 7 updates: no check on the way
    assert (result.cause, result.updates) == ("diverged", 7)
    assert result.ledger.train == 112 * train.facts(image_task(tiny_data)).example_flops


def test_weights_that_leave_the_finite_numbers_in_the_last_update(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 12})
    result = run(task, full(1.0), evaluations=1)
    assert (result.cause, result.updates) == ("diverged", 13)


def test_seconds_come_from_the_clock(tiny_data: Data) -> None:
    result = train.run(image_task(tiny_data), full(1), 0, clock=FakeClock(), options=options(evaluations=1))
    assert result.train_s == 2  # the clock goes on by 1 s each time it is read: before the phase, and after its updates
    assert result.evaluate_s == 1
    assert result.select_s == 1
    assert result.seconds == 3


def test_each_phase_has_the_compute_and_the_seconds_of_its_updates(tiny_data: Data) -> None:
    task, policy = image_task(tiny_data), two_phases(0.5, 1.5)
    result = train.run(task, policy, 0, clock=FakeClock(), options=options(evaluations=1))
    first, second = result.phases
    assert first.flops + second.flops == result.ledger.train
    assert first.seconds + second.seconds == pytest.approx(result.train_s)
    assert min(first.seconds, second.seconds) > 0
    assert first.flops == pytest.approx(0.25 * policy.cost(train.facts(task)), rel=0.1)


def test_bfloat16_on_the_cpu_when_asked(tiny_data: Data) -> None:
    low, high = (run(image_task(tiny_data, precision=p), full(2)) for p in ("bfloat16", "float32"))
    assert low.cause == "finished"
    assert not same_bits(low.model, high.model)
    assert next(low.model.parameters()).dtype is torch.float32
    assert low.metrics["validation"] == pytest.approx(high.metrics["validation"], abs=0.15)


def test_it_learns(tiny_data: Data) -> None:
    assert run(image_task(tiny_data), full(4)).metrics["validation"] > 0.9


# --- the caller's state -----------------------------------------------------------------------------------------------


def test_same_seed_same_bits_whatever_the_caller_s_state(tiny_data: Data) -> None:
    task, policy = image_task(tiny_data, NOISY, augment={"flip": True}), two_phases(0.5, 0.5)
    first = run(task, policy)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(99)
    torch.set_num_threads(2 if threads == 1 else 1)
    second = run(task, policy)
    assert torch.get_num_threads() == (2 if threads == 1 else 1)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    assert same(first, second)
    assert not same_bits(first.model, run(task, policy, seed=4).model)


def test_random_state_and_threads_come_back_after_an_exception(tiny_data: Data) -> None:
    before, threads = random_state(), torch.get_num_threads()

    def report(point: CurvePoint) -> bool:
        assert torch.get_num_threads() == 3
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run(image_task(tiny_data, NOISY), full(1), report=report, num_threads=3)
    assert random_state() == before
    assert torch.get_num_threads() == threads


# --- batches of one ---------------------------------------------------------------------------------------------------


FLAT_NORM = {"name": "fakes:flat_norm"}


def test_what_a_round_leaves_over_is_trained_on_with_the_next(tiny_data: Data) -> None:
    task = image_task(tiny_data, FLAT_NORM, batch_size=19)  # 210 = 11 * 19 + 1, and batch norm cannot train on one
    result = run(task, full(2))
    assert (result.cause, result.updates) == ("finished", 22)
    assert result.ledger.spent == 22 * 19 * train.facts(task).example_flops


@pytest.mark.parametrize(
    ("policy", "batch_size"), [(two_phases(0.1, 1, share=0.005), 16), (full(0.1), 1)], ids=["pool", "batch"]
)
def test_batch_norm_on_one_example_is_refused_beforehand(tiny_data: Data, policy: Policy, batch_size: int) -> None:
    task = image_task(tiny_data, FLAT_NORM, batch_size=batch_size)
    with pytest.raises(
        ModelError,
        match=r"^model 'fakes:flat_norm' fails on inputs of shape \(1, 1, 8, 8\): Expected more than 1 value per "
        r"channel.*\. Choose subsets and a batch_size of more than 1\.$",
    ):
        run(task, policy)
    plain = image_task(tiny_data, batch_size=batch_size)
    assert run(plain, policy).cause == "finished"  # a network without batch norm trains on one


@pytest.mark.parametrize("order", ["sift", "selective_backprop"])
def test_keeping_one_example_is_refused_beforehand_where_the_network_needs_two(tiny_data: Data, order: str) -> None:
    def policy(keep: float) -> Policy:
        return Policy(phases=(Phase(passes=0.5, order=order, order_options=FrozenDict(keep=keep)),))

    task = image_task(tiny_data, {"name": "fakes:untracked_norm"}, batch_size=15)
    with pytest.raises(ModelError, match=r"Expected more than 1 .*\. Keep more than one example of each batch\.$"):
        run(task, policy(0.05))
    assert run(task, policy(0.1)).cause == "finished"
    assert run(image_task(tiny_data, batch_size=15), policy(0.05)).cause == "finished"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": ("tset",)}, "^splits: splits must be some of train, validation, test, got \\('tset',\\)"),
        ({"device": "gpu"}, "^device: device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"num_threads": 0}, "^num_threads: num_threads must be at least 1, got 0"),
        ({"evaluations": 0}, "^evaluations: evaluations must be at least 1, got 0"),
        ({"checkpoint_every_s": 0}, "^checkpoint_every_s: checkpoint_every_s must be positive, got 0"),
    ],
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changes)


def test_a_gpu_that_is_not_there(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"^device must be cpu here, got 'cuda': torch finds no GPU\. Use device auto\."
    ):
        run(image_task(tiny_data), full(1), device="cuda")


def test_result_is_plain_numbers(tiny_data: Data) -> None:
    from subsettune import config

    result = run(image_task(tiny_data), two_phases(0.5, 0.5))
    plain = result.to_mapping()
    assert "model" not in plain
    again = config.build(RunResult, plain)
    assert again.to_mapping() == plain
    assert again.model is None


# --- the training that is kept ----------------------------------------------------------------------------------------


def test_a_final_run_gives_the_network_and_the_test_metric_and_is_the_same_run(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    plain = run(task, full(2.0))
    final = train.run(task, full(2.0), 3, final=True, options=options())
    assert set(plain.metrics) == {"validation"}
    assert set(final.metrics) == {"validation", "test"}
    assert same_bits(plain.model, final.model)
    assert final.metrics["validation"] == plain.metrics["validation"]
    assert train.run(task, full(2.0), 3, options=options()).model is None


def test_a_result_knows_its_data_and_tells_them_nobody(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    result = run(task, full(1.0))
    assert result.fingerprint == load(task, options().places).fingerprint
    assert "fingerprint" not in result.to_mapping()


# --- data in hand -----------------------------------------------------------------------------------------------------


def job_of(task: Task, policy: Policy, seed: int = 3) -> train.RunJob:
    return train.RunJob.of(task, policy, seed, load(task))


def test_a_job_is_the_run_of_its_data_and_reads_none(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    task, policy = image_task(tiny_data), two_phases(6.0, 1.0, selector="kcenter")
    expected, job = run(task, policy), job_of(task, policy)
    monkeypatch.setattr(loop, "load", None)
    result = loop.run_job(job, options=options(keep_model=True))
    assert same(result, expected)


def test_nothing_is_measured_where_nothing_is_held_out(tiny_data: Data) -> None:
    task, policy = image_task(tiny_data), two_phases(1.0, 1.0)
    told: list[CurvePoint] = []
    result = run(task, policy, report=lambda point: told.append(point) or False, measure_metrics=False, evaluations=4)
    assert same_bits(result.model, run(task, policy).model)
    assert (result.cause, result.metrics, result.ledger.evaluate) == ("finished", {}, 0)
    assert [(point.share, point.metric) for point in told] == [(0.25, None), (0.5, None), (0.75, None)]
    assert all(point.loss is not None for point in told)
    stopped = run(task, policy, report=lambda point: point.share == 0.5, measure_metrics=False, evaluations=4)
    assert stopped.cause == "stopped"
    assert 0.45 < stopped.ledger.spent / result.ledger.spent < 0.6


def test_weights_that_are_no_numbers_are_seen_without_a_metric(tiny_data: Data) -> None:
    """The last update alone makes them so: no loss tells it."""
    task = image_task(tiny_data, lr=1e38, weight_decay=1e3, momentum=None, batch_size=500)
    result = run(task, full(1.0), measure_metrics=False)
    assert result.updates == 1
    assert result.cause == "diverged"


def test_rankings_are_kept_only_where_they_are_wanted(
    tiny_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, policy = image_task(tiny_data), two_phases(6.0, 1.0, selector="kcenter")
    places = DataPaths(cache=str(tmp_path))
    expected = run(task, policy, keep_rankings=False, places=places)
    assert not (tmp_path / "rankings").exists()
    assert same_bits(run(task, policy, places=places).model, expected.model)
    assert (tmp_path / "rankings").exists()
