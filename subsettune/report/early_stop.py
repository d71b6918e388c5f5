"""The recipe with an early stop, as a table: what it would have saved, and that nothing was tested for it."""

from __future__ import annotations

from subsettune.report.render import Column, Table
from subsettune.study.results.summary import EarlyStop
from subsettune.study.results.view import StudyView
from subsettune.text import flops_words, metric_name, metric_words, passes_words, saving_words

TITLE = "The recipe stopped early, on the validation split"


def early_stop_table(view: StudyView) -> Table | None:
    """A line for each patience; None before the reference has run."""
    if not view.summary.early_stops:
        return None
    titles = ("patience", "stopped", "metric", "at its end", "passes", "compute", "saved", "within")
    return Table(
        title=TITLE,
        columns=tuple(Column(title=title, align="right") for title in titles),
        rows=tuple(_row(view, one) for one in view.summary.early_stops),
        note=note(view),
    )


def _row(view: StudyView, one: EarlyStop) -> tuple[str, ...]:
    tolerance, facts = view.study.task.tolerance, view.facts
    passes = None if facts is None else one.flops / facts.pass_flops
    return (
        f"{one.patience}",
        f"{one.stopped} of {one.seeds}",
        metric_words(one.metric, tolerance),
        metric_words(one.reference_metric, tolerance),
        passes_words(passes),
        flops_words(one.flops, view.unit),
        saving_words(one.saving),
        "yes" if one.is_within else "no",
    )


def note(view: StudyView) -> str:
    """What the table is, and what it is not."""
    stops, task = view.summary.early_stops, view.study.task
    looks = stops[0].looks if stops else 0
    return (
        f"From the learning curves of the reference: stopped when the validation {metric_name(task.metric)} has not "
        f"improved for `patience` of {looks} looks, the best weights kept, looks charged. within: its mean is within "
        f"{task.tolerance:g} of that at the end of the same runs. It is the best of several looks at the validation "
        "split, which flatters, and was not tested on the test split; what is not within saves nothing."
    )
