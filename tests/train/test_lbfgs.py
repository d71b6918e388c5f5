"""L-BFGS, and every other optimizer that evaluates the loss itself: what it reaches, what it pays, where it is cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selections
import torch
from fakes import image_task, options, same_bits, two_phases, value_task
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after
from torch import Tensor, nn

from subsettune import train
from subsettune.data import load
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, conventional
from subsettune.task import Recipe, Task
from subsettune.train import RunResult, optimizers
from subsettune.train.learner import PIECE, Learner
from subsettune.train.optimizers import search_step
from subsettune.train.randomness import isolated

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
LBFGS: dict[str, Any] = {
    "optimizer": "lbfgs",
    "lr": 1.0,
    "momentum": None,
    "batch_size": 1000,
    "schedule": "constant",
}


def lbfgs_task(data: Data, model: Any = None, **recipe: Any) -> Task:
    return image_task(data, model, **{**LBFGS, **recipe})


def run(task: Task, policy: Policy, report: Any = None, **changes: Any) -> RunResult:
    return train.run(task, policy, 3, report=report, options=options(**{"keep_model": True, **changes}))


def full(passes: float) -> Policy:
    return Policy(phases=(Phase(passes=passes),))


# --- what it reaches --------------------------------------------------------------------------------------------------


def test_least_squares_reaches_the_closed_form_minimum(tiny_data: Data) -> None:
    task = value_task(tiny_data, **LBFGS)
    data = load(task)
    x, y = data.train.batch(torch.arange(len(data.train)))
    design = np.column_stack([x.double().numpy(), np.ones(len(x))])
    solution, *_ = np.linalg.lstsq(design, y.double().numpy(), rcond=None)
    result = run(task, full(30), splits=("train",))
    least = float(np.square(design @ solution - y.double().numpy()).mean())
    assert result.metrics["train"] == pytest.approx(least, rel=1e-6)
    weight, bias = (p.detach().double() for p in result.model.parameters())
    assert float(data.target_std) * weight[0].numpy() == pytest.approx(solution[:-1], abs=1e-2)
    assert float(bias) * float(data.target_std) + float(data.target_mean) == pytest.approx(solution[-1], abs=1e-2)


def quadratic(weights: nn.Parameter, seen: list[float]) -> Callable[[], Tensor]:
    """0.5 (w - 1)' diag(1, 10, 100) (w - 1), and the losses that were asked for."""

    def loss() -> Tensor:
        weights.grad = None
        value = 0.5 * (torch.tensor([1.0, 10.0, 100.0]) * (weights - 1) ** 2).sum()
        value.backward()
        seen.append(value.item())
        return value.detach()

    return loss


def lbfgs(weights: nn.Parameter, **recipe: Any) -> torch.optim.Optimizer:
    network = nn.Module()
    network.register_parameter("weights", weights)
    return optimizers.make(Recipe(**{"optimizer": "lbfgs", "lr": 1, "batch_size": 1, "epochs": 1, **recipe}), network)


def test_a_quadratic_reaches_its_minimum() -> None:
    weights, seen = nn.Parameter(torch.tensor([5.0, -3.0, 2.0])), list[float]()
    optimizer = lbfgs(weights)
    for _ in range(3):
        search_step(optimizer, quadratic(weights, seen), None)
    assert weights.tolist() == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("most", range(1, 30))
@pytest.mark.parametrize("search", ["strong_wolfe", None])
def test_a_step_makes_no_more_evaluations_than_it_may(most: int, search: str | None) -> None:
    weights, seen = nn.Parameter(torch.tensor([5.0, -3.0, 2.0])), list[float]()
    optimizer = lbfgs(weights, lr=1 if search else 1e-3, optimizer_options={"line_search_fn": search})
    for step in range(4):
        before = len(seen)
        loss, evaluations = search_step(optimizer, quadratic(weights, seen), most)
        assert evaluations == len(seen) - before <= most
        assert float(loss) == seen[before]
        if step == 0:  # with a search it goes on to the minimum, which takes 15; without, until `max_iter`
            assert evaluations >= min(most, 15 if search else 20) - (1 if search else 0)
    assert optimizer.param_groups[0]["max_eval"] == 25


@pytest.mark.parametrize("most", range(1, 26))
def test_a_step_that_is_cut_keeps_the_lowest_loss_it_saw(most: int) -> None:
    weights, seen = nn.Parameter(torch.tensor([5.0, -3.0, 2.0])), list[float]()
    search_step(lbfgs(weights), quadratic(weights, seen), most)
    lowest = min(seen)
    assert float(quadratic(weights, [])()) == lowest


def test_steps_that_are_cut_lose_no_curvature() -> None:
    """Ten short steps get as far as one long one, but for the evaluation that each begins with."""
    ends = []
    for steps, most in ((1, 20), (7, 4)):
        weights = nn.Parameter(torch.tensor([5.0, -3.0, 2.0]))
        optimizer = lbfgs(weights)
        for _ in range(steps):
            search_step(optimizer, quadratic(weights, []), most)
        ends.append(float(quadratic(weights, [])()))
    assert ends[1] <= max(ends[0], 1e-6)


def test_a_change_of_the_objective_leaves_a_curvature_pair_out() -> None:
    weights = nn.Parameter(torch.tensor([5.0, -3.0, 2.0]))
    optimizer = lbfgs(weights, optimizer_options={"max_iter": 3})
    search_step(optimizer, quadratic(weights, []), None)
    (state,) = optimizer.state.values()
    pairs = len(state["old_dirs"])
    optimizers.change_objective(optimizer)
    search_step(optimizer, lambda: quadratic(weights, [])() * 3, 2)  # one direction, one pair at most
    assert len(state["old_dirs"]) == pairs
    search_step(optimizer, quadratic(weights, []), 2)
    assert len(state["old_dirs"]) == pairs + 1


def test_a_learning_rate_of_0_moves_nothing() -> None:
    weights, seen = nn.Parameter(torch.tensor([5.0, -3.0, 2.0])), list[float]()
    optimizer = lbfgs(weights)
    optimizer.param_groups[0]["lr"] = 0.0
    assert search_step(optimizer, quadratic(weights, seen), None)[1] == 1
    assert weights.tolist() == [5, -3, 2]


# --- what it pays -----------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """A linear model that counts the examples it is trained on, outside its parameters."""

    seen = 0

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(input_shape), 8), nn.ReLU(), nn.Linear(8, num_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            Counted.seen += len(x)
        logits: Tensor = self.layers(x)
        return logits


def assert_met(result: RunResult, facts: TaskFacts) -> None:
    """The ledger is at most the cost, and within one evaluation of the last pool, which is everything."""
    cost = result.policy.cost(facts)
    assert cost - facts.pass_flops < result.ledger.spent <= cost


COUNTED = {"name": "tests.train.test_lbfgs:Counted"}
OWN = {"optimizer": "tests.train.test_lbfgs:Twice", "lr": 0.1, "momentum": None, "batch_size": 16, "weight_decay": 0.01}


@pytest.mark.parametrize("recipe", [LBFGS, {**OWN, "grad_clip": 1.0}], ids=["lbfgs", "own"])
def test_every_evaluation_is_charged(tiny_data: Data, recipe: dict[str, Any]) -> None:
    task = image_task(tiny_data, COUNTED, **recipe)
    facts = train.facts(task)
    for policy in (full(7.5), two_phases(3.2, 4.9, share=0.4), two_phases(3.2, 4.9, transition="reset_optimizer")):
        Counted.seen = 0
        result = run(task, policy)
        assert result.ledger.train == Counted.seen * facts.example_flops
        assert result.cause == "finished"
        assert_met(result, facts)


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(
        st.tuples(
            st.one_of(st.just(1.0), st.floats(0.01, 1.0)),
            st.floats(0.0, 4.0),
            st.sampled_from(["keep", "reset_optimizer", "shrink_perturb"]),
            st.sampled_from(["random", "kcenter"]),
        ),
        min_size=1,
        max_size=3,
    ),
    max_iter=st.integers(1, 30),
)
@example(
    drawn=[(1 / 64, 1.0, "keep", "random"), (1.0, 4.0, "keep", "random"), (1 / 64, 1.0, "keep", "random")], max_iter=3
)
def test_the_ledger_meets_the_cost_and_phases_end_within_one_evaluation(
    tiny_data: Data, drawn: list[tuple[float, float, str, str]], max_iter: int
) -> None:
    task = lbfgs_task(tiny_data, optimizer_options={"max_iter": max_iter})
    facts = train.facts(task)
    phases = [
        {"share": share, "passes": passes, "transition": transition if index else "keep", "selector": selector}
        for index, (share, passes, transition, selector) in enumerate(drawn)
    ]
    try:
        policy = Policy(phases=tuple(Phase(**plain) for plain in phases))
        train.check(task, policy, facts)
    except ConfigError:
        return  # too little compute, and told before the run
    result = run(task, policy, evaluations=2, measure_switches=True)
    if result.cause == "diverged":  # as it may on three examples, whose loss has no minimum
        assert not all(phase.is_full for phase in policy.phases)
        assert result.ledger.spent <= policy.cost(facts)
        return
    assert_met(result, facts)
    ends = policy.boundaries(facts)
    for point, later in itertools.pairwise(result.switches):
        chosen = sum(selections.selection_flops(policy, i, facts) for i in range(point.phase + 1, later.phase + 1))
        assert 0 <= point.flops - chosen - ends[point.phase] < facts.pass_flops


def test_the_conventional_recipe_is_charged_exactly(tiny_data: Data) -> None:
    task = lbfgs_task(tiny_data, epochs=30)
    facts = train.facts(task)
    result = run(task, conventional(facts), evaluations=4)
    assert result.ledger.spent == 30 * 210 * facts.example_flops
    assert result.updates < 5  # of 30 evaluations
    assert result.metrics["validation"] > 0.9


# --- one function a step ----------------------------------------------------------------------------------------------


class Dropped(nn.Module):
    """Half of its inputs are dropped."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(input_shape), num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def make_learner(task: Task) -> Learner:
    data = load(task)
    return Learner(task, task.recipe, data, torch.device("cpu"), 0)


def test_a_step_sees_one_function_with_augmentation_and_dropout(tiny_data: Data) -> None:
    """The next step sees another one: draws go on by one evaluation, however many there were."""
    task = lbfgs_task(tiny_data, {"name": "tests.train.test_lbfgs:Dropped"}, augment={"flip": True, "crop_padding": 2})
    with isolated(0, 1):
        learner = make_learner(task)
        batch = torch.arange(len(learner.part))
        losses: list[float] = []
        step = learner.optimizer.step

        def again(closure: Callable[[], Tensor]) -> None:
            losses.extend(float(closure()) for _ in range(3))

        learner.optimizer.step = again  # type: ignore[method-assign, assignment]
        assert learner.update(batch, 1.0, None) == 3
        after_three = torch.get_rng_state()
        assert learner.update(batch, 1.0, None) == 3
        assert len(set(losses[:3])) == 1
        assert len(set(losses[3:])) == 1
        assert losses[0] != losses[3]
        learner.optimizer.step = step
    with isolated(0, 1):
        learner = make_learner(task)
        assert learner.update(batch, 1.0, None, most=1) == 1
        assert torch.equal(torch.get_rng_state(), after_three)


def _keep(seen: list[tuple[Tensor, Tensor, Tensor]], *told: Tensor) -> None:
    seen.append((told[0], told[1], told[2]))


def test_pieces_of_a_batch_add_up(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.linspace(0.5, 1.5, 210)
    found = []
    for size in (1000, 50):
        monkeypatch.setitem(PIECE, "cpu", size)
        with isolated(0, 1):
            learner = make_learner(lbfgs_task(tiny_data))
            seen: list[tuple[Tensor, Tensor, Tensor]] = []
            learner.update(torch.arange(210), 1.0, weights, most=1, watch=partial(_keep, seen))
        gradients = torch.cat([p.grad.flatten() for p in learner.network.parameters() if p.grad is not None])
        found.append((learner.take_loss(), gradients, *seen[0]))
    (loss, gradients, batch, outputs, targets), other = found
    assert other[0] == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(other[1], gradients, rtol=1e-4, atol=1e-6)
    assert torch.equal(batch, torch.arange(210))
    assert outputs.shape == (210, 4)
    assert not outputs.requires_grad
    torch.testing.assert_close(other[3], outputs)
    own = nn.functional.cross_entropy(outputs.double(), targets, reduction="none")
    assert loss == pytest.approx(float((own * weights).mean()), rel=1e-5)


@pytest.mark.parametrize("recipe", [{}, LBFGS], ids=["sgd", "lbfgs"])
def test_watch_sees_the_outputs_before_the_step(tiny_data: Data, recipe: dict[str, Any]) -> None:
    with isolated(0, 1):
        learner = make_learner(image_task(tiny_data, **recipe))
        batch = torch.tensor([5, 3, 200])
        inputs, targets = learner.part.batch(batch)
        before = learner.network(inputs).detach()
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        learner.update(batch, 0.1, None, watch=partial(_keep, seen))
        ((positions, outputs, classes),) = seen
        assert torch.equal(positions, batch)
        assert torch.equal(outputs, before)
        assert torch.equal(classes, targets)
        assert not torch.equal(learner.network(inputs), before)


# --- interrupted, diverged, impossible --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "transition"),
    [(None, "keep"), ({"name": "fakes:Noisy"}, "reset_optimizer"), ({"name": "fakes:Noisy"}, "shrink_perturb")],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    tiny_data: Data, tmp_path: Path, model: Any, transition: str
) -> None:
    task = lbfgs_task(tiny_data, model, augment={"flip": True}, optimizer_options={"max_iter": 4})
    policy = two_phases(9.0, 6.0, share=0.4, transition=transition)
    plain: dict[str, Any] = {"evaluations": 100, "measure_switches": True}
    whole = run(task, policy, **plain)
    assert len(whole.switches) == 2
    for number in range(1, len(whole.curve) + 1, 2):
        there = {"checkpoints": str(tmp_path / str(number)), "checkpoint_every_s": ALWAYS}
        with pytest.raises(InterruptedRunError):
            run(task, policy, report=interrupt_after(number), **plain, **there)
        again = run(task, policy, **plain, **there)
        assert_same(again, whole)
        assert again.switches == whole.switches


def test_same_seed_same_bits(tiny_data: Data) -> None:
    task = lbfgs_task(tiny_data, {"name": "fakes:Noisy"})
    first, second = (run(task, two_phases(5.0, 5.0)) for _ in range(2))
    assert same_bits(first.model, second.model)


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_loss_that_is_not_finite_ends_the_run(tiny_data: Data, after: int) -> None:
    task = lbfgs_task(tiny_data, {"name": "fakes:Exploding", "after": after})
    result = run(task, full(200), evaluations=1)
    assert result.cause == "diverged"
    assert result.message == f"The loss left the finite numbers after {result.updates} updates, at learning rate 1."
    assert result.updates <= 4  # it looks at once, where other optimizers look now and then
    assert result.metrics == {}


def test_steps_of_a_fixed_length_may_diverge(tiny_data: Data) -> None:
    task = value_task(tiny_data, **{**LBFGS, "lr": 1e12, "optimizer_options": {"line_search_fn": None}})
    assert run(task, full(40)).cause == "diverged"


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "warmup_stable_decay"])
def test_other_schedules_run(tiny_data: Data, schedule: str) -> None:
    """A warm-up begins with a learning rate of 0, over which a line search would stumble."""
    task = lbfgs_task(tiny_data, schedule=schedule)
    result = run(task, full(40))
    assert result.cause == "finished"
    assert result.metrics["validation"] > 0.8


@pytest.mark.parametrize(
    ("recipe", "policy", "message"),
    [
        (
            {"batch_size": 209},
            full(5),
            "^batch_size: batch_size must be at least 210 with lbfgs, the number of training examples, got 209. It is "
            "a full-batch method: write a larger number, and every update takes its whole pool.$",
        ),
        (
            {},
            full(1.5),
            "^passes must be at least 2 for one update, which is 2 evaluations, on 210 examples, got 1.5. Give the "
            "policy more compute.$",
        ),
    ],
)
def test_what_is_told_before_the_first_step(
    tiny_data: Data, recipe: dict[str, Any], policy: Policy, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(lbfgs_task(tiny_data, **recipe), policy)


def test_full_batches_of_exactly_the_training_part_are_enough(tiny_data: Data) -> None:
    exact, larger = (run(lbfgs_task(tiny_data, batch_size=size), full(6)) for size in (210, 10**6))
    assert same_bits(exact.model, larger.model)


# --- a user's own -----------------------------------------------------------------------------------------------------


class Twice(torch.optim.SGD):
    """Two evaluations a step: one where it is, one a little uphill, whose gradient it follows."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        gradients = [p.grad.clone() for p in parameters]
        with torch.no_grad():
            for p, gradient in zip(parameters, gradients, strict=True):
                p.add_(gradient, alpha=0.01)
        closure()
        with torch.no_grad():
            for p, gradient in zip(parameters, gradients, strict=True):
                p.sub_(gradient, alpha=0.01)
        super().step()


class Never(torch.optim.SGD):
    """Takes a closure and does not call it."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        pass


def test_an_optimizer_of_the_user_s_that_takes_a_closure_trains(tiny_data: Data) -> None:
    result = run(image_task(tiny_data, **OWN), full(12))
    assert result.metrics["validation"] > 0.8
    assert result.updates == -(-12 * 210 // 32)  # 2 evaluations of 16, and one in the last update


def test_an_optimizer_of_the_user_s_is_cut_at_the_end_with_the_best_weights(tiny_data: Data) -> None:
    task = image_task(tiny_data, **OWN)
    even, odd = (run(task, full(passes / 210)) for passes in (32, 48))  # 2 evaluations of 16, and a third
    assert (even.updates, odd.updates) == (1, 2)
    assert odd.ledger.spent == 1.5 * even.ledger.spent
    assert same_bits(even.model, odd.model)  # the third was made where the weights were the best already


def test_an_optimizer_that_never_calls_its_closure_is_told(tiny_data: Data) -> None:
    task = image_task(tiny_data, **{**OWN, "optimizer": "tests.train.test_lbfgs:Never"})
    with pytest.raises(ConfigError, match=r"^optimizer Never never called its closure\. Call it in every step\.$"):
        run(task, full(2))
