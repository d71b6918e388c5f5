"""The recipe with an early stop, as a table: what it would have saved, and that nothing was tested for it."""

from __future__ import annotations

from subsettune.report.render import Column, Table
from subsettune.study.results.summary import EarlyStop
from subsettune.study.results.view import StudyView
from subsettune.text import flops_words, metric_name, metric_words, passes_words, saving_words

TITLE = "The recipe stopped early, on the validation split"


def early_stop_table(view: StudyView) -> Table | None:
    """A line for each patience and one truncated; None before the reference has run."""
    if not view.summary.early_stops:
        return None
    titles = ("stopped", "metric", "at end", "passes", "compute", "saved", "within")
    return Table(
        title=TITLE,
        columns=(Column(title="recipe"), *(Column(title=title, align="right") for title in titles)),
        rows=tuple(_row(view, one) for one in view.summary.early_stops),
        note=note(view),
    )


def _row(view: StudyView, one: EarlyStop) -> tuple[str, ...]:
    tolerance, facts = view.study.task.tolerance, view.facts
    passes = None if facts is None else one.flops / facts.pass_flops
    return (
        f"patience {one.patience}" if one.look is None else f"truncated at {one.look}",
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
    earliest = "the earliest from which on the mean over runs is within the tolerance, chosen in hindsight"
    if not any(one.look for one in stops):
        earliest = "none before the end, from which on the mean over runs is within the tolerance"
    return (
        f"From the learning curves of the reference: stopped when the validation {metric_name(task.metric)} has not "
        f"improved for `patience` of {looks} looks, the best weights kept; or all runs truncated at one look, the "
        f"schedule unchanged: {earliest}. Looks are charged. within: the mean is within {task.tolerance:g} of that at "
        f"the end of the same runs. Each is the best of {looks} looks at the validation split, which flatters, and was "
        "not tested on the test split; what is not within saves nothing. More looks (`study.reference_looks`) may find "
        "an earlier one, and cost more."
    )
