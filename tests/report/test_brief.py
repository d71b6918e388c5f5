from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from fake_study import FACTS, STATES, make_study, make_view, with_own

from subsettune import config
from subsettune.cli.parser import make_parser
from subsettune.policy import Phase, Policy
from subsettune.report import brief, gain_figure, page_tables, render, tables
from subsettune.report.brief import Where
from subsettune.report.render import Snippet, Table
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.known_before import KnownBefore
from subsettune.study.results.summarise import summarised
from subsettune.study.results.summary import EarlyStop
from subsettune.study.results.view import StudyRecords, StudyView
from subsettune.task import Task

FAR = Policy(phases=(Phase(passes=0.5 * FACTS.reference_passes),))


def told(view: StudyView, where: Where | None = None) -> str:
    return render.render(brief.brief_blocks(view, where or Where()))


def sentences(view: StudyView) -> str:
    return " ".join(told(view).split())


def _with(view: StudyView, **changes: Any) -> StudyView:
    """The view with another summary."""
    return dataclasses.replace(view, summary=dataclasses.replace(view.summary, **changes))


def the_commands(view: StudyView, where: Where | None = None) -> dict[str, str]:
    """Snippet by what they do."""
    (block,) = (one for one in brief.brief_blocks(view, where or Where()) if isinstance(one, Snippet))
    return {about: command for command, about in block.rows}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "mse"])
def test_the_table_has_six_lines_at_most_and_60_columns(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    for table in (block for block in brief.brief_blocks(view, Where()) if isinstance(block, Table)):
        assert len(table.rows) <= 6
        assert max(map(len, render.render_table(table).splitlines())) <= brief.WIDTH
    text = told(view)
    assert text.isascii()
    assert text.startswith(render.render([view.summary.headline]))
    assert len(text.splitlines()) < 45


def test_the_widest_table_fits_60_columns() -> None:
    view = make_view("subset_wins", metric="balanced_accuracy")
    best, reference = view.summary.best, view.summary.reference
    assert best is not None
    assert reference is not None
    wide = {"saving": -9.5, "seconds": 123456.0, "passes": 1234.5}
    roles = ("best", "shorter", "equal", "own", "random")
    rows = {role: dataclasses.replace(getattr(view.summary, role) or best, **wide) for role in roles}
    dear = dataclasses.replace(reference, passes=1234.5, seconds=360_000.0)
    text = render.render([brief.brief_table(view, brief.brief_rows(_with(view, **rows, reference=dear)))])
    assert max(map(len, text.splitlines())) <= brief.WIDTH
    assert "34.3 h" in text
    assert "outside" in text


def test_the_numbers_are_those_of_the_whole_table() -> None:
    view = make_view("subset_wins")
    rows = {row.role: row for row in tables.result_rows(view)}
    table = brief.brief_table(view, brief.brief_rows(view))
    assert table.columns[1].title == "accuracy"
    assert {row[0]: row[1] for row in table.rows} == {role: f"{row.metric:.4f}" for role, row in rows.items()}
    assert {row[0]: row[-1] for row in table.rows} == {
        "reference": "-",
        "best": "passed",
        "shorter": "missed",
        "random": "outside",
    }
    assert "Means on the test split" in told(view)
    assert "Means on the validation split" in told(make_view("search"))
    assert rows["best"].policy in sentences(view)


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_plain_training_by_the_policys_own_settings_stands_beside_the_shorter_schedule(metric: str) -> None:
    view = with_own(make_view("subset_wins", metric=metric))
    rows = {row[0]: row for row in brief.brief_table(view, brief.brief_rows(view)).rows}
    assert list(rows) == ["reference", "best", "shorter", "own", "random"]
    assert rows["own"][-2:] == ("-", "within")
    assert rows["own"][1] == f"{view.summary.reference.test_metric - (0.004 if metric == 'accuracy' else -0.004):.4f}"
    assert rows["own"][2] == rows["best"][2]
    assert "All data: shorter by the search's settings, own by a subset policy's, not tested" in sentences(view)
    assert "own by a" not in told(make_view("subset_wins", metric=metric))
    table = tables.result_rows(view)
    assert [row.title for row in table if row.role in ("shorter", "own")] == [
        "a shorter schedule on all data, by the search's settings",
        "all data for the compute of a subset policy, by its own settings",
    ]
    assert "Of own and random nothing is claimed." in tables.legend(view)


def test_what_came_nearest_stands_where_none_passed() -> None:
    view = make_view("none_passed")
    near = brief.nearest(view)
    assert near is not None
    assert near.shortfall == min(verdict.shortfall for verdict in view.tested)
    table = brief.brief_table(view, brief.brief_rows(view))
    assert [row[0] for row in table.rows] == ["reference", "nearest", "shorter"]
    assert table.rows[1][1] == f"{view.compared(near.name).metric:.4f}"
    assert table.rows[1][-1] == "missed"
    assert brief.nearest(make_view("subset_wins")) is None
    assert brief.nearest(make_view("verification")) is None


def test_what_came_nearest_is_of_all_rounds() -> None:
    view = _extended(make_view("none_passed"))
    near = view.nearest
    assert near is not None
    assert near.name == "candidate-1"
    text = sentences(view)
    assert text.startswith("No policy passed: short recipe (round 2) missed by 0.5")
    missed = f"candidate-1 (round 1) missed by {near.shortfall:.4f}"
    assert f"before that, {missed}, which came nearest." in text
    assert "the mean of candidate-1 (round 1)" in text
    assert f"A tolerance of more than {0.01 + near.shortfall:.4f}" in text
    assert [row.metric for row in brief.brief_rows(view) if row.role == "nearest"] == [view.compared(near.name).metric]
    whole = render.render(tables.result_blocks(view))
    assert all(f"{name} (round 1): " in whole for name in ("candidate-1", "candidate-2", "short recipe"))
    assert re.search(r"^short recipe +2 +", whole, re.MULTILINE)


def test_the_round_of_each_line_is_named() -> None:
    view = _extended(with_own(make_view("subset_wins")))
    rows = tables.result_rows(view)
    assert {row.role: row.round for row in rows} == {
        **{"reference": None, "best": 1, "shorter": 2, "equal": 1, "own": 1, "random": 1},
    }
    told_of_it = "Of round 2: shorter; of round 1: best, equal, own and random."
    assert told_of_it in sentences(view)
    assert tables.legend(view).endswith(told_of_it)
    assert [" (round " in row[3] for row in tables.policy_table(view).rows] == [False, *[True] * 5]
    page = page_tables.page_tables(view)["result"]
    assert page[4][0].text == "all data for the compute of a subset policy, by its own settings (round 1)"
    drawn = gain_figure.gain_figure(view)
    assert drawn is not None
    assert "<b>random subset (round 1)</b>: 1.07 passes" in [one["text"] for one in drawn.layout["annotations"]]
    assert "round" not in told(make_view("subset_wins"))
    assert "round" not in tables.legend(make_view("subset_wins"))


def test_a_study_of_one_round_names_none() -> None:
    assert "round" not in render.render(tables.result_blocks(make_view("none_passed")))


def _extended(view: StudyView) -> StudyView:
    """The study after a second round, whose one candidate missed by more."""
    first, again = view.manifest.rounds[0], Candidate.named("recipe@2", policy=FAR, cost_flops=FAR.cost(FACTS))
    missed = dataclasses.replace(first.verdicts["candidate-1"], name="recipe@2", shortfall=0.5, lower_bound=-0.51)
    second = dataclasses.replace(first, candidates={"recipe@2": again}, verdicts={"recipe@2": missed}, contrasts={})
    manifest = dataclasses.replace(view.manifest, rounds=(first, second))
    own = {name: getattr(view, name) for name in StudyRecords.__dataclass_fields__}
    own |= {"manifest": manifest, "candidates": manifest.candidates, "verdicts": manifest.verdicts}
    return summarised(StudyRecords(**own))


def test_a_policy_that_is_the_shorter_schedule_has_one_line() -> None:
    view = make_view("none_passed")
    near = brief.nearest(view)
    assert near is not None
    assert view.summary.shorter is not None
    same = dataclasses.replace(view.summary.shorter, policy=view.candidates[near.name].policy)
    assert [row.role for row in brief.brief_rows(_with(view, shorter=same))] == ["reference", "shorter"]


def test_what_to_try_depends_on_how_it_missed() -> None:
    view = make_view("none_passed")
    near = brief.nearest(view)
    assert near is not None
    below = -0.01 - near.mean_difference
    assert brief.to_try(view) == [
        f"More compute: the mean of {near.name}, which came nearest, is {below:.4f} beyond the 0.01 allowed.",
        f"A tolerance of more than {0.01 + near.shortfall:.4f}, if that is good enough for you: in a study of a new "
        "name.",
        "A wider space: its budget ends at 60 % of the recipe's compute.",
    ]
    noisy = dataclasses.replace(near, mean_difference=-0.002, seeds_needed=17)
    first = brief.to_try(dataclasses.replace(view, verdicts={**view.verdicts, near.name: noisy}))[0]
    assert first == (
        f"More runs: the mean of {near.name} is within 0.01, and its bound misses by {near.shortfall:.4f}: 5 runs show "
        "too little. With study.seeds 17 one that equals the recipe passes in four cases of five."
    )
    unknown = dataclasses.replace(noisy, seeds_needed=None)
    first = brief.to_try(dataclasses.replace(view, verdicts={**view.verdicts, near.name: unknown}))[0]
    assert first.endswith("show too little. Set study.seeds, in a study of a new name.")


def test_no_tolerance_is_proposed_that_nobody_would_take() -> None:
    view = make_view("none_passed")
    near = brief.nearest(view)
    assert near is not None
    for shortfall, mean, is_told in ((0.019, -0.0135, True), (0.25, -0.0135, False), (0.25, -0.002, False)):
        one = dataclasses.replace(near, shortfall=shortfall, lower_bound=-0.01 - shortfall, mean_difference=mean)
        others = {n: dataclasses.replace(v, shortfall=1.0) for n, v in view.verdicts.items()}
        tips = brief.to_try(dataclasses.replace(view, verdicts={**others, near.name: one}))
        assert any(tip.startswith("A tolerance of more than") for tip in tips) == is_told
        assert any(tip.startswith("More runs: ") for tip in tips) != is_told
    far = dataclasses.replace(near, shortfall=0.25, mean_difference=-0.2)  # more runs would only show that
    tips = brief.to_try(dataclasses.replace(view, verdicts={**others, near.name: far}))
    assert not any(tip.startswith(("A tolerance", "More runs")) for tip in tips)
    beyond = dataclasses.replace(near, shortfall=0.25, lower_bound=-0.26, mean_difference=-0.0135)
    assert brief.to_try(dataclasses.replace(view, verdicts={**others, near.name: beyond}))[:2] == [
        f"More compute: the mean of {near.name}, which came nearest, is 0.0035 beyond the 0.01 allowed.",
        "More runs: 5 scatter so much that it may be worse by 0.2600. With study.seeds 24 one that equals the recipe "
        "passes in four cases of five.",
    ]


def test_where_no_trial_reached_the_target_the_recipe_may_have_nothing_to_spare() -> None:
    view = make_view("none_passed")
    low = tuple(dataclasses.replace(run, metric=0.5) for run in view.trials)
    assert any(
        tip.startswith("A larger tolerance or a longer recipe: none of 30 trials reached")
        for tip in brief.to_try(dataclasses.replace(view, trials=low))
    )
    assert not any(tip.startswith("A larger tolerance") for tip in brief.to_try(view))


@pytest.mark.parametrize("state", ["subset_wins", "interrupted", "verification", "only_failed"])
def test_nothing_to_try_where_a_policy_passed_or_the_study_goes_on(state: str) -> None:
    assert brief.to_try(make_view(state)) == []


def test_trials_that_failed_and_studies_of_the_same_split_are_not_hidden() -> None:
    view = make_view("subset_wins")
    assert f"{view.summary.trials.failed} of 30 trials failed or diverged." in sentences(view)
    assert "why some failed; or verification, ablation, costs, curves" in the_commands(view)
    second = dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, place=2))
    assert "- This is the second study on this test split on this machine: " in sentences(second)
    fine = _with(view, trials=dataclasses.replace(view.summary.trials, failed=0))
    assert "failed" not in told(fine)
    assert "or verification, ablation, costs, curves" in the_commands(fine)


def test_other_test_examples_are_told_of_where_it_does_not_hold_for_them() -> None:
    view = make_view("subset_wins")
    winner = view.manifest.winner
    assert winner is not None
    assert "With other test examples" in " ".join(tables.result_text(view).split())
    assert "With other test examples" not in sentences(view)
    wide = dataclasses.replace(view.manifest.sampled[winner], lower=-0.02)
    manifest = dataclasses.replace(view.manifest, sampled={winner: wide})
    assert "holds for these examples alone" in sentences(dataclasses.replace(view, manifest=manifest))


def test_what_is_to_know_of_the_data_is_told_three_times_and_counted() -> None:
    view = make_view("subset_wins")
    assert view.manifest.data is not None
    data = dataclasses.replace(view.manifest.data, warnings=tuple(f"Column {i} is odd." for i in range(5)))
    text = sentences(dataclasses.replace(view, manifest=dataclasses.replace(view.manifest, data=data)))
    assert text.count("Look at the data: Column ") == 3
    assert "Of the data there is more to look at: 2 sentences in show --all." in text


def test_an_early_stop_that_saves_as_much_is_told() -> None:
    stop = EarlyStop(
        patience=1,
        looks=5,
        seeds=5,
        stopped=5,
        metric=0.97,
        reference_metric=0.97,
        flops=1.0,
        saving=0.5,
        is_within=True,
    )
    line = "The recipe, stopped after 1 look without a better one, would have saved 50 %"
    assert line in sentences(_with(make_view("none_passed"), early_stops=(stop,)))
    assert line not in sentences(_with(make_view("subset_wins"), early_stops=(stop,)))  # it saves 96 %
    cut = dataclasses.replace(stop, patience=None, look=2, saving=0.6)
    line_of_cut = (
        "The recipe, truncated at look 2 of 5, its schedule unchanged, would have saved 60 %: chosen in hindsight"
    )
    assert line_of_cut in sentences(_with(make_view("none_passed"), early_stops=(stop, cut)))
    outside = dataclasses.replace(stop, is_within=False)
    assert line not in sentences(_with(make_view("none_passed"), early_stops=(outside,)))
    assert line not in sentences(_with(make_view("search"), early_stops=(stop,)))


def test_the_price_has_compute_time_and_when_it_is_repaid() -> None:
    view = make_view("subset_wins")
    tuning = view.summary.tuning
    assert brief.price_text(view).endswith(
        f"repaid after {tuning.break_even} trainings by the policy in compute, {tuning.break_even_seconds} in time."
    )
    slow = _with(view, tuning=dataclasses.replace(tuning, break_even_seconds=None))
    assert brief.price_text(slow).endswith("in compute, in time never.")
    assert brief.price_text(make_view("none_passed")).endswith("; without a verified saving it is not repaid.")
    assert brief.price_text(make_view("empty")) == ""


def test_a_policy_that_saves_no_time_says_so() -> None:
    view = make_view("subset_wins")
    assert view.summary.best is not None
    slow = _with(view, best=dataclasses.replace(view.summary.best, seconds=1000.0))
    assert "In time the policy saves nothing, in compute " in sentences(slow)


def test_earlier_studies_that_the_search_knew_are_part_of_the_price() -> None:
    known = KnownBefore(run_id="monday", folder="runs/monday", trials=7, trainings=3.0)
    assert known.sentence in sentences(_with(make_view("subset_wins"), known_before=(known,)))


@pytest.mark.parametrize("state", STATES)
def test_every_command_is_one_that_is_understood(state: str) -> None:
    view, parser = make_view(state), make_parser()
    for storage in ("runs", "/some where/else", "s3://bucket/x"):
        for command in the_commands(view, Where(storage=storage)).values():
            program, *arguments = shlex.split(command)
            options = parser.parse_args(arguments)
            assert program == "subsettune"
            assert getattr(options, "run", None) in (None, view.run_id)
            if options.command_name in ("show", "report", "export"):
                assert options.storage == storage


def test_what_comes_next() -> None:
    won = the_commands(make_view("subset_wins"), Where(report="/x/report.html"))
    run = make_view("subset_wins").run_id
    assert won["train by it"] == f"subsettune follow runs/{run}/bundle --save models/{run}"
    assert won["take it along"] == f"subsettune export {run} policies/{run}"
    assert "write the page" not in won
    assert the_commands(make_view("subset_wins"))["write the page"] == f"subsettune report {run}"
    assert the_commands(make_view("none_passed"))["search on"].endswith(" --trials 60")
    asked = dataclasses.replace(make_view("none_passed").manifest, command="subsettune tune s.yaml --trials 9 --inline")
    more = the_commands(dataclasses.replace(make_view("none_passed"), manifest=asked))["search on"]
    assert more == "subsettune tune s.yaml --inline --trials 60"
    assert the_commands(make_view("interrupted"))["go on"] == make_view("interrupted").manifest.command
    assert list(the_commands(make_view("empty"))) == ["go on", "more tables"]


def test_a_search_that_ended_by_itself_is_not_searched_on() -> None:
    view = make_view("none_passed")
    fewer = dataclasses.replace(view.summary.trials, finished=3, stopped=0)
    assert "search on" not in the_commands(_with(view, trials=fewer))


def test_data_are_found_where_the_study_found_them() -> None:
    view = make_view("subset_wins")
    for option in ("--data-root '/my data'", "--data-root='/my data'"):
        manifest = dataclasses.replace(view.manifest, command=f"subsettune tune s.yaml {option}")
        follow = the_commands(dataclasses.replace(view, manifest=manifest))["train by it"]
        assert shlex.split(follow)[-2:] == ["--data-root", "/my data"]


def test_training_code_of_ones_own_is_run_by_the_bundle() -> None:
    view = make_view("subset_wins")
    recipe = config.to_plain(make_study().task.recipe)
    plain = {"train": "mine:train", "examples": 100, "recipe": recipe, "metric": "accuracy", "tolerance": 0.01}
    task = config.build(Task, plain)
    own = dataclasses.replace(view, study=dataclasses.replace(view.study, task=task))
    bundle = f"runs/{view.run_id}/bundle"
    assert the_commands(own)["train by it"] == f"subsettune train runs/{view.run_id}/study.yaml --policy {bundle}"


def test_paths_below_the_working_folder_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    view = _with(make_view("subset_wins"), bundle=f"{tmp_path}/runs/a/bundle")
    assert "subsettune follow runs/a/bundle --save" in told(view)
    assert "subsettune follow s3://x/bundle --save" in told(_with(view, bundle="s3://x/bundle"))


def test_a_command_is_never_broken() -> None:
    long = "subsettune show " + "x" * 100
    block = Snippet(rows=((long, "look"), ("subsettune list", "all of them")))
    assert render.render([block], 60) == f"# look\n{long}\nsubsettune list  # all of them\n"


def test_all_of_it_fits_on_a_page() -> None:
    for state in ("subset_wins", "none_passed"):
        lines = told(make_view(state), Where(report="/x/report.html")).splitlines()
        assert len(lines) <= 40
        assert not [line for line in lines if re.search(r"\s$", line)]
