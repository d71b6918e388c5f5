"""What a policy costs, in sentences and a table: what is needed, what a smaller tolerance takes, how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from subsettune.policy import FULL
from subsettune.report.render import Column, Table
from subsettune.study.results.costs import ROUGH, seconds_saved
from subsettune.study.results.summary import AtMargin
from subsettune.study.results.view import StudyView
from subsettune.study.spec.space import Space
from subsettune.study.spec.space_check import read_space
from subsettune.text import (
    NOTHING,
    counted,
    flops_words,
    fraction_words,
    joined,
    metric_name,
    passes_words,
    saving_words,
    seconds_words,
    share_saved_words,
)

END_TOLERANCE = 0.005  # relative: a policy's compute is a whole number of updates
MUCH_LESS = 0.8  # time saved, as a share of the compute saved, from which down it is told: machines vary above it
ARMS = {"full": "plain training", "subset": "a subset first"}  # what `Summary.needs` is of


def cost_sentences(view: StudyView) -> list[str]:
    """What is known beside the tables; each a sentence or two, none where there is nothing to say."""
    found = (_needs(view), _at_ends(view), _at_margins(view), slow_sentence(view))
    return [text for text in found if text]


def _needs(view: StudyView) -> str:
    """The least compute that matches, as the search sees it: a policy's own cost is exact, that is not."""
    needs = view.summary.needs
    told = [
        f"{ARMS[arm]} needs {fraction_words(needs[arm][0])} to {fraction_words(needs[arm][1])} of the recipe's compute "
        f"({_between(1 - needs[arm][1], 1 - needs[arm][0])} saved)"
        for arm in ARMS
        if arm in needs
    ]
    if not told:
        return ""
    return (
        f"What it takes to match on the validation split, as the search sees it: {joined(told)}. {ROUGH} Other "
        f"examples may ask for more or less.{_beyond(view)}"
    )


def _beyond(view: StudyView) -> str:
    """That an interval reaches beyond what was tried of its arm."""
    beyond = []
    for arm, ends in view.summary.needs.items():
        most = max((run.cost_flops for run in view.trials if run.policy.arm == arm), default=0)
        share = most / view.facts.reference_flops if view.facts is not None else 0.0
        beyond += (
            [f"{ARMS[arm]} was tried up to {fraction_words(share)}"] if max(ends) > share * (1 + END_TOLERANCE) else []
        )
    return f" What lies beyond what was tried is an extrapolation: {joined(beyond)}." if beyond else ""


def _at_ends(view: StudyView) -> str:
    """Where the space ends at the best policy, so that a wider one may hold a better."""
    best, space = view.summary.best, read_space(view.study.space)
    if best is None or not view.summary.verified or view.facts is None:
        return ""
    values = {**best.policy.recipe, "budget": best.flops / view.facts.reference_flops}
    ends = {name: _is_least(space, name, value) for name, value in sorted(values.items())}
    told = [
        f"{name} {values[name]:.4g}, the {'least' if is_low else 'largest'}"
        for name, is_low in ends.items()
        if is_low is not None and (is_low or name != "budget")  # beyond the largest budget nothing is cheaper
    ]
    if not told:
        return ""
    return f"The best policy lies at an end of the space: {joined(told)}. A wider space may hold a cheaper one."


def _is_least(space: Space, name: str, value: Any) -> bool | None:
    """Whether a value is the least of a coordinate's range, and not the largest; None where it is neither."""
    axis = next((axis for axis in space.coordinates if axis.name == name and axis.kind in ("float", "int")), None)
    if axis is None or axis.is_single:
        return None
    near = {end: math.isclose(value, end, rel_tol=END_TOLERANCE) for end in (axis.lo, axis.hi)}
    return near[axis.lo] if any(near.values()) else None


def _between(low: float, high: float) -> str:
    """`69 to 82 %`."""
    return f"{saving_words(low).removesuffix(' %')} to {saving_words(high)}"


def _at_margins(view: StudyView) -> str:
    """What was verified that holds a smaller tolerance, too."""
    every = view.summary.at_margins
    if not every:
        return ""
    by_name: dict[str, list[AtMargin]] = {}
    for one in every:
        if one.name is not None:
            by_name.setdefault(one.name, []).append(one)
    told = [_holds(view, same) for same in by_name.values()]
    lacking = [_smaller(view, one) for one in every if one.name is None]
    if lacking:
        told.append(f"no policy's bound holds {' or '.join(lacking)}, for which nothing was tested")
    return f"By the bounds of the tests, which were made for the whole tolerance, {joined(told)}."


def _smaller(view: StudyView, one: AtMargin) -> str:
    name = metric_name(view.study.task.metric)
    return f"half of it ({one.margin:g})" if one.margin else f"the recipe's own {name}"


def _holds(view: StudyView, same: Sequence[AtMargin]) -> str:
    """What one policy's bound holds."""
    one = same[0]
    passes = one.flops / view.facts.pass_flops if view.facts and one.flops is not None else None
    shown = NOTHING if one.name is None else view.named(one.name)
    saved = f", {saving_words(one.saving)} saved" if one.saving is not None and one.saving > 0 else ""
    held = joined([_smaller(view, each) for each in same])
    return f"{shown} ({passes_words(passes)} passes{saved}) has a bound that holds {held}"


def seconds_beside(view: StudyView) -> str:
    """Behind a saving of compute, what a verified policy saves of the seconds; empty where none is, or unknown."""
    best, reference = view.summary.best, view.summary.reference
    if best is None or not best.passed or reference is None:
        return ""
    share = seconds_saved(best.seconds, reference.seconds)
    return "" if share is None else f" (of the seconds measured here best saves {share_saved_words(share)})"


def slow_sentence(view: StudyView) -> str:
    """That a policy saves much less time than compute; of a plain one that would be the load of the machine alone."""
    best, reference = view.summary.best, view.summary.reference
    if best is not None and best.policy.arm == FULL:
        return ""
    if best is None or not best.passed or reference is None or not best.seconds or not reference.seconds:
        return ""
    compute, time = best.flops / reference.flops, best.seconds / reference.seconds
    if 1 - time >= MUCH_LESS * (1 - compute):
        return ""
    saved = f"saves {saving_words(1 - time)}" if time < 1 else "saves nothing"
    return (
        f"In time the policy {saved}, in compute {saving_words(1 - compute)}: its compute takes {time / compute:.1f} "
        "times as long as the recipe's, as measured here."
    )


def _rate_words(seconds: float) -> str:
    """Seconds per TFLOP with three digits, thousands apart: `0.0127`, `250`, `6,150`."""
    return f"{seconds:.3g}" if seconds < 999.5 else f"{float(f'{seconds:.3g}'):,.0f}"


def stages_note(view: StudyView) -> str:
    """What the rows of that table are."""
    stages = {one.stage: one for one in view.summary.tuning.stages}
    cached = sum(run.cached for run in view.reference)
    told = ["trainings: compute over that of the recipe, evaluation and repeated work included"]
    if cached:
        told.append(f"reference: {cached} of its runs are known from an earlier study, and charged as if made here")
    if "not needed" in stages:
        told.append("not needed: runs of verification made while others were under way, on which nothing rests")
    return ". ".join([*told, ""]).rstrip()


def stage_costs_table(view: StudyView) -> Table | None:
    """What each stage cost; None before the first run has finished."""
    reference, stages = view.summary.reference, view.summary.tuning.stages
    if reference is None or not stages:
        return None
    rows = tuple(
        (
            one.stage,
            str(one.runs),
            flops_words(one.flops, view.unit),
            f"{one.flops / reference.flops:.1f}",
            seconds_words(one.seconds),
        )
        for one in stages
    )
    titles = ("stage", "runs", "compute", "trainings", "time")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    return Table(title="What tuning cost, by stage", columns=columns, rows=rows, note=stages_note(view))


def times_note(view: StudyView) -> str:
    """What the runs, compute and time of that table are of."""
    cached = sum(run.cached for run in view.reference)
    left = f"; {counted(cached, 'run')} of the reference, known from an earlier study, left out" if cached else ""
    return (
        f"runs: those that this study made and that have such a phase{left}. time: as they shared the machine; what a "
        "trial took over from another's beginning counts in both. to full: seconds per FLOP over those of phases on "
        "all data."
    )


def phase_costs_table(view: StudyView) -> Table | None:
    """Seconds per FLOP by kind of phase; None where nothing but plain phases was measured, or FLOPs are not known."""
    found = view.summary.phase_costs
    if all(one.kind == "full" for one in found) or view.unit != "FLOP":
        return None
    rows = tuple(
        (
            one.kind,
            str(one.runs),
            flops_words(one.flops, view.unit),
            seconds_words(one.seconds),
            _rate_words(one.seconds_per_tflop),
            NOTHING if one.relative is None else f"{one.relative:.2f}",
        )
        for one in found
    )
    titles = ("phase", "runs", "compute", "time", "s/TFLOP", "to full")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    return Table(title="How long compute takes, by kind of phase", columns=columns, rows=rows, note=times_note(view))
