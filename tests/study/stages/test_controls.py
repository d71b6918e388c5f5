"""Verification's controls: which random subset, and how much of all data, stands beside which winner."""

from __future__ import annotations

from dataclasses import replace

import pytest
from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy, Soup
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.records import RunRecord
from subsettune.study.spec.components import randomised
from subsettune.study.stages.verification import ControlMaterial, VerificationSource
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification

FACTS = made_up_facts()
SHORTER = Policy(phases=(Phase(passes=4),))
CHOSEN = Policy(phases=(Phase(share=0.1, passes=1, selector="kcenter"), Phase(passes=1)))
SORTED = Policy(phases=(Phase(passes=1, order="sift"), Phase(passes=2, order="sift")))
STIRRED = Policy(phases=(Phase(share=0.1, passes=1, soup=Soup()), Phase(passes=2)))
DRAWN = Policy(phases=(Phase(share=0.1, passes=1), Phase(passes=1.5)))
RULES = Rules(margin=0.01, alpha=0.05, seeds=3, max_seeds=3, higher_is_better=True, resolution=0.0)


def _candidate(name: str, policy: Policy) -> Candidate:
    return Candidate.named(name, policy=policy, cost_flops=policy.cost(FACTS))


def _controls(named: dict[str, Policy], good: set[str], likeliest: Policy | None = None) -> dict[str, Policy]:
    """Controls of a verification in which the policies of some names match the reference and the others do not."""
    candidates = {name: _candidate(name, policy) for name, policy in named.items()}
    made = Verification({name: c.cost_flops for name, c in candidates.items()}, RULES, range(3))
    subset = None if likeliest is None else _candidate("subset", likeliest)
    stage = VerificationSource(made, candidates, ControlMaterial(facts=FACTS, subset=subset), {}, lambda record: None)
    while isinstance(request := stage.next(), RunRequest):
        value = 0.9 + 0.001 * request.seed - (0 if request.candidate in {"reference", *good} else 0.1)
        stage.finished(request, _record(request, value))
    assert request is Pause.DONE
    return {name: stage.candidates[name].policy for name in made.controls}


def _record(request: RunRequest, value: float) -> RunRecord:
    return RunRecord(
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


def test_the_winner_has_a_random_control() -> None:
    found = _controls({"shorter": SHORTER, "candidate-1": CHOSEN}, {"shorter", "candidate-1"})
    assert found == {"equal": _plain(CHOSEN), "random": randomised(CHOSEN)}


def _plain(policy: Policy) -> Policy:
    """All data for the compute of a policy, with its hyperparameters."""
    return Policy(phases=(Phase(passes=policy.passes),), recipe=policy.recipe)


def test_all_data_for_the_compute_of_the_winner_stand_beside_it_unless_they_were_tested() -> None:
    tuned = replace(CHOSEN, recipe=FrozenDict({"lr": 0.3}))
    assert _controls({"candidate-1": tuned}, {"candidate-1"})["equal"] == _plain(tuned)
    named = {"shorter": _plain(CHOSEN), "candidate-1": CHOSEN}
    assert _controls(named, {"candidate-1"}) == {"random": randomised(CHOSEN)}  # it missed as `shorter`


@pytest.mark.parametrize("policy", [SORTED, STIRRED])
def test_a_winner_that_chooses_no_examples_has_none(policy: Policy) -> None:
    """Nor does the random control of another candidate, or of the likeliest policy, say anything of it."""
    named = {"shorter": SHORTER, "candidate-1": policy, "candidate-2": CHOSEN}
    assert _controls(named, {"shorter", "candidate-1"}, likeliest=CHOSEN) == {"equal": _plain(policy)}


def test_where_the_shorter_schedule_won_it_is_that_of_the_first_candidate_with_a_subset() -> None:
    named = {"shorter": SHORTER, "candidate-1": SORTED, "candidate-2": CHOSEN}
    assert _controls(named, {"shorter"}) == {"random": randomised(CHOSEN)}
    assert _controls({"shorter": SHORTER, "candidate-1": SORTED}, {"shorter"}) == {}


def test_where_no_candidate_has_a_subset_it_is_that_of_the_likeliest_policy_with_one() -> None:
    assert _controls({"shorter": SHORTER}, {"shorter"}, likeliest=CHOSEN) == {"random": randomised(CHOSEN)}
    assert _controls({"shorter": SHORTER}, {"shorter"}, likeliest=SORTED) == {}


def test_a_random_subset_is_its_own_control_where_it_was_tested() -> None:
    assert _controls({"shorter": SHORTER, "candidate-1": DRAWN}, {"shorter", "candidate-1"}) == {"equal": _plain(DRAWN)}
    assert _controls({"shorter": SHORTER}, {"shorter"}, likeliest=DRAWN) == {"random": DRAWN}
