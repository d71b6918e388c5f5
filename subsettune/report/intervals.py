"""The report's figures of intervals: what verification measured, and what each component is worth."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from subsettune.report.drawing import (
    BAD,
    GOOD,
    OPEN,
    Figure,
    Json,
    LegendRow,
    axis_of,
    circles,
    interval_trace,
    layout_of,
    verdict_of,
)
from subsettune.report.evidence import EvidenceRow, contrast_words, evidence_rows
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.view import StudyView
from subsettune.study.spec.kinds import KINDS
from subsettune.text import is_number, metric_name, metric_words, passes_words, sentence

_PAID = {"paid": GOOD, "not_paid": BAD, "no_difference": OPEN}
_Line = tuple[float, str, str, str]  # across all rows: where, its words, its colour, the side of it that they begin at
_EQUAL: _Line = (0.0, "equal", "--c-muted", "left")
_SEEDS_BELOW = 0.26  # of a row: the circles of the seeds lie below the interval, not under it


def verification_figure(view: StudyView) -> Figure | None:
    """Difference to the reference on the test split: each run, the mean, the lower bound, and the margin.

    Below them the policy that won against its controls, for which 0 takes the place of the margin.
    """
    found = {row.name: row for row in evidence_rows(view) if is_number(row.difference)}
    contrasts = [one for one in view.manifest.contrasts.values() if is_number(one.mean_difference)]
    if not found:
        return None
    titles = [
        *(_titled(view, row) for row in found.values()),
        *(f"{one.policy}<br>minus {one.control}" for one in contrasts),
    ]
    places = [len(titles) - 1 - row for row in range(len(titles))]
    runs = [run_differences(view, name) for name in found] + [pair_differences(view, one) for one in contrasts]
    drawn = circles([point for at in zip(places, runs, strict=True) for point in _points(*at)], "one run")
    intervals = [_interval_trace(view, row, place) for row, place in zip(found.values(), places, strict=False)]
    intervals += [_contrast_trace(view, *at) for at in zip(contrasts, places[len(found) :], strict=True)]
    margin = -view.study.task.tolerance
    lines = (_EQUAL, (margin, f"margin {margin:g}", "--c-target", "right"))
    axis = f"difference in test {metric_name(view.study.task.metric)}"
    return Figure(
        name="verification",
        title="What verification measured, on the test split",
        reading=_reading(view, has_contrasts=bool(contrasts)),
        legend=(("hollow", "--c-muted", "one run"), *_interval_legend(intervals)),
        data=(drawn, *intervals),
        layout=_layout(axis, titles, (drawn, *intervals), lines),
    )


def _titled(view: StudyView, row: EvidenceRow) -> str:
    """A row's name, and what it costs."""
    cost = "" if row.passes is None else f"<br>{passes_words(row.passes)} passes"
    return f"{html.escape(view.named(row.name))}{cost}"


def _points(place: int, by_seed: Mapping[int, float]) -> list[tuple[float, float, str]]:
    """The runs of a row, below its interval."""
    return [(place - _SEEDS_BELOW, value, f"seed {seed}") for seed, value in by_seed.items()]


def _reading(view: StudyView, *, has_contrasts: bool) -> str:
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    below = (
        " The rows with two names hold the policy against its controls: each circle is a pair of runs with one seed, "
        "and a subset wins when the lines of its rows against plain training (equal, own) lie to the right of 0."
    )
    return (
        f"{sentence(metric_name(view.study.task.metric))} minus the reference's mean.{turned} Each circle is one run, "
        "each diamond the mean of the runs, and the line reaches down to the one-sided lower bound, at the level of "
        "the candidate; what has no line has no level. A policy passes when its whole line lies to the right of the "
        f"margin.{below if has_contrasts else ''}"
    )


def _interval_legend(intervals: Sequence[Json]) -> list[LegendRow]:
    words = {GOOD: "passed or better: mean and lower bound", BAD: "missed", OPEN: "not decided"}
    colours = {trace["line"]["color"] for trace in intervals}
    return [(one.mark, one.colour, word) for one, word in words.items() if one.colour in colours]


def _layout(title: str, names: Sequence[str], traces: Sequence[Json], lines: Sequence[_Line] = (_EQUAL,)) -> Json:
    """Rows of intervals from top to bottom, and lines across them.

    Args:
        title: of the axis.
        names: of the rows.
        traces: that are drawn; all of them is within the axis.
        lines: likewise.
    """
    ends = [*(x for trace in traces for x in trace["x"]), *(x for x, *_ in lines)]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or 1e-3  # all differences may be 0
    up = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "between"}
    over = {"xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    ticks = {"tickvals": list(reversed(range(len(names)))), "ticktext": list(names)}
    return layout_of(
        130 + 56 * len(names),
        xaxis=axis_of(title, range=[low - pad, high + pad], nticks=6),
        yaxis=axis_of("", range=[-0.75, len(names) - 0.5], showgrid=False, **ticks),
        shapes=[{**up, "x0": x, "x1": x, "line": {"color": c, "width": 1.5, "dash": "dash"}} for x, _, c, _ in lines],
        annotations=[
            {**over, "x": x, "text": words, "xanchor": anchor, "font": {"size": 12, "color": colour}}
            for x, words, colour, anchor in lines
        ],
    )


def run_differences(view: StudyView, name: str) -> dict[int, float]:
    """Test metric of each run that was compared minus the reference's mean, by seed, turned so that more is better."""
    sign, compared = (1 if view.study.task.higher_is_better else -1), view.compared(name)
    mean = compared.reference_metric
    return {} if mean is None else {seed: sign * (metric - mean) for seed, metric in compared.own.items()}


def pair_differences(view: StudyView, contrast: Contrast) -> dict[int, float]:
    """Test metric of a policy minus that of its control in runs with one seed, turned so that more is better."""
    sign = 1 if view.study.task.higher_is_better else -1
    own, theirs = test_metrics(view, contrast.policy), test_metrics(view, contrast.control)
    seeds = sorted(own.keys() & theirs.keys())[: contrast.num_seeds]
    return {seed: sign * (own[seed] - theirs[seed]) for seed in seeds}


def test_metrics(view: StudyView, name: str) -> dict[int, float]:
    """Test metric of a candidate, or of the reference, by seed."""
    return {seed: metric for seed, metric in view.test_metrics(name).items() if is_number(metric)}


def _interval_trace(view: StudyView, row: EvidenceRow, place: int) -> Json:
    """A candidate or control against the reference."""
    verdict = view.verdicts.get(row.name)
    passed = verdict.passed if verdict is not None and row.level is not None else None
    return _trace(view, (row.difference or 0.0, row.bound), place, f"{view.named(row.name)}: {row.verdict}", passed)


def _contrast_trace(view: StudyView, one: Contrast, place: int) -> Json:
    """The winner against a control; where nothing is claimed, without a bound."""
    words = f"{one.policy} against {one.control}: {contrast_words(one)}"
    return _trace(view, (one.mean_difference, one.claimed_bound), place, words, True if one.shown else None)


def _trace(view: StudyView, ends: tuple[float, float | None], place: int, title: str, passed: bool | None) -> Json:
    tolerance, (mean, bound) = view.study.task.tolerance, ends
    x = [mean, *([bound] if bound is not None and is_number(bound) else [])]
    words = (
        title,
        f"mean {metric_words(mean, tolerance, signed=True)}",
        f"lower bound {metric_words(bound, tolerance, signed=True)}",
    )
    return interval_trace(x, place, verdict_of(passed), words)


def components_figure(view: StudyView) -> Figure | None:
    """Difference that each component makes at equal compute: each seed, the mean and its interval."""
    rows = [row for row in view.ablation.values() if row.difference is not None]
    if not rows:
        return None
    places = [(len(rows) - 1 - index, row) for index, row in enumerate(rows)]
    drawn = circles([point for place, row in places for point in _seed_points(view, place, row)], "one pair")
    intervals = [_ablation_trace(view, place, row) for place, row in places]
    words = {_PAID[row.verdict]: row.words for row in rows}
    against = ", ".join(kind.compared_with for kind in KINDS.values())
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    axis = f"difference in validation {metric_name(view.study.task.metric)}"
    return Figure(
        name="components",
        title="What each component is worth at the same cost, on the validation split",
        reading=(
            f"Validation {metric_name(view.study.task.metric)} minus that of the same policy with what it stands "
            f"against instead: {against}.{turned} Each circle is one seed, each diamond the mean of the seeds, and the "
            "line its interval. A component paid for itself when its whole line lies to the right of zero."
        ),
        legend=(
            ("hollow", "--c-muted", "one seed"),
            *((one.mark, one.colour, words[one]) for one in _PAID.values() if one in words),
        ),
        data=(drawn, *intervals),
        layout=_layout(axis, [html.escape(row.name) for row in rows], (drawn, *intervals)),
    )


def _seed_points(view: StudyView, place: int, row: AblationResult) -> list[tuple[float, float, str]]:
    seeds = sorted({run.seed for run in view.ablation_runs if run.policy == row.policy})
    names = [f"seed {seed}" for seed in seeds] if len(seeds) == len(row.differences) else []
    return [
        (place - _SEEDS_BELOW, difference, names[i] if names else "one seed")
        for i, difference in enumerate(row.differences)
    ]


def _ablation_trace(view: StudyView, place: int, row: AblationResult) -> Json:
    mean, *ends = (
        metric_words(value, view.study.task.tolerance, signed=True) for value in (row.difference, row.lower, row.upper)
    )
    words = (f"{row.name}: {row.words}", f"mean {mean}", f"interval {ends[0]} to {ends[1]}")
    x = [value for value in (row.difference, row.lower, row.upper) if value is not None]
    return interval_trace(x, place, _PAID[row.verdict], words)
