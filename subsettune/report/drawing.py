"""What the report's figures share: a figure as a plain plotly mapping, colours, points, levels and axes.

Nothing here imports plotly: the page hands the mappings to plotly.js. Colours are names of the page's CSS variables
(`--c-full`), so that one figure serves light and dark pages.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from subsettune.facts import TaskFacts
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.text import describe, is_number, metric_name, metric_words, passes_words, share_words

Json = dict[str, Any]
ProgressMarker = Literal["dot", "hollow", "ring", "diamond", "triangle", "square", "cross", "line"]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ARM_COLOUR = {"full": "--c-full", "subset": "--c-subset"}
ARM_WORDS = {"full": "all data, a shorter schedule", "subset": "a subset first, then all data"}
NO_RESULT = ("stopped", "diverged", "failed")  # causes without a final metric, in the order of their rows
CLEAR = "rgba(0,0,0,0)"
_HOVER_WIDTH = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Args:
        name: of its element in the page.
        title: heading.
        reading: one or two sentences on how to read it.
        legend: mark, colour and words of each kind of mark.
        data: plotly traces.
        layout: plotly layout.
    """

    name: str
    title: str
    reading: str
    legend: tuple[tuple[ProgressMarker, str, str], ...]
    data: tuple[Json, ...]
    layout: Json


def points(view: StudyView, trials: Sequence[RunRecord]) -> Json:
    """Markers at the known cost of trials, with what to say when one points at them; `y` is for the caller."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cost_passes(view, trial) for trial in trials],
        "text": [hover(view, trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def cost_passes(view: StudyView, run: RunRecord) -> float:
    """What the policy of a run costs, in passes."""
    return run.cost_flops / known_facts(view).pass_flops


def known_facts(view: StudyView) -> TaskFacts:
    """The facts, of a study that has come so far."""
    assert view.facts is not None, "a figure of compute is drawn only when the facts are known"
    return view.facts


def hover(view: StudyView, run: RunRecord) -> str:
    """A run in a few lines, escaped."""
    facts, metric = known_facts(view), metric_name(view.study.task.metric)
    share = share_words(run.cost_flops / facts.reference_flops)
    lines = [
        f"{run.name}, seed {run.seed}: {run.cause}",
        f"{metric} {metric_words(run.metric, view.study.task.tolerance)}" if is_number(run.metric) else "no result",
        f"{passes_words(cost_passes(view, run))} passes, {share} of the reference's",
        *textwrap.wrap(describe(run.policy, facts), _HOVER_WIDTH),
        *textwrap.wrap(run.message, _HOVER_WIDTH)[:3],
    ]
    return "<br>".join(html.escape(line) for line in lines)


def verified_names(view: StudyView) -> list[str]:
    """Candidates with runs of verification, in the order of testing."""
    names = {run.candidate for run in view.verification}
    return [name for name in view.candidates if name in names]


def mean_metric(runs: Iterable[RunRecord]) -> float:
    """Mean validation metric of runs that have one."""
    return fmean(run.metric for run in runs if run.metric is not None)


def verdict_marker(passed: bool | None) -> Json:
    """Colour of a verdict."""
    colour = {True: "--c-good", False: "--c-bad", None: "--c-muted"}[passed]
    return {"color": colour, "line": {"width": 1.5, "color": "--c-paper"}}


def metric_title(view: StudyView) -> str:
    """Title of an axis of the validation metric."""
    better = "" if view.study.task.higher_is_better else " (lower is better)"
    return f"validation {metric_name(view.study.task.metric)}{better}"


def levels(view: StudyView, axis: str) -> Json:
    """Horizontal lines at the target and at the mean of the reference, named at their ends."""
    tolerance, up = view.study.task.tolerance, view.study.task.higher_is_better
    runs = [run for run in view.reference if is_number(run.metric)]
    levels: list[tuple[str, float, str, str]] = []
    if view.target is not None:
        words = f"target {metric_words(view.target, tolerance)}"
        levels.append((words, view.target, "--c-target", "top" if up else "bottom"))
    if runs:
        mean = mean_metric(runs)
        words = f"reference {metric_words(mean, tolerance)}"
        levels.append((words, mean, "--c-muted", "bottom" if up else "top"))
    span = {"xref": "paper", "x0": 0, "x1": 1, "yref": axis, "layer": "between"}
    text = {"xref": "paper", "x": 0, "xanchor": "left", "yref": axis, "showarrow": False, "xshift": 4}
    return {
        "shapes": [
            {"type": "line", **span, "y0": y, "y1": y, "line": {"color": c, "width": 1.5, "dash": "dash"}}
            for _, y, c, _ in levels
        ],
        "annotations": [
            {**text, "text": words, "y": y, "yanchor": anchor, "font": {"size": 12, "color": c}}
            for words, y, c, anchor in levels
        ],
    }


def log_ticks(low: float, high: float) -> list[float]:
    """The numbers 1, 2 and 5 times a power of ten between `low` and `high`; only powers over three decades or more."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    return [float(f"{step}e{power}") for power in decades for step in steps if low <= float(f"{step}e{power}") <= high]


def axis_of(title: str, **more: Any) -> Json:
    """An axis in the style of the page."""
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "automargin": True,
        "gridcolor": "--c-grid",
        "linecolor": "--c-line",
        "tickcolor": "--c-line",
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        **more,
    }


def layout_of(height: int, **more: Any) -> Json:
    """A layout in the style of the page; the legend is the page's own."""
    return {
        "height": height,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "--c-paper",
            "bordercolor": "--c-line",
            "align": "left",
            "font": {"color": "--c-ink"},
        },
        "font": {"family": FONT, "size": 12, "color": "--c-ink"},
        "margin": {"l": 10, "r": 14, "t": 22, "b": 10},
        **more,
    }
