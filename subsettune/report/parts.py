"""One part of what a study found, as `show RUN PART` prints it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from subsettune.report.components import components_table
from subsettune.report.costs import cost_sentences, phase_costs_table, stage_costs_table
from subsettune.report.early_stop import early_stop_table
from subsettune.report.evidence import candidates_table, contrasts_table, how_tested
from subsettune.report.render import Block, Column, Table
from subsettune.report.tables import (
    counts_text,
    known_before_sentences,
    legend,
    policy_table,
    result_rows,
    result_table,
    tuning_text,
)
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.text import (
    describe,
    flops_words,
    is_number,
    metric_name,
    metric_words,
    passes_words,
    share_words,
)

ENDS = ("met", "below", "stopped", "diverged", "failed")  # of trials, in the order of the table
FAILED = ("diverged", "failed")
SHARE_DIGITS = 3  # looks at nearly the same share of two runs' compute are one


def part_blocks(view: StudyView, part: str) -> list[Block]:
    """What is known of one of `PARTS`; a sentence where there is nothing yet."""
    found = [block for block in PARTS[part](view) if block]
    return found or [f"No {part} yet: {view.summary.headline}"]


# ---- trials


def _trials(view: StudyView) -> list[Block]:
    if not view.trials:
        return []
    runs = sorted(view.trials, key=lambda run: (ENDS.index(_end(view, run)), run.policy.passes, run.number))
    rows = tuple(
        (
            f"{run.number}",
            _end(view, run),
            metric_words(run.metric, view.study.task.tolerance),
            passes_words(run.policy.passes),
            describe(run.policy, view.facts),
        )
        for run in runs
    )
    titles = ("trial", "target", metric_name(view.study.task.metric), "passes")
    columns = tuple(Column(title=t, align="left" if t == "target" else "right") for t in titles)
    failed = [f"trial {run.number}: {' '.join(run.message.split())}" for run in runs if run.cause in FAILED]
    table = Table(columns=(*columns, Column(title="policy", wrap=True)), rows=rows, note="\n".join(failed))
    return [table, f"{_target(view)} {counts_text(view)}"]


def _end(view: StudyView, run: RunRecord) -> str:
    if run.cause != "finished":
        return run.cause
    return "met" if view.reaches(run.metric) else "below"


def _target(view: StudyView) -> str:
    """What the search took for matched."""
    target = metric_words(view.target, view.study.task.tolerance)
    which = "or more" if view.study.task.higher_is_better else "or less"
    return f"met: {target} {which} on the validation split, in one run; cheapest first."


# ---- verification, ablation, costs


def _verification(view: StudyView) -> list[Block]:
    if not view.candidates:
        return []
    tables = [policy_table(view), candidates_table(view), contrasts_table(view)]
    return [*(table for table in tables if table is not None), how_tested(view)]


def _ablation(view: StudyView) -> list[Block]:
    return [components_table(view)] if view.trials and view.summary.components else []


def _costs(view: StudyView) -> list[Block]:
    found: list[Block] = []
    if result_rows(view):
        found += [result_table(view), legend(view)]
    tables = (stage_costs_table(view), early_stop_table(view), phase_costs_table(view))
    found += [table for table in tables if table is not None]
    return [*found, "\n".join([tuning_text(view), *known_before_sentences(view), *cost_sentences(view)])]


# ---- curves


def _curves(view: StudyView) -> list[Block]:
    """Mean learning curves of the reference and of the best policy, a line a look."""
    best = view.summary.best
    groups: dict[str, Sequence[RunRecord]] = {"reference": view.reference}
    if best is not None:
        groups["best"] = [run for run in view.trials if run.policy.key == best.policy.key]
    rows = [row for name, runs in groups.items() for row in _looks(view, name, runs)]
    if not rows:
        return []
    titles = ("", "spent", "compute", "runs", metric_name(view.study.task.metric), "least", "largest")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    told = "" if best is None else f" best, in the search: {describe(best.policy, view.facts)}."
    note = f"On the validation split, when a share of a run's compute was spent: the mean of its runs.{told}"
    return [Table(columns=columns, rows=tuple(rows), note=note)]


def _looks(view: StudyView, name: str, runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    looks: dict[float, list[tuple[float, int]]] = defaultdict(list)
    for run in runs:
        for point in run.curve:
            if point.metric is not None and is_number(point.metric):
                looks[round(point.share, SHARE_DIGITS)].append((point.metric, point.flops))
    tolerance, rows = view.study.task.tolerance, []
    for share, found in sorted(looks.items()):
        metrics = [metric for metric, _ in found]
        mean = math.fsum(metrics) / len(metrics)
        flops = math.fsum(flops for _, flops in found) / len(found)
        ends = (metric_words(value, tolerance) for value in (mean, min(metrics), max(metrics)))
        rows.append((name, share_words(share), flops_words(flops, view.unit), f"{len(found)}", *ends))
    return rows


PARTS: Mapping[str, Callable[[StudyView], list[Block]]] = {
    "trials": _trials,
    "verification": _verification,
    "ablation": _ablation,
    "costs": _costs,
    "curves": _curves,
}
