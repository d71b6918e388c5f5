"""What each component of the space was worth: its trials, and the ablation, as a table and in sentences."""

from __future__ import annotations

from subsettune.report.render import Column, Table
from subsettune.study.results.ablation import ABLATION_CAVEAT, ABLATION_LEVEL, AblationResult
from subsettune.study.results.summary import ComponentRow
from subsettune.study.results.view import StudyView
from subsettune.study.spec.kinds import KINDS
from subsettune.text import (
    NOTHING,
    describe,
    flops_words,
    metric_name,
    metric_words,
    passes_words,
    seconds_words,
    share_words,
    sure_words,
)

NAME_WIDTH = 18  # of the longest name of our own; a user's longer one is cut in the table and whole below it


def components_table(view: StudyView) -> Table:
    """One line a component: how it compares with its neutral kin at equal cost, or its trials; fit for 80 columns."""
    rows = view.summary.components
    titles: tuple[str, ...] = ("component", "kind", "met", "passes")
    cells, notes = [_counted_cells(view, row) for row in rows], list[str]()
    if view.ablation:
        titles = ("component", "against", "n", "differ", "from", "to", "paid?")
        cells = [_ablation_cells(view, row) for row in rows if row.against is not None]
        notes = [f"{component_title(row)}: {component_text(view, row)}" for row in rows]
    words = ("component", "kind", "against", "paid?")
    columns = tuple(Column(title=t, align="left" if t in words else "right") for t in titles)
    note = "\n".join([*notes, components_legend(view)])
    return Table(title="Components", columns=columns, rows=tuple(cells), note=note)


def _counted_cells(view: StudyView, row: ComponentRow) -> tuple[str, ...]:
    met = f"{row.feasible}/{row.trials}"
    return _short(row.name), row.kind, met, passes_words(cheapest_passes(view, row))


def _ablation_cells(view: StudyView, row: ComponentRow) -> tuple[str, ...]:
    found, tolerance = row.ablation, view.study.task.tolerance
    ends = (None, None, None) if found is None else (found.difference, found.lower, found.upper)
    return (
        _short(row.name),
        str(row.against),
        str(len(found.differences)) if found is not None and found.differences else NOTHING,
        *(metric_words(value, tolerance, signed=True) for value in ends),
        NOTHING if found is None else found.words.split(":")[0],
    )


def component_title(row: ComponentRow) -> str:
    """A component of the summary by its kind and name: `order sift`, `no soup`."""
    return KINDS[row.kind].words(row.name)


def component_text(view: StudyView, row: ComponentRow) -> str:
    """How a component did in the search, what it was compared by and what that cost; or why there is no result."""
    passes = cheapest_passes(view, row)
    cheapest = "" if passes is None else f", the cheapest with {passes_words(passes)} passes"
    met = f"{row.feasible} of {row.trials} trials met the target{cheapest}"
    return f"{met}." if row.ablation is None else f"{met}; {ablation_text(view, row.ablation)}"


def cheapest_passes(view: StudyView, row: ComponentRow) -> float | None:
    """Compute of a component's cheapest trial that reached the target, in passes."""
    if view.facts is None or row.cheapest_flops is None:
        return None
    return float(row.cheapest_flops / view.facts.pass_flops)


def _short(name: str) -> str:
    short = name.rpartition(":")[2]
    return short if len(short) <= NAME_WIDTH else f"{short[: NAME_WIDTH - 2]}.."


def ablation_text(view: StudyView, row: AblationResult) -> str:
    """What a component was compared by, and what it cost; or why there is no result."""
    if row.policy is None:
        return f"{row.words.rstrip('.')}."
    borrowed = " (never finished in the search; the best policy without it, or one near it)"
    origin = "" if row.trials else borrowed
    policy = f"{describe(row.policy, view.facts)}{origin}"
    if row.difference is None:
        return f"{row.words}. {policy}."
    metrics = [metric_words(value, view.study.task.tolerance) for value in (row.metric, row.baseline_metric)]
    name, n = metric_name(view.study.task.metric), len(row.differences)
    costs = f"both cost {flops_words(row.cost_flops, view.unit)}{_charge(row)}"
    return f"{name} {metrics[0]} against {metrics[1]} over {n} seeds; {costs}. {policy}."


def _charge(row: AblationResult) -> str:
    """What of the compute goes to the component beside the updates."""
    if row.kind == "selector":
        return f", {share_words(row.selection_share)} of it ({seconds_words(row.select_s)}) for choosing the subset"
    return f", {share_words(row.selection_share)} of it for the {row.kind}" if row.selection_flops else ""


def components_legend(view: StudyView) -> str:
    """What the columns mean, and what the ablation is no evidence of."""
    counts = "met: reached the target, on the validation split, in one run, before verification."
    if not view.ablation:
        return counts
    turned = "" if view.study.task.higher_is_better else ", its sign turned so that more is better"
    return (
        f"{counts} differ: mean difference in the validation {metric_name(view.study.task.metric)} between the "
        "component's most promising policy and the same policy with, instead of it, what it stands against "
        f"({', '.join(kind.compared_with for kind in KINDS.values())}){turned}, over the same n seeds and at "
        f"the same total compute, all that the component does included; from, to: its {_interval_words(view)}. "
        f"{ABLATION_CAVEAT}"
    )


def _interval_words(view: StudyView) -> str:
    """At which levels the intervals of the ablation are, and what holds for all of its rows."""
    judged = [row for row in view.ablation.values() if row.level is not None]
    levels = sorted({row.level for row in judged if row.level is not None}) or [ABLATION_LEVEL]
    shown = " to ".join(map(sure_words, dict.fromkeys((levels[0], levels[-1]))))
    if any(row.family_size is None for row in judged):
        return f"{shown} interval, each row a test of its own"
    return f"{shown} interval: where no component makes a difference, at most one table in ten says that one does"
