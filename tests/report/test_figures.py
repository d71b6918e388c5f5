from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

import pytest
from expected_figures import EXPECTED
from fake_study import FACTS, KCENTER, STATES, make_view, with_own
from places import ROOT

from subsettune import config
from subsettune.policy import Phase, Policy, Soup
from subsettune.report import compute_figure, curves, drawing, evidence, figures, gain_figure, intervals, search_figure
from subsettune.report.tables import result_rows, split_of
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView


def coloured(value: Any) -> Any:
    """The page's script in Python: names of CSS variables become colours."""
    if isinstance(value, str):
        return "#123456" if value.startswith("--c-") else value
    if isinstance(value, list | tuple):
        return [coloured(inner) for inner in value]
    return {key: coloured(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def on_metric_axis(figure: drawing.Figure) -> list[dict[str, Any]]:
    return [trace for trace in figure.data if trace.get("yaxis") != "y2" and trace["mode"].startswith("markers")]


def with_lists_of_symbols(figure: drawing.Figure) -> list[dict[str, Any]]:
    return [trace for trace in on_metric_axis(figure) if isinstance(trace["marker"].get("symbol"), list)]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_every_state_has_its_figures_and_plotly_accepts_them(state: str, metric: str) -> None:
    import plotly.graph_objects as go

    made = figures.figures(make_view(state, metric=metric))
    assert tuple(figure.name for figure in made) == EXPECTED[state]
    for figure in made:
        go.Figure(coloured(figure.data), coloured(figure.layout))  # raises on any property that plotly does not know
        json.dumps(figure.data, allow_nan=False)
        assert figure.reading.endswith(".")
        assert figure.legend


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_only_finished_trials_are_drawn_against_the_metric(metric: str) -> None:
    view = make_view("none_passed", metric=metric)
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    arms = with_lists_of_symbols(figure)
    finished = [t for t in view.trials if t.cause == "finished"]
    assert sum(len(trace["x"]) for trace in arms) == len(finished)
    strip = [trace for trace in figure.data if trace.get("yaxis") == "y2"]
    drawn = {trace["y"][0]: len(trace["x"]) for trace in strip}
    causes = [t.cause for t in view.trials]
    assert drawn == {c: causes.count(c) for c in ("stopped", "diverged", "failed") if c in causes}


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_filled_dots_reach_the_target(metric: str) -> None:
    view = make_view("subset_wins", metric=metric)
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    assert view.target is not None
    sign = 1 if metric == "accuracy" else -1
    arms = with_lists_of_symbols(figure)
    for trace in arms:
        for y, symbol in zip(trace["y"], trace["marker"]["symbol"], strict=True):
            assert symbol.endswith("-open") == (sign * y < sign * view.target)


def trial(number: int, passes: float, metric: float, *, seed: int = 0, **more: Any) -> RunRecord:
    policy = more.pop("policy", Policy(phases=(Phase(passes=passes),)))
    plain = {"name": f"trial-{number:04d}", "role": "trial", "number": number, "seed": seed, "cause": "finished"}
    return RunRecord(**{**plain, **more}, policy=policy, metric=metric, cost_flops=policy.cost(FACTS))


def with_trials(*trials: RunRecord, target: float = 0.9) -> StudyView:
    view = make_view("no_trials")
    runs = tuple(dataclasses.replace(run, metric=target + 0.01) for run in view.reference)
    return dataclasses.replace(view, trials=trials, target=target, reference=runs)


def test_the_frontier_is_the_best_mean_at_each_cost_and_splits_at_the_target() -> None:
    view = with_trials(
        trial(0, 1, 0.86),
        trial(1, 2, 0.85),  # dearer and worse: not on it
        trial(2, 4, 0.91),
        trial(3, 8, 0.95, seed=0),  # alone it would be on it
        trial(4, 8, 0.85, seed=1),  # but the mean of its seeds, 0.90, is not
        trial(5, 16, 0.93),
    )
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    dotted, solid = (t for t in figure.data if t["mode"] == "lines")
    assert (dotted["line"]["dash"], solid["line"]["dash"]) == ("dot", "solid")
    assert dotted["x"] == pytest.approx([1, 4])
    assert dotted["y"] == pytest.approx([0.86, 0.91])
    assert solid["x"] == pytest.approx([4, 16, 30])
    assert solid["y"] == pytest.approx([0.91, 0.93, 0.93])


def test_trials_far_below_are_clipped_and_marked_as_such() -> None:
    good = [trial(i, 1 + i, 0.90 + i / 1000) for i in range(6)]
    view = with_trials(*good, trial(6, 1, 0.10))
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    arm = with_lists_of_symbols(figure)[0]
    assert arm["marker"]["symbol"] == ["circle"] * 6 + ["circle-open"]
    assert arm["text"] == [""] * 6 + ["↓"]
    low, high = figure.layout["yaxis"]["range"]
    assert low < arm["y"][-1] < 0.9 < high
    assert "accuracy 0.1000" in arm["hovertext"][-1]


def test_at_most_half_of_the_trials_are_clipped() -> None:
    view = with_trials(*(trial(i, 1 + i, 0.1 + i / 100) for i in range(10)), trial(10, 20, 0.92))
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    arm = with_lists_of_symbols(figure)[0]
    assert arm["text"].count("↓") <= 5


def test_a_ring_needs_two_seeds_that_reach_the_target() -> None:
    view = with_trials(
        trial(0, 2, 0.91, seed=0),
        trial(1, 2, 0.92, seed=1),
        trial(2, 4, 0.91, seed=0),
        trial(3, 4, 0.89, seed=1),
    )
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    ring = next(t for t in on_metric_axis(figure) if t["marker"].get("size") == 18)
    assert ring["x"] == pytest.approx([2])
    assert ring["y"] == pytest.approx([0.915])


def test_the_bound_of_an_arm_falls_when_a_cheaper_policy_is_confirmed() -> None:
    view = with_trials(
        trial(0, 6, 0.91, seed=0),
        trial(1, 6, 0.91, seed=1),
        trial(2, 3, 0.91, seed=2),
        trial(3, 3, 0.91, seed=3),
        trial(4, 1.5, 0.91, seed=4),  # one lucky seed confirms nothing
    )
    figure = search_figure.search_figure(view)
    assert figure is not None
    full = next(t for t in figure.data if t["mode"] == "lines" and t["line"]["color"] == "--c-full")
    assert full["x"] == [1, 2, 3, 4]
    assert full["y"] == pytest.approx([6 / 30, 6 / 30, 3 / 30, 3 / 30])


@pytest.mark.parametrize("state", ["subset_wins", "equal_wins", "before"])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_differences_of_runs_average_to_the_verdict_and_those_of_pairs_to_the_contrast(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    for name, verdict in view.verdicts.items():
        differences = list(intervals.run_differences(view, name).values())
        assert len(differences) == verdict.num_seeds
        if differences:
            assert sum(differences) / len(differences) == pytest.approx(verdict.mean_difference)
    for contrast in view.manifest.contrasts.values():
        differences = list(intervals.pair_differences(view, contrast).values())
        assert len(differences) == contrast.num_seeds
        assert sum(differences) / len(differences) == pytest.approx(contrast.mean_difference)


def test_the_interval_reaches_from_the_mean_to_the_bound() -> None:
    view = make_view("subset_wins")
    figure = intervals.verification_figure(view)
    assert figure is not None
    circles, *lines = figure.data
    tested = ("candidate-1", "equal")
    random = evidence.evidence_rows(view)[-1].difference
    contrasts = view.manifest.contrasts
    assert [tuple(trace["x"]) for trace in lines] == [
        *((view.verdicts[name].mean_difference, view.verdicts[name].lower_bound) for name in tested),
        (random,),
        (contrasts["equal"].mean_difference, contrasts["equal"].lower_bound),
        (contrasts["random"].mean_difference,),  # of which nothing is claimed
    ]
    assert len(circles["x"]) == 5 * 5
    passes = f"{view.candidates['candidate-1'].policy.passes:.2f} passes"
    assert figure.layout["yaxis"]["ticktext"] == [
        *(f"{name}<br>{passes}" for name in ("candidate-1", "equal", "random")),
        *("candidate-1<br>minus equal", "candidate-1<br>minus random"),
    ]
    assert circles["text"] == [f"seed {seed}" for _ in range(5) for seed in range(5)]
    drawn = [(trace["line"]["color"], trace["marker"]["symbol"][0]) for trace in lines]
    good, bad, undecided = ("--c-good", "diamond"), ("--c-bad", "x"), ("--c-muted", "diamond-open")
    assert drawn == [good, bad, undecided, good, undecided]
    assert [words for _, _, words in figure.legend] == [
        *("one run", "passed or better: mean and lower bound", "missed", "not decided"),
    ]
    low, high = figure.layout["xaxis"]["range"]
    assert low < min(x for trace in figure.data for x in trace["x"])
    assert high > max(x for trace in figure.data for x in trace["x"])


def test_the_figure_of_verification_says_how_to_read_it() -> None:
    plain, below = (intervals.verification_figure(make_view(state)) for state in ("before", "subset_wins"))
    assert plain is not None
    assert below is not None
    assert plain.reading == (
        "Accuracy minus the reference's mean. Each circle is one run, each diamond the mean of the runs, and the line "
        "reaches down to the one-sided lower bound, at the level of the candidate; what has no line has no level. A "
        "policy passes when its whole line lies to the right of the margin."
    )
    assert below.reading == (
        f"{plain.reading} The rows with two names hold the policy against its controls: each circle is a pair of runs "
        "with one seed, and a subset wins when the lines of its rows against plain training (equal, own) lie to the "
        "right of 0."
    )


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_each_component_with_a_result_has_its_seeds_mean_and_interval(metric: str) -> None:
    view = make_view("full_wins", metric=metric)
    figure = intervals.components_figure(view)
    assert figure is not None
    circles, *lines = figure.data
    rows = [row for row in view.ablation.values() if row.difference is not None]
    assert circles["x"] == [each for row in rows for each in row.differences]
    assert [trace["x"] for trace in lines] == [[row.lower, row.difference, row.upper] for row in rows]
    assert [trace["line"]["color"] for trace in lines] == [
        *("--c-muted", "--c-bad", "--c-muted", "--c-muted", "--c-bad")
    ]
    assert figure.layout["yaxis"]["ticktext"] == ["stratified", "kcenter", "sift", "shrink_perturb", "soup"]
    low, high = figure.layout["xaxis"]["range"]
    assert all(low < x < high for x in [0.0, *circles["x"], *(x for trace in lines for x in trace["x"])])
    assert ("sign is turned" in figure.reading) == (metric == "mse")
    assert [words for _, _, words in figure.legend] == ["one seed", "did not", "no difference shown"]


def test_equal_components_still_have_an_axis() -> None:
    view = make_view("subset_wins")
    flat = {"differences": (0.0, 0.0, 0.0), "difference": 0.0, "lower": 0.0, "upper": 0.0}
    row = dataclasses.replace(view.ablation[KCENTER], verdict="no_difference", **flat)
    figure = intervals.components_figure(dataclasses.replace(view, ablation={KCENTER: row}))
    assert figure is not None
    low, high = figure.layout["xaxis"]["range"]
    assert low < 0 < high


def test_a_verdict_without_numbers_draws_nothing() -> None:
    view = make_view("subset_wins")
    nothing = {"mean_difference": math.nan, "lower_bound": math.nan, "shortfall": math.nan, "passed": False}
    broken = {name: dataclasses.replace(verdict, **nothing) for name, verdict in view.verdicts.items()}
    manifest = dataclasses.replace(view.manifest, rounds=())
    view = dataclasses.replace(view, verdicts=broken, manifest=manifest)
    view = dataclasses.replace(view, candidates={name: view.candidates[name] for name in broken})
    assert "verification" not in [figure.name for figure in figures.figures(view)]


def test_the_switch_is_where_the_subset_phase_ends() -> None:
    view = make_view("subset_wins")
    figure = curves.curves_figure(view)
    assert figure is not None
    policy = view.candidates["candidate-1"].policy
    upright = [shape for shape in figure.layout["shapes"] if shape["xref"] == "x"]
    assert [shape["x0"] for shape in upright] == pytest.approx([policy.phases[0].passes])
    ends = [trace["x"][-1] for trace in figure.data if trace["line"]["color"] == "--c-subset"]
    assert ends == pytest.approx([policy.passes] * 5)


def test_runs_evaluated_at_their_end_alone_are_dots_beside_the_curves_of_trials() -> None:
    view = make_view("subset_wins")
    ends = tuple(dataclasses.replace(run, curve=run.curve[-1:]) for run in view.verification)
    policy = view.candidates["candidate-1"].policy
    found = dataclasses.replace(next(run for run in view.trials if len(run.curve) > 1), policy=policy)
    figure = curves.curves_figure(dataclasses.replace(view, verification=ends, trials=(found, *view.trials)))
    assert figure is not None
    own = [trace for trace in figure.data if trace["line"]["color"] == "--c-subset"]
    assert [trace["mode"] for trace in own] == ["lines"] + ["markers"] * 5
    assert [trace["x"] for trace in own[1:]] == [pytest.approx([policy.passes])] * 5
    assert [mark for mark, _, _ in figure.legend] == ["line", "dashed", "square"]


def test_curves_skip_what_is_not_a_number() -> None:
    view = make_view("search")
    holes = tuple(
        dataclasses.replace(p, metric=None if i % 2 else p.metric) for i, p in enumerate(view.reference[0].curve)
    )
    view = dataclasses.replace(view, reference=(dataclasses.replace(view.reference[0], curve=holes),))
    figure = curves.curves_figure(view)
    assert figure is not None
    assert len(figure.data[0]["x"]) == 10


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.8, 36, [1, 2, 5, 10, 20]), (0.02, 0.06, [0.02, 0.05]), (0.001, 10, [0.001, 0.01, 0.1, 1, 10]), (2.1, 4.9, [])],
)
def test_log_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert drawing.log_ticks(low, high) == ticks


def test_words_of_a_user_are_escaped_in_labels() -> None:
    evil = "<b>&<a href='x'>"
    view = with_trials(trial(0, 2, 0.91, message=evil), trial(1, 3, 0.91, name=evil))
    text = json.dumps([figure.data for figure in figures.figures(view)])
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_every_coordinate_that_was_searched_has_a_panel_with_the_value_of_each_trial() -> None:
    view = make_view("subset_wins")
    figure = search_figure.search_figure(view)
    assert figure is not None
    titles = [note["text"].removeprefix("<b>").removesuffix("</b>") for note in figure.layout["annotations"]]
    names = [title.partition(",")[0] for title in titles]
    searched = [name for name in view.study.space if name not in ("arm", "budget")]
    assert sorted(names) == sorted(["budget", *searched])
    for i, name in enumerate(names[1:], start=2):
        (trace,) = (trace for trace in figure.data if trace["yaxis"] == f"y{i}")
        runs = [run for run in view.trials if name in run.coordinates]
        assert trace["x"] == [run.number for run in runs]
        is_text = "categoryarray" in figure.layout[f"yaxis{i}"]
        assert trace["y"] == [str(run.coordinates[name]) if is_text else run.coordinates[name] for run in runs]
        low, high = figure.layout[f"yaxis{i}"]["range"]
        is_log = figure.layout[f"yaxis{i}"].get("type") == "log"
        assert is_text or all(low < (math.log10(y) if is_log else y) < high for y in trace["y"])
    orders = figure.layout[f"yaxis{names.index('order') + 1}"]
    assert orders["categoryarray"] == ["sift", "uniform"]  # the first lies lowest
    selectors = figure.layout[f"yaxis{names.index('selector') + 1}"]
    assert selectors["ticktext"] == ["Distances", "kcenter", "stratified", "random"]


def test_options_stand_behind_their_owner_and_whole_numbers_are_whole() -> None:
    view = make_view("subset_wins")
    space = {"arm": {"choice": ["full", "subset"]}, "budget": {"log": [0.1, 0.9]}, "lr": {"log": [1, 2]}}
    space |= {"subset_share": 0.1, "switch": 0.5, "steps": {"int": [1, 3]}, "order": {"choice": ["uniform", "rs2"]}}
    space |= {"rs2.share": {"uniform": [0.1, 0.9]}, "selector": {"choice": ["random", "kcenter"]}}
    space = dict(sorted(space.items(), key=lambda item: ("." in item[0], item[0])))
    policy = Policy(phases=(Phase(share=0.1, passes=1), Phase(passes=1)))
    point = {"lr": 1.5, "steps": 2, "order": "rs2", "rs2.share": 0.4, "selector": "random"}
    run = dataclasses.replace(trial(0, 2, 0.91, policy=policy), coordinates=config.FrozenDict(point))
    study = dataclasses.replace(view.study, space=config.FrozenDict(space))
    figure = search_figure.search_figure(dataclasses.replace(view, study=study, trials=(run,)))
    assert figure is not None
    titles = [note["text"].removeprefix("<b>").removesuffix("</b>") for note in figure.layout["annotations"]]
    assert titles[1:] == ["lr", "order", "rs2.share", "selector", "steps"]
    assert figure.layout["yaxis6"]["ticktext"] == ["1", "2", "3"]


def test_one_trial_alone_has_a_tick_at_what_it_cost() -> None:
    for passes in (0.9, 1.05, 1.4, 2.9):  # 3, 3.5, 4.7 and 9.7 % of the reference
        figure = search_figure.search_figure(with_trials(trial(0, passes, 0.91)))
        assert figure is not None
        (axis,) = (figure.layout[name] for name in figure.layout if name.startswith("yaxis"))
        low, high = axis["range"]
        assert axis["ticktext"]
        assert all(low <= math.log10(tick) <= high for tick in axis["tickvals"])


def test_a_coordinate_that_is_fixed_has_no_panel() -> None:
    view = make_view("subset_wins")
    space = {**view.study.space, "switch": 0.5, "lr": {"choice": [0.1]}}
    fixed = dataclasses.replace(view, study=dataclasses.replace(view.study, space=config.FrozenDict(space)))
    before, after = (search_figure.search_figure(one) for one in (view, fixed))
    assert before is not None
    assert after is not None
    assert len(before.layout["annotations"]) - len(after.layout["annotations"]) == 2


def test_arms_and_outcomes_differ_by_shape() -> None:
    view = make_view("none_passed")
    cases = {(run.policy.arm, run.cause == "finished", view.reaches(run.metric)) for run in view.trials}
    shapes = {
        (run.policy.arm, run.cause == "finished", view.reaches(run.metric)): drawing.symbol(view, run)
        for run in view.trials
    }
    assert len(cases) >= 5
    assert len(set(shapes.values())) == len(cases)
    assert len({one.symbol for one in (drawing.GOOD, drawing.BAD, drawing.OPEN)}) == 3


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_what_was_gained_is_what_the_result_says(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    figure, rows = gain_figure.gain_figure(view), result_rows(view)
    assert (figure is None) == (len(rows) < 2)
    if figure is None:
        return
    bars, circles, *means = figure.data
    assert bars["x"] == [row.passes for row in rows]
    assert circles["x"] == [metric for row in rows for metric in row.by_seed.values()]
    assert circles["text"] == [f"seed {seed}" for row in rows for seed in row.by_seed]
    assert [trace["x"][0] for trace in means] == [row.metric for row in rows]
    assert figure.layout["xaxis2"]["title"]["text"].startswith(split_of(view))
    least = figure.layout["shapes"][1]["x0"]
    sign = 1 if metric == "accuracy" else -1
    for row, trace in zip(rows, means, strict=True):
        if row.verdict == "passed" or row.verdict.startswith("missed"):
            is_right = all(sign * x > sign * least for x in trace["x"])
            assert is_right == (row.verdict == "passed"), row.role
    low, high = figure.layout["xaxis2"]["range"]
    assert (low < high) == (metric == "accuracy")  # right is better
    assert all(min(low, high) < x < max(low, high) for trace in figure.data[1:] for x in trace["x"])


def test_what_was_gained_shows_plain_training_by_the_policys_own_settings() -> None:
    figure = gain_figure.gain_figure(with_own(make_view("subset_wins")))
    assert figure is not None
    names = [one["text"] for one in figure.layout["annotations"]]
    assert "<b>all data, a subset policy&#x27;s settings</b>: 1.07 passes" in names
    assert "<b>shorter schedule, the search&#x27;s settings</b>: 1.07 passes" in names


def test_what_was_gained_says_what_the_headline_says() -> None:
    view = make_view("subset_wins")
    figure = gain_figure.gain_figure(view)
    assert figure is not None
    words = [note["text"] for note in figure.layout["annotations"]]
    best = view.summary.best
    assert best is not None
    assert "<b>best policy</b>: 1.07 passes, 96 % less" in words
    assert "<b>best policy</b><br>0.9667 over 5 runs, passed" in words
    assert "test accuracy 0.9667 against 0.9642 over 5 and 5 runs" in view.summary.headline
    assert "<b>recipe</b><br>0.9642 over 5 runs" in words
    assert figure.title == "What was gained"
    titles = {state: gain_figure.gain_figure(make_view(state)) for state in ("search", "none_passed")}
    assert [one.title for one in titles.values() if one] == ["How it stands, before verification", "What was tested"]


@pytest.mark.parametrize("name", ["gain", "verification", "compute", "search", "curves", "components"])
def test_every_figure_names_its_split(name: str) -> None:
    (figure,) = (one for one in figures.figures(make_view("subset_wins")) if one.name == name)
    titles = json.dumps([figure.title, *(figure.layout[axis]["title"] for axis in figure.layout if "axis" in axis)])
    split = "test" if name in ("gain", "verification") else "validation"
    assert split in titles


def test_the_figure_of_trials_has_no_metric_of_the_test_split() -> None:
    view = make_view("subset_wins")
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    validation = {run.metric for run in (*view.trials, *view.reference) if run.metric is not None}
    means = [sum(values) / len(values) for values in (
        [run.metric for run in view.verification if run.candidate == name and run.metric is not None]
        for name in (*view.candidates, "reference")) if values]  # fmt: skip
    by_policy: dict[Policy, list[float]] = {}
    for run in view.trials:
        if run.metric is not None and run.cause == "finished":
            by_policy.setdefault(run.policy, []).append(run.metric)
    means += [sum(values) / len(values) for values in by_policy.values() if len(values) > 1]  # a ring, if confirmed
    for trace in on_metric_axis(figure):
        clipped = trace.get("text") or []
        for i, y in enumerate(trace["y"]):
            is_known = y in validation or any(y == pytest.approx(mean) for mean in means)
            assert is_known or clipped[i : i + 1] == ["↓"] or trace["marker"]["symbol"] == "triangle-up"
    assert "--c-good" not in json.dumps(figure.data)


def phases_view(*phases: Phase) -> StudyView:
    view = make_view("subset_wins")
    candidates = {
        name: dataclasses.replace(one, policy=Policy(phases=phases)) if name == "candidate-1" else one
        for name, one in view.candidates.items()
    }
    assert view.summary.best is not None
    best = dataclasses.replace(view.summary.best, policy=Policy(phases=phases))
    return dataclasses.replace(view, candidates=candidates, summary=dataclasses.replace(view.summary, best=best))


@pytest.mark.parametrize(
    ("phases", "lines"),
    [
        ((Phase(passes=2),), []),
        ((Phase(passes=1), Phase(passes=2, transition="reset_optimizer")), []),
        ((Phase(share=0.1, passes=1), Phase(passes=2)), ["switch at 1.00 passes"]),
        ((Phase(share=0.1, passes=1), Phase(share=0.2, passes=1), Phase(passes=2)), ["switch at 2.00 passes"]),
        ((Phase(share=0.1, passes=1), Phase(share=0.2, passes=1)), []),
        ((Phase(passes=1, soup=Soup(workers=2)), Phase(passes=2)), ["soup at 1.00 passes"]),
    ],
)
def test_a_line_of_a_switch_is_where_a_policy_has_one(phases: tuple[Phase, ...], lines: list[str]) -> None:
    figure = curves.curves_figure(phases_view(*phases))
    assert figure is not None
    upright = [note["text"] for note in figure.layout["annotations"] if note["xref"] == "x"]
    assert upright == lines
    assert len([shape for shape in figure.layout["shapes"] if shape["xref"] == "x"]) == len(lines)
    assert ("vertical line" in figure.reading) == bool(lines)


def test_curves_without_a_winner_are_of_the_candidate_that_came_nearest() -> None:
    """One that missed by nothing comes before all; one that has no verdict yet missed by nothing that counts."""
    view = make_view("none_passed")
    last = view.tested[-1].name
    for changes, near in (({"shortfall": 0.0}, last), ({"passed": None, "shortfall": 0.0}, "candidate-1")):
        verdicts = {**view.verdicts, last: dataclasses.replace(view.verdicts[last], **changes)}
        figure = curves.curves_figure(dataclasses.replace(view, verdicts=verdicts))
        assert figure is not None
        assert f"candidate that came nearest ({view.named(near)})" in figure.title


def test_marks_of_the_search_s_legend_have_the_shapes_of_its_arms() -> None:
    view = make_view("search")
    subset = next(run for run in view.trials if run.policy.arm == "subset" and run.cause == "finished")
    runs = tuple(dataclasses.replace(subset, **c) for c in ({"metric": 0.1}, {"cause": "diverged", "metric": None}))
    figure = search_figure.search_figure(dataclasses.replace(view, trials=runs))
    assert figure is not None
    assert [row for row in figure.legend if "cheapest" not in row[2]] == [
        ("square", "--c-subset", drawing.ARM_WORDS["subset"]),
        ("hollow-square", "--c-subset", "below the target"),
        ("crossed-square", "--c-subset", "stopped, diverged or failed"),
    ]
    assert {drawing.symbol(view, run) for run in runs} == {"square-open", "square-x-open"}


def test_every_mark_of_a_legend_is_drawn() -> None:
    page = (ROOT / "subsettune/report/assets/page.html.j2").read_text(encoding="utf-8")
    assert [mark for mark in get_args(drawing.Mark) if f'    "{mark}": ' not in page] == []
