"""Components against their neutral kin: which policy stands for each, what runs show, what a study makes of it."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from facts import made_up_facts
from fake_inputs import changed
from places import SUPPORT
from selections import selection_flops
from torch import Tensor

from subsettune import DataPaths, TuneOptions, config, tune
from subsettune.config import FrozenDict
from subsettune.data import Part
from subsettune.errors import ConfigError, StudyError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.report import html, tables
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.study.ablation.choose import COMPARED, TOO_FAR, Found, Ground, choose, num_compared
from subsettune.study.ablation.judge import Rules, judge
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.worker import Worker
from subsettune.study.plan import plan
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord, from_table, to_table
from subsettune.study.results.view import StudyView
from subsettune.study.spec import components
from subsettune.study.spec.components import Component, randomised
from subsettune.study.spec.definition import StudySettings, parse
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.spec.space import Space
from subsettune.study.spec.space_check import read_space
from subsettune.study.stages.ablation import AblationSource
from subsettune.task import Recipe

FACTS = made_up_facts(
    forward_flops=1000,
    backward_flops=2000,
    num_features=64,
    num_classes=10,
    smallest_class=90,
    class_counts=(100,) * 10,
)
RECIPE = Recipe(lr=0.1, batch_size=50, epochs=10)
SPACE = read_space(
    {
        "budget": {"log": [0.02, 0.6]},
        "switch": {"uniform": [0.1, 0.9]},
        "subset_share": {"log": [0.05, 0.5]},
        "selector": {"choice": ["random", "stratified", "kcenter", "own.module:Distances"]},
        "transition": {"choice": ["keep", "reset_optimizer"]},
    }
)
WIDE = {"task.tolerance": 0.5, "study.ablation_seeds": 3}  # every policy passes
THREE = {**WIDE, "study.trials": 8, "space.selector": {"choice": ["random", "stratified", "kcenter"]}}
T_90 = 0.9 * math.sqrt(2 / (1 - 0.9**2))  # of three seeds, closed form


def _trial(number: int, metric: float | None, **coordinates: Any) -> RunRecord:
    """A trial of the subset arm; without a metric it failed."""
    point = {
        "arm": "subset",
        "budget": 0.2,
        "switch": 0.5,
        "subset_share": 0.1,
        "selector": "random",
        "transition": "keep",
    }
    point |= coordinates
    policy = from_coordinates(point, FACTS)
    return RunRecord(
        name=f"trial-{number:04d}",
        role="trial",
        number=number,
        policy=policy,
        coordinates=FrozenDict(point),
        seed=1000 + number,
        cause="finished" if metric is not None else "failed",
        metric=metric,
        cost_flops=policy.cost(FACTS),
    )


def _found(*trials: RunRecord, trusted: Iterable[RunRecord] = (), higher: bool = True) -> Found:
    policies = tuple(trial.policy for trial in trusted)
    return Found(trials=trials, trusted=policies, target=0.9, higher_is_better=higher)


def _never(policy: Policy) -> None:
    return None


def _choose(
    names: Iterable[str], found: Found, space: Space = SPACE, invalid: Callable[[Policy], str | None] = _never
) -> tuple[AblationResult, ...]:
    """Of selectors; `KIND NAME` of others."""
    ground = Ground(space=space, facts=FACTS, recipe=RECIPE, invalid=invalid)
    return choose([_component(name) for name in names], found, ground)


def _component(words: str) -> Component:
    kind, _, name = f"selector {words}".rpartition(" ")
    return Component(kind=kind.split()[-1], name=name)  # type: ignore[arg-type]


def _selector_of(policy: Policy) -> str | None:
    return components.name_in(policy, "selector")


def _names(groups: Iterable[tuple[RunRecord, ...]]) -> list[int]:
    return [group[0].number for group in groups]


def _rules(*seeds: int, higher: bool = True, resolution: float = 0.0) -> Rules:
    return Rules(facts=FACTS, seeds=seeds or (0, 1, 2), higher_is_better=higher, resolution=resolution)


def _run(policy: Policy, seed: int, metric: float | None, **more: Any) -> RunRecord:
    plain: dict[str, Any] = {
        "name": f"{policy.key[:6]}-{seed}",
        "role": "ablation",
        "policy": policy,
        "seed": seed,
        "cause": "finished" if metric is not None else "diverged",
        "metric": metric,
        "cost_flops": policy.cost(FACTS),
    }
    return RunRecord(**{**plain, **more})


def _chosen(selector: str = "kcenter") -> AblationResult:
    (row,) = _choose([selector], _found(_trial(0, 0.95, selector=selector)))
    return row


def _judge(row: AblationResult, runs: Iterable[RunRecord], rules: Rules) -> AblationResult:
    (found,) = _judge_all([row], runs, rules)
    return found


def _judge_all(rows: Iterable[AblationResult], runs: Iterable[RunRecord], rules: Rules) -> tuple[AblationResult, ...]:
    return judge(rows, {(run.policy.key, run.seed): run for run in runs}, rules)


def _pairs(row: AblationResult, mine: Iterable[float | None], baselines: Iterable[float | None]) -> list[RunRecord]:
    assert row.policy is not None
    assert row.baseline is not None
    runs = [_run(row.policy, seed, metric) for seed, metric in enumerate(mine)]
    return [*runs, *(_run(row.baseline, seed, metric) for seed, metric in enumerate(baselines))]


# --- which policy stands for a selector -------------------------------------------------------------------------------


def test_the_search_s_own_choice_comes_first_then_the_cheapest_at_the_target_then_the_nearest() -> None:
    lucky, trusted = _trial(0, 0.91, budget=0.1), _trial(1, 0.93, budget=0.3)
    dear, short, shorter = _trial(2, 0.99, budget=0.5), _trial(3, 0.88, budget=0.4), _trial(4, 0.85, budget=0.05)
    found = _found(shorter, short, dear, trusted, lucky, trusted=[trusted])
    assert _names(found.best_first()) == [1, 0, 2, 3, 4]


def test_repeats_of_a_policy_count_by_their_mean() -> None:
    once, again = _trial(0, 0.95, budget=0.1), _trial(1, 0.80, budget=0.1)
    steady = _trial(2, 0.901, budget=0.2)
    groups = _found(once, again, steady).best_first()
    assert _names(groups) == [2, 0]
    assert [trial.number for trial in groups[1]] == [0, 1]


def test_where_lower_is_better_the_target_is_met_from_below() -> None:
    good, bad, worse = _trial(0, 0.5, budget=0.5), _trial(1, 1.0, budget=0.1), _trial(2, 3.0, budget=0.05)
    assert _names(_found(worse, bad, good, higher=False).best_first()) == [0, 1, 2]


def test_a_policy_with_a_lost_or_stopped_trial_stands_for_nothing() -> None:
    failed = [_trial(0, 0.99, budget=0.1), _trial(1, None, budget=0.1)]
    stopped = replace(_trial(2, None, budget=0.2), cause="stopped")
    diverged = replace(_trial(3, 0.99, budget=0.3), cause="diverged")
    assert _names(_found(*failed, stopped, diverged, _trial(4, 0.2, budget=0.4)).best_first()) == [4]


def test_each_selector_has_its_own_best_and_the_same_policy_with_a_random_subset() -> None:
    mine, other = _trial(0, 0.95, selector="kcenter", budget=0.3), _trial(1, 0.95, selector="stratified", budget=0.1)
    (row,) = _choose(["kcenter"], _found(mine, other))
    assert (row.name, row.verdict, row.trials, row.policy) == ("kcenter", "open", (0,), mine.policy)
    assert row.baseline == randomised(mine.policy)
    assert row.baseline is not None
    assert [phase.selector for phase in row.baseline.phases] == ["random", "random"]
    assert row.cost_flops == row.baseline_cost_flops == mine.cost_flops == round(0.3 * 10 * 1000 * 3000)


def test_the_share_of_selection_is_that_of_the_whole_policy() -> None:

    row = _chosen()
    assert row.policy is not None
    assert row.selection_flops == selection_flops(row.policy, 0, FACTS) > 0
    assert row.selection_share == row.selection_flops / row.policy.cost(FACTS)
    assert AblationResult(name="x", verdict="not_tried").selection_share is None


def test_a_selector_that_the_search_never_tried_borrows_the_best_policy_of_another() -> None:
    best = _trial(1, 0.95, selector="stratified", budget=0.1, transition="reset_optimizer")
    (row,) = _choose(["kcenter"], _found(_trial(0, 0.95, budget=0.5), best))
    assert row.trials == ()
    assert row.policy == from_coordinates({**best.coordinates, "selector": "kcenter"}, FACTS)
    assert _selector_of(row.policy) == "kcenter"


def test_a_borrowed_policy_takes_the_options_that_the_space_gives_the_selector() -> None:
    space = read_space({**SPACE.to_mapping(), "kcenter.features": "projection"})
    best = _trial(1, 0.95, selector="stratified")
    (row,) = _choose(["kcenter"], _found(best), space, _never)
    assert row.policy is not None
    assert row.baseline is not None
    assert row.policy.phases[0].selector_options == {"features": "projection"}
    assert row.baseline.phases[0].selector_options == {}


def test_what_cannot_run_is_borrowed_from_the_next_best_or_told_with_the_reason_of_the_best() -> None:
    def invalid(policy: Policy) -> str | None:
        return f"{policy.passes:g} passes are too few." if policy.passes < 4 else None

    found = _found(_trial(0, 0.95, budget=0.1), _trial(1, 0.95, budget=0.3), _trial(2, 0.95, budget=0.5))
    (row,) = _choose(["kcenter"], found, SPACE, invalid)
    assert row.policy is not None
    assert row.policy.passes == pytest.approx(5)
    (row,) = _choose(["kcenter"], _found(*found.trials[:2]), SPACE, lambda policy: invalid(policy) or "Never.")
    assert (row.verdict, row.reason, row.policy) == ("not_tried", "1 passes are too few.", None)


def test_where_no_trial_leaves_enough_for_choosing_a_policy_near_the_best_does() -> None:
    """It costs just more than the least that can run, and is otherwise much like the best: nearest of 500 draws."""
    best = _trial(0, 0.95, budget=0.3, switch=0.4, subset_share=0.2, transition="reset_optimizer")
    valid = lambda policy: None if policy.passes >= 4 else "Too few passes."  # noqa: E731
    rows = [_choose(["kcenter"], _found(best), SPACE, valid) for _ in range(2)]
    assert rows[0] == rows[1]
    policy = rows[0][0].policy
    assert policy is not None
    assert (_selector_of(policy), policy.phases[1].transition) == ("kcenter", "reset_optimizer")
    assert 4 <= policy.passes < 5
    assert policy.switch == pytest.approx(0.4, abs=0.2)
    assert 0.1 < policy.phases[0].share < 0.4


def test_without_any_subset_policy_the_reason_is_why_not_even_the_most_generous_one_can_run() -> None:
    seen: list[Policy] = []

    def invalid(policy: Policy) -> str | None:
        seen.append(policy)
        return "Choosing costs too much. Leave it out."

    space = read_space({**SPACE.to_mapping(), "steps": {"int": [1, 3]}, "reselect": {"uniform": [1, 90]}})
    (row,) = _choose(["kcenter"], _found(), space, invalid)
    assert (row.verdict, row.reason) == ("not_tried", "Choosing costs too much. Leave it out.")
    budget, switch, share = (space[name] for name in ("budget", "switch", "subset_share"))
    (policy,) = seen
    assert policy.passes == pytest.approx(budget.hi * FACTS.reference_passes)
    assert [phase.selector for phase in policy.phases] == ["kcenter", "random"]  # one step, chosen once
    assert policy.phases[0].passes == pytest.approx(switch.hi * policy.passes)
    assert policy.phases[0].share == pytest.approx(share.lo)


def test_without_any_subset_policy_nothing_can_be_tried() -> None:
    full = replace(_trial(0, 0.95), policy=from_coordinates({"arm": "full", "budget": 0.2}, FACTS))
    rows = _choose(["kcenter", "stratified"], _found(full, _trial(1, None)))
    assert {row.name: (row.verdict, row.reason) for row in rows} == {
        "kcenter": ("not_tried", "the search finished no subset policy"),
        "stratified": ("not_tried", "the search finished no subset policy"),
    }


def test_a_selector_that_the_space_shuts_out_beside_the_best_policy_gets_one_near_it() -> None:
    raw = {
        **SPACE.to_mapping(),
        "selector": {"choice": ["random", "kcenter"], "when": {"transition": "reset_optimizer"}},
    }
    trial = _trial(0, 0.95)
    trial = replace(trial, coordinates=FrozenDict({k: v for k, v in trial.coordinates.items() if k != "selector"}))
    (row,) = _choose(["kcenter"], _found(trial), read_space(raw), _never)
    assert row.policy is not None
    assert (_selector_of(row.policy), row.policy.phases[1].transition) == ("kcenter", "reset_optimizer")
    (row,) = _choose(["kcenter"], _found(trial), read_space(raw), lambda _: "Never.")
    assert (row.verdict, row.reason) == ("not_tried", "'kcenter' is no choice in trial-0000")


# --- which components are compared ------------------------------------------------------------------------------------


def _compared(rows: Iterable[AblationResult]) -> list[str]:
    return [row.name for row in rows if row.verdict == "open"]


FOUR = ("stratified", "kcenter", "herding", "transition reset_optimizer")
OF_FOUR = read_space({**SPACE.to_mapping(), "selector": {"choice": ["random", "stratified", "kcenter", "herding"]}})


def test_the_three_nearest_to_the_target_are_compared_and_the_others_say_so() -> None:
    """Trusted before cheap, cheap at the target before short of it, the shortest last."""
    far = _trial(0, 0.80, selector="stratified", budget=0.05)
    trusted = _trial(1, 0.95, selector="herding", budget=0.5)
    short = _trial(2, 0.89, selector="kcenter", budget=0.6)
    cheap = _trial(3, 0.91, transition="reset_optimizer", budget=0.1)
    rows = _choose(FOUR, _found(far, trusted, short, cheap, trusted=[trusted]), OF_FOUR)
    assert [row.name for row in rows] == ["stratified", "kcenter", "herding", "reset_optimizer"]
    assert _compared(rows) == ["kcenter", "herding", "reset_optimizer"]
    left_out = AblationResult(
        name="stratified", verdict="not_tried", reason="only the three nearest to the target are compared"
    )
    assert rows[0] == left_out
    assert rows[0].words == "could not be tried: only the three nearest to the target are compared"


def test_what_the_search_never_finished_is_compared_after_what_it_did_and_of_equals_the_first() -> None:
    one = _trial(0, 0.95, transition="reset_optimizer")
    rows = _choose(FOUR, _found(one), OF_FOUR)
    assert _compared(rows) == ["stratified", "kcenter", "reset_optimizer"]
    both = _trial(0, 0.95, selector="kcenter", transition="reset_optimizer")
    near = [_trial(i, 0.95, selector=name, budget=0.1) for i, name in ((1, "stratified"), (2, "herding"))]
    assert _compared(_choose(FOUR, _found(both, *near), OF_FOUR)) == ["stratified", "kcenter", "herding"]


def test_what_cannot_be_tried_takes_no_place_and_keeps_its_reason() -> None:
    def invalid(policy: Policy) -> str | None:
        return "Choosing costs too much." if _selector_of(policy) == "stratified" else None

    trials = [_trial(i, 0.95, selector=name) for i, name in ((0, "kcenter"), (1, "herding"))]
    rows = _choose(FOUR, _found(*trials, _trial(2, 0.95, transition="reset_optimizer")), OF_FOUR, invalid)
    assert _compared(rows) == ["kcenter", "herding", "reset_optimizer"]
    assert rows[0].reason == "Choosing costs too much."


def test_fewer_are_compared_beside_rows_that_a_study_has() -> None:
    found = _found(_trial(0, 0.95, selector="kcenter"), _trial(1, 0.95, selector="stratified", budget=0.1))
    ground = Ground(space=SPACE, facts=FACTS, recipe=RECIPE, invalid=_never)
    contenders = [_component(name) for name in ("kcenter", "stratified")]
    compared = {n: _compared(choose(contenders, found, ground, at_most=n)) for n in (0, 1, 2)}
    assert compared == {0: [], 1: ["stratified"], 2: ["kcenter", "stratified"]}


def test_the_reason_names_as_many_as_are_compared() -> None:
    assert (COMPARED, TOO_FAR) == (3, "only the three nearest to the target are compared")
    assert [num_compared([_component(f"c{i}") for i in range(n)]) for n in range(6)] == [0, 1, 2, 3, 3, 3]


# --- orders, transitions and the soup ---------------------------------------------------------------------------------


EVERYTHING = read_space(
    {
        "budget": {"log": [0.02, 0.6]},
        "switch": {"uniform": [0.1, 0.9]},
        "subset_share": {"choice": [0.1, 1.0]},
        "selector": {"choice": ["random", "kcenter"]},
        "order": {"choice": ["uniform", "selective_backprop"]},
        "selective_backprop.keep": {"choice": [1.0, 0.5]},
        "transition": {"choice": ["keep", "reset_optimizer", "shrink_perturb"]},
        "shrink_perturb.shrink": {"uniform": [0.4, 1.0]},
        "soup": {"choice": [0, 0.25]},
        "soup.workers": {"int": [2, 4]},
    }
)
HARD = {"order": "selective_backprop", "selective_backprop.keep": 0.5}


def test_an_order_is_compared_with_the_uniform_one_and_an_entry_with_none() -> None:
    best = _trial(0, 0.95, transition="reset_optimizer", **HARD)
    rows = _choose(["order selective_backprop", "transition reset_optimizer"], _found(best), EVERYTHING)
    assert [(row.kind, row.name, row.trials) for row in rows] == [
        ("order", "selective_backprop", (0,)),
        ("transition", "reset_optimizer", (0,)),
    ]
    policies = [(row.policy, row.baseline) for row in rows]
    assert [policy for policy, _ in policies] == [best.policy] * 2
    (_, uniform), (_, kept) = policies
    assert uniform == from_coordinates({**best.coordinates, "order": "uniform"}, FACTS)
    assert kept == from_coordinates({**best.coordinates, "transition": "keep"}, FACTS)
    assert [(row.selection_flops, row.baseline_cost_flops) for row in rows] == [(0, best.cost_flops)] * 2


def test_the_soup_is_compared_with_a_longer_subset_stretch() -> None:
    best = _trial(0, 0.95, soup=0.25, **{"soup.workers": 2, "soup.masks": "data"})
    (row,) = _choose(["soup soup"], _found(best), EVERYTHING)
    without = from_coordinates({**best.coordinates, "soup": 0}, FACTS)
    assert row.baseline is not None
    assert [replace(phase, passes=1) for phase in row.baseline.phases] == [replace(p, passes=1) for p in without.phases]
    assert [phase.passes for phase in row.baseline.phases] == pytest.approx([phase.passes for phase in without.phases])
    assert row.baseline_cost_flops == row.cost_flops
    # Both workers measure gradients on the first batch of their shard, 50 examples of 50: forward and backward.
    assert row.selection_flops == 2 * 50 * FACTS.example_flops


def test_what_was_never_tried_is_borrowed_with_its_usual_options() -> None:
    best = _trial(3, 0.95, selector="kcenter")
    rows = _choose(["transition shrink_perturb", "soup soup"], _found(best), EVERYTHING)
    assert [row.trials for row in rows] == [(), ()]
    entered, soup = (row.policy for row in rows)
    assert entered == from_coordinates(
        {**best.coordinates, "transition": "shrink_perturb", "shrink_perturb.shrink": 0.7}, FACTS
    )
    assert soup == from_coordinates({**best.coordinates, "soup": 0.25, "soup.workers": 3}, FACTS)


def test_a_component_whose_usual_options_change_nothing_is_compared_by_others() -> None:
    """The first choice of `keep` is 1, which is the uniform order; the nearest policy of those drawn has 0.5."""
    idle = _trial(0, 0.95, order="selective_backprop", **{"selective_backprop.keep": 1.0})
    (row,) = _choose(["order selective_backprop"], _found(idle), EVERYTHING)
    assert row.trials == ()
    assert row.policy is not None
    assert [dict(phase.order_options) for phase in row.policy.phases] == [{"keep": 0.5}] * 2
    only = read_space({**EVERYTHING.to_mapping(), "selective_backprop.keep": 1.0})
    (row,) = _choose(["order selective_backprop"], _found(idle), only)
    assert (row.verdict, row.reason) == (
        "not_tried",
        "'selective_backprop' changes nothing with its usual options in trial-0000",
    )


def test_all_data_do_for_an_order_but_not_for_a_selector() -> None:
    coordinates = {"subset_share": 1.0, **HARD}
    whole = _trial(0, 0.95, **coordinates)
    whole = replace(whole, coordinates=FrozenDict({k: v for k, v in whole.coordinates.items() if k != "selector"}))
    order, selector = _choose(["order selective_backprop", "kcenter"], _found(whole), EVERYTHING)
    assert order.policy == whole.policy
    assert order.baseline is not None
    assert order.baseline.arm == "full"
    assert selector.policy is not None
    assert selector.trials == ()
    assert selector.policy.phases[0].share == 0.1
    assert _selector_of(selector.policy) == "kcenter"


def test_a_policy_whose_twin_cannot_run_stands_for_nothing() -> None:
    first, second = _trial(0, 0.95, budget=0.1, **HARD), _trial(1, 0.95, budget=0.2, **HARD)
    baseline = components.neutralised(first.policy, "order")
    (row,) = _choose(
        ["order selective_backprop"], _found(first, second), EVERYTHING, lambda p: "No." if p == baseline else None
    )
    assert row.policy == second.policy


def test_runs_and_losses_are_named_by_what_is_compared() -> None:
    best = _trial(0, 0.95, soup=0.25, **HARD)
    order, soup = _choose(["order selective_backprop", "soup soup"], _found(best), EVERYTHING)
    stage = AblationSource([order, soup], _rules(0, 1), [], lambda record: None)
    candidates = [request.candidate for request in _requests(stage)]
    assert candidates == ["selective_backprop", "uniform", "selective_backprop", "uniform", "none", "none"]
    reasons = [_judge(row, _pairs(row, (0.9, 0.9, 0.9), (0.9, None, 0.9)), _rules()).reason for row in (order, soup)]
    assert reasons == [
        "its baseline in uniform order diverged with seed 1",
        "its baseline without the soup diverged with seed 1",
    ]


def test_a_row_from_before_there_was_anything_but_selectors_is_read() -> None:
    plain = config.to_plain(_chosen())
    assert (plain.pop("kind"), plain.pop("name")) == ("selector", "kcenter")
    assert config.build(AblationResult, {"selector": "kcenter", **plain}) == _chosen()
    with pytest.raises(ConfigError, match=r"kind must be one of selector, order, transition, soup, got 'optimizer'"):
        config.build(AblationResult, {**plain, "kind": "optimizer", "name": "adam"})


# --- the runs ---------------------------------------------------------------------------------------------------------


def _requests(stage: AblationSource) -> list[RunRequest]:
    found = []
    while isinstance(request := stage.next(), RunRequest):
        found.append(request)
    assert request is Pause.DONE
    return found


def test_runs_come_pair_by_pair_a_shared_twin_once_and_what_is_on_record_not_at_all() -> None:
    found = _found(_trial(0, 0.95))
    rows = _choose(["kcenter", "stratified"], found)
    assert rows[0].baseline == rows[1].baseline
    assert rows[0].policy is not None
    known = [_run(rows[0].policy, 1, None, role="verification", candidate="candidate-1")]
    stage = AblationSource(rows, _rules(0, 1), known, lambda record: None)
    assert stage.num_waiting == 5
    requests = _requests(stage)
    done = [(request.candidate, request.seed) for request in requests]
    assert done == [("kcenter", 0), ("random", 0), ("random", 1), ("stratified", 0), ("stratified", 1)]
    assert {(request.role, request.splits) for request in requests} == {("ablation", ("validation",))}


def test_a_run_is_named_by_its_policy_in_letters_that_any_file_may_have() -> None:
    row = replace(_chosen(), name="own.module:Distances")
    stage = AblationSource([row], _rules(7, 8), [], lambda record: None)
    assert row.policy is not None
    assert _requests(stage)[0].name == f"compare-own-module-Distances-{row.policy.key[:8]}-seed-7"


def test_a_run_is_saved_before_it_counts() -> None:
    row, saved = _chosen(), list[tuple[str, str]]()
    stage = AblationSource(
        [row], _rules(0, 1), [], lambda record: saved.append((record.name if record else "rows", stage.rows[0].reason))
    )
    for request in _requests(stage):
        stage.finished(request, _run(request.policy, request.seed, 0.9, name=request.name))
    names = [name for name, _ in saved]
    assert names[0].startswith("compare-kcenter-")
    assert names[1::2] == ["rows"] * 4
    words = [f"{count} of 4 runs are done" for count in (0, 1, 1, 2, 2, 3, 3)]
    assert [reason for _, reason in saved] == [*words, ""]
    assert json.loads(json.dumps(stage.state(0).to_mapping(), allow_nan=False))["seeds"] == [0, 1]


def test_a_comparison_run_is_kept_in_a_table_like_any_other() -> None:
    row = _chosen()
    runs = _pairs(row, [0.9, None], [])
    assert from_table(to_table(runs)) == tuple(runs)


# --- what they show ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "higher", "verdict"),
    [
        ((0.01, 0.02, 0.03), True, "paid"),  # mean 0.02, half width 2.92 * 0.01 / sqrt(3) = 0.0169
        ((-0.01, -0.02, -0.03), True, "not_paid"),
        ((0.00, 0.01, 0.02), True, "no_difference"),  # mean 0.01 is less than the same half width
        ((0.01, 0.02, 0.03), False, "not_paid"),
        ((-0.01, -0.02, -0.03), False, "paid"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(differences: tuple[float, ...], higher: bool, verdict: str) -> None:
    row = _chosen()
    baselines = (0.5, 0.7, 0.6)  # how good a seed is cancels
    runs = _pairs(
        row, [baseline + difference for baseline, difference in zip(baselines, differences, strict=True)], baselines
    )
    found = _judge(row, runs[::-1], _rules(higher=higher))
    sign = 1 if higher else -1
    assert (found.verdict, found.reason, found.level, found.family_size) == (verdict, "", 0.9, 1)
    assert found.differences == pytest.approx([sign * each for each in differences])
    assert found.difference == pytest.approx(sign * sum(differences) / 3)
    half = T_90 * 0.01 / math.sqrt(3)
    assert found.difference is not None
    assert (found.lower, found.upper) == pytest.approx((found.difference - half, found.difference + half), rel=1e-6)
    assert found.baseline_metric == pytest.approx(0.6)
    assert found.metric == pytest.approx(0.6 + sum(differences) / 3)


def test_the_floor_of_verification_holds_here_too() -> None:
    row = _chosen()
    found = _judge(row, _pairs(row, (0.6, 0.6, 0.6), (0.5, 0.5, 0.5)), _rules(resolution=0.3))
    half = T_90 * (0.3 / math.sqrt(3)) / math.sqrt(3)
    assert found.verdict == "no_difference"
    assert (found.lower, found.upper) == pytest.approx((0.1 - half, 0.1 + half))


def test_seconds_are_means_and_other_seeds_and_policies_do_not_count() -> None:
    row = _chosen()
    assert row.policy is not None
    assert row.baseline is not None
    runs = [
        *(_run(row.policy, seed, 0.9, select_s=float(seed), train_s=2.0) for seed in range(3)),
        *(_run(row.baseline, seed, 0.8, train_s=4.0) for seed in range(3)),
        _run(row.policy, 9, 0.0, select_s=100.0),
        _run(_trial(5, 0.1, budget=0.6).policy, 0, 0.0),
    ]
    found = _judge(row, runs, _rules())
    assert (found.select_s, found.seconds, found.baseline_seconds) == (1.0, 3.0, 4.0)
    assert found.metric == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("mine", "baselines", "reason"),
    [
        ((0.9, 0.9, 0.9), (0.9, None, None), "its random baseline diverged with seed 1"),
        ((0.9, None, 0.9), (0.9, 0.9, 0.9), "kcenter diverged with seed 1"),
        ((None,), (0.9, None), "kcenter diverged with seed 0; its random baseline diverged with seed 1"),
    ],
)
def test_a_run_without_a_number_is_no_result_and_says_which(
    mine: tuple[float | None, ...], baselines: tuple[float | None, ...], reason: str
) -> None:
    row = _chosen()
    found = _judge(row, _pairs(row, mine, baselines), _rules())
    assert (found.verdict, found.reason, found.difference) == ("no_result", reason, None)


def test_a_failed_run_is_no_result_whatever_its_last_metric() -> None:
    row = _chosen()
    assert row.policy is not None
    runs = [replace(run, cause="failed") for run in _pairs(row, (0.9, 0.9, 0.9), (0.8, 0.8, 0.8))]
    found = _judge(row, runs, _rules())
    assert (found.verdict, found.reason) == (
        "no_result",
        "kcenter failed with seed 0; its random baseline failed with seed 0",
    )


def test_a_verdict_waits_for_all_runs_and_one_that_needs_none_stays() -> None:
    row = _chosen()
    found = _judge(row, _pairs(row, (0.9, 0.9, 0.9), (0.1, 0.1)), _rules())
    assert (found.verdict, found.reason) == ("open", "5 of 6 runs are done")
    barred = AblationResult(name="x", verdict="not_tried", reason="why")
    assert _judge(barred, [], _rules()) is barred


BASELINES = (0.5, 0.7, 0.6)  # how good a seed is cancels
STRONG, MEDIUM, WEAK = ((0.097, 0.1, 0.103), (0.017, 0.02, 0.023), (0.01, 0.02, 0.03))  # T is 57.7, 11.5 and 3.46


def _table(*differences: tuple[float, ...] | None) -> tuple[list[AblationResult], list[RunRecord]]:
    """Rows of different policies with their runs; None stands for a run that diverged."""
    rows, runs = list[AblationResult](), list[RunRecord]()
    for number, each in enumerate(differences):
        (row,) = _choose(["kcenter"], _found(_trial(number, 0.95, selector="kcenter", budget=0.1 + 0.05 * number)))
        rows.append(replace(row, name=f"c{number}"))
        mine = (0.9, None, 0.9) if each is None else [b + d for b, d in zip(BASELINES, each, strict=True)]
        runs += _pairs(row, mine, BASELINES)
    return rows, runs


def _verdicts(rows: Iterable[AblationResult]) -> list[str]:
    return [row.verdict for row in rows]


def test_rows_are_judged_together_each_at_the_level_of_its_step() -> None:
    """With 2 degrees of freedom |T| must exceed 5.34 of three rows, 4.30 of two and 2.92 of one."""
    rows, runs = _table(WEAK, STRONG, MEDIUM)
    found = _judge_all(rows, runs, _rules())
    assert _verdicts(found) == ["paid", "paid", "paid"]
    assert [row.level for row in found] == pytest.approx([0.9, 1 - 0.1 / 3, 0.95])
    assert {row.family_size for row in found} == {3}
    found = _judge_all(*_table(WEAK, MEDIUM, WEAK), _rules())
    assert _verdicts(found) == ["no_difference", "paid", "no_difference"]
    assert [row.level for row in found] == pytest.approx([0.95, 1 - 0.1 / 3, 0.95])
    assert all(row.lower is not None and (row.lower > 0) == (row.verdict == "paid") for row in found)
    assert _judge(rows[0], runs, _rules()).verdict == "paid"  # taken alone


def test_no_row_is_judged_before_the_runs_of_all_are_done() -> None:
    rows, runs = _table(STRONG, MEDIUM)
    found = _judge_all(rows, runs[:-1], _rules())
    assert [(row.verdict, row.reason) for row in found] == [
        ("open", "the runs of others are not done"),
        ("open", "5 of 6 runs are done"),
    ]
    assert found[0].words == "not compared yet: the runs of others are not done"
    assert _verdicts(_judge_all(found, runs, _rules())) == ["paid", "paid"]


def test_a_row_with_a_lost_run_is_told_at_once_and_takes_nothing_from_the_others() -> None:
    rows, runs = _table(None, MEDIUM, WEAK)
    found = _judge_all(rows, runs, _rules())
    assert [(row.verdict, row.level, row.family_size) for row in found] == [
        ("no_result", None, None),
        ("paid", 0.95, 2),
        ("paid", 0.9, 2),
    ]
    assert _verdicts(_judge_all(rows, runs[:-1], _rules())) == ["no_result", "open", "open"]


def test_more_seeds_take_back_what_fewer_had_shown() -> None:
    rows, runs = _table(STRONG)
    (judged,) = _judge_all(rows, runs, _rules())
    assert judged.difference is not None
    assert _judge(judged, runs, _rules(0, 1, 2, 3)) == replace(rows[0], reason="6 of 8 runs are done")


def test_rows_that_were_judged_alone_stay_as_they_were_stored() -> None:
    """Version 0.1 wrote no level: each row had one of 0.9, and was a test of its own."""
    rows, runs = _table(WEAK, WEAK, STRONG)
    alone = [_judge(row, runs, _rules()) for row in rows[:2]]
    plain = [config.to_plain(row) for row in alone]
    for row in plain:
        del row["level"], row["family_size"]
    stored = [config.build(AblationResult, row) for row in plain]
    assert stored == [replace(row, family_size=None) for row in alone]
    found = _judge_all([*stored, rows[2]], runs, _rules())
    assert list(found[:2]) == stored
    assert (found[2].verdict, found[2].level, found[2].family_size) == ("paid", 0.9, 1)
    more = [*runs, *(_run(p, 3, 0.5) for row in rows for p in (row.policy, row.baseline) if p is not None)]
    assert {row.family_size for row in _judge_all([*stored, rows[2]], more, _rules(0, 1, 2, 3))} == {3}


def test_few_seeds_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        StudySettings(ablation_seeds=1)
    assert "ablation_seeds must be 0 or at least 2, got 1. 0 compares nothing." in str(caught.value)
    assert StudySettings().ablation_seeds == 0


def _words(found: Iterable[Component]) -> list[str]:
    return [f"{one.kind} {one.name}" for one in found]


def test_the_components_of_a_study() -> None:
    neutral = ["order uniform", "transition keep", "soup none"]
    assert _words(parse(changed({})).components) == ["selector random", "selector stratified", *neutral]
    assert _words(parse(changed({})).contenders) == ["selector stratified"]
    assert _words(parse(changed({"space.selector": "kcenter"})).components) == ["selector kcenter", *neutral]
    assert parse(changed({"space": {"budget": 0.3, "arm": "full"}})).components == ()
    plain = {"budget": 0.3, "switch": 0.5, "subset_share": 0.2}
    assert _words(parse(changed({"space": plain})).components) == ["selector random", *neutral]
    whole = {**plain, "subset_share": 1.0, "order": {"choice": ["sift", "uniform"]}, "soup": {"choice": [0.2, 0, 0.3]}}
    expected = ["order sift", "order uniform", "transition keep", "soup soup", "soup none"]
    assert _words(parse(changed({"space": whole})).components) == expected
    ranged = {**plain, "soup": {"uniform": [0, 0.5]}, "transition": "prune"}
    assert _words(parse(changed({"space": ranged})).contenders) == ["transition prune", "soup soup"]


def test_a_plan_counts_three_components_at_most_each_with_its_twin() -> None:
    entries = {
        "space.transition": {"choice": ["keep", "reset_optimizer"]},
        "space.order": {"choice": ["uniform", "rs2"]},
    }
    assert plan(parse(changed(THREE | entries)))["runs"]["ablation"]["runs"] == 2 * 3 * 3
    runs = plan(parse(changed(THREE)))["runs"]
    assert runs["ablation"]["runs"] == 2 * 3 * 2  # two selectors besides random, three seeds, with and without
    assert "ablation" not in plan(parse(changed({**THREE, "study.ablation_seeds": 0})))["runs"]
    assert "ablation" not in plan(parse(changed({**WIDE, "space.selector": "random"})))["runs"]


# --- whole studies in this process ------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Selector):
    """Raises when it is asked to choose."""

    name: ClassVar[str] = "broken"
    summary: ClassVar[str] = "raises when it is asked to choose"

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing."""
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Never."""
        raise RuntimeError("out of luck")


def _options(folder: Path) -> TuneOptions:
    places = DataPaths(cache=str(folder / "cache"))
    return TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu")


@pytest.fixture
def options(tmp_path: Path) -> TuneOptions:
    return _options(tmp_path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """A study that compared."""
    return tune(changed(THREE), run_id="a", options=_options(tmp_path_factory.mktemp("compared"))).view


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are carried out, as they begin."""
    train, told = Worker.train, list[str]()

    def counted(worker: Worker, request: RunRequest, report: Any) -> Any:
        told.append(request.name)
        return train(worker, request, report)

    monkeypatch.setattr(Worker, "train", counted)
    return told


def _of(names: Iterable[str], kind: str) -> list[str]:
    return [name for name in names if name.startswith(kind)]


def _spent(records: Iterable[RunRecord]) -> int:
    return sum(record.ledger.total + record.repeated_flops for record in records)


@pytest.mark.slow
def test_a_study_says_of_every_selector_whether_it_paid_for_itself(compared: StudyView) -> None:
    rows = {row["name"]: row for row in compared.summary.to_mapping()["components"]}
    assert list(rows) == ["random", "stratified", "kcenter"]
    assert rows["random"]["ablation"] is None
    for name in ("stratified", "kcenter"):
        row = rows[name]["ablation"]
        runs = [*compared.ablation_runs, *compared.verification]
        if row["verdict"] == "not_tried":
            assert row["words"].startswith("could not be tried: Choosing ")
            continue
        policy, baseline = (Policy.from_mapping(row[key]) for key in ("policy", "baseline"))
        assert _selector_of(policy) == name
        assert baseline == randomised(policy)
        mine, others = ({r.seed: r for r in runs if r.policy == which} for which in (policy, baseline))
        assert sorted(mine) == sorted(others) == [0, 1, 2]
        expected = [(mine[seed].metric or 0) - (others[seed].metric or 0) for seed in range(3)]
        assert row["differences"] == expected
        assert row["seeds"] == 3
        assert {run.ledger.select for run in mine.values()} == {row["selection_flops"]}
        assert compared.facts is not None
        assert row["cost_flops"] == row["baseline_cost_flops"] == policy.cost(compared.facts)
    assert any(row["ablation"] and row["ablation"]["seeds"] for row in rows.values())


def test_counts_by_selector_are_those_of_the_trials(compared: StudyView) -> None:
    assert compared.target is not None
    for row in compared.summary.to_mapping()["components"]:
        trials = [trial for trial in compared.trials if trial.coordinates.get("selector") == row["name"]]
        met = [t for t in trials if t.cause == "finished" and t.metric is not None and t.metric >= compared.target]
        assert (row["trials"], row["feasible"]) == (len(trials), len(met))
        assert row["cheapest_flops"] == (min(t.cost_flops for t in met) if met else None)
    assert sum(row["trials"] for row in compared.summary.to_mapping()["components"]) == sum(
        trial.policy.arm == "subset" for trial in compared.trials
    )


def test_the_summary_is_plain_json_and_its_tuning_holds_every_run(compared: StudyView) -> None:
    assert json.loads(json.dumps(compared.summary.to_mapping(), allow_nan=False)) == compared.summary.to_mapping()
    runs = (*compared.reference, *compared.trials, *compared.verification, *compared.ablation_runs)
    assert compared.summary.tuning.flops == _spent(runs)


def test_text_and_page_tell_the_same_verdicts(compared: StudyView) -> None:
    text, page = tables.result_text(compared), html.page(compared)
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 80  # a path is not broken
    for row in compared.ablation.values():
        words = {"no_difference": "no difference shown", "not_tried": "could not be tried"}.get(row.verdict)
        words = words or {"paid": "paid for itself", "not_paid": "did not"}[row.verdict]
        assert words in text
        assert words in page
    assert "nothing of it is part of the verified claim" in " ".join(text.split())
    assert "Which components paid for themselves?" in page


@pytest.mark.slow
def test_verification_is_the_same_with_and_without_a_comparison(options: TuneOptions, names: list[str]) -> None:
    with_one = tune(changed(THREE), run_id="a", options=options).view
    without = tune(changed({**THREE, "study.ablation_seeds": 0}), run_id="b", options=options).view
    assert with_one.manifest.rounds == without.manifest.rounds
    assert with_one.manifest.winner == without.manifest.winner
    assert without.manifest.ablation is None
    assert (without.ablation_runs, dict(without.ablation)) == ((), {})
    assert without.summary.components[1].ablation is None


def test_the_test_split_is_not_touched(options: TuneOptions, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    touched, batch = set[str](), Part.batch
    num_test = 539  # 30 % of 1,797; no other part is of that size

    def watched(part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
        if len(part) == num_test:
            touched.add(names[-1].split("-")[0])
        return batch(part, index)

    monkeypatch.setattr(Part, "batch", watched)
    view = tune(changed({**WIDE, "study.ablation_seeds": 4}), run_id="a", options=options).view
    assert _of(names, "compare")
    assert touched == {"verify"}
    assert all(run.test_metric is None for run in view.ablation_runs)


@pytest.mark.slow
def test_runs_of_verification_serve_again(options: TuneOptions, names: list[str]) -> None:
    """Those of the same policy with the same seeds, put on record here: what verification tests is not up to us."""
    compared = tune(changed(THREE), run_id="a", options=options).view
    row = compared.ablation[_component("stratified")]
    assert row.policy is not None
    tune(changed({**THREE, "study.ablation_seeds": 0}), run_id="b", options=options)
    again = {"role": "verification", "candidate": "candidate-x"}
    folder = StudyFolder(options.storage, "b").open()
    for run in [run for run in compared.ablation_runs if run.policy == row.policy][:2]:
        folder.add(replace(run, name=f"verify-candidate-x-seed-{run.seed}", **again))
    names.clear()
    served = tune(changed(THREE), run_id="b", options=options).view
    assert [name[-1] for name in _of(names, f"compare-stratified-{row.policy.key[:8]}")] == ["2"]
    assert served.ablation[_component("stratified")].differences == row.differences


@pytest.mark.slow
def test_a_study_of_orders_entries_and_a_soup_says_of_each_whether_it_paid(options: TuneOptions) -> None:
    raw = changed({**WIDE, "study.ablation_seeds": 2, "study.trials": 10})
    raw["space"] |= {
        "subset_share": {"choice": [0.2, 1.0]},
        "order": {"choice": ["uniform", "selective_backprop"]},
        "selective_backprop.keep": {"uniform": [0.4, 0.9]},
        "transition": {"choice": ["keep", "prune"]},
        "soup": {"choice": [0, 0.3]},
        "soup.workers": 2,
    }
    view = tune(raw, run_id="a", options=options).view
    contenders = ["selector stratified", "order selective_backprop", "transition prune", "soup soup"]
    assert _words(view.ablation) == contenders
    runs = {(run.policy.key, run.seed): run for run in (*view.ablation_runs, *view.verification)}
    (left_out,) = (row for row in view.ablation.values() if row.policy is None)
    assert (left_out.verdict, left_out.reason) == ("not_tried", "only the three nearest to the target are compared")
    for component, row in view.ablation.items():
        if row.policy is None:
            continue
        assert row.verdict in ("paid", "not_paid", "no_difference"), row.reason
        assert row.family_size == 3
        assert row.baseline == components.neutralised(row.policy, component.kind)
        mine, baselines = ([runs[policy.key, seed] for seed in (0, 1)] for policy in (row.policy, row.baseline))
        assert row.differences == tuple((a.metric or 0) - (b.metric or 0) for a, b in zip(mine, baselines, strict=True))
        extra = {a.ledger.select - b.ledger.select for a, b in zip(mine, baselines, strict=True)}
        assert extra == {row.selection_flops}
        assert all(run.ledger.total - run.ledger.evaluate <= row.cost_flops for run in (*mine, *baselines))
    assert [trial for trial in view.trials if trial.policy.arm != trial.coordinates["arm"]] == []
    text = tables.result_text(view)
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 80  # a path is not broken
    assert "order selective_backprop: " in text
    again = tune(raw, run_id="a", options=options).view
    assert again.summary == view.summary


@pytest.mark.slow
def test_a_comparison_from_before_orders_were_compared_gets_the_rows_that_are_missing(
    options: TuneOptions, names: list[str]
) -> None:
    raw = changed({**WIDE, "study.ablation_seeds": 2, "space.transition": {"choice": ["keep", "reset_optimizer"]}})
    first = tune(raw, run_id="a", options=options).view
    folder = StudyFolder(options.storage, "a").folder
    manifest = json.loads(folder.read("manifest.json"))
    rows = [row for row in manifest["ablation"]["rows"] if row.pop("kind") != "transition"]
    today = ("level", "family_size", "name")
    manifest["ablation"]["rows"] = [
        {"selector": row["name"], **{key: value for key, value in row.items() if key not in today}} for row in rows
    ]
    folder.write("manifest.json", json.dumps(manifest).encode())
    read = StudyFolder(options.storage, "a").open().view()
    assert _words(read.ablation) == ["selector stratified"]
    (kept,) = read.ablation.values()
    assert (kept.level, kept.family_size) == (0.9, None)
    assert "reset_optimizer" in tables.result_text(read)
    names.clear()
    assert _words(tune(raw, run_id="a", options=options).ablation) == ["selector stratified"]  # it was finished
    assert names == []
    more = tune({**raw, "study": {**raw["study"], "ablation_seeds": 3}}, run_id="a", options=options).view
    assert _words(more.ablation) == ["selector stratified", "transition reset_optimizer"]
    for component, row in more.ablation.items():
        assert row.differences[:2] == first.ablation[component].differences
        assert row.family_size == 2
    assert all(name.endswith("-seed-2") for name in names)


def test_a_space_of_random_alone_has_nothing_to_compare(options: TuneOptions, names: list[str]) -> None:
    view = tune(changed({**WIDE, "space.selector": "random"}), run_id="a", options=options).view
    assert not _of(names, "compare")
    assert view.manifest.ablation is None
    assert view.summary.components == ()
    assert "Components" not in tables.result_text(view)
    assert "Which components" not in html.page(view)


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_and_what_verification_found_is_known_already(
    options: TuneOptions, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = changed({**THREE, "study.ablation_seeds": 5})
    train = Worker.train

    def broken(worker: Worker, request: RunRequest, report: Any) -> Any:
        if len(_of(names, "compare")) == 2 and request.role == "ablation":
            raise KeyboardInterrupt
        return train(worker, request, report)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "train", broken)
        with pytest.raises(KeyboardInterrupt):
            tune(study, run_id="a", options=options)
    view = StudyFolder(options.storage, "a").open().view()
    assert view.summary.status == "interrupted"
    assert view.verdicts
    assert len(view.ablation_runs) == 2
    waiting = [row for row in view.ablation.values() if row.verdict == "open"]
    assert waiting[0].reason.endswith(" runs are done")
    assert "not compared yet" in tables.result_text(view)
    done = tune(study, run_id="a", options=options).view
    assert done.summary.status == "finished"
    assert done.manifest.winner == view.manifest.winner
    assert dict(done.verdicts) == dict(view.verdicts)
    assert len(names) == len(set(names))
    assert done.ablation_runs[:2] == view.ablation_runs
    assert {row.verdict for row in done.ablation.values()} <= {"paid", "not_paid", "no_difference", "not_tried"}


@pytest.mark.slow
def test_a_finished_study_is_compared_on_demand_with_more_seeds_and_after_more_trials(
    options: TuneOptions, names: list[str]
) -> None:
    without = tune(changed({**WIDE, "study.ablation_seeds": 0}), run_id="a", options=options).view
    names.clear()
    first = tune(changed({**WIDE, "study.ablation_seeds": 4}), run_id="a", options=options).view
    assert names == _of(names, "compare") != []
    assert first.manifest.rounds == without.manifest.rounds
    assert _spent(first.ablation_runs) > 0
    names.clear()
    assert tune(changed({**WIDE, "study.ablation_seeds": 4}), run_id="a", options=options).summary == first.summary
    assert tune(changed({**WIDE, "study.ablation_seeds": 2}), run_id="a", options=options).summary == first.summary
    assert names == []
    second = tune(changed({**WIDE, "study.ablation_seeds": 5}), run_id="a", options=options).view
    assert len(names) == 2
    assert all(name.endswith("-seed-4") for name in names)
    assert second.ablation[_component("stratified")].policy == first.ablation[_component("stratified")].policy
    third = tune(changed({**WIDE, "study.ablation_seeds": 5, "study.trials": 12}), run_id="a", options=options).view
    assert third.manifest.ablation is not None
    assert third.manifest.ablation.trials_asked == 12
    assert third.ablation_runs[: len(second.ablation_runs)] == second.ablation_runs  # what was spent stays spent
    assert third.summary.tuning.flops == _spent(
        (*third.reference, *third.trials, *third.verification, *third.ablation_runs)
    )


def test_a_study_from_before_there_was_a_comparison_opens_and_reports(options: TuneOptions) -> None:
    tune(changed({**WIDE, "study.ablation_seeds": 0}), run_id="a", options=options)
    folder = StudyFolder(options.storage, "a").folder
    manifest = json.loads(folder.read("manifest.json"))
    del manifest["study"]["study"]["ablation_seeds"]
    folder.write("manifest.json", json.dumps(manifest).encode())
    assert not folder.exists("ablation.parquet")
    view = StudyFolder(options.storage, "a").open().view()
    assert [row["ablation"] for row in view.summary.to_mapping()["components"]] == [None, None]
    assert "stratified" in tables.result_text(view)
    assert "validation evidence" not in tables.result_text(view)
    assert "Which components paid for themselves?" in html.page(view)


def test_a_damaged_row_of_the_comparison_is_told(options: TuneOptions) -> None:
    tune(changed({**WIDE, "study.trials": 3}), run_id="a", options=options)
    folder = StudyFolder(options.storage, "a").folder
    manifest = json.loads(folder.read("manifest.json"))
    manifest["ablation"]["rows"][0]["verdict"] = "splendid"
    folder.write("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(StudyError, match=r"manifest.json is damaged: .*verdict.*'splendid'"):
        StudyFolder(options.storage, "a").open()


def test_a_selector_that_fails_is_no_result_and_stops_nothing(options: TuneOptions) -> None:
    name = f"{__name__}:Broken"
    changes = {"study.trials": 12, "space.selector": {"choice": ["random", "stratified", name]}}
    view = tune(changed(WIDE | changes), run_id="a", options=options).view
    assert view.summary.status == "finished"
    row = view.ablation[_component(name)]
    assert (row.verdict, row.reason) == ("no_result", f"{name} failed with seed 0")
    failed = [run for run in view.ablation_runs if run.cause == "failed"]
    assert {run.candidate for run in failed} == {name}
    assert "Broken" in tables.result_text(view)
    assert "no result" in tables.result_text(view)
    assert all("/" not in run.name and ":" not in run.name for run in view.ablation_runs)


@pytest.mark.slow
def test_a_regression_turns_the_sign(options: TuneOptions, tiny_data: dict[str, str]) -> None:
    changes = {
        "task.data": {"source": tiny_data["values"]},
        "task.metric": "mse",
        "task.tolerance": 5000.0,
        "task.recipe.lr": 0.02,
        "study.ablation_seeds": 3,
        "space.selector": {"choice": ["random", "kcenter"]},
        "space.budget": {"log": [0.4, 0.8]},
    }
    view = tune(changed(changes), run_id="a", options=options).view
    row = view.ablation[_component("kcenter")]
    assert row.metric is not None
    assert row.baseline_metric is not None
    assert row.difference == pytest.approx(row.baseline_metric - row.metric)
    assert "its sign turned so that more is better" in " ".join(tables.result_text(view).split())


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from fake_inputs import changed
from subsettune import DataPaths, TuneOptions, tune
from subsettune.study.execute import worker as runs
from subsettune.study.results import folder

train, add = runs.Worker.train, folder.StudyFolder.add
left = [2]

def die(when, request_or_record):
    if request_or_record.role == "ablation" and sys.argv[3] == when:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def trained(worker, request, report):
    outcome = train(worker, request, report)
    die("trained", request)
    return outcome

def added(self, record):
    add(self, record)
    die("added", record)

runs.Worker.train, folder.StudyFolder.add = trained, added
places = DataPaths(cache=sys.argv[2] + "/cache")
options = TuneOptions(storage=sys.argv[2] + "/runs", places=places, executor="inline", device="cpu")
tune(changed({"task.tolerance": 0.5, "study.ablation_seeds": 5}), run_id="a", options=options)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("when", "left"), [("trained", 1), ("added", 2)])
def test_a_kill_loses_no_run_and_repeats_none(when: str, left: int, tmp_path: Path, names: list[str]) -> None:
    arguments = [str(SUPPORT), str(tmp_path), when]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    broken = StudyFolder(str(tmp_path / "runs"), "a").open()
    assert len(broken.records("ablation")) == left
    study = changed({"task.tolerance": 0.5, "study.ablation_seeds": 5})
    view = tune(study, run_id="a", options=_options(tmp_path)).view
    assert names == _of(names, "compare")
    runs = view.ablation_runs
    assert len({(run.policy.key, run.seed) for run in runs}) == len(runs) == len(names) + left
    assert view.ablation_runs[:left] == broken.records("ablation")
    assert len(view.ablation[_component("stratified")].differences) == 5
    whole = tune(study, run_id="b", options=_options(tmp_path)).view
    assert whole.ablation[_component("stratified")].differences == view.ablation[_component("stratified")].differences
