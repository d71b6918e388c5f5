"""What a study found, as tables: the result, the evidence, the counts and the cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from subsettune.report.components import components_table
from subsettune.report.data_tables import warning_blocks
from subsettune.report.render import WIDTH, Block, Column, Table, render
from subsettune.study.results import verified_before
from subsettune.study.results.headline import verdict_words
from subsettune.study.results.summary import PolicyRow, ReferenceRow
from subsettune.study.results.view import StudyView
from subsettune.text import (
    NOTHING,
    counted,
    describe,
    flops_words,
    is_number,
    metric_name,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    short_seconds_words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One line of the result: the reference, the best policy, or a control.

    Args:
        role: `reference`, `best`, `shorter`, `equal` or `random`.
        title: the role in words.
        policy: in words.
        verdict: in words.
        num_seeds: runs behind the metric.
        metric: on the test split, or before verification on the validation split.
        bound: one-sided lower bound on metric minus reference, oriented so that more is better.
        passes: compute of one training.
        flops: likewise.
        seconds: likewise, selection included.
        saving: against the recipe.
        saving_shorter: against the best shorter schedule.
    """

    role: str
    title: str
    policy: str
    verdict: str
    num_seeds: int | None = None
    metric: float | None = None
    bound: float | None = None
    passes: float | None = None
    flops: float | None = None
    seconds: float | None = None
    saving: float | None = None
    saving_shorter: float | None = None


TITLES = {
    "reference": "reference (the recipe as it is)",
    "best": "best policy",
    "shorter": "best shorter schedule on all data",
    "equal": "all data for the compute of the best policy",
    "random": "random control",
    "both": "best policy: the best shorter schedule on all data",
}


def result_rows(view: StudyView) -> tuple[ResultRow, ...]:
    """The lines of the result table that are known so far, reference first."""
    summary = view.summary
    reference = [] if summary.reference is None else [_reference_row(view, summary.reference)]
    best, shorter, equal = summary.best, summary.shorter, summary.equal
    one = best is not None and shorter is not None and best.policy.key == shorter.policy.key
    again = equal is not None and shorter is not None and equal.name == shorter.name  # one line is enough
    known = {"best": best, "shorter": None if one else shorter, "equal": equal, "random": summary.random}
    if again and not one:
        known["equal"] = None
    rows = [_policy_row(view, role, row) for role, row in known.items() if row is not None]
    return (*reference, *(_as_both(row) if one and row.role == "best" else row for row in rows))


def _as_both(row: ResultRow) -> ResultRow:
    """The line of a best policy that is itself the best shorter schedule: it is not compared with itself."""
    return dataclasses.replace(row, title=TITLES["both"], saving_shorter=None)


def _reference_row(view: StudyView, reference: ReferenceRow) -> ResultRow:
    tested = {run.seed for run in view.verification if run.candidate == "reference" and run.test_metric is not None}
    is_tested = reference.test_metric is not None
    return ResultRow(
        role="reference",
        title=TITLES["reference"],
        policy=f"all data for {passes_words(reference.passes)} passes",
        verdict="",
        num_seeds=len(tested) if is_tested else reference.seeds,
        metric=reference.test_metric if is_tested else reference.metric,
        passes=reference.passes,
        flops=reference.flops,
        seconds=reference.seconds,
    )


def _policy_row(view: StudyView, role: str, row: PolicyRow) -> ResultRow:
    return ResultRow(
        role=role,
        title=TITLES[role],
        policy=describe(row.policy, view.facts),
        verdict=_verdict(view, row),
        num_seeds=_num_seeds(view, row),
        metric=row.metric,
        bound=row.interval,
        passes=row.passes,
        flops=row.flops,
        seconds=row.seconds,
        saving=row.saving,
        saving_shorter=_saving_shorter(view, role, row),
    )


def _saving_shorter(view: StudyView, role: str, row: PolicyRow) -> float | None:
    """Against the best shorter schedule: neither what did not match saves anything, nor is that one to compare with."""
    shorter = view.summary.shorter
    if role == "shorter" or shorter is None or shorter.saving is None or row.saving is None:
        return None
    return 1 - row.flops / shorter.flops


def _verdict(view: StudyView, row: PolicyRow) -> str:
    verdict = view.verdict_of(row)
    return "not verified yet" if verdict is None else verdict.words(view.study.task.tolerance)


def _num_seeds(view: StudyView, row: PolicyRow) -> int | None:
    verdict, candidate = view.verdict_of(row), view.candidate_of(row)
    if verdict is not None and verdict.is_tested:
        return verdict.num_seeds
    if row.seeds:
        return row.seeds
    finished = [run for run in view.verification if run.cause == "finished"]
    if candidate is not None and (own := [run for run in finished if run.candidate == candidate.name]):
        return len(own)
    same = [trial for trial in view.trials if trial.policy.key == row.policy.key and trial.cause == "finished"]
    return len(same) or None


def result_table(view: StudyView) -> Table:
    """Reference, best policy, best shorter schedule and random control in numbers, fit for 80 columns."""
    tolerance = view.study.task.tolerance
    titles = ("", "n", _short_metric(view), "bound", "passes", "compute", "time", "saved", "vs short")
    rows = [
        (
            row.role,
            str(row.num_seeds or NOTHING),
            metric_words(row.metric, tolerance),
            metric_words(row.bound, tolerance, signed=True),
            passes_words(row.passes),
            flops_words(row.flops),
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


def _short_metric(view: StudyView) -> str:
    """The metric as a heading that is no wider than its numbers."""
    name = metric_name(view.study.task.metric)
    return name if len(name) <= len("accuracy") else "metric"


def policy_table(view: StudyView) -> Table:
    """The verdict and the policy in words for each line of the result table."""
    found = result_rows(view)
    both = {row.role for row in found if row.title == TITLES["both"]}
    words = {row.role: f"{row.policy} (the best shorter schedule)" if row.role in both else row.policy for row in found}
    rows = tuple((row.role, row.verdict or NOTHING, words[row.role]) for row in found)
    return Table(columns=(Column(title=""), Column(title="verdict"), Column(title="policy", wrap=True)), rows=rows)


def legend(view: StudyView) -> str:
    """What the columns of the result table mean, in one or two sentences."""
    name, heading = metric_name(view.study.task.metric), _short_metric(view)
    metric = f"{name}:" if name == heading else f"{heading}: {name},"
    split = "test" if any(verdict.is_tested for verdict in view.verdicts.values()) else "validation"
    direction = "" if view.study.task.higher_is_better else ", its sign turned so that more is better"
    return (
        f"{metric} mean of n seeds on the {split} split. bound: one-sided lower bound on the difference to the "
        f"reference with the same seeds{direction}, at a level that keeps the error rate of the candidates' tests "
        f"within {view.study.study.alpha:g}; a policy passes when it is above {-view.study.task.tolerance:g}. time: of "
        "one training, selection included. saved: compute against the recipe; vs short: against the best shorter "
        "schedule on all data; what missed saves nothing."
    )


def candidates_table(view: StudyView) -> Table:
    """One line a candidate, in the order of testing: what verification measured and decided."""
    tolerance = view.study.task.tolerance
    rows, reasons = [], []
    for name, candidate in view.candidates.items():
        verdict = view.verdicts.get(name)
        passes = candidate.cost_flops / view.facts.pass_flops if view.facts else None
        rows.append(
            (
                name,
                passes_words(passes),
                str(verdict.num_seeds if verdict is not None and verdict.is_tested else NOTHING),
                metric_words(verdict.mean_difference if verdict is not None else None, tolerance, signed=True),
                metric_words(verdict.lower_bound if verdict is not None else None, tolerance, signed=True),
                f"{-tolerance:g}",
                alpha_words(verdict.alpha_spent if verdict is not None else None),
                verdict_words(verdict, tolerance),
            )
        )
        if verdict is not None and verdict.reason:
            reasons.append(f"{name}: {verdict.reason}")
    titles = ("candidate", "passes", "n", "difference", "bound", "margin", "alpha", "verdict")
    columns = tuple(Column(title=t, align="left" if t in ("candidate", "verdict") else "right") for t in titles)
    return Table(title="Verification", columns=columns, rows=tuple(rows), note="\n".join(reasons))


def alpha_words(alpha: float | None) -> str:
    """Error rate spent on a test: `0.031`."""
    return NOTHING if alpha is None or not is_number(alpha) else f"{alpha:.3g}"


def counts_text(view: StudyView) -> str:
    """How many trials there were and what became of them."""
    trials, stops = view.summary.trials, view.summary.false_stops
    text = (
        f"Trials: {trials.finished} finished, {trials.stopped} stopped early, {trials.skipped} skipped untrained, "
        f"{trials.failed} failed or diverged."
    )
    if stops.checked:
        text += f" False stops: {stops.false} of {stops.checked} stopped trials that were run out."
    return text


def tuning_text(view: StudyView) -> str:
    """What tuning cost and how many future trainings repay it."""
    tuning, reference = view.summary.tuning, view.summary.reference
    if not tuning.flops:
        return "Tuning cost: unknown until the first run has finished."
    cost = f"{passes_words(tuning.passes)} passes, {flops_words(tuning.flops)}"
    text = f"Tuning cost {cost}, {seconds_words(tuning.seconds)} of training, evaluation included"
    if reference is not None:
        text += f": as much as {tuning.flops / reference.flops:.1f} conventional trainings"
    if tuning.break_even is None:
        return f"{text}. Without a verified saving it is not repaid."
    trainings = counted(tuning.break_even, "training")
    return f"{text}. It is repaid after {trainings} by the best policy instead of the recipe."


def result_blocks(view: StudyView, report: str | None = None) -> list[Block]:
    """Everything that a finished study prints: headline, result, evidence, counts, cost and where the files are."""
    blocks: list[Block] = [view.summary.headline, *beside_text(view)]
    if result_rows(view):
        blocks += [result_table(view), policy_table(view), legend(view)]
    if view.candidates:
        blocks.append(candidates_table(view))
    if view.trials and view.summary.components:
        blocks.append(components_table(view))
    blocks.append(f"{counts_text(view)}\n{tuning_text(view)}")
    blocks += warning_blocks(view.manifest.data_warnings)
    places = {"Report": report, "Bundle": view.summary.bundle}
    paths = [f"{name}: {path}" for name, path in places.items() if path]
    return [*blocks, "\n".join(paths)] if paths else blocks


def beside_text(view: StudyView) -> list[str]:
    """What is to be known beside the headline: other test examples, a confirmation, earlier studies of the split."""
    manifest, study, tolerance = view.manifest, view.study, view.study.task.tolerance
    sampled, confirmation = manifest.sampled.get(manifest.winner or ""), manifest.confirmation
    of_others = None if sampled is None else sampled.sentence(tolerance)
    confirmed = None if confirmation is None else confirmation.sentence(tolerance)
    place, is_confirmed = manifest.place or 1, confirmation is not None
    earlier = verified_before.sentence(place, study.study.alpha, is_confirmed=is_confirmed)
    return [one for one in (of_others, confirmed, earlier) if one is not None]


def result_text(view: StudyView, report: str | None = None, width: int = WIDTH) -> str:
    """The same as plain text."""
    return render(result_blocks(view, report), width)
