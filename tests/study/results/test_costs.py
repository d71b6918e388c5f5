from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from fake_study import FACTS, make_view

from subsettune.config import FrozenDict
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy, Soup
from subsettune.study.results import costs
from subsettune.study.results.manifest import Manifest
from subsettune.study.results.records import RunRecord
from subsettune.study.results.summarise import summarise
from subsettune.study.results.view import StudyRecords
from subsettune.train.result import PhaseSpent


@pytest.mark.parametrize(
    ("metric", "reference", "higher_is_better", "expected"),
    [
        (0.972, 0.975, True, 0.12),  # 0.028 of errors against 0.025
        (0.980, 0.975, True, -0.2),
        (0.975, 0.975, True, 0.0),
        (0.55, 0.5, False, 0.1),
        (0.9, 1.0, True, None),  # the reference makes no error
        (0.1, 0.0, False, None),
        (None, 0.9, True, None),
        (0.9, None, True, None),
    ],
)
def test_the_error_of_an_accuracy_is_what_it_is_short_of_one(
    metric: float | None, reference: float | None, higher_is_better: bool, expected: float | None
) -> None:
    found = costs.error_increase(metric, reference, higher_is_better=higher_is_better)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("tuning", "reference", "policy", "expected"),
    [(100.0, 10.0, 6.0, 25), (101.0, 10.0, 6.0, 26), (100.0, 10.0, 10.0, None), (100.0, None, 6.0, None)],
)
def test_seconds_are_repaid_by_the_first_training_that_does(
    tuning: float, reference: float | None, policy: float, expected: int | None
) -> None:
    assert costs.break_even_seconds(tuning, reference, policy) == expected
    assert costs.break_even_seconds(tuning, reference, None) is None


def _run(policy: Policy, *phases: tuple[int, float], **more: Any) -> RunRecord:
    """A run whose phases took so many FLOPs and seconds."""
    spent = tuple(PhaseSpent(flops=flops, seconds=seconds) for flops, seconds in phases)
    plain = {"role": "trial", "seed": 0, "cause": "finished", "cost_flops": 1, "name": "trial-0001"}
    return RunRecord(**{**plain, **more}, policy=policy, phases=spent)


def test_seconds_per_flop_are_those_of_the_updates_of_each_phase() -> None:
    mixed = _run(
        Policy(phases=(Phase(share=0.2, passes=1), Phase(passes=1))),
        (100, 2.0),
        (400, 4.0),
        ledger=Ledger(select=50, forward=1, backward=1),
        select_s=7.0,
    )
    plain = _run(Policy(phases=(Phase(passes=1), Phase(passes=1))), (100, 1.0), (100, 1.0))
    found = costs.phase_costs((mixed, plain))
    assert [(one.kind, one.runs, one.flops, one.seconds) for one in found] == [
        ("full", 2, 600, 6.0),
        ("subset", 1, 100, 2.0),
        ("selection", 1, 50, 7.0),
    ]
    assert [one.relative for one in found] == pytest.approx([1.0, 2.0, 14.0])
    assert found[0].seconds_per_tflop == pytest.approx(1e10)


def test_runs_of_another_study_and_phases_without_an_update_count_for_nothing() -> None:
    policy = Policy(phases=(Phase(share=0.1, passes=1), Phase(passes=1)))
    assert costs.phase_costs((_run(policy, (100, 1.0), (100, 1.0), cached=True), _run(policy))) == ()
    (one,) = costs.phase_costs((_run(policy, (0, 0.0), (100, 1.0)),))
    assert one.kind == "full"


def test_runs_from_the_cache_are_told_at_the_pace_of_this_study() -> None:
    plain = Policy(phases=(Phase(passes=1),))
    spent = Ledger(forward=400, backward=600)
    cached = _run(plain, (1000, 50.0), cached=True, role="reference", ledger=spent, train_s=50.0)
    own = costs.phase_costs((cached, _run(plain, (100, 1.0)), _run(plain, (300, 3.0))))
    assert costs.pace_of_cached((cached,), own) == pytest.approx(10.0 / 50.0)
    assert costs.pace_of_cached((cached,), ()) == 1.0  # nothing of its own to go by
    assert costs.pace_of_cached((_run(plain, (100, 1.0)),), own) == 1.0


def test_a_cached_reference_stands_at_that_pace_beside_the_policies() -> None:
    view = make_view("full_wins")
    records = {field.name: getattr(view, field.name) for field in dataclasses.fields(StudyRecords)}
    slow = tuple(dataclasses.replace(run, cached=True, train_s=100 * run.train_s) for run in view.reference)
    before, after = view.summary, summarise(StudyRecords(**{**records, "reference": slow}))
    assert before.reference is not None
    assert before.reference.seconds is not None
    assert after.reference is not None
    assert after.reference.seconds == pytest.approx(before.reference.seconds, rel=0.5)
    assert after.tuning.seconds == pytest.approx(before.tuning.seconds, rel=0.5)


def test_without_a_plain_phase_there_is_nothing_to_compare_with() -> None:
    policy = Policy(phases=(Phase(passes=1, order="sift"),))
    (one,) = costs.phase_costs((_run(policy, (100, 1.0)),))
    assert (one.kind, one.relative) == ("sift", None)


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (Phase(passes=1), "full"),
        (Phase(passes=1, share=0.5), "subset"),
        (Phase(passes=1, share=0.5, order="sift"), "sift"),
        (Phase(passes=1, share=0.5, soup=Soup(workers=2)), "soup"),
        (Phase(passes=1, transition="prune", order="sift"), "pruned"),
    ],
)
def test_the_kind_of_a_phase_is_what_decides_how_fast_it_is(phase: Phase, kind: str) -> None:
    policy = Policy(phases=(Phase(passes=1, order=phase.order), phase))
    assert costs.phase_kind(policy, 1) == kind


def test_after_pruning_every_phase_is_one_of_a_pruned_network() -> None:
    policy = Policy(phases=(Phase(passes=1), Phase(passes=1, transition="prune"), Phase(passes=1)))
    assert [costs.phase_kind(policy, index) for index in range(3)] == ["full", "pruned", "pruned"]


def test_a_smaller_tolerance_is_held_by_the_cheapest_whose_bound_is_above_it() -> None:
    view = make_view("full_wins")
    passed = {"candidate-1": -0.007, "candidate-2": -0.004, "recipe": 0.001}
    verdicts = {
        name: dataclasses.replace(view.verdicts["candidate-2"], name=name, lower_bound=bound)
        for name, bound in passed.items()
    }
    half, equal = costs.at_margins(dataclasses.replace(view, verdicts=verdicts))
    assert (half.margin, half.name) == (0.005, "candidate-2")
    assert half.saving == 1 - view.candidates["candidate-2"].cost_flops / FACTS.reference_flops
    assert (equal.margin, equal.name, equal.flops) == (0.0, "recipe", view.candidates["recipe"].cost_flops)
    worse = {name: dataclasses.replace(one, lower_bound=-0.006) for name, one in verdicts.items()}
    assert [one.name for one in costs.at_margins(dataclasses.replace(view, verdicts=worse))] == [None, None]
    missed = {name: dataclasses.replace(one, passed=False) for name, one in verdicts.items()}
    assert costs.at_margins(dataclasses.replace(view, verdicts=missed)) == ()  # unsteady, for all their bounds


# --- the summary


def test_the_summary_holds_whether_a_win_is_shown() -> None:
    view = make_view("subset_wins")
    contrast = view.manifest.contrasts["equal"]
    assert view.summary.to_mapping()["win"] == {
        "policy": "candidate-1",
        "against": "equal",
        "shown": True,
        "difference": contrast.mean_difference,
        "lower_bound": contrast.lower_bound,
        "seeds": 5,
        "level": contrast.level,
    }
    for state in ("full_wins", "none_passed", "before", "search"):
        assert make_view(state).summary.to_mapping()["win"] is None


def test_a_contrast_before_its_first_look_has_no_numbers() -> None:
    view = make_view("subset_wins")
    empty = {"num_seeds": 0, "mean_difference": float("nan"), "lower_bound": float("-inf"), "shown": None}
    contrast = dataclasses.replace(view.manifest.contrasts["equal"], **empty)
    state = dataclasses.replace(view.manifest.rounds[0], contrasts={"equal": contrast})
    win = summarise(dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, rounds=(state,)))).win
    assert win is not None
    assert (win.shown, win.difference, win.lower_bound, win.seeds) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("winner", "against"),
    [("candidate-1", "equal"), ("equal", "equal"), ("candidate-9", "equal@2"), (None, "equal@2")],
)
def test_the_win_is_that_of_the_policy_that_is_exported_else_the_latest(winner: str | None, against: str) -> None:
    view = make_view("subset_wins")
    (first,) = view.manifest.rounds
    again = dataclasses.replace(first.contrasts["equal"], policy="candidate-1@2", control="equal@2", shown=False)
    both = dataclasses.replace(first, contrasts={**first.contrasts, "equal@2": again})
    manifest = dataclasses.replace(view.manifest, rounds=(both,), winner=winner)
    known = {**view.candidates, "candidate-9": view.candidates["candidate-2"]}
    win = summarise(dataclasses.replace(view, manifest=manifest, candidates=known)).win
    assert win is not None
    assert win.against == against


def test_the_stages_add_up_to_what_tuning_cost_and_name_what_was_not_needed() -> None:
    view = make_view("subset_wins")
    tuning, (done,) = view.summary.tuning, view.manifest.rounds
    assert [one.stage for one in tuning.stages] == ["reference", "search", "verification", "ablation"]
    assert sum(one.flops for one in tuning.stages) == tuning.flops
    assert sum(one.seconds for one in tuning.stages) == pytest.approx(tuning.seconds)
    spare = next(run for run in view.verification if run.candidate == "candidate-1")
    runs = [run for run in done.state["runs"] if (run["name"], run["seed"]) != (spare.candidate, spare.seed)]
    rounds = (dataclasses.replace(done, state={**done.state, "runs": runs}),)
    with_spare = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, rounds=rounds))
    found = {one.stage: one for one in summarise(with_spare).tuning.stages}
    assert (found["not needed"].runs, found["not needed"].flops) == (1, spare.study_flops)
    assert sum(one.flops for one in found.values()) == tuning.flops
    open_round = dataclasses.replace(rounds[0], is_over=False)
    still = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, rounds=(open_round,)))
    assert "not needed" not in {one.stage for one in summarise(still).tuning.stages}


def test_the_summary_is_plain_json_with_every_cost() -> None:
    view = make_view("subset_wins")
    plain = json.loads(json.dumps(view.summary.to_mapping(), allow_nan=False))
    assert plain["needs"] == {"full": [0.18, 0.31], "subset": [0.03, 0.05]}
    assert [one["margin"] for one in plain["at_margins"]] == [0.005, 0.0]
    assert {one["kind"] for one in plain["phase_costs"]} == {"full", "sift", "soup", "subset"}
    assert all(one["seconds_per_tflop"] == 1e12 * one["seconds"] / one["flops"] for one in plain["phase_costs"])
    assert plain["tuning"]["break_even_seconds"] == view.summary.tuning.break_even_seconds
    assert plain["best"]["error_increase"] == pytest.approx(
        (1 - plain["best"]["metric"]) / (1 - plain["best"]["reference_metric"]) - 1
    )
    levels = {one["name"]: (one["level"], one["seeds"], one["references"]) for one in plain["candidates"]}
    assert levels == {
        "candidate-1": (pytest.approx(0.016), 5, 5),
        "candidate-2": (pytest.approx(0.012), 0, 0),
        "recipe": (pytest.approx(0.012), 0, 0),
        "equal": (pytest.approx(0.008), 5, 5),
        "random": (0.0, 0, 0),
    }
    reasons = {one["name"]: one["reason"] for one in plain["candidates"]}
    assert reasons["random"] == "a control of candidate-1: nothing is claimed of it"
    assert make_view("full_wins").summary.to_mapping()["needs"] is None


def test_the_manifest_keeps_what_the_search_says_is_needed() -> None:
    manifest = make_view("subset_wins").manifest
    again = Manifest.from_json(manifest.to_json())
    assert again.needs == FrozenDict({"full": [0.18, 0.31], "subset": [0.03, 0.05]})
    assert again.contrasts == manifest.contrasts
    assert "needs" not in json.loads(make_view("full_wins").manifest.to_json())
