"""The report's first figure: what a training costs, and what it reaches, by the recipe and by what was found.

It draws the rows of the result table: the same split, the same runs, the same means and bounds.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from subsettune.report.drawing import (
    ARM_COLOUR,
    BAD,
    GOOD,
    OPEN,
    Figure,
    Json,
    LegendRow,
    VerdictStyle,
    axis_of,
    circles,
    interval_trace,
    layout_of,
)
from subsettune.report.tables import ResultRow, result_rows, split_of
from subsettune.study.results.view import StudyView
from subsettune.text import counted, metric_name, metric_words, passes_words, saving_words

COST_HEIGHT, RESULT_HEIGHT, BETWEEN, BELOW = 46, 78, 78, 50  # pixels: of rows, between the panels, below them
BAR, MARK, RUNS = -0.18, -0.15, -0.38  # where in a row: the middle of a bar, the mean, the runs
NAMES = {
    "reference": "recipe",
    "best": "best policy",
    "shorter": "shorter schedule, the search's settings",
    "equal": "all data, equal compute",
    "own": "all data, a subset policy's settings",
    "random": "random subset",
}


def gain_figure(view: StudyView) -> Figure | None:
    """Compute and metric of the recipe, of the policy and of what it has to be better than; None without a policy."""
    rows = [row for row in result_rows(view) if row.passes is not None]
    if len(rows) < 2 or rows[0].role != "reference" or rows[0].metric is None:
        return None
    name, split = metric_name(view.study.task.metric), split_of(view)
    places = {row.role: len(rows) - 1 - i for i, row in enumerate(rows)}
    means = [_mean_trace(view, rows[0], row, places[row.role]) for row in rows if row.metric is not None]
    runs = [(places[r.role] + RUNS, m, f"seed {seed}") for r in rows for seed, m in r.by_seed.items()]
    below = [circles(runs, f"one run, {split} {name}", ".5g"), *means]
    data = (_bars(rows, places), *({**trace, "xaxis": "x2", "yaxis": "y2"} for trace in below))
    return Figure(
        name="gain",
        title=_title(view),
        reading=_reading(view),
        legend=_legend([trace["line"]["color"] for trace in means]),
        data=data,
        layout=_layout(view, rows, [x for trace in below for x in trace["x"]]),
    )


def _title(view: StudyView) -> str:
    if view.summary.verified:
        return "What was gained"
    return "How it stands, before verification" if split_of(view) == "validation" else "What was tested"


def _reading(view: StudyView) -> str:
    name, split = metric_name(view.study.task.metric), split_of(view)
    what = "the policy that was found" if view.summary.verified else "others"
    told = (
        f"Above, what one training costs by the recipe, which is the conventional training, and by {what}; a pass is "
        f"the compute of one epoch on all data. Below, the {name} that it reaches on the {split} split. "
    )
    if split == "validation":
        return f"{told}Each circle is one run, each mark the mean of the runs. Nothing is verified yet."
    return (
        f"{told}Each circle is one run, each mark the mean of the runs, and the line reaches to the lower bound of the "
        "test. A policy passes when its whole line lies to the right of the least that matches, and its runs do not "
        "scatter much more than the recipe's."
    )


def _style(row: ResultRow) -> VerdictStyle:
    if row.verdict.startswith("missed"):
        return BAD
    return GOOD if row.verdict == "passed" else OPEN


def _colour(row: ResultRow) -> str:
    if row.role == "reference":
        return "--c-muted"
    return ARM_COLOUR["subset" if row.is_subset else "full"]


def _bars(rows: Sequence[ResultRow], places: dict[str, int]) -> Json:
    words = [f"{_name(row)}: {_cost(row)}" for row in rows]
    return {
        "type": "bar",
        "orientation": "h",
        "x": [row.passes for row in rows],
        "y": [places[row.role] + BAR for row in rows],
        "width": 0.36,
        "text": [html.escape(text) for text in words],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": [_colour(row) for row in rows]},
    }


def _name(row: ResultRow) -> str:
    name = "best policy so far" if row.role == "best" and not row.num_references else NAMES[row.role]
    return f"{name}, all data{row.of_round}" if row.is_both else f"{name}{row.of_round}"


def _cost(row: ResultRow) -> str:
    """`8.35 passes, 72 % less`."""
    passes = f"{passes_words(row.passes)} passes"
    if row.saving is None or row.saving == 0:
        return passes
    return f"{passes}, {saving_words(abs(row.saving))} {'less' if row.saving > 0 else 'more'}"


def _reached(view: StudyView, row: ResultRow) -> str:
    """`0.9693 over 9 runs, passed`."""
    if row.metric is None:
        return row.verdict
    mean = f"{metric_words(row.metric, view.study.task.tolerance)} over {counted(len(row.by_seed), 'run')}"
    return f"{mean}, {row.verdict}" if row.verdict else mean


def _mean_trace(view: StudyView, reference: ResultRow, row: ResultRow, place: int) -> Json:
    """The mean, and where it has one the bound: as far from the drawn mean of the reference as the test has it."""
    assert row.metric is not None
    assert reference.metric is not None
    ends = [] if row.bound is None else [reference.metric + _sign(view) * row.bound]
    words = (_name(row), _reached(view, row))
    trace = interval_trace([row.metric, *ends], place + MARK, _style(row), words)
    if row.role != "reference":
        return trace
    marker = trace["marker"] | {"symbol": ["star"], "size": [15], "color": "--c-ink"}
    return trace | {"marker": marker, "line": {"width": 3, "color": "--c-ink"}}


def _sign(view: StudyView) -> int:
    return 1 if view.study.task.higher_is_better else -1


def _legend(colours: Sequence[str]) -> tuple[LegendRow, ...]:
    words = {GOOD: "passed: mean and lower bound", BAD: "missed", OPEN: "not decided, or nothing is claimed"}
    legend = [(one.mark, one.colour, word) for one, word in words.items() if one.colour in colours]
    return (("hollow", "--c-muted", "one run"), ("star", "--c-ink", "mean of the recipe"), *legend)


def _layout(view: StudyView, rows: Sequence[ResultRow], drawn: Sequence[float]) -> Json:
    """Two panels below one another, with words above what each draws of a row."""
    upper, lower = COST_HEIGHT * len(rows), RESULT_HEIGHT * len(rows)
    whole = upper + BETWEEN + lower
    ends = [-0.5, len(rows) - 0.5]
    most = max(row.passes for row in rows if row.passes is not None)
    metric_axis = _metric_axis(view, rows[0], drawn)
    return layout_of(
        whole + BELOW,
        xaxis=axis_of("compute of one training, passes", range=[0, 1.02 * most], anchor="y", nticks=6),
        yaxis=_hidden_axis("x", [1 - upper / whole, 1], ends),
        xaxis2=metric_axis,
        yaxis2=_hidden_axis("x2", [0, lower / whole], ends),
        shapes=_levels(view, rows[0], ends),
        annotations=[*_names(view, rows), _level_name(view, rows, metric_axis)],
        bargap=0,
    )


def _hidden_axis(anchor: str, domain: Sequence[float], ends: Sequence[float]) -> Json:
    unseen = dict.fromkeys(("showgrid", "showline", "showticklabels", "automargin"), False)
    return axis_of("", anchor=anchor, domain=list(domain), range=list(ends), ticks="", fixedrange=True) | unseen


def _least(view: StudyView, reference: ResultRow) -> float:
    """The least that matches: the mean of the reference that is drawn, minus the tolerance."""
    assert reference.metric is not None
    return reference.metric - _sign(view) * view.study.task.tolerance


def _metric_axis(view: StudyView, reference: ResultRow, drawn: Sequence[float]) -> Json:
    low, high = min(*drawn, _least(view, reference)), max(*drawn, _least(view, reference))
    pad = 0.06 * (high - low)
    name = f"{split_of(view)} {metric_name(view.study.task.metric)}"
    span = [low - pad, high + pad][:: _sign(view)]
    turned = "" if view.study.task.higher_is_better else " (lower is better, so the axis is turned)"
    return axis_of(f"{name}{turned}", range=span, anchor="y2", nticks=6)


def _levels(view: StudyView, reference: ResultRow, ends: Sequence[float]) -> list[Json]:
    up = {"type": "line", "xref": "x2", "yref": "y2", "y0": ends[0], "y1": ends[1], "layer": "between"}
    levels = ((reference.metric, "--c-muted"), (_least(view, reference), "--c-target"))
    return [{**up, "x0": x, "x1": x, "line": {"color": c, "width": 1.5, "dash": "dash"}} for x, c in levels]


def _level_name(view: StudyView, rows: Sequence[ResultRow], metric_axis: Json) -> Json:
    """Above the line, and on the side of it where there is more room."""
    least, (left, right) = _least(view, rows[0]), metric_axis["range"]
    words = f"least that matches: {metric_words(least, view.study.task.tolerance)}"
    anchor = "left" if (least - left) / (right - left) < 0.5 else "right"
    place = {"xref": "x2", "x": least, "yref": "y2", "y": len(rows) - 0.5, "yanchor": "bottom", "xanchor": anchor}
    return {**place, "text": words, "showarrow": False, "font": {"size": 12, "color": "--c-target"}}


def _names(view: StudyView, rows: Sequence[ResultRow]) -> list[Json]:
    """Words at the top of each row of both panels."""
    found = []
    for i, row in enumerate(rows):
        name, place = f"<b>{html.escape(_name(row))}</b>", len(rows) - 0.5 - i
        cost, reached = html.escape(_cost(row)), html.escape(_reached(view, row))
        for panel, text in (("y", f"{name}: {cost}"), ("y2", f"{name}<br>{reached}")):
            at = {"xref": "paper", "x": 0, "xanchor": "left", "yref": panel, "y": place, "yanchor": "top"}
            found.append({**at, "text": text, "showarrow": False, "align": "left", "bgcolor": "--c-paper"})
    return found
