from __future__ import annotations

import dataclasses
import io
import re
from typing import Any

import pytest
from fake_study import FACTS, KCENTER, STATES, make_view
from terminal import Terminal

from subsettune import text
from subsettune.report import components, evidence, listings, plan_tables, render, tables
from subsettune.report.render import Column, Table
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.summarise import summarised
from subsettune.study.results.summary import ComponentRow, FalseStops
from subsettune.study.results.view import StudyView

PLAN: dict[str, Any] = {
    "task": "digits, mlp, accuracy within 0.01",
    "num_examples": 1257,
    "num_validation": 180,
    "num_test": 360,
    "num_outputs": 10,
    "num_parameters": 4810,
    "q": 1257 * 10 / 4810,
    "forward_flops": 11_906_304,
    "backward_flops": 13_515_264,
    "pass_flops": 25_421_568,
    "reference_passes": 30.0,
    "reference_flops": 762_647_040,
    "runs": {
        "reference": {"runs": 5, "passes": 150.0, "flops": 3_813_235_200},
        "search": {"runs": 30, "passes": 270.0, "flops": 6_863_823_360},
        "verification": {"runs": 50, "passes": None, "flops": None},
    },
    "passes": 420.0,
    "flops": 10_677_058_560,
    "parallel": 2,
    "seconds": None,
    "expectations": ["Expected: under 3 minutes on 2 cores."],
}


def test_plain_tables_are_aligned_without_boxes_or_trailing_spaces() -> None:
    table = Table(
        title="Fruit",
        columns=(Column(title="name"), Column(title="n", align="right"), Column(title="about", wrap=True)),
        rows=(("fig", "3", "sweet and small"), ("pear", "12", "a fruit that " + "grows " * 8)),
    )
    assert render.render_table(table, 40) == (
        "Fruit\n"
        "\n"
        "name   n  about\n"
        "----  --  ------------------------------\n"
        "fig    3  sweet and small\n"
        "pear  12  a fruit that grows grows grows\n"
        "          grows grows grows grows grows"
    )


def test_a_number_stays_with_its_per_cent_sign() -> None:
    assert render.render(["aaaa bbbb 12 %"], 12) == "aaaa bbbb\n12 %\n"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "mse"])
def test_results_of_every_state_fit_80_columns_of_ascii(state: str, metric: str) -> None:
    text = tables.result_text(make_view(state, metric=metric))
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    assert all(line == line.rstrip() for line in text.splitlines())


def test_the_widest_result_fits_80_columns() -> None:
    view = make_view("subset_wins", metric="balanced_accuracy")
    assert view.summary.best is not None
    wide = {"saving": -9.5, "seconds": 123456.0, "passes": 1234.5, "seeds": 60, "references": 15}
    rows = {
        role: dataclasses.replace(getattr(view.summary, role) or view.summary.best, **wide)
        for role in ("best", "shorter", "equal", "random")
    }
    assert view.summary.reference is not None
    dear = dataclasses.replace(view.summary.reference, passes=1234.5, flops=99_900_000_000_000, seconds=360_000.0)
    summary = dataclasses.replace(view.summary, **rows, reference=dear)
    text = render.render([tables.result_table(dataclasses.replace(view, summary=summary))])
    assert max(map(len, text.splitlines())) <= 80
    assert "34.3 h" in text
    assert "60|15" in text
    assert "-950 %" in text


@pytest.mark.parametrize("state", ["subset_wins", "equal_wins", "full_wins", "before"])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_means_are_those_of_the_runs_that_were_compared(state: str, metric: str) -> None:
    """More runs than a verdict rests on change no number beside it."""
    view = make_view(state, metric=metric)
    extra = [dataclasses.replace(run, seed=run.seed + 100, test_metric=0.5) for run in view.verification]
    sign = 1 if metric == "accuracy" else -1
    for more in (view, summarised(dataclasses.replace(view, verification=(*view.verification, *extra)))):
        reference, *rows = tables.result_rows(more)
        assert more.summary.best is not None
        assert reference.num_seeds == more.summary.best.references == 5
        assert reference.metric == more.summary.best.reference_metric
        for row in (one for one in rows if one.role != "random"):
            policy = getattr(more.summary, row.role)
            verdict = more.verdicts[policy.name]
            assert (row.num_seeds, row.num_references) == (verdict.num_seeds, verdict.num_references)
            assert row.runs == f"{verdict.num_seeds}|{verdict.num_references}"
            assert row.metric is not None
            difference = sign * (row.metric - policy.reference_metric)
            assert difference == pytest.approx(verdict.mean_difference, abs=1e-12)


def test_the_result_table_holds_the_numbers_of_the_summary() -> None:
    view = make_view("before")
    rows = {row.role: row for row in tables.result_rows(view)}
    assert list(rows) == ["reference", "best", "shorter", "random"]
    for role in ("best", "shorter", "random"):
        found, row = rows[role], getattr(view.summary, role)
        assert (found.metric, found.bound, found.passes) == (row.metric, row.interval, row.passes)
        assert (found.flops, found.saving, found.num_seeds) == (row.flops, row.saving, 5)
        assert found.error_increase == row.error_increase
    assert rows["best"].verdict == "passed"
    assert rows["random"].verdict == "outside the margin"
    assert rows["best"].saving_shorter == 1 - view.summary.best.flops / view.summary.shorter.flops
    assert rows["shorter"].saving_shorter is None


def test_a_policy_that_is_trained_for_two_names_is_found_by_either() -> None:
    view = make_view("equal_wins")
    again = dataclasses.replace(view.candidates["candidate-1"], round=2)
    twice = {**view.candidates, again.name: again}
    verdicts = {**view.verdicts, again.name: dataclasses.replace(view.verdicts["candidate-1"], name=again.name)}
    more = dataclasses.replace(view, candidates=twice, verdicts=verdicts)
    assert again.name == "candidate-1@2"
    assert more.compared(again.name) == view.compared("candidate-1")
    assert len(more.compared(again.name).own) == 20


def test_one_line_where_the_best_shorter_schedule_is_that_of_equal_compute() -> None:
    rows = tables.result_rows(make_view("subset_wins"))
    assert [row.role for row in rows] == ["reference", "best", "shorter", "random"]
    assert rows[2].policy == "all data for 1.07 passes; lr 0.103"
    assert rows[2].verdict.startswith("missed by 0.0")
    assert rows[1].saving_shorter is None  # nor is it one to compare with


def test_the_change_of_the_error_stands_beside_the_verdict() -> None:
    cells = {row[0]: row[1:3] for row in tables.policy_table(make_view("subset_wins")).rows}
    assert cells == {
        "reference": ("-", "-"),
        "best": ("passed", "-6.9 %"),
        "shorter": ("missed by 0.0043", "+27 %"),
        "random": ("outside the margin", "+31 %"),
    }


def test_the_reference_shows_its_test_metric_once_it_was_tested() -> None:
    assert tables.result_rows(make_view("search"))[0].metric == make_view("search").summary.reference.metric
    view = make_view("subset_wins")
    assert tables.result_rows(view)[0].metric == view.summary.reference.test_metric


def test_a_shorter_schedule_that_missed_is_no_comparison() -> None:
    rows = {row.role: row for row in tables.result_rows(make_view("none_passed"))}
    assert list(rows) == ["reference", "shorter"]
    assert rows["shorter"].verdict.startswith("missed by ")
    assert rows["shorter"].saving_shorter is None


def test_one_line_when_the_best_policy_is_the_shorter_schedule() -> None:
    rows = tables.result_rows(make_view("full_wins"))
    assert [row.role for row in rows] == ["reference", "best"]
    assert rows[1].saving_shorter is None
    assert rows[1].title == "best policy: a shorter schedule on all data"


def test_before_verification_nothing_has_a_verdict() -> None:
    rows = tables.result_rows(make_view("search"))
    assert {row.verdict for row in rows} == {"", "not verified yet"}
    assert "validation split" in tables.legend(make_view("search"))
    assert "test split" in tables.legend(make_view("subset_wins"))


def test_the_legend_claims_a_level_for_the_lines_that_have_one() -> None:
    level = "err with probability 0.05 at most, together with the other tests."
    assert f"The tests of best and shorter {level} Of random nothing is claimed." in tables.legend(
        make_view("subset_wins")
    )
    assert f"The tests of best {level} error:" in tables.legend(make_view("full_wins"))
    view = make_view("none_passed")
    assert f"The tests of shorter {level} error:" in tables.legend(view)
    without = {name: dataclasses.replace(verdict, level=0.0) for name, verdict in view.verdicts.items()}
    assert f"All tests {level} error:" in tables.legend(dataclasses.replace(view, verdicts=without))


def test_the_legend_is_exact() -> None:
    time, seconds = (
        "time: of one training at the pace of this study, selection included. saved: compute against the recipe{}; vs "
        "short: against the cheapest schedule on all data that matches; what missed saves nothing.",
        " (of the seconds measured here best saves 89 %)",
    )
    assert tables.legend(make_view("search")) == f"accuracy: mean of n seeds on the validation split. {time.format('')}"
    assert tables.legend(make_view("full_wins", metric="mse")) == (
        "MSE: mean on the test split over n runs; 9|5 are 9 of the policy, held against 5 of the reference. bound: "
        "one-sided lower bound on the difference of the two, its sign turned so that more is better; a policy passes "
        "when it is above -0.01. The tests of best err with probability 0.05 at most, together with the other tests. "
        f"error: change of the error against the reference's. {time.format(seconds)}"
    )


def test_counts_and_tuning() -> None:
    view = make_view("subset_wins")
    counts, tuning = view.summary.trials, view.summary.tuning
    assert f"Trials: {counts.finished} finished, {counts.stopped} stopped early, 3 skipped" in (
        tables.counts_text(view)
    )
    text = tables.tuning_text(view)
    assert f"as much as {tuning.flops / FACTS.reference_flops:.1f} conventional trainings" in text
    assert text.endswith(
        f"In compute it is repaid after {tuning.break_even} trainings by the best policy instead of the recipe, in "
        f"time after {tuning.break_even_seconds}."
    )
    slow = _with(view, tuning=dataclasses.replace(tuning, break_even=1, break_even_seconds=None))
    assert tables.tuning_text(slow).endswith(
        "In compute it is repaid after 1 training by the best policy instead of the recipe, in time never, for none is "
        "saved."
    )
    assert "not repaid" in tables.tuning_text(make_view("none_passed"))
    assert tables.tuning_text(make_view("empty")) == "Tuning cost: unknown until the first run has finished."


def _with(view: StudyView, **changes: Any) -> StudyView:
    """The view with another summary."""
    return dataclasses.replace(view, summary=dataclasses.replace(view.summary, **changes))


def test_false_stops_are_told() -> None:
    view = make_view("subset_wins")
    view = dataclasses.replace(
        view, summary=dataclasses.replace(view.summary, false_stops=FalseStops(checked=4, false=1))
    )
    assert "diverged. False stops: 1 of 4 stopped trials that were run out. The one" in tables.counts_text(view)


def test_the_reason_of_failed_trials_is_told() -> None:
    view = make_view("subset_wins")
    run = dataclasses.replace(view.trials[0], cause="failed", metric=None)
    one, other, none = (dataclasses.replace(run, message=words) for words in ("CUDA out\n of memory.", "Hm.", ""))
    told = [tables.counts_text(dataclasses.replace(view, trials=runs)) for runs in ((one,), (one, other, one), (none,))]
    assert told[0].endswith(" The one that failed says: CUDA out of memory.")
    assert told[1].endswith(" 2 of the 3 that failed say: CUDA out of memory.")
    assert told[2].endswith(" The one that failed says: no reason was given.")


def test_candidates_in_the_order_of_the_line_up_with_level_runs_and_reasons() -> None:
    view = make_view("equal_wins")
    table = evidence.candidates_table(view)
    assert [column.title for column in table.columns] == [
        *("candidate", "passes", "n", "difference", "bound", "level", "verdict"),
    ]
    assert table.title == "Verification, at a margin of -0.01"
    assert list(view.candidates) == ["candidate-1", "candidate-2", "recipe", "equal"]
    assert [row[0] for row in table.rows] == ["candidate-1", "candidate-2", "short recipe", "equal"]
    assert [row[2] for row in table.rows] == ["20|5", "-", "-", "5|5"]
    assert [row[5] for row in table.rows] == ["0.016", "0.012", "0.012", "0.008"]
    assert [row[-1] for row in table.rows] == ["passed", "not tested", "not tested", "passed"]
    assert table.note.splitlines()[1] == "candidate-2: not needed: a cheaper policy passed"
    assert view.summary.candidates[1].reason == "not needed: a cheaper policy passed"
    running = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, status="verification"))
    assert evidence.candidates_table(running).note.splitlines()[1] == "candidate-2: waits for its first look"
    missed = [row[-1].split(" by ")[0] for row in evidence.candidates_table(make_view("none_passed")).rows]
    assert missed == ["missed"] * 3


def test_a_random_control_has_a_difference_and_neither_bound_nor_level() -> None:
    for state in ("subset_wins", "before"):
        *_, random = evidence.candidates_table(make_view(state)).rows
        assert random[0] == "random"
        assert random[2] == "5|5"
        assert random[3].startswith("-0.01")
        assert random[4:] == ("-", "-", "outside the margin")


def test_the_winner_against_its_controls() -> None:
    view = make_view("subset_wins")
    table = evidence.contrasts_table(view)
    assert table is not None
    equal, random = view.manifest.contrasts["equal"], view.manifest.contrasts["random"]
    assert table.rows == (
        *(
            (
                "candidate-1",
                "equal",
                "5",
                f"{equal.mean_difference:+.4f}",
                f"{equal.lower_bound:+.4f}",
                "0.04",
                "better",
            ),
        ),
        (
            *("candidate-1", "random", "5", f"{random.mean_difference:+.4f}", "-", "-"),
            "no claim",
        ),
    )
    assert evidence.contrasts_table(make_view("before")) is None
    for changes, words in (
        ({"shown": False}, "not shown to differ"),
        ({"shown": None}, "open"),
        ({"shown": None, "num_seeds": 0}, "not compared"),
    ):
        assert evidence.contrast_words(dataclasses.replace(equal, **changes)) == words


def test_the_tables_say_what_a_sign_means_where_lower_is_better() -> None:
    told = "difference, bound: the sign is turned so that more is better; where it is above 0, MSE is lower."
    view = make_view("subset_wins", metric="mse")
    against = evidence.contrasts_table(view)
    assert against is not None
    assert evidence.candidates_table(view).note.splitlines()[0] == told
    assert against.note.startswith(f"{told} n: pairs of runs with one seed.")
    assert "sign" not in evidence.candidates_table(make_view("subset_wins")).note


def test_what_other_test_examples_would_say_stands_beside_the_verdict() -> None:
    view = make_view("subset_wins")
    rows = {row.name: row for row in evidence.evidence_rows(view)}
    assert evidence.interval_words(rows["candidate-1"].sampled, 0.01) == "-0.0079 to +0.0129"
    assert evidence.interval_words(rows["equal"].sampled, 0.01) == "-"
    assert evidence.candidates_table(view).note.splitlines()[0] == (
        "candidate-1: passed with 5 seeds; with other test examples -0.0079 to +0.0129 (two-sided, 95 %)"
    )
    assert evidence.how_tested(view).endswith(
        f"{evidence.CAVEAT} Other examples: where the difference lies when test examples are drawn anew, too (95 %, "
        "two-sided)."
    )


def test_how_it_was_tested_is_told_of_either_version() -> None:
    assert evidence.how_tested(make_view("equal_wins")) == (
        "Candidates are tested one at a time, the one of the greatest expected saving first, until one passes; then "
        "the cheaper ones, dearest first. Each has the level in its row, and one that passes leaves its level to what "
        "comes next; all these tests together err with probability 0.05 at most. A test holds the runs of a policy "
        "against those of the reference, n of each (Welch's t test; where runs with one seed correlate in six pairs or "
        "more, a t test of these, its p-value tripled). A policy passes when its lower bound lies above the margin of "
        "-0.01, and its runs do not scatter much more than the reference's. A subset wins where its difference to "
        "plain training of equal compute, over pairs of runs with one seed, has a lower bound above 0, by the settings "
        "that the search expects most of on all data and, where the policy has others, by its own, too: tests beside "
        f"the others, with an error rate of their own. {evidence.CAVEAT}"
    )
    assert evidence.how_tested(make_view("before")) == (
        "Candidates were tested dearest first until the first failure, by differences of runs with one seed. A policy "
        f"passes when its lower bound lies above the margin of -0.01. {evidence.CAVEAT}"
    )


def test_components_with_what_they_were_compared_by() -> None:
    view = make_view("subset_wins")
    table = components.components_table(view)
    cells = {row[0]: row[1:] for row in table.rows}
    flat = ("+0.0000", "-0.0061", "+0.0061", "no difference shown")
    assert cells == {
        "stratified": ("random", "3", *flat),
        "kcenter": ("random", "3", "+0.0200", "+0.0139", "+0.0261", "paid for itself"),
        "Distances": ("random", "-", "-", "-", "-", "no result"),
        "sift": ("uniform", "3", *flat),
        "reset_optimizer": ("keep", "-", "-", "-", "-", "could not be tried"),
        "shrink_perturb": ("keep", "3", *flat),
        "soup": ("none", "3", "+0.0200", "+0.0139", "+0.0261", "paid for itself"),
    }
    lost = components.components_table(make_view("full_wins"))
    assert {row[0] for row in lost.rows if row[-1] == "did not"} == {"kcenter", "soup"}


def test_notes_tell_trials_policies_and_costs_of_each_component() -> None:
    view = make_view("subset_wins")
    lines = dict(line.split(": ", 1) for line in components.components_table(view).note.splitlines())
    rows = {components.component_title(row): row for row in view.summary.components}
    assert list(lines)[:-1] == list(rows)
    for name, row in rows.items():
        assert lines[name].startswith(f"{row.feasible} of {row.trials} trials met the target")
    assert lines["order uniform"].endswith(f", the cheapest with {_passes(view, rows['order uniform'])} passes.")
    assert "; no result: its random baseline diverged with seed 0. " in lines["selector my_selectors.own:Distances"]
    cost = text.flops_words(view.ablation[KCENTER].cost_flops)
    assert f"both cost {cost}, 12.5 % of it (0.01 s) for choosing the subset. " in lines["selector kcenter"]
    assert f"both cost {cost}. " in lines["order sift"]
    assert f"both cost {cost}, 12.5 % of it for the transition. " in lines["transition shrink_perturb"]
    assert ", 12.5 % of it for the soup. soup of 10 workers (density 0.05, masks erk) on subset " in lines["soup"]
    borrowed = " (never finished in the search; the best policy without it, or one near it)."
    assert [name for name, line in lines.items() if line.endswith(borrowed)] == [
        *(
            "selector stratified",
            "selector my_selectors.own:Distances",
            "order sift",
            "transition shrink_perturb",
            "soup",
        )
    ]
    assert lines["met"].endswith("nothing of it is part of the verified claim.")


def test_the_legend_says_at_which_level_the_intervals_are_and_what_that_means() -> None:
    view = make_view("subset_wins")
    alone = {key: dataclasses.replace(row, level=0.9) for key, row in view.ablation.items() if row.lower is not None}
    legend = components.components_legend(dataclasses.replace(view, ablation=alone))
    assert "from, to: its 90 % interval, each row a test of its own. This is validation evidence" in legend
    levels = iter((0.9, 0.95, 1 - 0.1 / 3))
    judged = {
        key: dataclasses.replace(row, level=next(levels), family_size=3)
        for key, row in list(view.ablation.items())
        if key.name in ("stratified", "kcenter", "sift")
    }
    legend = components.components_legend(dataclasses.replace(view, ablation=judged))
    assert (
        "from, to: its 90 % to 96.67 % interval: where no component makes a difference, at most one table in ten"
        in legend
    )
    same = {key: dataclasses.replace(row, level=1 - 0.1 / 3) for key, row in judged.items()}
    assert "its 96.67 % interval: where" in components.components_legend(dataclasses.replace(view, ablation=same))


def _passes(view: StudyView, row: ComponentRow) -> str:
    return text.passes_words(components.cheapest_passes(view, row))


def test_components_before_the_comparison_are_counted_and_a_long_name_is_cut() -> None:
    view = make_view("search")
    table = components.components_table(view)
    cells = {row[0]: row[1:] for row in table.rows}
    for row in view.summary.components:
        shown = cells[row.name.rpartition(":")[2]]
        assert shown == (row.kind, f"{row.feasible}/{row.trials}", _passes(view, row))
    assert "validation evidence" not in table.note
    rows = (dataclasses.replace(view.summary.components[0], name="a.b:" + "Distances" * 3),)
    table = components.components_table(_with(view, components=rows))
    assert table.rows[0][0] == "DistancesDistanc.."
    assert "Components" not in tables.result_text(make_view("no_trials"))


def test_a_component_that_could_not_be_tried_says_why_in_one_sentence() -> None:
    view = make_view("subset_wins")
    for reason in ("Choosing costs too much. Leave it out.", "the search finished no subset policy"):
        row = AblationResult(name="kcenter", verdict="not_tried", reason=reason)
        text = components.ablation_text(view, row)
        assert text == f"could not be tried: {reason.rstrip('.')}."


def test_the_text_ends_with_report_and_bundle() -> None:
    text = tables.result_text(make_view("subset_wins"), report="/runs/x/report.html")
    assert text.endswith("Report: /runs/x/report.html\nBundle: runs/digits-2026-01-31-a1b2c3/bundle\n")
    assert "Bundle" not in tables.result_text(make_view("none_passed"))


def test_a_long_path_is_not_broken() -> None:
    path = "/scratch/" + "very-long-folder-name/" * 6 + "report.html"
    assert path in tables.result_text(make_view("subset_wins"), report=path)


def test_a_plan_names_everything_and_admits_what_it_does_not_know() -> None:
    text = plan_tables.plan_text(PLAN)
    for part in ("1,257", "4,810", "2.61", "25.4 MFLOP", "11.9 MFLOP", "13.5 MFLOP", "30.0", "763 MFLOP"):
        assert part in text
    assert "all             85   420.0  10.7 GFLOP" in text
    assert "unknown until the reference has run" in text
    assert text.rstrip().endswith("Expected: under 3 minutes on 2 cores.")
    assert max(map(len, text.splitlines())) <= 80


def test_a_plan_projects_hours_when_the_rate_is_known() -> None:
    assert ": 90 min 00 s at most, projected." in plan_tables.plan_text({**PLAN, "seconds": 5400.0})


def test_a_plan_has_the_time_of_each_stage() -> None:
    stages = {"start-up": {"expected": 11.0, "at_most": 11.0}, "search": {"expected": 60.0, "at_most": 600.0}}
    made = {**PLAN, "stages": stages, "expected_seconds": 71.0, "seconds": 611.0}
    lines = plan_tables.plan_text(made).splitlines()
    cells = [line.split("  ") for line in lines]
    assert ["start-up", "11.0 s", "11.0 s"] in [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert ["search", "60.0 s", "10 min 00 s"] in [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert ["all", "71.0 s", "10 min 11 s"] in [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert any(line.endswith("about 71.0 s, 10 min 11 s at most, projected.") for line in lines)


def test_an_empty_plan_is_still_a_text() -> None:
    assert plan_tables.plan_text({}) == "Time: unknown until the reference has run.\n"


def test_lists() -> None:
    runs = listings.runs_table(
        [{"run_id": "a", "status": "finished", "trials": 7, "asked": 30, "num_bytes": 45_100_000}]
    )
    assert runs.rows == (("a", "finished", "7/30", "-", "45.1 MB", "-"),)
    assert render.render([listings.runs_table([])]) == "No runs here yet. Start one: subsettune tune STUDY.yaml\n"
    names = listings.names_table([{"name": "kcenter", "about": "spread out", "options": "metric"}], "selector")
    assert [c.title for c in names.columns] == ["selector", "about"]
    assert names.rows == (("kcenter", "spread out. Options: metric."),)
    caches = listings.caches_table([{"kind": "data", "path": "/x", "num_bytes": 1000}, {"kind": "run", "path": "/y"}])
    assert caches.note == "1.00 kB in all."


def test_a_pipe_gets_plain_text_and_a_terminal_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    view = make_view("subset_wins")
    pipe, terminal = io.StringIO(), Terminal()
    render.write(tables.result_blocks(view), pipe)
    render.write(tables.result_blocks(view), terminal)
    assert pipe.getvalue() == tables.result_text(view)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in pipe.getvalue()
    for row in tables.result_table(view).rows:
        assert all(cell in terminal.getvalue() for cell in row)


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_loses_no_word_and_breaks_no_path(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    view, terminal = make_view("subset_wins"), Terminal()
    path = "/scratch/" + "very-long-folder-name/" * 4 + "report.html"
    command = "subsettune show " + "x" * width
    blocks = [*tables.result_blocks(view, report=path), render.Snippet(rows=((command, "look"),))]
    render.write(blocks, terminal)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    lines = plain.splitlines()
    assert f"Report: {path}" in lines or path in lines
    assert command in lines
    assert [line for line in lines if len(line.rstrip()) > width] == [
        line for line in lines if line.rstrip() in (path, command)
    ]
    words = " ".join(plain.split())
    for row in tables.result_table(view).rows:
        for title, cell in zip(("n", "accuracy", "bound", "passes"), row[1:5], strict=True):
            assert f"{title} {cell}" in words
    assert "%" not in {line.split()[0] for line in lines if line.strip()}
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.getvalue())


def test_the_first_cell_of_a_row_has_its_heading_where_there_is_one() -> None:
    columns = (Column(title="patience"), Column(title="stopped"))
    table = Table(columns=columns, rows=(("1", "5 of 5"),), title="Stops", note="Looks.")
    assert str(render.to_rich(table, 8)) == "Stops\n\npatience 1\n  stopped\n  5 of 5\n\nLooks."


def test_markup_of_a_user_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    render.write(["[bold]x[/bold]", listings.caches_table([{"kind": "run", "path": "/a/[red]b"}])], terminal)
    assert "[bold]x[/bold]" in terminal.getvalue()
    assert "/a/[red]b" in terminal.getvalue()


def test_a_dumb_terminal_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not render.is_terminal(Terminal())


def test_a_stream_that_knows_only_ascii_is_written_to() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    render.write(["Zürich"], stream)
    assert raw.getvalue() == b"Z?rich\n"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_every_metric_of_the_result_is_the_mean_of_its_seeds_on_one_split(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    is_tested = any(verdict.is_tested for verdict in view.verdicts.values())
    assert tables.split_of(view) == ("test" if is_tested else "validation")
    runs = view.verification if is_tested else (*view.reference, *view.trials)
    known = {run.test_metric if is_tested else run.metric for run in runs}
    for row in tables.result_rows(view):
        assert set(row.by_seed.values()) <= known
        assert row.metric == pytest.approx(sum(row.by_seed.values()) / len(row.by_seed))
        assert len(row.by_seed) == row.num_seeds


def test_what_was_not_run_on_the_test_split_has_no_metric_beside_what_was() -> None:
    view = make_view("subset_wins")
    assert view.summary.shorter is not None
    waiting = dataclasses.replace(view.summary.shorter, seeds=0, references=None, metric=0.97)
    rows = tables.result_rows(dataclasses.replace(view, summary=dataclasses.replace(view.summary, shorter=waiting)))
    (row,) = [row for row in rows if row.role == "shorter"]
    assert (row.metric, dict(row.by_seed)) == (None, {})


def test_a_run_that_diverged_is_one_of_those_that_a_verdict_rests_on() -> None:
    """What was made ahead of it is not taken in its place: the means do not depend on how many ran at a time."""
    view = make_view("subset_wins")
    runs = sorted((run for run in view.verification if run.candidate == "candidate-1"), key=lambda run: run.seed)
    number = view.verdicts["candidate-1"].num_seeds
    last, ahead = runs[number - 1], dataclasses.replace(runs[number - 1], seed=runs[-1].seed + 1, test_metric=0.1)
    rest = [run for run in view.verification if run is not last]
    diverged = dataclasses.replace(last, cause="diverged", test_metric=None)
    more = dataclasses.replace(view, verification=(*rest, diverged, ahead))
    assert more.compared("candidate-1").own == {run.seed: run.test_metric for run in runs[: number - 1]}
