"""What a study found, as tables: the result, the evidence, the counts and the cost."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from subsettune.policy import SUBSET
from subsettune.report.components import components_table
from subsettune.report.costs import cost_sentences, phase_costs_table, seconds_beside, stage_costs_table
from subsettune.report.data_tables import warning_blocks
from subsettune.report.early_stop import early_stop_table
from subsettune.report.evidence import candidates_table, contrasts_table, has_level, runs_words
from subsettune.report.render import WIDTH, Block, Column, Table, render
from subsettune.study.results import verified_before
from subsettune.study.results.headline import outcome_words
from subsettune.study.results.sampled import these_alone
from subsettune.study.results.summary import PolicyRow, ReferenceRow
from subsettune.study.results.view import REFERENCE, StudyView
from subsettune.text import (
    NOTHING,
    change_words,
    counted,
    describe,
    flops_words,
    joined,
    metric_name,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    sentence,
    short_seconds_words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One line of the result: the reference, the best policy, or a control.

    Args:
        role: `reference`, `best`, `shorter`, `equal`, `own` or `random`.
        title: the role in words.
        policy: in words.
        verdict: in words.
        is_subset: whether the policy is of the subset arm.
        num_seeds: runs behind the metric.
        num_references: runs of the reference that it was compared with.
        metric: mean on the split of the table (`split_of`); None of what was not run on it.
        by_seed: the metrics that it is the mean of.
        error_increase: relative to the reference's.
        bound: one-sided lower bound on metric minus reference, oriented so that more is better.
        passes: compute of one training.
        flops: likewise.
        seconds: likewise, selection included.
        saving: against the recipe.
        saving_shorter: against the shorter schedule, where that matches.
        round: of verification, where there were several.
    """

    role: str
    title: str
    policy: str
    verdict: str
    is_subset: bool = False
    num_seeds: int | None = None
    num_references: int | None = None
    metric: float | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)
    error_increase: float | None = None
    bound: float | None = None
    passes: float | None = None
    flops: float | None = None
    seconds: float | None = None
    saving: float | None = None
    saving_shorter: float | None = None
    round: int | None = None

    @property
    def is_both(self) -> bool:
        """Whether the best policy is itself a shorter schedule on all data."""
        return self.title == TITLES["both"]

    @property
    def of_round(self) -> str:
        """Behind its name: ` (round 2)`; empty where there was one round."""
        return "" if self.round is None else f" (round {self.round})"

    @property
    def runs(self) -> str:
        """`9|5`: runs of the policy and of the reference; `5` where it is compared with nothing."""
        return runs_words(self.num_seeds, self.num_references)


MOST_OF_A_REASON = 300  # characters of why trials failed
TITLES = {
    "reference": "reference (the recipe as it is)",
    "best": "best policy",
    "shorter": "a shorter schedule on all data, by the search's settings",
    "equal": "all data for the compute of the best policy, by the search's settings",
    "own": "all data for the compute of a subset policy, by its own settings",
    "random": "random control",
    "both": "best policy: a shorter schedule on all data",
}


def split_of(view: StudyView) -> Literal["test", "validation"]:
    """The one split that the metrics of the result are of: the test split as soon as a policy was tested on it."""
    return "test" if any(row.references for row in _policy_rows(view).values()) else "validation"


def result_rows(view: StudyView) -> tuple[ResultRow, ...]:
    """The lines of the result table that are known so far, reference first."""
    best, shorter = view.summary.best, view.summary.shorter
    reference = [] if view.summary.reference is None else [_reference_row(view, view.summary.reference)]
    one = best is not None and shorter is not None and best.policy.key == shorter.policy.key
    rows = [_policy_row(view, role, row) for role, row in _policy_rows(view).items()]
    return (*reference, *(_as_both(row) if one and row.role == "best" else row for row in rows))


def _policy_rows(view: StudyView) -> dict[str, PolicyRow]:
    """The policies of the summary that have a line of their own, by role: one line is enough for one policy."""
    summary = view.summary
    best, shorter, equal = summary.best, summary.shorter, summary.equal
    is_best = best is not None and shorter is not None and best.policy.key == shorter.policy.key
    again = equal is not None and shorter is not None and equal.name == shorter.name and not is_best
    known = {row.policy.key for row in (best, shorter, equal) if row is not None}
    rows = {
        "best": best,
        "shorter": None if is_best else shorter,
        "equal": None if again else equal,
        "own": None if summary.own is None or summary.own.policy.key in known else summary.own,
        "random": summary.random,
    }
    return {role: row for role, row in rows.items() if row is not None}


def _as_both(row: ResultRow) -> ResultRow:
    """The line of a best policy that is itself a shorter schedule: it is not compared with itself."""
    return dataclasses.replace(row, title=TITLES["both"], saving_shorter=None)


def _reference_row(view: StudyView, reference: ReferenceRow) -> ResultRow:
    is_tested = split_of(view) == "test"
    validated = {run.seed: run.metric for run in view.reference if run.metric is not None}
    return ResultRow(
        role="reference",
        title=TITLES["reference"],
        policy=f"all data for {passes_words(reference.passes)} passes",
        verdict="",
        num_seeds=reference.test_seeds if is_tested else reference.seeds,
        metric=reference.test_metric if is_tested else reference.metric,
        by_seed=view.first_metrics(REFERENCE, reference.test_seeds) if is_tested else validated,
        passes=reference.passes,
        flops=reference.flops,
        seconds=reference.seconds,
    )


def _policy_row(view: StudyView, role: str, row: PolicyRow) -> ResultRow:
    by_seed = _metrics(view, row)
    return ResultRow(
        role=role,
        title=TITLES[role],
        policy=describe(row.policy, view.facts),
        verdict=_verdict(view, row),
        is_subset=row.policy.arm == SUBSET,
        num_seeds=row.seeds if row.references else len(by_seed) or None,
        num_references=row.references,
        metric=row.metric if by_seed else None,
        by_seed=by_seed,
        error_increase=row.error_increase,
        bound=row.interval,
        passes=row.passes,
        flops=row.flops,
        seconds=row.seconds,
        saving=row.saving,
        saving_shorter=_saving_shorter(view, role, row),
        round=None if row.name is None else view.manifest.round_of(row.name),
    )


def _saving_shorter(view: StudyView, role: str, row: PolicyRow) -> float | None:
    """Against the shorter schedule: neither what did not match saves anything, nor is that one to compare with."""
    shorter = view.summary.shorter
    if role == "shorter" or shorter is None or shorter.saving is None or row.saving is None:
        return None
    return 1 - row.flops / shorter.flops


def _verdict(view: StudyView, row: PolicyRow) -> str:
    candidate = view.candidate_of(row)
    is_judged = candidate is not None and (candidate.name in view.verdicts or candidate.name in view.manifest.contrasts)
    return outcome_words(view, candidate.name) if candidate is not None and is_judged else "not verified yet"


def _metrics(view: StudyView, row: PolicyRow) -> dict[int, float]:
    """The metrics that a policy's is the mean of, by seed; none of what was not run on the split of the table."""
    if split_of(view) == "test":
        return view.first_metrics(row.name, row.seeds) if row.references else {}
    same = [trial for trial in view.trials if trial.policy == row.policy and trial.cause == "finished"]
    found = {trial.seed: trial.metric for trial in same if trial.metric is not None}
    return {seed: metric for seed, metric in found.items() if metric == row.metric} if row.seeds == 1 else found


def result_table(view: StudyView) -> Table:
    """Reference, best policy, shorter schedule and controls in numbers, fit for 80 columns."""
    tolerance = view.study.task.tolerance
    titles = ("", "n", short_metric(view), "bound", "passes", "compute", "time", "saved", "vs short")
    rows = [
        (
            row.role,
            row.runs,
            metric_words(row.metric, tolerance),
            metric_words(row.bound, tolerance, signed=True),
            passes_words(row.passes),
            flops_words(row.flops, view.unit),
            short_seconds_words(row.seconds),
            saving_words(row.saving),
            saving_words(row.saving_shorter),
        )
        for row in result_rows(view)
    ]
    return Table(
        columns=tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles)),
        rows=tuple(rows),
    )


def short_metric(view: StudyView) -> str:
    """The metric as a heading that is no wider than its numbers."""
    name = metric_name(view.study.task.metric)
    return name if len(name) <= len("accuracy") else "metric"


def policy_table(view: StudyView) -> Table:
    """The verdict, the change of the error and the policy in words for each line of the result table."""
    found = result_rows(view)
    both = {row.role for row in found if row.is_both}
    words = {row.role: f"{row.policy} (a shorter schedule)" if row.role in both else row.policy for row in found}
    rows = [
        (row.role, row.verdict or NOTHING, change_words(row.error_increase), f"{words[row.role]}{row.of_round}")
        for row in found
    ]
    columns = (Column(title=""), Column(title="verdict"), Column(title="error", align="right"))
    return Table(columns=(*columns, Column(title="policy", wrap=True)), rows=tuple(rows))


def rounds_words(rows: Sequence[ResultRow]) -> str:
    """` Of round 2: best and equal; of round 1: shorter.`; empty where there was one round of verification."""
    by_round: dict[int, list[str]] = {}
    for row in rows:
        if row.round is not None:
            by_round.setdefault(row.round, []).append(row.role)
    told = "; ".join(f"of round {number}: {joined(by_round[number])}" for number in sorted(by_round, reverse=True))
    return f" {sentence(told)}." if told else ""


def legend(view: StudyView) -> str:
    """What the columns of the result table mean, in a few sentences."""
    name, heading = metric_name(view.study.task.metric), short_metric(view)
    metric = f"{name}:" if name == heading else f"{heading}: {name},"
    time = (
        f"time: of one training at the pace of this study, selection included. saved: compute against the "
        f"recipe{seconds_beside(view)}; vs "
        "short: against the cheapest schedule on all data that matches; what missed saves nothing."
    )
    if split_of(view) == "validation":
        return f"{metric} mean of n seeds on the validation split. {time}"
    direction = "" if view.study.task.higher_is_better else ", its sign turned so that more is better"
    return (
        f"{metric} mean on the test split over n runs; 9|5 are 9 of the policy, held against 5 of the reference. "
        f"bound: one-sided lower bound on the difference of the two{direction}; a policy passes when it is above "
        f"{-view.study.task.tolerance:g}. {_level_words(view)} error: change of the error against the reference's. "
        f"{time}{rounds_words(result_rows(view))}"
    )


def _level_words(view: StudyView) -> str:
    """Which lines of the result have a level, and which have none."""
    having, without = list[str](), list[str]()
    for role, row in _policy_rows(view).items():
        candidate = view.candidate_of(row)
        if candidate is not None and has_level(candidate, view.verdicts.get(candidate.name)):
            having.append(role)
        elif candidate is not None and not candidate.may_match:
            without.append(role)
    covered = f"The tests of {joined(having)}" if having else "All tests"
    told = f"{covered} err with probability {view.study.study.alpha:g} at most, together with the other tests."
    return f"{told} Of {joined(without)} nothing is claimed." if without else told


def counts_text(view: StudyView) -> str:
    """How many trials there were and what became of them."""
    trials, stops = view.summary.trials, view.summary.false_stops
    text = (
        f"Trials: {trials.finished} finished, {trials.stopped} stopped early, {trials.skipped} skipped untrained, "
        f"{trials.failed} failed or diverged."
    )
    if ended_by_itself(view):
        asked = view.study.study.trials
        text += f" The search ended by itself before {asked}: no further trial was expected to save what it costs."
    if stops.checked:
        text += f" False stops: {stops.false} of {stops.checked} stopped trials that were run out."
    return text + _failures_text(view)


def ended_by_itself(view: StudyView) -> bool:
    """Whether a finished search made fewer trials than it was asked for, because more were not worth it."""
    trials, settings = view.summary.trials, view.study.study
    tried = trials.finished + trials.stopped + trials.failed
    return view.summary.status == "finished" and tried < settings.trials and settings.time_limit_s is None


def _failures_text(view: StudyView) -> str:
    """Why trials failed: the reason that most of them give."""
    reasons = Counter(" ".join(trial.message.split()) for trial in view.trials if trial.cause == "failed")
    if not reasons:
        return ""
    reason, count = reasons.most_common(1)[0]
    told = textwrap.shorten(reason, MOST_OF_A_REASON, placeholder=" ...") or "no reason was given."
    whose = "The one that failed says" if reasons.total() == 1 else f"{count} of the {reasons.total()} that failed say"
    return f" {whose}: {told}"


def tuning_text(view: StudyView) -> str:
    """What tuning cost and how many future trainings repay it."""
    tuning, reference = view.summary.tuning, view.summary.reference
    if not tuning.flops:
        return "Tuning cost: unknown until the first run has finished."
    cost = f"{passes_words(tuning.passes)} passes, {flops_words(tuning.flops, view.unit)}"
    text = f"Tuning cost {cost}, {seconds_words(tuning.seconds)} of training, evaluation included"
    if reference is not None:
        text += f": as much as {tuning.flops / reference.flops:.1f} conventional trainings"
    if tuning.shared_flops:
        shared = flops_words(tuning.shared_flops, view.unit)
        text += f"; {shared} more, had trials that begin alike not begun from one another"
    if tuning.break_even is None:
        return f"{text}. Without a verified saving it is not repaid."
    trainings = counted(tuning.break_even, "training")
    seconds = "in time never, for none is saved"
    if tuning.break_even_seconds is not None:
        seconds = f"in time after {tuning.break_even_seconds:,}"
    return f"{text}. In compute it is repaid after {trainings} by the best policy instead of the recipe, {seconds}."


def known_before_sentences(view: StudyView) -> list[str]:
    """What earlier studies told the search, and that what it cost is not in the cost of tuning."""
    return [known.sentence for known in view.summary.known_before]


def result_blocks(view: StudyView, report: str | None = None) -> list[Block]:
    """Everything that a finished study prints: headline, result, evidence, counts, cost and where the files are."""
    blocks: list[Block] = [view.summary.headline, *beside_text(view)]
    if result_rows(view):
        blocks += [result_table(view), policy_table(view), legend(view)]
        blocks += [table] if (table := early_stop_table(view)) is not None else []
    if view.candidates:
        blocks.append(candidates_table(view))
    tables = (contrasts_table(view), stage_costs_table(view), phase_costs_table(view))
    blocks += [table for table in tables if table is not None]
    blocks += ["\n".join(sentences)] if (sentences := cost_sentences(view)) else []
    if view.trials and view.summary.components:
        blocks.append(components_table(view))
    blocks.append("\n".join([counts_text(view), tuning_text(view), *known_before_sentences(view)]))
    blocks += warning_blocks(view.manifest.data_warnings)
    places = {"Report": report, "Bundle": view.summary.bundle}
    paths = [f"{name}: {path}" for name, path in places.items() if path]
    return [*blocks, "\n".join(paths)] if paths else blocks


def beside_text(view: StudyView, *, only_limits: bool = False) -> list[str]:
    """What is to be known beside the headline: other test examples, a confirmation, earlier studies of the split.

    Args:
        view: of the study.
        only_limits: leave out what other test examples would say where that is as good.
    """
    manifest, study, tolerance = view.manifest, view.study, view.study.task.tolerance
    sampled, confirmation = manifest.sampled.get(manifest.winner or ""), manifest.confirmation
    alone = these_alone(study.task.metric) if manifest.winner else None
    of_others = alone if sampled is None else sampled.sentence(tolerance)
    if only_limits and sampled is not None and sampled.holds(tolerance):
        of_others = None
    confirmed = None if confirmation is None else confirmation.sentence(tolerance)
    place, is_confirmed = manifest.place or 1, confirmation is not None
    earlier = verified_before.sentence(place, study.study.alpha, is_confirmed=is_confirmed)
    return [one for one in (of_others, confirmed, earlier) if one is not None]


def result_text(view: StudyView, report: str | None = None, width: int = WIDTH) -> str:
    """The same as plain text."""
    return render(result_blocks(view, report), width)
