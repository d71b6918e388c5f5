"""The report's figures: compute against metric, what verification measured, and what each component is worth."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from subsettune.report.curves import curves_figure, search_figure
from subsettune.report.drawing import (
    ARM_COLOUR,
    ARM_WORDS,
    NO_RESULT,
    Figure,
    Json,
    ProgressMarker,
    axis_of,
    cost_passes,
    known_facts,
    layout_of,
    levels,
    log_ticks,
    mean_metric,
    metric_title,
    points,
    reaches,
    verdict_marker,
)
from subsettune.study.results.headline import comparison_words, is_control, verdict_words
from subsettune.study.spec.kinds import KINDS
from subsettune.text import describe, is_number, metric_name, metric_words, sentence, share_words

if TYPE_CHECKING:
    from subsettune.study.results.records import RunRecord
    from subsettune.study.results.view import AblationResult, StudyView

_PAID_COLOUR = {"paid": "--c-good", "not_paid": "--c-bad", "no_difference": "--c-muted"}
_SEEDS_BELOW = 0.26  # of a row: the circles of the seeds lie below the interval, not under it
REFERENCE = "reference"  # the name under which verification repeats the recipe
_DRAWN_BELOW = 8.0  # tolerances below the target that the metric axis still shows


def figures(view: StudyView) -> tuple[Figure, ...]:
    """The figures that this study has something to show in, in the order of the page."""
    drawers = (compute_figure, verification_figure, components_figure, curves_figure, search_figure)
    made = (draw(view) for draw in drawers)
    return tuple(figure for figure in made if figure is not None)


def compute_figure(view: StudyView) -> Figure | None:
    """Known compute of each policy against its validation metric, with target, reference and frontier."""
    if view.facts is None or not view.trials:
        return None
    finished = [t for t in view.trials if t.cause == "finished" and is_number(t.metric)]
    scale = _Scale(view, [t.metric for t in finished if t.metric is not None])
    traces = [
        *_frontier_traces(view, finished, scale),
        *(_trial_trace(view, arm, finished, scale) for arm in ARM_COLOUR),
        _confirmed_trace(view, finished, scale),
        *_reference_traces(view),
        *_candidate_traces(view, scale),
        *_no_result_traces(view),
    ]
    kept = tuple(trace for trace in traces if trace["x"])
    if not kept:
        return None
    name = metric_name(view.study.task.metric)
    return Figure(
        name="compute",
        title=f"Compute against {name}",
        reading=(
            f"Each dot is one trial: what its policy costs (left is cheaper) and the {name} it ended with on the "
            f"validation split ({'up' if view.study.task.higher_is_better else 'down'} is better). Filled dots reach "
            "the target, hollow ones do not, triangles lie outside the drawn range. Trials that were stopped, diverged "
            "or failed have no result; they are ticks at their known cost below the axis."
        ),
        legend=_compute_legend(view, kept),
        data=kept,
        layout=_compute_layout(view, scale),
    )


class _Scale:
    """The drawn range of the metric: around target and reference, wide enough for at least half of the trials."""

    def __init__(self, view: StudyView, values: list[float]) -> None:
        self.sign = 1.0 if view.study.task.higher_is_better else -1.0
        self.tolerance = view.study.task.tolerance
        anchors = [r.metric for r in view.reference if r.metric is not None]
        anchors += [] if view.target is None else [view.target]
        worst_drawn = -math.inf
        if view.target is not None and values:
            ranked = sorted(self.sign * value for value in values)
            worst_drawn = min(self.sign * view.target - _DRAWN_BELOW * self.tolerance, ranked[len(ranked) // 2])
        kept = [self.sign * v for v in [*values, *anchors] if self.sign * v >= worst_drawn] or [0.0, 1.0]
        pad = max(0.06 * (max(kept) - min(kept)), 0.5 * self.tolerance)
        self.worst, self.best = min(kept) - pad, max(kept) + pad

    def holds(self, value: float) -> bool:
        return self.sign * value >= self.worst

    def clip(self, value: float) -> float:
        return value if self.holds(value) else self.sign * (self.worst + 0.015 * (self.best - self.worst))

    @property
    def range(self) -> list[float]:
        return sorted([self.sign * self.worst, self.sign * self.best])


def _trial_trace(view: StudyView, arm: str, finished: Sequence[RunRecord], scale: _Scale) -> Json:
    own = [t for t in finished if t.policy.arm == arm]
    return {
        **points(view, own),
        "y": [scale.clip(t.metric or 0.0) for t in own],
        "marker": {
            "color": ARM_COLOUR[arm],
            "size": 9,
            "opacity": 0.85,
            "symbol": [_symbol(view, trial, scale) for trial in own],
            "line": {"width": 1.5, "color": ARM_COLOUR[arm]},
        },
    }


def _symbol(view: StudyView, trial: RunRecord, scale: _Scale) -> str:
    if trial.metric is not None and not scale.holds(trial.metric):
        return "triangle-down-open" if scale.sign > 0 else "triangle-up-open"
    return "circle" if reaches(view, trial.metric) else "circle-open"


def _groups(finished: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Finished trials by policy: a confirmed policy has several, one a seed."""
    groups: dict[str, list[RunRecord]] = {}
    for trial in finished:
        groups.setdefault(trial.policy.key, []).append(trial)
    return groups


def _frontier_traces(view: StudyView, finished: Sequence[RunRecord], scale: _Scale) -> list[Json]:
    """The best mean metric that the policies of at most this compute reach: dotted below the target, solid above."""
    means = sorted((cost_passes(view, g[0]), scale.sign * mean_metric(g)) for g in _groups(finished).values())
    steps: list[tuple[float, float]] = []
    for passes, value in means:
        if not steps or value > steps[-1][1]:
            steps.append((passes, value))
    short = [step for step in steps if not reaches(view, scale.sign * step[1])]
    matched = steps[len(short) :]
    right = max(known_facts(view).reference_passes, steps[-1][0]) if steps else 0.0
    parts = ((short + matched[:1], "dot"), ([*matched, (right, matched[-1][1])] if matched else [], "solid"))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [passes for passes, _ in part],
            "y": [scale.clip(scale.sign * value) for _, value in part],
            "line": {"shape": "hv", "dash": dash, "width": 1.5, "color": "--c-muted"},
            "hoverinfo": "skip",
        }
        for part, dash in parts
    ]


def _confirmed_trace(view: StudyView, finished: Sequence[RunRecord], scale: _Scale) -> Json:
    groups = [g for g in _groups(finished).values() if len({t.seed for t in g}) > 1 and _confirmed(view, g)]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cost_passes(view, group[0]) for group in groups],
        "y": [scale.clip(mean_metric(group)) for group in groups],
        "marker": {"symbol": "circle-open", "size": 18, "color": "--c-ink", "line": {"width": 1.5}},
        "hoverinfo": "skip",
    }


def _confirmed(view: StudyView, group: Sequence[RunRecord]) -> bool:
    return len({trial.seed for trial in group if reaches(view, trial.metric)}) > 1


def _reference_traces(view: StudyView) -> list[Json]:
    runs = [run for run in view.reference if is_number(run.metric)]
    mean = [mean_metric(runs)] if runs else []
    marks = (([r.metric for r in runs], 7, 0.55), (mean, 12, 1.0))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "xaxis": "x2",  # the axis of shares exists only when something is drawn against it
            "x": [known_facts(view).reference_passes] * len(values),
            "y": values,
            "text": ["reference" if size > 10 else f"reference, seed {run.seed}" for run in runs[: len(values)]],
            "hovertemplate": "%{text}: %{y}<extra></extra>",
            "marker": {"symbol": "square", "size": size, "opacity": opacity, "color": "--c-ink"},
        }
        for values, size, opacity in marks
    ]


def _candidate_traces(view: StudyView, scale: _Scale) -> list[Json]:
    """Candidates and controls at their mean over the seeds of verification, with the range of the seeds."""
    traces = []
    for name in verified_names(view):
        runs = [r for r in view.verification if r.candidate == name and r.cause == "finished" and is_number(r.metric)]
        values = [r.metric for r in runs if r.metric is not None]
        if not values:
            continue
        mean, verdict, candidate = fmean(values), view.verdicts.get(name), view.candidates[name]
        words = (f"{name}: {verdict_words(verdict, view.study.task.tolerance)}", describe(candidate.policy, view.facts))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [candidate.cost_flops / known_facts(view).pass_flops],
                "y": [scale.clip(mean)],
                "error_y": _error_bar(max(values) - mean, mean - min(values)),
                "hovertemplate": "<br>".join(html.escape(line) for line in words) + "<extra></extra>",
                "marker": _candidate_marker(name, (verdict or {}).get("passed")),
            }
        )
    return traces


def verified_names(view: StudyView) -> list[str]:
    """Candidates with runs of verification, in the order of testing."""
    names = {run.candidate for run in view.verification}
    return [name for name in view.candidates if name in names]


def _candidate_marker(name: str, passed: bool | None) -> Json:
    return {"symbol": "triangle-up" if is_control(name) else "diamond", "size": 13, **verdict_marker(passed)}


def _error_bar(plus: float, minus: float) -> Json:
    return {"type": "data", "array": [plus], "arrayminus": [minus], "color": "--c-muted", "thickness": 1.2, "width": 3}


def _no_result_traces(view: StudyView) -> list[Json]:
    traces = []
    for cause in NO_RESULT:
        runs = [trial for trial in view.trials if trial.cause == cause]
        colours = [ARM_COLOUR[trial.policy.arm] for trial in runs]
        marker = {"symbol": "line-ns-open", "size": 11, "color": colours, "line": {"width": 2, "color": colours}}
        traces.append({**points(view, runs), "yaxis": "y2", "y": [cause] * len(runs), "marker": marker})
    return traces


def _compute_legend(view: StudyView, traces: Sequence[Json]) -> tuple[tuple[ProgressMarker, str, str], ...]:
    arms = [arm for arm in ARM_COLOUR if any(t.policy.arm == arm for t in view.trials)]
    legend: list[tuple[ProgressMarker, str, str]] = [("dot", ARM_COLOUR[arm], ARM_WORDS[arm]) for arm in arms]
    if any(t["marker"].get("size") == 18 for t in traces if "marker" in t):
        legend.append(("ring", "--c-ink", "reaches the target on two seeds"))
    if any(t["mode"] == "lines" for t in traces):
        legend.append(("line", "--c-muted", "frontier: best mean at this cost or less"))
    if view.reference:
        legend.append(("square", "--c-ink", "reference, its seeds and mean"))
    return (*legend, *_verdict_legend(view, [t for t in traces if "error_y" in t]))


def _verdict_legend(view: StudyView, traces: Sequence[Json]) -> list[tuple[ProgressMarker, str, str]]:
    words = {"--c-good": "passed verification", "--c-bad": "missed", "--c-muted": "undecided"}
    colours = {trace["marker"]["color"] for trace in traces}
    legend: list[tuple[ProgressMarker, str, str]] = [("diamond", c, word) for c, word in words.items() if c in colours]
    if any(is_control(name) for name in verified_names(view)) and traces:
        legend.append(("triangle", "--c-ink", "control of the winner, likewise"))
    return legend


def _compute_layout(view: StudyView, scale: _Scale) -> Json:
    facts = known_facts(view)
    known = [cost_passes(view, t) for t in view.trials] + [facts.reference_passes]
    low, high = min(known) / 1.7, max(known) * 1.2  # to the left, room for the names of the levels
    rows = [cause for cause in NO_RESULT if any(t.cause == cause for t in view.trials)]
    floor = 0.0 if not rows else 0.05 + 0.06 * len(rows)
    ticks = log_ticks(low, high)
    shares = log_ticks(low / facts.reference_passes, high / facts.reference_passes)
    span = [math.log10(low), math.log10(high)]
    bottom = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks], "anchor": "y2" if rows else "y"}
    layout = layout_of(
        430 + 24 * len(rows),
        xaxis=axis_of("passes (log scale)", type="log", range=span, **bottom),
        yaxis=axis_of(metric_title(view), range=scale.range, domain=[floor, 1.0]),
        xaxis2={
            **axis_of("share of the reference's compute", type="log", range=span, showgrid=False),
            "overlaying": "x",
            "matches": "x",
            "side": "top",
            "tickvals": [share * facts.reference_passes for share in shares],
            "ticktext": [share_words(share) for share in shares],
        },
    )
    if rows:
        order = {"categoryorder": "array", "categoryarray": rows[::-1], "range": [-0.7, len(rows) - 0.3]}
        layout["yaxis2"] = {**axis_of("", domain=[0.0, floor - 0.04], showgrid=False), **order}
    return layout | levels(view, "y")


def verification_figure(view: StudyView) -> Figure | None:
    """Difference to the reference on the test split: each seed, the mean, the lower bound, and the margin."""
    names = [name for name in verified_names(view) if is_number(view.verdicts.get(name, {}).get("mean_difference"))]
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
    runs = [run for run in view.verification if run.candidate == name]
    return {run.seed: run.test_metric for run in runs if run.test_metric is not None and is_number(run.test_metric)}


def _interval_trace(view: StudyView, name: str, row: int) -> Json:
    verdict = view.verdicts[name]
    mean, bound, tolerance = verdict["mean_difference"], verdict.get("lower_bound"), view.study.task.tolerance
    ends = [mean, *([bound] if is_number(bound) else [])]
    marker = verdict_marker(verdict.get("passed"))
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
    rows = [row for row in view.compared.values() if row.difference is not None]
    if not rows:
        return None
    places = [(len(rows) - 1 - index, row) for index, row in enumerate(rows)]
    circles = _circles([(place, difference) for place, row in places for difference in row.differences])
    intervals = [_compared_trace(view, place, row) for place, row in places]
    colours = {trace["line"]["color"] for trace in intervals}
    words = {_PAID_COLOUR[row.verdict]: comparison_words(row) for row in rows}
    turned = "" if view.study.task.higher_is_better else " The sign is turned so that more is better."
    against = ", ".join(kind.compared_with for kind in KINDS.values())
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


def _compared_trace(view: StudyView, place: int, row: AblationResult) -> Json:
    colour = _PAID_COLOUR[row.verdict]
    mean, *ends = (
        metric_words(value, view.study.task.tolerance, signed=True) for value in (row.difference, row.lower, row.upper)
    )
    words = (f"{row.name}: {comparison_words(row)}", f"mean {mean}", f"interval {ends[0]} to {ends[1]}")
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
