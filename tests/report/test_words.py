from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from fake_study import FACTS, STATES, make_view, not_tested, with_own

from subsettune import text as words
from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy, Soup, conventional
from subsettune.report.tables import result_rows
from subsettune.study.results import headline as told
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyView
from subsettune.study.spec.point_to_policy import from_coordinates


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (1_000, "1.00 kFLOP"),
        (999_499, "999 kFLOP"),
        (999_600, "1.00 MFLOP"),
        (1_234_000_000_000, "1.23 TFLOP"),
        (12_345_000_000_000, "12.3 TFLOP"),
        (9_996_000, "10.0 MFLOP"),
        (99_960_000, "100 MFLOP"),
        (5e30, "5000000 YFLOP"),
        (None, "-"),
        (math.nan, "-"),
    ],
)
def test_flops_have_three_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert words.flops_words(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.421, "0.42 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (119.9, "119.9 s"),
        (119.96, "2 min 00 s"),
        (725, "12 min 05 s"),
        (7200, "2 h 00 min"),
        (11520, "3 h 12 min"),
        (48 * 3600, "2 d 0 h"),
        (math.inf, "-"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.seconds_words(seconds) == text


def test_short_durations_fit_a_column() -> None:
    assert [words.short_seconds_words(s) for s in (0.19, 99.9, 725.4, 9999, 44280)] == [
        "0.19 s",
        "99.9 s",
        "725 s",
        "9999 s",
        "12.3 h",
    ]


def test_passes_shares_and_savings() -> None:
    assert [words.passes_words(p) for p in (0.0412, 0.5, 1.826, 30, 1234)] == ["0.041", "0.50", "1.83", "30.0", "1,234"]
    assert [words.share_words(s) for s in (0.1234, 0.02, 1.0, None)] == ["12.3 %", "2 %", "100 %", "-"]
    assert [words.share_words(s) for s in (9.99, 10, 1234.5)] == ["999 %", "1,000 %", "123,450 %"]
    assert [words.more_words(s) for s in (-0.123, -1, -12)] == ["12 % more", "100 % more", "1,200 % more"]
    shares = (0.7083, 0.9394, 0.0532, 0.0025, 0, 1, -0.12, -1.5, -12.345, 0.9997, 0.996, None)
    assert [words.saving_words(s) for s in shares] == [
        *("71 %", "94 %", "5.3 %", "0.25 %", "0 %", "100 %", "-12 %", "-150 %", "-1,200 %", ">99 %", ">99 %", "-"),
    ]


def test_changes_have_a_sign_and_fractions_two_digits() -> None:
    changes = (0.12, -0.047, 0.0, 0.0996, 1.5, math.nan, None)
    assert [words.change_words(c) for c in changes] == ["+12 %", "-4.7 %", "+0 %", "+10 %", "+150 %", "-", "-"]
    assert [words.fraction_words(f) for f in (0.183, 0.05, 1.0, 1.25, None)] == ["0.18", "0.050", "1.0", "1.2", "-"]


@pytest.mark.parametrize(
    ("value", "tolerance", "text"),
    [
        *((0.97222, 0.01, "0.9722"), (0.97222, 0.005, "0.97222"), (3417.26, 100, "3417"), (0.5, 0.5, "0.500")),
        *((3.0519e-24, 1e-25, "3.052e-24"), (3.0519e26, 1e25, "3.052e+26"), (0.0, 1e-25, "0")),
    ],
)
def test_a_metric_shows_two_digits_more_than_its_tolerance(value: float, tolerance: float, text: str) -> None:
    assert words.metric_words(value, tolerance) == text


def test_a_score_far_from_one_keeps_its_digits() -> None:
    scores = (0.93333, 0.0, 3.0519e-24, 3.0519e26, 1200.0, math.nan, None)
    assert [words.score_words(score) for score in scores] == [
        *("0.9333", "0.0000", "3.052e-24", "3.052e+26", "1200.0000", "nan", "-"),
    ]


def test_a_difference_is_signed_and_nan_is_a_dash() -> None:
    assert words.metric_words(0.0012, 0.01, signed=True) == "+0.0012"
    assert words.metric_words(-1.9e-17, 0.01, signed=True) == "+0.0000"
    assert words.metric_words(math.nan, 0.01) == "-"
    assert words.metric_words(None, 0.01) == "-"


def test_a_difference_in_a_sentence_says_which_side_is_better() -> None:
    assert [words.side_words(value, 0.01) for value in (0.0012, -0.0113, 0.0, -1.9e-17)] == [
        *("better by 0.0012", "worse by 0.0113", "the same", "the same"),
    ]
    told_of_it = with_own(make_view("subset_wins", metric="mse"), 0.02).summary.headline  # of a cost, lower is better
    assert "of equal compute by its own settings (worse by 0.0190, 5 seeds), which looked as good" in told_of_it


def test_policies_are_described_as_people_say_them() -> None:
    subset = from_coordinates(
        {
            "arm": "subset",
            "budget": 0.06,
            "switch": 0.3,
            "subset_share": 0.12,
            "selector": "kcenter",
            "transition": "shrink_perturb",
            "shrink_perturb.shrink": 0.6,
            "lr": 0.21,
        },
        FACTS,
    )
    assert words.describe(subset) == (
        "subset 12 % by kcenter for 30 % of 1.80 passes, then all data; lr 0.21, shrink_perturb 0.6"
    )
    assert "subset 12 % (151 examples) by kcenter" in words.describe(subset, FACTS)
    assert words.describe(conventional(FACTS)) == "all data for 30.0 passes"


def test_a_subset_that_shrinks_does_not_grow() -> None:
    steps = [Phase(share=share, passes=1) for share in (0.1, 0.3, 0.2)]
    assert words.describe(Policy(phases=(*steps, Phase(passes=2)))) == (
        "subset 10 % by random for 1.00, then subset 30 % by random for 1.00, then subset 20 % by random for 1.00, "
        "then all data for 2.00: 5.00 passes in all"
    )


def test_every_part_of_a_policy_is_described() -> None:
    policy = Policy(
        phases=(
            Phase(share=0.1, q=2.61, passes=0.5, selector="kcenter", selector_options={"metric": "cosine"}),
            Phase(share=0.5, passes=0.5),
            Phase(passes=1, transition="shrink_perturb", transition_options={"shrink": 0.5, "noise": 0.01}),
        ),
        recipe={"augment": {"flip": True}, "batch_size": 32},
    )
    assert words.describe(policy) == (
        "subset 10 % by kcenter, metric cosine, Q 2.61 for 0.50, then subset 50 % by random for 0.50, then "
        "all data for 1.00: 2.00 passes in all; augment (flip True), batch_size 32, shrink_perturb 0.5 noise 0.01"
    )


ORDERED: dict[str, Any] = {"order": "sift", "order_options": {"keep": 0.5, "exit": "block"}}


def test_an_order_is_told_once_for_all_phases() -> None:
    subset = Phase(share=0.1, passes=1, selector="kcenter", **ORDERED)
    policy = Policy(phases=(subset, Phase(passes=3, **ORDERED)))
    assert words.describe(policy) == (
        "subset 10 % by kcenter for 25 % of 4.00 passes, then all data, in sift order (keep 0.5, exit block)"
    )
    mixed = Policy(phases=(Phase(share=0.1, passes=1), Phase(passes=3, order="rs2")))
    assert words.describe(mixed).endswith("then all data, in rs2 order and uniform order")


def test_all_data_throughout_are_one_stretch_unless_something_happens_between() -> None:
    policy = Policy(phases=(Phase(passes=1, **ORDERED), Phase(passes=3, **ORDERED)), recipe={"lr": 0.1})
    assert words.describe(policy) == "all data for 4.00 passes, in sift order (keep 0.5, exit block); lr 0.1"
    pruned = Policy(phases=(Phase(passes=1), Phase(passes=3, transition="prune", transition_options={"keep": 0.5})))
    assert words.describe(pruned) == "all data for 25 % of 4.00 passes, then all data; prune keep 0.5"
    one, two = (Phase(passes=2, transition="prune", transition_options={"layers": (name,)}) for name in ("1", "3"))
    assert words.describe(Policy(phases=(Phase(share=0.1, passes=1), one, two))) == (
        "subset 10 % by random for 1.00, then all data for 2.00, then all data for 2.00: 5.00 passes in all; prune "
        "layers [1], prune layers [3]"
    )


def test_a_soup_comes_before_the_subset_which_may_grow() -> None:
    soup = Phase(share=0.1, passes=1, soup=Soup(workers=4, density=0.2, uncovered="zero", rand_augment=5))
    steps = (Phase(share=0.1, passes=1), Phase(share=0.2, passes=2))
    policy = Policy(phases=(soup, *steps, Phase(passes=4)))
    assert words.describe(policy, FACTS) == (
        "soup of 4 workers (density 0.2, masks erk, uncovered zero, rand_augment 5) on subset 10 % (126 examples) by "
        "random for 12 % of 8.00 passes, then subset 10 % (126 examples) by random, growing to 20 % in 2 steps for "
        "38 %, then all data"
    )
    alone = Policy(phases=(Phase(passes=1, soup=Soup(workers=1, masks="data")), Phase(passes=3)))
    assert words.describe(alone) == (
        "soup of 1 worker (density 0.05, masks data) on all data for 25 % of 4.00 passes, then all data"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_seeds": 0}, "not tested"),
        ({"num_seeds": 5}, "undecided"),
        ({"passed": True, "num_seeds": 5}, "passed"),
        ({"passed": False, "num_seeds": 5, "shortfall": 0.0021}, "missed by 0.0021"),
        ({"passed": False, "num_seeds": 5, "shortfall": math.nan}, "missed"),
        ({"passed": False, "num_seeds": 5, "shortfall": math.inf}, "missed"),
    ],
)
def test_verdicts(changes: dict[str, Any], text: str) -> None:
    verdict = dataclasses.replace(not_tested("candidate-1"), **changes)
    assert told.verdict_words(verdict, 0.01) == text
    assert told.verdict_words(None, 0.01) == "not tested"
    assert Verdict.from_mapping(json.loads(json.dumps(verdict.to_mapping()))).words(0.01) == text


def _told(view: StudyView, **changes: Any) -> str:
    """The headline of a view whose summary is another."""
    return told.headline(view, dataclasses.replace(view.summary, **changes))


def test_the_headline_of_a_subset_that_is_shown_to_win_rests_on_its_contrast() -> None:
    view = make_view("subset_wins")
    best, contrast = view.summary.best, view.manifest.contrasts["equal"]
    assert best is not None
    assert best.saving is not None
    pair = "(test accuracy 0.9667 against 0.9642 over 5 and 5 runs, error -6.9 %, within 0.01)"
    rows = {row.role: row.metric for row in result_rows(view)}
    assert [f"{rows[role]:.4f}" for role in ("best", "reference")] == ["0.9667", "0.9642"]
    random = view.manifest.contrasts["random"].mean_difference
    assert view.summary.headline == (
        f"Matches the recipe {pair} with {100 * best.saving:.0f} % less training compute (1.07 of 30.0 passes), and is "
        f"shown to be better, by {contrast.mean_difference:.4f} (at least {contrast.lower_bound:.4f}, 5 seeds), than "
        "plain training of equal compute, by the settings that 12 trials found, which are its own; with a random "
        "subset of the same size it is outside the margin, "
        f"{random:.4f} worse than the policy."
    )


def test_a_win_says_by_which_settings_plain_training_was_beaten() -> None:
    view = make_view("subset_wins")
    own = dataclasses.replace(view.manifest.contrasts["equal"], control="own")
    first = view.manifest.rounds[0]
    rounds = (dataclasses.replace(first, contrasts={**first.contrasts, "own": own}),)
    both = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, rounds=rounds))
    assert ", than plain training of equal compute, by the settings that 12 trials found and by its own; " in _told(
        both
    )
    failed = tuple(dataclasses.replace(run, cause="failed") for run in view.trials)
    assert ", by the settings that 0 trials found and by its own; " in _told(dataclasses.replace(both, trials=failed))


def test_without_a_contrast_that_is_shown_no_headline_says_better() -> None:
    view = make_view("subset_wins")
    best, win = view.summary.best, view.summary.win
    assert best is not None
    assert win is not None
    for shown, told_of_it in (
        (False, "; it is not shown to differ from plain training of equal compute (better by 0.0121, 5 seeds), and is "
         "exported because that is not shown to match the recipe (missed by 0.0043, tested at level 0.008, the "
         "policy at 0.016); "),
        (None, "; whether it is better than plain training of equal compute is not decided yet; "),
    ):  # fmt: skip
        bound = win.lower_bound if shown is False else -0.001
        text = _told(view, win=dataclasses.replace(win, shown=shown, lower_bound=bound))
        assert f" passes){told_of_it}with a random subset" in text
        assert "is shown" not in text
    own = _told(view, win=dataclasses.replace(win, shown=None))  # better, and not tried by its own settings
    assert (
        "; whether it is better than plain training of equal compute, by its own settings, is not decided yet; " in own
    )
    tested = "(missed by 0.0043, tested at level 0.008, the policy at 0.016)"
    other = f"it is exported because such training with other settings is not shown to match {tested}; "
    good, bad = (with_own(view, difference).summary.headline for difference in (-0.004, -0.02))
    by_own = "it is not shown to differ from plain training of equal compute by its own settings ("
    assert f"{by_own}better by 0.0050, 5 seeds), which looked as good but was not tested for a match; {other}" in good
    assert f"{by_own}better by 0.0210, 5 seeds), which was not tested for a match; {other}" in bad
    verdicts = {**view.verdicts, "equal": dataclasses.replace(view.verdicts["equal"], level=0.016)}
    alike = dataclasses.replace(view, verdicts=verdicts)
    assert "tested at level 0.016, like the policy); " in _told(alike, win=dataclasses.replace(win, shown=False))
    untested = "; it was not tested against plain training of equal compute, so that no win of its subset is claimed; "
    assert f" passes){untested}with a random subset" in _told(view, win=None)
    assert f" passes){untested}with a random subset" in _told(view, win=dataclasses.replace(win, policy="candidate-2"))


def test_the_headline_of_a_subset_that_is_not_shown_to_differ_says_why_it_is_exported() -> None:
    view = make_view("not_shown")
    contrast = view.manifest.contrasts["equal"]
    assert contrast.shown is False
    assert view.manifest.winner == "candidate-1"
    missed = view.verdicts["equal"].shortfall
    assert view.summary.headline.endswith(
        f" passes); it is not shown to differ from plain training of equal compute (better by "
        f"{contrast.mean_difference:.4f}, 5 seeds), and is exported because that is not shown to match the recipe "
        f"(missed by {missed:.4f}, tested at level 0.008, the policy at 0.016)."
    )


def test_the_headline_of_an_earlier_version_claims_no_win() -> None:
    assert make_view("before").summary.headline.endswith(
        " passes); it was not tested against plain training of equal compute, so that no win of its subset is claimed; "
        "with a random subset of the same size it is outside the margin."
    )


def test_the_headline_of_a_plain_winner_says_what_the_subset_arm_gave() -> None:
    view = make_view("full_wins")
    shortfall = view.verdicts["candidate-1"].shortfall
    assert view.summary.headline.startswith("A shorter schedule on all data matches the recipe (test accuracy 0.9")
    assert view.summary.headline.endswith(
        " passes); a cheaper policy with a subset was sought, and none was found in 18 trials of the subset arm "
        f"(random 8, stratified 8, kcenter 2, Distances 0): candidate-1 missed by {shortfall:.4f}."
    )
    none = {name: one for name, one in view.candidates.items() if name != "candidate-1"}
    assert _told(dataclasses.replace(view, candidates=none)).endswith(
        "none was found in 18 trials of the subset arm (random 8, stratified 8, kcenter 2, Distances 0)."
    )


def test_trials_are_told_by_selector_as_briefly_as_they_can_be() -> None:
    view = make_view("full_wins")
    trials = [trial for trial in view.trials if trial.policy.arm == "subset"]
    by_name = {trial.policy.phases[0].selector: trial for trial in trials}
    even = [*by_name.values(), *by_name.values()]
    assert told.per_selector(view) == "random 8, stratified 8, kcenter 2, Distances 0"
    space = {key: value for key, value in view.study.space.items() if key != "selector"}
    several = {**space, "selector": {"choice": ["random", "stratified", "kcenter"]}}
    for kinds, runs, text in (
        (several, even, "2 per selector"),
        ({**space, "selector": "kcenter"}, [by_name["kcenter"]] * 4, "kcenter 4"),
        ({**space, "selector": {"choice": [*by_name, "herding", "el2n"]}}, even, "0 to 2 per selector"),
        (several, trials, "random 8, stratified 8, kcenter 2"),
    ):
        study = dataclasses.replace(view.study, space=FrozenDict(kinds))
        assert told.per_selector(dataclasses.replace(view, study=study, trials=tuple(runs))) == text


def test_the_headline_of_a_plain_twin_names_the_subset_that_passed_too_and_says_which_is_exported() -> None:
    view = make_view("equal_wins")
    assert view.manifest.winner == "equal"
    difference = view.manifest.contrasts["equal"].mean_difference
    assert view.summary.headline.startswith("A shorter schedule on all data matches the recipe (test accuracy 0.9")
    passed = "; candidate-1, of the subset arm, passed too, for 1.07 passes"
    exported = "so that the plain schedule is what is exported."
    apart = words.side_words(difference, 0.01)
    assert view.summary.headline.endswith(
        f"{passed}, but is not shown to differ from plain training of equal compute ({apart}, 5 seeds), {exported}"
    )
    text = _told(view, win=None)
    assert text.endswith(f"{passed}, but was not tested against plain training of equal compute, {exported}")
    assert view.summary.best is not None
    cheap = dataclasses.replace(view.summary.best, flops=view.candidates["candidate-1"].cost_flops - 1)
    assert _told(view, best=cheap).endswith(f"{passed}.")  # it is dearer: nothing speaks for it


def test_the_headline_says_when_nothing_passed_and_by_how_much() -> None:
    view = make_view("none_passed")
    missed = ", ".join(f"{view.named(name)} missed by {one.shortfall:.4f}" for name, one in view.verdicts.items())
    assert view.summary.headline == f"No policy passed: {missed}."
    assert missed == "candidate-1 missed by 0.0074, candidate-2 missed by 0.0104, short recipe missed by 0.0129"


def test_nothing_that_passed_stands_in_a_headline_where_no_policy_passed() -> None:
    view = make_view("none_passed")
    beside = dataclasses.replace(view.verdicts["recipe"], name="shorter@control", passed=None, shortfall=0.0)
    control = dataclasses.replace(view.candidates["recipe"], role="shorter", is_repeat=True)
    missed = ", ".join(f"{view.named(name)} missed by {one.shortfall:.4f}" for name, one in view.verdicts.items())
    for passed in (None, True):  # a manifest of before says that such a control passed
        verdicts = {**view.verdicts, "shorter@control": dataclasses.replace(beside, passed=passed)}
        candidates = {**view.candidates, "shorter@control": control}
        assert _told(dataclasses.replace(view, verdicts=verdicts, candidates=candidates)) == (
            f"No policy passed: {missed}; shorter@control was within the tolerance, but tested after a failure, so "
            "that nothing is claimed."
        )


def test_the_headline_says_why_there_was_nothing_to_test() -> None:
    view = make_view("none_passed")
    bare = dataclasses.replace(view, verdicts={}, candidates={})
    assert _told(bare) == "No policy passed: the search found none that reached the target."
    failed = tuple(dataclasses.replace(trial, cause="diverged", metric=None) for trial in view.trials[:1])
    text = _told(dataclasses.replace(bare, trials=failed))
    assert text == "No policy passed: 1 trial failed or diverged, and no other was made."


def test_the_headline_says_where_a_constant_answer_would_match_too() -> None:
    view = make_view("full_wins")
    assert view.summary.reference is not None
    assert view.summary.reference.test_metric is not None
    for gap, is_told in ((0.009, True), (0.02, False)):  # the tolerance is 0.01
        chance = view.summary.reference.test_metric - gap
        near = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, test_chance=chance))
        end = f"; but a constant answer has {chance:.4f} there, no further from the recipe than the tolerance, so that "
        assert _told(near).endswith(f"{end}matching it shows little.") == is_told
    assert "constant answer" not in _told(view)


def test_the_headline_of_a_study_without_subsets_says_nothing_of_subset_policies() -> None:
    view = make_view("full_wins")
    plain = {name: one for name, one in view.candidates.items() if one.policy.arm == "full"}
    trials = tuple(trial for trial in view.trials if trial.policy.arm == "full")
    text = _told(dataclasses.replace(view, candidates=plain, trials=trials))
    assert text.startswith("A shorter schedule on all data matches the recipe (test accuracy 0.9")
    assert text.endswith(" passes); no subset was tried.")


@pytest.mark.parametrize(
    ("factor", "words", "cost"),
    [
        (1.0, "A schedule on all data matches", "with the same training compute (30.0 of 30.0 passes);"),
        (1.25, "A schedule on all data matches", "with 25 % more training compute (37.5 of 30.0 passes);"),
        (12.0, "A schedule on all data matches", "with 1,100 % more training compute (360.0 of 30.0 passes);"),
        (0.5, "A shorter schedule on all data matches", "with 50 % less training compute (15.0 of 30.0 passes);"),
    ],
)
def test_a_schedule_that_saves_nothing_is_not_called_shorter(factor: float, words: str, cost: str) -> None:
    view = make_view("full_wins")
    best, reference = view.summary.best, view.summary.reference
    assert best is not None
    assert reference is not None
    flops, passes = round(factor * reference.flops), factor * reference.passes
    text = _told(view, best=dataclasses.replace(best, flops=flops, passes=passes, saving=1 - factor))
    assert text.startswith(words)
    assert f" {cost} " in text


def test_an_error_is_told_in_its_own_direction() -> None:
    view = make_view("subset_wins", metric="mse")
    rows = {row.role: row for row in result_rows(view)}
    own, theirs = rows["best"].metric, rows["reference"].metric
    assert own < theirs
    assert (
        f"(test MSE {own:.4f} against {theirs:.4f} over 5 and 5 runs, error -6.9 %, within 0.01)"
        in view.summary.headline
    )


def test_what_missed_saves_nothing() -> None:
    for state in ("subset_wins", "full_wins", "equal_wins", "not_shown", "none_passed", "before"):
        view = make_view(state)
        for row in result_rows(view):
            missed = row.verdict.startswith(("missed", "undecided", "not tested")) or row.role == "random"
            assert (row.saving is None) == (missed or row.role == "reference"), (state, row.role)
            assert not missed or row.saving_shorter is None
    random = make_view("before").summary.random
    assert random is not None
    assert dataclasses.replace(random, saving=None) == random


def test_the_headline_says_when_the_subset_is_a_random_one() -> None:
    assert make_view("random_wins").summary.headline.endswith("; its subset is itself a random one.")


def test_the_headline_says_when_there_is_no_subset_to_draw_at_random() -> None:
    view = make_view("subset_wins")
    policy = Policy(phases=(Phase(passes=1, order="sift"), Phase(passes=2, order="sift")))
    assert view.summary.best is not None
    text = _told(view, best=dataclasses.replace(view.summary.best, policy=policy), random=None)
    assert text.endswith(", which are its own; it chooses no subset, so that a random one is no control of it.")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("empty", "Not finished: the reference has 0 of 5 runs."),
        ("reference", "Not finished: the reference has 2 of 5 runs."),
        ("no_trials", "Not finished: 0 of 30 trials done; no policy has reached the target yet."),
        ("only_failed", "Not finished: 30 of 30 trials done; no policy has reached the target yet."),
        ("verification", "Not finished: 0 of 3 candidates verified."),
    ],
)
def test_the_headline_of_an_unfinished_study(state: str, text: str) -> None:
    assert make_view(state).summary.headline == text


def test_the_headline_of_a_study_whose_reference_diverged() -> None:
    view = make_view("reference")
    first, second = view.reference
    lost = dataclasses.replace(first, cause="diverged", metric=None)
    text = _told(dataclasses.replace(view, reference=(lost, second)))
    assert text == ("Not finished: 1 of 2 runs of the reference diverged or failed, so that there is nothing to match.")


def test_a_policy_that_is_not_verified_yet_has_the_metric_of_its_trials() -> None:
    view = make_view("verification")
    rows = {row.role: row for row in result_rows(view)}
    assert list(rows) == ["reference", "shorter"]
    (number,) = view.candidates["candidate-2"].trials
    assert rows["shorter"].metric == next(trial.metric for trial in view.trials if trial.number == number)
    assert rows["shorter"].saving is not None  # a trial that reached the target, not verified yet
    assert rows["shorter"].verdict == "not verified yet"


@pytest.mark.parametrize(("gap", "text"), [(0.005, "within the margin"), (0.02, "outside the margin")])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_a_random_control_is_within_or_outside_the_margin_whatever_an_older_verdict_says(
    metric: str, gap: float, text: str
) -> None:
    view = make_view("before", metric=metric)
    sign = 1 if metric == "accuracy" else -1
    mean = view.compared("random").reference_metric
    assert mean is not None
    runs = tuple(
        dataclasses.replace(run, test_metric=mean - sign * gap) if run.candidate == "random" else run
        for run in view.verification
    )
    for passed in (True, False):
        verdicts = {**view.verdicts, "random": dataclasses.replace(view.verdicts["random"], passed=passed)}
        assert told.outcome_words(dataclasses.replace(view, verification=runs, verdicts=verdicts), "random") == text


def test_a_random_control_that_did_not_run_or_diverged_says_so() -> None:
    view = make_view("before")
    runs = tuple(run for run in view.verification if run.candidate != "random")
    for passed, text in ((False, "diverged"), (None, "not tested")):
        verdict = dataclasses.replace(view.verdicts["random"], passed=passed)
        bare = dataclasses.replace(view, verification=runs, verdicts={**view.verdicts, "random": verdict})
        assert told.outcome_words(bare, "random") == text


def test_the_headline_of_an_interrupted_study() -> None:
    view = make_view("interrupted")
    assert view.summary.headline.startswith("Interrupted: 15 of 30 trials done; the best policy so far, not ")


@pytest.mark.parametrize("state", STATES)
def test_the_headline_is_one_sentence(state: str) -> None:
    text = make_view(state).summary.headline
    assert text.endswith(".")
    assert ". " not in text
    assert text.isascii()


def test_words_and_progress_load_nothing_heavy_and_tables_only_what_a_study_is_read_with() -> None:
    heavy = {"rich", "plotly", "torch", "ray", "optuna", "pandas", "scipy", "sklearn"}
    assert (
        _loaded("subsettune.text; from subsettune.report import render, progress, listings, plan_tables")
        & (heavy | {"numpy", "pyarrow", "jinja2"})
        == set()
    )
    assert (
        _loaded("subsettune.study.results.view; from subsettune.report import tables, figures, html") & heavy == set()
    )


def test_a_study_whose_trials_all_failed_does_not_say_that_it_looked() -> None:
    """A broken network or cluster is no evidence against subsets."""
    view = make_view("only_failed")
    assert view.trials
    said = told.headline(view, dataclasses.replace(view.summary, status="finished", best=None))
    assert said == f"Nothing is known of any policy: all {len(view.trials)} trials failed. See their logs."


def _loaded(modules: str) -> set[str]:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("value", "told"), [(0.412169, "0.412"), (0.99995, "0.99995"), (12345.0, "12345"), (5e-4, "0.0005"), ("sgd", "sgd")]
)
def test_a_setting_is_told_as_it_was_written_and_one_that_was_drawn_with_three_digits(value: Any, told: str) -> None:
    assert words.value_words(value) == told


@pytest.mark.parametrize(
    ("confidence", "told"), [(0.95, "95 %"), (0.9875, "98.75 %"), (1 - 0.1 / 6, "98.33 %"), (0.9999, "99.99 %")]
)
def test_a_confidence_has_the_digits_that_tell_its_error(confidence: float, told: str) -> None:
    assert words.sure_words(confidence) == told


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.2784, "28 %"), (0.0612, "6.1 %"), (0.985, "98.5 %"), (0.9649, "96.5 %"), (1.0, "100 %"), (1.031, "103 %")],
)
def test_a_cost_has_the_digits_of_its_saving(share: float, told: str) -> None:
    assert words.cost_words(share) == told
    if share < 1:
        both = (float(words_.removesuffix(" %")) for words_ in (told, words.saving_words(1 - share)))
        assert sum(both) == pytest.approx(100, abs=0.11 if share > 0.5 else 0.5)


@pytest.mark.parametrize(("saving", "told"), [(0.51, "51 %"), (0.0, "none"), (-2.0, "none (200 % more)")])
def test_seconds_that_are_not_saved_say_how_many_more_they_are(saving: float, told: str) -> None:
    assert words.share_saved_words(saving) == told
