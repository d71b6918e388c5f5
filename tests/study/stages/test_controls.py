"""Verification's controls: all data for the winner's compute, and a random subset where a win is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from fake_rounds import FACTS, RULES, carried_out, plain, round_of

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy, Soup
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.claim import claim_on
from subsettune.study.spec.components import randomised
from subsettune.study.stages.verification import ControlMaterial, VerificationSource
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.verification import Verification

SHORTER = Policy(phases=(Phase(passes=4),))
CHOSEN = Policy(phases=(Phase(share=0.1, passes=1, selector="kcenter"), Phase(passes=1)))
CHEAPER = Policy(phases=(Phase(share=0.1, passes=0.5, selector="herding"), Phase(passes=0.5)))
SORTED = Policy(phases=(Phase(passes=1, order="sift"), Phase(passes=2, order="sift")))
STIRRED = Policy(phases=(Phase(share=0.1, passes=1, soup=Soup()), Phase(passes=2)))
DRAWN = Policy(phases=(Phase(share=0.1, passes=1), Phase(passes=1.5)))


def controls(named: Mapping[str, Policy], gains: Mapping[str, float]) -> dict[str, Policy]:
    """Those of a verification in which policies of some names differ from the reference by so much."""
    stage = carried_out(named, gains)
    return {name: stage.candidates[name].policy for name in stage.verification.controls}


def test_a_winner_that_is_better_than_its_twin_has_a_random_control() -> None:
    assert controls({"candidate-1": CHOSEN}, {"candidate-1": 0}) == {
        "equal": plain(CHOSEN),
        "random": randomised(CHOSEN),
    }


def test_without_a_win_nobody_asks_what_the_selector_is_for() -> None:
    assert controls({"candidate-1": CHOSEN}, {"candidate-1": 0, "equal": 0}) == {"equal": plain(CHOSEN)}


def test_a_plain_winner_and_no_winner_have_no_control() -> None:
    named = {"recipe": SHORTER, "candidate-1": CHOSEN}
    assert controls(named, {"recipe": 0}) == {}
    assert controls(named, {}) == {}


def test_the_twin_has_the_compute_of_the_winner_and_its_hyperparameters() -> None:
    tuned = replace(CHOSEN, recipe=FrozenDict({"lr": 0.3}))
    assert controls({"candidate-1": tuned}, {"candidate-1": 0})["equal"] == plain(tuned)
    assert plain(tuned).cost(FACTS) == tuned.cost(FACTS)


TUNED = replace(CHOSEN, recipe=FrozenDict({"lr": 0.3}))
USUAL = FrozenDict({"lr": 0.1})


def test_a_win_over_other_settings_is_none_where_plain_training_by_the_same_is_as_good() -> None:
    made = carried_out({"candidate-1": TUNED}, {"candidate-1": 0, "own": 0}, twin_recipe=USUAL).verification
    assert made.controls == ("equal", "own")
    assert made.contrasts["equal"].mean_difference == pytest.approx(0.1)
    assert made.contrasts["own"].mean_difference == pytest.approx(0)
    assert [made.contrasts[name].shown for name in made.controls] == [True, False]
    assert _claim({"candidate-1": 0, "own": 0}) == ("own", False)


def test_a_win_over_both_kinds_of_plain_training_is_one() -> None:
    stage = carried_out({"candidate-1": TUNED}, {"candidate-1": 0}, twin_recipe=USUAL)
    made = stage.verification
    assert made.controls == ("equal", "own", "random")
    assert stage.candidates["own"].policy == plain(TUNED)
    assert [made.contrasts[name].shown for name in made.controls] == [True, True, None]
    again = Verification.from_mapping(made.to_mapping())
    assert again.contrasts == made.contrasts
    assert _claim({"candidate-1": 0}) == ("equal", True)
    assert _claim({"candidate-1": 0, "own": -0.05}) == ("own", True)
    assert again.finished


def _claim(gains: Mapping[str, float]) -> tuple[str, bool | None]:
    done = round_of({"candidate-1": TUNED}, gains, twin_recipe=USUAL)
    claim = claim_on("candidate-1", done.contrasts, done.candidates)
    return claim.contrast.control, claim.shown


def test_without_plain_training_by_its_own_settings_nothing_is_decided() -> None:
    """As in studies of before it was asked for, and while it is under way."""
    done = round_of({"candidate-1": TUNED}, {"candidate-1": 0}, twin_recipe=USUAL)
    for contrasts in (
        {"equal": done.contrasts["equal"]},
        {**done.contrasts, "own": replace(done.contrasts["own"], num_seeds=0, shown=None)},
    ):
        claim = claim_on("candidate-1", contrasts, done.candidates)
        assert (claim.contrast.control, claim.shown) == ("equal", None)


def test_where_the_twin_is_as_good_no_other_is_trained() -> None:
    made = carried_out({"candidate-1": TUNED}, {"candidate-1": 0, "equal": 0}, twin_recipe=USUAL).verification
    assert made.controls == ("equal",)


def test_the_controls_are_those_of_the_cheapest_that_passed() -> None:
    named = {"candidate-1": CHOSEN, "candidate-2": CHEAPER}
    found = controls(named, {"candidate-1": 0, "candidate-2": 0})
    assert found == {"equal": plain(CHEAPER), "random": randomised(CHEAPER)}
    assert controls(named, {"candidate-1": 0}) == {"equal": plain(CHOSEN), "random": randomised(CHOSEN)}


@pytest.mark.parametrize("policy", [SORTED, STIRRED])
def test_a_winner_that_chooses_no_examples_has_no_random_control(policy: Policy) -> None:
    assert controls({"candidate-1": policy}, {"candidate-1": 0}) == {"equal": plain(policy)}


def test_a_random_subset_is_its_own_control() -> None:
    assert controls({"candidate-1": DRAWN}, {"candidate-1": 0}) == {"equal": plain(DRAWN)}


def test_runs_on_record_are_not_done_again() -> None:
    """Of the reference, of a candidate, and of a twin: whatever round measured the same policy."""
    one = Candidate.named("candidate-1", policy=CHOSEN, cost_flops=CHOSEN.cost(FACTS))
    twin = Candidate.named("equal", policy=plain(CHOSEN), cost_flops=CHOSEN.cost(FACTS))
    made = Verification(
        {"candidate-1": Entry(cost_flops=one.cost_flops, share=1.0, has_twin=True)},
        RULES,
        reference_flops=FACTS.reference_flops,
        first_seed=0,
    )
    material = ControlMaterial(facts=FACTS, twins={"candidate-1": twin})
    known = {CHOSEN.key: 0.9, twin.policy.key: 0.8}

    def on_record(policy: Policy) -> Mapping[int, float]:
        return {seed: known.get(policy.key, 0.9) + 0.0001 * seed for seed in range(12)}

    stage = VerificationSource(made, {"candidate-1": one}, material, on_record, lambda record: None)
    request = stage.next()
    assert request is Pause.DONE or isinstance(request, RunRequest)
    assert request is Pause.DONE
    assert made.winner == "candidate-1"
    assert made.contrasts["equal"].shown is True
    assert made.contrasts["random"].num_seeds == 3
