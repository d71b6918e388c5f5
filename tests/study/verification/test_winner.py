"""Which policy a study exports, and what is said of controls: by real verifications of made-up metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from facts import made_up_facts

from subsettune.policy import Phase, Policy
from subsettune.study.execute.requests import RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.stages.verification import ControlMaterial, VerificationSource, to_round
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification, statement
from subsettune.study.verification.winner import exported, is_outside_sequence

FACTS = made_up_facts()
RULES = Rules(margin=0.01, alpha=0.05, seeds=3, max_seeds=3, higher_is_better=True, resolution=0.0)
SUBSET = Policy(phases=(Phase(share=0.1, passes=1, selector="kcenter"), Phase(passes=1)))
DEARER = Policy(phases=(Phase(share=0.1, passes=1, selector="kcenter"), Phase(passes=3)))
CHEAPER = Policy(phases=(Phase(share=0.1, passes=0.5), Phase(passes=0.5)))
SHORTER = Policy(phases=(Phase(passes=1.5),))


def _round(
    named: Mapping[str, Policy], good: Mapping[str, float], shorter: Policy | None = None, rules: Rules = RULES
) -> RoundState:
    """A round in which policies of some names differ from the reference by so much, and the others are far worse."""
    candidates = {name: Candidate.named(name, policy=p, cost_flops=p.cost(FACTS)) for name, p in named.items()}
    made = Verification({name: c.cost_flops for name, c in candidates.items()}, rules, range(3))
    fallback = None if shorter is None else Candidate(role="shorter", policy=shorter, cost_flops=shorter.cost(FACTS))
    material = ControlMaterial(facts=FACTS, shorter=fallback)
    stage = VerificationSource(made, candidates, material, {}, lambda record: None)
    while isinstance(request := stage.next(), RunRequest):
        gain = {"reference": 0.0, **good}.get(request.candidate, -0.1)
        value = 0.9 + 0.001 * request.seed + (gain if rules.higher_is_better else -gain)
        record = RunRecord(
            name=request.name,
            role="verification",
            candidate=request.candidate,
            policy=request.policy,
            seed=request.seed,
            cause="finished",
            metric=value,
            test_metric=value,
            cost_flops=request.policy.cost(FACTS),
        )
        stage.finished(request, record)
    return to_round(stage, 10)


def test_a_subset_that_alone_matches_is_exported() -> None:
    assert exported([_round({"candidate-1": SUBSET}, {"candidate-1": 0})]) == "candidate-1"
    assert exported([_round({"candidate-1": SUBSET}, {})]) is None
    assert exported([]) is None


def test_where_all_data_for_the_same_compute_match_they_are_exported() -> None:
    made = _round({"candidate-1": SUBSET}, {"candidate-1": 0, "equal": 0})
    assert made.winner == "candidate-1"
    assert exported([made]) == "equal"
    assert not is_outside_sequence("equal", made)  # all candidates passed: it is the next test of the sequence


def test_after_a_failure_the_test_of_a_control_is_one_more() -> None:
    made = _round({"candidate-1": SUBSET, "candidate-2": CHEAPER}, {"candidate-1": 0, "equal": 0})
    assert exported([made]) == "equal"
    assert is_outside_sequence("equal", made)
    assert not is_outside_sequence("candidate-1", made)


def test_a_plain_schedule_that_costs_less_is_exported_and_one_that_costs_more_is_not() -> None:
    assert exported([_round({"candidate-1": SUBSET}, {"candidate-1": 0, "shorter": 0}, SHORTER)]) == "shorter"
    dearer = Policy(phases=(Phase(passes=2.5),))
    assert exported([_round({"candidate-1": SUBSET}, {"candidate-1": 0, "shorter": 0}, dearer)]) == "candidate-1"


def test_a_plain_schedule_that_a_failure_left_untested_is_exported_where_it_then_passes() -> None:
    named = {"candidate-1": DEARER, "candidate-2": SUBSET, "shorter": SHORTER}
    made = _round(named, {"candidate-1": 0, "shorter@control": 0})
    assert exported([made]) == "shorter@control"
    assert is_outside_sequence("shorter@control", made)


def test_equal_costs_in_two_rounds_are_a_tie_too() -> None:
    first = _round({"candidate-1": SUBSET}, {"candidate-1": 0})
    plain = Policy(phases=(Phase(passes=SUBSET.passes),))
    second = dataclasses.replace(first, candidates={}, verdicts={})
    second = _round({"shorter": plain}, {"shorter": 0})
    assert SUBSET.cost(FACTS) == plain.cost(FACTS)
    assert exported([first, second]) == exported([second, first]) == "shorter"


def test_where_nothing_won_a_control_claims_nothing() -> None:
    made = _round({"candidate-1": SUBSET}, {"shorter": 0, "random": 0}, SHORTER)
    assert exported([made]) is None
    for name in ("shorter", "random"):
        assert made.verdicts[name].passed is None
        assert made.verdicts[name].reason.endswith("a candidate failed before it, so nothing is claimed")


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_bound_that_is_better_than_the_reference_is_told_as_better(higher_is_better: bool) -> None:
    rules = dataclasses.replace(RULES, higher_is_better=higher_is_better)
    better = _round({"candidate-1": SUBSET}, {"candidate-1": 0.03}, rules=rules).verdicts["candidate-1"]
    side = "above" if higher_is_better else "below"
    assert better.lower_bound == pytest.approx(0.03)  # the differences do not vary
    assert better.reason == "passed with 3 seeds: at least 0.03 better than the reference, 0.01 worse allowed"
    assert f"is 0.03 {side} the reference's, and at one-sided level 0.04 at least 0.03 {side} it; 0.01" in statement(
        better, rules
    )
    worse = _round({"candidate-1": SUBSET}, {"candidate-1": -0.002}, rules=rules).verdicts["candidate-1"]
    assert worse.reason == "passed with 3 seeds: at most 0.002 worse than the reference, 0.01 worse allowed"
    side = "below" if higher_is_better else "above"
    assert f"no more than 0.002 {side} it; 0.01 {side} it is tolerated." in statement(worse, rules)
