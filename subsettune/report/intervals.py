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
)
from subsettune.report.evidence import EvidenceRow, contrast_words, evidence_rows
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.view import StudyView
from subsettune.study.spec.kinds import KINDS
from subsettune.text import is_number, metric_name, metric_words, sentence

_PAID_COLOUR = {"paid": "--c-good", "not_paid": "--c-bad", "no_difference": "--c-muted"}
_SEEDS_BELOW = 0.26  # of a row: the circles of the seeds lie below the interval, not under it


def verification_figure(view: StudyView) -> Figure | None:
    """Difference to the reference on the test split: each run, the mean, the lower bound, and the margin.

    Below them the policy that won against its controls, for which 0 takes the place of the margin.
    """
    names = [row.name for row in evidence_rows(view) if is_number(row.difference)]
    contrasts = [one for one in view.manifest.contrasts.values() if is_number(one.mean_difference)]
    if not names:
        return None
    titles = [*names, *(f"{one.policy} - {one.control}" for one in contrasts)]
    rows = {title: len(titles) - 1 - row for row, title in enumerate(titles)}
    drawn = [(row, d) for name in names for row, d in _at(rows[name], run_differences(view, name))]
    pairs = zip(contrasts, titles[len(names) :], strict=True)
    drawn += [(row, d) for one, title in pairs for row, d in _at(rows[title], pair_differences(view, one))]
    circles = _circles(drawn)
    found = {row.name: row for row in evidence_rows(view)}
    intervals = [_interval_trace(view, found[name], rows[name]) for name in names]
    intervals += [_contrast_trace(view, one, rows[f"{one.policy} - {one.control}"]) for one in contrasts]
    return Figure(
        name="verification",
        title="Verification on the test split",
        reading=_reading(view, has_contrasts=bool(contrasts)),
        legend=(("hollow", "--c-muted", "one run"), *_interval_legend(intervals)),
        data=(circles, *intervals),
        layout=_verification_layout(view, rows, [x for trace in (circles, *intervals) for x in trace["x"]]),
    )


def _at(row: int, differences: Sequence[float]) -> list[tuple[int, float]]:
    return [(row, difference) for difference in differences]


def _reading(view: StudyView, *, has_contrasts: bool) -> str:
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    below = (
        " The rows with two names hold the policy against its controls: each circle is a pair of runs with one seed, "
        "and a subset wins when the line of its row against plain training lies to the right of 0."
    )
    return (
        f"{sentence(metric_name(view.study.task.metric))} minus the reference's mean.{turned} Each circle is one run, "
        "each diamond the mean of the runs, and the line reaches down to the one-sided lower bound, at the level of "
        "the candidate; what has no line has no level. A policy passes when its whole line lies to the right of the "
        f"margin.{below if has_contrasts else ''}"
    )


def _circles(seeds: Sequence[tuple[int, float]]) -> Json:
    """One circle a run, or a pair of them, below the interval of its row."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [difference for _, difference in seeds],
        "y": [row - _SEEDS_BELOW for row, _ in seeds],
        "hovertemplate": "one run: %{x:+.5g}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 8, "color": "--c-muted", "line": {"width": 1.5}},
    }


def _interval_legend(intervals: Sequence[Json]) -> list[tuple[ProgressMarker, str, str]]:
    words = {"--c-good": "passed or better: mean and lower bound", "--c-bad": "missed", "--c-muted": "not decided"}
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
        xaxis=axis_of("difference", range=[low - pad, high + pad], nticks=6),
        yaxis=axis_of("", range=[-0.75, len(rows) - 0.5], showgrid=False, **names),
        shapes=[{**up, "x0": x, "x1": x, "line": {"color": c, "width": 1.5, "dash": "dash"}} for x, _, c, _ in lines],
        annotations=[
            {**over, "x": x, "text": words, "xanchor": anchor, "font": {"size": 12, "color": colour}}
            for x, words, colour, anchor in lines
        ],
    )


def run_differences(view: StudyView, name: str) -> list[float]:
    """Test metric of each run that was compared minus the reference's mean, turned so that more is better."""
    sign, compared = (1 if view.study.task.higher_is_better else -1), view.compared(name)
    mean = compared.reference_metric
    return [] if mean is None else [sign * (metric - mean) for metric in compared.own]


def pair_differences(view: StudyView, contrast: Contrast) -> list[float]:
    """Test metric of a policy minus that of its control in runs with one seed, turned so that more is better."""
    sign = 1 if view.study.task.higher_is_better else -1
    own, theirs = test_metrics(view, contrast.policy), test_metrics(view, contrast.control)
    seeds = sorted(own.keys() & theirs.keys())[: contrast.num_seeds]
    return [sign * (own[seed] - theirs[seed]) for seed in seeds]


def test_metrics(view: StudyView, name: str) -> dict[int, float]:
    """Test metric of a candidate, or of the reference, by seed."""
    return {seed: metric for seed, metric in view.test_metrics(name).items() if is_number(metric)}


def _interval_trace(view: StudyView, row: EvidenceRow, place: int) -> Json:
    """A candidate or control against the reference."""
    verdict = view.verdicts.get(row.name)
    passed = verdict.passed if verdict is not None and row.level is not None else None
    return _trace(view, (row.difference or 0.0, row.bound), place, f"{row.name}: {row.verdict}", passed)


def _contrast_trace(view: StudyView, one: Contrast, place: int) -> Json:
    """The winner against a control; where nothing is claimed, without a bound."""
    words = f"{one.policy} against {one.control}: {contrast_words(one)}"
    bound = one.lower_bound if one.is_claim else None
    return _trace(view, (one.mean_difference, bound), place, words, True if one.shown else None)


def _trace(view: StudyView, ends: tuple[float, float | None], place: int, title: str, passed: bool | None) -> Json:
    tolerance, (mean, bound) = view.study.task.tolerance, ends
    x = [mean, *([bound] if bound is not None and is_number(bound) else [])]
    marker = verdict_marker(passed)
    parts = (title, f"mean {metric_words(mean, tolerance, signed=True)}")
    words = "<br>".join((*map(html.escape, parts), f"lower bound {metric_words(bound, tolerance, signed=True)}"))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": [place] * len(x),
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
