"""The report's figure of compute against metric: what each trial cost, and what it reached on the validation split."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from subsettune.report.drawing import (
    ARM_COLOUR,
    NO_RESULT,
    Figure,
    Json,
    LegendRow,
    arm_legend,
    axis_of,
    cost_passes,
    known_facts,
    layout_of,
    levels,
    log_ticks,
    mean_metric,
    metric_title,
    points,
    symbol,
    verified_names,
)
from subsettune.study.results.headline import outcome_words
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.text import counted, describe, is_number, metric_name, metric_words, share_words

_DRAWN_BELOW = 8.0  # tolerances below the target that the metric axis still shows


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
        title=f"What each trial cost, and its {name} on the validation split",
        reading=_reading(view),
        legend=_compute_legend(view, kept),
        data=kept,
        layout=_compute_layout(view, scale),
    )


def _reading(view: StudyView) -> str:
    name, up = metric_name(view.study.task.metric), view.study.task.higher_is_better
    told = (
        f"Each mark is one trial: what its policy costs (left is cheaper) and the {name} it ended with "
        f"({'up' if up else 'down'} is better). Filled ones reach the target, hollow ones do not; an arrow says that "
        "one lies outside the drawn range."
    )
    if any(run.cause in NO_RESULT for run in view.trials):
        told += (
            " Crossed ones were stopped, diverged or failed: they have no result, and are drawn at their known cost "
            "below the axis."
        )
    if not verified_names(view):
        return told
    return (
        f"{told} The search sees this split alone, mostly with one seed, and its best trials are flattered by luck: "
        "whether a policy matches is decided on the test split."
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
    arrow = "↓" if scale.sign > 0 else "↑"
    marks = points(view, own)
    return {
        **marks,
        "mode": "markers+text",
        "hovertext": marks["text"],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "text": ["" if scale.holds(t.metric or 0.0) else arrow for t in own],
        "textposition": "middle right",
        "textfont": {"color": ARM_COLOUR[arm]},
        "cliponaxis": False,
        "y": [scale.clip(t.metric or 0.0) for t in own],
        "marker": {
            "color": ARM_COLOUR[arm],
            "size": 9,
            "opacity": 0.85,
            "symbol": [symbol(view, trial) for trial in own],
            "line": {"width": 1.5, "color": ARM_COLOUR[arm]},
        },
    }


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
    short = [step for step in steps if not view.reaches(scale.sign * step[1])]
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
    return len({trial.seed for trial in group if view.reaches(trial.metric)}) > 1


def _reference_traces(view: StudyView) -> list[Json]:
    runs = [run for run in view.reference if is_number(run.metric)]
    mean = [mean_metric(runs)] if runs else []
    marks = (([r.metric for r in runs], 8, 0.55), (mean, 15, 1.0))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "xaxis": "x2",  # the axis of shares exists only when something is drawn against it
            "x": [known_facts(view).reference_passes] * len(values),
            "y": values,
            "text": [
                "mean of the reference" if size > 10 else f"reference, seed {run.seed}" for run in runs[: len(values)]
            ],
            "hovertemplate": "%{text}: %{y}<extra></extra>",
            "marker": {"symbol": "star", "size": size, "opacity": opacity, "color": "--c-ink"},
        }
        for values, size, opacity in marks
    ]


def _candidate_traces(view: StudyView, scale: _Scale) -> list[Json]:
    """Candidates and controls at their mean over the runs of verification, with their range, on this split, too."""
    traces, tolerance = [], view.study.task.tolerance
    for name in verified_names(view):
        runs = [r for r in view.verification if r.candidate == name and r.cause == "finished" and is_number(r.metric)]
        values = [r.metric for r in runs if r.metric is not None]
        if not values:
            continue
        mean, candidate = fmean(values), view.candidates[name]
        words = (
            f"{view.named(name)}: mean {metric_words(mean, tolerance)} of {counted(len(values), 'verified run')}, on "
            "this split",
            f"on the test split: {outcome_words(view, name)}",
            describe(candidate.policy, view.facts),
        )
        marker: Json = {"symbol": "triangle-up" if candidate.is_control else "diamond", "size": 12, "color": "--c-ink"}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [candidate.cost_flops / known_facts(view).pass_flops],
                "y": [scale.clip(mean)],
                "error_y": _error_bar(max(values) - mean, mean - min(values)),
                "hovertemplate": "<br>".join(html.escape(line) for line in words) + "<extra></extra>",
                "marker": marker | {"line": {"width": 1.5, "color": "--c-paper"}},
            }
        )
    return traces


def _error_bar(plus: float, minus: float) -> Json:
    return {"type": "data", "array": [plus], "arrayminus": [minus], "color": "--c-muted", "thickness": 1.2, "width": 3}


def _no_result_traces(view: StudyView) -> list[Json]:
    traces = []
    for cause in NO_RESULT:
        runs = [trial for trial in view.trials if trial.cause == cause]
        colours = [ARM_COLOUR[trial.policy.arm] for trial in runs]
        shapes = [symbol(view, trial) for trial in runs]
        marker = {"symbol": shapes, "size": 9, "color": colours, "line": {"width": 1.5, "color": colours}}
        traces.append({**points(view, runs), "yaxis": "y2", "y": [cause] * len(runs), "marker": marker})
    return traces


def _compute_legend(view: StudyView, traces: Sequence[Json]) -> tuple[LegendRow, ...]:
    legend = arm_legend(view)
    if any(t["marker"].get("size") == 18 for t in traces if "marker" in t):
        legend.append(("ring", "--c-ink", "reaches the target on two seeds"))
    if any(t["mode"] == "lines" for t in traces):
        legend.append(("line", "--c-muted", "frontier: best mean at this cost or less"))
    if view.reference:
        legend.append(("star", "--c-ink", "reference, its seeds and mean"))
    drawn = {t["marker"]["symbol"] for t in traces if "error_y" in t}
    if "diamond" in drawn:
        legend.append(("diamond", "--c-ink", "candidate: mean and range of its verified runs"))
    if "triangle-up" in drawn:
        legend.append(("triangle", "--c-ink", "control of the winner, likewise"))
    return tuple(legend)


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
