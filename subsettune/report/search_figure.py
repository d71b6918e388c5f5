"""The report's figure of what the search tried: every coordinate of the space, trial by trial."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from subsettune.report.drawing import (
    ARM_COLOUR,
    BELOW_MARK,
    CROSSED_MARK,
    Figure,
    Json,
    LegendRow,
    Mark,
    arm_legend,
    axis_of,
    hover,
    known_facts,
    layout_of,
    log_ticks,
    symbol,
)
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.study.spec.coordinate import Coordinate, kind_of
from subsettune.study.spec.space_check import read_space
from subsettune.text import is_number, share_words

PANEL_HEIGHT, HEAD_HEIGHT = 84, 40  # pixels of a panel, and of what stands above it
ROW_HEIGHT = 20  # of a panel of names, each
LETTER_WIDTH, LONGEST = 7, 16  # pixels of a letter beside an axis; letters of a name there, longer ones are cut
MOST_TICKS = 6  # of whole numbers, each
SHARES = ("budget", "switch", "subset_share")  # coordinates that are fractions of a whole
WORDS = {
    "budget": "budget, share of the reference's compute",
    "switch": "switch, share of the budget",
    "subset_share": "subset_share, share of the data",
}


def search_figure(view: StudyView) -> Figure | None:
    """What the search tried, trial by trial: a panel for each coordinate that has something to choose."""
    if not view.trials or view.facts is None:
        return None
    panels = [_budget_panel(view), *(_panel(view, axis) for axis in _axes(view))]
    return Figure(
        name="search",
        title="What the search tried, trial by trial, on the validation split",
        reading=(
            "One column a trial, in the order in which they began; a panel for each coordinate of the space, empty "
            "where a trial has none. The steps in the first panel are the cheapest policy of the arm that had reached "
            "the target on two seeds by then. On the test split a dearer one may be needed: verification begins where "
            "a policy is likely to pass."
        ),
        legend=_legend(view),
        data=tuple(trace | {"yaxis": f"y{i}"} for i, (traces, _) in enumerate(panels, start=1) for trace in traces),
        layout=_layout(view, [axis for _, axis in panels]),
    )


Panel = tuple[list[Json], Json]


def _layout(view: StudyView, axes: Sequence[Json]) -> Json:
    """Panels below one another, each as high as what it shows needs."""
    heights = [max(PANEL_HEIGHT, ROW_HEIGHT * len(axis.get("categoryarray", ()))) for axis in axes]
    whole = sum(heights) + HEAD_HEIGHT * len(axes)
    span = [-1, max(run.number for run in view.trials) + 1]
    longest = max(6, *(len(str(words)) for axis in axes for words in axis.get("ticktext", ())))
    left = 24 + LETTER_WIDTH * longest
    layout = layout_of(whole + 60, xaxis=axis_of("trial", anchor=f"y{len(axes)}", range=span), annotations=[])
    layout["margin"] = {**layout["margin"], "l": left}
    top = 1.0
    for i, (axis, height) in enumerate(zip(axes, heights, strict=True), start=1):
        upper = top - HEAD_HEIGHT / whole
        top = max(0.0, upper - height / whole)
        layout[f"yaxis{i}"] = axis | {"domain": [top, upper], "anchor": "x", "title": {"text": ""}, "automargin": False}
        layout["annotations"].append(_panel_title(axis["title"]["text"], upper, left))
    return layout


def _panel_title(words: str, bottom: float, left: int) -> Json:
    """From the left end of the figure on, so that it has room on a narrow screen."""
    place = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": bottom, "yanchor": "bottom"}
    words = f"<b>{html.escape(words)}</b>"
    return {**place, "xshift": 4 - left, "text": words, "showarrow": False, "font": {"size": 13}}


def _legend(view: StudyView) -> tuple[LegendRow, ...]:
    legend = arm_legend(view)
    finished = [run for run in view.trials if run.cause == "finished"]
    below = {run.policy.arm for run in finished if not view.reaches(run.metric)}
    crossed = {run.policy.arm for run in view.trials if run.cause != "finished"}
    for arms, mark, why in (
        (below, BELOW_MARK, "below the target"),
        (crossed, CROSSED_MARK, "stopped, diverged or failed"),
    ):
        legend += [(mark[arm], colour, why) for arm, colour in ARM_COLOUR.items() if arm in arms]
    confirmed = [arm for arm in ARM_COLOUR if _bound_trace(view, arm)["x"]]
    words = {"full": "of all data", "subset": "of the subset arm"}
    marks: dict[str, Mark] = {"full": "line", "subset": "dashed"}
    for arm in confirmed:
        legend.append((marks[arm], ARM_COLOUR[arm], f"cheapest {words[arm]} at the target on two seeds"))
    return tuple(legend)


def _axes(view: StudyView) -> list[Coordinate]:
    """The coordinates that a trial has a value of, and that are not the same everywhere; options behind their owner."""
    axes = {axis.name: axis for axis in read_space(view.study.space).coordinates}
    names = list(axes)

    def place(name: str) -> tuple[int, bool]:
        owner, dot, _ = name.rpartition(".")
        kind = (owner if owner in axes else kind_of(owner, axes)) if dot else None
        return names.index(kind or name), bool(dot)

    drawn = {name for run in view.trials for name in run.coordinates} - {"arm", "budget"}
    return [axes[name] for name in sorted(names, key=place) if name in drawn and not axes[name].is_single]


def _budget_panel(view: StudyView) -> Panel:
    """What a trial is known to cost, with all that is known of it where one points at it."""
    shares = [run.cost_flops / known_facts(view).reference_flops for run in view.trials]
    axis = _number_axis("budget", min(shares) / 1.3, max(shares) * 1.3, log=True)
    told = {"text": [hover(view, run) for run in view.trials], "hovertemplate": "%{text}<extra></extra>"}
    return [*(_bound_trace(view, arm) for arm in ARM_COLOUR), _tried(view, view.trials, shares) | told], axis


def _panel(view: StudyView, axis: Coordinate) -> Panel:
    """One coordinate."""
    runs = [run for run in view.trials if axis.name in run.coordinates]
    values = [run.coordinates[axis.name] for run in runs]
    if axis.kind == "choice" or not all(map(is_number, values)):
        names = [str(value) for value in values]
        listed = list(dict.fromkeys([*map(str, axis.values), *names]))[::-1]  # the usual one highest
        told = {"tickvals": listed, "ticktext": [html.escape(_short(name)) for name in listed]}
        order = {"categoryorder": "array", "categoryarray": listed, "range": [-0.6, len(listed) - 0.4], **told}
        return [_tried(view, runs, names)], axis_of(axis.name, type="category", **order)
    low, high = min(axis.lo, *values), max(axis.hi, *values)
    is_log = axis.log and low > 0
    pad = (high / low) ** 0.08 if is_log else 0.08 * (high - low)
    ends = (low / pad, high * pad) if is_log else (low - pad, high + pad)
    made = _number_axis(axis.name, *ends, log=is_log)
    if axis.kind == "int" and high - low < MOST_TICKS:
        ticks = list(range(int(low), int(high) + 1))
        made |= {"tickvals": ticks, "ticktext": [f"{tick}" for tick in ticks]}
    return [_tried(view, runs, values)], made


def _short(name: str) -> str:
    """A name; of one of the user's own, the name of its class."""
    last = name.rpartition(":")[2]
    return last if len(last) <= LONGEST else f"{last[: LONGEST - 2]}.."


def _number_axis(name: str, low: float, high: float, *, log: bool) -> Json:
    """An axis of numbers; of shares in per cent."""
    words = WORDS.get(name, name)
    if not log and name not in SHARES:
        return axis_of(words, range=[low, high], nticks=5)
    middle = float(f"{math.sqrt(low * high):.1e}") if log else 0.0  # a narrow range may hold no round number
    ticks = (log_ticks(low, high) or [middle]) if log else [tick / 4 for tick in range(5)]
    told = [share_words(tick) if name in SHARES else f"{tick:g}" for tick in ticks]
    scale = {"type": "log", "range": [math.log10(low), math.log10(high)]} if log else {"range": [low, high]}
    return axis_of(words, tickvals=ticks, ticktext=told, **scale)


def _tried(view: StudyView, runs: Sequence[RunRecord], values: Sequence[Any]) -> Json:
    colours = [ARM_COLOUR[run.policy.arm] for run in runs]
    marks = {"color": colours, "size": 8, "symbol": [symbol(view, run) for run in runs]}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [run.number for run in runs],
        "y": list(values),
        "text": [f"seed {run.seed}" for run in runs],
        "hovertemplate": "trial %{x}, %{text}: %{y}<extra></extra>",
        "marker": {**marks, "line": {"width": 1.5, "color": colours}},
    }


def _bound_trace(view: StudyView, arm: str) -> Json:
    """The bound of an arm after each trial, as a share of the reference's compute."""
    x, y, seeds = [], [], dict[str, set[int]]()
    bound = math.inf
    for run in view.trials:
        if run.policy.arm == arm and run.cause == "finished" and view.reaches(run.metric):
            reached = seeds.setdefault(run.policy.key, set())
            reached.add(run.seed)
            if len(reached) > 1:
                bound = min(bound, run.cost_flops / known_facts(view).reference_flops)
        if math.isfinite(bound):
            x.append(run.number)
            y.append(bound)
    line = {"shape": "hv", "width": 2, "color": ARM_COLOUR[arm], "dash": "solid" if arm == "full" else "dash"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}
