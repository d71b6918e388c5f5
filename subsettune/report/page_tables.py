"""The tables of the report's page, cell by cell: the result, the evidence, components, costs and failures."""

from __future__ import annotations

from dataclasses import dataclass

from subsettune.report import early_stop
from subsettune.report.components import cheapest_passes, component_text, component_title
from subsettune.report.costs import phase_costs_table, stage_costs_table
from subsettune.report.evidence import (
    EvidenceRow,
    contrast_words,
    evidence_rows,
    interval_words,
    rate_words,
    runs_words,
)
from subsettune.report.intervals import test_metrics
from subsettune.report.render import Table
from subsettune.report.tables import ResultRow, result_rows
from subsettune.study.results.ablation import ABLATION_WORDS, AblationResult
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.records import RunRecord
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.summary import ComponentRow
from subsettune.study.results.view import REFERENCE, StudyView
from subsettune.text import (
    NOTHING,
    change_words,
    counted,
    describe,
    flops_words,
    metric_name,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    sentence,
    share_words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table of the page.

    Args:
        title: heading of its column, and its label on a narrow screen.
        text: what it says.
        is_number: aligned to the right.
        is_strong: the subject of its row.
        is_chip: a verdict, in the colour of `colour` if that is given: `good` or `bad`.
        colour: of a chip.
        small: beside the text.
        sub: below it.
    """

    title: str = ""
    text: str
    is_number: bool = False
    is_strong: bool = False
    is_chip: bool = False
    colour: str = ""
    small: str = ""
    sub: str = ""

    @property
    def classes(self) -> str:
        """CSS classes; a narrow screen leaves out a cell that says nothing."""
        is_empty = self.text in ("", NOTHING) and not (self.small or self.sub)
        return ("num" if self.is_number else "") + (" none" if is_empty else "")


def page_tables(view: StudyView) -> dict[str, list[list[Cell]]]:
    """The tables of the page by name; empty is what there is nothing of."""
    return {
        "result": [_result_cells(view, row) for row in result_rows(view)],
        "evidence": _evidence(view),
        "seeds": _seed_rows(view),
        "components": [_component_cells(view, row) for row in view.summary.components] if view.trials else [],
        "stages": _table_cells(stage_costs_table(view)),
        "costs": _table_cells(phase_costs_table(view)),
        "early_stops": _table_cells(early_stop.early_stop_table(view)),
        "failures": _failures(view),
    }


def _number(title: str, text: str, *, small: str = "", sub: str = "") -> Cell:
    return Cell(title=title, text=text, is_number=True, small=small, sub=sub)


def _subject(text: str, sub: str = "", title: str = "") -> Cell:
    return Cell(title=title, text=text, is_strong=True, sub=sub)


def _verdict_cell(words: str) -> Cell:
    colour = "good" if words in ("passed", "better") else "bad" if words.startswith("missed") else ""
    return Cell(title="verdict", text=words, is_chip=True, colour=colour)


def _result_cells(view: StudyView, row: ResultRow) -> list[Cell]:
    tolerance, seeds = view.study.task.tolerance, f"n={row.runs}" if row.num_seeds else ""
    return [
        _subject(f"{row.title}{row.of_round}", row.policy, title="policy"),
        _number(metric_name(view.study.task.metric), metric_words(row.metric, tolerance), small=seeds),
        _number("bound", metric_words(row.bound, tolerance, signed=True)),
        _number("error", change_words(row.error_increase)),
        _number("passes", passes_words(row.passes)),
        _number("compute", flops_words(row.flops, view.unit)),
        _number("time", seconds_words(row.seconds)),
        _number("saved", saving_words(row.saving)),
        _number("vs short", saving_words(row.saving_shorter)),
        _verdict_cell(row.verdict),
    ]


def _evidence(view: StudyView) -> list[list[Cell]]:
    """Candidates against the reference, and the winner against its controls."""
    against = (_contrast_cells(view, contrast) for contrast in view.manifest.contrasts.values())
    return [*(_evidence_cells(view, row) for row in evidence_rows(view)), *against]


def _evidence_cells(view: StudyView, row: EvidenceRow) -> list[Cell]:
    tolerance = view.study.task.tolerance
    words = f"{describe(view.candidates[row.name].policy, view.facts)}. {sentence(row.reason)}".strip()
    return [
        _subject(view.named(row.name), words, title="candidate"),
        _number("n", runs_words(row.num_seeds, row.num_references)),
        _number("mean difference", metric_words(row.difference, tolerance, signed=True)),
        _number("lower bound", metric_words(row.bound, tolerance, signed=True)),
        _number("above", f"{-tolerance:g}" if row.level is not None else NOTHING),
        *_other_examples(view, row.sampled),
        _number("level", rate_words(row.level)),
        _number("p-value", rate_words(row.p_value)),
        _verdict_cell(row.verdict),
    ]


def _other_examples(view: StudyView, sampled: SampledDifference | None) -> list[Cell]:
    """The two-sided interval where test examples are drawn anew, too; no column where that is known of none."""
    if not view.manifest.sampled:
        return []
    return [_number("other examples", interval_words(sampled, view.study.task.tolerance))]


def _contrast_cells(view: StudyView, contrast: Contrast) -> list[Cell]:
    """The winner against a control of it, in the columns of the evidence."""
    tolerance = view.study.task.tolerance
    pairs = f"{counted(contrast.num_seeds, 'pair')} of runs with one seed" if contrast.num_seeds else ""
    return [
        _subject(f"{contrast.policy} against {contrast.control}", pairs, title="candidate"),
        _number("n", str(contrast.num_seeds or NOTHING)),
        _number("mean difference", metric_words(contrast.mean_difference, tolerance, signed=True)),
        _number("lower bound", metric_words(contrast.claimed_bound, tolerance, signed=True)),
        _number("above", "0" if contrast.is_claim else NOTHING),
        *_other_examples(view, None),
        _number("level", rate_words(contrast.claimed_level)),
        _number("p-value", NOTHING),
        _verdict_cell(contrast_words(contrast)),
    ]


def _seed_rows(view: StudyView) -> list[list[Cell]]:
    tolerance = view.study.task.tolerance
    by_name = {name: test_metrics(view, name) for name in (REFERENCE, *view.candidates)}
    seeds = sorted({seed for metrics in by_name.values() for seed in metrics})
    return [
        [
            _subject(view.named(name), title="policy"),
            *(_number(f"seed {s}", metric_words(metrics.get(s), tolerance)) for s in seeds),
        ]
        for name, metrics in by_name.items()
        if metrics
    ]


def _table_cells(table: Table | None) -> list[list[Cell]]:
    """A table whose first column names what the others count."""
    if table is None:
        return []
    titles = [column.title for column in table.columns]
    return [
        [
            _subject(row[0], title=titles[0]),
            *(_number(title, text) for title, text in zip(titles[1:], row[1:], strict=True)),
        ]
        for row in table.rows
    ]


def _component_cells(view: StudyView, row: ComponentRow) -> list[Cell]:
    """A component: its trials, and whether it paid for itself."""
    counted = [
        _subject(component_title(row), component_text(view, row), title="component"),
        Cell(title="against", text=row.against or NOTHING),
        _number("met", f"{row.feasible}/{row.trials}"),
        _number("passes", passes_words(cheapest_passes(view, row))),
    ]
    return [*counted, *_ablation_cells(view, row.ablation)] if view.ablation else counted


def _ablation_cells(view: StudyView, found: AblationResult | None) -> list[Cell]:
    tolerance = view.study.task.tolerance
    difference = (None, None, None) if found is None else (found.difference, found.lower, found.upper)
    mean, lower, upper = (metric_words(value, tolerance, signed=True) for value in difference)
    return [
        _number("compute", flops_words(found.cost_flops if found else None, view.unit)),
        _number("selection", share_words(found.selection_share if found else None)),
        _number("seeds", str(len(found.differences) if found and found.differences else NOTHING)),
        _number("differ", mean),
        _number("from", lower),
        _number("to", upper),
        _paid_cell(found),
    ]


def _paid_cell(found: AblationResult | None) -> Cell:
    if found is None:
        return Cell(title="paid?", text=NOTHING)
    colour = {"paid": "good", "not_paid": "bad"}.get(found.verdict, "")
    return Cell(title="paid?", text=ABLATION_WORDS[found.verdict], is_chip=True, colour=colour)


def _failures(view: StudyView) -> list[list[Cell]]:
    """Runs without a result, with what went wrong and where the log is."""
    everything = (*view.reference, *view.trials, *view.verification, *view.ablation_runs)
    return [_failure_cells(run) for run in everything if run.cause in ("failed", "diverged")]


def _failure_cells(run: RunRecord) -> list[Cell]:
    happened = Cell(title="what happened", text=run.message, sub=f"Log: {run.log}" if run.log else "")
    return [_subject(run.name, title="run"), Cell(title="cause", text=run.cause), happened]
