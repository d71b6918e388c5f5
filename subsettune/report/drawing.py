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
from subsettune.text import cost_words, describe, is_number, metric_name, metric_words, passes_words

Json = dict[str, Any]
Mark = Literal[
    "dot",
    "square",
    "hollow",
    "hollow-square",
    "crossed",
    "crossed-square",
    "ring",
    "star",
    "diamond",
    "hollow-diamond",
    "x",
    "triangle",
    "line",
    "dashed",
]
LegendRow = tuple[Mark, str, str]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ARM_COLOUR = {"full": "--c-full", "subset": "--c-subset"}
ARM_SYMBOL = {"full": "circle", "subset": "square"}  # told apart without colours, too
ARM_MARK: dict[str, Mark] = {"full": "dot", "subset": "square"}
BELOW_MARK: dict[str, Mark] = {"full": "hollow", "subset": "hollow-square"}  # of `symbol`, below the target
CROSSED_MARK: dict[str, Mark] = {"full": "crossed", "subset": "crossed-square"}  # likewise, without a result
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
    legend: tuple[LegendRow, ...]
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


def symbol(view: StudyView, run: RunRecord) -> str:
    """Shape of a trial: of its arm; filled where it reaches the target, crossed where it has no result."""
    shape = ARM_SYMBOL[run.policy.arm]
    if run.cause != "finished":
        return f"{shape}-x-open"
    return shape if view.reaches(run.metric) else f"{shape}-open"


def arm_legend(view: StudyView) -> list[LegendRow]:
    """The arms that were tried."""
    arms = {run.policy.arm for run in view.trials}
    return [(ARM_MARK[arm], colour, ARM_WORDS[arm]) for arm, colour in ARM_COLOUR.items() if arm in arms]


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
    share = cost_words(run.cost_flops / facts.reference_flops)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictStyle:
    """How a verdict is drawn: a shape of its own, in a colour of its own.

    Args:
        symbol: plotly's.
        mark: the same in a legend.
        colour: of both.
    """

    symbol: str
    mark: Mark
    colour: str


GOOD = VerdictStyle(symbol="diamond", mark="diamond", colour="--c-good")
BAD = VerdictStyle(symbol="x", mark="x", colour="--c-bad")
OPEN = VerdictStyle(symbol="diamond-open", mark="hollow-diamond", colour="--c-muted")


def verdict_of(passed: bool | None) -> VerdictStyle:
    """How it is drawn that something passed, missed, or is not decided."""
    return {True: GOOD, False: BAD, None: OPEN}[passed]


def interval_trace(x: Sequence[float], place: float, verdict: VerdictStyle, words: Sequence[str]) -> Json:
    """A mean and the ends of its interval in one row.

    Args:
        x: the mean, which has the shape of the verdict, then no, one or two ends.
        place: of the row.
        verdict: gives shape and colour.
        words: lines that are shown where one points at it, not escaped.
    """
    order = [1, 0, 2][: len(x)] if len(x) == 3 else range(len(x))
    shapes, sizes, widths = [verdict.symbol, *["line-ns-open"] * 2], [13, 14, 14], [2, 3, 3]
    marker = {"symbol": [shapes[i] for i in order], "size": [sizes[i] for i in order], "color": verdict.colour}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x[i] for i in order],
        "y": [place] * len(x),
        "hovertemplate": "<br>".join(map(html.escape, words)) + "<extra></extra>",
        "line": {"width": 3, "color": verdict.colour},
        "marker": {**marker, "opacity": 1, "line": {"width": [widths[i] for i in order], "color": verdict.colour}},
    }


def circles(points: Sequence[tuple[float, float, str]], what: str, form: str = "+.5g") -> Json:
    """One circle a run.

    Args:
        points: place of its row, value, and its seed in words.
        what: it is, in a word: `run`.
        form: of the value.
    """
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [value for _, value, _ in points],
        "y": [place for place, _, _ in points],
        "text": [seed for _, _, seed in points],
        "hovertemplate": f"{what}, %{{text}}: %{{x:{form}}}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 8, "color": "--c-muted", "line": {"width": 1.5}},
    }


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
