"""The report's figure of learning curves."""

from __future__ import annotations

import html
import math

from subsettune.policy import Policy
from subsettune.report.drawing import (
    ARM_COLOUR,
    ARM_MARK,
    ARM_SYMBOL,
    Figure,
    Json,
    LegendRow,
    axis_of,
    known_facts,
    layout_of,
    levels,
    log_ticks,
    metric_title,
)
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.text import describe, is_number, passes_words, sentence


def curves_figure(view: StudyView) -> Figure | None:
    """Learning curves of the winner, or of what comes closest to one, beside the reference's."""
    chosen = _winner(view)
    runs = [run for run in view.reference if run.curve]
    if view.facts is None or not (runs or chosen):
        return None
    title, policy, own = chosen or ("", None, [])
    colour = ARM_COLOUR[policy.arm] if policy else "--c-muted"
    traces = [_curve_trace(view, run, "reference", {"width": 1.5, "color": "--c-muted", "dash": "dot"}) for run in runs]
    traces += [_curve_trace(view, run, title, {"width": 2, "color": colour}) for run in own]
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
    legend: list[LegendRow] = [("dashed", "--c-muted", "reference, one line a seed")]
    words = "" if policy is None else f"{title}: {describe(policy, view.facts)}"
    if any(len(run.curve) > 1 for run in own):
        legend.insert(0, ("line", colour, words))
    if any(len(run.curve) == 1 for run in own):
        mark = "dot" if policy is None else ARM_MARK[policy.arm]
        legend.append((mark, colour, f"{words}; a run that was evaluated at its end alone"))
    upright = [words for _, _, words in _changes(policy)]
    return Figure(
        name="curves",
        title=f"Learning curves of the {title or 'reference'}, on the validation split",
        reading=f"{sentence(metric_title(view))} as compute is spent, one line a run."
        + (f" The vertical line is where {' and where '.join(upright)}." if upright else ""),
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
        near = (view.nearest or view.tested[0]).name
        policy, title = view.candidates[near].policy, f"candidate that came nearest ({view.named(near)})"
    else:
        return None
    names = [candidate.name for candidate in view.candidates.values() if candidate.policy.key == policy.key]
    name = best.name if best is not None and best.name is not None else next(iter(names), None)
    verified = [run for run in view.verification if run.candidate == name and run.curve]
    trials = [run for run in view.trials if run.policy.key == policy.key and run.curve]
    return title, policy, verified if any(len(run.curve) > 1 for run in verified) else [*trials, *verified]


def _curve_trace(view: StudyView, run: RunRecord, words: str, line: Json) -> Json:
    facts = known_facts(view)
    points = [point for point in run.curve if is_number(point.metric) and point.flops > 0]
    return {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "x": [point.flops / facts.pass_flops for point in points],
        "y": [point.metric for point in points],
        "line": line,
        "marker": {"size": 8, "color": line["color"], "symbol": ARM_SYMBOL[run.policy.arm]},
        "opacity": 0.8,
        "hovertemplate": html.escape(f"{words}, seed {run.seed}") + ": %{y:.5g} at %{x:.3g} passes<extra></extra>",
    }


def _changes(policy: Policy | None) -> list[tuple[float, str, str]]:
    """Where training goes on with other data than before, in passes, and what happens there, in a word and in words."""
    if policy is None:
        return []
    soups = [phase.passes for phase in policy.phases if phase.active_soup is not None]
    found = [(math.fsum(soups), "soup", "the soup is averaged")] if soups else []
    if 0 < policy.switch < 1:
        found.append((policy.switch * policy.passes, "switch", "training switches from the subset to all data"))
    return found


def _levels_and_switches(view: StudyView, policy: Policy | None) -> Json:
    lines, rising = levels(view, "y"), view.study.task.higher_is_better
    for x, word, _ in _changes(policy):
        line = {"color": "--c-ink", "width": 1.5, "dash": "dot"}
        at = {"type": "line", "xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}
        lines["shapes"].append(at)
        level = {"y": 0.02, "yanchor": "bottom"} if rising else {"y": 0.98, "yanchor": "top"}
        text = {"xref": "x", "x": math.log10(x), "yref": "paper", "xanchor": "left", **level}
        words = {"text": f"{word} at {passes_words(x)} passes", "showarrow": False, "xshift": 4}
        lines["annotations"].append({**text, **words, "font": {"size": 12, "color": "--c-ink"}})
    return lines
