"""Plans: numbers that can be recomputed by hand, and everything refused that could not run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pytest
import torch
from fake_inputs import REMOVED, changed
from torch import nn

from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.facts import TaskFacts
from subsettune.report.plan_tables import plan_text
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.study import machine, timing
from subsettune.study.plan import check_price, plan, price
from subsettune.study.preflight import check_here, resolve_study
from subsettune.study.results.verified_before import VerifiedStudies
from subsettune.study.spec.definition import Study, parse
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.spec.space_check import read_space
from subsettune.study.timing import Timing, side_by_side
from subsettune.study.wall_clock import mean_budget
from subsettune.task import Recipe
from subsettune.train import transitions
from subsettune.train.learner import Learner
from subsettune.train.loop import check
from subsettune.train.transitions.prune import Prune

HIDDEN, M, FEATURES = 16, 10, 64
P = FEATURES * HIDDEN + HIDDEN + HIDDEN * M + M


def _study(changes: dict[str, Any]) -> Study:
    return parse(changed(changes))


def test_counts_are_those_of_digits_by_hand() -> None:
    made = plan(_study({}))
    n, test, validation = 899, 539, 359  # 30 % and 20 % of 1,797, by largest remainder
    assert (made["num_examples"], made["num_test"], made["num_validation"]) == (n, test, validation)
    assert (made["num_outputs"], made["num_parameters"]) == (M, P)
    assert made["q"] == pytest.approx(n * M / P)
    forward = 2 * (FEATURES * HIDDEN + HIDDEN * M)
    assert made["forward_flops"] == n * forward
    assert made["backward_flops"] == n * (2 * FEATURES * HIDDEN + 2 * 2 * HIDDEN * M)  # inputs need no gradient
    assert made["pass_flops"] == made["forward_flops"] + made["backward_flops"]
    assert made["reference_flops"] == 6 * made["pass_flops"]


def test_runs_are_upper_bounds_and_add_up() -> None:
    made = plan(_study({"study.max_seeds": 5}))
    assert {kind: row["runs"] for kind, row in made["runs"].items()} == {
        "reference": 3,
        "search": 6,
        # Of a budget of 0.1, sqrt(10) times as many as 5 of the reference: of a candidate, and of two plain controls.
        # The recipe at 0.8 has 1.118 times as many, and the random control 3.
        "verification": 3 * 16 + 6 + 3,
        "more seeds of the reference": 2,
    }
    dearest = 0.8 * 6
    verified = (3 * 6 + 6 + 3) * dearest  # 6 runs of 0.8 cost more than 16 of 0.1
    assert made["passes"] == pytest.approx(3 * 6 + 6 * dearest + verified + 2 * 6)
    assert made["flops"] == pytest.approx(made["passes"] * made["pass_flops"], rel=1e-9)


def test_a_fixed_budget_is_planned_as_it_is() -> None:
    assert plan(_study({"space.budget": 0.25}))["runs"]["search"]["passes"] == pytest.approx(6 * 0.25 * 6)


def test_an_update_is_timed_on_the_clock() -> None:
    ticks = iter(range(10_000))
    made = plan(_study({}), clock=lambda: float(next(ticks)))
    # One tick to start, one to see that half a second has passed, one at the end: 2 s for one update of 64 examples.
    assert made["expectations"][0] == (
        "A pass takes 28.1 s on 1 CPU thread of this machine, by a few updates that were timed alone."
    )


def _beside(example_s: float, measured_s: float, start_s: float = 3.0) -> Any:
    """Runs side by side that were timed beforehand."""

    def timed(study: Study, places: DataPaths, fingerprint: str, at_once: int) -> Timing:
        return Timing(example_s=example_s, measured_s=measured_s, start_s=start_s, at_once=at_once)

    return timed


def test_the_time_of_each_stage_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of 0.1 to 0.8 of 6 passes over 899 examples, on 2 of 8 cores; 0.1 ms an example in an update."""
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    changes = {"study.parallel": 2, "study.trials": 7, "study.max_seeds": 4, "study.ablation_seeds": 2}
    made = plan(_study(changes), beside=_beside(1e-4, 1e-5))
    pass_s, overhead_s = 899e-4, 0.1
    end_s, test_s = 359e-5, 539e-5  # one point on the validation split
    curve_s = 5 * end_s  # of the reference; three looks at a trial of 4.8 passes cost more than stopping it may save
    mean, middle, dearest = (6 * share for share in (0.7 / math.log(8), 0.45, 0.8))
    verified_s = 19 * dearest * pass_s / 46  # of a run where all cost the most: 3 * 4 and 4 and 3 at the dearest budget
    more = 1 * (6 * pass_s + end_s + test_s + overhead_s)  # one more seed of the reference; half of one is a run, too
    expected = {
        "start-up": 8.0 + 3.0,
        "reference": 2 * (6 * pass_s + curve_s) + 3 * overhead_s,  # three runs are two rounds of two
        "search": 4 * (mean * pass_s + end_s) + 7 * overhead_s,
        # Two policies with half of 3 and 6 runs each, their cost being 0.45, and 3 of a twin: 12 runs.
        "verification": 6 * (middle * pass_s + end_s + test_s) + 12 * overhead_s + more - 0.5 * overhead_s,
        "ablation": 2 * (middle * pass_s + end_s) + 4 * overhead_s,
    }
    at_most = {
        **{stage: expected[stage] for stage in ("start-up", "reference")},
        "search": 4 * (dearest * pass_s + end_s) + 7 * overhead_s,
        "verification": 23 * (verified_s + end_s + test_s) + 46 * overhead_s + more,  # 3 * 13 + 4 + 3 runs
        "ablation": 2 * (dearest * pass_s + end_s) + 4 * overhead_s,
    }
    assert {stage: row["expected"] for stage, row in made["stages"].items()} == pytest.approx(expected)
    assert {stage: row["at_most"] for stage, row in made["stages"].items()} == pytest.approx(at_most)
    assert made["expected_seconds"] == pytest.approx(sum(expected.values()))
    assert made["seconds"] == pytest.approx(sum(at_most.values()))
    assert made["parallel"] == 2
    assert made["expectations"][0] == (
        "A pass takes 0.0899 s on 1 CPU thread of this machine, by a few updates that were timed in 2 processes at "
        "once."
    )


def test_a_time_limit_ends_the_search_with_the_trials_under_way() -> None:
    slow, changes = _beside(1e-2, 1e-5), {"study.parallel": 2, "study.trials": 7}
    free = plan(_study(changes), beside=slow)["stages"]
    held = plan(_study({**changes, "study.time_limit_s": 30}), beside=slow)["stages"]
    rounds = math.ceil(7 / plan(_study(changes), beside=slow)["parallel"])
    assert held["search"]["at_most"] == pytest.approx(30 + free["search"]["at_most"] / rounds)
    assert held["search"]["expected"] < free["search"]["expected"]
    late = plan(_study({**changes, "study.time_limit_s": 1e6}), beside=slow)["stages"]
    assert late == free


@pytest.mark.parametrize(
    ("budget", "mean"),
    [(0.3, 0.3), ({"choice": [0.2, 0.5, 0.8]}, 0.5), ({"uniform": [0.2, 0.4]}, 0.3), ({"log": [0.1, 0.1]}, 0.1)],
)
def test_the_mean_budget_of_a_space(budget: object, mean: float) -> None:
    assert mean_budget(read_space({**_study({}).space, "budget": budget})["budget"]) == pytest.approx(mean)


def test_runs_that_do_not_fit_side_by_side_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    made = plan(_study({"study.parallel": 16, "study.cpus_per_trial": 2}), beside=_beside(1e-4, 1e-5))
    assert made["parallel"] == 2
    assert made["expectations"][1] == "2 of 16 runs at a time fit here, with 4 CPU cores for this process."


def test_where_processes_fail_the_time_alone_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    made = plan(_study({"study.parallel": 2}), beside=lambda *_: None)
    assert made["expectations"][0].endswith("timed alone.")


@pytest.mark.slow
def test_processes_are_timed_side_by_side(tmp_path: Path) -> None:
    study, places = _study({"study.parallel": 2}), DataPaths(cache=str(tmp_path))
    fingerprint = load(study.task, places).fingerprint
    found = side_by_side(study, places, fingerprint, 2)
    assert found is not None
    assert found.at_once == 2
    assert 0 < found.measured_s < 5 * found.example_s  # a third of it, on a machine that does nothing else
    assert found.start_s > 0.3  # torch alone takes longer to import
    assert side_by_side(study, places, "no such data", 1) is None


def test_an_update_of_a_line_search_counts_its_evaluations() -> None:
    recipe = {"optimizer": "lbfgs", "lr": 1.0, "batch_size": 899, "epochs": 6, "schedule": "constant"}
    study, data = _study({"task.recipe": recipe}), load(_study({}).task)
    ticks = iter(range(10_000))
    evaluations: list[int] = []

    class Counting(Learner):
        def update(self, *given: Any, **more: Any) -> int:
            evaluations.append(super().update(*given, **more))
            return evaluations[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "Learner", Counting)
        found = timing.time_here(study.task, data, 1, torch.device("cpu"), lambda: float(next(ticks)))
    assert evaluations[-1] > 1
    assert found.example_s == pytest.approx(2 / (899 * evaluations[-1]))


def test_what_is_not_here_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    changes = {"study.cpus_per_trial": 3, "task.data.source": "nowhere.parquet"}
    message = (
        r"^study\.cpus_per_trial: cpus_per_trial must be at most 2 here, got 3\. This process may use 2 CPU cores\. "
        r"Set it to 2, give --address of a cluster that has them, or tune with --inline"
    )
    with pytest.raises(ConfigError, match=message):
        plan(_study(changes))
    check_here(_study(changes), "auto", is_inline=True)
    made = plan(_study({"study.cpus_per_trial": 3, "study.parallel": 9}), address="auto", beside=_beside(1e-4, 1e-5))
    assert made["parallel"] == 9
    assert (
        "The cluster at auto was not asked: its machines may be faster or slower than this one."
        in (made["expectations"])
    )


def test_cores_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5, 7})
    version_2, version_1 = tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us"
    monkeypatch.setattr(machine, "_QUOTAS", (str(version_2), str(version_1)))
    assert machine.num_cores() == 4
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    for quota, cores in (("-1", 4), ("250000", 3), ("50000", 1)):
        version_1.write_text(f"{quota}\n")
        assert machine.num_cores() == cores
    for text, cores in (("max 100000", 4), ("150000 100000", 2), ("900000 100000", 4)):
        version_2.write_text(f"{text}\n")
        assert machine.num_cores() == cores


def test_a_selector_that_no_budget_pays_for_is_told() -> None:
    space = {"space.budget": {"log": [0.1, 0.2]}, "space.switch": 0.5, "space.subset_share": 0.5}
    made = plan(_study(space | {"space.selector": {"choice": ["random", "glister", "el2n"]}}))
    glister, el2n = made["expectations"][2:]
    assert glister.startswith("No policy will choose by glister: Choosing 450 of 899 examples with glister costs ")
    assert el2n == (
        "No policy will choose by el2n: Choosing 450 of 899 examples with el2n costs 1.47 passes, more than the 0.6 "
        "passes of its phase. Give the phase more compute, choose fewer examples, or use a cheaper selector."
    )


def test_an_entry_that_no_budget_pays_for_is_told() -> None:
    space = {
        "space.budget": {"log": [0.1, 0.2]},
        "space.switch": 0.99,
        "space.transition": {"choice": ["keep", "prune"]},
    }
    (message,) = plan(_study(space))["expectations"][2:]
    assert message.startswith(
        "No policy will have the transition prune: phase 2 has 0.012 passes, and its transition prune needs "
    )


def test_planning_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plan(_study({}))
    assert torch.equal(torch.rand(2), expected)


MISFITS: list[tuple[dict[str, Any], str]] = [
    (
        {"space.subset_share": REMOVED, "space.q": {"log": [0.5, 1000]}},
        "space.q: q must be at most 7.43, got 1000.0. It needs 121,000 examples and there are 899. Lower the upper "
        "end, use a smaller network, or search subset_share instead.",
    ),
    (
        {"task.metric": "mse"},
        "space.selector: stratified needs classes, and the task is a regression. Use random or kcenter. "
        "Leave 'stratified' out of the space.",
    ),
    (
        {"space.selector": "nowhere:Selector"},
        "space.selector: selector 'nowhere:Selector' cannot be imported: No module named 'nowhere'. "
        "Run from the folder that holds the module, or install it.",
    ),
    (
        {"space.optimizer": {"choice": ["sgd", "nowhere:Lion"]}},
        "space.optimizer: optimizer 'nowhere:Lion' cannot be imported: No module named 'nowhere'. "
        "Run from the folder that holds the module, or install it.",
    ),
    (
        {"task.recipe.schedule_options": {"foo": 1}},
        "task.recipe.schedule_options.foo: unknown key. Known keys: final, warmup.",
    ),
    (
        {
            "task.recipe": {"optimizer": "lbfgs", "lr": 1, "batch_size": 9999, "epochs": 6}
            | {"optimizer_options": {"line_search_fn": "armijo"}}
        },
        "task.recipe.optimizer_options.line_search_fn: line_search_fn must be one of strong_wolfe, got 'armijo'.",
    ),
    (
        {"task.recipe": {"optimizer": "lbfgs", "lr": 1, "batch_size": 64, "epochs": 6}},
        "task.recipe.batch_size: batch_size must be at least 899 with lbfgs, the number of training examples, got 64. "
        "It is a full-batch method: write a larger number, and every update takes its whole pool.",
    ),
]


ADAM = {"space.optimizer": {"choice": ["sgd", "adam"]}, "space.momentum": 0.0}
TOO_SHORT: list[tuple[dict[str, Any], float, str]] = [
    ({"space.budget": {"log": [0.001, 0.002]}}, 0.002, "0.0119"),  # 64 / (899 * 6) = 0.011865
    ({"space.budget": 0.0118, **ADAM}, 0.0118, "0.0119"),
    ({"space.budget": {"choice": [0.001, 0.003]}, "space.batch_size": {"int": [32, 128]}}, 0.003, "0.00594"),
    (
        {
            "space.budget": {"log": [0.1, 0.3]},
            "task.recipe": {"optimizer": "lbfgs", "lr": 1, "batch_size": 9999, "epochs": 6},
        },
        0.3,
        "0.334",  # two evaluations
    ),
]


@pytest.mark.parametrize(("changes", "budget", "least"), TOO_SHORT)
def test_budgets_that_pay_for_no_update_are_told(changes: dict[str, Any], budget: float, least: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(_study(changes))
    assert str(caught.value) == (
        f"space.budget: budget must be {least} or more at its largest, got {budget}. A policy on all data cannot make "
        "a single update with less."
    )
    study = _study({**changes, "space.budget": float(least)})
    known = resolve_study(study, DataPaths()).facts
    point = read_space(study.space).point("full", lambda axis: axis.ends[0])
    check(study.task, from_coordinates(point, known), known)
    with pytest.raises(ConfigError, match=r"^passes must be at least .* for one update"):
        check(study.task, from_coordinates({**point, "budget": 0.99 * float(least)}, known), known)


@pytest.mark.parametrize(("changes", "message"), MISFITS)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_study(_study(changes), DataPaths())
    assert str(caught.value) == message


def without_head(num_outputs: int) -> nn.Module:
    """A network that does not end in a linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, num_outputs), nn.Tanh())


HEADLESS = {"task.model": {"name": "tests.study.test_plan:without_head"}}
REGRESSION = {"task.metric": "mse"}
NO_EMBEDDINGS = "features: embeddings of herding need embeddings in the data, and there are none. Use raw features."
NO_LAYER = "layer must be one of 0, 1, 2, 3, got 'nope'. Name a layer as named_modules() does."
NO_HEAD = "the last layer of the model must be linear for grand. Use gradient: full, or another selector."

BLOCKED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"herding.features": "layer:nope"}, "herding.features", NO_LAYER),
    ({}, {"herding.features": {"choice": ["raw", "layer:nope"]}}, "herding.features", NO_LAYER),
    ({}, {"herding.features": "embeddings"}, "herding.features", NO_EMBEDDINGS),
    (
        {},
        {"herding.memory_limit_gib": {"log": [1e-6, 1e-5]}},
        "herding.memory_limit_gib",
        "herding needs 0.38 MiB of memory for 899 examples of 64 numbers, more than the 0.00102 MiB it may use. Raise "
        "its memory_limit_gib, or use another selector.",
    ),
    (
        REGRESSION,
        {"herding.classes": {"choice": ["none", "equal"]}},
        "herding.classes",
        "classes must be none or proportional for herding on a regression, got 'equal'. Leave it out.",
    ),
    (HEADLESS, {"grand.model": "current"}, "selector", f"{NO_HEAD} Leave 'grand' out of the space."),
    (HEADLESS, {"grand.gradient": {"choice": ["last", "full"]}}, "grand.gradient", NO_HEAD),
]


@pytest.mark.parametrize(("changes", "options", "place", "message"), BLOCKED)
def test_options_that_never_suit_the_data_are_told(
    changes: dict[str, Any], options: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_study(_study_with(changes, options), DataPaths())
    assert str(caught.value) == f"space.{place}: {message}"


ANY_RECIPE = Recipe(lr=0.1, batch_size=64, epochs=6)
CHAINLESS = TaskFacts(
    num_examples=9, num_outputs=1, num_parameters=1, forward_flops=1, backward_flops=1, reference_passes=1
)
SIFTED: dict[str, Any] = {"order": {"choice": ["uniform", "sift"]}}
PRUNED: dict[str, Any] = {"transition": {"choice": ["keep", "prune"]}}
STIRRED: dict[str, Any] = {"soup": {"choice": [0, 0.3]}}
IDLE: dict[str, Any] = {**PRUNED, "prune.between": 0.5, "arm": "full"}  # no policy of the space is pruned
FULL_BATCH = {"task.recipe": {"optimizer": "lbfgs", "lr": 1, "batch_size": 9999, "epochs": 6}}
TWO_LAYERS = {"task.model": {"name": "mlp", "hidden": [16, 8]}}
ONE_LAYER = (
    "prune.between has no use with fewer than two layers to prune, and this model has one layer that can be pruned"
)
NOT_BETWEEN = "Remove prune.between, or set it to 0."
NO_EXIT = "exit must be a layer of the model or a share of its depth, got 'nope'. Layers at the top of this model:"
NO_SHARDS = "soup.workers must be at most 45 for 90 examples, got 500. Each needs a shard of 2 or more."


@pytest.mark.parametrize(
    ("changes", "space", "place", "message"),
    [
        ({}, {**SIFTED, "sift.exit": "nope"}, "sift.exit", f"{NO_EXIT} 0, 1, 2, 3."),
        ({}, {**SIFTED, "sift.exit": {"choice": ["1", "nope"]}}, "sift.exit", f"{NO_EXIT} 0, 1, 2, 3."),
        (  # that it could be the uniform order is no use of it
            {},
            {**SIFTED, "sift.exit": "nope", "sift.keep": {"uniform": [0.5, 1.0]}},
            "sift.exit",
            f"{NO_EXIT} 0, 1, 2, 3.",
        ),
        (
            FULL_BATCH,
            SIFTED,
            "order",
            "order must be uniform with lbfgs, got 'sift'. Its curvature is that of one loss, on the same examples in "
            "every update: use another optimizer. Leave 'sift' out of the space.",
        ),
        (
            HEADLESS,
            PRUNED,
            "transition",
            f"{transitions.make('prune', {}).why_not(ANY_RECIPE, CHAINLESS)} Leave 'prune' out of the space.",
        ),
        (
            {},
            {**PRUNED, "prune.layers": {"choice": [["1"], ["nope"]]}},
            "prune.layers",
            "layers must be some of 1 for the transition prune, got ['nope'].",
        ),
        ({}, {**PRUNED, "prune.between": 0.5}, "prune.between", f"{ONE_LAYER}, '1'. {NOT_BETWEEN}"),
        ({}, {**PRUNED, "prune.between": {"uniform": [0, 0.9]}}, "prune.between", f"{ONE_LAYER}, '1'. {NOT_BETWEEN}"),
        ({}, {**PRUNED, "prune.between": {"choice": [0, 0.5]}}, "prune.between", f"{ONE_LAYER}, '1'. {NOT_BETWEEN}"),
        (
            {},
            {"transition": "prune", "prune.between": 0.5, "prune.layers": {"choice": [["1"]]}},
            "prune.between",
            f"{ONE_LAYER}, '1'. {NOT_BETWEEN}",
        ),
        (
            TWO_LAYERS,
            {**PRUNED, "prune.between": 0.5, "prune.layers": {"choice": [["1"], ["3"]]}},
            "prune.between",
            f"prune.between has no use with fewer than two layers to prune, and prune.layers leaves one. {NOT_BETWEEN}",
        ),
        ({}, {**STIRRED, "soup.workers": 500}, "soup.workers", NO_SHARDS),
        ({}, {**STIRRED, "soup.workers": {"choice": [2, 500]}}, "soup.workers", NO_SHARDS),
        (
            {},
            {**STIRRED, "soup.workers": 50, "soup.share": 0.01},
            "soup.share",
            "soup.workers must be at most 4 for 9 examples, got 50. Each needs a shard of 2 or more.",
        ),
        (
            {},
            {"order": "nowhere:Order"},
            "order",
            "order 'nowhere:Order' cannot be imported: No module named 'nowhere'. Run from the folder that holds the "
            "module, or install it.",
        ),
    ],
)
def test_orders_entries_and_soups_that_never_suit_the_task_are_told(
    changes: dict[str, Any], space: dict[str, Any], place: str, message: str
) -> None:
    raw = changed(changes)
    raw["space"] |= space
    with pytest.raises(ConfigError) as caught:
        resolve_study(parse(raw), DataPaths())
    assert str(caught.value) == f"space.{place}: {message}"


@pytest.mark.parametrize(
    ("changes", "space"),
    [
        ({}, {**SIFTED, "sift.exit": {"choice": [0.5, "1"]}}),
        ({}, {**SIFTED, "optimizer": {"choice": ["sgd", "adam"]}, "momentum": 0.0}),
        ({}, {**STIRRED, "soup.workers": {"int": [2, 500]}}),  # few of them have a shard each
        ({"space.subset_share": {"log": [0.002, 0.5]}}, STIRRED),  # the larger subsets have a shard for each
        ({"space.subset_share": 1.0, "space.selector": REMOVED}, {**SIFTED, **PRUNED, **STIRRED}),
        ({}, {**PRUNED, "prune.between": 0}),
        ({"space.switch": REMOVED, "space.subset_share": REMOVED, "space.selector": REMOVED}, IDLE),
        (TWO_LAYERS, {**PRUNED, "prune.between": {"uniform": [0.1, 0.9]}}),
        (TWO_LAYERS, {**PRUNED, "prune.between": 0.5, "prune.layers": {"choice": [["1"], ["1", "3"]]}}),
    ],
)
def test_orders_entries_and_soups_that_suit_the_task_at_times_are_left_to_the_search(
    changes: dict[str, Any], space: dict[str, Any]
) -> None:
    raw = changed(changes)
    raw["space"] |= space
    resolve_study(parse(raw), DataPaths())


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {**SIFTED, "sift.keep": {"uniform": [0, 1]}},
            "space.sift.keep: keep must be in (0, 1], got 0.0. It is a fraction, not a percentage: write 0.4 for 40 %.",
        ),
        (
            {**SIFTED, "sift.kep": 0.5},
            "space.sift.kep: unknown key. Did you mean 'keep'? Known keys: exit, head, keep, start, stop.",
        ),
        (
            {**PRUNED, "prune.kep": 0.5},
            "space.prune.kep: unknown key. Did you mean 'keep'? Known keys: candidates, examples, keep, layers, "
            f"repeats. {Prune.in_space}.",
        ),
        (
            {**STIRRED, "soup.density": {"log": [0.1, 2]}},
            "space.soup.density: density must be in (0, 1], got 2.0. It is a fraction, not a percentage: write 0.4 for "
            "40 %.",
        ),
        (
            {**STIRRED, "soup.masks": "drawn"},
            "space.soup.masks: masks must be one of erk, data, got 'drawn'.",
        ),
    ],
)
def test_options_out_of_range_or_misspelt_are_told_with_their_place(space: dict[str, Any], message: str) -> None:
    raw = changed({})
    raw["space"] |= space
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        (HEADLESS, {"grand.gradient": "full"}),
        ({}, {"herding.memory_limit_gib": {"log": [1e-6, 1]}}),  # some of it is enough
        ({"space.subset_share": {"log": [0.1, 0.99]}}, {"herding.classes": "equal"}),  # the smaller ones can be
    ],
)
def test_options_that_suit_the_data_at_times_are_left_to_the_search(
    changes: dict[str, Any], options: dict[str, Any]
) -> None:
    resolve_study(_study_with(changes, options), DataPaths())


def test_an_option_that_may_be_absent_does_not_block_its_selector() -> None:
    """With `reset_optimizer` the gradient is that of the last layer, which a network without one has not."""
    entries = {"space.transition": {"choice": ["keep", "reset_optimizer"]}}
    options = {"grand.gradient": {"choice": ["full"], "when": {"transition": "keep"}}}
    assert resolve_study(_study_with(HEADLESS | entries, options), DataPaths()).facts.head_features == 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Every(Selector):
    """Takes examples at a distance that has to be given."""

    name, summary = "every", "examples at a distance"
    distance: int

    def flops(self, facts: TaskFacts, k: int) -> int:
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        return Subset(positions=torch.arange(k) * self.distance)


def test_a_selector_with_an_option_that_must_be_given() -> None:
    resolve_study(_study_with({}, {"tests.study.test_plan:Every.distance": {"int": [1, 2]}}), DataPaths())
    with pytest.raises(ConfigError) as caught:
        resolve_study(_study({"space.selector": "tests.study.test_plan:Every"}), DataPaths())
    assert str(caught.value) == "space.selector: key 'distance' is missing."


def _study_with(changes: dict[str, Any], options: dict[str, Any]) -> Study:
    """A study with changes that searches one selector with such options."""
    raw = changed(changes)
    raw["space"] |= {"selector": next(iter(options)).rpartition(".")[0], **options}
    return parse(raw)


def test_all_misfits_of_a_space_come_at_once() -> None:
    changes = {
        "space.selector": {"choice": ["a_module:A", "b_module:B"]},
        "space.subset_share": REMOVED,
        "space.q": {"log": [1, 99]},
    }
    with pytest.raises(ConfigError) as caught:
        resolve_study(_study(changes), DataPaths())
    assert [mistake.path for mistake in caught.value.mistakes] == [
        ("space", "q"),
        ("space", "selector"),
        ("space", "selector"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"task.model": {"name": "mlp", "hiden": [3]}},
        {"task.model": {"name": "cnn", "channels": [2, 2, 2, 2]}},
        {"task.model": {"name": "nowhere:net"}},
        {"task.recipe.optimizer_options": {"betas": [0.9, 0.99]}},
        {"task.recipe.augment": {"crop_padding": 9}},
        {"task.data.source": "nowhere.parquet"},
    ],
)
def test_a_task_that_cannot_be_trained_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SubsettuneError):
        plan(_study(changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_here_is_told_before_anything_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"^study\.gpus_per_trial: gpus_per_trial must be at most 0 here, got 0\.5\. "
    ):
        check_here(_study({"study.gpus_per_trial": 0.5}), "auto")
    with pytest.raises(ConfigError, match=r"^device must be auto or cpu here, got 'cuda'\. "):
        check_here(_study({}), "cuda")
    check_here(_study({}), "auto")
    with pytest.raises(ConfigError, match=r"^study\.gpus_per_trial: gpus_per_trial must be at most 0 here, got 1"):
        plan(_study({"study.gpus_per_trial": 1}))
    made = plan(_study({"study.gpus_per_trial": 1}), address="auto")
    assert made["seconds"] is None
    assert made["stages"] == {}
    assert made["expectations"][0].startswith("A run asks for 1 GPU, and there is none here")


def two_heads(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.train_head, self.large_head = nn.Linear(FEATURES, M), nn.Linear(2 * FEATURES, M)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            return self.train_head(x) if self.training else self.large_head(torch.cat([x, x], dim=1))

    return TwoHeads()


def test_what_the_flops_do_not_tell_is_in_the_plan() -> None:
    made = plan(_study({"task.model": {"name": f"{__name__}:two_heads"}}))
    assert made["expectations"][-2:] == [
        "Not used where FLOPs were counted, and charged nothing if training uses it all the same: large_head.",
        "The forward pass of an example takes 2.56 kFLOP in evaluation and 1.28 kFLOP in training. Evaluation and "
        "selection are charged as in training.",
    ]


def test_a_plan_for_runs_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `tune --inline` carries out: more threads than cores, no cluster, whatever address is set."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    study = _study({"study.cpus_per_trial": 3, "study.parallel": 4})
    made = plan(study, is_inline=True, beside=_beside(1e-4, 1e-5))
    assert made["parallel"] == 1
    assert "start-up" not in made["stages"]
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(ConfigError, match="cpus_per_trial must be at most 2 here, got 3"):
        plan(study, beside=_beside(1e-4, 1e-5))


# --- the test split ---------------------------------------------------------------------------------------------------


def test_a_test_split_that_is_small_for_the_tolerance_is_told(tmp_path: Path) -> None:
    places = DataPaths(cache=str(tmp_path))
    assert plan(_study({}), places)["test_notes"] == []  # 0.1 on 539 examples
    made = plan(_study({"task.tolerance": 0.01}), places)
    (note,) = made["test_notes"]
    assert note.startswith("539 test examples are few for a tolerance of 0.01: ")
    assert "1,300 would do" in note
    assert note in " ".join(plan_text(made).split())
    assert made["test_size"] == {
        "num_examples": 539,
        "disagreement": 0.02,
        "standard_error": pytest.approx(math.sqrt(0.02 / 539)),
        "enough": 1237,
        "is_enough": False,
    }


def test_studies_that_were_verified_on_the_same_test_split_are_told(tmp_path: Path) -> None:
    places, study = DataPaths(cache=str(tmp_path)), _study({})
    assert plan(study, places)["verified_before"] == 0
    fingerprint = load(study.task, places).fingerprint
    for name in ("one", "two"):
        VerifiedStudies.of(str(tmp_path), fingerprint).note(name, "2026-01-01", at="2026-01-01")
    made = plan(study, places)
    assert made["verified_before"] == 2
    assert [note[:54] for note in made["test_notes"]] == ["2 studies were verified on this test split before, on "]
    other = plan(_study({"task.split.seed": 1}), places)  # other test examples
    assert other["verified_before"] == 0


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ((1_234_567.0, 1_234_567.891, 2e6), "At 1,234,567.00 an hour: about 1,234,567.89, 2,000,000.00 at most."),
        ((0.4, 0.0123, 0.999), "At 0.40 an hour: about 0.012, 1.00 at most."),
        ((0.4, 1e-7, 1e-6), "At 0.40 an hour: under 0.01, under 0.01 at most."),
    ],
)
def test_prices_are_written_without_exponents(amounts: tuple[float, float, float], words: str) -> None:
    price = dict(zip(("per_hour", "expected", "at_most"), amounts, strict=True))
    text = plan_text({"expected_seconds": 900.0, "seconds": 7200.0, "price": price})
    assert " ".join(text.split()).endswith(words)


def test_a_price_is_that_of_the_projected_hours() -> None:
    planned = {"expected_seconds": 900.0, "seconds": 7200.0, "parallel": 2}
    assert price(planned, 4.8) == {"per_hour": 4.8, "expected": 1.2, "at_most": 9.6}
    text = plan_text({**planned, "price": price(planned, 4.8)})
    assert " ".join(text.split()).endswith("at most, projected. At 4.80 an hour: about 1.20, 9.60 at most.")
    untimed = {"expected_seconds": None, "seconds": None}
    assert price(untimed, 1.0) == {"per_hour": 1.0, "expected": None, "at_most": None}
    told = "Time: unknown until the reference has run. No price is known before that, at 1.00 an hour or any"
    assert told in " ".join(plan_text({**untimed, "price": price(untimed, 1.0)}).split())
    assert " an hour" not in plan_text(untimed)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"--price-per-hour must be above 0, got {wrong}. Give what the machines"):
            check_price(wrong)
