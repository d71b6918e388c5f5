"""Which policy a study exports: a plain schedule, unless a subset is shown to be better than all data."""

from __future__ import annotations

import dataclasses

import pytest
from fake_rounds import FACTS, RULES, carried_out, plain, round_of

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy
from subsettune.study.results.manifest import RoundState
from subsettune.study.stages.verification import to_round
from subsettune.study.verification.verification import statement
from subsettune.study.verification.winner import exported

SUBSET = Policy(phases=(Phase(share=0.1, passes=1, selector="kcenter"), Phase(passes=1)))
CHEAPER = Policy(phases=(Phase(share=0.1, passes=0.5), Phase(passes=0.5)))
SHORTER = Policy(phases=(Phase(passes=1.5),))
DEARER = Policy(phases=(Phase(passes=2.5),))


def test_a_subset_that_is_shown_to_be_better_than_its_twin_is_exported() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0})
    assert made.contrasts["equal"].shown is True
    assert exported([made]) == "candidate-1"


def test_a_win_counts_also_where_the_twin_matches_the_reference() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0.01, "equal": 0})
    assert made.verdicts["equal"].passed
    assert exported([made]) == "candidate-1"


def test_where_all_data_for_the_same_compute_match_and_no_win_is_shown_they_are_exported() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0, "equal": 0})
    assert made.winner == "candidate-1"
    assert made.contrasts["equal"].shown is False
    assert exported([made]) == "equal"


def test_a_subset_without_a_win_is_exported_where_no_plain_schedule_passed() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0, "equal": 0})
    verdicts = {**made.verdicts, "equal": dataclasses.replace(made.verdicts["equal"], passed=False)}
    assert exported([dataclasses.replace(made, verdicts=verdicts)]) == "candidate-1"


def test_a_win_that_its_settings_explain_is_none_for_the_export() -> None:
    tuned = dataclasses.replace(SUBSET, recipe=FrozenDict({"lr": 0.3}))
    named, gains = {"candidate-1": tuned, "recipe": SHORTER}, {"candidate-1": 0.01, "own": 0.01, "equal": 0}
    made = round_of(named, gains, twin_recipe=FrozenDict({"lr": 0.1}))
    assert made.contrasts["own"].shown is False
    assert exported([made]) == "equal"  # the twin matches, too, and is simpler


def test_nothing_is_exported_where_nothing_passed() -> None:
    assert exported([round_of({"candidate-1": SUBSET}, {})]) is None
    assert exported([]) is None


def test_a_plain_schedule_that_costs_less_is_exported_and_one_that_costs_more_is_not() -> None:
    cheap = round_of({"candidate-1": SUBSET, "candidate-2": SHORTER}, {"candidate-1": 0, "candidate-2": 0})
    assert exported([cheap]) == "candidate-2"
    dear = round_of({"recipe": DEARER, "candidate-1": SUBSET}, {"candidate-1": 0, "recipe": 0})
    assert exported([dear]) == "candidate-1"


def test_equal_costs_in_two_rounds_are_a_tie_that_the_plain_schedule_has() -> None:
    first = round_of({"candidate-1": SUBSET}, {"candidate-1": 0})
    second = round_of({"recipe@2": plain(SUBSET)}, {"recipe@2": 0}, round_number=2)
    assert SUBSET.cost(FACTS) == plain(SUBSET).cost(FACTS)
    assert exported([first, second]) == exported([second, first]) == "recipe@2"


def test_a_policy_that_passes_again_in_a_later_round_keeps_the_name_it_was_exported_by() -> None:
    """Its confirmation is found by that name."""
    first = round_of({"candidate-3": SHORTER}, {"candidate-3": 0})
    second = round_of({"candidate-1@2": SHORTER}, {"candidate-1@2": 0}, round_number=2)
    assert exported([first, second]) == "candidate-3"


def test_a_win_of_one_round_is_none_for_the_policy_of_another() -> None:
    """A cheaper subset of a later round, whose twin matches, has to show a win of its own."""
    first = round_of({"candidate-1": SUBSET}, {"candidate-1": 0})
    second = round_of({"candidate-1@2": CHEAPER}, {"candidate-1@2": 0, "equal@2": 0}, round_number=2)
    assert exported([first, second]) == "equal@2"


def test_a_random_control_is_never_exported() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0, "random": 0.01})
    assert "random" in made.contrasts
    assert "random" not in made.verdicts
    passed = dataclasses.replace(made.verdicts["candidate-1"], name="random")
    assert exported([dataclasses.replace(made, verdicts={**made.verdicts, "random": passed})]) == "candidate-1"


def test_an_old_round_without_contrasts_is_read_and_exports_the_plain_schedule() -> None:
    made = round_of({"candidate-1": SUBSET}, {"candidate-1": 0, "equal": 0})
    raw = made.to_mapping()
    old = RoundState.from_mapping({key: value for key, value in raw.items() if key != "contrasts"})
    assert old.contrasts == {}
    assert exported([old]) == "equal"
    assert exported([RoundState.from_mapping(raw)]) == "equal"


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_bound_that_is_better_than_the_reference_is_told_as_better(higher_is_better: bool) -> None:
    rules = dataclasses.replace(RULES, higher_is_better=higher_is_better, seeds=6, max_seeds=6)
    sign = 1 if higher_is_better else -1
    found = {
        gain: to_round(carried_out({"recipe": DEARER}, {"recipe": sign * gain}, rules), 10).verdicts["recipe"]
        for gain in (0.03, -0.002)
    }
    side, other = ("above", "below") if higher_is_better else ("below", "above")
    assert found[0.03].reason.startswith("passed with 12 seeds (6 pairs): at least 0.0300 better")
    assert found[0.03].reason.endswith(" better than the reference, 0.01 worse allowed")
    text = statement(found[0.03], rules)
    assert f"is 0.0300 {side} the reference's, and at one-sided level 0.04 at least 0.0300" in text
    assert text.startswith("6 pairs of runs with one seed, of recipe and of the reference: ")
    assert f" {side} it; 0.01 {other} it is tolerated." in text
    assert found[-0.002].reason.startswith("passed with 12 seeds (6 pairs): at most 0.002")
    assert found[-0.002].reason.endswith(" worse than the reference, 0.01 worse allowed")
    assert f"{other} it; 0.01 {other} it is tolerated." in statement(found[-0.002], rules)
