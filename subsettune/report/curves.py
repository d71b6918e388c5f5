"""The report's figures over time: learning curves, and what the search tried trial by trial."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from subsettune.policy import FULL, Policy
from subsettune.report.drawing import (
    ARM_COLOUR,
    ARM_WORDS,
    Figure,
    Json,
    ProgressMarker,
    axis_of,
    known_facts,
    layout_of,
    levels,
    log_ticks,
    metric_title,
    points,
)
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.text import describe, is_number, passes_words, sentence, share_words

_PANEL, _PANEL_HEAD = 0.9, 0.17  # where a panel of the search ends, and begins, as shares of its row


def curves_figure(view: StudyView) -> Figure | None:
    """Learning curves of the winner, or of what comes closest to one, beside the reference's."""
    chosen = _winner(view)
    runs = [run for run in view.reference if run.curve]
    if view.facts is None or not (runs or chosen):
        return None
    title, policy, own = chosen or ("", None, [])
    traces = [_curve_trace(view, run, "--c-muted", "reference") for run in runs]
    colour = ARM_COLOUR[policy.arm] if policy else "--c-muted"
    traces += [_curve_trace(view, run, colour, title) for run in own]
    drawn = [x for trace in traces for x in trace["x"]]
    if not drawn:
        return None
    ticks = log_ticks(min(drawn) / 1.1, max(drawn) * 1.1)
    span = [math.log10(min(drawn) / 1.1), math.log10(max(drawn) * 1.1)]
    layout = layout_of(
        400,
        xaxis=axis_of("passes spent (log scale)", type="log", range=span)
        | {"tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]},
        yaxis=axis_of(metric_title(view)),
        **_levels_and_switches(view, policy),
    )
    legend: list[tuple[ProgressMarker, str, str]] = [("line", "--c-muted", "reference, one line a seed")]
    switched = policy is not None and len(policy.phases) > 1
    words = "" if policy is None else f"{title}: {describe(policy, view.facts)}"
    if any(len(run.curve) > 1 for run in own):
        legend.insert(0, ("line", colour, words))
    if any(len(run.curve) == 1 for run in own):
        legend.append(("dot", colour, f"{words}; a run that was evaluated at its end alone"))
    return Figure(
        name="curves",
        title=f"Learning curves of the {title}" if title else "Learning curves of the reference",
        reading=f"{sentence(metric_title(view))} as compute is spent, one line a run."
        + (" The vertical line marks the switch from the subset to all data." if switched else ""),
        legend=tuple(legend),
        data=tuple(traces),
        layout=layout,
    )


def _winner(view: StudyView) -> tuple[str, Policy, list[RunRecord]] | None:
    """Words, policy and runs of the best policy, or of a candidate that missed.

    Its trials, which were looked at on their way, beside the ends of its verified runs; a study of an earlier version
    has whole curves of these, which are enough.
    """
    best = view.summary.best
    if best is not None:
        policy, title = best.policy, "best policy" if best.passed else "best policy so far"
    elif view.tested:
        near = min(view.tested, key=lambda verdict: verdict.shortfall or math.inf).name
        policy, title = view.candidates[near].policy, f"candidate that came nearest ({near})"
    else:
        return None
    names = [candidate.name for candidate in view.candidates.values() if candidate.policy.key == policy.key]
    name = best.name if best is not None and best.name is not None else next(iter(names), None)
    verified = [run for run in view.verification if run.candidate == name and run.curve]
    trials = [run for run in view.trials if run.policy.key == policy.key and run.curve]
    return title, policy, verified if any(len(run.curve) > 1 for run in verified) else [*trials, *verified]


def _curve_trace(view: StudyView, run: RunRecord, colour: str, words: str) -> Json:
    facts = known_facts(view)
    points = [point for point in run.curve if is_number(point.metric) and point.flops > 0]
    return {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "x": [point.flops / facts.pass_flops for point in points],
        "y": [point.metric for point in points],
        "line": {"width": 1.5, "color": colour},
        "marker": {"size": 8, "color": colour},
        "opacity": 0.8,
        "hovertemplate": html.escape(f"{words}, seed {run.seed}") + ": %{y:.5g} at %{x:.3g} passes<extra></extra>",
    }


def _levels_and_switches(view: StudyView, policy: Policy | None) -> Json:
    lines, rising = levels(view, "y"), view.study.task.higher_is_better
    for boundary in policy.boundaries(known_facts(view))[:-1] if policy else ():
        x = boundary / known_facts(view).pass_flops
        line = {"color": "--c-ink", "width": 1.5, "dash": "dot"}
        at = {"type": "line", "xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}
        lines["shapes"].append(at)
        level = {"y": 0.02, "yanchor": "bottom"} if rising else {"y": 0.98, "yanchor": "top"}
        text = {"xref": "x", "x": math.log10(x), "yref": "paper", "xanchor": "left", **level}
        words = {"text": f"switch at {passes_words(x)} passes", "showarrow": False, "xshift": 4}
        lines["annotations"].append({**text, **words, "font": {"size": 12, "color": "--c-ink"}})
    return lines


# ---- the search over time


def search_figure(view: StudyView) -> Figure | None:
    """What the search tried, trial by trial: budget, switch, subset share, selector, order."""
    if not view.trials or view.facts is None:
        return None
    panels = (_budget_panel, _switch_panel, _share_panel, _selector_panel, _order_panel)
    drawn = [made for panel in panels if (made := panel(view))]
    traces: list[Json] = []
    height = 1 / len(drawn)
    span = [-1, max(run.number for run in view.trials) + 1]
    xaxis = axis_of("trial", anchor=f"y{len(drawn)}", range=span)
    layout = layout_of(40 + 150 * len(drawn), xaxis=xaxis, annotations=[])
    for i, (panel_traces, axis) in enumerate(drawn, start=1):
        top = 1 - (i - 1) * height
        domain = [top - height * _PANEL, top - height * _PANEL_HEAD]
        layout[f"yaxis{i}"] = axis | {"domain": domain, "anchor": "x", "title": {"text": ""}}
        layout["annotations"].append(_panel_title(axis["title"]["text"], domain[1]))
        traces += [trace | {"yaxis": f"y{i}"} for trace in panel_traces]
    return Figure(
        name="search",
        title="What the search tried",
        reading=(
            "One column a trial, in the order in which they began. The steps in the first panel are the cheapest "
            "policy of the arm that had reached the target on two seeds by then. On the test split a dearer one may be "
            "needed: verification begins where a policy is likely to pass."
        ),
        legend=(
            ("dot", "--c-full", ARM_WORDS["full"]),
            ("dot", "--c-subset", ARM_WORDS["subset"]),
            ("hollow", "--c-ink", "below the target"),
            ("cross", "--c-ink", "stopped, diverged or failed"),
            ("line", "--c-ink", "cheapest at the target on two seeds (in the colour of the arm)"),
        ),
        data=tuple(traces),
        layout=layout,
    )


def _panel_title(words: str, bottom: float) -> Json:
    place = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": bottom, "yanchor": "bottom"}
    return {**place, "text": f"<b>{words}</b>", "showarrow": False, "font": {"size": 13}}


Panel = tuple[list[Json], Json]


def _budget_panel(view: StudyView) -> Panel:
    shares = [run.cost_flops / known_facts(view).reference_flops for run in view.trials]
    axis = _share_axis("budget, share of the reference", shares, log=True)
    return [*(_bound_trace(view, arm) for arm in ARM_COLOUR), *_tried(view, view.trials, shares)], axis


def _switch_panel(view: StudyView) -> Panel | None:
    runs = [run for run in view.trials if run.policy.switch > 0]
    shares = [run.policy.switch for run in runs]
    axis = _share_axis("switch, share of the budget", [0.0, 1.0], log=False)
    return (_tried(view, runs, shares), axis) if runs else None


def _share_panel(view: StudyView) -> Panel | None:
    runs = [run for run in view.trials if run.policy.arm != FULL]
    shares = [next(phase.share for phase in run.policy.phases if phase.active_soup is None) for run in runs]
    if not runs:
        return None
    return _tried(view, runs, shares), _share_axis("subset, share of the data", shares, log=True)


def _selector_panel(view: StudyView) -> Panel:
    return _named_panel(view, "selector", [_selector(run.policy) for run in view.trials], "all data")


def _order_panel(view: StudyView) -> Panel | None:
    names = [run.policy.phases[0].order for run in view.trials]
    return _named_panel(view, "order", names, "uniform") if set(names) != {"uniform"} else None


def _named_panel(view: StudyView, title: str, names: Sequence[str], last: str) -> Panel:
    """One name a trial; the neutral one lies lowest."""
    order = sorted(set(names), key=lambda name: (name == last, name), reverse=True)
    axis = axis_of(title, categoryorder="array", categoryarray=order, range=[-0.6, len(order) - 0.4])
    return _tried(view, view.trials, names), axis


def _selector(policy: Policy) -> str:
    chosen = (phase.selector for phase in policy.phases if not phase.is_full and phase.active_soup is None)
    return next(chosen, "all data")


def _share_axis(title: str, shares: Sequence[float], *, log: bool) -> Json:
    if not log:
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        return axis_of(title, range=[-0.05, 1.05], tickvals=ticks, ticktext=[share_words(t) for t in ticks])
    low, high = min(shares) / 1.3, max(shares) * 1.3
    ticks = log_ticks(low, high)
    span = [math.log10(low), math.log10(high)]
    return axis_of(title, type="log", range=span, tickvals=ticks, ticktext=[share_words(t) for t in ticks])


def _tried(view: StudyView, runs: Sequence[RunRecord], values: Sequence[float | str]) -> list[Json]:
    colours = [ARM_COLOUR[run.policy.arm] for run in runs]
    symbols = [
        "x-thin-open" if run.cause != "finished" else "circle" if view.reaches(run.metric) else "circle-open"
        for run in runs
    ]
    marker = {"color": colours, "size": 8, "symbol": symbols, "line": {"width": 1.5, "color": colours}}
    trace = points(view, runs) | {"x": [run.number for run in runs], "y": list(values), "marker": marker}
    return [trace]


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
    line = {"shape": "hv", "width": 2, "color": ARM_COLOUR[arm]}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}
