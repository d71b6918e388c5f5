from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from expected_figures import EXPECTED
from fake_study import FACTS, KCENTER, STATES, make_view

from subsettune.policy import Phase, Policy
from subsettune.report import compute_figure, curves, drawing, evidence, figures, intervals
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
    return [trace for trace in figure.data if trace.get("yaxis") != "y2" and trace["mode"] == "markers"]


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
    arms = [t for t in on_metric_axis(figure) if isinstance(t["marker"].get("symbol"), list)]
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
    arms = [t for t in on_metric_axis(figure) if isinstance(t["marker"].get("symbol"), list)]
    for trace in arms:
        for y, symbol in zip(trace["y"], trace["marker"]["symbol"], strict=True):
            assert (symbol == "circle") == (sign * y >= sign * view.target)


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
    arm = next(t for t in on_metric_axis(figure) if isinstance(t["marker"].get("symbol"), list))
    assert arm["marker"]["symbol"] == ["circle"] * 6 + ["triangle-down-open"]
    low, high = figure.layout["yaxis"]["range"]
    assert low < arm["y"][-1] < 0.9 < high
    assert "accuracy 0.1000" in arm["text"][-1]


def test_at_most_half_of_the_trials_are_clipped() -> None:
    view = with_trials(*(trial(i, 1 + i, 0.1 + i / 100) for i in range(10)), trial(10, 20, 0.92))
    figure = compute_figure.compute_figure(view)
    assert figure is not None
    arm = next(t for t in on_metric_axis(figure) if isinstance(t["marker"].get("symbol"), list))
    assert arm["marker"]["symbol"].count("triangle-down-open") <= 5


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
    figure = curves.search_figure(view)
    assert figure is not None
    full = next(t for t in figure.data if t["mode"] == "lines" and t["line"]["color"] == "--c-full")
    assert full["x"] == [1, 2, 3, 4]
    assert full["y"] == pytest.approx([6 / 30, 6 / 30, 3 / 30, 3 / 30])


@pytest.mark.parametrize("state", ["subset_wins", "equal_wins", "before"])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_differences_of_runs_average_to_the_verdict_and_those_of_pairs_to_the_contrast(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    for name, verdict in view.verdicts.items():
        differences = intervals.run_differences(view, name)
        assert len(differences) == verdict.num_seeds
        if differences:
            assert sum(differences) / len(differences) == pytest.approx(verdict.mean_difference)
    for contrast in view.manifest.contrasts.values():
        differences = intervals.pair_differences(view, contrast)
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
    assert figure.layout["yaxis"]["ticktext"] == [
        *("candidate-1", "equal", "random", "candidate-1 - equal", "candidate-1 - random"),
    ]
    colours = [trace["line"]["color"] for trace in lines]
    assert colours == ["--c-good", "--c-bad", "--c-muted", "--c-good", "--c-muted"]
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
        "with one seed, and a subset wins when the line of its row against plain training lies to the right of 0."
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
    assert [figure.name for figure in figures.figures(view)] == ["compute", "components", "curves", "search"]


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
    assert [mark for mark, _, _ in figure.legend] == ["line", "line", "dot"]


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


def test_orders_have_a_panel_of_their_own_where_there_are_several() -> None:
    view = make_view("subset_wins")
    figure = curves.search_figure(view)
    assert figure is not None
    assert [note["text"] for note in figure.layout["annotations"]][-2:] == ["<b>selector</b>", "<b>order</b>"]
    assert figure.data[-1]["y"] == [run.policy.phases[0].order for run in view.trials]
    assert figure.layout["yaxis5"]["categoryarray"] == ["uniform", "sift"]  # the first lies lowest
    plain = tuple(run for run in view.trials if run.policy.phases[0].order == "uniform")
    figure = curves.search_figure(dataclasses.replace(view, trials=plain))
    assert figure is not None
    assert "yaxis5" not in figure.layout
