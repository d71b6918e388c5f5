"""The report's figures of intervals: what verification measured, and what each component is worth."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from subsettune.report.drawing import (
    Figure,
    Json,
    ProgressMarker,
    axis_of,
    layout_of,
    verdict_marker,
    verified_names,
)
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.headline import verdict_words
from subsettune.study.results.view import StudyView
from subsettune.study.spec.kinds import KINDS
from subsettune.text import is_number, metric_name, metric_words, sentence

REFERENCE = "reference"  # the name under which verification repeats the recipe
_PAID_COLOUR = {"paid": "--c-good", "not_paid": "--c-bad", "no_difference": "--c-muted"}
_SEEDS_BELOW = 0.26  # of a row: the circles of the seeds lie below the interval, not under it


def verification_figure(view: StudyView) -> Figure | None:
    """Difference to the reference on the test split: each seed, the mean, the lower bound, and the margin."""
    measured = {name for name, verdict in view.verdicts.items() if is_number(verdict.mean_difference)}
    names = [name for name in verified_names(view) if name in measured]
    if not names:
        return None
    rows = {name: len(names) - 1 - row for row, name in enumerate(names)}
    seeds = [(row, d) for name, row in rows.items() for d in seed_differences(view, name).values()]
    circles = _circles(seeds)
    intervals = [_interval_trace(view, name, row) for name, row in rows.items()]
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    return Figure(
        name="verification",
        title="Verification on the test split",
        reading=(
            f"{sentence(metric_name(view.study.task.metric))} minus the reference's.{turned} Each circle is one seed, "
            "each diamond the mean of the seeds, and the line reaches down to the one-sided lower bound. A policy "
            "passes when its whole line lies to the right of the margin."
        ),
        legend=(("hollow", "--c-muted", "one seed"), *_interval_legend(intervals)),
        data=(circles, *intervals),
        layout=_verification_layout(view, rows, [x for trace in (circles, *intervals) for x in trace["x"]]),
    )


def _circles(seeds: Sequence[tuple[int, float]]) -> Json:
    """One circle a seed, below the interval of its row."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [difference for _, difference in seeds],
        "y": [row - _SEEDS_BELOW for row, _ in seeds],
        "hovertemplate": "one seed: %{x:+.5g}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 8, "color": "--c-muted", "line": {"width": 1.5}},
    }


def _interval_legend(intervals: Sequence[Json]) -> list[tuple[ProgressMarker, str, str]]:
    words = {"--c-good": "passed: mean and lower bound", "--c-bad": "missed", "--c-muted": "undecided"}
    colours = {trace["line"]["color"] for trace in intervals}
    return [("diamond", colour, word) for colour, word in words.items() if colour in colours]


def _verification_layout(view: StudyView, rows: Mapping[str, int], drawn: Sequence[float]) -> Json:
    margin = -view.study.task.tolerance
    low, high = min(*drawn, margin, 0.0), max(*drawn, margin, 0.0)
    pad = 0.06 * (high - low)
    lines = ((0.0, "equal", "--c-muted", "left"), (margin, f"margin {margin:g}", "--c-target", "right"))
    up = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "between"}
    over = {"xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    names = {"tickvals": list(rows.values()), "ticktext": [html.escape(name) for name in rows]}
    return layout_of(
        130 + 56 * len(rows),
        xaxis=axis_of("difference to the reference", range=[low - pad, high + pad], nticks=6),
        yaxis=axis_of("", range=[-0.75, len(rows) - 0.5], showgrid=False, **names),
        shapes=[{**up, "x0": x, "x1": x, "line": {"color": c, "width": 1.5, "dash": "dash"}} for x, _, c, _ in lines],
        annotations=[
            {**over, "x": x, "text": words, "xanchor": anchor, "font": {"size": 12, "color": colour}}
            for x, words, colour, anchor in lines
        ],
    )


def seed_differences(view: StudyView, name: str) -> dict[int, float]:
    """Test metric minus the reference's by seed, turned so that more is better; only seeds that both have."""
    sign = 1 if view.study.task.higher_is_better else -1
    reference, own = test_metrics(view, REFERENCE), test_metrics(view, name)
    return {seed: sign * (own[seed] - reference[seed]) for seed in own if seed in reference}


def test_metrics(view: StudyView, name: str) -> dict[int, float]:
    """Test metric of a candidate, or of the reference, by seed."""
    return {seed: metric for seed, metric in view.test_metrics(name).items() if is_number(metric)}


def _interval_trace(view: StudyView, name: str, row: int) -> Json:
    verdict = view.verdicts[name]
    mean, bound, tolerance = verdict.mean_difference, verdict.lower_bound, view.study.task.tolerance
    ends = [mean, *([bound] if is_number(bound) else [])]
    marker = verdict_marker(verdict.passed)
    parts = (f"{name}: {verdict_words(verdict, tolerance)}", f"mean {metric_words(mean, tolerance, signed=True)}")
    words = "<br>".join((*map(html.escape, parts), f"lower bound {metric_words(bound, tolerance, signed=True)}"))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": ends,
        "y": [row] * len(ends),
        "hovertemplate": f"{words}<extra></extra>",
        "line": {"width": 3, "color": marker["color"]},
        "marker": {"symbol": ["diamond", "line-ns-open"], "size": [13, 14], "color": marker["color"], "opacity": 1}
        | {"line": {"width": [0, 3], "color": marker["color"]}},
    }


def components_figure(view: StudyView) -> Figure | None:
    """Difference that each component makes at equal compute: each seed, the mean and its interval."""
    rows = [row for row in view.ablation.values() if row.difference is not None]
    if not rows:
        return None
    places = [(len(rows) - 1 - index, row) for index, row in enumerate(rows)]
    circles = _circles([(place, difference) for place, row in places for difference in row.differences])
    intervals = [_ablation_trace(view, place, row) for place, row in places]
    colours = {trace["line"]["color"] for trace in intervals}
    words = {_PAID_COLOUR[row.verdict]: row.words for row in rows}
    against = ", ".join(kind.compared_with for kind in KINDS.values())
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    return Figure(
        name="components",
        title="What each component is worth at the same cost",
        reading=(
            f"Validation {metric_name(view.study.task.metric)} minus that of the same policy with what it stands "
            f"against instead: {against}.{turned} Each circle is one seed, each diamond the mean of the seeds, and the "
            "line its interval. A component paid for itself when its whole line lies to the right of zero."
        ),
        legend=(
            ("hollow", "--c-muted", "one seed"),
            *(("diamond", colour, words[colour]) for colour in _PAID_COLOUR.values() if colour in colours),
        ),
        data=(circles, *intervals),
        layout=_components_layout(places, [x for trace in (circles, *intervals) for x in trace["x"]]),
    )


def _ablation_trace(view: StudyView, place: int, row: AblationResult) -> Json:
    colour = _PAID_COLOUR[row.verdict]
    mean, *ends = (
        metric_words(value, view.study.task.tolerance, signed=True) for value in (row.difference, row.lower, row.upper)
    )
    words = (f"{row.name}: {row.words}", f"mean {mean}", f"interval {ends[0]} to {ends[1]}")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row.lower, row.difference, row.upper],
        "y": [place] * 3,
        "hovertemplate": "<br>".join(map(html.escape, words)) + "<extra></extra>",
        "line": {"width": 3, "color": colour},
        "marker": {"symbol": ["line-ns-open", "diamond", "line-ns-open"], "size": [14, 13, 14], "color": colour}
        | {"opacity": 1, "line": {"width": [3, 0, 3], "color": colour}},
    }


def _components_layout(places: Sequence[tuple[int, AblationResult]], drawn: Sequence[float]) -> Json:
    low, high = min(*drawn, 0.0), max(*drawn, 0.0)
    pad = 0.06 * (high - low) or 1e-3  # all differences may be 0
    names = {"tickvals": [p for p, _ in places], "ticktext": [html.escape(row.name) for _, row in places]}
    zero = {"type": "line", "xref": "x", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "layer": "between"}
    return layout_of(
        130 + 56 * len(places),
        xaxis=axis_of("difference to the same policy without it", range=[low - pad, high + pad], nticks=6),
        yaxis=axis_of("", range=[-0.75, len(places) - 0.5], showgrid=False, **names),
        shapes=[{**zero, "line": {"color": "--c-muted", "width": 1.5, "dash": "dash"}}],
        annotations=[
            {"xref": "x", "x": 0, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": "equal"}
            | {"xanchor": "left", "font": {"size": 12, "color": "--c-muted"}}
        ],
    )
